// The sentence at the top: is it well, and if not, what there is to do.

import { append, fill, h, icon, keyed, setAttribute, setText } from '../dom.js';
import { bytes, clock, duration, full, number } from '../format.js';
import { nodes, t } from '../i18n.js';
import { to } from '../router.js';
import { verdict } from '../verdict.js';

/** Values of a finding, as they are read. */
function shown(values) {
  const made = { ...values };
  if ('n' in values) made.count = number(values.n);
  if ('events' in values) made.events = number(values.events);
  if ('seconds' in values) made.time = duration(values.seconds);
  if ('left' in values) made.left = values.left === null ? t('none') : duration(values.left);
  if ('bytes' in values) made.bytes = bytes(values.bytes);
  return made;
}

export function verdictPart(announce) {
  const sign = h('div', { class: 'verdict-sign' });
  const title = h('h1', { tabindex: '-1', id: 'verdict-title' });
  const sentence = h('p', { id: 'verdict-sentence' });
  const list = h('ul', { class: 'findings' });
  const node = h('section', { class: 'verdict', id: 'verdict', 'aria-labelledby': 'verdict-title' }, sign, h('div', { class: 'verdict-words' }, title, sentence, list));
  let said = null;
  let level = null;

  const fit = keyed(list, () => {
    const place = h('span', { class: 'finding-sign' });
    const what = h('strong');
    const todo = h('span', { class: 'finding-do' });
    return { element: h('li', null, place, h('div', null, what, ' ', todo)), place, what, todo, weight: null, key: null };
  }, (row, { weight, key, values }) => {
    if (row.weight !== weight) fill(row.place, icon(weight));
    setText(row.what, t(key, shown(values)));
    if (row.key !== key) fill(row.todo, nodes(`${key}.do`, shown(values)));
    if (row.key !== key && key === 'finding.quarantine') append(row.todo, ' ', h('a', { href: to('quarantine') }, t('nav.quarantine')));
    [row.weight, row.key] = [weight, key];
  });

  function update(state) {
    const judged = verdict(state);
    const most = judged.found.filter((one) => one.weight !== 'note').length;
    if (judged.level !== level) {
      level = judged.level;
      setAttribute(node, 'data-level', level);
      fill(sign, icon(level));
    }
    setText(title, t(judged.key, { n: most, count: number(most), time: state.heardAt ? clock(state.heardAt) : '' }));
    setText(sentence, t(`${judged.key}.more`, { time: state.heardAt ? full(state.heardAt) : t('none') }));
    fit(judged.found, (one) => `${one.key} ${one.values.cursor ?? ''}`);
    // Told once when it changes, not with every second.
    const telling = `${judged.key} ${judged.found.map((one) => one.key)}`;
    if (said !== null && said !== telling && state.status !== 'waiting') announce(`${title.textContent}. ${judged.found.map((one) => t(one.key, shown(one.values))).join(' ')}`);
    if (state.status !== 'waiting') said = telling;
  }
  return { node, update };
}
