//! Quantities formatted for people.

use std::time::Duration;

/// Formats a duration, cut to whole seconds: `1h 2m 3s`.
#[must_use]
pub fn duration(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}
