//! A single call: its rate limit, its token, its retries.

use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::Instrument as _;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::time::Instant;

use super::credentials::{self, Authenticated, Token};
use super::error::{Class, PlatformError};
use super::transport::Answer;
use super::{Core, answer};

/// Longer waits are left to the caller: the error states them.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(120);
/// Maximum number of attempts for one call.
const MAX_TRIES: u32 = 6;
/// Delay before the second attempt; doubles with each further one, and is shortened by up to a half at random.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The same for throttled calls ("2 to 5 seconds"): together longer than the minute of the rate limits.
const THROTTLED_RETRY_DELAY: Duration = Duration::from_secs(2);

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A call of the API.
pub(super) struct Call {
    /// A description for messages, such as `asking for the history`.
    pub doing: &'static str,
    pub method: Method,
    /// Also identifies the rate limit.
    pub path: &'static str,
    pub query: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Option<Vec<u8>>,
    /// The part of `body` that must not be shown.
    pub secret: Option<SecretString>,
    /// Whether it can be repeated safely when it is unknown whether it was carried out.
    pub repeatable: bool,
}

impl Call {
    pub(super) const fn new(doing: &'static str, method: Method, path: &'static str) -> Self {
        Self { doing, method, path, query: Vec::new(), body: None, secret: None, repeatable: true }
    }

    pub(super) fn get(doing: &'static str, path: &'static str, query: Vec<(&'static str, String)>) -> Self {
        Self { query, ..Self::new(doing, Method::GET, path) }
    }

    pub(super) fn post(doing: &'static str, path: &'static str, body: &Value) -> Self {
        Self { body: Some(body.to_string().into_bytes()), ..Self::new(doing, Method::POST, path) }
    }
}

impl Core {
    /// Makes `call` with a token and returns the response.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, PlatformError> {
        let mut refused = None;
        let mut tries = 0;
        loop {
            self.pace.wait(call.path).await;
            let token = self.tokens.current(self, refused).await?;
            let error = match self.attempt(call, &Credentials::Token(&token)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.class == Class::Token && refused.is_none() {
                refused = Some(token.generation);
                continue;
            }
            tries += 1;
            if !call.repeatable {
                return Err(error);
            }
            self.pause(call.path, error, tries).await?;
        }
    }

    /// Makes `call` with the credentials of one meeting, which takes no token of ours.
    pub(super) async fn call_in_meeting(&self, call: &Call, secrets: &[MeetingHeader]) -> Result<Value, PlatformError> {
        let mut tries = 0;
        loop {
            self.pace.wait(call.path).await;
            match self.attempt(call, &Credentials::Meeting(secrets)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tries += 1;
                    self.pause(call.path, error, tries).await?;
                }
            }
        }
    }

    /// Authenticates. Only [`super::token::Tokens`] may call it.
    pub(super) async fn authenticate(&self) -> Result<Authenticated, PlatformError> {
        const PATH: &str = "/v2/usg/acs/auth/appauth";
        let mut tries = 0;
        loop {
            self.pace.wait(PATH).await;
            let (authorization, body) = credentials::claim(self);
            let call = Call { body: Some(body.to_vec()), ..Call::new("authenticating", Method::POST, PATH) };
            let outcome = self.attempt(&call, &Credentials::Claim(&authorization)).await;
            let read = |answer| Authenticated::read(&answer).ok_or_else(|| no_token(call.doing));
            let error = match outcome.and_then(read) {
                Ok(authenticated) => return Ok(authenticated),
                Err(error) => error,
            };
            tries += 1;
            self.pause(PATH, error, tries).await?;
        }
    }

    /// Revokes a token (3.2.5). Not retried, because a token expires anyway.
    pub(super) async fn log_out(&self, token: &Token) -> Result<(), PlatformError> {
        let call = Call::new("returning the token", Method::DELETE, "/v1/usg/acs/token");
        self.attempt(&call, &Credentials::Token(token)).await.map(drop)
    }

