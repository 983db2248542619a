//! The composition root: creates the parts from the settings; each part registers what it runs, reloads and stops.
//!
//! Every task of the service is spawned in `tasks`, named, supervised and stopped in order. Every part that can change its
//! settings while it runs is registered with the [`Reloader`].

mod gauges;
mod helpers;
mod listeners;
mod options;
mod reload;
mod shared;
mod shutdown;
mod tasks;
#[cfg(test)]
mod tests;
mod upkeep;

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::http::health::{Health, Helpers, LastSeen};
use crate::http::refusals::Refusals;
use crate::http::server::{Certificates, Shutdown};
use crate::http::summary::DeliverySummary;
use crate::intake::Intake;
use crate::metrics::Registry;
use crate::{subscription, telemetry};
use convoke_bus::{Bus, Login};
use convoke_core::time::Clock;
use convoke_log::recent::RecentRows;
use convoke_log::{self as log, Store};
use convoke_platform::Client;
use listeners::Listeners;
pub use options::{bus_options, certificates, log_options, owner, platform_options};
pub use reload::Reloader;
use shared::{Parts, Shared};
use tasks::{Phase, Tasks};

const WRITER: &str = "writer";

/// A running service.
pub struct App {
    /// The address of the events listener.
    pub events: SocketAddr,
    /// The address of the admin listener.
    pub admin: SocketAddr,
    /// The service's knowledge of its own state.
    pub health: Arc<Health>,
    log: Arc<dyn Store>,
    client: Option<Client>,
    reloader: Arc<Reloader>,
    tasks: Tasks,
    shutdown: Shutdown,
    delay: Duration,
    timeout: Duration,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "App({}, {})", self.events, self.admin)
    }
}

impl App {
    /// Binds the listeners and starts everything; the database and the bus may still be unreachable.
    ///
    /// # Errors
    /// What prevents a start: an address in use, or a certificate that cannot be used.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let tls = settings.listen.tls.as_ref();
        let certificates = tls.map(|files| options::certificates(settings, files)).transpose()?;
        certificates.iter().for_each(warn_of_validity);
        let listeners = Listeners::bind(&settings.listen)?;
        let (events, admin) = (listeners.events.local_addr()?, listeners.admin.local_addr()?);

        let (clock, recent, registry) = (Clock::System, Arc::new(RecentRows::default()), registry(settings));
        let reloader = Reloader::new(settings, &registry);
        let log = log::open(&log_options(settings))?;
        let bus = match bus_options(settings) {
            Some(options) => Some(Arc::new(Bus::connect(options).await?)),
            None => None,
        };
        let client = platform_options(settings).map(|options| Client::new(options, clock.clone())).transpose()?;
        let (intake, writer) = Intake::new(log.clone(), clock.clone(), Arc::clone(&recent));
        intake.register(&registry);
        let (status, shown_status) = watch::channel(None);
        subscription::watch::register(&shown_status, &registry);
        let watched = settings.platform.as_ref().is_some_and(|platform| platform.watch_every.is_some());
        let shutdown = Shutdown::default();
        let refusals = Arc::new(Refusals::new(&registry));
        let health = Arc::new(Health {
            intake: intake.clone(),
            closing: shutdown.closing.clone(),
            database: log.describe(),
            bus: bus.clone(),
            certificates,
            subscription: watched.then_some(shown_status),
            compares: settings.platform.as_ref().is_some_and(|platform| platform.completeness_every.is_some()),
            deliveries: DeliverySummary::new(Arc::clone(&refusals), clock.clone()),
            refusals,
            last_seen: Arc::new(LastSeen::new(log.clone(), &registry)),
            helpers: Arc::new(Helpers::new(&helpers::NAMES, &registry)),
            subscribers: RwLock::new(Arc::new([])),
            known: RwLock::default(),
        });
        health.register(&registry);
        health.set_subscribers(&settings.subscribers);

        let migrated = CancellationToken::new();
        let tasks = Tasks::new(Arc::clone(&health.helpers));
        let shared = Shared { log, bus, client, intake, health, clock, recent, migrated, owner: owner() };
        let mut parts = Parts { settings, registry: &registry, shared, tasks, reloader, cursors: Vec::new() };
        credentials(&mut parts);
        listeners.serve(&mut parts, &shutdown);
        let writing = writer.run(parts.shared.migrated.clone(), parts.tasks.stop(Phase::Writer));
        parts.tasks.spawn(WRITER, Phase::Writer, writing);
        upkeep::register(&mut parts);
        helpers::of_the_log(&mut parts);
        helpers::of_the_platform(&mut parts, status);
        gauges::register(&mut parts);
        let Parts { shared, mut tasks, reloader, .. } = parts;
        let reloader = reloader.watching(&mut tasks);

        for (listener, address) in [("events", events), ("admin", admin)] {
            tracing::info!(listener, %address, "listening");
        }
        let (delay, timeout) = (settings.listen.shutdown_delay, settings.listen.shutdown_timeout);
        let Shared { log, client, health, .. } = shared;
        Ok(Self { events, admin, health, log, client, reloader, tasks, shutdown, delay, timeout })
    }

    /// The reloader of the settings.
    #[must_use]
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }
}

/// A registry with the metrics of the process.
fn registry(settings: &Settings) -> Registry {
    let registry = Registry::default();
    let _ = registry.register(Ok(telemetry::dropped()));
    if settings.telemetry.otlp_endpoint.is_some() {
        let _ = registry.register(Ok(telemetry::traces::dropped()));
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.show("convoke_build_info", "The version that runs; always 1.", &version, || 1.0);
    registry
}

/// Registers the reload of the credentials for the bus and the platform, and of the service's own certificate.
fn credentials(parts: &mut Parts<'_>) {
    let Shared { bus, client, health, .. } = parts.shared.clone();
    if let Some(certificates) = health.certificates.clone() {
        parts.reloader.part(move |new| {
            let files = new.listen.tls.as_ref();
            let taken = files.map(|files| certificates.prepare(&files.cert, &files.key)).transpose()?;
            let certificates = certificates.clone();
            Ok(move || {
                if let Some(take) = taken {
                    take();
                    warn_of_validity(&certificates);
                }
            })
        });
    }
    if let Some(bus) = bus {
        parts.reloader.part(move |new| {
            let (login, bus) = (new.nats.login.clone(), Arc::clone(&bus));
            login.iter().try_for_each(Login::check)?;
            Ok(move || bus.set_login(login))
        });
    }
    if let Some(client) = client {
        parts.reloader.part(move |new| {
            let (client, platform) = (client.clone(), new.platform.clone());
            Ok(move || {
                if let Some(platform) = platform {
                    client.set_key(&platform.api.app_id, platform.api.app_key);
                }
            })
        });
    }
}

/// Clients reject a certificate that is not valid; all that can be done here is to log it.
fn warn_of_validity(certificates: &Certificates) {
    if let Some(trouble) = certificates.trouble(Clock::System.now()) {
        tracing::warn!("the certificate in listen.tls_cert {trouble}: replace it");
    }
}
