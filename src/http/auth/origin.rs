//! The origin of a browser's request: the page itself, or another site.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri};

/// The hosts that a request names. HTTP/2 names the host in the URI.
fn hosts<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
    let header = headers.get_all(HOST).into_iter().map(|host| host.to_str().unwrap_or_default());
    uri.authority().map(Authority::as_str).into_iter().chain(header)
}

/// Whether the request names only loopback hosts; both count if the URI and the header name one.
pub(super) fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = hosts(uri, headers).peekable();
    hosts.peek().is_some() && hosts.all(is_loopback)
}

/// Whether a host is this machine. The name of another site that resolves to this machine (DNS rebinding) is not.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The origin of a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageOrigin {
    /// The page itself, or no page at all.
    Ours,
    /// A page of another site.
    Foreign,
    /// A page of a host that may be this one: a proxy may have changed the host name.
    Unclear,
}

/// A browser sends the origin in one of two headers, which a page cannot forge. It knows the address that the user entered; if a
/// proxy changed the host name, `X-Forwarded-Host` has the original, and a page cannot set that header either.
pub(super) fn page_origin(uri: &Uri, headers: &HeaderMap) -> PageOrigin {
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"same-origin") => return PageOrigin::Ours,
        None | Some(b"none") => {}
        Some(_) => return PageOrigin::Foreign,
    }
    let Some(origin) = headers.get(ORIGIN) else { return PageOrigin::Ours };
    let origin = origin.to_str().unwrap_or_default();
    let Some((scheme, origin)) = origin.split_once("://") else { return PageOrigin::Foreign };
    let plain = |host: &str| {
        let port = if scheme == "https" { ":443" } else { ":80" };
        host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase()
    };
    let mut hosts = hosts(uri, headers).peekable();
    let forwarded = headers.get_all("x-forwarded-host").into_iter().filter_map(|hosts| hosts.to_str().ok());
    let mut forwarded = forwarded.flat_map(|hosts| hosts.split(','));
    let ours = (hosts.peek().is_some() && hosts.all(|host| plain(host) == plain(origin)))
        || forwarded.any(|host| plain(host.trim()) == plain(origin));
    if ours { PageOrigin::Ours } else { PageOrigin::Unclear }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_change_comes_from_a_page_of_ours_or_from_no_page() {
        let from = |pairs: &[(&'static str, &str)]| {
            page_origin(&Uri::from_static("/session"), &headers(&[pairs, &[("host", "Ops.example:8081")]].concat()))
        };
        assert_eq!(from(&[]), PageOrigin::Ours);
        assert_eq!(from(&[("sec-fetch-site", "same-origin"), ("origin", "http://ops.example:8081")]), PageOrigin::Ours);
        assert_eq!(from(&[("sec-fetch-site", "none")]), PageOrigin::Ours);
        for site in ["cross-site", "same-site", "", "x"] {
            assert_eq!(from(&[("sec-fetch-site", site)]), PageOrigin::Foreign, "{site}");
            let named = [("sec-fetch-site", site), ("origin", "http://ops.example:8081")];
            assert_eq!(from(&named), PageOrigin::Foreign, "{site}");
        }
        for origin in ["http://ops.example", "http://evil.example:8081"] {
            assert_eq!(from(&[("origin", origin)]), PageOrigin::Unclear, "{origin}");
            assert_eq!(from(&[("origin", origin), ("sec-fetch-site", "none")]), PageOrigin::Unclear, "{origin}");
        }
        for origin in ["null", "ops.example:8081", ""] {
            assert_eq!(from(&[("origin", origin)]), PageOrigin::Foreign, "{origin}");
        }
    }

    #[test]
    fn behind_a_proxy_that_changes_the_name_the_browsers_word_counts_or_the_name_that_is_passed_on() {
        let from = |pairs: &[(&'static str, &str)]| page_origin(&Uri::from_static("/session"), &headers(pairs));
        let plain = [("host", "ops.example"), ("origin", "https://ops.example:443")];
        assert_eq!(from(&plain), PageOrigin::Ours, "the port that goes without saying");
        let renamed = [("host", "127.0.0.1:8081"), ("origin", "https://ops.example")];
        assert_eq!(from(&renamed), PageOrigin::Unclear);
        assert_eq!(from(&[&renamed[..], &[("sec-fetch-site", "same-origin")]].concat()), PageOrigin::Ours);
        assert_eq!(from(&[&renamed[..], &[("x-forwarded-host", "inner, ops.example:443")]].concat()), PageOrigin::Ours);
        assert_eq!(from(&[&renamed[..], &[("x-forwarded-host", "other.example")]].concat()), PageOrigin::Unclear);
    }
}
