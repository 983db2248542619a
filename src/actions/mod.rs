//! What operators do by way of the admin listener: retries and discards of the quarantine, replays.
//!
//! An action carries an id that its client made, and is done once for each id, whichever replica is asked: it is noted in the
//! database before it begins. It goes on in the background, one of each kind of work at a time, until the service stops.

mod preview;
mod record;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use convoke_bus::Bus;
use convoke_core::time::Clock;
use convoke_log::{LogError, Store};

pub use preview::Preview;
pub use record::{ActionRecord, ActionState, EntryOutcome, EntryResult, ReplayWork, Work};

/// The task that does the work.
pub const NAME: &str = "actions";

/// How many entries of the quarantine one action may name.
pub const MAX_ENTRIES: usize = 100;

/// Actions that are shown.
const MAX_SHOWN: u32 = 50;

/// How long whoever asks waits for the action before it, and for the end of their own.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an action works with.
#[derive(Clone, Debug)]
pub struct ActionContext {
    /// The log.
    pub log: Arc<dyn Store>,
    /// The bus; `None`: nothing is published.
    pub bus: Option<Arc<Bus>>,
    /// Fields that are kept out of the stream.
    pub mask: Vec<String>,
    /// Who holds the relay's lease during a replay: not the relay of this process.
    pub owner: String,
    /// What time it is.
    pub clock: Clock,
}

/// Why an action did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// It cannot be done here.
    #[error("{0}")]
    Impossible(&'static str),
    /// The id is that of another action.
    #[error("another action has this action_id: make a new one")]
    Reused,
    /// One of its kind goes on.
    #[error("another action of this kind goes on in this process: wait for its end")]
    Busy,
    /// The service stops.
    #[error("the service stops: ask again")]
    Stopping,
    /// It takes too long to find out.
    #[error("it takes too long to count: narrow the range")]
    TooSlow,
    /// The database does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The bus or the database does not answer.
    #[error("the bus or the database does not answer")]
    Unavailable(#[source] anyhow::Error),
}

/// One that waits for its worker.
#[derive(Debug)]
struct Job {
    record: ActionRecord,
    ended: oneshot::Sender<Result<ActionRecord, ActionError>>,
    _place: OwnedSemaphorePermit,
}

/// One kind of work: an action at a time.
#[derive(Debug)]
struct Lane {
    free: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
    /// Held by the worker.
    waiting: Mutex<mpsc::Receiver<Job>>,
}

impl Lane {
    fn new() -> Self {
        let (jobs, waiting) = mpsc::channel(1);
        Self { free: Arc::new(Semaphore::new(1)), jobs, waiting: Mutex::new(waiting) }
    }
}

/// The actions of this process.
#[derive(Debug)]
pub struct ActionQueue {
    context: ActionContext,
    quarantine: Lane,
    replays: Lane,
}

impl ActionQueue {
    /// None yet.
    #[must_use]
    pub fn new(context: ActionContext) -> Arc<Self> {
        Arc::new(Self { context, quarantine: Lane::new(), replays: Lane::new() })
    }

    const fn lane(&self, work: &Work) -> &Lane {
        match work {
            Work::Replay(_) => &self.replays,
            Work::Retry { .. } | Work::Discard { .. } => &self.quarantine,
        }
    }

    fn possible(&self, work: &Work) -> Result<(), ActionError> {
        if matches!(work, Work::Replay(_)) && self.context.bus.is_none() {
            return Err(ActionError::Impossible("nats.url is none: there is no stream to replay to"));
        }
        Ok(())
    }

    /// What the work would do. Nothing changes.
    ///
    /// # Errors
    /// [`ActionError`].
    pub async fn preview(&self, work: &Work) -> Result<Preview, ActionError> {
        self.possible(work)?;
        preview::preview(&self.context, work).await
    }

    /// Does the work, once for each id; how it stands after a few seconds at the most.
    ///
    /// # Errors
    /// [`ActionError`]: nothing was done.
    pub async fn begin(&self, id: &str, who: &str, work: Work) -> Result<ActionRecord, ActionError> {
        if let Some(known) = self.known(id, &work).await? {
            return Ok(known);
        }
        self.possible(&work)?;
        let lane = self.lane(&work);
        let free = tokio::time::timeout(PLACE_TIMEOUT, Arc::clone(&lane.free).acquire_owned()).await;
        let Ok(Ok(place)) = free else {
            // Perhaps it is this one that goes on.
            return self.known(id, &work).await?.ok_or(ActionError::Busy);
        };
        let record = ActionRecord::begun(id, who, work, self.context.clock.now());
        let (ended, end) = oneshot::channel();
        let shown = record.clone();
        // From here on it is the worker's: whoever asked may go.
        lane.jobs.try_send(Job { record, ended, _place: place }).map_err(|_| ActionError::Stopping)?;
        match tokio::time::timeout(WAIT_TIMEOUT, end).await {
            Ok(Ok(outcome)) => outcome,
            Err(_) => Ok(self.find(id).await?.unwrap_or(shown)),
            // It was never taken up.
            Ok(Err(_)) => Err(ActionError::Stopping),
        }
    }

    /// The action that has this id already.
    async fn known(&self, id: &str, work: &Work) -> Result<Option<ActionRecord>, ActionError> {
        match self.find(id).await? {
            Some(known) if known.work != *work => Err(ActionError::Reused),
            known => Ok(known),
        }
    }

    /// How an action stands.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn find(&self, id: &str) -> Result<Option<ActionRecord>, LogError> {
        let note = self.context.log.action(id).await?;
        Ok(note.and_then(|note| ActionRecord::read(&note, self.context.clock.now())))
    }

    /// The newest actions.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn recent(&self) -> Result<Vec<ActionRecord>, LogError> {
        let (notes, now) = (self.context.log.recent_actions(MAX_SHOWN).await?, self.context.clock.now());
        Ok(notes.iter().filter_map(|note| ActionRecord::read(note, now)).collect())
    }

    /// Does what is begun, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(self.work(&self.quarantine, &stop), self.work(&self.replays, &stop));
    }

    async fn work(&self, lane: &Lane, stop: &CancellationToken) {
        let mut jobs = lane.waiting.lock().await;
        loop {
            let job = tokio::select! {
                job = jobs.recv() => job,
                () = stop.cancelled() => {
                    // Whoever waits for one that was not taken up is told.
                    jobs.close();
                    while jobs.try_recv().is_ok() {}
                    return;
                }
            };
            let Some(Job { record, ended, _place }) = job else { return };
            let outcome = self.once(record, stop).await;
            // Whoever asked may have gone.
            let _ = ended.send(outcome);
        }
    }

    /// Does it, unless its id was noted before, here or elsewhere.
    async fn once(&self, record: ActionRecord, stop: &CancellationToken) -> Result<ActionRecord, ActionError> {
        let id = record.action_id.as_str();
        if !self.context.log.begin_action(id, &record.note()).await? {
            return self.known(id, &record.work).await?.ok_or(ActionError::Busy);
        }
        tracing::info!(who = record.who, action_id = id, what = %record.work, "an operator's action begins");
        Ok(work::run(&self.context, record, stop).await)
    }
}
