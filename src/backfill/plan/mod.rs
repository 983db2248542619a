//! Determines what one run lacks: compares the platform's history with the tables. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::matching::{self, PastStay};
use super::synthesis::{self, FilledEvent, FilledRun};
use convoke_core::time::Millis;
use convoke_log::{RunSnapshot, StaySnapshot};
use convoke_platform::{AttendeeRecord, Conference, Participant};

/// If a participant was there this much before the start in the log, that is not the first start; the same goes for the end.
const SESSION_MARGIN: Duration = Duration::from_secs(60);

/// A participant that left within this time of the run's end stayed until the end, which closes the stay: the manual does not say
/// whether a leave is pushed as well.
const END_TOLERANCE: Duration = Duration::from_secs(1);

/// A kind of gap. It is filled by one or two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::VariantArray)]
pub enum Gap {
    /// The log does not know the run. Its start, end and stays are counted separately.
    #[strum(serialize = "runs")]
    Run,
    /// The run has no start, or a participant was there before it.
    #[strum(serialize = "starts")]
    Start,
    /// The run has no end, or a participant was there after it.
    #[strum(serialize = "ends")]
    End,
    /// The log has no event of the stay.
    #[strum(serialize = "stays")]
    Stay,
    /// The log has the join, but not the leave.
    #[strum(serialize = "leaves")]
    Leave,
    /// The log has no event of a recording.
    #[strum(serialize = "recordings")]
    Recording,
}

/// Why a gap is not filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Unfillable {
    /// The history does not identify the run.
    NoRun,
    /// The history has no time for a start, an end or a recording.
    NoTime,
    /// The history has no join time.
    NoJoinTime,
    /// The history has no leave time, or one before the join time.
    NoLeaveTime,
    /// The run is still going on, or ended so recently that its events may still be pushed.
    TooYoung,
    /// The platform gives fewer stays than it announces: a plan made from a part of them would be wrong.
    Incomplete,
    /// The database rejected the event; it is in the quarantine.
    Refused,
}

impl Unfillable {
    /// The reason as text.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoRun => "runs without a UUID in the history",
            Self::NoTime => "starts, ends or recordings without a time in the history",
            Self::NoJoinTime => "stays without a join time in the history",
            Self::NoLeaveTime => "leaves without a time in the history, or with a time before the join",
            Self::TooYoung => {
                "runs that ended less than 24 h 30 min ago, or have not ended: the platform may still \
                               push them"
            }
            Self::Incomplete => "runs for which the platform returned fewer participants than it announced",
            Self::Refused => "events that the database rejected: see `convoke quarantine list`",
        }
    }
}

/// An event that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it occurred.
    pub at: Millis,
    /// Its type.
    pub kind: FilledEvent,
    /// Its `eventInfo`.
    pub event_info: String,
}

impl AsRef<str> for Planned {
    fn as_ref(&self) -> &str {
        &self.event_info
    }
}

/// What a run lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The events that fill the gaps, in order of time.
    pub events: Vec<Planned>,
    /// The gaps that were found.
    pub gaps: Vec<Gap>,
    /// The gaps that cannot be filled.
    pub unfillable: Vec<Unfillable>,
}

/// Whether a run of the history ended before `boundary`, according to the list of runs.
#[must_use]
pub fn is_over(conference: &Conference, boundary: Millis) -> bool {
    let over = conference.state.as_deref().is_none_or(|state| state == "Destroyed");
    over && conference.end.or(conference.start).is_none_or(|end| end <= boundary)
}

/// The stays that the platform gives for a run.
#[must_use]
pub fn past_stays(records: Vec<AttendeeRecord>) -> Vec<PastStay> {
    let time = |at: Option<Millis>| at.filter(|at| *at != Millis::EPOCH);
    let stay = |record: AttendeeRecord| PastStay {
        display_name: record.display_name,
        call_number: record.call_number,
        joined_at: time(record.joined_at),
        left_at: time(record.left_at),
        device_type: record.device_type,
        media_type: record.media_type,
        department: record.department,
        told_by: Some(HISTORY),
        ..PastStay::default()
    };
    records.into_iter().map(stay).collect()
}

/// Which list an event was made from: 4.2.21, 7.1.2.3, or both.
const HISTORY: &str = "history";
const DASHBOARD: &str = "dashboard";
const BOTH: &str = "dashboard and history";

/// The stays that history and dashboard give for a run: those with the same name that began at the same time are one.
#[must_use]
pub fn identified(records: Vec<AttendeeRecord>, participants: Vec<Participant>) -> Vec<PastStay> {
    let mut past = past_stays(records);
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, stay) in past.iter().enumerate() {
        by_name.entry(stay.display_name.clone().unwrap_or_default()).or_default().push(place);
    }
    for participant in participants {
        let apart = |place: &usize| {
            let (one, other) = (past[*place].joined_at?, participant.joined_at?);
            Some(one.since(other).max(other.since(one))).filter(|apart| *apart <= matching::TOLERANCE)
        };
        let places = by_name.get_mut(participant.display_name.as_deref().unwrap_or_default());
        let nearest = places.as_ref().and_then(|places| {
            let near = places.iter().enumerate().filter_map(|(nth, place)| Some((apart(place)?, nth)));
            near.min().map(|(_, nth)| nth)
        });
        let place = match places.zip(nearest) {
            Some((places, nth)) => places.swap_remove(nth),
            None => {
                let Participant { display_name, joined_at, left_at, department, .. } = participant.clone();
                past.push(PastStay { display_name, joined_at, left_at, department, ..PastStay::default() });
                past.len() - 1
            }
        };
        let stay = &mut past[place];
        stay.told_by = Some(if stay.told_by.is_some() { BOTH } else { DASHBOARD });
        stay.department = stay.department.take().or(participant.department);
        (stay.participant_id, stay.user_uuid) = (participant.participant_id, participant.user_uuid);
        (stay.terminal_type, stay.role) = (participant.terminal_type, participant.role);
        stay.left_reason = participant.left_reason;
    }
    past
}

