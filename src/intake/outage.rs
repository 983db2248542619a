//! The 24-hour clock: how long events have been refused.
//!
//! The platform drops an event 24 h after its first attempt. While events are accepted, a heartbeat is written to the database
//! once a minute; its age, by the database's clock, is how long no process accepted events, whichever process was down. Within
//! the process, time is measured by a steady clock that cannot be set.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convoke_core::time::Clock;

/// How often the heartbeat is written while events are accepted.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// How long after its first attempt the platform gives up an event.
pub const PLATFORM_RETRY_TIME: Duration = Duration::from_secs(24 * 3600);

/// A heartbeat older than this is overdue: no process accepts events.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(90);

/// An outage is logged each time it reaches one of these lengths.
const WARN_AFTER: [Duration; 4] =
    [Duration::from_secs(3600), Duration::from_secs(12 * 3600), Duration::from_secs(20 * 3600), PLATFORM_RETRY_TIME];

/// What showed whether events can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// An event that was stored, or could not be.
    Event,
    /// A small write whose only purpose is to find out.
    Probe,
}

/// An outage that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedOutage {
    /// How long this process refused events, plus the time before its start during which no process accepted any.
    pub refused_for: Duration,
    /// The same, but without the time during which another process accepted events.
    pub nobody_for: Duration,
}

/// Whether events are refused, and since when.
#[derive(Debug)]
pub struct Outage {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The current outage, or one that was ended by a probe.
    outage: Option<OutageSpan>,
    /// Whether the heartbeat has been read since the process started.
    known: bool,
    /// Why events are refused, as text.
    why: Option<String>,
}

impl State {
    /// The current outage.
    fn now(&self) -> Option<&OutageSpan> {
        self.outage.as_ref().filter(|refusing| refusing.ended.is_none())
    }
}

#[derive(Clone, Copy, Debug)]
struct OutageSpan {
    /// Start, by the steady clock.
    since: Duration,
    /// How long no process had accepted events before `since`.
    before: Duration,
    /// The heartbeat's age, and when it was read.
    heartbeat: Option<(Duration, Duration)>,
    /// Whether an event could not be stored.
    by_event: bool,
    /// How many entries of [`WARN_AFTER`] have been logged.
    warned: usize,
    /// Whether a refusal was logged.
    logged: bool,
    /// When a probe ended the outage, by the steady clock. If events are refused again soon after, it counts as the same outage.
    ended: Option<Duration>,
}

impl OutageSpan {
    const fn since(now: Duration) -> Self {
        Self {
            since: now,
            before: Duration::ZERO,
            heartbeat: None,
            by_event: false,
            warned: 0,
            logged: false,
            ended: None,
        }
    }

    fn lasted(&self, now: Duration) -> Duration {
        self.before + now.saturating_sub(self.since)
    }

    fn nobody(&self, now: Duration) -> Duration {
        let theirs = self.heartbeat.map(|(age, asked)| age + now.saturating_sub(asked));
        theirs.map_or(self.lasted(now), |theirs| theirs.min(self.lasted(now)))
    }
}

impl Outage {
    /// For a process that has just started and accepts nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let state = State { outage: Some(OutageSpan::since(clock.steady())), known: false, why: None };
        Self { clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events are accepted.
    #[must_use]
    pub fn accepting(&self) -> bool {
        self.state().now().is_none()
    }

    /// How long events have been refused; zero while they are accepted.
    #[must_use]
    pub fn refused_for(&self) -> Duration {
        self.state().now().map_or(Duration::ZERO, |refusing| refusing.lasted(self.clock.steady()))
    }

    /// Whether [`Outage::refused_for`] is only a lower bound, because it is not known yet how long no process accepted events
    /// before the start.
    #[must_use]
    pub fn at_least(&self) -> bool {
        let state = self.state();
        !state.known && state.now().is_some()
    }

    /// Whether the heartbeat from before the start of this process is known.
    #[must_use]
    pub fn known(&self) -> bool {
        self.state().known
    }

    /// Notes that an event or a probe could not be stored. Returns whether that is new. (A process counts as refusing from its
    /// start, before its first attempt.)
    pub fn refused(&self, by: Evidence) -> bool {
        let now = self.clock.steady();
        let mut state = self.state();
        let resumed =
            |refusing: &OutageSpan| refusing.ended.is_none_or(|at| now.saturating_sub(at) < HEARTBEAT_INTERVAL);
        let refusing = match state.outage.take().filter(resumed) {
            Some(refusing) => refusing,
            None => OutageSpan::since(now),
        };
        let news = refusing.ended.is_some() || !refusing.logged;
        let by_event = refusing.by_event || by == Evidence::Event;
        state.outage = Some(OutageSpan { by_event, logged: true, ended: None, ..refusing });
        news
    }

    /// Notes why events are refused.
    pub fn because(&self, why: String) {
        self.state().why = Some(why);
    }

    /// Why events are refused; `None` while they are accepted.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let state = self.state();
        state.why.clone().filter(|_| state.now().is_some())
    }

