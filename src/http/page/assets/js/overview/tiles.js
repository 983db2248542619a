// The figures below it, one look each.

import { fill, h, icon, setAttribute, setText } from '../dom.js';
import { bytes, duration, full, number } from '../format.js';
import { t } from '../i18n.js';
import { heardAgo } from './sections.js';

const DAY = 86_400;

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

export function tilesPart() {
  const names = ['accepting', 'clock', 'database', 'bus', 'last_event', 'rate', 'subscription', 'completeness', 'disk', 'quarantine', 'refused'];
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
    tiles.last_event.show(null, heardAgo(health.last_event_at, status), health.last_event_at ? full(health.last_event_at) : '');
    tiles.rate.show(null, t('tile.per_second', { count: number(rate.events_last_second) }), t('tile.this_minute', { count: number(message.minute.events) }));
    const { watched, status: standing } = health.subscription;
    const good = standing === 'enabled' ? 'ok' : standing === 'unknown' || standing === null ? 'warn' : 'bad';
    tiles.subscription.show(watched ? good : 'note', watched ? t(`subscription.${standing ?? 'unknown'}`) : t('tile.unwatched'), watched ? '' : t('tile.subscription.more'));
    const { watched: compares, compared_at: comparedAt, days, differing, missing_meetings: missing, silent_since: silent } = health.completeness;
    if (!compares) tiles.completeness.show('note', t('tile.unwatched'), t('tile.completeness.more'));
    else if (silent) tiles.completeness.show('bad', t('tile.completeness.silent'), t('tile.completeness.silent.more', { time: full(silent) }));
    else if (!comparedAt) tiles.completeness.show('note', t('tile.completeness.never'), t('tile.completeness.soon'));
    else tiles.completeness.show(differing ? 'warn' : days ? 'ok' : 'note', t(differing ? 'tile.completeness.differs' : days ? 'tile.completeness.good' : 'tile.completeness.never', { n: differing, count: number(differing) }), differing ? t('tile.completeness.missing', { n: missing, count: number(missing) }) : full(comparedAt));
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
