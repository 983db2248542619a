//! The shared reader of the log.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Streams;
use super::watchers::Counts;
use convoke_core::id::Seq;
use convoke_log::{EventFilter, LogError};

/// Rows read at a time.
const PAGE: u32 = 100;

/// How long a read may take.
const WITHIN: Duration = Duration::from_secs(3);

/// After a read, others gather for so long: under load each then costs less.
const GATHER: Duration = Duration::from_millis(50);

/// The log is looked at this often, for what other replicas append: to listen for them is the cursors' alone, who would hear less.
const LOOK: Duration = Duration::from_millis(250);

/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);

impl Streams {
    /// Reads the log for all who watch its end, whenever somebody does.
    pub(super) async fn follow(&self) {
        let mut counts = self.watchers.counts();
        while counts.wait_for(|counts| counts.events > 0).await.is_ok() {
            self.follow_while_watched(&mut counts).await;
            self.recent.clear();
        }
    }

    async fn follow_while_watched(&self, counts: &mut watch::Receiver<Counts>) {
        let mut position = None;
        while counts.borrow_and_update().events > 0 {
            // Armed before the log is read, so that no commit falls between reading and waiting.
            let appended = self.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            let read = self.read_on(position).await;
            self.recent.shrink();
            let pause = match read {
                Ok(at) => {
                    let moved = position != Some(at);
                    position = Some(at);
                    if moved { GATHER } else { Duration::ZERO }
                }
                Err(error) => {
                    tracing::debug!(%error, "the streams wait for the database");
                    AGAIN
                }
            };
            if pause.is_zero() {
                tokio::select! {
                    () = appended => {}
                    () = tokio::time::sleep(LOOK) => {}
                    _ = counts.changed() => {}
                }
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Reads to the end of the log, from `position` on; to where. Without one it begins at the end.
    async fn read_on(&self, position: Option<Seq>) -> Result<Seq, LogError> {
        let head = self.api.log.head().await?;
        let Some(mut position) = position.filter(|position| *position <= head) else {
            self.recent.begin(head);
            return Ok(head);
        };
        while position < head {
            let read = Instant::now();
            let found = self.api.log.events_between(&EventFilter::default(), position, head, PAGE, WITHIN).await?;
            position = found.next.unwrap_or(head);
            self.recent.push(found.rows, position, read);
        }
        Ok(position)
    }
}
