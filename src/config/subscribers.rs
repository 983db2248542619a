//! The subscribers, from the file, or a single one from the environment or the command line; and their keys, which are read again
//! at `SIGHUP`.

use std::path::PathBuf;

use secrecy::SecretString;

use convoke_core::event::Subscriber;

use super::env::{ConfigArgs, Env};
use super::error::{ConfigError, Origin};
use super::file::{Entry, Found};
use super::secrets::keys_of;

/// Where the keys of a subscriber come from. Its files can be read again.
#[derive(Clone, Debug)]
pub struct SubscriberSource {
    /// The platform's `appID`.
    pub app_id: String,
    /// A display name for logs.
    pub name: Option<String>,
    /// Keys in the settings themselves.
    pub keys: Vec<SecretString>,
    /// Files with one key per line.
    pub key_files: Vec<PathBuf>,
    /// Where the subscriber was configured.
    pub origin: Origin,
}

/// All subscribers, with the current keys in their files.
///
/// # Errors
/// A key file cannot be read, contains no key, an empty one, or text that is not UTF-8.
pub fn load_subscribers(sources: &[SubscriberSource]) -> Result<Vec<Subscriber>, ConfigError> {
    let load = |source: &SubscriberSource| {
        let mut keys = source.keys.clone();
        for path in &source.key_files {
            let found = keys_of(path).map_err(|refusal| {
                let setting = "subscriber.key_files";
                ConfigError::new(setting, &source.origin, refusal.problem, refusal.instead)
            })?;
            keys.extend(found);
        }
        Ok(Subscriber { app_id: source.app_id.as_str().into(), keys, name: source.name.clone() })
    };
    sources.iter().map(load).collect()
}

/// The single subscriber from flags or the environment, otherwise those of the file.
pub(super) fn sources(args: &ConfigArgs, env: &Env, file: Vec<Entry>) -> Result<Vec<SubscriberSource>, ConfigError> {
    let entries = match only(args, env)? {
        Some(entry) => vec![entry],
        None => file,
    };
    let mut sources: Vec<SubscriberSource> = Vec::new();
    for entry in entries {
        let source = source(entry, env)?;
        if let Some(other) = sources.iter().find(|other| other.app_id == source.app_id) {
            return Err(ConfigError::new(
                "subscriber.app_id",
                &source.origin,
                format!("`{}` is in {} too", source.app_id, other.origin),
                "write one [[subscriber]] for each app_id, with all of its keys",
            ));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// The single subscriber from flags or the environment.
fn only(args: &ConfigArgs, env: &Env) -> Result<Option<Entry>, ConfigError> {
    let flag = |flag| args.get(flag).map(|text| Found { text: text.to_owned(), origin: Origin::Flag(flag) });
    let variable = |name: &str| {
        env.get(name).map(|text| Found { text: text.to_owned(), origin: Origin::Variable(name.to_owned()) })
    };
    let app_id = flag("--app-id").or_else(|| variable("CONVOKE_APP_ID"));
    // A flag replaces both variables that can set keys.
    let (key, key_file) = match flag("--app-key-file") {
        Some(file) => (None, Some(file)),
        None => (variable("CONVOKE_APP_KEY"), variable("CONVOKE_APP_KEY_FILE")),
    };
    match (app_id, key.as_ref().or(key_file.as_ref())) {
        (None, None) => Ok(None),
        (Some(app_id), Some(_)) => Ok(Some(Entry {
            origin: app_id.origin.clone(),
            app_id: Some(app_id),
            name: None,
            keys: key.into_iter().collect(),
            key_files: key_file.into_iter().collect(),
        })),
        (Some(app_id), None) => Err(ConfigError::new(
            "subscriber.app_id",
            &app_id.origin,
            "this subscriber has no key",
            "set CONVOKE_APP_KEY_FILE (or --app-key-file) or CONVOKE_APP_KEY too",
        )),
        (None, Some(key)) => Err(ConfigError::new(
            "subscriber.keys",
            &key.origin,
            "a key without its subscriber",
            "set CONVOKE_APP_ID (or --app-id) too",
        )),
    }
}

fn source(entry: Entry, env: &Env) -> Result<SubscriberSource, ConfigError> {
    let Some(app_id) = entry.app_id else {
        return Err(ConfigError::new(
            "subscriber.app_id",
            &entry.origin,
            "this [[subscriber]] has no app_id",
            "write app_id = \"…\", the subscriber ID of the platform's push configuration",
        ));
    };
    for (setting, found) in [("subscriber.app_id", Some(&app_id)), ("subscriber.name", entry.name.as_ref())] {
        let Some(found) = found else { continue };
        if found.text.is_empty() || found.text.chars().any(char::is_control) {
            let instead = "write it as the platform's push configuration shows it";
            return Err(ConfigError::new(
                setting,
                &found.origin,
                "it is empty or contains a control character",
                instead,
            ));
        }
    }
    if app_id.text.trim() != app_id.text {
        let problem = format!("`{}` begins or ends with white space", app_id.text);
        return Err(ConfigError::new("subscriber.app_id", &app_id.origin, problem, "write it without"));
    }
    if let Some(file) = entry.key_files.iter().find(|file| file.text.is_empty()) {
        let problem = "the path is empty";
        return Err(ConfigError::new(
            "subscriber.key_files",
            &file.origin,
            problem,
            "name a file with one key per line",
        ));
    }
    for key in &entry.keys {
        let problem = match () {
            () if key.text.is_empty() => "a key is empty",
            () if key.text.contains(['\r', '\n']) => "a key contains a line break, which no key of the platform does",
            () => continue,
        };
        let instead = "write the key alone, or put it into a file that key_files names";
        return Err(ConfigError::new("subscriber.keys", &key.origin, problem, instead));
    }
    if entry.keys.is_empty() && entry.key_files.is_empty() {
        return Err(ConfigError::new(
            "subscriber.keys",
            &entry.origin,
            format!("subscriber `{}` has no key", app_id.text),
            "write key_files = [\"…\"] or keys = [\"${…}\"]",
        ));
    }
    Ok(SubscriberSource {
        app_id: app_id.text,
        name: entry.name.map(|name| name.text),
        keys: entry.keys.into_iter().map(|key| key.text.into()).collect(),
        key_files: entry.key_files.iter().map(|file| env.resolve(&file.text)).collect(),
        origin: entry.origin,
    })
}
