//! Convoke receives Huawei Cloud Meeting's event push, verifies it, keeps it in SQL and republishes it
//! onto NATS JetStream.
//!
//! **The `events` table is a log; everything else is a cursor over it.** Ingest only appends. This crate is the service; what it
//! stands on are crates of their own, which know nothing of it: [`convoke_core`] the words and pure functions,
//! [`convoke_log`] the record in SQL, [`convoke_bus`] NATS JetStream, [`convoke_platform`] the client of the platform's REST API,
//! and `convoke_simulator`, which plays the platform. The modules here, in the order in which data flows:
//!
//! | module | owns |
//! |---|---|
//! | [`http`] | the listeners: routes, limits, answers; who may see what; the API and its streams; the page |
//! | [`intake`] | the queue and its one writer: batches, group commit |
//! | [`cursor`] | readers of the log: the loop that ticks them, leases |
//! | [`relay`] | the cursor `bus`: rows become CloudEvents in the stream, in order |
//! | [`projection`] | the cursor `meetings`: rows become the tables that analysts ask |
//! | [`backfill`] | the platform's history and the tables compared; what is missing, through the same door |
//! | [`recordings`] | the cursor `recordings`: asks until a recording is decoded, appends `record.ready` |
//! | [`enrichment`] | what events do not carry, asked once for each run |
//! | [`subscription`] | the subscription at the platform: set, probed, enabled, watched |
//! | [`export`] | the log and its tables as files for other programs |
//! | [`printable`] | text of strangers, as a terminal may be given it |
//! | [`forget`] | a person erased: from the log, the tables, the quarantine and the stream; what keeps them from coming back |
//! | [`quarantine`], [`replay`] | what is done to the quarantine and the stream, by command or by the admin listener |
//! | [`actions`] | that, as operators ask for it: noted, once for each id, in the background |
//! | [`audit`] | log, stream and ledger compared; the stream watch |
//! | [`metrics`] | what each part registers its metrics on; it knows none of them |
//! | [`telemetry`] | log lines |
//! | [`words`] | sentences for people |
//! | [`config`] | the settings, checked before anything binds; the only reader of the environment |
//! | [`app`] | the composition root: settings → parts → named tasks, supervised; the end in order |
//! | [`cli`], [`output`] | the commands, one file each; what they print, which never panics |
//!
//! Nobody imports `http`, `app` or `cli` but `app` and `cli`. Every task of the service is spawned in `app`.
//!
//! The words are those of `docs/glossary.md`, the house is shown in `docs/architecture.md`.
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
    () => { $crate::output::print_error(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

/// The version, and the commit that it was built from with its date; without them in a build for development.
pub const VERSION: &str = env!("BUILD_VERSION");

pub mod actions;
pub mod app;
pub mod audit;
pub mod backfill;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod enrichment;
pub mod export;
pub mod forget;
pub mod http;
pub mod intake;
pub mod metrics;
pub mod output;
pub mod printable;
pub mod projection;
pub mod quarantine;
pub mod recordings;
pub mod relay;
pub mod replay;
pub mod subscription;
pub mod telemetry;
pub mod words;
