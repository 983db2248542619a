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
    /// `None`, with the reason printed, for who is not root and so may not mount; that root may not, is a failure.
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
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                assert!(!rustix::process::geteuid().is_root(), "root cannot mount a small disk: {reason}");
                eprintln!("no small disk here: {reason}");
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
