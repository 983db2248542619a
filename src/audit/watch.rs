//! The stream watch: a slow background comparison, done by the replica that publishes.
//!
//! Each check asks the stream for its state, which costs next to nothing, and compares it with the state of the check before: a
//! stream that was created anew, went backwards, was purged, or has new gaps has lost messages. Then the comparison continues
//! page by page, resting most of the time: first the stream's new messages, then the log's new rows. Everything is compared again
//! once a day, and whenever the state shows a loss. In memory it takes one bit per row for either side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{Gauge, IntGauge};
use tokio_util::sync::CancellationToken;

use super::mark::{Mark, Setback};
use super::seq_set::SeqSet;
use super::{Excuse, accepted};
use crate::cursor::lease;
use crate::metrics::{Counters, Label as _, Registry};
use crate::relay;
use convoke_bus::{Bus, StreamState};
use convoke_core::id::{EventId, Seq};
use convoke_core::throttle::Throttle;
use convoke_core::time::{Millis, instant};
use convoke_log::Operations;

/// How long one check may go on comparing, and how long after it the next check starts.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often a replica that does not publish checks whether it does now.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Minimum time between two log lines about findings that keep changing.
const LOG_INTERVAL: Duration = Duration::from_secs(600);

/// How long after a full comparison the next one starts.
const FULL_CHECK_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The same while the stream has messages that are not in the log.
const FULL_CHECK_INTERVAL_WITH_UNKNOWN: Duration = Duration::from_secs(3600);

/// Number of messages or rows between two rests.
const PAGE_ROWS: u32 = 256;

/// Number of messages that are read again after a start: they may be the first copies of rows that the relay had not passed yet.
const OVERLAP_MESSAGES: u64 = 4 * relay::WINDOW_ROWS as u64;

/// Maximum duration of a rest between two pages.
const MAX_REST: Duration = Duration::from_secs(2);

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Another replica publishes, or none does yet, or there is no stream.
    NotMine,
    /// There is more to compare.
    More,
    /// Everything has been compared so far.
    Done,
}

/// Metrics of the stream watch.
#[derive(Clone, Debug)]
pub struct StreamMetrics {
    /// Events of the log that the stream should hold and does not.
    pub missing: IntGauge,
    /// Messages of the stream whose event is not in the log.
    pub unknown: IntGauge,
    /// When log and stream were last compared, in seconds since the epoch.
    pub checked: Gauge,
    /// How often the stream lost messages.
    pub setbacks: Counters<Setback>,
}

impl StreamMetrics {
    /// Registers the metrics, at zero.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            missing: registry.int_gauge(
                "convoke_stream_missing_events",
                "Events of the log that were missing in the stream at the last comparison.",
            ),
            unknown: registry.int_gauge(
                "convoke_stream_unknown_events",
                "Messages of the stream whose event was not in the log at the last comparison.",
            ),
            checked: registry.gauge(
                "convoke_stream_checked_timestamp_seconds",
                "Time of the last complete comparison of log and stream; 0: never, or another replica does it.",
            ),
            setbacks: registry.counters(
                "convoke_stream_setbacks_total",
                "How often the stream was found to have lost messages.",
                "kind",
            ),
        }
    }
}

/// The stream watch.
#[derive(Debug)]
pub struct StreamWatch {
    log: Arc<dyn Operations>,
    bus: Arc<Bus>,
    metrics: StreamMetrics,
    owner: String,
    retention: Option<Duration>,
    /// After each piece of work, the watch rests this many times as long.
    rest: u32,
    /// `None` until this process was found to hold the lease.
    mark: Option<Mark>,
    /// The mark as it is saved in the database.
    kept: Option<Mark>,
    goal: Option<CheckTarget>,
    /// Rows whose messages have been read, but which have not been looked up yet.
    seen: SeqSet,
    missing: SeqSet,
    /// The first row whose message is in the stream.
    oldest: Option<Seq>,
    /// The stream was purged on purpose up to this row.
    accepted: Seq,
    /// Unknown messages up to this one have been counted already.
    counted: u64,
    reported: (u64, u64),
    throttle: Throttle,
}

/// The end of the current comparison.
#[derive(Clone, Copy, Debug)]
struct CheckTarget {
    message: u64,
    place: Seq,
}

impl StreamWatch {
    /// Watches `bus` for the process that holds the relay's lease as `owner`. It rests `rest` times as long as it works.
    #[must_use]
    pub fn new(
        log: Arc<dyn Operations>,
        bus: Arc<Bus>,
        metrics: StreamMetrics,
        owner: String,
        retention: Option<Duration>,
        rest: u32,
    ) -> Self {
        Self {
            log,
            bus,
            metrics,
            owner,
            retention,
            rest,
            mark: None,
            kept: None,
            goal: None,
            seen: SeqSet::default(),
            missing: SeqSet::default(),
            oldest: None,
            accepted: Seq::START,
            counted: 0,
            reported: (0, 0),
            throttle: Throttle::new(2, LOG_INTERVAL),
        }
    }

