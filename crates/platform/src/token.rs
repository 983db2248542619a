//! The access token (manual, 3.2.1): fetched when it is first needed, renewed before it ends and when it is refused, one
//! authentication at a time for all who share the client.
//!
//! The platform keeps 64 tokens for a user and silently kills the oldest for the 65th, so authentications are few: a
//! failed one is not repeated at once, whatever asks, and refused tokens are replaced five times at once and then every half
//! hour. Whoever needs it no more gives it back (3.2.5). Expiry is judged by our steady clock from the moment of the answer, whatever the two clocks say.

use std::time::Duration;

use tokio::sync::Mutex;

use super::Core;
use super::credentials::{Authenticated, Token};
use super::error::{Class, PlatformError};

/// A token is renewed this long before its end, or after nine tenths of its life.
const RENEW_BEFORE: Duration = Duration::from_secs(600);
/// After a failed authentication the next waits so long, and twice as long after each further one.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Somebody has to change something first.
const REFUSED_RETRY_DELAY: Duration = Duration::from_secs(60);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(900);
/// After one that nobody waited for to the end, which may have brought a token.
const MAX_UNKNOWN_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Refused tokens that are replaced at once, and how often another one may be: fewer than 64 in a token's longest life.
const MAX_REPLACEMENTS: u32 = 5;
const REPLACEMENT_INTERVAL: Duration = Duration::from_secs(1800);

/// The one token of a client.
pub(super) struct Tokens(Mutex<State>);

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    generation: u64,
    failures: u32,
    /// No authentication before this moment of the steady clock, and why.
    pause: Option<(Duration, Option<PlatformError>)>,
    replaced: u32,
    replaced_since: Duration,
}

/// A token, and moments of the steady clock.
struct Kept {
    token: Token,
    renew_at: Duration,
    ends_at: Duration,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// A token: the kept one, unless it is about to end or is the one that was `refused`.
    pub(super) async fn current(&self, core: &Core, refused: Option<u64>) -> Result<Token, PlatformError> {
        // Held while authenticating: other calls that need a token wait for this one.
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

    /// The kept token, which is not used any more from here on. None is fetched for it.
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
        // Until it has succeeded it counts as failed, so that one that nobody waits for any more is not followed at once
        // by another.
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

    /// Waits out a short pause; of a longer one it says why it is there.
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

    /// Whether a refused token may be replaced.
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
            "the platform refuses one new token after the other",
            "See whether the account still exists and has the right to this, and whether other programs use the same \
                App ID and user so much that their tokens push ours out (the platform keeps 64).",
        );
        Err(PlatformError { wait: Some((self.replaced_since + REPLACEMENT_INTERVAL).saturating_sub(now)), ..error })
    }
}
