//! Lines of a log that come too often: some are said, the others are counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bounds how often a line of one kind is logged, so that a sender of rubbish does not fill the disk.
#[derive(Debug)]
pub struct Throttle {
    lines: u32,
    stretch: Duration,
    windows: Mutex<HashMap<&'static str, Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

/// Five lines of a kind in ten seconds.
impl Default for Throttle {
    fn default() -> Self {
        Self::new(5, Duration::from_secs(10))
    }
}

impl Throttle {
    /// At most `lines` of a kind in each `stretch` of time.
    #[must_use]
    pub fn new(lines: u32, stretch: Duration) -> Self {
        Self { lines, stretch, windows: Mutex::default() }
    }

    /// Calls `log` with the number of lines of this kind that were suppressed before, if any were, or suppresses this one.
    pub fn run(&self, kind: &'static str, log: impl FnOnce(Option<u64>)) {
        let suppressed = {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let window = windows.entry(kind).or_insert(Window { since: now, lines: 0, suppressed: 0 });
            if now.duration_since(window.since) >= self.stretch {
                window.since = now;
                window.lines = 0;
            }
            if window.lines == self.lines {
                window.suppressed += 1;
                return;
            }
            window.lines += 1;
            std::mem::take(&mut window.suppressed)
        };
        log((suppressed > 0).then_some(suppressed));
    }
}
