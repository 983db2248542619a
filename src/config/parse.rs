//! The syntax of each kind of value, and which values are rejected. Pure: text in, value or [`Refusal`] out.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;

use super::LogFormat;
use super::error::redact_url;
use super::keys::{NONE, nearest};
use super::layers::Refusal;
use crate::live::LiveTopic;
use convoke_core::zone::TimeZone;
use convoke_platform::socket::CertificateName;

/// The members of `payload.attendeeInfo` (table 6-37 of the platform's manual), and the one that is filled from history.
pub(super) const ATTENDEE_FIELDS: [&str; 10] = [
    "userUUID",
    "userAgent",
    "account",
    "participantID",
    "displayName",
    "joinTime",
    "leftTime",
    "role",
    "callNumber",
    "deptName",
];

/// An address and a port. Host names are rejected, because they may resolve differently at the next start.
pub(super) fn address(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        Refusal::new(
            format!("`{text}` is not an IP address and a port"),
            "write it as in 127.0.0.1:8080, 0.0.0.0:8080 (every IPv4 address of this host) or [::1]:8080",
        )
    })
}

/// The path of the events: it is matched byte by byte, and must not hide a health probe.
pub(super) fn route(text: &str) -> Result<String, Refusal> {
    let refused = |problem: String| Err(Refusal::new(problem, "write a path as in /openapi/meetingevent"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !text.starts_with('/') {
        return refused(format!("`{text}` does not begin with `/`"));
    }
    if let Some(odd) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(plain)) {
        return refused(format!("a path cannot contain {odd:?}"));
    }
    // With a trailing slash it is the same path.
    if matches!(text.strip_suffix('/').unwrap_or(text), "/livez" | "/readyz") {
        return refused(format!("`{text}` is a probe of this listener"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..") || segment.starts_with([':', '*'])) {
        return refused("no part of the path may be `.` or `..` or begin with `:` or `*`".to_owned());
    }
    Ok(text.to_owned())
}

/// `true` or `false`, and no other word for either.
pub(super) fn boolean(text: &str) -> Result<bool, Refusal> {
    text.parse().map_err(|_| Refusal::new(format!("`{text}` is neither true nor false"), "write true or false"))
}

/// A whole number within `range`.
pub(super) fn integer(text: &str, range: RangeInclusive<usize>) -> Result<usize, Refusal> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        Refusal::new(
            format!("`{text}` is not a whole number from {least} to {most}"),
            format!("write a number from {least} to {most}"),
        )
    })
}

/// A number of bytes within `range`, with or without a unit.
pub(super) fn size(text: &str, range: RangeInclusive<u64>) -> Result<u64, Refusal> {
    let (least, most) = (ByteSize::b(*range.start()), ByteSize::b(*range.end()));
    let instead = format!("write a size from {least} to {most} as in \"256 KiB\", or a number of bytes");
    match ByteSize::from_str(text) {
        Err(_) => Err(Refusal::new(format!("`{text}` is not a size"), instead)),
        Ok(size) if !range.contains(&size.as_u64()) => {
            Err(Refusal::new(format!("`{text}` is not from {least} to {most}"), instead))
        }
        Ok(size) => Ok(size.as_u64()),
    }
}

/// A duration within `range`, with its unit.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Refusal> {
    let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
    let instead = format!("write a time from {least} to {most} with its unit, as in 500ms, 25s, 10m, 48h or 30d");
    match humantime::parse_duration(text) {
        Err(error) => Err(Refusal::new(format!("`{text}` is not a length of time: {error}"), instead)),
        Ok(time) if time < *range.start() => {
            Err(Refusal::new(format!("`{text}` is less than {least}, the least allowed"), instead))
        }
        Ok(time) if time > *range.end() => {
            Err(Refusal::new(format!("`{text}` is more than {most}, the most allowed"), instead))
        }
        Ok(time) => Ok(time),
    }
}

/// The items of a comma-separated list; `none` means an empty list.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(move |_| text != NONE)
}

