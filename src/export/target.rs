//! Where an export is written to.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::printable::Printable;

/// A file, or the standard output.
#[derive(Debug)]
pub struct Target {
    to: To,
    bytes: u64,
}

#[derive(Debug)]
enum To {
    /// What is not a file: a pipe, a device. Written to as it comes.
    Stream(File),
    /// A terminal, which is spared what it would obey.
    Terminal(Printable<File>),
    /// Written beside itself, and put in its place when it is whole.
    File { part: NamedTempFile, path: PathBuf, replace: bool },
}

/// Why there cannot be an export there.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It would take the place of a file.
    #[error("{0} is there already: name another file, or replace it by --force")]
    Exists(PathBuf),
    /// It is no file at all.
    #[error("{0} is a folder: name a file in it")]
    Folder(PathBuf),
    /// It cannot be written.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
}

impl Target {
    /// Standard output.
    ///
    /// # Errors
    /// If it is closed.
    pub fn stdout() -> io::Result<Self> {
        // Without the buffer for lines that Rust puts before it.
        let file = io::stdout().as_fd().try_clone_to_owned().map(File::from)?;
        let to = if file.is_terminal() { To::Terminal(Printable::new(file)) } else { To::Stream(file) };
        Ok(Self { to, bytes: 0 })
    }

    /// A file, which is there only once [`Target::keep`] has put it there, or a pipe or device of that name. If `replace`, in
    /// place of one that is there.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn file(path: &Path, replace: bool) -> Result<Self, TargetError> {
        let refused = |error| TargetError::Io(path.to_owned(), error);
        // What a link names is written, not the link.
        let path = match fs::canonicalize(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(refused(error)),
        };
        let found = fs::metadata(&path);
        let to = match found {
            Ok(found) if found.is_dir() => return Err(TargetError::Folder(path)),
            Ok(found) if found.is_file() && !replace => return Err(TargetError::Exists(path)),
            Ok(found) if !found.is_file() => To::Stream(OpenOptions::new().write(true).open(&path).map_err(refused)?),
            found => {
                // It holds people: for nobody but its owner; in place of another, as that one is.
                let permissions = found.map_or_else(|_| Permissions::from_mode(0o600), |found| found.permissions());
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let part = tempfile::Builder::new()
                    .prefix(&format!(".{name}."))
                    .suffix(".part")
                    .permissions(permissions)
                    .tempfile_in(folder)
                    .map_err(refused)?;
                To::File { part, path, replace }
            }
        };
        Ok(Self { to, bytes: 0 })
    }

    /// Whether it is a file, of which nothing is left if it is dropped.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self.to, To::File { .. })
    }

    /// It is whole: a file gets its name, and is on the disk then. How long it is.
    ///
    /// # Errors
    /// [`TargetError`]; then there is none.
    pub fn keep(self) -> Result<u64, TargetError> {
        if let To::File { part, path, replace } = self.to {
            part.as_file().sync_all().map_err(|error| TargetError::Io(path.clone(), error))?;
            let kept = if replace { part.persist(&path) } else { part.persist_noclobber(&path) };
            if let Err(error) = kept {
                let exists = error.error.kind() == io::ErrorKind::AlreadyExists;
                return Err(if exists { TargetError::Exists(path) } else { TargetError::Io(path, error.error) });
            }
        }
        Ok(self.bytes)
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Stream(file) => file.write(bytes),
            To::Terminal(terminal) => terminal.write(bytes),
            To::File { part, .. } => part.write(bytes),
        }?;
        self.bytes += u64::try_from(written).unwrap_or(0);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stream(file) => file.flush(),
            To::Terminal(terminal) => terminal.flush(),
            To::File { part, .. } => part.flush(),
        }
    }
}
