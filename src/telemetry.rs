//! Logs: structured, to standard error, one line a failure. Metrics are in [`crate::metrics`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bounds how often a line of one kind is logged, so that whoever sends rubbish does not fill the disk.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<&'static str, Window>>);

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

/// In each stretch of this length …
const WINDOW: Duration = Duration::from_secs(10);
/// … so many lines of a kind.
const LINES: u32 = 5;

impl Throttle {
    /// Calls `log` with the number of lines of this kind that were suppressed before, or suppresses this one.
    pub fn run(&self, kind: &'static str, log: impl FnOnce(u64)) {
        let suppressed = {
            let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let window = windows.entry(kind).or_insert(Window { since: now, lines: 0, suppressed: 0 });
            if now.duration_since(window.since) >= WINDOW {
                window.since = now;
                window.lines = 0;
            }
            if window.lines == LINES {
                window.suppressed += 1;
                return;
            }
            window.lines += 1;
            std::mem::take(&mut window.suppressed)
        };
        log(suppressed);
    }
}
