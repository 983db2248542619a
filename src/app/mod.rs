//! The composition root: settings become parts, parts become named tasks, and the tasks are supervised.
//!
//! Every task of the service is spawned here (`tasks`), and every part that can take new settings while it runs says so
//! here (`reload`).

mod reload;
mod tasks;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use prometheus::Opts;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::watch::{StreamMetrics, StreamWatch};
use crate::backfill;
use crate::backfill::task::BackfillMetrics;
use crate::config::{ConfigError, Settings, TlsFiles};
use crate::cursor;
use crate::enrichment::{self, Enrichment, Enterprise};
use crate::http::access::Access;
use crate::http::api::Api;
use crate::http::api::streams::Streams;
use crate::http::connections::{Connections, room_by_descriptors};
use crate::http::failures::Failures;
use crate::http::helpers::Helpers;
use crate::http::ingest::{Ingest, Limits};
use crate::http::last_seen::LastSeen;
use crate::http::ops::{CURSORS, CursorHealth, Health};
use crate::http::refusals::Refusals;
use crate::http::tls::{Certificates, TlsError};
use crate::http::{self, Shutdown, Terms};
use crate::intake::Intake;
use crate::metrics::{Counters, Registry};
use crate::projection::{self, Projector};
use crate::recordings::{self, Recordings};
use crate::relay::{self, Encoder, Relay, RelayMetrics};
use crate::subscription::{self, Expected, SubscriptionStatus};
use convoke_bus::{Bus, Login};
use convoke_core::id::Seq;
use convoke_core::time::Clock;
use convoke_log::disk::DiskWatch;
use convoke_log::recent::RecentRows;
use convoke_log::{self as log, LogError, Maintenance, Store};
use convoke_platform::{Class, Client};
pub use reload::Reloader;
use tasks::Tasks;

/// How often the gauges that need the database are brought up to date.
const GAUGES_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked at what holds retention back, and said.
const RETENTION_CHECK_INTERVAL: Duration = Duration::from_secs(10);
const RETENTION_LOG_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Connections of the admin listener: operators and their machines, and nobody's flood.
const MAX_ADMIN_CONNECTIONS: usize = 128;

/// The stream watch rests so many times as long as it works: on a large table it takes about two hundredths of a processor.
const WATCH_REST_FACTOR: u32 = 60;

/// The pauses between tries to reach the database at the start.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// A running service.
pub struct App {
    /// Where the events listener is.
    pub events: SocketAddr,
    /// Where the admin listener is.
    pub admin: SocketAddr,
    /// What it knows about itself.
    pub health: Arc<Health>,
    log: Arc<dyn Store>,
    client: Option<Client>,
    reloader: Arc<Reloader>,
    tasks: Tasks,
    shutdown: Shutdown,
    steps: Steps,
    delay: Duration,
    timeout: Duration,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "App({}, {})", self.events, self.admin)
    }
}

/// In which order the parts end, after the listeners.
#[derive(Clone, Default)]
struct Steps {
    /// What asks the platform and appends the answers, for which the writer must still run.
    askers: CancellationToken,
    writer: CancellationToken,
    cursors: CancellationToken,
    rest: CancellationToken,
}

const EVENTS: &str = "events listener";
const ADMIN: &str = "admin listener";
const WRITER: &str = "writer";
const DATABASE: &str = "database_upkeep";
const RELAY: &str = "relay";
const TABLES: &str = "analyst_tables";
const WATCH: &str = "stream_watch";
const BACKFILL: &str = "backfill";
const RECORDINGS: &str = "recordings";
const ENRICHMENT: &str = enrichment::TASK;
const GAUGES: &str = "gauges";
const STREAMS: &str = "streams";
const SUBSCRIPTION: &str = "subscription_watch";
const FILES: &str = "file_watch";

/// The helpers: the tasks that are started again after they have failed.
const HELPERS: [&str; 11] =
    [TABLES, BACKFILL, DATABASE, ENRICHMENT, FILES, GAUGES, RECORDINGS, RELAY, WATCH, STREAMS, SUBSCRIPTION];

