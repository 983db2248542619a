//! Heals a lost `meeting.end` within minutes: reads the platform's list of running meetings (4.2.12) while runs are live, and looks
//! for those that are not in it any more in history. A run that is in the list and did not start here gets its start, and those who
//! are in it now (4.2.29) their joins: so it is at the first start of all, when meetings are already under way.
//!
//! The rules, since a list may lag, be cut short, or show one user's meetings only: `judge`. What follows is made into events
//! with the source `platform`, by the same door as backfill's; what the platform still pushes counts more in the tables. The replica
//! that runs the cursor `meetings` does it.

mod judge;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backfill::plan::{self, Plan};
use crate::backfill::synthesis::{self, FilledEvent, FilledRun};
use crate::backfill::{
    ComparisonError, Enterprises, Error, MergedRun, NoSubscriber, SeenEnterprise, merged_runs, seen_enterprises, store,
    tables_are_current,
};
use crate::cursor::lease;
use crate::forget::suppression::{self, PlatformStay};
use crate::intake::Intake;
use crate::metrics::{Counters, Registry};
use convoke_core::event::Source;
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, Millis};
use convoke_log::{Appended, LogError, RunKey, Snapshots};
use convoke_platform::{Class, Client, Conference, Item, Pages, PlatformError, Present};
use judge::{Moment, SeenRuns, Verdict};

/// The task's name, for logs, metrics, and the note that says that the list was read before.
pub const TASK: &str = "running_meetings";

/// How often a replica that does not read the list checks whether it should.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Most live runs that are compared: those that were heard of last.
const MAX_LIVE_RUNS: u32 = 2_000;

/// Why a reading says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Inconclusive {
    /// The platform gave less than it announced, or the list changed while it was read.
    Incomplete,
    /// It lacks most of what was heard of a moment ago.
    Implausible,
    /// The account is no administrator, and sees its own meetings only; or it is a service provider's.
    NotAdministrator,
    /// It is not known to which subscriber the events would belong.
    NoSubscriber,
    /// The platform refused, or was not there.
    Refused,
}

/// Metrics of the task.
#[derive(Clone, Debug)]
pub struct RunningMetrics {
    events: Counters<FilledEvent>,
    inconclusive: Counters<Inconclusive>,
    read: Gauge,
    listed: Gauge,
}

impl RunningMetrics {
    /// Registers the metrics, at zero.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            events: registry.counters(
                "convoke_running_events_total",
                "Events that were made from the platform's list of running meetings because the platform had not delivered them.",
                "event",
            ),
            inconclusive: registry.counters(
                "convoke_running_inconclusive_total",
                "Readings of the platform's list of running meetings from which nothing was concluded.",
                "reason",
            ),
            read: registry.gauge(
                "convoke_running_read_timestamp_seconds",
                "Time of the last complete reading of the platform's list of running meetings; 0: none, or another replica does it.",
            ),
            listed: registry.gauge("convoke_running_meetings", "Running meetings in the last complete list of the platform."),
        }
    }
}

/// Why a reading says nothing, as the metric counts it; the database's failures are none of its reasons.
fn kind(error: &ComparisonError) -> Option<Inconclusive> {
    match error {
        ComparisonError::Nobody(NoSubscriber::Unknown(_)) => Some(Inconclusive::NoSubscriber),
        ComparisonError::NotAdministrator(_) => Some(Inconclusive::NotAdministrator),
        ComparisonError::OfEnterprise { error, .. } => kind(error),
        ComparisonError::Changed => Some(Inconclusive::Incomplete),
        _ => error.platform_error().map(|error| match error.class {
            Class::Incomplete => Inconclusive::Incomplete,
            _ => Inconclusive::Refused,
        }),
    }
}

/// What came of a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// Ends that were stored.
    pub ends: u64,
    /// Starts that were stored.
    pub starts: u64,
    /// Joins that were stored.
    pub joins: u64,
}

/// What a task needs.
#[derive(Clone, Debug)]
pub struct RunningParts {
    /// The name under which this process takes the cursor's lease.
    pub owner: String,
    /// The cursor of the analyst tables.
    pub cursor: &'static str,
    /// The IDs of the configured subscribers; they may change.
    pub subscribers: watch::Receiver<Arc<[Arc<str>]>>,
    /// The log.
    pub log: Arc<dyn Snapshots>,
    /// The entrance to the log.
    pub intake: Intake,
    /// The client of the platform's API.
    pub client: Client,
    /// The metrics.
    pub metrics: RunningMetrics,
    /// The clock.
    pub clock: Clock,
}

