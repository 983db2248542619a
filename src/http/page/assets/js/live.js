// The stream of `api/v1/live`: a message a second, each of them whole, so that nothing is kept but the newest.
//
// What breaks it is told apart by time alone: a message is late, whatever the reason, and from then on the page says
// since when it has heard nothing. Painting is done once a frame, and not at all while nobody looks.

import { get } from './api.js';

/** Messages come every second; after so long without one, what is shown is marked as old. */
const LATE = 5_000;
/** After so long the connection is given up, although it looks open. */
const LOST = 15_000;
/** A page that nobody looks at lets go of its stream after this time: browsers allow six connections to a host. */
const OUT_OF_SIGHT = 60_000;
const PAUSES = [500, 1_000, 2_000, 4_000];

/** `waiting` for the first message, `live`, `late`, or `ended` with the session. */
export const state = { status: 'waiting', message: null, heardAt: null, skew: 0 };

const watchers = new Set();
let source = null;
let openedAt = 0;
let attempts = 0;
let retry = null;
let leaving = null;
let frame = null;
let heard = 0; // By the clock that nobody sets, as are the others.
let waitingSince = 0;

/** Calls `watcher(state)` once a frame when something changed; returns how to stop that. */
export function watch(watcher) {
  watchers.add(watcher);
  if (state.message) watcher(state);
  return () => watchers.delete(watcher);
}

/** The time now by Convoke's clock. */
export function now() {
  return Date.now() + state.skew;
}

/** Begins, once. */
export function start() {
  document.addEventListener('visibilitychange', sight);
  window.addEventListener('online', () => { if (!source) open(); });
  setInterval(look, 1_000);
  open();
}

/** The session has ended: nothing is asked any more. */
export function end() {
  close();
  clearTimeout(retry);
  become('ended');
}

function open() {
  clearTimeout(retry);
  retry = null;
  if (source || state.status === 'ended') return;
  openedAt = performance.now();
  source = new EventSource('api/v1/live');
  source.addEventListener('live', receive);
  source.addEventListener('error', broken);
}

function close() {
  source?.close();
  source = null;
}

function receive(event) {
  const message = JSON.parse(event.data);
  heard = performance.now();
  attempts = 0;
  state.message = message;
  state.heardAt = Date.now();
  state.skew = Date.parse(message.health.time) - Date.now();
  // A second's way of a message is no skew worth correcting.
  if (Math.abs(state.skew) < 2_000) state.skew = 0;
  become('live');
}

/** Not left to the browser: it gives up for good when the answer is an error, which a starting Convoke gives. */
function broken() {
  close();
  if (state.status === 'ended') return;
  const pause = PAUSES[Math.min(attempts, PAUSES.length - 1)];
  attempts += 1;
  clearTimeout(retry);
  retry = setTimeout(open, pause + Math.random() * 500);
  // A stream does not say why it was refused. Asking for the session does: 401 ends everything.
  get('session').catch(() => {});
}

function look() {
  if (state.status === 'live' && performance.now() - heard > LATE) become('late');
  if (state.status === 'waiting' && performance.now() - waitingSince > LATE) become('late');
  if (source && performance.now() - Math.max(heard, openedAt) > LOST) broken();
}

function sight() {
  clearTimeout(leaving);
  if (document.hidden) {
    leaving = setTimeout(() => { close(); clearTimeout(retry); }, OUT_OF_SIGHT);
  } else {
    if (!source && state.status !== 'ended') {
      attempts = 0;
      waitingSince = performance.now();
      state.status = 'waiting';
      open();
    }
    paint();
  }
}

function become(status) {
  state.status = status;
  paint();
}

function paint() {
  if (frame !== null || document.hidden) return;
  frame = requestAnimationFrame(() => {
    frame = null;
    for (const watcher of watchers) watcher(state);
  });
}
