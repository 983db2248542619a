//! Opens and ends sessions: the sign-in form, and the routes that it posts to.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Form, FromRequest as _, Request, State};
use axum::http::header::{
    ACCEPT_LANGUAGE, ALLOW, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, SET_COOKIE, VARY,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum::{Router, middleware};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Access, Guess, foreign, later, session};
use crate::http::problem::{explained, problem};

/// The route that opens a session.
pub const SESSION: &str = "/session";

/// Maximum size of the posted form (a token is much shorter), and the time limit for it.
const MAX_FORM_BYTES: usize = 8 << 10;
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

const CSS: &str = include_str!("login.css");

/// The form needs no script, and only this style. Its icon is empty, so that the browser does not request one without a token.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(CSS));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("printable")
});

/// The routes of sessions.
pub fn router(access: Arc<Access>) -> Router {
    Router::new()
        .route(SESSION, post(open))
        .route("/session/end", post(end))
        .method_not_allowed_fallback(only_post)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&access), from_our_pages))
        .with_state(access)
}

async fn only_post() -> Response {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn from_our_pages(State(access): State<Arc<Access>>, request: Request, next: middleware::Next) -> Response {
    match foreign(&access, request.uri(), request.headers(), request.extensions()) {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

#[derive(Deserialize)]
struct Login {
    token: SecretString,
}

async fn open(State(access): State<Arc<Access>>, request: Request) -> Response {
    if !access.asks() {
        return to_the_page(BESIDE, None);
    }
    let (head, body) = request.into_parts();
    let sent = Form::<Login>::from_request(Request::from_parts(head.clone(), body), &());
    let sent = tokio::time::timeout(FORM_TIMEOUT, sent).await.ok().and_then(Result::ok);
    let language = Language::of(&head.headers);
    let Some(Form(login)) = sent else { return form(language, Some(Alert::Wrong)) };
    // Surrounding spaces and line ends, as they come with pasted text, are removed.
    match access.guess(&head, login.token.expose_secret().trim().as_bytes()) {
        Guess::Right(token) => {
            let secure = head.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
            to_the_page(BESIDE, Some(session::set(&token.sessions.open(access.clock.now()), secure)))
        }
        Guess::Wrong => form(language, Some(Alert::Wrong)),
        Guess::Shut(left) => later(form(language, Some(Alert::Later)), left),
    }
}

/// Ends the session for good: the cookie is deleted, and a copy of it is worthless.
async fn end(State(access): State<Arc<Access>>, headers: HeaderMap) -> Response {
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let cookie = session::set("", secure);
    for session in access.sessions(&headers) {
        if let Err(error) = access.ended.end(session).await {
            tracing::warn!(%error, "a session was ended in this process only: other replicas accept its cookie until \
                                    it expires");
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE);
            response.headers_mut().insert(SET_COOKIE, cookie);
            return response;
        }
    }
    to_the_page(ABOVE, Some(cookie))
}

/// The page's address, relative to the route that opens a session and to the one that ends it: a proxy may serve both below
/// another path.
const BESIDE: HeaderValue = HeaderValue::from_static("./");
const ABOVE: HeaderValue = HeaderValue::from_static("../");

fn to_the_page(way: HeaderValue, cookie: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, way);
    response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    response
}

/// The language of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// The first of the two languages in the header: browsers list languages in order of preference.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let wanted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = wanted.split(',').find_map(|range| match range.trim_start().get(..2) {
            Some(tag) if tag.eq_ignore_ascii_case("zh") => Some(Self::Chinese),
            Some(tag) if tag.eq_ignore_ascii_case("en") => Some(Self::English),
            _ => None,
        });
        known.unwrap_or(Self::English)
    }
}

/// Why the form is shown again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alert {
    /// The token is wrong.
    Wrong,
    /// The token was not compared: too many wrong ones came from this source.
    Later,
}

/// `401`, with the form that asks for the token.
pub(super) fn form(language: Language, again: Option<Alert>) -> Response {
    let (code, [title, wrong, late, explanation, label, button]) = match language {
        Language::English => (
            "en",
            [
                "Convoke: sign in",
                "This token is not right.",
                "Too many wrong tokens came from your address: wait a few seconds, and try again.",
                "This page needs one of the tokens in the settings: admin.token, admin.viewer_token, or one of admin.tokens.",
                "Token",
                "Sign in",
            ],
        ),
        Language::Chinese => (
            "zh-CN",
            [
                "Convoke:登录",
                "令牌不正确。",
                "来自您地址的错误令牌过多：请稍候几秒再试。",
                "本页面需要配置中的令牌:admin.token、admin.viewer_token 或 admin.tokens 之一。",
                "令牌",
                "登录",
            ],
        ),
    };
    let alert = |text| format!(r#"<p role="alert">{text}</p>"#);
    let alert = match again {
        None => String::new(),
        Some(Alert::Wrong) => alert(wrong),
        Some(Alert::Later) => alert(late),
    };
    // The form's address is relative, because the page may be below another path.
    let action = SESSION.trim_start_matches('/');
    let content = format!(
        r#"{alert}<p>{explanation}</p>
<form method="post" action="{action}">
<label for="token">{label}</label>
<input id="token" name="token" type="password" autocomplete="current-password" autocapitalize="off" spellcheck="false" required autofocus>
<button type="submit">{button}</button>
</form>"#
    );
    let mut response = page(StatusCode::UNAUTHORIZED, code, title, &content);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// `403`, with an explanation of how the proxy must be configured.
pub(super) fn another_host(language: Language) -> Response {
    let (code, title, text) = match language {
        Language::English => (
            "en",
            "Convoke: not signed in",
            "The address in the browser and the host that reached Convoke differ. The proxy in front of Convoke must \
             pass the host on. In nginx (with a port in the address: <code>$http_host</code>):",
        ),
        Language::Chinese => (
            "zh-CN",
            "Convoke:未登录",
            "浏览器访问的主机与 Convoke 收到的主机不一致。前置代理须传递主机名。nginx 配置(地址带端口时用 <code>$http_host</code>):",
        ),
    };
    let content = format!(r#"<p role="alert">{text}</p><p><code>{PASS_THE_HOST}</code></p>"#);
    page(StatusCode::FORBIDDEN, code, title, &content)
}

/// The same for programs.
pub(super) fn another_host_said() -> Response {
    let detail = format!(
        "Origin and Host name different hosts. The proxy in front of Convoke must pass the host on: in nginx, \
         `{PASS_THE_HOST}`, or X-Forwarded-Host with the same value."
    );
    explained(StatusCode::FORBIDDEN, &detail)
}

const PASS_THE_HOST: &str = "proxy_set_header Host $host;";

fn page(status: StatusCode, code: &'static str, title: &str, content: &str) -> Response {
    let body = format!(
        r#"<!doctype html>
<html lang="{code}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>{CSS}</style></head>
<body><main><h1>{title}</h1>{content}</main></body></html>
"#
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(code));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Language, Cookie"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_speaks_the_first_language_that_it_knows() {
        let of = |wanted: &str| Language::of(&HeaderMap::from_iter([(ACCEPT_LANGUAGE, wanted.parse().unwrap())]));
        assert_eq!(of("zh-CN,zh;q=0.9,en;q=0.8"), Language::Chinese);
        assert_eq!(of("fr, EN-gb;q=0.9, zh;q=0.8"), Language::English);
        assert_eq!(of("z"), Language::English);
        assert_eq!(Language::of(&HeaderMap::new()), Language::English);
    }
}
