//! Errors of calls, with the platform's code and our advice (manual, chapter 22). Pure.

use std::time::Duration;

/// The kind of a failure, which determines how to react.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// The platform refused the token, and a new one as well.
    Token,
    /// Credentials, rights or the contract with the platform: somebody has to change something.
    Configuration,
    /// Locked after too many failures: wait.
    Locked,
    /// The requested object does not exist.
    Gone,
    /// Temporary: it may work later.
    Transient,
    /// A list ended before the total that it stated.
    Incomplete,
    /// The request is wrong: a bug of Convoke, or a wrong assumption about the platform.
    Bug,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {problem}")]
pub struct PlatformError {
    /// What was tried, for messages: `asking for the history`.
    pub doing: &'static str,
    /// What went wrong.
    pub problem: String,
    /// The kind of failure.
    pub class: Class,
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The platform's code, such as `MMC.111071120`.
    pub code: Option<String>,
    /// The platform's `X-Request-Id`, for its support.
    pub request_id: Option<Box<str>>,
    /// A sentence for the user that says what to do.
    pub advice: &'static str,
    /// How long to wait before a retry makes sense, if known.
    pub wait: Option<Duration>,
}

impl PlatformError {
    /// A failure without further data from the platform.
    pub(super) fn new(class: Class, doing: &'static str, problem: impl Into<String>, advice: &'static str) -> Self {
        let problem = problem.into();
        Self { doing, problem, class, status: None, code: None, request_id: None, advice, wait: None }
    }

    /// The failure, with the advice.
    #[must_use]
    pub fn with_advice(&self) -> String {
        format!("{self}. {}", self.advice).trim_end_matches(". ").to_owned()
    }

    /// Whether the calls are too frequent, as opposed to another failure.
    pub(super) fn is_throttled(&self) -> bool {
        self.status.is_some_and(|status| throttled(status, self.code.as_deref()))
    }
}

/// The meaning of a failed response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub class: Class,
    pub advice: &'static str,
    pub wait: Option<Duration>,
}

const SUBSCRIPTION_LOCK_WAIT: Duration = Duration::from_secs(3600);
/// The manual gives no duration for most locks. This is the lower end of its "30 to 60 minutes".
const LOCK_WAIT: Duration = Duration::from_secs(1800);

/// The meaning of a failure with this status and code. `message` is the platform's own text.
pub(super) fn judge(status: u16, code: Option<&str>, message: &str) -> Judgement {
    let plain = |class, advice| Judgement { class, advice, wait: None };
    let wait = |class, advice, wait| Judgement { class, advice, wait: Some(wait) };
    if let Some(judged) = code.and_then(|code| of_code(code, message)) {
        return judged;
    }
    match status {
        401 => plain(
            Class::Token,
            "The platform rejects our tokens: check that the account in platform.user_id (if it is not set: the \
             default administrator) exists and is not locked.",
        ),
        403 => plain(Class::Configuration, RIGHTS_ADVICE),
        404 | 405 => plain(
            Class::Configuration,
            "The API has no such address: check that platform.url is the base URL of the platform's API, without a \
             path.",
        ),
        412 => plain(Class::Configuration, "The account is disabled: ask the enterprise's administrator to enable it."),
        423 => wait(
            Class::Locked,
            "The platform has locked this after too many failures: wait for up to an hour, and do not retry meanwhile.",
            LOCK_WAIT,
        ),
        429 => plain(Class::Transient, THROTTLED_ADVICE),
        300..=399 => plain(
            Class::Configuration,
            "The platform's API does not redirect: check that platform.url is its base URL, and that no proxy or \
             login page is in between.",
        ),
        500.. => plain(
            Class::Transient,
            "The platform is busy or has a fault: try again later; if the error persists, send the request ID to its \
             support.",
        ),
        _ => plain(
            Class::Bug,
            "The platform does not understand this request: this is a bug in Convoke, or the platform's API has \
             changed. Report it with the request ID.",
        ),
    }
}

const RIGHTS_ADVICE: &str = "The account has no permission for this: it needs an administrator of the enterprise (if \
                             platform.user_id is not set, the default administrator is used) and the flagship \
                             edition.";
const THROTTLED_ADVICE: &str = "The platform limits each call to about 100 a minute, counted over all programs that \
                                use this App ID: make fewer calls, or wait.";
/// The codes of the gateway, of webinars, and of the flow control of the platform's servers. The platform's own clients
/// know the last one without its prefix.
const THROTTLE_CODES: [&str; 4] = ["APIG.0308", "APIGW.0308", "WSS.301000016", "MMC.100000429"];
const BUSY_ADVICE: &str = "The platform is busy: try again later.";

