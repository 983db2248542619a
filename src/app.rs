//! The composition root: settings become parts, parts become named tasks, and the tasks are supervised.
//!
//! Every task of the service is spawned here. One that ends before it should stops the process with a failure: a service
//! with a dead part that says it is well would be worse than none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::audit::watch::Watch;
use crate::backfill;
use crate::bus::Bus;
use crate::config::{ConfigArgs, ConfigError, Env, Settings, TlsFiles};
use crate::cursor;
use crate::disk::DiskWatch;
use crate::enrich::{self, Enrich, Enterprise};
use crate::event::{Clock, Seq, Subscriber};
use crate::http::access::Access;
use crate::http::api::Api;
use crate::http::api::streams::Streams;
use crate::http::connections::{Connections, Gauges, room_by_descriptors};
use crate::http::failures::Failures;
use crate::http::ingest::{Ingest, Limits};
use crate::http::ops::{CursorHealth, Health};
use crate::http::past::Past;
use crate::http::tls::{Certificates, TlsError};
use crate::http::{self, Shutdown, Sources, Terms};
use crate::intake::Intake;
use crate::log::{self, Log, LogError, Sessions};
use crate::meetings::{self, Meetings};
use crate::metrics::{CURSORS, Metrics};
use crate::recordings::{self, Recordings};
use crate::relay::{self, Encoder, Relay};
use crate::subscription::{self, Expected};
use crate::tail::Tail;
use crate::vendor::Vendor;

/// How often the gauges that need the database are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked at what holds retention back, and said.
const RETENTION_EVERY: Duration = Duration::from_secs(10);
const SAY_HELD_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// Connections of the admin listener: operators and their machines, and nobody's flood.
const ADMIN_CONNECTIONS: usize = 128;

/// The stream watch rests so many times as long as it works: on a large table it takes about two hundredths of a processor.
const WATCH_REST: u32 = 60;

/// An answer of the platform's API that takes longer is a failure.
const VENDOR_TIMEOUT: Duration = Duration::from_secs(20);

