//! What is missing is filled, and nothing else.

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use serde_json::{Value, json};

use super::scene::{HOUR, Scene, at, lost, now, options, pushes};
use crate::log_contract::fixture::{Backend, on_both};
use crate::support::postgres::{Postgres, psql};
use convoke_simulator::platform::{Call, PlatformOptions, Run};

fn nothing(report: &Value) {
    for part in ["gaps", "filled", "not_fillable"] {
        let counts = report[part].as_object().expect("counts");
        assert!(counts.values().all(|count| *count == 0), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_pushed_comes_back_from_the_history_and_running_it_again_adds_nothing() {
    let scene = Scene::with(lost(12, 4)).await;
    let report = scene.backfill().await;
    assert_eq!(
        [&report["runs"], &report["stays"], &report["complete"], &report["gaps"], &report["filled"]],
        [
            &json!(12),
            &json!(48),
            &json!(0),
            &json!({"runs": 12, "starts": 12, "ends": 12, "stays": 48, "leaves": 0, "recordings": 4}),
            &json!({"meeting.started": 12, "meeting.join": 48, "meeting.left": 48, "record.finish": 4, "meeting.end": 12}),
        ],
        "{report:#}"
    );
    scene.everything_is_there().await;
    assert_eq!(scene.count("events WHERE source = 'backfill' AND deliveries = 1").await, 124);
    assert_eq!(scene.count("events").await, 124);
    let guests = "attendance WHERE participant_id LIKE 'participant%' AND role = 'GENERAL' AND user_uuid IS NULL";
    assert_eq!(scene.count(guests).await, 48, "the dashboard tells who it was");
    assert_eq!(scene.count("attendance WHERE account IS NOT NULL").await, 0, "what neither gives is null");
    assert_eq!(scene.count("heartbeat").await, 0, "a command accepts no events");

    let again = scene.backfill().await;
    assert_eq!((&again["runs"], &again["complete"]), (&json!(12), &json!(12)));
    nothing(&again);
    assert_eq!(scene.count("events").await, 124);
    assert_eq!(scene.count("events WHERE deliveries > 1").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fills_the_same_on_postgresql() {
    let postgres = Postgres::start().await;
    let folder = tempfile::Builder::new().prefix("convoke-it-").tempdir().expect("a temporary folder");
    let scene = Scene::on(options(), folder, postgres.url()).await;
    let runs: Vec<Run> = lost(9, 3).collect();
    scene.remember(runs.clone());
    let pushed: Vec<String> = pushes(&runs[0]).into_iter().map(|(_, info)| info).collect();
    scene.push(&pushed).await;
    let report = scene.backfill().await;
    assert_eq!(
        (&report["complete"], &report["gaps"]["stays"], &report["gaps"]["ends"]),
        (&json!(1), &json!(24), &json!(8))
    );
    nothing(&scene.backfill().await);
    let counts =
        "SELECT count(*) || ' ' || sum(stays) || ' ' || sum(recordings) FROM meetings WHERE ended_at > started_at";
    assert_eq!(psql(&postgres.url(), counts), "9 27 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_the_same_and_writes_nothing() {
    let scene = Scene::with(lost(5, 3)).await;
    let since = scene.since();
    let dry = scene.report(&["--since", &since, "--dry-run"]).await;
    assert_eq!((scene.count("events").await, scene.count("task_notes WHERE name LIKE 'backfill%'").await), (0, 0));
    let report = scene.backfill().await;
    for part in ["runs", "stays", "gaps", "filled", "not_fillable"] {
        assert_eq!(dry[part], report[part], "{part}");
    }
    let human = scene.run(&["--since", &since, "--dry-run"]).await;
    let expected =
        ["examined     5 runs and 15 stays of subscriber 7700001234", "complete     5 runs", "would fill   nothing"];
    assert!(expected.iter().all(|line| human.stdout.contains(line)), "{}", human.stdout);
}

/// What was dropped, and by how much the two sources of time differ, is left to chance: the tables are whole again all the same.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_dropped_the_tables_are_whole_again_and_nothing_is_there_twice() {
    for seed in 0..6 {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
        let skew = std::time::Duration::from_millis(if seed % 2 == 0 { 0 } else { 900 });
        let scene = Scene::new(PlatformOptions { skew, ..options() }).await;
        let runs: Vec<Run> = lost(15, 5).collect();
        scene.remember(runs.clone());
        let kept = f64::from(u32::try_from(seed).expect("a small number")) / 6.0;
        let mut pushed = Vec::new();
        for run in &runs {
            pushed.extend(pushes(run).into_iter().filter(|_| chance.random_bool(kept)).map(|(_, info)| info));
        }
        scene.push(&pushed).await;
        let report = scene.backfill().await;
        let joins = |source: &str| format!("events WHERE event = 'meeting.join' AND source = '{source}'");
        assert_eq!(scene.count("attendance").await, 75, "seed {seed}: {report:#}");
        assert_eq!(scene.count("attendance WHERE closed_by = 'open' OR joined_at IS NULL").await, 0, "seed {seed}");
        assert_eq!(scene.count("meetings WHERE started_at < ended_at AND status = 'ended'").await, 15, "seed {seed}");
        assert!(scene.count(&joins("push")).await + scene.count(&joins("backfill")).await <= 75, "seed {seed}");
        if skew.is_zero() {
            scene.everything_is_there().await;
        }
        let before = scene.count("events").await;
        nothing(&scene.backfill().await);
        assert_eq!(scene.count("events").await, before, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leave_that_was_lost_comes_back_with_the_ids_of_the_join() {
    let run = lost(1, 2).next().expect("a run");
    let scene = Scene::with([run.clone()]).await;
    let pushed: Vec<String> =
        pushes(&run).into_iter().filter(|(event, _)| *event == "meeting.join").map(|(_, info)| info).collect();
    scene.push(&pushed).await;
    let report = scene.backfill().await;
    assert_eq!((&report["gaps"]["leaves"], &report["gaps"]["stays"]), (&json!(2), &json!(0)));
    let counts =
        scene.rows("SELECT participant_id, user_uuid, role, closed_by FROM attendance ORDER BY participant_id").await;
    let expected = |number: u32| {
        [format!("participant{number}"), format!("user{number}"), "GENERAL".to_owned(), "left".to_owned()]
            .map(Some)
            .to_vec()
    };
    assert_eq!(counts, [expected(0), expected(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_pushes_again_afterwards_changes_nothing_in_the_tables() {
    let run = lost(1, 3).next().expect("a run");
    let scene = Scene::with([run.clone()]).await;
    let all: Vec<String> = pushes(&run).into_iter().map(|(_, info)| info).collect();
    let joins: Vec<String> = all.iter().filter(|info| info.contains("meeting.join")).cloned().collect();
    scene.push(&joins).await;
    scene.backfill().await;
    let tables = async || {
        let meetings = "SELECT meeting_id, status, CAST(stays AS TEXT), CAST(participants AS TEXT), CAST(recordings AS TEXT) FROM meetings";
        let stays = "SELECT participant_id, joined_at, left_at, closed_by FROM attendance ORDER BY 1, 2";
        (scene.rows(meetings).await, scene.rows(stays).await)
    };
    let before = tables().await;
    // Copies, and what had been lost, all of it late.
    let late: Vec<String> = all.into_iter().filter(|info| !info.contains("record.finish")).collect();
    scene.push(&late).await;
    nothing(&scene.backfill().await);
    assert_eq!(tables().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_be_pushed_is_left_alone() {
    let ended_ago = |hours: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a time of a test")]
        let ended = now() - (hours * HOUR as f64) as i64;
        Run::over(&format!("{:032x}", hours.to_bits()), "960000017", at(ended - HOUR), at(ended))
    };
    let scene = Scene::with([ended_ago(25.0), ended_ago(24.45), ended_ago(3.0)]).await;
    let report = scene.backfill().await;
    let young = &report["not_fillable"]["too_young"];
    assert_eq!((&report["runs"], young), (&json!(2), &json!(1)), "one began after the range: {report:#}");
    assert_eq!(scene.count("meetings").await, 1);
    assert_eq!(scene.platform.count(Call::Attendees), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_are_as_many_as_the_formula_says() {
    // ⌈(n − 1) / 499⌉, at least one, for the runs of a day, and for the stays of each.
    let mut runs: Vec<Run> = lost(1_100, 1).collect();
    runs[7].stays = lost(1, 1_000).next().expect("a run").stays;
    runs[8].stays.clear();
    let scene = Scene::with(runs).await;
    scene.report(&scene.around_the_lost().each_ref().map(String::as_str)).await;
    assert_eq!(scene.calls(), [1, 3, 1_099 + 3]);
    scene.everything_is_there().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_range_is_asked_for_day_by_day_and_every_run_is_looked_at_once() {
    // One each two hours, for five days, and one that lasts from one day into the next.
    let begin = now() - 7 * 24 * HOUR;
    let mut runs: Vec<Run> = (0..60_i64)
        .map(|n| {
            let began = begin + n * 2 * HOUR;
            Run::over(&format!("{n:032x}"), "960000017", at(began), at(began + HOUR))
        })
        .collect();
    runs.push(Run::over(&"f".repeat(32), "960000018", at(begin + 20 * HOUR), at(begin + 27 * HOUR)));
    let scene = Scene::with(runs).await;
    let (since, until) = (at(begin).to_string(), at(begin + 5 * 24 * HOUR).to_string());
    let report = scene.report(&["--since", &since, "--until", &until]).await;
    assert_eq!((&report["runs"], &report["filled"]["meeting.end"]), (&json!(61), &json!(61)), "{report:#}");
    // Windows of 24 hours, each of which begins 6 hours before the end of the one before it.
    assert_eq!(scene.calls(), [1, 1 + (5 * 24_u64 - 24).div_ceil(18), 61]);
    scene.everything_is_there().await;
}

on_both! {
    each_enterprise_of_a_service_provider_is_filled_by_a_token_of_its_own
}

async fn each_enterprise_of_a_service_provider_is_filled_by_a_token_of_its_own(backend: Backend) {
    let corps = ["corp-a", "corp-b"];
    let corp_ids = corps.map(str::to_owned).to_vec();
    let options = PlatformOptions { sp_id: Some("provider".to_owned()), corp_ids, ..options() };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::on(options, folder, backend.url.clone()).await;
    let of = |(number, run): (usize, Run)| Run { corp_id: Some(corps[number % 2].to_owned()), ..run };
    scene.remember(lost(6, 2).enumerate().map(of));
    let builder = |command: &str| scene.builder().setting("PLATFORM_SP_ID", "provider").arg(command);
    let backfill = || builder("backfill").arg("--since").arg(scene.since()).arg("--json");
    let refused = backfill().run().await;
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("platform.corp_ids"), "{}", refused.stderr);
    // Whose sign-in is refused is told, and the others are filled.
    let wrong = backfill().setting("PLATFORM_CORP_IDS", "corp-c,corp-a").run().await;
    assert!(wrong.code() == 1 && wrong.stderr.contains("enterprise corp-c"), "{}", wrong.stderr);
    let report: Value = serde_json::from_str(&wrong.stdout).expect("a report");
    assert_eq!((&report["runs"], &report["filled"]["meeting.end"]), (&json!(3), &json!(3)), "{report:#}");
    let finished = backfill().setting("PLATFORM_CORP_IDS", "corp-a,corp-b").run().await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let reports: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&finished.stdout).into_iter().collect();
    assert_eq!(reports.expect("reports").iter().map(|report| report["runs"].clone()).collect::<Vec<_>>(), [3, 3]);
    for (table, count) in [("meetings WHERE ended_at > started_at", "6"), ("attendance", "12")] {
        assert_eq!(backend.value(&format!("SELECT count(*) FROM {table}")).await, count, "{table}");
    }
    assert_eq!(scene.platform.tokens(), 0, "all are returned");
    let checked = builder("check").setting("PLATFORM_CORP_IDS", "corp-a,corp-c").run().await;
    for words in ["corp-a: its meetings can be asked for", "corp-c: "] {
        assert!(checked.stdout.contains(words), "{}", checked.stdout);
    }
}
