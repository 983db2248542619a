//! Access to the admin listener: by a bearer token, or by a session that a browser opened with one.
//!
//! Each token in the settings has a name and rights: to view, to see personal data, to act. Without a token the listener must be
//! on loopback, requests must name a loopback host, personal data is masked, and actions are not allowed. A request without a
//! right gets `401` at once; after too many wrong tokens from one source, its tokens are not compared for a while (`guesses`).

mod ended;
mod grant;
mod guesses;
pub mod login;
mod origin;
mod session;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, COOKIE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::health;
use super::problem::{explained, problem};
use super::server::{self, ClientSources, Connection};
use crate::config::{Admin, AdminToken};
use convoke_core::secret;
use convoke_core::throttle::Throttle;
use convoke_core::time::Clock;
use convoke_log as log;
use ended::Ended;
pub use grant::Grant;
use guesses::Guesses;
use origin::{PageOrigin, names_loopback, page_origin};
use session::{Session, Sessions};

/// The response to a request for a host name other than this machine's.
const NO_TOKEN: &str = "Without admin.token only requests to this machine (localhost, 127.0.0.1) are answered. Set \
                        admin.token to use another address.";

convoke_core::words! {
    /// How much a request may see.
    pub enum Right as "RightWord" {
        /// Everything.
        Full = "full",
        /// Everything, with personal data masked.
        Masked = "masked",
    }
}

/// The identity of a request, and its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token's name; `None`: no token was required.
    pub name: Option<Arc<str>>,
    /// How much it may see.
    pub right: Right,
    /// Whether it may act.
    pub operate: bool,
}

/// Decides about access. Only the digests of the tokens are kept: a digest is no secret, and comparing two of them does not even
/// reveal the length of the token.
pub struct Access {
    tokens: watch::Sender<Tokens>,
    guesses: Guesses,
    ended: Ended,
    /// Determines the source of a request.
    sources: ClientSources,
    clock: Clock,
    throttle: Throttle,
}

struct Token {
    identity: Identity,
    digest: [u8; 32],
    sessions: Sessions,
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity && self.digest == other.digest
    }
}

/// Without any token, whoever reaches the listener may see everything, masked.
type Tokens = Arc<[Arc<Token>]>;

fn tokens(admin: &Admin) -> Tokens {
    let token = |token: &AdminToken| {
        let digest: [u8; 32] = secret::digest(token.token.expose_secret().as_bytes());
        let right = if token.rights.see_people { Right::Full } else { Right::Masked };
        let identity = Identity { name: Some(Arc::clone(&token.name)), right, operate: token.rights.operate };
        Arc::new(Token { identity, digest, sessions: Sessions::new(&digest, right) })
    };
    admin.tokens.iter().map(token).collect()
}

/// The new settings have no token, but the old ones had.
#[derive(Debug, thiserror::Error)]
#[error("the settings no longer have an admin token: restart Convoke to run without one")]
pub struct NoToken;

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("tokens", &self.tokens().len()).finish_non_exhaustive()
    }
}

impl Access {
    /// Access with these tokens. `log` records the sessions that were ended, `sources` determines whose `X-Forwarded-For` is
    /// trusted.
    #[must_use]
    pub fn new(admin: &Admin, sources: ClientSources, log: Arc<dyn log::Sessions>, clock: Clock) -> Self {
        Self {
            tokens: watch::Sender::new(tokens(admin)),
            guesses: Guesses::default(),
            ended: Ended::new(log),
            sources,
            clock,
            throttle: Throttle::default(),
        }
    }

    /// Prepares new tokens. Calling the returned function replaces the old ones; whatever those authorised then ends.
    ///
    /// # Errors
    /// [`NoToken`]: the listener may be one that only a token protects.
    pub fn prepare(self: &Arc<Self>, admin: &Admin) -> Result<impl FnOnce() + Send + use<>, NoToken> {
        let (new, this) = (tokens(admin), Arc::clone(self));
        if new.is_empty() && self.asks() {
            return Err(NoToken);
        }
        Ok(move || drop(this.tokens.send_replace(new)))
    }

