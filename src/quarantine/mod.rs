//! Reads quarantined bodies again, and puts the events into the log; used by the command and by the admin listener.

use std::sync::Arc;

use convoke_core::event::{Unreadable, Verified};
use convoke_core::time::Clock;
use convoke_core::verify::{self, Admit};
use convoke_log::{Append, Appended, FORGOTTEN, LogError, Operations, Quarantined};

/// Maximum number of entries that are read at a time: each may be as large as a body may be.
pub const PAGE_ROWS: u32 = 50;

/// The result of reading an entry again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is in the log now, and was removed from the quarantine.
    Stored,
    /// It was in the log already, and was removed from the quarantine.
    Known,
    /// It stays in the quarantine.
    Stays(WhyItStays),
}

/// Why an entry stays in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyItStays {
    /// Its person was erased.
    Forgotten,
    /// It cannot be read as an event, for this reason.
    Unreadable(String),
    /// The database rejects the event, for this reason, which may quote its values.
    Rejected(String),
}

/// The event in an entry, as the current version reads it.
///
/// # Errors
/// Why the entry cannot be read as an event.
pub fn reread(entry: &Quarantined, admit: Option<Admit>) -> Result<Verified, WhyItStays> {
    if entry.reason == FORGOTTEN {
        return Err(WhyItStays::Forgotten);
    }
    let unreadable = Unreadable {
        subscriber_id: Arc::from(entry.subscriber_id.as_str()),
        received_at: entry.received_at,
        reason: entry.reason.clone(),
        body: entry.body.clone(),
    };
    verify::reread(&unreadable, Clock::System.now(), admit).map_err(WhyItStays::Unreadable)
}

/// Reads an entry again, and puts it into the log if it is an event.
///
/// # Errors
/// If the database does not answer.
pub async fn retry(log: &dyn Operations, entry: &Quarantined, admit: Option<Admit>) -> Result<Retried, LogError> {
    let verified = match reread(entry, admit) {
        Ok(verified) => Arc::new(verified),
        Err(why) => return Ok(Retried::Stays(why)),
    };
    let deliveries = u32::try_from(entry.deliveries).unwrap_or(u32::MAX);
    let append = Append { verified, deliveries, last_delivered_at: entry.received_at };
    // First into the log, then out of the quarantine: if this is interrupted, it is in both, and the next attempt removes it.
    match log.append(&[append]).await {
        Ok(committed) => {
            log.discard_quarantined(entry.id).await?;
            let new = committed.outcomes.first() == Some(&Appended::Stored);
            Ok(if new { Retried::Stored } else { Retried::Known })
        }
        Err(LogError::Rejected(cause)) => Ok(Retried::Stays(WhyItStays::Rejected(cause.to_string()))),
        Err(error) => Err(error),
    }
}
