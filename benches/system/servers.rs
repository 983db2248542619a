//! The servers that are measured: the service as it is shipped, and those it is compared with, each in its own process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::child::{OwnChild, read_log};
use crate::support::nats::{NatsOptions, NatsServer, NatsVersion};
use crate::support::port::Port;
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::tools::output_of;

pub const APP_ID: &str = "1988692299";
pub const KEY: &str = "benchmark-Key-1";
/// The credentials of the simulated platform's API.
pub const API_APP: &str = "0123456789abcdef0123456789abcdef";
pub const API_KEY: &str = "DemoAppKeyDemoAppKeyDemoAppKey01";
pub const PATH: &str = "/openapi/meetingevent";

const READY_WITHIN: Duration = Duration::from_secs(30);

/// Where all data is kept during the measurements: on the disk of the target folder, never in memory.
pub fn disk() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Starts the PostgreSQL cluster for all databases, with durable settings.
pub async fn postgres() -> Postgres {
    Postgres::start_with(PostgresOptions { within: Some(disk().to_owned()), ..PostgresOptions::default() }).await
}

/// Starts a nats-server with an empty file store.
pub async fn nats() -> NatsServer {
    let options = NatsOptions { within: Some(disk().to_owned()), ..NatsOptions::default() };
    NatsServer::start(NatsVersion::Newest, options).await
}

/// The database of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// A server that accepts events. Its data survives restarts.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    folder: TempDir,
    ports: [Port; 2],
    /// Its certificate, if it uses TLS.
    tls: Option<PathBuf>,
    child: Option<OwnChild>,
}

impl Server {
    /// The service on a database; `nats` is the URL of the bus, if there is one.
    pub fn convoke(program: &Path, database_url: Option<String>, nats: Option<String>) -> Self {
        let mut server = Self::new(program.to_owned(), vec!["serve".to_owned()]);
        let database = database_url.unwrap_or_else(|| server.sqlite_url());
        server.set("DATABASE_URL", database);
        server.set("NATS_URL", nats.unwrap_or_else(|| "none".to_owned()));
        server
    }

    /// One of the servers in `child`, run by this program itself.
    pub fn child(which: &str, database_url: Option<String>, nats: Option<String>) -> Self {
        let program = std::env::current_exe().expect("this program's path");
        let mut server = Self::new(program, vec!["--child".to_owned(), which.to_owned()]);
        server.set("DATABASE_URL", database_url.unwrap_or_default());
        server.set("NATS_URL", nats.unwrap_or_default());
        server
    }

    fn new(program: PathBuf, arguments: Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-bench-").tempdir_in(disk()).expect("a temporary folder");
        let ports = [Port::lease(), Port::lease()];
        let mut server = Self { program, arguments, settings: Vec::new(), folder, ports, tls: None, child: None };
        server.set("LISTEN", server.events().to_string());
        server.set("ADMIN_LISTEN", server.ports[1].address().to_string());
        server.set("APP_ID", APP_ID.to_owned());
        server.set("APP_KEY", KEY.to_owned());
        server.set("SHUTDOWN_DELAY", "0s".to_owned());
        server
    }

    /// The database in its folder.
    pub fn sqlite_url(&self) -> String {
        format!("sqlite://{}", self.folder.path().join("convoke.db").display())
    }

    /// Sets `CONVOKE_{name}`, effective from the next start.
    pub fn set(&mut self, name: &str, value: String) {
        self.settings.retain(|(set, _)| set != name);
        self.settings.push((name.to_owned(), value));
    }

    /// Starts it, and returns how long it took until it could store an event.
    pub async fn start(&mut self) -> Duration {
        let log = self.folder.path().join("log");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(self.folder.path()).env_clear();
        command.envs(self.settings.iter().map(|(name, value)| (format!("CONVOKE_{name}"), value)));
        let started = Instant::now();
        let child = OwnChild::spawn("the server", &mut command, &log, &log);
        self.child = Some(child);
        while !self.ready().await {
            let ended = self.child.as_mut().and_then(OwnChild::exited);
            assert!(ended.is_none() && started.elapsed() < READY_WITHIN, "not ready:\n{}", read_log(&log));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.elapsed()
    }

    /// The address of `/readyz`. The comparison servers have only one listener.
    fn ready_at(&self) -> SocketAddr {
        if self.tls.is_some() { self.ports[1].address() } else { self.events() }
    }

    async fn ready(&self) -> bool {
        get(self.ready_at(), "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The value of one of the service's metrics, by its name in the exposition.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = get(self.ports[1].address(), "/metrics").await.expect("the service's metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("there is no metric {name}"))
    }

    /// The URL of its database.
    pub fn database_url(&self) -> &str {
        self.settings.iter().find(|(name, _)| name == "DATABASE_URL").map_or("", |(_, url)| url)
    }

    /// Makes it use TLS from the next start on, with a self-signed certificate.
    pub fn use_tls(&mut self) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let (certificate, key) = (at("cert.pem"), at("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=convoke-bench", "-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", &certificate, "-keyout", &key]);
        output_of(&mut openssl);
        self.tls = Some(PathBuf::from(&certificate));
        self.set("TLS_CERT", certificate);
        self.set("TLS_KEY", key);
    }

    /// The certificate to verify it with, if it uses TLS.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.tls.clone()
    }

    /// Stops it in an orderly way.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::TERM);
            child.wait_exit(Duration::from_secs(30)).await;
        }
    }

    pub fn events(&self) -> SocketAddr {
        self.ports[0].address()
    }

    pub fn admin(&self) -> SocketAddr {
        self.ports[1].address()
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{PATH}", self.events())
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, OwnChild::id)
    }
}

/// A complete response.
async fn get(from: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(from).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
