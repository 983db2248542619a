//! Opening and ending a session: the form, and what it is sent to.

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

use super::{Access, same_origin, session};
use crate::http::problem::problem;

/// Where a session is opened.
pub const SESSION: &str = "/session";

/// A token is shorter; and it arrives within this time.
const LONGEST_FORM: usize = 8 << 10;
const FORM_TIME: Duration = Duration::from_secs(10);

const CSS: &str = include_str!("login.css");

/// The form needs no script, and its style is this one. Its icon is an empty one, so that none is asked for without a token.
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
        .layer(DefaultBodyLimit::max(LONGEST_FORM))
        .layer(middleware::from_fn(from_our_pages))
        .with_state(access)
}

async fn only_post() -> Response {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn from_our_pages(request: Request, next: middleware::Next) -> Response {
    if same_origin(request.uri(), request.headers()) { next.run(request).await } else { problem(StatusCode::FORBIDDEN) }
}

#[derive(Deserialize)]
struct Login {
    token: SecretString,
}

async fn open(State(access): State<Arc<Access>>, request: Request) -> Response {
    if !access.asks() {
        return to_the_page(None);
    }
    let (head, body) = request.into_parts();
    let sent = Form::<Login>::from_request(Request::from_parts(head.clone(), body), &());
    let sent = tokio::time::timeout(FORM_TIME, sent).await.ok().and_then(Result::ok);
    // As typed or pasted: with a space or a line's end around it.
    let token = sent.as_ref().and_then(|Form(login)| access.token(login.token.expose_secret().trim().as_bytes()));
    if let Some(token) = token {
        let secure = head.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        return to_the_page(Some(session::set(&token.sessions.open(access.clock.now()), secure)));
    }
    let language = Language::of(&head.headers);
    access.refuse(&head.extensions, || form(language, true)).await
}

async fn end(headers: HeaderMap) -> Response {
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    to_the_page(Some(session::set("", secure)))
}

fn to_the_page(cookie: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
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
    /// The first of the two that a browser names: they name them in the order of preference.
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

/// `401`, with the form that asks for the token.
pub(super) fn form(language: Language, again: bool) -> Response {
    let (code, [title, wrong, explanation, label, button]) = match language {
        Language::English => (
            "en",
            [
                "Convoke: sign in",
                "This token is not right.",
                "This page needs the token from the settings: admin.token, or admin.viewer_token.",
                "Token",
                "Sign in",
            ],
        ),
        Language::Chinese => (
            "zh-CN",
            [
                "Convoke:登录",
                "令牌不正确。",
                "本页面需要配置中的令牌:admin.token 或 admin.viewer_token。",
                "令牌",
                "登录",
            ],
        ),
    };
    let wrong = if again { format!(r#"<p role="alert">{wrong}</p>"#) } else { String::new() };
    let body = format!(
        r#"<!doctype html>
<html lang="{code}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>{CSS}</style></head>
<body><main><h1>{title}</h1>{wrong}<p>{explanation}</p>
<form method="post" action="{SESSION}">
<label for="token">{label}</label>
<input id="token" name="token" type="password" autocomplete="current-password" autocapitalize="off" spellcheck="false" required autofocus>
<button type="submit">{button}</button>
</form></main></body></html>
"#
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(code));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Language, Cookie"));
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
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
