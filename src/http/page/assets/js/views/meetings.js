// `#/meetings`: runs, newest first.

import { get } from '../api.js';
import { h } from '../dom.js';
import { number, time } from '../format.js';
import { t } from '../i18n.js';
import { asked, downloads, filters } from '../filters.js';
import { pages } from '../list.js';
import { empty, heading, meetingLink, meetingStatus, value } from '../parts.js';

const STATUS = ['live', 'scheduled', 'ended', 'concluded', 'cancelled'];

/** The columns of a list of runs. */
export function columns() {
  return [
    { label: t('meeting.meeting'), wide: true, cell: (one) => [meetingLink(one), one.subject && h('span', { class: 'muted' }, ' ', h('bdi', null, one.meeting_id))] },
    { label: t('meeting.status'), cell: (one) => meetingStatus(one.status) },
    { label: t('meeting.started'), cell: (one) => time(one.started_at ?? one.scheduled_start_at) },
    { label: t('meeting.ended'), cell: (one) => time(one.concluded_at ?? one.ended_at ?? one.cancelled_at) },
    { label: t('meeting.participants'), end: true, cell: (one) => number(one.participants) },
    { label: t('meeting.peak'), end: true, cell: (one) => (one.peak_participants === null ? value(null) : number(one.peak_participants)) },
    { label: t('meeting.recordings'), end: true, cell: (one) => number(one.recordings) },
  ];
}

export function meetings({ query, masked, signal, announce }) {
  const fields = [
    { name: 'status', kind: 'choice', options: STATUS.map((status) => [status, t(`status.${status}`)]) },
    { name: 'meeting', kind: 'text' },
    !masked && { name: 'person', kind: 'text' },
    { name: 'since', kind: 'time' },
    { name: 'until', kind: 'time' },
  ].filter(Boolean);
  const parameters = asked(query, [...fields.map((field) => field.name), 'subscriber']);
  return {
    title: t('nav.meetings'),
    node: h('div', null, heading(t('nav.meetings')), filters('meetings', fields, query), downloads('meetings', parameters), pages({
      columns: columns(),
      caption: t('nav.meetings'),
      announce,
      load: (cursor) => get('meetings', { ...parameters, cursor }, signal),
      whenEmpty: () => (Object.keys(parameters).length > 0 ? empty(t('list.none'), t('list.none.more')) : empty(t('meetings.none'), t('meetings.none.more'))),
    })),
  };
}
