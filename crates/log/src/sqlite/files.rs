//! Ownership and permissions of the database's files.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

/// Why this process cannot write the database at `path`, and what to do; `None` if permissions allow it.
#[must_use]
pub fn trouble(path: &Path) -> Option<String> {
    let folder = folder(path);
    let us = rustix::process::geteuid().as_raw();
    if let Err(error) = std::fs::metadata(&folder) {
        return (error.kind() == ErrorKind::NotFound).then(|| {
            let folder = folder.display();
            format!("there is no folder {folder}: `sudo install -d -o {us} {folder}`")
        });
    }
    let places = std::iter::once((folder, Access::WRITE_OK | Access::EXEC_OK))
        .chain(files(path).map(|file| (file, Access::WRITE_OK | Access::READ_OK)));
    for (place, access) in places {
        match rustix::fs::access(&place, access) {
            Err(Errno::ACCESS) => {}
            Err(Errno::ROFS) => {
                return Some(format!("{} is on a file system that is mounted read-only", place.display()));
            }
            Ok(()) | Err(_) => continue,
        }
        let owner =
            std::fs::metadata(&place).map(|meta| user(meta.uid())).unwrap_or_else(|_| "another user".to_owned());
        let place = place.display();
        return Some(format!(
            "cannot write {place}: it belongs to {owner}, and this process runs as {}: `sudo chown {us} {place}`",
            user(us)
        ));
    }
    None
}

/// The file of the database at `path` that has another owner than its folder, with what to do: a service that runs as
/// the owner of the folder cannot write it.
#[must_use]
pub fn of_another(path: &Path) -> Option<String> {
    let owner = std::fs::metadata(folder(path)).ok()?.uid();
    let file = files(path).find(|file| std::fs::metadata(file).is_ok_and(|meta| meta.uid() != owner))?;
    let theirs = std::fs::metadata(&file).map(|meta| user(meta.uid())).ok()?;
    // If the folder belongs to root, the service is assumed to run as root, which can write everything.
    (owner != 0).then(|| {
        format!(
            "{file} belongs to {theirs}, and its folder to {}: a service of that user cannot write it; `sudo chown {owner} {file}*`",
            user(owner),
            file = path.display()
        )
    })
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

/// The files of the database that exist.
fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    let names = ["", "-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    names.into_iter().filter(|file| file.exists())
}

/// The name of a user, if this machine knows it.
fn user(id: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("uid {id}"), |name| format!("{name} (uid {id})"))
}
