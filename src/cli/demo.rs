//! `convoke demo`, for newcomers: the service, a bus and a simulated platform, all private, in one temporary folder.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::audit::{Findings, compare_stream};
use super::open::logging;
use super::signals::{self, EndSignals};
use super::{Failure, Outcome};
use crate::app::{self, App};
use crate::audit;
use crate::config::{self, ConfigArgs, Env, Settings};
use convoke_core::id::Seq;
use convoke_core::time::{Clock, Millis};
use convoke_log::{self as log, Filter};
use convoke_simulator::Simulation;
use convoke_simulator::platform::{Platform, PlatformOptions, Subscribed};

/// The demo's stream and subject prefix: different from those of a service on the same server.
const STREAM: &str = "CONVOKE_DEMO";
const PREFIX: &str = "demo";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  convoke demo\n  convoke demo --once --meetings 100")]
pub struct DemoArguments {
    /// End after the audit; status 0 only if the audit is clean
    #[arg(long)]
    once: bool,
    /// Publish to this NATS server instead of a private one
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// The nats-server program to start [default: the one in PATH; without it nothing is published]
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// Number of meetings
    #[arg(long, value_name = "N", default_value_t = 20)]
    meetings: u64,
    /// Number of people who join each meeting
    #[arg(long, value_name = "N", default_value_t = 10)]
    attendees: usize,
    /// Seed of the random numbers
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// The value of `nats.url` without a bus.
const NO_BUS: &str = "none";

/// Addresses of the two listeners.
const USUAL_ADDRESSES: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:8081"];
const FREE_ADDRESSES: [&str; 2] = ["127.0.0.1:0", "127.0.0.1:0"];

/// The sample's subscriber, and an App ID for the simulated platform's API.
const SUBSCRIBER_ID: &str = "1988692299";
const PLATFORM_APP_ID: &str = "0123456789abcdef0123456789abcdef";

/// How long ago the meetings were held: events younger than a day could still be pushed, and would not be backfilled.
const MEETINGS_AGE: Duration = Duration::from_secs(2 * 86_400);
/// The fraction of events that the platform loses.
const DROPPED_SHARE: f64 = 0.05;

/// Events per second during the demonstration, and afterwards.
const RATE: f64 = 250.0;
const TRICKLE_RATE: f64 = 2.0;

/// The platform's retries take seconds instead of hours.
const TIME_SCALE: f64 = 120.0;

pub async fn run(arguments: &DemoArguments, env: &Env) -> Outcome {
    logging(env, "warn,async_nats=off", false, None)?;
    let folder = tempfile::Builder::new().prefix("convoke-demo-").tempdir().context("a temporary folder")?;
    let (mut server, nats_url) = match &arguments.nats_url {
        Some(url) => (None, url.clone()),
        None => match start_nats(arguments.nats_server.as_deref(), folder.path()).await? {
            Some((child, url)) => {
                println!("started a private nats-server at {url}");
                (Some(child), url)
            }
            None => {
                println!("there is no nats-server on this machine: events are stored and shown, but not published");
                println!("(https://nats.io/download, then --nats-server FILE; or --nats-url URL)");
                (None, NO_BUS.to_owned())
            }
        },
    };
    let result = show(arguments, folder.path(), &nats_url).await;
    if let Some(server) = &mut server
        && let Err(error) = server.kill().await
    {
        tracing::warn!(%error, "could not stop the private nats-server");
    }
    result
}

async fn show(arguments: &DemoArguments, folder: &Path, nats_url: &str) -> Outcome {
    let mut setup = DemoSetup::prepare(folder, nats_url).await?;
    // Uses the usual ports if they are free, so that the README's commands work unchanged. Only binding them shows whether they
    // are.
    let mut settings = setup.settings(USUAL_ADDRESSES)?;
    let app = match App::start(&settings).await {
        Ok(app) => app,
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "not on the usual ports");
            settings = setup.settings(FREE_ADDRESSES)?;
            App::start(&settings).await?
        }
    };
    setup.callback_url = format!("http://{}{}", app.events, settings.listen.path);
    let (admin, health) = (app.admin, Arc::clone(&app.health));
    let (stop, force) = (CancellationToken::new(), CancellationToken::new());
    let mut running = std::pin::pin!(app.run(stop.clone(), force.clone()));
    let story = async {
        wait("the service to be ready", || health.ready()).await?;
        setup.play(arguments, &settings, admin, &stop).await
    };
    let mut story = std::pin::pin!(story);
    let mut signals = EndSignals::listen()?;
    let mut clean = None;
    loop {
        tokio::select! {
            found = &mut story, if clean.is_none() => {
                clean = Some(found?);
                stop.cancel();
            }
            ended = &mut running => {
                ended?;
                break;
            }
            _ = signals.next() => {
                if !stop.is_cancelled() {
                    println!("\nstopping");
                }
                signals::end(&stop, &force);
            }
        }
    }
    // Ended by a signal: the findings up to then, if any, have been printed.
    if arguments.once && clean != Some(true) { Err(Failure::Found) } else { Ok(()) }
}

