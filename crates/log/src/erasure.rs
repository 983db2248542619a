//! What `convoke forget` needs of a database: finding a person's rows, erasing them, and remembering that it was done.

use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Changes, Lease, LogError, LogReader, Moved, Operations, Projection, Reading, RunKey};
use convoke_core::event::{Attendee, Meeting};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// What stands in the place of the reason of an entry of the quarantine whose body was erased.
pub const FORGOTTEN: &str = "the person in it was forgotten, and its body erased";

/// What a person is named by, each compared with its column. Somebody of whom only a name is known is named by a stay, or by a
/// name within one meeting: elsewhere the name may be anybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handles {
    /// User UUIDs.
    pub users: Vec<String>,
    /// Accounts.
    pub accounts: Vec<String>,
    /// Call numbers.
    pub call_numbers: Vec<String>,
    /// Stays of `attendance`.
    pub stays: Vec<Uuid>,
    /// A meeting's number or UUID …
    pub meeting: Option<String>,
    /// … and names in it.
    pub names: Vec<String>,
}

impl Handles {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.know_everywhere() && self.stays.is_empty() && (self.meeting.is_none() || self.names.is_empty())
    }

    /// Whether one of them is the person's in whichever meeting.
    #[must_use]
    pub fn know_everywhere(&self) -> bool {
        self.all().next().is_some()
    }

    /// Whether `attendee` of `meeting` is named by one of them; a stay is not looked at.
    #[must_use]
    pub fn name(&self, meeting: &Meeting, attendee: &Attendee) -> bool {
        let among = |list: &[String], value: &Option<std::sync::Arc<str>>| {
            value.as_deref().is_some_and(|value| list.iter().any(|handle| handle == value))
        };
        among(&self.users, &attendee.user_uuid)
            || among(&self.accounts, &attendee.account)
            || among(&self.call_numbers, &attendee.call_number)
            || self.meeting.as_deref().is_some_and(|named| {
                [&meeting.id, &meeting.uuid].iter().any(|known| known.as_deref() == Some(named))
                    && among(&self.names, &attendee.display_name)
            })
    }

    /// Those that are the person's everywhere, of whichever kind.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.users.iter().chain(&self.accounts).chain(&self.call_numbers).map(String::as_str)
    }
}

/// A row of the log that tells of somebody.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub event_id: EventId,
    /// The subscriber.
    pub subscriber_id: std::sync::Arc<str>,
    /// Which meeting.
    pub meeting: Meeting,
    /// Who.
    pub attendee: Attendee,
}

/// A stay, by its key in `attendance`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::FromRow)]
pub struct StayKey {
    /// The run.
    #[sqlx(flatten)]
    pub run: RunKey,
    /// As long as it was not forgotten.
    #[sqlx(try_from = "EventId")]
    pub stay_id: Uuid,
}

/// A stay of `attendance` that is somebody's.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PersonStay {
    /// Which.
    #[sqlx(flatten)]
    pub key: StayKey,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// The name in it.
    pub display_name: Option<String>,
    /// The number in it.
    pub call_number: Option<String>,
    /// The user in it.
    pub user_uuid: Option<String>,
    /// The account in it.
    pub account: Option<String>,
}

/// One erasure, begun and maybe finished.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Erasure {
    /// Its number.
    pub id: i64,
    /// When it was begun; also the `forgotten_at` of what it erases.
    pub begun_at: Millis,
    /// When it came to its end.
    pub finished_at: Option<Millis>,
    /// What was erased until now.
    #[sqlx(flatten)]
    pub counts: Erased,
}

/// How much was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Erased {
    /// Rows of `events`.
    pub events: i64,
    /// Rows of `attendance`.
    pub stays: i64,
    /// Bodies in the quarantine.
    pub quarantined: i64,
    /// Runs of which the person was the host.
    pub hosts: i64,
    /// Messages of the stream.
    pub messages: i64,
}

/// Who has scheduled a run.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Host {
    /// The run.
    #[sqlx(flatten)]
    pub run: RunKey,
    /// As the platform says.
    pub host: String,
    /// The run's subject.
    pub subject: Option<String>,
}

/// Whether somebody was forgotten: asked by whoever writes something about people.
#[async_trait]
pub trait Suppression: LogReader {
    /// The key of the hashes; `None` if nobody was ever forgotten.
    async fn forgotten_key(&self) -> Result<Option<String>, LogError>;

    /// Those of these hashes that are of somebody forgotten, and when that was last.
    async fn forgotten(&self, hashes: &[String]) -> Result<HashMap<String, Millis>, LogError>;
}

