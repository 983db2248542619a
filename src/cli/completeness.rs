//! `convoke completeness`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome};
use crate::completeness::{Completeness, CompletenessReport, days_before};
use crate::config::{ConfigArgs, Env, Settings};
use crate::projection::{self, Projector};
use crate::words::counted;
use crate::{app, backfill, cursor};
use convoke_core::time::{Clock, Millis};
use convoke_core::zone::{TimeZone, WrittenTime};
use convoke_log::Store;
use convoke_log::recent::RecentRows;
use convoke_platform::Client;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 nothing is missing, 1 a day differs, 2 no day was compared.\n\n\
                        Example:\n  convoke completeness --since 2026-03-01 --until 2026-03-07")]
pub struct CompletenessArguments {
    /// The first day, for example 2026-03-01 [default: a week ago]
    #[arg(long, value_name = "DAY")]
    since: Option<WrittenTime>,
    /// The last day [default: yesterday]
    #[arg(long, value_name = "DAY")]
    until: Option<WrittenTime>,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: ConfigArgs,
}

/// The days that are compared by default.
const DEFAULT_DAYS: u32 = 7;

/// A moment of the day that is meant, whichever of the zones it is one of.
fn within(day: WrittenTime) -> Millis {
    match day {
        WrittenTime::Moment(at) => at,
        WrittenTime::Local(_) => day.in_zone(&TimeZone::ahead(4 * 60)).plus(Duration::from_secs(12 * 3_600)),
    }
}

pub async fn run(arguments: &CompletenessArguments, env: &Env) -> Outcome {
    let settings = super::settings(&arguments.settings, env, "warn")?;
    let options = super::platform_options(&settings)?;
    let clock = Clock::System;
    let (week_ago, yesterday) = days_before(clock.now(), DEFAULT_DAYS);
    let until = arguments.until.map_or(yesterday, within);
    let since = arguments.since.map_or(week_ago.min(until), within);
    if until < since {
        return Err(Failure::Usage(format!("--until {until} is before --since {since}: change one of them")));
    }
    let client = Client::new(options, clock.clone()).map_err(|error| anyhow::anyhow!(error.with_advice()))?;
    let comparison = super::with_log(&settings, async |log| {
        let comparing = compare(&settings, log, client.clone(), clock, (since, until));
        super::with_token(&client, comparing).await?
    })
    .await?;
    if arguments.json {
        super::print_json(&comparison)?;
    } else {
        println!("{comparison}");
    }
    if !comparison.not_compared.is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!(
            "{} not compared: see NOT COMPARED",
            counted(comparison.not_compared.len() as u64, "enterprise was", "enterprises were")
        )));
    }
    match (comparison.compared, comparison.differing) {
        (0, _) => Err(Failure::Usage(
            "no day was compared: events of these days may still be pushed (a day is compared 24 h 30 min after its end), or the \
             platform tells nothing of them"
                .to_owned(),
        )),
        (_, 0) => Ok(()),
        _ => Err(Failure::Found),
    }
}

async fn compare(
    settings: &Settings,
    log: &Arc<dyn Store>,
    client: Client,
    clock: Clock,
    (since, until): (Millis, Millis),
) -> Result<CompletenessReport, Failure> {
    // The tables are kept up to date by `serve` if it runs, otherwise from here.
    let (tables, recent) = (Projector::new(log.clone(), app::owner()), Arc::new(RecentRows::default()));
    let stop = CancellationToken::new();
    let completeness = Completeness {
        log: log.clone(),
        client,
        clock,
        subscribers: settings.subscriber_ids(),
        zone: settings.reports.time_zone.clone(),
    };
    let work = async {
        let compared = async {
            backfill::tables_are_current(&**log, projection::CURSOR).await?;
            completeness.compare(since, until).await
        };
        let compared = compared.await;
        stop.cancel();
        compared
    };
    let (compared, ()) = tokio::join!(work, cursor::run(tables, log.clone(), recent, stop.clone()));
    compared.map_err(|error| super::not_compared(&error))
}
