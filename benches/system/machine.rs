//! Data about processes and processors, from `/proc`.

use std::fs;

/// Clock ticks per second in `/proc`: part of the kernel's interface on every platform that Convoke is built for.
const TICKS: f64 = 100.0;

/// Clock ticks that a process has used itself, and for its reaped children.
fn ticks(process: u32) -> Option<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before the parenthesis can contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?, next()? + next()?))
}

/// CPU seconds used by this program itself, without the servers that it started.
pub fn own_cpu() -> f64 {
    ticks(std::process::id()).map_or(0.0, |(own, _)| own) / TICKS
}

/// CPU seconds used by a process, including its reaped and its current children.
pub fn cpu(process: u32) -> f64 {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(process).chain(children).filter_map(ticks).map(|(own, reaped)| own + reaped).sum::<f64>() / TICKS
}

/// Resident memory in MB: now, and the maximum so far.
pub fn memory(process: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let read = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e6
    };
    (read("VmRSS:"), read("VmHWM:"))
}

/// The processors' time so far.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    all: f64,
    busy: f64,
    stolen: f64,
}

impl Processors {
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<f64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let at = |index: usize| fields.get(index).copied().unwrap_or(0.0) / TICKS;
        let all = (0..8).map(at).sum();
        Self { all, busy: all - at(3) - at(4) - at(7), stolen: at(7) }
    }

    /// Percent of all processors since `before`: stolen by the host, and busy.
    pub fn since(self, before: Self) -> (f64, f64) {
        let all = (self.all - before.all).max(0.01);
        (100.0 * (self.stolen - before.stolen) / all, 100.0 * (self.busy - before.busy) / all)
    }

    /// Busy seconds since `before`.
    pub fn busy_since(self, before: Self) -> f64 {
        self.busy - before.busy
    }
}

/// The processors: figures of machines of one kind can be compared.
pub fn kind() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("", |(_, it)| it.trim());
    format!("{cores} cores ({model})")
}

/// One line for the head of the report.
pub fn describe() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    format!("{}, {} GiB, Linux {}", kind(), kib >> 20, kernel.trim())
}
