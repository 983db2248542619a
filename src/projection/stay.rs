//! One stay: what its join and its left say, merged.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::people::StayPerson;
use convoke_core::event::{Attendee, Source};
use convoke_core::id::EventId;
use convoke_core::time::Millis;
use convoke_log::{Attributes, ClosedBy, ParticipantAttributes, ProjectedEvent, RunKey, StayRow};

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
    EventId::led(&run.subscriber_id, who.join_time.unwrap_or(Millis::EPOCH), text.as_bytes()).uuid()
}

/// Whether nothing is told of who it is.
pub fn is_nobody(who: &Attendee) -> bool {
    let names = [&who.participant_id, &who.call_number, &who.display_name, &who.user_uuid, &who.account];
    names.into_iter().all(Option::is_none)
}

/// The join, or the left, with the greatest id: which is the newest, for ids are led by the time.
#[derive(Clone, Debug, PartialEq)]
struct Side {
    event_id: EventId,
    attributes: ParticipantAttributes,
}

/// The column `internal`, where its short form cannot say it.
#[derive(Serialize, Deserialize)]
struct Internal {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_at: Option<i64>,
    /// What join and left say, if they do not say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apart: Option<(ParticipantAttributes, ParticipantAttributes)>,
}

/// Characters of an id in the short form.
const SHORT_ID_CHARS: usize = 22;

impl Internal {
    /// As a text: most stays say all the rest in their other columns, and only the ids of their join (`j`) and left (`l`; or `L`,
    /// if it says when, which then is `left_at`) are noted. Others as JSON.
    fn write(&self, left_at: Option<Millis>) -> String {
        let timed = self.left_at.is_some();
        if self.apart.is_some() || (timed && self.left_at != left_at.map(Millis::get)) {
            return serde_json::to_string(self).unwrap_or_default();
        }
        let mut text = String::with_capacity(2 * (SHORT_ID_CHARS + 1));
        for (letter, id) in [('j', self.join), (if timed { 'L' } else { 'l' }, self.left)] {
            if let Some(id) = id {
                text.push(letter);
                URL_SAFE_NO_PAD.encode_string(id.as_bytes(), &mut text);
            }
        }
        text
    }

    /// Reads what [`Internal::write`] wrote beside this `left_at`.
    fn read(text: &str, left_at: Option<Millis>) -> Option<Self> {
        if text.starts_with('{') {
            return serde_json::from_str(text).ok();
        }
        let mut internal = Self { join: None, left: None, left_at: None, apart: None };
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let (id, following) = rest.get(1..)?.split_at_checked(SHORT_ID_CHARS)?;
            let mut bytes = [0_u8; 16];
            URL_SAFE_NO_PAD.decode_slice(id, &mut bytes).ok()?;
            let id = Some(Uuid::from_bytes(bytes));
            match letter {
                'j' => internal.join = id,
                'l' => internal.left = id,
                'L' => (internal.left, internal.left_at) = (id, left_at.map(Millis::get)),
                _ => return None,
            }
            rest = following;
        }
        Some(internal)
    }
}