/// The pauses between tries to reach the database at the start.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A running service.
pub struct App {
    /// Where the events listener is.
    pub events: SocketAddr,
    /// Where the admin listener is.
    pub admin: SocketAddr,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What it knows about itself.
    pub health: Arc<Health>,
    parts: Parts,
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

/// What can be replaced while it runs.
struct Parts {
    log: Arc<dyn Log>,
    ingest: Arc<Ingest>,
    certificates: Option<(Certificates, TlsFiles)>,
    vendor: Option<Vendor>,
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

/// What a task says when it ends.
type Ended = (&'static str, anyhow::Result<()>);

/// Named tasks.
#[derive(Default)]
struct Tasks {
    set: JoinSet<Ended>,
    running: Vec<&'static str>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.running.push(name);
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits for the next task to end.
    async fn next(&mut self) -> anyhow::Result<Ended> {
        let (name, result) = match self.set.join_next().await {
            Some(ended) => unwrap(ended)?,
            None => bail!("nothing runs"),
        };
        self.running.retain(|other| *other != name);
        Ok((name, result))
    }

    /// Waits until those of these tasks that run have ended.
    async fn finish(&mut self, names: &[&'static str]) -> anyhow::Result<()> {
        while self.running.iter().any(|name| names.contains(name)) {
            let (name, result) = self.next().await?;
            result.with_context(|| format!("the {name}"))?;
        }
        Ok(())
    }
}

fn unwrap(ended: Result<Ended, JoinError>) -> anyhow::Result<Ended> {
    ended.map_err(|error| anyhow!("a task panicked: {error}"))
}

const EVENTS: &str = "events listener";
const ADMIN: &str = "admin listener";
const WRITER: &str = "writer";
const DATABASE: &str = "database's upkeep";
const RELAY: &str = "relay";
const TABLES: &str = "analyst tables";
const WATCH: &str = "stream watch";
const BACKFILL: &str = "backfill";
const RECORDINGS: &str = "recordings";
const ENRICHMENT: &str = enrich::TASK;
const GAUGES: &str = "gauges";
const STREAMS: &str = "streams";
const SUBSCRIPTION: &str = "subscription watch";

impl App {
    /// Binds, and starts everything; the database and the bus may still be away.
    ///
    /// # Errors
    /// What keeps it from starting at all: an address in use, a certificate that cannot be used.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let certificates = match &settings.listen.tls {
            Some(files) => Some((certificates(settings, files)?, files.clone())),
            None => None,
        };
        if let Some((certificates, _)) = &certificates {
            warn_of_validity(certificates);
        }
        let events = bind(settings.listen.events, "listen.events")?;
        let admin = bind(settings.listen.admin, "listen.admin")?;
        let (events_at, admin_at) = (events.local_addr()?, admin.local_addr()?);

        let clock = Clock::System;
        let metrics = Arc::new(Metrics::new());
        let log = log::open(&log_options(settings))?;
        let bus = match bus_options(settings) {
            Some(options) => Some(Arc::new(Bus::connect(options, Arc::clone(&metrics)).await?)),
            None => None,
        };
        let vendor = vendor_options(settings).map(|options| Vendor::new(options, clock.clone())).transpose()?;
        let client = vendor.clone();
        let appended = Arc::new(Notify::new());
        let tables_tail = Arc::new(Tail::with_room(meetings::FOLLOWED));
        let relay_tail = bus.as_ref().map(|_| Arc::new(Tail::default()));
        let migrated = CancellationToken::new();
        let shutdown = Shutdown::default();
        let steps = Steps::default();

        let (intake, writer) = Intake::new(
            Arc::clone(&log),
            Arc::clone(&metrics),
            clock.clone(),
            Arc::clone(&appended),
            [Some(&tables_tail), relay_tail.as_ref()].into_iter().flatten().cloned().collect(),
        );
        let sources = Sources {
            allow_from: settings.listen.allow_from.clone(),
            trusted_proxies: settings.listen.trusted_proxies.clone(),
        };
        let limits = Limits { sources: sources.clone(), max_body: settings.listen.max_body };
        let ingest =
            Arc::new(Ingest::new(&settings.subscribers, intake.clone(), Arc::clone(&metrics), clock.clone(), limits));
        let watched = settings.platform.as_ref().is_some_and(|platform| platform.watch_every.is_some());
        let bus_name = bus.as_ref().map(|bus| bus.stream().to_owned());
        let closing = shutdown.closing.clone();
        let health = Arc::new(Health::new(intake, closing, Arc::clone(&metrics), log.describe(), bus_name, watched));
        health.set_subscribers(&settings.subscribers);

        let mut tasks = Tasks::default();
        let router = http::events_router(&settings.listen.path, Arc::clone(&ingest), Arc::clone(&health));
        let tls = certificates.as_ref().map(|(certificates, _)| certificates.clone());
        let counted = Gauges { open: metrics.connections.clone(), evicted: metrics.connections_evicted.clone() };
        let connections = Connections::new(room_by_descriptors(), Some(counted));
        let idle = settings.listen.idle_timeout;
        let terms = Terms::events(idle, tls, Failures::new("events", Some(Arc::clone(&metrics))));
        tasks.spawn(EVENTS, done(http::serve(events, terms, router, shutdown.clone(), connections)));
        let access = Access::new(&settings.admin, sources, Arc::clone(&log) as Arc<dyn Sessions>, clock.clone());
        let access = Arc::new(access);
        let api = Api::new(Arc::clone(&log), Arc::clone(&health), clock.clone(), access.asks());
        let streams = Streams::new(api, Arc::clone(&appended), steps.rest.clone());
        let router = http::admin_router(&health, access, Arc::clone(&streams));
        // Operators watch the end: this listener ends with the rest.
        let admin_shutdown = Shutdown { stop: steps.rest.clone(), ..shutdown.clone() };
        let connections = Connections::new(ADMIN_CONNECTIONS, None);
        let terms = Terms::admin(idle, Failures::new("admin", None));
        tasks.spawn(ADMIN, done(http::serve(admin, terms, router, admin_shutdown, connections)));
        tasks.spawn(STREAMS, done(streams.run(migrated.clone())));
        tasks.spawn(WRITER, done(writer.run(migrated.clone(), steps.writer.clone())));
        let past = Arc::new(Past::new(Arc::clone(&log), Arc::clone(&metrics)));
        tasks.spawn(
            DATABASE,
            upkeep(
                Arc::clone(&log),
                settings.database.migrate,
                (Arc::clone(&past), Arc::clone(&health)),
                clock.clone(),
                migrated.clone(),
                steps.rest.clone(),
            ),
        );
        let owner = owner();
        if let Some(bus) = bus {
            let encoder = Encoder::new(bus.subject_prefix(), settings.privacy.mask.clone());
            let watch = Watch::new(
                Arc::clone(&log),
                Arc::clone(&bus),
                Arc::clone(&metrics),
                owner.clone(),
                settings.database.retention,
                WATCH_REST,
            );
            tasks.spawn(WATCH, done(watch.run(migrated.clone(), steps.cursors.clone())));
            let tail = relay_tail.unwrap_or_default();
            let relay = Relay::new(Arc::clone(&log), tail, bus, encoder, Arc::clone(&metrics), owner.clone());
            let (log, stop, migrated) = (Arc::clone(&log), steps.cursors.clone(), migrated.clone());
            tasks.spawn(RELAY, moved(relay, log, Arc::clone(&appended), migrated, stop));
        }
        if let (Some(vendor), Some(every)) =
            (vendor.clone(), settings.platform.as_ref().and_then(|platform| platform.backfill_every))
        {
            let task = backfill::task::Task {
                every,
                owner: owner.clone(),
                cursor: crate::meetings::CURSOR,
                subscribers: settings.subscribers.clone(),
                retention: settings.database.retention,
                log: Arc::clone(&log),
                intake: health.intake.clone(),
                vendor,
                metrics: Arc::clone(&metrics),
                clock: clock.clone(),
            };
            tasks.spawn(BACKFILL, done(task.run(migrated.clone(), shutdown.stop.clone())));
        }
        let tables = Meetings::new(Arc::clone(&log), Arc::clone(&metrics), owner.clone()).following(tables_tail);
        let stop = steps.cursors.clone();
        tasks.spawn(TABLES, moved(tables, Arc::clone(&log), Arc::clone(&appended), migrated.clone(), stop));
        let mut cursors = vec![meetings::CURSOR];
        cursors.extend(health.bus.as_ref().map(|_| relay::CURSOR));
        if let (Some(platform), Some(vendor)) = (&settings.platform, vendor) {
            let stop = steps.askers.clone();
            if platform.recordings {
                cursors.push(recordings::CURSOR);
                let recordings = Recordings::new(
                    Arc::clone(&log),
                    health.intake.clone(),
                    vendor.clone(),
                    Arc::clone(&metrics),
                    clock.clone(),
                    owner.clone(),
                    stop.clone(),
                );
                tasks.spawn(RECORDINGS, moved(recordings, Arc::clone(&log), appended, migrated.clone(), stop.clone()));
            }
            if platform.enrich {
                let enterprise = Enterprise::of(platform.sp_id.as_deref(), platform.corp_id.as_deref());
                let leader = (meetings::CURSOR, owner.clone());
                let (log, metrics, clock) = (Arc::clone(&log), Arc::clone(&metrics), clock.clone());
                let enrich = Enrich::new(log, vendor, metrics, clock, enterprise, leader);
                tasks.spawn(ENRICHMENT, done(enrich.run(migrated.clone(), stop)));
            }
        }
        if let Some(watch) = subscription_watch(settings, client.clone(), &log, &metrics, owner) {
            tasks.spawn(SUBSCRIPTION, done(watch.run(migrated.clone(), steps.rest.clone())));
        }
        let shown_certificate = certificates.as_ref().map(|(certificates, _)| certificates.clone());
        let stop = steps.rest.clone();
        let shown =
            gauges(Arc::clone(&log), Arc::clone(&health), past, shown_certificate, clock, cursors, migrated, stop);
        tasks.spawn(GAUGES, done(shown));

        for (listener, address) in [("events", events_at), ("admin", admin_at)] {
            tracing::info!(listener, %address, "listening");
        }
        let (delay, timeout) = (settings.listen.shutdown_delay, settings.listen.shutdown_timeout);
        let parts = Parts { log, ingest, certificates, vendor: client };
        Ok(Self { events: events_at, admin: admin_at, metrics, health, parts, tasks, shutdown, steps, delay, timeout })
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
        self.tasks.finish(&[ADMIN, STREAMS, DATABASE, GAUGES, SUBSCRIPTION]).await?;
        // Where the platform is not needed any more, its tokens are others'.
        let log_out = async {
            if let Some(vendor) = &self.parts.vendor {
                vendor.log_out().await;
            }
        };
        tokio::join!(self.parts.log.close(), log_out);
        Ok(())
    }

    /// What is needed to reload the settings that can be reloaded.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader {
            ingest: Arc::clone(&self.parts.ingest),
            health: Arc::clone(&self.health),
            certificates: self.parts.certificates.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// Replaces subscribers and certificates of a running service.
pub struct Reloader {
    ingest: Arc<Ingest>,
    health: Arc<Health>,
    certificates: Option<(Certificates, TlsFiles)>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reloader")
    }
}

impl Reloader {
    /// Reads subscribers and TLS files again. If anything is wrong with them, all of the old ones stay.
    pub fn reload(&self, args: &ConfigArgs, env: &Env) {
        let result = self.try_reload(args, env);
        self.metrics.reload_ok.set(i64::from(result.is_ok()));
        match result {
            Ok(subscribers) => tracing::info!(subscribers = subscribers.len(), "reloaded subscribers and TLS files"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "could not reload: the old settings stay"),
        }
    }

