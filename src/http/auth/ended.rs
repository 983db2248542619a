//! Sessions that were ended early, as recorded in the database: each replica reads them at most once a second, and only when a
//! request comes with a session.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::session::Session;
use convoke_log::{LogError, Sessions};

/// How often the database is read, and the time limit for that. While it does not answer, the last result is used, and it is read
/// less often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The sessions that were ended early.
#[derive(Debug)]
pub(super) struct Ended {
    log: Arc<dyn Sessions>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<String>,
    /// Sessions that this process ended; the database may not have them.
    here: Vec<Session>,
    next: Option<Instant>,
}

impl Ended {
    pub fn new(log: Arc<dyn Sessions>) -> Self {
        Self { log, known: Mutex::default() }
    }

    /// Whether this session was ended.
    pub async fn has(&self, session: &Session) -> bool {
        let mut known = self.known.lock().await;
        if known.here.iter().any(|ended| ended.id == session.id) {
            return true;
        }
        if known.next.is_none_or(|next| next <= Instant::now()) {
            let found = tokio::time::timeout(QUERY_TIMEOUT, self.log.ended_sessions()).await;
            known.next = Some(Instant::now() + if let Ok(Ok(_)) = &found { POLL_INTERVAL } else { RETRY_DELAY });
            if let Ok(Ok(found)) = found {
                known.ids = found.into_iter().collect();
            }
        }
        known.ids.contains(&session.id)
    }

    /// Ends a session; in this process it is ended even if the database fails.
    pub async fn end(&self, session: Session) -> Result<(), LogError> {
        let mut known = self.known.lock().await;
        let now = convoke_core::time::Clock::System.now();
        known.here.retain(|ended| ended.expires > now);
        known.here.push(session.clone());
        drop(known);
        self.log.end_session(&session.id, session.expires).await
    }
}
