// What stands behind it: cursors, refusals, subscribers.

import { fill, h, keyed, setAttribute, setText } from '../dom.js';
import { duration, number } from '../format.js';
import { has, t } from '../i18n.js';
import { empty } from '../parts.js';
import { heardAgo, joined, part } from './sections.js';

export function behindPart() {
  return joined('behind', t('behind.title'), [cursorsPart(), refusedPart(), subscribersPart()]);
}

/** A list of things, each with a heading and a few named figures. */
function things(id, title, hint, figures, nothing) {
  const list = h('ul', { class: 'things' });
  const none = h('div');
  const node = part(id, title, null, hint && h('p', { class: 'muted' }, hint), none, list);
  const fit = keyed(list, () => {
    const cells = Object.fromEntries(figures.map((figure) => [figure, h('dd')]));
    const name = h('strong');
    const more = h('p', { class: 'muted' });
    return { element: h('li', null, h('div', { class: 'thing-name' }, name, more), h('dl', null, figures.map((figure) => h('div', null, h('dt', null, t(`${id}.${figure}`)), cells[figure])))), name, more, cells };
  }, (made, { title: called, more, values }) => {
    setText(made.name, called);
    setText(made.more, more ?? '');
    for (const figure of figures) setText(made.cells[figure], values[figure]);
  });
  let shownNothing = false;
  return {
    node,
    show(items, status) {
      setAttribute(node, 'data-old', status === 'late' || status === 'ended');
      if ((items.length === 0) !== shownNothing) fill(none, (shownNothing = items.length === 0) && nothing());
      fit(items, (item) => item.key);
    },
  };
}

function cursorsPart() {
  const list = things('cursors', t('cursors.title'), t('cursors.hint'), ['lag', 'age', 'position', 'owner'], () => empty(t('cursors.none')));
  return {
    node: list.node,
    update({ message, status }) {
      if (!message) return;
      list.show(message.health.cursors.map((cursor) => ({
        key: cursor.name,
        title: cursor.name,
        more: has(`cursor.${cursor.name}`) ? t(`cursor.${cursor.name}`) : '',
        values: {
          lag: t('cursors.events', { n: cursor.lag_events, count: number(cursor.lag_events) }),
          age: duration(cursor.lag_seconds),
          position: number(cursor.position),
          owner: cursor.owner ?? t('cursors.nobody'),
        },
      })), status);
    },
  };
}

function refusedPart() {
  const list = things('refused', t('refused.title'), null, ['times'], () => empty(t('refused.none'), t('refused.none.more')));
  return {
    node: list.node,
    update({ message, status }) {
      if (!message) return;
      const reasons = Object.entries(message.refusals.by_reason).filter(([, times]) => times > 0).sort((a, b) => b[1] - a[1]);
      list.show(reasons.map(([reason, times]) => ({
        key: reason,
        title: reason,
        more: has(`refusal.${reason}`) ? t(`refusal.${reason}`) : '',
        values: { times: number(times) },
      })), status);
    },
  };
}

function subscribersPart() {
  const list = things('subscribers', t('subscribers.title'), null, ['last_event', 'last_handshake'], () => empty(t('subscribers.none')));
  return {
    node: list.node,
    update({ message, status }) {
      if (!message) return;
      list.show(message.health.subscribers.map((one) => ({
        key: one.subscriber_id,
        title: one.name || one.subscriber_id,
        more: one.name ? one.subscriber_id : '',
        values: { last_event: heardAgo(one.last_event_at, status), last_handshake: heardAgo(one.last_handshake_at, status) },
      })), status);
    },
  };
}
