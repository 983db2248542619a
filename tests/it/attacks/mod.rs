//! Convoke among those who mean it ill: every limit on what a stranger can take, and signed events that come through.

mod floods;
mod http2;
mod limits;
mod secrets;
mod settings;

use std::path::PathBuf;

use crate::support::attack::Target;
use crate::support::process::{Convoke, ConvokeBuilder};
use crate::support::service::{APP_ID, PATH, settings as usual};

/// The sample's listener as a target.
fn target(convoke: &Convoke) -> Target {
    Target { events: convoke.events, path: PATH, app_id: APP_ID }
}

/// The usual settings, with so many open files allowed, half of which have to be asked for.
fn with_files(files: usize) -> ConvokeBuilder {
    usual()
        .program("/bin/sh")
        .arg("-c")
        .arg(format!("ulimit -S -n {}; ulimit -H -n {files}; exec \"$0\" serve", files / 2))
        .arg(PathBuf::from(env!("CARGO_BIN_EXE_convoke")))
}

/// A line of a process's status, in kB: `VmRSS`, or `VmHWM` for the most that it ever was.
fn memory(id: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process");
    let line = status.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(':')).expect("the line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
