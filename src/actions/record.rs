//! What is asked for, and how it stands: as it is noted in the database, and as clients see it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::quarantine::WhyItStays;
use convoke_core::time::Millis;
use convoke_core::verify::Admit;
use convoke_log::{FORGOTTEN, Filter};

/// An action that goes on notes it so often; one that has not for longer has lost its process.
pub(super) const NOTE_INTERVAL: Duration = Duration::from_secs(2);
const LOST_TIME: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action")]
pub enum Work {
    /// Read entries of the quarantine again.
    #[serde(rename = "quarantine.retry")]
    Retry {
        /// Their numbers; without any: all.
        ids: Vec<i64>,
        /// How implausible times are read.
        unit: Option<Admit>,
    },
    /// Delete entries of the quarantine.
    #[serde(rename = "quarantine.discard")]
    Discard {
        /// Their numbers.
        ids: Vec<i64>,
    },
    /// Publish a part of the log again.
    #[serde(rename = "replay")]
    Replay(ReplayWork),
}

/// Which part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayWork {
    /// Exactly what the stream misses.
    pub missing: bool,
    /// What happened at this time or later.
    pub since: Option<Millis>,
    /// What happened before this time.
    pub until: Option<Millis>,
    /// Events of this type.
    pub event: Option<String>,
    /// Events of the meeting with this number or UUID.
    pub meeting: Option<String>,
    /// Also what the stream got within its duplicate window.
    pub again: bool,
}

impl ReplayWork {
    /// As the log is asked.
    pub(super) fn range(&self) -> Option<Filter> {
        let (event, meeting) = (self.event.clone(), self.meeting.clone());
        let filter = Filter { since: self.since, until: self.until, event, meeting, up_to: None };
        (!self.missing).then_some(filter)
    }
}

/// In a line of the log.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ids) = match self {
            Self::Retry { ids, .. } => ("quarantine retry", ids.as_slice()),
            Self::Discard { ids } => ("quarantine discard", ids.as_slice()),
            Self::Replay(replay) => {
                f.write_str("replay")?;
                if replay.missing {
                    f.write_str(" --missing")?;
                }
                for (flag, time) in [("since", replay.since), ("until", replay.until)] {
                    if let Some(time) = time {
                        write!(f, " --{flag} {time}")?;
                    }
                }
                for (flag, text) in [("event", &replay.event), ("meeting", &replay.meeting)] {
                    if let Some(text) = text {
                        write!(f, " --{flag} {text:?}")?;
                    }
                }
                return if replay.again { f.write_str(" --again") } else { Ok(()) };
            }
        };
        f.write_str(name)?;
        if ids.is_empty() {
            return f.write_str(" --all");
        }
        ids.iter().try_for_each(|id| write!(f, " {id}"))
    }
}

convoke_core::words! {
    /// How an action stands.
    pub enum ActionState as "ActionState" {
        /// It goes on.
        Running = "running",
        /// It is done.
        Done = "done",
        /// It failed; `message` says why.
        Failed = "failed",
        /// The service stopped before its end.
        Stopped = "stopped",
        /// Its process is gone, or has lost its database.
        Lost = "lost",
    }
}

convoke_core::words! {
    /// What came, or would come, of an entry of the quarantine.
    pub enum EntryResult as "EntryResult" {
        /// An event that is new in the log.
        Stored = "stored",
        /// An event that was in the log already.
        Known = "known",
        /// It stays in the quarantine.
        Stays = "stays",
        /// It is deleted.
        Deleted = "deleted",
        /// There is no such entry.
        Absent = "absent",
        /// An event, new or not.
        Event = "event",
    }
}

/// What came, or would come, of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryOutcome {
    /// Its number.
    pub id: i64,
    /// What came of it.
    pub result: EntryResult,
    /// Why it stays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// An action, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActionRecord {
    /// As its client made it.
    pub action_id: String,
    /// The name of the token that it was asked for with.
    pub who: String,
    /// What was asked for.
    pub work: Work,
    /// How it stands.
    pub state: ActionState,
    /// When it began.
    pub begun_at: Millis,
    /// When it was last looked at.
    pub updated_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// How many entries or events it is about, if that is known.
    pub total: Option<u64>,
    /// How many of them are done with.
    pub done: u64,
    /// What came of them, by number: `stored`, `known`, `stays`, `deleted`, `absent` of the quarantine; `new`, `duplicate`,
    /// `too_large`, `forgotten` of a replay.
    pub counts: BTreeMap<String, u64>,
    /// What came of each entry of the quarantine; the first 100.
    pub entries: Vec<EntryOutcome>,
    /// What is still wrong, or why it failed.
    pub message: Option<String>,
}

impl ActionRecord {
    pub(super) fn begun(id: &str, who: &str, work: Work, now: Millis) -> Self {
        Self {
            action_id: id.to_owned(),
            who: who.to_owned(),
            work,
            state: ActionState::Running,
            begun_at: now,
            updated_at: now,
            ended_at: None,
            total: None,
            done: 0,
            counts: BTreeMap::new(),
            entries: Vec::new(),
            message: None,
        }
    }

    pub(super) fn note(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// `None`: it is of another version.
    pub(super) fn read(note: &str, now: Millis) -> Option<Self> {
        let mut record: Self = serde_json::from_str(note).ok()?;
        if record.state == ActionState::Running && now.since(record.updated_at) > LOST_TIME {
            record.state = ActionState::Lost;
        }
        Some(record)
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }
}

/// Why an entry stays, without what the database cites.
pub(super) fn reason(why: WhyItStays) -> String {
    match why {
        WhyItStays::Forgotten => FORGOTTEN.to_owned(),
        WhyItStays::Unreadable(reason) => reason,
        WhyItStays::Rejected(_) => "the database refuses it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_is_not_noted_for_a_minute_has_lost_its_process() {
        let begun = ActionRecord::begun("an-action", "somebody", Work::Discard { ids: vec![1] }, Millis::EPOCH);
        let state = |record: &ActionRecord, seconds| {
            let now = Millis::EPOCH.plus(Duration::from_secs(seconds));
            ActionRecord::read(&record.note(), now).expect("a record").state
        };
        assert_eq!((state(&begun, 60), state(&begun, 61)), (ActionState::Running, ActionState::Lost));
        let done = ActionRecord { state: ActionState::Done, ..begun };
        assert_eq!(state(&done, 61), ActionState::Done);
    }
}
