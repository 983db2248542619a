//! A pgbouncer before a PostgreSQL, private to one test.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    child::{OwnChild, print_if_failing, read_log},
    port::Port,
    tools,
    wait::eventually,
};

const START_WITHIN: Duration = Duration::from_secs(10);

/// A running pooler.
#[derive(Debug)]
pub struct PgBouncer {
    port: Port,
    folder: TempDir,
    child: Option<OwnChild>,
}

impl PgBouncer {
    /// Starts a pooler before the PostgreSQL at `server` as its package configures it, but for this `pool_mode` and these
    /// more lines of its section `pgbouncer`.
    pub async fn start(server: SocketAddr, pool_mode: &str, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-pgbouncer-").tempdir().expect("a temporary folder");
        let port = Port::lease();
        let config = folder.path().join("pgbouncer.ini");
        let (host, server, listen) = (server.ip(), server.port(), port.number());
        let text = format!(
            "[databases]\n* = host={host} port={server} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {pool_mode}\n{more}\n"
        );
        fs::write(&config, text).expect("the configuration can be written");
        let log = folder.path().join("pgbouncer.log");
        let mut command = Command::new(tools::pgbouncer());
        // It refuses to be root; started as root it becomes another user.
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let mut child = OwnChild::spawn("pgbouncer", command.arg(&config), &log, &log);
        eventually("pgbouncer takes connections", START_WITHIN, async || {
            assert_eq!(child.exited(), None, "pgbouncer ended");
            TcpStream::connect(port.address()).await
        })
        .await;
        Self { port, folder, child: Some(child) }
    }

    pub fn log(&self) -> String {
        read_log(&self.log_file())
    }

    /// The database `postgres` behind it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.port.address())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("pgbouncer.log")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.child = None;
        print_if_failing("pgbouncer", &self.log_file());
    }
}
