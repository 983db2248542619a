//! The rows of a list as a file for spreadsheets: CSV as it is read, or a workbook.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Seek as _};
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use utoipa::IntoResponses;
use utoipa::openapi::RefOr;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

use super::Api;
use super::QUERY_TIMEOUT;
use super::attendance::StayParams;
use super::error::{ApiError, Refusals};
use super::events::EventParams;
use super::mask::Mask;
use super::meetings::MeetingParams;
use super::params::{DownloadParams, FileFormat, FormatParams, NoParams, ScopeParams};
use crate::export::{Csv, Sheet as _, Tabular, Xlsx};
use crate::http::auth::Right;
use convoke_core::zone::TimeZone;
use convoke_log::{EventFilter, Listing, LogError, MeetingFilter, Order, Page, Queries, RecordingFilter, StayFilter};

/// Rows read at a time.
const PAGE_ROWS: u32 = 1_000;

/// Bytes of a file that are sent at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of cells of a workbook. They go into a temporary file, which may be in memory: one at a time.
const MAX_WORKBOOK_BYTES: u64 = 128 << 20;

const CSV: &str = "text/csv; charset=utf-8";
const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// Reads a page of a list.
type Read<F, R, K> = for<'a> fn(&'a dyn Queries, &'a F, &'a Page<K>) -> Reading<'a, R, K>;
type Reading<'a, R, K> = BoxFuture<'a, Result<Listing<R, K>, LogError>>;

/// What a list is a file of: its rows as they are read, a page at a time, for whoever asks.
struct Rows<F, R, K> {
    api: Arc<Api>,
    right: Right,
    filter: F,
    order: Order,
    read: Read<F, R, K>,
    mask: fn(&Mask, R, Right) -> R,
}

impl<F, R, K> Rows<F, R, K> {
    async fn page(&self, after: Option<K>) -> Result<(Vec<R>, Option<K>), ApiError> {
        let page = Page { order: self.order, after, limit: PAGE_ROWS, within: QUERY_TIMEOUT };
        let found = self.api.ask((self.read)(&*self.api.log, &self.filter, &page)).await?;
        Ok((found.rows.into_iter().map(|row| (self.mask)(&self.api.mask, row, self.right)).collect(), found.next))
    }
}

impl<F, R, K> Rows<F, R, K>
where
    F: Send + Sync + 'static,
    R: Tabular + Send + Sync + 'static,
    K: Send + Sync + 'static,
{
    /// The file. What is wrong with the question is said before it begins.
    async fn file(self, format: FileFormat) -> Result<Response, ApiError> {
        let place = Arc::clone(&self.api.downloads).try_acquire_owned().map_err(|_| ApiError::Downloading)?;
        let (first, next) = self.page(None).await?;
        let (kind, ending, body) = match format {
            FileFormat::Csv => (CSV, "csv", self.csv(first, next, place)),
            FileFormat::Xlsx => (XLSX, "xlsx", self.workbook(first, next, place).await?),
        };
        let mut response = Response::new(body);
        let name = format!("attachment; filename=\"convoke-{}.{ending}\"", R::TABLE.as_str());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_str(&name).expect("plain text"));
        Ok(response)
    }

    /// A page at a time, as fast as it is taken. What goes wrong within cuts it off: it has no end then.
    fn csv(self, first: Vec<R>, next: Option<K>, place: OwnedSemaphorePermit) -> Body {
        enum At<R, K> {
            First(Vec<R>, Option<K>),
            Next(K),
            End,
        }
        let step = async |(at, list, place): (At<R, K>, Self, OwnedSemaphorePermit)| {
            let (rows, next, first) = match at {
                At::First(rows, next) => (rows, next, true),
                At::Next(key) => {
                    let (rows, next) = list.page(Some(key)).await.map_err(|_| cut_off(R::TABLE.as_str()))?;
                    (rows, next, false)
                }
                At::End => return Ok::<_, io::Error>(None),
            };
            let bytes = Bytes::from(csv_page(&rows, &list.api.zone, first)?);
            Ok(Some((bytes, (next.map_or(At::End, At::Next), list, place))))
        };
        Body::from_stream(stream::try_unfold((At::First(first, next), self, place), step))
    }

    /// Written whole into a temporary file, and then sent. It is compressed at its end, which takes its time.
    async fn workbook(
        self,
        mut rows: Vec<R>,
        mut next: Option<K>,
        place: OwnedSemaphorePermit,
    ) -> Result<Body, ApiError> {
        let api = Arc::clone(&self.api);
        let _alone = timeout(QUERY_TIMEOUT, api.workbook.lock()).await.map_err(|_| ApiError::Downloading)?;
        let zone = self.api.zone.clone();
        let mut book = writing(move || Ok(Box::new(Xlsx::new(R::TABLE, zone, tempfile::tempfile()?)?))).await?;
        loop {
            book = writing(move || {
                rows.iter().try_for_each(|row| book.row(row.values().as_ref()))?;
                Ok(book)
            })
            .await?;
            if book.bytes() > MAX_WORKBOOK_BYTES {
                return Err(ApiError::bad(
                    "a workbook holds 128 MiB of cells at the most: narrow the range, or take csv",
                ));
            }
            let Some(key) = next else { break };
            (rows, next) = self.page(Some(key)).await?;
        }
        let file = writing(move || {
            let mut file: File = book.finish()?;
            file.rewind()?;
            Ok(file)
        })
        .await?;
        let step = async |(mut file, place): (tokio::fs::File, OwnedSemaphorePermit)| {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            file.read_buf(&mut chunk).await?;
            Ok::<_, io::Error>((!chunk.is_empty()).then(|| (Bytes::from(chunk), (file, place))))
        };
        Ok(Body::from_stream(stream::try_unfold((tokio::fs::File::from_std(file), place), step)))
    }
}

