//! Reads a response: the requested JSON, or a [`PlatformError`] with everything that is known. Pure.

use std::time::Duration;

use hyper::HeaderMap;
use serde_json::Value;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::error::{Class, PlatformError, judge};
use super::parse;
use super::transport::{Answer, Fault};
use convoke_core::time::Millis;

/// Maximum length of the platform's own text in messages.
const MAX_MESSAGE_CHARS: usize = 200;
/// `Date`, as RFC 9110 defines it.
const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    version = 2,
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// The JSON of a successful response; null if it has no body, as for calls that change something.
pub(super) fn read(doing: &'static str, answer: &Answer) -> Result<Value, PlatformError> {
    let status = answer.status.as_u16();
    let request_id = header(&answer.headers, "x-request-id").map(String::into_boxed_str);
    let failed = |problem: String, class, advice| PlatformError {
        status: Some(status),
        request_id: request_id.clone(),
        ..PlatformError::new(class, doing, problem, advice)
    };
    let refused = |code: Option<String>, message: &str| {
        let judged = judge(status, code.as_deref(), message);
        let named = [code.clone().unwrap_or_default(), shown(message)].into_iter().filter(|text| !text.is_empty());
        let problem = format!("the platform answered {status} {}", named.collect::<Vec<_>>().join(" "));
        PlatformError { code, wait: judged.wait, ..failed(problem.trim_end().to_owned(), judged.class, judged.advice) }
    };
    let json = serde_json::from_slice::<Value>(&answer.body).ok();
    if !answer.status.is_success() {
        let (code, message) = json.as_ref().map(refusal).unwrap_or_default();
        if json.is_none() && is_html(answer) {
            let judged = judge(status, None, "");
            return Err(failed(format!("{HTML_PROBLEM} (status {status})"), judged.class, judged.advice));
        }
        return Err(refused(code, &message));
    }
    match json {
        None if answer.body.iter().all(u8::is_ascii_whitespace) => Ok(Value::Null),
        None if is_html(answer) => {
            Err(failed(format!("{HTML_PROBLEM} (status {status})"), Class::Configuration, PROXY_ADVICE))
        }
        None => Err(failed("the platform's answer is not JSON".to_owned(), Class::Transient, NOT_JSON_ADVICE)),
        // A successful status with an error code. Only some of the calls have such a code.
        Some(json) => match stated(&json) {
            (Some(code), message) => Err(refused(Some(code), &message)),
            (None, _) => Ok(json),
        },
    }
}

const HTML_PROBLEM: &str = "an HTML page came instead of JSON";
const PROXY_ADVICE: &str = "A proxy or a login page answered instead of the platform: check platform.url, and any \
                            proxy between this machine and the platform.";
const NOT_JSON_ADVICE: &str =
    "The answer was truncated or altered on its way: try again, and check for a proxy in between.";

/// Names of the error code and its text (manual, chapter 22; 6.3.2.2; 5.2.43; and what the platform's own SDKs read besides).
const ENVELOPES: [(&str, [&str; 2]); 4] = [
    ("error_code", ["error_msg", "error_message"]),
    ("errorCode", ["errorMsg", "errorMessage"]),
    ("returnCode", ["returnDesc", "returnMessage"]),
    ("code", ["message", "msg"]),
];

/// The same for a response with an error status, in which the code may be inside another object.
fn refusal(json: &Value) -> (Option<String>, String) {
    let outer = stated(json);
    let inner =
        || json.as_object()?.values().filter(|value| value.is_object()).map(stated).find(|(code, _)| code.is_some());
    if outer.0.is_some() { outer } else { inner().unwrap_or(outer) }
}

/// The code and text of an error in any of the platform's formats. Codes that mean success are ignored.
fn stated(json: &Value) -> (Option<String>, String) {
    let mut text = String::new();
    for (code, messages) in ENVELOPES {
        // Subscriptions and recordings have no members with these names, so they belong to the error.
        let code = parse::text(json, &[code]).filter(|code| !code.trim_matches('0').is_empty());
        let message = parse::text(json, &messages).unwrap_or_default();
        if let Some(code) = code {
            return (Some(full(&code)), message);
        }
        if text.is_empty() {
            text = message;
        }
    }
    (None, text)
}

/// Completes a code of which only the digits are given: nine with the leading 1, or the eight after it.
fn full(code: &str) -> String {
    let digits = code.bytes().all(|byte| byte.is_ascii_digit());
    match code.len() {
        9 if digits && code.starts_with('1') => format!("MMC.{code}"),
        8 if digits && code.starts_with("11") => format!("MMC.1{code}"),
        _ => shown(code),
    }
}

/// Makes a text from the platform fit for a log line.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

fn is_html(answer: &Answer) -> bool {
    let named = header(&answer.headers, "content-type").is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
    named || answer.body.trim_ascii_start().starts_with(b"<")
}

/// A header as text.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(shown).filter(|value| !value.is_empty())
}

/// Maximum wait taken from a header: an absurd value must not stop a task for years.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// The wait that the platform requests.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = header(headers, "retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The error of a request without a response.
pub(super) fn unanswered(doing: &'static str, fault: Fault) -> PlatformError {
    let (problem, class, advice) = match fault {
        Fault::Certificate(reason) => (
            format!("the platform's certificate is not trusted: {reason}"),
            Class::Configuration,
            "Check platform.url, this machine's clock and its CA certificates (SSL_CERT_FILE names others); a proxy \
             that intercepts TLS has a CA of its own.",
        ),
        Fault::Connection(reason) => (
            format!("no answer from the platform: {reason}"),
            Class::Transient,
            "Check that this machine reaches the host in platform.url by HTTPS: name resolution, routes, firewall.",
        ),
        Fault::Slow(patience) => (
            format!("no answer from the platform within {}", humantime::format_duration(patience)),
            Class::Transient,
            "The platform or the network is slow or does not answer: try again later.",
        ),
        Fault::TooLong => (
            "the platform's answer is larger than 16 MiB, and was not read".to_owned(),
            Class::Bug,
            "The platform's answers are smaller: check that platform.url points to the platform.",
        ),
    };
    PlatformError::new(class, doing, problem, advice)
}

/// How far the local clock is behind the platform's, in seconds, by the `Date` of the response.
pub(super) fn clock_behind(headers: &HeaderMap, now: Millis) -> Option<i64> {
    let date = PrimitiveDateTime::parse(&header(headers, "date")?, HTTP_DATE).ok()?.assume_utc();
    Some(date.unix_timestamp() - now.get() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_platform_asks_for_counts_for_an_hour_at_most() {
        let asked = |text: &str| {
            let headers = HeaderMap::from_iter([(hyper::header::RETRY_AFTER, text.parse().expect("a header's value"))]);
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        for (text, seconds) in
            [("0", 0), ("7", 7), ("3600", 3_600), ("31536000", 3_600), ("18446744073709551615", 3_600)]
        {
            assert_eq!(asked(text), Some(seconds), "{text}");
        }
        for text in ["18446744073709551616", "-1", "1.5", "soon", ""] {
            assert_eq!(asked(text), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
