//! `convoke replay`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env, Settings};
use crate::relay::Encoder;
use crate::replay::{ReplayCounts, ReplayRequest, Replayed, replay};
use convoke_core::time::Millis;
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
    super::with_log(&settings, async |log| publish(arguments, &settings, &**log).await).await
}

async fn publish(arguments: &ReplayArguments, settings: &Settings, log: &dyn Store) -> Outcome {
    let bus = super::open_bus(settings).await?;
    let encoder = Encoder::new(bus.subject_prefix(), settings.privacy.mask.clone());
    let range = Filter {
        since: arguments.since,
        until: arguments.until,
        event: arguments.event.clone(),
        meeting: arguments.meeting.clone(),
        up_to: None,
    };
    let request = ReplayRequest {
        missing: arguments.missing,
        set_aside: arguments.set_aside,
        range: (!arguments.missing && !arguments.set_aside).then_some(range),
        again: arguments.again,
    };
    let stop = CancellationToken::new();
    let replayed = replay(log, &bus, encoder, &app::owner(), &request, &|_| {}, &stop).await?;
    print(&replayed, arguments, settings.nats.duplicate_window);
    match replayed.verdict {
        None => Ok(()),
        Some(verdict) => {
            println!("NOT clean: {verdict}");
            Err(Failure::Found)
        }
    }
}

fn print(replayed: &Replayed, arguments: &ReplayArguments, duplicate_window: Duration) {
    let window = humantime::format_duration(duplicate_window);
    let ReplayCounts { new, suffixed, duplicate, too_large, forgotten } = replayed.counts;
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
            replayed.suffix
        );
    }
    if forgotten > 0 {
        println!("  {forgotten} forgotten, not published");
    }
    if too_large > 0 {
        println!("  {too_large} too large for the bus, not published: raise max_payload of NATS");
    }
}
