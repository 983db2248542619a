//! The lease on a cursor's row: its duration, its owner, and how processes take turns with it.

use std::time::Duration;

use convoke_core::id::Seq;
use convoke_log::{LogError, LogReader};

/// How long a lease lasts after its last renewal: the longest time that a cursor stands still when its owner dies.
pub const LEASE_TIME: Duration = Duration::from_secs(5);

/// Age at which a lease is renewed.
pub const RENEW_INTERVAL: Duration = Duration::from_millis(1_500);

/// How long an owner whose lease is claimed ([`convoke_log::Log::claim`]) may keep it at least, as long as it has work to do.
pub const MIN_TURN_TIME: Duration = Duration::from_millis(100);

/// How often a process that takes turns checks whether it is its turn.
pub const TURN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long a claim to a lease is valid.
pub const CLAIM_TIME: Duration = Duration::from_secs(2);

/// The position of a cursor, if `owner` holds its lease: work that only one replica may do is done by that one.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn moved_by(log: &dyn LogReader, cursor: &str, owner: &str) -> Result<Option<Seq>, LogError> {
    let states = log.cursors().await?;
    let ours = states.iter().find(|state| state.name == cursor && state.owner.as_deref() == Some(owner));
    Ok(ours.map(|state| state.position))
}
