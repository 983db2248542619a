//! One run of a meeting: the merge of everything that its events tell, in whatever order they come.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::calls;
use super::kept;
use super::marks::{MAX_REMEMBERED, Marks, greatest};
use super::people::{self, NamedStay, People, StayPerson};
use super::ready::{self, LatestReady};
use super::rejoins::Rejoins;
use super::stay::{Ended, Stay, is_nobody, stay_id};
use convoke_core::id::EventId;
use convoke_core::time::Millis;
use convoke_log::{
    Attributes, CallResultRow, Changes, ClosedBy, Handle, KeptRows, MeetingRow, PersonBy, ProjectedEvent, RecordingRow,
    RunKey, Status, StayRow, Stored,
};

/// Before the column `internal` of a stay whose reason of leaving a call told, and no event of its own.
const TOLD_BY_CALL: char = 'r';

/// A stay, and what closes it in the row that is written, if there is no left.
#[derive(Debug)]
struct Kept {
    stay: Stay,
    person: StayPerson,
    closed: Option<Ended>,
    /// Whether it is in `touched`.
    touched: bool,
}

/// One run.
#[derive(Debug)]
pub struct Run {
    key: RunKey,
    marks: Marks,
    stays: HashMap<Uuid, Kept>,
    recordings: BTreeMap<EventId, RecordingRow>,
    calls: BTreeMap<(EventId, i64), CallResultRow>,
    /// Those that are not written yet.
    called: BTreeSet<(EventId, i64)>,
    /// The row, as it is written.
    written: Option<MeetingRow>,
    /// Those of the stays of which no time of joining is told.
    untimed: HashSet<Uuid>,
    /// Participants who joined more than once.
    rejoins: Rejoins,
    /// Stays of which something new is known.
    touched: Vec<Uuid>,
    /// Recordings of which something new is known.
    recorded: BTreeSet<EventId>,
    /// Whether it ended, at a time not known before.
    closes: bool,
    /// Whether it goes on, in the rows that are written.
    live: bool,
    /// Whether recordings became ready.
    readies: bool,
    /// Whether it is to be found out again who was there.
    unsettled: bool,
    /// Whether those known by name alone may be others than they were.
    renames: bool,
    /// People and peak, which change with the stays only.
    people: (i64, i64),
    /// Under which id it is kept who was there.
    kept_id: Option<Uuid>,
}

impl Run {
    /// A run of which nothing is known.
    pub fn new(key: RunKey) -> Self {
        Self {
            key,
            marks: Marks::default(),
            stays: HashMap::new(),
            recordings: BTreeMap::new(),
            calls: BTreeMap::new(),
            called: BTreeSet::new(),
            written: None,
            untimed: HashSet::new(),
            rejoins: Rejoins::default(),
            touched: Vec::new(),
            recorded: BTreeSet::new(),
            closes: false,
            live: false,
            readies: false,
            unsettled: false,
            renames: false,
            people: (0, 0),
            kept_id: None,
        }
    }

    /// What the tables hold of it; `None` if these rows are not of this version's making.
    pub fn of(stored: Stored) -> Option<Self> {
        let Stored { meeting, stays, recordings, calls } = stored;
        let mut run = Self::new(meeting.run.clone());
        run.marks = serde_json::from_str(&meeting.internal).ok()?;
        run.people = (meeting.participants, meeting.peak_participants);
        run.live = meeting.status == Status::Live;
        run.kept_id = meeting.kept_id;
        run.calls = calls.into_iter().map(|row| ((row.event_id, row.item), row)).collect();
        for mut row in stays {
            // What a call told is found out again.
            if let Some(own) = row.internal.strip_prefix(TOLD_BY_CALL) {
                row.internal = own.to_owned();
                row.attributes = Attributes { leave_reason: None, ..row.attributes.unpack() }.pack();
            }
            let stay = Stay::of(&row)?;
            let closed = row.left_at.zip(Some(row.closed_by).filter(|by| *by != ClosedBy::Left));
            if !stay.is_timed() {
                run.untimed.insert(row.stay_id);
            } else if stay.attributes().participant_id.is_some() {
                run.rejoins.add(row.stay_id);
            }
            let person = StayPerson::read(row.person.as_deref(), row.person_by, &stay.attributes());
            run.stays.insert(row.stay_id, Kept { stay, person, closed, touched: false });
        }
        run.recordings = recordings.into_iter().map(|row| (row.event_id, row)).collect();
        run.written = Some(meeting);
        Some(run)
    }

