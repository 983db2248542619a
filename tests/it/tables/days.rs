//! What a day is: the table that the views count by.

use convoke_core::time::Millis;
use convoke_core::zone::TimeZone;
use convoke_log::DaysKept;
use serde_json::{Value, json};

use super::{
    as_json::{Seen, rows},
    projection::{catch_up, cursor, event_of, who},
};
use crate::{
    log_contract::fixture::{Backend, append},
    support::{
        http,
        process::Convoke,
        rig::{LONG_TIMEOUT, convoke},
        sign::{NOW, millis},
    },
};

/// How many hours a day has, by the table.
async fn hours(backend: &Backend, day: &str) -> String {
    let length = match backend.postgres.is_some() {
        true => "CAST(extract(epoch FROM ends_at - begins_at) / 3600 AS integer)",
        false => "(unixepoch(ends_at) - unixepoch(begins_at)) / 3600",
    };
    backend.value(&format!("SELECT {length} FROM days WHERE day = '{day}'")).await
}

pub async fn the_days_are_those_of_the_setting_and_replicas_that_disagree_are_told(backend: Backend) {
    let log = backend.log().await;
    let zone = |name: &str| TimeZone::named(name).expect(name);
    let (utc, berlin, shanghai) = (TimeZone::default(), zone("Europe/Berlin"), zone("Asia/Shanghai"));
    let keep = async |zone: &TimeZone, replace| log.keep_days(zone, millis(NOW), replace).await.expect("days");
    assert_eq!(keep(&utc, false).await, DaysKept::AsBefore, "a new database has those of UTC");
    assert_eq!(keep(&berlin, true).await, DaysKept::Written);
    assert_eq!(keep(&berlin, false).await, DaysKept::AsBefore);
    for (day, expected) in [("2026-03-28", "24"), ("2026-03-29", "23"), ("2026-10-25", "25")] {
        assert_eq!(hours(&backend, day).await, expected, "{day}");
    }
    let apart = "SELECT count(*) FROM days a WHERE NOT EXISTS (SELECT 1 FROM days b WHERE b.begins_at = a.ends_at)";
    assert_eq!(backend.value(apart).await, "1", "each but the last is followed by another");
    assert_eq!(backend.value("SELECT max(day) FROM days").await, "2028-12-31");
    // Whoever runs beside others does not overwrite theirs; whoever starts does.
    assert_eq!(keep(&shanghai, false).await, DaysKept::OfAnother("Europe/Berlin".to_owned()));
    assert_eq!(log.days_zone().await.expect("a zone").as_deref(), Some("Europe/Berlin"));
    let program = |command: &str| {
        Convoke::builder()
            .setting("DATABASE_URL", &backend.url)
            .setting("TIME_ZONE", "Asia/Shanghai")
            .arg(command)
            .run()
    };
    let told = program("check").await.stdout;
    let words = "count by days of Europe/Berlin, and reports.time_zone is Asia/Shanghai";
    assert!(told.lines().any(|line| line.starts_with("warn  days") && line.contains(words)), "{told}");
    let migrated = program("migrate").await;
    assert!(migrated.stderr.contains("those of Asia/Shanghai now"), "{migrated:?}");
    assert_eq!(hours(&backend, "2026-03-29").await, "24");
    assert!(program("check").await.stdout.contains("ok    days       the views count by days of Asia/Shanghai"));
    // What is not as it should be is written anew, for example as the time goes on.
    backend.execute("DELETE FROM days WHERE day > '2027-03-01'").await;
    assert_eq!(keep(&shanghai, false).await, DaysKept::Written);
    assert_eq!(backend.value("SELECT max(day) FROM days").await, "2028-12-31");
}

/// Milliseconds from [`NOW`].
fn at(text: &str) -> i64 {
    Millis::parse(&format!("{text}:00.000Z")).expect(text).get() - NOW
}

/// Runs over local midnights, days of 23 and 25 hours, and stays that are long or have no end.
fn odd_days() -> Vec<String> {
    let stay = |run: &str, joined: &str, left: &str| {
        event_of(run, "meeting.left", at(left), &who(&format!("of-{run}"), at(joined), at(left)))
    };
    vec![
        // In Shanghai from 23:30 until 00:30; in UTC it is one day.
        stay("midnight", "2026-06-10T15:30", "2026-06-10T16:30"),
        // In Berlin from 23:30 on the evening before until 00:30 on the day after: 24 and 26 hours.
        stay("spring", "2026-03-28T22:30", "2026-03-29T22:30"),
        stay("autumn", "2025-10-25T21:30", "2025-10-26T23:30"),
        event_of("long", "meeting.started", at("2026-06-01T10:00"), ""),
        stay("long", "2026-06-01T10:00", "2026-06-05T10:00"),
        // Their end was lost: until the last that was heard of the run.
        event_of("silent", "meeting.join", at("2026-06-08T08:00"), &who("quiet", at("2026-06-08T08:00"), 0)),
        event_of(
            "silent",
            "meeting.left",
            at("2026-06-08T09:00"),
            &who("talks", at("2026-06-08T08:30"), at("2026-06-08T09:00")),
        ),
    ]
}

/// The minutes of each day of a run, by `person_days`.
async fn minutes(backend: &Backend, run: &str) -> Vec<Value> {
    let sql = format!("SELECT day, minutes, estimated FROM person_days WHERE meeting_uuid = '{run}'");
    let rows = rows(backend, &sql, &["day", "minutes", "estimated"]).await;
    rows.iter()
        .map(|row| json!([row["day"], row["minutes"].as_f64(), row["estimated"] == true || row["estimated"] == 1]))
        .collect()
}

