//! The truth: what happened in the simulated world, whether or not an event of it ever arrived. NDJSON, one line each, with a
//! `kind`: `meeting`, `stay`, `recording`, `dropped`. The members are named like the columns of the analyst tables, which are
//! measured against it. Pure.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::body::uuid_text;
use super::people::Uuid;
use super::script::{Happened, Script, Step, Told, What};
use convoke_core::id::EventId;
use convoke_core::time::Millis;

/// One line. Times are RFC 3339 in UTC with milliseconds; what has not happened is null.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Meeting {
        subscriber_id: &'a str,
        meeting_uuid: &'a str,
        meeting_id: &'a str,
        meeting_cycle_sub_id: Option<&'a str>,
        status: &'a str,
        over: bool,
        created_at: Option<String>,
        modified_at: Option<String>,
        modifications: u32,
        cancelled_at: Option<String>,
        started_at: Option<String>,
        ended_at: Option<String>,
        concluded_at: Option<String>,
        stays: usize,
        participants: usize,
        peak_participants: usize,
        recordings: u32,
    },
    Stay {
        subscriber_id: &'a str,
        meeting_uuid: &'a str,
        meeting_id: &'a str,
        participant_id: &'a str,
        person: &'a str,
        person_by: &'a str,
        user_uuid: Option<&'a str>,
        account: Option<&'a str>,
        display_name: &'a str,
        call_number: Option<&'a str>,
        user_agent: &'a str,
        role: &'a str,
        joined_at: String,
        left_at: Option<String>,
        closed_by: &'a str,
    },
    Recording {
        subscriber_id: &'a str,
        meeting_uuid: &'a str,
        meeting_id: &'a str,
        finished_at: String,
    },
    Dropped {
        event_id: String,
        subscriber_id: &'a str,
        event: &'a str,
        meeting_uuid: &'a str,
        occurred_at: String,
    },
}

/// A stay as far as it went: when it ended and how (`left`, `meeting_end`, `open`), and who that was, by what.
struct Closed {
    number: usize,
    left_at: Option<i64>,
    by: &'static str,
    person: String,
    person_by: &'static str,
}

/// Appends an event that the platform lost.
pub(super) fn dropped(out: &mut Vec<u8>, subscriber_id: &str, happened: &Happened, info: &[u8]) {
    let line = Line::Dropped {
        event_id: EventId::of(subscriber_id, happened.occurred_at, info).to_string(),
        subscriber_id,
        event: happened.event,
        meeting_uuid: &uuid_text(happened.meeting_uuid),
        occurred_at: happened.occurred_at.to_string(),
    };
    push(out, &line);
}

/// Appends what happened in the first `done` steps of `script`: the meeting, its stays, its recordings; and its booking apart, if
/// that has another UUID.
pub(super) fn run(out: &mut Vec<u8>, subscriber_id: &str, script: &Script, done: usize) {
    let steps = &script.steps[..done.min(script.steps.len())];
    let started = steps.iter().any(|step| step.what == What::Started);
    if let Some(booking) = script.booking
        && !steps.is_empty()
    {
        // Of a booking the run is all that comes.
        meeting(out, (subscriber_id, booking), script, steps, (&[], 0), started);
        if !started {
            return;
        }
    }
    if steps.is_empty() {
        return;
    }
    let meeting_uuid = &*uuid_text(script.meeting.uuid);
    let mut stays = closed(script, done);
    let live = status(script, script.meeting.uuid, steps) == "live";
    if !live {
        // Who came after the end found it over.
        for stay in stays.iter_mut().filter(|stay| stay.left_at.is_none()) {
            (stay.left_at, stay.by) = (Some(script.stays[stay.number].joined_at), "meeting_end");
        }
    }
    identify(script, &mut stays);
    let peak = peak(script, &stays);
    if live {
        // It goes on: who has not said goodbye may be there again.
        for stay in stays.iter_mut().filter(|stay| stay.by == "meeting_end") {
            (stay.left_at, stay.by) = (None, "open");
        }
    }
    meeting(out, (subscriber_id, script.meeting.uuid), script, steps, (&stays, peak), false);
    let meeting_id = &*script.meeting.id.to_string();
    for closed in stays {
        push_stay(out, subscriber_id, script, (meeting_uuid, meeting_id), &closed);
    }
    for step in steps.iter().filter(|step| step.what == What::Record) {
        push(out, &Line::Recording { subscriber_id, meeting_uuid, meeting_id, finished_at: text(step.at) });
    }
}

