//! `convoke check`.

use std::time::Duration;

use super::refused::Refused;
use super::{Failure, Outcome};
use crate::app;
use crate::audit::watch::Mark;
use crate::bus::{Bus, StreamState};
use crate::config::{ConfigArgs, Env, Settings, TlsFiles, redact_url};
use crate::disk::Level;
use crate::event::{Clock, EventId, Millis, Seq};
use crate::http::tls::Trouble;
use crate::intake::{GIVEN_UP, MISSED, rounded};
use crate::log::{self, Log};
use crate::relay::{self, subject};
use crate::subscription::{Expected, Standing};
use crate::vendor::Vendor;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: ConfigArgs,
}

/// The lines, and whether one of them says that something is wrong.
#[derive(Default)]
struct Report {
    failed: bool,
}

impl Report {
    fn ok(&self, what: &str, text: impl std::fmt::Display) {
        println!("ok    {what:<10} {text}");
    }

    fn warn(&self, what: &str, text: impl std::fmt::Display) {
        println!("warn  {what:<10} {text}");
    }

    fn fail(&mut self, what: &str, text: impl std::fmt::Display) {
        self.failed = true;
        println!("FAIL  {what:<10} {text}");
    }
}

/// Clocks may differ by so much.
const CLOCK: Duration = Duration::from_secs(5);

/// The stream's newest messages, whose events should be in the log.
const NEWEST: u64 = 1_000;

/// The platform's API may take so long in all.
const PLATFORM: Duration = Duration::from_secs(30);

/// Nobody has accepted events for so long: somebody should have been told.
const LONG: Duration = Duration::from_secs(3600);

pub async fn run(arguments: &Arguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "error")?;
    let mut report = Report::default();
    match settings.check_serve() {
        Ok(()) => report.ok(
            "settings",
            match settings.subscribers.len() {
                1 => "1 subscriber".to_owned(),
                n => format!("{n} subscribers"),
            },
        ),
        Err(error) => report.fail("settings", error),
    }
    if let Some(files) = &settings.listen.tls {
        certificate(&mut report, &settings, files);
    }
    for source in &settings.subscriber_sources {
        for file in &source.key_files {
            // Loading the settings has read them.
            report.ok("key file", format!("{}, of subscriber {}", file.display(), source.app_id));
        }
    }
    let log = match super::open_log(&settings).await {
        Ok(log) => {
            report.ok("database", log.describe());
            Some(log)
        }
        Err(Failure::Usage(message)) => return Err(Failure::Usage(message)),
        Err(Failure::Failed(error)) => {
            report.fail("database", format!("{}: {error:#}", redact_url(&settings.database.url)));
            None
        }
        Err(Failure::Found) => None,
    };
    let now = Clock::System.now();
    if let Some(log) = &log {
        database(&mut report, &**log, now).await?;
        handshakes(&report, &settings, &**log).await?;
    }
    // Only a running service knows, and not of what came to another replica.
    if let Some(refused) = Refused::ask(&settings).await {
        for sentence in refused.sentences(&settings.listen.path) {
            report.warn("refused", format!("in the last {} min, {sentence}", refused.minutes));
        }
    }
    if let Some(options) = app::vendor_options(&settings) {
        let vendor = Vendor::new(options, Clock::System).map_err(anyhow::Error::from)?;
        let asked = tokio::time::timeout(PLATFORM, platform(&mut report, &settings, &vendor)).await;
        if asked.is_err() {
            report.fail("platform", format!("no answer within {PLATFORM:?}"));
        }
    }
    match app::bus_options(&settings) {
        None => report.warn("bus", "nats.url is none: nothing is published"),
        Some(options) => {
            let shown = redact_url(&options.url);
            match super::open_bus(&settings).await {
                Ok(bus) => {
                    report.ok("bus", format!("{shown}, nats-server {}", bus.server_version().unwrap_or_default()));
                    stream(&mut report, &settings, &bus, log.as_deref(), now).await?;
                }
                Err(Failure::Usage(message)) => return Err(Failure::Usage(message)),
                Err(Failure::Failed(error)) => report.fail("bus", format!("{error:#}")),
                Err(Failure::Found) => {}
            }
        }
    }
    if let Some(log) = log {
        log.close().await;
    }
    if report.failed { Err(Failure::Found) } else { Ok(()) }
}

fn certificate(report: &mut Report, settings: &Settings, files: &TlsFiles) {
    let what = "TLS";
    match app::certificates(settings, files) {
        Err(error) => report.fail(what, error),
        Ok(certificates) => match certificates.trouble(Clock::System.now()) {
            Some(trouble @ Trouble::Soon(_)) => report.warn(what, format!("the certificate {trouble}")),
            Some(trouble @ Trouble::Now(_)) => report.fail(what, format!("the certificate {trouble}")),
            None => report.ok(what, format!("{}, with its key", files.cert.display())),
        },
    }
}

