//! The words of Convoke, and its pure functions: what an event is, when it is, who signed it. No input, no output, no tasks.
//!
//! | module | owns |
//! |---|---|
//! | [`event`] | subscribers, deliveries, events, rows |
//! | [`id`] | how events are identified |
//! | [`time`] | moments, and the clock: of the day, and steady |
//! | [`raw_json`] | the text of JSON: its white space, its strings and their escapes |
//! | [`human`] | quantities, as people read them |
//! | [`verify`] | bytes and keys → what was signed, or a reason |
//! | [`secret`] | what is done with keys and tokens |
//! | [`sign`] | the other way: a signed body, for the probe and the simulator |
//! | [`redact`] | values masked |
//! | [`throttle`] | lines of a log that come too often |
//! | [`words!`] | enums of which each variant is one word |
//! | `sql` | times and ids in the databases (with the feature `sqlx`) |

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
