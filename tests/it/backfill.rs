//! `convoke backfill`: gaps against the platform's history, played by the fake platform, filled once and for all.

mod bad_input;
mod filling;
mod replaced;
mod resuming;
pub mod scene;
mod scheduled;
mod tokens;