async fn database(report: &mut Report, log: &dyn Log, now: Millis) -> Result<(), log::LogError> {
    match log.probe().await {
        Ok(()) => report.ok("writing", "the database takes events"),
        Err(error) => report.fail("writing", error),
    }
    for weakness in log.weaknesses().await? {
        report.fail("durable", weakness);
    }
    if let Some(disk) = log.disk() {
        let text = format!("{} free", bytesize::ByteSize(disk.free));
        if disk.level() == Level::Plenty { report.ok("disk", text) } else { report.warn("disk", text) }
    }
    match log.heartbeat().await? {
        None => report.warn("heartbeat", "none yet: no `convoke serve` has accepted events with this database"),
        Some(heartbeat) => {
            let text = format!("events were accepted at {}, {} ago", heartbeat.at, rounded(heartbeat.age));
            if heartbeat.age <= MISSED {
                report.ok("heartbeat", text);
            } else if heartbeat.age < LONG {
                report.warn("heartbeat", format!("{text}, and by nobody since: is a `convoke serve` running?"));
            } else {
                let left = match GIVEN_UP.checked_sub(heartbeat.age) {
                    Some(left) => format!("drops the first events in {}", rounded(left)),
                    None => "drops events now; ask its history API for them".to_owned(),
                };
                report.fail(
                    "heartbeat",
                    format!("{text}, and by nobody since: start `convoke serve`; the platform {left}"),
                );
            }
        }
    }
    let theirs = log.now().await?;
    let apart = now.since(theirs).max(theirs.since(now));
    if apart > CLOCK {
        report.fail("clock", format!("{apart:?} apart from the database's: check NTP on both"));
    } else {
        report.ok("clock", format!("{now}, the database agrees"));
    }
    let counts = log.counts().await?;
    if counts.quarantined > 0 {
        report.warn("quarantine", format!("{} entries: see `convoke quarantine list`", counts.quarantined));
    }
    for (cursor, rows) in &counts.set_aside {
        report.warn("set aside", format!("{rows} events, by the cursor {cursor}: see the table set_aside"));
    }
    for cursor in log.cursors().await? {
        let lag = log.lag(&cursor.name).await?;
        let owner = cursor.owner.as_deref().unwrap_or("nobody");
        let text = format!("{} at {}, {} events behind, moved by {owner}", cursor.name, cursor.position, lag.events);
        if lag.events > 0 && cursor.owner.is_none() { report.warn("cursor", text) } else { report.ok("cursor", text) }
    }
    Ok(())
}

async fn handshakes(report: &Report, settings: &Settings, log: &dyn Log) -> Result<(), log::LogError> {
    let seen = log.counts().await?.handshakes;
    for subscriber in &settings.subscribers {
        match seen.get(&*subscriber.app_id) {
            Some(at) => report.ok("handshake", format!("subscriber {}: newest at {at}", subscriber.app_id)),
            None => report.warn(
                "handshake",
                format!("subscriber {}: none yet; enable the push configuration on the platform", subscriber.app_id),
            ),
        }
    }
    Ok(())
}

async fn platform(report: &mut Report, settings: &Settings, vendor: &Vendor) {
    let identity = match vendor.identity().await {
        Ok(identity) => identity,
        Err(error) => return report.fail("platform", format!("{error}. {}", error.advice)),
    };
    let enterprise = identity.corp_id.map(|id| format!(", as enterprise {}", id.escape_debug())).unwrap_or_default();
    report.ok("platform", format!("its API takes our credentials{enterprise}"));
    let (what, expected) = ("subscribed", Expected::by(settings));
    let is = match vendor.subscription().await {
        Ok(is) => is,
        Err(error) => return report.fail(what, format!("{error}. {}", error.advice)),
    };
    let differences = is.as_ref().map(|is| expected.differences(is)).unwrap_or_default().join("; ");
    match expected.standing(is.as_ref()) {
        Standing::Enabled => report.ok(what, "the platform's subscription is enabled, and as configured"),
        Standing::Elsewhere => report.fail(what, format!("the platform's subscription is enabled, but {differences}")),
        Standing::Locked => {
            report.fail(what, "the platform has locked the subscription, as enabling it failed too often");
        }
        Standing::Missing => report.warn(what, "there is none by the API: `convoke subscription set`, then `enable`"),
        Standing::Disabled => report.warn(what, "it is disabled: `convoke subscription enable`"),
        Standing::Unknown => report.warn(what, "the platform gave a status that its manual does not list"),
    }
}

