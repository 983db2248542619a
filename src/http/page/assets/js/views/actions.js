// `#/actions`: what operators did, and, for who may, a replay.

import { get } from '../api.js';
import { actionBar, counts } from '../act.js';
import { fill, h } from '../dom.js';
import { fromField, timeField } from '../filters.js';
import { number, time } from '../format.js';
import { nodes, t } from '../i18n.js';
import { table } from '../list.js';
import { card, empty, failed, heading, loading } from '../parts.js';

export function actions({ query, operate, signal, announce }) {
  const place = h('div', { id: 'actions-list' }, loading());
  async function load() {
    try {
      const { items } = await get('actions', {}, signal);
      fill(place, items.length > 0 ? table(columns(), items, t('actions.recent')).node : empty(t('actions.none')));
    } catch (failure) {
      if (!signal.aborted) fill(place, failed(failure, () => { fill(place, loading()); load(); }));
    }
  }
  load();
  return {
    title: t('nav.actions'),
    node: h('div', null, heading(t('nav.actions')), h('p', { class: 'lead' }, nodes(operate ? 'actions.lead' : 'actions.lead_viewer')),
      operate && replayCard(query, signal, announce, load),
      card('actions-recent', t('actions.recent'), null, place)),
  };
}

function columns() {
  return [
    { label: t('actions.begun'), cell: (one) => time(one.begun_at) },
    { label: t('actions.what'), wide: true, cell: (one) => what(one.work) },
    { label: t('actions.who'), cell: (one) => h('bdi', null, one.who) },
    { label: t('actions.state'), cell: (one) => t(`act.state.${one.state}`) },
    { label: t('actions.done'), end: true, cell: (one) => (one.total === null || one.total === one.done ? number(one.done) : `${number(one.done)} / ${number(one.total)}`) },
    { label: t('actions.came'), wide: true, cell: (one) => [counts(one), one.message && h('span', { class: 'muted', lang: 'en' }, ' ', one.message)] },
  ];
}

function what(work) {
  const parts = [t(`actions.kind.${work.action}`)];
  if (work.missing) parts.push(t('actions.missing'));
  for (const name of ['event', 'meeting']) if (work[name]) parts.push(work[name]);
  if (work.ids?.length > 0) parts.push(work.ids.map((id) => `#${id}`).join(' '));
  const range = [work.since && [t('filter.since'), ' ', time(work.since)], work.until && [t('filter.until'), ' ', time(work.until)]].filter(Boolean);
  return [h('bdi', null, parts.join(' · ')), range.map((part) => [' ', part])];
}

function replayCard(query, signal, announce, whenDone) {
  const field = (name, input) => h('div', { class: 'field' }, h('label', { for: input.id }, t(`filter.${name}`)), input);
  const text = (name) => h('input', { id: `replay-${name}`, type: 'text', value: query.get(name) ?? '', maxlength: '200', autocomplete: 'off', spellcheck: 'false' });
  const [meeting, event, since, until] = [text('meeting'), text('event'), timeField('replay-since', query.get('since')), timeField('replay-until', query.get('until'))];
  const again = h('input', { id: 'replay-again', type: 'checkbox' });
  const range = () => {
    const asked = { meeting: meeting.value.trim(), event: event.value.trim(), since: fromField(since.value), until: fromField(until.value) };
    const kept = Object.fromEntries(Object.entries(asked).filter(([, given]) => given));
    return Object.keys(kept).length > 0 ? { ...kept, again: again.checked } : null;
  };
  return card('replay', t('actions.replay'), null,
    h('p', { class: 'muted' }, t('actions.replay.more')),
    h('div', { class: 'filters' }, field('meeting', meeting), field('event', event), field('since', since), field('until', until)),
    h('p', { class: 'check' }, again, h('label', { for: 'replay-again' }, t('actions.again'))),
    actionBar({
      id: 'replays',
      nothing: t('actions.choose_range'),
      signal,
      announce,
      whenDone,
      actions: [
        { kind: 'replay', label: t('actions.replay_range'), path: 'replay', body: range },
        { kind: 'missing', label: t('actions.replay_missing'), path: 'replay', body: () => ({ missing: true }) },
      ],
    }));
}
