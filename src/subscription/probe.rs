//! Checks whether a handshake to the public URL arrives in this very installation of Convoke.
//!
//! The probe is a handshake like the platform's: signed with the subscriber's key, with a nonce that cannot be guessed. That the
//! nonce comes back proves little, because any server may echo what it receives. So the expected nonce is noted in the database
//! beforehand, and the replica that receives the probe records it there too, but only after it has checked the signature. A nonce
//! that arrives was therefore sent with the key, just now, through this URL. An attacker who intercepts a probe can forward it,
//! as a proxy does, but gains nothing by sending it later. A second probe, with a wrong key, must be refused.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::plain;
use crate::intake::HEARTBEAT_TIMEOUT;
use convoke_core::event::{HANDSHAKE, PROBE, Subscriber};
use convoke_core::sign;
use convoke_core::time::Clock;
use convoke_log::{Handshakes, LogError};
use convoke_platform::transport::{Answer, Fault, Transport};

/// The platform does not document how long it waits; a response that takes longer than this is risky.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after its response a probe may take to appear in the database.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the database is checked for it.
const ARRIVAL_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Why the platform should not be asked to send its handshake to this URL.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// The URL is not suitable for deliveries.
    #[error("{0}; set platform.callback_url, then run `convoke subscription set`")]
    Url(String),
    /// There are no root certificates here to verify the server with.
    #[error("{0}")]
    NoRoots(String),
    /// The server's certificate is not trusted.
    #[error("the server's certificate is not trusted: {0}; the platform would not trust it either")]
    Certificate(String),
    /// No server answers there, or none that speaks HTTP.
    #[error("it cannot be reached from this machine: {0}. If it can be reached from the internet, add --without-probe")]
    Unreachable(String),
    /// The response takes too long.
    #[error("it did not answer within {0:?}")]
    Slow(Duration),
    /// 401.
    #[error(
        "the receiver at this URL does not know subscriber {0} or its first key (401): it is another Convoke, or \
         this one has not loaded a new key yet (send it SIGHUP)"
    )]
    Key(String),
    /// 403.
    #[error(
        "this machine is not allowed to post there (403): if listen.allow_from or a firewall admits only the \
         platform, add --without-probe"
    )]
    Source,
    /// 404, 405.
    #[error(
        "no receiver accepts events at that path ({0}): compare it with listen.path, and check whether a proxy in \
         front changes it"
    )]
    Path(u16),
    /// A redirect.
    #[error("it redirects ({0}): give the platform the URL that receives events itself")]
    Redirect(u16),
    /// Any other status.
    #[error("it answers with status {0}")]
    Status(u16),
    /// 200, but with an unexpected body.
    #[error("it answers 200, but without the nonce of the handshake: it is not Convoke")]
    NoEcho,
    /// The nonce came back even for a wrong key.
    #[error(
        "it answers every handshake, even one signed with a wrong key: it is not Convoke, or something in front of \
         Convoke answers instead"
    )]
    Anything,
    /// The nonce came back, but is not in the database.
    #[error(
        "a receiver with the right key answers there, but the probe did not arrive in the database of this command: \
         it is another Convoke, or it uses another database.url, or its database is down{0}"
    )]
    Elsewhere(&'static str),
    /// The database cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Sends the two probes to `url`.
///
/// # Errors
/// Why the platform should not be asked to send its handshake.
pub async fn probe(log: &dyn Handshakes, url: &str, subscriber: &Subscriber, clock: &Clock) -> Result<(), Unproven> {
    if let Some(problem) = crate::config::callback_url_problem(url) {
        return Err(Unproven::Url(problem));
    }
    let transport = Transport::new(url).map_err(Unproven::NoRoots)?;
    let send = async |nonce: &str, key: &str| {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("convoke/", env!("CARGO_PKG_VERSION"), " (probe)"))
            .body(Full::new(Bytes::from(body(subscriber, nonce, key, clock))))
            .map_err(|error| Unproven::Url(error.to_string()))?;
        transport.exchange(request, ANSWER_TIMEOUT).await.map_err(Unproven::from)
    };
    let nonce = || format!("{PROBE}{:032x}", rand::random::<u128>());

    let expected = nonce();
    log.expect_probe(&subscriber.app_id, &expected).await?;
    let Some(key) = subscriber.keys.first() else { return Err(Unproven::Key(subscriber.app_id.to_string())) };
    let answer = send(&expected, key.expose_secret()).await?;
    judge(&answer, &expected, subscriber)?;
    let arrived = arrives(log, &expected).await?;
    // A wrong key, which a receiver with the right key recognises as that of a probe, and a nonce that is not expected.
    let unexpected = nonce();
    let forged = send(&unexpected, &sign::forged_probe_key(key.expose_secret().as_bytes(), &unexpected)).await?;
    if forged.status.is_success() {
        return Err(Unproven::Anything);
    }
    if arrived {
        return Ok(());
    }
    let alive = log.heartbeat().await?.is_some_and(|heartbeat| heartbeat.age <= HEARTBEAT_TIMEOUT);
    Err(Unproven::Elsewhere(if alive {
        ""
    } else {
        ". No `convoke serve` has accepted events with this database \
                                                    recently"
    }))
}

fn body(subscriber: &Subscriber, nonce: &str, key: &str, clock: &Clock) -> Vec<u8> {
    let now = clock.now().get();
    let event_info = format!(r#"{{"event":"{HANDSHAKE}","timestamp":{now}}}"#);
    sign::envelope(&subscriber.app_id, now, nonce, event_info.as_bytes(), key.as_bytes())
}

async fn arrives(log: &dyn Handshakes, nonce: &str) -> Result<bool, LogError> {
    let asking = async {
        while !log.probe_arrived(nonce).await? {
            tokio::time::sleep(ARRIVAL_POLL_INTERVAL).await;
        }
        Ok(true)
    };
    tokio::time::timeout(ARRIVAL_TIMEOUT, asking).await.unwrap_or(Ok(false))
}

/// Judges the response as the platform would.
fn judge(answer: &Answer, nonce: &str, subscriber: &Subscriber) -> Result<(), Unproven> {
    #[derive(Deserialize)]
    struct Echo {
        event: String,
        nonce: String,
    }
    match answer.status.as_u16() {
        200 => match serde_json::from_slice::<Echo>(&answer.body) {
            Ok(echo) if echo.event == HANDSHAKE && echo.nonce == nonce => Ok(()),
            _ => Err(Unproven::NoEcho),
        },
        401 => Err(Unproven::Key(subscriber.app_id.to_string())),
        403 => Err(Unproven::Source),
        status @ (404 | 405) => Err(Unproven::Path(status)),
        status @ 300..=399 => Err(Unproven::Redirect(status)),
        status => Err(Unproven::Status(status)),
    }
}

impl From<Fault> for Unproven {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Certificate(reason) => Self::Certificate(plain(&reason)),
            Fault::Connection(reason) => Self::Unreachable(plain(&reason)),
            Fault::Slow(time) => Self::Slow(time),
            Fault::TooLong => Self::NoEcho,
        }
    }
}
