//! Attends running meetings: takes what the platform tells of one meeting at a time, over a WebSocket (manual, 6.1), into the
//! log. Off by default, and never in the way of what the platform pushes: it waits whenever the intake is busy.
//!
//! Which meetings are wanted, and which replica attends which, stands in `live_meetings`: a row is leased for
//! [`LivePace::lease`] by one statement a second, so another replica takes a meeting over within that time. All meetings of a
//! process are one task: together they never take more than one processor, or more memory for what waits to be stored than the
//! longest message for each of [`LiveOptions::max_meetings`].
//!
//! A meeting is attended (`attend`) by the host's password, which its detail tells to the administrator of the host's enterprise,
//! or which a command gave. If neither is known, or the platform refuses it, that is said once, and not tried again: a wrong
//! password locks the meeting.

mod attend;
mod message;
mod presence;
mod storing;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;
use crate::metrics::{Counters, Registry};
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, Millis};
use convoke_log::{LiveMeeting, LogError, Store};
use convoke_platform::Client;
use convoke_platform::socket::{MAX_MESSAGE_BYTES, SocketTls};

pub use message::{Heard, LiveEvent, LiveKind, LiveRun, LiveTopic, heard};

/// The task's name.
pub const TASK: &str = "live_meetings";

/// How often leases are renewed, and others are looked for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often rows of meetings that are over are deleted, and rows of the log beyond their retention.
const CLEAN_INTERVAL: Duration = Duration::from_secs(10);

/// How long it waits before what failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A text, when it came, and its share of the memory.
type Pending = (Millis, String, OwnedSemaphorePermit);

/// Which meetings are attended, and how.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Whether all are.
    pub all: bool,
    /// The numbers of those that are.
    pub meetings: Vec<String>,
    /// The hosts whose meetings are: user UUIDs.
    pub hosts: Vec<String>,
    /// At most so many at a time. With each come [`MAX_MESSAGE_BYTES`] of memory for texts that are not stored yet.
    pub max_meetings: u32,
    /// What is asked of them.
    pub topics: Vec<LiveTopic>,
    /// How long it is kept.
    pub retention: Option<Duration>,
    /// How the server is checked.
    pub tls: SocketTls,
}

impl LiveOptions {
    /// Which running meetings come into question: none but those asked for by command, those with these numbers, or all.
    fn candidates(&self) -> Option<Option<&[String]>> {
        match (self.all || !self.hosts.is_empty(), self.meetings.is_empty()) {
            (true, _) => Some(None),
            (false, false) => Some(Some(&self.meetings)),
            (false, true) => None,
        }
    }

    fn wants(&self, meeting_id: &str, host: Option<&str>) -> bool {
        let named = |list: &[String], name: &str| list.iter().any(|known| known == name);
        self.all || named(&self.meetings, meeting_id) || host.is_some_and(|host| named(&self.hosts, host))
    }
}

/// How fast things go. Tests are faster.
#[derive(Clone, Copy, Debug)]
pub struct LivePace {
    /// How often a heartbeat is sent: the manual advises a minute.
    pub beat: Duration,
    /// After so long without anything, not even an answer to a heartbeat, the connection is given up.
    pub silence: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long the other side has to tell the end of a meeting, too: the meeting itself, or what is pushed.
    pub grace: Duration,
}

impl Default for LivePace {
    fn default() -> Self {
        let [beat, silence, lease, grace] = [60, 90, 5, 5].map(Duration::from_secs);
        Self { beat, silence, lease, grace }
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Connected {
    /// It was opened, and subscribed.
    Opened,
    /// It was lost, or given up.
    Lost,
    /// It could not be opened.
    Failed,
}

/// Why a meeting is not attended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Unattended {
    /// Our account is not told the host's password.
    NoPassword,
    /// The platform refused us.
    Refused,
}

/// Why a text is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Discarded {
    /// It is no message.
    NotJson,
    /// It is longer than 1 MiB: the connection is opened again.
    TooLong,
}

/// Metrics of the task.
#[derive(Clone, Debug)]
pub struct LiveMetrics {
    meetings: IntGauge,
    messages: Counters<LiveKind>,
    connections: Counters<Connected>,
    unattended: Counters<Unattended>,
    discarded: Counters<Discarded>,
}

impl LiveMetrics {
    /// Registers the metrics, at zero.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            meetings: registry
                .int_gauge("convoke_live_meetings", "Running meetings whose own push this process receives now."),
            messages: registry.counters(
                "convoke_live_messages_total",
                "Messages of running meetings that were stored, by the type of their event.",
                "type",
            ),
            connections: registry.counters(
                "convoke_live_connections_total",
                "Connections to running meetings, by what became of them.",
                "outcome",
            ),
            unattended: registry.counters(
                "convoke_live_unattended_total",
                "Running meetings that were wanted and cannot be attended, by why.",
                "reason",
            ),
            discarded: registry.counters(
                "convoke_live_discarded_total",
                "Messages of running meetings that were not stored, by why.",
                "reason",
            ),
        }
    }
}

