//! The two listeners.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::anyhow;
use tokio::net::{TcpListener, TcpSocket};

use super::shared::Parts;
use super::tasks::Phase;
use crate::actions::{self, ActionContext, ActionQueue};
use crate::http::api::Api;
use crate::http::api::streams::Streams;
use crate::http::auth::Access;
use crate::http::ingest::{Ingest, Limits};
use crate::http::server::{self, ClientSources, Connections, Failures, ListenerOptions, Shutdown, room_by_descriptors};
use crate::http::{self, EventsRoutes};

/// Maximum number of connections of the admin listener, which only operators and their machines use.
const MAX_ADMIN_CONNECTIONS: usize = 128;

const EVENTS: &str = "events listener";
const ADMIN: &str = "admin listener";
pub(super) const STREAMS: &str = "streams";

/// Both listeners, bound but not served yet.
pub(super) struct Listeners {
    pub events: TcpListener,
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds the addresses of the settings.
    pub fn bind(listen: &crate::config::Listen) -> anyhow::Result<Self> {
        Ok(Self { events: bind(listen.events, "listen.events")?, admin: bind(listen.admin, "listen.admin")? })
    }

    /// Serves both. Each stops in its own phase, not at `shutdown.stop`.
    pub fn serve(self, parts: &mut Parts<'_>, shutdown: &Shutdown) {
        let until = |phase| Shutdown { stop: parts.tasks.stop(phase), ..shutdown.clone() };
        // Operators watch the shutdown, so the admin listener stops last.
        let (sources, rest) = (until(Phase::Sources), until(Phase::Rest));
        events(self.events, parts, sources);
        admin(self.admin, parts, rest);
    }
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Otherwise a restart would have to wait until the old connections are gone.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(server::BACKLOG)
    };
    listen().map_err(|error| {
        let remedy = remedy(error.kind(), address.port()).map(|remedy| format!(". {remedy}")).unwrap_or_default();
        anyhow!("{setting}: cannot listen on {address}: {error}{remedy}")
    })
}

/// What helps when a port cannot be bound.
fn remedy(error: ErrorKind, port: u16) -> Option<String> {
    match error {
        ErrorKind::AddrInUse => Some(format!(
            "Another process has this port: `ss -ltnp 'sport = :{port}'` names it. Stop that one, or set another port"
        )),
        ErrorKind::AddrNotAvailable => {
            Some("No interface of this machine has this address: 0.0.0.0 stands for all of them".to_owned())
        }
        ErrorKind::PermissionDenied if port < 1024 => Some(
            "Ports below 1024 are privileged: listen on a higher one behind a reverse proxy, or give the program the right by \
             `sudo setcap cap_net_bind_service=+ep` and its path"
                .to_owned(),
        ),
        _ => None,
    }
}

fn sources(parts: &Parts<'_>) -> ClientSources {
    let listen = &parts.settings.listen;
    ClientSources { allow_from: listen.allow_from.clone(), trusted_proxies: listen.trusted_proxies.clone() }
}

fn events(listener: TcpListener, parts: &mut Parts<'_>, shutdown: Shutdown) {
    let (listen, shared, sources) = (&parts.settings.listen, &parts.shared, sources(parts));
    let health = Arc::clone(&shared.health);
    let ingest = Arc::new(Ingest::new(
        &parts.settings.subscribers,
        shared.intake.clone(),
        shared.clock.clone(),
        Limits { sources: sources.clone(), max_body: listen.max_body },
        Arc::clone(&health),
        parts.registry,
    ));
    let routes = EventsRoutes::new(&listen.path, Arc::clone(&ingest), Arc::clone(&health), sources.clone());
    let failures = Failures::new("events", Some(Arc::clone(&health.refusals)));
    let options = ListenerOptions::events(listen.idle_timeout, health.certificates.clone(), failures, sources);
    let connections = Connections::new(room_by_descriptors(), Some(parts.registry));
    parts.tasks.spawn(EVENTS, Phase::Sources, server::serve(listener, options, routes, shutdown, connections));
    parts.reloader.part(move |new| {
        let (subscribers, ingest, health) = (new.subscribers.clone(), Arc::clone(&ingest), Arc::clone(&health));
        Ok(move || {
            ingest.set_subscribers(&subscribers);
            health.set_subscribers(&subscribers);
        })
    });
}

fn admin(listener: TcpListener, parts: &mut Parts<'_>, shutdown: Shutdown) {
    let (settings, shared, sources) = (parts.settings, parts.shared.clone(), sources(parts));
    let options = ListenerOptions::admin(settings.listen.idle_timeout, Failures::new("admin", None), sources.clone());
    let access = Arc::new(Access::new(&settings.admin, sources, shared.log.clone(), shared.clock.clone()));
    let context = ActionContext {
        log: shared.log.clone(),
        bus: shared.bus.clone(),
        mask: settings.privacy.mask.clone(),
        owner: format!("{}-actions", shared.owner),
        clock: shared.clock.clone(),
    };
    let api = Api::new(shared.log, Arc::clone(&shared.health), shared.clock, settings.reports.time_zone.clone());
    let streams = Streams::new(api, shared.recent, shutdown.stop.clone());
    let actions = ActionQueue::new(context);
    let router = http::admin_router(
        &shared.health,
        parts.registry.clone(),
        Arc::clone(&access),
        Arc::clone(&streams),
        Arc::clone(&actions),
    );
    let connections = Connections::new(MAX_ADMIN_CONNECTIONS, None);
    parts.tasks.spawn(ADMIN, Phase::Rest, server::serve(listener, options, router, shutdown, connections));
    parts.helper(STREAMS, Phase::Rest, move |it, _| Arc::clone(&streams).run(it.migrated));
    parts.helper(actions::NAME, Phase::Cursors, move |_, stop| Arc::clone(&actions).run(stop));
    parts.reloader.part(move |new| Ok(access.prepare(&new.admin)?));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_had_is_refused_with_what_helps() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        // The test's socket listens, so the port stays taken in spite of SO_REUSEADDR.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let error = runtime.block_on(async { bind(address, "listen.events") }).expect_err("it is taken").to_string();
        for words in ["listen.events", "Address already in use", &format!("ss -ltnp 'sport = :{}'", address.port())] {
            assert!(error.contains(words), "{words} in: {error}");
        }
        let elsewhere = "192.0.2.1:0".parse().expect("an address");
        let error = runtime.block_on(async { bind(elsewhere, "listen.admin") }).expect_err("not ours").to_string();
        assert!(error.contains("No interface of this machine has this address"), "{error}");
        let privileged = remedy(ErrorKind::PermissionDenied, 443).expect("a remedy");
        assert!(privileged.contains("setcap cap_net_bind_service=+ep") && privileged.contains("proxy"), "{privileged}");
        assert_eq!(remedy(ErrorKind::PermissionDenied, 8080), None);
    }
}
