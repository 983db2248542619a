//! Convoke receives Huawei Cloud Meeting's event push, verifies it, keeps it in SQL and republishes it
//! onto NATS JetStream.
pub mod event;
pub mod simulate;
