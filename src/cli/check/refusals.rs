//! What a running service refused in the last hour.

use std::collections::BTreeMap;

use serde::Deserialize;
use strum::VariantArray as _;

use super::super::running;
use crate::config::Settings;
use crate::http::refusals::{ConnectionFailure, Rejection};
use crate::metrics::Label as _;

/// Its answer.
#[derive(Debug, Deserialize)]
pub struct RecentRefusals {
    /// Minutes since it began to count.
    pub minutes: u64,
    by_reason: BTreeMap<String, u64>,
}

impl RecentRefusals {
    /// Asks the service; `None`: it is not there, or does not let us.
    pub async fn fetch(settings: &Settings) -> Option<Self> {
        running::fetch(settings, "/api/v1/refusals").await
    }

    /// A sentence for each reason for which something was refused that the platform may have sent, with what to do.
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