    fn tokens(&self) -> Tokens {
        Arc::clone(&self.tokens.borrow())
    }

    /// Whether a token is required.
    fn asks(&self) -> bool {
        !self.tokens.borrow().is_empty()
    }

    /// The token that was sent, if it is valid. Always compares with all tokens, whichever matches.
    fn token(&self, sent: &[u8]) -> Option<Arc<Token>> {
        let sent = secret::digest(sent);
        self.tokens().iter().fold(None, |found, token| {
            let equal = bool::from(sent.as_slice().ct_eq(&token.digest));
            if equal { Some(Arc::clone(token)) } else { found }
        })
    }

    /// Compares the token of a request, unless too many wrong ones came from its source.
    fn guess(&self, head: &Parts, sent: &[u8]) -> Guess {
        let source = self.source(head);
        let left = source.map_or(Duration::ZERO, |source| self.guesses.shut(source));
        if !left.is_zero() {
            return Guess::Shut(left);
        }
        match self.token(sent) {
            Some(token) => Guess::Right(token),
            None => {
                if let Some(source) = source {
                    self.guesses.wrong(source);
                }
                self.warn(source);
                Guess::Wrong
            }
        }
    }

    /// The source of a request; `None` without a connection, as in tests of handlers.
    fn source(&self, head: &Parts) -> Option<IpAddr> {
        // If a proxy forwards something invalid, the proxy itself counts as the source.
        self.sources.client(&head.extensions, &head.headers).map(server::source)
    }

    fn warn(&self, source: Option<IpAddr>) {
        self.throttle.run("no right", |suppressed| {
            let source = source.map(tracing::field::display);
            tracing::warn!(source, suppressed, "refused a request to the admin listener: no token, or a wrong one");
        });
    }

    /// The sessions in a request's cookies.
    fn sessions(&self, headers: &HeaderMap) -> Vec<Session> {
        self.held(headers).map(|(_, session)| session).collect()
    }

    fn held<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = (Arc<Token>, Session)> + use<'a> {
        let (now, tokens) = (self.clock.now(), self.tokens());
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|cookie| cookie.to_str().ok());
        cookies.flat_map(|line| line.split(';')).filter_map(session::value).filter_map(move |value| {
            tokens.iter().find_map(|token| Some((Arc::clone(token), token.sessions.holds(value, now)?)))
        })
    }

    /// Authorises a request by its bearer token, or else by its session. If it has a token, only that counts.
    async fn judge(&self, head: &Parts) -> Judged {
        if let Some(sent) = head.headers.get(AUTHORIZATION) {
            let sent = match sent.as_bytes().split_at_checked(7) {
                Some((scheme, sent)) if scheme.eq_ignore_ascii_case(b"bearer ") => sent.trim_ascii(),
                _ => return Judged::None,
            };
            return match self.guess(head, sent) {
                Guess::Right(token) => Judged::Right(token, None),
                Guess::Wrong => Judged::None,
                Guess::Shut(left) => Judged::Shut(left),
            };
        }
        for (token, session) in self.held(&head.headers) {
            if !self.ended.has(&session).await {
                return Judged::Right(token, Some(session));
            }
        }
        Judged::None
    }
}

/// The result of comparing a token.
enum Guess {
    Right(Arc<Token>),
    Wrong,
    /// The token was not compared, and will not be for this long.
    Shut(Duration),
}

/// The result of authorising a request.
enum Judged {
    /// The request has this token's rights; by the token itself, or by a session.
    Right(Arc<Token>, Option<Session>),
    None,
    Shut(Duration),
}

