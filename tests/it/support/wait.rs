//! The only way in which tests wait: for a condition, by name, up to a time; and what "at most" means on a busy machine.

use std::{fmt::Display, future::Future, panic::Location, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The most that a busy machine is taken for an excuse.
const MAX_FACTOR: f64 = 8.0;

/// What takes so long at most on a machine that has a processor for each task, and as much longer here as more want
/// to than there are processors: a test shares its machine with other tests, and they with whatever else it runs.
pub fn stretched(time: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // "0.52 0.58 0.59 3/389 12345": of the last minute, and who wants to run at this moment.
    let mut words = load.split([' ', '/']);
    let minute: f64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let now: f64 = words.nth(2).and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    time.mul_f64((minute.max(now) / processors as f64).clamp(1.0, MAX_FACTOR))
}

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
/// caller's line, with what it waited for and the last error. `within` is [`stretched`].
#[track_caller]
pub fn eventually<A: Answer>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> A,
) -> impl Future<Output = A::Value> {
    let caller = Location::caller();
    async move {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut seen = None;
        loop {
            let deadline = begun + stretched(within);
            match timeout_at(deadline, probe()).await.map(Answer::settled) {
                Ok(Ok(value)) => return value,
                Ok(Err(instead)) => seen = instead.or(seen),
                Err(_) => seen = seen.or(Some("the probe did not answer".to_owned())),
            }
            let seen = seen.as_deref().map(|seen| format!("; last seen: {seen}")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{caller}: waited {:?} in vain until {what}{seen}", begun.elapsed());
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