/// What the demo and its commands use. The user's own files and settings are neither read nor changed.
struct DemoSetup {
    folder: PathBuf,
    nats_url: String,
    key_file: PathBuf,
    platform: Platform,
    platform_key_file: PathBuf,
    /// The URL to which the platform pushes; known only once the service listens.
    callback_url: String,
}

impl DemoSetup {
    async fn prepare(folder: &Path, nats_url: &str) -> anyhow::Result<Self> {
        let random = || format!("{:032x}", rand::random::<u128>());
        let write = |name: &str, key: &str| {
            let file = folder.join(name);
            config::write_secret(&file, key).context("a key file").map(|()| file)
        };
        let platform_key = random();
        let options = PlatformOptions {
            // The demo must not be slowed down by the rate limit, however many meetings are requested.
            limit: 100_000,
            decode_for: Duration::ZERO,
            ..PlatformOptions::new(PLATFORM_APP_ID, SecretString::from(platform_key.clone()))
        };
        Ok(Self {
            folder: folder.to_owned(),
            nats_url: nats_url.to_owned(),
            key_file: write("subscriber.key", &random())?,
            platform: Platform::start(options).await?,
            platform_key_file: write("platform.key", &platform_key)?,
            callback_url: String::new(),
        })
    }

    /// Runs the demonstration, from the subscription to the audit, and then goes on at a low rate. Returns whether the audit was
    /// clean.
    async fn play(
        &self,
        arguments: &DemoArguments,
        settings: &Settings,
        admin: SocketAddr,
        stop: &CancellationToken,
    ) -> Result<bool, Failure> {
        println!("convoke takes events at {}, database {}", self.callback_url, settings.database.url);
        println!("the platform is simulated, its API is at {}\n", self.platform.url());
        self.command(&["subscription", "set"]).await?;
        self.command(&["subscription", "enable"]).await?;
        println!("(The refused delivery is a probe with a wrong key: it must be refused.)\n");
        let subscribed =
            tokio::time::timeout(WAIT_TIMEOUT, self.platform.enabled()).await.context("the subscription")?;
        let began = Clock::System.now().minus(MEETINGS_AGE);
        let simulation = self.simulation(arguments, subscribed, began);
        println!(
            "the platform holds {} meetings, two days ago (seed {}), and loses some events …",
            arguments.meetings, simulation.seed
        );
        let report = simulation.run(stop.child_token()).await.map_err(anyhow::Error::from)?;
        println!("{report}\n");
        if !stop.is_cancelled() {
            self.command(&["backfill", "--since", &began.to_string()]).await?;
            let ready = self.recordings(settings).await?;
            println!(
                "the platform has processed the recordings of {ready} meetings: the log has a record.ready for \
                      each\n"
            );
        }
        let findings = audit(settings, &self.ledger()).await?;
        let (published, compared) = match self.nats_url.as_str() {
            NO_BUS => ("", "ledger and log"),
            _ => (" and published", "ledger, log and stream"),
        };
        println!("Every pushed event was verified and stored in SQLite{published}. The audit of {compared}:");
        findings.print();
        self.print_where_to_look(admin, arguments.once);
        if !arguments.once && !stop.is_cancelled() {
            println!(
                "\nMeetings continue, {TRICKLE_RATE} events a second. Ctrl-C ends the demo and deletes the \
                      folder."
            );
            let trickle = Simulation {
                rate: Some(TRICKLE_RATE),
                duration: Some(Duration::from_secs(7 * 24 * 3600)),
                drop: 0.0,
                base: None,
                progress: false,
                seed: simulation.seed.wrapping_add(1),
                ..simulation
            };
            trickle.run(stop.child_token()).await.map_err(anyhow::Error::from)?;
        }
        Ok(findings.clean)
    }