/// Passes on requests that [`Access`] allows, with their [`Right`], [`Identity`] and [`Grant`] in the extensions, and bare
/// `/readyz`.
pub async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    if !access.asks() {
        if !names_loopback(request.uri(), request.headers()) {
            return explained(StatusCode::FORBIDDEN, NO_TOKEN);
        }
        let nobody = Identity { name: None, right: Right::Masked, operate: false };
        request.extensions_mut().insert(nobody.right);
        request.extensions_mut().insert(nobody);
        request.extensions_mut().insert(Grant::new(access, None, None));
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let judged = access.judge(&head).await;
    let mut request = Request::from_parts(head, body);
    let (token, session) = match judged {
        Judged::Right(token, session) => (token, session),
        Judged::Shut(left) => return later(problem(StatusCode::TOO_MANY_REQUESTS), left),
        Judged::None => {
            let open = match request.uri().path() {
                "/readyz" => !health::is_verbose(request.uri().query()),
                // This route checks the token itself.
                login::SESSION => request.method() == Method::POST,
                _ => false,
            };
            if open {
                return next.run(request).await;
            }
            let (head, _) = request.into_parts();
            access.warn(access.source(&head));
            let form = head.uri.path() == "/" && reads(&head.method) && wants_html(&head.headers);
            return if form { login::form(login::Language::of(&head.headers), None) } else { unauthorized() };
        }
    };
    if session.is_some()
        && !reads(request.method())
        && let Some(refused) = foreign(&access, request.uri(), request.headers(), request.extensions())
    {
        return refused;
    }
    // When connections are evicted, those of authorised clients are the last to go.
    if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
        drop(connection.proven());
    }
    request.extensions_mut().insert(token.identity.right);
    request.extensions_mut().insert(token.identity.clone());
    request.extensions_mut().insert(Grant::new(access, Some(token), session));
    next.run(request).await
}

/// Turns the response into a `429` with `Retry-After`.
fn later(mut response: Response, left: Duration) -> Response {
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(left.as_secs() + 1));
    response
}

