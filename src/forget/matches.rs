//! What is found about a person during an erasure: their stays, their names in them, and their other handles.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::suppression::SuppressionKey;
use crate::projection::{MAX_UUID_BYTES, stay_id};
use convoke_core::event::{Attendee, Meeting};
use convoke_log::{Handles, PersonRow, PersonStay, RunKey, StayKey};

/// Maximum number of handles of each kind that are reported.
const MAX_NAMED: usize = 20;

/// Handles of the person in the same rows that were not given. They may only be shown before anything is erased.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OtherHandles {
    /// User UUIDs.
    pub users: BTreeSet<String>,
    /// Accounts.
    pub accounts: BTreeSet<String>,
    /// Call numbers.
    pub call_numbers: BTreeSet<String>,
}

impl OtherHandles {
    /// The number of each kind.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.users.len(), self.accounts.len(), self.call_numbers.len()]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts() == [0; 3]
    }
}

/// The run of a meeting, if it has a row in the tables.
pub fn run_of(subscriber_id: &Arc<str>, meeting: &Meeting) -> Option<RunKey> {
    let uuid = meeting.uuid.as_ref().filter(|uuid| uuid.len() <= MAX_UUID_BYTES)?;
    Some(RunKey { subscriber_id: Arc::clone(subscriber_id), meeting_uuid: Arc::clone(uuid) })
}

/// The stay of a row.
pub fn key_of(row: &PersonRow) -> Option<StayKey> {
    let run = run_of(&row.subscriber_id, &row.meeting)?;
    let stay_id = stay_id(&run, &row.attendee);
    Some(StayKey { run, stay_id })
}

/// Collects what is found.
#[derive(Debug)]
pub struct Matches<'a> {
    handles: &'a Handles,
    suppression: &'a SuppressionKey,
    /// With the meeting's number. Stays that were taken remain here.
    stays: HashMap<StayKey, Option<String>>,
    new: Vec<(StayKey, Option<String>)>,
    /// Of events without a time of joining, of the same participants: the tables have no such stay beside one with a time.
    untimed: HashSet<StayKey>,
    /// What may be in the messages of running meetings: these have no columns for it.
    texts: BTreeSet<String>,
    hashes: HashSet<String>,
    new_hashes: Vec<String>,
    others: OtherHandles,
}

impl<'a> Matches<'a> {
    pub fn new(handles: &'a Handles, suppression: &'a SuppressionKey) -> Self {
        Self {
            handles,
            suppression,
            stays: HashMap::new(),
            new: Vec::new(),
            untimed: HashSet::new(),
            texts: handles.all().map(str::to_owned).collect(),
            hashes: HashSet::new(),
            new_hashes: Vec::new(),
            others: OtherHandles::default(),
        }
    }

    /// Adds a row of the person.
    pub fn row(&mut self, row: &PersonRow) {
        let key = key_of(row);
        let who = &row.attendee;
        self.texts(&[&who.participant_id, &who.user_uuid, &who.account, &who.call_number].map(|text| text.as_deref()));
        let run = key.as_ref().map(|key| key.run.clone());
        self.note_hashes(run.as_ref(), who.display_name.as_deref(), who.call_number.as_deref());
        self.others(who);
        if let Some(key) = key {
            self.add(key, row.meeting.id.as_deref().map(str::to_owned));
        }
    }

    /// Adds a stay of the person.
    pub fn stay(&mut self, stay: &PersonStay) {
        self.note_hashes(Some(&stay.key.run), stay.display_name.as_deref(), stay.call_number.as_deref());
        self.texts(
            &[&stay.participant_id, &stay.user_uuid, &stay.account, &stay.call_number].map(|text| text.as_deref()),
        );
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        self.others(&Attendee {
            user_uuid: text(&stay.user_uuid),
            account: text(&stay.account),
            call_number: text(&stay.call_number),
            ..Attendee::default()
        });
        if let Some(participant_id) = text(&stay.participant_id) {
            let run = stay.key.run.clone();
            let stay_id = stay_id(&run, &Attendee { participant_id: Some(participant_id), ..Attendee::default() });
            self.untimed.insert(StayKey { run, stay_id });
        }
        self.add(stay.key.clone(), stay.meeting_id.clone());
    }

    fn texts(&mut self, texts: &[Option<&str>]) {
        self.texts.extend(texts.iter().flatten().map(|text| (*text).to_owned()));
    }

    /// What may be in the messages of running meetings.
    pub fn live_texts(&self) -> Vec<String> {
        self.texts.iter().cloned().collect()
    }

    /// See the field.
    pub fn untimed(&self) -> impl Iterator<Item = &StayKey> {
        self.untimed.iter()
    }

    fn add(&mut self, key: StayKey, meeting_id: Option<String>) {
        if !self.stays.contains_key(&key) {
            self.stays.insert(key.clone(), meeting_id.clone());
            self.new.push((key, meeting_id));
        }
    }

    fn note_hashes(&mut self, run: Option<&RunKey>, name: Option<&str>, number: Option<&str>) {
        for hash in self.suppression.of_stay(run, name, number, self.handles.know_everywhere()) {
            if self.hashes.insert(hash.clone()) {
                self.new_hashes.push(hash);
            }
        }
    }

    /// Notes the handles that were not given.
    pub fn others(&mut self, who: &Attendee) {
        let note = |others: &mut BTreeSet<String>, given: &[String], value: &Option<Arc<str>>| {
            if let Some(value) = value.as_deref().filter(|value| given.iter().all(|given| given != value))
                && others.len() < MAX_NAMED
            {
                others.insert(value.to_owned());
            }
        };
        note(&mut self.others.users, &self.handles.users, &who.user_uuid);
        note(&mut self.others.accounts, &self.handles.accounts, &who.account);
        note(&mut self.others.call_numbers, &self.handles.call_numbers, &who.call_number);
    }

    /// The stays and hashes that are new since the last call.
    pub fn take(&mut self) -> (Vec<(StayKey, Option<String>)>, Vec<String>) {
        (std::mem::take(&mut self.new), std::mem::take(&mut self.new_hashes))
    }

    /// All hashes that were not taken yet.
    pub fn take_hashes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_hashes)
    }

    /// All stays.
    pub fn stays(&self) -> impl Iterator<Item = &StayKey> {
        self.stays.keys()
    }

    /// The numbers of their meetings.
    pub fn meetings(&self) -> impl Iterator<Item = &Option<String>> {
        self.stays.values()
    }

    pub fn into_others(self) -> OtherHandles {
        self.others
    }
}
