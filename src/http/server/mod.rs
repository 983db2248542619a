//! The server under both listeners: accepting, TLS, who has to go when there are too many, limits on heads and bodies, and
//! the end of what is under way.

mod body;
mod connection;
mod connections;
mod failures;
mod request_id;
mod requests;
mod source;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use body::{Announced, BODY_TIMEOUT, Bodies, NoBody, drain, drain_request};
pub use connection::{Connection, source};
pub use connections::{Connections, room_by_descriptors};
pub use failures::Failures;
pub use request_id::RequestId;
pub use source::ClientSources;
pub use tls::{CertificateWatch, Certificates, TlsError, Trouble};

/// Connections that the kernel completes and we have not accepted yet.
pub const BACKLOG: u32 = 4096;

/// The pause when no connection can be accepted: there may be no descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Whether an end is near. Looked at with every request, which is why it is no token: those take a lock.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<AtomicBool>);

impl Closing {
    /// From now on it is.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The three steps of an end.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// An end is near: not ready any more, and answers close their connections.
    pub closing: Closing,
    /// Nothing new is accepted; what is under way is finished.
    pub stop: CancellationToken,
    /// What is under way is cut.
    pub force: CancellationToken,
}

/// The limits of a listener, and what its connections are shown.
#[derive(Debug)]
pub struct ListenerOptions {
    /// How long a connection may be idle after a request, or not read its answers.
    pub idle: Duration,
    /// Bytes that the head of a request may have; more is answered `431`, with an explanation.
    pub head: usize,
    /// How many headers a request may have in HTTP/1.
    pub headers: usize,
    /// An HTTP/1 connection is read so far ahead, for a head that is larger than it may be.
    pub read: usize,
    /// The certificate; `None`: plain HTTP.
    pub tls: Option<tls::Certificates>,
    /// Where connections that bring no request are reported.
    pub failures: Failures,
    /// Who is believed about the source of a request.
    pub sources: ClientSources,
}

impl ListenerOptions {
    /// Those of the events listener: machines post here, many at once, and a head takes memory.
    #[must_use]
    pub const fn events(
        idle: Duration,
        tls: Option<tls::Certificates>,
        failures: Failures,
        sources: ClientSources,
    ) -> Self {
        Self { idle, head: 16 << 10, headers: 64, read: 16 << 10, tls, failures, sources }
    }

    /// Those of the admin listener: browsers come here, with the cookies of all that runs on the same host.
    #[must_use]
    pub const fn admin(idle: Duration, failures: Failures, sources: ClientSources) -> Self {
        Self { idle, head: 32 << 10, headers: 256, read: 128 << 10, tls: None, failures, sources }
    }
}

/// Serves `router` on `listener` until `shutdown.stop`, then finishes what is under way; cuts it at `shutdown.force`.
pub async fn serve(
    listener: TcpListener,
    options: ListenerOptions,
    router: Router,
    shutdown: Shutdown,
    connections: Arc<Connections>,
) {
    let tasks = TaskTracker::new();
    let options = Arc::new(options);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that ended before we took it, or no descriptors left.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let admitted = tokio::select! {
            admitted = connections.admit(peer) => admitted,
            () = shutdown.stop.cancelled() => break,
        };
        let (router, options, shutdown) = (router.clone(), Arc::clone(&options), shutdown.clone());
        tasks.spawn(async move {
            let (this, force) = (&admitted.connection, shutdown.force.clone());
            tokio::select! {
                () = connection(stream, this, &options, router, shutdown) => {}
                () = this.evicted() => {}
                () = force.cancelled() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    this: &Arc<Connection>,
    options: &Arc<ListenerOptions>,
    router: Router,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set_nodelay");
    }
    match &options.tls {
        None => requests::serve(stream, this, options, router, shutdown).await,
        Some(certificates) => {
            let shaken = tokio::select! {
                shaken = options.failures.handshake(certificates.acceptor(), stream, this.peer()) => shaken,
                () = shutdown.stop.cancelled() => return,
            };
            if let Some(stream) = shaken {
                requests::serve(stream, this, options, router, shutdown).await;
            }
        }
    }
}
