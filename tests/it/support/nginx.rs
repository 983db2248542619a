//! An nginx before Convoke, private to one test.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    child::{OwnChild, print_if_failing},
    port::Port,
    tools,
    wait::eventually,
};

const START_WITHIN: Duration = Duration::from_secs(15);

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    port: Port,
    folder: TempDir,
    child: Option<OwnChild>,
}

impl Nginx {
    /// Starts one that does what `configured` says of the address at which it listens: the content of the block `http`.
    pub async fn start(configured: impl FnOnce(SocketAddr) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("convoke-nginx-").tempdir().expect("a temporary folder");
        let port = Port::lease();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {};", at(what)))
            .join("\n");
        let text = format!(
            "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\n{}\n}}\n",
            at("nginx.pid"),
            configured(port.address())
        );
        let (config, log) = (folder.path().join("nginx.conf"), folder.path().join("nginx.log"));
        fs::write(&config, text).expect("the configuration can be written");
        let mut command = Command::new(tools::nginx());
        command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&config);
        let mut child = OwnChild::spawn("nginx", &mut command, &log, &log);
        eventually("nginx takes connections", START_WITHIN, async || {
            assert_eq!(child.exited(), None, "nginx ended");
            TcpStream::connect(port.address()).await
        })
        .await;
        Self { port, folder, child: Some(child) }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("nginx.log")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child = None;
        print_if_failing("nginx", &self.log_file());
    }
}
