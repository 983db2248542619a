//! Parameters of the query, each of a type that knows its limits, and parts of the path.
//!
//! A parameter that is not known, is there twice or is out of its limits is refused by its name, with what is allowed. No value
//! that was sent comes back in the refusal.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::Api;
use super::error::ApiError;
use crate::http::auth::Right;
use convoke_core::time::Millis;
use convoke_core::zone::{TimeZone, WrittenTime};
use convoke_log::Scope;

/// How far a search for a person reaches: no index leads from a person to what they did.
pub(crate) const MAX_PERSON_DAYS: u64 = 31;
const MAX_PERSON_RANGE: Duration = Duration::from_secs(MAX_PERSON_DAYS * 86_400);

/// A longer name of something that is no parameter is not shown.
const MAX_SHOWN_NAME_BYTES: usize = 40;

/// The length of a date.
const DATE_CHARS: usize = 10;

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Params<A>(pub A);

/// The parameters of a query for a list: those that lists have in common, those of this one, and which page.
#[derive(Debug)]
pub(crate) struct ListParams<A, B = NoParams> {
    pub common: A,
    pub own: B,
    pub paging: PageParams,
    /// The same for the same question, whichever page of its answer.
    pub fingerprint: String,
}

/// The parameters of a query for a file of a list.
#[derive(Debug)]
pub(crate) struct DownloadParams<A, B = NoParams> {
    pub common: A,
    pub own: B,
    pub format: FileFormat,
}

convoke_core::words! {
    /// A file for spreadsheets.
    pub enum FileFormat as "FileFormat" {
        /// Comma-separated values, marked as UTF-8, in which no text is a formula.
        Csv = "csv",
        /// A workbook.
        Xlsx = "xlsx",
    }
}

/// Which kind of file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FormatParams {
    /// As what; `csv` unless told otherwise. `xlsx` is a workbook, of 1,048,575 rows and 128 MiB of cells at the most.
    #[param(inline)]
    format: Option<FileFormat>,
}

/// No parameters.
#[derive(Debug, Deserialize)]
pub(crate) struct NoParams {}

impl IntoParams for NoParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Vec::new()
    }
}

impl<A, S> FromRequestParts<S> for Params<A>
where
    A: DeserializeOwned + IntoParams,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        pairs(&parts.uri, &[A::into_params(|| None)])?;
        read(&parts.uri).map(Self)
    }
}

impl<A, B, S> FromRequestParts<S> for ListParams<A, B>
where
    A: DeserializeOwned + IntoParams,
    B: DeserializeOwned + IntoParams,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let known = [A::into_params(|| None), PageParams::into_params(|| None), B::into_params(|| None)];
        let mut pairs = pairs(&parts.uri, &known)?;
        let (common, own, paging) = (read(&parts.uri)?, read(&parts.uri)?, read(&parts.uri)?);
        pairs.retain(|(name, _)| !known[1].iter().any(|parameter| parameter.name == *name));
        pairs.sort();
        let digest = Sha256::digest(serde_json::json!(pairs).to_string());
        Ok(Self { common, own, paging, fingerprint: hex::encode(&digest[..8]) })
    }
}

impl<A, B, S> FromRequestParts<S> for DownloadParams<A, B>
where
    A: DeserializeOwned + IntoParams,
    B: DeserializeOwned + IntoParams,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        pairs(&parts.uri, &[A::into_params(|| None), FormatParams::into_params(|| None), B::into_params(|| None)])?;
        let format = read::<FormatParams>(&parts.uri)?.format.unwrap_or(FileFormat::Csv);
        Ok(Self { common: read(&parts.uri)?, own: read(&parts.uri)?, format })
    }
}

/// The parameters as they came, if each is known and there once.
fn pairs(uri: &Uri, known: &[Vec<Parameter>]) -> Result<Vec<(String, String)>, ApiError> {
    let names: Vec<&str> = known.iter().flatten().map(|parameter| &*parameter.name).collect();
    let pairs: Vec<(String, String)> = read(uri)?;
    let mut seen = HashSet::new();
    let Some((wrong, _)) = pairs.iter().find(|(name, _)| !names.contains(&&**name) || !seen.insert(name)) else {
        return Ok(pairs);
    };
    // A name that looks like one: what is anything else is not sent back.
    let plain = wrong.len() <= MAX_SHOWN_NAME_BYTES && wrong.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let shown = if plain { wrong } else { "a name that was sent" };
    let problem = if names.contains(&&**wrong) { "is there twice" } else { "is no parameter of this" };
    Err(ApiError::bad(match names.is_empty() {
        true => format!("{shown} {problem}: no parameters are allowed"),
        false => format!("{shown} {problem}; allowed are, once each: {}", names.join(", ")),
    }))
}

/// Reads those parameters that `T` knows. What an error says comes from the types here.
fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    Query::try_from_uri(uri).map(|Query(read)| read).map_err(|rejection| {
        let text = rejection.body_text();
        ApiError::bad(text.split_once(": ").map_or(&*text, |(_, detail)| detail))
    })
}

/// Parts of the path. What cannot be one names nothing.
#[derive(Debug)]
pub(crate) struct At<T>(pub T);

impl<T, S> FromRequestParts<S> for At<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(at)| Self(at)).map_err(|_| ApiError::NotFound)
    }
}

