//! What can go wrong, with the platform's code and our advice.

use std::time::Duration;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The token is not accepted, and a new one was not either.
    Token,
    /// Credentials, rights or the contract with the platform: somebody has to change something.
    Configuration,
    /// Too many failures: wait.
    Locked,
    /// What was asked for does not exist.
    Gone,
    /// It may work later.
    Transient,
    /// The request is wrong: a defect of ours, or of our picture of the platform.
    Bug,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {problem}")]
pub struct VendorError {
    /// What was tried, for people: `asking for the history`.
    pub doing: &'static str,
    /// What came back.
    pub problem: String,
    /// What to do about it.
    pub class: Class,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The platform's code, as in `MMC.111071120`.
    pub code: Option<String>,
    /// The platform's `X-Request-Id`, for its support.
    pub request_id: Option<String>,
    /// A sentence for the user.
    pub advice: &'static str,
    /// How long to wait before it makes sense again, if that is known.
    pub wait: Option<Duration>,
}
