//! Convoke receives Huawei Cloud Meeting's event push, verifies it, keeps it in SQL and republishes it
//! onto NATS JetStream.
pub mod app;
pub mod audit;
pub mod bus;
pub mod cli;
pub mod config;
pub mod cursor;
pub mod event;
pub mod http;
pub mod intake;
pub mod log;
pub mod metrics;
pub mod relay;
pub mod simulate;
pub mod telemetry;
pub mod verify;
