//! The session of docs/getting-started.md: its commands, as they stand there, with other ports.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{
    child::{OwnChild, read_log},
    docs, http,
    port::Port,
    wait::eventually,
};

/// All of it, on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The blocks of commands in the section, from the one that begins the session on.
fn blocks() -> Vec<String> {
    let blocks = docs::blocks("docs/getting-started.md", "Trying it without a contract").into_iter();
    blocks.map(|block| block.text).skip_while(|block| !block.contains("--platform")).collect()
}

/// A shell in the session's folder, with this Convoke first in its path.
struct Shell {
    child: OwnChild,
    output: PathBuf,
}

impl Shell {
    fn run(folder: &Path, name: &str, script: &str) -> Self {
        let program =
            Path::new(env!("CARGO_BIN_EXE_convoke")).parent().expect("a folder").to_str().expect("a plain path");
        let path = format!("{program}:{}", std::env::var("PATH").expect("a path"));
        let mut command = Command::new("bash");
        // A job in the background goes with its shell.
        let script = format!("set -eu; trap 'kill $(jobs -p) 2>/dev/null || true' EXIT; {script}");
        command.env_clear().env("PATH", path).env("HOME", folder).current_dir(folder).args(["-c", &script]);
        let output = folder.join(name);
        let child = OwnChild::spawn(name, &mut command, &output, &output);
        Self { child, output }
    }

    fn said(&self) -> String {
        read_log(&self.output)
    }

    async fn says(&mut self, text: &str) {
        eventually(&format!("{text:?} is said"), WAIT_TIMEOUT, async || {
            let said = self.said();
            assert!(self.child.exited().is_none() || said.contains(text), "it ended: {said}");
            if said.contains(text) { Ok(()) } else { Err(said) }
        })
        .await;
    }
}

#[tokio::test]
async fn the_documented_session_subscribes_loses_events_and_gets_them_back() {
    let folder: TempDir = tempfile::tempdir().expect("a temporary folder");
    let (events, admin, api) = (Port::lease(), Port::lease(), Port::lease());
    let blocks: Vec<String> = blocks()
        .into_iter()
        .map(|block| {
            let block = block.replace("--platform ", &format!("--platform {} ", api.address()));
            block
                .replace("127.0.0.1:8080", &events.address().to_string())
                .replace("127.0.0.1:8090", &api.address().to_string())
        })
        .collect();
    let [platform, serve, subscribe, fill] = &blocks[..] else { panic!("four blocks: {blocks:?}") };
    let mut simulator = Shell::run(folder.path(), "platform", &format!("exec {platform}"));
    simulator.says("waiting until a subscription is enabled").await;

    let listen = format!("export CONVOKE_LISTEN={} CONVOKE_ADMIN_LISTEN={}\n", events.address(), admin.address());
    let wait = |file: &str| format!("until [ -e {file} ]; do sleep 0.05; done\n");
    let script = [&listen, serve, &wait("ready"), subscribe, &wait("over"), fill].map(String::as_str).concat();
    let mut session = Shell::run(folder.path(), "session", &script);
    let ready = format!("http://{}/readyz", admin.address());
    eventually("it is ready", WAIT_TIMEOUT, async || {
        http::try_get(&ready).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    std::fs::write(folder.path().join("ready"), "").expect("our own folder");
    simulator.says("the meetings are over").await;
    std::fs::write(folder.path().join("over"), "").expect("our own folder");
    let status = session.child.wait_exit(WAIT_TIMEOUT).await;
    let said = session.said();
    assert!(status.success(), "{said}");
    let count = |source: &str| {
        let lines = said.lines().filter_map(|line| line.strip_prefix(source)?.rsplit_once('|')?.1.parse::<u64>().ok());
        lines.sum::<u64>()
    };
    assert!(count("push|") > 100 && count("backfill|") > 10, "{said}");
}
