//! What people ask the tables: the queries of docs/use/attendance.md, and the comments in PostgreSQL.

use serde_json::{Value, json};

use super::{
    as_json::rows,
    projection::{UUID, catch_up, cursor, event, event_of, who},
};
use crate::{
    log_contract::fixture::{Backend, append},
    support::{
        docs::{self, PERSON},
        sign::{NOW, millis},
    },
};

const MINUTE: i64 = 60_000;
/// From noon of the page's day back to 23:00 of the day before.
const YESTERDAY: i64 = -13 * 60 * MINUTE;

/// The page's day: one run that goes on, and the one before it, of the same number, over midnight.
pub fn small_world() -> Vec<String> {
    let stay_in = |run: &str, participant: &str, user: &str, joined, left| {
        let who = who(participant, joined, left).replace(&format!("user-{participant}"), user);
        event_of(run, "meeting.left", left, &who)
    };
    let stay = |participant: &str, user: &str, joined, left| stay_in(UUID, participant, user, joined, left);
    vec![
        event_of("before", "meeting.started", YESTERDAY, ""),
        stay_in("before", "b1", PERSON, YESTERDAY, YESTERDAY + 90 * MINUTE),
        stay_in("before", "b2", "wang", YESTERDAY + MINUTE, YESTERDAY + 89 * MINUTE),
        event_of("before", "meeting.conclude", YESTERDAY + 90 * MINUTE, ""),
        event("meeting.started", 0, ""),
        // On two devices, five of the minutes on both, and once more after a break.
        stay("p1", PERSON, MINUTE, 11 * MINUTE),
        stay("p2", PERSON, 6 * MINUTE, 21 * MINUTE),
        stay("p3", PERSON, 31 * MINUTE, 41 * MINUTE),
        // Is still in: until the last that was heard of the run, months ago.
        event("meeting.join", 20, &who("p4", 0, 0)),
        stay("p5", "late", 8 * MINUTE, 18 * MINUTE),
    ]
}

async fn answer(backend: &Backend, question: &str, members: &[&str]) -> Vec<Value> {
    let queries = docs::queries();
    let query = queries.iter().find(|query| query.question.starts_with(question)).expect(question);
    let mut rows = rows(backend, &query.sql, members).await;
    for value in rows.iter_mut().filter_map(Value::as_object_mut).flat_map(|row| row.values_mut()) {
        // One writes 10, and the other 10.0.
        if let Some(number) = value.as_f64() {
            *value = json!(number);
        }
    }
    rows
}

pub async fn the_documented_queries_answer_what_they_say(backend: Backend) {
    assert_eq!((docs::RUN, docs::queries().len()), (UUID, 18));
    assert!(millis(NOW).to_string().starts_with(docs::DAY));
    let log = backend.log().await;
    append(&log, &small_world()).await;
    catch_up(&mut cursor(&log, "a")).await;
    let number = docs::MEETING;

    let happened = answer(&backend, "What happened on a day", &["event", "events"]).await;
    assert_eq!(
        happened,
        [
            json!({"event": "meeting.conclude", "events": 1.0}),
            json!({"event": "meeting.join", "events": 1.0}),
            json!({"event": "meeting.left", "events": 6.0}),
            json!({"event": "meeting.started", "events": 1.0}),
        ]
    );
    assert_eq!(answer(&backend, "The story of a meeting", &["seq", "event"]).await.len(), 10);
    let now = answer(&backend, "What is on now", &["meeting_id", "people"]).await;
    assert_eq!(now, [json!({"meeting_id": number, "people": 1.0})]);
    let there = answer(&backend, "Who was in a run", &["minutes", "devices", "last_left_at"]).await;
    assert_eq!(
        there,
        [
            json!({"minutes": 10.0, "devices": 1.0, "last_left_at": "2026-06-15T12:18:00.000Z"}),
            json!({"minutes": 30.0, "devices": 2.0, "last_left_at": "2026-06-15T12:41:00.000Z"}),
            json!({"minutes": 41.0, "devices": 1.0, "last_left_at": null}),
        ]
    );
    let somewhere = answer(&backend, "Where somebody was", &["began_at", "minutes"]).await;
    assert_eq!(
        somewhere,
        [
            json!({"began_at": "2026-06-14T23:00:00.000Z", "minutes": 90.0}),
            json!({"began_at": "2026-06-15T12:00:00.000Z", "minutes": 30.0}),
        ]
    );
    let late = answer(&backend, "Who came more than five", &["meeting_id", "minutes_late"]).await;
    assert_eq!(late, [json!({"meeting_id": number, "minutes_late": 8.0})]);
    let usage = answer(&backend, "A week's use", &["day", "meetings", "participants", "minutes"]).await;
    assert_eq!(
        usage,
        [
            json!({"day": "2026-06-14", "meetings": 1.0, "participants": 2.0, "minutes": 119.0}),
            json!({"day": "2026-06-15", "meetings": 1.0, "participants": 4.0, "minutes": 140.0}),
        ]
    );
    let spent = answer(&backend, "How long somebody was", &["day", "minutes"]).await;
    let day = |day: &str, minutes: f64| json!({"day": day, "minutes": minutes});
    assert_eq!(spent, [day("2026-06-14", 60.0), day("2026-06-15", 60.0)]);
    let members = ["status", "runs", "started_at", "participants"];
    let bookings = answer(&backend, "The bookings of a number", &members).await;
    assert_eq!(
        bookings,
        [
            json!({"status": "concluded", "runs": 1.0, "started_at": "2026-06-14T23:00:00.000Z", "participants": 2.0}),
            json!({"status": "live", "runs": 1.0, "started_at": "2026-06-15T12:00:00.000Z", "participants": 3.0}),
        ]
    );
    let peak = answer(&backend, "The most people", &["participants", "devices", "peak_at"]).await;
    assert_eq!(peak, [json!({"participants": 3.0, "devices": 4.0, "peak_at": "2026-06-15T12:08:00.000Z"})]);

    let unfinished = async || answer(&backend, "Runs of which no end", &["meeting_id", "began_at"]).await;
    let run = json!({"meeting_id": number, "began_at": "2026-06-15T12:00:00.000Z"});
    assert_eq!(unfinished().await, [run], "its events are months old");
    append(&log, &[event("meeting.end", 50 * MINUTE, "")]).await;
    catch_up(&mut cursor(&log, "a")).await;
    assert!(unfinished().await.is_empty());
}