/// Appends what is known by this UUID, with its stays and the most people at one moment. `succeeded`: it came to life under another.
fn meeting(
    out: &mut Vec<u8>,
    (subscriber_id, uuid): (&str, Uuid),
    script: &Script,
    all: &[Step],
    (stays, peak_participants): (&[Closed], usize),
    succeeded: bool,
) {
    let meeting_uuid = &*uuid_text(uuid);
    let steps: Vec<&Step> = all.iter().filter(|step| script.uuid_of(step.what) == uuid).collect();
    let last = |what| steps.iter().rev().find(|step| step.what == what).map(|step| text(step.at));
    let count = |what| steps.iter().map(|step| u32::from(step.what == what)).sum();
    let status = status(script, uuid, all);
    let cycle = script.meeting.cycle_sub_id.map(uuid_text);
    push(
        out,
        &Line::Meeting {
            subscriber_id,
            meeting_uuid,
            meeting_id: &script.meeting.id.to_string(),
            meeting_cycle_sub_id: cycle.as_deref(),
            status,
            over: succeeded || !matches!(status, "scheduled" | "live"),
            created_at: last(What::Create),
            modified_at: last(What::Modify),
            modifications: count(What::Modify),
            cancelled_at: last(What::Cancel),
            started_at: steps.iter().find(|step| step.what == What::Started).map(|step| text(step.at)),
            ended_at: if status == "live" { None } else { last(What::End) },
            concluded_at: last(What::Conclude),
            stays: stays.len(),
            participants: stays.iter().map(|it| &it.person).collect::<HashSet<_>>().len(),
            peak_participants,
            recordings: count(What::Record),
        },
    );
}

/// How what is known by this UUID stands after these steps.
fn status(script: &Script, uuid: Uuid, steps: &[Step]) -> &'static str {
    let tells = |step: &&Step| {
        script.uuid_of(step.what) == uuid && !matches!(step.what, What::Join(_) | What::Left(_) | What::Record)
    };
    match steps.iter().rev().find(tells).map(|step| step.what) {
        Some(What::Cancel) => "cancelled",
        Some(What::Started) => "live",
        Some(What::End) => "ended",
        Some(What::Conclude) => "concluded",
        _ => "scheduled",
    }
}

fn push_stay(out: &mut Vec<u8>, subscriber_id: &str, script: &Script, meeting: (&str, &str), closed: &Closed) {
    let stay = &script.stays[closed.number];
    let attendee = &script.people[stay.person];
    let user_uuid = attendee.user_uuid.filter(|_| stay.told == Told::All).map(uuid_text);
    let line = Line::Stay {
        subscriber_id,
        meeting_uuid: meeting.0,
        meeting_id: meeting.1,
        participant_id: &uuid_text(stay.participant_id),
        person: &closed.person,
        person_by: closed.person_by,
        user_uuid: user_uuid.as_deref(),
        account: filled(&attendee.account).filter(|_| stay.told != Told::Number),
        display_name: &attendee.display_name,
        call_number: filled(&attendee.call_number),
        user_agent: stay.user_agent,
        role: stay.role,
        joined_at: text(stay.joined_at),
        left_at: closed.left_at.map(text),
        closed_by: closed.by,
    };
    push(out, &line);
}

/// The stays that began, in the order in which they did. Whoever has not said goodbye is gone with the end of the meeting.
fn closed(script: &Script, done: usize) -> Vec<Closed> {
    let mut stays: Vec<Closed> = Vec::new();
    let mut places = HashMap::new();
    for step in &script.steps[..done] {
        match step.what {
            What::Join(number) => {
                places.insert(number, stays.len());
                stays.push(Closed { number, left_at: None, by: "open", person: String::new(), person_by: "" });
            }
            What::Left(number) => {
                if let Some(stay) = places.get(&number).and_then(|place| stays.get_mut(*place)) {
                    (stay.left_at, stay.by) = (Some(script.stays[number].left_at), "left");
                }
            }
            What::End => {
                for stay in stays.iter_mut().filter(|stay| stay.left_at.is_none()) {
                    (stay.left_at, stay.by) = (Some(step.at), "meeting_end");
                }
            }
            _ => {}
        }
    }
    stays
}

