//! `convoke simulate`: its options, and how it talks to people.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{Error, Report, Simulation};
use convoke_core::time::Clock;

/// Simulates Huawei Cloud Meeting's event push: sends the handshake, then signed meetings, with the platform's retries.
///
/// Ends with a report. Ctrl-C ends it early, with the report.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Callback URL of the receiver, http or https [default: the events listener of the settings, on this machine]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// Subscriber ID that signs the events [default: the first one in the settings]
    #[arg(long, value_name = "ID")]
    pub app_id: Option<String>,

    /// File whose first line is the subscriber's key [default: the key in the settings]
    #[arg(long, value_name = "FILE")]
    pub app_key_file: Option<PathBuf>,

    /// Number of meetings; not used with --duration
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub meetings: u64,

    /// Number of people who join each meeting
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub attendees: usize,

    /// New events per second, sent on schedule even if the receiver is slow (latency counts from the scheduled time); 0: each
    /// connection sends the next event when the last one is answered
    #[arg(long, value_name = "EVENTS/S", default_value_t = 0.0)]
    pub rate: f64,

    /// Number of simultaneous keep-alive connections
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub connections: usize,

    /// Keep holding meetings, and send the last new event after this time (for example 30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,

    /// Fraction of events that are delivered again although acknowledged: at once, later, or in parallel on another connection
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub duplicates: f64,

    /// Fraction of events that are never sent, as if the platform had lost them; they are listed in the truth file
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub drop: f64,

    /// Sign every retry and copy anew (timestamp, nonce, signature) instead of sending the same bytes again
    #[arg(long)]
    pub resign_retries: bool,

    /// Deliver events out of order, within a window of 64
    #[arg(long)]
    pub shuffle: bool,

    /// Divide the times of the retry schedule (three times after 30 s, then every 30 min, for 24 h) by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub time_scale: f64,

    /// Date the events this long before now (for example 2d); the simulated clock runs on from there
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub ago: Option<Duration>,

    /// Simulate the platform's REST API too: wait until a subscription is enabled there, hold the meetings and push their events,
    /// then keep answering, for backfill, until Ctrl-C
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8090",
        conflicts_with_all = ["url", "app_id", "app_key_file"])]
    pub platform: Option<SocketAddr>,

    /// File whose first line is the App Key of that API; created if it does not exist
    #[arg(long, value_name = "FILE", default_value = "platform.key", requires = "platform")]
    pub platform_key_file: PathBuf,
    /// Let the App ID belong to this service provider, whose enterprises sign in by their ID
    #[arg(long, value_name = "ID", requires = "platform")]
    pub platform_sp_id: Option<String>,
    /// Record meetings in the platform's newer recording system
    #[arg(long, requires = "platform")]
    pub platform_newer_recordings: bool,

    /// Seed of the random numbers [default: a new one, which is printed]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Append a JSON line for every acknowledged event to this file, before the next event is sent on that connection
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,

    /// Append the truth to this file, as JSON lines: the simulated meetings, stays, recordings and dropped events
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl SimulateArgs {
    /// The run that these options describe, sent to `url` and signed for `app_id` with `key`: which they are, flag or setting, is
    /// for the caller to say. A seed that was not given is chosen here.
    #[must_use]
    pub fn simulation(&self, url: &str, app_id: impl Into<String>, key: SecretString) -> Simulation {
        Simulation {
            meetings: self.meetings,
            attendees: self.attendees,
            rate: (self.rate != 0.0).then_some(self.rate),
            connections: self.connections,
            duration: self.duration,
            duplicates: self.duplicates,
            drop: self.drop,
            resign_retries: self.resign_retries,
            shuffle: self.shuffle,
            time_scale: self.time_scale,
            // Short enough to be typed again.
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            base: self.ago.map(|ago| Clock::System.now().minus(ago)),
            ledger: self.ledger.clone(),
            truth: self.truth.clone(),
            progress: true,
            ..Simulation::new(url, app_id, key)
        }
    }
}

/// Runs `simulation` for people: seed and progress on the standard error, Ctrl-C or `stop` for an early end. The caller prints
/// the report, [`Report`]'s text or its JSON.
///
/// # Errors
/// As [`Simulation::run`].
pub async fn command(simulation: &Simulation, stop: CancellationToken) -> Result<Report, Error> {
    // Not `eprintln!`, which panics if nobody reads it.
    let _ = writeln!(std::io::stderr(), "seed {}", simulation.seed);
    let stop = stop.child_token();
    let mut run = std::pin::pin!(simulation.run(stop.clone()));
    tokio::select! {
        report = &mut run => return report,
        // Without a handler Ctrl-C ends the process, which is all that an error here can mean.
        _ = tokio::signal::ctrl_c() => stop.cancel(),
    }
    run.await
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use secrecy::SecretString;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn simulation(line: &str) -> Simulation {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        let args = Line::parse_from(words).args;
        let url = args.url.as_deref().unwrap_or("http://localhost/");
        args.simulation(url, "7700001234", SecretString::from("k"))
    }

    #[test]
    fn without_options_a_small_run_is_made() {
        let simulation = simulation("");
        assert_eq!(simulation.url, "http://localhost/");
        assert_eq!((simulation.meetings, simulation.attendees, simulation.connections), (20, 10, 8));
        assert_eq!((simulation.rate, simulation.duration, simulation.time_scale), (None, None, 1.0));
    }

    #[test]
    fn every_option_of_the_contract_is_understood() {
        let simulation = simulation(
            "--url http://h/p --app-id 1 --app-key-file k --meetings 3 --attendees 4 --rate 5 --connections 6 --duration 7s \
             --duplicates 0.1 --drop 0.2 --resign-retries --shuffle --time-scale 60 --seed 9 --ledger l --truth t --ago 2d --json",
        );
        assert_eq!(simulation.url, "http://h/p");
        assert_eq!((simulation.meetings, simulation.attendees, simulation.connections), (3, 4, 6));
        assert_eq!((simulation.rate, simulation.duration), (Some(5.0), Some(Duration::from_secs(7))));
        assert_eq!((simulation.duplicates, simulation.drop, simulation.time_scale), (0.1, 0.2, 60.0));
        assert!(simulation.resign_retries && simulation.shuffle);
        assert_eq!(simulation.seed, 9);
        assert_eq!((simulation.ledger, simulation.truth), (Some("l".into()), Some("t".into())));
        let (base, now) = (simulation.base.expect("two days ago"), Clock::System.now());
        assert!((172_800_000..172_860_000).contains(&(now.get() - base.get())), "{base} is two days before {now}");
    }

    #[test]
    fn the_platform_listens_where_it_is_configured_and_leaves_url_and_key_to_who_subscribes() {
        let parse = |line: &str| {
            Line::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace()))
                .map(|line| line.args.platform)
        };
        assert_eq!(parse("").ok(), Some(None));
        assert_eq!(parse("--platform").ok(), Some("127.0.0.1:8090".parse().ok()));
        assert_eq!(parse("--platform 127.0.0.1:0 --meetings 3").ok(), Some("127.0.0.1:0".parse().ok()));
        assert!(parse("--platform --url http://h/p").is_err() && parse("--platform-key-file k").is_err());
    }
}
