//! The App ID was replaced: what was pushed under the old one is not filled again under the new one.

use std::sync::Arc;

use convoke_core::event::Source;
use convoke_core::time::Clock;
use convoke_core::verify;
use convoke_log::Append;
use convoke_platform::{Client, NewSubscription, Options};
use convoke_simulator::platform::Run;
use serde_json::{Value, json};

use super::scene::{API_APP, API_KEY, Scene, at, lost, now, options, pushes};
use crate::{
    log_contract::fixture::{Backend, on_both},
    support::{
        process::ConvokeBuilder,
        sign::{APP_ID, KEY},
    },
};

on_both! {
    runs_that_were_reported_under_a_replaced_app_id_are_not_reported_again_and_their_gaps_are_filled_where_they_are
    who_was_forgotten_under_a_replaced_app_id_does_not_come_back_under_the_new_one
    of_two_configured_app_ids_each_keeps_its_runs_and_only_what_nobody_reported_goes_to_the_subscribed_one
}

const NEW: &str = "7700005678";

/// As if these had been pushed to `subscriber`.
async fn push_to(backend: &Backend, subscriber: &str, infos: impl IntoIterator<Item = String>) {
    let log = backend.open();
    let append = |info: String| Append {
        verified: Arc::new(verify::pulled(&Arc::from(subscriber), &info, Source::Push, at(now()))),
        deliveries: 1,
        last_delivered_at: at(now()),
    };
    let batch: Vec<Append> = infos.into_iter().map(append).collect();
    log.append(&batch).await.expect("it is appended");
    log.close().await;
}

fn all(run: &Run) -> impl Iterator<Item = String> {
    pushes(run).into_iter().map(|(_, info)| info)
}

/// All but how it ended.
fn beginning(run: &Run) -> Vec<String> {
    let goes_on = |event: &str| !matches!(event, "meeting.left" | "meeting.end");
    pushes(run).into_iter().filter(|(event, _)| goes_on(event)).map(|(_, info)| info).collect()
}

fn ending(run: &Run) -> Vec<String> {
    let beginning = beginning(run);
    all(run).filter(|info| !beginning.contains(info)).collect()
}

async fn scene(backend: &Backend, runs: &[Run]) -> Scene {
    let folder = tempfile::Builder::new().prefix("convoke-it-").tempdir().expect("a temporary folder");
    let scene = Scene::on(options(), folder, backend.url.clone()).await;
    scene.remember(runs.iter().cloned());
    scene
}

async fn backfill(scene: &Scene, builder: ConvokeBuilder) -> Value {
    let finished = builder.arg("backfill").arg("--since").arg(scene.since()).arg("--json").run().await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).expect("a report")
}

/// How many events were made of the history for a subscriber.
async fn filled(backend: &Backend, subscriber: &str) -> String {
    let sql = format!("SELECT count(*) FROM events WHERE source = 'backfill' AND subscriber_id = '{subscriber}'");
    backend.value(&sql).await
}

async fn runs_that_were_reported_under_a_replaced_app_id_are_not_reported_again_and_their_gaps_are_filled_where_they_are(
    backend: Backend,
) {
    let runs: Vec<Run> = lost(4, 2).map(|run| Run { recordings: Vec::new(), ..run }).collect();
    let [whole, broken, split, unheard] = &runs[..] else { unreachable!("four") };
    let scene = scene(&backend, &runs).await;
    push_to(&backend, APP_ID, all(whole).chain(beginning(broken)).chain(beginning(split))).await;
    // The App ID was replaced while this one went on.
    push_to(&backend, NEW, ending(split)).await;

    let new = || scene.builder_for_nobody().setting("APP_ID", NEW).setting("APP_KEY", KEY);
    let report = backfill(&scene, new()).await;
    assert_eq!(
        (&report["complete"], &report["gaps"]),
        (&json!(2), &json!({"runs": 1, "starts": 1, "ends": 2, "stays": 2, "leaves": 2, "recordings": 0})),
        "{report:#}"
    );
    assert_eq!((filled(&backend, APP_ID).await, filled(&backend, NEW).await), ("3".to_owned(), "6".to_owned()));
    let stays = |run: &Run| {
        let uuid = run.conf_uuid.clone();
        let sql = format!(
            "SELECT count(*) FROM attendance WHERE meeting_uuid = '{uuid}' AND left_at > joined_at AND closed_by = 'left'"
        );
        let backend = &backend;
        async move { backend.value(&sql).await }
    };
    for run in [whole, broken, split, unheard] {
        assert_eq!(stays(run).await, "2", "each stay once: {report:#}");
    }
    let again = backfill(&scene, new()).await;
    assert_eq!((&again["complete"], &again["already_there"]), (&json!(4), &json!(0)), "{again:#}");
}

