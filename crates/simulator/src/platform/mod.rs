//! The platform's REST API, played: a server with a memory, for tests and for people without a contract.
//!
//! It authenticates, keeps subscriptions and enables them by a real handshake, keeps the history of what the simulated
//! enterprise did (or of what a test made up), throttles, and goes wrong on purpose. It is built from the platform's manual and from
//! nothing else but the manufacturer's own SDKs: every answer names the section that it follows, and says where the manual leaves it
//! open. What manual and SDKs differ in is accepted in both ways.
//!
//! ```no_run
//! # async fn test() -> Result<(), convoke_simulator::Error> {
//! use convoke_core::time::Millis;
//! use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Refusal, Run};
//!
//! let mut options = PlatformOptions::new("an-app-id", "its-key".into());
//! options.limit = 1_000;                       // calls a minute, per call; what it is, the headers say
//! let platform = Platform::start(options).await?;
//! let url = platform.url();                    // http://127.0.0.1:PORT, for platform.url
//!
//! // A history: from a simulation, with `Simulation { chronicle: Some(platform.chronicle()), .. }`, or made up.
//! let first = Millis::new(1_735_700_000_000).unwrap();
//! platform.edit(|archive| {
//!     for run in Run::made_up(first, std::time::Duration::from_secs(8), 10_000, 20) {
//!         archive.put(run);
//!     }
//! });
//!
//! // From the third call of the history on, two answers are 503; then the list changes under the reader.
//! platform.inject_after(Call::History, 2, Fault::Refuse(Refusal::UPGRADING), 2);
//! platform.inject(Call::History, Fault::edit(|archive| drop(archive.remove("…"))), 1);
//!
//! // What the client did:
//! assert_eq!(platform.count(Call::Authenticate), 0);
//! assert!(platform.subscription().is_none());  // whatever was set, whether or not it is enabled
//! platform.stop().await;
//! # Ok(()) }
//! ```
//!
//! Deviations from the platform, all stated where they are made: it speaks `http`, takes a callback URL with `http` on this machine,
//! and a minute, an hour's lock or a token's life may be shorter.

mod archive;
mod chronicle;
mod directory;
mod gateway;
mod lists;
mod live;
mod memory;
mod options;
mod records;
mod refusal;
mod request;
mod serve;
mod sockets;
mod statistics;
mod subscriptions;
mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Error;
pub use archive::{Archive, Invited, Recorded, Run, State, Stay};
pub use chronicle::Chronicle;
pub use gateway::Fault;
pub use live::{Room, host_password};
use memory::Shared;
pub use options::PlatformOptions;
pub use refusal::Refusal;
pub use request::Call;
pub use subscriptions::Subscribed;

/// The platform, while it runs; dropping it ends it.
#[derive(Debug)]
pub struct Platform {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinSet<()>,
}

impl Platform {
    /// Listens, and answers from now on.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(options: PlatformOptions) -> Result<Self, Error> {
        let address = options.listen;
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut socket_url = format!("ws://{address}");
        let mut secure = None;
        if let Some(files) = &options.socket_tls {
            let listener = TcpListener::bind((address.ip(), 0)).await.map_err(failed)?;
            socket_url = format!("wss://{}", listener.local_addr().map_err(failed)?);
            secure = Some((listener, serve::acceptor(files).map_err(failed)?));
        }
        let shared = Arc::new(Shared {
            options,
            state: Mutex::default(),
            ahead: AtomicI64::new(0),
            socket_url,
            enabled: watch::Sender::new(()),
        });
        let mut server = JoinSet::new();
        server.spawn(serve::serve(listener, None, Arc::clone(&shared)));
        if let Some((listener, acceptor)) = secure {
            server.spawn(serve::serve(listener, Some(acceptor), Arc::clone(&shared)));
        }
        Ok(Self { shared, address, server })
    }

    /// Where it is: `http://ADDRESS`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often each call was made, whatever came of it.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        self.shared.state().gateway.calls()
    }

    /// How often this call was made.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.calls().get(&call).copied().unwrap_or(0)
    }

    /// Lets the next `times` of `call` go wrong. Plans for one call follow one another.
    pub fn inject(&self, call: Call, fault: Fault, times: u64) {
        self.inject_after(call, 0, fault, times);
    }

    /// The same, after `after` calls that go well.
    pub fn inject_after(&self, call: Call, after: u64, fault: Fault, times: u64) {
        self.shared.state().gateway.plan(call, fault, after, times);
    }

    /// Reads or changes what is remembered of meetings.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Archive) -> T) -> T {
        change(&mut self.shared.state().archive)
    }

    /// Plays what happens in a running meeting, by its number.
    pub fn in_meeting<T>(&self, number: &str, change: impl FnOnce(&mut Room) -> T) -> T {
        let now = self.shared.now();
        change(self.shared.state().live.room(number, now))
    }

    /// For a [`super::Simulation`], whose world becomes history here.
    #[must_use]
    pub fn chronicle(&self) -> Chronicle {
        Chronicle(Arc::clone(&self.shared))
    }

    /// How many tokens are valid now, of all users.
    #[must_use]
    pub fn tokens(&self) -> usize {
        let now = self.shared.now();
        self.shared.state().tokens.valid(now)
    }

    /// All tokens expire: using one is answered with 400.
    pub fn expire_tokens(&self) {
        let now = self.shared.now();
        self.shared.state().tokens.expire(now);
    }

    /// No token is known any more: using one is answered with 401.
    pub fn forget_tokens(&self) {
        self.shared.state().tokens.forget();
    }

    /// Puts the platform's clock, which `Date` shows and signatures are judged by, ahead of ours, or behind.
    pub fn set_ahead(&self, by_ms: i64) {
        self.shared.ahead.store(by_ms, Ordering::Relaxed);
    }

    /// The subscription, whatever its state.
    #[must_use]
    pub fn subscription(&self) -> Option<Subscribed> {
        self.shared.state().subscriptions.any()
    }

    /// Waits until a subscription is enabled.
    pub async fn enabled(&self) -> Subscribed {
        let mut changes = self.shared.enabled.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(enabled) = self.shared.state().subscriptions.enabled() {
                return enabled;
            }
            if changes.changed().await.is_err() {
                // Its sender is `self`'s.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends it, and every connection with it.
    pub async fn stop(mut self) {
        self.server.shutdown().await;
    }
}
