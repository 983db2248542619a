//! What the parts share, and where each of them registers what it runs, reloads and stops.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::reload::Reloader;
use super::tasks::{Phase, Tasks};
use crate::config::Settings;
use crate::cursor::{self, Cursor};
use crate::http::health::Health;
use crate::intake::Intake;
use crate::metrics::Registry;
use convoke_bus::Bus;
use convoke_core::time::Clock;
use convoke_log::Store;
use convoke_log::recent::RecentRows;
use convoke_platform::Client;

/// What most parts need.
#[derive(Clone)]
pub(super) struct Shared {
    pub log: Arc<dyn Store>,
    /// `None`: the relay is off.
    pub bus: Option<Arc<Bus>>,
    /// One client for all tasks that call the platform: it signs in once and keeps to one rate limit.
    pub client: Option<Client>,
    pub intake: Intake,
    pub health: Arc<Health>,
    pub clock: Clock,
    pub recent: Arc<RecentRows>,
    /// Cancelled once the database is migrated and can be used.
    pub migrated: CancellationToken,
    /// This process's name among the replicas.
    pub owner: String,
}

/// The service while it is being assembled.
pub(super) struct Parts<'a> {
    pub settings: &'a Settings,
    pub registry: &'a Registry,
    pub shared: Shared,
    pub tasks: Tasks,
    pub reloader: Reloader,
    /// The cursors that run in this process.
    pub cursors: Vec<&'static str>,
}

impl Parts<'_> {
    /// Registers a helper that is created anew from the shared parts at each start, and runs until its token is cancelled.
    pub fn helper<T>(
        &mut self,
        name: &'static str,
        phase: Phase,
        mut start: impl FnMut(Shared, CancellationToken) -> T + Send + 'static,
    ) where
        T: Future<Output = ()> + Send + 'static,
    {
        let shared = self.shared.clone();
        self.tasks.keep(name, phase, move |stop| {
            let task = start(shared.clone(), stop);
            async {
                task.await;
                Ok(())
            }
        });
    }

    /// Registers a helper that advances a cursor, once the database can be used.
    pub fn cursor<C: Cursor + Sync + 'static>(
        &mut self,
        (name, cursor): (&'static str, &'static str),
        phase: Phase,
        mut make: impl FnMut(&Shared, &CancellationToken) -> C + Send + 'static,
    ) {
        self.cursors.push(cursor);
        self.helper(name, phase, move |shared, stop| {
            let cursor = make(&shared, &stop);
            async move {
                tokio::select! {
                    () = shared.migrated.cancelled() => cursor::run(cursor, shared.log, shared.recent, stop).await,
                    () = stop.cancelled() => {}
                }
            }
        });
    }
}
