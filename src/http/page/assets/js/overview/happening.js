// What is happening: the meetings that are on, and the events as they arrive.

import { fill, h, keyed, setAttribute, setText } from '../dom.js';
import { clock, duration, minute, number } from '../format.js';
import { t } from '../i18n.js';
import { now } from '../live.js';
import { empty, eventType, loading } from '../parts.js';
import { to } from '../router.js';
import { joined, part } from './sections.js';

export function nowPart() {
  return joined('happening', t('now.title'), [meetingsNow(), eventsNow()]);
}

function meetingsNow() {
  const total = h('span', { class: 'count' });
  const list = h('ul', { class: 'meetings-now' });
  const nothing = h('div', null, loading());
  const rest = h('p', { class: 'rest' });
  const node = part('live-meetings', t('now.meetings'), total, nothing, list, rest);
  const fit = keyed(list, () => {
    const row = { link: h('bdi'), anchor: h('a', { href: '#/' }), sub: h('span', { class: 'muted' }), people: h('strong'), peak: h('span', { class: 'muted' }) };
    row.anchor.append(row.link);
    row.element = h('li', null, h('div', { class: 'meeting-name' }, row.anchor, row.sub), h('div', { class: 'meeting-people' }, row.people, row.peak));
    return row;
  }, (row, meeting) => {
    setAttribute(row.anchor, 'href', to('meeting', [meeting.subscriber_id, meeting.meeting_uuid]));
    setText(row.link, meeting.subject || meeting.meeting_id || meeting.meeting_uuid);
    setText(row.sub, [meeting.subject && meeting.meeting_id, meeting.started_at && t('now.since', { time: minute(meeting.started_at), long: duration(Math.max(60, Math.floor((now() - Date.parse(meeting.started_at)) / 60_000) * 60)) })].filter(Boolean).join(' · '));
    setText(row.people, t('now.people', { n: meeting.participants_now, count: number(meeting.participants_now) }));
    setText(row.peak, t('now.peak', { count: number(meeting.peak_participants ?? meeting.participants_now) }));
  });
  let state = 'loading';
  function update({ message, status }) {
    setAttribute(node, 'data-old', status === 'late' || status === 'ended');
    if (!message) return;
    const { total: all, meetings } = message.live;
    const next = all === 0 ? 'empty' : 'some';
    if (next !== state) fill(nothing, next === 'empty' ? empty(t('now.no_meeting'), t('now.no_meeting.more')) : null);
    state = next;
    setText(total, all === 0 ? '' : number(all));
    fit(meetings, (meeting) => `${meeting.subscriber_id} ${meeting.meeting_uuid}`);
    setText(rest, all > meetings.length ? t('now.rest', { count: number(all - meetings.length) }) : '');
  }
  return { node, update };
}

function eventsNow() {
  const list = h('ol', { class: 'feed', 'aria-label': t('now.events') });
  const nothing = h('div', null, loading());
  const pause = h('button', { type: 'button', class: 'quiet', 'aria-pressed': 'false', id: 'feed-pause', hidden: true, onclick: toggle }, t('now.pause'));
  const node = part('feed', t('now.events'), pause, nothing, list);
  const fit = keyed(list, () => {
    const row = { at: h('time'), type: h('span', { class: 'feed-type' }), who: h('bdi', { class: 'name' }), where: h('a', { href: '#/' }), number: h('bdi'), kind: null };
    row.where.append(row.number);
    row.open = h('a', { href: '#/', class: 'feed-open' }, row.at);
    row.element = h('li', null, row.open, row.type, h('span', { class: 'feed-who' }, row.who), h('span', { class: 'feed-where' }, row.where));
    return row;
  }, (row, event) => {
    setAttribute(row.at, 'datetime', event.received_at);
    setText(row.at, clock(event.received_at));
    setAttribute(row.open, 'href', to('event', [event.event_id]));
    if (row.kind !== event.event) fill(row.type, eventType(event.event));
    row.kind = event.event;
    setText(row.who, event.display_name ?? event.account ?? '');
    setAttribute(row.where, 'href', event.meeting_uuid ? to('meeting', [event.subscriber_id, event.meeting_uuid]) : null);
    setText(row.number, event.meeting_id ?? event.meeting_uuid ?? '');
  });
  let paused = false;
  let state = 'loading';
  function toggle() {
    paused = !paused;
    setAttribute(pause, 'aria-pressed', String(paused));
    setText(pause, t(paused ? 'now.go_on' : 'now.pause'));
  }
  function update({ message, status }) {
    setAttribute(node, 'data-old', status === 'late' || status === 'ended');
    if (!message || paused) return;
    const next = message.newest.length === 0 ? 'empty' : 'some';
    if (next !== state) fill(nothing, next === 'empty' ? empty(t('now.no_event'), t('now.no_event.more')) : null);
    state = next;
    pause.hidden = next === 'empty';
    fit(message.newest, (event) => event.event_id);
  }
  return { node, update };
}
