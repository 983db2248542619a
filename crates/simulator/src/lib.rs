//! Plays the platform: Huawei Cloud Meeting's event push, against any receiver.
//!
//! A [`Simulation`] enables the push with the handshake, lets a simulated enterprise hold its meetings, delivers every event as the
//! platform would, signed, and retries by the platform's schedule whatever is not answered with exactly 200. It serves people
//! (`convoke simulate`), the demonstration, the fault tests (with a ledger of what was acknowledged and the truth of what
//! happened) and the benchmarks (as the load). [`convoke_core::sign`] makes signed bodies for other tests; [`History`] makes months of them.
//!
//! From the inside out: `people` and `script` plan one meeting, `world` merges many into a stream of events, `fresh` decides
//! which are lost or repeated, `queue` what is delivered when, `sender` delivers over `client`. All but the last two do no
//! networking. Nothing grows with the length of a run.

mod args;
mod body;
mod client;
mod fresh;
mod history;
mod ledger;
mod people;
pub mod platform;
mod post;
mod queue;
mod report;
mod response;
mod schedule;
mod script;
mod sender;
#[cfg(test)]
mod tests;
mod truth;
mod world;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use self::args::{SimulateArgs, command};
pub use self::history::History;
pub use self::post::{Answer, Post};
pub use self::report::{Latency, Report};
use client::Target;
use convoke_core::sign::Signer;
use convoke_core::time::{Clock, Millis};
use fresh::{Fresh, Odds};
use ledger::Ledger;
use platform::Chronicle;
use queue::{Pace, Queue};
use schedule::Schedule;
use sender::Shared;
use world::{World, WorldSettings};

/// Why a run could not be made or had to be broken off. Deliveries that fail are no errors: they are retried and reported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be used.
    #[error("cannot deliver to {url:?}: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to check the receiver's certificate with.
    #[error("no root certificates to check the receiver with: {reason}")]
    Roots {
        /// What happened.
        reason: String,
    },
    /// A setting has a value that makes no sense.
    #[error("{setting} must be {expected}")]
    Setting {
        /// Its name, as on the command line.
        setting: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// A file cannot be opened or read.
    #[error("cannot open {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The platform's address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The receiver did not pass the handshake. The platform would refuse to enable the push.
    #[error("the handshake failed, the platform would not enable the push: {reason}")]
    Handshake {
        /// What came back, and what should have.
        reason: String,
    },
    /// The receiver did not answer.
    #[error("{reason}")]
    NoAnswer {
        /// What happened.
        reason: String,
    },
    /// The ledger or the truth cannot be written. The run was broken off, since its record would be wrong.
    #[error("cannot write the ledger or the truth")]
    Record(#[source] io::Error),
}

/// A run of the simulated platform, with everything decided. Start from [`Simulation::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The receiver's callback URL, `http` or `https`.
    pub url: String,
    /// A PEM file to check an `https` receiver with, instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The subscriber ID.
    pub app_id: String,
    /// The subscriber's key.
    pub key: SecretString,
    /// How many runs of meetings there are. Not regarded with a `duration`.
    pub meetings: u64,
    /// How many people come to each.
    pub attendees: usize,
    /// New events per second, sent on time whether or not the receiver keeps up (open loop; latency counts from when the
    /// event should have been sent; events that no connection was free for are counted). `None`: each connection sends as soon as it is free (closed loop).
    pub rate: Option<f64>,
    /// How many keep-alive connections are used at once.
    pub connections: usize,
    /// New meetings begin without end; no new event is sent after this time.
    pub duration: Option<Duration>,
    /// The fraction of events that is delivered again although acknowledged: right after, later, or at the same time on another
    /// connection.
    pub duplicates: f64,
    /// The fraction of events that happen but are never sent.
    pub drop: f64,
    /// Whether a retry or copy gets a new timestamp, nonce, signature and request id; else its bytes are the same (but for `Date`).
    pub resign_retries: bool,
    /// Whether events are delivered out of order, within a window of 64.
    pub shuffle: bool,
    /// How many times faster than the platform's the retry schedule runs.
    pub time_scale: f64,
    /// What is left to chance comes from here.
    pub seed: u64,
    /// When the simulated world begins; `None` for now. Its clock runs ahead from there, faster than ours.
    pub base: Option<Millis>,
    /// Whether some meetings go on for days. Then the world should begin a week ago, or its events are of the future.
    pub long_rooms: bool,
    /// The platform whose memory this world becomes.
    pub chronicle: Option<Chronicle>,
    /// Where acknowledged events are noted (NDJSON, appended).
    pub ledger: Option<PathBuf>,
    /// Where is noted what happened in the simulated world (NDJSON, appended).
    pub truth: Option<PathBuf>,
    /// Whether the push is enabled first, as the platform demands.
    pub handshake: bool,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
    /// How long the run goes on for the sake of retries after the last new event; `None` until all are settled.
    pub settle: Option<Duration>,
    /// Whether a progress bar is shown on the standard error, if that is a terminal.
    pub progress: bool,
    /// Gives the time of the envelope, `Date` and the ledger.
    pub clock: Clock,
}

