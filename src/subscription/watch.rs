//! The subscription watch: reads the status regularly, shows it, and logs when it is not as it should be. It runs on the replica
//! that holds the lease of the cursor `meetings`.

use std::sync::Arc;
use std::time::Duration;

use strum::VariantArray as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use super::{Expected, SubscriptionStatus};
use crate::cursor::lease;
use crate::metrics::Registry;
use crate::projection;
use convoke_core::throttle::Reminder;
use convoke_core::time::Clock;
use convoke_log::{Handshakes, LogError};
use convoke_platform::Client;

/// How often a replica that does not watch checks whether it should.
const STANDBY_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often an unchanged problem is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// Minimum time between log lines about a status that keeps changing, unless it gets worse.
const CHANGE_LOG_INTERVAL: Duration = Duration::from_secs(600);

/// Registers a metric for the status, as far as this process knows it.
pub fn register(status: &watch::Receiver<Option<SubscriptionStatus>>, registry: &Registry) {
    let help = "1 for the present status of the subscription at the platform; all 0 if it is not watched, or another \
         replica watches it.";
    for shown in SubscriptionStatus::VARIANTS {
        let (labels, status) = ([("status", shown.as_str())], status.clone());
        registry
            .show("convoke_subscription_status", help, &labels, move || f64::from(*status.borrow() == Some(*shown)));
    }
}

/// The subscription watch of one process.
#[derive(Debug)]
pub struct SubscriptionWatch {
    client: Client,
    log: Arc<dyn Handshakes>,
    status: watch::Sender<Option<SubscriptionStatus>>,
    /// What the subscription should be; it changes with the settings.
    expected: watch::Receiver<Expected>,
    owner: String,
    every: Duration,
    clock: Clock,
    reminder: Reminder<SubscriptionStatus>,
    /// When the status was last read, as long as this process does the watching.
    read_at: Option<Duration>,
}

impl SubscriptionWatch {
    /// Reads the status once per `every`, in the process that takes leases as `owner`.
    #[must_use]
    pub fn new(
        client: Client,
        log: Arc<dyn Handshakes>,
        status: watch::Sender<Option<SubscriptionStatus>>,
        expected: watch::Receiver<Expected>,
        owner: String,
        every: Duration,
        clock: Clock,
    ) -> Self {
        let reminder = Reminder::new(CHANGE_LOG_INTERVAL);
        Self { client, log, status, expected, owner, every, clock, reminder, read_at: None }
    }

    /// Watches until `stop`, once the database is migrated.
    pub async fn run(mut self, migrated: CancellationToken, stop: CancellationToken) {
        let watching = async {
            migrated.cancelled().await;
            loop {
                if let Err(error) = self.look().await {
                    tracing::debug!(%error, "cannot tell whether this process watches the subscription");
                }
                tokio::time::sleep(STANDBY_POLL_INTERVAL.min(self.every)).await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = stop.cancelled() => {}
        }
    }

    /// Reads the status, if this process does the watching and it is due.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn look(&mut self) -> Result<(), LogError> {
        if lease::moved_by(&*self.log, projection::CURSOR, &self.owner).await?.is_none() {
            if self.read_at.take().is_some() {
                self.status.send_replace(None);
            }
            return Ok(());
        }
        let now = self.clock.steady();
        let changed = self.expected.has_changed().unwrap_or_default();
        if !changed && self.read_at.is_some_and(|at| now.saturating_sub(at) < self.every) {
            return Ok(());
        }
        self.read_at = Some(now);
        let read = self.client.subscription().await;
        let expected = self.expected.borrow_and_update().clone();
        let standing = match &read {
            Ok(is) => expected.status_of(is.as_ref()),
            Err(_) => SubscriptionStatus::Unknown,
        };
        self.status.send_replace(Some(standing));
        if standing == SubscriptionStatus::Enabled {
            if self.reminder.is_over() {
                tracing::info!("the subscription at the platform is enabled");
            }
        } else if self.reminder.is_due(standing, LOG_INTERVAL, now) {
            let detail = match &read {
                Ok(None) => {
                    "there is none: run `convoke subscription set`, then `convoke subscription enable`".to_owned()
                }
                Ok(Some(is)) => detail(standing, expected.differences(is)),
                Err(error) => format!("cannot read it: {}", error.with_advice()),
            };
            let status = standing.as_str();
            tracing::warn!(status, detail, "the subscription at the platform is not as it should be");
        }
        if let Ok(is) = read {
            Memory::noticed(&*self.log, is.map(|is| is.status), self.log.now().await?).await?;
        }
        Ok(())
    }
}

fn detail(standing: SubscriptionStatus, differences: Vec<String>) -> String {
    let what = match standing {
        SubscriptionStatus::Disabled => "no events are pushed: run `convoke subscription enable`",
        SubscriptionStatus::Locked => {
            "enabling it failed too often, and no events are pushed: find out what blocks the platform's handshake, \
             wait an hour, then run `convoke subscription enable`"
        }
        SubscriptionStatus::Unknown => "the platform returned a status that its manual does not list",
        SubscriptionStatus::Elsewhere | SubscriptionStatus::Enabled | SubscriptionStatus::Missing => {
            "events are pushed to another URL"
        }
    };
    std::iter::once(what.to_owned()).chain(differences).collect::<Vec<_>>().join("; ")
}