fn unauthorized() -> Response {
    let mut response = problem(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn wants_html(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    ranges.any(|ranges| ranges.split(',').any(|range| range.trim_start().starts_with("text/html")))
}

/// `403`, if the request does not come from the page itself; with an explanation if a proxy may be the reason.
fn foreign(access: &Access, uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Option<Response> {
    match page_origin(uri, headers) {
        PageOrigin::Ours => None,
        PageOrigin::Foreign => Some(problem(StatusCode::FORBIDDEN)),
        PageOrigin::Unclear => {
            access.throttle.run("another host", |suppressed| {
                let peer = access.sources.client(extensions, headers).map(tracing::field::display);
                let said = |header: Option<&HeaderValue>| {
                    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
                    text.chars().take(100).collect::<String>()
                };
                let (origin, host) = (said(headers.get(ORIGIN)), said(headers.get(HOST)));
                tracing::warn!(
                    peer,
                    ?origin,
                    ?host,
                    suppressed,
                    "refused a request from a page of another host: if \
                                                                  you reach this listener through a proxy, let it \
                                                                  pass the host name on (nginx: proxy_set_header \
                                                                  Host $host)"
                );
            });
            let language = login::Language::of(headers);
            Some(if wants_html(headers) { login::another_host(language) } else { login::another_host_said() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AdminRights;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// A database that does not answer.
    #[derive(Debug)]
    struct NoSessions;

    #[async_trait::async_trait]
    impl log::Sessions for NoSessions {
        async fn end_session(&self, _: &str, _: convoke_core::time::Millis) -> Result<(), log::LogError> {
            Err(log::LogError::Unavailable("none".into()))
        }
        async fn ended_sessions(&self) -> Result<Vec<String>, log::LogError> {
            Err(log::LogError::Unavailable("none".into()))
        }
    }

    fn access(all: Option<&str>, viewer: Option<&str>) -> Access {
        let token = |name: &str, token: Option<&str>, see_people| {
            let rights = AdminRights { see_people, operate: see_people };
            token.map(|token| AdminToken { name: name.into(), token: token.into(), rights })
        };
        let tokens = [token("all", all, true), token("viewer", viewer, false)].into_iter().flatten().collect();
        let admin = Admin { tokens };
        Access::new(&admin, ClientSources::default(), Arc::new(NoSessions), Clock::System)
    }

    async fn right(access: &Access, pairs: &[(&'static str, &str)]) -> Option<Right> {
        let (mut head, ()) = axum::http::Request::new(()).into_parts();
        head.headers = headers(pairs);
        head.extensions.insert(Arc::new(Connection::new("192.0.2.1:1".parse().unwrap())));
        match access.judge(&head).await {
            Judged::Right(token, _) => Some(token.identity.right),
            Judged::None | Judged::Shut(_) => None,
        }
    }

    #[tokio::test]
    async fn each_token_gives_its_own_right_and_a_wrong_one_is_not_saved_by_a_session() {
        let access = access(Some("all"), Some("view"));
        assert_eq!(right(&access, &[("authorization", "Bearer all")]).await, Some(Right::Full));
        assert_eq!(right(&access, &[("authorization", "bearer  view ")]).await, Some(Right::Masked));
        for wrong in ["Bearer", "Bearer ", "Bearer al", "Basic all", "all", "Bearer all view"] {
            assert_eq!(right(&access, &[("authorization", wrong)]).await, None, "{wrong}");
        }
        let cookie = format!("a=b; convoke_session={}", access.tokens()[1].sessions.open(Clock::System.now()));
        assert_eq!(right(&access, &[("cookie", &cookie)]).await, Some(Right::Masked));
        assert_eq!(right(&access, &[("cookie", &cookie), ("authorization", "Bearer x")]).await, None);
        assert_eq!(right(&access, &[]).await, None);
    }

    #[tokio::test]
    async fn where_too_many_wrong_tokens_came_from_the_right_one_is_not_told_and_a_session_holds() {
        let access = access(Some("all"), None);
        for _ in 0..12 {
            assert_eq!(right(&access, &[("authorization", "Bearer wrong")]).await, None);
        }
        assert_eq!(right(&access, &[("authorization", "Bearer all")]).await, None);
        let cookie = format!("convoke_session={}", access.tokens()[0].sessions.open(Clock::System.now()));
        assert_eq!(right(&access, &[("cookie", &cookie)]).await, Some(Right::Full));
        let (mut head, ()) = axum::http::Request::new(()).into_parts();
        head.headers = headers(&[("authorization", "Bearer all")]);
        head.extensions.insert(Arc::new(Connection::new("192.0.2.2:1".parse().unwrap())));
        assert!(matches!(access.judge(&head).await, Judged::Right(token, None) if token.identity.right == Right::Full));
    }

    #[tokio::test]
    async fn a_session_that_was_ended_does_not_hold_here_even_if_the_database_does_not_answer() {
        let access = access(Some("all"), None);
        let open = || format!("convoke_session={}", access.tokens()[0].sessions.open(Clock::System.now()));
        let (one, other) = (open(), open());
        for session in access.sessions(&headers(&[("cookie", &one)])) {
            access.ended.end(session).await.unwrap_err();
        }
        assert_eq!(right(&access, &[("cookie", &one)]).await, None);
        assert_eq!(right(&access, &[("cookie", &other)]).await, Some(Right::Full));
    }

    #[tokio::test]
    async fn another_token_ends_the_sessions_that_the_old_one_opened() {
        let cookie =
            format!("convoke_session={}", access(Some("old"), None).tokens()[0].sessions.open(Clock::System.now()));
        let held = async |token| right(&access(Some(token), None), &[("cookie", &cookie)]).await.is_some();
        assert!(held("old").await && !held("new").await);
    }

    #[test]
    fn html_is_for_those_who_ask_for_it() {
        assert!(wants_html(&headers(&[("accept", "application/xhtml+xml, text/html;q=0.9")])));
        assert!(!wants_html(&headers(&[("accept", "*/*")])) && !wants_html(&headers(&[])));
    }
}
