//! What is over, and what belongs together: runs that end and do not, that are held under other UUIDs than they were scheduled
//! under, and numbers that are used again.

use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::{
    as_json::{Seen, rows},
    projection::{catch_up, cursor, event_of, forget_everything, who},
};
use crate::{
    log_contract::fixture::{Backend, append},
    support::sign::{NOW, millis},
};

const MINUTE: i64 = 60_000;

/// The run, how it stands, and whether it is over.
fn standing(seen: &Seen) -> Vec<Value> {
    seen.meetings.iter().map(|row| json!([row["meeting_uuid"], row["status"], row["over"]])).collect()
}

pub async fn a_run_is_over_once_it_has_ended_or_another_of_its_number_has_started(backend: Backend) {
    let log = backend.log().await;
    let mut infos = vec![
        // Scheduled under a UUID of its own; its end was lost; and entered once more, where somebody comes too late.
        event_of("a-booked", "meeting.create", 0, ""),
        event_of("a-booked", "meeting.modify", MINUTE, ""),
        event_of("b-lost", "meeting.started", 5 * MINUTE, ""),
        event_of("b-lost", "meeting.join", 6 * MINUTE, &who("p1", 6 * MINUTE - 100, 0)),
        event_of("c-again", "meeting.started", 50 * MINUTE, ""),
        event_of("c-again", "meeting.end", 70 * MINUTE, ""),
        event_of("c-again", "meeting.join", 70 * MINUTE + 50, &who("p2", 70 * MINUTE + 30, 0)),
        // Goes on.
        event_of("d-live", "meeting.started", 90 * MINUTE, ""),
        // Ended, and started again.
        event_of("e-other", "meeting.end", 10 * MINUTE, "").replace("960000017", "960000018"),
        event_of("e-other", "meeting.started", 20 * MINUTE, "").replace("960000017", "960000018"),
        event_of("f-next", "meeting.create", 30 * MINUTE, "").replace("960000017", "960000018"),
    ];
    let expected = [
        json!(["a-booked", "scheduled", true]),
        json!(["b-lost", "live", true]),
        json!(["c-again", "ended", true]),
        json!(["d-live", "live", false]),
        json!(["e-other", "live", false]),
        json!(["f-next", "scheduled", false]),
    ];
    for seed in 0..6 {
        infos.shuffle(&mut SmallRng::seed_from_u64(seed));
        forget_everything(&backend).await;
        for piece in infos.chunks(if seed % 2 == 0 { 3 } else { 1 }) {
            append(&log, piece).await;
            catch_up(&mut cursor(&log, "a")).await;
        }
        let seen = Seen::of(&backend).await;
        let mut found = standing(&seen);
        found.sort_by_key(ToString::to_string);
        assert_eq!(found, expected, "seed {seed}");
        // Nobody is there any more who was in a run that is over, whether or not it was told that they left.
        let until = |participant: &str| {
            let stay = seen.attendance.iter().find(|row| row["participant_id"] == participant).expect("a stay");
            let present = seen.views["presence"].iter().find(|row| row["stay_id"] == stay["stay_id"]).expect("a stay");
            json!([stay["closed_by"], present["present_until"]])
        };
        assert_eq!(until("p1"), json!(["open", millis(NOW + 6 * MINUTE).to_string()]));
        assert_eq!(until("p2"), json!(["meeting_end", millis(NOW + 70 * MINUTE + 30).to_string()]));
        let silent: Vec<&Value> = seen.views["no_end_seen"].iter().map(|row| &row["meeting_uuid"]).collect();
        assert_eq!(silent, ["d-live", "e-other"]);
    }
}

