//! Client of the platform's REST API. It knows HTTP and the platform's terms, and nothing of the log or the bus.

mod answer;
pub mod backoff;
mod call;
mod credentials;
mod error;
mod live;
mod model;
mod pace;
mod pages;
mod parse;
pub mod retry_policy;
mod sign;
pub mod socket;
mod token;
pub mod transport;
mod walk;

pub use error::{Class, PlatformError};
pub use live::{Chair, ControlToken, InMeeting};
pub use model::{
    AttendeeRecord, Conference, DayCounts, DirectoryUser, Identity, Invitee, NO_ADMINISTRATOR, NewSubscription,
    Occurrence, Participant, Present, RecordFile, Segment, SegmentFile, Status, Subscription, Today, Viewers,
};
pub use pages::{Item, Pages};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hyper::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use self::call::Call;
use self::pace::Pace;
use self::pages::List;
use self::token::Tokens;
use self::transport::Transport;
use convoke_core::time::{Clock, Millis};

const LINK_CONFIG: &str = "/v1/mmc/management/webhook/link-config";
const CHANGE_STATUS: &str = "/v1/mmc/management/webhook/change-status";
const HISTORY: &str = "/v1/mmc/management/conferences/history";
const HISTORY_DETAIL: &str = "/v1/mmc/management/conferences/history/confDetail";
const HISTORY_ATTENDEES: &str = "/v1/mmc/management/conferences/history/confAttendeeRecord";
const DETAIL: &str = "/v1/mmc/management/conferences/confDetail";
const RECORDINGS: &str = "/v1/mmc/management/record/files";
const RECORDING: &str = "/v1/mmc/management/conferences/record/files";
const SEGMENTS: &str = "/v1/mmc/rlm/record/info";
const USERS: &str = "/v1/usg/abs/users/list";
const RUNNING: &str = "/v1/mmc/management/conferences/online";
const PRESENT: &str = "/v1/mmc/management/conferences/online/conf-attendee";
const TODAY: &str = "/v1/mmc/management/orgRes";
const STATISTICS: &str = "/v1/metrics/dashboard/statistic/conference/info";
const PARTICIPANTS: &str = "/v1/metrics/conference/participants";
const ENTERPRISE: &str = "/v1/mmc/management/conferences/confOrg";

/// How long shutdown waits for the platform to revoke the token.
const LOG_OUT_TIMEOUT: Duration = Duration::from_secs(3);

/// `status` of a disabled subscription.
const DISABLED: i64 = 1;

/// Invitees per request. The platform documents no maximum, its default is 20, and most of its lists take 500.
const MAX_PAGE_INVITEES: u64 = 100;

/// Maximum number of users in one [`Client::users`] (manual, 11.2.4).
pub const MAX_DIRECTORY_USERS: u32 = 200;

/// Segments per request. The platform documents no maximum, and its default is 20.
const MAX_PAGE_SEGMENTS: u64 = 20;

/// The address of the platform's API, and the account to use.
#[derive(Clone, Debug)]
pub struct Options {
    /// The base URL, without a slash at the end.
    pub url: String,
    /// The App ID.
    pub app_id: String,
    /// The key of the App ID.
    pub app_key: SecretString,
    /// The third-party user to act as; `None`: the default administrator.
    pub user_id: Option<String>,
    /// The ID of the enterprise.
    pub corp_id: Option<String>,
    /// The ID of the service provider. If set, the multi-tenant forms of the signature are used.
    pub sp_id: Option<String>,
    /// The enterprises of the service provider that are asked for, each by a token of its own.
    pub corp_ids: Vec<String>,
    /// Timeout of a response.
    pub timeout: Duration,
}

impl Options {
    /// Options for the default administrator of a single enterprise, with a timeout of 20 s.
    #[must_use]
    pub fn new(url: impl Into<String>, app_id: impl Into<String>, app_key: SecretString) -> Self {
        Self {
            url: url.into(),
            app_id: app_id.into(),
            app_key,
            user_id: None,
            corp_id: None,
            sp_id: None,
            corp_ids: Vec::new(),
            timeout: Duration::from_secs(20),
        }
    }
}

/// The client. Cheap to clone; clones share the token, the connections and the rate limits.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