/// Networks or single addresses.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, Refusal> {
    let parse = |item: &str| {
        let network = item.parse::<IpNet>().map(|network| canonical(network.trunc()));
        network.or_else(|_| item.parse::<IpAddr>().map(|address| address.to_canonical().into())).map_err(|_| {
            Refusal::new(
                format!("`{item}` is neither a network nor an IP address"),
                "write networks as in 10.0.0.0/8 or 2001:db8::/32; in a variable, separate them by commas",
            )
        })
    };
    items(text).map(parse).collect()
}

/// Converts an IPv4 network in IPv6 notation to IPv4, because addresses are converted as well before they are compared.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            IpNet::new(address.into(), length).unwrap_or(network)
        }
        _ => network,
    }
}

/// Networks of proxies. All addresses are rejected: then anyone could forge the header that is trusted.
pub(super) fn proxies(text: &str) -> Result<Vec<IpNet>, Refusal> {
    let networks = networks(text)?;
    match networks.iter().find(|network| network.prefix_len() == 0) {
        Some(everyone) => Err(Refusal::new(
            format!(
                "`{everyone}` trusts everybody's word on where a request comes from, so listen.allow_from would protect nothing"
            ),
            "write the addresses of the proxies in front of Convoke, as in 10.0.0.0/8",
        )),
        None => Ok(networks),
    }
}

/// Members of `attendeeInfo`, without duplicates.
pub(super) fn mask(text: &str) -> Result<Vec<String>, Refusal> {
    let mut fields = Vec::new();
    for item in items(text) {
        if !ATTENDEE_FIELDS.contains(&item) {
            let instead = match nearest(item, ATTENDEE_FIELDS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write some of {}", ATTENDEE_FIELDS.join(", ")),
            };
            return Err(Refusal::new(format!("`{item}` is not a field of attendeeInfo"), instead));
        }
        if fields.iter().all(|field| field != item) {
            fields.push(item.to_owned());
        }
    }
    Ok(fields)
}

/// Whether all meetings, and the numbers of those that are named.
pub(super) fn live_meetings(text: &str) -> Result<(bool, Vec<String>), Refusal> {
    let (mut all, mut numbers) = (false, Vec::new());
    for item in items(text) {
        match item {
            "all" => all = true,
            item if !item.is_empty() && item.bytes().all(|byte| byte.is_ascii_digit()) => numbers.push(item.to_owned()),
            item => {
                return Err(Refusal::new(
                    format!("`{item}` is not the number of a meeting"),
                    "write numbers as in 960000017, or all",
                ));
            }
        }
    }
    Ok((all, numbers))
}

/// IDs of the platform: user UUIDs, enterprises.
pub(super) fn ids(text: &str) -> Result<Vec<String>, Refusal> {
    items(text).map(platform_id).collect()
}

/// What is asked of running meetings, without duplicates.
pub(super) fn live_topics(text: &str) -> Result<Vec<LiveTopic>, Refusal> {
    let mut topics = Vec::new();
    for item in items(text) {
        let Some(topic) = LiveTopic::parse(item) else {
            let names = LiveTopic::ALL.map(LiveTopic::as_str);
            let instead = match nearest(item, names) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write some of {}", names.join(", ")),
            };
            return Err(Refusal::new(format!("`{item}` is nothing that a meeting tells"), instead));
        };
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    if topics.is_empty() {
        return Err(Refusal::new(
            "nothing would be asked of the meetings",
            "name something, or write live.enabled = false",
        ));
    }
    Ok(topics)
}

/// The name that a certificate must have.
pub(super) fn certificate_name(text: &str) -> Result<CertificateName, Refusal> {
    match text {
        "address" | NONE => Ok(CertificateName::Address),
        "any" => Ok(CertificateName::Any),
        name if name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }) =>
        {
            Ok(CertificateName::Named(name.to_owned()))
        }
        name => Err(Refusal::new(format!("`{name}` is not the name of a host"), "write a name, address, or any")),
    }
}

