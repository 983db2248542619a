//! The access token (manual, 3.2.1): fetched when it is first needed, renewed before it expires and when it is refused.
//! There is one authentication at a time for all clones of the client.
//!
//! The platform keeps 64 tokens per user and silently drops the oldest for the 65th, so authentications are kept few: a
//! failed one is not repeated at once, whichever task asks, and refused tokens are replaced five times at once and then
//! every half hour. A token that is no longer needed is revoked (3.2.5). Its age is measured with our monotonic clock
//! from the time of the response, so that wrong clocks do not matter.

use std::time::Duration;

use tokio::sync::Mutex;

use super::Core;
use super::credentials::{Authenticated, Token};
use super::error::{Class, PlatformError};

/// How long before its expiry a token is renewed; at most a tenth of its lifetime.
const RENEW_BEFORE: Duration = Duration::from_secs(600);
/// Delay of the next authentication after a failed one; doubled with each further failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Delay after a refusal, which somebody has to fix first.
const REFUSED_RETRY_DELAY: Duration = Duration::from_secs(60);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(900);
/// Delay after an authentication that was abandoned, and may have returned a token.
const MAX_UNKNOWN_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Number of refused tokens that are replaced at once, and the interval for further ones: fewer than 64
/// per maximum token lifetime.
const MAX_REPLACEMENTS: u32 = 5;
const REPLACEMENT_INTERVAL: Duration = Duration::from_secs(1800);

/// The token of a client.
pub(super) struct Tokens(Mutex<State>);

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    generation: u64,
    failures: u32,
    /// No authentication before this time of the monotonic clock, and the reason.
    pause: Option<(Duration, Option<PlatformError>)>,
    replaced: u32,
    replaced_since: Duration,
}

/// A token, with times of the monotonic clock.
struct Kept {
    token: Token,
    renew_at: Duration,
    ends_at: Duration,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The current token, or a new one if it is about to expire or is the one that was `refused`.
    pub(super) async fn current(&self, core: &Core, refused: Option<u64>) -> Result<Token, PlatformError> {
        // Held during the authentication, so that other calls that need a token wait for it.
        let mut state = self.0.lock().await;
        let now = core.clock.steady();
        let mut still_good = None;
        match &state.kept {
            Some(kept) if refused == Some(kept.token.generation) => state.may_replace(now)?,
            Some(kept) if now < kept.renew_at => return Ok(kept.token.clone()),
            Some(kept) if now < kept.ends_at => still_good = Some(kept.token.clone()),
            _ => {}
        }
        match state.renew(core).await {
            Ok(token) => Ok(token),
            Err(error) => still_good.ok_or(error),
        }
    }

    /// Removes and returns the current token, without fetching one.
    pub(super) async fn take(&self) -> Option<Token> {
        self.0.lock().await.kept.take().map(|kept| kept.token)
    }
}

impl State {
    fn next_pause(&self, least: Duration) -> Duration {
        (least * 2_u32.saturating_pow(self.failures.saturating_sub(1).min(16))).min(MAX_RETRY_DELAY)
    }

    async fn renew(&mut self, core: &Core) -> Result<Token, PlatformError> {
        self.wait_for_turn(core).await?;
        // Counts as failed until it has succeeded, so that an abandoned authentication is not followed by another one at once.
        self.failures += 1;
        self.pause = Some((core.clock.steady() + self.next_pause(RETRY_DELAY).min(MAX_UNKNOWN_RETRY_DELAY), None));
        match core.authenticate().await {
            Ok(answer) => Ok(self.keep(&answer, core.clock.steady())),
            Err(error) => {
                let least = if error.class == Class::Transient { RETRY_DELAY } else { REFUSED_RETRY_DELAY };
                let pause = error.wait.unwrap_or_else(|| self.next_pause(least));
                self.pause = Some((core.clock.steady() + pause, Some(error.clone())));
                Err(error)
            }
        }
    }

    /// Waits for a short pause; returns the reason of a longer one as an error.
    async fn wait_for_turn(&self, core: &Core) -> Result<(), PlatformError> {
        let Some((until, reason)) = &self.pause else { return Ok(()) };
        let left = until.saturating_sub(core.clock.steady());
        match reason {
            Some(error) if !left.is_zero() && (left > super::call::MAX_WAIT || error.class != Class::Transient) => {
                return Err(PlatformError { wait: Some(left), ..error.clone() });
            }
            _ => tokio::time::sleep(left).await,
        }
        Ok(())
    }

    fn keep(&mut self, answer: &Authenticated, now: Duration) -> Token {
        self.failures = 0;
        self.pause = None;
        self.generation += 1;
        let token =
            Token { text: answer.token.clone(), generation: self.generation, identity: answer.identity.clone() };
        let ahead = RENEW_BEFORE.min(answer.valid / 10);
        let ends_at = now + answer.valid;
        self.kept = Some(Kept { token: token.clone(), renew_at: ends_at - ahead, ends_at });
        token
    }

    /// Checks whether a refused token may be replaced.
    fn may_replace(&mut self, now: Duration) -> Result<(), PlatformError> {
        let earned = now.saturating_sub(self.replaced_since).as_secs() / REPLACEMENT_INTERVAL.as_secs();
        if self.replaced == 0 {
            self.replaced_since = now;
        } else if earned > 0 {
            self.replaced = self.replaced.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            self.replaced_since += REPLACEMENT_INTERVAL * u32::try_from(earned).unwrap_or(0);
        }
        if self.replaced < MAX_REPLACEMENTS {
            self.replaced += 1;
            return Ok(());
        }
        let error = PlatformError::new(
            Class::Token,
            "authenticating",
            "the platform rejects every new token",
            "Check that the account exists and has permission for this, and that other programs do not use the same \
             App ID and user so often that their tokens displace ours (the platform keeps 64).",
        );
        Err(PlatformError { wait: Some((self.replaced_since + REPLACEMENT_INTERVAL).saturating_sub(now)), ..error })
    }
}
