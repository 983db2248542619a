//! The real Convoke, as a process.

use std::{
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    child::{OwnChild, print_if_failing, read_log},
    http,
    port::Port,
    wait::eventually,
};

const START_WITHIN: Duration = Duration::from_secs(10);
pub const RUN_WITHIN: Duration = Duration::from_secs(60);

/// How to start Convoke. Nothing is inherited from the test's own environment but `PATH`.
#[derive(Debug, Clone)]
pub struct ConvokeBuilder {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

impl ConvokeBuilder {
    /// One more argument; they begin with the command, `serve` unless it is another.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// A setting by its name in the table of settings, without `CONVOKE_`, such as `DATABASE_URL`.
    pub fn setting(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env(&format!("CONVOKE_{name}"), value)
    }

    /// Any variable; a later value replaces an earlier one.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Another program in Convoke's place.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Starts the service on two free ports and waits until both listeners are announced; that they are bound says
    /// nothing about the database: see [`Convoke::wait_ready`].
    pub async fn start(self) -> Convoke {
        let folder = tempfile::Builder::new().prefix("convoke-it-").tempdir().expect("a temporary folder");
        let (events_port, admin_port) = (Port::lease(), Port::lease());
        let (events, admin) = (events_port.address(), admin_port.address());
        let mut convoke =
            Convoke { builder: self, folder, _ports: [events_port, admin_port], events, admin, child: None };
        convoke.launch().await;
        convoke
    }

    /// Runs one command to its end, in a folder of its own.
    pub async fn run(self) -> Finished {
        let folder = tempfile::Builder::new().prefix("convoke-it-").tempdir().expect("a temporary folder");
        self.run_in(folder.path(), &self.arguments).await
    }

    fn command(&self, folder: &Path, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    async fn run_in(&self, folder: &Path, arguments: &[OsString]) -> Finished {
        let outputs = tempfile::tempdir().expect("a temporary folder");
        let (stdout, stderr) = (outputs.path().join("stdout"), outputs.path().join("stderr"));
        let mut child = OwnChild::spawn("convoke", &mut self.command(folder, arguments), &stdout, &stderr);
        let status = child.wait_exit(RUN_WITHIN).await;
        Finished { status, stdout: read_log(&stdout), stderr: read_log(&stderr) }
    }
}

/// A command that ran to its end.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The exit status; panics if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("convoke ended by a signal: {self:?}"))
    }
}

/// Runs `convoke` with these arguments and variables (by their full names) to its end.
pub async fn run_convoke(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let builder = arguments.iter().fold(Convoke::builder(), |builder, argument| builder.arg(argument));
    environment.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).run().await
}

/// A running, or ended, service. Its ports, its folder and its settings stay the same through every restart.
#[derive(Debug)]
pub struct Convoke {
    /// The address of the events listener, as announced.
    pub events: SocketAddr,
    /// The address of the admin listener, as announced.
    pub admin: SocketAddr,
    builder: ConvokeBuilder,
    folder: TempDir,
    _ports: [Port; 2],
    child: Option<OwnChild>,
}

impl Convoke {
    pub fn builder() -> ConvokeBuilder {
        ConvokeBuilder {
            program: PathBuf::from(env!("CARGO_BIN_EXE_convoke")),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Its working directory, where `convoke.db` is unless a setting says otherwise.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until an event could be stored.
    pub async fn wait_ready(&self, within: Duration) {
        let url = format!("http://{}/readyz", self.admin);
        eventually("convoke is ready", within, async || match http::try_get(&url).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// The id of the process that runs.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("convoke was started").id()
    }

    pub fn signal(&mut self, signal: Signal) {
        self.running().signal(signal);
    }

    /// `SIGKILL`.
    pub async fn kill(&mut self) {
        self.running().kill();
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.running().exited()
    }

    /// Waits for the end of the process, however it comes about.
    pub async fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        self.running().wait_exit(within).await
    }

    /// Kills it if it still runs, and starts it again.
    pub async fn restart(&mut self) {
        self.child = None;
        self.launch().await;
    }

    /// Runs another command beside the service, in its folder and with its settings.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let mut builder = self.builder.clone();
        // Where a command that asks the service finds it; what the test has set itself wins.
        if !builder.environment.iter().any(|(set, _)| set == "CONVOKE_ADMIN_LISTEN") {
            builder = builder.setting("ADMIN_LISTEN", self.admin.to_string());
        }
        builder.run_in(self.folder(), &arguments).await
    }

    pub fn stdout(&self) -> String {
        read_log(&self.folder.path().join("stdout.log"))
    }

    /// Its log, over all of its starts: all that it said until now.
    pub fn logs(&self) -> String {
        self.written();
        read_log(&self.stderr_file())
    }

    /// Waits until the thread that writes the log has nothing to do: it sleeps, or the process has ended. Whoever gives it a
    /// line wakes it before going on.
    fn written(&self) {
        let Some(child) = &self.child else { return };
        let threads = format!("/proc/{}/task", child.id());
        let read = |thread: &Path, what: &str| std::fs::read_to_string(thread.join(what)).unwrap_or_default();
        let writer = std::fs::read_dir(threads).into_iter().flatten().flatten().map(|entry| entry.path());
        let Some(writer) = writer.into_iter().find(|thread| read(thread, "comm").trim() == "log") else { return };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while matches!(read(&writer, "stat").rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('R' | 'D'))
            && std::time::Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn running(&mut self) -> &mut OwnChild {
        self.child.as_mut().expect("convoke was started")
    }

    async fn launch(&mut self) {
        let (stdout, stderr) = (self.folder.path().join("stdout.log"), self.stderr_file());
        let said_before = read_log(&stderr).len();
        let serve = [OsString::from("serve")];
        let mut command = self.builder.command(
            self.folder.path(),
            if self.builder.arguments.is_empty() { &serve } else { &self.builder.arguments },
        );
        // What the test has set itself comes later, and wins.
        let defaults = [
            ("LISTEN", self.events.to_string()),
            ("ADMIN_LISTEN", self.admin.to_string()),
            ("LOG_FORMAT", "json".into()),
        ];
        for (name, value) in defaults {
            let name = format!("CONVOKE_{name}");
            if !self.builder.environment.iter().any(|(set, _)| *set == name) {
                command.env(name, value);
            }
        }
        let child = self.child.insert(OwnChild::spawn("convoke", &mut command, &stdout, &stderr));
        (self.events, self.admin) = eventually("convoke announces its listeners", START_WITHIN, async || {
            let log = read_log(&stderr);
            if let Some(status) = child.exited() {
                panic!("convoke ended with {status}:\n{log}");
            }
            let said = &log[said_before..];
            Some((announced(said, "events")?, announced(said, "admin")?))
        })
        .await;
    }

    fn stderr_file(&self) -> PathBuf {
        self.folder.path().join("stderr.log")
    }
}

impl Drop for Convoke {
    fn drop(&mut self) {
        self.child = None;
        print_if_failing("convoke", &self.stderr_file());
    }
}

/// The address in the log line `"message":"listening"` of one listener, if it has come.
fn announced(log: &str, listener: &str) -> Option<SocketAddr> {
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        // Depending on the format's options the fields are on their own level.
        let fields = line.get("fields").unwrap_or(&line);
        let is = |name: &str, value: &str| fields.get(name).and_then(Value::as_str) == Some(value);
        if is("message", "listening") && is("listener", listener) {
            fields["address"].as_str()?.parse().ok()
        } else {
            None
        }
    })
}
