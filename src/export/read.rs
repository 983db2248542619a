//! Reads what is to be exported, oldest first.
//!
//! A page is bounded in rows, and the next one in what the last one weighed. It is looked for in a stretch of time, and a
//! stretch is bounded in how long that takes: so that even what a filter rarely finds is read in short queries, between
//! which nothing is held open. The end is the newest row that was there at the beginning.

use std::io;
use std::time::Duration;

use uuid::Uuid;

use super::{Style, Table, Tabular, Target, Value, sheet};
use convoke_core::id::EventId;
use convoke_core::time::{Millis, instant};
use convoke_log::{
    EventFilter, ListedEvent, ListedMeeting, ListedRecording, ListedStay, Listing, LogError, MeetingFilter, MeetingKey,
    Order, Page, Reading, RecordingFilter, Scope, StayFilter,
};

/// Rows of a page: as many as weigh [`PAGE_BYTES`], within these bounds.
const PAGE_ROWS: (u64, u64) = (50, 2_000);

/// Bytes that a page is to weigh, about.
const PAGE_BYTES: u64 = 4 << 20;

/// A stretch of time is made twice as long while it is read so fast …
const FAST_QUERY: Duration = Duration::from_millis(200);

/// … and half as long if it is read so slowly …
const SLOW_QUERY: Duration = Duration::from_secs(1);

/// … or not within this time.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The first stretch, and the shortest.
const FIRST_STRETCH: Duration = Duration::from_secs(3_600);
const MIN_STRETCH: Duration = Duration::from_secs(1);

/// What is to be exported.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// From where.
    pub table: Table,
    /// Which rows.
    pub scope: Scope,
    /// Events of this type.
    pub event: Option<String>,
}

/// How far an export has come.
#[derive(Clone, Copy, Debug)]
pub struct ExportProgress {
    /// Rows written.
    pub rows: u64,
    /// Bytes written, about.
    pub bytes: u64,
    /// The time of the oldest row, …
    pub first: Millis,
    /// … of the newest …
    pub last: Millis,
    /// … and of the row that was written last.
    pub at: Millis,
}

/// Why an export came to an end before its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Where it is written to.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes what is asked for to `target`, which is given back when all of it is there, with how many rows that are.
///
/// # Errors
/// [`ExportError`].
pub async fn export(
    log: &dyn Reading,
    request: &ExportRequest,
    style: &Style,
    target: Target,
    report: impl FnMut(&ExportProgress),
) -> Result<(Target, u64), ExportError> {
    match request.table {
        Table::Events => export_table(&Events, log, request, style, target, report).await,
        Table::Meetings => export_table(&Meetings, log, request, style, target, report).await,
        Table::Attendance => export_table(&Attendance, log, request, style, target, report).await,
        Table::Recordings => export_table(&Recordings, log, request, style, target, report).await,
    }
}

/// A table, as it is read.
trait Source {
    type Row: Tabular;
    type Key;

    async fn page(
        &self,
        log: &dyn Reading,
        scope: &Scope,
        event: Option<&String>,
        page: &Page<Self::Key>,
    ) -> Result<Listing<Self::Row, Self::Key>, LogError>;

    /// The row's place in time.
    fn at(row: &Self::Row) -> Millis;
}

