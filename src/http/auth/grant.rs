//! What an answer that lasts is granted by: a stream ends as soon as a request would be refused.

use std::sync::Arc;
use std::time::Duration;

use super::session::Session;
use super::{Access, Token};

/// How often it is looked whether a session was ended, perhaps at another replica.
const SESSION_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a request has its right by.
#[derive(Clone)]
pub struct Grant {
    access: Arc<Access>,
    /// `None`: none was asked for.
    token: Option<Arc<Token>>,
    /// The session that the token opened, if it is not the token itself that was sent.
    session: Option<Session>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grant")
    }
}

impl Grant {
    pub(super) const fn new(access: Arc<Access>, token: Option<Arc<Token>>, session: Option<Session>) -> Self {
        Self { access, token, session }
    }

    /// Whether a token was asked for.
    #[must_use]
    pub const fn was_asked_for(&self) -> bool {
        self.token.is_some()
    }

    /// Returns when the right is over: the token was replaced, or the session was ended or has lasted its time.
    pub async fn over(self) {
        let mut tokens = self.access.tokens.subscribe();
        while self.holds().await {
            tokio::select! {
                _ = tokens.changed() => {}
                () = tokio::time::sleep(SESSION_CHECK_INTERVAL), if self.session.is_some() => {}
            }
        }
    }

    async fn holds(&self) -> bool {
        let Some(token) = &self.token else { return !self.access.asks() };
        if !self.access.tokens().contains(token) {
            return false;
        }
        match &self.session {
            None => true,
            Some(session) => session.expires > self.access.clock.now() && !self.access.ended.has(session).await,
        }
    }
}
