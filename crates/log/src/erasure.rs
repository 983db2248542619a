//! The database side of `convoke forget`: finding a person's rows, erasing them, and recording the erasure.

use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Changes, Invitation, Lease, LogError, LogReader, Moved, Operations, Projection, Reading, RunKey};
use convoke_core::event::{Attendee, Meeting};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;

/// Replaces the reason of a quarantine entry whose body was erased.
pub const FORGOTTEN: &str = "the person in it was forgotten, and its body erased";

/// The identifiers of a person, each compared with its column. A person known only by name is identified by a stay, or
/// by a name within one meeting: in other meetings, the name may be another person's.
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
    /// A meeting's number or UUID, for `names`.
    pub meeting: Option<String>,
    /// Names in that meeting.
    pub names: Vec<String>,
}

impl Handles {
    /// Whether there are no identifiers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.know_everywhere() && self.stays.is_empty() && (self.meeting.is_none() || self.names.is_empty())
    }

    /// Whether one of them identifies the person in every meeting.
    #[must_use]
    pub fn know_everywhere(&self) -> bool {
        self.all().next().is_some()
    }

    /// Whether one of them identifies `attendee` of `meeting`; stays are not compared.
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

    /// The identifiers that are valid in every meeting, of all kinds.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.users.iter().chain(&self.accounts).chain(&self.call_numbers).map(String::as_str)
    }
}

/// A log row about a person.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// Its position in the log.
    pub seq: Seq,
    /// The event's id.
    pub event_id: EventId,
    /// The `appID` of the subscriber.
    pub subscriber_id: std::sync::Arc<str>,
    /// The meeting.
    pub meeting: Meeting,
    /// The participant.
    pub attendee: Attendee,
}

/// The key of a stay in `attendance`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::FromRow)]
pub struct StayKey {
    /// The run.
    #[sqlx(flatten)]
    pub run: RunKey,
    /// The id that it had before an erasure.
    #[sqlx(try_from = "EventId")]
    pub stay_id: Uuid,
}

/// A stay of a person in `attendance`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PersonStay {
    /// Its key.
    #[sqlx(flatten)]
    pub key: StayKey,
    /// The meeting's number.
    pub meeting_id: Option<String>,
    /// Its display name.
    pub display_name: Option<String>,
    /// Its call number.
    pub call_number: Option<String>,
    /// Its user UUID.
    pub user_uuid: Option<String>,
    /// Its account.
    pub account: Option<String>,
    /// Its participant.
    pub participant_id: Option<String>,
}

/// One erasure, finished or not.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Erasure {
    /// Its number.
    pub id: i64,
    /// When it began; also the `forgotten_at` of what it erases.
    pub begun_at: Millis,
    /// When it finished.
    pub finished_at: Option<Millis>,
    /// What was erased so far.
    #[sqlx(flatten)]
    pub counts: Erased,
}

/// The amount of erased data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Erased {
    /// Rows of `events`.
    pub events: i64,
    /// Rows of `attendance`.
    pub stays: i64,
    /// Bodies in the quarantine.
    pub quarantined: i64,
    /// Runs whose host was the person.
    pub hosts: i64,
    /// Rows of `invitations`.
    pub invitations: i64,
    /// Rows of `people`.
    pub people: i64,
    /// Messages in the stream.
    pub messages: i64,
}

/// A row of `invitations`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct InvitationRow {
    /// The run.
    #[sqlx(flatten)]
    pub run: RunKey,
    /// Who that is in the run.
    pub invitee: String,
    /// What is known of them.
    #[sqlx(flatten)]
    pub invitation: Invitation,
}

/// The host of a run.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Host {
    /// The run.
    #[sqlx(flatten)]
    pub run: RunKey,
    /// The name, as the platform reports it.
    pub host: Option<String>,
    /// The user, as the platform reports it.
    pub host_user_uuid: Option<String>,
    /// The subject of the run.
    pub subject: Option<String>,
}

/// Whether a person was forgotten. Checked by every task that writes data about people.
#[async_trait]
pub trait Suppression: LogReader {
    /// The key of the hashes; `None` if no person was ever forgotten.
    async fn forgotten_key(&self) -> Result<Option<String>, LogError>;

    /// The hashes that belong to a forgotten person, each with the time of the last erasure.
    async fn forgotten(&self, hashes: &[String]) -> Result<HashMap<String, Millis>, LogError>;
}

