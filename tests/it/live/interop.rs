//! Both ends of the WebSocket, judged by somebody else's code: Python's `websockets`.

use std::process::Stdio;
use std::time::Duration;

use convoke_platform::socket::{Socket, SocketTls};
use convoke_simulator::platform::{Platform, Run, State, host_password};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::{NUMBER, UUID, now};
use crate::simulated_platform;
use crate::support::service::WAIT_TIMEOUT;
use crate::support::tools;

/// What the script says, line by line.
struct Script {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Script {
    fn start(arguments: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/live/foreign_end.py");
        let mut command = Command::new(tools::python());
        command.arg(script).args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("Python");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { lines, _child: child }
    }

    async fn says(&mut self) -> Value {
        let line =
            timeout(WAIT_TIMEOUT, self.lines.next_line()).await.expect("in time").expect("text").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_websockets_reads_the_simulated_platforms_side() {
    let platform = Platform::start(simulated_platform::options()).await.expect("it starts");
    platform.edit(|archive| {
        let mut run = Run::over(UUID, NUMBER, now(), now());
        (run.state, run.ended) = (State::Running, None);
        archive.put(run);
    });
    platform.in_meeting(NUMBER, |room| room.join("a", &[("NAME", "Guest")]));
    let mut script = Script::start(&["client", &platform.url(), NUMBER, &host_password(NUMBER)]);
    assert_eq!(script.says().await["data"], json!({ "returnCode": 0, "returnDesc": "SUCCESS" }));
    let full = script.says().await;
    assert_eq!((&full["msgMode"], &full["data"][0]["pinfoMap"]["NAME"]), (&json!(0), &json!("Guest")));
    assert_eq!(script.says().await, json!({ "sequence": "1".repeat(30), "action": "HeartBeat" }));
    platform.in_meeting(NUMBER, |room| {
        room.change("a", &[("MUTE", "1")]);
        room.end();
    });
    let change = script.says().await;
    assert_eq!((&change["msgMode"], &change["data"][0]["pinfoMap"]), (&json!(1), &json!({ "MUTE": "1" })));
    assert_eq!(script.says().await, "closed", "its token opens it once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_by_pythons_websockets_is_understood() {
    let mut script = Script::start(&["server"]);
    let port = script.says().await;
    let mut socket =
        Socket::open(&format!("ws://127.0.0.1:{port}"), "960 17", &"a+b=".to_owned().into(), &SocketTls::default())
            .await
            .expect("it opens");
    assert_eq!(script.says().await, "/cms/open/websocket/confctl/increment/conn?confID=960%2017&tmpToken=a%2Bb%3D");
    socket.subscribe(NUMBER, &["ParticipantsNotify"], &"t".to_owned().into()).await.expect("it is subscribed");
    let data = json!({ "conferenceID": NUMBER, "subscribeType": ["ParticipantsNotify"], "confToken": "t" });
    assert_eq!(script.says().await, data);
    socket.beat().await.expect("it is sent");
    let sequence = script.says().await["sequence"].clone();
    assert!(sequence.as_str().is_some_and(|text| (20..=30).contains(&text.len())), "{sequence}");
    let mut texts: Vec<Value> = Vec::new();
    while let Some(text) = timeout(Duration::from_secs(20), socket.next()).await.expect("in time").expect("it reads") {
        texts.push(serde_json::from_str(&text).expect("JSON"));
    }
    let ids: Vec<&Value> = texts.iter().map(|text| &text["msgID"]).collect();
    assert_eq!(ids, [&json!("before"), &Value::Null, &json!("pieces"), &json!("bytes")], "and a heartbeat's answer");
}
