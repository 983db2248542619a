//! What the platform remembers, and all of its connections share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::archive::Archive;
use super::gateway::Gateway;
use super::live::Live;
use super::options::PlatformOptions;
use super::subscriptions::Subscriptions;
use super::tokens::Tokens;
use convoke_core::time::Millis;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub options: PlatformOptions,
    pub state: Mutex<Memory>,
    /// By how much its clock is ahead, in milliseconds.
    pub ahead: AtomicI64,
    /// Where the WebSockets of running meetings are opened.
    pub socket_url: String,
    /// Rises whenever a subscription may have been enabled.
    pub enabled: watch::Sender<()>,
}

/// All that the platform remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub archive: Archive,
    pub gateway: Gateway,
    pub live: Live,
    pub subscriptions: Subscriptions,
    pub tokens: Tokens,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Millis {
        let ms = self.options.clock.now().get().saturating_add(self.ahead.load(Ordering::Relaxed));
        Millis::new(ms).unwrap_or(Millis::MAX)
    }
}
