// `#/meeting/{subscriber}/{uuid}`: one run's story: who was there when, its recordings, its events, and the way in.

import { get, path } from '../api.js';
import { fill, h } from '../dom.js';
import { duration, number, time } from '../format.js';
import { nodes, t } from '../i18n.js';
import { pages, table } from '../list.js';
import { now, watch } from '../live.js';
import { card, empty, facts, failed, heading, loading, meetingStatus, none, person, value } from '../parts.js';
import { timeline } from '../timeline.js';
import { columns as eventColumns } from './events.js';

/** A live run is asked for again when something happens in it, at most so often; and after this time in any case. */
const SOONEST = 2_000;
const LATEST = 15_000;
/** Who is in an attended meeting is shown within a second: it is asked for so often. */
const PRESENCE_INTERVAL = 400;

export function meeting({ parts: [subscriber = '', uuid = ''], signal, announce, retitle }) {
  const title = h('span', null, t('meeting.meeting'));
  const head = heading(title);
  const place = h('div', { id: 'meeting-body' }, loading());
  const inside = h('div', { id: 'meeting-now', 'aria-live': 'off' });
  const log = card('meeting-events', t('nav.events'), null, events());
  const view = { title: t('meeting.meeting'), node: h('div', null, head, inside, place, log), destroy };
  let story = null;
  let asked = 0;
  let asking = false;
  // Who is in it now is told by the meeting itself, if it is attended.
  let attended = false;
  let askedNow = 0;
  let askingNow = false;

  async function loadNow() {
    askingNow = true;
    askedNow = performance.now();
    try {
      const next = goesOn(story.meeting) ? await get(`meetings/${path(subscriber, uuid)}/now`, {}, signal) : { state: null };
      attended = next.state === 'attending';
      fill(inside, next.state && presence(next));
    } catch {
      // The next answer shows it.
    } finally {
      askingNow = false;
    }
  }

  function events() {
    return pages({
      columns: eventColumns({ within: true }),
      caption: t('nav.events'),
      load: (cursor) => get('events', { subscriber, meeting: uuid, order: 'oldest', cursor }, signal),
      whenEmpty: () => empty(t('meeting.no_events')),
    });
  }

  async function load() {
    asking = true;
    asked = performance.now();
    try {
      const next = await get(`meetings/${path(subscriber, uuid)}`, {}, signal);
      const first = story === null;
      // The log has grown: what is shown of it is read anew, unless somebody is within it.
      if (!first && next.meeting.last_event_at !== story.meeting.last_event_at && !log.contains(document.activeElement)) log.lastChild.replaceWith(events());
      if (!first && JSON.stringify(next) === JSON.stringify(story) && !goesOn(next.meeting)) return;
      story = next;
      show(first);
    } catch (failure) {
      if (signal.aborted) return;
      if (story === null) fill(place, failed(failure, () => { fill(place, loading()); load(); }));
    } finally {
      asking = false;
    }
  }

  function show(first) {
    const name = story.meeting.subject || story.meeting.meeting_id || story.meeting.meeting_uuid;
    fill(title, h('bdi', null, name));
    if (first) {
      retitle(name);
      announce(name);
    }
    const open = place.contains(document.activeElement) ? document.activeElement.id : null;
    const stays = place.querySelector('#stays-table')?.open;
    fill(place, body(story, stays));
    if (open) document.getElementById(open)?.focus();
  }

  const stop = watch(({ message, status }) => {
    if (!message || status !== 'live' || story === null) return;
    if (!askingNow && performance.now() - askedNow > LATEST) loadNow();
    if (asking) return;
    const since = performance.now() - asked;
    const happened = message.newest.some((event) => event.meeting_uuid === uuid && event.subscriber_id === subscriber && event.received_at > (story.meeting.last_event_at ?? ''));
    if ((happened && since > SOONEST) || (goesOn(story.meeting) && since > LATEST)) load();
  });
  const refresh = setInterval(() => attended && !askingNow && !document.hidden && loadNow(), PRESENCE_INTERVAL);
  function destroy() {
    clearInterval(refresh);
    stop();
  }
  load();
  return view;
}