/// Compares a run that ended before `boundary` with what is known about it.
#[must_use]
pub fn plan(
    conference: &Conference,
    uuid: &str,
    past: &[PastStay],
    known: Option<&RunSnapshot>,
    stays: &[StaySnapshot],
    boundary: Millis,
) -> Plan {
    let run = FilledRun {
        meeting_id: known.and_then(|run| run.meeting_id.as_deref()).or(conference.conference_id.as_deref()),
        meeting_uuid: uuid,
        cycle_sub_id: known
            .and_then(|run| run.meeting_cycle_sub_id.as_deref())
            .or_else(|| conference.occurrence_held().map(|occurrence| &*occurrence.id)),
    };
    let nothing = RunSnapshot::default();
    let was = known.unwrap_or(&nothing);
    let joins = || past.iter().map(|stay| stay.joined_at).chain(stays.iter().map(|stay| stay.joined_at)).flatten();
    let leaves = || {
        let known = stays.iter().map(|stay| stay.left_at.filter(|_| stay.left));
        past.iter().map(|stay| stay.left_at).chain(known).flatten()
    };
    let (first, last) = (joins().min(), leaves().max());
    if last.is_some_and(|last| last > boundary) {
        return Plan { unfillable: vec![Unfillable::TooYoung], ..Plan::default() };
    }

    let mut plan = Plan::default();
    if known.is_none() {
        plan.gaps.push(Gap::Run);
    }
    let mut started_at = was.started_at;
    if started_at.is_none_or(|start| first.is_some_and(|first| start.since(first) > SESSION_MARGIN)) {
        plan.gaps.push(Gap::Start);
        started_at = first.or(conference.start);
        plan.meeting(FilledEvent::Started, started_at, &run);
    }
    let mut ended_at = was.ended_at;
    if ended_at.is_none_or(|end| last.is_some_and(|last| last.since(end) > SESSION_MARGIN)) {
        plan.gaps.push(Gap::End);
        // The history's times are cut to whole minutes, and a participant without a known leave stayed until the end: the end is
        // not before any of these.
        ended_at = last
            .or(conference.end)
            .map(|end| [started_at, joins().max(), was.live_at].into_iter().flatten().fold(end, Millis::max));
        plan.meeting(FilledEvent::End, ended_at, &run);
    }
    for (stay, place) in past.iter().zip(matching::pair(past, stays)) {
        match place.and_then(|place| stays.get(place)) {
            None if stay.forgotten => {}
            None => plan.stay(&run, stay),
            // The end of the run closes the stay.
            Some(known) if known.left || near(stay.left_at, was.ended_at) => {}
            Some(known) => plan.leave(&run, stay, known),
        }
    }
    if conference.has_record_file == Some(true) && was.recordings == 0 {
        plan.gaps.push(Gap::Recording);
        plan.meeting(FilledEvent::Record, ended_at, &run);
    }
    plan.events.sort_by_key(|event| (event.at, event.kind));
    plan
}

impl Plan {
    fn meeting(&mut self, kind: FilledEvent, at: Option<Millis>, run: &FilledRun<'_>) {
        match at {
            Some(at) => self.add(kind, at, synthesis::of_meeting(kind, at, run)),
            None => self.unfillable.push(Unfillable::NoTime),
        }
    }

    fn stay(&mut self, run: &FilledRun<'_>, stay: &PastStay) {
        self.gaps.push(Gap::Stay);
        let Some(joined_at) = stay.joined_at else { return self.unfillable.push(Unfillable::NoJoinTime) };
        self.add(FilledEvent::Join, joined_at, synthesis::join(joined_at, run, stay));
        match stay.left_at.filter(|left_at| *left_at >= joined_at) {
            Some(left_at) => self.add(FilledEvent::Left, left_at, synthesis::left(joined_at, left_at, run, stay)),
            None => self.unfillable.push(Unfillable::NoLeaveTime),
        }
    }

    fn leave(&mut self, run: &FilledRun<'_>, stay: &PastStay, known: &StaySnapshot) {
        self.gaps.push(Gap::Leave);
        match (known.joined_at, stay.left_at) {
            (Some(joined_at), Some(left_at)) if left_at >= joined_at => {
                self.add(FilledEvent::Left, left_at, synthesis::left_of(known, (joined_at, left_at), run, stay));
            }
            _ => self.unfillable.push(Unfillable::NoLeaveTime),
        }
    }

    /// Adds an event.
    pub fn add(&mut self, kind: FilledEvent, at: Millis, event_info: String) {
        self.events.push(Planned { at, kind, event_info });
    }
}

fn near(one: Option<Millis>, other: Option<Millis>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.since(other).max(other.since(one)) < END_TOLERANCE)
}

#[cfg(test)]
mod tests;