fn in_series(info: &str, occurrence: &str) -> String {
    info.replace(r#""meetingUUID""#, &format!(r#""meetingCycleSubID":"{occurrence}","meetingUUID""#))
        .replace("960000017", "960000018")
}

pub async fn a_number_is_told_with_its_bookings_and_their_runs(backend: Backend) {
    let log = backend.log().await;
    let left = |uuid: &str, participant: &str, from: i64, until: i64| {
        event_of(uuid, "meeting.left", until, &who(participant, from, until))
    };
    append(
        &log,
        &[
            // Scheduled, edited, held twice, and concluded; then the number is another meeting's, which is cancelled.
            event_of("booked", "meeting.create", 0, ""),
            event_of("booked", "meeting.modify", MINUTE, ""),
            event_of("one", "meeting.started", 5 * MINUTE, ""),
            left("one", "p1", 6 * MINUTE, 20 * MINUTE),
            event_of("one", "meeting.end", 21 * MINUTE, ""),
            event_of("two", "meeting.started", 25 * MINUTE, ""),
            left("two", "p1", 26 * MINUTE, 40 * MINUTE),
            left("two", "p2", 26 * MINUTE, 40 * MINUTE),
            event_of("two", "meeting.conclude", 41 * MINUTE, ""),
            event_of("another", "meeting.create", 60 * MINUTE, ""),
            event_of("another", "meeting.cancel", 61 * MINUTE, ""),
            // A series, of which two occurrences were held, the second one twice.
            event_of("series", "meeting.create", 0, "").replace("960000017", "960000018"),
            in_series(&event_of("s1", "meeting.started", 5 * MINUTE, ""), "first"),
            in_series(&event_of("s1", "meeting.end", 15 * MINUTE, ""), "first"),
            in_series(&event_of("s2", "meeting.started", 30 * MINUTE, ""), "second"),
            in_series(&event_of("s2", "meeting.end", 35 * MINUTE, ""), "second"),
            in_series(&event_of("s3", "meeting.started", 40 * MINUTE, ""), "second"),
        ],
    )
    .await;
    catch_up(&mut cursor(&log, "a")).await;
    let set =
        "UPDATE meetings SET subject = 'Weekly', host_user_uuid = 'u1' WHERE meeting_uuid IN ('booked', 'series')";
    backend.execute(set).await;
    let query =
        "SELECT meeting_id, meeting_cycle_sub_id, status, CASE WHEN over THEN 1 ELSE 0 END AS is_over, modifications,
                        runs, participants, subject, host_user_uuid, started_at, ended_at
                   FROM meeting_numbers";
    let columns = [
        "meeting_id",
        "meeting_cycle_sub_id",
        "status",
        "is_over",
        "modifications",
        "runs",
        "participants",
        "subject",
        "host_user_uuid",
        "started_at",
        "ended_at",
    ];
    let mut found: Vec<Vec<Value>> = rows(&backend, query, &columns)
        .await
        .iter()
        .map(|row| columns.iter().map(|column| row[*column].clone()).collect())
        .collect();
    found.sort_by_key(|row| json!(row).to_string());
    let at = |minutes: i64| json!(millis(NOW + minutes * MINUTE).to_string());
    let row = |values: Value| values.as_array().expect("a list").clone();
    assert_eq!(
        found,
        [
            row(json!(["960000017", null, "cancelled", 1, 0, 0, 0, null, null, null, null])),
            row(json!(["960000017", null, "concluded", 1, 1, 2, 2, "Weekly", "u1", at(5), at(21)])),
            row(json!(["960000018", "first", "ended", 1, 0, 1, 0, "Weekly", "u1", at(5), at(15)])),
            row(json!(["960000018", "second", "live", 0, 0, 2, 0, "Weekly", "u1", at(30), null])),
        ]
    );
}

pub async fn late_is_who_comes_after_the_plan_and_the_start(backend: Backend) {
    let log = backend.log().await;
    let left = |uuid: &str, participant: &str, from: i64| {
        event_of(uuid, "meeting.left", from + MINUTE, &who(participant, from, from + MINUTE))
    };
    append(
        &log,
        &[
            event_of("early", "meeting.started", 0, ""),
            left("early", "p1", 29 * MINUTE),
            left("early", "p2", 33 * MINUTE),
            event_of("unplanned", "meeting.started", 0, ""),
            left("unplanned", "p3", 29 * MINUTE),
        ],
    )
    .await;
    catch_up(&mut cursor(&log, "a")).await;
    let planned = millis(NOW + 30 * MINUTE);
    backend
        .execute(&format!("UPDATE meetings SET scheduled_start_at = '{planned}' WHERE meeting_uuid = 'early'"))
        .await;
    let seen = Seen::of(&backend).await;
    let late: Vec<Value> = seen.views["late_joiners"]
        .iter()
        .map(|row| json!([row["meeting_uuid"], row["person"], row["minutes_late"], row["scheduled_start_at"]]))
        .collect();
    let planned = planned.to_string();
    assert_eq!(late, [json!(["early", "user-p2", 3.0, planned]), json!(["unplanned", "user-p3", 29.0, null])]);
}
