//! The lease on a cursor's row: how long it lasts, who has it, and how it is shared between those who take turns.

use std::time::Duration;

use convoke_core::id::Seq;
use convoke_log::{LogError, LogReader};

/// A lease lasts this long after it was renewed: the longest time for which a cursor stands still when its owner dies.
pub const LEASE_TIME: Duration = Duration::from_secs(5);

/// A lease is renewed when it is this old.
pub const RENEW_INTERVAL: Duration = Duration::from_millis(1_500);

/// Who is asked for its lease ([`convoke_log::Log::claim`]) keeps it this long at least, while it has something to do.
pub const MIN_TURN_TIME: Duration = Duration::from_millis(100);

/// How often who takes turns looks whether the turn is its own.
pub const TURN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A wish for a lease stands this long.
pub const CLAIM_TIME: Duration = Duration::from_secs(2);

/// Where a cursor stands, if `owner` moves it: what is to be done by one replica only is done by that one.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn moved_by(log: &dyn LogReader, cursor: &str, owner: &str) -> Result<Option<Seq>, LogError> {
    let states = log.cursors().await?;
    let ours = states.iter().find(|state| state.name == cursor && state.owner.as_deref() == Some(owner));
    Ok(ours.map(|state| state.position))
}
