//! Convoke receives Huawei Cloud Meeting's event push, verifies it, keeps it in SQL and republishes it
//! onto NATS JetStream.
//!
//! **The `events` table is a log; everything else is a cursor over it.** Ingest only appends. The modules in the order in
//! which data flows:
//!
//! | module | owns |
//! |---|---|
//! | `json` | the text of JSON: its white space, its strings and their escapes; pure |
//! | [`event`] | the words: subscribers, deliveries, events, ids, time; no I/O |
//! | [`http`] | the listeners: routes, limits, answers; who may see what; the API and its streams; the page |
//! | [`verify`] | bytes and keys → what was signed, or a reason; pure |
//! | [`intake`] | the queue and its one writer: batches, group commit |
//! | [`log`] | the record, in SQLite or PostgreSQL, behind one trait |
//! | [`disk`] | how full the embedded database's disk is |
//! | [`tail`] | the newest rows, for a cursor that follows closely |
//! | [`cursor`] | readers of the log: the loop that ticks them, leases |
//! | [`relay`] | the cursor `bus`: rows become CloudEvents in the stream, in order |
//! | [`bus`] | NATS JetStream |
//! | [`meetings`] | the cursor `meetings`: rows become the tables that analysts ask |
//! | [`vendor`] | the client of the platform's REST API |
//! | [`backfill`] | the platform's history and the tables compared; what is missing, through the same door |
//! | [`recordings`] | the cursor `recordings`: asks until a recording is decoded, appends `record.ready` |
//! | [`enrich`] | what events do not carry, asked once for each run |
//! | [`patience`] | how long a task leaves the platform alone after a failure |
//! | [`subscription`] | the subscription at the platform: set, probed, enabled, watched |
//! | [`export`] | the log and its tables as files for other programs |
//! | [`printable`] | text of strangers, as a terminal may be given it |
//! | [`forget`] | a person erased: from the log, the tables, the quarantine and the stream; what keeps them from coming back |
//! | [`audit`] | log, stream and ledger compared; the stream watch |
//! | [`simulate`] | the platform, played |
//! | [`metrics`], [`telemetry`] | every metric, at zero from the start; log lines |
//! | [`words`] | sentences for people |
//! | [`config`] | the settings, checked before anything binds; the only reader of the environment |
//! | [`app`] | the composition root: settings → parts → named tasks, supervised; the end in order |
//! | [`cli`], [`output`] | the commands, one file each; what they print, which never panics |
//!
//! Knowledge flows the same way. `verify`, `log`, `bus` and `vendor` know only `event` (and `log` the word `disk`); `relay`, and what looks after it (`audit`, `forget`), knows both `log` and `bus`, and
//! only what fetches (`recordings`, `enrich`, …) both `log` and `vendor`;
//! nobody imports `http`, `app` or `cli` but `app` and `cli`. Every task of the service is spawned in `app`.
//!
//! Failures come in three tiers: enums with their sources in the modules, one place that chooses status and body
//! ([`http::ingest`]), `anyhow` only in `app` and `cli`. They are logged once, at the edge.

// In place of those of the standard library, which panic when nobody reads any more: see `output`.
macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! eprintln {
    () => { $crate::output::tell(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::tell(format_args!("{}\n", format_args!($($text)*))) };
}

pub mod app;
pub mod audit;
pub mod backfill;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod enrich;
pub mod export;
pub mod forget;
pub mod http;
pub mod intake;
pub mod meetings;
pub mod metrics;
pub mod output;
pub mod printable;
pub mod recordings;
pub mod relay;
pub mod subscription;
pub mod telemetry;
pub mod words;