fn of_code(code: &str, message: &str) -> Option<Judgement> {
    let plain = |class, advice| Some(Judgement { class, advice, wait: None });
    let wait = |class, advice, wait| Some(Judgement { class, advice, wait: Some(wait) });
    match code {
        "MMC.111071120" => wait(
            Class::Locked,
            "The subscription is locked because enabling it failed too often: wait an hour, and meanwhile make sure \
             that the URL answers the handshake.",
            SUBSCRIPTION_LOCK_WAIT,
        ),
        "MMC.111071121" => plain(
            Class::Configuration,
            "The callback URL did not answer the platform's handshake: check that it is reachable from the internet \
             by HTTPS with a valid certificate, and that Convoke has the subscriber's key. Fix this before the next \
             attempt: too many failures lock the subscription for an hour.",
        ),

        "USG.206010025" => plain(
            Class::Configuration,
            "The App ID authentication failed: compare platform.app_id and the key in platform.app_key_file with the \
             platform's console (after a reset, the old key stops working within an hour), check whether \
             platform.sp_id must be set, and check this machine's clock.",
        ),
        "USG.201200003" | "USG.206110009" => plain(
            Class::Configuration,
            "The platform does not know this App ID, or it belongs to another enterprise: compare platform.app_id \
                with the platform's console.",
        ),
        "USG.201010000" => plain(Class::Configuration, "The service provider does not exist: check platform.sp_id."),
        "USG.201020000" => plain(Class::Configuration, "The enterprise does not exist: check platform.corp_id."),
        "USG.206010000" | "USG.206010007" | "USG.206010008" | "USG.206010028" => plain(
            Class::Configuration,
            "The account cannot be used: it does not exist, is not activated, or is signed in elsewhere. Check \
             platform.user_id; if it is not set, the default administrator is used.",
        ),
        "MBI.104030001" => {
            plain(Class::Configuration, "The enterprise needs the platform's flagship edition for this.")
        }
        "MMC.111070002" | "MMC.111070010" | "MMC.111074002" | "MMC.111114041" | "WSS.301000095" | "USG.201040022" => {
            plain(Class::Configuration, RIGHTS_ADVICE)
        }
        "MMC.111071117" => plain(
            Class::Configuration,
            "The enterprise is not on the platform's allowlist for download links: ask the platform's support to add \
             it.",
        ),

        "MMC.118000000" | "MMC.118000001" | "MMC.111070111" | "MMC.111081006" | "USG.000000004" | "USG.201000000"
        | "USG.206020000" | "USG.206030017" | "MBI.000000004" | "WSS.000000004" => plain(
            Class::Token,
            "The platform rejects our tokens, even a new one: check that the account exists and is not locked, and \
             that no other program uses up its 64 tokens.",
        ),

        "USG.206030015" => wait(
            Class::Locked,
            "The account is locked for the time that the platform names: wait, and find out which program signs in \
             with a wrong password.",
            seconds(message).unwrap_or(LOCK_WAIT),
        ),
        "USG.201040012" => wait(Class::Locked, "Too many wrong verification codes: wait half an hour.", LOCK_WAIT),
        "MMC.118000002" => wait(
            Class::Locked,
            "The account is locked by the platform: ask the enterprise's administrator to unlock it.",
            LOCK_WAIT,
        ),

        "MMC.111070005" | "MMC.111071003" | "MMC.111071069" | "MMC.111071072" | "MMC.111071118" | "MMC.111072003"
        | "MMC.111072005" | "MMC.111072006" | "MMC.111072065" | "MBI.104000007" | "MBI.104000008" | "MBI.104000009"
        | "USG.201000004" | "USG.201000005" => plain(
            Class::Gone,
            "The platform has no such record, or no longer has it: history is kept for 6 months unless an \
             administrator has set another period.",
        ),

        code if THROTTLE_CODES.contains(&code) => plain(Class::Transient, THROTTLED_ADVICE),
        "USG.201000021" => wait(
            Class::Transient,
            "The platform is updating this data: try again in five minutes.",
            Duration::from_secs(300),
        ),
        "USG.000000008" => plain(Class::Transient, "The platform is being upgraded: try again later."),
        "MMC.111072049" | "USG.206010005" | "USG.000000001" | "USG.000000002" | "USG.000000010" | "MBI.105000001" => {
            plain(Class::Transient, BUSY_ADVICE)
        }
        _ => None,
    }
}

/// Whether this means that the calls are too frequent, as opposed to another failure.
fn throttled(status: u16, code: Option<&str>) -> bool {
    status == 429 || code.is_some_and(|code| THROTTLE_CODES.contains(&code))
}

/// The first number in a text such as "locked for 600 seconds", if it is a plausible duration.
fn seconds(message: &str) -> Option<Duration> {
    let digits = message.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?;
    digits.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_count_more_than_the_status_that_they_come_with() {
        for (status, code, class) in [
            (400, "MMC.118000001", Class::Token),
            (400, "USG.000000004", Class::Token),
            (400, "MMC.111070111", Class::Token),
            (400, "MMC.111081006", Class::Token),
            (401, "USG.206010025", Class::Configuration),
            (401, "MMC.118000000", Class::Token),
            (401, "a code that nobody knows", Class::Token),
            (500, "MMC.111071117", Class::Configuration),
            (423, "MMC.111071120", Class::Locked),
            (423, "MMC.111071124", Class::Locked),
            (400, "MMC.111070005", Class::Gone),
            (400, "MMC.111071069", Class::Gone),
            (500, "MMC.111071118", Class::Gone),
            (400, "MBI.104000007", Class::Gone),
            (429, "APIG.0308", Class::Transient),
            (400, "MMC.100000429", Class::Transient),
            (503, "USG.000000008", Class::Transient),
            (500, "MMC.111070003", Class::Transient),
            (400, "MMC.111072049", Class::Transient),
            (400, "MMC.111071062", Class::Bug),
        ] {
            assert_eq!(judge(status, Some(code), "").class, class, "{status} {code}");
        }
        assert!(
            throttled(429, None)
                && throttled(400, Some("APIGW.0308"))
                && throttled(200, Some("MMC.100000429"))
                && !throttled(503, None)
        );
    }

    #[test]
    fn a_lock_says_how_long_it_lasts() {
        let wait = |code, message| judge(423, Some(code), message).wait.map(|wait| wait.as_secs());
        assert_eq!(wait("MMC.111071120", ""), Some(3600));
        assert_eq!(wait("USG.206030015", "User locked for 600 seconds"), Some(600));
        for odd in ["locked", "locked for 0 seconds", "locked for 99999999999999999999 seconds"] {
            assert_eq!(wait("USG.206030015", odd), Some(1800), "{odd}");
        }
        assert_eq!(wait("MMC.111072064", ""), Some(1800));
    }
}
