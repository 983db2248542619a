//! Checks the log's database, and the state of the service that is recorded in it.

use std::sync::Arc;
use std::time::Duration;

use super::report::Report;
use crate::app;
use crate::config::{Settings, redact_url};
use crate::intake::{HEARTBEAT_TIMEOUT, PLATFORM_RETRY_TIME};
use crate::relay;
use crate::words::counted;
use convoke_core::human;
use convoke_core::time::Millis;
use convoke_log::disk::Level;
use convoke_log::{self as log, LiveState, Store};

/// Allowed difference between two clocks.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// A longer outage is a failure: an operator must act.
const MAX_HEARTBEAT_AGE: Duration = Duration::from_secs(3600);

/// The log, if it can be opened, and whether its tables exist.
pub(super) async fn open_log(report: &mut Report, settings: &Settings) -> (Option<Arc<dyn Store>>, bool) {
    let shown = redact_url(&settings.database.url);
    let log = match log::open(&app::log_options(settings)) {
        Ok(log) => log,
        Err(error) => {
            report.fail("database", error);
            return (None, true);
        }
    };
    match log.migrate(false).await {
        Ok(_) => {
            report.ok("database", log.describe());
            if let Some(problem) = log::files_of_another(&settings.database.url) {
                report.warn("database", problem);
            }
            (Some(log), true)
        }
        Err(error) => {
            let made = !error.not_made();
            if made {
                report.fail("database", format!("{shown}: {error}"));
            } else {
                report.warn("database", error);
            }
            log.close().await;
            (None, made)
        }
    }
}

pub(super) async fn database(report: &mut Report, settings: &Settings, log: &dyn Store, now: Millis) {
    match log.probe().await {
        Ok(()) => report.ok("writing", "the database accepts events"),
        Err(error) => report.fail("writing", error),
    }
    match log.weaknesses().await {
        Ok(weaknesses) => weaknesses.iter().for_each(|weakness| report.fail("durable", weakness)),
        Err(error) => report.fail("durable", error),
    }
    if let Some(disk) = log.disk() {
        let text = format!("{} free", bytesize::ByteSize(disk.free));
        if disk.level() == Level::Plenty { report.ok("disk", text) } else { report.warn("disk", text) }
    }
    let outcome = service(report, log).await;
    report.part("heartbeat", outcome);
    match log.now().await {
        Ok(theirs) => {
            let apart = now.since(theirs).max(theirs.since(now));
            if apart > MAX_CLOCK_DIFFERENCE {
                report.fail("clock", format!("{apart:?} apart from the database's: check NTP on both"));
            } else {
                report.ok("clock", format!("{}, the database agrees", settings.reports.time_zone.local(now)));
            }
        }
        Err(error) => report.fail("clock", error),
    }
    let outcome = days(report, settings, log).await;
    report.part("days", outcome);
    let outcome = retention(report, log).await;
    report.part("retention", outcome);
    let outcome = quarantine(report, log).await;
    report.part("quarantine", outcome);
    let outcome = cursors(report, log).await;
    report.part("cursor", outcome);
    let outcome = live(report, settings, log).await;
    report.part("live", outcome);
}

/// Whether the running meetings that are wanted can be attended.
async fn live(report: &Report, settings: &Settings, log: &dyn Store) -> Result<(), log::LogError> {
    if settings.platform.as_ref().is_none_or(|platform| platform.live.is_none()) {
        return Ok(());
    }
    let all = log.live_standings().await?;
    let attended = all.iter().filter(|it| it.state == LiveState::Attending && it.reason.is_none()).count();
    report.ok("live", format!("{} attended", counted(attended, "running meeting", "running meetings")));
    let troubled = all.iter().filter(|it| !matches!(it.state, LiveState::Waiting | LiveState::Unwanted));
    for meeting in troubled.filter_map(|it| it.reason.as_ref().map(|why| format!("{}: {why}", it.meeting_id))).take(5) {
        report.warn("live", meeting);
    }
    Ok(())
}

