//! The README's commands.

use std::process::Command;

use super::{ALL, Scene, event, who};
use crate::{log_contract::fixture::Backend, service::now, support::tools};

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_do_what_it_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let (_, section) = readme.split_once("\n## The API\n").expect("the section");
    let (_, commands) = section.split_once("```sh\n").expect("commands");
    let (commands, _) = commands.split_once("```").expect("the end of the commands");
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