impl App {
    /// Binds, and starts everything; the database and the bus may still be away.
    ///
    /// # Errors
    /// What keeps it from starting at all: an address in use, a certificate that cannot be used.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let certificates = match &settings.listen.tls {
            Some(files) => Some(certificates(settings, files)?),
            None => None,
        };
        if let Some(certificates) = &certificates {
            warn_of_validity(certificates);
        }
        let events = bind(settings.listen.events, "listen.events")?;
        let admin = bind(settings.listen.admin, "listen.admin")?;
        let (events_at, admin_at) = (events.local_addr()?, admin.local_addr()?);

        let clock = Clock::System;
        let registry = Registry::default();
        // Logging is the process's, and so is this count.
        let _ = registry.register(Ok(crate::telemetry::dropped()));
        if settings.telemetry.otlp_endpoint.is_some() {
            let _ = registry.register(Ok(crate::telemetry::traces::dropped()));
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.show("convoke_build_info", "The version that runs; always 1.", &version, || 1.0);
        let mut reloader = Reloader::new(settings, &registry);
        let log = log::open(&log_options(settings))?;
        let bus = match bus_options(settings) {
            Some(options) => Some(Arc::new(Bus::connect(options).await?)),
            None => None,
        };
        // One for all who ask: it signs in once, and keeps to one pace.
        let client = platform_options(settings).map(|options| Client::new(options, clock.clone())).transpose()?;
        let recent = Arc::new(RecentRows::default());
        let migrated = CancellationToken::new();
        let shutdown = Shutdown::default();
        let steps = Steps::default();

        let (intake, writer) = Intake::new(log.clone(), clock.clone(), Arc::clone(&recent));
        let sources = http::ClientSources {
            allow_from: settings.listen.allow_from.clone(),
            trusted_proxies: settings.listen.trusted_proxies.clone(),
        };
        intake.register(&registry);
        let refusals = Arc::new(Refusals::new(&registry));
        let last_seen = Arc::new(LastSeen::new(log.clone(), &registry));
        let ingest = Arc::new(Ingest::new(
            &settings.subscribers,
            intake.clone(),
            clock.clone(),
            Limits { sources: sources.clone(), max_body: settings.listen.max_body },
            (Arc::clone(&refusals), Arc::clone(&last_seen)),
            &registry,
        ));
        let watched = settings.platform.as_ref().is_some_and(|platform| platform.watch_every.is_some());
        let (status, shown_status) = watch::channel(None);
        subscription::watch::register(&shown_status, &registry);
        let health = Arc::new(Health {
            intake,
            closing: shutdown.closing.clone(),
            database: log.describe(),
            bus: bus.clone(),
            certificates: certificates.clone(),
            subscription: watched.then_some(shown_status),
            refusals: Arc::clone(&refusals),
            last_seen,
            helpers: Arc::new(Helpers::new(&HELPERS, &registry)),
            subscribers: RwLock::new(Arc::new([])),
            known: RwLock::default(),
        });
        health.register(&registry);
        health.set_subscribers(&settings.subscribers);
        let (subscribers, expected) =
            (watch::Sender::new(settings.subscriber_ids()), watch::Sender::new(Expected::by(settings)));
        let (of, shown, ids, watched) =
            (Arc::clone(&ingest), Arc::clone(&health), subscribers.clone(), expected.clone());
        reloader.part(move |new| {
            let (of, shown, ids, watched) = (Arc::clone(&of), Arc::clone(&shown), ids.clone(), watched.clone());
            let (keys, new_ids, new_expected) = (new.subscribers.clone(), new.subscriber_ids(), Expected::by(new));
            Ok(Box::new(move || {
                of.set_subscribers(&keys);
                shown.set_subscribers(&keys);
                replace(&ids, new_ids);
                replace(&watched, new_expected);
            }))
        });
        if let Some(certificates) = certificates.clone() {
            reloader.part(move |new| {
                let Some(files) = &new.listen.tls else { return Ok(Box::new(|| {})) };
                let (taken, certificates) = (certificates.prepare(&files.cert, &files.key)?, certificates.clone());
                Ok(Box::new(move || {
                    taken();
                    warn_of_validity(&certificates);
                }))
            });
        }
        if let Some(bus) = bus.clone() {
            reloader.part(move |new| {
                let (login, bus) = (new.nats.login.clone(), Arc::clone(&bus));
                login.iter().try_for_each(Login::check)?;
                Ok(Box::new(move || bus.set_login(login)))
            });
        }
        if let Some(client) = client.clone() {
            reloader.part(move |new| {
                let (client, platform) = (client.clone(), new.platform.clone());
                Ok(Box::new(move || {
                    if let Some(platform) = platform {
                        client.set_key(&platform.api.app_id, platform.api.app_key);
                    }
                }))
            });
        }

        let mut tasks = Tasks::default();
        let helpers = Arc::clone(&health.helpers);
        let router =
            http::events_router(&settings.listen.path, Arc::clone(&ingest), Arc::clone(&health), sources.clone());
        let connections = Connections::new(room_by_descriptors(), Some(&registry));
        let idle = settings.listen.idle_timeout;
        let failures = Failures::new("events", Some(refusals));
        let terms = Terms::events(idle, certificates, failures, sources.clone());
        tasks.spawn(EVENTS, http::serve(events, terms, router, shutdown.clone(), connections));
        let terms_admin = Terms::admin(idle, Failures::new("admin", None), sources.clone());
        let access = Access::new(&settings.admin, sources, log.clone(), clock.clone());
        let access = Arc::new(access);
        let of = Arc::clone(&access);
        reloader.part(move |new| Ok(Box::new(of.prepare(&new.admin)?)));
        let api = Api::new(log.clone(), Arc::clone(&health), clock.clone());
        let streams = Streams::new(api, Arc::clone(&recent), steps.rest.clone());
        let router = http::admin_router(&health, registry.clone(), access, Arc::clone(&streams));
        // Operators watch the end: this listener ends with the rest.
        let admin_shutdown = Shutdown { stop: steps.rest.clone(), ..shutdown.clone() };
        let connections = Connections::new(MAX_ADMIN_CONNECTIONS, None);
        tasks.spawn(ADMIN, http::serve(admin, terms_admin, router, admin_shutdown, connections));
        tasks.spawn(WRITER, writer.run(migrated.clone(), steps.writer.clone()));
        let metrics = HelperMetrics::new(&registry, status);
        let shared = Shared { log, health, metrics, clock, recent, migrated, owner: owner() };

        let (it, migrate, stop) = (shared.clone(), settings.database.migrate, steps.rest.clone());
        tasks.keep(DATABASE, &helpers, &steps.rest, move || {
            upkeep(it.log.clone(), migrate, Arc::clone(&it.health), it.clock.clone(), it.migrated.clone(), stop.clone())
        });
        let migrated = shared.migrated.clone();
        tasks.keep(STREAMS, &helpers, &steps.rest, move || done(Arc::clone(&streams).run(migrated.clone())));
        if let Some(bus) = bus {
            let (it, of, retention, stop) =
                (shared.clone(), Arc::clone(&bus), settings.database.retention, steps.cursors.clone());
            tasks.keep(WATCH, &helpers, &steps.cursors, move || {
                let (log, metrics, owner) = (it.log.clone(), it.metrics.stream.clone(), it.owner.clone());
                let watch = StreamWatch::new(log, Arc::clone(&of), metrics, owner, retention, WATCH_REST_FACTOR);
                done(watch.run(it.migrated.clone(), stop.clone()))
            });
            let (it, stop) = (shared.clone(), steps.cursors.clone());
            let mask = settings.privacy.mask.clone();
            tasks.keep(RELAY, &helpers, &steps.cursors, move || {
                let (log, metrics, owner) = (it.log.clone(), it.metrics.relay.clone(), it.owner.clone());
                let encoder = Encoder::new(bus.subject_prefix(), mask.clone());
                let relay = Relay::new(log, Arc::clone(&it.recent), Arc::clone(&bus), encoder, metrics, owner);
                it.moved(relay, stop.clone())
            });
        }
        let (it, stop) = (shared.clone(), steps.cursors.clone());
        tasks.keep(TABLES, &helpers, &steps.cursors, move || {
            let tables = Projector::new(it.log.clone(), it.owner.clone());
            it.moved(tables.following(Arc::clone(&it.recent)), stop.clone())
        });
        let mut cursors = vec![projection::CURSOR];
        cursors.extend(shared.health.bus.as_ref().map(|_| relay::CURSOR));
        if let (Some(platform), Some(client)) = (&settings.platform, &client) {
            if platform.recordings {
                cursors.push(recordings::CURSOR);
            }
            platform_tasks(&mut tasks, &shared, &steps, &shutdown, settings, client, (subscribers, expected));
        }
        let (it, stop) = (shared.clone(), steps.rest.clone());
        tasks.keep(GAUGES, &helpers, &steps.rest, move || done(gauges(it.clone(), cursors.clone(), stop.clone())));
        let reloader = Arc::new(reloader);
        let (watcher, stop) = (Arc::clone(&reloader), steps.rest.clone());
        tasks.keep(FILES, &helpers, &steps.rest, move || done(Arc::clone(&watcher).watch(stop.clone())));

        for (listener, address) in [("events", events_at), ("admin", admin_at)] {
            tracing::info!(listener, %address, "listening");
        }
        let (delay, timeout) = (settings.listen.shutdown_delay, settings.listen.shutdown_timeout);
        let Shared { log, health, .. } = shared;
        Ok(Self {
            events: events_at,
            admin: admin_at,
            health,
            log,
            client,
            reloader,
            tasks,
            shutdown,
            steps,
            delay,
            timeout,
        })
    }

    /// Serves until `stop`, then ends in order: not ready, no new connections, what is under way finished and stored, the
    /// cursors at a boundary. `force` cuts that short.
    ///
    /// # Errors
    /// The task that ended early, or what could not be finished.
    pub async fn run(mut self, stop: CancellationToken, force: CancellationToken) -> anyhow::Result<()> {
        let early = tokio::select! {
            () = stop.cancelled() => None,
            ended = self.tasks.next() => Some(ended),
        };
        if let Some(ended) = early {
            self.shutdown.force.cancel();
            let (name, result) = ended?;
            result.with_context(|| format!("the {name}"))?;
            bail!("the {name} ended by itself");
        }
        tracing::info!("stopping: not ready any more");
        self.shutdown.closing.set();
        let (delay, timeout) = (self.delay, self.timeout);
        tokio::select! {
            result = tokio::time::timeout(timeout, self.finish(delay)) => {
                if let Ok(result) = result {
                    result?;
                    tracing::info!("stopped");
                } else {
                    tracing::warn!(?timeout, "listen.shutdown_timeout is over: what was still under way is cut");
                }
                Ok(())
            }
            () = force.cancelled() => bail!("forced to stop before everything was finished"),
        }
    }

    async fn finish(&mut self, delay: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(delay).await;
        self.shutdown.stop.cancel();
        self.steps.askers.cancel();
        self.tasks.finish(&[EVENTS, BACKFILL, RECORDINGS, ENRICHMENT]).await?;
        self.steps.writer.cancel();
        self.tasks.finish(&[WRITER]).await?;
        self.steps.cursors.cancel();
        self.tasks.finish(&[RELAY, TABLES, WATCH]).await?;
        self.steps.rest.cancel();
        self.tasks.finish(&[ADMIN, STREAMS, DATABASE, GAUGES, SUBSCRIPTION, FILES]).await?;
        // Where the platform is not needed any more, its tokens are others'.
        let log_out = async {
            if let Some(client) = &self.client {
                client.log_out().await;
            }
        };
        tokio::join!(self.log.close(), log_out);
        Ok(())
    }

    /// What reads the settings again.
    #[must_use]
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }
}

