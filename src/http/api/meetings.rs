//! Runs of meetings.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::DEADLINE;
use super::ask::{Asked, At, Common, Nothing};
use super::mask::open;
use super::page::{List, Of};
use super::refused::{Missing, Refusals, Refused};
use super::streams::Streams;
use crate::http::access::Right;
use convoke_log::{
    ListedMeeting, ListedRecording, ListedStay, MeetingFilter, Order, Page, RecordingFilter, RunKey, Status, StayFilter,
};

/// So many stays of one run are told with it; a page at a time.
const STAYS: usize = 5_000;
const STAYS_PAGE: u32 = 1_000;

/// So many recordings of one run.
const RECORDINGS: u32 = 1_000;

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// In this state.
    #[param(inline)]
    status: Option<Status>,
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
    params(Common, Which),
    responses((status = 200, description = "A page of runs.", body = List<ListedMeeting>), Refusals)
)]
pub(super) async fn list(
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    asked: Asked<Common, Which>,
) -> Result<Json<List<ListedMeeting>>, Refused> {
    let (api, list) = (&streams.api, Of { list: "meetings", fingerprint: &asked.fingerprint });
    let page = list.page(&asked.of.limit, &asked.of.cursor, Order::Newest)?;
    let filter = MeetingFilter { scope: asked.of.scope(api.now(), right)?, status: asked.and.status };
    let found = api.ask(api.log.list_meetings(&filter, &page)).await?;
    Ok(Json(list.list(found, |row| api.mask.meeting(row, right))))
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
    State(streams): State<Arc<Streams>>,
    Extension(right): Extension<Right>,
    At((subscriber_id, meeting_uuid)): At<(String, String)>,
    _: Asked<Nothing>,
) -> Result<Json<Story>, Refused> {
    let api = &streams.api;
    let run = RunKey { subscriber_id: subscriber_id.into(), meeting_uuid: meeting_uuid.into() };
    let found = api.ask(api.log.get_meeting(&run)).await;
    let meeting = match found {
        // No row has such a key.
        Err(Refused::Bad(_)) => None,
        found => found?,
    };
    let meeting = meeting.ok_or(Refused::NotFound)?;
    let filter = StayFilter { run: Some(run.clone()), ..StayFilter::default() };
    let stays = api
        .ask(async {
            let (mut stays, mut after) = (Vec::new(), None);
            while stays.len() < STAYS {
                let page = Page { order: Order::Oldest, after, limit: STAYS_PAGE, within: DEADLINE };
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
    let page = Page { order: Order::Oldest, after: None, limit: RECORDINGS, within: DEADLINE };
    let recordings = api.ask(api.log.list_recordings(&filter, &page)).await?;
    let told = i64::try_from(stays.len()).unwrap_or(i64::MAX);
    let stays_left_out = if stays.len() < STAYS { 0 } else { (meeting.stays - told).max(0) };
    Ok(Json(Story {
        open_in_client: open(meeting.meeting_id.as_deref(), right).map(open_in_client),
        meeting: api.mask.meeting(meeting, right),
        stays: stays.into_iter().map(|row| api.mask.stay(row, right)).collect(),
        stays_left_out,
        recordings: recordings.rows.into_iter().map(|row| api.mask.recording(row, right)).collect(),
    }))
}

/// The client's deep link. Microphone and camera are said to be off: on some platforms they are on unless told otherwise.
fn open_in_client(meeting_id: &str) -> String {
    let number = utf8_percent_encode(meeting_id, NON_ALPHANUMERIC);
    format!(
        "cloudlink://welinksoftclient/h5page?page=joinConfByLink&conf_id={number}&name=Convoke&open_mic=false&open_camera=false"
    )
}