/// Whether the views count by the days of the setting.
async fn days(report: &Report, settings: &Settings, log: &dyn Store) -> Result<(), log::LogError> {
    let ours = settings.reports.time_zone.name();
    match log.days_zone().await? {
        Some(theirs) if theirs == ours => report.ok("days", format!("the views count by days of {ours}")),
        theirs => report.warn(
            "days",
            format!(
                "the views count by days of {}, and reports.time_zone is {ours}: set the same in all instances, and \
                 restart the service",
                theirs.as_deref().unwrap_or("nobody")
            ),
        ),
    }
    Ok(())
}

/// Whether a service accepts events.
async fn service(report: &mut Report, log: &dyn Store) -> Result<(), log::LogError> {
    let Some(heartbeat) = log.heartbeat().await? else {
        report.warn("heartbeat", "none yet: no `convoke serve` has accepted events with this database");
        return Ok(());
    };
    let text = format!("events were accepted at {}, {} ago", heartbeat.at, human::duration(heartbeat.age));
    if heartbeat.elsewhere {
        report.fail(
            "heartbeat",
            format!(
                "{text}, but into another file, and this one is a copy of it: a `convoke serve` that has the other \
                 file open refuses events until it is restarted; after a restore, start `convoke serve`"
            ),
        );
        return Ok(());
    }
    if heartbeat.age <= HEARTBEAT_TIMEOUT {
        report.ok("heartbeat", text);
        return Ok(());
    }
    if heartbeat.age < MAX_HEARTBEAT_AGE {
        report.warn("heartbeat", text);
    } else {
        let left = match PLATFORM_RETRY_TIME.checked_sub(heartbeat.age) {
            Some(left) => format!("drops the first events in {}", human::duration(left)),
            None => "drops events now: run `convoke backfill` to get them from its history".to_owned(),
        };
        report.fail("heartbeat", format!("{text}, and not since then; the platform {left}"));
    }
    report.fail(
        "service",
        format!(
            "no `convoke serve` has accepted events with this database for {}: start it, or look at its log",
            human::duration(heartbeat.age)
        ),
    );
    Ok(())
}

/// What holds retention back.
async fn retention(report: &Report, log: &dyn Store) -> Result<(), log::LogError> {
    if let Some(held) = log.retention_held(log.now().await?).await? {
        report.warn("retention", held);
    }
    Ok(())
}

async fn quarantine(report: &Report, log: &dyn Store) -> Result<(), log::LogError> {
    let counts = log.counts().await?;
    if counts.quarantined > 0 {
        let entries = counted(counts.quarantined.unsigned_abs(), "entry", "entries");
        report.warn("quarantine", format!("{entries}: see `convoke quarantine list`"));
    }
    for (cursor, rows) in &counts.set_aside {
        let events = counted(rows.unsigned_abs(), "event", "events");
        let way = if cursor == relay::CURSOR {
            "; raise max_payload of NATS, then run `convoke replay --set-aside`"
        } else {
            ""
        };
        report.warn("set aside", format!("{events}, by the cursor {cursor}: see the table set_aside{way}"));
    }
    Ok(())
}

async fn cursors(report: &Report, log: &dyn Store) -> Result<(), log::LogError> {
    for cursor in log.cursors().await? {
        let lag = log.lag(&cursor.name).await?;
        let owner = cursor.owner.as_deref().unwrap_or("nobody");
        let behind = counted(lag.events, "event", "events");
        let text = format!("{} at {}, {behind} behind, processed by {owner}", cursor.name, cursor.position);
        if lag.events > 0 && cursor.owner.is_none() { report.warn("cursor", text) } else { report.ok("cursor", text) }
    }
    Ok(())
}

pub(super) async fn handshakes(report: &Report, settings: &Settings, log: &dyn Store) -> Result<(), log::LogError> {
    let seen = log.counts().await?.handshakes;
    for subscriber in &settings.subscribers {
        match seen.get(&*subscriber.app_id) {
            Some(at) => report.ok(
                "handshake",
                format!("subscriber {}: newest at {}", subscriber.app_id, settings.reports.time_zone.local(*at)),
            ),
            None => report.warn(
                "handshake",
                format!("subscriber {}: none yet; enable the push configuration on the platform", subscriber.app_id),
            ),
        }
    }
    Ok(())
}
