// Cards of the overview: one level of headings further down than those of other views.

import { h } from '../dom.js';
import { ago, short } from '../format.js';
import { t } from '../i18n.js';
import { now } from '../live.js';
import { card } from '../parts.js';

/** How long ago something was; when nothing is heard, and nothing counts on, the time at which it was. */
export function heardAgo(when, status) {
  if (!when) return t('tile.never');
  return status === 'live' ? ago(when, now()) : short(when);
}

/** Cards side by side under one heading. */
export function joined(id, title, cards) {
  return {
    node: h('section', { 'aria-labelledby': `${id}-title`, id }, h('h2', { class: 'section-title', id: `${id}-title` }, title), h('div', { class: 'pair' }, cards.map((one) => one.node))),
    update(state) { for (const one of cards) one.update(state); },
    destroy() { for (const one of cards) one.destroy?.(); },
  };
}

/** A card within a section: its heading is one level down. */
export function part(id, title, aside, ...content) {
  const made = card(id, title, aside, content);
  const head = made.querySelector('h2');
  head.replaceWith(h('h3', { id: head.id }, title));
  return made;
}
