//! `convoke replay`.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env, Settings};
use crate::cursor::Handover;
use crate::metrics::Label as _;
use crate::relay::{self, Encoder};
use crate::{app, audit};
use convoke_bus::PublishError;
use convoke_bus::{Bus, Message};
use convoke_core::event::Record;
use convoke_core::id::Seq;
use convoke_core::time::{Clock, Millis};
use convoke_log::{Filter, Store};

#[derive(Debug, clap::Args)]
pub struct ReplayArguments {
    /// Events that happened at this time or later, for example 2026-03-01 or 2026-03-01T08:30:00Z
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    since: Option<Millis>,
    /// Events that happened before this time
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    until: Option<Millis>,
    /// Events of this type, for example meeting.join
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Events of the meeting with this number or UUID
    #[arg(long, value_name = "ID")]
    meeting: Option<String>,
    /// Exactly the events that `convoke audit` misses in the stream. Those that the stream had within its duplicate window get `.r`
    /// and the time in their Nats-Msg-Id, or it would take no copy
    #[arg(long, conflicts_with_all = ["since", "until", "event", "meeting"])]
    missing: bool,
    /// The events that were set aside as too large for the bus, once it takes larger ones
    #[arg(long, conflicts_with_all = ["since", "until", "event", "meeting"])]
    set_aside: bool,
    /// Publish also what the stream got within its duplicate window: `.r` and the time are added to Nats-Msg-Id
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

/// Windows in a row of which the bus takes nothing, before it is given up.
const MAX_ATTEMPTS: u32 = 10;

/// The pause after such a window, and how long a lost connection may take to come back.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages published at a time.
const WINDOW_ROWS: u32 = 256;

pub async fn run(arguments: &ReplayArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let whole = arguments.since.is_none()
        && arguments.until.is_none()
        && arguments.event.is_none()
        && arguments.meeting.is_none();
    if whole && !arguments.missing && !arguments.set_aside {
        return Err(Failure::Usage(
            "say what to replay: --missing, --set-aside, or a range by --since, --until, --event, --meeting; \
             --since 1970-01-01 is the whole log"
                .to_owned(),
        ));
    }
    super::with_log(&settings, async |log| replay(arguments, &settings, &**log).await).await
}

async fn replay(arguments: &ReplayArguments, settings: &Settings, log: &dyn Store) -> Outcome {
    let bus = super::open_bus(settings).await?;
    bus.ensure_stream().await.map_err(anyhow::Error::from)?;
    let mut replay = Replay {
        log,
        handover: Handover::new(log, relay::CURSOR, &app::owner()),
        bus: &bus,
        encoder: Encoder::new(bus.subject_prefix(), settings.privacy.mask.clone()),
        suffix: format!(".r{}", Clock::System.now().get()),
        again: arguments.again,
        not_held_up_to: 0,
        counts: Counts::default(),
    };
    // What the relay has not published yet is the relay's: first copies stand in the stream in the order of the log.
    let end = relay::position(log).await?;
    let mut verdict = None;
    if arguments.missing {
        verdict = replay.missing(end).await?;
    }
    if arguments.set_aside {
        replay.not_held_up_to = 0;
        replay.set_aside().await?;
    }
    if !arguments.missing && !arguments.set_aside {
        let filter = Filter {
            since: arguments.since,
            until: arguments.until,
            event: arguments.event.clone(),
            meeting: arguments.meeting.clone(),
            up_to: Some(end),
        };
        replay.range(&filter).await?;
    }
    replay.print(arguments, settings.nats.duplicate_window);
    replay.handover.end().await.map_err(anyhow::Error::from)?;
    match verdict {
        None => Ok(()),
        Some(verdict) => {
            println!("NOT clean: {verdict}");
            Err(Failure::Found)
        }
    }
}

struct Replay<'a> {
    log: &'a dyn Store,
    handover: Handover<'a>,
    bus: &'a Bus,
    encoder: Encoder,
    /// What makes another message of a copy.
    suffix: String,
    /// Whether all get it.
    again: bool,
    /// Of what is published the stream holds nothing up to this message: if it says that it has it, only its duplicate window does.
    not_held_up_to: u64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    new: u64,
    /// Those of them that got the suffix for the duplicate window's sake.
    suffixed: u64,
    duplicate: u64,
    too_large: u64,
    forgotten: u64,
}

/// A row to be published, and whether its id has the suffix.
struct PendingMessage {
    seq: Seq,
    message: Message,
    suffixed: bool,
}

