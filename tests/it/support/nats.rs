//! A nats-server with JetStream, private to one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
};

use super::{
    child::{OwnChild, print_if_failing, read_log},
    port::Port,
    tools,
    wait::eventually,
};

const START_WITHIN: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The servers that Convoke promises to work with, at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsVersion {
    Oldest,
    Newest,
}

impl NatsVersion {
    pub const fn number(self) -> &'static str {
        match self {
            Self::Oldest => "2.10.25",
            Self::Newest => "2.15.1",
        }
    }
}

/// What differs from a server's defaults.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// The largest message, in bytes.
    pub max_payload: Option<u64>,
    /// What JetStream may keep on disk, in bytes.
    pub max_file_store: Option<u64>,
    /// Name and password of the only user.
    pub user: Option<(String, String)>,
    /// The only token.
    pub token: Option<String>,
    /// Whether it runs without JetStream, as it does unless it is configured otherwise.
    pub without_jetstream: bool,
    /// More text for the configuration file.
    pub config: String,
    /// The folder that the server's folder is made in; else the system's for temporary files.
    pub within: Option<PathBuf>,
}

/// A running, or stopped, server. Its port and its store stay the same through every restart.
#[derive(Debug)]
pub struct NatsServer {
    /// Read at each start: a change takes effect with [`Self::restart`].
    pub options: NatsOptions,
    version: NatsVersion,
    port: Port,
    folder: TempDir,
    child: Option<OwnChild>,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    pub async fn start(version: NatsVersion, options: NatsOptions) -> Self {
        let within = options.within.clone().unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new().prefix("convoke-nats-").tempdir_in(within).expect("a temporary folder");
        let mut server = Self { options, version, port: Port::lease(), folder, child: None };
        server.launch().await;
        server
    }

    /// Without credentials.
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// Its process id; 0 while it is stopped.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, OwnChild::id)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// A client with the credentials of [`NatsOptions`].
    pub async fn client(&self) -> async_nats::Client {
        let mut options = async_nats::ConnectOptions::new();
        if let Some((user, password)) = &self.options.user {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(token) = &self.options.token {
            options = options.token(token.clone());
        }
        options.connect(self.url()).await.expect("a running server takes connections")
    }

    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(self.client().await)
    }

    /// `SIGKILL`.
    pub async fn kill(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// To a server that runs.
    pub fn signal(&mut self, signal: Signal) {
        self.child.as_mut().expect("nats-server was started").signal(signal);
    }

    /// An orderly end.
    pub async fn stop(&mut self) {
        self.end(Signal::TERM).await;
    }

    /// Starts the server again, ending it first if it runs.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.launch().await;
    }

    /// Loses every stream, as a server does whose disk was replaced. Only for a server that is stopped.
    pub fn lose_store(&mut self) {
        assert!(self.child.is_none(), "a running server holds its store");
        let _ = fs::remove_dir_all(self.store());
    }

    /// A copy of the store, as a backup or a disk has it that was not synchronised since. Only for a server that is
    /// stopped.
    pub fn copy_store(&self) -> TempDir {
        assert!(self.child.is_none(), "a running server changes its store");
        let copy = tempfile::Builder::new().prefix("convoke-nats-").tempdir().expect("a temporary folder");
        tools::output_of(Command::new("cp").arg("-a").arg(self.store()).arg(copy.path().join("store")));
        copy
    }

    /// Goes back to a copy of the store. Only for a server that is stopped.
    pub fn restore_store(&mut self, copy: &TempDir) {
        self.lose_store();
        tools::output_of(Command::new("cp").arg("-a").arg(copy.path().join("store")).arg(self.store()));
    }

    pub fn log(&self) -> String {
        read_log(&self.log_file())
    }

    /// Where its store and its log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            child.signal(signal);
            child.wait_exit(STOP_WITHIN).await;
        }
    }

    async fn launch(&mut self) {
        let config = self.folder.path().join("nats.conf");
        fs::write(&config, self.config()).expect("the configuration can be written");
        let log = self.log_file();
        let mut command = Command::new(tools::nats_server(self.version));
        command.arg("--config").arg(&config);
        let child = self.child.insert(OwnChild::spawn("nats-server", &mut command, &log, &log));

        let address = self.port.address();
        let what = format!("nats-server {} answers", self.version.number());
        eventually(&what, START_WITHIN, async || {
            if let Some(status) = child.exited() {
                panic!("nats-server ended with {status}:\n{}", read_log(&log));
            }
            // The first thing a server says; its port opens after JetStream has read its store.
            let mut greeting = String::new();
            let read = BufReader::new(TcpStream::connect(address).await?).read_line(&mut greeting).await;
            let off = self.options.without_jetstream;
            read.map(|_| assert!(off || greeting.contains("\"jetstream\":true"), "no JetStream: {greeting}"))
        })
        .await;
    }

    fn config(&self) -> String {
        let mut config = format!("listen: \"{}\"\n", self.port.address());
        let limit = self.options.max_file_store.map(|bytes| format!(", max_file_store: {bytes}")).unwrap_or_default();
        if !self.options.without_jetstream {
            config += &format!("jetstream {{ store_dir: \"{}\"{limit} }}\n", self.store().display());
        }
        if let Some(bytes) = self.options.max_payload {
            config += &format!("max_payload: {bytes}\n");
        }
        if let Some((user, password)) = &self.options.user {
            config += &format!("authorization {{ user: \"{user}\", password: \"{password}\" }}\n");
        }
        if let Some(token) = &self.options.token {
            config += &format!("authorization {{ token: \"{token}\" }}\n");
        }
        config + self.options.config.as_str()
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("nats.log")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.child = None;
        print_if_failing("nats-server", &self.log_file());
    }
}
