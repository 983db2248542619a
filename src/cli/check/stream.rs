//! Checks the stream, and compares it with the log.

use std::time::Duration;

use bytesize::ByteSize;

use super::report::Report;
use crate::audit;
use crate::audit::mark::Mark;
use crate::config::Settings;
use crate::relay::{self, subject};
use crate::words::counted;
use convoke_bus::{Bus, StreamState};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::Millis;
use convoke_log::Store;

/// Number of the stream's newest messages whose events should be in the log.
const MAX_NEWEST_MESSAGES: u64 = 1_000;

/// Time limit for comparing log and stream.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn stream(
    report: &mut Report,
    settings: &Settings,
    bus: &Bus,
    log: Option<&dyn Store>,
    made: bool,
    now: Millis,
) -> anyhow::Result<()> {
    // An event is a little larger as a message.
    if bus.max_message() < settings.listen.max_body + 1024 {
        report.warn(
            "bus",
            format!(
                "accepts messages of {}, but listen.max_body is {}: larger events are set aside; raise max_payload \
                 of NATS",
                ByteSize(bus.max_message() as u64),
                ByteSize(settings.listen.max_body as u64)
            ),
        );
    }
    let position = match log {
        Some(log) => relay::position(log).await?,
        None => Seq::START,
    };
    let Some(state) = bus.stream_state().await? else { return no_stream(report, bus, position).await };
    print_state(report, &state, bus.stream(), made);
    let Some(log) = log else { return Ok(()) };
    let looked = match newest_published(report, settings, bus, log, position, now).await {
        Ok(lost) => seen_before(report, bus, log, &state, position, lost).await,
        Err(error) => Err(error),
    };
    report.part("stream", looked);
    older_log(report, settings, bus, log, &state, now).await
}

async fn no_stream(report: &mut Report, bus: &Bus, position: Seq) -> anyhow::Result<()> {
    let (name, makes_it) = (bus.stream(), "`convoke serve` creates it");
    match bus.try_stream().await {
        Ok(None) => {}
        Ok(Some(sentence)) => report.fail("stream", sentence),
        Err(error) => report.warn("stream", format!("could not test whether it can be created: {error}")),
    }
    if position == Seq::START {
        report.warn("stream", format!("the stream {name} does not exist yet: {makes_it}"));
    } else {
        report.fail(
            "stream",
            format!(
                "the stream {name} is gone, although the log was published up to seq {position}; {makes_it} again, \
             `convoke replay --missing` restores its messages"
            ),
        );
    }
    Ok(())
}

/// Prints the stream's state as the server reports it.
fn print_state(report: &mut Report, state: &StreamState, name: &str, made: bool) {
    let messages = counted(state.messages, "message", "messages");
    report.ok("stream", format!("{name}: {messages}, {}", ByteSize(state.bytes)));
    if !made && state.last_sequence > 0 {
        report.fail(
            "database",
            format!(
                "it does not exist or is empty, but {name} contains messages: does database.url name the right \
                     database?"
            ),
        );
    }
    if !state.differences.is_empty() {
        report.warn("stream", format!("differs from the settings: {}", state.differences.join("; ")));
    }
    if let Some(max) = state.max_bytes.and_then(|max| u64::try_from(max).ok())
        && state.bytes > max / 10 * 9
    {
        let (used, max) = (ByteSize(state.bytes), ByteSize(max));
        report.warn("stream", format!("{used} of {max} are used: old messages are discarded"));
    }
}

/// Looks for the message that was published last. Returns a sentence if it is not in the stream.
async fn newest_published(
    report: &Report,
    settings: &Settings,
    bus: &Bus,
    log: &dyn Store,
    position: Seq,
    now: Millis,
) -> anyhow::Result<Option<String>> {
    // The newest row that was published, unless it may have aged out of the stream.
    let newest = log.read(Seq(position.0 - 1), 1).await?.into_iter().find(|record| record.seq == position);
    let Some(record) = newest.filter(|record| record.event_info.is_some()) else { return Ok(None) };
    let aside = log.list_set_aside(relay::CURSOR, Seq(position.0 - 1), 1).await?;
    let young = settings.nats.max_age.is_zero() || now.since(record.received_at) < settings.nats.max_age / 2;
    if !aside.is_empty() || !young {
        return Ok(None);
    }
    let subject = subject(bus.subject_prefix(), &record.subscriber_id, &record.event, record.meeting_id.as_deref());
    if bus.holds_subject(&subject).await? {
        report.ok("stream", format!("contains the last published event (seq {position})"));
        return Ok(None);
    }
    Ok(Some(format!("it lost messages: the last published event (seq {position}) is not in it")))
}

/// Compares the stream with the log, if the stream watch, an audit or a replay has left a finding.
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
    match tokio::time::timeout(COMPARE_TIMEOUT, audit::compare(log, bus, position)).await {
        Ok(found) => match (found?.verdict(), setback) {
            (Some(verdict), Some(what)) => report.fail("stream", format!("{what}: {verdict}")),
            (Some(verdict), None) => report.fail("stream", verdict),
            (None, _) => report.ok("stream", "compared with the log just now: nothing is missing"),
        },
        // The comparison takes too long: the earlier finding must do.
        Err(_) => {
            let what = match setback {
                Some(what) => what,
                None => format!(
                    "{} of the log were missing in it at the last comparison",
                    counted(missing, "event", "events")
                ),
            };
            report.fail(
                "stream",
                format!(
                    "{what}: run `convoke audit` to compare, `convoke replay --missing` to \
                                           restore"
                ),
            );
        }
    }
    Ok(())
}

/// A log that was restored from a backup lacks what was stored later; the stream may have it.
async fn older_log(
    report: &mut Report,
    settings: &Settings,
    bus: &Bus,
    log: &dyn Store,
    state: &StreamState,
    now: Millis,
) -> anyhow::Result<()> {
    let kept_since = settings.kept_since(now).map(EventId::lower_bound);
    let mut newest = bus.scan_after(state.last_sequence.saturating_sub(MAX_NEWEST_MESSAGES)).await?;
    let mut ids = Vec::new();
    while let Some(entry) = newest.next().await? {
        ids.extend(entry.id.filter(|id| kept_since.is_none_or(|since| *id >= since)));
    }
    let known = log.find(&ids).await?;
    let unknown = ids.iter().filter(|id| !known.contains_key(id)).count();
    if unknown == 0 {
        return Ok(());
    }
    let head = log.head().await?;
    let newest = bus.newest_event().await?.map(|(_, seq)| format!(", up to seq {seq}")).unwrap_or_default();
    report.fail("stream", format!(
        "is newer than the log: {unknown} of its newest {} messages are not in the log{newest}, and the log ends at \
         seq {head}. Was an older backup of the log restored? These events were acknowledged and exist in the stream \
         only: keep it, and see docs/operate/backup-sqlite.md or docs/operate/backup-postgres.md, \"When the log is \
         older than the stream\"",
        ids.len()
    ));
    Ok(())
}
