//! The helpers: tasks that taking events does not depend on, restarted after a failure.

use std::sync::Arc;

use prometheus::Opts;
use tokio::sync::watch;

use super::shared::Parts;
use super::tasks::Phase;
use crate::actions;
use crate::audit::watch::{StreamMetrics, StreamWatch};
use crate::backfill::task::{self, BackfillMetrics};
use crate::completeness::task::{self as completeness, CompletenessMetrics};
use crate::enrichment::{self, Directory, Enrichment, PEOPLE_TASK};
use crate::live::{self, LiveMetrics, LivePace, LiveParts};
use crate::metrics::{Counters, Registry};
use crate::projection::{self, Projector};
use crate::recordings::{self, Recordings};
use crate::relay::{self, Encoder, Relay, RelayMetrics};
use crate::running::{self, RunningMeetings, RunningMetrics};
use crate::subscription::watch::SubscriptionWatch;
use crate::subscription::{Expected, SubscriptionStatus};
use convoke_platform::Class;

/// The stream watch rests this many times as long as it works; on a large table it then takes about 2 % of one CPU.
const WATCH_REST_FACTOR: u32 = 60;

const TABLES: &str = "analyst_tables";
const BACKFILL: &str = "backfill";
const RECORDINGS: &str = "recordings";
const RELAY: &str = "relay";
const WATCH: &str = "stream_watch";
const SUBSCRIPTION: &str = "subscription_watch";

/// All possible helpers, whether the settings enable them or not.
pub(super) const NAMES: [&str; 16] = [
    actions::NAME,
    TABLES,
    BACKFILL,
    super::upkeep::NAME,
    completeness::TASK,
    enrichment::TASK,
    super::reload::NAME,
    super::gauges::NAME,
    live::TASK,
    PEOPLE_TASK,
    RECORDINGS,
    RELAY,
    running::TASK,
    WATCH,
    super::listeners::STREAMS,
    SUBSCRIPTION,
];

/// The projection, and the helpers that fill and watch the stream.
pub(super) fn of_the_log(parts: &mut Parts<'_>) {
    parts.cursor((TABLES, projection::CURSOR), Phase::Cursors, |it, _| {
        Projector::new(it.log.clone(), it.owner.clone()).following(Arc::clone(&it.recent))
    });
    let (relayed, watched) = (RelayMetrics::new(parts.registry), StreamMetrics::new(parts.registry));
    let Some(bus) = parts.shared.bus.clone() else { return };
    let (of, retention) = (Arc::clone(&bus), parts.settings.database.retention);
    parts.helper(WATCH, Phase::Cursors, move |it, stop| {
        let (bus, metrics) = (Arc::clone(&of), watched.clone());
        StreamWatch::new(it.log, bus, metrics, it.owner, retention, WATCH_REST_FACTOR).run(it.migrated, stop)
    });
    let mask = parts.settings.privacy.mask.clone();
    parts.cursor((RELAY, relay::CURSOR), Phase::Cursors, move |it, _| {
        let encoder = Encoder::new(bus.subject_prefix(), mask.clone());
        let (log, recent, metrics) = (it.log.clone(), Arc::clone(&it.recent), relayed.clone());
        Relay::new(log, recent, Arc::clone(&bus), encoder, metrics, it.owner.clone())
    });
}

fn failures(registry: &Registry, task: &str) -> Counters<Class> {
    let help = "Failed calls of the platform's API, by what to do about them.";
    registry.counters_with(Opts::new("convoke_fetch_failures_total", help).const_label("task", task), "class")
}

