//! How often those without a right are answered: all together no more than [`A_SECOND`] times a second, after a burst.
//!
//! The answers wait, not the questions: a right token is found out at once and never comes here. It is a bucket as of every rate
//! limiter; what the well-kept crates for it cannot do is to bound how many wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::event::Clock;

/// Answers a second.
const A_SECOND: u32 = 10;

/// So many are answered at once, after a while without any.
const BURST: u32 = 20;

/// So many wait, the last for half a minute: more than HTTP/1.1 has connections here.
const ROOM: usize = 300;

/// What comes of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may be answered.
    Come,
    /// Too many wait already.
    Crowded,
}

/// The queue of those who are to be told that they have no right.
pub(super) struct Wrong {
    clock: Clock,
    /// When the next answer would be due if there was no burst.
    due: Mutex<Duration>,
    room: Semaphore,
}

impl Wrong {
    pub fn new(clock: Clock) -> Self {
        Self { clock, due: Mutex::default(), room: Semaphore::new(ROOM) }
    }

    /// Waits for its turn.
    pub async fn turn(&self) -> Turn {
        let Ok(_place) = self.room.try_acquire() else { return Turn::Crowded };
        tokio::time::sleep(self.pause()).await;
        Turn::Come
    }

    /// How long the next one has to wait.
    fn pause(&self) -> Duration {
        let (now, each) = (self.clock.steady(), Duration::from_secs(1) / A_SECOND);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(now) + each;
        due.saturating_sub(now + each * BURST)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn after_a_burst_they_wait_a_tenth_of_a_second_each_and_rest_restores_the_burst() {
        let time = Arc::new(AtomicI64::new(5_000));
        let wrong = Wrong::new(Clock::Set(Arc::clone(&time)));
        let pauses = |count: usize| (0..count).map(|_| wrong.pause().as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(20), [0; 20]);
        assert_eq!(pauses(3), [100, 200, 300]);
        time.fetch_add(300, Ordering::Relaxed);
        assert_eq!(pauses(1), [100]);
        time.fetch_add(60_000, Ordering::Relaxed);
        assert_eq!(pauses(21)[19..], [0, 100]);
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let wrong = Wrong::new(Clock::Set(Arc::default()));
        let _taken = wrong.room.try_acquire_many(ROOM as u32).unwrap();
        assert_eq!(wrong.turn().await, Turn::Crowded);
    }
}
