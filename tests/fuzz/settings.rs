//! The settings file.

use std::fs;

use convoke::config::{ConfigArgs, Env, Settings};
use tempfile::TempDir;
use toml::{Table, Value};

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("a temporary folder");
}

/// Takes the bytes for a settings file: whatever it says, no secret in it may be said to people.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let said = said(text);
    for secret in secrets(text) {
        // The name of a variable is said, and is none.
        let variable = secret.starts_with("${") && secret.ends_with('}');
        if variable || secret.len() < 6 || text.matches(&secret).count() != 1 || !said.contains(&secret) {
            continue;
        }
        // It may be a word that is said anyway.
        let other: String = secret.chars().map(|c| if c == 'Q' { 'W' } else { 'Q' }).collect();
        let anyway = self::said(&text.replacen(&secret, &other, 1)).contains(&secret);
        assert!(anyway, "the secret {secret:?} is in:\n{said}");
    }
}

/// All that people are shown of these settings.
fn said(text: &str) -> String {
    let path = FOLDER.with(|folder| folder.path().join("convoke.toml"));
    fs::write(&path, text).expect("our own folder");
    let env = Env::of([("PGPASS", "one")], path.parent().expect("a folder"));
    let args = ConfigArgs { config: Some("convoke.toml".into()), ..ConfigArgs::default() };
    match Settings::load(&args, &env) {
        Ok(settings) => format!("{settings:?} {:?}", settings.check_serve()),
        Err(error) => format!("{error} {error:?}"),
    }
}

/// What stands where keys, tokens and passwords stand.
fn secrets(text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<Table>() else { return unparsed(text) };
    let mut secrets: Vec<String> = Vec::new();
    for subscriber in table.get("subscriber").and_then(Value::as_array).into_iter().flatten() {
        let keys = subscriber.get("keys").and_then(Value::as_array);
        secrets.extend(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    }
    let tokens = table.get("admin").and_then(|admin| admin.get("tokens")).and_then(Value::as_array);
    let token = |entry: &Value| entry.get("token")?.as_str().map(str::to_owned);
    secrets.extend(tokens.into_iter().flatten().filter_map(token));
    let at = |section: &str, name: &str| table.get(section)?.get(name)?.as_str().map(str::to_owned);
    secrets.extend([at("admin", "token"), at("admin", "viewer_token")].into_iter().flatten());
    let urls = [at("database", "url"), at("nats", "url")];
    secrets.extend(urls.into_iter().flatten().filter_map(|url| {
        let (_, rest) = url.split_once("://")?;
        let (login, _) = rest.rsplit_once('@')?;
        login.split_once(':').map(|(_, password)| password.to_owned())
    }));
    secrets
}

/// The same in what is no TOML: what follows such a name on its line.
fn unparsed(text: &str) -> Vec<String> {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'', '[', ']', ' ']);
        ["keys", "token"].contains(&name.trim()).then(|| value.to_owned())
    };
    text.lines().filter_map(value).collect()
}
