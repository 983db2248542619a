//! `convoke backfill`: gaps against the platform's history, played by the fake platform, filled once and for all.

mod bad_input;
mod completeness;
mod end_to_end;
mod filling;
mod identities;
mod replaced_app_id;
mod resuming;
pub mod scene;
mod scheduled;
mod tokens;
