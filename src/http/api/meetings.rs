//! Runs of meetings.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::QUERY_TIMEOUT;
use super::error::{ApiError, Missing, Refusals};
use super::mask::open;
use super::paging::List;
use super::params::{At, ListParams, NoParams, PageParams, Params, ScopeParams};
use crate::http::auth::Right;
use convoke_log::{
    ListedMeeting, ListedRecording, ListedStay, LiveState, MeetingFilter, Order, Page, PresentNow, RecordingFilter,
    RunKey, Status, StayFilter,
};

/// So many stays come with a run; a page at a time.
const MAX_STAYS: usize = 5_000;
const STAYS_PER_PAGE: u32 = 1_000;

/// So many recordings of one run.
const MAX_RECORDINGS: u32 = 1_000;

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MeetingParams {
    /// In this state.
    #[param(inline)]
    pub status: Option<Status>,
}

/// A run of a meeting, and what belongs to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Story {
    /// The run.
    meeting: ListedMeeting,
    /// Its stays, in the order in which they began; the first 5,000.
    stays: Vec<ListedStay>,
    /// How many stays it has beside those.
    stays_left_out: i64,
    /// Its recordings, in the order in which they were finished; the first 1,000.
    recordings: Vec<ListedRecording>,
    /// A link that opens the meeting in the platform's client, where one is installed; null without a number, and if masked.
    open_in_client: Option<String>,
}

/// Runs of meetings, the newest first: by when they started, or, before they do, when their first event happened.
#[utoipa::path(
    get,
    path = "/api/v1/meetings",
    operation_id = "list_meetings",
    tag = "tables",
    params(ScopeParams, PageParams, MeetingParams),
    responses((status = 200, description = "A page of runs.", body = List<ListedMeeting>), Refusals)
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: ListParams<ScopeParams, MeetingParams>,
) -> Result<Json<List<ListedMeeting>>, ApiError> {
    let api = &*api;
    let page = params.page("meetings", Order::Newest)?;
    let filter = MeetingFilter { scope: params.common.scope(api, right)?, status: params.own.status };
    let found = api.ask(api.log.list_meetings(&filter, &page)).await?;
    Ok(params.list("meetings", found, |row| api.mask.meeting(row, right)))
}

/// One run of a meeting, with its stays and recordings.
#[utoipa::path(
    get,
    path = "/api/v1/meetings/{subscriber_id}/{meeting_uuid}",
    operation_id = "get_meeting",
    tag = "tables",
    params(
        ("subscriber_id" = String, Path, description = "The push configuration (appID) that told of it."),
        ("meeting_uuid" = String, Path, description = "The run, as the platform names it."),
    ),
    responses((status = 200, description = "The run.", body = Story), Missing, Refusals)
)]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    At((subscriber_id, meeting_uuid)): At<(String, String)>,
    _: Params<NoParams>,
) -> Result<Json<Story>, ApiError> {
    let api = &*api;
    let run = RunKey { subscriber_id: subscriber_id.into(), meeting_uuid: meeting_uuid.into() };
    let found = api.ask(api.log.get_meeting(&run)).await;
    let meeting = match found {
        // No row has such a key.
        Err(ApiError::Bad(_)) => None,
        found => found?,
    };
    let meeting = meeting.ok_or(ApiError::NotFound)?;
    let filter = StayFilter { run: Some(run.clone()), ..StayFilter::default() };
    let stays = api
        .ask(async {
            let (mut stays, mut after) = (Vec::new(), None);
            while stays.len() < MAX_STAYS {
                let page = Page { order: Order::Oldest, after, limit: STAYS_PER_PAGE, within: QUERY_TIMEOUT };
                let found = api.log.list_stays(&filter, &page).await?;
                stays.extend(found.rows);
                after = found.next;
                if after.is_none() {
                    break;
                }
            }
            Ok(stays)
        })
        .await?;
    let filter = RecordingFilter { run: Some(run), ..RecordingFilter::default() };
    let page = Page { order: Order::Oldest, after: None, limit: MAX_RECORDINGS, within: QUERY_TIMEOUT };
    let recordings = api.ask(api.log.list_recordings(&filter, &page)).await?;
    let listed = i64::try_from(stays.len()).unwrap_or(i64::MAX);
    let stays_left_out = if stays.len() < MAX_STAYS { 0 } else { (meeting.stays - listed).max(0) };
    Ok(Json(Story {
        open_in_client: open(meeting.meeting_id.as_deref(), right).map(open_in_client),
        meeting: api.mask.meeting(meeting, right),
        stays: stays.into_iter().map(|row| api.mask.stay(row, right)).collect(),
        stays_left_out,
        recordings: recordings.rows.into_iter().map(|row| api.mask.recording(row, right)).collect(),
    }))
}

/// What a running meeting tells of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MeetingNow {
    /// How it stands with what the meeting tells; null: it is not asked.
    state: Option<LiveState>,
    /// Why it is not attended, or what went wrong last.
    reason: Option<String>,
    /// Who is in it, is being called or waits, and how; at most 500.
    present: Vec<PresentNow>,
}

/// Who is in a running meeting, and how, as the meeting itself tells it (`live.enabled`): within a second.
#[utoipa::path(
    get,
    path = "/api/v1/meetings/{subscriber_id}/{meeting_uuid}/now",
    operation_id = "get_meeting_now",
    tag = "now",
    params(
        ("subscriber_id" = String, Path, description = "The push configuration (appID) that told of it."),
        ("meeting_uuid" = String, Path, description = "The run, as the platform names it."),
    ),
    responses((status = 200, description = "How it is.", body = MeetingNow), Refusals)
)]
pub(super) async fn present(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    At((subscriber_id, meeting_uuid)): At<(String, String)>,
    _: Params<NoParams>,
) -> Result<Json<MeetingNow>, ApiError> {
    let run = RunKey { subscriber_id: subscriber_id.into(), meeting_uuid: meeting_uuid.into() };
    let (standing, present) = match api.ask(api.log.live_now(&run, QUERY_TIMEOUT)).await {
        // No row has such a key.
        Err(ApiError::Bad(_)) => (None, Vec::new()),
        found => found?,
    };
    Ok(Json(MeetingNow {
        state: standing.as_ref().map(|standing| standing.state),
        reason: standing.and_then(|standing| standing.reason),
        present: present.into_iter().map(|row| api.mask.present(row, right)).collect(),
    }))
}

/// The client's deep link. Microphone and camera are said to be off: on some platforms they are on unless told otherwise.
fn open_in_client(meeting_id: &str) -> String {
    let number = utf8_percent_encode(meeting_id, NON_ALPHANUMERIC);
    format!(
        "cloudlink://welinksoftclient/h5page?page=joinConfByLink&conf_id={number}&name=Convoke&open_mic=false&open_camera=false"
    )
}
