//! Browser sessions: a cookie that states its right and its expiry, with a proof.
//!
//! The server stores nothing: the proof is an HMAC with a key derived from the token's digest. So a session survives a restart,
//! is accepted by every replica with the same token, and ends when the token is replaced. Only sessions that were ended early are
//! stored ([`super::ended`]).

use std::time::Duration;

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Right;
use convoke_core::time::Millis;

const COOKIE_NAME: &str = "convoke_session";

/// How long a session lasts: a working day and a bit more.
const SESSION_TIME: Duration = Duration::from_secs(12 * 3600);

/// Maximum difference by which the clock of the replica that opened a session may be ahead.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Prefix of the proof's key and content: a new version invalidates old cookies.
const VERSION: &str = "convoke session 2";

/// A valid session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Its random ID.
    pub id: String,
    /// When it expires.
    pub expires: Millis,
}

/// The sessions of one token.
pub(super) struct Sessions {
    proof: Hmac<Sha256>,
    word: &'static str,
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl Sessions {
    /// For the token with this digest.
    pub fn new(digest: &[u8; 32], right: Right) -> Self {
        let key = mac(digest).chain_update(VERSION).finalize().into_bytes();
        Self { proof: mac(&key), word: right.as_str() }
    }

    fn content(&self, expires: i64, id: &str) -> Hmac<Sha256> {
        self.proof.clone().chain_update(format!("{VERSION}|{}|{expires}|{id}", self.word))
    }

    /// The cookie value of a new session.
    pub fn open(&self, now: Millis) -> String {
        let expires = now.plus(SESSION_TIME).get() / 1000;
        let id = hex::encode(rand::random::<[u8; 16]>());
        let proof = BASE64_URL_SAFE_NO_PAD.encode(self.content(expires, &id).finalize().into_bytes());
        format!("2.{}.{expires}.{id}.{proof}", self.word)
    }

    /// The session, if the cookie belongs to this token and has not expired. A cookie that would last longer than any session can
    /// is refused, whatever the clock did.
    pub fn holds(&self, value: &str, now: Millis) -> Option<Session> {
        let parts: Vec<&str> = value.splitn(6, '.').collect();
        let ["2", word, expires, id, proof] = parts[..] else { return None };
        let expires = expires.parse::<i64>().ok()?;
        let proof = BASE64_URL_SAFE_NO_PAD.decode(proof).ok()?;
        let left = expires.saturating_sub(now.get() / 1000);
        let holds = word == self.word
            && (1..=(SESSION_TIME + MAX_CLOCK_SKEW).as_secs() as i64).contains(&left)
            && self.content(expires, id).verify_slice(&proof).is_ok();
        holds.then_some(Session { id: id.to_owned(), expires: Millis::new(expires.checked_mul(1000)?)? })
    }
}

/// The cookie value, if this pair of a `Cookie` header is a session cookie.
pub(super) fn value(pair: &str) -> Option<&str> {
    pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('=')
}

/// `Set-Cookie`, hidden from scripts and from other sites.
pub(super) fn set(value: &str, secure: bool) -> HeaderValue {
    let lasts = if value.is_empty() { 0 } else { SESSION_TIME.as_secs() };
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&cookie).expect("a session is made of letters, digits, dots, hyphens and underscores")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Millis {
        Millis::new(seconds * 1000).unwrap()
    }

    #[test]
    fn a_session_holds_for_its_time_and_its_token_and_right_alone() {
        let (full, masked) = (Sessions::new(&[7; 32], Right::Full), Sessions::new(&[7; 32], Right::Masked));
        let other = Sessions::new(&[8; 32], Right::Full);
        let value = full.open(at(1_000));
        let end = 1_000 + 12 * 3600;
        let holds = |sessions: &Sessions, value: &str, now| sessions.holds(value, at(now)).is_some();
        assert!(holds(&full, &value, 1_000) && holds(&full, &value, end - 1));
        assert!(!holds(&full, &value, end) && !holds(&full, &value, end + 1_000_000));
        assert!(holds(&full, &value, 940), "of a replica that is a minute ahead");
        assert!(!holds(&full, &value, 939), "from the future");
        assert!(!holds(&masked, &value, 1_000) && !holds(&other, &value, 1_000));
        assert!(!holds(&masked, &value.replace("full", "masked"), 1_000));
        assert_ne!(value, full.open(at(1_000)), "each is one of its own");
    }

    #[test]
    fn a_forged_session_does_not_hold() {
        let sessions = Sessions::new(&[7; 32], Right::Full);
        let value = sessions.open(at(1_000));
        let (head, proof) = value.rsplit_once('.').unwrap();
        let forged = [
            String::new(),
            head.to_owned(),
            format!("{head}."),
            format!("{head}.{}", &proof[..20]),
            format!("{head}.{proof}A"),
            format!("{head}.{proof}.x"),
            value.replace(&format!("{}", 1_000 + 12 * 3600), &format!("{}", 1_100 + 12 * 3600)),
            value.replacen('2', "1", 1),
            "2.full.99999999999999999999999.aa.AAAA".to_owned(),
            "2.full.-9223372036854775808.aa.AAAA".to_owned(),
        ];
        for forged in forged {
            assert_eq!(sessions.holds(&forged, at(1_000)), None, "{forged}");
        }
    }

    #[test]
    fn only_a_pair_of_this_name_is_a_session() {
        assert_eq!(value(" convoke_session=1.x "), Some("1.x"));
        for pair in ["convoke_session", "convoke_session2=x", "xconvoke_session=x", "a=convoke_session=x"] {
            assert_eq!(value(pair), None, "{pair}");
        }
    }
}