/// A persistent database: SQLite in a file, or PostgreSQL. Errors do not contain the password.
pub(super) fn database_url(text: &str) -> Result<String, Refusal> {
    const DATABASE_URL_EXAMPLES: &str = "write sqlite://FILE or postgres://USER:PASSWORD@HOST:5432/DATABASE \
                                         (percent-encode special characters of the password)";
    let refused = |problem: &str| Err(Refusal::new(format!("`{}` {problem}", redact_url(text)), DATABASE_URL_EXAMPLES));
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    match scheme {
        "sqlite" => {
            let file = rest.trim_start_matches("//").split('?').next().unwrap_or_default();
            if file.is_empty() {
                return refused("names no file");
            }
            match sqlx::sqlite::SqliteConnectOptions::from_str(text) {
                Err(_) => refused("is not a URL of SQLite"),
                Ok(_) if file == ":memory:" || rest.contains("mode=memory") => {
                    refused("is in memory, where events would be lost when the process ends")
                }
                Ok(_) if rest.contains("mode=ro") || rest.contains("immutable=") => {
                    refused("is read-only, so no event could be stored")
                }
                Ok(_) => Ok(text.to_owned()),
            }
        }
        "postgres" | "postgresql" => match convoke_log::postgres_url_problem(text) {
            None => Ok(text.to_owned()),
            Some(problem) => refused(&problem),
        },
        "" => refused("is not a URL"),
        _ => refused("names an unknown kind of database"),
    }
}

/// One or more NATS servers; never empty.
pub(super) fn nats_url(text: &str) -> Result<String, Refusal> {
    let instead = "write nats://HOST:4222 or tls://HOST:4222, several separated by commas, or none to switch the \
                   relay off (percent-encode special characters of the password)";
    let usable = |part: &str| {
        let known = ["nats://", "tls://"].iter().find_map(|scheme| part.strip_prefix(scheme));
        // Otherwise the beginning of a password that contains one of these characters would be taken for host and port.
        let whole =
            known.is_some_and(|rest| rest.find(['/', '?', '#']).is_none_or(|end| !rest[end..].contains(['@', '#'])));
        whole && async_nats::ServerAddr::from_str(part).is_ok_and(|address| !address.host().is_empty())
    };
    if items(text).all(usable) {
        return Ok(items(text).collect::<Vec<_>>().join(","));
    }
    let problem = if text.contains(',') { "contains something that is not" } else { "is not" };
    Err(Refusal::new(format!("`{}` {problem} the URL of a NATS server", redact_url(text)), instead))
}

/// A stream name that the NATS server accepts.
pub(super) fn stream(text: &str) -> Result<String, Refusal> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    match text.chars().find(|c| odd(*c)) {
        Some(c) => Err(Refusal::new(
            format!("the name of a stream cannot contain {c:?}"),
            "write letters, digits, `-` and `_`, as in MEETINGS",
        )),
        None if text.len() > 255 => Err(Refusal::new("longer than 255 bytes", "write a shorter name, as in MEETINGS")),
        None => Ok(text.to_owned()),
    }
}

/// The leading tokens of every subject.
pub(super) fn subject_prefix(text: &str) -> Result<String, Refusal> {
    let instead = "write one or more words separated by dots, as in meetings or acme.meetings";
    let refused = |problem: &str| Err(Refusal::new(format!("`{}` {problem}", text.escape_debug()), instead));
    if text.split('.').any(str::is_empty) {
        return refused("has an empty token");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || "*>".contains(c)) {
        return refused("contains white space, `*` or `>`");
    }
    if text.starts_with(['$', '_']) {
        return refused("begins with `$` or `_`, which NATS reserves for itself");
    }
    if text.len() > 255 {
        return refused("is longer than 255 bytes");
    }
    Ok(text.to_owned())
}

/// `None` for `auto`: depends on whether there is a terminal.
pub(super) fn log_format(text: &str) -> Result<Option<LogFormat>, Refusal> {
    match text {
        "text" => Ok(Some(LogFormat::Text)),
        "json" => Ok(Some(LogFormat::Json)),
        "auto" => Ok(None),
        _ => Err(Refusal::new(
            format!("`{text}` is not a log format"),
            "write text, json, or auto (text on a terminal, else json)",
        )),
    }
}