impl Replay<'_> {
    /// Publishes what an audit misses; what it still says after that.
    async fn missing(&mut self, end: Seq) -> anyhow::Result<Option<String>> {
        let mut found = audit::compare(self.log, self.bus, end).await?;
        self.not_held_up_to = found.last_message();
        self.rows(found.missing.iter().map(|missing| missing.seq)).await?;
        if !found.missing.is_empty() {
            found = audit::compare(self.log, self.bus, end).await?;
        }
        super::audit::keep(&found, self.log, self.bus).await;
        Ok(found.verdict())
    }

    async fn range(&mut self, filter: &Filter) -> anyhow::Result<()> {
        let mut after = Seq::START;
        loop {
            let page = self.log.select(filter, after, WINDOW_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            self.add(&page).await?;
        }
    }

    async fn set_aside(&mut self) -> anyhow::Result<()> {
        let mut after = Seq::START;
        loop {
            let page = self.log.list_set_aside(relay::CURSOR, after, WINDOW_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            self.rows(page.iter().map(|row| row.seq)).await?;
        }
    }

    /// Publishes these rows, which are in the order of the log and mostly follow one another.
    async fn rows(&mut self, rows: impl Iterator<Item = Seq>) -> anyhow::Result<()> {
        let mut rows = rows.peekable();
        while let Some(first) = rows.peek() {
            let mut page = self.log.read(Seq(first.0 - 1), WINDOW_ROWS).await?;
            let last = page.last().map_or(*first, |record| record.seq);
            let wanted: HashSet<Seq> = std::iter::from_fn(|| rows.next_if(|seq| *seq <= last)).collect();
            page.retain(|record| wanted.contains(&record.seq));
            self.add(&page).await?;
        }
        Ok(())
    }

    /// Publishes `records`; what the bus does not take now is tried a few times more.
    async fn add(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        for record in records {
            match self.encoder.encode(record.row(), true) {
                Some(message) => {
                    let waits = PendingMessage { seq: record.seq, message, suffixed: false };
                    waiting.push(if self.again { self.with_suffix(waits) } else { waits });
                }
                None => self.counts.forgotten += 1,
            }
        }
        let mut published = HashSet::new();
        let mut attempts = 0;
        while !waiting.is_empty() {
            let before = self.settled();
            let failure = self.publish(&mut waiting, &mut published).await?;
            let Some(reason) = failure else { continue };
            // Only attempts that got nowhere count; after one that is too large, say, the others are still to be sent.
            attempts = if self.settled() > before { 0 } else { attempts + 1 };
            if attempts == MAX_ATTEMPTS {
                bail!("the bus does not take it: {}; published {} until then", reason.as_str(), self.counts.new);
            }
            if attempts > 0 {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            self.bus.wait_connected(CONNECT_TIMEOUT).await.context("publishing")?;
        }
        self.take_up(records, &published).await
    }

    /// Publishes them once, and leaves those that are to be sent again in `waiting`; why the bus did not take one of these.
    async fn publish(
        &mut self,
        waiting: &mut Vec<PendingMessage>,
        published: &mut HashSet<Seq>,
    ) -> anyhow::Result<Option<PublishError>> {
        self.handover.take().await?;
        let window: Vec<Message> = waiting.iter().map(|waits| waits.message.clone()).collect();
        let results = self.bus.publish(&window, None).await;
        let mut failure = None;
        for (waits, result) in std::mem::take(waiting).into_iter().zip(results) {
            match result {
                Ok(ack) if ack.duplicate && !waits.suffixed && ack.sequence <= self.not_held_up_to => {
                    waiting.push(self.with_suffix(waits));
                    self.counts.suffixed += 1;
                    continue;
                }
                // It came through at the first try, whose acknowledgement did not.
                Ok(ack) if ack.duplicate && (waits.suffixed || self.not_held_up_to > 0) => self.counts.new += 1,
                Ok(ack) if ack.duplicate => self.counts.duplicate += 1,
                Ok(_) => self.counts.new += 1,
                Err(PublishError::TooLarge) => {
                    self.counts.too_large += 1;
                    continue;
                }
                Err(reason) => {
                    failure = Some(reason);
                    waiting.push(waits);
                    continue;
                }
            }
            published.insert(waits.seq);
        }
        Ok(failure)
    }

    fn with_suffix(&self, waits: PendingMessage) -> PendingMessage {
        let id = format!("{}{}", waits.message.id, self.suffix);
        PendingMessage { message: Message { id, ..waits.message }, suffixed: true, ..waits }
    }

    /// What was set aside, and is in the stream now, is not set aside any more.
    async fn take_up(&self, records: &[Record], published: &HashSet<Seq>) -> anyhow::Result<()> {
        let Some(first) = records.first() else { return Ok(()) };
        for row in self.log.list_set_aside(relay::CURSOR, Seq(first.seq.0 - 1), WINDOW_ROWS).await? {
            if published.contains(&row.seq) {
                self.log.take_up(relay::CURSOR, row.seq).await?;
            }
        }
        Ok(())
    }

    fn settled(&self) -> u64 {
        self.counts.new + self.counts.duplicate + self.counts.too_large
    }

    fn print(&self, arguments: &ReplayArguments, duplicate_window: Duration) {
        let window = humantime::format_duration(duplicate_window);
        let Counts { new, suffixed, duplicate, too_large, forgotten } = self.counts;
        match (new, duplicate) {
            (0, 0) if forgotten + too_large == 0 => {
                println!(
                    "nothing published: {}",
                    if arguments.missing { "nothing is missing" } else { "no published event of the log matches" }
                );
            }
            (0, known) if known > 0 => println!(
                "nothing published: the stream got {} within its duplicate window ({window}), and takes no second copy. Add \
                 --again to send consumers another one",
                if known == 1 { "this event".to_owned() } else { format!("these {known} events") }
            ),
            (new, known) => println!("published {new} new, {known} that the stream knew already"),
        }
        if suffixed > 0 {
            println!(
                "  {suffixed} of them with another Nats-Msg-Id (`{}` at its end): the duplicate window ({window}) takes the same one for a \
                 copy, though the message is gone",
                self.suffix
            );
        }
        if forgotten > 0 {
            println!("  {forgotten} forgotten, not published");
        }
        if too_large > 0 {
            println!("  {too_large} too large for the bus, not published: raise max_payload of NATS");
        }
    }
}