/// A point in time, in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Time(pub Millis);

/// A point in time, in a question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedTime(WrittenTime);

impl AskedTime {
    /// Without an offset it is that of the zone.
    pub fn in_zone(self, zone: &TimeZone) -> Millis {
        self.0.in_zone(zone)
    }
}

impl<'de> Deserialize<'de> for AskedTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(from)?;
        // In a query a plus is a space. Right behind a date it is one.
        if let Some(offset) = text.rfind(' ').filter(|place| *place > DATE_CHARS) {
            text.replace_range(offset..=offset, "+");
        }
        let allowed = "a time is RFC 3339, as in 2026-03-01T08:30:00Z, or a date, as in 2026-03-01";
        text.parse().map(Self).map_err(|_| D::Error::custom(allowed))
    }
}

impl PartialSchema for AskedTime {
    fn schema() -> RefOr<Schema> {
        Time::schema()
    }
}

impl ToSchema for AskedTime {
    fn name() -> std::borrow::Cow<'static, str> {
        Time::name()
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        Millis::schema()
    }
}

impl ToSchema for Time {
    fn name() -> std::borrow::Cow<'static, str> {
        Millis::name()
    }
}

fn schema(of: Type, change: impl FnOnce(ObjectBuilder) -> ObjectBuilder) -> RefOr<Schema> {
    change(ObjectBuilder::new().schema_type(of)).build().into()
}

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<const MIN: i64, const MAX: i64>(pub i64);

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = String::deserialize(from)?.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        number.map(Self).ok_or_else(|| D::Error::custom(format!("allowed is a whole number from {MIN} to {MAX}")))
    }
}

impl<const MIN: i64, const MAX: i64> PartialSchema for Number<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        schema(Type::Integer, |it| it.minimum(Some(MIN)).maximum(Some(MAX)))
    }
}

impl<const MIN: i64, const MAX: i64> ToSchema for Number<MIN, MAX> {}

/// A text of at least one and at most `MAX` characters. All that one question may hold, in whatever script, fits into the
/// 16 KiB of a request's head.
#[derive(Clone, Debug)]
pub(crate) struct Text<const MAX: usize>(pub String);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() || text.chars().nth(MAX).is_some() {
            return Err(D::Error::custom(format!("allowed is a text of 1 to {MAX} characters")));
        }
        Ok(Self(text))
    }
}

impl<const MAX: usize> PartialSchema for Text<MAX> {
    fn schema() -> RefOr<Schema> {
        schema(Type::String, |it| it.min_length(Some(1)).max_length(Some(MAX)))
    }
}

impl<const MAX: usize> ToSchema for Text<MAX> {}

/// What every list can be asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ScopeParams {
    /// At this time or later: RFC 3339, or a date, which is its first moment. Without an offset it is a time of the setting
    /// `reports.time_zone`.
    #[param(inline)]
    pub since: Option<AskedTime>,
    /// Before this time.
    #[param(inline)]
    pub until: Option<AskedTime>,
    /// Of this subscriber.
    #[param(inline)]
    pub subscriber: Option<Text<100>>,
    /// Of the meeting with this number or UUID.
    #[param(inline)]
    pub meeting: Option<Text<300>>,
    /// Of whom exactly this is the person, user UUID, account, call number, participant or display name. Without a meeting,
    /// over 31 days at the most: the last ones unless told otherwise. `403` for whom people are masked: whether there is somebody
    /// of that name is personal, too.
    #[param(inline)]
    pub person: Option<Text<300>>,
}

/// Which part of a list: so many rows at the most, after a cursor.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// So many at the most; 100 unless told otherwise.
    #[param(inline)]
    pub limit: Option<Number<1, 1000>>,
    /// `next` of the answer before this one, to the same question.
    #[param(inline)]
    pub cursor: Option<Text<4096>>,
}

impl ScopeParams {
    /// As the log is asked.
    pub fn scope(&self, api: &Api, right: Right) -> Result<Scope, ApiError> {
        if self.person.is_some() && right == Right::Masked {
            return Err(ApiError::Hidden);
        }
        let text = |text: &Option<Text<300>>| text.as_ref().map(|text| text.0.clone());
        let mut scope = Scope {
            since: self.since.map(|time| time.in_zone(&api.zone)),
            until: self.until.map(|time| time.in_zone(&api.zone)),
            subscriber: self.subscriber.as_ref().map(|text| text.0.clone()),
            meeting: text(&self.meeting),
            person: text(&self.person),
        };
        if scope.person.is_some() && scope.meeting.is_none() {
            let end = scope.until.unwrap_or_else(|| api.now());
            let since = *scope.since.get_or_insert(end.minus(MAX_PERSON_RANGE));
            if end.since(since) > MAX_PERSON_RANGE {
                return Err(ApiError::bad(format!(
                    "a person without a meeting is searched for over {MAX_PERSON_DAYS} days at the most: give since and \
                     until that are no further apart, or a meeting"
                )));
            }
        }
        Ok(scope)
    }
}

/// What somebody did in the last days.
pub(crate) fn last_days(person: String, now: Millis) -> Scope {
    Scope { since: Some(now.minus(MAX_PERSON_RANGE)), person: Some(person), ..Scope::default() }
}