pub async fn what_a_training_department_asks_is_answered(backend: Backend) {
    let log = backend.log().await;
    let mut infos = small_world();
    // Somebody who is late, in a run that goes on.
    infos.push(event_of("third", "meeting.started", 60 * MINUTE, ""));
    infos.push(event_of("third", "meeting.left", 90 * MINUTE, &who("p9", 75 * MINUTE, 90 * MINUTE)));
    infos.push(event("meeting.end", 50 * MINUTE, ""));
    append(&log, &infos).await;
    catch_up(&mut cursor(&log, "a")).await;
    for (run, invitee, kind) in [
        ("before", PERSON, "normal"),
        ("before", "away", "normal"),
        ("before", "room", "terminal"),
        (UUID, PERSON, "normal"),
        (UUID, "late", "normal"),
        ("third", "awaited", "normal"),
    ] {
        let sql = format!(
            "INSERT INTO invitations (subscriber_id, meeting_uuid, invitee, user_uuid, display_name, department, attendee_type)
             SELECT subscriber_id, meeting_uuid, '{invitee}', '{invitee}', 'Name of {invitee}', 'Sales', '{kind}'
               FROM meetings WHERE meeting_uuid = '{run}'"
        );
        backend.execute(&sql).await;
    }
    let due = "'2026-12-01T00:00:00.000Z'";
    backend
        .execute(&format!("INSERT INTO people (user_uuid, department, due_at) VALUES ('{PERSON}', 'Sales', {due})"))
        .await;
    backend
        .execute(&format!(
            "UPDATE meetings SET host = 'Wang', host_user_uuid = '{PERSON}' WHERE meeting_uuid = '{UUID}'"
        ))
        .await;

    let course = answer(&backend, "Attendance of a course", &["invited", "attended", "percent"]).await;
    assert_eq!(
        course,
        [
            json!({"invited": 1.0, "attended": 0.0, "percent": 0.0}),
            json!({"invited": 2.0, "attended": 0.0, "percent": 0.0}),
            json!({"invited": 3.0, "attended": 1.0, "percent": 33.3}),
        ]
    );
    let absent = answer(&backend, "Who was invited in a week", &["display_name", "department"]).await;
    assert_eq!(absent, [json!({"display_name": "Name of away", "department": "Sales"})], "no room, and nobody awaited");
    let departments =
        answer(&backend, "People and minutes by department", &["department", "attendances", "minutes"]).await;
    assert_eq!(
        departments,
        [
            json!({"department": "Sales", "attendances": 2.0, "minutes": 120.0}),
            json!({"department": null, "attendances": 4.0, "minutes": 163.0}),
        ]
    );
    let hours = answer(&backend, "Hours of each person", &["person", "runs", "hours"]).await;
    assert_eq!(hours.len(), 5);
    assert!(hours.contains(&json!({"person": PERSON, "runs": 2.0, "hours": 2.0})), "{hours:?}");
    let late = answer(&backend, "How often each person came", &["person", "times"]).await;
    assert_eq!(late, [json!({"person": "user-p9", "times": 1.0})]);
    let rooms = answer(&backend, "How much each meeting number", &["meeting_id", "runs", "people"]).await;
    assert_eq!(rooms, [json!({"meeting_id": docs::MEETING, "runs": 3.0, "people": 5.0})]);
    let host = answer(&backend, "Whether the host", &["minutes", "first_joined_at"]).await;
    assert_eq!(host, [json!({"minutes": 30.0, "first_joined_at": "2026-06-15T12:01:00.000Z"})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_analysts_see_has_a_comment_in_postgresql() {
    let backend = Backend::postgres().await;
    backend.log().await;
    let without = backend
        .value(
            "SELECT coalesce(string_agg(c.relname || '.' || a.attname, ', '), '')
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
              WHERE (c.relname IN ('meetings', 'attendance', 'recordings', 'days') AND c.relkind = 'r'
                     OR c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace)
                AND a.attnum > 0
                AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)",
        )
        .await;
    assert_eq!(without, "");
}
