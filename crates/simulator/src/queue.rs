//! What is to be delivered next: retries and copies whose time has come, then new events at the wanted rate. Shared by all
//! connections under one lock; decides nothing on its own about time, which is passed in.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::fresh::{Again, Fresh, Job};
use super::report::{Failure, Tally};
use super::schedule::Schedule;

/// As many retries wait at most: beyond that no new events are made until some are settled, so that memory stays bounded
/// (some 80 MB) however long the receiver is away.
const MAX_WAITING_RETRIES: usize = 65_536;
/// Timers fire up to a millisecond late; a new event may leave this much early, so that they do not all leave late.
const TIMER_TOLERANCE: Duration = Duration::from_micros(500);

/// What a connection is to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Deliver the job.
    Send,
    /// Wait, until then or (`None`) until something is settled.
    Wait(Option<Instant>),
    /// There is nothing left to do.
    Done,
}

/// How a delivery went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 200. `first` unless another copy of the event was acknowledged before.
    Acknowledged { first: bool },
    /// Anything else, by kind.
    Failed(Failure),
}

/// When the run goes over from one thing to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// New events per second; `None` for as fast as connections become free.
    pub rate: Option<f64>,
    /// No new events after this time from the start.
    pub duration: Option<Duration>,
    /// Retries that are still open this long after the last new event are abandoned.
    pub settle: Option<Duration>,
}

/// See the module.
pub(super) struct Queue {
    fresh: Fresh,
    schedule: Schedule,
    pace: Pace,
    started: Instant,
    /// How many new events were handed out.
    handed_out: u64,
    /// When the last new event had been handed out.
    exhausted: Option<Instant>,
    waiting: BinaryHeap<Waiting>,
    /// Deliveries that connections are busy with.
    under_way: usize,
    pub tally: Tally,
}

struct Waiting(Job);

impl Queue {
    pub(super) fn new(fresh: Fresh, schedule: Schedule, pace: Pace, started: Instant) -> Self {
        let waiting = BinaryHeap::new();
        let tally = Tally::new(started);
        Self { fresh, schedule, pace, started, handed_out: 0, exhausted: None, waiting, under_way: 0, tally }
    }

    /// Retries and copies that wait for their time.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// New events, and those of them that were dropped.
    pub(super) fn events(&self) -> (u64, u64) {
        (self.fresh.events, self.fresh.dropped)
    }

    /// Events that were neither acknowledged nor given up.
    pub(super) fn unsettled(&self) -> u64 {
        let open = self.waiting.iter().filter(|Waiting(job)| !job.copy && !already(job)).count();
        u64::try_from(open).unwrap_or(u64::MAX)
    }

    /// Events that were due by the rate, but not sent before the duration was over: no connection was free for them.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
    pub(super) fn behind(&self) -> u64 {
        match (self.pace.rate, self.pace.duration, self.exhausted) {
            (Some(rate), Some(duration), Some(_)) => {
                ((rate * duration.as_secs_f64()) as u64).saturating_sub(self.handed_out)
            }
            _ => 0,
        }
    }

    /// Completes the truth.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.fresh.finish()
    }

    /// Puts the next delivery into `job`, or says why there is none.
    pub(super) fn turn(&mut self, job: &mut Job, now: Instant) -> io::Result<Turn> {
        if let Some(due) = self.waiting.peek().map(|Waiting(job)| job.intended)
            && due <= now
            && let Some(Waiting(next)) = self.waiting.pop()
        {
            *job = next;
            return Ok(self.send(job, now));
        }
        let mut until = self.waiting.peek().map(|Waiting(job)| job.intended);
        if self.exhausted.is_none() && self.waiting.len() < MAX_WAITING_RETRIES {
            let over = self.pace.duration.is_some_and(|duration| now >= self.started + duration);
            let slot = self.slot(now);
            if over || slot <= now + TIMER_TOLERANCE {
                if self.fresh.next(job, over)? {
                    job.intended = slot.min(now);
                    self.handed_out += 1;
                    self.tally.sent += 1;
                    if job.again == Again::Beside {
                        self.waiting.push(Waiting(job.duplicate()));
                        job.again = Again::No;
                    }
                    return Ok(self.send(job, now));
                }
                self.exhausted = Some(now);
            } else {
                let end = self.pace.duration.map(|duration| self.started + duration);
                let wake = (slot - TIMER_TOLERANCE).min(end.unwrap_or(slot));
                until = Some(until.map_or(wake, |until| until.min(wake)));
            }
        }
        if let (Some(exhausted), Some(settle)) = (self.exhausted, self.pace.settle) {
            if now >= exhausted + settle {
                return Ok(Turn::Done);
            }
            until = Some(until.map_or(exhausted + settle, |until| until.min(exhausted + settle)));
        }
        let done = self.exhausted.is_some() && self.under_way == 0 && self.waiting.is_empty();
        Ok(if done { Turn::Done } else { Turn::Wait(until) })
    }

    /// Takes note of how the delivery in `job` went, at `now`. Returns whether those who wait should look again.
    pub(super) fn settle(&mut self, job: &mut Job, outcome: Outcome, now: Instant) -> bool {
        self.under_way -= 1;
        let first_delivery = !job.copy && job.failures == 0;
        let mut look_again = self.under_way == 0 && self.exhausted.is_some();
        match outcome {
            Outcome::Acknowledged { first } => {
                self.tally.acknowledged(first, now.saturating_duration_since(job.intended));
                let wait = match std::mem::take(&mut job.again) {
                    Again::AtOnce => Some(Duration::ZERO),
                    Again::Later(ms) => Some(self.schedule.scaled(Duration::from_millis(ms.into()))),
                    Again::No | Again::Beside => None,
                };
                if let Some(wait) = wait {
                    let mut copy = job.take();
                    (copy.copy, copy.intended, copy.first_try) = (true, now + wait, None);
                    self.waiting.push(Waiting(copy));
                    look_again = true;
                }
            }
            Outcome::Failed(failure) => {
                self.tally.failed(failure);
                if !job.copy {
                    job.failures += 1;
                    let since_first = now.saturating_duration_since(job.first_try.unwrap_or(now));
                    if let Some(wait) = self.schedule.after(job.failures, since_first) {
                        let mut retry = job.take();
                        retry.intended = now + wait;
                        self.waiting.push(Waiting(retry));
                        look_again = true;
                    } else if !already(job) {
                        self.tally.given_up += 1;
                    }
                }
            }
        }
        if first_delivery {
            self.tally.first_deliveries_until(now);
        }
        look_again
    }

    fn send(&mut self, job: &mut Job, now: Instant) -> Turn {
        self.under_way += 1;
        self.tally.deliveries += 1;
        self.tally.retried += u64::from(job.failures > 0);
        self.tally.duplicates += u64::from(job.copy);
        job.first_try.get_or_insert(now);
        Turn::Send
    }

    /// When the next new event should be sent.
    #[expect(clippy::cast_precision_loss, reason = "exact for the first 2^53 events")]
    fn slot(&self, now: Instant) -> Instant {
        let Some(rate) = self.pace.rate else { return now };
        let after = Duration::try_from_secs_f64(self.handed_out as f64 / rate);
        after.ok().and_then(|after| self.started.checked_add(after)).unwrap_or(now + Duration::from_secs(3600))
    }
}

/// Whether a copy of this event was acknowledged.
fn already(job: &Job) -> bool {
    job.acknowledged.as_ref().is_some_and(|flag| flag.load(Relaxed))
}

/// The earliest is the greatest, as the heap wants it.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0.intended, other.0.number).cmp(&(self.0.intended, self.0.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}