async fn stream(
    report: &mut Report,
    settings: &Settings,
    bus: &Bus,
    log: Option<&dyn Log>,
    now: Millis,
) -> anyhow::Result<()> {
    let name = bus.stream();
    // An event is a little larger as a message.
    if bus.max_message() < settings.listen.max_body + 1024 {
        report.warn(
            "bus",
            format!(
                "takes messages of {}, and listen.max_body is {}: larger events are set aside; raise max_payload there",
                bytesize::ByteSize(bus.max_message() as u64),
                bytesize::ByteSize(settings.listen.max_body as u64)
            ),
        );
    }
    let position = match log {
        Some(log) => log.cursors().await?.into_iter().find(|cursor| cursor.name == relay::CURSOR),
        None => None,
    };
    let position = position.map_or(Seq::START, |cursor| cursor.position);
    let Some(state) = bus.stream_state().await? else {
        let makes_it = "`convoke serve` makes it";
        match bus.try_stream().await {
            Ok(None) => {}
            Ok(Some(sentence)) => report.fail("stream", sentence),
            Err(error) => report.warn("stream", format!("could not try whether it can be made: {error}")),
        }
        if position == Seq::START {
            report.warn("stream", format!("there is no stream {name} yet: {makes_it}"));
        } else {
            report.fail("stream", format!(
                "went backwards: there is no stream {name}, and the log was published up to seq {position}; {makes_it} \
                 again, `convoke replay --missing` fills it"
            ));
        }
        return Ok(());
    };
    report.ok("stream", format!("{name}: {} messages, {}", state.messages, bytesize::ByteSize(state.bytes)));
    if !state.differences.is_empty() {
        report.warn("stream", format!("not as configured: {}", state.differences.join("; ")));
    }
    if let Some(max) = state.max_bytes.and_then(|max| u64::try_from(max).ok())
        && state.bytes > max / 10 * 9
    {
        report.warn(
            "stream",
            format!(
                "{} of {} are used: old messages are discarded",
                bytesize::ByteSize(state.bytes),
                bytesize::ByteSize(max)
            ),
        );
    }
    let Some(log) = log else { return Ok(()) };
    newest_published(report, settings, bus, log, position, now).await?;
    seen_before(report, bus, log, &state).await?;
    older_log(report, settings, bus, log, &state, now).await
}

/// Looks for what was published last.
async fn newest_published(
    report: &mut Report,
    settings: &Settings,
    bus: &Bus,
    log: &dyn Log,
    position: Seq,
    now: Millis,
) -> anyhow::Result<()> {
    // The newest row that was published, unless it may have left the stream by age.
    let newest = log.read(Seq(position.0 - 1), 1).await?.into_iter().find(|record| record.seq == position);
    let Some(record) = newest.filter(|record| record.event_info.is_some()) else { return Ok(()) };
    let aside = log.list_set_aside(relay::CURSOR, Seq(position.0 - 1), 1).await?;
    let young = settings.nats.max_age.is_zero() || now.since(record.received_at) < settings.nats.max_age / 2;
    if aside.is_empty() && young {
        let subject = subject(bus.subject_prefix(), &record.subscriber_id, &record.event, record.meeting_id.as_deref());
        if bus.holds_subject(&subject).await? {
            report.ok("stream", format!("holds what was published last (seq {position})"));
        } else {
            report.fail("stream", format!(
                "went backwards: what was published last (seq {position}) is not in it; `convoke audit` says what is \
                 missing, `convoke replay --missing` puts it back"
            ));
        }
    }
    Ok(())
}

/// Compares the stream with what the stream watch last saw.
async fn seen_before(report: &mut Report, bus: &Bus, log: &dyn Log, state: &StreamState) -> anyhow::Result<()> {
    let Some(mut mark) = Mark::load(log, bus.stream()).await? else { return Ok(()) };
    mark.allow(log.erased_messages().await?);
    if let Some((_, what)) = mark.setback(state, log.now().await?) {
        report.fail("stream", format!(
            "{what} since `convoke serve` looked at it; if it was not meant, `convoke replay --missing` puts back what is \
             missing"
        ));
    }
    if mark.missing > 0 {
        report.fail(
            "stream",
            format!(
                "{} events of the log were missing in it when they were last compared: `convoke audit` names them, \
             `convoke replay --missing` puts them back",
                mark.missing
            ),
        );
    }
    Ok(())
}

/// A log that was restored from a backup does not know what was stored after it; the stream may.
async fn older_log(
    report: &mut Report,
    settings: &Settings,
    bus: &Bus,
    log: &dyn Log,
    state: &StreamState,
    now: Millis,
) -> anyhow::Result<()> {
    let kept_since = settings.database.retention.map(|retention| EventId::lower_bound(now.minus(retention)));
    let mut newest = bus.scan_after(state.last_sequence.saturating_sub(NEWEST)).await?;
    let mut ids = Vec::new();
    while let Some(entry) = newest.next().await? {
        ids.extend(entry.id.filter(|id| kept_since.is_none_or(|since| *id >= since)));
    }
    let known = log.places(&ids).await?;
    let unknown = ids.iter().filter(|id| !known.contains_key(id)).count();
    if unknown == 0 {
        return Ok(());
    }
    let head = log.head().await?;
    let newest = bus.newest_event().await?.map(|(_, seq)| format!(", up to seq {seq}")).unwrap_or_default();
    report.fail("stream", format!(
        "is newer than the log: of its newest {} messages {unknown} are of events that the log does not know{newest}, and the \
         log ends at seq {head}. Was an older log restored? What the platform was told is stored is in the stream only: keep \
         it, and see deploy/backup-sqlite.md or deploy/backup-postgres.md, \"When the log is older than the stream\"",
        ids.len()
    ));
    Ok(())
}