fn cut_off(list: &str) -> io::Error {
    tracing::warn!(list, "a file of a list was cut off: the database does not answer, or not in time");
    io::Error::other("cut off")
}

fn csv_page<R: Tabular>(rows: &[R], zone: &TimeZone, first: bool) -> io::Result<Vec<u8>> {
    let (bytes, zone) = (Vec::new(), zone.clone());
    let csv = if first { Csv::new(R::TABLE, true, zone, bytes)? } else { Csv::without_header(true, zone, bytes) };
    let mut csv = Box::new(csv);
    rows.iter().try_for_each(|row| csv.row(row.values().as_ref()))?;
    csv.finish()
}

/// Work on a workbook, where it keeps nobody else waiting.
async fn writing<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => ApiError::bad(error.to_string()),
        _ => {
            tracing::warn!(%error, "a workbook could not be written");
            ApiError::NoTemporaryFile
        }
    })
}

/// What a question for a file is answered.
enum Downloaded {}

impl IntoResponses for Downloaded {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let file = |format| {
            let file = ObjectBuilder::new().schema_type(Type::String).format(format).build();
            ContentBuilder::new().schema(Some(file)).build()
        };
        let binary = Some(SchemaFormat::KnownFormat(KnownFormat::Binary));
        let response =
            ResponseBuilder::new().description("The file.").content("text/csv", file(None)).content(XLSX, file(binary));
        BTreeMap::from([("200".to_owned(), response.build().into())])
    }
}

/// Events as a file for spreadsheets, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/export/events",
    operation_id = "export_events",
    tag = "log",
    params(ScopeParams, FormatParams, EventParams),
    responses(Downloaded, Refusals)
)]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: DownloadParams<ScopeParams, EventParams>,
) -> Result<Response, ApiError> {
    let scope = params.common.scope(&api, right)?;
    let EventParams { event, source, order } = params.own;
    let filter = EventFilter { scope, event: event.map(|text| text.0), source };
    let order = order.unwrap_or_default();
    Rows { api, right, filter, order, read: |log, filter, page| log.list_events(filter, page), mask: Mask::event }
        .file(params.format)
        .await
}

/// Runs of meetings as a file for spreadsheets, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/export/meetings",
    operation_id = "export_meetings",
    tag = "tables",
    params(ScopeParams, FormatParams, MeetingParams),
    responses(Downloaded, Refusals)
)]
pub(super) async fn meetings(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: DownloadParams<ScopeParams, MeetingParams>,
) -> Result<Response, ApiError> {
    let filter = MeetingFilter { scope: params.common.scope(&api, right)?, status: params.own.status };
    let order = Order::Newest;
    Rows { api, right, filter, order, read: |log, filter, page| log.list_meetings(filter, page), mask: Mask::meeting }
        .file(params.format)
        .await
}

/// Stays as a file for spreadsheets, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/export/attendance",
    operation_id = "export_attendance",
    tag = "tables",
    params(ScopeParams, FormatParams, StayParams),
    responses(Downloaded, Refusals)
)]
pub(super) async fn attendance(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: DownloadParams<ScopeParams, StayParams>,
) -> Result<Response, ApiError> {
    let (scope, closed_by) = (params.common.scope(&api, right)?, params.own.closed_by);
    let (filter, order) = (StayFilter { scope, closed_by, run: None }, Order::Newest);
    Rows { api, right, filter, order, read: |log, filter, page| log.list_stays(filter, page), mask: Mask::stay }
        .file(params.format)
        .await
}

/// Finished recordings as a file for spreadsheets, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/export/recordings",
    operation_id = "export_recordings",
    tag = "tables",
    params(ScopeParams, FormatParams),
    responses(Downloaded, Refusals)
)]
pub(super) async fn recordings(
    State(api): State<Arc<Api>>,
    Extension(right): Extension<Right>,
    params: DownloadParams<ScopeParams, NoParams>,
) -> Result<Response, ApiError> {
    let filter = RecordingFilter { scope: params.common.scope(&api, right)?, run: None };
    let order = Order::Newest;
    Rows {
        api,
        right,
        filter,
        order,
        read: |log, filter, page| log.list_recordings(filter, page),
        mask: Mask::recording,
    }
    .file(params.format)
    .await
}
