//! Determines the subscriber to which the events belong that are made from the platform's API.

use std::sync::Arc;

use convoke_platform::{Client, PlatformError};

/// Why the subscriber could not be determined.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoSubscriber {
    /// The platform could not be asked for its subscription.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Neither the settings nor the platform name one.
    #[error("{0}")]
    Unknown(String),
}

/// The configured subscriber; if there are several, the one that the platform's subscription names: the enterprise's, or the
/// service provider's.
///
/// # Errors
/// [`NoSubscriber`].
pub async fn subscriber(
    subscribers: &[Arc<str>],
    client: &Client,
    enterprise: &Client,
) -> Result<Arc<str>, NoSubscriber> {
    match subscribers {
        [] => Err(NoSubscriber::Unknown(
            "no subscriber is configured, and the platform's data must belong to one: configure the subscriber whose \
             events are pushed (app_id of a [[subscriber]])"
                .to_owned(),
        )),
        [only] => Ok(Arc::clone(only)),
        several => {
            let mut subscription = enterprise.subscription().await?;
            if subscription.is_none() && client.is_provider() {
                subscription = client.subscription().await?;
            }
            let named = subscription.and_then(|subscription| subscription.subscriber_id);
            choose(several, named.as_deref())
        }
    }
}

fn choose(several: &[Arc<str>], named: Option<&str>) -> Result<Arc<str>, NoSubscriber> {
    let found = several.iter().find(|id| Some(&***id) == named);
    found.cloned().ok_or_else(|| {
        let several = several.len();
        NoSubscriber::Unknown(match named {
            Some(named) => format!(
                "the platform's subscription is for subscriber {named}, which is not one of the {several} configured \
                 subscribers: configure it, or run `convoke subscription set`"
            ),
            None => format!(
                "{several} subscribers are configured, and the platform has no subscription that says to which of \
                 them its events belong: run `convoke subscription set`, or configure one subscriber only"
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_subscribers_the_one_that_the_subscription_names_is_taken() {
        let several = ["1", "2"].map(Arc::from);
        assert_eq!(&*choose(&several, Some("2")).expect("it is configured"), "2");
        for (named, words) in [(Some("3"), "is for subscriber 3"), (None, "no subscription")] {
            let refused = choose(&several, named).expect_err("it is not").to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