function body({ meeting: run, stays, stays_left_out: leftOut, recordings, open_in_client: client }, tableOpen) {
  const live = goesOn(run);
  const until = live ? now() : Date.parse(run.concluded_at ?? run.ended_at ?? run.last_event_at ?? run.first_event_at);
  const picture = timeline({ meeting: run, stays, recordings, until });
  const present = stays.filter((stay) => stay.closed_by === 'open').length;
  return [
    run.masked && h('p', { class: 'notice' }, t('masked.here')),
    h('section', { class: 'card', 'aria-label': t('meeting.facts') },
      h('div', { class: 'meeting-top' }, meetingStatus(run.status),
        client ? h('a', { class: 'button', href: client, id: 'open-in-client' }, t('meeting.open')) : null,
        client && h('span', { class: 'muted' }, t('meeting.open.more'))),
      facts([
        [t('meeting.number'), value(run.meeting_id)],
        [t('meeting.started'), time(run.started_at)],
        [t('meeting.ended'), live ? t('meeting.still_on') : time(run.ended_at)],
        [t('meeting.duration'), run.started_at ? duration((until - Date.parse(run.started_at)) / 1000) : none()],
        [t('meeting.participants'), number(run.participants), live ? ` (${t('now.people', { n: present, count: number(present) })})` : ''],
        [t('meeting.peak'), run.peak_participants === null ? none() : number(run.peak_participants)],
        [t('meeting.stays'), number(run.stays)],
        [t('meeting.scheduled'), time(run.scheduled_start_at), run.scheduled_end_at ? ' – ' : '', run.scheduled_end_at ? time(run.scheduled_end_at) : ''],
        [t('meeting.created'), time(run.created_at)],
        [t('meeting.modified'), number(run.modifications), run.modified_at ? ' · ' : '', run.modified_at ? time(run.modified_at) : ''],
        run.cancelled_at && [t('meeting.cancelled'), time(run.cancelled_at)],
        [t('meeting.concluded'), time(run.concluded_at)],
        run.host && [t('meeting.host'), value(run.host)],
        ['UUID', h('code', null, run.meeting_uuid)],
        [t('meeting.subscriber'), value(run.subscriber_id)],
      ].filter(Boolean))),
    card('stays', t('meeting.who_when'), h('span', { class: 'count' }, number(stays.length + leftOut)),
      picture ?? empty(t('meeting.no_stays'), t('meeting.no_stays.more')),
      leftOut > 0 && h('p', { class: 'notice' }, t('meeting.left_out', { n: leftOut, count: number(leftOut) })),
      stays.length > 0 && stayTable(stays, tableOpen)),
    recordings.length > 0 && card('recordings', t('meeting.recordings'), h('span', { class: 'count' }, number(recordings.length)), table(recordingColumns(), recordings, t('meeting.recordings')).node),
  ];
}

/** How it stands with what the meeting tells, and who is in it, being called or waiting. */
function presence({ state, reason, present }) {
  const flags = (one) => ['host', 'muted', 'hand_raised', 'sharing', 'speaking'].filter((flag) => one[flag]).map((flag) => t(`present.${flag}`)).join(', ');
  return card('now', t('present.title'), h('span', { class: 'count' }, number(present.filter((one) => one.place === 'in').length)),
    state !== 'attending' && h('p', { class: 'notice' }, t(`attended.${state}`), reason ? `: ${reason}` : ''),
    present.length > 0 && table([
      { label: t('event.who'), wide: true, cell: (one) => value(one.display_name ?? one.call_number) },
      { label: t('present.place'), cell: (one) => t(`present.place.${one.place}`) },
      { label: t('present.how'), cell: (one) => flags(one) || none() },
    ], present, t('present.title')).node);
}

/** Of a run that looks live and is over, the end was lost. */
function goesOn(run) {
  return run.status === 'live' && !run.over;
}

/** As it is with hundreds of stays, the table is made when it is wanted. */
function stayTable(stays, open) {
  const place = h('div');
  const details = h('details', { id: 'stays-table', class: 'figures', open, ontoggle: make }, h('summary', { id: 'stays-summary' }, t('chart.table')), place);
  function make() {
    if (details.open && !place.firstChild) fill(place, table(stayColumns(), stays, t('meeting.who_when')).node);
  }
  make();
  return details;
}

/** The columns of a list of stays; `where` adds the meeting. */
export function stayColumns({ where = false, meetingCell = null } = {}) {
  return [
    { label: t('event.who'), wide: true, cell: person },
    where && { label: t('meeting.meeting'), cell: meetingCell },
    { label: t('stay.joined'), cell: (stay) => time(stay.joined_at) },
    { label: t('stay.left'), cell: (stay) => (stay.left_at ? time(stay.left_at) : t('stay.until_now')) },
    { label: t('meeting.duration'), end: true, cell: (stay) => (stay.duration_s === null ? none() : duration(stay.duration_s)) },
    { label: t('stay.closed_by'), minor: true, cell: (stay) => t(`closed_by.${stay.closed_by}`) },
    { label: t('stay.role'), cell: (stay) => value(stay.role) },
    { label: t('stay.device'), cell: (stay) => value(stay.user_agent) },
  ].filter(Boolean);
}

/** The columns of a list of recordings. */
export function recordingColumns() {
  return [
    { label: t('recording.finished'), cell: (one) => time(one.finished_at) },
    { label: t('recording.ready'), cell: (one) => (one.ready_at ? time(one.ready_at) : nodes('recording.not_ready')) },
    { label: t('meeting.duration'), end: true, cell: (one) => (one.length_s === null ? none() : duration(one.length_s)) },
    { label: t('recording.size'), end: true, cell: (one) => (one.size_mb === null ? none() : `${number(one.size_mb)} MB`) },
    { label: t('recording.files'), end: true, cell: (one) => (one.files === null ? none() : number(one.files)) },
    { label: t('recording.watch'), cell: (one) => (one.view_url ? h('a', { href: one.view_url, target: '_blank', rel: 'noopener noreferrer' }, t('recording.open')) : none()) },
  ];
}
