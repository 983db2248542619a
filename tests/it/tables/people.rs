//! Who is one person, in all runs.

use convoke::cursor::Cursor as _;
use convoke_log::Handles;
use rand::{RngExt as _, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::{
    as_json::Seen,
    projection::{catch_up, cursor, event_of, forget_everything},
    views::kept_and_added_up,
};
use crate::{
    forget::tables::forget,
    log_contract::fixture::{Backend, append},
    support::sign::NOW,
};

/// Members of `attendeeInfo`: somebody as whom no more is told than this.
fn told(participant: &str, ids: &[(&str, &str)], joined: i64, left: i64) -> String {
    let ids: String = ids.iter().map(|(name, id)| format!(r#""{name}":"{id}","#)).collect();
    format!(r#"{ids}"participantID":"{participant}","joinTime":{},"leftTime":{}"#, NOW + joined, NOW + left)
}

/// Events of a few people in a few runs, who are told by whatever ids.
fn happened(rng: &mut SmallRng) -> Vec<String> {
    let mut infos = Vec::new();
    for number in 0..90 {
        let run = format!("run-{}", rng.random_range(0..8));
        let one = rng.random_range(0..6);
        // Now and then an id is somebody else's, too.
        let mut id = |kind: &str| {
            let whose = if rng.random_ratio(1, 12) { rng.random_range(0..6) } else { one };
            format!("{kind}{whose}")
        };
        let all = [("userUUID", id("u")), ("account", id("a")), ("callNumber", id("+")), ("displayName", id("Li "))];
        let ids: Vec<(&str, &str)> =
            all.iter().filter(|_| rng.random_ratio(1, 2)).map(|(name, id)| (*name, &**id)).collect();
        let joined = rng.random_range(0..600) * 1_000;
        let left = joined + rng.random_range(1..200) * 1_000;
        let participant = format!("p{number}");
        infos.push(event_of(&run, "meeting.join", joined + 5, &told(&participant, &ids, joined, -NOW)));
        infos.push(event_of(&run, "meeting.left", left + 5, &told(&participant, &ids, joined, left)));
    }
    // Some of the runs are over, whoever comes and goes.
    infos.extend((0..5).map(|run| event_of(&format!("run-{run}"), "meeting.end", run * 150_000, "")));
    infos
}

pub async fn who_is_one_person_does_not_depend_on_the_order_across_runs(backend: Backend) {
    let log = backend.log().await;
    // What is tried is the projection, which is the same on both; on the one that is quicker more of it.
    let (seeds, pieces): (u64, &[usize]) = if backend.postgres.is_some() { (2, &[7, 40]) } else { (3, &[1, 7, 40]) };
    for seed in 0..seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut infos = happened(&mut rng);
        forget_everything(&backend).await;
        append(&log, &infos).await;
        catch_up(&mut cursor(&log, "a")).await;
        let expected = Seen::of(&backend).await;
        let by = |by: &str| expected.attendance.iter().filter(|row| row["person_by"] == by).count();
        assert!(["user", "account", "number", "name", "participant"].iter().all(|it| by(it) > 0), "{seed}");
        let others = expected.attendance.iter().filter(|row| row["person"] == row["user_uuid"]).count();
        assert!(others > 10 && others < expected.attendance.len());
        for &piece in pieces {
            forget_everything(&backend).await;
            infos.shuffle(&mut rng);
            let mut tables = cursor(&log, "a");
            for (number, piece) in infos.chunks(piece).enumerate() {
                append(&log, piece).await;
                if number % 3 == 0 {
                    catch_up(&mut tables).await;
                }
                if number % 5 == 0 {
                    tables = cursor(&log, "a");
                }
            }
            catch_up(&mut tables).await;
            assert_eq!(Seen::of(&backend).await, expected, "seed {seed}, pieces of {piece}");
            let twice = "SELECT count(*) FROM unsettled";
            assert_eq!(backend.value(twice).await, "0");
        }
        cursor(&log, "a").rebuild(|_| {}).await.expect("rebuilt");
        assert_eq!(Seen::of(&backend).await, expected, "seed {seed}, rebuilt");
        let (kept, all) = kept_and_added_up(&backend, &expected).await;
        assert!(kept > 10 && kept < all, "{kept} of {all}");
    }
}

fn people(seen: &Seen) -> Vec<Value> {
    let mut rows: Vec<&Value> = seen.attendance.iter().collect();
    rows.sort_by_key(|row| row["participant_id"].to_string());
    rows.iter().map(|row| json!([row["meeting_uuid"], row["person"], row["person_by"]])).collect()
}

pub async fn what_is_learnt_of_a_person_later_is_so_in_earlier_runs_until_it_is_forgotten(backend: Backend) {
    let log = backend.log().await;
    let mut tables = cursor(&log, "a");
    let left = |run: &str, participant: &str, ids: &[(&str, &str)], at: i64| {
        event_of(run, "meeting.left", at + 60_000, &told(participant, ids, at, at + 50_000))
    };
    let phone = ("callNumber", "+1");
    append(
        &log,
        &[
            left("early", "p1", &[phone], 0),
            left("early", "p2", &[("account", "ada")], 0),
            left("early", "p3", &[("account", "bob")], 0),
        ],
    )
    .await;
    catch_up(&mut tables).await;
    let before =
        [json!(["early", "+1", "number"]), json!(["early", "ada", "account"]), json!(["early", "bob", "account"])];
    assert_eq!(people(&Seen::of(&backend).await), before);
    append(&log, &[left("late", "p4", &[("userUUID", "u-ada"), ("account", "ada"), phone], 900_000)]).await;
    catch_up(&mut tables).await;
    let seen = Seen::of(&backend).await;
    assert_eq!(
        people(&seen)[..3],
        [json!(["early", "u-ada", "number"]), json!(["early", "u-ada", "account"]), before[2].clone()]
    );
    let participants = |seen: &Seen| seen.meetings.iter().map(|row| row["participants"].clone()).collect::<Vec<_>>();
    assert_eq!(participants(&seen), [json!(2), json!(1)]);
    // The number is a room's: it is nobody's any more.
    append(&log, &[left("late", "p5", &[("userUUID", "u-bob"), phone], 990_000)]).await;
    catch_up(&mut tables).await;
    assert_eq!(people(&Seen::of(&backend).await)[..2], [before[0].clone(), json!(["early", "u-ada", "account"])]);
    tables.release().await;

    for user in ["u-bob", "u-ada"] {
        let handles = Handles { users: vec![user.to_owned()], ..Handles::default() };
        forget(&backend, handles).erase(false, |_| {}).await.expect("it is erased");
    }
    assert_eq!(backend.value("SELECT count(*) FROM identities").await, "0");
    catch_up(&mut cursor(&log, "a")).await;
    let seen = Seen::of(&backend).await;
    assert_eq!(people(&seen).iter().filter(|row| row[0] == "early").cloned().collect::<Vec<_>>(), before);
    cursor(&log, "b").rebuild(|_| {}).await.expect("rebuilt");
    assert_eq!(Seen::of(&backend).await, seen);
}

pub async fn the_name_that_is_shown_is_the_last_one_and_guests_in_two_runs_at_once_are_two(backend: Backend) {
    let log = backend.log().await;
    let left = |run: &str, participant: &str, ids: &[(&str, &str)], from: i64, until: i64| {
        event_of(run, "meeting.left", until, &told(participant, ids, from, until))
    };
    append(
        &log,
        &[
            event_of("one", "meeting.started", 0, ""),
            left("one", "p1", &[("userUUID", "u1"), ("displayName", "Zhang")], 300_000, 400_000),
            left("one", "p2", &[("userUUID", "u1"), ("displayName", "Adele")], 500_000, 600_000),
            left("one", "p3", &[("userUUID", "u1"), ("displayName", "Zhang San")], 550_000, 700_000),
            left("one", "p4", &[("displayName", "iPhone")], 800_000, 900_000),
            left("two", "p5", &[("displayName", "iPhone")], 850_000, 950_000),
        ],
    )
    .await;
    catch_up(&mut cursor(&log, "a")).await;
    let seen = Seen::of(&backend).await;
    for view in ["person_attendance", "late_joiners"] {
        let names: Vec<&Value> =
            seen.views[view].iter().filter(|row| row["person"] == "u1").map(|row| &row["display_name"]).collect();
        assert_eq!(names, ["Zhang San"], "{view}");
    }
    assert_eq!(seen.views["daily_peak"][0]["participants"], 2);
}
