// `#/quarantine` and `#/quarantine/{id}`: signed bodies of which no event could be made, and why.

import { get, path } from '../api.js';
import { fill, h } from '../dom.js';
import { bytes, number, time } from '../format.js';
import { nodes, t } from '../i18n.js';
import { pages } from '../list.js';
import { empty, facts, failed, heading, loading, value } from '../parts.js';
import { to } from '../router.js';

export function quarantine({ parts: [id], signal, announce }) {
  return id ? entry(id, signal) : all(signal, announce);
}

function all(signal, announce) {
  return {
    title: t('nav.quarantine'),
    node: h('div', null, heading(t('nav.quarantine')), h('p', { class: 'lead' }, nodes('quarantine.lead')), pages({
      caption: t('nav.quarantine'),
      announce,
      columns: [
        { label: t('quarantine.entry'), cell: (one) => h('a', { href: to('quarantine', [String(one.id)]) }, t('quarantine.why', { id: one.id })) },
        { label: t('quarantine.reason'), wide: true, cell: (one) => h('span', { lang: 'en' }, one.reason) },
        { label: t('event.received'), cell: (one) => time(one.received_at) },
        { label: t('event.deliveries'), end: true, cell: (one) => number(one.deliveries) },
        { label: t('quarantine.size'), end: true, cell: (one) => bytes(one.bytes) },
        { label: t('meeting.subscriber'), cell: (one) => value(one.subscriber_id) },
      ],
      load: (cursor) => get('quarantine', { cursor }, signal),
      whenEmpty: () => empty(t('quarantine.none'), t('quarantine.none.more')),
    })),
  };
}

function entry(id, signal) {
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
  return { title, node: h('div', null, heading(title), place) };
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