    /// Whether it was closed or cancelled.
    pub fn is_over(&self) -> bool {
        matches!(self.status(), Status::Concluded | Status::Cancelled)
    }

    /// How many rows of the tables it stands for.
    pub fn rows(&self) -> usize {
        1 + self.stays.len() + self.recordings.len()
    }

    /// Adds what an event says; whether it may tell more of who somebody is than was told. Doing it again changes nothing, nor does the
    /// order.
    pub fn add(&mut self, fact: &ProjectedEvent) -> bool {
        self.closes |= self.marks.add(fact);
        match &*fact.event {
            // Of whom neither a time nor anything else is told, nothing is known.
            "meeting.join" | "meeting.left" if fact.attendee.join_time.is_none() && is_nobody(&fact.attendee) => {}
            "meeting.join" => return self.stay_of(fact).joined(fact),
            "meeting.left" => return self.stay_of(fact).left(fact),
            "record.finish" => {
                let row = ready::finished(fact);
                self.recorded.insert(row.event_id);
                self.recordings.entry(row.event_id).or_insert(row);
            }
            ProjectedEvent::CALLS => self.called(fact),
            ProjectedEvent::DETAILED => {
                if let Some(seen) = LatestReady::read(fact) {
                    greatest(&mut self.marks.ready, seen);
                    self.readies = true;
                }
            }
            _ => {}
        }
        false
    }

    /// Adds what came of calls.
    fn called(&mut self, fact: &ProjectedEvent) {
        for row in calls::read(fact) {
            self.marks.calls = true;
            let key = (row.event_id, row.item);
            let theirs = |kept: &Kept| kept.stay.attributes().call_number == Some(&*row.call_number);
            for (id, kept) in self.stays.iter_mut().filter(|(_, kept)| !kept.touched && theirs(kept)) {
                kept.touched = true;
                self.touched.push(*id);
            }
            self.called.insert(key);
            self.calls.insert(key, row);
        }
        // The newest ones: that bounds the memory.
        while self.calls.len() > MAX_REMEMBERED
            && let Some(oldest) = self.calls.first_entry().filter(|oldest| !self.called.contains(oldest.key()))
        {
            oldest.remove();
        }
    }

    /// Why this stay ended, by what running meetings tell.
    fn told_reason(&self, row: &StayRow) -> Option<&str> {
        // Without such events, nothing of the row is looked at.
        if self.calls.is_empty() {
            return None;
        }
        let number = row.attributes.unpack().call_number?;
        calls::reason_of(self.calls.values(), number, row.left_at?)
    }

    fn stay_of(&mut self, fact: &ProjectedEvent) -> &mut Stay {
        let id = stay_id(&self.key, &fact.attendee);
        match (fact.attendee.join_time, &fact.attendee.participant_id) {
            (None, _) => drop(self.untimed.insert(id)),
            (Some(_), Some(_)) if !self.stays.contains_key(&id) => self.rejoins.add(id),
            _ => {}
        }
        self.stay(id)
    }

    fn stay(&mut self, id: Uuid) -> &mut Stay {
        let new = || Kept { stay: Stay::new(id), person: StayPerson::default(), closed: None, touched: false };
        let kept = self.stays.entry(id).or_insert_with(new);
        if !std::mem::replace(&mut kept.touched, true) {
            self.touched.push(id);
        }
        &mut kept.stay
    }

    /// Takes away whose these stays were, as if their events had never told it. Returns which of them there were: their rows are to be
    /// deleted, for a stay's id depends on who it is.
    pub fn forget(&mut self, ids: &HashSet<Uuid>) -> Vec<Uuid> {
        let there: Vec<Uuid> = ids.iter().filter(|id| self.stays.contains_key(id)).copied().collect();
        self.renames |= !there.is_empty();
        self.unsettled |= !there.is_empty();
        for id in &there {
            let Some(kept) = self.stays.remove(id) else { continue };
            self.untimed.remove(id);
            let others = self.rejoins.remove(*id);
            let others = others.into_iter().filter(|other| !ids.contains(other) && self.stays.contains_key(other));
            for other in others.collect::<Vec<_>>() {
                self.stay(other);
            }
            if kept.stay.is_timed() {
                let (id, stay) = kept.stay.forgotten(&self.key);
                self.stay(id).absorb(stay);
            }
        }
        there
    }

