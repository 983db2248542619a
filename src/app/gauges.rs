//! Values that only the database and the disk know, read once a second for the gauges and the page.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::shared::{Parts, Shared};
use super::tasks::Phase;
use super::warn_of_validity;
use crate::completeness::task::LastFound;
use crate::http::health::{CURSORS, CursorHealth};
use crate::http::server::{CertificateWatch, Certificates};
use crate::{enrichment, recordings};
use convoke_core::id::Seq;
use convoke_log::LogError;
use convoke_log::disk::DiskWatch;

pub(super) const NAME: &str = "gauges";

const GAUGES_INTERVAL: Duration = Duration::from_secs(1);

/// For the cursors that are registered so far.
pub(super) fn register(parts: &mut Parts<'_>) {
    let cursors = parts.cursors.clone();
    parts.helper(NAME, Phase::Rest, move |shared, stop| gauges(shared, cursors.clone(), stop));
}

async fn gauges(shared: Shared, cursors: Vec<&'static str>, stop: CancellationToken) {
    let Shared { log, health, clock, migrated, .. } = &shared;
    let mut disk_watch = DiskWatch::new(clock.clone());
    let watched = |shown: &Certificates| (shown.clone(), CertificateWatch::new(shown.expires(), clock.clone()));
    let mut certificates = health.certificates.as_ref().map(watched);
    loop {
        if let Some((certificates, watch)) = &mut certificates
            && watch.is_due(certificates.expires())
        {
            warn_of_validity(certificates);
        }
        health.refusals.sample(clock.now());
        health.deliveries.log_if_due();
        let disk = log.disk();
        health.update(|looked| looked.disk_free = disk.map(|disk| disk.free));
        if let Some(disk) = disk
            && let Some(warning) = disk_watch.note(disk)
        {
            warning.say(disk);
        }
        health.intake.warn_if_due();
        if migrated.is_cancelled() {
            let looked = look(&shared, &cursors).await;
            health.update(|known| known.reachable = looked.is_ok());
            if let Err(error) = looked {
                tracing::debug!(%error, "could not update the gauges");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GAUGES_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn look(shared: &Shared, running: &[&'static str]) -> Result<(), LogError> {
    let Shared { log, health, clock, .. } = shared;
    let states = log.cursors().await?;
    let mut cursors = Vec::new();
    for name in CURSORS.into_iter().filter(|name| running.contains(name)) {
        let lag = log.lag(name).await?;
        let seconds = lag.oldest.map_or(0.0, |oldest| clock.now().since(oldest).as_secs_f64());
        let state = states.iter().find(|state| state.name == name);
        cursors.push(CursorHealth {
            name: name.to_owned(),
            position: state.map_or(0, |state| state.position.0),
            lag_events: lag.events,
            lag_seconds: seconds,
            owner: state.and_then(|state| state.owner.clone()),
        });
    }
    health.update(|known| known.cursors = cursors);
    if health.compares {
        let found = LastFound::load(&**log).await?;
        health.update(|known| known.completeness = found);
    }
    let counts = log.counts().await?;
    let (fetches, enrichments) = log.work_counts().await?;
    health.update(|known| {
        known.quarantined = counts.quarantined;
        let set_aside = |name| (name, counts.set_aside.get(name).copied().unwrap_or(0));
        known.set_aside = CURSORS.into_iter().map(set_aside).collect();
        known.work = [(recordings::CURSOR, fetches), (enrichment::TASK, enrichments)].into();
    });
    for (subscriber, at) in counts.handshakes {
        if let Some(seen) = health.last_seen.known(&subscriber) {
            seen.handshake.raise(at);
        }
    }
    // Uses the log's own connections instead of those for user queries, so that slow queries do not delay the gauges.
    let newest = log.read(Seq(log.head().await?.0 - 1), 1).await?;
    if let Some(newest) = newest.first() {
        health.last_seen.note(newest);
        health.update(|known| known.newest = Some(newest.received_at));
    }
    // Includes subscribers that a reload has added.
    health.last_seen.recall(&health.subscribers(), clock.now()).await?;
    health.last_seen.keep(clock.now()).await
}
