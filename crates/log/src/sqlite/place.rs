//! The files of the database, and whether they are still where the next process that opens the database would look for them.
//!
//! A file that was removed or replaced stays open and accepts every commit without an error, but those commits are lost
//! when the process ends. The same is true of the WAL, which contains the newest commits, and of the shared-memory
//! file. So they are checked, by name, before every write, and again before the write is reported as durable.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::LogError;

/// The position of the journal mode in the header of a database, and the value for a rollback journal instead of a WAL.
const MODE: std::ops::Range<usize> = 18..20;
const ROLLBACK: [u8; 2] = [1, 1];

/// Identifies a file independently of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// The databases that this process has open.
static OPEN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

fn open() -> MutexGuard<'static, Vec<Identity>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// The opened files with their paths.
    opened: OnceLock<Vec<(PathBuf, Identity)>>,
    /// Whether it is among [`OPEN`].
    listed: AtomicBool,
}

impl Drop for Files {
    fn drop(&mut self) {
        self.closed();
    }
}

impl Files {
    pub fn new(path: PathBuf) -> Self {
        Self { path, opened: OnceLock::new(), listed: AtomicBool::new(false) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that the path leads to now, if any.
    pub fn now(&self) -> Option<Identity> {
        identity(&self.path).ok()
    }

    /// Records the files that a connection has opened that stays open from now on: while it is open, SQLite does not
    /// delete the files beside the database.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the file is not the one that the path led to `before`.
    pub fn note(&self, before: Option<Identity>) -> Result<(), LogError> {
        // SQLite follows links, and creates its files next to the real database.
        let real = self.path.canonicalize().map_err(LogError::unavailable)?;
        let opened: Vec<_> = [self.path.clone(), beside(&real, "-wal"), beside(&real, "-shm")]
            .into_iter()
            .filter_map(|path| identity(&path).ok().map(|identity| (path, identity)))
            .collect();
        let same = opened.first().is_some_and(|(_, now)| before.is_none_or(|before| before == *now));
        if !same {
            return Err(LogError::unavailable("the database file was replaced while it was being opened"));
        }
        // If another task was first, it recorded the same.
        let database = opened.first().map(|(_, identity)| *identity);
        if self.opened.set(opened).is_ok() {
            open().extend(database);
            self.listed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// No connection is open any more.
    pub fn closed(&self) {
        let Some((_, ours)) = self.opened.get().and_then(|opened| opened.first()) else { return };
        if self.listed.swap(false, Ordering::Relaxed) {
            let mut open = open();
            if let Some(place) = open.iter().position(|one| one == ours) {
                open.swap_remove(place);
            }
        }
    }

    pub fn noted(&self) -> bool {
        self.opened.get().is_some()
    }

    /// Checks that all files are still in their places.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if a file was removed or replaced, with what to do about it.
    pub fn check(&self) -> Result<(), LogError> {
        for (path, opened) in self.opened.get().into_iter().flatten() {
            let happened = match identity(path) {
                Ok(now) if now == *opened => continue,
                Ok(_) => "was replaced by another file".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => "was removed".to_owned(),
                Err(error) => format!("cannot be examined ({error})"),
            };
            return Err(LogError::unavailable(format!(
                "{} {happened} while the database was open, so new events would be lost: put the old file back, or \
                 restart Convoke to use what is there now",
                path.display()
            )));
        }
        Ok(())
    }

    /// Moves the WAL of a replaced file away from the new file: SQLite would read it as part of the new one. It is
    /// kept, because the old file may still exist somewhere, and the WAL has its newest commits.
    pub fn part_with_wal(&self) {
        let Some([database, beside @ ..]) = self.opened.get().map(Vec::as_slice) else { return };
        let is = |(path, opened): &(PathBuf, Identity)| identity(path).map(|now| now == *opened);
        if !matches!(is(database), Ok(false)) {
            return;
        }
        for (file, _) in beside.iter().filter(|file| is(file).is_ok_and(|ours| ours)) {
            if let Err(error) = part_with(file) {
                tracing::error!(file = %file.display(), %error, "cannot move away a file that belongs to the \
                                                                 replaced database file: move it before the next \
                                                                 start");
            }
        }
    }

    /// The same before anything is opened: a file may have been put in the place of one whose process was killed.
    /// SQLite takes a WAL beside a file for the file's own. Nothing in the file says otherwise, with two exceptions: a
    /// file that is not in WAL mode, as `VACUUM INTO` leaves it, and an empty file.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if it cannot be moved: opening the database would mix the two.
    pub fn part_with_foreign_wal(&self) -> Result<(), LogError> {
        // To close any file of this name would end the locks that SQLite holds for this process, and others could delete the WAL.
        if self.now().is_some_and(|now| open().contains(&now)) {
            return Ok(());
        }
        let wal = self.wal();
        let Ok(file) = std::fs::File::open(&self.path) else { return Ok(()) };
        let mut header = Vec::new();
        if file.take(MODE.end as u64).read_to_end(&mut header).is_err()
            || header.get(MODE).is_some_and(|mode| mode != ROLLBACK)
        {
            return Ok(());
        }
        // The shared-memory file is useless without the WAL.
        for file in [&wal, &beside(&self.path.canonicalize().unwrap_or_else(|_| self.path.clone()), "-shm")] {
            match part_with(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::unavailable(format!(
                        "{} belongs to an earlier database file, and SQLite would read it as part of the present \
                         one. It cannot be moved away ({error}): move it yourself",
                        file.display()
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The path of the WAL, whether it exists or not.
    pub fn wal(&self) -> PathBuf {
        beside(&self.path.canonicalize().unwrap_or_else(|_| self.path.clone()), "-wal")
    }

    /// Distinguishes the file from a copy of it.
    pub fn mark(&self) -> Option<i64> {
        // Not the device, whose number can change when the machine restarts.
        self.now().map(|identity| identity.inode.cast_signed())
    }
}

/// Moves a file away and keeps it.
fn part_with(file: &Path) -> io::Result<()> {
    let mut away = beside(file, ".replaced");
    // A file kept earlier may be just as valuable.
    for number in 2.. {
        if !away.exists() {
            break;
        }
        away = beside(file, &format!(".replaced-{number}"));
    }
    std::fs::rename(file, &away)?;
    tracing::warn!(file = %away.display(), "moved away a file that belongs to the replaced database file");
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
