//! `convoke replay`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome};
use crate::app;
use crate::config::{ConfigArgs, Env, Settings};
use crate::relay::Encoder;
use crate::replay::{ReplayCounts, ReplayRequest, Replayed, replay};
use crate::words::counted;
use convoke_core::zone::WrittenTime;
use convoke_log::{Filter, Store};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke replay --missing\n  convoke replay --since 2026-03-01T08:00:00+08:00 --until 2026-03-01T09:00:00+08:00 --again"
)]
pub struct ReplayArguments {
    /// Events from this time on (inclusive), for example 2026-03-01 or "2026-03-01 08:30" (in
    /// reports.time_zone), or 2026-03-01T08:30:00+08:00
    #[arg(long, value_name = "TIME")]
    since: Option<WrittenTime>,
    /// Events before this time (exclusive)
    #[arg(long, value_name = "TIME")]
    until: Option<WrittenTime>,
    /// Events of this type, for example meeting.join
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Events of this meeting, by its number or UUID
    #[arg(long, value_name = "ID")]
    meeting: Option<String>,
    /// Exactly the events that `convoke audit` finds missing in the stream. Events that were published within the stream's
    /// duplicate window get a new Nats-Msg-Id (`.r` and the time), since the stream would ignore the old one
    #[arg(long, conflicts_with_all = ["since", "until", "event", "meeting"])]
    missing: bool,
    /// The events that were set aside as too large for NATS, after its max_payload was raised
    #[arg(long, conflicts_with_all = ["since", "until", "event", "meeting"])]
    set_aside: bool,
    /// Also publish events that the stream received within its duplicate window, with a new Nats-Msg-Id (`.r` and the time):
    /// consumers get them once more
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
            "choose what to replay: --missing, --set-aside, or a range with --since, --until, --event or --meeting; \
             --since 1970-01-01 is the whole log"
                .to_owned(),
        ));
    }
    super::with_log(&settings, async |log| publish(arguments, &settings, &**log).await).await
}

async fn publish(arguments: &ReplayArguments, settings: &Settings, log: &dyn Store) -> Outcome {
    let bus = super::open_bus(settings).await?;
    let encoder = Encoder::new(bus.subject_prefix(), settings.privacy.mask.clone());
    let at = |time: Option<WrittenTime>| time.map(|time| time.in_zone(&settings.reports.time_zone));
    let range = Filter {
        since: at(arguments.since),
        until: at(arguments.until),
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
            "nothing published: the stream already has {}. Add --again to send consumers another copy (the stream \
             ignores copies within {window}, nats.duplicate_window)",
            if known == 1 { "this event".to_owned() } else { format!("these {known} events") }
        ),
        (new, 0) => println!("published {}", counted(new, "event", "events")),
        (new, known) => {
            println!("published {}; the stream already had {known} more", counted(new, "event", "events"));
        }
    }
    if suffixed > 0 {
        println!(
            "  {suffixed} of them with a new Nats-Msg-Id (ending in `{}`): within the duplicate window ({window}) \
             the stream would ignore the old one",
            replayed.suffix
        );
    }
    if forgotten > 0 {
        println!("  {forgotten} not published: their person was forgotten");
    }
    if too_large > 0 {
        println!("  {too_large} not published: too large for NATS; raise its max_payload");
    }
}
