// Small parts that several views use.

import { h, icon } from './dom.js';
import { has, t } from './i18n.js';
import { to } from './router.js';

/** The type of an event: a word for people where there is one, and always the name as the platform sends it. */
export function eventType(type) {
  const family = type.split('.', 1)[0] === 'record' ? 'record' : type.split('.')[1];
  const known = has(`type.${type}`);
  return h('span', { class: 'type', 'data-kind': known ? family : 'other' },
    known && h('span', { class: 'type-word' }, t(`type.${type}`)), ' ', h('code', null, type));
}

/** Who it was. What is masked or not there is a dash. */
export function person(item) {
  const name = item.display_name ?? item.account ?? item.person;
  return name ? h('bdi', { class: 'name' }, name) : none();
}

export function none() {
  return h('span', { class: 'none' }, t('none'));
}

/** A value as it is, or a dash. */
export function value(text) {
  return text === null || text === undefined || text === '' ? none() : h('bdi', null, text);
}

/** A link to a meeting's story; without a UUID there is none. */
export function meetingLink(item, text = item.subject || item.meeting_id || item.meeting_uuid) {
  if (!item.meeting_uuid) return value(item.meeting_id);
  return h('a', { href: to('meeting', [item.subscriber_id, item.meeting_uuid]) }, h('bdi', null, text));
}

/** How a run stands, with a shape beside the word. */
export function meetingStatus(status) {
  return h('span', { class: `status status-${status}` }, t(`status.${status}`));
}

/** Names and values: `[[label, node], …]`. */
export function facts(pairs) {
  return h('dl', { class: 'facts' }, pairs.map(([label, ...content]) => h('div', null, h('dt', null, label), h('dd', null, content))));
}

/** Nothing here, and why. */
export function empty(title, hint) {
  return h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), hint && h('p', null, hint));
}

export function loading() {
  return h('p', { class: 'loading', role: 'status' }, t('loading'));
}

/** What went wrong, and a way to try again. */
export function failed(failure, again) {
  if (failure.status === undefined) console.error(failure); // Ours, not the network's.
  return h('div', { class: 'failed', role: 'alert' }, icon('bad'),
    h('div', null, h('p', null, failure.sentence ?? t('failure.page')), failure.detail && h('p', { class: 'detail', lang: 'en' }, failure.detail)),
    again && h('button', { type: 'button', onclick: again }, t('again')));
}

/** A card with a heading. `aside` stands at the heading's end. */
export function card(id, title, aside, ...content) {
  return h('section', { class: 'card', 'aria-labelledby': `${id}-title`, id },
    h('header', { class: 'card-head' }, h('h2', { id: `${id}-title` }, title), aside), content);
}

/** The heading of a view; it takes the focus when the view changes. */
export function heading(title, ...beside) {
  return h('header', { class: 'view-head' }, h('h1', { tabindex: '-1' }, title), beside);
}