/// The most distinct people at one moment; who leaves in the same millisecond makes room first.
fn peak(script: &Script, stays: &[Closed]) -> usize {
    let mut changes: Vec<(i64, bool, &str)> = Vec::with_capacity(stays.len() * 2);
    for Closed { number, left_at, person: who, .. } in stays {
        let stay = &script.stays[*number];
        // Who leaves in the millisecond of joining was there for one.
        changes.extend(left_at.map(|at| (at.max(stay.joined_at + 1), false, who.as_str())));
        changes.push((stay.joined_at, true, who.as_str()));
    }
    changes.sort_by_key(|(at, joins, _)| (*at, *joins));
    let (mut inside, mut most) = (HashMap::<&str, usize>::new(), 0);
    for (_, joins, who) in &changes {
        let devices = inside.entry(*who).or_default();
        if *joins {
            *devices += 1;
        } else {
            *devices = devices.saturating_sub(1);
            if *devices == 0 {
                inside.remove(*who);
            }
        }
        most = most.max(inside.len());
    }
    most
}

/// Who that is. Of an employee all is told at least once in a run, so that it is known who that is when less is told; of visitors
/// the name is, and those of one name are one as long as they are not there at once.
fn identify(script: &Script, stays: &mut [Closed]) {
    let mut visitors: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, closed) in stays.iter_mut().enumerate() {
        let stay = &script.stays[closed.number];
        let attendee = &script.people[stay.person];
        (closed.person, closed.person_by) = match (attendee.user_uuid, stay.told) {
            (Some(uuid), Told::All) => (uuid_text(uuid), "user"),
            (Some(uuid), Told::Account) => (uuid_text(uuid), "account"),
            (Some(uuid), Told::Number) => (uuid_text(uuid), "number"),
            (None, _) => match filled(&attendee.call_number) {
                Some(number) => (number.to_owned(), "number"),
                None => {
                    visitors.entry(&attendee.display_name).or_default().push(place);
                    (attendee.display_name.clone(), "name")
                }
            },
        };
    }
    for (name, mut places) in visitors {
        places.sort_by_key(|place| script.stays[stays[*place].number].joined_at);
        let mut until: Vec<i64> = Vec::new();
        for place in places {
            let joined = script.stays[stays[place].number].joined_at;
            let free = until.iter().position(|until| *until <= joined).unwrap_or(until.len());
            if free == until.len() {
                until.push(0);
            }
            until[free] = stays[place].left_at.unwrap_or(i64::MAX);
            if free > 0 {
                stays[place].person = format!("{name} ({})", free + 1);
            }
        }
    }
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn text(at: i64) -> String {
    Millis::new(at).unwrap_or(Millis::MAX).to_string()
}

fn push(out: &mut Vec<u8>, line: &Line<'_>) {
    let before = out.len();
    // Cannot fail: strings and numbers into memory. If it did, no half line must stay.
    match serde_json::to_writer(&mut *out, line) {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(before),
    }
}

#[cfg(test)]
mod tests {
    use super::super::people::Who;
    use super::super::script::{MeetingRef, Stay};
    use super::*;

    fn stay(person: usize, joined_at: i64, left_at: i64, says_goodbye: bool) -> Stay {
        let participant_id = u128::try_from(joined_at).unwrap_or(0);
        let (user_agent, role, told) = ("Web", "GENERAL", Told::All);
        Stay { person, participant_id, user_agent, role, joined_at, left_at, told, says_goodbye }
    }

