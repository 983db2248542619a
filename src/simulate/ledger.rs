//! The ledger: what the receiver acknowledged, in NDJSON. Whatever stands in it must be in the receiver's log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::Error;
use crate::event::{EventId, Millis};

/// Opened for appending, so that runs can follow one another and lines of several connections do not tear.
#[derive(Debug)]
pub(super) struct Ledger(File);

impl Ledger {
    /// Opens `path`, made if it is not there; what it holds stays.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        append_to(path).map(Self)
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

/// Opens a file for appending. The error names it.
pub(super) fn append_to(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| Error::File { path: path.to_owned(), source })
}
