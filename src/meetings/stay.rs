//! One stay: what its join and its left say, merged.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Attendee, EventId, Millis};
use crate::log::{ClosedBy, Fact, RunKey, StayRow};

/// Which stay of a run somebody's join or left belongs to: an id that is led by the time of joining, which both of them
/// carry, and goes on with a hash of who it is.
pub fn stay_id(run: &RunKey, who: &Attendee) -> Uuid {
    let names = [
        ("participant", &who.participant_id),
        ("number", &who.call_number),
        ("name", &who.display_name),
        ("user", &who.user_uuid),
        ("account", &who.account),
    ];
    let (kind, name) =
        names.into_iter().find_map(|(kind, name)| name.as_deref().map(|name| (kind, name))).unwrap_or(("nobody", ""));
    let text = [&run.meeting_uuid, kind, name].join("\0");
    EventId::of(&run.subscriber_id, who.join_time.unwrap_or(Millis::EPOCH), text.as_bytes()).uuid()
}

/// The join, or the left, with the greatest id: which is the newest, for ids are led by the time.
#[derive(Clone, Debug, PartialEq)]
struct Side {
    event_id: EventId,
    told: Told,
}

/// What an event tells of who it is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Told {
    meeting_id: Option<Arc<str>>,
    participant_id: Option<Arc<str>>,
    user_uuid: Option<Arc<str>>,
    account: Option<Arc<str>>,
    display_name: Option<Arc<str>>,
    call_number: Option<Arc<str>>,
    user_agent: Option<Arc<str>>,
    role: Option<Arc<str>>,
}

impl Told {
    fn of(meeting_id: Option<&Arc<str>>, who: &Attendee) -> Self {
        Self {
            meeting_id: meeting_id.cloned(),
            participant_id: who.participant_id.clone(),
            user_uuid: who.user_uuid.clone(),
            account: who.account.clone(),
            display_name: who.display_name.clone(),
            call_number: who.call_number.clone(),
            user_agent: who.user_agent.clone(),
            role: who.role.clone(),
        }
    }

    fn or(&self, other: &Self) -> Self {
        let or = |one: &Option<Arc<str>>, two: &Option<Arc<str>>| one.as_ref().or(two.as_ref()).cloned();
        Self {
            meeting_id: or(&self.meeting_id, &other.meeting_id),
            participant_id: or(&self.participant_id, &other.participant_id),
            user_uuid: or(&self.user_uuid, &other.user_uuid),
            account: or(&self.account, &other.account),
            display_name: or(&self.display_name, &other.display_name),
            call_number: or(&self.call_number, &other.call_number),
            user_agent: or(&self.user_agent, &other.user_agent),
            role: or(&self.role, &other.role),
        }
    }
}

/// The column `internal`.
#[derive(Serialize, Deserialize)]
struct Internal {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_at: Option<i64>,
    /// What join and left told, if they did not tell the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apart: Option<(Told, Told)>,
}

/// One stay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stay {
    /// As both events have it.
    join_time: Option<Millis>,
    join: Option<Side>,
    left: Option<Side>,
    /// As the left has it.
    left_time: Option<Millis>,
}

impl Stay {
    /// A stay of which nothing is known but its id.
    pub fn new(stay_id: Uuid) -> Self {
        let led = EventId::from_uuid(stay_id).occurred_at();
        Self { join_time: Some(led).filter(|at| *at > Millis::EPOCH), ..Self::default() }
    }

    /// Adds what a join tells.
    pub fn joined(&mut self, fact: &Fact) {
        merge(&mut self.join, self.left.as_ref(), fact);
    }

    /// Adds what a left tells.
    pub fn left(&mut self, fact: &Fact) {
        if merge(&mut self.left, self.join.as_ref(), fact) {
            self.left_time = fact.attendee.left_time;
        }
    }

    /// When it began, as far as that is known.
    pub fn joined_at(&self) -> Option<Millis> {
        self.join_time.or_else(|| self.join.as_ref().map(|join| join.event_id.occurred_at()))
    }

    /// When whoever it is left, if that is known. Without a time of joining, joins and lefts of one participant are one
    /// stay: then a left that happened before the newest join is of an earlier visit.
    pub fn left_at(&self) -> Option<Millis> {
        let left = self.left.as_ref()?;
        let earlier = self.join_time.is_none() && self.join.as_ref().is_some_and(|join| join.event_id > left.event_id);
        (!earlier).then(|| self.left_time.unwrap_or_else(|| left.event_id.occurred_at()))
    }

