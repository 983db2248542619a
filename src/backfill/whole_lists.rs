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
    /// What is the matter with one of a service provider's enterprises.
    #[error("enterprise {corp_id}: {error}")]
    OfEnterprise {
        /// Which one.
        corp_id: String,
        /// What it is.
        error: Box<ComparisonError>,
    },
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
    /// The same, of this one of several enterprises.
    #[must_use]
    pub fn of_enterprise(self, corp_id: Option<String>) -> Self {
        match corp_id {
            Some(corp_id) => Self::OfEnterprise { corp_id, error: Box::new(self) },
            None => self,
        }
    }

    /// The platform's error, if it is one.
    #[must_use]
    pub fn platform_error(&self) -> Option<&PlatformError> {
        match self {
            Self::OfEnterprise { error, .. } => error.platform_error(),
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

/// What is asked of each enterprise.
#[derive(Debug)]
pub struct Enterprises {
    /// Those that can be seen: at least one.
    pub seen: Vec<SeenEnterprise>,
    /// Why others cannot, of a service provider's.
    pub refused: Vec<ComparisonError>,
}

/// The enterprises whose lists have everybody's meetings: in those of another account every other run would seem to be over, or
/// never to have been.
///
/// # Errors
/// [`ComparisonError`]: none of them can be seen. What one refuses costs the others nothing.
pub async fn seen_enterprises(subscribers: &[Arc<str>], client: &Client) -> Result<Enterprises, ComparisonError> {
    let (mut seen, mut refused) = (Vec::new(), Vec::new());
    for enterprise in client.enterprises() {
        let corp_id = client.name_of(&enterprise);
        match see(subscribers, client, enterprise).await {
            Ok(enterprise) => seen.push(enterprise),
            Err(error) => refused.push(error.of_enterprise(corp_id)),
        }
    }
    if seen.is_empty()
        && let Some(error) = refused.pop()
    {
        return Err(error);
    }
    Ok(Enterprises { seen, refused })
}

async fn see(subscribers: &[Arc<str>], client: &Client, enterprise: Client) -> Result<SeenEnterprise, ComparisonError> {
    if enterprise.is_provider() {
        return Err(ComparisonError::NotAdministrator(PROVIDER));
    }
    if !enterprise.identity().await?.is_administrator() {
        return Err(ComparisonError::NotAdministrator(NO_ADMINISTRATOR));
    }
    let subscriber_id = subscriber(subscribers, client, &enterprise).await?;
    Ok(SeenEnterprise { client: enterprise, subscriber_id })
}
