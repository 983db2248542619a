//! Sessions that were ended before their time, as the database knows them: each replica looks once a second at the most, and only
//! when somebody comes with a session.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::session::Session;
use convoke_log::{LogError, Sessions};

/// How often, and how long that may take. While the database does not answer, what is known counts, and it is asked less often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The sessions that were ended.
#[derive(Debug)]
pub(super) struct Ended {
    log: Arc<dyn Sessions>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<String>,
    /// Those that this process ended, which the database may not know.
    here: Vec<Session>,
    next: Option<Instant>,
}

impl Ended {
    pub fn new(log: Arc<dyn Sessions>) -> Self {
        Self { log, known: Mutex::default() }
    }

    /// Whether this one was.
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

    /// Ends it, in this process whatever the database says.
    pub async fn end(&self, session: Session) -> Result<(), LogError> {
        let mut known = self.known.lock().await;
        let now = convoke_core::time::Clock::System.now();
        known.here.retain(|ended| ended.expires > now);
        known.here.push(session.clone());
        drop(known);
        self.log.end_session(&session.id, session.expires).await
    }
}
