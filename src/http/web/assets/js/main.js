// The beginning: words, session, stream; then whatever the address asks for.

import { get, onSessionEnd } from './api.js';
import { fill, h } from './dom.js';
import { speak } from './i18n.js';
import { end, start, state, watch } from './live.js';
import { failed } from './parts.js';
import { where } from './router.js';
import { shell } from './shell.js';
import { event } from './views/event.js';
import { events } from './views/events.js';
import { meeting } from './views/meeting.js';
import { meetings } from './views/meetings.js';
import { overview } from './views/overview.js';
import { quarantine } from './views/quarantine.js';
import { search } from './views/search.js';

const VIEWS = { overview, meetings, meeting, events, event, quarantine, search };

const app = document.getElementById('app');
let frame = null;
let stopWatching = () => {};
let shown = null;

/** Builds what stands around the views, in the language of now. */
function build(session) {
  stopWatching();
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
function show({ moved }) {
  const { name, parts, query } = where();
  const view = VIEWS[name] ?? overview;
  const same = shown?.name === name && shown.way === parts.join('/');
  const focused = document.activeElement?.id;
  shown?.view.destroy?.();
  shown?.leaving.abort();
  const leaving = new AbortController();
  const made = view({ parts, query, signal: leaving.signal, announce: frame.announce, retitle: frame.setTitle, again: () => show({ moved: false }) });
  shown = { name, way: parts.join('/'), view: made, leaving };
  fill(frame.main, made.node);
  frame.main.dataset.way = location.hash; // Which address this is the view of.
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