/// What outlives the helpers that it measures: they are started again.
#[derive(Clone)]
struct HelperMetrics {
    relay: RelayMetrics,
    stream: StreamMetrics,
    backfill: BackfillMetrics,
    recordings: Counters<Class>,
    enrichment: Counters<Class>,
    subscription: watch::Sender<Option<SubscriptionStatus>>,
}

impl HelperMetrics {
    fn new(registry: &Registry, subscription: watch::Sender<Option<SubscriptionStatus>>) -> Self {
        let failures = |task| {
            let help = "Calls of the platform's API that failed, by what is to be done.";
            registry.counters_with(Opts::new("convoke_fetch_failures_total", help).const_label("task", task), "class")
        };
        Self {
            relay: RelayMetrics::new(registry),
            stream: StreamMetrics::new(registry),
            backfill: BackfillMetrics::new(registry),
            recordings: failures(RECORDINGS),
            enrichment: failures(ENRICHMENT),
            subscription,
        }
    }
}

/// What most helpers need.
#[derive(Clone)]
struct Shared {
    log: Arc<dyn Store>,
    health: Arc<Health>,
    metrics: HelperMetrics,
    clock: Clock,
    recent: Arc<RecentRows>,
    migrated: CancellationToken,
    owner: String,
}

impl Shared {
    /// Moves a cursor, once there is a database to move it in.
    fn moved<C: cursor::Cursor + Sync + 'static>(
        &self,
        cursor: C,
        stop: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + use<C> {
        let (log, recent, migrated) = (self.log.clone(), Arc::clone(&self.recent), self.migrated.clone());
        async move {
            tokio::select! {
                () = migrated.cancelled() => cursor::run(cursor, log, recent, stop).await,
                () = stop.cancelled() => {}
            }
            Ok(())
        }
    }
}

