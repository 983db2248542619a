//! A PostgreSQL cluster, private to one test, with its durable settings on.
//!
//! `initdb` takes a second, so it runs once per version and target folder; each test starts on a copy of that
//! template. PostgreSQL refuses to run as root: then it runs as `postgres`, or `nobody`.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::{
    fs::statvfs,
    process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid},
};
use tempfile::TempDir;

use super::{
    child::{OwnChild, print_if_failing, read_log},
    port::Port,
    tools::{self, output_of},
    wait::eventually,
};

const START_WITHIN: Duration = Duration::from_secs(20);
/// Followed by the id of the test's process.
const PREFIX: &str = "convoke-pg-";
/// Free memory that a few clusters at once do not fill, in bytes.
const PLENTY: u64 = 2 << 30;
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Server settings, such as `("max_connections", "5")`.
    pub settings: Vec<(String, String)>,
    /// The folder that the cluster's folder is made in, such as a small disk, or a real one for a benchmark. Else it
    /// is in memory if there is plenty: a crash of the server, the only one that a test can cause, loses nothing
    /// there, and a cluster is a thousand files, which some disks take a second to make.
    pub within: Option<PathBuf>,
}

/// A running, or stopped, cluster. Its port and its data stay the same through every restart.
#[derive(Debug)]
pub struct Postgres {
    /// Read at each start: a change of settings takes effect with [`Self::restart`].
    pub options: PostgresOptions,
    user: ServerUser,
    port: Port,
    folder: TempDir,
    child: Option<OwnChild>,
}

impl Postgres {
    /// Starts a cluster and waits until it takes connections.
    pub async fn start() -> Self {
        Self::start_with(PostgresOptions::default()).await
    }

    pub async fn start_with(options: PostgresOptions) -> Self {
        let user = ServerUser::find();
        let template = template(&user);
        let folder = user.folder(options.within.as_deref());
        copy(&template, &folder.path().join("data"));
        let mut postgres = Self { options, user, port: Port::lease(), folder, child: None };
        postgres.launch().await;
        postgres
    }

    /// A hot standby of this cluster, which receives what is written here from now on.
    pub async fn standby(&self) -> Self {
        let user = ServerUser::find();
        let folder = user.folder(self.options.within.as_deref());
        let mut backup = user.command("pg_basebackup", folder.path());
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "-X", "stream", "-c", "fast", "-R"]);
        backup.arg("-p").arg(self.port.number().to_string()).arg("-D").arg(folder.path().join("data"));
        output_of(&mut backup);
        let mut standby = Self { options: self.options.clone(), user, port: Port::lease(), folder, child: None };
        standby.launch().await;
        eventually("the standby receives what is written", START_WITHIN, async || {
            self.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
        })
        .await;
        standby
    }

    /// `pg_ctl promote`: when this returns, the standby takes writes.
    pub fn promote(&self) {
        let mut command = self.user.command("pg_ctl", self.folder.path());
        output_of(command.args(["promote", "-w", "-D"]).arg(self.data()));
    }

    /// The database `postgres`, as its superuser, who needs no password.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes another database and returns its URL.
    pub fn database(&self, name: &str) -> String {
        self.psql(&format!("CREATE DATABASE \"{name}\""));
        self.url_of(name)
    }

    /// The postmaster's process id; 0 while it is stopped.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, OwnChild::id)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// Runs SQL in the database `postgres`: see [`psql`].
    pub fn psql(&self, sql: &str) -> String {
        psql(&self.url(), sql)
    }

    /// A crash: `SIGKILL` to the postmaster and all of its processes, and they are gone when this returns.
    pub async fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        set_child_subreaper(Pid::from_raw(1)).expect("a process may reap its orphans");
        // Stopped, it starts no further one.
        let backends = stop_and_list(&mut child).await;
        child.kill();
        // They would end by themselves without their postmaster, but in their own time, and a new one waits for that.
        // Having outlived their parent they are ours to reap.
        for pid in backends {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }

    /// `SIGSTOP` to all of its processes: connections stay open, and nothing happens on them.
    pub async fn freeze(&mut self) {
        let Some(child) = &mut self.child else { return };
        for pid in stop_and_list(child).await {
            // One that has ended meanwhile is not there to be stopped.
            let _ = kill_process(pid, Signal::STOP);
        }
    }

    /// Ends [`Self::freeze`].
    pub fn thaw(&mut self) {
        let Some(child) = &mut self.child else { return };
        for pid in processes_of(child) {
            let _ = kill_process(pid, Signal::CONT);
        }
        child.signal(Signal::CONT);
    }

    /// An immediate shutdown: connections are closed, nothing is written, recovery follows.
    pub async fn stop_immediate(&mut self) {
        self.end(Signal::QUIT).await;
    }

    /// A fast shutdown: connections are ended, everything is written.
    pub async fn stop_fast(&mut self) {
        self.end(Signal::INT).await;
    }

    /// Starts the cluster again, ending it first if it runs.
    pub async fn restart(&mut self) {
        self.stop_fast().await;
        self.launch().await;
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Makes the server's user the owner of a folder and of all in it.
    pub fn give(&self, folder: &Path) {
        if let Some((uid, gid)) = self.user.instead_of_root {
            output_of(Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(folder));
        }
    }

    pub fn log(&self) -> String {
        read_log(&self.log_file())
    }

    /// Where its data and its log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.port.address())
    }

    async fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            child.signal(signal);
            child.wait_exit(STOP_WITHIN).await;
        }
    }

    async fn launch(&mut self) {
        let log = self.log_file();
        let mut command = self.user.command("postgres", self.folder.path());
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.number().to_string());
        command.arg("-k").arg(self.folder.path()).args(["-c", "listen_addresses=127.0.0.1"]);
        for durable in ["fsync", "synchronous_commit", "full_page_writes"] {
            command.arg("-c").arg(format!("{durable}=on"));
        }
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let pid_file = self.data().join("postmaster.pid");
        let child = self.child.insert(OwnChild::spawn("postgres", &mut command, &log, &log));

        eventually("PostgreSQL takes connections", START_WITHIN, async || {
            if let Some(status) = child.exited() {
                panic!("PostgreSQL ended with {status}:\n{}", read_log(&log));
            }
            // What pg_ctl goes by: the server's id in the first line, how far it is in the eighth.
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(&child.id().to_string()) && lines.nth(6).is_some_and(|line| line.trim() == "ready")
        })
        .await;
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // An immediate shutdown, so that it takes its shared memory along; it needs milliseconds.
            child.signal(Signal::QUIT);
            let ended = (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                child.exited().is_some()
            });
            if !ended {
                eprintln!("PostgreSQL did not end within a second of SIGQUIT and is killed");
            }
        }
        self.child = None;
        // What a killed one left behind: segments that outlive their processes are few.
        let left = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        if let Some(segment) = left.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").arg("-m").arg(segment).output();
        }
        print_if_failing("PostgreSQL", &self.log_file());
    }
}

