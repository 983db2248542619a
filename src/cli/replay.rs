//! `convoke replay`.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::{Failure, Outcome};
use crate::bus::{Bus, Message};
use crate::config::{ConfigArgs, Env};
use crate::event::{Clock, Millis, Record, Seq};
use crate::log::{Filter, Log};
use crate::metrics::PublishError;
use crate::relay::{self, Encoder, Turn};
use crate::{app, audit};

#[derive(Debug, clap::Args)]
pub struct Arguments {
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
    /// Exactly the events that `convoke audit` misses in the stream, or finds purged from it
    #[arg(long, conflicts_with_all = ["since", "until", "event", "meeting"])]
    missing: bool,
    /// Publish also what the stream got within its duplicate window: `.r` and the time are added to Nats-Msg-Id
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

/// Windows in a row of which the bus takes nothing, before it is given up.
const ATTEMPTS: u32 = 10;

/// Messages published at a time.
const WINDOW: u32 = 256;

pub async fn run(arguments: &Arguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let whole = arguments.since.is_none()
        && arguments.until.is_none()
        && arguments.event.is_none()
        && arguments.meeting.is_none();
    if whole && !arguments.missing {
        return Err(Failure::Usage(
            "say what to replay: --missing, or a range by --since, --until, --event, --meeting; \
             --since 1970-01-01 is the whole log"
                .to_owned(),
        ));
    }
    let log = super::open_log(&settings).await?;
    let bus = super::open_bus(&settings).await?;
    bus.ensure_stream().await.map_err(anyhow::Error::from)?;
    let suffix = if arguments.again { format!(".r{}", Clock::System.now().get()) } else { String::new() };
    let encoder = Encoder::new(bus.subject_prefix(), settings.privacy.mask.clone());
    let turn = Turn::new(&*log, app::owner());
    let mut replay = Replay { turn, bus: &bus, encoder, suffix, new: 0, duplicate: 0, too_large: 0, forgotten: 0 };

    // What the relay has not published yet is the relay's: first copies stand in the stream in the order of the log.
    let cursors = log.cursors().await?;
    let end = cursors.iter().find(|cursor| cursor.name == relay::CURSOR).map_or(Seq::START, |cursor| cursor.position);
    if arguments.missing {
        let found = audit::compare(&*log, &bus, end).await?;
        // Missing ones mostly follow one another; purged ones come before them.
        let mut missing = found.purged.iter().chain(&found.missing).map(|missing| missing.seq).peekable();
        while let Some(first) = missing.peek() {
            let mut page = log.read(Seq(first.0 - 1), WINDOW).await?;
            let last = page.last().map_or(*first, |record| record.seq);
            let wanted: HashSet<Seq> = std::iter::from_fn(|| missing.next_if(|seq| *seq <= last)).collect();
            page.retain(|record| wanted.contains(&record.seq));
            replay.add(&page).await?;
        }
    } else {
        let filter = Filter {
            since: arguments.since,
            until: arguments.until,
            event: arguments.event.clone(),
            meeting: arguments.meeting.clone(),
            up_to: Some(end),
        };
        replay.range(&*log, &filter).await?;
    }
    let Replay { turn, .. } = replay;
    turn.end().await.map_err(anyhow::Error::from)?;
    log.close().await;
    println!("published {} new, {} that the stream knew already", replay.new, replay.duplicate);
    if arguments.missing && replay.duplicate > 0 {
        println!(
            "  the stream does not hold the {} that it knew: they were deleted from it within its duplicate window; \
             --again puts them back now, or come again when that is over",
            replay.duplicate
        );
    }
    if replay.forgotten > 0 {
        println!("  {} forgotten, not published", replay.forgotten);
    }
    if replay.too_large > 0 {
        println!("  {} too large for the bus, not published", replay.too_large);
    }
    Ok(())
}

struct Replay<'a> {
    turn: Turn<'a>,
    bus: &'a Bus,
    encoder: Encoder,
    suffix: String,
    new: u64,
    duplicate: u64,
    too_large: u64,
    forgotten: u64,
}

impl Replay<'_> {
    async fn range(&mut self, log: &dyn Log, filter: &Filter) -> anyhow::Result<()> {
        let mut after = Seq::START;
        loop {
            let page = log.select(filter, after, WINDOW).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            self.add(&page).await?;
        }
    }

    /// Publishes `records`; what the bus does not take now is tried a few times more.
    async fn add(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let mut waiting: VecDeque<Message> = VecDeque::new();
        for record in records {
            match self.encoder.encode(record.row(), true) {
                Some(message) => {
                    let id = format!("{}{}", message.id, self.suffix);
                    waiting.push_back(Message { id, ..message });
                }
                None => self.forgotten += 1,
            }
        }
        let mut attempts = 0;
        loop {
            let before = self.settled();
            let window: Vec<Message> = waiting.drain(..).collect();
            let mut last = None;
            self.turn.take().await?;
            for (message, result) in window.iter().zip(self.bus.publish(&window, None).await) {
                match result {
                    Ok(ack) if ack.duplicate => self.duplicate += 1,
                    Ok(_) => self.new += 1,
                    Err(PublishError::TooLarge) => self.too_large += 1,
                    Err(reason) => {
                        last = Some(reason);
                        waiting.push_back(message.clone());
                    }
                }
            }
            let Some(reason) = last else { return Ok(()) };
            // Only attempts that got nowhere count; after one that is too large, say, the others are still to be sent.
            attempts = if self.settled() > before { 0 } else { attempts + 1 };
            if attempts == ATTEMPTS {
                bail!("the bus does not take it: {}; published {} until then", reason.as_str(), self.new);
            }
            if attempts > 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            self.bus.wait_connected(Duration::from_secs(5)).await.context("publishing")?;
        }
    }

    fn settled(&self) -> u64 {
        self.new + self.duplicate + self.too_large
    }
}
