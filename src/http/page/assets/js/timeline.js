// Who was there when: a bar for each stay, a line for each person. The table of stays says the same to who does not see it.

import { h } from './dom.js';
import { ahead, clock, full, minute } from './format.js';
import { t } from './i18n.js';

/** So many lines at first; the rest comes when it is asked for. */
const LINES = 60;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080].map((minutes) => minutes * 60_000);

/** Stays of one person are one line, in the order in which people came. */
function lines(stays) {
  const people = new Map();
  for (const stay of [...stays].sort((a, b) => Date.parse(a.joined_at) - Date.parse(b.joined_at))) {
    const key = stay.person ?? stay.participant_id ?? stay.stay_id;
    if (!people.has(key)) people.set(key, { name: stay.display_name ?? stay.account ?? stay.person, stays: [] });
    people.get(key).stays.push(stay);
  }
  return [...people.values()];
}

/** Ticks at round times of the zone's day. */
function ticks(from, to) {
  const step = STEPS.find((one) => (to - from) / one <= 6) ?? STEPS.at(-1);
  const shift = -ahead(from);
  const made = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) made.push(at);
  return made;
}

/** The picture of a run; `until` is now while it is live. */
export function timeline({ meeting, stays, recordings, until }) {
  const timed = stays.filter((stay) => stay.joined_at ?? stay.left_at);
  const begin = (stay) => Date.parse(stay.joined_at ?? stay.left_at);
  const end = (stay) => (stay.left_at ? Date.parse(stay.left_at) : until);
  const starts = timed.map(begin);
  const ends = timed.map(end);
  const marks = [meeting.started_at, meeting.ended_at, ...recordings.map((one) => one.finished_at)].filter(Boolean).map((at) => Date.parse(at));
  if (starts.length + marks.length === 0) return null;
  const from = Math.min(...starts, ...marks);
  const to = Math.max(...ends, ...marks, from + 60_000);
  const place = (at) => `${(((at - from) / (to - from)) * 100).toFixed(3)}%`;

  function positioned(attributes, at, end) {
    const made = h('span', attributes);
    made.style.setProperty('left', place(at));
    if (end !== undefined) made.style.setProperty('width', `max(3px, ${(((end - at) / (to - from)) * 100).toFixed(3)}%)`);
    return made;
  }

  function bar(stay, lane) {
    const [begun, over] = [begin(stay), end(stay)];
    const title = `${full(begun)} – ${stay.left_at ? clock(over) : t('stay.until_now')}${stay.user_agent ? ` · ${stay.user_agent}` : ''}`;
    const made = positioned({ class: `bar bar-${stay.closed_by}`, title }, begun, over);
    made.style.setProperty('--lane', lane);
    return made;
  }

  /** Stays at the same time, on two devices, lie one below the other. */
  function bars(own) {
    const taken = [];
    const made = own.map((stay) => {
      const free = taken.findIndex((until) => until <= begin(stay));
      const lane = free < 0 ? taken.length : free;
      taken[lane] = end(stay);
      return bar(stay, lane);
    });
    const track = h('span', { class: 'line-track' }, made);
    track.style.setProperty('--lanes', taken.length);
    return track;
  }

  function line({ name, stays: own }) {
    return h('div', { class: 'line' }, h('span', { class: 'line-name' }, h('bdi', null, name ?? t('none'))), bars(own));
  }

  const scale = ticks(from, to);
  const axis = h('div', { class: 'line line-axis' }, h('span'), h('span', { class: 'line-track' }, scale.map((at) => {
    const tick = positioned({ class: 'tick' }, at);
    tick.append(h('span', null, minute(at)));
    return tick;
  })));
  const all = lines(timed);
  const rows = h('div', { class: 'lines' }, all.slice(0, LINES).map(line));
  const recorded = recordings.filter((one) => one.finished_at).map((one) => positioned({ class: 'mark', title: `${t('meeting.recording_finished')} ${full(one.finished_at)}` }, Date.parse(one.finished_at)));
  const last = recorded.length > 0 && h('div', { class: 'line line-marks' }, h('span', { class: 'line-name' }, t('meeting.recordings')), h('span', { class: 'line-track' }, recorded));
  const picture = h('div', { class: 'timeline', 'aria-hidden': 'true' }, axis, rows, last);
  const more = all.length > LINES && h('button', { type: 'button', onclick(event) {
    rows.append(...all.slice(LINES).map(line));
    event.target.remove();
  } }, t('meeting.all_lines', { n: all.length, count: all.length }));
  return h('div', { class: 'timeline-frame' }, picture, more,
    h('ul', { class: 'legend', 'aria-hidden': 'true' }, ['left', 'meeting_end', 'rejoin', 'open'].map((how) => h('li', null, h('span', { class: `bar bar-${how}` }), t(`closed_by.${how}`)))));
}
