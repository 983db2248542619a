//! Enabling the push as the platform does (manual, section 6.2.3.1): a signed `meeting.verify`, whose nonce must come back with 200.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::client::{Client, Target};
use super::sender::{self, RequestWriter};
use super::{Error, body};
use convoke_core::event::HANDSHAKE;
use convoke_core::sign::Signer;
use convoke_core::time::Clock;

/// A handshake to be made with a receiver.
pub(super) struct Offer<'a> {
    pub url: &'a str,
    pub ca_file: Option<&'a Path>,
    pub app_id: &'a str,
    pub key: &'a SecretString,
    pub clock: &'a Clock,
    pub timeout: Duration,
}

/// Makes a handshake whose nonce nobody can foresee.
pub(super) async fn offer(offer: &Offer<'_>) -> Result<(), Error> {
    let target = Arc::new(Target::new(offer.url, offer.ca_file)?);
    let signer = Signer::new(offer.app_id, offer.key.expose_secret().as_bytes());
    shake(&target, &signer, (offer.url, offer.timeout), offer.clock, rand::random()).await
}

/// Makes a handshake whose nonce and request id come from `salt`.
pub(super) async fn shake(
    target: &Arc<Target>,
    signer: &Signer,
    (url, limit): (&str, Duration),
    clock: &Clock,
    salt: u64,
) -> Result<(), Error> {
    let now = clock.now().get();
    let nonce = sender::nonce(salt).to_string();
    let mut info = Vec::new();
    body::handshake(&mut info, HANDSHAKE, now);
    let mut request = RequestWriter::new(target);
    let bytes = request.write(signer, clock, now, salt, &info);
    let failed = |reason: String| Err(Error::Handshake { reason });
    let answer = match timeout(limit, Client::new(Arc::clone(target)).exchange(bytes)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(fault)) => return failed(format!("no answer from {url}: {fault}")),
        Err(_) => return failed(format!("no answer from {url} within {limit:?}")),
    };
    let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
    if answer.status != 200 {
        return failed(format!("status {} instead of 200, with the body {text:?}", answer.status));
    }
    let echo = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
    if echo["nonce"].as_str() == Some(nonce.as_str()) {
        return Ok(());
    }
    failed(format!("the nonce {nonce:?} did not come back, but the body {text:?}"))
}
