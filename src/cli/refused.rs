//! What a running service has refused, asked of it by a command beside it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::config::Settings;
use crate::metrics::{ConnectionFailure, Rejection};
use crate::vendor::transport::Transport;

/// It is on this machine, and answers at once.
const ANSWER: Duration = Duration::from_secs(5);

/// What it says of the last hour.
#[derive(Debug, Deserialize)]
pub struct Refused {
    /// Minutes since it began to count.
    pub minutes: u64,
    by_reason: BTreeMap<String, u64>,
}

impl Refused {
    /// Asks the admin listener of the settings. `None`: nobody is there, or nobody who tells us.
    pub async fn ask(settings: &Settings) -> Option<Self> {
        let address = reachable(settings.listen.admin);
        let url = format!("http://{address}/api/v1/refusals");
        let token = settings.admin.token.as_ref().or(settings.admin.viewer_token.as_ref());
        let token = token.map(SecretString::expose_secret);
        let mut request = Request::get(&url);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::new())).ok()?;
        let answer = Transport::new(&url).ok()?.exchange(request, ANSWER).await;
        match answer {
            Ok(answer) if answer.status.is_success() => serde_json::from_slice(&answer.body).ok(),
            _ => None,
        }
    }

    /// A sentence for each reason for which something was refused that the platform may have sent, with what to do.
    pub fn sentences(&self, path: &str) -> Vec<String> {
        let count = |reason: &str| self.by_reason.get(reason).copied().filter(|count| *count > 0);
        let path = count(Rejection::Path.as_str()).map(|count| {
            format!(
                "requests to another path than {path} ({count}): if the platform posts there, correct its URL, or listen.path"
            )
        });
        let failures = ConnectionFailure::ALL.into_iter().filter_map(|failure| {
            Some(format!("connections that brought no request ({}): {}", count(failure.as_str())?, failure.todo()))
        });
        path.into_iter().chain(failures).collect()
    }
}

/// An address at which a listener on every address is found from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
