//! The authorisation of a long-lived response: a stream ends as soon as a new request would be refused.

use std::sync::Arc;
use std::time::Duration;

use super::session::Session;
use super::{Access, Token};

/// How often it is checked whether a session was ended, perhaps by another replica.
const SESSION_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What authorises a request.
#[derive(Clone)]
pub struct Grant {
    access: Arc<Access>,
    /// `None`: no token was required.
    token: Option<Arc<Token>>,
    /// The session that the token opened; `None` if the token itself was sent.
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

    /// Whether a token was required.
    #[must_use]
    pub const fn was_asked_for(&self) -> bool {
        self.token.is_some()
    }

    /// Returns when the authorisation ends: the token was replaced, or the session was ended or has expired.
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