/// What the task needs.
#[derive(Clone, Debug)]
pub struct LiveParts {
    /// The name under which this process takes leases.
    pub owner: String,
    /// The log.
    pub log: Arc<dyn Store>,
    /// The entrance to the log.
    pub intake: Intake,
    /// The client of the platform's API.
    pub client: Client,
    /// Which meetings.
    pub options: LiveOptions,
    /// How fast.
    pub pace: LivePace,
    /// The metrics.
    pub metrics: LiveMetrics,
    /// The clock.
    pub clock: Clock,
}

/// What all meetings of this process share.
#[derive(Debug)]
struct Context {
    parts: LiveParts,
    pending: Arc<Semaphore>,
    throttle: Throttle,
    /// Those that are attended, each with what ends it.
    attended: Mutex<HashMap<String, Attended>>,
}

#[derive(Debug)]
struct Attended {
    stop: CancellationToken,
    /// Since when it is over, by the steady clock.
    over: Option<Duration>,
}

impl Context {
    fn attended(&self) -> MutexGuard<'_, HashMap<String, Attended>> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attends meetings until `stop`.
pub async fn run(parts: LiveParts, migrated: CancellationToken, stop: CancellationToken) {
    let pending = MAX_MESSAGE_BYTES * usize::try_from(parts.options.max_meetings.max(1)).unwrap_or(1);
    let context = Arc::new(Context {
        parts,
        pending: Arc::new(Semaphore::new(pending)),
        throttle: Throttle::default(),
        attended: Mutex::default(),
    });
    let (begin, begun) = mpsc::unbounded_channel();
    let work = async {
        migrated.cancelled().await;
        tokio::join!(keep(&context, &begin), attend_all(&context, begun))
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = work => {}
    }
    // Others need not wait for the leases to expire.
    let ours: Vec<String> = context.attended().drain().map(|(meeting_id, _)| meeting_id).collect();
    let released = async {
        for meeting_id in ours {
            let LiveParts { log, owner, .. } = &context.parts;
            if let Err(error) = log.release_live(&meeting_id, owner).await {
                tracing::debug!(%error, "the lease of a meeting is not released: it expires");
            }
        }
    };
    let _ = tokio::time::timeout(context.parts.pace.lease, released).await;
}

/// Attends whatever comes.
async fn attend_all(context: &Arc<Context>, mut begun: mpsc::UnboundedReceiver<(LiveMeeting, CancellationToken)>) {
    let mut attended: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((meeting, stop)) = begun.recv() => attended.push(Box::pin(attend::attend(Arc::clone(context), meeting, stop))),
            Some(()) = attended.next(), if !attended.is_empty() => {}
        }
    }
}

/// Takes and renews leases, and begins and ends what they are for.
async fn keep(context: &Arc<Context>, begin: &mpsc::UnboundedSender<(LiveMeeting, CancellationToken)>) {
    let LiveParts { clock, pace, .. } = &context.parts;
    let (mut held_at, mut cleaned_at) = (clock.steady(), None);
    loop {
        let asked_at = clock.steady();
        match take(context, begin).await {
            Ok(()) => held_at = asked_at,
            Err(error) => {
                context.throttle.run("database", |suppressed| {
                    tracing::warn!(%error, suppressed, "cannot tell which meetings to attend; retrying");
                });
                // Another replica may have them.
                if clock.steady().saturating_sub(held_at) > pace.lease {
                    context.attended().drain().for_each(|(_, attended)| attended.stop.cancel());
                }
            }
        }
        if cleaned_at.is_none_or(|at| clock.steady().saturating_sub(at) > CLEAN_INTERVAL) {
            cleaned_at = Some(clock.steady());
            if let Err(error) = clean(context).await {
                tracing::debug!(%error, "what is over of live meetings is deleted later");
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn take(
    context: &Arc<Context>,
    begin: &mpsc::UnboundedSender<(LiveMeeting, CancellationToken)>,
) -> Result<(), LogError> {
    let LiveParts { log, owner, options, pace, clock, .. } = &context.parts;
    if let Some(numbers) = options.candidates() {
        log.want_live(numbers).await?;
    }
    let held = log.lease_live(owner, pace.lease, options.max_meetings).await?;
    let mut over = false;
    {
        let mut attended = context.attended();
        attended.retain(|meeting_id, attended| {
            let ours = held.iter().any(|meeting| meeting.meeting_id == *meeting_id);
            if !ours {
                attended.stop.cancel();
            }
            ours
        });
        for meeting in held {
            match attended.get_mut(&meeting.meeting_id) {
                Some(known) if !meeting.goes_on => {
                    let since = *known.over.get_or_insert_with(|| clock.steady());
                    if clock.steady().saturating_sub(since) > pace.grace {
                        known.stop.cancel();
                        over = true;
                    }
                }
                Some(known) => known.over = None,
                None if !meeting.goes_on => over = true,
                None => {
                    let stop = CancellationToken::new();
                    attended.insert(meeting.meeting_id.clone(), Attended { stop: stop.clone(), over: None });
                    let _ = begin.send((meeting, stop));
                }
            }
        }
    }
    if over {
        log.end_live(owner).await?;
    }
    Ok(())
}

async fn clean(context: &Context) -> Result<(), LogError> {
    let LiveParts { log, options, .. } = &context.parts;
    // Only those whose lease nobody has: ours that are over have some time for their last words.
    log.end_live("").await?;
    if let Some(keep) = options.retention {
        log.expire_live(keep).await?;
    }
    Ok(())
}
