//! The source address of a request, and whether it may post.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

use super::connection::Connection;

/// The settings `listen.allow_from` and `listen.trusted_proxies`.
#[derive(Clone, Debug, Default)]
pub struct ClientSources {
    /// Networks that may post; empty means all.
    pub allow_from: Vec<IpNet>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
}

impl ClientSources {
    /// Whether a request with these headers, received over a connection from `peer`, may post.
    #[must_use]
    pub fn allow(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        if self.allow_from.is_empty() {
            return true;
        }
        let source = self.source(peer.to_canonical(), headers);
        source.is_some_and(|source| contains(&self.allow_from, source))
    }

    /// The source of a request with these headers, for logs: the connection's peer unless a trusted proxy names another.
    #[must_use]
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        self.source(peer, headers).unwrap_or(peer)
    }

    /// The source of a request with these extensions; `None` without a connection, as in tests of handlers. Every log line that
    /// names the client of a request gets it from here.
    #[must_use]
    pub fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        extensions.get::<Arc<Connection>>().map(|connection| self.origin(connection.peer().ip(), headers))
    }

    /// The nearest address that does not belong to a trusted proxy: the last one that a trusted party has seen. `None` if a
    /// trusted proxy forwards something that is not an address.
    fn source(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !contains(&self.trusted_proxies, peer) {
            return Some(peer);
        }
        let mut source = peer;
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        for line in lines.into_iter().rev() {
            for hop in line.to_str().ok()?.rsplit(',') {
                source = address(hop.trim())?;
                if !contains(&self.trusted_proxies, source) {
                    return Some(source);
                }
            }
        }
        Some(source)
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Parses an address as proxies write it: bare, in brackets, or with a port.
fn address(hop: &str) -> Option<IpAddr> {
    let parsed = hop.parse::<IpAddr>().ok().or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip()));
    parsed.or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> ClientSources {
        ClientSources {
            allow_from: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        }
    }

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    fn allowed(peer: &str, values: &[&str]) -> bool {
        sources().allow(peer.parse().unwrap(), &forwarded(values))
    }

    #[test]
    fn without_a_list_everyone_may_post() {
        assert!(ClientSources::default().allow("198.51.100.1".parse().unwrap(), &HeaderMap::new()));
    }

    #[test]
    fn a_direct_peer_is_judged_by_its_own_address() {
        assert!(allowed("192.0.2.7", &[]));
        assert!(allowed("::ffff:192.0.2.7", &[]));
        assert!(!allowed("198.51.100.1", &[]));
    }

    #[test]
    fn what_an_untrusted_peer_forwards_is_not_believed() {
        assert!(!allowed("198.51.100.1", &["192.0.2.7"]));
    }

    #[test]
    fn behind_trusted_proxies_the_nearest_stranger_counts() {
        assert!(allowed("10.0.0.1", &["192.0.2.7"]));
        assert!(allowed("10.0.0.1", &["192.0.2.7, 10.0.0.2"]));
        assert!(allowed("10.0.0.1", &["[2001:db8::1]:443", "10.0.0.2"]));
        assert!(!allowed("10.0.0.1", &["192.0.2.7, 198.51.100.1"]), "the client wrote the first one itself");
        assert!(!allowed("10.0.0.1", &["192.0.2.7", "198.51.100.1, 10.0.0.9"]));
    }

    #[test]
    fn a_trusted_proxy_that_forwards_nonsense_is_refused() {
        assert!(!allowed("10.0.0.1", &["192.0.2.7, unknown"]));
        assert!(!allowed("10.0.0.1", &[]));
    }
}
