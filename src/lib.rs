//! Convoke receives Huawei Cloud Meeting's event push, verifies it, keeps it in SQL and republishes it
//! onto NATS JetStream.
//!
//! **The `events` table is a log; everything else is a cursor over it.** Ingest only appends. This crate is the service. It
//! is built on crates that do not depend on it: [`convoke_core`] (terms and pure functions), [`convoke_log`] (storage in
//! SQL), [`convoke_bus`] (NATS JetStream), [`convoke_platform`] (the client of the platform's REST API), and
//! `convoke_simulator`, which simulates the platform. The modules, in the order of the data flow:
//!
//! | module | owns |
//! |---|---|
//! | [`http`] | the listeners: routes, limits, responses; access control; the API and its streams; the page |
//! | [`intake`] | the queue and its single writer: batches, group commit |
//! | [`cursor`] | readers of the log: the loop that ticks them, leases |
//! | [`relay`] | the cursor `bus`: publishes rows to the stream as CloudEvents, in order |
//! | [`projection`] | the cursor `meetings`: turns rows into the tables that analysts query |
//! | [`backfill`] | compares the platform's history with the tables, and puts missing events into the log |
//! | [`recordings`] | the cursor `recordings`: asks until a recording is decoded, appends `record.ready` |
//! | [`enrichment`] | asks once per run for what events do not contain |
//! | [`subscription`] | the subscription at the platform: set, probed, enabled, watched |
//! | [`export`] | the log and its tables as files for other programs |
//! | [`printable`] | makes untrusted text safe for a terminal |
//! | [`forget`] | erases a person from the log, the tables, the quarantine and the stream, and keeps them out from then on |
//! | [`quarantine`], [`replay`] | operations on the quarantine and the stream, for the commands and the admin listener |
//! | [`actions`] | the same as operators' actions: recorded, run once per ID, in the background |
//! | [`audit`] | compares log, stream and ledger; the stream watch |
//! | [`metrics`] | the registry on which each part registers its own metrics |
//! | [`telemetry`] | log lines and spans |
//! | [`words`] | text for messages |
//! | [`config`] | the settings, checked before anything binds; the only reader of the environment |
//! | [`app`] | the composition root: settings → parts → named, supervised tasks; ordered shutdown |
//! | [`cli`], [`output`] | the commands, one file each; their output, which never panics |
//!
//! Only `app` and `cli` import `http`, `app` or `cli`. Every task of the service is spawned in `app`.
//!
//! The terms are defined in `docs/glossary.md`, the structure is described in `docs/architecture.md`.
//!
//! Errors come in three tiers: enums with their sources in the modules, one place that chooses status and body
//! ([`http::ingest`]), `anyhow` only in `app` and `cli`. They are logged once, at the edge.

// Replace the macros of the standard library, which panic when the reader is gone: see `output`.
macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! eprintln {
    () => { $crate::output::print_error(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

/// The version, with the commit that it was built from and its date; a development build has only the version.
pub const VERSION: &str = env!("BUILD_VERSION");

pub mod actions;
pub mod app;
pub mod audit;
pub mod backfill;
pub mod cli;
pub mod completeness;
pub mod config;
pub mod cursor;
pub mod enrichment;
pub mod export;
pub mod forget;
pub mod http;
pub mod intake;
pub mod live;
pub mod metrics;
pub mod output;
pub mod printable;
pub mod projection;
pub mod quarantine;
pub mod recordings;
pub mod relay;
pub mod replay;
pub mod running;
pub mod subscription;
pub mod telemetry;
pub mod words;