    /// Somebody may be another person than it seemed.
    pub fn unsettle(&mut self) {
        self.unsettled = true;
    }

    /// By what people may be known of whose stays no user is told.
    pub fn handles(&self) -> BTreeSet<Handle> {
        let mut handles = BTreeSet::new();
        for kept in self.stays.values() {
            handles.extend(people::handles(&self.key, &kept.stay.attributes()));
        }
        handles
    }

    /// Adds to `changes` the rows of the run and of recordings that are not written yet as they should be, and to `stays`
    /// those that [`Run::stay_row`] is to be asked for, and takes all of them for written. `people` has all of its handles.
    pub fn settle(&mut self, people: &People, changes: &mut Changes, stays: &mut Vec<Uuid>) {
        let gone = self.without_untimed();
        changes.gone.extend(gone.iter().map(|id| (self.key.clone(), *id)));
        let live = self.status() == Status::Live;
        let ends = std::mem::take(&mut self.closes) || self.live != live;
        self.live = live;
        let unsettled = std::mem::take(&mut self.unsettled);
        let others: Vec<Uuid> = match ends || unsettled {
            true => self.stays.keys().copied().collect(),
            false => self.rejoins.of(&self.touched).collect(),
        };
        for id in others {
            let Some(kept) = self.stays.get_mut(&id) else { continue };
            let ended = ended(&self.marks, &self.rejoins, live, (id, &kept.stay));
            if kept.closed != ended && !std::mem::replace(&mut kept.touched, true) {
                self.touched.push(id);
            }
        }
        let mut kept = None;
        if unsettled || ends || !self.touched.is_empty() || !gone.is_empty() {
            self.renames |= ends || !gone.is_empty();
            self.identify(people, live, unsettled);
            self.people = self.count(live);
            kept = self.keep(live);
        }
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            let Some(kept) = self.stays.get_mut(id) else { continue };
            kept.closed = ended(&self.marks, &self.rejoins, live, (*id, &kept.stay));
            kept.touched = false;
        }
        stays.extend(touched);
        let mut recorded = std::mem::take(&mut self.recorded);
        if std::mem::take(&mut self.readies) {
            recorded.extend(self.recordings.keys());
        }
        for id in recorded {
            let Some(row) = self.recordings.get_mut(&id) else { continue };
            row.ready = self.marks.ready.as_ref().and_then(|seen| seen.of(row));
            changes.recordings.push(row.clone());
        }
        let called = std::mem::take(&mut self.called);
        changes.calls.extend(called.iter().filter_map(|key| self.calls.get(key)).cloned());
        let row = self.row();
        if kept.is_some() || self.written.as_ref() != Some(&row) {
            let numbers = numbers_to_check(self.written.as_ref(), &row);
            changes.meetings.push(MeetingRow { numbers, kept, ..row.clone() });
            self.written = Some(row);
        }
    }

    /// Who was there, to be kept, if the run does not go on; what is not to be kept any more, if it does.
    fn keep(&mut self, live: bool) -> Option<KeptRows> {
        let before = self.kept_id.take();
        let marks = &self.marks;
        if !live && !self.stays.is_empty() {
            let began = marks.first_start().or(marks.first_event).and_then(Millis::new).unwrap_or(Millis::EPOCH);
            let new = || EventId::led(&self.key.subscriber_id, began, self.key.meeting_uuid.as_bytes()).uuid();
            self.kept_id = Some(before.unwrap_or_else(new));
        }
        let stays = self.stays.iter().filter(|_| self.kept_id.is_some());
        let stays = stays.filter_map(|(id, kept)| {
            kept::Attended::new(*id, &kept.stay, &kept.person, ended(marks, &self.rejoins, live, (*id, &kept.stay)))
        });
        let people = kept::people(stays.collect());
        (before.is_some() || self.kept_id.is_some()).then_some(KeptRows { before, people })
    }

    /// Takes out the stays without a time of participants of whom there are stays with one. Which ones they are.
    fn without_untimed(&mut self) -> Vec<Uuid> {
        if self.untimed.is_empty() {
            return Vec::new();
        }
        let timed = self.stays.values().filter(|kept| kept.stay.is_timed());
        let timed: HashSet<&str> = timed.filter_map(|kept| kept.stay.attributes().participant_id).collect();
        let is_known = |id: &&Uuid| {
            let participant = self.stays.get(*id).and_then(|kept| kept.stay.attributes().participant_id);
            participant.is_some_and(|participant| timed.contains(participant))
        };
        let gone: Vec<Uuid> = self.untimed.iter().filter(is_known).copied().collect();
        for id in &gone {
            self.untimed.remove(id);
            self.stays.remove(id);
        }
        self.touched.retain(|id| !gone.contains(id));
        gone
    }

    /// A stay as it is to be written, as of now: with what became known since it was settled, it is only newer.
    pub fn stay_row(&self, id: Uuid) -> Option<StayRow> {
        let mut row = self.stays.get(&id).map(|kept| kept.stay.row(id, &self.key, kept.closed, &kept.person))?;
        if let Some(reason) = self.told_reason(&row).filter(|_| row.attributes.unpack().leave_reason.is_none()) {
            row.attributes = Attributes { leave_reason: Some(reason), ..row.attributes.unpack() }.pack();
            row.internal.insert(0, TOLD_BY_CALL);
        }
        Some(row)
    }

    fn row(&self) -> MeetingRow {
        let marks = &self.marks;
        let time = |mark: Option<i64>| mark.and_then(Millis::new);
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let status = self.status();
        MeetingRow {
            run: self.key.clone(),
            meeting_id: marks.meeting_id.clone(),
            meeting_cycle_sub_id: marks.cycle_sub_id.clone(),
            status,
            created_at: time(marks.created),
            modified_at: marks.modified.last().map(|id| EventId::from_uuid(*id).occurred_at()),
            modifications: count(marks.modified.len()),
            cancelled_at: time(marks.cancelled),
            started_at: time(marks.first_start()),
            ended_at: time(marks.last_end()).filter(|_| status != Status::Live),
            concluded_at: time(marks.concluded),
            stays: count(self.stays.len()),
            participants: self.people.0,
            peak_participants: self.people.1,
            recordings: count(self.recordings.len()),
            first_event_at: time(marks.first_event).unwrap_or(Millis::EPOCH),
            last_event_at: time(marks.last_event).unwrap_or(Millis::EPOCH),
            internal: serde_json::to_string(marks).unwrap_or_default(),
            kept_id: self.kept_id,
            numbers: Vec::new(),
            kept: None,
        }
    }

    fn status(&self) -> Status {
        self.marks.status(!self.stays.is_empty() || !self.recordings.is_empty())
    }

    /// Finds out whose the stays are: of those of which something new is known, or of `all` if more became known of somebody in them;
    /// then of those known by name alone, if there may be others, or they may have ended otherwise.
    fn identify(&mut self, people: &People, live: bool, all: bool) {
        let looked_at: Vec<Uuid> = if all { self.stays.keys().copied().collect() } else { self.touched.clone() };
        let mut renames = std::mem::take(&mut self.renames);
        for id in looked_at {
            let Some(kept) = self.stays.get_mut(&id) else { continue };
            // Whose user is told stays who they are.
            if kept.person.by == Some(PersonBy::User) && !kept.touched {
                continue;
            }
            let mut person = people.person(&self.key, &kept.stay.attributes());
            renames |= [kept.person.by, person.by].contains(&Some(PersonBy::Name));
            if person.by == Some(PersonBy::Name) && kept.person.by == person.by {
                person.other = kept.person.other.clone();
            }
            Self::is(kept, person, id, &mut self.touched);
        }
        if renames {
            self.identify_names(live);
        }
    }

    fn identify_names(&mut self, live: bool) {
        let mut names: BTreeMap<&str, Vec<NamedStay>> = BTreeMap::new();
        for (id, kept) in self.stays.iter().filter(|(_, kept)| kept.person.by == Some(PersonBy::Name)) {
            let from = kept.stay.joined_at().or_else(|| kept.stay.left_at());
            let Some((name, from)) = kept.stay.attributes().display_name.zip(from) else { continue };
            let left = kept.stay.left_at().or_else(|| until(&self.marks, &self.rejoins, live, (*id, &kept.stay)));
            names.entry(name).or_default().push((from, left, *id));
        }
        let named: Vec<Uuid> = names.values().flatten().map(|(.., id)| *id).collect();
        let mut others = people::by_name(&names);
        for id in named {
            let Some(kept) = self.stays.get_mut(&id) else { continue };
            let person = StayPerson { by: kept.person.by, other: others.remove(&id) };
            Self::is(kept, person, id, &mut self.touched);
        }
    }

    /// Notes whose a stay is.
    fn is(kept: &mut Kept, person: StayPerson, id: Uuid, touched: &mut Vec<Uuid>) {
        if kept.person != person {
            kept.person = person;
            if !std::mem::replace(&mut kept.touched, true) {
                touched.push(id);
            }
        }
    }

    /// How many people there were, and how many at most at one moment. Who leaves in the same millisecond makes room first;
    /// who leaves in the millisecond of joining was there for one. Who has not left was there until the first end, also
    /// while the run goes on.
    fn count(&self, live: bool) -> (i64, i64) {
        let mut numbers: HashMap<&str, usize> = HashMap::with_capacity(self.stays.len());
        let mut nobodies = 0;
        let mut changes: Vec<(i64, bool, usize)> = Vec::with_capacity(2 * self.stays.len());
        for (id, kept) in &self.stays {
            let next = numbers.len() + nobodies;
            let number = match kept.stay.person(&kept.person) {
                Some(name) => *numbers.entry(name).or_insert(next),
                None => {
                    nobodies += 1;
                    next
                }
            };
            if let Some(joined) = kept.stay.joined_at() {
                let joined = joined.get();
                changes.push((joined, true, number));
                let left = kept.stay.left_at().or_else(|| until(&self.marks, &self.rejoins, live, (*id, &kept.stay)));
                let left = left.map(|left| left.get().max(joined + 1));
                changes.extend(left.map(|left| (left, false, number)));
            }
        }
        changes.sort_unstable();
        let people = numbers.len() + nobodies;
        let mut devices = vec![0_u32; people];
        let (mut inside, mut most) = (0_i64, 0_i64);
        for (_, joins, number) in changes {
            if joins {
                inside += i64::from(devices[number] == 0);
                devices[number] += 1;
            } else {
                devices[number] -= 1;
                inside -= i64::from(devices[number] == 0);
            }
            most = most.max(inside);
        }
        (i64::try_from(people).unwrap_or(i64::MAX), most)
    }
}