async fn who_was_forgotten_under_a_replaced_app_id_does_not_come_back_under_the_new_one(backend: Backend) {
    let runs: Vec<Run> = lost(1, 2).collect();
    let scene = scene(&backend, &runs).await;
    push_to(&backend, APP_ID, all(&runs[0])).await;
    let new = || scene.builder_for_nobody().setting("APP_ID", NEW).setting("APP_KEY", KEY);
    backfill(&scene, new()).await;
    let name = &*runs[0].stays[0].display_name;
    let forget = ["forget", "--meeting", &runs[0].conf_uuid, "--name", name, "--yes"];
    let forgotten = forget.into_iter().fold(new(), ConvokeBuilder::arg).run().await;
    assert_eq!(forgotten.code(), 0, "{forgotten:?}");
    let report = backfill(&scene, new()).await;
    assert_eq!((&report["forgotten"], &report["complete"]), (&json!(1), &json!(1)), "{report:#}");
    assert_eq!(backend.value("SELECT count(*) FROM events WHERE source = 'backfill'").await, "0");
}

async fn of_two_configured_app_ids_each_keeps_its_runs_and_only_what_nobody_reported_goes_to_the_subscribed_one(
    backend: Backend,
) {
    let runs: Vec<Run> = lost(3, 1).collect();
    let [of_the_one, of_the_other, unheard] = &runs[..] else { unreachable!("three") };
    let scene = scene(&backend, &[of_the_one.clone(), unheard.clone()]).await;
    push_to(&backend, APP_ID, all(of_the_one)).await;
    // Another enterprise's, of which this platform's history does not tell.
    push_to(&backend, "7700009999", beginning(of_the_other)).await;
    let before = backend.value("SELECT count(*) FROM events").await;

    let subscribed = NewSubscription {
        subscriber_id: NEW.to_owned(),
        subscriber_key: KEY.into(),
        url: "https://convoke.example.com/openapi/meetingevent".to_owned(),
    };
    client(&scene).set_subscription(&subscribed).await.expect("it is set");
    let subscriber = |id: &str| format!("[[subscriber]]\napp_id = \"{id}\"\nkeys = [\"{KEY}\"]\n");
    let file = scene.folder.path().join("convoke.toml");
    std::fs::write(&file, [APP_ID, NEW, "7700009999"].map(subscriber).concat()).expect("a file");
    let report = backfill(&scene, scene.builder_for_nobody().setting("CONFIG", &file)).await;
    assert_eq!((&report["runs"], &report["complete"]), (&json!(2), &json!(1)), "{report:#}");
    let made = all(unheard).count().to_string();
    assert_eq!(filled(&backend, NEW).await, made);
    let others = backend.value("SELECT count(*) FROM events WHERE source = 'push'").await;
    assert_eq!(others, before);
}

fn client(scene: &Scene) -> Client {
    let options = Options::new(scene.platform.url(), API_APP, API_KEY.into());
    Client::new(options, Clock::System).expect("a client")
}
