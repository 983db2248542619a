//! Counts who is in which meeting, and for how long, from Convoke's stream. Ends with SIGTERM, and goes on where it stopped.
//!
//! ```sh
//! NATS_URL=nats://127.0.0.1:4222 cargo run --release
//! sqlite3 -box attendance.db 'SELECT * FROM presence'
//! ```
//!
//! Also from the environment: `NATS_STREAM` (`MEETINGS`), `SUBJECT_PREFIX` (`meetings`), `NATS_DURABLE` (`attendance`),
//! `ACK_WAIT` (30 s: what is not acknowledged by then comes again), `DATABASE` (`attendance.db`). Processes of one durable name share the work, and have to share the database.
//!
//! Every event is delivered at least once, in any order. Here is what makes that exactly once for the table: an event's id is
//! kept in the same transaction as what the event did, and the message is acknowledged after that. The counts only add up, so
//! the order does not matter.
#![expect(clippy::disallowed_methods, reason = "this is a program of its own: it reads its own environment")]

use std::{env, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::{self, AckKind, consumer::pull};
use futures_util::StreamExt as _;
use serde::Deserialize;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::signal::unix::{SignalKind, signal};

const BATCH: usize = 100;
/// The end of the year 9999, in milliseconds.
const LATEST: i64 = 253_402_300_799_999;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS done (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS presence (
        source TEXT NOT NULL, meeting TEXT NOT NULL, person TEXT NOT NULL, name TEXT,
        devices INTEGER NOT NULL, milliseconds INTEGER NOT NULL,
        PRIMARY KEY (source, meeting, person)
    ) WITHOUT ROWID";

// The types are those of asyncapi.yaml, as far as they are read here. `None` is null, masked, or not sent. `serde_json` refuses
// what is of another type, and half a surrogate pair.

#[derive(Deserialize)]
struct CloudEvent<Data> {
    id: String,
    source: String,
    r#type: String,
    subject: Option<String>,
    meetingid: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttendanceData {
    attendee_info: Option<AttendeeInfo>,
    /// The same, as one edition of the platform's manual prints it.
    attendeel_info: Option<AttendeeInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttendeeInfo {
    #[serde(rename = "userUUID")]
    user_uuid: Option<String>,
    account: Option<String>,
    #[serde(rename = "participantID")]
    participant_id: Option<String>,
    display_name: Option<String>,
    #[serde(default)]
    join_time: i64,
    #[serde(default)]
    left_time: i64,
    call_number: Option<String>,
}

/// What an event does to the table.
struct Change {
    event_id: String,
    source: String,
    meeting: String,
    person: String,
    name: Option<String>,
    devices: i64,
    milliseconds: i64,
}

impl Change {
    /// # Errors
    ///
    /// If this is no event that this consumer can use, however often it is delivered.
    fn of(body: &[u8]) -> anyhow::Result<Self> {
        let event: CloudEvent<AttendanceData> = serde_json::from_slice(body)?;
        let attendee = event.data.attendee_info.or(event.data.attendeel_info).context("attendeeInfo is missing")?;
        let (joined, left) = (attendee.join_time, attendee.left_time);
        anyhow::ensure!([joined, left].iter().all(|time| (0..=LATEST).contains(time)), "a time is out of range");
        let (devices, milliseconds) = match &*event.r#type {
            "com.huaweicloud.meeting.join" => (1, 0),
            "com.huaweicloud.meeting.left" => (-1, if joined > 0 { (left - joined).max(0) } else { 0 }),
            other => anyhow::bail!("it is of type {other:?}"),
        };
        let said = |text: &String| !text.is_empty();
        let mut ids = [attendee.user_uuid, attendee.account, attendee.call_number, attendee.participant_id].into_iter();
        Ok(Self {
            person: ids.by_ref().flatten().find(said).context("it does not say who")?,
            meeting: event.subject.or(event.meetingid).filter(said).context("it does not say where")?,
            event_id: event.id,
            source: event.source,
            name: attendee.display_name,
            devices,
            milliseconds,
        })
    }

    async fn apply(&self, database: &SqlitePool) -> Result<(), sqlx::Error> {
        // What is not committed is rolled back when it goes out of scope.
        let mut transaction = database.begin_with("BEGIN IMMEDIATE").await?;
        let new = sqlx::query("INSERT OR IGNORE INTO done VALUES (?)")
            .bind(&self.event_id)
            .execute(&mut *transaction)
            .await?;
        if new.rows_affected() == 0 {
            return Ok(()); // a copy
        }
        sqlx::query(
            "INSERT INTO presence VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name),
                 devices = devices + excluded.devices, milliseconds = milliseconds + excluded.milliseconds",
        )
        .bind(&self.source)
        .bind(&self.meeting)
        .bind(&self.person)
        .bind(&self.name)
        .bind(self.devices)
        .bind(self.milliseconds)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}

/// What becomes of the message.
async fn handle(message: &jetstream::Message, database: &SqlitePool) -> anyhow::Result<AckKind> {
    let info = message.info().map_err(anyhow::Error::from_boxed)?;
    let change = match Change::of(&message.payload) {
        Ok(change) => change,
        Err(reason) => {
            eprintln!("message {} is terminated: {reason:#}", info.stream_sequence);
            return Ok(AckKind::Term);
        }
    };
    match change.apply(database).await {
        Ok(()) => Ok(AckKind::Ack),
        Err(error) => {
            let seconds = 1 << info.delivered.clamp(1, 6);
            eprintln!("message {} is tried again in {seconds} s: {error}", info.stream_sequence);
            Ok(AckKind::Nak(Some(Duration::from_secs(seconds))))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let (stream, durable) = (setting("NATS_STREAM", "MEETINGS"), setting("NATS_DURABLE", "attendance"));
    let prefix = setting("SUBJECT_PREFIX", "meetings");

    let file = SqliteConnectOptions::new().filename(setting("DATABASE", "attendance.db")).create_if_missing(true);
    let database = SqlitePoolOptions::new().max_connections(1).connect_with(file).await?;
    sqlx::raw_sql(SCHEMA).execute(&database).await?;

    let client = async_nats::connect(setting("NATS_URL", "nats://127.0.0.1:4222")).await?;
    let config = pull::Config {
        durable_name: Some(durable.clone()),
        filter_subjects: vec![format!("{prefix}.*.meeting.join.>"), format!("{prefix}.*.meeting.left.>")],
        ack_policy: jetstream::consumer::AckPolicy::Explicit,
        ack_wait: Duration::from_secs(setting("ACK_WAIT", "30").parse().context("ACK_WAIT")?),
        max_ack_pending: 2 * BATCH as i64,
        ..pull::Config::default()
    };
    let jetstream = jetstream::new(client.clone());
    // Makes it, or finds it as it is.
    let consumer = jetstream.get_stream(&stream).await?.create_consumer(config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(BATCH).messages().await?;

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    eprintln!("reading {stream} as {durable}");
    loop {
        // What was pulled and is not handled comes again after `ack_wait`.
        let message = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            message = messages.next() => message.context("the consumer was deleted")??,
        };
        let outcome = handle(&message, &database).await?;
        message.ack_with(outcome).await.map_err(anyhow::Error::from_boxed)?;
    }
    client.flush().await?; // acknowledgements are sent behind our back
    database.close().await;
    Ok(())
}
