//! Rate limit for guessing tokens, per source: [`MAX_BURST`] wrong ones, and then one every [`GUESS_INTERVAL`].
//!
//! Beyond the limit a token is not even compared, so that an attacker cannot find out which one is right. The sign-in form,
//! requests with a session (which cannot be guessed) and requests from other sources are not affected.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use convoke_core::time::instant;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Wrong tokens of one source that are allowed at once, and the interval between further ones.
const MAX_BURST: NonZeroU32 = NonZeroU32::new(10).unwrap();
const GUESS_INTERVAL: Duration = Duration::from_secs(6);

/// Maximum number of sources that are tracked. An attacker with more addresses than that cannot be stopped by counting.
const MAX_SOURCES: usize = 1 << 16;

type Limiter = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock, NoOpMiddleware<Instant>>;

/// The sources of wrong tokens.
pub(super) struct Guesses {
    quota: Quota,
    known: Mutex<Known>,
}

struct Known {
    wrong: Limiter,
    /// Sources whose tokens are not compared until the given time.
    shut: HashMap<IpAddr, Instant>,
}

impl Known {
    fn new(quota: Quota) -> Self {
        Self { wrong: RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock), shut: HashMap::new() }
    }
}

impl Default for Guesses {
    fn default() -> Self {
        Self::new(GUESS_INTERVAL)
    }
}

impl Guesses {
    fn new(each: Duration) -> Self {
        let quota = Quota::with_period(each).expect("a period").allow_burst(MAX_BURST);
        Self { quota, known: Mutex::new(Known::new(quota)) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much longer tokens from this source are not compared; zero if they are.
    pub fn shut(&self, source: IpAddr) -> Duration {
        let mut known = self.known();
        let left = known.shut.get(&source).map(|until| until.saturating_duration_since(instant()));
        if left == Some(Duration::ZERO) {
            known.shut.remove(&source);
        }
        left.unwrap_or_default()
    }

    /// Counts a wrong token from this source.
    pub fn wrong(&self, source: IpAddr) {
        let mut known = self.known();
        if known.wrong.len() >= MAX_SOURCES {
            known.wrong.retain_recent();
            let now = instant();
            known.shut.retain(|_, until| *until > now);
            if known.wrong.len() >= MAX_SOURCES {
                *known = Known::new(self.quota);
            }
        }
        if let Err(not_until) = known.wrong.check_key(&source) {
            let wait = not_until.wait_time_from(MonotonicClock.now());
            known.shut.insert(source, instant() + wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_guesses_is_shut_for_a_while_and_no_other_one() {
        let guesses = Guesses::new(Duration::from_millis(200));
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut count = 0;
        while guesses.shut(one).is_zero() {
            guesses.wrong(one);
            count += 1;
        }
        assert!(count >= 11, "{count}");
        assert!(guesses.shut(one) <= Duration::from_millis(200));
        assert!(guesses.shut(other).is_zero());
        std::thread::sleep(guesses.shut(one));
        assert!(guesses.shut(one).is_zero(), "it may try again");
    }

    #[test]
    fn so_many_sources_are_known_and_no_more() {
        let guesses = Guesses::default();
        for number in 0..MAX_SOURCES + 10 {
            guesses.wrong(std::net::Ipv4Addr::from(u32::try_from(number).unwrap()).into());
        }
        assert!(guesses.known().wrong.len() <= MAX_SOURCES);
    }
}
