//! A child process of the test: signalled and ended by its own id, never by name.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::eventually;

/// One running program, whose two outputs are appended to files. Dropping it kills it.
#[derive(Debug)]
pub struct OwnChild {
    name: String,
    child: Child,
}

impl OwnChild {
    pub fn spawn(name: &str, command: &mut Command, stdout: &Path, stderr: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(append_to(stdout)).stderr(append_to(stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { name: name.to_owned(), child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Does nothing if the child has ended: its id is not given to another process before it is reaped here.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
        }
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub async fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, within, async || self.exited()).await
    }

    /// `SIGKILL`: no time for the program to say goodbye.
    pub fn kill(&mut self) {
        // Both fail only for a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The text of a log file so far.
pub fn read_log(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Shows the end of a log when the test that owns the server is failing.
pub fn print_if_failing(name: &str, log: &Path) {
    const LINES: usize = 60;
    if std::thread::panicking() {
        let text = read_log(log);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("── {name}, end of its log ──\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    }
}

fn append_to(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("a log file can be opened")
}
