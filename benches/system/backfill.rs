//! A backfill of a day without pushes: number of calls, time and memory.

use std::process::Command;
use std::time::{Duration, Instant};

use convoke_core::time::{Clock, Millis};
use convoke_simulator::platform::{Call, Platform, PlatformOptions, Run};

use crate::servers::{API_APP, API_KEY};
use crate::support::child::{OwnChild, read_log};

/// Fills a day that nobody pushed from the simulated platform's history, on an embedded database
#[derive(Clone, Debug, clap::Args)]
pub struct Backfill {
    /// Runs of meetings in the history
    #[arg(long, default_value_t = 10_000)]
    meetings: usize,
    /// Stays in each
    #[arg(long, default_value_t = 20)]
    stays: usize,
}

const DAY: i64 = 86_400_000;

/// Pages overlap by one record (see the client).
const fn calls_for(records: u64) -> u64 {
    let pages = records.saturating_sub(1).div_ceil(499);
    if pages == 0 { 1 } else { pages }
}

impl Backfill {
    pub async fn run(&self) {
        // The limit is the one in the gateway's headers.
        let options = PlatformOptions { limit: u32::MAX, ..PlatformOptions::new(API_APP, API_KEY.into()) };
        let platform = Platform::start(options).await.expect("a free port");
        let now = Clock::System.now().get();
        let first = Millis::new(now - now % DAY - 2 * DAY).expect("a time in range");
        let every = Duration::from_secs(86_400) / u32::try_from(self.meetings.max(1)).expect("a number");
        platform.edit(|archive| {
            Run::made_up(first, every, self.meetings, self.stays).for_each(|run| archive.put(run));
        });

        let folder = tempfile::Builder::new().prefix("convoke-bench-").tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("api.key"), API_KEY).expect("a file");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
            command.args(arguments).current_dir(folder.path()).env_clear();
            command.envs([
                ("CONVOKE_APP_ID", "7700001234"),
                ("CONVOKE_APP_KEY", "a-key-of-a-benchmark"),
                ("CONVOKE_NATS_URL", "none"),
                ("CONVOKE_PLATFORM_APP_ID", API_APP),
                ("CONVOKE_PLATFORM_APP_KEY_FILE", "api.key"),
                ("CONVOKE_PLATFORM_URL", &platform.url()),
            ]);
            command
        };
        assert!(command(&["migrate"]).status().expect("it starts").success());
        for what in ["filled", "looked at again"] {
            let before = [Call::Authenticate, Call::History, Call::Attendees].map(|call| platform.count(call));
            let since = first.to_string();
            let started = Instant::now();
            std::fs::write(file("out"), "").expect("a file");
            let mut child = OwnChild::spawn(
                "backfill",
                &mut command(&["backfill", "--since", &since]),
                &file("out"),
                &file("errors"),
            );
            let (mut next, mut memory) = (1_000, Vec::new());
            let status = loop {
                let done = platform.count(Call::Attendees) - before[2];
                if done >= next {
                    memory.extend(resident(child.id()).map(|mib| format!("{mib:.0} at {next}")));
                    next = if next == 1_000 { 2_000 } else { next + 2_000 };
                }
                if let Some(status) = child.exited() {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let seconds = started.elapsed().as_secs_f64();
            assert!(status.success(), "{}", read_log(&file("errors")));
            let after = [Call::Authenticate, Call::History, Call::Attendees].map(|call| platform.count(call));
            let calls: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            let (meetings, stays) = (self.meetings as u64, self.stays as u64);
            let expected = [1, calls_for(meetings), meetings * calls_for(stays)];
            println!("{what}: {meetings} runs of {stays} stays in {seconds:.1} s");
            println!("  calls: {calls:?}, by the formula {expected:?}; {:.0} min at 100 a minute", minutes(&calls));
            println!("  resident MiB: {}", memory.join(", "));
            println!("{}", read_log(&file("out")).lines().map(|line| format!("  | {line}\n")).collect::<String>());
            assert_eq!(calls, expected);
        }
        platform.stop().await;
    }
}

/// The minutes that the rate limit of the most frequent call imposes.
#[expect(clippy::cast_precision_loss, reason = "a number of calls")]
fn minutes(calls: &[u64]) -> f64 {
    calls.iter().max().map_or(0.0, |most| *most as f64 / 100.0)
}

/// The memory of a running process.
fn resident(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
