//! What an action would do. Nothing changes.

use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use super::record::{EntryOutcome, EntryResult, ReplayWork, Work, reason};
use super::{ActionContext, ActionError, MAX_ENTRIES};
use crate::quarantine::{self, PAGE_ROWS};
use crate::{audit, relay};
use convoke_bus::Bus;
use convoke_core::time::instant;
use convoke_core::verify::Admit;
use convoke_log::{Filter, Quarantined};

/// How long counting may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(8);

/// Nobody needs to know whether there are more.
const MAX_COUNTED: u64 = 1_000_000;

/// What an action would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Preview {
    /// How many entries or events it is about.
    pub count: u64,
    /// Whether there are more than those that were counted.
    pub at_least: bool,
    /// How many of them would change something: entries that would be events or be deleted, events that would be published.
    pub would_change: u64,
    /// What would come of each entry of the quarantine; the first 100.
    pub entries: Vec<EntryOutcome>,
}

pub async fn preview(context: &ActionContext, work: &Work) -> Result<Preview, ActionError> {
    match work {
        Work::Retry { ids, unit } if ids.is_empty() => all_retried(context, *unit).await,
        Work::Retry { ids, unit } => {
            let mut preview = Preview::default();
            for id in ids {
                let entry = context.log.get_quarantined(*id).await?;
                preview.add(entry.map_or_else(|| absent(*id), |entry| retried(&entry, *unit)));
            }
            Ok(preview)
        }
        Work::Discard { ids } => {
            let mut preview = Preview::default();
            for id in ids {
                let there = context.log.get_quarantined(*id).await?.is_some();
                let result = if there { EntryResult::Deleted } else { EntryResult::Absent };
                preview.add(EntryOutcome { id: *id, result, reason: None });
            }
            Ok(preview)
        }
        Work::Replay(work) => {
            let Some(bus) = &context.bus else { return Err(ActionError::Impossible("there is no bus")) };
            replayed(context, bus, work).await
        }
    }
}

impl Preview {
    fn add(&mut self, outcome: EntryOutcome) {
        self.count += 1;
        self.would_change += u64::from(!matches!(outcome.result, EntryResult::Stays | EntryResult::Absent));
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(outcome);
        }
    }
}

const fn absent(id: i64) -> EntryOutcome {
    EntryOutcome { id, result: EntryResult::Absent, reason: None }
}

fn retried(entry: &Quarantined, unit: Option<Admit>) -> EntryOutcome {
    match quarantine::reread(entry, unit) {
        Ok(_) => EntryOutcome { id: entry.id, result: EntryResult::Event, reason: None },
        Err(why) => EntryOutcome { id: entry.id, result: EntryResult::Stays, reason: Some(reason(why)) },
    }
}

async fn all_retried(context: &ActionContext, unit: Option<Admit>) -> Result<Preview, ActionError> {
    let (begun, mut preview, mut after): (Instant, _, _) = (instant(), Preview::default(), 0);
    loop {
        let page = context.log.list_quarantined(after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(preview) };
        after = last.id;
        page.iter().for_each(|entry| preview.add(retried(entry, unit)));
        if begun.elapsed() > COUNT_TIMEOUT {
            preview.at_least = true;
            return Ok(preview);
        }
    }
}

/// What a replay is about, as far as it can be counted in time.
pub(super) async fn replayed(context: &ActionContext, bus: &Bus, work: &ReplayWork) -> Result<Preview, ActionError> {
    let count = async {
        let end = relay::position(&*context.log).await?;
        let Some(range) = work.range() else {
            let found = audit::compare(&*context.log, bus, end).await.map_err(ActionError::Unavailable)?;
            return Ok(found.missing.len() as u64);
        };
        let filter = Filter { up_to: Some(end), ..range };
        Ok(context.log.count_selected(&filter, MAX_COUNTED + 1).await?)
    };
    let counted: Result<u64, ActionError> =
        tokio::time::timeout(COUNT_TIMEOUT, count).await.map_err(|_| ActionError::TooSlow)?;
    let count = counted?;
    let shown = count.min(MAX_COUNTED);
    Ok(Preview { count: shown, at_least: count > MAX_COUNTED, would_change: shown, entries: Vec::new() })
}