/// Finds what there is of a person.
#[async_trait]
pub trait PersonSearch: LogReader {
    /// The rows with a place after `after`, up to `up_to`, that one of the handles names, or that tell of somebody in one of
    /// `runs`. In the order of the log.
    async fn person_rows(
        &self,
        handles: &Handles,
        runs: &[RunKey],
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<PersonRow>, LogError>;

    /// Those of the next `limit` stays of `attendance` after `after` that one of the handles names, and the last one that was
    /// looked at, if there was any.
    async fn person_stays(
        &self,
        handles: &Handles,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<PersonStay>, Option<Uuid>), LogError>;

    /// At most `limit` runs after `after` whose host is known.
    async fn hosts(&self, after: Option<&RunKey>, limit: u32) -> Result<Vec<Host>, LogError>;
}

/// Erasing, in one transaction each, together with its count.
#[async_trait]
pub trait Erasures: PersonSearch + Projection + Operations + Reading {
    /// The key of the hashes; `fresh` becomes it if there is none yet.
    async fn make_forgotten_key(&self, fresh: &str) -> Result<String, LogError>;

    /// Adds hashes of what tells the person, forgotten at `at`.
    async fn remember_forgotten(&self, hashes: &[String], at: Millis) -> Result<(), LogError>;

    /// Begins an erasure of the person with this hash, or goes on with one that did not come to its end.
    async fn begin_erasure(&self, person: &str, named_by: &str) -> Result<Erasure, LogError>;

    /// The erasure as it stands.
    async fn erasure(&self, id: i64) -> Result<Erasure, LogError>;

    /// Notes that it came to its end, and forgets the stays that it had found.
    async fn finish_erasure(&self, id: i64) -> Result<(), LogError>;

    /// Notes stays that are to be erased, each with the meeting's number, and hashes as [`Erasures::remember_forgotten`] does.
    async fn note_stays(
        &self,
        erasure: &Erasure,
        stays: &[(StayKey, Option<String>)],
        hashes: &[String],
    ) -> Result<(), LogError>;

    /// The stays that were noted.
    async fn noted_stays(&self, erasure: i64) -> Result<Vec<StayKey>, LogError>;

    /// Erases what is personal in these rows of the log.
    async fn erase_rows(&self, erasure: &Erasure, rows: &[PersonRow]) -> Result<(), LogError>;

    /// Takes `removed` out of `attendance` and writes `changes`, if the lease's owner still holds it and the cursor still
    /// stands at `at`, where it stays.
    ///
    /// # Errors
    /// [`LogError::Rejected`] if one of the rows can never be stored.
    async fn erase_stays(
        &self,
        lease: Lease<'_>,
        at: Seq,
        erasure: i64,
        removed: &[StayKey],
        changes: &Changes,
    ) -> Result<Moved, LogError>;

    /// Erases the body of an entry of the quarantine. Its digest stays: the same body, delivered once more, is no news.
    async fn erase_quarantined(&self, erasure: i64, id: i64) -> Result<(), LogError>;

    /// Erases the host of a run, and its subject if `subject`.
    async fn erase_host(&self, erasure: i64, run: &RunKey, subject: bool) -> Result<(), LogError>;

    /// Of the events that this erasure, or an earlier one of the same person, has erased.
    async fn erased_events(&self, erasure: i64) -> Result<Vec<EventId>, LogError>;

    /// The meetings of these events, and of the stays that were noted; `None` stands for events without a number.
    async fn erased_meetings(&self, erasure: i64) -> Result<Vec<Option<String>>, LogError>;

    /// Notes that so many messages are about to be deleted from the stream.
    async fn count_messages(&self, erasure: i64, messages: u64) -> Result<(), LogError>;

    /// Does what can be done beside a running service so that nothing of what was erased is left in the database's files; with
    /// `vacuum` also what cannot. A sentence for each thing that may be left.
    async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError>;
}

/// How the column `internal` of `attendance` writes the members that the handles name: it keeps what a join told where the left
/// told otherwise, and the columns do not show it.
pub(super) fn internal_members(handles: &Handles) -> Vec<String> {
    [("user_uuid", &handles.users), ("account", &handles.accounts), ("call_number", &handles.call_numbers)]
        .into_iter()
        .flat_map(|(name, values)| members(name, values))
        .collect()
}

/// The same of names, which name somebody in one meeting alone.
pub(super) fn internal_names(handles: &Handles) -> Vec<String> {
    members("display_name", &handles.names).collect()
}

fn members<'a>(name: &'a str, values: &'a [String]) -> impl Iterator<Item = String> + 'a {
    values.iter().map(move |value| format!("\"{name}\":{}", serde_json::json!(value)))
}
