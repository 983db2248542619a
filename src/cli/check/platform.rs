//! Checks the platform's API and the subscription.

use super::report::Report;
use crate::config::Settings;
use crate::subscription::{Expected, SubscriptionStatus};
use convoke_platform::{Client, NO_ADMINISTRATOR};

pub(super) async fn platform(report: &mut Report, settings: &Settings, client: &Client) {
    let identity = match client.identity().await {
        Ok(identity) => identity,
        Err(error) => return report.fail("platform", error.with_advice()),
    };
    let enterprise = identity.corp_id.map(|id| format!(", as enterprise {}", id.escape_debug())).unwrap_or_default();
    report.ok("platform", format!("its API accepts the credentials{enterprise}"));
    for enterprise in client.enterprises().iter().filter(|_| client.is_provider()) {
        let Some(corp_id) = enterprise.corp_id() else { continue };
        match enterprise.identity().await {
            Ok(identity) if identity.is_administrator() => {
                report.ok("enterprise", format!("{corp_id}: its meetings can be asked for"));
            }
            Ok(_) => report.fail("enterprise", format!("{corp_id}: {NO_ADMINISTRATOR}")),
            Err(error) => report.fail("enterprise", format!("{corp_id}: {}", error.with_advice())),
        }
    }
    let (what, expected) = ("subscribed", Expected::by(settings));
    let is = match client.subscription().await {
        Ok(is) => is,
        Err(error) => return report.fail(what, error.with_advice()),
    };
    let differences = is.as_ref().map(|is| expected.differences(is)).unwrap_or_default().join("; ");
    match expected.status_of(is.as_ref()) {
        SubscriptionStatus::Enabled => report.ok(
            what,
            "the platform's subscription is enabled and matches the \
                                                        settings",
        ),
        SubscriptionStatus::Elsewhere => {
            report.fail(what, format!("the platform's subscription is enabled, but {differences}"));
        }
        SubscriptionStatus::Locked => {
            report.fail(what, "the platform has locked the subscription because enabling it failed too often");
        }
        SubscriptionStatus::Missing => {
            report.warn(what, "the API shows none: run `convoke subscription set`, then `convoke subscription enable`");
        }
        SubscriptionStatus::Disabled => report.warn(what, "it is disabled: run `convoke subscription enable`"),
        SubscriptionStatus::Unknown => {
            report.warn(what, "the platform returned a status that its manual does not list");
        }
    }
}
