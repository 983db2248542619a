//! The ledger: what the receiver acknowledged, in NDJSON. Whatever stands in it must be in the receiver's log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::Error;
use convoke_core::id::EventId;
use convoke_core::time::Millis;

/// Opened for appending, so that runs can follow one another and lines of several connections do not tear.
#[derive(Debug)]
pub(super) struct Ledger(File);

impl Ledger {
    /// Opens `path`, made if it is not there; what it holds stays.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = append_to(path)?;
        let failed = |source| Error::File { path: path.to_owned(), source };
        if torn(path).map_err(failed)? {
            // Else the first line of this run would be lost with it.
            (&file).write_all(b"\n").map_err(failed)?;
        }
        Ok(Self(file))
    }

    /// Writes one line with a single write(2), with `line` as room for it. It is in the operating system's hands when this
    /// returns, and survives this process (not a power cut).
    pub(super) fn note(
        &self,
        line: &mut Vec<u8>,
        event_id: EventId,
        subscriber_id: &str,
        event: &str,
        acknowledged_at: Millis,
    ) -> io::Result<()> {
        line.clear();
        write!(line, "{{\"event_id\":\"{event_id}\",\"subscriber_id\":")?;
        super::body::string(line, subscriber_id);
        line.extend_from_slice(b",\"event\":");
        super::body::string(line, event);
        writeln!(line, ",\"acknowledged_at\":\"{acknowledged_at}\"}}")?;
        (&self.0).write_all(line)
    }
}

/// Whether the last line has no end: a run was killed while it wrote.
fn torn(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Opens a file for appending. The error names it.
pub(super) fn append_to(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_killed_run_left_torn_does_not_swallow_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        std::fs::write(&path, "{\"event_id\":\"0178").unwrap();
        let id = EventId::of("1", Millis::EPOCH, b"{}");
        for _ in 0..2 {
            Ledger::open(&path).unwrap().note(&mut Vec::new(), id, "1", "meeting.end", Millis::EPOCH).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let whole = text.lines().filter(|line| line.contains(&id.to_string()) && line.ends_with('}')).count();
        assert_eq!((whole, text.lines().count()), (2, 3));
    }
}