/// The log that the settings describe.
#[must_use]
pub fn log_options(settings: &Settings) -> log::Options {
    log::Options {
        url: settings.database.url.clone(),
        retention: settings.database.retention,
        quarantine_retention: settings.database.quarantine_retention,
    }
}

/// The bus that the settings describe; `None`: the relay is off.
#[must_use]
pub fn bus_options(settings: &Settings) -> Option<convoke_bus::Options> {
    let nats = &settings.nats;
    Some(convoke_bus::Options {
        url: nats.url.clone()?,
        stream: nats.stream.clone(),
        subject_prefix: nats.subject_prefix.clone(),
        tls_ca: nats.tls_ca.clone(),
        tls: nats.tls.as_ref().map(|files| (files.cert.clone(), files.key.clone())),
        login: nats.login.clone(),
        replicas: nats.replicas,
        max_age: nats.max_age,
        max_bytes: nats.max_bytes,
        duplicate_window: nats.duplicate_window,
    })
}

/// The client of the platform's API that the settings describe; `None`: it is not used.
#[must_use]
pub fn platform_options(settings: &Settings) -> Option<convoke_platform::Options> {
    Some(settings.platform.as_ref()?.api.clone())
}

/// Of subscribers.
type Ids = Arc<[Arc<str>]>;

