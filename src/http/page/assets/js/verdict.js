// Is it well? From Convoke's report to a sentence, and to what there is to do. Pure: nothing here touches the page.
// The thresholds are those of the alert rules in deploy/prometheus.

const MIB = 1024 * 1024;
const WAITED = 60;
const CERTIFICATE_SOON = 14 * 86_400;

/** `bad` weighs more than `warn`, that more than `note`. */
const WEIGHT = { bad: 2, warn: 1, note: 0 };

/** What is wrong: `[{ weight, key, values }]`, the worst first. `key` names a title and, with `.do`, what to do. */
export function findings(message) {
  const { health, refusals } = message;
  const found = [];
  const add = (weight, key, values = {}) => found.push({ weight, key, values });

  const left = health.seconds_until_drop;
  if (health.stopping) {
    add('warn', 'finding.stopping');
  } else if (!health.accepting) {
    if (left !== null && left <= 0) add('bad', 'finding.dropping');
    else add('bad', 'finding.refusing', { seconds: health.not_accepting_seconds, left });
  }
  if (!health.database.reachable) add('bad', 'finding.database');
  const free = health.disk_free_bytes;
  if (free !== null && free < 256 * MIB) add('bad', 'finding.disk_full', { bytes: free });
  else if (free !== null && free < 1024 * MIB) add('warn', 'finding.disk_low', { bytes: free });
  if (health.certificate_expires_at !== null) {
    const seconds = (Date.parse(health.certificate_expires_at) - Date.parse(health.time)) / 1000;
    if (seconds <= 0) add('bad', 'finding.certificate_over');
    else if (seconds < CERTIFICATE_SOON) add('warn', 'finding.certificate_soon', { seconds });
  }
  if (health.bus.enabled && !health.bus.connected) add('warn', 'finding.bus');
  for (const cursor of health.cursors) {
    const most = cursor.name === 'bus' ? WAITED : 5 * WAITED;
    if (cursor.lag_seconds > most) {
      add('warn', 'finding.lag', { cursor: cursor.name, events: cursor.lag_events, seconds: cursor.lag_seconds });
    }
  }
  const { watched, status } = health.subscription;
  if (watched && status === 'unknown') add('warn', 'finding.subscription_unknown');
  else if (watched && status !== null && status !== 'enabled') add('bad', `finding.subscription_${status}`);
  const { differing, missing_meetings: missing, silent_since: silent } = health.completeness;
  if (silent) add('bad', 'finding.silent', { since: silent });
  if (differing > 0) add('warn', 'finding.incomplete', { n: differing, missing });
  if (health.quarantined > 0) add('warn', 'finding.quarantine', { n: health.quarantined });
  for (const [cursor, n] of Object.entries(health.set_aside)) {
    if (n > 0) add('warn', 'finding.set_aside', { cursor, n });
  }
  const forged = (refusals.by_reason.signature ?? 0) + (refusals.by_reason.unknown_subscriber ?? 0);
  if (forged > 0) add('note', 'finding.forged', { n: forged });
  if (health.accepting && health.last_event_at === null) add('note', 'finding.nothing_yet');
  return found.sort((a, b) => WEIGHT[b.weight] - WEIGHT[a.weight]);
}

/** `ok`, `warn` or `bad` of Convoke, `unknown` while nothing is heard of it; with what was found. */
export function verdict(state) {
  if (state.status === 'waiting' || !state.message) {
    return { level: 'unknown', key: state.status === 'waiting' ? 'verdict.waiting' : 'verdict.late', found: [] };
  }
  const found = findings(state.message);
  if (state.status !== 'live') return { level: 'unknown', key: `verdict.${state.status}`, found };
  const worst = found.reduce((most, { weight }) => Math.max(most, WEIGHT[weight]), 0);
  const level = ['ok', 'warn', 'bad'][worst];
  return { level, key: `verdict.${level}`, found };
}
