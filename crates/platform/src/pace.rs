//! Rate limits of the calls: those in the gateway's headers (Server API manual, samples of 4.2.24 ff.), and 100 per
//! minute before the first header. Each call has its own count, shared by all tasks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Limits in the samples of the manual.
const DEFAULT_LIMIT: usize = 100;
const DEFAULT_PERIOD: Duration = Duration::from_secs(60);
/// Maximum number of calls remembered per limit; a higher limit is reduced to this.
const MAX_CALLS: usize = 100_000;
/// Maximum number of limits kept per call.
const MAX_WINDOWS: usize = 8;
/// A header with a longer period is ignored.
const MAX_PERIOD: Duration = Duration::from_secs(86_400);

/// The rate limits of all calls.
pub(super) struct Pace {
    calls: Mutex<BTreeMap<&'static str, Limits>>,
}

/// The limits of one call.
struct Limits {
    /// By their names in the headers. The one without a name applies until a header names one.
    windows: Vec<Window>,
    /// No call before this time, after the gateway has throttled it.
    away: Option<Instant>,
}

/// At most `limit` calls within any `period`, whenever the gateway's own periods begin.
struct Window {
    name: Option<String>,
    limit: usize,
    period: Duration,
    /// The times of the newest calls, oldest first, at most `limit`.
    made: VecDeque<Instant>,
    /// The number of calls left at the newest response, and the time of the first response in that period.
    left: Option<(u64, Instant)>,
    /// No calls are left before this time.
    empty_until: Option<Instant>,
}

impl Window {
    const fn new(name: Option<String>, limit: usize, period: Duration) -> Self {
        Self { name, limit, period, made: VecDeque::new(), left: None, empty_until: None }
    }

    /// When the next call is allowed.
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

    /// A period begins before the first response in it, so it ends at most one period after that response.
    fn note_left(&mut self, left: u64, now: Instant) {
        let began = match self.left {
            Some((before, began)) if left < before && now < began + self.period => began,
            _ => now,
        };
        self.left = Some((left, began));
        self.empty_until = (left == 0).then(|| began + self.period);
    }
}

impl Limits {
    /// The limit for a header. Headers of the same name can state several limits with different periods.
    /// `None`: there are too many.
    fn window(&mut self, name: &str, stated: &Stated) -> Option<&mut Window> {
        let same = |window: &Window| window.name.as_deref() == Some(name) && window.period == stated.period;
        if let Some(at) = self.windows.iter().position(same) {
            return self.windows.get_mut(at);
        }
        // A limit for all callers together says nothing about the limit of a single caller.
        let ours = self.windows.iter().position(|window| window.name.is_none() && !name.ends_with("-allenv"));
        if let Some(at) = ours {
            let window = &mut self.windows[at];
            window.name = Some(name.to_owned());
            window.period = stated.period;
            return Some(window);
        }
        if self.windows.len() == MAX_WINDOWS {
            return None;
        }
        // The gateway has already counted our earlier calls for it.
        let made = self.windows.iter().map(|window| &window.made).max_by_key(|made| made.len()).cloned();
        let window = Window::new(Some(name.to_owned()), stated.limit, stated.period);
        self.windows.push(Window { made: made.unwrap_or_default(), ..window });
        self.windows.last_mut()
    }
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { calls: Mutex::new(BTreeMap::new()) }
    }

    /// Waits until `call` is allowed, and counts it.
    pub(super) async fn wait(&self, call: &'static str) {
        while let Some(until) = self.take(call, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Counts a call, or returns when to ask again.
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

    /// Reads a header of the gateway, such as `x-apig-ratelimit-api: remain:99,limit:100,time:1 minute`. An
    /// unreadable one is ignored.
    pub(super) fn note(&self, call: &'static str, name: &str, value: &str, now: Instant) {
        let Some(stated) = Stated::read(value) else { return };
        self.with(call, |limits| {
            let Some(window) = limits.window(name, &stated) else { return };
            window.limit = stated.limit;
            while window.made.len() > window.limit {
                window.made.pop_front();
            }
            window.note_left(stated.left, now);
        });
    }

    /// Blocks `call` until `until`.
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

/// The contents of a header.
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
        let limit = limit.filter(|limit| *limit > 0)?.min(MAX_CALLS);
        let period = period.filter(|period| !period.is_zero() && *period <= MAX_PERIOD)?;
        Some(Self { left: left?, limit, period })
    }
}