/// The helpers that ask the platform, as far as the settings want them.
fn platform_tasks(
    tasks: &mut Tasks,
    shared: &Shared,
    steps: &Steps,
    shutdown: &Shutdown,
    settings: &Settings,
    client: &Client,
    (subscribers, expected): (watch::Sender<Ids>, watch::Sender<Expected>),
) {
    let Some(platform) = &settings.platform else { return };
    let helpers = &shared.health.helpers;
    let parts = || (shared.clone(), client.clone());
    if let Some(every) = platform.backfill_every {
        let ((it, client), retention, stop) = (parts(), settings.database.retention, shutdown.stop.clone());
        let subscribers = subscribers.subscribe();
        tasks.keep(BACKFILL, helpers, &shutdown.stop, move || {
            let task = backfill::task::Task {
                every,
                owner: it.owner.clone(),
                cursor: projection::CURSOR,
                subscribers: subscribers.clone(),
                retention,
                log: it.log.clone(),
                intake: it.health.intake.clone(),
                client: client.clone(),
                metrics: it.metrics.backfill.clone(),
                clock: it.clock.clone(),
            };
            done(task.run(it.migrated.clone(), stop.clone()))
        });
    }
    if platform.recordings {
        let ((it, client), stop) = (parts(), steps.askers.clone());
        tasks.keep(RECORDINGS, helpers, &steps.askers, move || {
            let (log, failures, intake) = (it.log.clone(), it.metrics.recordings.clone(), it.health.intake.clone());
            let (clock, owner) = (it.clock.clone(), it.owner.clone());
            it.moved(Recordings::new(log, intake, client.clone(), failures, clock, owner, stop.clone()), stop.clone())
        });
    }
    if platform.enrich {
        let ((it, client), stop) = (parts(), steps.askers.clone());
        let enterprise = Enterprise::of(platform.api.sp_id.as_deref(), platform.api.corp_id.as_deref());
        tasks.keep(ENRICHMENT, helpers, &steps.askers, move || {
            let (log, failures, leader) =
                (it.log.clone(), it.metrics.enrichment.clone(), (projection::CURSOR, it.owner.clone()));
            let enrichment =
                Enrichment::new(log, client.clone(), failures, it.clock.clone(), enterprise.clone(), leader);
            done(enrichment.run(it.migrated.clone(), stop.clone()))
        });
    }
    if let Some(every) = platform.watch_every {
        let ((it, client), stop, expected) = (parts(), steps.rest.clone(), expected.subscribe());
        tasks.keep(SUBSCRIPTION, helpers, &steps.rest, move || {
            let (log, status, owner) = (it.log.clone(), it.metrics.subscription.clone(), it.owner.clone());
            let watch = subscription::watch::SubscriptionWatch::new(
                client.clone(),
                log,
                status,
                expected.clone(),
                owner,
                every,
                it.clock.clone(),
            );
            done(watch.run(it.migrated.clone(), stop.clone()))
        });
    }
}