    /// Waits before the next attempt, or returns the error if there is none.
    async fn pause(&self, path: &'static str, error: PlatformError, tries: u32) -> Result<(), PlatformError> {
        if error.class != Class::Transient || tries >= MAX_TRIES {
            return Err(error);
        }
        let most = RETRY_DELAY * 2_u32.pow(tries - 1);
        let back_off = rand::rng().random_range(most / 2..=most);
        if !error.is_throttled() {
            let pause = error.wait.unwrap_or_default().max(back_off);
            if pause > MAX_WAIT {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            return Ok(());
        }
        // All tasks that make this call wait, not only this one; if the gateway said more, `Pace` knows it.
        let pause = error.wait.unwrap_or(THROTTLED_RETRY_DELAY * 2_u32.pow(tries - 1)).max(back_off);
        if pause > MAX_WAIT {
            return Err(error);
        }
        self.pace.stay_away(path, Instant::now() + pause);
        Ok(())
    }

    /// Sends `call` once.
    async fn attempt(&self, call: &Call, credentials: &Credentials<'_>) -> Result<Value, PlatformError> {
        let request = self.request(call, credentials)?;
        let span = tracing::debug_span!("platform call", otel.kind = "client", http.request.method = %call.method, url.path = call.path);
        let exchanged = self.transport.exchange(request, self.options.timeout).instrument(span).await;
        let failed = |error: PlatformError| self.without_secrets(error, call, credentials);
        let answer = exchanged.map_err(|fault| failed(answer::unanswered(call.doing, fault)))?;
        let now = Instant::now();
        for (name, value) in &answer.headers {
            if let (true, Ok(value)) = (name.as_str().starts_with("x-apig-ratelimit-"), value.to_str()) {
                self.pace.note(call.path, name.as_str(), value, now);
            }
        }
        if let Some(behind) = answer::clock_behind(&answer.headers, self.clock.now()) {
            self.behind.store(behind, Ordering::Relaxed);
        }
        answer::read(call.doing, &answer).map_err(|error| failed(self.with_headers(error, &answer, credentials)))
    }

    /// Adds what the headers of the response say about a failure.
    fn with_headers(&self, mut error: PlatformError, answer: &Answer, credentials: &Credentials<'_>) -> PlatformError {
        if error.class == Class::Transient
            && let Some(wait) = answer::retry_after(&answer.headers)
        {
            error.wait = Some(wait);
        }
        if matches!(credentials, Credentials::Claim(_)) {
            // There is no token yet, so the credentials are wrong.
            if error.class == Class::Token {
                error.class = Class::Configuration;
                error.advice = "The platform rejects the credentials: compare platform.app_id, the key in \
                                platform.app_key_file and platform.user_id with the platform's console, and check \
                                this machine's clock.";
            }
            if error.status == Some(401)
                && let Some(behind) = answer::clock_behind(&answer.headers, self.clock.now())
            {
                error.problem.push_str(&clocks(behind));
            }
        }
        error
    }

    fn request(&self, call: &Call, credentials: &Credentials<'_>) -> Result<Request<Full<Bytes>>, PlatformError> {
        let mut uri = format!("{}{}", self.options.url, call.path);
        for (n, (name, value)) in call.query.iter().enumerate() {
            let separator = if n == 0 { '?' } else { '&' };
            uri.push(separator);
            uri.push_str(name);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, UNRESERVED));
        }
        let mut request = Request::builder()
            .method(&call.method)
            .uri(uri)
            .header("accept", "application/json")
            // Requests device types and messages in a single language.
            .header("accept-language", "en-US")
            .header("user-agent", concat!("convoke/", env!("CARGO_PKG_VERSION")));
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json; charset=UTF-8");
        } else if call.method != Method::GET {
            // As in the platform's own SDK: some gateways require a length for requests that change something.
            request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, "0");
        }
        let (name, secret) = match credentials {
            Credentials::Token(token) => (HeaderName::from_static("x-access-token"), token.exposed()),
            Credentials::Meeting(secrets) => {
                for (name, secret) in *secrets {
                    let mut secret =
                        HeaderValue::from_str(secret.expose_secret()).map_err(|_| unsendable(call.doing))?;
                    secret.set_sensitive(true);
                    request = request.header(*name, secret);
                }
                // The only way to sign in that there is.
                (HeaderName::from_static("x-login-type"), "1")
            }
            Credentials::Claim(authorization) => {
                request = request
                    .header("x-token-type", "LongTicket")
                    .header("x-request-id", uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string());
                (AUTHORIZATION, *authorization)
            }
        };
        let mut secret = HeaderValue::from_str(secret).map_err(|_| unsendable(call.doing))?;
        secret.set_sensitive(true);
        let body = Full::from(call.body.clone().unwrap_or_default());
        request.header(name, secret).body(body).map_err(|_| unsendable(call.doing))
    }

    /// Removes secrets from the error: the platform's text may repeat what was sent.
    fn without_secrets(&self, mut error: PlatformError, call: &Call, credentials: &Credentials<'_>) -> PlatformError {
        let key = self.key();
        let mut secrets = vec![key.expose_secret()];
        secrets.extend(call.secret.as_ref().map(|secret| secret.expose_secret()));
        match credentials {
            Credentials::Token(token) => secrets.push(token.exposed()),
            Credentials::Claim(authorization) => secrets.push(authorization),
            Credentials::Meeting(of) => secrets.extend(of.iter().map(|(_, secret)| secret.expose_secret())),
        }
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            error.problem = error.problem.replace(secret, "***");
            error.code = error.code.map(|code| code.replace(secret, "***"));
        }
        error
    }
}

/// A header with a secret of one meeting.
pub(super) type MeetingHeader = (&'static str, SecretString);

/// The credentials of a call.
enum Credentials<'a> {
    Token(&'a Token),
    /// Those of one meeting.
    Meeting(&'a [MeetingHeader]),
    /// The header `Authorization`.
    Claim(&'a str),
}

/// The advice for a successful response that does not have the expected content.
pub(super) const UNEXPECTED_ADVICE: &str =
    "A different server answered, or the platform's API has changed: check platform.url.";

fn no_token(doing: &'static str) -> PlatformError {
    let error = PlatformError::new(Class::Bug, doing, "the platform's answer contains no token", UNEXPECTED_ADVICE);
    PlatformError { status: Some(200), ..error }
}

fn unsendable(doing: &'static str) -> PlatformError {
    let advice = "Check that platform.url is the base URL of the platform's API.";
    PlatformError::new(Class::Configuration, doing, "the request cannot be serialized", advice)
}

/// Clock differences below this are harmless.
const MAX_CLOCK_DIFFERENCE_S: i64 = 60;

fn clocks(behind: i64) -> String {
    let apart = humantime::format_duration(Duration::from_secs(behind.unsigned_abs()));
    match behind {
        _ if behind.abs() < MAX_CLOCK_DIFFERENCE_S => "; this machine's clock and the platform's agree".to_owned(),
        1.. => format!("; this machine's clock is {apart} behind the platform's"),
        _ => format!("; this machine's clock is {apart} ahead of the platform's"),
    }
}
