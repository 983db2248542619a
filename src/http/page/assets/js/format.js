// Numbers, times and durations, in the viewer's language and the zone of the setting.

import { locale, t } from './i18n.js';
import { h } from './dom.js';

const made = new Map();
/** That of reports.time_zone, as of the views and statistics: a day is the same wherever somebody looks. */
let timeZone = 'UTC';

/** Takes the zone in which all times are shown; the viewer's if this browser does not know it. */
export function setZone(name) {
  try {
    timeZone = new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone && name;
  } catch {
    timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
  made.clear();
}

/** One formatter of a kind and language is made once: making them costs more than using them. */
function formatter(kind, options, Format) {
  const key = `${kind} ${locale}`;
  if (!made.has(key)) made.set(key, new Format(locale, options));
  return made.get(key);
}

const date = (kind, options) => formatter(kind, { hourCycle: 'h23', timeZone, ...options }, Intl.DateTimeFormat);
const FULL = { year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit' };

/** 12,345 */
export function number(value) {
  return formatter('number', {}, Intl.NumberFormat).format(value);
}

/** 67.1 GB */
export function bytes(value) {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'];
  const power = Math.min(Math.floor(Math.log(Math.max(value, 1)) / Math.log(1000)), units.length - 1);
  const options = { style: 'unit', unit: units[power], unitDisplay: power === 0 ? 'long' : 'short', maximumSignificantDigits: 3 };
  return formatter(`bytes ${power}`, options, Intl.NumberFormat).format(value / 1000 ** power);
}

/** A date and a time, to the second. */
export function full(when) {
  return date('full', FULL).format(new Date(when));
}

/** By how many milliseconds the zone's clocks are ahead of UTC. */
export function ahead(when) {
  const parts = new Intl.DateTimeFormat('en', { timeZone, timeZoneName: 'longOffset' }).formatToParts(new Date(when));
  const [, sign, hours, minutes] = /([+-])(\d\d):(\d\d)/.exec(parts.find((part) => part.type === 'timeZoneName')?.value ?? '') ?? [];
  return sign ? Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes)) * 60_000 : 0;
}

/** What the zone's clocks show, as far as it is asked for: 2026-03-01T08:30 */
export function local(when, length = 16) {
  const at = new Date(when).getTime();
  return new Date(at + ahead(at)).toISOString().slice(0, length);
}

/** The moment at which they show this. */
export function moment(text) {
  const shown = Date.parse(`${text}Z`);
  return Number.isNaN(shown) ? NaN : shown - ahead(shown - ahead(shown));
}

/** The time if it is of today, else with its date. */
export function short(when) {
  const at = new Date(when);
  const now = Date.now();
  if (local(at.getTime(), 10) === local(now, 10)) return clock(at);
  const year = local(at.getTime(), 4) === local(now, 4) ? {} : { year: 'numeric' };
  return date(`short ${Object.keys(year)}`, { ...year, month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' }).format(at);
}

/** 08:30:05 */
export function clock(when) {
  return date('clock', { hour: '2-digit', minute: '2-digit', second: '2-digit' }).format(new Date(when));
}

/** 08:30 */
export function minute(when) {
  return date('minute', { hour: '2-digit', minute: '2-digit' }).format(new Date(when));
}

/** 1 Mar, of a day as the API names it (2026-03-01), whatever the zone. */
export function day(name) {
  return date('day', { month: 'short', day: 'numeric', timeZone: 'UTC' }).format(new Date(`${name}T00:00:00Z`));
}

/** 5 seconds, 12 min, 1 h 30 min, 2 d 3 h: the two largest units that are not nothing. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    ['day', Math.floor(whole / 86_400)],
    ['hour', Math.floor(whole / 3_600) % 24],
    ['minute', Math.floor(whole / 60) % 60],
    ['second', whole % 60],
  ];
  const first = parts.findIndex(([, value]) => value > 0);
  const shown = first < 0 ? [parts[3]] : parts.slice(first, first + 2).filter(([, value]) => value > 0);
  const unit = (name) => formatter(`unit ${name}`, { style: 'unit', unit: name, unitDisplay: 'short' }, Intl.NumberFormat);
  return shown.map(([name, value]) => unit(name).format(value)).join(' ');
}

/** 12 seconds ago; `now` is the server's, so that a clock that is wrong here makes nothing late. */
export function ago(when, now) {
  const seconds = Math.max(0, (now - Date.parse(when)) / 1000);
  const [unit, size] = [['day', 86_400], ['hour', 3_600], ['minute', 60]].find(([, size]) => seconds >= size) ?? ['second', 1];
  return formatter('ago', { numeric: 'always' }, Intl.RelativeTimeFormat).format(-Math.floor(seconds / size), unit);
}

/** The zone in which all times are shown, with its distance from UTC now. */
export function zone() {
  const name = timeZone;
  const parts = new Intl.DateTimeFormat('en', { timeZone, timeZoneName: 'shortOffset' }).formatToParts(new Date());
  const offset = (parts.find((part) => part.type === 'timeZoneName')?.value ?? '').replace('GMT', 'UTC');
  return !offset || name === 'UTC' ? name : t('time.zone', { name, offset });
}

/** A <time> of that zone; the title has UTC, to compare with logs and tables. */
export function time(when, show = short) {
  if (!when) return h('span', { class: 'none' }, t('none'));
  return h('time', { datetime: when, title: `${full(when)} · ${when}` }, show(when));
}
