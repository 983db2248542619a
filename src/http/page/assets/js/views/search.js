// `#/search?q=`: a meeting by its number or UUID, a person by any handle.

import { get } from '../api.js';
import { fill, h } from '../dom.js';
import { number } from '../format.js';
import { t } from '../i18n.js';
import { table } from '../list.js';
import { card, empty, failed, heading, loading, meetingLink } from '../parts.js';
import { to } from '../router.js';
import { stayColumns } from './meeting.js';
import { columns } from './meetings.js';

export function search({ query, masked, signal, announce }) {
  const hint = t(masked ? 'search.hint_masked' : 'search.hint');
  const q = (query.get('q') ?? '').trim();
  const place = h('div', { id: 'results' }, q ? loading() : empty(t('search.nothing_asked'), hint));
  async function load() {
    try {
      const { meetings, stays } = await get('search', { q }, signal);
      announce(t('search.found', { n: meetings.length + stays.length, count: number(meetings.length + stays.length) }));
      fill(place, results(q, meetings, stays, hint));
    } catch (failure) {
      if (!signal.aborted) fill(place, failed(failure, () => { fill(place, loading()); load(); }));
    }
  }
  if (q) load();
  const title = q ? t('search.title', { q }) : t('search.label');
  return { title, node: h('div', null, heading(q ? [t('search.for'), ' ', h('bdi', { class: 'query' }, q)] : t('search.label')), place) };
}

function results(q, meetings, stays, hint) {
  if (meetings.length + stays.length === 0) return empty(t('search.none'), hint);
  return [
    meetings.length > 0 && card('found-meetings', t('search.meetings'), h('span', { class: 'count' }, number(meetings.length)), table(columns(), meetings, t('search.meetings')).node,
      meetings.length >= 20 && h('p', { class: 'list-foot' }, h('a', { href: to('meetings', [], { meeting: q }) }, t('search.all_meetings')))),
    stays.length > 0 && card('found-stays', t('search.stays'), h('span', { class: 'count' }, number(stays.length)),
      table(stayColumns({ where: true, meetingCell: (stay) => meetingLink(stay, stay.meeting_id ?? stay.meeting_uuid) }), stays, t('search.stays')).node,
      h('p', { class: 'list-foot' }, h('a', { href: to('attendance', [], { person: q }) }, t('search.attendance_of')), ' ', h('a', { href: to('meetings', [], { person: q }) }, t('search.meetings_of')), ' ', h('a', { href: to('events', [], { person: q }) }, t('search.events_of')))),
  ];
}
