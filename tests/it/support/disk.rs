//! A disk that is soon full.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A memory file system of a fixed size, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where mounting is not permitted: only root may, and not in every container.
    pub fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("convoke-disk-").tempdir().expect("a temporary folder");
        let options = format!("size={bytes},mode=0777");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "convoke-test"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                eprintln!("no small disk here: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("no small disk here: mount: {error}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is still ending may hold a file for a moment.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.folder.path().display());
        }
    }
}
