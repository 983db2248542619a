//! Every integration test, in one binary: the real Convoke on real servers that are private to the test.
#![expect(clippy::disallowed_methods, reason = "tests spawn tasks, read the clock and find their tools by environment")]

mod answers;
mod api;
mod audit;
mod backfill;
mod backfill_story;
mod clock;
mod cluster_under_load;
mod commands;
mod corpus;
mod disk;
mod durable;
mod enrich;
mod faults_under_load;
mod interop;
mod log_contract;
mod operation;
mod packages;
mod packages_watch;
mod payloads;
mod platform;
mod pooler;
mod recordings;
mod relay;
mod replicas;
mod restore;
mod service;
mod soak;
mod subscription;
mod support;
mod support_selftest;
mod tables;
mod vendor;
mod vendor_against_platform;
mod watch;
mod wild;