/// The task.
#[derive(Debug)]
pub struct RunningMeetings {
    parts: RunningParts,
    memory: SeenRuns,
    /// How many readings in a row were implausible.
    implausible: u32,
    throttle: Throttle,
}

impl RunningMeetings {
    /// The task, with nothing remembered.
    #[must_use]
    pub fn new(parts: RunningParts) -> Self {
        let throttle = Throttle::new(1, Duration::from_secs(3_600));
        Self { parts, memory: SeenRuns::default(), implausible: 0, throttle }
    }

    /// Reads the list once per `every`, until `stop`.
    pub async fn run(mut self, every: Duration, migrated: CancellationToken, stop: CancellationToken) {
        let work = async {
            migrated.cancelled().await;
            let mut next = Duration::ZERO;
            loop {
                tokio::time::sleep(POLL_INTERVAL.min(every)).await;
                match self.leads().await {
                    Ok(true) if self.parts.clock.steady() >= next => {}
                    Ok(true) => continue,
                    // What another replica saw meanwhile is not known here.
                    Ok(false) => {
                        self.memory = SeenRuns::default();
                        self.parts.metrics.read.set(0.0);
                        next = Duration::ZERO;
                        continue;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot tell whether this process reads the running meetings");
                        continue;
                    }
                }
                let mut pause = every;
                if let Err(error) = self.read().await {
                    let advice = error.platform_error().map_or("", |error| error.advice);
                    pause = error.platform_error().and_then(|error| error.wait).unwrap_or_default().max(every);
                    let kind = kind(&error).map_or("database", Into::into);
                    self.throttle.run(kind, |suppressed| {
                        tracing::warn!(%error, advice, suppressed, "nothing is concluded from the platform's running meetings: a \
                            lost meeting.end stays open until the next reading, or until backfill");
                    });
                }
                next = self.parts.clock.steady() + pause;
            }
        };
        // May be dropped at any point: what was stored is recognised when it is made again.
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    async fn leads(&self) -> Result<bool, LogError> {
        Ok(lease::moved_by(&*self.parts.log, self.parts.cursor, &self.parts.owner).await?.is_some())
    }

    /// Reads the list once, if there is a reason to, and stores what follows.
    ///
    /// # Errors
    /// [`ComparisonError`]: nothing was concluded, and what was stored until then stays.
    pub async fn read(&mut self) -> Result<Healed, ComparisonError> {
        let healed = self.reading().await;
        if let Err(kind) = healed.as_ref().map_err(kind)
            && let Some(kind) = kind
        {
            self.parts.metrics.inconclusive.of(kind).inc();
        }
        healed
    }

    async fn reading(&mut self) -> Result<Healed, ComparisonError> {
        let RunningParts { log, client, clock, .. } = self.parts.clone();
        let first = log.note(TASK).await?.is_none();
        tables_are_current(&*log, self.parts.cursor).await?;
        let mut live = log.live_runs(MAX_LIVE_RUNS).await?;
        if !first && live.is_empty() && !self.memory.waits() {
            return Ok(Healed::default());
        }
        let subscribers = Arc::clone(&self.parts.subscribers.borrow());
        let Enterprises { seen: enterprises, mut refused } = seen_enterprises(&subscribers, &client).await?;
        // Another subscriber's meetings may be another enterprise's, which these lists do not have.
        live.retain(|run| enterprises.iter().any(|of| *of.subscriber_id == *run.subscriber_id));
        let listed = list(&enterprises, &mut refused).await?;
        for error in refused {
            // Of what may be there again in a moment, nothing is concluded.
            if error.platform_error().is_none_or(|error| error.class == Class::Transient) {
                return Err(error);
            }
            self.parts.metrics.inconclusive.of(kind(&error).unwrap_or(Inconclusive::Refused)).inc();
            let advice = error.platform_error().map_or("", |error| error.advice);
            self.throttle.run("refused", |suppressed| {
                tracing::warn!(%error, advice, suppressed, "nothing is concluded of an enterprise's running meetings: of the others' it is");
            });
        }
        let now = clock.now();
        self.parts.metrics.read.set(now.seconds());
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        self.parts.metrics.listed.set(listed.len() as f64);
        let uuids: Vec<String> = listed.keys().cloned().collect();
        let known = merged_runs(log.known_runs(&uuids).await?);
        let started = known.iter().filter(|(_, known)| known.run.started_at.is_some()).map(|(uuid, _)| uuid.clone());
        let at = Moment { now, steady: clock.steady(), first };
        match self.memory.judge(&live, &uuids.into_iter().collect(), &started.collect(), at) {
            Verdict::Implausible => {
                self.implausible += 1;
                self.parts.metrics.inconclusive.of(Inconclusive::Implausible).inc();
                // Once, if the last meeting has just ended.
                if self.implausible > 1 {
                    tracing::warn!(
                        listed = listed.len(),
                        live = live.len(),
                        "the platform's list of running meetings lacks most of those whose events arrive: nothing is concluded from it"
                    );
                }
                Ok(Healed::default())
            }
            Verdict::Told { ended, begun } => {
                self.implausible = 0;
                let mut healed = Healed::default();
                for uuid in ended {
                    healed.ends += self.end(&uuid, &enterprises).await?;
                }
                self.begin(&begun, (&listed, &enterprises), &known, now, &mut healed).await?;
                if first {
                    log.keep_note(TASK, &now.to_string()).await?;
                }
                Ok(healed)
            }
        }
    }

    /// Looks for a run in history, and stores its end. Returns how many ends were new.
    async fn end(&mut self, uuid: &str, enterprises: &[SeenEnterprise]) -> Result<u64, ComparisonError> {
        let RunningParts { log, clock, .. } = self.parts.clone();
        let mut found = None;
        for of in enterprises {
            match of.client.past_conference(uuid).await {
                Ok(Some(conference)) => found = Some((conference, of)),
                Ok(None) => continue,
                // It may be another enterprise's.
                Err(error) if error.class == Class::Configuration => continue,
                Err(error) => return Err(error.into()),
            }
            break;
        }
        let Some((conference, SeenEnterprise { client, subscriber_id })) =
            found.filter(|(conference, _)| plan::is_over(conference, clock.now()))
        else {
            self.memory.not_found(uuid, clock.steady());
            return Ok(0);
        };
        // Who was there says more exactly when it ended; without them, the minute does.
        let records = match all(client.attendees(uuid)).await {
            Ok((records, true)) => records,
            Ok((_, false)) => Vec::new(),
            Err(error) if error.class == Class::Incomplete => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let known = merged_runs(log.known_runs(&[uuid.to_owned()]).await?).remove(uuid);
        let stays = log.known_stays(uuid).await?;
        let past = plan::past_stays(records);
        let run = known.as_ref().map(|known| &known.run);
        let Plan { events, .. } = plan::plan(&conference, uuid, &past, run, &stays, Millis::MAX);
        let events: Vec<_> = events
            .into_iter()
            .filter(|event| matches!(event.kind, FilledEvent::Started | FilledEvent::End) && event.at <= clock.now())
            .collect();
        let whose = known.as_ref().map_or(subscriber_id, MergedRun::last_subscriber);
        let mut ends = 0;
        for (event, appended) in events.iter().zip(self.store(whose, &events).await?) {
            if appended == Appended::Stored {
                self.parts.metrics.events.of(event.kind).inc();
                ends += u64::from(event.kind == FilledEvent::End);
            }
        }
        if ends > 0 {
            tracing::warn!(
                meeting_uuid = uuid,
                "a meeting is over whose meeting.end did not arrive: its end is from the platform's \
                history"
            );
        }
        self.memory.not_found(uuid, clock.steady());
        Ok(ends)
    }

    /// Stores the starts of these runs, and the joins of those who are in them.
    async fn begin(
        &mut self,
        begun: &[String],
        (listed, enterprises): (&HashMap<String, Listed>, &[SeenEnterprise]),
        known: &HashMap<String, MergedRun>,
        now: Millis,
        healed: &mut Healed,
    ) -> Result<(), ComparisonError> {
        if begun.is_empty() {
            return Ok(());
        }
        let mut inside = Vec::new();
        for uuid in begun {
            let Some(Listed { conference, of }) = listed.get(uuid) else { continue };
            let Some(number) = &conference.conference_id else { continue };
            let present = match all(of.client.present(number)).await {
                Ok((present, _)) => present,
                // The start is worth something without them. Who asked for too much, or was refused, asks again with the next.
                Err(error) if error.class == Class::Transient => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(%error, "cannot read who is in a meeting");
                    Vec::new()
                }
            };
            inside.push((uuid, conference, &of.subscriber_id, present));
        }
        // Who is in is asked for by number: another run may have begun under it meanwhile.
        let again = list(enterprises, &mut Vec::new()).await?;
        for (uuid, conference, subscriber_id, present) in inside {
            if !again.contains_key(uuid) {
                continue;
            }
            let run = FilledRun {
                meeting_id: conference.conference_id.as_deref(),
                meeting_uuid: uuid,
                cycle_sub_id: conference.occurrence_at(now).map(|occurrence| &*occurrence.id),
            };
            // The list has the planned start; who came early was there before it.
            let started_at = conference.start.filter(|start| *start <= now).unwrap_or(now);
            let whose = known.get(uuid).map_or(subscriber_id, MergedRun::last_subscriber);
            let mut plan = Plan::default();
            plan.add(FilledEvent::Started, started_at, synthesis::of_meeting(FilledEvent::Started, started_at, &run));
            for person in self.not_forgotten(uuid, whose, present, now).await? {
                plan.add(FilledEvent::Join, now, synthesis::seen(now, &run, &person));
            }
            for (event, appended) in plan.events.iter().zip(self.store(whose, &plan.events).await?) {
                if appended == Appended::Stored {
                    self.parts.metrics.events.of(event.kind).inc();
                    let count = if event.kind == FilledEvent::Started { &mut healed.starts } else { &mut healed.joins };
                    *count += 1;
                }
            }
            self.memory.settled(uuid);
        }
        if healed.starts > 0 {
            tracing::info!(
                meetings = healed.starts,
                participants = healed.joins,
                "took over meetings that are running at the platform and did not start here"
            );
        }
        Ok(())
    }

    /// Those whose participant is told, without whom was erased since.
    async fn not_forgotten(
        &self,
        uuid: &str,
        subscriber_id: &Arc<str>,
        present: Vec<Present>,
        now: Millis,
    ) -> Result<Vec<Present>, LogError> {
        // Without it, what is pushed later could not be recognised as theirs.
        let present: Vec<Present> = present.into_iter().filter(|person| person.participant_id.is_some()).collect();
        let stays: Vec<PlatformStay<'_>> = present
            .iter()
            .map(|person| PlatformStay {
                name: person.display_name.as_deref(),
                number: person.call_number.as_deref(),
                at: Some(now),
            })
            .collect();
        let run = RunKey { subscriber_id: Arc::clone(subscriber_id), meeting_uuid: Arc::from(uuid) };
        let forgotten = suppression::forgotten_stays(&*self.parts.log, &run, &stays).await?;
        Ok(present
            .into_iter()
            .zip(forgotten)
            .filter_map(|(person, forgotten)| (!forgotten).then_some(person))
            .collect())
    }

    async fn store(&self, subscriber_id: &Arc<str>, events: &[plan::Planned]) -> Result<Vec<Appended>, Error> {
        store(&self.parts.intake, &self.parts.clock, (subscriber_id, Source::Platform), events).await
    }
}

/// A running meeting, and whose it is.
#[derive(Clone, Debug)]
struct Listed {
    conference: Conference,
    of: SeenEnterprise,
}

/// The running meetings of all enterprises, by UUID. Those of which the platform refuses the list are added to `refused`, unless it is the
/// only one.
async fn list(
    enterprises: &[SeenEnterprise],
    refused: &mut Vec<ComparisonError>,
) -> Result<HashMap<String, Listed>, ComparisonError> {
    let mut found = HashMap::new();
    for of in enterprises {
        let (listed, whole) = match all(of.client.running()).await {
            Ok(listed) => listed,
            Err(error) if error.class == Class::Configuration && enterprises.len() > 1 => {
                refused.push(ComparisonError::from(error).of_enterprise(of.client.corp_id().map(str::to_owned)));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !whole {
            return Err(ComparisonError::Changed);
        }
        let by_uuid =
            |conference: Conference| Some((conference.conf_uuid.clone()?, Listed { conference, of: of.clone() }));
        found.extend(listed.into_iter().filter_map(by_uuid));
    }
    Ok(found)
}

/// All items of a list, and whether it was the same from the first page to the last.
async fn all<T: Item>(mut pages: Pages<T>) -> Result<(Vec<T>, bool), PlatformError> {
    let items = pages.rest().await?;
    let whole = pages.total().is_none_or(|total| total == items.len() as u64);
    Ok((items, whole))
}
