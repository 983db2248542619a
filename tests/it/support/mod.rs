//! What the tests stand on: real servers, private to one test, that can be killed, cut off and started again.
//!
//! Each owner removes what it made when it is dropped: its own children by their ids, its folder, its mount.
//! Servers print their logs when the test that owns them panics. Nothing here sleeps and hopes: [`wait::eventually`]
//! is the only way to wait. The benchmarks stand on it too.

pub mod attack;
pub mod browser;
pub mod child;
pub mod disk;
pub mod docs;
pub mod http;
pub mod http2;
pub mod nats;
pub mod nginx;
pub mod pgbouncer;
pub mod port;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod rig;
pub mod service;
pub mod sign;
pub mod tls;
pub mod tools;
pub mod wait;
