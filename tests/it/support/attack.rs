//! Those who want a receiver to stop receiving. Each goes on until it is dropped, and starts over when it is cut off.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use convoke_core::sign;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

use super::http2;

/// What they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connections, opened and left alone.
    Idle,
    /// Connections, opened and closed, as fast as it goes.
    Churn,
    /// Heads of requests, a header now and then.
    SlowHeads,
    /// Bodies of requests, a byte now and then after much at once.
    SlowBodies,
    /// Many requests, whose answers are not read.
    SlowReading,
    /// Events with a wrong signature, as fast as they are answered.
    Forgeries,
    /// Bodies far over the limit, as fast as they are taken.
    HugeBodies,
    /// Requests of HTTP/2, cancelled as soon as they are sent.
    Cancelled,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::Churn,
        Self::SlowHeads,
        Self::SlowBodies,
        Self::SlowReading,
        Self::Forgeries,
        Self::HugeBodies,
        Self::Cancelled,
    ];

    /// Whether it is the number of connections that does it, not what is done on each.
    pub const fn is_of_many(self) -> bool {
        matches!(self, Self::Idle | Self::Churn | Self::SlowHeads | Self::SlowBodies)
    }
}

/// An attack under way.
#[derive(Debug)]
pub struct Attack {
    _tasks: JoinSet<()>,
    blows: Arc<AtomicU64>,
}

/// Whom it is against: a listener, its path, and a subscriber of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub events: SocketAddr,
    pub path: &'static str,
    pub app_id: &'static str,
}

/// How long slow ones wait between two steps.
const STEP: Duration = Duration::from_millis(200);

impl Attack {
    /// So many of them at once.
    pub fn start(kind: Kind, target: Target, many: usize) -> Self {
        let mut tasks = JoinSet::new();
        let blows = Arc::new(AtomicU64::new(0));
        for _ in 0..many {
            let blows = Arc::clone(&blows);
            tasks.spawn(async move {
                loop {
                    // That it is refused or cut off is what an attacker lives with.
                    if attack(kind, target, &blows).await.is_err() {
                        sleep(Duration::from_millis(5)).await;
                    }
                }
            });
        }
        Self { _tasks: tasks, blows }
    }

    /// Connections, requests or pieces so far, whatever this kind is made of.
    pub fn blows(&self) -> u64 {
        self.blows.load(Ordering::Relaxed)
    }
}

/// Lets this process have as many open files as it may.
pub fn many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a soft limit may be raised");
}

/// A connection from one of many addresses, as from many machines: one address has 28,000 ports, and those of closed
/// connections are taken for a minute, from who attacks as from who does not.
async fn connect(events: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [_, b, c, d] = rand::random::<[u8; 4]>();
    socket.bind(SocketAddr::from(([127, b | 1, c, d.clamp(1, 254)], 0)))?;
    socket.connect(events).await
}

async fn attack(kind: Kind, target: Target, blows: &AtomicU64) -> std::io::Result<()> {
    let Target { events, path, .. } = target;
    let blow = || blows.fetch_add(1, Ordering::Relaxed);
    match kind {
        Kind::Idle => {
            let mut stream = connect(events).await?;
            blow();
            stream.read_exact(&mut [0]).await?;
        }
        Kind::Churn => {
            connect(events).await?;
            blow();
        }
        Kind::SlowHeads => {
            let mut stream = connect(events).await?;
            stream.write_all(format!("POST {path} HTTP/1.1\r\nHost: h\r\n").as_bytes()).await?;
            loop {
                blow();
                sleep(STEP).await;
                stream.write_all(b"X: y\r\n").await?;
            }
        }
        Kind::SlowBodies => {
            let mut stream = connect(events).await?;
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 260000\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&vec![b' '; 200_000]).await?;
            loop {
                blow();
                sleep(STEP).await;
                stream.write_all(b" ").await?;
            }
        }
        Kind::SlowReading => {
            let socket = TcpSocket::new_v4()?;
            // So that not much fits on the way.
            socket.set_recv_buffer_size(4096)?;
            let mut stream = socket.connect(events).await?;
            let requests = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
            loop {
                blow();
                stream.write_all(&requests).await?;
            }
        }
        Kind::Forgeries => {
            let mut stream = connect(events).await?;
            let info = r#"{"event":"meeting.join","timestamp":1790000000000,"payload":{"meetingInfo":{"meetingID":"987446316","meetingUUID":"0f0e0d0c0b0a09080706050403020100"},"attendeeInfo":{"displayName":"王小明","role":"CHAIR","callNumber":"+8657100000001"}}}"#;
            let body = sign::envelope(target.app_id, 1_790_000_000_000, "12345678", info.as_bytes(), b"a wrong key");
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
            let request = [head.as_bytes(), &body].concat();
            let mut answer = [0; 2048];
            loop {
                blow();
                stream.write_all(&request).await?;
                if stream.read(&mut answer).await? == 0 {
                    return Ok(());
                }
            }
        }
        Kind::HugeBodies => {
            let mut stream = connect(events).await?;
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 8 << 20);
            stream.write_all(head.as_bytes()).await?;
            let piece = vec![b' '; 64 << 10];
            for _ in 0..128 {
                blow();
                stream.write_all(&piece).await?;
            }
            stream.read_exact(&mut [0; 12]).await?;
        }
        Kind::Cancelled => {
            let mut stream = connect(events).await?;
            stream.write_all(http2::PREFACE).await?;
            let (mut reading, mut writing) = stream.split();
            let mut id = 1_u32;
            let write = async {
                loop {
                    let mut burst = Vec::new();
                    for _ in 0..50 {
                        let head = http2::frame(http2::HEADERS, http2::END_HEADERS, id, &http2::post(path));
                        burst.extend(head);
                        burst.extend(http2::frame(http2::RST_STREAM, 0, id, &8_u32.to_be_bytes()));
                        id += 2;
                    }
                    blow();
                    writing.write_all(&burst).await?;
                }
            };
            let read = async {
                let mut rest = vec![0; 16 << 10];
                while reading.read(&mut rest).await? > 0 {}
                Ok(())
            };
            return tokio::select! { ended = write => ended, ended = read => ended };
        }
    }
    Ok(())
}