    /// Notes that an event or a probe was stored. Returns the outage that this ended, if there was one.
    pub fn accepted(&self, by: Evidence) -> Option<EndedOutage> {
        let now = self.clock.steady();
        let mut state = self.state();
        let Some(refusing) = state.now().copied() else {
            if by == Evidence::Event {
                state.outage = None;
            }
            return None;
        };
        // A small write may still find room where an event does not.
        state.outage =
            (by == Evidence::Probe && refusing.by_event).then_some(OutageSpan { ended: Some(now), ..refusing });
        Some(EndedOutage { refused_for: refusing.lasted(now), nobody_for: refusing.nobody(now) })
    }

    /// Notes the age of the heartbeat while events are refused; `None`: there is no heartbeat yet.
    pub fn heartbeat(&self, age: Option<Duration>) {
        let mut state = self.state();
        let first = !std::mem::replace(&mut state.known, true);
        let now = self.clock.steady();
        let refusing = state.outage.as_mut().filter(|refusing| refusing.ended.is_none());
        let (Some(refusing), Some(age)) = (refusing, age) else { return };
        if first {
            // While it was down or starting, this process accepted nothing; but another process may have.
            *refusing = OutageSpan { since: now, before: age, ..*refusing };
            refusing.warned = WARN_AFTER.iter().filter(|at| **at <= age).count();
        }
        refusing.heartbeat = Some((age, now));
    }

    /// Whether a heartbeat would be correct: events are accepted, and have been for a while.
    #[must_use]
    pub fn settled(&self) -> bool {
        let state = self.state();
        let now = self.clock.steady();
        let ended =
            |refusing: &OutageSpan| refusing.ended.is_some_and(|at| now.saturating_sub(at) >= HEARTBEAT_INTERVAL);
        state.outage.as_ref().is_none_or(ended)
    }