    /// Checks the stream again and again until `stop`; starts when `migrated` signals that the log can be read.
    pub async fn run(mut self, migrated: CancellationToken, stop: CancellationToken) {
        let looks = async {
            migrated.cancelled().await;
            loop {
                let pause = match self.look(CHECK_INTERVAL).await {
                    Ok(CheckOutcome::More) => Duration::ZERO,
                    Ok(CheckOutcome::Done) => CHECK_INTERVAL,
                    Ok(CheckOutcome::NotMine) => STANDBY_POLL_INTERVAL,
                    Err(error) => {
                        tracing::debug!(
                            error = format!("{error:#}"),
                            "cannot compare the stream with the log; retrying"
                        );
                        CHECK_INTERVAL
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = looks => {}
            () = stop.cancelled() => {}
        }
    }

    /// Checks the stream's state, and continues the comparison for at most `budget`.
    ///
    /// # Errors
    /// If the database or the bus cannot be read; the next check continues.
    pub async fn look(&mut self, budget: Duration) -> anyhow::Result<CheckOutcome> {
        let begun = instant();
        let Some(position) = lease::moved_by(&*self.log, relay::CURSOR, &self.owner).await? else {
            self.forget();
            return Ok(CheckOutcome::NotMine);
        };
        let Some(state) = self.bus.stream_state().await? else { return Ok(CheckOutcome::NotMine) };
        let now = self.log.now().await?;
        self.notice(&state, position, now).await?;
        let goal = *self.goal.get_or_insert(CheckTarget { message: state.last_sequence, place: position });
        if !self.read_messages(goal, now, begun, budget).await?
            || !self.read_rows(goal, &state, now, begun, budget).await?
        {
            return Ok(CheckOutcome::More);
        }
        self.goal = None;
        self.report(now);
        if let Some(mark) = &self.mark
            && mark.is_news_after(self.kept.as_ref())
        {
            mark.save(&*self.log, self.bus.stream()).await?;
            self.kept = Some(mark.clone());
        }
        Ok(CheckOutcome::Done)
    }

    /// Another replica publishes now, and does the watching.
    fn forget(&mut self) {
        if self.mark.take().is_some() {
            self.goal = None;
            self.reported = (0, 0);
            self.metrics.missing.set(0);
            self.metrics.unknown.set(0);
            self.metrics.checked.set(0.0);
        }
    }

    /// Compares the stream's state with that of the last check; restarts the comparison if necessary.
    async fn notice(&mut self, state: &StreamState, position: Seq, now: Millis) -> anyhow::Result<()> {
        let stream = self.bus.stream();
        let (mut mark, fresh) = match self.mark.take() {
            Some(mark) => (mark, false),
            None => (Mark::load(&*self.log, stream).await?.unwrap_or_default(), true),
        };
        if fresh {
            // Until the comparison is done, the findings of the last run or of another replica are shown.
            self.show(&mark);
        }
        let known = mark.made_at != 0;
        let erased = self.log.erased_messages().await?;
        if known {
            mark.allow(erased);
        }
        let setback = mark.setback(state, now).filter(|_| known);
        if let Some((kind, what)) = &setback {
            self.metrics.setbacks.of(*kind).inc();
            tracing::warn!(stream, kind = kind.as_str(), "the stream has changed: {what}; comparing it with the log");
        }
        let accepted = accepted(&*self.log, stream).await?;
        let excused = !fresh && accepted != self.accepted;
        self.accepted = accepted;
        let again = if mark.unknown > 0 { FULL_CHECK_INTERVAL_WITH_UNKNOWN } else { FULL_CHECK_INTERVAL };
        // A comparison that takes longer than the interval is still finished.
        let due = self.goal.is_none() && now.since(Millis::new(mark.whole_at).unwrap_or(Millis::EPOCH)) > again;
        // Of the rows that were missing before the start, only the number is known.
        let lost_count = fresh && (mark.missing > 0 || mark.again);
        if !known || setback.is_some() || due || excused || lost_count || mark.place > position.0 {
            let message = state.first_sequence.saturating_sub(1);
            mark = mark.anew(message, erased, now);
            (self.seen, self.missing) = (SeqSet::default(), SeqSet::default());
            (self.oldest, self.counted, self.goal) = (None, mark.message, None);
        } else if fresh {
            self.counted = mark.message;
            mark.message = mark.message.saturating_sub(OVERLAP_MESSAGES);
            (self.seen, self.missing, self.goal) = (SeqSet::default(), SeqSet::default(), None);
        }
        if state.first_sequence > mark.message + 1 {
            // If messages were discarded before they were read, the oldest one is no longer known.
            self.oldest = None;
        }
        mark.note_numbers(state);
        self.mark = Some(mark);
        Ok(())
    }

    /// Reads the stream's messages up to the goal. Returns whether the goal was reached.
    async fn read_messages(
        &mut self,
        goal: CheckTarget,
        now: Millis,
        begun: Instant,
        budget: Duration,
    ) -> anyhow::Result<bool> {
        let kept_since = self.retention.map(|retention| EventId::lower_bound(now.minus(retention)));
        let Some(mark) = &mut self.mark else { return Ok(false) };
        if mark.message >= goal.message {
            return Ok(true);
        }
        let mut scan = self.bus.scan_after(mark.message).await?;
        loop {
            let started = instant();
            let mut entries = Vec::with_capacity(PAGE_ROWS as usize);
            while entries.len() < PAGE_ROWS as usize
                && let Some(entry) = scan.next().await?
            {
                entries.push(entry);
            }
            let ids: Vec<EventId> = entries.iter().filter_map(|entry| entry.id).collect();
            let places = self.log.find(&ids).await?;
            for entry in &entries {
                let Some(id) = entry.id else { continue };
                match places.get(&id) {
                    Some(place) => {
                        if !entry.replay {
                            self.oldest.get_or_insert(*place);
                        }
                        if place.0 > mark.place {
                            self.seen.insert(*place);
                        } else {
                            self.missing.remove(*place);
                        }
                    }
                    // Events that the retention has dropped are still in the stream.
                    None if entry.sequence <= self.counted || kept_since.is_some_and(|since| id < since) => {}
                    None => mark.unknown += 1,
                }
            }
            mark.message = match entries.last() {
                Some(entry) => entry.sequence,
                None => goal.message.max(scan.last()),
            };
            self.counted = self.counted.max(mark.message);
            let arrived = mark.message >= goal.message;
            if arrived || begun.elapsed() > budget {
                return Ok(arrived);
            }
            pause(self.rest, started).await;
        }
    }

    /// Looks for the log's rows up to the goal among the messages. Returns whether the goal was reached.
    async fn read_rows(
        &mut self,
        goal: CheckTarget,
        state: &StreamState,
        now: Millis,
        begun: Instant,
        budget: Duration,
    ) -> anyhow::Result<bool> {
        let Some(mark) = &mut self.mark else { return Ok(false) };
        if mark.place >= goal.place.0 {
            return Ok(true);
        }
        let excuse = Excuse::new(state, now, self.oldest, self.accepted);
        loop {
            let started = instant();
            let from = Seq(mark.place);
            let page = self.log.read(from, PAGE_ROWS).await?;
            let aside = self.log.list_set_aside(relay::CURSOR, from, PAGE_ROWS).await?;
            for record in page.iter().take_while(|record| record.seq <= goal.place) {
                let seen = self.seen.remove(record.seq);
                let excused = record.event_info.is_none()
                    || aside.iter().any(|row| row.seq == record.seq)
                    || excuse.holds_for(record);
                if !seen && !excused {
                    self.missing.insert(record.seq);
                }
            }
            let full = page.len() == PAGE_ROWS as usize;
            mark.place = page.last().filter(|_| full).map_or(goal.place.0, |last| last.seq.0.min(goal.place.0));
            let arrived = mark.place >= goal.place.0;
            if arrived || begun.elapsed() > budget {
                return Ok(arrived);
            }
            pause(self.rest, started).await;
        }
    }

    fn show(&self, mark: &Mark) {
        self.metrics.missing.set(i64::try_from(mark.missing).unwrap_or(i64::MAX));
        self.metrics.unknown.set(i64::try_from(mark.unknown).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch fit")]
        self.metrics.checked.set(mark.checked_at as f64 / 1e3);
    }

    /// Logs the findings if they have changed.
    fn report(&mut self, now: Millis) {
        let Some(mark) = &mut self.mark else { return };
        mark.missing = self.missing.count();
        mark.checked_at = now.get();
        let (missing, unknown) = (mark.missing, mark.unknown);
        if let Some(mark) = &self.mark {
            self.show(mark);
        }
        let stream = self.bus.stream();
        if missing > self.reported.0 {
            self.throttle.run("missing", |suppressed| {
                tracing::warn!(
                    stream,
                    missing,
                    suppressed,
                    "events of the log are missing in the stream: `convoke audit` lists them, `convoke replay \
                     --missing` restores them"
                );
            });
        } else if missing == 0 && self.reported.0 > 0 {
            tracing::info!(stream, "the stream contains all events of the log again");
        }
        if unknown > self.reported.1 {
            self.throttle.run("unknown", |suppressed| {
                tracing::warn!(
                    stream,
                    unknown,
                    suppressed,
                    "the stream contains events that are not in the log: was an older backup of the log restored? \
                     Run `convoke check`"
                );
            });
        } else if unknown == 0 && self.reported.1 > 0 {
            tracing::info!(stream, "the log contains all events of the stream again");
        }
        self.reported = (missing, unknown);
    }
}

async fn pause(rest: u32, worked_since: Instant) {
    if rest > 0 {
        tokio::time::sleep((worked_since.elapsed() * rest).min(MAX_REST)).await;
    }
}