/// A name of the IANA database, with one that it may have been meant to be.
pub(super) fn time_zone(text: &str) -> Result<TimeZone, Refusal> {
    TimeZone::named(text).map_err(|unknown| {
        let names: Vec<String> = TimeZone::names().filter(|name| name.contains('/') || name == "UTC").collect();
        let city = |name: &&String| {
            let last = name.rsplit('/').next().unwrap_or_default();
            last.eq_ignore_ascii_case(&text.rsplit('/').next().unwrap_or_default().replace(' ', "_"))
        };
        // China has one zone, named after a city that few would look for.
        let china = ["beijing", "cst", "china", "prc", "+8", "+08", "北京", "中国"];
        let china = china.iter().any(|part| text.to_lowercase().contains(part)).then_some("Asia/Shanghai");
        let meant = names.iter().find(city).map(String::as_str);
        let meant = meant.or(china).or_else(|| nearest(text, names.iter().map(String::as_str)));
        let instead = match meant {
            Some(meant) => format!("did you mean {meant}?"),
            None => "write a name of the IANA database, as in Asia/Shanghai, Europe/Berlin or UTC".to_owned(),
        };
        Refusal::new(format!("`{}` {unknown}", text.escape_debug()), instead)
    })
}

/// The base URL of an OTLP collector, without a trailing slash. Plain HTTP is allowed to any host: collectors usually run within
/// the cluster, and spans contain no personal data.
pub(super) fn otlp_endpoint(text: &str) -> Result<String, Refusal> {
    let refused = |problem: &str| {
        let shown = redact_url(text).escape_debug().to_string();
        Refusal::new(format!("`{shown}` {problem}"), "write the base URL of a collector, as in http://localhost:4318")
    };
    let uri: axum::http::Uri = text.parse().map_err(|_| refused("is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refused("is neither https nor http"));
    }
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(refused("contains credentials"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(refused("has a query or a fragment"));
    }
    if text.trim_end_matches('/').ends_with("/v1/traces") {
        return Err(refused("ends in the path of traces, which Convoke adds itself"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Minimum length of an admin token, in characters.
const MIN_TOKEN_CHARS: usize = 16;

/// A bearer token; it must fit into a header as it is.
pub(super) fn token(text: &str) -> Result<(), Refusal> {
    if text.len() < MIN_TOKEN_CHARS {
        return Err(Refusal::new(
            format!("the token has {} characters: it can be guessed", text.chars().count()),
            format!("write one of at least {MIN_TOKEN_CHARS} characters, for example from `openssl rand -hex 24`"),
        ));
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Refusal::new(
        "the token contains a space, a control character or a non-ASCII character",
        "write a token of letters, digits and punctuation",
    ))
}

/// A URL that is `https`, or does not leave this machine.
fn secure_url(text: &str, instead: &str) -> Result<axum::http::Uri, Refusal> {
    let refused = |problem: &str| Refusal::new(format!("`{}` {problem}", redact_url(text).escape_debug()), instead);
    // The URL parser would drop it silently.
    if text.contains('#') {
        return Err(refused("has a fragment (#), which is never sent"));
    }
    let uri: axum::http::Uri = text.parse().map_err(|_| refused("is not a URL"))?;
    let host = uri.host().ok_or_else(|| refused("names no host"))?;
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback());
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Refusal::new("the URL contains credentials", instead));
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if loopback => Ok(uri),
        Some("http") => Err(refused("is not encrypted: http is allowed for loopback addresses only")),
        _ => Err(refused("is neither https nor http")),
    }
}

/// The base URL of the platform's API, without a trailing slash.
pub(super) fn api_url(text: &str) -> Result<String, Refusal> {
    let uri = secure_url(text, "write it as in https://api.meeting.huaweicloud.com")?;
    match uri.query() {
        None => Ok(text.trim_end_matches('/').to_owned()),
        Some(_) => Err(Refusal::new("a base URL has no query", "write it as in https://api.meeting.huaweicloud.com")),
    }
}

/// The URL to which the platform should push: HTTPS, as it requires (manual, 6.3.2.1).
pub(super) fn callback_url(text: &str) -> Result<String, Refusal> {
    secure_url(text, "write it as in https://hooks.example.com/openapi/meetingevent").map(|_| text.to_owned())
}

/// An ID assigned by the platform. White space around it, added by mistake, would only fail at the platform.
pub(super) fn platform_id(text: &str) -> Result<String, Refusal> {
    if text.trim() != text || text.chars().any(char::is_control) {
        let problem =
            format!("`{}` begins or ends with white space, or contains a control character", text.escape_debug());
        return Err(Refusal::new(problem, "write the ID as the platform's console shows it"));
    }
    Ok(text.to_owned())
}
