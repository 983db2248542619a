// `#/events`: the log, newest first, as far as one cares to look.

import { get } from '../api.js';
import { h } from '../dom.js';
import { time } from '../format.js';
import { t } from '../i18n.js';
import { asked, downloads, filters } from '../filters.js';
import { pages } from '../list.js';
import { watch } from '../live.js';
import { empty, eventType, heading, meetingLink, person } from '../parts.js';
import { to } from '../router.js';

const TYPES = [
  'meeting.create', 'meeting.modify', 'meeting.cancel', 'meeting.started', 'meeting.join', 'meeting.left', 'meeting.end',
  'meeting.conclude', 'record.finish', 'record.ready',
];

/** The columns of a list of events; `within` a meeting the column of meetings says nothing. */
export function columns({ within = false } = {}) {
  return [
    { label: t('event.occurred'), cell: (one) => h('a', { href: to('event', [one.event_id]) }, time(one.occurred_at)) },
    { label: t('event.type'), cell: (one) => eventType(one.event) },
    !within && { label: t('meeting.meeting'), cell: (one) => meetingLink(one, one.meeting_id ?? one.meeting_uuid) },
    { label: t('event.who'), wide: true, cell: (one) => person(one) },
    { label: t('event.source'), minor: true, cell: (one) => t(`source.${one.source}`) },
    { label: t('event.received'), minor: true, cell: (one) => time(one.received_at) },
  ].filter(Boolean);
}

export function events({ query, masked, signal, announce, again }) {
  const fields = [
    { name: 'event', kind: 'text', options: TYPES },
    { name: 'meeting', kind: 'text' },
    !masked && { name: 'person', kind: 'text' },
    { name: 'source', kind: 'choice', options: ['push', 'backfill', 'platform'].map((source) => [source, t(`source.${source}`)]) },
    { name: 'since', kind: 'time' },
    { name: 'until', kind: 'time' },
  ].filter(Boolean);
  const parameters = asked(query, [...fields.map((field) => field.name), 'subscriber']);
  let newest = null;
  const fresh = h('p', { class: 'fresh', hidden: true }, h('button', { type: 'button', onclick: again }, t('events.newer')));
  const stop = watch(({ message }) => {
    const last = message?.newest[0]?.seq;
    if (newest !== null && last > newest && !parameters.until) fresh.hidden = false;
  });
  return {
    title: t('nav.events'),
    destroy: stop,
    node: h('div', null, heading(t('nav.events')), filters('events', fields, query), downloads('events', parameters), fresh, pages({
      columns: columns(),
      caption: t('nav.events'),
      announce,
      async load(cursor) {
        const page = await get('events', { ...parameters, cursor }, signal);
        newest ??= Math.max(0, ...page.items.map((one) => one.seq));
        return page;
      },
      whenEmpty: () => (Object.keys(parameters).length > 0 ? empty(t('list.none'), t('list.none.more')) : empty(t('now.no_event'), t('now.no_event.more'))),
    })),
  };
}
