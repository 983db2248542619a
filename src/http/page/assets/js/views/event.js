// `#/event/{event_id}`: one event, whole.

import { get, path } from '../api.js';
import { fill, h } from '../dom.js';
import { number, time } from '../format.js';
import { nodes, t } from '../i18n.js';
import { eventType, facts, failed, heading, loading, meetingLink, value } from '../parts.js';

export function event({ parts: [id = ''], signal }) {
  const place = h('div', { id: 'event-body' }, loading());
  async function load() {
    try {
      fill(place, body(await get(`events/${path(id)}`, {}, signal)));
    } catch (failure) {
      if (!signal.aborted) fill(place, failed(failure, () => { fill(place, loading()); load(); }));
    }
  }
  load();
  return { title: t('event.title'), node: h('div', null, heading(t('event.title')), place) };
}

function body(one) {
  const forgotten = one.forgotten_at && h('p', { class: 'notice' }, t('event.forgotten'), ' ', time(one.forgotten_at));
  const masked = one.masked && h('p', { class: 'notice' }, t('masked.here'));
  return [forgotten, masked, h('div', { class: 'card' }, facts([
    [t('event.type'), eventType(one.event)],
    [t('event.occurred'), time(one.occurred_at)],
    [t('event.received'), time(one.received_at)],
    [t('meeting.meeting'), meetingLink(one, one.meeting_id ?? one.meeting_uuid)],
    ['meeting_uuid', value(one.meeting_uuid)],
    ['meeting_cycle_sub_id', value(one.meeting_cycle_sub_id)],
    ['display_name', value(one.display_name)],
    ['account', value(one.account)],
    ['user_uuid', value(one.user_uuid)],
    ['participant_id', value(one.participant_id)],
    ['call_number', value(one.call_number)],
    ['role', value(one.role)],
    ['user_agent', value(one.user_agent)],
    ['join_time', time(one.join_time)],
    ['left_time', time(one.left_time)],
    [t('event.source'), t(`source.${one.source}`)],
    [t('event.deliveries'), number(one.deliveries)],
    [t('event.last_delivered'), time(one.last_delivered_at)],
    ['subscriber_id', value(one.subscriber_id)],
    ['event_id', h('code', null, one.event_id)],
    ['seq', number(one.seq)],
    ['request_id', value(one.request_id)],
  ])), h('section', { class: 'card', 'aria-labelledby': 'event-info-title' }, h('header', { class: 'card-head' }, h('h2', { id: 'event-info-title' }, 'event_info')),
    one.event_info === null ? h('p', { class: 'muted' }, nodes(one.forgotten_at ? 'event.info_forgotten' : 'event.info_masked'))
      : h('pre', { tabindex: '0' }, typeof one.event_info === 'string' ? one.event_info : JSON.stringify(one.event_info, null, 2)))];
}
