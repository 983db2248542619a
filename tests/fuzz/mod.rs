//! What must hold for any bytes. `make fuzz` looks for bytes for which it does not; the tests replay those that it kept.

pub mod cloudevent;
pub mod settings;
pub mod verify;
