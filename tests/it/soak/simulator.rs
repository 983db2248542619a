//! `convoke simulate`, again and again, with one ledger.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    child::{OwnChild, print_if_failing, read_log},
    rig::{APP_ID, KEY, LONG_TIMEOUT, PATH},
    wait::eventually,
};

/// Retries that are under way when a run is to end are given so long: the time of a retry and of the answer to it.
const SETTLE: Duration = Duration::from_secs(10);

/// The simulated platform as a process, or none at the moment.
#[derive(Debug)]
pub struct Simulator {
    folder: TempDir,
    address: SocketAddr,
    rate: f64,
    run: Option<Run>,
    runs: u32,
    /// What the runs said at their end; those that were killed said nothing.
    pub reports: Vec<Value>,
}

#[derive(Debug)]
struct Run {
    child: OwnChild,
    report: PathBuf,
    log: PathBuf,
}

impl Simulator {
    /// Delivers so many new events per second to this address.
    pub fn new(address: SocketAddr, rate: f64) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-load-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("key"), KEY).expect("our own folder");
        Self { folder, address, rate, run: None, runs: 0, reports: Vec::new() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger.ndjson")
    }

    /// Starts it; the services must be there, as the platform wants to shake hands first.
    pub async fn start(&mut self, seed: u64) {
        self.spawn(seed, "1h");
        // It makes its ledger before it shakes hands, and delivers after that.
        let before = fs::metadata(self.ledger()).map_or(0, |file| file.len());
        let ledger = self.ledger();
        let run = self.run.as_mut().expect("just started");
        eventually("the simulator delivers", LONG_TIMEOUT, async || {
            if let Some(status) = run.child.exited() {
                panic!("convoke simulate ended with {status}: {}", read_log(&run.log));
            }
            fs::metadata(&ledger).is_ok_and(|file| file.len() > before)
        })
        .await;
    }

    pub async fn start_unless_running(&mut self, seed: u64) {
        if self.run.is_none() {
            self.start(seed).await;
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.child.kill();
        }
    }

    /// Panics if it ended early: it was to go on for an hour.
    pub fn assert_running(&mut self) {
        if let Some(run) = &mut self.run
            && let Some(status) = run.child.exited()
        {
            panic!("convoke simulate ended with {status}: {}", read_log(&run.log));
        }
    }

    /// Ends the run, and delivers some more events, each until it is acknowledged: nothing may be given up.
    pub async fn come_to_an_end(&mut self) {
        let run = self.run.as_mut().expect("a run");
        run.child.signal(Signal::INT);
        self.finish().await;
        self.spawn(1, "2s");
        let report = self.finish().await;
        assert_eq!((&report["given_up"], &report["unsettled"]), (&0.into(), &0.into()), "{report:#}");
    }

    async fn finish(&mut self) -> &Value {
        let mut run = self.run.take().expect("a run");
        let status = run.child.wait_exit(LONG_TIMEOUT + SETTLE).await;
        assert!(status.success(), "convoke simulate ended with {status}: {}", read_log(&run.log));
        let report: Value = serde_json::from_str(&read_log(&run.report)).expect("a report");
        assert_eq!(report["given_up"], 0, "no fault lasts as long as the platform has patience: {report:#}");
        self.reports.push(report);
        self.reports.last().expect("just added")
    }

    fn spawn(&mut self, seed: u64, duration: &str) {
        self.runs += 1;
        let at = |name: &str| self.folder.path().join(format!("{name}-{}", self.runs));
        let (report, log) = (at("report"), at("simulate.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
        command.env_clear().current_dir(self.folder.path());
        command.args(["simulate", "--json", "--resign-retries", "--shuffle", "--duplicates", "0.15"]);
        command.args(["--app-id", APP_ID, "--app-key-file", "key", "--ledger", "ledger.ndjson"]);
        // Retries come after 30 ms, then every 1.8 s, for 86 s.
        command.args(["--attendees", "6", "--connections", "16", "--time-scale", "1000", "--duration", duration]);
        command.arg("--url").arg(format!("http://{}{PATH}", self.address));
        command.arg("--rate").arg(self.rate.to_string()).arg("--seed").arg(seed.to_string());
        let child = OwnChild::spawn("convoke simulate", &mut command, &report, &log);
        self.run = Some(Run { child, report, log });
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            print_if_failing("convoke simulate", &run.log);
        }
    }
}
