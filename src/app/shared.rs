//! What the parts have in common, and where each of them registers what it runs, reloads and stops.

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
    /// One for all who ask the platform: it signs in once, and keeps to one pace.
    pub client: Option<Client>,
    pub intake: Intake,
    pub health: Arc<Health>,
    pub clock: Clock,
    pub recent: Arc<RecentRows>,
    /// The database can be used.
    pub migrated: CancellationToken,
    /// Names this process among the replicas.
    pub owner: String,
}

/// The service while it is put together.
pub(super) struct Parts<'a> {
    pub settings: &'a Settings,
    pub registry: &'a Registry,
    pub shared: Shared,
    pub tasks: Tasks,
    pub reloader: Reloader,
    /// The cursors that are moved here.
    pub cursors: Vec<&'static str>,
}

impl Parts<'_> {
    /// A helper that makes itself anew of what is shared, at each start, and runs until its token is cancelled.
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

    /// A helper that moves a cursor, once there is a database to move it in.
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
