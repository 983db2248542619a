//! The views: counted again by hand, the same on both databases, and answered by way of indexes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    as_json::Seen,
    projection::{catch_up, cursor, event, happened, who},
    questions::small_world,
};
use crate::{
    log_contract::fixture::{Backend, append},
    support::{
        docs,
        sign::{NOW, millis},
    },
};
use convoke_core::zone::{Day, TimeZone, WrittenTime};
use convoke_log::DaysKept;

/// A stay, as `presence` has it, in milliseconds.
#[derive(Debug)]
struct Present {
    run: String,
    person: String,
    /// Of whom a name alone is known, in two runs at once, are two.
    of_day: String,
    from: i64,
    /// Who left in the millisecond of joining was there for one.
    until: i64,
    /// As it is told.
    left: i64,
    open: bool,
}

impl Present {
    /// From when to when on a day, if it reaches it.
    fn on(&self, day: &Day) -> Option<(i64, i64)> {
        let (begins, ends) = (day.begins_at.get(), day.ends_at.get());
        let reaches = self.from < ends && (self.left > begins || self.from >= begins);
        reaches.then(|| (self.from.max(begins), self.left.clamp(self.from.max(begins), ends)))
    }
}

fn ms(value: &Value) -> i64 {
    let at = OffsetDateTime::parse(value.as_str().expect("a time"), &Rfc3339).expect("a time");
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).expect("a time")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn presence(seen: &Seen) -> Vec<Present> {
    let of = |row: &Value| Present {
        run: text(&row["meeting_uuid"]),
        person: text(&row["person"]),
        of_day: match row["person_by"] == "name" {
            true => format!("{} in {}", row["person"], row["meeting_uuid"]),
            false => text(&row["person"]),
        },
        from: ms(&row["present_from"]),
        until: ms(&row["present_until"]).max(ms(&row["present_from"]) + 1),
        left: ms(&row["present_until"]),
        open: row["left_at"].is_null(),
    };
    seen.views["presence"].iter().map(of).collect()
}

/// Milliseconds that are in any of these stays.
pub fn covered(mut stays: Vec<(i64, i64)>) -> i64 {
    stays.sort_unstable();
    let (mut total, mut end) = (0, i64::MIN);
    for (from, until) in stays {
        total += (until - from.max(end)).max(0);
        end = end.max(until);
    }
    total
}

/// Hundredths of minutes; times in SQLite are not exact to the last of them.
pub fn near(minutes: &Value, expected: i64) {
    let (minutes, expected) =
        (minutes.as_f64().expect("minutes"), Value::from(expected).as_f64().expect("ms") / 60_000.0);
    assert!((minutes - expected).abs() < 0.011, "{minutes} instead of {expected}");
}

