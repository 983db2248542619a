//! The only way in which tests wait: for a condition, by name, up to a time.

use std::{fmt::Display, future::Future, panic::Location, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What a probe may answer: `bool`, `Option` or `Result`.
pub trait Answer {
    type Value;

    /// The value waited for, or what was seen instead.
    fn settled(self) -> Result<Self::Value, Option<String>>;
}

impl Answer for bool {
    type Value = ();

    fn settled(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Answer for Option<T> {
    type Value = T;

    fn settled(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Display> Answer for Result<T, E> {
    type Value = T;

    fn settled(self) -> Result<T, Option<String>> {
        self.map_err(|error| Some(error.to_string()))
    }
}

/// Asks `probe` until it answers `true`, `Some` or `Ok`.
///
/// A probe that hangs is given up at the same moment as one that goes on saying no: the test then panics, at the
/// caller's line, with what it waited for and the last error.
#[track_caller]
pub fn eventually<A: Answer>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> A,
) -> impl Future<Output = A::Value> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        let mut seen = None;
        loop {
            match timeout_at(deadline, probe()).await.map(Answer::settled) {
                Ok(Ok(value)) => return value,
                Ok(Err(instead)) => seen = instead.or(seen),
                Err(_) => seen = seen.or(Some("the probe did not answer".to_owned())),
            }
            let seen = seen.as_deref().map(|seen| format!("; last seen: {seen}")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{caller}: waited {within:?} in vain until {what}{seen}");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
