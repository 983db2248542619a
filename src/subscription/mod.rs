//! The subscription at the platform: what it should be, what it is, and how to change it.
//!
//! Enabling is the one call that can do harm: the platform counts failed attempts, and locks the subscription for an hour
//! (manual, table of error codes, `MMC.111071120`). So [`actions`] enables it only after a [`probe`] has shown that a handshake
//! to the public URL arrives in this very installation of Convoke, and records failures in the database ([`memory`]). [`watch`]
//! checks regularly whether the subscription is still enabled.

pub mod actions;
pub mod memory;
pub mod probe;
pub mod report;
pub mod watch;

use std::sync::Arc;

use axum::http::Uri;

use convoke_platform::{Status, Subscription};

convoke_core::words! {
    /// The state of the subscription at the platform, for the service; a worse state is greater.
    #[derive(PartialOrd, Ord, strum::VariantArray)]
    pub enum SubscriptionStatus as "Stands" {
        /// Events are pushed to the right URL.
        Enabled = "enabled",
        /// The subscription could not be read.
        Unknown = "unknown",
        /// Events are pushed, but to another URL or subscriber.
        Elsewhere = "elsewhere",
        /// The subscription is disabled.
        Disabled = "disabled",
        /// The subscription is locked, because enabling failed too often.
        Locked = "locked",
        /// There is no subscription.
        Missing = "missing",
    }
}

/// What the subscription should be according to the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// `platform.callback_url`.
    pub url: Option<String>,
    /// The subscribers whose events are taken.
    pub subscribers: Arc<[Arc<str>]>,
}

impl Expected {
    /// Reads it from the settings.
    #[must_use]
    pub fn by(settings: &crate::config::Settings) -> Self {
        Self {
            url: settings.platform.as_ref().and_then(|platform| platform.callback_url.clone()),
            subscribers: settings.subscriber_ids(),
        }
    }

    /// How the subscription differs from what it should be, one sentence per difference.
    #[must_use]
    pub fn differences(&self, is: &Subscription) -> Vec<String> {
        let mut found = Vec::new();
        match &is.subscriber_id {
            Some(id) if self.subscribers.iter().any(|known| **known == **id) => {}
            Some(id) => {
                found.push(format!("the subscription is for subscriber {}, which is not configured here", plain(id)));
            }
            None => found.push("the subscription names no subscriber".to_owned()),
        }
        match (&is.url, &self.url) {
            (None, _) => found.push("the subscription names no URL".to_owned()),
            (Some(is), Some(should)) if !same_url(is, should) => {
                found.push(format!("the subscription pushes to {}, but platform.callback_url is {should}", plain(is)));
            }
            _ => {}
        }
        found
    }

    /// The state of a subscription.
    #[must_use]
    pub fn status_of(&self, is: Option<&Subscription>) -> SubscriptionStatus {
        match is.map(|is| (is, is.status)) {
            None => SubscriptionStatus::Missing,
            Some((_, Status::Disabled)) => SubscriptionStatus::Disabled,
            Some((_, Status::Locked)) => SubscriptionStatus::Locked,
            Some((_, Status::Other(_))) => SubscriptionStatus::Unknown,
            Some((is, Status::Enabled)) if self.differences(is).is_empty() => SubscriptionStatus::Enabled,
            Some(_) => SubscriptionStatus::Elsewhere,
        }
    }
}

/// Whether two URLs are equal: scheme and host are compared case-insensitively, everything else literally.
fn same_url(one: &str, other: &str) -> bool {
    match (one.parse::<Uri>(), other.parse::<Uri>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Text from the platform, made safe for a terminal.
fn plain(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

/// The status as text.
#[must_use]
pub fn in_words(status: Status) -> String {
    match status {
        Status::Enabled => "enabled".to_owned(),
        Status::Disabled => "disabled".to_owned(),
        Status::Locked => "locked".to_owned(),
        Status::Other(number) => format!("unknown ({number})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let url = Some("https://hooks.example.com/openapi/meetingevent".to_owned());
        Expected { url, subscribers: ["7700001234".into(), "2".into()].into() }
    }

    fn subscription(status: Status) -> Subscription {
        Subscription {
            id: "0a1b".to_owned(),
            subscriber_id: Some("2".to_owned()),
            url: Some("HTTPS://Hooks.example.com/openapi/meetingevent".to_owned()),
            status,
        }
    }

    #[test]
    fn what_is_enabled_and_as_configured_stands_well_and_everything_else_does_not() {
        let status_of = |is: Option<Subscription>| expected().status_of(is.as_ref());
        assert_eq!(status_of(None), SubscriptionStatus::Missing);
        for (status, expected) in [
            (Status::Enabled, SubscriptionStatus::Enabled),
            (Status::Disabled, SubscriptionStatus::Disabled),
            (Status::Locked, SubscriptionStatus::Locked),
            (Status::Other(7), SubscriptionStatus::Unknown),
        ] {
            assert_eq!(status_of(Some(subscription(status))), expected);
        }
        for (subscriber_id, url) in [
            (Some("3"), Some("https://hooks.example.com/openapi/meetingevent")),
            (None, Some("https://hooks.example.com/openapi/meetingevent")),
            (Some("2"), Some("https://hooks.example.com/openapi/MeetingEvent")),
            (Some("2"), Some("https://hooks.example.com:8443/openapi/meetingevent")),
            (Some("2"), Some("not a URL")),
            (Some("2"), None),
        ] {
            let is = Subscription {
                subscriber_id: subscriber_id.map(str::to_owned),
                url: url.map(str::to_owned),
                ..subscription(Status::Enabled)
            };
            assert_eq!(expected().differences(&is).len(), 1, "{is:?}");
            assert_eq!(status_of(Some(is)), SubscriptionStatus::Elsewhere);
        }
        let anywhere = Expected { url: None, ..expected() };
        assert_eq!(anywhere.status_of(Some(&subscription(Status::Enabled))), SubscriptionStatus::Enabled);
    }

    #[test]
    fn what_the_platform_reported_cannot_drive_a_terminal() {
        let is = Subscription { url: Some("https://x/\u{1b}[2J\n".to_owned()), ..subscription(Status::Enabled) };
        let said = expected().differences(&is).concat();
        assert!(!said.contains(char::is_control), "{said:?}");
    }
}