/// What the platform should not send, and what the simulator does not.
fn odd() -> Vec<String> {
    let untold = |info: String| {
        let (head, tail) = info.split_once(r#""joinTime":"#).expect("a joinTime");
        format!(r#"{head}"joinTime":0{}"#, tail.trim_start_matches(|digit: char| digit.is_ascii_digit()))
    };
    vec![
        // Gone in the millisecond of joining, or before it.
        event("meeting.left", 500, &who("o1", 400, 400)),
        event("meeting.left", 500, &who("o2", 400, 300)),
        // Two devices that join, and one that leaves as another joins, in the same millisecond.
        event("meeting.left", 900, &who("o3", 400, 800).replace("user-o3", "user-both")),
        event("meeting.left", 900, &who("o4", 400, 800).replace("user-o4", "user-both")),
        event("meeting.left", 900, &who("o5", 800, 900).replace("user-o5", "user-both")),
        // Twice the same participant, without a left between.
        event("meeting.join", 1_000, &who("o8", 1_000, 0)),
        event("meeting.join", 70_000, &who("o8", 70_000, 0)),
        // It is not known when they joined; of the second not even that they did.
        untold(event("meeting.join", 700, &who("o6", 700, 0))),
        untold(event("meeting.left", 60_000, &who("o7", 700, 50_000))),
    ]
}

async fn filled(backend: &Backend) -> Seen {
    let log = backend.log().await;
    log.append(&happened(700)).await.expect("appended");
    append(&log, &small_world()).await;
    append(&log, &odd()).await;
    catch_up(&mut cursor(&log, "a")).await;
    Seen::of(backend).await
}

pub async fn the_views_say_what_counting_by_hand_says(backend: Backend) {
    let seen = filled(&backend).await;
    let stays = presence(&seen);
    assert_eq!(stays.len(), seen.attendance.len());

    let mut people: BTreeMap<(&str, &str), Vec<&Present>> = BTreeMap::new();
    for stay in &stays {
        people.entry((&stay.run, &stay.person)).or_default().push(stay);
    }
    let attendance = &seen.views["person_attendance"];
    assert_eq!(attendance.len(), people.len());
    for row in attendance {
        let (run, person) = (row["meeting_uuid"].as_str().expect("a run"), row["person"].as_str().expect("a person"));
        let stays = &people[&(run, person)];
        let at = |moment: i64| stays.iter().filter(|stay| stay.from <= moment && moment < stay.until).count();
        assert_eq!(row["stays"], stays.len());
        assert_eq!(row["devices"], stays.iter().map(|stay| at(stay.from)).max().expect("a stay"), "{row}");
        near(&row["minutes"], covered(stays.iter().map(|stay| (stay.from, stay.until)).collect()));
        assert_eq!(ms(&row["first_joined_at"]), stays.iter().map(|stay| stay.from).min().expect("a stay"));
        assert_eq!(row["last_left_at"].is_null(), stays.iter().any(|stay| stay.open));
    }
    for run in &seen.meetings {
        let uuid = run["meeting_uuid"].as_str().expect("a run");
        let inside = people.keys().filter(|(run, _)| *run == uuid).count();
        assert_eq!(run["participants"], inside, "the table and the view count the same people: {run}");
    }
    let rejoined: Vec<&Value> = seen.attendance.iter().filter(|row| row["closed_by"] == "rejoin").collect();
    assert!(
        !rejoined.is_empty() && rejoined.iter().all(|row| row["estimated"].as_bool() == Some(true)),
        "{rejoined:?}"
    );
    let late = &seen.views["late_joiners"];
    assert!(!late.is_empty() && late.iter().all(|row| row["minutes_late"].as_f64() > Some(1.0)), "{late:?}");
    let (kept, all) = kept_and_added_up(&backend, &seen).await;
    assert!(kept > 10 && kept < all, "{kept} of {all}");

    days_by_hand(&seen, &people, &TimeZone::default());
    // In another zone the same happened on other days.
    let zone = TimeZone::named("Asia/Shanghai").expect("it is there");
    let kept = backend.open().keep_days(&zone, millis(NOW), true).await.expect("days");
    assert_eq!(kept, DaysKept::Written);
    let there = Seen::of(&backend).await;
    days_by_hand(&there, &people, &zone);
    assert_ne!(seen.views["daily_usage"], there.views["daily_usage"]);
    assert_eq!(seen.views["person_attendance"], there.views["person_attendance"]);
}

/// What is kept of runs that are not live is what their stays tell. How many rows are kept, and how many there are.
pub async fn kept_and_added_up(backend: &Backend, seen: &Seen) -> (usize, usize) {
    let rows = "SELECT count(*) FROM kept_attendance k JOIN meetings m ON m.kept_id = k.kept_id";
    let kept: usize = backend.value(rows).await.parse().expect("a count");
    backend.execute("UPDATE meetings SET kept_id = NULL").await;
    let added_up = Seen::of(backend).await;
    let [kept_rows, added_up] = [seen, &added_up].map(|seen| comparable(&seen.views["person_attendance"]));
    for (kept, added_up) in kept_rows.iter().zip(&added_up) {
        assert_eq!(kept.0, added_up.0);
        assert!(
            kept.1.iter().zip(&added_up.1).all(|(one, other)| (one - other).abs() < 0.011),
            "{kept:?}, {added_up:?}"
        );
    }
    assert_eq!(kept_rows.len(), added_up.len());
    (kept, kept_rows.len())
}

fn days_by_hand(seen: &Seen, people: &BTreeMap<(&str, &str), Vec<&Present>>, zone: &TimeZone) {
    let named = |row: &Value| -> Day {
        let noon = format!("{} 12:00", row["day"].as_str().expect("a day"));
        let day = zone.day(noon.parse::<WrittenTime>().expect("a time").in_zone(zone));
        assert_eq!(day.to_string(), row["day"]);
        day
    };
    let stays: Vec<&Present> = people.values().flatten().copied().collect();
    let touched: BTreeSet<String> = stays
        .iter()
        .flat_map(|stay| zone.days(millis(stay.from), millis(stay.left.max(stay.from + 1)), 10))
        .map(|day| day.to_string())
        .collect();

    // Who was where on which day, and for how long.
    let rows = &seen.views["person_days"];
    let mut spent: BTreeMap<String, i64> = BTreeMap::new();
    let mut there: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut expected = 0;
    for row in rows {
        let key = (row["meeting_uuid"].as_str().expect("a run"), row["person"].as_str().expect("a person"));
        let pieces: Vec<(i64, i64)> = people[&key].iter().filter_map(|stay| stay.on(&named(row))).collect();
        assert_eq!(row["stays"], pieces.len(), "{row}");
        let minutes = covered(pieces.clone());
        near(&row["minutes"], minutes);
        let ends = (pieces.iter().map(|piece| piece.0).min(), pieces.iter().map(|piece| piece.1).max());
        assert_eq!((Some(ms(&row["present_from"])), Some(ms(&row["present_until"]))), ends, "{row}");
        *spent.entry(named(row).to_string()).or_default() += minutes;
        there.entry(named(row).to_string()).or_default().insert(key.1);
        expected += pieces.len();
    }
    assert_eq!(there.keys().cloned().collect::<BTreeSet<_>>(), touched);
    assert_eq!(seen.views["presence_days"].len(), expected);

    let mut begun: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for run in &seen.meetings {
        let began = [&run["started_at"], &run["first_event_at"]].into_iter().find(|at| !at.is_null()).expect("a time");
        if !run["started_at"].is_null() || run["stays"] != 0 {
            begun.entry(zone.day(millis(ms(began))).to_string()).or_default().push(run);
        }
    }
    let all: BTreeSet<&String> = begun.keys().chain(&touched).collect();
    assert_eq!(seen.views["daily_usage"].len(), all.len());
    for row in &seen.views["daily_usage"] {
        let day = named(row).to_string();
        let runs = begun.get(&day).map_or(&[][..], Vec::as_slice);
        let sum = |column: &str| runs.iter().map(|run| run[column].as_i64().expect("a number")).sum::<i64>();
        assert_eq!(
            json!([row["meetings"], row["participants"], row["attendances"], row["stays"], row["recordings"]]),
            json!([
                runs.len(),
                there.get(&day).map_or(0, BTreeSet::len),
                sum("participants"),
                sum("stays"),
                sum("recordings")
            ]),
            "{row}"
        );
        near(&row["minutes"], spent.get(&day).copied().unwrap_or_default());
        let of_run = |uuid: &Value| {
            let of_person = |((run, _), stays): (&(&str, &str), &Vec<&Present>)| match *uuid == **run {
                true => covered(stays.iter().map(|stay| (stay.from, stay.left)).collect()),
                false => 0,
            };
            people.iter().map(of_person).sum::<i64>()
        };
        near(&row["run_minutes"], runs.iter().map(|run| of_run(&run["meeting_uuid"])).sum());
    }

    let peaks = &seen.views["daily_peak"];
    assert_eq!(peaks.len(), touched.len(), "{peaks:?}");
    for row in peaks {
        let (begins, ends) = (named(row).begins_at.get(), named(row).ends_at.get());
        let inside = |moment: i64| stays.iter().filter(move |stay| stay.from <= moment && moment < stay.until);
        let moments = stays.iter().map(|stay| stay.from.max(begins)).filter(|at| (begins..ends).contains(at));
        let people = |at: i64| inside(at).map(|stay| &stay.of_day).collect::<BTreeSet<_>>().len();
        let moments: BTreeSet<i64> = moments.collect();
        let most = moments.iter().map(|at| people(*at)).max().expect("a moment");
        assert_eq!(
            (&row["participants"], &row["devices"]),
            (&json!(most), &json!(moments.iter().map(|at| inside(*at).count()).max().expect("a moment"))),
            "{row}"
        );
        let first = moments.iter().find(|at| people(**at) == most).expect("a moment");
        assert_eq!(ms(&row["peak_at"]), *first, "{row}");
    }
}

/// Rows without what the databases write differently, and the minutes apart from them.
fn comparable(rows: &[Value]) -> Vec<(String, Vec<f64>)> {
    let mut all: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut row = row.as_object().expect("an object").clone();
            let minutes = ["minutes", "run_minutes", "minutes_late", "duration_s"]
                .map(|name| row.remove(name).and_then(|it| it.as_f64()));
            (Value::from(row).to_string(), minutes.into_iter().flatten().collect::<Vec<f64>>())
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_answer_the_same() {
    let (sqlite, postgres) = (Backend::sqlite(), Backend::postgres().await);
    let (one, other) = (filled(&sqlite).await, filled(&postgres).await);
    for (view, rows) in &one.views {
        let (one, other) = (comparable(rows), comparable(&other.views[view]));
        assert_eq!(one.len(), other.len(), "{view}");
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one.0, other.0, "{view}");
            assert!(one.1.iter().zip(&other.1).all(|(one, other)| (one - other).abs() < 0.011), "{one:?}, {other:?}");
        }
    }
}

/// Tables of which each row read costs something when there are millions.
fn is_large(relation: &str) -> bool {
    matches!(relation, "meetings" | "attendance" | "kept_attendance") || relation.starts_with("events")
}

/// Scans of large tables that neither have a condition nor end after a row.
fn whole_scans(plan: &Value, limited: bool, found: &mut Vec<String>) {
    let limited = limited || plan["Node Type"] == "Limit";
    let relation = plan["Relation Name"].as_str().unwrap_or_default();
    if is_large(relation) && plan["Index Cond"].is_null() && plan["Index Name"] != "meetings_live" && !limited {
        found.push(format!("{} of {relation} by {}", plan["Node Type"], plan["Index Name"]));
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        whole_scans(below, limited, found);
    }
}

pub async fn a_condition_on_a_run_a_number_or_a_day_goes_by_an_index(backend: Backend) {
    backend.log().await;
    let mut queries: Vec<String> = docs::queries().into_iter().map(|query| query.sql).collect();
    queries.push("SELECT * FROM person_attendance WHERE meeting_id = '960000017'".to_owned());
    queries.push("SELECT * FROM late_joiners WHERE meeting_uuid = '1111'".to_owned());
    queries.push("SELECT * FROM person_days WHERE meeting_uuid = '1111'".to_owned());
    queries
        .push("SELECT * FROM person_days WHERE person = 'x' AND day BETWEEN '2026-06-01' AND '2026-06-30'".to_owned());
    queries.push("SELECT * FROM presence_days WHERE day = '2026-06-15'".to_owned());
    queries.push("SELECT * FROM daily_usage WHERE day = '2026-06-15'".to_owned());
    queries.push("SELECT * FROM presence WHERE subscriber_id = '1' AND meeting_uuid = '1111'".to_owned());
    for query in queries {
        let mut found = Vec::new();
        if backend.postgres.is_some() {
            let mut session = PgConnection::connect(&backend.url).await.expect("a session");
            // Empty tables are read as a whole, unless that is forbidden.
            for way in ["seqscan", "bitmapscan", "hashjoin", "mergejoin"] {
                let sql = AssertSqlSafe(format!("SET enable_{way} = off"));
                sqlx::raw_sql(sql).execute(&mut session).await.expect("a setting");
            }
            let sql = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) {query}"));
            let plan: Value = sqlx::query_scalar(sql).fetch_one(&mut session).await.expect(&query);
            whole_scans(&plan[0]["Plan"], false, &mut found);
        } else {
            let mut session = SqliteConnection::connect(&backend.url).await.expect("a session");
            let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
            let plan = sqlx::query(sql).fetch_all(&mut session).await.expect(&query);
            let steps = plan.iter().map(|row| row.get::<String, _>("detail"));
            found.extend(steps.filter(|step| {
                let mut words = step.split(' ');
                match (words.next(), words.next()) {
                    (Some("SCAN"), Some("a" | "m" | "e" | "k")) => !step.ends_with("USING INDEX meetings_live"),
                    // Along an index, to its first row.
                    (Some("SCAN"), Some(table)) => is_large(table) && !step.contains(" INDEX "),
                    _ => false,
                }
            }));
        }
        assert!(found.is_empty(), "{query}\n{found:?}");
    }
}