/// Stops the postmaster, and returns its processes.
async fn stop_and_list(postmaster: &mut OwnChild) -> Vec<Pid> {
    postmaster.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", postmaster.id());
    eventually("the postmaster stands still", STOP_WITHIN, async || {
        let stat = fs::read_to_string(&stat).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['T', 'Z']))
    })
    .await;
    processes_of(postmaster)
}

fn processes_of(postmaster: &OwnChild) -> Vec<Pid> {
    let id = postmaster.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Runs SQL as an analyst would and returns what `psql` prints, unaligned and without headers; panics on an error.
pub fn psql(url: &str, sql: &str) -> String {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]);
    output_of(&mut command).trim_end().to_owned()
}

/// Who the server runs as, and its programs.
#[derive(Debug)]
struct ServerUser {
    bin: PathBuf,
    /// Set when we are root: the user and group to become.
    instead_of_root: Option<(u32, u32)>,
}

impl ServerUser {
    fn find() -> Self {
        let instead_of_root = rustix::process::geteuid().is_root().then(|| {
            let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
            let ids = |name: &str| {
                let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
                let mut fields = line.split(':').skip(2).map(str::parse);
                Some((fields.next()?.ok()?, fields.next()?.ok()?))
            };
            ids("postgres").or_else(|| ids("nobody")).expect("a user postgres or nobody, as PostgreSQL refuses root")
        });
        Self { bin: tools::postgres_bin(), instead_of_root }
    }

    /// A temporary folder that this user owns; others may pass through it, but not list it.
    fn folder(&self, within: Option<&Path>) -> TempDir {
        let parent = within.map_or_else(roomy_folder, Path::to_owned);
        remove_leftovers(&parent);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("our own folder");
        if let Some((uid, gid)) = self.instead_of_root {
            chown(folder.path(), Some(uid), Some(gid)).expect("root may give a folder away");
        }
        folder
    }

    /// One of PostgreSQL's programs, run as this user in a folder that it may enter.
    fn command(&self, program: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(folder).env_clear().env("TZ", "UTC").env("LC_ALL", "C");
        if let Some((uid, gid)) = self.instead_of_root {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn roomy_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let roomy = statvfs(memory).is_ok_and(|disk| disk.f_bavail * disk.f_frsize >= PLENTY);
    if roomy { memory.to_owned() } else { std::env::temp_dir() }
}

/// Removes what a test left that was killed before it could.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The cluster that each test's is a copy of; made by the first test that needs it.
fn template(user: &ServerUser) -> PathBuf {
    let version = output_of(Command::new(user.bin.join("postgres")).arg("--version"));
    let version = version.split_whitespace().nth(2).expect("'postgres (PostgreSQL) 15.1'").to_owned();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let template = target.join(format!("pg-template-{version}"));

    let lock = File::create(target.join("pg-template.lock")).expect("the target folder can be written");
    lock.lock().expect("a lock on a file of ours");
    if !template.exists() {
        // Made where the server's user may write, then moved in under its final name when it is whole.
        let folder = user.folder(None);
        let fresh = folder.path().join("fresh");
        let mut initdb = user.command("initdb", folder.path());
        initdb.arg("-D").arg(&fresh).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
        output_of(&mut initdb);
        let unfinished = target.join("pg-template.unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        copy(&fresh, &unfinished);
        fs::rename(&unfinished, &template).expect("a rename within the target folder");
    }
    template
}

/// Keeps owners and permissions, on which PostgreSQL insists.
fn copy(from: &Path, to: &Path) {
    output_of(Command::new("cp").arg("-a").arg(from).arg(to));
}
