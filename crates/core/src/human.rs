//! Quantities, as people read them.

use std::time::Duration;

/// A duration, to the second: `1h 2m 3s`.
#[must_use]
pub fn duration(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}
