//! Logs: structured, to standard error, one line a failure. Metrics are in [`crate::metrics`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bounds how often a line of one kind is logged, so that whoever sends rubbish does not fill the disk.
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

/// Where log lines go, and how they look.
///
/// # Errors
/// If `filter` (the value of `RUST_LOG`) is not a filter.
pub fn init(json: bool, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber is refused; the first one stays.
    let result = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        lines.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
    };
    if let Err(error) = result {
        tracing::debug!(%error, "logging was set up before");
    }
    Ok(())
}
