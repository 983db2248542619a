// What happened: three charts.

import { get } from '../api.js';
import { chart, highest } from '../chart.js';
import { h, setAttribute } from '../dom.js';
import { day, full, minute, number } from '../format.js';
import { t } from '../i18n.js';
import { failed } from '../parts.js';

export function chartsPart(signal) {
  const seconds = (at) => Date.parse(at) / 1000;
  const moment = (x) => minute(x * 1000);
  const dated = (x) => full(x * 1000).replace(/:\d\d$/, '');
  const best = (key) => (points) => (points.length === 0 ? t('chart.nothing') : t(key, { count: number(highest(points)[1]), time: moment(highest(points)[0]), now: number(points.at(-1)[1]) }));
  const perMinute = chart({ id: 'chart-events', title: t('chart.events'), kind: 'line', label: dated, tick: moment, sentence: best('chart.highest'), column: t('chart.minute') });
  const people = chart({ id: 'chart-participants', title: t('chart.participants'), kind: 'line', label: dated, tick: moment, sentence: best('chart.highest'), column: t('chart.moment') });
  let days = [];
  const name = (x) => (days[x] ? day(days[x].day) : '');
  const daily = chart({
    id: 'chart-meetings', title: t('chart.meetings'), kind: 'bars', ordinal: true, label: name, tick: name, column: t('chart.day'),
    sentence: () => (days.length === 0 ? t('chart.nothing') : t('chart.sum', { count: number(days.reduce((sum, one) => sum + one.meetings, 0)), days: number(days.length) })),
  });
  const charts = [perMinute, people, daily];
  let minutes = [];

  async function load(which, path, parameters, show) {
    try {
      show((await get(path, parameters, signal)).points);
    } catch (failure) {
      if (!signal.aborted) which.failed(failed(failure, () => load(which, path, parameters, show)));
    }
  }
  function loadAll() {
    load(perMinute, 'stats/events', {}, (points) => perMinute.set((minutes = points.map(({ at, events }) => [seconds(at), events]))));
    load(people, 'stats/participants', {}, (points) => people.set(points.map(({ at, participants }) => [seconds(at), participants])));
    load(daily, 'stats/meetings', {}, (points) => {
      days = points;
      daily.set(points.map(({ meetings }, index) => [index, meetings]));
    });
  }
  loadAll();
  // The two slow ones change slowly; the first is kept by the stream, and asked again after a gap in that.
  const timer = setInterval(() => { if (!document.hidden) loadAll(); }, 60_000);
  let before = 'live';

  function update({ message, status }) {
    setAttribute(node, 'data-old', status === 'late' || status === 'ended');
    if (!message) return;
    if (status !== 'live') {
      before = status;
      return;
    }
    if (before !== 'live') loadAll();
    before = 'live';
    const at = seconds(message.minute.at);
    const last = minutes.at(-1);
    if (!last || at < last[0] || (at === last[0] && message.minute.events === last[1])) return;
    if (at === last[0]) last[1] = message.minute.events;
    else minutes.push([at, message.minute.events]);
    while (minutes.length > 60) minutes.shift();
    perMinute.set(minutes, { quietly: true });
  }
  const node = h('section', { 'aria-labelledby': 'happened-title', id: 'happened' }, h('h2', { class: 'section-title', id: 'happened-title' }, t('chart.title')),
    h('div', { class: 'charts' }, charts.map((one) => one.node)));
  return {
    node,
    update,
    destroy() {
      clearInterval(timer);
      for (const one of charts) one.destroy();
    },
  };
}