/// When a stay of which no left was told ended, and how.
pub type Ended = (Millis, ClosedBy);

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

    /// Adds a join; whether it may tell more of who it is than was told.
    pub fn joined(&mut self, fact: &ProjectedEvent) -> bool {
        merge(&mut self.join, self.left.as_ref(), fact) != Merged::AsTold
    }

    /// Adds a left; whether it may tell more of who it is than was told.
    pub fn left(&mut self, fact: &ProjectedEvent) -> bool {
        let merged = merge(&mut self.left, self.join.as_ref(), fact);
        if merged != Merged::Older {
            self.left_time = fact.attendee.left_time;
        }
        merged != Merged::AsTold
    }

    /// Whether it is known when it began.
    pub fn is_timed(&self) -> bool {
        self.join_time.is_some()
    }

    /// When it began, as far as that is known.
    pub fn joined_at(&self) -> Option<Millis> {
        self.join_time.or_else(|| self.join.as_ref().map(|join| join.event_id.occurred_at()))
    }

    /// When they left, if that is known; nobody leaves before they join, whatever the clocks say. Without a time of joining, joins
    /// and lefts of one participant are one stay: then a left that happened before the newest join is of an earlier visit.
    pub fn left_at(&self) -> Option<Millis> {
        let left = self.left.as_ref()?;
        let earlier = self.join_time.is_none() && self.join.as_ref().is_some_and(|join| join.event_id > left.event_id);
        let at = self.left_time.unwrap_or_else(|| left.event_id.occurred_at());
        (!earlier).then(|| self.joined_at().map_or(at, |joined| joined.max(at)))
    }

    /// The same without whose it was: what its events make of it once they are erased, and its id then.
    pub fn forgotten(self, run: &RunKey) -> (Uuid, Self) {
        let nobody = Attendee { join_time: self.join_time, ..Attendee::default() };
        let side = |side: Side| {
            let attributes =
                Attributes { meeting_id: side.attributes.unpack().meeting_id, ..Attributes::default() }.pack();
            Side { attributes, ..side }
        };
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

    /// What is told of who it is. What the left says counts more.
    pub fn attributes(&self) -> Attributes<&str> {
        match (&self.left, &self.join) {
            (Some(left), Some(join)) if left.attributes == join.attributes => left.attributes.unpack(),
            (Some(left), Some(join)) => or(left.attributes.unpack(), join.attributes.unpack()),
            (Some(side), None) | (None, Some(side)) => side.attributes.unpack(),
            (None, None) => Attributes::default(),
        }
    }

    /// Whose it is, if `person` is what is known of that.
    pub fn person<'a>(&'a self, person: &'a StayPerson) -> Option<&'a str> {
        let sides = [&self.left, &self.join].into_iter().flatten();
        person.of(|by| sides.filter_map(|side| side.attributes.person(by)).next())
    }

    /// As a row. `ended` is when, and how, it ended for who has not left.
    pub fn row(&self, stay_id: Uuid, run: &RunKey, ended: Option<Ended>, person: &StayPerson) -> StayRow {
        let (left_at, closed_by) = match (self.left_at(), ended) {
            (Some(at), _) => (Some(at), ClosedBy::Left),
            (None, Some((at, by))) => (Some(at), by),
            (None, None) => (None, ClosedBy::Open),
        };
        let joined_at = self.joined_at();
        let duration = joined_at.zip(left_at).map(|(joined, left)| left.since(joined));
        let id = |side: &Option<Side>| side.as_ref().map(|side| side.event_id.uuid());
        let (attributes, apart) = match (&self.join, &self.left) {
            (Some(join), Some(left)) if join.attributes != left.attributes => {
                (self.attributes().pack(), Some((join.attributes.clone(), left.attributes.clone())))
            }
            (Some(side), _) | (None, Some(side)) => (side.attributes.clone(), None),
            (None, None) => (ParticipantAttributes::default(), None),
        };
        let internal =
            Internal { join: id(&self.join), left: id(&self.left), left_at: self.left_time.map(Millis::get), apart };
        StayRow {
            stay_id,
            run: run.clone(),
            person: self.person(person).map(Arc::from),
            person_by: person.by,
            attributes,
            joined_at,
            left_at,
            duration: duration.map(|it| Duration::from_millis(u64::try_from(it.as_millis()).unwrap_or(u64::MAX))),
            closed_by,
            internal: internal.write(left_at.filter(|_| closed_by == ClosedBy::Left)),
        }
    }

    /// What [`Stay::row`] wrote; `None` if it did not write this.
    pub fn of(row: &StayRow) -> Option<Self> {
        let internal = Internal::read(&row.internal, row.left_at)?;
        let (join_attributes, left_attributes) =
            internal.apart.unwrap_or_else(|| (row.attributes.clone(), row.attributes.clone()));
        let side = |id: Option<Uuid>, attributes| id.map(|id| Side { event_id: EventId::from_uuid(id), attributes });
        Some(Self {
            join: side(internal.join, join_attributes),
            left: side(internal.left, left_attributes),
            left_time: internal.left_at.and_then(Millis::new),
            ..Self::new(row.stay_id)
        })
    }
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merged {
    /// It is not newer than what there is, and says nothing.
    Older,
    /// It is newer.
    Newer,
    /// It is newer, and says the same as the other side.
    AsTold,
}

/// Takes the attributes of `fact` if it is newer. What the other side has too is kept once.
fn merge(side: &mut Option<Side>, other: Option<&Side>, fact: &ProjectedEvent) -> Merged {
    if side.as_ref().is_some_and(|side| side.event_id >= fact.event_id) {
        return Merged::Older;
    }
    let details = FilledDetails::of(fact);
    let texts = of_event(fact, &details);
    let same = other.filter(|other| other.attributes.unpack() == texts);
    let merged = if same.is_some() { Merged::AsTold } else { Merged::Newer };
    let attributes = same.map_or_else(|| texts.pack(), |other| other.attributes.clone());
    *side = Some(Side { event_id: fact.event_id, attributes });
    merged
}

/// What an event that was made from the platform's history tells beside the columns.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FilledDetails {
    device_type: Option<String>,
    media_type: Option<String>,
    dept_name: Option<String>,
    leave_reason: Option<String>,
}

impl FilledDetails {
    fn of(event: &ProjectedEvent) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Info {
            payload: Payload,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Payload {
            attendee_info: FilledDetails,
        }
        let info = event.event_info.as_deref().filter(|_| event.source != Source::Push);
        info.and_then(|info| serde_json::from_str::<Info>(info).ok()).unwrap_or_default().payload.attendee_info
    }
}

/// The participant attributes of an event.
fn of_event<'a>(event: &'a ProjectedEvent, details: &'a FilledDetails) -> Attributes<&'a str> {
    let who = &event.attendee;
    Attributes {
        meeting_id: event.meeting.id.as_deref(),
        participant_id: who.participant_id.as_deref(),
        user_uuid: who.user_uuid.as_deref(),
        account: who.account.as_deref(),
        display_name: who.display_name.as_deref(),
        call_number: who.call_number.as_deref(),
        user_agent: who.user_agent.as_deref(),
        role: who.role.as_deref(),
        device_type: details.device_type.as_deref(),
        media_type: details.media_type.as_deref(),
        department: details.dept_name.as_deref(),
        leave_reason: details.leave_reason.as_deref(),
    }
}

/// Each of these, or else of the others.
fn or<'a>(these: Attributes<&'a str>, others: Attributes<&'a str>) -> Attributes<&'a str> {
    Attributes {
        meeting_id: these.meeting_id.or(others.meeting_id),
        participant_id: these.participant_id.or(others.participant_id),
        user_uuid: these.user_uuid.or(others.user_uuid),
        account: these.account.or(others.account),
        display_name: these.display_name.or(others.display_name),
        call_number: these.call_number.or(others.call_number),
        user_agent: these.user_agent.or(others.user_agent),
        role: these.role.or(others.role),
        device_type: these.device_type.or(others.device_type),
        media_type: these.media_type.or(others.media_type),
        department: these.department.or(others.department),
        leave_reason: these.leave_reason.or(others.leave_reason),
    }
}
