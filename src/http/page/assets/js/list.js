// A list of the API as a table, page by page. On a narrow screen each row is a card; the roles are written out, since a
// browser forgets what a table is when its parts are laid out as blocks.

import { append, fill, h } from './dom.js';
import { number } from './format.js';
import { t } from './i18n.js';
import { failed, loading } from './parts.js';

/** More rows than this help nobody, and cost the browser: the range is to be narrowed. */
const MOST_ROWS = 2_000;

/**
 * `[{ label, cell, end, wide, minor }]`: `cell(item)` makes the content, `end` aligns numbers, `minor` has no
 * place on a narrow screen, the first column heads its row. */
export function table(columns, items, caption) {
  const head = columns.map((column) => h('th', { role: 'columnheader', scope: 'col', class: column.end && 'end' }, column.label));
  const body = h('tbody', { role: 'rowgroup' });
  const made = h('table', { role: 'table', class: 'list' },
    h('caption', { class: 'hidden-text' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, head)), body);
  const add = (more) => append(body, more.map((item) => h('tr', { role: 'row' }, columns.map((column, index) => {
    const attributes = { class: [column.end && 'end', column.wide && 'wide', column.minor && 'minor'].filter(Boolean).join(' ') || null, 'data-label': column.label };
    const cell = h('div', { class: 'cell' }, column.cell(item));
    return index === 0 ? h('th', { role: 'rowheader', scope: 'row', ...attributes }, cell) : h('td', { role: 'cell', ...attributes }, cell);
  }))));
  add(items);
  return { node: made, add };
}

/** A table that is filled by `load(cursor)` → `{ items, next }`, with a button for more. */
export function pages({ columns, caption, load, whenEmpty, announce }) {
  const place = h('div', { class: 'pages' }, loading());
  let rows = null;
  let count = 0;

  async function page(cursor, button) {
    if (button) button.disabled = true;
    try {
      const { items, next } = await load(cursor);
      if (rows) rows.add(items);
      else if (items.length > 0) fill(place, (rows = table(columns, items, caption)).node);
      else return void (fill(place, whenEmpty()), announce?.(t('list.nothing')));
      count += items.length;
      foot(next);
    } catch (failure) {
      if (failure.name === 'AbortError') return;
      if (rows) place.querySelector('.list-foot')?.replaceWith(failed(failure, (event) => again(event, cursor)));
      else fill(place, failed(failure, () => { fill(place, loading()); page(null); }));
    }
  }

  function again(event, cursor) {
    event.target.closest('.failed').replaceWith(h('p', { class: 'list-foot' }));
    page(cursor);
  }

  function foot(next) {
    const old = place.querySelector('.list-foot');
    const had = old?.contains(document.activeElement);
    const shown = t(next ? 'list.so_far' : 'list.all', { n: count, count: number(count) });
    const more = next && count < MOST_ROWS && h('button', { type: 'button', onclick: (event) => page(next, event.target) }, t('list.more'));
    const made = h('div', { class: 'list-foot' }, h('p', { tabindex: '-1' }, shown, next && count >= MOST_ROWS && ` ${t('list.too_many')}`), more);
    if (old) old.replaceWith(made);
    else place.append(made);
    announce?.(shown);
    if (had) (more || made.firstChild).focus();
  }

  page(null);
  return place;
}
