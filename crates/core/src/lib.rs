//! Convoke's types and pure functions: what an event is, when it happened, who signed it. No I/O and no tasks.
//!
//! | module | owns |
//! |---|---|
//! | [`event`] | subscribers, deliveries, events, rows |
//! | [`id`] | event ids and positions in the log |
//! | [`time`] | timestamps, the system clock and the monotonic clock |
//! | [`raw_json`] | JSON as text: white space, strings and their escapes |
//! | [`human`] | quantities formatted for people |
//! | [`verify`] | bytes and keys → the signed content, or the reason for a refusal |
//! | [`secret`] | hashing of keys and tokens |
//! | [`sign`] | the reverse of `verify`: a signed body, for the probe and the simulator |
//! | [`redact`] | removal of personal values |
//! | [`throttle`] | limits on repeated log lines |
//! | [`words!`] | enums whose variants are one word each |
//! | `sql` | database encodings of times and ids (with the feature `sqlx`) |

pub mod event;
pub mod human;
pub mod id;
pub mod raw_json;
pub mod redact;
pub mod secret;
pub mod sign;
#[cfg(feature = "sqlx")]
mod sql;
pub mod throttle;
pub mod time;
pub mod verify;
mod words;
pub mod zone;
