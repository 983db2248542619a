//! The commands of docs/use/api.md.

use std::process::Command;

use super::{ALL, Scene, event, who};
use crate::{
    log_contract::fixture::Backend,
    support::service::now,
    support::{docs, tools},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_do_what_they_say() {
    let commands = docs::block("docs/use/api.md", "Examples", "sh");
    let scene = Scene::start(Backend::sqlite()).await;
    let at = now() - 60_000;
    scene.deliver(&event("meeting.started", at, "960000017", "run-a", "")).await;
    for number in 0..4 {
        scene.deliver(&event("meeting.join", at + number, "960000017", "run-a", &who("Ann", at + number, 0))).await;
    }
    scene.tables(1, 4).await;
    std::fs::write(scene.convoke.folder().join("admin-token"), ALL).expect("a file");
    let script = commands
        .replace("127.0.0.1:8081", &scene.convoke.admin.to_string())
        .replace("/etc/convoke/admin-token", "admin-token");
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &script]).current_dir(scene.convoke.folder());
    let said = tokio::task::block_in_place(|| tools::output_of(&mut command));
    for part in [r#""next":null"#, r#""meeting_uuid":"run-a""#, "event: event", "960000017"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(!said.contains("about:blank"), "{said}");
}