/// Until when somebody was there at most of whom no left was told: until the run ended, or until they joined again.
fn until(marks: &Marks, rejoins: &Rejoins, live: bool, (id, stay): (Uuid, &Stay)) -> Option<Millis> {
    marks.closing(stay.joined_at(), live).into_iter().chain(rejoins.next(id)).min()
}

/// What closed this stay, if there is no left: as long as the run goes on, nothing does, unless they joined again.
fn ended(marks: &Marks, rejoins: &Rejoins, live: bool, (id, stay): (Uuid, &Stay)) -> Option<Ended> {
    let again = rejoins.next(id);
    if (live && again.is_none()) || stay.left_at().is_some() {
        return None;
    }
    match (marks.closing(stay.joined_at(), live), again) {
        (Some(end), Some(again)) if end > again => Some((again, ClosedBy::Rejoin)),
        (Some(end), _) => Some((end, ClosedBy::MeetingEnd)),
        (None, again) => again.map(|again| (again, ClosedBy::Rejoin)),
    }
}

/// The numbers of which it is to be looked at again whether runs that have not ended are over, because this run's row changes in
/// what is told of it, or because it began.
fn numbers_to_check(before: Option<&MeetingRow>, row: &MeetingRow) -> Vec<Arc<str>> {
    let began = |row: &MeetingRow| (row.meeting_id.clone(), row.started_at);
    let told = match row.status {
        Status::Scheduled => true,
        Status::Live => before.is_none_or(|it| (it.status, it.first_event_at) != (row.status, row.first_event_at)),
        Status::Cancelled | Status::Ended | Status::Concluded => false,
    };
    if !told && before.map(began) == Some(began(row)) {
        return Vec::new();
    }
    let renamed = before.filter(|before| before.meeting_id != row.meeting_id);
    renamed.into_iter().chain([row]).filter_map(|row| row.meeting_id.clone()).collect()
}
