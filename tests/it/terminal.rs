//! What a terminal is shown of strangers' texts, and what is asked on it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    log_contract::fixture::Backend,
    support::{
        http,
        rig::{APP_ID, KEY, LONG_TIMEOUT, PATH, convoke},
        sign::NOW,
        tools,
    },
};

const CONVOKE: &str = env!("CARGO_BIN_EXE_convoke");

/// Clears the screen, names the window, colours what follows, and turns around the order of writing.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}evil";

/// Runs a command on a terminal on which this is typed; its status, and what is on the terminal then.
fn on_a_terminal(backend: &Backend, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
    let spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new(tools::python());
    command.args(["-c", spawn]).arg(CONVOKE).args(arguments).args(["--database-url", &backend.url]);
    command.args(["--nats-url", "none"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("it is read");
    let done = child.wait_with_output().expect("it ends");
    (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
}

fn harmless(said: &str) {
    assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{said:?}");
    assert!(said.contains(r"\u{1b}[2J") && said.contains(r"\u{202e}evil"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_shown_nothing_that_it_would_obey_and_is_asked_before_anything_is_lost() {
    let backend = Backend::sqlite();
    let convoke = convoke(&backend.url, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let joined = json!({"event": HOSTILE, "timestamp": NOW, "payload": {"meetingInfo": {"meetingUUID": "run-a"},
        "attendeeInfo": {"displayName": HOSTILE, "userUUID": "user-1", "joinTime": NOW}}});
    // Not escaped: as somebody may write it who has a key.
    let odd = format!(r#"{{"event":"meeting.join","x":"{}evil"}}"#, "\u{9b}31m\u{202e}");
    for info in [joined.to_string(), odd] {
        let body = convoke_core::sign::envelope(APP_ID, NOW, "12345678", info.as_bytes(), KEY.as_bytes());
        assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, 200, "{info}");
    }
    for format in ["csv", "ndjson"] {
        let (code, said) = on_a_terminal(&backend, &["export", "events", "--format", format], "");
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']) && said.contains("evil"), "{said:?}");
    }
    let piped = convoke.run(&["export", "events"]).await.stdout;
    assert!(piped.contains(HOSTILE), "a program gets it as it is");
    let (code, said) = on_a_terminal(&backend, &["quarantine", "show", "1"], "");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(r"\u{9b}31m\u{202e}evil") && !said.contains(['\u{9b}', '\u{202e}']), "{said:?}");
    assert!(convoke.run(&["quarantine", "show", "1"]).await.stdout.contains("\u{9b}31m\u{202e}evil"));
    let file = backend.folder.path().join("body.json");
    let body = convoke_core::sign::envelope(APP_ID, NOW, "1", joined.to_string().as_bytes(), KEY.as_bytes());
    std::fs::write(&file, body).expect("a file");
    harmless(&convoke.run(&["verify", file.to_str().expect("text")]).await.stdout);

    for (arguments, words) in [
        (&["quarantine", "discard", "1"][..], "nothing was deleted"),
        (&["forget", "--user", "user-1"], "nothing was erased"),
        (&["rebuild"], "nothing was changed"),
    ] {
        let refused = convoke.run(arguments).await;
        assert!(refused.code() == 2 && refused.stderr.contains("--yes"), "{arguments:?}: {refused:?}");
        let (code, said) = on_a_terminal(&backend, arguments, "no\n");
        assert!(code == Some(1) && said.contains("Type yes") && said.contains(words), "{arguments:?}: {said}");
    }
    assert_eq!(backend.value("SELECT count(*) FROM quarantine").await, "1");
    let (code, said) = on_a_terminal(&backend, &["quarantine", "discard", "1"], "yes\n");
    assert!(code == Some(0) && said.contains("1: deleted"), "{said}");
    assert_eq!(backend.value("SELECT count(*) FROM quarantine").await, "0");
}
