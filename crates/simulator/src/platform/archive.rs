//! What the platform remembers: runs of meetings, who stayed how long, what was recorded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::people::mix;
use convoke_core::time::Millis;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Scheduled, not begun: `Schedule`.
    Scheduled,
    /// Under way: `Created`.
    Running,
    /// Over: `Destroyed`. Only these are history.
    Over,
}

/// One run of a meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `confUUID`.
    pub conf_uuid: String,
    /// `conferenceID`.
    pub conference_id: String,
    /// `cycleSubConfID`: the occurrence of a recurring meeting.
    pub cycle_sub_conf_id: Option<String>,
    /// `subject`.
    pub subject: String,
    /// `scheduserName`: who scheduled it.
    pub scheduler_name: String,
    /// `userUUID` of who scheduled it.
    pub scheduler_uuid: Option<String>,
    /// The enterprise; `None`: the first of the platform's.
    pub corp_id: Option<String>,
    /// How far it has come.
    pub state: State,
    /// When it is to begin and to end.
    pub scheduled: (Millis, Millis),
    /// When it began …
    pub started: Option<Millis>,
    /// … and last ended.
    pub ended: Option<Millis>,
    /// Who was invited besides the host.
    pub invited: Vec<Invited>,
    /// Who was there.
    pub stays: Vec<Stay>,
    /// What was recorded.
    pub recordings: Vec<Recorded>,
}

/// Somebody who was invited when the meeting was scheduled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invited {
    /// `userUUID`.
    pub user_uuid: Option<String>,
    /// `accountId`.
    pub account: Option<String>,
    /// `participantID`, which is a number.
    pub number: Option<String>,
    /// `name`.
    pub name: String,
}

/// From joining to leaving, on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// `displayName`.
    pub display_name: Arc<str>,
    /// `callNumber`.
    pub call_number: Arc<str>,
    /// `participant_id`, `participantID`: the one that events have.
    pub participant_id: Arc<str>,
    /// `user_id`, `userUUID`.
    pub user_uuid: Option<Arc<str>>,
    /// `account`.
    pub account: Option<Arc<str>>,
    /// Whether it is the host.
    pub host: bool,
    /// `deviceType`.
    pub device_type: &'static str,
    /// `joinTime`.
    pub joined: Millis,
    /// `leftTime`; `None` while the meeting is on.
    pub left: Option<Millis>,
}

/// One manual start and stop of recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it stopped.
    pub finished: Millis,
    /// How long it is, in seconds.
    pub length_s: i64,
    /// `decodeEndTime`: when it was expected to be transcoded.
    pub decode_end: Millis,
    /// From when on, by the platform's clock, it is transcoded.
    pub decoded_from: Millis,
}

impl Run {
    /// When it began, or is to begin: by this a run is found, and by this lists are sorted. By which time of a meeting a
    /// window chooses is not documented.
    #[must_use]
    pub fn begins(&self) -> Millis {
        self.started.unwrap_or(self.scheduled.0)
    }

    /// A run that is over, with nobody in it, for tests to fill.
    #[must_use]
    pub fn over(conf_uuid: &str, conference_id: &str, started: Millis, ended: Millis) -> Self {
        Self {
            conf_uuid: conf_uuid.to_owned(),
            conference_id: conference_id.to_owned(),
            cycle_sub_conf_id: None,
            subject: format!("Meeting {conference_id}"),
            scheduler_name: "Demo User".to_owned(),
            scheduler_uuid: Some("aaaabbbbccccddddeeeeffff00001111".to_owned()),
            corp_id: None,
            state: State::Over,
            scheduled: (started, ended),
            started: Some(started),
            ended: Some(ended),
            invited: Vec::new(),
            stays: Vec::new(),
            recordings: Vec::new(),
        }
    }

    /// So many runs that are over, the first at `first` and one after the other each `every`, half an hour long, with so many
    /// stays in each and a recording in every third. The same arguments make the same runs; nobody ever pushed them.
    pub fn made_up(first: Millis, every: Duration, runs: usize, stays: usize) -> impl Iterator<Item = Self> {
        const LENGTH: i64 = 30 * 60_000;
        let people: Vec<[Arc<str>; 3]> = (0..stays.max(1))
            .map(|person| [format!("Guest {person}"), format!("+99111{person:07}"), format!("participant{person:021}")])
            .map(|texts| texts.map(Arc::from))
            .collect();
        let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        (0_i64..).take(runs).map(move |number| {
            let at = |ms: i64| Millis::new(ms).unwrap_or(Millis::MAX);
            let started = first.get().saturating_add(number.saturating_mul(every));
            let dice = |salt: u64| mix(mix(number.unsigned_abs()) ^ salt ^ first.get().unsigned_abs());
            let ended = started + LENGTH;
            let conf_uuid = format!("{:016x}{:016x}", dice(1), dice(2));
            let conference_id = (900_000_000 + number % 100_000_000).to_string();
            let mut run = Self::over(&conf_uuid, &conference_id, at(started), at(ended));
            run.stays = (0_i64..)
                .zip(&people)
                .take(stays)
                .map(|(person, [name, number, participant_id])| Stay {
                    display_name: Arc::clone(name),
                    call_number: Arc::clone(number),
                    participant_id: Arc::clone(participant_id),
                    user_uuid: None,
                    account: None,
                    host: false,
                    device_type: "Soft terminal",
                    joined: at(started + 1_000 + person * 37),
                    left: Some(at(ended - 1_000 - person * 41)),
                })
                .collect();
            if number % 3 == 0 {
                let finished = at(ended - 60_000);
                run.recordings.push(Recorded { finished, length_s: 600, decode_end: finished, decoded_from: finished });
            }
            run
        })
    }
}

/// The runs, by when they began.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    runs: BTreeMap<(Millis, String), Run>,
    begins: HashMap<String, Millis>,
    /// User UUIDs of those who have left the enterprise.
    pub left: HashSet<String>,
}

impl Archive {
    /// Adds a run, or replaces the one with the same UUID.
    pub fn put(&mut self, run: Run) {
        self.remove(&run.conf_uuid);
        self.begins.insert(run.conf_uuid.clone(), run.begins());
        self.runs.insert((run.begins(), run.conf_uuid.clone()), run);
    }

    /// Takes a run out.
    pub fn remove(&mut self, conf_uuid: &str) -> Option<Run> {
        let begins = self.begins.remove(conf_uuid)?;
        self.runs.remove(&(begins, conf_uuid.to_owned()))
    }

    /// One run.
    #[must_use]
    pub fn get(&self, conf_uuid: &str) -> Option<&Run> {
        self.runs.get(&(*self.begins.get(conf_uuid)?, conf_uuid.to_owned()))
    }

    /// Changes a run, if it is there.
    pub fn edit(&mut self, conf_uuid: &str, change: impl FnOnce(&mut Run)) {
        if let Some(mut run) = self.remove(conf_uuid) {
            change(&mut run);
            self.put(run);
        }
    }

    /// All runs, by when they began.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.values()
    }

    /// Those that began within `since..=until`.
    pub(super) fn within(&self, since: Millis, until: Millis) -> impl DoubleEndedIterator<Item = &Run> {
        // A window that ends before it begins is empty.
        let after = Millis::new(until.get() + 1).unwrap_or(Millis::MAX).max(since);
        self.runs.range((since, String::new())..(after, String::new())).map(|(_, run)| run)
    }
}
