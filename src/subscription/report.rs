//! The result of an action on the subscription, for people and for scripts.

use serde::Serialize;

use super::plain;
use convoke_core::time::Millis;
use convoke_log::LogError;
use convoke_platform::PlatformError;

/// Why an action failed. The names are part of the JSON that scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// There is no subscription.
    Missing,
    /// There is already another one.
    Exists,
    /// It is for a subscriber that is not configured here.
    Subscriber,
    /// The URL did not pass the probe.
    Probe,
    /// It is locked, or was until recently.
    Locked,
    /// The platform could not enable it.
    Refused,
    /// It is enabled, but the platform's handshake did not arrive here.
    Handshake,
    /// It is not in the state that was requested.
    Unchanged,
    /// It must be disabled first.
    Enabled,
    /// The platform's API failed.
    Platform,
    /// The database failed.
    Database,
}

/// A failure, for people and for scripts.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The kind of failure.
    pub kind: ActionKind,
    /// The failure in one sentence.
    pub message: String,
    /// The platform's error code, if it gave one.
    pub code: Option<String>,
    /// The platform's ID of the request, for its support.
    pub request_id: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: ActionKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, request_id: None }
    }

    pub(super) fn of(kind: ActionKind, message: impl Into<String>, error: &PlatformError) -> Self {
        Self {
            code: error.code.clone(),
            request_id: error.request_id.as_deref().map(str::to_owned),
            ..Self::new(kind, message)
        }
    }
}

impl From<PlatformError> for Problem {
    fn from(error: PlatformError) -> Self {
        let request = error.request_id.as_ref().map(|id| format!(" (request {})", plain(id))).unwrap_or_default();
        Self::of(ActionKind::Platform, format!("{error}{request}. {}", error.advice), &error)
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        Self::new(ActionKind::Database, error.to_string())
    }
}

/// The subscription as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The ID of the record.
    pub id: String,
    /// The subscriber of the events.
    pub subscriber_id: Option<String>,
    /// The URL to which events are pushed.
    pub url: Option<String>,
    /// `enabled`, `disabled`, `locked`, or `unknown (…)`.
    pub status: String,
}

/// The result of an action.
#[derive(Debug, Default, Serialize)]
pub struct SubscriptionReport {
    /// The subscription as it was last read; `None`: there is none, or it was not read.
    pub subscription: Option<Shown>,
    /// The newest handshake of the platform for its subscriber, received by any process.
    pub handshake_at: Option<Millis>,
    /// Until when the platform refuses to enable it, as far as is known.
    pub locked_until: Option<Millis>,
    /// Whether the probe through the public URL arrived; `None`: none was sent.
    pub probed: Option<bool>,
    /// What is not as it should be, one sentence each.
    pub warnings: Vec<String>,
}
