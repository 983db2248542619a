// The form above a list. What it asks for stands in the address, so that a question can be sent to somebody else.

import { address } from './api.js';
import { h } from './dom.js';
import { local, moment } from './format.js';
import { t } from './i18n.js';
import { to } from './router.js';

/** Times in the address are UTC, in the field they are those that are shown. */
function toField(when) {
  const at = Date.parse(when);
  return Number.isNaN(at) ? '' : local(at);
}

/** What was typed into such a field, in UTC. */
export function fromField(text) {
  const at = moment(text);
  return Number.isNaN(at) ? '' : new Date(at).toISOString();
}

/** A field for a time, with one of the address in it. */
export function timeField(id, given, name = null) {
  return h('input', { id, name, type: 'datetime-local', value: given && toField(given) });
}

/** `fields`: `[{ name, kind: 'text' | 'time' | 'choice', options }]`; submitting leads to `view` with what was typed. */
export function filters(view, fields, query) {
  const inputs = fields.map((field) => {
    const id = `filter-${field.name}`;
    const given = query.get(field.name) ?? '';
    let input;
    if (field.kind === 'choice') {
      input = h('select', { id, name: field.name }, h('option', { value: '' }, t('filter.any')),
        field.options.map(([value, text]) => h('option', { value, selected: value === given }, text)));
    } else if (field.kind === 'time') {
      input = timeField(id, given, field.name);
    } else {
      input = h('input', { id, name: field.name, type: 'text', value: given, maxlength: '200', autocomplete: 'off', spellcheck: 'false', list: field.options && `${id}-known` });
    }
    const known = field.kind !== 'choice' && field.options && h('datalist', { id: `${id}-known` }, field.options.map((value) => h('option', { value })));
    return h('div', { class: 'field' }, h('label', { for: id }, t(`filter.${field.name}`)), input, known);
  });
  const any = fields.some((field) => query.get(field.name));
  function submit(event) {
    event.preventDefault();
    const asked = Object.fromEntries(new FormData(event.target));
    for (const field of fields) if (field.kind === 'time') asked[field.name] = fromField(asked[field.name]);
    location.hash = to(view, [], asked);
  }
  return h('form', { class: 'filters', role: 'search', 'aria-label': t('filter.label'), onsubmit: submit }, inputs,
    h('div', { class: 'field-end' }, h('button', { type: 'submit', id: 'filter-apply' }, t('filter.apply')),
      any && h('a', { href: to(view), id: 'filter-clear' }, t('filter.clear'))));
}

/** What of the query the API is asked for. */
export function asked(query, names) {
  return Object.fromEntries(names.map((name) => [name, query.get(name)]).filter(([, value]) => value));
}

/** What a list shows, whole, as files for spreadsheets. */
export function downloads(list, parameters) {
  const link = (format, name) => h('a', { id: `download-${format}`, href: address(`export/${list}`, { ...parameters, format }) }, name);
  return h('p', { class: 'downloads' }, h('span', null, t('download.as')), ' ', link('csv', 'CSV'), ' ', link('xlsx', 'Excel'));
}