async fn export_table<S: Source>(
    source: &S,
    log: &dyn Reading,
    request: &ExportRequest,
    style: &Style,
    target: Target,
    mut report: impl FnMut(&ExportProgress),
) -> Result<(Target, u64), ExportError> {
    let mut sheet = sheet(request.table, style, target)?;
    let bounds = Scope { since: request.scope.since, until: request.scope.until, ..Scope::default() };
    let (Some(first), Some(last)) =
        (end(source, log, &bounds, Order::Oldest).await?, end(source, log, &bounds, Order::Newest).await?)
    else {
        return Ok((sheet.finish()?, 0));
    };
    // Stays of which the beginning is not known stand at the beginning of time.
    let known = match first {
        Millis::EPOCH => {
            let since = Some(Millis::EPOCH.plus(Duration::from_millis(1)).max(bounds.since.unwrap_or(first)));
            end(source, log, &Scope { since, ..bounds }, Order::Oldest).await?.unwrap_or(first)
        }
        first => first,
    };
    let mut progress = ExportProgress { rows: 0, bytes: 0, first: known, last, at: known };
    let mut scope = request.scope.clone();
    let (mut from, mut stretch, mut limit, mut after) = (first, FIRST_STRETCH, PAGE_ROWS.0, None);
    loop {
        let to = from.plus(stretch);
        let at_end = to > last || to == Millis::MAX;
        scope.until = if at_end { request.scope.until } else { Some(to) };
        let page =
            Page { order: Order::Oldest, after, limit: u32::try_from(limit).unwrap_or(1), within: QUERY_TIMEOUT };
        let begun = instant();
        let listing = match source.page(log, &scope, request.event.as_ref(), &page).await {
            Err(LogError::TooSlow(_)) if stretch > MIN_STRETCH => {
                (stretch, after) = ((stretch / 4).max(MIN_STRETCH), page.after);
                continue;
            }
            listing => listing?,
        };
        let took = begun.elapsed();
        // What came since is newer, or it is in its place among the others.
        let rows = listing.rows.iter().take_while(|row| S::at(row) <= last);
        let (mut written, mut weight) = (0, 0);
        for row in rows {
            let values = row.values();
            weight += values.as_ref().iter().map(Value::weight).sum::<u64>();
            sheet.row(values.as_ref())?;
            written += 1;
            from = S::at(row);
        }
        progress.rows += written;
        progress.bytes = sheet.bytes();
        if let Some(fit) = PAGE_BYTES.saturating_mul(written).checked_div(weight) {
            limit = fit.min(limit * 4).clamp(PAGE_ROWS.0, PAGE_ROWS.1);
        }
        let whole = usize::try_from(written).is_ok_and(|written| written == listing.rows.len());
        after = listing.next;
        if !whole || (after.is_none() && at_end) {
            progress.at = last;
            report(&progress);
            return Ok((sheet.finish()?, progress.rows));
        }
        if after.is_none() {
            (from, scope.since) = (to, Some(to));
        }
        progress.at = from.max(known);
        report(&progress);
        stretch = next_stretch(stretch, took);
    }
}

fn next_stretch(stretch: Duration, took: Duration) -> Duration {
    if took < FAST_QUERY {
        stretch.saturating_mul(2)
    } else if took > SLOW_QUERY {
        (stretch / 2).max(MIN_STRETCH)
    } else {
        stretch
    }
}

/// The time of the oldest or newest row.
async fn end<S: Source>(
    source: &S,
    log: &dyn Reading,
    scope: &Scope,
    order: Order,
) -> Result<Option<Millis>, LogError> {
    let page = Page { order, after: None, limit: 1, within: QUERY_TIMEOUT };
    Ok(source.page(log, scope, None, &page).await?.rows.first().map(S::at))
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

impl Value<'_> {
    /// Bytes, about.
    fn weight(&self) -> u64 {
        count(match self {
            Self::Text(text) => text.len(),
            Self::Json(text) => text.len(),
            _ => 8,
        })
    }
}

struct Events;

impl Source for Events {
    type Row = ListedEvent;
    type Key = EventId;

    async fn page(
        &self,
        log: &dyn Reading,
        scope: &Scope,
        event: Option<&String>,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedEvent, EventId>, LogError> {
        log.list_events(&EventFilter { scope: scope.clone(), event: event.cloned(), source: None }, page).await
    }

    fn at(row: &ListedEvent) -> Millis {
        row.occurred_at
    }
}

struct Meetings;

impl Source for Meetings {
    type Row = ListedMeeting;
    type Key = MeetingKey;

    async fn page(
        &self,
        log: &dyn Reading,
        scope: &Scope,
        _: Option<&String>,
        page: &Page<MeetingKey>,
    ) -> Result<Listing<ListedMeeting, MeetingKey>, LogError> {
        log.list_meetings(&MeetingFilter { scope: scope.clone(), status: None }, page).await
    }

    fn at(row: &ListedMeeting) -> Millis {
        row.started_at.unwrap_or(row.first_event_at)
    }
}

struct Attendance;

impl Source for Attendance {
    type Row = ListedStay;
    type Key = Uuid;

    async fn page(
        &self,
        log: &dyn Reading,
        scope: &Scope,
        _: Option<&String>,
        page: &Page<Uuid>,
    ) -> Result<Listing<ListedStay, Uuid>, LogError> {
        log.list_stays(&StayFilter { scope: scope.clone(), ..StayFilter::default() }, page).await
    }

    /// What leads the id: the beginning of time, if it is not known when the stay began.
    fn at(row: &ListedStay) -> Millis {
        EventId::from_uuid(row.stay_id).occurred_at()
    }
}

struct Recordings;

impl Source for Recordings {
    type Row = ListedRecording;
    type Key = EventId;

    async fn page(
        &self,
        log: &dyn Reading,
        scope: &Scope,
        _: Option<&String>,
        page: &Page<EventId>,
    ) -> Result<Listing<ListedRecording, EventId>, LogError> {
        log.list_recordings(&RecordingFilter { scope: scope.clone(), run: None }, page).await
    }

    fn at(row: &ListedRecording) -> Millis {
        row.finished_at
    }
}
