// What stands around every view: the name, the ways, the search, what is heard, and the viewer's choices.

import { append, fill, h, icon, setAttribute, setText } from './dom.js';
import { clock, zone } from './format.js';
import { choose, language, remember, t } from './i18n.js';
import { state } from './live.js';
import { to, where } from './router.js';
import { verdict } from './verdict.js';

const WAYS = ['overview', 'meetings', 'attendance', 'recordings', 'events', 'quarantine', 'actions'];
/** Views that belong to a way of the menu. */
const UNDER = { meeting: 'meetings', event: 'events' };

/** Builds it; `redraw` is called when the language was changed. */
export function shell(session, redraw) {
  const announcer = h('div', { class: 'hidden-text', 'aria-live': 'polite', id: 'announcer' });
  const main = h('main', { id: 'main', tabindex: '-1' });
  const pulse = h('a', { href: '#/', class: 'pulse', id: 'pulse' });
  const banner = h('div', { class: 'banner', role: 'status', id: 'banner', hidden: true });
  const links = Object.fromEntries(WAYS.map((way) => [way, h('a', { href: to(way) }, t(`nav.${way}`))]));
  const q = h('input', { type: 'search', name: 'q', id: 'search-field', maxlength: '200', placeholder: t(session.right === 'masked' ? 'search.placeholder_masked' : 'search.placeholder'), 'aria-label': t('search.label'), autocomplete: 'off', spellcheck: 'false' });

  const node = append(document.createDocumentFragment(),
    h('a', { class: 'skip', href: '#main', onclick: skip }, t('skip')),
    h('header', { class: 'top' },
      h('div', { class: 'top-row' },
        h('a', { class: 'brand', href: '#/' }, 'Convoke'), pulse,
        h('div', { class: 'choices' }, languageChoice(redraw), session.token_required && leave())),
      h('div', { class: 'top-row' },
        h('nav', { 'aria-label': t('nav.label') }, h('ul', null, WAYS.map((way) => h('li', null, links[way])))),
        h('form', { class: 'search', role: 'search', 'aria-label': t('search.label'), onsubmit: find }, q, h('button', { type: 'submit' }, t('search.go')))),
      banner),
    main,
    h('footer', { class: 'foot' },
      h('p', { id: 'zone' }, t('time.all', { zone: zone() })),
      session.right === 'masked' && h('p', { id: 'masked-note' }, t(session.token_required ? 'masked' : 'masked.no_token')),
      h('p', { class: 'foot-end' }, h('label', { for: 'scheme' }, t('scheme.label')), ' ', schemeChoice()),
      h('p', null, `Convoke ${session.version}`)),
    announcer);

  function skip(event) {
    event.preventDefault(); // The hash is the way we are on; it is not to change.
    main.focus();
  }

  function find(event) {
    event.preventDefault();
    const asked = q.value.trim();
    if (asked) location.hash = to('search', [], { q: asked });
    else q.focus();
  }

  /** Marks the way we are on, and shows what is searched for. */
  function mark() {
    const { name, query } = where();
    for (const way of WAYS) setAttribute(links[way], 'aria-current', way === (UNDER[name] ?? name) ? 'page' : null);
    if (name === 'search') q.value = query.get('q') ?? '';
    else if (document.activeElement !== q) q.value = '';
  }

  let shown = null;
  function update({ status, message, heardAt }) {
    const { level } = verdict(state);
    const well = status === 'live' ? `pulse.${level}` : `pulse.${status}`;
    if (well !== shown) {
      setAttribute(pulse, 'data-level', level);
      fill(pulse, icon(level), h('span', null, t(well)));
    }
    const changed = well !== shown;
    shown = well;
    const newer = message && message.health.version !== session.version;
    const says = status === 'late' ? t('banner.late', { time: heardAt ? clock(heardAt) : t('none') }) : status === 'ended' ? t('banner.ended') : newer ? t('banner.newer', { version: message.health.version }) : '';
    banner.hidden = says === '';
    if (!says) {
      fill(banner);
    } else if (banner.dataset.says !== says) {
      fill(banner, icon(status === 'live' ? 'note' : 'warn'), h('span', null, says), status !== 'late' && h('a', { href: './', onclick: reload }, t(status === 'ended' ? 'banner.sign_in' : 'banner.reload')));
    }
    banner.dataset.says = says;
    if (changed) setTitle();
  }

  let title = '';
  /** The title leads with what is wrong, to be seen in a row of tabs. */
  function setTitle(next = title) {
    title = next;
    const { level } = verdict(state);
    const mark = level === 'bad' ? '✕ ' : level === 'warn' ? '! ' : state.status === 'late' ? '? ' : '';
    document.title = `${mark}${title} · Convoke`;
  }

  let said = null;
  function announce(text) {
    clearTimeout(said);
    said = setTimeout(() => setText(announcer, text), 150); // What follows at once replaces it.
  }
  return { node, main, mark, update, announce, setTitle };
}

function reload(event) {
  event.preventDefault();
  location.reload();
}

function schemeChoice() {
  const chosen = document.documentElement.dataset.scheme ?? 'auto';
  return h('select', { id: 'scheme', onchange(event) {
    const scheme = event.target.value;
    if (scheme === 'auto') delete document.documentElement.dataset.scheme;
    else document.documentElement.dataset.scheme = scheme;
    remember('convoke.scheme', scheme === 'auto' ? null : scheme);
    window.dispatchEvent(new Event('schemechange'));
  } }, ['auto', 'light', 'dark'].map((scheme) => h('option', { value: scheme, selected: scheme === chosen }, t(`scheme.${scheme}`))));
}

/** Named in the language that it leads to. */
function languageChoice(redraw) {
  const [other, name, tag] = language === 'zh' ? ['en', 'English', 'en'] : ['zh', '中文', 'zh-CN'];
  return h('button', { type: 'button', id: 'language', lang: tag, async onclick() {
    await choose(other);
    redraw();
    document.getElementById('language').focus();
  } }, name);
}

function leave() {
  return h('form', { method: 'post', action: 'session/end' }, h('button', { type: 'submit', id: 'sign-out' }, t('sign_out')));
}