/// Finds the rows of a person.
#[async_trait]
pub trait PersonSearch: LogReader {
    /// The log rows after `after`, up to `up_to`, that match one of the identifiers, or that are about a person in
    /// one of `runs`. In log order.
    async fn person_rows(
        &self,
        handles: &Handles,
        runs: &[RunKey],
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<PersonRow>, LogError>;

    /// The rows after `after`, up to `up_to`, that running meetings told and that have one of these texts in them: each of them may be
    /// about many people.
    async fn live_rows(&self, texts: &[String], after: Seq, up_to: Seq) -> Result<Vec<PersonRow>, LogError>;

    /// The stays that match one of the identifiers, among the next `limit` stays of `attendance` after `after`; and the
    /// last stay that was checked, if any.
    async fn person_stays(
        &self,
        handles: &Handles,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<PersonStay>, Option<Uuid>), LogError>;

    /// At most `limit` runs after `after` with a known host.
    async fn hosts(&self, after: Option<&RunKey>, limit: u32) -> Result<Vec<Host>, LogError>;

    /// At most `limit` invitations after `after`.
    async fn invitations(&self, after: Option<&InvitationRow>, limit: u32) -> Result<Vec<InvitationRow>, LogError>;

    /// How many of these users are in `people`.
    async fn known_people(&self, users: &[String]) -> Result<i64, LogError>;
}

/// Erasing. Each method is one transaction that includes its count.
#[async_trait]
pub trait Erasures: PersonSearch + Projection + Operations + Reading {
    /// The key of the hashes; `fresh` becomes the key if there is none yet.
    async fn make_forgotten_key(&self, fresh: &str) -> Result<String, LogError>;

    /// Adds hashes of the person's identifiers, forgotten at `at`.
    async fn remember_forgotten(&self, hashes: &[String], at: Millis) -> Result<(), LogError>;

    /// Begins an erasure of the person with this hash, or resumes one that is not finished.
    async fn begin_erasure(&self, person: &str, named_by: &str) -> Result<Erasure, LogError>;

    /// The current state of the erasure.
    async fn erasure(&self, id: i64) -> Result<Erasure, LogError>;

    /// Marks the erasure as finished, and deletes its recorded stays.
    async fn finish_erasure(&self, id: i64) -> Result<(), LogError>;

    /// Records stays to erase, each with the meeting's number, and hashes as in [`Erasures::remember_forgotten`].
    async fn note_stays(
        &self,
        erasure: &Erasure,
        stays: &[(StayKey, Option<String>)],
        hashes: &[String],
    ) -> Result<(), LogError>;

    /// The recorded stays.
    async fn noted_stays(&self, erasure: i64) -> Result<Vec<StayKey>, LogError>;

    /// Erases the personal data in these log rows.
    async fn erase_rows(&self, erasure: &Erasure, rows: &[PersonRow]) -> Result<(), LogError>;

    /// Removes `removed` from `attendance` and writes `changes`, if the owner still holds the lease and the cursor is
    /// still at `at`, where it stays.
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

    /// Erases the body of a quarantine entry. Its digest stays, so that another delivery of the same body is not a new entry.
    async fn erase_quarantined(&self, erasure: i64, id: i64) -> Result<(), LogError>;

    /// Erases the host of a run, and its subject if `subject` is true.
    async fn erase_host(&self, erasure: i64, run: &RunKey, subject: bool) -> Result<(), LogError>;

    /// Deletes what running meetings tell of people with one of these numbers, and who of them is in one now.
    async fn erase_live(&self, texts: &[String]) -> Result<(), LogError>;

    /// Deletes invitations.
    async fn erase_invitations(&self, erasure: i64, invitations: &[InvitationRow]) -> Result<(), LogError>;

    /// Deletes these users from `people`.
    async fn erase_people(&self, erasure: i64, users: &[String]) -> Result<(), LogError>;

    /// The events erased by this erasure, or by an earlier one of the same person.
    async fn erased_events(&self, erasure: i64) -> Result<Vec<EventId>, LogError>;

    /// The meetings of these events and of the recorded stays; `None` stands for events without a number.
    async fn erased_meetings(&self, erasure: i64) -> Result<Vec<Option<String>>, LogError>;

    /// Records that `messages` messages are about to be deleted from the stream.
    async fn count_messages(&self, erasure: i64, messages: u64) -> Result<(), LogError>;

    /// Removes what may remain of erased data in the database's files, as far as possible beside a running service;
    /// with `vacuum` also the rest. Returns a sentence for each thing that may remain.
    async fn scrub(&self, vacuum: bool) -> Result<Vec<String>, LogError>;
}

/// The identifiers as the column `internal` of `attendance` writes them: it keeps values of a join event that the leave
/// event contradicts and that the columns do not show.
pub(super) fn internal_members(handles: &Handles) -> Vec<String> {
    [("user_uuid", &handles.users), ("account", &handles.accounts), ("call_number", &handles.call_numbers)]
        .into_iter()
        .flat_map(|(name, values)| members(name, values))
        .collect()
}

/// The same for names, which identify a person only within one meeting.
pub(super) fn internal_names(handles: &Handles) -> Vec<String> {
    members("display_name", &handles.names).collect()
}

fn members<'a>(name: &'a str, values: &'a [String]) -> impl Iterator<Item = String> + 'a {
    values.iter().map(move |value| format!("\"{name}\":{}", serde_json::json!(value)))
}