    /// Who that is, for counting people: never nobody.
    pub fn somebody(&self, stay_id: Uuid) -> Arc<str> {
        let told = self.told();
        person(&told).or(told.display_name).unwrap_or_else(|| Arc::from(stay_id.to_string()))
    }

    /// The same without whose it was: what its events make of it once they are erased, and its id then.
    pub fn forgotten(self, run: &RunKey) -> (Uuid, Self) {
        let nobody = Attendee { join_time: self.join_time, ..Attendee::default() };
        let side = |side: Side| Side { told: Told { meeting_id: side.told.meeting_id, ..Told::default() }, ..side };
        (stay_id(run, &nobody), Self { join: self.join.map(side), left: self.left.map(side), ..self })
    }

    /// Adds what another one knows, which has the same id.
    pub fn absorb(&mut self, other: Self) {
        let newer = |ours: &Option<Side>, theirs: &Option<Side>| {
            let id = |side: &Option<Side>| side.as_ref().map(|side| side.event_id);
            id(theirs) > id(ours)
        };
        if newer(&self.join, &other.join) {
            self.join = other.join;
        }
        if newer(&self.left, &other.left) {
            (self.left, self.left_time) = (other.left, other.left_time);
        }
    }

    fn told(&self) -> Told {
        match (&self.left, &self.join) {
            (Some(left), Some(join)) => left.told.or(&join.told),
            (Some(side), None) | (None, Some(side)) => side.told.clone(),
            (None, None) => Told::default(),
        }
    }

    /// As a row. `ended` is when the run ended for who has not left.
    pub fn row(&self, stay_id: Uuid, run: &RunKey, ended: Option<Millis>) -> StayRow {
        let told = self.told();
        let (left_at, closed_by) = match (self.left_at(), ended) {
            (Some(at), _) => (Some(at), ClosedBy::Left),
            (None, Some(at)) => (Some(at), ClosedBy::MeetingEnd),
            (None, None) => (None, ClosedBy::Open),
        };
        let joined_at = self.joined_at();
        let duration = joined_at.zip(left_at).map(|(joined, left)| left.since(joined));
        let id = |side: &Option<Side>| side.as_ref().map(|side| side.event_id.uuid());
        let apart = match (&self.join, &self.left) {
            (Some(join), Some(left)) if join.told != left.told => Some((join.told.clone(), left.told.clone())),
            _ => None,
        };
        let internal =
            Internal { join: id(&self.join), left: id(&self.left), left_at: self.left_time.map(Millis::get), apart };
        StayRow {
            stay_id,
            run: run.clone(),
            person: person(&told),
            meeting_id: told.meeting_id,
            attendee: Attendee {
                user_uuid: told.user_uuid,
                user_agent: told.user_agent,
                account: told.account,
                participant_id: told.participant_id,
                display_name: told.display_name,
                role: told.role,
                call_number: told.call_number,
                join_time: None,
                left_time: None,
            },
            joined_at,
            left_at,
            duration: duration.map(|it| Duration::from_millis(u64::try_from(it.as_millis()).unwrap_or(u64::MAX))),
            closed_by,
            internal: serde_json::to_string(&internal).unwrap_or_default(),
        }
    }

    /// What [`Stay::row`] wrote; `None` if it did not write this.
    pub fn of(row: &StayRow) -> Option<Self> {
        let internal: Internal = serde_json::from_str(&row.internal).ok()?;
        let both = Told::of(row.meeting_id.as_ref(), &row.attendee);
        let (join_told, left_told) = internal.apart.unwrap_or_else(|| (both.clone(), both));
        let side = |id: Option<Uuid>, told| id.map(|id| Side { event_id: EventId::from_uuid(id), told });
        Some(Self {
            join: side(internal.join, join_told),
            left: side(internal.left, left_told),
            left_time: internal.left_at.and_then(Millis::new),
            ..Self::new(row.stay_id)
        })
    }
}

/// Takes what `fact` tells if it is newer than what is there. What the other side told too is kept once.
fn merge(side: &mut Option<Side>, other: Option<&Side>, fact: &Fact) -> bool {
    let newer = side.as_ref().is_none_or(|side| side.event_id < fact.event_id);
    if newer {
        let told = Told::of(fact.meeting.id.as_ref(), &fact.attendee);
        let told = other.filter(|other| other.told == told).map_or(told, |other| other.told.clone());
        *side = Some(Side { event_id: fact.event_id, told });
    }
    newer
}

fn person(told: &Told) -> Option<Arc<str>> {
    [&told.user_uuid, &told.account, &told.call_number, &told.participant_id].into_iter().flatten().next().cloned()
}