/// Who posts to us refuses a certificate that is out of date; to say so is all that can be done here.
fn warn_of_validity(certificates: &Certificates) {
    if let Some(trouble) = certificates.trouble(Clock::System.now()) {
        tracing::warn!("the certificate in listen.tls_cert {trouble}: replace it");
    }
}

/// The certificate to be shown. One that cannot be used is a wrong setting, like any other.
///
/// # Errors
/// The refusal, with what to write instead.
pub fn certificates(settings: &Settings, files: &TlsFiles) -> Result<Certificates, ConfigError> {
    Certificates::load(&files.cert, &files.key).map_err(|error| match error {
        TlsError::File(..) | TlsError::Empty(_) => settings.refuse(
            "listen.tls_cert",
            &error,
            "name a PEM file with the certificate and those that vouch for it",
        ),
        TlsError::Key(..) | TlsError::Mismatch(..) | TlsError::Unusable(_) => {
            settings.refuse("listen.tls_key", &error, "name a PEM file with the private key of listen.tls_cert")
        }
    })
}

/// Names this process among the replicas.
#[must_use]
pub fn owner() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Or a restart would have to wait for the old connections' ends.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(http::BACKLOG)
    };
    listen().with_context(|| format!("{setting}: cannot listen on {address}"))
}

/// Sends a value that is another one than before.
fn replace<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|known| {
        let changed = *known != new;
        *known = new;
        changed
    });
}

async fn done(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}

