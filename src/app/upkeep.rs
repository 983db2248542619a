//! The database: connecting and migrating, however long that takes, and then regular upkeep.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::shared::{Parts, Shared};
use super::tasks::Phase;
use convoke_core::throttle::Throttle;
use convoke_core::zone::TimeZone;
use convoke_log::{DaysKept, LogError, Maintenance, RetentionHeld};

pub(super) const NAME: &str = "database_upkeep";

/// Back-off between attempts to reach the database at startup.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// How often it is checked what holds retention back, and how often that is logged.
const RETENTION_CHECK_INTERVAL: Duration = Duration::from_secs(10);
const RETENTION_LOG_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// How often it is looked whether the days of the views are still those of the setting, and reach far enough.
const DAYS_CHECK_INTERVAL: Duration = Duration::from_secs(3600);

pub(super) fn register(parts: &mut Parts<'_>) {
    let (shared, migrate) = (parts.shared.clone(), parts.settings.database.migrate);
    let zone = parts.settings.reports.time_zone.clone();
    parts.tasks.keep(NAME, Phase::Rest, move |stop| upkeep(shared.clone(), migrate, zone.clone(), stop));
}

async fn upkeep(shared: Shared, migrate: bool, zone: TimeZone, stop: CancellationToken) -> anyhow::Result<()> {
    if !migrated(&shared, migrate, &zone, &stop).await? {
        return Ok(());
    }
    tokio::select! {
        () = maintenance(&shared, &zone, &stop) => {}
        () = shared.log.listen() => {}
    }
    Ok(())
}

/// Waits for `pause`; `false` if it is time to stop.
async fn paused(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        () = stop.cancelled() => false,
    }
}

/// Retries the migration until it works; `false` if it is time to stop first.
async fn migrated(shared: &Shared, migrate: bool, zone: &TimeZone, stop: &CancellationToken) -> anyhow::Result<bool> {
    let log = &shared.log;
    let (mut pause, mut said, throttle) = (MIN_RETRY_DELAY, String::new(), Throttle::default());
    loop {
        match log.migrate(migrate).await {
            Ok(schema) => {
                // An open transaction of another session may block new partitions for hours. That is no reason to wait: the
                // existing partitions have room.
                if let Err(error) = maintain(&**log).await {
                    tracing::warn!(%error, "database maintenance failed; retrying");
                }
                let (database, version, applied) = (log.describe(), schema.version, schema.applied);
                tracing::info!(database, version, applied, "the database is up to date");
                keep_days(shared, zone, true).await;
                first_look(shared).await;
                shared.migrated.cancel();
                return Ok(true);
            }
            Err(error) if error.may_pass() => {
                let mut reason = error.to_string();
                if !migrate && matches!(error, LogError::Unmigrated { .. }) {
                    reason += "; as database.migrate is false, run `convoke migrate` as the user of this service";
                }
                if said != reason {
                    throttle.run("start", |suppressed| {
                        let (database, reason) = (log.describe(), &reason);
                        if let LogError::Unavailable(_) = error {
                            tracing::error!(
                                database,
                                reason,
                                suppressed,
                                "cannot reach the database: events are answered 503; retrying"
                            );
                        } else {
                            tracing::error!(
                                database,
                                reason,
                                suppressed,
                                "cannot use the database: events are answered 503 until this is fixed; retrying"
                            );
                        }
                    });
                    said = reason;
                }
            }
            Err(error) => return Err(error.into()),
        }
        if !paused(pause, stop).await {
            return Ok(false);
        }
        pause = (pause * 2).min(MAX_RETRY_DELAY);
    }
}

/// Checks a database that was just reached: its durability settings, and when the last events arrived.
async fn first_look(shared: &Shared) {
    match shared.log.weaknesses().await {
        Ok(weaknesses) => weaknesses.iter().for_each(|weakness| {
            tracing::warn!(weakness, "events that were answered 200 may not survive a power cut");
        }),
        Err(error) => tracing::debug!(%error, "cannot tell whether the database is durable"),
    }
    let health = &shared.health;
    if let Err(error) = health.last_seen.recall(&health.subscribers(), shared.clock.now()).await {
        tracing::debug!(%error, "cannot tell yet when the last events arrived");
    }
}

/// Makes the days of the views those of the setting. At a start the newest setting wins; later a difference is told, as replicas
/// that disagree would overwrite each other for ever.
async fn keep_days(shared: &Shared, zone: &TimeZone, starting: bool) {
    let kept = async { shared.log.keep_days(zone, shared.log.now().await?, starting).await };
    match kept.await {
        Ok(DaysKept::AsBefore) => {}
        Ok(DaysKept::Written) => {
            tracing::info!(time_zone = zone.name(), "the days of the views were written (reports.time_zone)");
        }
        Ok(DaysKept::OfAnother(theirs)) => tracing::warn!(
            "the days of the views are those of {theirs}, as another instance has it, and reports.time_zone is {} here: \
             set the same in all instances, and restart them",
            zone.name()
        ),
        Err(error) => {
            tracing::warn!(%error, "cannot keep the days of the views (reports.time_zone); retrying within an hour");
        }
    }
}

async fn maintenance(shared: &Shared, zone: &TimeZone, stop: &CancellationToken) {
    let log = &shared.log;
    let mut days_checked = shared.clock.steady();
    let (failed, held) = (Throttle::default(), Throttle::new(1, RETENTION_LOG_INTERVAL));
    let mut checked: Option<Duration> = None;
    while paused(log.maintenance_interval(), stop).await {
        if let Err(error) = maintain(&**log).await {
            failed.run("maintenance", |suppressed| {
                tracing::warn!(%error, suppressed, "database maintenance failed; retrying");
            });
        }
        let now = shared.clock.steady();
        if now.saturating_sub(days_checked) > DAYS_CHECK_INTERVAL {
            days_checked = now;
            keep_days(shared, zone, false).await;
        }
        if checked.is_none_or(|checked| now.saturating_sub(checked) > RETENTION_CHECK_INTERVAL)
            && let Ok(reason) = retention_held(&**log).await
        {
            checked = Some(now);
            shared.health.update(|known| known.retention_blocked = reason.is_some());
            if let Some(reason) = reason {
                held.run("retention", |_| tracing::warn!("retention is paused: {reason}"));
            }
        }
    }
}

/// Uses the database's clock: this host's may differ, and what upkeep deletes is gone for every replica.
async fn maintain(log: &dyn Maintenance) -> Result<(), LogError> {
    log.maintain(log.now().await?).await
}

async fn retention_held(log: &dyn Maintenance) -> Result<Option<RetentionHeld>, LogError> {
    log.retention_held(log.now().await?).await
}
