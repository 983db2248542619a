//! What a request asks for: which call, with which parameters.

use hyper::Method;
use hyper::header::{ACCEPT_LANGUAGE, HeaderMap};
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// The calls of the API, by the manual's sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// 3.2.1 `POST /v2/usg/acs/auth/appauth`
    Authenticate,
    /// 3.2.3 `PUT /v1/usg/acs/token`
    Refresh,
    /// 3.2.4 `POST /v1/usg/acs/token/validate`
    Validate,
    /// 3.2.5 `DELETE /v1/usg/acs/token`
    LogOut,
    /// 6.3.2.1 `POST /v1/mmc/management/webhook/link-config`
    SetSubscription,
    /// 6.3.2.2 `GET` of the same
    ShowSubscription,
    /// 6.3.2.3 `DELETE` of the same
    DeleteSubscription,
    /// 6.3.2.4 `PUT /v1/mmc/management/webhook/change-status`
    ChangeStatus,
    /// 4.2.9 `GET /v1/mmc/management/conferences`
    NotOver,
    /// 4.2.10 `GET /v1/mmc/management/conferences/confDetail`
    NotOverDetail,
    /// 4.2.12 `GET /v1/mmc/management/conferences/online`
    Running,
    /// 4.2.13 `GET /v1/mmc/management/conferences/online/confDetail`
    RunningDetail,
    /// 4.2.14 `GET /v1/mmc/management/record/files`
    Recordings,
    /// 4.2.15 `GET /v1/mmc/management/conferences/record/files`
    Recording,
    /// 4.2.16 `GET /v1/mmc/management/record/downloadurls`
    Downloads,
    /// 4.2.18 `GET /v1/mmc/management/conferences/history`
    History,
    /// 4.2.19 `GET /v1/mmc/management/conferences/history/confDetail`
    HistoryDetail,
    /// 4.2.21 `GET /v1/mmc/management/conferences/history/confAttendeeRecord`
    Attendees,
    /// 4.2.23 `GET /v1/mmc/management/conferences/confOrg`
    Enterprise,
    /// 4.2.25 `GET /v1/mmc/management/orgRes`
    Today,
    /// 4.2.29 `GET /v1/mmc/management/conferences/online/conf-attendee`
    Present,
    /// 5.2.1 `GET /v1/mmc/control/conferences/token`
    ControlToken,
    /// 5.2.29 `GET /v1/mmc/control/conferences/wsToken`
    SocketToken,
    /// 5.2.43 `POST /v1/mmc/rlm/record/info`
    Segments,
    /// 11.2.4 `POST /v1/usg/abs/users/list`
    Users,
    /// 7.1.2.3 `GET /v1/metrics/conference/participants`
    Participants,
    /// 7.2.2.1 `GET /v1/metrics/dashboard/statistic/conference/info`
    Statistics,
}

impl Call {
    /// The call at this address.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        Some(match (method.as_str(), path) {
            ("POST", "/v2/usg/acs/auth/appauth") => Self::Authenticate,
            ("PUT", "/v1/usg/acs/token") => Self::Refresh,
            ("POST", "/v1/usg/acs/token/validate") => Self::Validate,
            ("DELETE", "/v1/usg/acs/token") => Self::LogOut,
            ("POST", "/v1/mmc/rlm/record/info") => Self::Segments,
            ("POST", "/v1/usg/abs/users/list") => Self::Users,
            ("GET", "/v1/mmc/control/conferences/token") => Self::ControlToken,
            ("GET", "/v1/mmc/control/conferences/wsToken") => Self::SocketToken,
            ("GET", "/v1/metrics/conference/participants") => Self::Participants,
            ("GET", "/v1/metrics/dashboard/statistic/conference/info") => Self::Statistics,
            (method, path) => match (method, path.strip_prefix("/v1/mmc/management/")?) {
                ("POST", "webhook/link-config") => Self::SetSubscription,
                ("GET", "webhook/link-config") => Self::ShowSubscription,
                ("DELETE", "webhook/link-config") => Self::DeleteSubscription,
                ("PUT", "webhook/change-status") => Self::ChangeStatus,
                ("GET", "conferences") => Self::NotOver,
                ("GET", "conferences/confDetail") => Self::NotOverDetail,
                ("GET", "conferences/online") => Self::Running,
                ("GET", "conferences/online/confDetail") => Self::RunningDetail,
                ("GET", "record/files") => Self::Recordings,
                ("GET", "conferences/record/files") => Self::Recording,
                ("GET", "record/downloadurls") => Self::Downloads,
                ("GET", "conferences/history") => Self::History,
                ("GET", "conferences/history/confDetail") => Self::HistoryDetail,
                ("GET", "conferences/history/confAttendeeRecord") => Self::Attendees,
                ("GET", "conferences/confOrg") => Self::Enterprise,
                ("GET", "conferences/online/conf-attendee") => Self::Present,
                ("GET", "orgRes") => Self::Today,
                _ => return None,
            },
        })
    }
}

/// The parameters of a query string.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

/// One page of a list: `offset` counts records (sections 4.2.9 to 4.2.21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paging {
    pub offset: usize,
    pub limit: usize,
}

/// The language that the platform's own texts are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Chinese,
    English,
}

impl Language {
    /// By `Accept-Language`: `zh-CN`, which holds without it, or `en-US`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let wanted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if wanted.trim_start().to_ascii_lowercase().starts_with("en") { Self::English } else { Self::Chinese }
    }
}

/// `limit`, if it is not given, and the most that it may be where the manual states a maximum.
const DEFAULT_LIMIT: usize = 20;
pub(super) const MAX_LIMIT: usize = 500;

impl Query {
    pub(super) fn of(text: &str) -> Self {
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs =
            text.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    /// A parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or(Refusal::BAD_PARAMETER)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.get(name).map(|text| text.parse().map_err(|_| Refusal::BAD_REQUEST)).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refusal::BAD_REQUEST),
        }
    }

    /// `offset` and `limit`. More than the most is taken for the most, as older manuals say, and an offset below 0 for 0, as the
    /// manufacturer's Go client says; a limit below 1 is refused, of which nobody says anything.
    pub(super) fn paging(&self, most: usize) -> Result<Paging, Refusal> {
        let offset = usize::try_from(self.number("offset")?.unwrap_or_default().max(0)).unwrap_or(usize::MAX);
        let limit = match self.number("limit")? {
            None => DEFAULT_LIMIT,
            Some(..1) => return Err(Refusal::BAD_PARAMETER),
            Some(limit) => usize::try_from(limit).unwrap_or(most).min(most),
        };
        Ok(Paging { offset, limit })
    }

    /// `searchKey`, 1 to 128 characters.
    pub(super) fn search(&self) -> Result<Option<&str>, Refusal> {
        match self.get("searchKey") {
            Some(key) if key.chars().count() > 128 => Err(Refusal::BAD_PARAMETER),
            key => Ok(key),
        }
    }
}
