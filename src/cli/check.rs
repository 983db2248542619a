//! `convoke check`.

use std::sync::Arc;
use std::time::Duration;

use super::refused::Refused;
use super::running::Running;
use super::{Failure, Outcome};
use crate::audit::watch::Mark;
use crate::config::{ConfigArgs, Env, Settings, TlsFiles, read_by_others, redact_url};
use crate::http::tls::Trouble;
use crate::intake::{GIVEN_UP, MISSED};
use crate::relay::{self, subject};
use crate::subscription::{Expected, Standing};
use crate::words::counted;
use crate::{app, audit};
use convoke_bus::{Bus, StreamState};
use convoke_core::human;
use convoke_core::id::{EventId, Seq};
use convoke_core::time::{Clock, Millis};
use convoke_log::disk::Level;
use convoke_log::{self as log, Store};
use convoke_platform::Client;

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

    /// What a part of the report could not be told for; the rest goes on.
    fn part(&mut self, what: &str, told: Result<(), impl Into<anyhow::Error>>) {
        if let Err(error) = told {
            self.fail(what, format!("{:#}", error.into()));
        }
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

/// A comparison of log and stream is given so long.
const COMPARE: Duration = Duration::from_secs(30);

/// Nobody has accepted events for so long: somebody should have been told.
const LONG: Duration = Duration::from_secs(3600);

pub async fn run(arguments: &Arguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "error")?;
    let mut report = Report::default();
    files(&mut report, &settings);
    let now = Clock::System.now();
    let (log, made) = open_log(&mut report, &settings).await;
    if let Some(log) = &log {
        database(&mut report, &**log, now).await;
        let asked = handshakes(&report, &settings, &**log).await;
        report.part("handshake", asked);
    }
    // Only a running service knows: which file it has open, what became of its helpers …
    if let Some(running) = Running::ask(&settings).await {
        if let Some(sentence) = running.refuses() {
            report.fail("service", sentence);
        }
        if let Some(sentence) = running.restarted() {
            report.warn("helpers", sentence);
        }
    }
    // … and what it refused, though not of what came to another replica.
    if let Some(refused) = Refused::ask(&settings).await {
        for sentence in refused.sentences(&settings.listen.path) {
            report.warn("refused", format!("in the last {} min, {sentence}", refused.minutes));
        }
    }
    if let Some(options) = app::vendor_options(&settings) {
        match Client::new(options, Clock::System) {
            Ok(vendor) => {
                let asked = tokio::time::timeout(PLATFORM, platform(&mut report, &settings, &vendor));
                let asked = super::with_token(&vendor, asked).await?;
                if asked.is_err() {
                    report.fail("platform", format!("no answer within {PLATFORM:?}"));
                }
            }
            Err(error) => report.fail("platform", error),
        }
    }
    match app::bus_options(&settings) {
        None => report.warn("bus", "nats.url is none: nothing is published"),
        Some(options) => {
            let shown = redact_url(&options.url);
            match super::open_bus(&settings).await {
                Ok(bus) => {
                    report.ok("bus", format!("{shown}, nats-server {}", bus.server_version().unwrap_or_default()));
                    let looked = stream(&mut report, &settings, &bus, log.as_deref(), made, now).await;
                    report.part("stream", looked);
                }
                Err(Failure::Usage(message)) => report.fail("bus", message),
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

/// The settings, and the files that they name.
fn files(report: &mut Report, settings: &Settings) {
    match settings.check_serve() {
        Ok(()) => {
            report.ok("settings", counted(settings.subscribers.len() as u64, "subscriber", "subscribers"));
        }
        Err(error) => report.fail("settings", error),
    }
    if let Some(files) = &settings.listen.tls {
        certificate(report, settings, files);
    }
    for source in &settings.subscriber_sources {
        for file in &source.key_files {
            // Loading the settings has read them.
            report.ok("key file", format!("{}, of subscriber {}", file.display(), source.app_id));
        }
    }
    for problem in settings.secret_files.iter().filter_map(|file| read_by_others(file)) {
        report.warn("secret", problem);
    }
}

/// The log, if it can be read, and whether there is one at all.
async fn open_log(report: &mut Report, settings: &Settings) -> (Option<Arc<dyn Store>>, bool) {
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
            if error.not_made() {
                report.warn("database", error);
            } else {
                report.fail("database", format!("{shown}: {error}"));
            }
            log.close().await;
            (None, false)
        }
    }
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

async fn database(report: &mut Report, log: &dyn Store, now: Millis) {
    match log.probe().await {
        Ok(()) => report.ok("writing", "the database takes events"),
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
    let told = service(report, log).await;
    report.part("heartbeat", told);
    match log.now().await {
        Ok(theirs) => {
            let apart = now.since(theirs).max(theirs.since(now));
            if apart > CLOCK {
                report.fail("clock", format!("{apart:?} apart from the database's: check NTP on both"));
            } else {
                report.ok("clock", format!("{now}, the database agrees"));
            }
        }
        Err(error) => report.fail("clock", error),
    }
    let told = retention(report, log).await;
    report.part("retention", told);
    let told = set_apart(report, log).await;
    report.part("quarantine", told);
    let told = cursors(report, log).await;
    report.part("cursor", told);
}

/// Whether somebody accepts events.
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
                "{text}, but into another file, of which this one is a copy: a `convoke serve` that had the other one open \
                 refuses events until it is restarted; after a restore, start `convoke serve`"
            ),
        );
        return Ok(());
    }
    if heartbeat.age <= MISSED {
        report.ok("heartbeat", text);
        return Ok(());
    }
    if heartbeat.age < LONG {
        report.warn("heartbeat", text);
    } else {
        let left = match GIVEN_UP.checked_sub(heartbeat.age) {
            Some(left) => format!("drops the first events in {}", human::duration(left)),
            None => "drops events now; ask its history API for them".to_owned(),
        };
        report.fail("heartbeat", format!("{text}, and by nobody since; the platform {left}"));
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

/// What keeps retention from deleting.
async fn retention(report: &Report, log: &dyn Store) -> Result<(), log::LogError> {
    if let Some(held) = log.retention_held(log.now().await?).await? {
        report.warn("retention", held);
    }
    Ok(())
}

async fn set_apart(report: &Report, log: &dyn Store) -> Result<(), log::LogError> {
    let counts = log.counts().await?;
    if counts.quarantined > 0 {
        let entries = counted(counts.quarantined.unsigned_abs(), "entry", "entries");
        report.warn("quarantine", format!("{entries}: see `convoke quarantine list`"));
    }
    for (cursor, rows) in &counts.set_aside {
        let events = counted(rows.unsigned_abs(), "event", "events");
        let way = if cursor == relay::CURSOR {
            "; `convoke replay --set-aside` publishes them once the bus takes them"
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
        let text = format!("{} at {}, {behind} behind, moved by {owner}", cursor.name, cursor.position);
        if lag.events > 0 && cursor.owner.is_none() { report.warn("cursor", text) } else { report.ok("cursor", text) }
    }
    Ok(())
}

async fn handshakes(report: &Report, settings: &Settings, log: &dyn Store) -> Result<(), log::LogError> {
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

async fn platform(report: &mut Report, settings: &Settings, vendor: &Client) {
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
    log: Option<&dyn Store>,
    made: bool,
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
    let messages = counted(state.messages, "message", "messages");
    report.ok("stream", format!("{name}: {messages}, {}", bytesize::ByteSize(state.bytes)));
    if !made && state.last_sequence > 0 {
        report.fail(
            "database",
            format!("nobody has made it, but {name} has been published to: does database.url name the right one?"),
        );
    }
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
    let looked = match newest_published(report, settings, bus, log, position, now).await {
        Ok(lost) => seen_before(report, bus, log, &state, position, lost).await,
        Err(error) => Err(error),
    };
    report.part("stream", looked);
    older_log(report, settings, bus, log, &state, now).await
}

/// Looks for what was published last; a word on it if it is not there.
async fn newest_published(
    report: &Report,
    settings: &Settings,
    bus: &Bus,
    log: &dyn Store,
    position: Seq,
    now: Millis,
) -> anyhow::Result<Option<String>> {
    // The newest row that was published, unless it may have left the stream by age.
    let newest = log.read(Seq(position.0 - 1), 1).await?.into_iter().find(|record| record.seq == position);
    let Some(record) = newest.filter(|record| record.event_info.is_some()) else { return Ok(None) };
    let aside = log.list_set_aside(relay::CURSOR, Seq(position.0 - 1), 1).await?;
    let young = settings.nats.max_age.is_zero() || now.since(record.received_at) < settings.nats.max_age / 2;
    if !aside.is_empty() || !young {
        return Ok(None);
    }
    let subject = subject(bus.subject_prefix(), &record.subscriber_id, &record.event, record.meeting_id.as_deref());
    if bus.holds_subject(&subject).await? {
        report.ok("stream", format!("holds what was published last (seq {position})"));
        return Ok(None);
    }
    Ok(Some(format!("it went backwards: what was published last (seq {position}) is not in it")))
}

/// Compares the stream with the log where the stream watch, an audit or a replay left something to be seen.
async fn seen_before(
    report: &mut Report,
    bus: &Bus,
    log: &dyn Store,
    state: &StreamState,
    position: Seq,
    lost: Option<String>,
) -> anyhow::Result<()> {
    let mark = Mark::load(log, bus.stream()).await?;
    let missing = mark.as_ref().map_or(0, |mark| mark.missing);
    let setback = match mark {
        Some(mut mark) => {
            mark.allow(log.erased_messages().await?);
            mark.setback(state, log.now().await?).map(|(_, what)| what)
        }
        None => None,
    };
    let setback = match (lost, setback) {
        (Some(lost), Some(setback)) => Some(format!("{lost}, and {setback}")),
        (lost, setback) => lost.or(setback),
    };
    if setback.is_none() && missing == 0 {
        return Ok(());
    }
    match tokio::time::timeout(COMPARE, audit::compare(log, bus, position)).await {
        Ok(found) => match (found?.verdict(), setback) {
            (Some(verdict), Some(what)) => report.fail("stream", format!("{what}: {verdict}")),
            (Some(verdict), None) => report.fail("stream", verdict),
            (None, _) => report.ok("stream", "compared with the log just now: nothing is missing"),
        },
        // It is long; what was seen before has to do.
        Err(_) => {
            let what = match setback {
                Some(what) => what,
                None => format!(
                    "{} of the log were missing in it when they were last compared",
                    counted(missing, "event", "events")
                ),
            };
            report.fail("stream", format!("{what}: `convoke audit` compares, `convoke replay --missing` puts back"));
        }
    }
    Ok(())
}

/// A log that was restored from a backup does not know what was stored after it; the stream may.
async fn older_log(
    report: &mut Report,
    settings: &Settings,
    bus: &Bus,
    log: &dyn Store,
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
