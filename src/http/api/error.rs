//! Why a question was not answered, as a problem (RFC 9457) that says what is allowed.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use convoke_log::LogError;

/// Why a question was not answered.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// It asks for what is not allowed; says what is. Nothing of what was asked is in it.
    Bad(String),
    /// It asks for people, who are masked for whoever asks.
    Hidden,
    /// It asks for an action without the right to.
    NoOperator,
    /// It asks for an action in something other than JSON.
    NotJson,
    /// Something else stands in its way.
    Conflict(String),
    /// There is no such thing.
    NotFound,
    /// It took too long to find out.
    TooSlow,
    /// The database does not answer.
    Unavailable,
    /// The service stops.
    Stopping,
    /// There are too many streams.
    Crowded,
    /// Too many files of lists are on their way.
    Downloading,
    /// There is no room for a temporary file.
    NoTemporaryFile,
    /// Too many large answers are on their way to those who asked before.
    Full,
}

impl ApiError {
    /// What is wrong, and what is allowed.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::Bad(detail.into())
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::TooSlow(_) => Self::TooSlow,
            LogError::Rejected(_) => Self::bad("one of the values is one that no row can have"),
            error => {
                tracing::debug!(%error, "a question could not be answered");
                Self::Unavailable
            }
        }
    }
}

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    #[schema(value_type = u16, minimum = 400, maximum = 599)]
    status: u16,
    /// What is allowed, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, required = false)]
    detail: Option<String>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Bad(detail) => (StatusCode::BAD_REQUEST, Some(detail)),
            Self::Hidden => (
                StatusCode::FORBIDDEN,
                Some(
                    "people are masked here, and are not searched for: that takes a token with the right see_people"
                        .to_owned(),
                ),
            ),
            Self::NoOperator => (
                StatusCode::FORBIDDEN,
                Some("actions take a token with the right operate, as admin.token has".to_owned()),
            ),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Some("allowed is a body of JSON, with Content-Type: application/json".to_owned()),
            ),
            Self::Conflict(detail) => (StatusCode::CONFLICT, Some(detail)),
            Self::NotFound => (StatusCode::NOT_FOUND, None),
            Self::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, Some("it takes too long: narrow the range".to_owned())),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some("the database does not answer".to_owned())),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                Some("16 large answers are on their way, the most there may be: ask for fewer rows (limit)".to_owned()),
            ),
            Self::Downloading => (
                StatusCode::SERVICE_UNAVAILABLE,
                Some("4 files are on their way, or other workbooks are made, the most there may be".to_owned()),
            ),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, Some("the service stops: ask again".to_owned())),
            Self::NoTemporaryFile => (
                StatusCode::SERVICE_UNAVAILABLE,
                Some(
                    "the temporary file of the workbook could not be written, the log says why: format=csv needs none"
                        .to_owned(),
                ),
            ),
            Self::Crowded => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("64 streams are open, the most there may be".to_owned()))
            }
        };
        let title = status.canonical_reason().unwrap_or("Error");
        let problem = Problem { kind: "about:blank", title, status: status.as_u16(), detail };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// What every question may be answered instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(crate) enum Refusals {
    /// A parameter is unknown or out of range; `detail` says what is allowed.
    #[response(status = 400, content_type = "application/problem+json")]
    Bad(Problem),
    /// No token, or a wrong one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// It asks for a person, and people are masked for whoever asks; it asks for an action without the right `operate`; or, without a token in the settings, it does not name a
    /// loopback host.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// Too many wrong tokens came from there: none is looked at until the time in `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json")]
    Crowded(Problem),
    /// The head of the request is over 32 KiB.
    #[response(status = 431, content_type = "application/problem+json")]
    Long(Problem),
    /// The database does not answer, or not in time; or too many streams are open or large answers or files on their way.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// What a question for one thing may be answered too.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described")]
pub(crate) enum Missing {
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
}