    fn try_reload(&self, args: &ConfigArgs, env: &Env) -> anyhow::Result<Vec<Subscriber>> {
        let subscribers = Settings::reload_subscribers(args, env)?;
        if let Some((certificates, files)) = &self.certificates {
            certificates.reload(&files.cert, &files.key)?;
            warn_of_validity(certificates);
        }
        self.ingest.set_subscribers(&subscribers);
        self.health.set_subscribers(&subscribers);
        Ok(subscribers)
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
pub fn bus_options(settings: &Settings) -> Option<crate::bus::Options> {
    let nats = &settings.nats;
    Some(crate::bus::Options {
        url: nats.url.clone()?,
        stream: nats.stream.clone(),
        subject_prefix: nats.subject_prefix.clone(),
        creds_file: nats.creds_file.clone(),
        tls_ca: nats.tls_ca.clone(),
        user: nats.user.clone(),
        password: nats.password.clone(),
        token: nats.token.clone(),
        replicas: nats.replicas,
        max_age: nats.max_age,
        max_bytes: nats.max_bytes,
        duplicate_window: nats.duplicate_window,
    })
}

/// The client of the platform's API that the settings describe; `None`: it is not used.
#[must_use]
pub fn vendor_options(settings: &Settings) -> Option<crate::vendor::Options> {
    let platform = settings.platform.as_ref()?;
    Some(crate::vendor::Options {
        url: platform.url.clone(),
        app_id: platform.app_id.clone(),
        app_key: platform.app_key.clone(),
        user_id: platform.user_id.clone(),
        corp_id: platform.corp_id.clone(),
        sp_id: platform.sp_id.clone(),
        timeout: VENDOR_TIMEOUT,
    })
}

/// The watchdog over the subscription; `None`: it is off.
fn subscription_watch(
    settings: &Settings,
    vendor: Option<Vendor>,
    log: &Arc<dyn Log>,
    metrics: &Arc<Metrics>,
    owner: String,
) -> Option<subscription::watch::Watch> {
    let every = settings.platform.as_ref()?.watch_every?;
    let (log, metrics, expected) = (Arc::clone(log), Arc::clone(metrics), Expected::by(settings));
    Some(subscription::watch::Watch::new(vendor?, log, metrics, expected, owner, every, Clock::System))
}

/// Who posts to us refuses a certificate that is out of date; to say so is all that can be done here.
fn warn_of_validity(certificates: &Certificates) {
    if let Some(trouble) = certificates.trouble(Clock::System.now()) {
        tracing::warn!("the certificate in listen.tls_cert {trouble}: replace it, and send SIGHUP");
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

async fn done(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}

/// Moves a cursor, once there is a database to move it in.
async fn moved(
    cursor: impl cursor::Cursor,
    log: Arc<dyn Log>,
    appended: Arc<Notify>,
    migrated: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = migrated.cancelled() => cursor::run(cursor, log, appended, stop).await,
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Reaches and migrates the database, however long that takes, then does what it needs doing from time to time.
async fn upkeep(
    log: Arc<dyn Log>,
    migrate: bool,
    (past, health): (Arc<Past>, Arc<Health>),
    clock: Clock,
    migrated: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    let throttle = crate::telemetry::Throttle::default();
    let said_held = crate::telemetry::Throttle::new(1, SAY_HELD_AGAIN);
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
                if let Err(error) = past.recall(&health.subscribers(), clock.now()).await {
                    tracing::debug!(%error, "when the last events came is not known yet");
                }
                migrated.cancel();
                break;
            }
            Err(error) if error.not_made().is_some() => {
                if said.is_empty() {
                    tracing::error!(
                        database = log.describe(),
                        "nobody has made the database, and database.migrate is false: run `convoke migrate` as the user of this \
                        service; events are answered 503 until then"
                    );
                    said = error.to_string();
                }
            }
            Err(LogError::Unavailable(error)) => {
                let reason = error.to_string();
                if said != reason {
                    throttle.run("start", |suppressed| {
                        let database = log.describe();
                        tracing::error!(database, error, suppressed, "the database is not there yet; trying again");
                    });
                    said = reason;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
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
            if looked.is_none_or(|looked| looked.elapsed() > RETENTION_EVERY)
                && let Ok(held) = retention_held(&*log).await
            {
                looked = Some(Instant::now());
                health.metrics.retention_blocked.set(i64::from(held.is_some()));
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
async fn maintained(log: &dyn Log) -> Result<(), LogError> {
    log.maintain(log.now().await?).await
}

async fn retention_held(log: &dyn Log) -> Result<Option<log::RetentionHeld>, LogError> {
    log.retention_held(log.now().await?).await
}

/// Keeps the gauges up to date that only the database knows.
async fn gauges(
    log: Arc<dyn Log>,
    health: Arc<Health>,
    past: Arc<Past>,
    certificates: Option<Certificates>,
    clock: Clock,
    cursors: Vec<&'static str>,
    migrated: CancellationToken,
    stop: CancellationToken,
) {
    let mut disk_watch = DiskWatch::new(clock.clone());
    let mut validity = http::tls::Watch::default();
    loop {
        if let Some(certificates) = &certificates {
            let expires = certificates.expires();
            health.metrics.tls_expiry.set(expires.get() / 1000);
            if validity.is_due(expires, clock.now()) {
                warn_of_validity(certificates);
            }
        }
        health.last_hour.look(&health.metrics, clock.now());
        let disk = log.disk();
        health.look(|looked| looked.disk_free = disk.map(|disk| disk.free));
        if let Some(disk) = disk {
            health.metrics.disk_free.set(i64::try_from(disk.free).unwrap_or(i64::MAX));
            if let Some(warning) = disk_watch.note(disk) {
                warning.say(disk);
            }
        }
        health.intake.warn_if_due();
        if migrated.is_cancelled() {
            let looked = look(&*log, &health, &past, &clock, &cursors).await;
            health.look(|known| known.reachable = looked.is_ok());
            if let Err(error) = looked {
                tracing::debug!(%error, "the gauges are as they were");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(GAUGES_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn look(
    log: &dyn Log,
    health: &Health,
    past: &Past,
    clock: &Clock,
    running: &[&'static str],
) -> Result<(), LogError> {
    let metrics = &health.metrics;
    let states = log.cursors().await?;
    let mut cursors = Vec::new();
    for name in CURSORS.into_iter().filter(|name| running.contains(name)) {
        let lag = log.lag(name).await?;
        let seconds = lag.oldest.map_or(0.0, |oldest| clock.now().since(oldest).as_secs_f64());
        metrics.set_lag(name, lag.events, seconds);
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
    metrics.quarantined.set(counts.quarantined);
    for name in CURSORS {
        metrics.set_aside(name).set(counts.set_aside.get(name).copied().unwrap_or(0));
    }
    let (fetches, enrichments) = log.work_counts().await?;
    metrics.set_fetches(recordings::CURSOR, fetches);
    metrics.set_fetches(enrich::TASK, enrichments);
    for (subscriber, at) in counts.handshakes {
        metrics.note_handshake(&subscriber, at);
    }
    // Not as people read: whatever they ask, the gauges go on.
    let newest = log.read(Seq(log.head().await?.0 - 1), 1).await?;
    if let Some(newest) = newest.first() {
        past.note(newest);
        health.look(|known| known.newest = Some(newest.received_at));
    }
    // Those that a reload has added, too.
    past.recall(&health.subscribers(), clock.now()).await?;
    past.keep(clock.now()).await
}
