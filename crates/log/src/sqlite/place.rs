//! The files of the database, and whether they still are where whoever opens the database next would look for them.
//!
//! A file that was removed, or over which another was moved, stays open and takes every commit without an error; what it takes
//! is gone with the process. The same is true of the WAL, in which the newest commits lie, and of the file beside it through
//! which processes share it. So they are looked at, by name, before every write and again before it is said to be durable.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::LogError;

/// Where a database's header has its mode, and that without a WAL.
const MODE: std::ops::Range<usize> = 18..20;
const ROLLBACK: [u8; 2] = [1, 1];

/// Says which file is meant, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// What was opened, under the name that leads there.
    opened: OnceLock<Vec<(PathBuf, Identity)>>,
}

impl Files {
    pub fn new(path: PathBuf) -> Self {
        Self { path, opened: OnceLock::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file the name leads to, if to any.
    pub fn now(&self) -> Option<Identity> {
        identity(&self.path).ok()
    }

    /// Notes what a connection has opened that is to be kept open from now on: while it is, SQLite does not take away the files
    /// beside the database's.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if it is not what the name led to `before`.
    pub fn note(&self, before: Option<Identity>) -> Result<(), LogError> {
        // SQLite follows links, and makes its files where the database really is.
        let real = self.path.canonicalize().map_err(LogError::unavailable)?;
        let opened: Vec<_> = [self.path.clone(), beside(&real, "-wal"), beside(&real, "-shm")]
            .into_iter()
            .filter_map(|path| identity(&path).ok().map(|identity| (path, identity)))
            .collect();
        let same = opened.first().is_some_and(|(_, now)| before.is_none_or(|before| before == *now));
        if !same {
            return Err(LogError::unavailable("the database's file was replaced while it was opened"));
        }
        // Whoever was first has noted the same.
        let _ = self.opened.set(opened);
        Ok(())
    }

    pub fn noted(&self) -> bool {
        self.opened.get().is_some()
    }

    /// # Errors
    /// [`LogError::Unavailable`] if a file is not there any more, or another is, with what to do about it.
    pub fn check(&self) -> Result<(), LogError> {
        for (path, opened) in self.opened.get().into_iter().flatten() {
            let happened = match identity(path) {
                Ok(now) if now == *opened => continue,
                Ok(_) => "was replaced by another file".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => "was removed".to_owned(),
                Err(error) => format!("cannot be looked at ({error})"),
            };
            return Err(LogError::unavailable(format!(
                "{} {happened} while the database was open, and what is written now would be lost: put the old file back, or \
                 restart Convoke, which then goes on with what is there",
                path.display()
            )));
        }
        Ok(())
    }

    /// Takes the WAL of a file that was replaced out of the way of the one in its place: SQLite would read it as a part of that one.
    /// It is kept, for the old file may be somewhere, and the newest commits with it.
    pub fn part_with_wal(&self) {
        let Some([database, beside @ ..]) = self.opened.get().map(Vec::as_slice) else { return };
        let is = |(path, opened): &(PathBuf, Identity)| identity(path).map(|now| now == *opened);
        if !matches!(is(database), Ok(false)) {
            return;
        }
        for (file, _) in beside.iter().filter(|file| is(file).is_ok_and(|ours| ours)) {
            if let Err(error) = part_with(file) {
                tracing::error!(file = %file.display(), %error, "belongs to the database's file that was replaced, and cannot be moved out of its way: do it before the next start");
            }
        }
    }

    /// The same before anything is opened: somebody has put another file in the place of one whose process was killed. SQLite
    /// takes a WAL that lies beside a file for the file's own, and nothing in the file says that it is not, with two exceptions:
    /// one that is not in the mode that makes a WAL, as `VACUUM INTO` leaves it, and one that is empty.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if it cannot be moved: to open the database would mix the two.
    pub fn part_with_foreign_wal(&self) -> Result<(), LogError> {
        let wal = self.wal();
        let Ok(file) = std::fs::File::open(&self.path) else { return Ok(()) };
        let mut header = Vec::new();
        if file.take(MODE.end as u64).read_to_end(&mut header).is_err()
            || header.get(MODE).is_some_and(|mode| mode != ROLLBACK)
        {
            return Ok(());
        }
        // Without the WAL, the other says nothing.
        for file in [&wal, &beside(&self.path.canonicalize().unwrap_or_else(|_| self.path.clone()), "-shm")] {
            match part_with(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::unavailable(format!(
                        "{} is not of the database's file, which was put in another's place, and would be read as a part of it; it \
                         cannot be moved away ({error}): do it",
                        file.display()
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The WAL, whether it is there or not.
    pub fn wal(&self) -> PathBuf {
        beside(&self.path.canonicalize().unwrap_or_else(|_| self.path.clone()), "-wal")
    }

    /// What tells the file from a copy of it.
    pub fn mark(&self) -> Option<i64> {
        // Not the device, whose number may be another after the next start of the machine.
        self.now().map(|identity| identity.inode.cast_signed())
    }
}

/// Takes a file out of the way, and keeps it.
fn part_with(file: &Path) -> io::Result<()> {
    let mut away = beside(file, ".replaced");
    // What was kept before may be as precious.
    for number in 2.. {
        if !away.exists() {
            break;
        }
        away = beside(file, &format!(".replaced-{number}"));
    }
    std::fs::rename(file, &away)?;
    tracing::warn!(file = %away.display(), "belongs to the database's file that was replaced");
    Ok(())
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = std::fs::metadata(path)?;
    Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
