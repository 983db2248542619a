//! Who was forgotten does not come back.

use convoke::forget::suppression;
use convoke_log::{Details, Invitation, RunKey};
use convoke_simulator::platform::Run;
use serde_json::json;

use super::{
    person::{ADA, BOB, body, deliver, dump, forget_ada, meetings, no_secret},
    tables::{ada, forget},
};
use crate::{
    backfill::scene::{Scene, lost, now, pushes},
    log_contract::fixture::{Backend, append},
    support::{
        http,
        rig::{LONG_TIMEOUT, PATH, convoke},
        sign::millis,
    },
};

pub async fn a_delivery_that_is_retried_restores_nothing(backend: Backend) {
    let convoke = convoke(&backend.url, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let infos = meetings();
    deliver(&convoke, &backend, &infos).await;
    let odd = format!(r#"{{"event":"","account":"{}"}}"#, ADA.account);
    let odd = body(7, &odd);
    assert_eq!(http::post(convoke.events, PATH, odd.clone(), &[]).await.status, 200);
    forget_ada(&convoke, &[]).await;
    // Signed again, as the platform may.
    for (nonce, info) in (30_000_000..).zip(&infos) {
        assert_eq!(http::post(convoke.events, PATH, body(nonce, info), &[]).await.status, 200);
    }
    assert_eq!(http::post(convoke.events, PATH, odd, &[]).await.status, 200);
    no_secret("the database", &dump(&backend).await);
    let counts = "SELECT count(*) || ' ' || min(deliveries) || ' ' || max(deliveries) FROM events";
    assert_eq!(backend.value(counts).await, format!("{} 2 2", infos.len()));
    let quarantine = "SELECT count(*) || ' ' || sum(deliveries) || ' ' || sum(length(body)) FROM quarantine";
    assert_eq!(backend.value(quarantine).await, "1 2 0");
}

pub async fn a_host_does_not_come_back_by_enrichment(backend: Backend) {
    let log = backend.log().await;
    append(&log, &meetings()).await;
    let run = RunKey { subscriber_id: "7700001234".into(), meeting_uuid: "run-99".into() };
    let invited = |user: Option<&str>, number: Option<&str>, name: &str| Invitation {
        user_uuid: user.map(str::to_owned),
        call_number: number.map(str::to_owned),
        display_name: Some(name.to_owned()),
        ..Invitation::default()
    };
    let details_of = |host: &str, subject: &str| Details {
        host: Some(host.to_owned()),
        subject: Some(subject.to_owned()),
        invitations: vec![
            invited(Some(ADA.user), None, "A."),
            invited(None, Some(ADA.number), "Room 1"),
            invited(None, Some(BOB.number), ADA.name),
            invited(Some(BOB.user), None, BOB.name),
        ],
        ..Details::default()
    };
    let mut before = details_of(ADA.name, "Weekly");
    suppression::without_forgotten(&*log, &run, millis(now()), &mut before).await.expect("a database");
    assert_eq!(before, details_of(ADA.name, "Weekly"), "nobody was forgotten");
    let began = millis(now() - 1_000);
    let report = forget(&backend, ada()).erase(false, |_| {}).await.expect("it is erased");
    for (host, subject, expected) in [
        (ADA.name, "Weekly", (None, Some("Weekly"))),
        (ADA.user, "Weekly", (None, Some("Weekly"))),
        (ADA.account, "Weekly", (None, Some("Weekly"))),
        (ADA.name, "A talk of Ada Geheim \"王\"", (None, None)),
        (BOB.name, "Bob", (Some(BOB.name), Some("Bob"))),
    ] {
        let mut details = details_of(host, subject);
        suppression::without_forgotten(&*log, &run, began, &mut details).await.expect("a database");
        assert_eq!((details.host.as_deref(), details.subject.as_deref()), expected, "{host}");
        let names: Vec<_> = details.invitations.iter().filter_map(|it| it.display_name.as_deref()).collect();
        // A number that nobody named is a room's, say; a name beside another number is somebody else's.
        assert_eq!(names, ["Room 1", ADA.name, BOB.name]);
    }
    // A meeting that begins afterwards is new.
    let mut later = details_of(ADA.name, "Weekly");
    let after = millis(report.erasure.begun_at.get() + 1);
    suppression::without_forgotten(&*log, &run, after, &mut later).await.expect("a database");
    assert_eq!((later.host.as_deref(), later.invitations.len()), (Some(ADA.name), 4));
}

/// The platform's history of some runs of which the log has all but the second stay of each …
async fn gappy(scene: &Scene, runs: &[Run]) {
    scene.remember(runs.to_vec());
    let mut pushed = Vec::new();
    for run in runs {
        pushed.extend(pushes(run).into_iter().map(|(_, info)| info));
    }
    scene.push(&pushed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_fills_everybodys_gaps_but_of_who_was_forgotten() {
    let scene = Scene::with([]).await;
    let runs: Vec<Run> = lost(6, 3).collect();
    gappy(&scene, &runs).await;
    let nothing = scene.backfill().await;
    assert_eq!((&nothing["complete"], &nothing["forgotten"]), (&json!(6), &json!(0)), "{nothing:#}");

    // user1 is Guest 1, by name and number, in every run. Forgotten, then what history knows is compared.
    let name = "Guest 1";
    let found = scene.builder().arg("forget").arg("--user").arg("user1").arg("--yes").arg("--json").run().await;
    assert_eq!(found.code(), 0, "{}", found.stderr);
    let report: serde_json::Value = serde_json::from_str(&found.stdout).expect("a report");
    assert_eq!(report["erased"]["events"], 12, "{report:#}");
    let again = scene.backfill().await;
    assert_eq!((&again["complete"], &again["forgotten"]), (&json!(6), &json!(6)), "{again:#}");
    let human = scene.run(&["--since", &scene.since()]).await;
    assert!(human.stdout.contains("left out     6 stays of people who were forgotten"), "{}", human.stdout);

    // The log loses runs altogether, one stay of another, and the leave of a third, of Guest 1 and of Guest 2 alike: what it gets
    // back is Guest 2's.
    let lose = |sql: String| {
        let file = scene.folder.path().join("convoke.db");
        async move {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            let mut connection = sqlx::ConnectOptions::connect(&options).await.expect("a database");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("valid SQL");
        }
    };
    let (gone, open) = (&runs[0].conf_uuid, &runs[1].conf_uuid);
    lose(format!("DELETE FROM events WHERE meeting_uuid = '{gone}'")).await;
    lose(format!(
        "DELETE FROM events WHERE meeting_uuid = '{open}' AND event = 'meeting.left' AND (user_uuid = 'user2' OR user_uuid IS NULL)"
    ))
    .await;
    let rebuilt = scene.builder().arg("rebuild").arg("--drop-expired").arg("--yes").run().await;
    assert_eq!(rebuilt.code(), 0, "{}", rebuilt.stderr);
    let filled = scene.backfill().await;
    assert_eq!(
        (&filled["gaps"]["runs"], &filled["gaps"]["stays"], &filled["gaps"]["leaves"], &filled["forgotten"]),
        (&json!(1), &json!(2), &json!(1), &json!(6)),
        "{filled:#}"
    );
    // Nothing is missing any more, but what is left out.
    let whole = scene.backfill().await;
    assert_eq!((&whole["complete"], &whole["forgotten"]), (&json!(6), &json!(6)), "{whole:#}");
    assert_eq!(scene.count(&format!("events WHERE display_name = '{name}' OR event_info LIKE '%{name}%'")).await, 0);
    assert_eq!(scene.count("attendance WHERE display_name = 'Guest 2'").await, 6);
    assert_eq!(scene.count(&format!("attendance WHERE call_number = '{}'", runs[0].stays[1].call_number)).await, 0);
}
