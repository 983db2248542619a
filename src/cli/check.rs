//! `convoke check`.

use std::time::Duration;

use super::{Failure, Outcome};
use crate::app;
use crate::bus::Bus;
use crate::config::{ConfigArgs, Env, Settings, TlsFiles, redact_url};
use crate::event::{Clock, Millis, Seq};
use crate::http::tls::Trouble;
use crate::log::{self, Log};
use crate::relay::{self, subject};

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

/// Less free disk than this is worth a word.
const LITTLE_DISK: u64 = 1 << 30;

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
    if let Some(free) = log.disk_free() {
        let text = format!("{} free", bytesize::ByteSize(free));
        if free < LITTLE_DISK { report.warn("disk", text) } else { report.ok("disk", text) }
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
