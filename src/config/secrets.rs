//! Files that hold secrets: keys, passwords, tokens.

use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::error::{ConfigError, Origin};
use super::layers::Refusal;

/// Maximum size of a file with secrets, in bytes: a wrong path must not fill the memory.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;
/// Only the owner may read the file.
const SECRET_MODE: u32 = 0o600;

/// The keys in a file named by a command's `--app-key-file`: one per line, without the trailing CR and LF, otherwise unchanged.
/// There is at least one.
///
/// # Errors
/// The file cannot be read, holds no key, an empty one, or something that is not UTF-8.
pub fn load_key_file(path: &Path) -> Result<Vec<SecretString>, ConfigError> {
    keys_of(path).map_err(of_the_flag)
}

/// The one password in the file of `--app-key-file`; `-`: in the standard input.
///
/// # Errors
/// As [`load_key_file`]; or there is more than one line.
pub fn load_password(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    only_secret(path).map_err(of_the_flag)
}

/// Loads the password of a meeting's host, alone in its file; `-`: from the standard input.
///
/// # Errors
/// It cannot be read, or is not one line.
pub fn load_meeting_password(path: &Path) -> Result<SecretString, ConfigError> {
    let of_the_flag = |refusal: Refusal| {
        ConfigError::new("password_file", &Origin::Flag("--password-file"), refusal.problem, refusal.instead)
    };
    only_secret(path).map(|password| SecretString::from(password.as_str())).map_err(of_the_flag)
}

fn only_secret(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    if path == Path::new("-") {
        text_of(std::io::stdin().lock(), "the standard input").and_then(|text| only_line(&text, "the standard input"))
    } else {
        secret_of(path)
    }
}

fn of_the_flag(refusal: Refusal) -> ConfigError {
    ConfigError::new("app_key_file", &Origin::Flag("--app-key-file"), refusal.problem, refusal.instead)
}

/// Writes a secret to a new file that only its owner may read, and syncs it to disk.
///
/// # Errors
/// The file exists already, or cannot be written.
pub fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    write_new(path, &Zeroizing::new(format!("{secret}\n")), SECRET_MODE)
}

/// Writes a settings file, which must not exist. `secret`: it contains a password.
///
/// # Errors
/// As [`write_secret`].
pub fn write_settings(path: &Path, text: &str, secret: bool) -> std::io::Result<()> {
    write_new(path, text, if secret { SECRET_MODE } else { 0o644 })
}

fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(super) fn keys_of(path: &Path) -> Result<Vec<SecretString>, Refusal> {
    let text = read_secret(path)?;
    let mut keys = Vec::new();
    let lines = text.trim_end_matches(['\r', '\n']);
    if lines.is_empty() {
        return Err(Refusal::new(format!("{} contains no key", path.display()), "write one key per line"));
    }
    for (index, line) in lines.split('\n').enumerate() {
        let key = line.trim_end_matches('\r');
        if key.is_empty() {
            let problem = format!("line {} of {} is empty, and a key cannot be empty", index + 1, path.display());
            return Err(Refusal::new(problem, "write one key per line, without empty lines before or between them"));
        }
        keys.push(SecretString::from(key));
    }
    Ok(keys)
}

/// The single secret in a file, without the trailing CR and LF.
pub(super) fn secret_of(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    only_line(&read_secret(path)?, &path.display().to_string())
}

fn only_line(text: &str, name: &str) -> Result<Zeroizing<String>, Refusal> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains(['\r', '\n']) {
        let problem = format!("{name} does not contain exactly one line");
        return Err(Refusal::new(problem, "write the secret alone, in one line"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// The text of a small file. It is wiped from memory when dropped.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
    text_of(file, &name)
}

fn unreadable(name: &str, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("{name} cannot be read: {error}"), "name a file that this user can read")
}

fn text_of(source: impl Read, name: &str) -> Result<Zeroizing<String>, Refusal> {
    let refused = |problem: &str, instead: &str| Refusal::new(format!("{name} {problem}"), instead);
    // Allocated in advance: a growing buffer would leave copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_FILE_BYTES as usize + 1));
    source.take(MAX_SECRET_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(refused("is longer than 64 KiB", "name the file with the secret"));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| refused("is not UTF-8", "save it as UTF-8 text: an editor may have saved it as GBK or UTF-16"))?;
    if text.starts_with('\u{feff}') {
        return Err(refused("begins with a byte order mark", "save it as UTF-8 without one"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}
