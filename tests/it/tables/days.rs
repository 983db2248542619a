//! What a day is: the table that the views count by.

use convoke_core::zone::TimeZone;
use convoke_log::DaysKept;

use crate::{
    log_contract::fixture::Backend,
    support::{
        process::Convoke,
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
