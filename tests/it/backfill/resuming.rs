//! Broken off in the middle, and run again: nothing is doubled, nothing is missing.

use std::time::Duration;

use convoke_simulator::platform::{Call, Fault, PlatformOptions, Refusal};
use serde_json::json;

use super::scene::{Scene, lost, nothing_of, options};
use crate::support::{rig::LONG_TIMEOUT, wait::eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let scene = Scene::with(lost(40, 3)).await;
    // It notes how far it came when more than a second has passed since the last time, which one answer sees to. From the
    // 31st on there is none: whatever the machine is busy with, that is where it is killed.
    scene.platform.inject_after(Call::Attendees, 19, Fault::Slow(Duration::from_millis(1_100)), 1);
    scene.platform.inject_after(Call::Attendees, 10, Fault::Slow(Duration::from_secs(3_600)), u64::MAX);
    let since = scene.since();
    let mut child = scene.spawn(&["--since", &since]);
    eventually("it hangs at the 31st run", LONG_TIMEOUT, async || scene.platform.count(Call::Attendees) >= 31).await;
    child.kill();
    let scene = mended(scene).await;
    let before = scene.count("meetings").await;
    let report = scene.backfill().await;
    assert!(report["resumed_at"].is_string(), "{report:#}");
    assert!(report["runs"].as_u64() < Some(40), "{report:#}");
    assert!(before < 40, "it was not through");
    scene.everything_is_there().await;
    assert_eq!(scene.count("events WHERE source = 'backfill'").await, 40 * (2 + 6) + 14);
    // It was finished: the next one begins at the beginning.
    assert_eq!(scene.backfill().await["runs"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_platform_answers_in_the_middle_the_next_run_completes_it() {
    let faults = [
        ("a login page", Fault::Html(200), "an HTML page came instead of JSON"),
        (
            "a refusal",
            Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS")),
            "MMC.111070002",
        ),
    ];
    for (what, fault, words) in faults {
        let scene = Scene::with(lost(20, 2)).await;
        scene.platform.inject_after(Call::Attendees, 9, fault, 60);
        let broken = scene.run(&["--since", &scene.since()]).await;
        assert_eq!(broken.code(), 1, "{what}: {}", broken.stderr);
        assert!(broken.stderr.contains(words), "{what}: {}", broken.stderr);
        assert!(broken.stderr.contains("run the same command again to continue"), "{what}: {}", broken.stderr);
        let scene = mended(scene).await;
        let report = scene.backfill().await;
        assert!(report["resumed_at"].is_string() && report["runs"].as_u64() < Some(20), "{what}: {report:#}");
        scene.everything_is_there().await;
    }
}

/// The same, with a platform that has come back to its senses.
async fn mended(scene: Scene) -> Scene {
    let runs: Vec<_> = scene.platform.edit(|archive| archive.runs().cloned().collect());
    let Scene { platform, folder, database } = scene;
    platform.stop().await;
    let scene = Scene::on(options(), folder, database).await;
    scene.remember(runs);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ends_before_its_total_is_said_with_status_1_and_the_same_command_looks_there_again() {
    let scene = Scene::with(lost(510, 0)).await;
    let range = scene.around_the_lost();
    let arguments: Vec<&str> = range.iter().map(String::as_str).chain(["--json"]).collect();
    // 730 are announced, and nothing comes past the 500th.
    scene.platform.inject_after(Call::History, 1, nothing_of(730), 3);
    let cut = scene.run(&arguments).await;
    assert_eq!(cut.code(), 1, "{}", cut.stderr);
    assert!(cut.stderr.contains("incomplete list"), "{}", cut.stderr);
    let report: serde_json::Value = serde_json::from_str(&cut.stdout).expect("a report");
    let list = &report["incomplete"][0];
    assert_eq!(
        [&report["runs"], &report["incomplete_lists"], &list["list"], &list["announced"], &list["given"]],
        [&json!(500), &json!(1), &json!("history"), &json!(730), &json!(500)],
        "{report:#}"
    );
    // Also if nothing is to be written, and for people.
    scene.platform.inject(Call::History, nothing_of(5), 3);
    let dry = scene.run(&[&arguments[..4], &["--dry-run"]].concat()).await;
    assert_eq!(dry.code(), 1, "{}", dry.stderr);
    assert!(dry.stdout.contains("INCOMPLETE ") && dry.stdout.contains("announced 5 and returned 0"), "{}", dry.stdout);
    let whole = scene.report(&arguments[..4]).await;
    assert_eq!([&whole["runs"], &whole["complete"]], [&json!(510), &json!(500)], "{whole:#}");
    scene.everything_is_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_of_a_part_of_a_runs_stays_and_the_same_command_begins_at_that_run() {
    let scene = Scene::with(lost(9, 2)).await;
    let range = scene.around_the_lost();
    let arguments: Vec<&str> = range.iter().map(String::as_str).collect();
    scene.platform.inject_after(Call::Attendees, 4, nothing_of(3), 3);
    let cut = scene.run(&[&arguments[..], &["--json"]].concat()).await;
    assert_eq!(cut.code(), 1, "{}", cut.stderr);
    let report: serde_json::Value = serde_json::from_str(&cut.stdout).expect("a report");
    let (list, left_out) = (&report["incomplete"][0], &report["not_fillable"]["incomplete"]);
    assert_eq!([&list["list"], left_out, &report["runs"]], [&json!("participants"), &json!(1), &json!(9)]);
    let fifth = scene.platform.edit(|archive| archive.runs().nth(4).map(|run| run.conf_uuid.clone()));
    assert_eq!(list["meeting_uuid"], fifth.expect("a run"));
    assert_eq!(scene.count("meetings").await, 8, "nothing of the one that is not whole");
    let whole = scene.report(&arguments).await;
    assert_eq!(whole["resumed_at"], list["since"], "{whole:#}");
    scene.everything_is_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_passed_over() {
    let faults = [
        Fault::TooMany,
        Fault::Refuse(Refusal::BUSY),
        Fault::Refuse(Refusal::UPGRADING),
        Fault::Drop,
        Fault::DropHalf,
        Fault::ExpireTokens,
        Fault::ForgetTokens,
    ];
    // Whoever is throttled waits for the end of the minute, which is short here.
    let scene = Scene::new(PlatformOptions { minute: Duration::from_secs(2), ..options() }).await;
    scene.remember(lost(24, 2));
    for fault in faults {
        scene.platform.inject_after(Call::Attendees, 2, fault, 1);
    }
    scene.platform.inject(Call::History, Fault::Refuse(Refusal::UPGRADING), 1);
    let report = scene.backfill().await;
    assert_eq!((&report["runs"], &report["filled"]["meeting.end"]), (&json!(24), &json!(24)));
    scene.everything_is_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_repeats_pages_and_changes_between_them_is_filled_once() {
    let runs: Vec<_> = lost(1_100, 1).collect();
    let (gone, come) = (runs[3].conf_uuid.clone(), lost(1_101, 1).last().expect("a run"));
    let scene = Scene::with(runs).await;
    let range = scene.around_the_lost();
    let range = range.each_ref().map(String::as_str);
    scene.platform.inject_after(Call::History, 1, Fault::RepeatPage, 1);
    // What is taken away in front of us moves the rest past us; what comes is added behind.
    scene.platform.inject_after(
        Call::History,
        0,
        Fault::edit(move |archive| {
            archive.remove(&gone);
            archive.put(come.clone());
        }),
        1,
    );
    scene.report(&range).await;
    assert_eq!(scene.count("meetings").await, 1_101, "also the one that was taken away");
    let again = scene.report(&range).await;
    assert_eq!((&again["runs"], &again["complete"]), (&json!(1_100), &json!(1_100)));
}