/// The state shared by the clones.
struct Core {
    options: Options,
    /// The key of the App ID, which can be replaced. It is moved here from the options, so that no old key stays in memory.
    key: Arc<RwLock<SecretString>>,
    clock: Clock,
    transport: Arc<Transport>,
    pace: Arc<Pace>,
    tokens: Tokens,
    /// How far the local clock was behind the platform's at the last response, in seconds.
    behind: Arc<AtomicI64>,
    /// The clients that act for single enterprises of the service provider.
    enterprises: Mutex<BTreeMap<String, Client>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.core.options).finish_non_exhaustive()
    }
}

impl Core {
    fn key(&self) -> SecretString {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// Creates a client. Does not connect yet.
    ///
    /// # Errors
    /// There are no root certificates to verify the platform's certificate.
    pub fn new(mut options: Options, clock: Clock) -> Result<Self, PlatformError> {
        let transport = Transport::new(&options.url).map_err(|problem| {
            let advice = "Install the CA certificates (package ca-certificates), or name a file with them in \
                          SSL_CERT_FILE.";
            PlatformError::new(Class::Configuration, "preparing to call the platform", problem, advice)
        })?;
        let key = Arc::new(RwLock::new(std::mem::take(&mut options.app_key)));
        Ok(Self {
            core: Arc::new(Core {
                key,
                options,
                clock,
                transport: Arc::new(transport),
                pace: Arc::new(Pace::new()),
                tokens: Tokens::new(),
                behind: Arc::default(),
                enterprises: Mutex::default(),
            }),
        })
    }

    /// The enterprise as which the client was set up to act.
    #[must_use]
    pub fn corp_id(&self) -> Option<&str> {
        self.core.options.corp_id.as_deref()
    }

    /// Whether the client acts for a service provider as such. The manual promises it the subscription and the enterprise of a
    /// meeting; everything else is an enterprise's.
    #[must_use]
    pub fn is_provider(&self) -> bool {
        self.core.options.sp_id.is_some() && self.corp_id().is_none()
    }

    /// The ID of `enterprise`, which is one of [`Client::enterprises`]; `None` if there is only one, which needs no name.
    #[must_use]
    pub fn name_of(&self, enterprise: &Self) -> Option<String> {
        enterprise.corp_id().filter(|_| self.is_provider()).map(str::to_owned)
    }

    /// The client that acts for the administrator of this enterprise of the service provider (`appId:corpId::…`). It has a token of
    /// its own; key, connections and rate limits are shared.
    #[must_use]
    pub fn of_enterprise(&self, corp_id: &str) -> Self {
        let mut enterprises = self.core.enterprises.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let core = &self.core;
            let (corp_id, corp_ids) = (Some(corp_id.to_owned()), Vec::new());
            Self {
                core: Arc::new(Core {
                    options: Options { corp_id, corp_ids, user_id: None, ..core.options.clone() },
                    key: Arc::clone(&core.key),
                    clock: core.clock.clone(),
                    transport: Arc::clone(&core.transport),
                    pace: Arc::clone(&core.pace),
                    tokens: Tokens::new(),
                    behind: Arc::clone(&core.behind),
                    enterprises: Mutex::default(),
                }),
            }
        };
        enterprises.entry(corp_id.to_owned()).or_insert_with(made).clone()
    }

    /// The clients of the enterprises that are configured for a service provider; otherwise this one.
    #[must_use]
    pub fn enterprises(&self) -> Vec<Self> {
        match &*self.core.options.corp_ids {
            [] => vec![self.clone()],
            corp_ids => corp_ids.iter().map(|corp_id| self.of_enterprise(corp_id)).collect(),
        }
    }

    /// The clients that may know the meeting with this number: for a service provider, that of the meeting's enterprise (4.2.23), or
    /// those of all if the platform does not say; otherwise this one.
    ///
    /// # Errors
    /// [`PlatformError`]: the platform is not there.
    pub async fn of_meeting(&self, conference_id: Option<&str>) -> Result<Vec<Self>, PlatformError> {
        let Some(conference_id) = conference_id.filter(|_| self.is_provider()) else { return Ok(self.enterprises()) };
        match self.enterprise_of(conference_id).await {
            Ok(Some(corp_id)) => Ok(vec![self.of_enterprise(&corp_id)]),
            Ok(None) => Ok(self.enterprises()),
            Err(error) if matches!(error.class, Class::Configuration | Class::Bug) => Ok(self.enterprises()),
            Err(error) => Err(error),
        }
    }

