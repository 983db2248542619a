//! How often each call may be made: what the gateway's headers say (Server API manual, samples of 4.2.24 ff.), and before
//! they have said anything 100 times a minute. Each call has its own count, shared by all who make it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Limits that the gateway's samples show.
const DEFAULT_LIMIT: usize = 100;
const DEFAULT_PERIOD: Duration = Duration::from_secs(60);
/// As many calls are remembered; a limit above is not kept, since the network keeps it.
const MOST: usize = 10_000;
/// A header that names a longer period is not believed.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The pace of all calls.
pub(super) struct Pace {
    calls: Mutex<BTreeMap<&'static str, Limits>>,
}

/// The limits of one call.
struct Limits {
    /// By what the headers call them; one that nobody named holds until one is named.
    windows: Vec<Window>,
    /// The gateway told us to stay away until then.
    away: Option<Instant>,
}

/// At most `limit` calls within any `period`, whenever the gateway's own periods begin.
struct Window {
    name: Option<String>,
    limit: usize,
    period: Duration,
    /// The newest calls, oldest first, at most `limit`.
    made: VecDeque<Instant>,
    /// What was left at the newest answer, and when the first answer of that period came.
    left: Option<(u64, Instant)>,
    /// Nothing is left until then.
    empty_until: Option<Instant>,
}

impl Window {
    const fn new(name: Option<String>, limit: usize, period: Duration) -> Self {
        Self { name, limit, period, made: VecDeque::new(), left: None, empty_until: None }
    }

    /// When the next call may be made.
    fn free_at(&self) -> Option<Instant> {
        let slot = self.made.len().checked_sub(self.limit).map(|oldest| self.made[oldest] + self.period);
        slot.max(self.empty_until)
    }

    fn note_call(&mut self, now: Instant) {
        self.made.push_back(now);
        while self.made.len() > self.limit {
            self.made.pop_front();
        }
    }

    /// A period began before the first answer that belongs to it, so its end comes no later than a period after that.
    fn note_left(&mut self, left: u64, now: Instant) {
        let began = match self.left {
            Some((before, began)) if left < before && now < began + self.period => began,
            _ => now,
        };
        self.left = Some((left, began));
        self.empty_until = (left == 0).then(|| began + self.period);
    }
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { calls: Mutex::new(BTreeMap::new()) }
    }

    /// Waits until `call` may be made, and counts it.
    pub(super) async fn wait(&self, call: &'static str) {
        while let Some(until) = self.take(call, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Counts a call, or says when to ask again.
    fn take(&self, call: &'static str, now: Instant) -> Option<Instant> {
        self.with(call, |limits| {
            let free_at = limits.windows.iter().filter_map(Window::free_at).chain(limits.away).max();
            if let Some(later) = free_at.filter(|at| *at > now) {
                return Some(later);
            }
            for window in &mut limits.windows {
                window.note_call(now);
            }
            None
        })
    }

    /// Reads a header of the gateway, as in `x-apig-ratelimit-api: remain:99,limit:100,time:1 minute`. What cannot be read
    /// changes nothing.
    pub(super) fn note(&self, call: &'static str, name: &str, value: &str, now: Instant) {
        let Some(stated) = Stated::read(value) else { return };
        self.with(call, |limits| {
            // Headers of one name may state several limits, which differ in their periods.
            let same = |window: &Window| window.name.as_deref() == Some(name) && window.period == stated.period;
            let at = limits.windows.iter().position(same).unwrap_or_else(|| {
                let unnamed = limits.windows.iter().position(|window| window.name.is_none());
                match unnamed {
                    Some(at) if !name.ends_with("-allenv") => {
                        let window = &mut limits.windows[at];
                        window.name = Some(name.to_owned());
                        window.period = stated.period;
                        at
                    }
                    _ => {
                        limits.windows.push(Window::new(Some(name.to_owned()), stated.limit, stated.period));
                        limits.windows.len() - 1
                    }
                }
            });
            let window = &mut limits.windows[at];
            window.limit = stated.limit;
            while window.made.len() > window.limit {
                window.made.pop_front();
            }
            window.note_left(stated.left, now);
        });
    }

    /// Nobody makes `call` until `until`.
    pub(super) fn stay_away(&self, call: &'static str, until: Instant) {
        self.with(call, |limits| limits.away = limits.away.max(Some(until)));
    }

    fn with<T>(&self, call: &'static str, act: impl FnOnce(&mut Limits) -> T) -> T {
        let mut calls = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let limits = calls
            .entry(call)
            .or_insert_with(|| Limits { windows: vec![Window::new(None, DEFAULT_LIMIT, DEFAULT_PERIOD)], away: None });
        act(limits)
    }
}

/// What a header states.
#[derive(Debug, PartialEq, Eq)]
struct Stated {
    left: u64,
    limit: usize,
    period: Duration,
}

impl Stated {
    fn read(value: &str) -> Option<Self> {
        let (mut left, mut limit, mut period) = (None, None::<usize>, None);
        for part in value.split(',') {
            let (name, value) = part.split_once(':')?;
            match name.trim() {
                "remain" => left = value.trim().parse().ok(),
                "limit" => limit = value.trim().parse().ok(),
                "time" => period = length(value),
                _ => {}
            }
        }
        let limit = limit.filter(|limit| *limit > 0)?.min(MOST);
        let period = period.filter(|period| !period.is_zero() && *period <= LONGEST)?;
        Some(Self { left: left?, limit, period })
    }
}

/// `1 minute`, `10 seconds`.
fn length(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let unit_ms = match text[split..].trim().trim_end_matches('s') {
        "m" | "millisecond" => 1,
        "second" | "sec" => 1000,
        "minute" | "min" => 60_000,
        "hour" => 3_600_000,
        "day" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}
