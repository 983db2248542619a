// `#/`: is it well, what is happening, what happened. Everything but the charts comes with each message of the stream.

import { get } from '../api.js';
import { chart, highest } from '../chart.js';
import { append, fill, h, icon, keyed, setAttribute, setText } from '../dom.js';
import { ago, bytes, clock, day, duration, full, minute, number } from '../format.js';
import { has, nodes, t } from '../i18n.js';
import { now, watch } from '../live.js';
import { card, empty, eventType, failed, loading } from '../parts.js';
import { to } from '../router.js';
import { verdict } from '../verdict.js';

const DAY = 86_400;

export function overview({ signal, announce }) {
  const parts = [verdictPart(announce), tilesPart(), nowPart(), chartsPart(signal), behindPart()];
  const stop = watch((state) => { for (const part of parts) part.update(state); });
  for (const part of parts) part.update({ status: 'waiting', message: null });
  return {
    title: t('nav.overview'),
    node: h('div', { class: 'overview' }, parts.map((part) => part.node)),
    destroy() {
      stop();
      for (const part of parts) part.destroy?.();
    },
  };
}

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

function verdictPart(announce) {
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

/** One figure: what it is, how it stands, and a word more. */
function tile(key) {
  const sign = h('span', { class: 'tile-sign' });
  const main = h('span', { class: 'tile-value' });
  const more = h('span', { class: 'tile-more' });
  const node = h('div', { class: 'tile', id: `tile-${key}` }, h('dt', null, t(`tile.${key}`)), h('dd', null, h('span', { class: 'tile-main' }, sign, main), more));
  let level;
  return {
    node,
    more,
    show(how, text, extra = '') {
      if (how !== level) fill(sign, how ? icon(how) : null);
      level = how;
      setText(main, text);
      if (typeof extra === 'string') setText(more, extra);
    },
  };
}

function tilesPart() {
  const names = ['accepting', 'clock', 'database', 'bus', 'last_event', 'rate', 'subscription', 'disk', 'quarantine', 'refused'];
  const tiles = Object.fromEntries(names.map((name) => [name, tile(name)]));
  const bar = h('span', { class: 'clock-bar', hidden: true }, h('span', { class: 'clock-gone' }));
  tiles.clock.node.lastChild.append(bar);
  const node = h('section', { 'aria-labelledby': 'state-title', id: 'state' }, h('h2', { id: 'state-title', class: 'hidden-text' }, t('state.title')),
    h('dl', { class: 'tiles' }, names.map((name) => tiles[name].node)));

  function update({ message, status }) {
    setAttribute(node, 'data-old', status === 'late' || status === 'ended');
    if (!message) {
      for (const name of names) tiles[name].show(null, '…');
      return;
    }
    const { health, rate, refusals } = message;
    tiles.accepting.show(health.accepting ? 'ok' : 'bad', t(health.stopping ? 'tile.stopping' : health.accepting ? 'yes' : 'no'),
      health.accepting ? t('tile.accepting.more') : t('tile.since', { time: duration(health.not_accepting_seconds) }));
    dropClock(health);
    tiles.database.show(health.database.reachable ? 'ok' : 'bad', t(health.database.reachable ? 'tile.reachable' : 'tile.unreachable'), health.database.name);
    const bus = health.bus;
    tiles.bus.show(!bus.enabled ? 'note' : bus.connected ? 'ok' : 'warn', t(!bus.enabled ? 'tile.off' : bus.connected ? 'tile.connected' : 'tile.disconnected'),
      bus.enabled ? bus.stream ?? '' : t('tile.bus.off'));
    tiles.last_event.show(null, health.last_event_at ? ago(health.last_event_at, now()) : t('tile.never'), health.last_event_at ? full(health.last_event_at) : '');
    tiles.rate.show(null, t('tile.per_second', { count: number(rate.events_last_second) }), t('tile.this_minute', { count: number(message.minute.events) }));
    const { watched, status: standing } = health.subscription;
    const good = standing === 'enabled' ? 'ok' : standing === 'unknown' || standing === null ? 'warn' : 'bad';
    tiles.subscription.show(watched ? good : 'note', watched ? t(`subscription.${standing ?? 'unknown'}`) : t('tile.unwatched'), watched ? '' : t('tile.subscription.more'));
    const free = health.disk_free_bytes;
    tiles.disk.show(free === null ? 'note' : free < 2 ** 28 ? 'bad' : free < 2 ** 30 ? 'warn' : 'ok', free === null ? t('tile.elsewhere') : bytes(free), t(free === null ? 'tile.disk.more' : 'tile.free'));
    tiles.quarantine.show(health.quarantined > 0 ? 'warn' : 'ok', number(health.quarantined), t('tile.quarantine.more'));
    tiles.refused.show(refusals.total > 0 ? 'note' : 'ok', number(refusals.total), t('tile.refused.more', { minutes: number(refusals.minutes) }));
  }

  /** The platform drops an event 24 h after its first try: how much of that is gone. */
  function dropClock(health) {
    const gone = health.not_accepting_seconds;
    const left = health.seconds_until_drop ?? DAY - gone;
    if (health.accepting) {
      tiles.clock.show('ok', t('tile.clock.stands'), t('tile.clock.more'));
    } else {
      const level = left <= DAY / 2 ? 'bad' : 'warn';
      const least = health.not_accepting_is_lower_bound ? t('tile.clock.least') : '';
      tiles.clock.show(level, left > 0 ? t('tile.clock.left', { time: duration(left) }) : t('tile.clock.over'), `${t('tile.clock.gone', { time: duration(gone) })} ${least}`.trim());
    }
    bar.hidden = health.accepting;
    bar.firstChild.style.setProperty('width', `${Math.min(100, Math.max(1, (gone / DAY) * 100))}%`);
  }
  return { node, update };
}

function nowPart() {
  return joined('happening', t('now.title'), [meetingsNow(), eventsNow()]);
}

/** Cards side by side under one heading. */
function joined(id, title, cards) {
  return {
    node: h('section', { 'aria-labelledby': `${id}-title`, id }, h('h2', { class: 'section-title', id: `${id}-title` }, title), h('div', { class: 'pair' }, cards.map((one) => one.node))),
    update(state) { for (const one of cards) one.update(state); },
    destroy() { for (const one of cards) one.destroy?.(); },
  };
}

/** A card within a section: its heading is one level down. */
function part(id, title, aside, ...content) {
  const made = card(id, title, aside, content);
  const head = made.querySelector('h2');
  head.replaceWith(h('h3', { id: head.id }, title));
  return made;
}

function meetingsNow() {
  const total = h('span', { class: 'count' });
  const list = h('ul', { class: 'meetings-now' });
  const nothing = h('div', null, loading());
  const rest = h('p', { class: 'rest' });
  const node = part('live-meetings', t('now.meetings'), total, nothing, list, rest);
  const fit = keyed(list, () => {
    const row = { link: h('bdi'), anchor: h('a', { href: '#/' }), sub: h('span', { class: 'muted' }), people: h('strong'), peak: h('span', { class: 'muted' }) };
    row.anchor.append(row.link);
    row.element = h('li', null, h('div', { class: 'meeting-name' }, row.anchor, row.sub), h('div', { class: 'meeting-people' }, row.people, row.peak));
    return row;
  }, (row, meeting) => {
    setAttribute(row.anchor, 'href', to('meeting', [meeting.subscriber_id, meeting.meeting_uuid]));
    setText(row.link, meeting.subject || meeting.meeting_id || meeting.meeting_uuid);
    setText(row.sub, [meeting.subject && meeting.meeting_id, meeting.started_at && t('now.since', { time: minute(meeting.started_at), long: duration(Math.max(60, Math.floor((now() - Date.parse(meeting.started_at)) / 60_000) * 60)) })].filter(Boolean).join(' · '));
    setText(row.people, t('now.people', { n: meeting.participants_now, count: number(meeting.participants_now) }));
    setText(row.peak, t('now.peak', { count: number(meeting.peak_participants ?? meeting.participants_now) }));
  });
  let state = 'loading';
  function update({ message, status }) {
    setAttribute(node, 'data-old', status === 'late' || status === 'ended');
    if (!message) return;
    const { total: all, meetings } = message.live;
    const next = all === 0 ? 'empty' : 'some';
    if (next !== state) fill(nothing, next === 'empty' ? empty(t('now.no_meeting'), t('now.no_meeting.more')) : null);
    state = next;
    setText(total, all === 0 ? '' : number(all));
    fit(meetings, (meeting) => `${meeting.subscriber_id} ${meeting.meeting_uuid}`);
    setText(rest, all > meetings.length ? t('now.rest', { count: number(all - meetings.length) }) : '');
  }
  return { node, update };
}

function eventsNow() {
  const list = h('ol', { class: 'feed', 'aria-label': t('now.events') });
  const nothing = h('div', null, loading());
  const pause = h('button', { type: 'button', class: 'quiet', 'aria-pressed': 'false', id: 'feed-pause', hidden: true, onclick: toggle }, t('now.pause'));
  const node = part('feed', t('now.events'), pause, nothing, list);
  const fit = keyed(list, () => {
    const row = { at: h('time'), type: h('span', { class: 'feed-type' }), who: h('bdi', { class: 'name' }), where: h('a', { href: '#/' }), number: h('bdi'), kind: null };
    row.where.append(row.number);
    row.open = h('a', { href: '#/', class: 'feed-open' }, row.at);
    row.element = h('li', null, row.open, row.type, h('span', { class: 'feed-who' }, row.who), h('span', { class: 'feed-where' }, row.where));
    return row;
  }, (row, event) => {
    setAttribute(row.at, 'datetime', event.received_at);
    setText(row.at, clock(event.received_at));
    setAttribute(row.open, 'href', to('event', [event.event_id]));
    if (row.kind !== event.event) fill(row.type, eventType(event.event));
    row.kind = event.event;
    setText(row.who, event.display_name ?? event.account ?? '');
    setAttribute(row.where, 'href', event.meeting_uuid ? to('meeting', [event.subscriber_id, event.meeting_uuid]) : null);
    setText(row.number, event.meeting_id ?? event.meeting_uuid ?? '');
  });
  let paused = false;
  let state = 'loading';
  function toggle() {
    paused = !paused;
    setAttribute(pause, 'aria-pressed', String(paused));
    setText(pause, t(paused ? 'now.go_on' : 'now.pause'));
  }
  function update({ message, status }) {
    setAttribute(node, 'data-old', status === 'late' || status === 'ended');
    if (!message || paused) return;
    const next = message.newest.length === 0 ? 'empty' : 'some';
    if (next !== state) fill(nothing, next === 'empty' ? empty(t('now.no_event'), t('now.no_event.more')) : null);
    state = next;
    pause.hidden = next === 'empty';
    fit(message.newest, (event) => event.event_id);
  }
  return { node, update };
}

function chartsPart(signal) {
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
    load(daily, 'stats/meetings', { utc_offset_minutes: -new Date().getTimezoneOffset() }, (points) => {
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
    if (!message || status !== 'live') return void (before = status === 'waiting' ? before : status);
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

function behindPart() {
  return joined('behind', t('behind.title'), [cursorsPart(), refusedPart(), subscribersPart()]);
}

function row(...names) {
  const cells = Object.fromEntries(names.map((name) => [name, h('dd')]));
  return cells;
}

/** A list of things, each with a heading and a few named figures. */
function things(id, title, hint, figures, nothing) {
  const list = h('ul', { class: 'things' });
  const none = h('div');
  const node = part(id, title, null, hint && h('p', { class: 'muted' }, hint), none, list);
  const fit = keyed(list, () => {
    const cells = row(...figures);
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
  const since = (when) => (when ? ago(when, now()) : t('tile.never'));
  return {
    node: list.node,
    update({ message, status }) {
      if (!message) return;
      list.show(message.health.subscribers.map((one) => ({
        key: one.subscriber_id,
        title: one.name || one.subscriber_id,
        more: one.name ? one.subscriber_id : '',
        values: { last_event: since(one.last_event_at), last_handshake: since(one.last_handshake_at) },
      })), status);
    },
  };
}
