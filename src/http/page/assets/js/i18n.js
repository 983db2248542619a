// Words. A dictionary is data: strings with {names} in them, or, where a number decides, an object of plural forms.

import { append } from './dom.js';

let words = {};
let plurals = new Intl.PluralRules('en');

/** `en` or `zh`. */
export let language = 'en';

/** What Intl is told: the viewer's own English if that is what the browser speaks. */
export let locale = 'en-GB';

/** Loads a dictionary and speaks it from now on. */
export async function speak(wanted) {
  const loaded = wanted === 'zh' ? await import('./lang/zh.js') : await import('./lang/en.js');
  words = loaded.default;
  language = wanted;
  locale = wanted === 'zh' ? 'zh-CN' : navigator.languages?.find((name) => /^en\b/i.test(name)) ?? 'en-GB';
  plurals = new Intl.PluralRules(locale);
  document.documentElement.lang = wanted === 'zh' ? 'zh-CN' : 'en';
  document.documentElement.dataset.language = wanted;
}

/** Speaks another language, and remembers it. */
export async function choose(wanted) {
  remember('convoke.language', wanted);
  await speak(wanted);
}

/** Whether there are words for this. */
export function has(key) {
  return Object.hasOwn(words, key);
}

function pattern(key, values) {
  const found = words[key];
  if (typeof found === 'object') return found[plurals.select(values?.n ?? 0)] ?? found.other;
  return found ?? key;
}

/** The words for `key`, with values put in. `n` decides the plural; `{count}` shows it as the caller formatted it. */
export function t(key, values) {
  return pattern(key, values).replace(/\{(\w+)\}/g, (whole, name) => values?.[name] ?? whole);
}

/** The same as nodes, for values that are elements. `code` in back quotes becomes <code>. */
export function nodes(key, values) {
  const made = [];
  for (const part of pattern(key, values).split(/(\{\w+\}|`[^`]+`)/)) {
    const value = part.startsWith('{') ? values?.[part.slice(1, -1)] : undefined;
    if (value instanceof Node) made.push(value.cloneNode(true)); // It may occur twice.
    else if (value !== undefined) made.push(value);
    else if (part.startsWith('`')) made.push(append(document.createElement('code'), part.slice(1, -1)));
    else if (part) made.push(part);
  }
  return made;
}

/** Keeps a choice; without storage it lasts as long as the page. */
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // Switched off: nothing to do about it.
  }
}
