// `#/attendance`: who was in which meeting, when and for how long; of one person, if somebody is asked for.

import { get } from '../api.js';
import { h } from '../dom.js';
import { asked, downloads, filters } from '../filters.js';
import { t } from '../i18n.js';
import { pages } from '../list.js';
import { empty, heading, meetingLink } from '../parts.js';
import { stayColumns } from './meeting.js';

const CLOSED_BY = ['left', 'meeting_end', 'rejoin', 'open'];

export function attendance({ query, masked, signal, announce }) {
  const fields = [
    !masked && { name: 'person', kind: 'text' },
    { name: 'meeting', kind: 'text' },
    { name: 'closed_by', kind: 'choice', options: CLOSED_BY.map((way) => [way, t(`closed_by.${way}`)]) },
    { name: 'since', kind: 'time' },
    { name: 'until', kind: 'time' },
  ].filter(Boolean);
  const parameters = asked(query, [...fields.map((field) => field.name), 'subscriber']);
  const person = parameters.person;
  const title = person ? t('attendance.of', { person }) : t('nav.attendance');
  return {
    title,
    node: h('div', null, heading(person ? [t('attendance.person'), ' ', h('bdi', { class: 'query' }, person)] : title),
      h('p', { class: 'lead' }, t(masked ? 'attendance.lead_masked' : 'attendance.lead')),
      filters('attendance', fields, query), downloads('attendance', parameters), pages({
        columns: stayColumns({ where: true, meetingCell: (stay) => meetingLink(stay, stay.meeting_id ?? stay.meeting_uuid) }),
        caption: title,
        announce,
        load: (cursor) => get('attendance', { ...parameters, cursor }, signal),
        whenEmpty: () => (Object.keys(parameters).length > 0 ? empty(t('list.none'), t('list.none.more')) : empty(t('attendance.none'), t('attendance.none.more'))),
      })),
  };
}
