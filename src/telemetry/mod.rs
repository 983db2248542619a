//! Logs: structured, to standard error, one line per failure; spans are in [`traces`]. Metrics are in [`crate::metrics`].
//!
//! Writing a log line never blocks: lines go through a bounded queue to a thread that writes them. Lines that do not fit, or
//! cannot be written (the reader is gone, the disk is full), are counted. The crate `tracing-appender` does the same, but when it
//! could not write everything at the end, it reports that with `eprintln!`, which in just this case blocks forever, or panics.

pub mod traces;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use convoke_core::time::instant;
use prometheus::IntCounter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Maximum number of lines in the queue.
const ROOM: usize = 4096;

/// How long shutdown waits for the last lines: a reader that has not read them by then never will.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines that were dropped.
static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Log lines that could not be written: their reader is gone, or the disk is full.";
    IntCounter::new("convoke_log_lines_dropped_total", help).unwrap_or_else(|error| unreachable!("{error}"))
});

/// The queue of the writer thread, once logging is set up.
static LINES: OnceLock<SyncSender<Line>> = OnceLock::new();

enum Line {
    Text(Vec<u8>),
    /// All lines before this one have been written or dropped.
    End(SyncSender<()>),
}

/// The number of lines that this process could not write.
#[must_use]
pub fn dropped() -> IntCounter {
    DROPPED.clone()
}

/// Accepts a line without blocking.
#[derive(Clone)]
struct Queue(SyncSender<Line>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Line::Text(line.to_vec())).is_err() {
            DROPPED.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the lines of the queue until all senders are gone.
fn write(lines: &Receiver<Line>, mut to: impl Write) {
    for line in lines {
        match line {
            Line::Text(text) if to.write_all(&text).is_err() => DROPPED.inc(),
            Line::Text(_) => {}
            Line::End(done) => drop(done.try_send(())),
        }
    }
}

/// Writes the process's last message, without blocking. Before logging is set up, it goes to standard error as plain text.
pub fn say(text: &str) {
    match LINES.get() {
        Some(lines) => drop(Queue(lines.clone()).write(format!("{text}\n").as_bytes())),
        None => crate::output::print_error(format_args!("{text}\n")),
    }
}

/// Waits until the spans are sent and the lines are written, for a limited time.
pub fn finish() {
    traces::finish();
    let Some(lines) = LINES.get() else { return };
    let (done, written) = sync_channel(1);
    let end = instant() + LAST_LINES;
    let mut last = Line::End(done);
    while let Err(TrySendError::Full(line)) = lines.try_send(last) {
        if instant() >= end {
            return;
        }
        last = line;
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = written.recv_timeout(end.saturating_duration_since(instant()));
}

/// Logs a panic like any other failure.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("no words");
        if LINES.get().is_some() {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!(place, panic = words, %backtrace, "a panic: this is a bug in Convoke, please report it");
        } else {
            say(&format!("convoke: a panic at {place}: {words}"));
        }
    }));
}

/// Sets up logging: the format of the lines, and the collector for spans, if there is one.
///
/// # Errors
/// If `filter` (the value of `RUST_LOG`) is not a filter, or the sending of spans cannot be started.
pub fn init(json: bool, filter: &str, otlp_endpoint: Option<&str>) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(filter)?;
    let queue = Queue(LINES.get_or_init(start).clone());
    // The layer would report its own errors with `eprintln!`.
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(move || queue.clone());
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed()
    };
    let spans = otlp_endpoint.map(traces::layer).transpose()?;
    // A second subscriber is refused; the first one stays.
    if let Err(error) = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init() {
        tracing::debug!(%error, "logging was set up before");
    }
    Ok(())
}

/// Starts the writer thread. If that fails, all lines are dropped and counted.
fn start() -> SyncSender<Line> {
    let (sender, lines) = sync_channel(ROOM);
    // Uses its own file descriptor: if the reader of standard error stalls, the lock of `stderr` would block other threads.
    if let Ok(to) = io::stderr().as_fd().try_clone_to_owned().map(File::from) {
        let thread = std::thread::Builder::new().name("log".to_owned());
        drop(thread.spawn(move || write(&lines, to)));
    }
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_finds_no_room_is_dropped_and_counted_and_its_sender_does_not_wait() {
        let (sender, lines) = sync_channel(1);
        let mut queue = Queue(sender);
        let before = dropped().get();
        for line in ["first", "second", "third"] {
            assert_eq!(queue.write(line.as_bytes()).expect("nothing fails"), line.len());
        }
        // Other tests in this process drop no lines: they do not set up logging.
        assert_eq!(dropped().get() - before, 2);
        let mut written = Vec::new();
        drop(queue);
        write(&lines, &mut written);
        assert_eq!(written, b"first");
    }
}