/// The helpers that call the platform, as far as the settings enable them; `status` shows the state of the subscription.
pub(super) fn of_the_platform(parts: &mut Parts<'_>, status: watch::Sender<Option<SubscriptionStatus>>) {
    let backfilled = BackfillMetrics::new(parts.registry);
    let (recorded, enriched) = (failures(parts.registry, RECORDINGS), failures(parts.registry, enrichment::TASK));
    let listed = failures(parts.registry, PEOPLE_TASK);
    let running = RunningMetrics::new(parts.registry);
    let compared = CompletenessMetrics::new(parts.registry, failures(parts.registry, completeness::TASK));
    let attended = LiveMetrics::new(parts.registry);
    let settings = parts.settings;
    let (Some(platform), Some(client)) = (&settings.platform, parts.shared.client.clone()) else { return };
    if let Some(every) = platform.backfill_every {
        let subscribers = parts.reloader.follow(settings, |settings| settings.subscriber_ids());
        let (client, retention) = (client.clone(), settings.database.retention);
        parts.helper(BACKFILL, Phase::Sources, move |it, stop| {
            let task = task::Task {
                every,
                owner: it.owner,
                cursor: projection::CURSOR,
                subscribers: subscribers.clone(),
                retention,
                log: it.log,
                intake: it.intake,
                client: client.clone(),
                metrics: backfilled.clone(),
                clock: it.clock,
            };
            task.run(it.migrated, stop)
        });
    }
    if let Some(every) = platform.running_every {
        let subscribers = parts.reloader.follow(settings, |settings| settings.subscriber_ids());
        let client = client.clone();
        parts.helper(running::TASK, Phase::Sources, move |it, stop| {
            let task = RunningMeetings::new(running::RunningParts {
                owner: it.owner,
                cursor: projection::CURSOR,
                subscribers: subscribers.clone(),
                log: it.log,
                intake: it.intake,
                client: client.clone(),
                metrics: running.clone(),
                clock: it.clock,
            });
            task.run(every, it.migrated, stop)
        });
    }
    if let Some(options) = platform.live.clone() {
        let client = client.clone();
        parts.helper(live::TASK, Phase::Sources, move |it, stop| {
            let (client, options, metrics) = (client.clone(), options.clone(), attended.clone());
            let (owner, log, intake, clock, pace) = (it.owner, it.log, it.intake, it.clock, LivePace::default());
            live::run(LiveParts { owner, log, intake, client, options, pace, metrics, clock }, it.migrated, stop)
        });
    }
    if let Some(every) = platform.completeness_every {
        let subscribers = parts.reloader.follow(settings, |settings| settings.subscriber_ids());
        let client = client.clone();
        let zone = settings.reports.time_zone.clone();
        parts.helper(completeness::TASK, Phase::Sources, move |it, stop| {
            let task = completeness::CompletenessTask::new(
                completeness::CompletenessParts {
                    owner: it.owner,
                    cursor: projection::CURSOR,
                    subscribers: subscribers.clone(),
                    log: it.log,
                    client: client.clone(),
                    zone: zone.clone(),
                    metrics: compared.clone(),
                    clock: it.clock,
                },
                every,
            );
            task.run(it.migrated, stop)
        });
    }
    if platform.recordings {
        let client = client.clone();
        parts.cursor((RECORDINGS, recordings::CURSOR), Phase::Sources, move |it, stop| {
            let (log, intake, clock, owner) = (it.log.clone(), it.intake.clone(), it.clock.clone(), it.owner.clone());
            Recordings::new(log, intake, client.clone(), recorded.clone(), clock, owner, stop.clone())
        });
    }
    if platform.enrich {
        let client = client.clone();
        parts.helper(enrichment::TASK, Phase::Sources, move |it, stop| {
            let (client, leader) = (client.clone(), (projection::CURSOR, it.owner));
            Enrichment::new(it.log, client, enriched.clone(), it.clock, leader).run(it.migrated, stop)
        });
    }
    if platform.people {
        let client = client.clone();
        parts.helper(PEOPLE_TASK, Phase::Sources, move |it, stop| {
            let leader = (projection::CURSOR, it.owner);
            Directory::new(it.log, client.clone(), listed.clone(), it.clock, leader).run(it.migrated, stop)
        });
    }
    if let Some(every) = platform.watch_every {
        let expected = parts.reloader.follow(settings, Expected::by);
        parts.helper(SUBSCRIPTION, Phase::Rest, move |it, stop| {
            let (client, status, expected) = (client.clone(), status.clone(), expected.clone());
            SubscriptionWatch::new(client, it.log, status, expected, it.owner, every, it.clock).run(it.migrated, stop)
        });
    }
}