    /// The lines of the truth after the first `done` steps.
    fn reported(script: &Script, done: usize) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        run(&mut out, "7700001234", script, done);
        let lines = String::from_utf8_lossy(&out).into_owned();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[test]
    fn a_run_is_reported_with_its_stays_and_recordings() {
        let script = Script {
            meeting: MeetingRef { id: 960_000_017, uuid: 1, cycle_sub_id: None },
            booking: None,
            again_at: None,
            people: vec![Who::Employee(1).person(1), Who::Visitor(2).person(1)],
            // The first has two devices; the second is still there when the meeting ends.
            stays: vec![stay(0, 10, 50, true), stay(0, 20, 30, true), stay(1, 40, 90, false)],
            steps: [
                (1, What::Create),
                (5, What::Started),
                (11, What::Join(0)),
                (21, What::Join(1)),
                (31, What::Left(1)),
                (41, What::Join(2)),
                (51, What::Left(0)),
                (60, What::Record),
                (95, What::End),
                (99, What::Conclude),
            ]
            .map(|(at, what)| Step { at, what })
            .to_vec(),
        };
        let reported = |done| reported(&script, done);
        let all = reported(10);
        assert_eq!(all.len(), 5);
        assert_eq!(all[0]["status"], "concluded");
        assert_eq!(
            ["stays", "participants", "peak_participants", "recordings"].map(|name| all[0][name].as_u64()),
            [Some(3), Some(2), Some(2), Some(1)]
        );
        assert_eq!(all[3]["closed_by"], "meeting_end");
        assert_eq!(all[3]["left_at"], "1970-01-01T00:00:00.095Z");
        assert_eq!((&all[3]["person"], &all[3]["person_by"]), (&all[3]["display_name"], &"name".into()));
        assert_eq!(all[4]["kind"], "recording");
        let half = reported(6);
        assert_eq!((half[0]["status"].as_str(), half[0]["ended_at"].is_null()), (Some("live"), true));
        assert_eq!(half[1]["closed_by"], "open");
        assert_eq!(half[2]["closed_by"], "left");
        assert!(reported(0).is_empty());
    }

    #[test]
    fn a_booking_with_a_uuid_of_its_own_is_over_once_it_is_held_and_who_comes_after_the_end_leaves_at_once() {
        let script = Script {
            meeting: MeetingRef { id: 960_000_017, uuid: 1, cycle_sub_id: None },
            booking: Some(2),
            again_at: None,
            people: vec![Who::Employee(1).person(1)],
            stays: vec![stay(0, 96, 99, false)],
            steps: [(1, What::Create), (5, What::Started), (95, What::End), (97, What::Join(0))]
                .map(|(at, what)| Step { at, what })
                .to_vec(),
        };
        let reported = |done| reported(&script, done);
        let seen = |lines: &[serde_json::Value]| {
            let line = |line: &serde_json::Value| {
                (
                    line["meeting_uuid"].as_str().and_then(|it| it.parse().ok()),
                    line["status"].clone(),
                    line["over"].clone(),
                )
            };
            lines.iter().filter(|line| line["kind"] == "meeting").map(line).collect::<Vec<(Option<u8>, _, _)>>()
        };
        assert_eq!(seen(&reported(1)), [(Some(2), "scheduled".into(), false.into())]);
        assert_eq!(
            seen(&reported(2)),
            [(Some(2), "scheduled".into(), true.into()), (Some(1), "live".into(), false.into())]
        );
        let all = reported(4);
        assert_eq!(seen(&all)[1], (Some(1), "ended".into(), true.into()));
        assert_eq!((&all[2]["closed_by"], &all[2]["left_at"]), (&"meeting_end".into(), &all[2]["joined_at"]));
        assert_eq!(all[1]["peak_participants"], 1);
    }

    #[test]
    fn who_has_not_said_goodbye_is_there_again_while_the_run_goes_on() {
        let script = Script {
            meeting: MeetingRef { id: 960_000_017, uuid: 1, cycle_sub_id: None },
            booking: None,
            again_at: None,
            people: vec![Who::Employee(1).person(1)],
            stays: vec![stay(0, 10, 50, false)],
            steps: [(5, What::Started), (11, What::Join(0)), (52, What::End), (60, What::Started), (80, What::End)]
                .map(|(at, what)| Step { at, what })
                .to_vec(),
        };
        let reported = |done| {
            let mut out = Vec::new();
            run(&mut out, "7700001234", &script, done);
            let lines = String::from_utf8_lossy(&out).into_owned();
            let stay = lines.lines().find(|line| line.contains(r#""kind":"stay""#)).unwrap_or_default();
            let stay: serde_json::Value = serde_json::from_str(stay).unwrap_or_default();
            (stay["closed_by"].as_str().map(str::to_owned), stay["left_at"].as_str().map(str::to_owned))
        };
        let at_its_first_end = (Some("meeting_end".to_owned()), Some("1970-01-01T00:00:00.052Z".to_owned()));
        assert_eq!(reported(3), at_its_first_end);
        assert_eq!(reported(4), (Some("open".to_owned()), None));
        assert_eq!(reported(5), at_its_first_end);
    }
}