impl Simulation {
    /// A small run against `url`: 20 meetings of 10 people over 8 connections as fast as they go, on a receiver that gets everything
    /// once and in order, with the platform's own retry schedule and the seed 0.
    #[must_use]
    pub fn new(url: impl Into<String>, app_id: impl Into<String>, key: SecretString) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            app_id: app_id.into(),
            key,
            meetings: 20,
            attendees: 10,
            rate: None,
            connections: 8,
            duration: None,
            duplicates: 0.0,
            drop: 0.0,
            resign_retries: false,
            shuffle: false,
            time_scale: 1.0,
            seed: 0,
            base: None,
            long_rooms: false,
            chronicle: None,
            ledger: None,
            truth: None,
            handshake: true,
            timeout: Duration::from_secs(5),
            settle: None,
            progress: false,
            clock: Clock::System,
        }
    }

    /// Whether it can be run: its settings make sense, and its files can be opened.
    ///
    /// # Errors
    /// A setting makes no sense, or a file cannot be opened.
    pub fn prepare(&self) -> Result<(), Error> {
        self.check()?;
        // Both are appended to.
        drop(self.ledger.as_deref().map(Ledger::open).transpose()?);
        drop(self.truth.as_deref().map(ledger::append_to).transpose()?);
        Ok(())
    }

    /// Runs until everything is delivered or given up, or until `stop` is cancelled: then deliveries under way are finished, the
    /// truth is completed, and the report says how far it came.
    ///
    /// # Errors
    /// A setting makes no sense, a file cannot be opened or written, or the handshake fails.
    pub async fn run(&self, stop: CancellationToken) -> Result<Report, Error> {
        self.check()?;
        let target = Arc::new(Target::new(&self.url, self.ca_file.as_deref())?);
        let signer = Signer::new(&self.app_id, self.key.expose_secret().as_bytes());
        let ledger = self.ledger.as_deref().map(Ledger::open).transpose()?;
        let truth = self.truth.as_deref().map(ledger::append_to).transpose()?;
        let base = self.base.unwrap_or_else(|| self.clock.now());
        let moment = u64::try_from(base.get()).unwrap_or(0);
        let salt = people::mix(self.seed) ^ people::mix(moment);
        if self.handshake {
            let post = Post {
                url: &self.url,
                ca_file: self.ca_file.as_deref(),
                app_id: &self.app_id,
                key: &self.key,
                clock: &self.clock,
                timeout: self.timeout,
            };
            post.handshake_with(salt).await?;
        }
        let meetings = if self.duration.is_some() { None } else { Some(self.meetings) };
        let Self { seed, attendees, long_rooms, .. } = *self;
        let settings = WorldSettings { seed, base, meetings, attendees, long_rooms };
        let witness = self.chronicle.clone().map(|chronicle| Arc::new(chronicle) as Arc<dyn world::Witness>);
        let world = World::new(&self.app_id, settings, truth.is_some()).seen_by(witness);
        let odds = Odds { duplicates: self.duplicates, drop: self.drop, shuffle: self.shuffle };
        let fresh = Fresh::new(world, odds, self.seed, truth);
        let pace = Pace { rate: self.rate, duration: self.duration, settle: self.settle };
        let queue = Queue::new(fresh, Schedule::new(self.time_scale), pace, Instant::now());
        // Its own token, so that a broken run can be stopped without stopping the caller.
        let stop = stop.child_token();
        let shared = Arc::new(Shared {
            target,
            signer,
            ledger,
            clock: self.clock.clone(),
            timeout: self.timeout,
            resign: self.resign_retries,
            paced: self.rate.is_some(),
            salt,
            stop,
            queue: Mutex::new(queue),
            turn: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        });
        let outcome = self.drive(&shared).await;
        let mut queue = shared.queue();
        queue.finish().map_err(Error::Record)?;
        outcome.map_err(Error::Record)?;
        let (events, open) = (queue.events(), (queue.behind(), queue.unsettled()));
        Ok(queue.tally.report(Instant::now(), (self.seed, base.to_string()), events, open))
    }

    /// Runs all connections to their end.
    async fn drive(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let shared = Arc::clone(shared);
            connections.spawn(async move { sender::connection(&shared).await });
        }
        let bar = if self.progress { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                ended = connections.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => {
                        outcome = outcome.and(Err(error));
                        shared.stop.cancel();
                    }
                    Some(Err(failed)) => {
                        shared.stop.cancel();
                        outcome = outcome.and(Err(io::Error::other(failed)));
                    }
                },
                _ = ticks.tick(), if !bar.is_hidden() => {
                    let queue = shared.queue();
                    let (tally, waiting) = (&queue.tally, queue.waiting());
                    bar.set_message(format!(
                        "sent {}, acknowledged {}, retried {}, waiting {waiting}, given up {}",
                        tally.sent, tally.acknowledged, tally.retried, tally.given_up,
                    ));
                    drop(queue);
                    bar.tick();
                }
            }
        }
        bar.finish_and_clear();
        outcome
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |setting, expected| Err(Error::Setting { setting, expected });
        if !(0.0..=1.0).contains(&self.duplicates) {
            return wrong("--duplicates", "a fraction between 0 and 1");
        }
        if !(0.0..=1.0).contains(&self.drop) {
            return wrong("--drop", "a fraction between 0 and 1");
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return wrong("--rate", "a number of events per second, or 0 for as fast as possible");
        }
        if !self.time_scale.is_finite() || self.time_scale <= 0.0 {
            return wrong("--time-scale", "a positive number");
        }
        if self.connections == 0 {
            return wrong("--connections", "at least 1");
        }
        if self.attendees > 100_000 {
            return wrong("--attendees", "at most 100000");
        }
        Ok(())
    }
}
