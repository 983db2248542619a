// `#/quarantine` and `#/quarantine/{id}`: signed bodies of which no event could be made, and why.

import { actionBar } from '../act.js';
import { get, path } from '../api.js';
import { fill, h } from '../dom.js';
import { bytes, number, time } from '../format.js';
import { nodes, t } from '../i18n.js';
import { pages } from '../list.js';
import { empty, facts, failed, heading, loading, value } from '../parts.js';
import { to } from '../router.js';

const MOST_CHOSEN = 100;

export function quarantine({ parts: [id], signal, announce, operate, again }) {
  return id ? entry(id, { signal, announce, operate }) : all({ signal, announce, operate, again });
}

/** What can be done with the entries that `ids()` names. */
function bar(ids, { signal, announce, whenDone, everything }) {
  const chosen = (more) => () => {
    const named = ids();
    return named.length > 0 && named.length <= MOST_CHOSEN ? { ids: named, ...more() } : null;
  };
  const unit = h('select', { id: 'retry-unit' }, h('option', { value: '' }, t('quarantine.unit.none')),
    ['seconds', 'microseconds', 'received'].map((name) => h('option', { value: name }, t(`quarantine.unit.${name}`))));
  const reading = () => (unit.value ? { unit: unit.value } : {});
  return h('div', { class: 'card' },
    h('p', { class: 'check' }, h('label', { for: 'retry-unit' }, t('quarantine.unit')), ' ', unit),
    actionBar({
      id: 'entries',
      nothing: t('quarantine.choose', { count: number(MOST_CHOSEN) }),
      signal,
      announce,
      whenDone,
      actions: [
        { kind: 'retry', label: t('quarantine.retry'), path: 'quarantine/retry', body: chosen(reading) },
        everything && { kind: 'retry_all', label: t('quarantine.retry_all'), path: 'quarantine/retry', body: () => ({ all: true, ...reading() }) },
        { kind: 'discard', label: t('quarantine.discard'), path: 'quarantine/discard', body: chosen(() => ({})), danger: true },
      ].filter(Boolean),
    }));
}

function all({ signal, announce, operate, again }) {
  const chosen = new Set();
  const choose = (one) => h('input', { type: 'checkbox', 'aria-label': t('quarantine.choose_one', { id: one.id }), onchange(event) {
    if (event.target.checked) chosen.add(one.id);
    else chosen.delete(one.id);
  } });
  const done = h('p', { class: 'fresh', hidden: true }, h('button', { type: 'button', onclick: again }, t('quarantine.reload')));
  return {
    title: t('nav.quarantine'),
    node: h('div', null, heading(t('nav.quarantine')), h('p', { class: 'lead' }, nodes('quarantine.lead')),
      operate && bar(() => [...chosen], { signal, announce, everything: true, whenDone: () => { done.hidden = false; } }), done, pages({
      caption: t('nav.quarantine'),
      announce,
      columns: [
        operate && { label: t('quarantine.chosen'), cell: choose },
        { label: t('quarantine.entry'), cell: (one) => h('a', { href: to('quarantine', [String(one.id)]) }, t('quarantine.why', { id: one.id })) },
        { label: t('quarantine.reason'), wide: true, cell: (one) => h('span', { lang: 'en' }, one.reason) },
        { label: t('event.received'), cell: (one) => time(one.received_at) },
        { label: t('event.deliveries'), end: true, cell: (one) => number(one.deliveries) },
        { label: t('quarantine.size'), end: true, cell: (one) => bytes(one.bytes) },
        { label: t('meeting.subscriber'), cell: (one) => value(one.subscriber_id) },
      ].filter(Boolean),
      load: (cursor) => get('quarantine', { cursor }, signal),
      whenEmpty: () => empty(t('quarantine.none'), t('quarantine.none.more')),
    })),
  };
}

function entry(id, { signal, announce, operate }) {
  const place = h('div', { id: 'quarantine-body' }, loading());
  async function load() {
    try {
      fill(place, body(await get(`quarantine/${path(id)}`, {}, signal)));
    } catch (failure) {
      if (!signal.aborted) fill(place, failed(failure, () => { fill(place, loading()); load(); }));
    }
  }
  load();
  const title = t('quarantine.title', { id });
  return { title, node: h('div', null, heading(title), operate && bar(() => [Number(id)].filter(Number.isInteger), { signal, announce, whenDone: load }), place) };
}

function body(one) {
  return [
    one.masked && h('p', { class: 'notice' }, t('masked.here')),
    h('div', { class: 'card' }, facts([
      [t('quarantine.reason'), h('strong', { lang: 'en' }, one.reason)],
      [t('quarantine.reading'), h('span', { lang: 'en' }, one.reading)],
      [t('event.received'), time(one.received_at)],
      [t('event.deliveries'), number(one.deliveries)],
      [t('quarantine.size'), bytes(one.bytes)],
      [t('meeting.subscriber'), value(one.subscriber_id)],
    ]), h('p', { class: 'muted' }, nodes('quarantine.todo', { id: h('code', null, String(one.id)) }))),
    h('section', { class: 'card', 'aria-labelledby': 'body-title' }, h('header', { class: 'card-head' }, h('h2', { id: 'body-title' }, t('quarantine.body'))),
      one.body === null ? h('p', { class: 'muted' }, t('quarantine.body_masked')) : h('pre', { tabindex: '0' }, one.body)),
  ];
}