/// Reaches and migrates the database, however long that takes, then does what it needs doing from time to time.
async fn upkeep(
    log: Arc<dyn Store>,
    migrate: bool,
    health: Arc<Health>,
    clock: Clock,
    migrated: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut pause = MIN_RETRY_DELAY;
    let mut said = String::new();
    let throttle = convoke_core::throttle::Throttle::default();
    let said_held = convoke_core::throttle::Throttle::new(1, RETENTION_LOG_INTERVAL);
    let mut looked: Option<Instant> = None;
    loop {
        match log.migrate(migrate).await {
            Ok(schema) => {
                // Somebody's open transaction may be in the way of new partitions, for hours: there is room without them.
                if let Err(error) = maintained(&*log).await {
                    tracing::warn!(%error, "the database's upkeep failed; trying again");
                }
                tracing::info!(
                    database = log.describe(),
                    version = schema.version,
                    applied = schema.applied,
                    "the database is up to date"
                );
                match log.weaknesses().await {
                    Ok(weaknesses) => weaknesses.iter().for_each(|weakness| {
                        tracing::warn!(weakness, "what is answered 200 may not survive a power cut");
                    }),
                    Err(error) => tracing::debug!(%error, "whether the database is durable is not known"),
                }
                if let Err(error) = health.last_seen.recall(&health.subscribers(), clock.now()).await {
                    tracing::debug!(%error, "when the last events came is not known yet");
                }
                migrated.cancel();
                break;
            }
            Err(error) if error.may_pass() => {
                let mut reason = error.to_string();
                if !migrate && matches!(error, LogError::Unmigrated { .. }) {
                    reason += "; as database.migrate is false, run `convoke migrate` as the user of this service";
                }
                if said != reason {
                    throttle.run("start", |suppressed| {
                        let database = log.describe();
                        if let LogError::Unavailable(_) = error {
                            tracing::error!(database, reason, suppressed, "the database is not there yet: events are answered 503; trying again");
                        } else {
                            tracing::error!(
                                database,
                                reason,
                                suppressed,
                                "cannot use the database: events are answered 503 until somebody mends this; trying again"
                            );
                        }
                    });
                    said = reason;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_RETRY_DELAY),
            () = stop.cancelled() => return Ok(()),
        }
    }
    let kept_up = async {
        loop {
            tokio::select! {
                () = tokio::time::sleep(log.maintenance_interval()) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = maintained(&*log).await {
                throttle.run("maintenance", |suppressed| {
                    tracing::warn!(%error, suppressed, "the database's upkeep failed; trying again");
                });
            }
            if looked.is_none_or(|looked| looked.elapsed() > RETENTION_CHECK_INTERVAL)
                && let Ok(held) = retention_held(&*log).await
            {
                looked = Some(Instant::now());
                health.look(|known| known.retention_blocked = held.is_some());
                if let Some(held) = held {
                    said_held.run("retention", |_| tracing::warn!("retention is held back: {held}"));
                }
            }
        }
    };
    tokio::select! {
        () = kept_up => {}
        () = log.listen() => {}
    }
    Ok(())
}

/// Upkeep by the database's own clock: ours may be another, and what it deletes is gone for all.
async fn maintained(log: &dyn Maintenance) -> Result<(), LogError> {
    log.maintain(log.now().await?).await
}

async fn retention_held(log: &dyn Maintenance) -> Result<Option<log::RetentionHeld>, LogError> {
    log.retention_held(log.now().await?).await
}

/// Keeps the gauges up to date that only the database knows.
async fn gauges(shared: Shared, cursors: Vec<&'static str>, stop: CancellationToken) {
    let Shared { log, health, clock, migrated, .. } = shared;
    let mut disk_watch = DiskWatch::new(clock.clone());
    let mut validity = http::tls::CertificateWatch::default();
    loop {
        if let Some(certificates) = &health.certificates
            && validity.is_due(certificates.expires(), clock.now())
        {
            warn_of_validity(certificates);
        }
        health.refusals.sample(clock.now());
        let disk = log.disk();
        health.look(|looked| looked.disk_free = disk.map(|disk| disk.free));
        if let Some(disk) = disk
            && let Some(warning) = disk_watch.note(disk)
        {
            warning.say(disk);
        }
        health.intake.warn_if_due();
        if migrated.is_cancelled() {
            let looked = look(&*log, &health, &clock, &cursors).await;
            health.look(|known| known.reachable = looked.is_ok());
            if let Err(error) = looked {
                tracing::debug!(%error, "the gauges are as they were");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GAUGES_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn look(log: &dyn Store, health: &Health, clock: &Clock, running: &[&'static str]) -> Result<(), LogError> {
    let states = log.cursors().await?;
    let mut cursors = Vec::new();
    for name in CURSORS.into_iter().filter(|name| running.contains(name)) {
        let lag = log.lag(name).await?;
        let seconds = lag.oldest.map_or(0.0, |oldest| clock.now().since(oldest).as_secs_f64());
        let state = states.iter().find(|state| state.name == name);
        cursors.push(CursorHealth {
            name: name.to_owned(),
            position: state.map_or(0, |state| state.position.0),
            lag_events: lag.events,
            lag_seconds: seconds,
            owner: state.and_then(|state| state.owner.clone()),
        });
    }
    health.look(|known| known.cursors = cursors);
    let counts = log.counts().await?;
    let (fetches, enrichments) = log.work_counts().await?;
    health.look(|known| {
        known.quarantined = counts.quarantined;
        let set_aside = |name| (name, counts.set_aside.get(name).copied().unwrap_or(0));
        known.set_aside = CURSORS.into_iter().map(set_aside).collect();
        known.work = [(recordings::CURSOR, fetches), (enrichment::TASK, enrichments)].into();
    });
    for (subscriber, at) in counts.handshakes {
        if let Some(seen) = health.last_seen.known(&subscriber) {
            seen.handshake.raise(at);
        }
    }
    // Not as people read: whatever they ask, the gauges go on.
    let newest = log.read(Seq(log.head().await?.0 - 1), 1).await?;
    if let Some(newest) = newest.first() {
        health.last_seen.note(newest);
        health.look(|known| known.newest = Some(newest.received_at));
    }
    // Those that a reload has added, too.
    health.last_seen.recall(&health.subscribers(), clock.now()).await?;
    health.last_seen.keep(clock.now()).await
}