    /// Uses this key from now on, if it belongs to the configured App ID.
    pub fn set_key(&self, app_id: &str, key: SecretString) {
        if *self.core.options.app_id == *app_id {
            *self.core.key.write().unwrap_or_else(PoisonError::into_inner) = key;
        }
    }

    /// How many seconds the local clock is behind the platform's, by the newest response; negative if
    /// ahead. 0 before the first.
    #[must_use]
    pub fn clock_behind(&self) -> i64 {
        self.core.behind.load(Ordering::Relaxed)
    }

    /// Our account as the platform sees it, from the response to the authentication.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn identity(&self) -> Result<Identity, PlatformError> {
        Ok(self.core.tokens.current(&self.core, None).await?.identity)
    }

    /// Revokes the token, if there is one: the platform keeps 64 tokens per user, for 12 to 24 hours each, and drops
    /// the oldest for a new one. Takes at most 3 s, and errors are only logged, because a token expires anyway. Call it
    /// when the platform is not needed again soon; later calls authenticate again.
    pub async fn log_out(&self) {
        let enterprises = self.core.enterprises.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let given_back = async {
            for client in enterprises.values().chain([self]) {
                if let Some(token) = client.core.tokens.take().await {
                    client.core.log_out(&token).await.map_err(|error| error.to_string())?;
                }
            }
            Ok(())
        };
        let outcome =
            tokio::time::timeout(LOG_OUT_TIMEOUT, given_back).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        if let Err(error) = outcome {
            tracing::debug!(error, "could not return the token; it expires");
        }
    }

    /// The subscription; `None` if there is none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn subscription(&self) -> Result<Option<Subscription>, PlatformError> {
        let (name, value) = self.owner().await?;
        let call = Call::get("reading the subscription", LINK_CONFIG, vec![(name, value)]);
        Ok(existing(self.core.call(&call).await)?.as_ref().and_then(parse::subscription))
    }

    /// Sets the subscription.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn set_subscription(&self, new: &NewSubscription) -> Result<(), PlatformError> {
        let (name, value) = self.owner().await?;
        let body = json!({
            name: value,
            "subscriberId": new.subscriber_id,
            "subscriberKey": new.subscriber_key.expose_secret(),
            "url": new.url,
        });
        let call = Call {
            secret: Some(new.subscriber_key.clone()),
            ..Call::post("setting the subscription", LINK_CONFIG, &body)
        };
        self.core.call(&call).await.map(drop)
    }

    /// Enables or disables the subscription. Disabling can be repeated, and is retried like any other call. Enabling is
    /// never retried: it makes the platform call our URL, and an undocumented number of failures locks the subscription
    /// for an hour. If there is no response, read the status.
    ///
    /// # Errors
    /// [`PlatformError`]; [`Class::Locked`] after too many attempts.
    pub async fn change_status(&self, id: &str, status: Status) -> Result<(), PlatformError> {
        let (doing, status) = match status {
            Status::Enabled => ("enabling the subscription", 0),
            Status::Disabled => ("disabling the subscription", DISABLED),
            Status::Locked => ("locking the subscription", 2),
            Status::Other(status) => ("changing the subscription's status", status),
        };
        let call = Call {
            query: vec![("id", id.to_owned()), ("status", status.to_string())],
            repeatable: status == DISABLED,
            ..Call::new(doing, Method::PUT, CHANGE_STATUS)
        };
        self.core.call(&call).await.map(drop)
    }

    /// Deletes the subscription. A missing subscription is not an error.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn delete_subscription(&self, id: &str) -> Result<(), PlatformError> {
        let call = Call::new("deleting the subscription", Method::DELETE, LINK_CONFIG);
        let call = Call { query: vec![("id", id.to_owned())], ..call };
        existing(self.core.call(&call).await).map(drop)
    }

    /// The enterprise's past runs in `since..=until`, ordered by start. The manual does not say which time of a run must be
    /// in the window, nor whether the limits are included. If there is no meeting in the window, the list is empty.
    #[must_use]
    pub fn history(&self, since: Millis, until: Millis) -> Pages<Conference> {
        Pages::by_query(&self.core, "reading the history", HISTORY, window(since, until))
    }

    /// The enterprise's running meetings (4.2.12), ordered by start. Only an administrator sees all of them.
    #[must_use]
    pub fn running(&self) -> Pages<Conference> {
        let query = vec![("queryAll", "true".to_owned())];
        Pages::by_query(&self.core, "reading the running meetings", RUNNING, query)
    }

    /// Who is in a running meeting now (4.2.29), by its number.
    #[must_use]
    pub fn present(&self, conference_id: &str) -> Pages<Present> {
        let query = vec![("conf_id", conference_id.to_owned())];
        Pages::by_query(&self.core, "reading who is in a meeting", PRESENT, query)
    }

    /// The stays of a run that is over, with their ids (7.1.2.3): for 45 days, on the flagship edition, and where the function was
    /// opened; empty where it was not.
    #[must_use]
    pub fn participants(&self, conf_uuid: &str) -> Pages<Participant> {
        let query = vec![("confUUID", conf_uuid.to_owned()), ("confType", "history".to_owned())];
        Pages::by_query(&self.core, "reading a meeting's participants from the dashboard", PARTICIPANTS, query)
    }

    /// What the platform counts on these days, each `YYYY-MM-DD`, at most 31 days apart (7.2.2.1). On the flagship edition alone.
    #[must_use]
    pub fn day_counts(&self, since: &str, until: &str) -> Pages<DayCounts> {
        let query = [("timeUnit", "D"), ("startTime", since), ("endTime", until), ("category", "conference_info")];
        let query = query.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        Pages::by_query(&self.core, "reading the platform's statistics", STATISTICS, query)
    }

    /// What the platform has counted today (4.2.25). When its day begins is not documented.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn today(&self) -> Result<Today, PlatformError> {
        let call = Call::get("reading the platform's counts of today", TODAY, Vec::new());
        Ok(parse::today(&self.core.call(&call).await?))
    }

    /// How many past runs there are in `since..=until` (4.2.18), without reading them.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn history_count(&self, since: Millis, until: Millis) -> Result<Option<u64>, PlatformError> {
        let mut query = window(since, until);
        query.extend([("offset", "0".to_owned()), ("limit", "1".to_owned())]);
        let answer = existing(self.core.call(&Call::get("counting the history", HISTORY, query)).await)?;
        let count = answer.map_or(Some(0), |answer| parse::integer(&answer, &["count"]));
        Ok(count.and_then(|count| u64::try_from(count).ok()))
    }

    /// The stays of a past run.
    #[must_use]
    pub fn attendees(&self, conf_uuid: &str) -> Pages<AttendeeRecord> {
        let query = vec![("confUUID", conf_uuid.to_owned())];
        Pages::by_query(&self.core, "reading a meeting's participants", HISTORY_ATTENDEES, query)
    }

    /// The recordings in `since..=until`.
    #[must_use]
    pub fn recordings(&self, since: Millis, until: Millis) -> Pages<RecordFile> {
        Pages::by_query(&self.core, "reading the recordings", RECORDINGS, window(since, until))
    }

    /// The recording of one run; `None` if there is none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn recording(&self, conf_uuid: &str) -> Result<Option<RecordFile>, PlatformError> {
        let call = Call::get("reading a recording", RECORDING, vec![("confUUID", conf_uuid.to_owned())]);
        let file = existing(self.core.call(&call).await)?.map(|answer| parse::record_file(&answer));
        // An empty object also means that there is none.
        Ok(file.filter(|file| *file != RecordFile::default()))
    }

    /// The recording in the newer recording system (5.2.43), as segments; empty if there is none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn segments(&self, conf_uuid: &str) -> Result<Vec<Segment>, PlatformError> {
        let conf_uuid = conf_uuid.to_owned();
        let doing = "reading a recording's segments";
        let list = List {
            doing,
            limit: MAX_PAGE_SEGMENTS,
            // Finished recordings do not change any more.
            overlap: 0,
            call: Box::new(move |offset, limit| {
                let body = json!({ "confUUID": conf_uuid, "segmentOffset": offset, "segmentLimit": limit });
                Call::post(doing, SEGMENTS, &body)
            }),
            read: |answer| {
                // The manual has one level more than the platform's older SDKs.
                let page = answer.get("data").filter(|data| data.is_object()).unwrap_or(answer);
                (parse::integer(page, &["segmentCount"]), Some(parse::array(page, "segmentList")))
            },
        };
        Pages::new(&self.core, list).rest().await
    }

    /// A meeting that is not over, by its number; `None` if there is none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn conference(&self, conference_id: &str) -> Result<Option<Conference>, PlatformError> {
        self.detail("reading a meeting", DETAIL, "conferenceID", conference_id).await
    }

    /// A past run; `None` if there is none.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn past_conference(&self, conf_uuid: &str) -> Result<Option<Conference>, PlatformError> {
        self.detail("reading a past meeting", HISTORY_DETAIL, "confUUID", conf_uuid).await
    }

    /// The enterprise of a meeting, for service providers; `None` if the platform does not know the meeting.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn enterprise_of(&self, conference_id: &str) -> Result<Option<String>, PlatformError> {
        let query = vec![("conferenceID", conference_id.to_owned())];
        let call = Call::get("reading a meeting's enterprise", ENTERPRISE, query);
        Ok(existing(self.core.call(&call).await)?.and_then(|answer| parse::text(&answer, &["orgID"])))
    }

    /// Up to [`MAX_DIRECTORY_USERS`] users of the enterprise by their UUIDs, in any order; unknown ones may be missing.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn users(&self, user_uuids: &[&str]) -> Result<Vec<DirectoryUser>, PlatformError> {
        let ids: Vec<Value> = user_uuids.iter().map(|id| json!({ "id": id })).collect();
        let call = Call::post("reading the directory", USERS, &Value::Array(ids));
        let call = Call { query: vec![("idType", "USER_ID".to_owned())], ..call };
        let answer = existing(self.core.call(&call).await)?;
        let users = answer.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Ok(users.iter().filter(|item| item.is_object()).map(parse::directory_user).collect())
    }

    async fn detail(
        &self,
        doing: &'static str,
        path: &'static str,
        name: &'static str,
        value: &str,
    ) -> Result<Option<Conference>, PlatformError> {
        let limit = MAX_PAGE_INVITEES.to_string();
        let query = vec![(name, value.to_owned()), ("offset", "0".to_owned()), ("limit", limit)];
        let Some(answer) = existing(self.core.call(&Call::get(doing, path, query)).await)? else { return Ok(None) };
        let Some(data) = answer.get("conferenceData").filter(|data| data.is_object()) else { return Ok(None) };
        let mut conference = parse::conference(data);
        // The paging applies to the invitees, and an invited crowd does not fit on the page.
        let (count, invitees) = invitees_of(&answer);
        let invitees = invitees.unwrap_or_default();
        if count.is_none_or(|count| i64::try_from(invitees.len()).is_ok_and(|length| count <= length)) {
            conference.invitees = invitees.iter().filter(|item| item.is_object()).map(parse::invitee).collect();
        } else {
            let query = vec![(name, value.to_owned())];
            let mut pages = Pages::within(&self.core, doing, path, query, (MAX_PAGE_INVITEES, invitees_of));
            loop {
                match pages.next().await {
                    Ok(Some(more)) => conference.invitees.extend(more),
                    Ok(None) => break,
                    // What else is known of the meeting is worth more than the rest of the list.
                    Err(error) if error.class == Class::Incomplete => {
                        tracing::warn!(%error, "not all invitees of a meeting are known");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some(conference))
    }

    /// The owner of the subscription: the enterprise, or the service provider if no enterprise is configured.
    async fn owner(&self) -> Result<(&'static str, String), PlatformError> {
        let options = &self.core.options;
        match (&options.corp_id, &options.sp_id) {
            (Some(corp_id), _) => Ok(("corpId", corp_id.clone())),
            (None, Some(sp_id)) => Ok(("spId", sp_id.clone())),
            (None, None) => match self.identity().await?.corp_id {
                Some(corp_id) => Ok(("corpId", corp_id)),
                None => Err(PlatformError::new(
                    Class::Configuration,
                    "looking up the enterprise",
                    "the platform's answer to the authentication names no enterprise",
                    "Set platform.corp_id to the enterprise's ID, which the platform's console shows.",
                )),
            },
        }
    }
}

/// The page of those invited, in the answer of a meeting's detail.
fn invitees_of(answer: &Value) -> (Option<i64>, Option<&[Value]>) {
    answer.get("data").map_or((None, None), pages::page_of)
}

/// Converts [`Class::Gone`] to `None`.
fn existing(answer: Result<Value, PlatformError>) -> Result<Option<Value>, PlatformError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.class == Class::Gone => Ok(None),
        Err(error) => Err(error),
    }
}

/// A query for the whole enterprise, oldest first.
fn window(since: Millis, until: Millis) -> Vec<(&'static str, String)> {
    vec![
        ("startDate", since.get().to_string()),
        ("endDate", until.get().to_string()),
        ("queryAll", "true".to_owned()),
        ("sortType", "ASC_StartTIME".to_owned()),
    ]
}