    /// How long the outage has lasted, if that should be logged now; each length is returned once.
    pub fn due(&self) -> Option<Duration> {
        let now = self.clock.steady();
        let mut state = self.state();
        let refusing = state.outage.as_mut().filter(|refusing| refusing.ended.is_none())?;
        let lasted = refusing.lasted(now);
        let reached = WARN_AFTER.iter().filter(|at| **at <= lasted).count();
        let due = reached > refusing.warned;
        refusing.warned = refusing.warned.max(reached);
        due.then_some(lasted)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    struct Scene {
        time: Arc<AtomicI64>,
        outage: Outage,
    }

    impl Scene {
        fn new() -> Self {
            let time = Arc::new(AtomicI64::new(1_781_524_800_000));
            Self { outage: Outage::new(Clock::Set(Arc::clone(&time))), time }
        }

        /// Accepting, on an installation that never accepted an event before.
        fn accepting() -> Self {
            let scene = Self::new();
            scene.outage.heartbeat(None);
            scene.outage.accepted(Evidence::Probe).expect("it began by refusing");
            scene
        }

        fn pass(&self, duration: Duration) {
            self.time.fetch_add(i64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
        }
    }

    #[test]
    fn the_first_refusal_is_news_also_of_a_process_that_never_accepted_anything() {
        let scene = Scene::new();
        assert!(scene.outage.refused(Evidence::Probe) && !scene.outage.refused(Evidence::Event));
        scene.outage.accepted(Evidence::Event).expect("it is over");
        assert!(scene.outage.refused(Evidence::Event) && !scene.outage.refused(Evidence::Event));
    }

    #[test]
    fn a_first_start_has_no_gap_but_its_own() {
        let scene = Scene::new();
        scene.pass(MINUTE);
        assert_eq!((scene.outage.refused_for(), scene.outage.at_least()), (MINUTE, true));
        scene.outage.heartbeat(None);
        assert_eq!((scene.outage.refused_for(), scene.outage.at_least()), (MINUTE, false));
        let over = scene.outage.accepted(Evidence::Probe).expect("it is over");
        assert_eq!(over, EndedOutage { refused_for: MINUTE, nobody_for: MINUTE });
        assert_eq!((scene.outage.refused_for(), scene.outage.accepting()), (Duration::ZERO, true));
    }

    #[test]
    fn after_a_restart_the_heartbeat_says_since_when_and_until_it_is_read_the_figure_is_the_least() {
        let scene = Scene::new();
        scene.pass(MINUTE);
        assert!(scene.outage.at_least());
        scene.outage.heartbeat(Some(5 * HOUR));
        scene.pass(MINUTE);
        assert_eq!(scene.outage.refused_for(), 5 * HOUR + MINUTE);
        assert!(!scene.outage.at_least());
        let over = scene.outage.accepted(Evidence::Event).expect("it is over");
        assert_eq!(over.nobody_for, 5 * HOUR + MINUTE);
    }

    #[test]
    fn another_process_that_accepted_meanwhile_leaves_a_gap_no_longer_than_its_heartbeats() {
        let scene = Scene::new();
        scene.pass(HOUR);
        scene.outage.heartbeat(Some(MINUTE));
        assert_eq!(scene.outage.refused_for(), MINUTE);
        let scene = Scene::accepting();
        scene.outage.refused(Evidence::Probe);
        scene.pass(2 * HOUR);
        scene.outage.heartbeat(Some(MINUTE));
        let over = scene.outage.accepted(Evidence::Probe).expect("it is over");
        assert_eq!(over, EndedOutage { refused_for: 2 * HOUR, nobody_for: MINUTE });
    }

    #[test]
    fn each_length_is_spoken_of_once_in_an_outage_and_again_in_the_next() {
        let scene = Scene::accepting();
        for _ in 0..2 {
            assert_eq!(scene.outage.due(), None);
            scene.outage.refused(Evidence::Event);
            let mut warned = Vec::new();
            for _ in 0..(30 * 60) {
                scene.pass(MINUTE);
                warned.extend(scene.outage.due());
            }
            assert_eq!(warned, [HOUR, 12 * HOUR, 20 * HOUR, 24 * HOUR]);
            scene.outage.accepted(Evidence::Event).expect("it is over");
        }
    }

    #[test]
    fn what_the_start_says_is_not_said_again() {
        let scene = Scene::new();
        scene.outage.heartbeat(Some(13 * HOUR));
        assert_eq!(scene.outage.due(), None);
        scene.pass(7 * HOUR);
        assert_eq!(scene.outage.due(), Some(20 * HOUR));
    }

    #[test]
    fn an_outage_in_which_only_small_writes_succeed_now_and_then_is_one_outage() {
        let scene = Scene::accepting();
        scene.outage.refused(Evidence::Event);
        for _ in 0..60 {
            scene.pass(MINUTE / 2);
            assert!(scene.outage.accepted(Evidence::Probe).is_some());
            assert!(!scene.outage.settled(), "a heartbeat would say that events are stored");
            scene.pass(MINUTE / 2);
            assert!(scene.outage.refused(Evidence::Event));
        }
        assert_eq!((scene.outage.refused_for(), scene.outage.due()), (HOUR, Some(HOUR)));
        // A stored event ends the outage, and so does a minute in which no event is refused.
        scene.outage.accepted(Evidence::Event).expect("it is over");
        assert!(scene.outage.settled());
        scene.outage.refused(Evidence::Event);
        assert_eq!(scene.outage.refused_for(), Duration::ZERO);
        scene.outage.accepted(Evidence::Probe).expect("it is over");
        scene.pass(MINUTE);
        assert!(scene.outage.settled());
        scene.outage.refused(Evidence::Event);
        assert_eq!(scene.outage.refused_for(), Duration::ZERO);
    }
}
