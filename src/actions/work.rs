//! The work itself.

use std::collections::BTreeMap;
use std::convert::Infallible;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::record::{ActionRecord, ActionState, EntryOutcome, EntryResult, NOTE_INTERVAL, ReplayWork, Work, reason};
use super::{ActionContext, MAX_ENTRIES};
use crate::quarantine::{self, PAGE_ROWS, Retried};
use crate::relay::Encoder;
use crate::replay::{ReplayCounts, ReplayRequest, replay};
use convoke_core::verify::Admit;
use convoke_log::{LogError, Quarantined};

/// Does it until it is done, it fails, or `stop`; notes how it stands meanwhile and at the end.
pub async fn run(context: &ActionContext, record: ActionRecord, stop: &CancellationToken) -> ActionRecord {
    let progress = watch::Sender::new(record);
    // Side by side: each may wait for what the other holds.
    let outcome = tokio::select! {
        outcome = work(context, &progress, stop) => outcome,
        never = keep_often(context, &progress) => match never {},
    };
    let now = context.clock.now();
    progress.send_modify(|record| {
        record.ended_at = Some(now);
        record.state = match outcome {
            Ok(Ended::Done) => ActionState::Done,
            Ok(Ended::Stopped) => ActionState::Stopped,
            Err(error) => {
                tracing::warn!(
                    action_id = record.action_id,
                    error = format!("{error:#}"),
                    "an operator's action failed"
                );
                record.message = Some("the bus or the database did not do its part: see the log".to_owned());
                ActionState::Failed
            }
        };
    });
    keep(context, &progress).await;
    let record = progress.borrow().clone();
    let (counts, state) = (serde_json::json!(record.counts).to_string(), record.state.as_str());
    tracing::info!(
        who = record.who,
        action_id = record.action_id,
        what = %record.work,
        how_many = record.done,
        counts,
        state,
        "an operator's action ended"
    );
    record
}

async fn keep_often(context: &ActionContext, progress: &watch::Sender<ActionRecord>) -> Infallible {
    loop {
        tokio::time::sleep(NOTE_INTERVAL).await;
        keep(context, progress).await;
    }
}

async fn keep(context: &ActionContext, progress: &watch::Sender<ActionRecord>) {
    let now = context.clock.now();
    progress.send_modify(|record| record.updated_at = now);
    let (id, note) = {
        let record = progress.borrow();
        (record.action_id.clone(), record.note())
    };
    if let Err(error) = context.log.keep_action(&id, &note).await {
        tracing::warn!(action_id = id, %error, "how an operator's action stands is not noted");
    }
}

enum Ended {
    Done,
    Stopped,
}

async fn work(
    context: &ActionContext,
    progress: &watch::Sender<ActionRecord>,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let work = progress.borrow().work.clone();
    match work {
        Work::Retry { ids, unit } => Ok(retry(context, &ids, unit, progress, stop).await?),
        Work::Discard { ids } => Ok(discard(context, &ids, progress, stop).await?),
        Work::Replay(work) => publish(context, &work, progress, stop).await,
    }
}

fn note(progress: &watch::Sender<ActionRecord>, id: i64, result: EntryResult, reason: Option<String>) {
    progress.send_modify(|record| {
        record.done += 1;
        record.count(result.as_str());
        if record.entries.len() < MAX_ENTRIES {
            record.entries.push(EntryOutcome { id, result, reason });
        }
    });
}

async fn retry(
    context: &ActionContext,
    ids: &[i64],
    unit: Option<Admit>,
    progress: &watch::Sender<ActionRecord>,
    stop: &CancellationToken,
) -> Result<Ended, LogError> {
    let one = async |entry: Quarantined| {
        let retried = quarantine::retry(&*context.log, &entry, unit).await?;
        let (result, why) = match retried {
            Retried::Stored => (EntryResult::Stored, None),
            Retried::Known => (EntryResult::Known, None),
            Retried::Stays(why) => (EntryResult::Stays, Some(reason(why))),
        };
        note(progress, entry.id, result, why);
        Ok::<_, LogError>(())
    };
    if ids.is_empty() {
        let mut after = 0;
        loop {
            let page = context.log.list_quarantined(after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(Ended::Done) };
            after = last.id;
            for entry in page {
                if stop.is_cancelled() {
                    return Ok(Ended::Stopped);
                }
                one(entry).await?;
            }
        }
    }
    progress.send_modify(|record| record.total = Some(ids.len() as u64));
    for id in ids {
        if stop.is_cancelled() {
            return Ok(Ended::Stopped);
        }
        match context.log.get_quarantined(*id).await? {
            Some(entry) => one(entry).await?,
            None => note(progress, *id, EntryResult::Absent, None),
        }
    }
    Ok(Ended::Done)
}

async fn discard(
    context: &ActionContext,
    ids: &[i64],
    progress: &watch::Sender<ActionRecord>,
    stop: &CancellationToken,
) -> Result<Ended, LogError> {
    progress.send_modify(|record| record.total = Some(ids.len() as u64));
    for id in ids {
        if stop.is_cancelled() {
            return Ok(Ended::Stopped);
        }
        let there = context.log.discard_quarantined(*id).await?;
        note(progress, *id, if there { EntryResult::Deleted } else { EntryResult::Absent }, None);
    }
    Ok(Ended::Done)
}

async fn publish(
    context: &ActionContext,
    work: &ReplayWork,
    progress: &watch::Sender<ActionRecord>,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let Some(bus) = &context.bus else { anyhow::bail!("there is no bus") };
    // What is missing takes as long to count as to publish.
    let total = if work.missing { None } else { super::preview::replayed(context, bus, work).await.ok() };
    progress.send_modify(|record| record.total = total.and_then(|total| (!total.at_least).then_some(total.count)));
    let request = ReplayRequest { missing: work.missing, set_aside: false, range: work.range(), again: work.again };
    let encoder = Encoder::new(bus.subject_prefix(), context.mask.clone());
    let show = |counts: ReplayCounts| {
        progress.send_modify(|record| {
            record.done = counts.done();
            record.counts = by_name(counts);
        });
    };
    let replayed = replay(&*context.log, bus, encoder, &context.owner, &request, &show, stop).await?;
    show(replayed.counts);
    progress.send_modify(|record| record.message = replayed.verdict);
    Ok(if replayed.stopped { Ended::Stopped } else { Ended::Done })
}

fn by_name(counts: ReplayCounts) -> BTreeMap<String, u64> {
    let ReplayCounts { new, suffixed, duplicate, too_large, forgotten } = counts;
    let named = [
        ("new", new),
        ("suffixed", suffixed),
        ("duplicate", duplicate),
        ("too_large", too_large),
        ("forgotten", forgotten),
    ];
    named.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}
