// An action: first it is said what would happen, then it is confirmed, then done: once, however often the answer gets lost.

import { get, path as pathOf, post } from './api.js';
import { fill, h } from './dom.js';
import { number } from './format.js';
import { has, t } from './i18n.js';
import { failed } from './parts.js';

const POLL_INTERVAL = 2_000;

/** Names one action. `crypto.randomUUID` is not there over plain HTTP. */
function makeId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** What came of an action, or would come: `3 new, 1 too large`. */
export function counts(action) {
  const said = Object.entries(action.counts).map(([name, count]) => (has(`act.count.${name}`) ? t(`act.count.${name}`, { n: count, count: number(count) }) : `${name} ${count}`));
  return said.length > 0 ? said.join(t('act.and')) : t('act.count.none');
}

function wouldBe(kind, { count, would_change: change, at_least: more }) {
  if (change === 0 && !more) return t('act.would.none');
  const shown = more ? t('act.more_than', { count: number(change) }) : number(change);
  return t(`act.would.${kind}`, { n: change, change: shown, count: number(count) });
}

/**
 * Buttons that lead to a preview, a confirmation and an outcome, all in one place.
 * `actions`: `[{ kind, label, path, body, danger }]`, `body()` makes what is asked for, or is `null` if nothing is chosen.
 */
export function actionBar({ id, actions, nothing, signal, announce, whenDone }) {
  const place = h('div', { class: 'act-place', id: `${id}-place` });
  const buttons = actions.map((action) => h('button', { type: 'button', id: `${id}-${action.kind}`, onclick: (event) => preview(action, event.currentTarget) }, action.label));

  async function preview(action, button) {
    const asked = action.body();
    if (asked === null) return say(nothing);
    button.disabled = true;
    try {
      const found = await post(action.path, asked, signal);
      confirmation(action, asked, found, button);
    } catch (failure) {
      if (!signal.aborted) fill(place, failed(failure, () => preview(action, button)));
    } finally {
      button.disabled = false;
    }
  }

  function say(text) {
    fill(place, h('p', { class: 'notice', role: 'status' }, text));
  }

  function confirmation(action, asked, found, button) {
    const words = wouldBe(action.kind, found);
    const stays = found.entries.filter((entry) => entry.reason);
    const body = { ...asked, action_id: makeId(), confirm: true };
    const go = h('button', { type: 'button', class: action.danger ? 'danger' : 'go', id: `${id}-confirm`, onclick: () => confirmed(action, body) }, t('act.confirm', { what: action.label }));
    const back = h('button', { type: 'button', onclick() {
      fill(place);
      button.focus();
    } }, t('act.cancel'));
    const none = found.would_change === 0 && !found.at_least;
    fill(place, h('div', { class: 'notice act', role: 'group', 'aria-label': action.label },
      h('p', { id: `${id}-words`, tabindex: '-1' }, words),
      stays.length > 0 && h('ul', { class: 'act-entries' }, stays.slice(0, 10).map((entry) => h('li', null, t('act.stays', { id: entry.id }), ' ', h('span', { lang: 'en' }, entry.reason)))),
      h('div', { class: 'act-buttons' }, !none && go, back)));
    announce?.(words);
    (none ? back : go).focus();
  }

  async function confirmed(action, body) {
    for (const button of place.querySelectorAll('button')) button.disabled = true;
    try {
      await finished(action, await post(action.path, body, signal));
    } catch (failure) {
      // The same id again: what was done is not done twice.
      if (!signal.aborted) fill(place, failed(failure, () => confirmed(action, body)));
    }
  }

  async function finished(action, first) {
    let record = first;
    while (record.state === 'running') {
      say(record.total === null ? t('act.running', { done: number(record.done) }) : t('act.running_of', { done: number(record.done), total: number(record.total) }));
      await new Promise((then) => setTimeout(then, POLL_INTERVAL));
      if (signal.aborted) return;
      record = await get(`actions/${pathOf(record.action_id)}`, {}, signal);
    }
    const words = t('act.ended', { what: action.label, state: t(`act.state.${record.state}`), counts: counts(record) });
    fill(place, h('div', { class: 'notice', role: 'status', id: `${id}-done` }, h('p', { tabindex: '-1' }, words), record.message && h('p', { class: 'detail', lang: 'en' }, record.message)));
    announce?.(words);
    place.querySelector('p').focus();
    whenDone?.(record);
  }

  return h('div', { class: 'act-bar', id }, h('div', { class: 'act-buttons' }, buttons), place);
}
