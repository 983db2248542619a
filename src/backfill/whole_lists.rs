//! Whom the platform is asked for lists of everybody's meetings, and why it may not be worth it.

use std::sync::Arc;

use super::{Error, NoSubscriber, subscriber};
use convoke_log::LogError;
use convoke_platform::{Client, NO_ADMINISTRATOR, PlatformError};

const PROVIDER: &str = "a service provider's account is not promised an enterprise's meetings: name its enterprises in \
                        platform.corp_ids, or one of them in platform.corp_id";

/// Why the platform's lists cannot be compared with the tables.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// See [`NoSubscriber`].
    #[error(transparent)]
    Nobody(#[from] NoSubscriber),
    /// The platform or the database failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The account may not see all meetings.
    #[error("{0}")]
    NotAdministrator(&'static str),
    /// A list changed while it was read.
    #[error("the platform's list of running meetings changed while it was read")]
    Changed,
}

impl From<LogError> for ComparisonError {
    fn from(error: LogError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<PlatformError> for ComparisonError {
    fn from(error: PlatformError) -> Self {
        Self::Failed(error.into())
    }
}

impl ComparisonError {
    /// The platform's error, if it is one.
    #[must_use]
    pub const fn platform_error(&self) -> Option<&PlatformError> {
        match self {
            Self::Nobody(NoSubscriber::Platform(error)) | Self::Failed(Error::Platform(error)) => Some(error),
            _ => None,
        }
    }
}

/// An enterprise of which all meetings can be seen.
#[derive(Clone, Debug)]
pub struct SeenEnterprise {
    /// The client that acts for it.
    pub client: Client,
    /// The subscriber to which its events belong.
    pub subscriber_id: Arc<str>,
}

/// The error, with the name of the enterprise if there are several.
fn of_enterprise(client: &Client, enterprise: &Client, error: PlatformError) -> PlatformError {
    match enterprise.corp_id().filter(|_| client.is_provider()) {
        Some(corp_id) => PlatformError { problem: format!("enterprise {corp_id}: {}", error.problem), ..error },
        None => error,
    }
}

/// The enterprises whose lists have everybody's meetings: in those of another account every other run would seem to be over, or
/// never to have been.
///
/// # Errors
/// [`ComparisonError`]: one of them cannot be seen.
pub async fn seen_enterprises(
    subscribers: &[Arc<str>],
    client: &Client,
) -> Result<Vec<SeenEnterprise>, ComparisonError> {
    let mut seen = Vec::new();
    for enterprise in client.enterprises() {
        if enterprise.is_provider() {
            return Err(ComparisonError::NotAdministrator(PROVIDER));
        }
        let identity = enterprise.identity().await.map_err(|error| of_enterprise(client, &enterprise, error))?;
        if !identity.is_administrator() {
            return Err(ComparisonError::NotAdministrator(NO_ADMINISTRATOR));
        }
        let subscriber_id = subscriber(subscribers, client, &enterprise).await?;
        seen.push(SeenEnterprise { client: enterprise, subscriber_id });
    }
    Ok(seen)
}