pub async fn minutes_count_on_the_day_on_which_they_were_spent(backend: Backend) {
    let log = backend.log().await;
    append(&log, &odd_days()).await;
    catch_up(&mut cursor(&log, "a")).await;
    let keep = async |name: &str| {
        log.keep_days(&TimeZone::named(name).expect(name), millis(NOW), true).await.expect("days");
    };
    let day = |day: &str, minutes: f64| json!([day, minutes, false]);
    assert_eq!(minutes(&backend, "midnight").await, [day("2026-06-10", 60.0)]);
    let days = ["2026-06-01", "2026-06-02", "2026-06-03", "2026-06-04", "2026-06-05"];
    let long: Vec<Value> = days.iter().zip([840.0, 1440.0, 1440.0, 1440.0, 600.0]).map(|(d, m)| day(d, m)).collect();
    assert_eq!(minutes(&backend, "long").await, long);
    let columns = ["day", "meetings", "participants", "attendances", "minutes", "run_minutes"];
    let mut usage =
        rows(&backend, "SELECT * FROM daily_usage WHERE day BETWEEN '2026-06-01' AND '2026-06-05'", &columns).await;
    usage.sort_by_key(|row| row["day"].to_string());
    let usage: Vec<Vec<f64>> =
        usage.iter().map(|row| columns[1..].iter().map(|name| row[name].as_f64().expect(name)).collect()).collect();
    let later = |minutes| vec![0.0, 1.0, 0.0, minutes, 0.0];
    assert_eq!(usage, [vec![1.0, 1.0, 1.0, 840.0, 5760.0], later(1440.0), later(1440.0), later(1440.0), later(600.0)]);
    let peak = "SELECT day, participants FROM daily_peak WHERE day BETWEEN '2026-06-01' AND '2026-06-06'";
    let peak = rows(&backend, peak, &["day", "participants"]).await;
    assert_eq!(peak, days.map(|day| json!({"day": day, "participants": 1})));

    // What nobody told is estimated, and is the same whenever it is asked.
    assert_eq!(
        minutes(&backend, "silent").await,
        [json!(["2026-06-08", 30.0, false]), json!(["2026-06-08", 60.0, true])]
    );
    let seen = Seen::of(&backend).await;
    let marked = |rows: &[Value]| rows.iter().filter(|row| row["estimated"] == true).count();
    assert_eq!(
        [&seen.attendance, &seen.views["presence"], &seen.views["person_attendance"]].map(|rows| marked(rows)),
        [1, 1, 1]
    );
    let clock = match backend.postgres.is_some() {
        true => {
            "SELECT count(*) FROM pg_views WHERE schemaname = 'public' AND viewname <> 'no_end_seen' AND definition ILIKE '%now()%'"
        }
        false => {
            "SELECT count(*) FROM sqlite_schema WHERE type = 'view' AND name <> 'no_end_seen' AND sql LIKE '%''now''%'"
        }
    };
    assert_eq!(backend.value(clock).await, "0");

    keep("Europe/Berlin").await;
    let around = |days: [&str; 3], middle| [day(days[0], 30.0), day(days[1], middle), day(days[2], 30.0)];
    assert_eq!(minutes(&backend, "spring").await, around(["2026-03-28", "2026-03-29", "2026-03-30"], 1380.0));
    assert_eq!(minutes(&backend, "autumn").await, around(["2025-10-25", "2025-10-26", "2025-10-27"], 1500.0));
    keep("Asia/Shanghai").await;
    assert_eq!(minutes(&backend, "midnight").await, [day("2026-06-10", 30.0), day("2026-06-11", 30.0)]);
}

pub async fn the_page_says_what_the_views_say_in_the_zone_of_the_setting(backend: Backend) {
    let log = backend.log().await;
    append(&log, &odd_days()).await;
    catch_up(&mut cursor(&log, "a")).await;
    let convoke = convoke(&backend.url, "none").setting("TIME_ZONE", "Europe/Berlin").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let get = async |path: String| -> Value {
        let answer = http::get(&format!("http://{}/api/v1/stats/{path}", convoke.admin)).await;
        answer.json()
    };
    for (since, until) in [("2026-03-27", "2026-04-01"), ("2025-10-24", "2025-10-29"), ("2026-05-31", "2026-06-12")] {
        let counted = get(format!("meetings?since={since}&until={until}")).await;
        let points = counted["points"].as_array().expect("points");
        let members = ["day", "meetings", "participants", "attendances", "stays"];
        let sql = format!("SELECT * FROM daily_usage WHERE day >= '{since}' AND day < '{until}'");
        let mut viewed = rows(&backend, &sql, &members).await;
        viewed.sort_by_key(|row| row["day"].as_str().map(ToOwned::to_owned));
        assert_eq!(points[0]["day"], since);
        let some: Vec<&Value> =
            points.iter().filter(|point| point["meetings"] != 0 || point["participants"] != 0).collect();
        assert_eq!(some, viewed.iter().collect::<Vec<_>>());
        // By the hour and by the day: whoever is there at any time of a day is one of it.
        let people = get(format!("participants?step=day&since={since}&until={until}")).await;
        let of_days: Vec<&Value> =
            people["points"].as_array().expect("points").iter().map(|it| &it["participants"]).collect();
        assert_eq!(of_days, points.iter().map(|point| &point["participants"]).collect::<Vec<_>>(), "{people}");
    }
    assert_eq!(log.days_zone().await.expect("a zone").as_deref(), Some("Europe/Berlin"));
}
