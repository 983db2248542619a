//! A TCP proxy that takes the network away, between Convoke and its database, its bus, or those who deliver to it.

use std::{
    io,
    net::SocketAddr,
    sync::mpsc as blocking,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::port::Port;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Up,
    /// Whatever passes is late by so much.
    Slow(Duration),
    /// Connections are taken, bytes are not passed on.
    Stalled,
    /// Connections are reset and refused.
    Cut,
}

#[derive(Debug)]
enum Change {
    Network(Network),
    Upstream(SocketAddr),
}

type Order = (Change, blocking::Sender<()>);

/// A proxy on its own thread, so that a test which blocks its runtime does not block the network.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts to pass connections on to `upstream`, which need not be there yet.
    pub fn start(upstream: SocketAddr) -> Self {
        Self::balance(vec![upstream])
    }

    /// The same for several servers, which take turns; one that takes no connection is passed over.
    pub fn balance(upstreams: Vec<SocketAddr>) -> Self {
        let port = Port::lease();
        let address = port.address();
        let (orders, inbox) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run(address, upstreams, inbox));
        });
        let proxy = Self { port, orders: Some(orders), thread: Some(thread.expect("a thread")) };
        proxy.heal();
        proxy
    }

    /// Where to connect instead of the server.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Resets every connection and refuses new ones.
    pub fn cut(&self) {
        self.order(Network::Cut);
    }

    /// Accepts, and keeps what there is open, but passes no byte on, as a vanished peer or a silent firewall does.
    pub fn stall(&self) {
        self.order(Network::Stalled);
    }

    /// Passes everything on, but later, in both directions.
    pub fn slow(&self, by: Duration) {
        self.order(Network::Slow(by));
    }

    /// All is well again; what was held back while stalled is passed on.
    pub fn heal(&self) {
        self.order(Network::Up);
    }

    /// Sends new connections to another server. Those that are open stay where they are.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.change(Change::Upstream(upstream));
    }

    fn order(&self, network: Network) {
        self.change(Change::Network(network));
    }

    /// In force when this returns.
    fn change(&self, change: Change) {
        let (done, wait) = blocking::channel();
        self.orders.as_ref().and_then(|orders| orders.send((change, done)).ok()).expect("the proxy runs");
        wait.recv().expect("the proxy carries out an order");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the proxy at {} panicked", self.port.address());
        }
    }
}

async fn run(address: SocketAddr, mut upstreams: Vec<SocketAddr>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let (network, _) = watch::channel(Network::Cut);
    let mut listener = None;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = inbox.recv() => {
                let Some((wanted, done)) = order else { return };
                match wanted {
                    Change::Upstream(upstream) => upstreams = vec![upstream],
                    Change::Network(wanted) => {
                        network.send_replace(wanted);
                        if wanted == Network::Cut {
                            listener = None;
                            connections.shutdown().await;
                        } else if listener.is_none() {
                            listener = Some(TcpListener::bind(address).await.expect("the port is leased to us"));
                        }
                    }
                }
                let _ = done.send(());
            }
            Some(accepted) = accept(listener.as_ref()) => {
                if let Ok((downstream, _)) = accepted {
                    connections.spawn(pass_on(downstream, upstreams.clone(), network.subscribe()));
                    upstreams.rotate_left(1);
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    Some(listener?.accept().await)
}

/// One side of a connection. Unless both sides have ended it, the peer sees a reset and not a polite end.
struct Side {
    stream: TcpStream,
    ended: bool,
}

impl Side {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, ended: false })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// One connection, until both sides have ended it, one was reset, or the network is cut.
async fn pass_on(
    client: TcpStream,
    upstreams: Vec<SocketAddr>,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut client = Side::new(client)?;
    passing(&mut network).await?;
    let mut server = Side::new(TcpStream::connect(upstreams.as_slice()).await?)?;
    let (mut from_client, mut to_client) = client.stream.split();
    let (mut from_server, mut to_server) = server.stream.split();
    let mut other = network.clone();
    let up = pump(&mut from_client, &mut to_server, &mut network);
    let down = pump(&mut from_server, &mut to_client, &mut other);
    tokio::try_join!(up, down)?;
    (client.ended, server.ended) = (true, true);
    Ok(())
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    network: &mut watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        passing(network).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

async fn passing(network: &mut watch::Receiver<Network>) -> io::Result<()> {
    let passes = |network: &Network| matches!(network, Network::Up | Network::Slow(_));
    let now = *network.wait_for(passes).await.map_err(io::Error::other)?;
    if let Network::Slow(by) = now {
        tokio::time::sleep(by).await;
    }
    Ok(())
}