    fn simulation(&self, arguments: &DemoArguments, subscribed: Subscribed, began: Millis) -> Simulation {
        Simulation {
            meetings: arguments.meetings,
            attendees: arguments.attendees,
            rate: Some(RATE),
            duplicates: 0.05,
            drop: DROPPED_SHARE,
            resign_retries: true,
            time_scale: TIME_SCALE,
            seed: arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            base: Some(began),
            ledger: Some(self.ledger()),
            truth: Some(self.folder.join("truth.ndjson")),
            handshake: false,
            chronicle: Some(self.platform.chronicle()),
            progress: true,
            ..Simulation::new(subscribed.url, subscribed.subscriber_id, subscribed.subscriber_key)
        }
    }

    fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.ndjson")
    }

    fn variables(&self, [events, admin]: [&str; 2]) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            ("CONVOKE_LISTEN", events.to_owned()),
            ("CONVOKE_ADMIN_LISTEN", admin.to_owned()),
            ("CONVOKE_DATABASE_URL", format!("sqlite://{}", text(&self.folder.join("convoke.db")))),
            ("CONVOKE_NATS_URL", self.nats_url.clone()),
            ("CONVOKE_NATS_STREAM", STREAM.to_owned()),
            ("CONVOKE_NATS_SUBJECT_PREFIX", PREFIX.to_owned()),
            ("CONVOKE_APP_ID", SUBSCRIBER_ID.to_owned()),
            ("CONVOKE_APP_KEY_FILE", text(&self.key_file)),
            ("CONVOKE_SHUTDOWN_DELAY", "0s".to_owned()),
            ("CONVOKE_PLATFORM_URL", self.platform.url()),
            ("CONVOKE_PLATFORM_APP_ID", PLATFORM_APP_ID.to_owned()),
            ("CONVOKE_PLATFORM_APP_KEY_FILE", text(&self.platform_key_file)),
            ("CONVOKE_RECORDINGS_ENABLED", "true".to_owned()),
            ("CONVOKE_LIVE_ENABLED", "true".to_owned()),
            ("CONVOKE_LIVE_MEETINGS", "all".to_owned()),
            ("CONVOKE_LIVE_MESSAGES", "status,participants,waiting_room,speakers".to_owned()),
        ]
    }

    fn settings(&self, listen: [&str; 2]) -> Result<Settings, Failure> {
        let variables = self.variables(listen);
        let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
        Ok(Settings::load(&ConfigArgs::default(), &Env::of(variables, &self.folder))?)
    }

    /// Runs a command as a user would, with the settings of the demo, and prints its output.
    async fn command(&self, arguments: &[&str]) -> anyhow::Result<()> {
        println!("$ convoke {}", arguments.join(" "));
        let mut command = Command::new(std::env::current_exe().context("our own program")?);
        command.args(arguments).env_clear().envs(self.variables(FREE_ADDRESSES));
        command.env("CONVOKE_PLATFORM_CALLBACK_URL", &self.callback_url).current_dir(&self.folder);
        // Ctrl-C goes to the demo, so that the command it started ends by itself.
        let output = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).output();
        let output =
            tokio::time::timeout(WAIT_TIMEOUT * 3, output).await.context("too slow")?.context("our own program")?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            bail!("convoke {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
        }
        println!();
        Ok(())
    }

    /// Prints how to explore the demo while it runs.
    fn print_where_to_look(&self, admin: SocketAddr, once: bool) {
        let (folder, nats_url) = (self.folder.display(), &self.nats_url);
        let look = if once {
            "Without --once the demo continues, and you can look for yourself:"
        } else {
            "Look for yourself:"
        };
        println!("\n{look}");
        println!("  sqlite3 {folder}/convoke.db \"SELECT event, count(*) FROM events GROUP BY event\"");
        if nats_url != NO_BUS {
            println!("  nats --server {nats_url} stream view {STREAM}        (the NATS command line, if you have it)");
        }
        println!("  curl -s http://{admin}/metrics | grep convoke_deliveries_total");
        println!("  curl -s 'http://{admin}/readyz?verbose'");
        println!("  curl -s 'http://{admin}/api/v1/meetings?status=live'");
        println!("  http://{admin}/   the page, in a browser: status and latest events, personal data masked");
        println!("  {folder}   the simulator's ledger and truth");
        println!("Send an event yourself, and see it on the page:");
        // As it was called: it need not be on the PATH.
        let called = std::env::args_os().next().unwrap_or_else(|| "convoke".into());
        println!(
            "  {} send {} --event meeting.join --app-id {SUBSCRIBER_ID} --app-key-file {}",
            called.display(),
            self.callback_url,
            self.key_file.display()
        );
    }

    /// Waits until there is a `record.ready` for every recorded meeting. Returns their number.
    async fn recordings(&self, settings: &Settings) -> anyhow::Result<usize> {
        let expected = self.platform.edit(|archive| archive.runs().filter(|run| !run.recordings.is_empty()).count());
        let log = log::open(&app::log_options(settings))?;
        let filter = Filter { event: Some("record.ready".to_owned()), ..Filter::default() };
        let all_ready = async {
            let (mut after, mut ready) = (Seq::START, HashSet::new());
            while ready.len() < expected {
                let records = log.select(&filter, after, 500).await?;
                match records.last() {
                    Some(last) => after = last.seq,
                    None => tokio::time::sleep(Duration::from_millis(100)).await,
                }
                ready.extend(records.into_iter().map(|record| record.meeting_uuid));
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(WAIT_TIMEOUT, all_ready).await.context("waiting for the recordings")??;
        log.close().await;
        Ok(expected)
    }
}

/// Time limit for steps that should take almost no time.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

async fn wait(what: &str, condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let reached = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_TIMEOUT, reached).await.map_err(|_| anyhow!("waited {WAIT_TIMEOUT:?} for {what}"))
}

