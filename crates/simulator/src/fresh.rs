//! New events, and what fate has in store for each: lost, delivered again, out of order. The same seed, the same fate.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::people::mix;
use super::world::World;
use convoke_core::time::Millis;

/// Shuffled events are delivered within this many of their place.
const SHUFFLE_EVENTS: usize = 64;
/// The truth is written out whenever this much has come together, in bytes.
const TRUTH_BUFFER_BYTES: usize = 64 * 1024;

/// How an acknowledged event is delivered once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Again {
    /// Not at all.
    #[default]
    No,
    /// On the same connection, right after its acknowledgement.
    AtOnce,
    /// After this many milliseconds of the platform's time, on any connection.
    Later(u32),
    /// At the same time on another connection.
    Beside,
}

/// A delivery to be made.
#[derive(Debug)]
pub(super) struct Job {
    /// `eventInfo`.
    pub info: Vec<u8>,
    pub event: &'static str,
    pub occurred_at: Millis,
    /// Counts events from 0: nonces and request ids come from it.
    pub number: u64,
    /// How often it was delivered before, without success.
    pub failures: u32,
    /// When it was first sent.
    pub first_try: Option<Instant>,
    /// When this delivery should have been sent.
    pub intended: Instant,
    /// An extra copy, which is not retried.
    pub copy: bool,
    pub again: Again,
    /// Shared with the copy that is delivered beside: who is acknowledged first sets it.
    pub acknowledged: Option<Arc<AtomicBool>>,
}

impl Job {
    /// Room for a delivery.
    pub(super) fn empty() -> Self {
        Self {
            info: Vec::with_capacity(768),
            event: "",
            occurred_at: Millis::EPOCH,
            number: 0,
            failures: 0,
            first_try: None,
            intended: Instant::now(),
            copy: false,
            again: Again::No,
            acknowledged: None,
        }
    }

    /// Moves the delivery out, for another time.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::empty())
    }

    /// The same event as an extra copy.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            info: self.info.clone(),
            copy: true,
            again: Again::No,
            first_try: None,
            acknowledged: self.acknowledged.clone(),
            ..*self
        }
    }
}

/// How often fate strikes, as fractions of all events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds {
    pub duplicates: f64,
    pub drop: f64,
    pub shuffle: bool,
}

/// See the module.
pub(super) struct Fresh {
    world: World,
    odds: Odds,
    dice: Xoshiro256PlusPlus,
    order: Xoshiro256PlusPlus,
    /// Events that have happened and wait for their turn, in reverse order of delivery.
    window: Vec<Job>,
    truth: Option<File>,
    /// Events that have happened, those that were dropped included.
    pub events: u64,
    pub dropped: u64,
}

impl Fresh {
    pub(super) fn new(world: World, odds: Odds, seed: u64, truth: Option<File>) -> Self {
        Self {
            world,
            odds,
            dice: Xoshiro256PlusPlus::seed_from_u64(mix(seed ^ 1)),
            order: Xoshiro256PlusPlus::seed_from_u64(mix(seed ^ 2)),
            window: Vec::new(),
            truth,
            events: 0,
            dropped: 0,
        }
    }

    /// Puts the next event to be delivered into `job`; `false` if there is none. With `over` the world stops, but what has
    /// already happened is still delivered.
    pub(super) fn next(&mut self, job: &mut Job, over: bool) -> io::Result<bool> {
        if over {
            self.world.stop();
        }
        if !self.odds.shuffle {
            return self.happen(job);
        }
        if self.window.is_empty() {
            let mut next = Job::empty();
            while self.window.len() < SHUFFLE_EVENTS && self.happen(&mut next)? {
                self.window.push(next.take());
            }
            self.window.shuffle(&mut self.order);
        }
        Ok(self.window.pop().map(|next| *job = next).is_some())
    }

    /// The next event that is not lost.
    fn happen(&mut self, job: &mut Job) -> io::Result<bool> {
        while let Some(happened) = self.world.next(&mut job.info) {
            let (lost, again) = (self.dice.random_bool(self.odds.drop), self.dice.random_bool(self.odds.duplicates));
            let (how, later) = (self.dice.random_range(0..3), self.dice.random_range(100..2_000));
            if lost {
                self.dropped += 1;
                self.world.tell_dropped(&happened, &job.info);
            }
            self.write_truth(TRUTH_BUFFER_BYTES)?;
            let number = self.events;
            self.events += 1;
            if lost {
                continue;
            }
            job.event = happened.event;
            job.occurred_at = happened.occurred_at;
            job.number = number;
            (job.failures, job.first_try, job.copy) = (0, None, false);
            job.again = match how {
                _ if !again => Again::No,
                0 => Again::AtOnce,
                1 => Again::Later(later),
                _ => Again::Beside,
            };
            job.acknowledged = (job.again == Again::Beside).then(Arc::default);
            return Ok(true);
        }
        self.write_truth(1)?;
        Ok(false)
    }

    /// Completes the truth with what is going on, and writes it out.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.world.stop();
        self.write_truth(1)
    }

    fn write_truth(&mut self, at_least: usize) -> io::Result<()> {
        if let (Some(lines), Some(file)) = (self.world.truth(), &mut self.truth)
            && lines.len() >= at_least
        {
            file.write_all(lines)?;
            lines.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::WorldSettings;

    fn deliveries(odds: Odds) -> Vec<(u64, Again, Vec<u8>)> {
        let settings =
            WorldSettings { seed: 3, base: Millis::EPOCH, meetings: Some(100), attendees: 6, long_rooms: false };
        let mut fresh = Fresh::new(World::new("7700001234", settings, false), odds, 3, None);
        let (mut job, mut all) = (Job::empty(), Vec::new());
        while fresh.next(&mut job, false).expect("no file, no error") {
            all.push((job.number, job.again, job.info.clone()));
        }
        all
    }

    const PLAIN: Odds = Odds { duplicates: 0.0, drop: 0.0, shuffle: false };

    #[test]
    fn the_same_seed_has_the_same_fate() {
        let odds = Odds { duplicates: 0.2, drop: 0.1, shuffle: true };
        assert!(deliveries(odds) == deliveries(odds));
    }

    #[test]
    fn about_the_asked_fraction_is_dropped_and_duplicated() {
        let (all, some) = (deliveries(PLAIN), deliveries(Odds { duplicates: 0.2, drop: 0.1, shuffle: false }));
        let permille = |part: usize, whole: usize| part * 1_000 / whole;
        assert!((80..120).contains(&permille(all.len() - some.len(), all.len())));
        let again = some.iter().filter(|(_, again, _)| *again != Again::No).count();
        assert!((170..230).contains(&permille(again, some.len())));
        assert!(all.iter().all(|(_, again, _)| *again == Again::No));
    }

    #[test]
    fn shuffling_delivers_all_within_the_window_and_not_in_order() {
        let (all, shuffled) = (deliveries(PLAIN), deliveries(Odds { shuffle: true, ..PLAIN }));
        assert!(all != shuffled);
        let mut sorted = shuffled.clone();
        sorted.sort_by_key(|(number, ..)| *number);
        assert!(all == sorted);
        for (place, (number, ..)) in shuffled.iter().enumerate() {
            assert!(number.abs_diff(u64::try_from(place).unwrap_or(0)) < 64);
        }
    }
}