/// Parses a duration: `1 minute`, `10 seconds`.
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

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "x-apig-ratelimit-api";
    const ALL: &str = "x-apig-ratelimit-api-allenv";

    /// Makes calls for `within`, each as soon as it is allowed. Returns when each was made, in ms.
    fn made(pace: &Pace, from: Instant, within: Duration, mut after: impl FnMut(usize, Instant)) -> Vec<u128> {
        let (mut now, mut made) = (from, Vec::new());
        while now <= from + within {
            match pace.take("call", now) {
                Some(later) => now = later,
                None => {
                    made.push((now - from).as_millis());
                    after(made.len(), now);
                }
            }
        }
        made
    }

    #[test]
    fn a_call_that_nobody_limits_is_made_a_hundred_times_in_any_minute() {
        let (pace, start) = (Pace::new(), Instant::now());
        let made = made(&pace, start, Duration::from_secs(180), |_, _| {});
        assert_eq!(made.len(), 400, "at 0, 1, 2 and 3 minutes");
        assert!(made.iter().zip(&made[100..]).all(|(earlier, later)| later - earlier >= 60_000));
        assert_eq!(pace.take("another", start), None, "each call counts for itself");
    }

    #[test]
    fn the_gateways_own_limit_replaces_ours_in_both_directions() {
        for (limit, expected) in [(250, 500), (7, 14)] {
            let (pace, start) = (Pace::new(), Instant::now());
            let header = format!("remain:5,limit:{limit},time:1 minute");
            let made = made(&pace, start, Duration::from_secs(119), |_, now| pace.note("call", API, &header, now));
            assert_eq!(made.len(), expected);
        }
    }

    #[test]
    fn nothing_left_means_waiting_until_the_period_is_over_that_began_before_its_first_answer() {
        let (pace, start) = (Pace::new(), Instant::now());
        // Another program uses the same App ID: five calls are left for us, and the first of them is made after 10 s.
        let made = made(&pace, start + Duration::from_secs(10), Duration::from_secs(50), |nth, now| {
            pace.note("call", API, &format!("remain:{},limit:100,time:1 minute", 5_usize.saturating_sub(nth)), now);
        });
        assert_eq!(made.len(), 5);
        assert_eq!(pace.take("call", start + Duration::from_secs(65)), Some(start + Duration::from_secs(70)));
        assert_eq!(pace.take("call", start + Duration::from_secs(70)), None);
    }

    #[test]
    fn several_limits_hold_together() {
        let (pace, start) = (Pace::new(), Instant::now());
        let made = made(&pace, start, Duration::from_secs(59), |_, now| {
            pace.note("call", API, "remain:9,limit:20,time:1 minute", now);
            pace.note("call", ALL, "remain:9,limit:3,time:1 second", now);
        });
        assert_eq!(made.len(), 20);
        let in_a_second = |at: &u128| made.iter().filter(|other| **other >= *at && **other < at + 1000).count();
        assert_eq!(made.iter().map(in_a_second).max(), Some(3));
    }

    #[test]
    fn a_limit_of_all_callers_together_does_not_lift_ours() {
        let (pace, start) = (Pace::new(), Instant::now());
        let header = "remain:199,limit:200,time:1 second";
        let made = made(&pace, start, Duration::from_secs(59), |_, now| pace.note("call", ALL, header, now));
        assert_eq!(made.len(), 100);
    }

    #[test]
    fn headers_that_make_no_sense_change_nothing() {
        let (pace, start) = (Pace::new(), Instant::now());
        for header in [
            "",
            "x",
            "remain:1",
            "remain:-1,limit:100,time:1 minute",
            "remain:0,limit:0,time:1 minute",
            "remain:0,limit:5,time:0 second",
            "remain:0,limit:5,time:1 fortnight",
            "remain:0,limit:5,time:minute",
            "remain:0,limit:5,time:99999999999999999999 second",
            "remain:0,limit:5,time:9999 day",
        ] {
            pace.note("call", API, header, start);
        }
        for n in 0..100 {
            pace.note("call", &format!("x-apig-ratelimit-{n}"), "remain:9,limit:9,time:1 day", start);
        }
        pace.with("call", |limits| assert!(limits.windows.len() <= MAX_WINDOWS));
        let fresh = Pace::new();
        fresh.note("call", API, "remain:0, limit: 1000000000000, time: 10 seconds", start);
        assert_eq!(
            fresh.take("call", start),
            Some(start + Duration::from_secs(10)),
            "blanks and large numbers are read"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_throttled_waits_and_the_others_do_not() {
        let (pace, start) = (Pace::new(), Instant::now());
        pace.stay_away("call", start + Duration::from_secs(30));
        pace.stay_away("call", start + Duration::from_secs(20));
        pace.wait("another").await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.wait("call").await;
        assert_eq!(start.elapsed().as_secs(), 30);
    }
}
