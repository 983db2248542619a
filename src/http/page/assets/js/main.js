// The beginning: words, session, stream; then whatever the address asks for.

import { Failure, get, onSessionEnd } from './api.js';
import { fill, h } from './dom.js';
import { setZone } from './format.js';
import { speak } from './i18n.js';
import { end, start, state, watch } from './live.js';
import { failed, heading } from './parts.js';
import { where } from './router.js';
import { shell } from './shell.js';
import { overview } from './views/overview.js';

/** What the first look does not need is fetched when somebody goes there. */
const VIEWS = {
  overview: async () => overview,
  meetings: async () => (await import('./views/meetings.js')).meetings,
  meeting: async () => (await import('./views/meeting.js')).meeting,
  attendance: async () => (await import('./views/attendance.js')).attendance,
  recordings: async () => (await import('./views/recordings.js')).recordings,
  events: async () => (await import('./views/events.js')).events,
  event: async () => (await import('./views/event.js')).event,
  quarantine: async () => (await import('./views/quarantine.js')).quarantine,
  actions: async () => (await import('./views/actions.js')).actions,
  search: async () => (await import('./views/search.js')).search,
};

const app = document.getElementById('app');
let frame = null;
let stopWatching = () => {};
let shown = null;
/** Whether people are masked for whoever looks: then there are none to be looked for. */
let masked = false;
/** Whether whoever looks may act. */
let operate = false;

/** Builds what stands around the views, in the language of now. */
function build(session) {
  stopWatching();
  setZone(session.time_zone);
  masked = session.right === 'masked';
  operate = session.rights.includes('operate');
  frame = shell(session, () => {
    build(session);
    show({ moved: false });
  });
  fill(app, frame.node);
  app.removeAttribute('aria-busy');
  frame.update(state);
  stopWatching = watch(frame.update);
}

/** Shows the view of the address. `moved`: the focus goes to its heading, as it would on a new page. */
async function show({ moved }) {
  const address = location.hash;
  const { name, parts, query } = where();
  const known = Object.hasOwn(VIEWS, name) ? name : 'overview';
  const way = [known, ...parts].join('/');
  const same = shown?.way === way;
  const focused = document.activeElement?.id;
  let view;
  try {
    view = await VIEWS[known]();
  } catch {
    // The file was not to be had, and nobody says why: the session tells. What a browser could not load once it may not
    // try again by itself.
    const why = await get('session').then(() => new Failure(0, null), (failure) => failure);
    view = () => ({ title: 'Convoke', node: h('div', null, heading('Convoke'), failed(why, () => location.reload())) });
  }
  if (location.hash !== address) return; // Somebody went on meanwhile, and that is shown.
  shown?.view.destroy?.();
  shown?.leaving.abort();
  const leaving = new AbortController();
  const made = view({ parts, query, masked, operate, signal: leaving.signal, announce: frame.announce, retitle: frame.setTitle, again: () => show({ moved: false }) });
  shown = { way, view: made, leaving };
  fill(frame.main, made.node);
  frame.main.dataset.way = address; // Which address this is the view of.
  frame.mark();
  frame.setTitle(made.title);
  if (!moved) return;
  if (same) {
    // Another question to the same list: whoever asked stays where they were.
    document.getElementById(focused)?.focus();
    return;
  }
  window.scrollTo(0, 0);
  frame.main.querySelector('h1')?.focus({ preventScroll: true });
}

async function begin() {
  await speak(document.documentElement.dataset.language ?? 'en');
  onSessionEnd(end);
  const session = await get('session');
  build(session);
  show({ moved: false });
  window.addEventListener('hashchange', () => { if (location.hash === '' || location.hash.startsWith('#/')) show({ moved: true }); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => window.dispatchEvent(new Event('schemechange')));
  start();
}

/** Nothing is there yet that could say so. */
function notBegun(failure) {
  app.removeAttribute('aria-busy');
  fill(app, h('main', { class: 'not-begun' }, h('h1', null, 'Convoke'), failed(failure, () => location.reload())));
}

begin().catch(notBegun);
