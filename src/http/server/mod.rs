//! The server behind both listeners: accepting, TLS, eviction when there are too many connections, limits on heads and bodies,
//! and graceful shutdown.

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
use axum::extract::Request;
use axum::response::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub use body::{Announced, BODY_TIMEOUT, Bodies, NoBody, drain, drain_request};
pub use connection::{Connection, source};
pub use connections::{Connections, room_by_descriptors};
pub use failures::Failures;
pub use request_id::RequestId;
pub use source::ClientSources;
pub use tls::{CertificateWatch, Certificates, TlsError, Trouble};

/// Maximum number of connections that the kernel has completed and the service has not accepted yet.
pub const BACKLOG: u32 = 4096;

/// The pause after a failed accept: the process may have no descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Whether a shutdown is near. It is read with every request, so it is not a cancellation token: those take a lock.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<AtomicBool>);

impl Closing {
    /// Announces the shutdown.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a shutdown was announced.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The three steps of a shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// A shutdown is near: the service is not ready any more, and responses close their connections.
    pub closing: Closing,
    /// No new connections are accepted; requests under way are finished.
    pub stop: CancellationToken,
    /// Requests under way are cut off.
    pub force: CancellationToken,
}

/// The limits of a listener, its certificate, and where it reports failures.
#[derive(Debug)]
pub struct ListenerOptions {
    /// How long a connection may be idle after a request, or may leave its responses unread.
    pub idle: Duration,
    /// Maximum size of a request head in bytes; a larger one gets `431` with an explanation.
    pub head: usize,
    /// Maximum number of headers in an HTTP/1 request.
    pub headers: usize,
    /// Size of the read buffer of an HTTP/1 connection, so that a head larger than the limit can still be read and explained.
    pub read: usize,
    /// The certificate; `None`: plain HTTP.
    pub tls: Option<tls::Certificates>,
    /// Where connections that bring no request are reported.
    pub failures: Failures,
    /// Which sources may post, and which proxies are trusted to name them.
    pub sources: ClientSources,
}

impl ListenerOptions {
    /// For the events listener: many machines post here at once, and each head takes memory.
    #[must_use]
    pub const fn events(
        idle: Duration,
        tls: Option<tls::Certificates>,
        failures: Failures,
        sources: ClientSources,
    ) -> Self {
        Self { idle, head: 16 << 10, headers: 64, read: 16 << 10, tls, failures, sources }
    }

    /// For the admin listener: browsers come here, with the cookies of every application on the same host.
    #[must_use]
    pub const fn admin(idle: Duration, failures: Failures, sources: ClientSources) -> Self {
        Self { idle, head: 32 << 10, headers: 256, read: 128 << 10, tls: None, failures, sources }
    }
}

/// Answers the requests of a listener.
pub trait Respond: Clone + Send + Sync + 'static {
    /// The answer to one request.
    fn respond(self, request: Request) -> impl Future<Output = Response> + Send;
}

impl Respond for Router {
    async fn respond(self, request: Request) -> Response {
        self.oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// Serves `routes` on `listener` until `shutdown.stop`, then finishes the requests under way; cuts them off at `shutdown.force`.
pub async fn serve(
    listener: TcpListener,
    options: ListenerOptions,
    routes: impl Respond,
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
                // The connection ended before it was accepted, or there are no descriptors left.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let admitted = tokio::select! {
            admitted = connections.admit(peer) => admitted,
            () = shutdown.stop.cancelled() => break,
        };
        let (routes, options, shutdown) = (routes.clone(), Arc::clone(&options), shutdown.clone());
        tasks.spawn(async move {
            let (this, force) = (&admitted.connection, shutdown.force.clone());
            tokio::select! {
                () = connection(stream, this, &options, routes, shutdown) => {}
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
    routes: impl Respond,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set_nodelay");
    }
    match &options.tls {
        None => requests::serve(stream, this, options, routes, shutdown).await,
        Some(certificates) => {
            let shaken = tokio::select! {
                shaken = options.failures.handshake(certificates.acceptor(), stream, this.peer()) => shaken,
                () = shutdown.stop.cancelled() => return,
            };
            if let Some(stream) = shaken {
                requests::serve(stream, this, options, routes, shutdown).await;
            }
        }
    }
}
