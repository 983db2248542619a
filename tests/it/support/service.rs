//! A Convoke that serves the platform's sample subscriber, its database, and bodies signed for it.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use convoke_core::sign;

use crate::support::{
    http::{self, Answer},
    postgres::{Postgres, psql},
    process::{Convoke, ConvokeBuilder},
    tools::output_of,
};

/// The subscriber ID and the password of the manual's samples.
pub const APP_ID: &str = "1988692299";
pub const KEY: &str = "123456";
pub const PATH: &str = "/openapi/meetingevent";

/// Longer than anything takes that should take no time, on a busy machine.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(15);

/// Milliseconds since the epoch.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a time within 64 bits")
}

/// `event_info` in a signed envelope, with a nonce of its own.
pub fn signed(event_info: &str) -> Vec<u8> {
    signed_by(APP_ID, KEY, event_info)
}

pub fn signed_by(app_id: &str, key: &str, event_info: &str) -> Vec<u8> {
    static NONCES: AtomicU64 = AtomicU64::new(10_000_000);
    let nonce = NONCES.fetch_add(1, Ordering::Relaxed).to_string();
    sign::envelope(app_id, now(), &nonce, event_info.as_bytes(), key.as_bytes())
}

/// An event of this type in meeting `meeting`, now.
pub fn event(kind: &str, meeting: &str) -> String {
    event_at(now(), kind, meeting)
}

pub fn event_at(at: i64, kind: &str, meeting: &str) -> String {
    let info = format!(r#"{{"meetingID":"{meeting}","meetingUUID":"{meeting:0>32}"}}"#);
    format!(r#"{{"event":"{kind}","timestamp":{at},"payload":{{"meetingInfo":{info}}}}}"#)
}

/// Where the log is kept.
pub enum Database {
    Sqlite,
    Postgres(Box<Postgres>),
}

impl Database {
    pub async fn postgres() -> Self {
        Self::Postgres(Box::new(Postgres::start().await))
    }
}

/// A running service, its relay off unless a test gives it a bus.
pub struct Service {
    pub convoke: Convoke,
    pub database: Database,
}

/// The usual settings: the sample's subscriber, no bus, a quick end.
pub fn settings() -> ConvokeBuilder {
    Convoke::builder()
        .setting("APP_ID", APP_ID)
        .setting("APP_KEY", KEY)
        .setting("NATS_URL", "none")
        .setting("SHUTDOWN_DELAY", "0s")
}

impl Service {
    /// With the usual settings, on SQLite.
    pub async fn start() -> Self {
        Self::with(settings(), Database::Sqlite).await
    }

    pub async fn on(database: Database) -> Self {
        let builder = match &database {
            Database::Sqlite => settings(),
            Database::Postgres(postgres) => settings().setting("DATABASE_URL", postgres.url()),
        };
        Self::with(builder, database).await
    }

    /// Waits until it is ready.
    /// `builder` says where the database is, unless it is the usual file.
    pub async fn with(builder: ConvokeBuilder, database: Database) -> Self {
        let convoke = builder.start().await;
        convoke.wait_ready(WAIT_TIMEOUT).await;
        Self { convoke, database }
    }

    pub async fn post(&self, body: impl Into<bytes::Bytes>) -> Answer {
        http::post(self.convoke.events, PATH, body, &[]).await
    }

    /// Posts `event_info`, signed, and expects it to be acknowledged.
    pub async fn acknowledged(&self, event_info: &str) {
        let answer = self.post(signed(event_info)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{event_info}");
    }

    /// What a query prints: a line a row, `|` between columns.
    pub fn sql(&self, query: &str) -> String {
        match &self.database {
            Database::Sqlite => sqlite(&self.database_file(), query),
            Database::Postgres(postgres) => psql(&postgres.url(), query),
        }
    }

    pub fn count(&self, table: &str) -> u64 {
        self.sql(&format!("SELECT count(*) FROM {table}")).parse().expect("a number")
    }

    pub fn database_file(&self) -> PathBuf {
        self.convoke.folder().join("convoke.db")
    }

    pub async fn metric(&self, series: &str) -> f64 {
        http::metric(self.convoke.admin, series).await
    }
}

/// What the `sqlite3` program prints.
pub fn sqlite(file: &std::path::Path, query: &str) -> String {
    let mut command = Command::new("sqlite3");
    command.args(["-readonly", "-batch", "-cmd", ".timeout 5000"]).arg(file).arg(query);
    output_of(&mut command).trim_end().to_owned()
}