async fn audit(settings: &Settings, ledger: &Path) -> Result<Findings, Failure> {
    use std::io::BufRead as _;
    super::with_log(settings, async |log| {
        let bus = super::open_bus_if_named(settings).await?;
        let lines = std::io::BufReader::new(std::fs::File::open(ledger).context("the ledger")?).lines();
        let ledger = audit::compare_ledger(&**log, lines, None).await?;
        let stream = match &bus {
            Some(bus) => Some(compare_stream(&**log, bus, WAIT_TIMEOUT).await?),
            None => None,
        };
        Ok(Findings::new(Some(ledger), stream))
    })
    .await
}

/// Starts a private nats-server on a free port, with its store in `folder`; `None`: no program was named, and none is installed.
async fn start_nats(named: Option<&Path>, folder: &Path) -> Result<Option<(Child, String)>, Failure> {
    let program = named.unwrap_or(Path::new("nats-server"));
    let ports = folder.join("ports");
    let store = folder.join("nats");
    std::fs::create_dir_all(&ports).context("a folder for nats-server")?;
    let started = Command::new(program)
        .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream"])
        .arg("--store_dir")
        .arg(&store)
        .arg("--ports_file_dir")
        .arg(&ports)
        .arg("--log")
        .arg(folder.join("nats-server.log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C goes to the demo: the service publishes to this server until it has shut down.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let program = program.display();
            return Err(Failure::Usage(format!(
                "cannot start {program}: {error}; give another file, or --nats-url URL"
            )));
        }
    };
    let ready = async {
        loop {
            if let Some(url) = listening(&ports)? {
                return Ok(url);
            }
            if let Some(status) = child.try_wait().context("nats-server")? {
                bail!("nats-server ended: {status}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let url = tokio::time::timeout(WAIT_TIMEOUT, ready).await.context("waiting for nats-server")??;
    Ok(Some((child, url)))
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

/// The address that nats-server has written to its ports file; `None`: not yet.
fn listening(ports: &Path) -> anyhow::Result<Option<String>> {
    for entry in std::fs::read_dir(ports)? {
        let text = std::fs::read_to_string(entry?.path())?;
        // The file may be half written.
        if let Ok(ports) = serde_json::from_str::<Ports>(&text) {
            return Ok(ports.nats.into_iter().next());
        }
    }
    Ok(None)
}
