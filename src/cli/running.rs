//! Asks the admin listener of a running service about its state, on behalf of a command on the same host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::AUTHORIZATION;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::Settings;
use crate::words::counted;
use convoke_platform::transport::{Answer, Transport};

/// The service is on this machine, and answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The response of the configured admin listener, whatever its status.
///
/// # Errors
/// Why there was no response.
pub async fn get(settings: &Settings, path: &str) -> Result<Answer, String> {
    let url = format!("http://{}{path}", reachable(settings.listen.admin));
    let mut request = Request::get(&url);
    if let Some(widest) = settings.admin.widest() {
        let token = widest.token.expose_secret();
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::new())).map_err(|error| error.to_string())?;
    Transport::new(&url)?.exchange(request, ANSWER_TIMEOUT).await.map_err(|fault| fault.to_string())
}

/// The same, parsed as JSON. `None`: the service is not running, or refuses access.
pub async fn fetch<T: DeserializeOwned>(settings: &Settings, path: &str) -> Option<T> {
    // The status does not matter: a service that is not ready responds with 503.
    serde_json::from_slice(&get(settings, path).await.ok()?.body).ok()
}

/// An address at which a listener is reachable from this host, even if it listens on all addresses.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// The URL of the events listener, from this machine.
pub fn events_url(settings: &Settings) -> String {
    let scheme = if settings.listen.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{}", reachable(settings.listen.events), settings.listen.path)
}

/// The response of `/readyz?verbose`.
#[derive(Debug, Deserialize)]
pub struct Running {
    ready: bool,
    stopping: bool,
    not_accepting_reason: Option<String>,
    tasks: BTreeMap<String, Helper>,
}

#[derive(Debug, Deserialize)]
struct Helper {
    running: bool,
    restarts: u64,
    last_failure: Option<String>,
}

impl Running {
    /// Asks the service.
    pub async fn fetch(settings: &Settings) -> Option<Self> {
        fetch(settings, "/readyz?verbose").await
    }

    /// Why the service takes no events; `None`: it does.
    pub fn refuses(&self) -> Option<String> {
        if self.ready {
            return None;
        }
        Some(match &self.not_accepting_reason {
            _ if self.stopping => "the running `convoke serve` is stopping and accepts no events".to_owned(),
            Some(reason) => format!("the running `convoke serve` answers events 503: {reason}"),
            None => "the running `convoke serve` accepts no events yet".to_owned(),
        })
    }

    /// The helpers that were restarted, with how often and why.
    pub fn restarted(&self) -> Option<String> {
        let named = self.tasks.iter().filter(|(_, helper)| helper.restarts > 0).map(|(name, helper)| {
            let state = if helper.running { "" } else { ", and is down now" };
            let why = helper.last_failure.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{name} {}{state}{why}", counted(helper.restarts, "time", "times"))
        });
        let named: Vec<_> = named.collect();
        (!named.is_empty()).then(|| format!("started again since the service began, see its log: {}", named.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_takes_no_events_and_helpers_that_fail_are_reported_in_a_sentence_each() {
        let running = |report: &str| serde_json::from_str::<Running>(report).expect("a report");
        let well =
            running(r#"{"ready":true,"stopping":false,"database":"","tasks":{"bus":{"running":true,"restarts":0}}}"#);
        assert_eq!((well.refuses(), well.restarted()), (None, None));
        let ill = running(
            r#"{"ready":false,"stopping":false,"not_accepting_reason":"no room","tasks":{
                "bus":{"running":true,"restarts":1,"last_failure":"it panicked"},
                "recordings":{"running":false,"restarts":20},"upkeep":{"running":true,"restarts":0}}}"#,
        );
        assert_eq!(ill.refuses().as_deref(), Some("the running `convoke serve` answers events 503: no room"));
        let restarted = "started again since the service began, see its log: bus 1 time (it panicked); \
             recordings 20 times, and is down now";
        assert_eq!(ill.restarted().as_deref(), Some(restarted));
    }
}
