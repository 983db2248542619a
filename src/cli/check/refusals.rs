//! What a running service refused in the last hour.

use std::collections::BTreeMap;

use serde::Deserialize;
use strum::VariantArray as _;

use super::super::running;
use crate::config::Settings;
use crate::http::refusals::{ConnectionFailure, Rejection};
use crate::metrics::Label as _;

/// The response of the service.
#[derive(Debug, Deserialize)]
pub struct RecentRefusals {
    /// Minutes since the service began to count.
    pub minutes: u64,
    by_reason: BTreeMap<String, u64>,
}

impl RecentRefusals {
    /// Asks the service; `None`: it is not running, or refuses access.
    pub async fn fetch(settings: &Settings) -> Option<Self> {
        running::fetch(settings, "/api/v1/refusals").await
    }

    /// One sentence with advice for each reason that may have affected the platform's requests.
    pub fn sentences(&self, path: &str) -> Vec<String> {
        let count = |reason: &str| self.by_reason.get(reason).copied().filter(|count| *count > 0);
        let path = count(Rejection::Path.as_str()).map(|count| {
            format!(
                "requests to another path than {path} ({count}): if the platform posts there, correct its URL, or listen.path"
            )
        });
        let failures = ConnectionFailure::VARIANTS.iter().filter_map(|failure| {
            Some(format!("connections that brought no request ({}): {}", count(failure.as_str())?, failure.todo()))
        });
        path.into_iter().chain(failures).collect()
    }
}
