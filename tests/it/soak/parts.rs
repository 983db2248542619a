//! The service, or two, a database, a bus, a platform, and the networks between them.

use std::{fmt, path::Path, time::Duration};

use rustix::process::Signal;

use super::{
    faults::{Fault, Step, Target},
    simulator::Simulator,
};
use crate::support::{
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::Postgres,
    process::Convoke,
    proxy::Proxy,
    rig::{LONG_TIMEOUT, SQLITE, convoke},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One service.
    Sqlite,
    /// Two of them.
    Postgres,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL, two replicas",
        })
    }
}

/// All that a soak runs on. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct Parts {
    pub backend: Backend,
    pub simulator: Simulator,
    pub services: Vec<Convoke>,
    pub nats: NatsServer,
    pub postgres: Option<Postgres>,
    front: Proxy,
    database_links: Vec<Proxy>,
    bus_links: Vec<Proxy>,
}

impl Parts {
    /// Starts everything, and waits until events are taken.
    pub async fn start(backend: Backend, rate: f64) -> Self {
        let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(Postgres::start().await),
        };
        let (mut services, mut database_links, mut bus_links) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if postgres.is_some() { 2 } else { 1 } {
            let bus = Proxy::start(nats.address());
            let url = match &postgres {
                None => SQLITE.to_owned(),
                Some(postgres) => {
                    let link = Proxy::start(postgres.address());
                    let url = format!("postgres://postgres@{}/postgres", link.address());
                    database_links.push(link);
                    url
                }
            };
            let service = convoke(&url, &format!("nats://{}", bus.address()))
                .env("RUST_LOG", "info,convoke::cursor=debug,convoke::relay=debug,async_nats=warn");
            services.push(service.start().await);
            bus_links.push(bus);
        }
        for service in &services {
            service.wait_ready(LONG_TIMEOUT).await;
        }
        let front = Proxy::balance(services.iter().map(|service| service.events).collect());
        let simulator = Simulator::new(front.address(), rate);
        Self { backend, simulator, services, nats, postgres, front, database_links, bus_links }
    }

    /// Breaks or mends one thing.
    pub async fn carry_out(&mut self, step: &Step) {
        match step.target {
            Target::Service(number) => service(&mut self.services[number], step).await,
            Target::Database => database(self.postgres.as_mut().expect("a server"), step).await,
            Target::Bus => bus(&mut self.nats, step).await,
            // Its successor is started when the storm is over.
            Target::Simulator if step.begins => self.simulator.kill(),
            Target::Simulator => {}
            Target::Front => network(&self.front, step),
            Target::DatabaseLink(number) => network(&self.database_links[number], step),
            Target::BusLink(number) => network(&self.bus_links[number], step),
        }
    }

    /// Copies what all of them kept and said into `folder`. They may be ended before.
    pub fn keep(&self, folder: &Path) {
        let mut kept = vec![("nats".to_owned(), self.nats.folder()), ("load".to_owned(), self.simulator.folder())];
        kept.extend(self.postgres.iter().map(|postgres| ("postgres".to_owned(), postgres.folder())));
        kept.extend(self.services.iter().enumerate().map(|(n, service)| (format!("service-{n}"), service.folder())));
        for (name, from) in kept {
            let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(folder.join(name)).status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("{} could not be kept", from.display());
            }
        }
    }
}

async fn service(service: &mut Convoke, step: &Step) {
    match (step.fault, step.begins) {
        (Fault::Freeze, true) => service.signal(Signal::STOP),
        (Fault::Freeze, false) => service.signal(Signal::CONT),
        (Fault::Shutdown, true) => service.signal(Signal::TERM),
        (Fault::Shutdown, false) => {
            let status = service.wait_exit(Duration::from_secs(40)).await;
            assert!(status.success(), "a service ended with {status} when it was stopped");
            service.restart().await;
        }
        (_, true) => service.kill().await,
        (_, false) => service.restart().await,
    }
}

async fn database(postgres: &mut Postgres, step: &Step) {
    match (step.fault, step.begins) {
        (Fault::Freeze, true) => postgres.freeze().await,
        (Fault::Freeze, false) => postgres.thaw(),
        (Fault::Shutdown, true) => postgres.stop_immediate().await,
        (_, true) => postgres.kill().await,
        (_, false) => postgres.restart().await,
    }
}

async fn bus(nats: &mut NatsServer, step: &Step) {
    match (step.fault, step.begins) {
        (Fault::Freeze, true) => nats.signal(Signal::STOP),
        (Fault::Freeze, false) => nats.signal(Signal::CONT),
        (Fault::Shutdown, true) => nats.stop().await,
        (_, true) => nats.kill().await,
        (_, false) => nats.restart().await,
    }
}

fn network(proxy: &Proxy, step: &Step) {
    match (step.fault, step.begins) {
        (Fault::Slow(by), true) => proxy.slow(by),
        (Fault::Silence | Fault::Forget, true) => proxy.stall(),
        (_, true) => proxy.cut(),
        (Fault::Forget, false) => {
            proxy.cut();
            proxy.heal();
        }
        (_, false) => proxy.heal(),
    }
}
