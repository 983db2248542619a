//! Determines one value per setting: flag, then `CONVOKE_*`, then file, then `DATABASE_URL` / `NATS_URL`, then default.

use std::collections::BTreeMap;

use super::env::{ConfigArgs, Env};
use super::error::{ConfigError, Origin};
use super::file::{self, Entry, Found, TokenEntry};
use super::keys::{KEYS, Key, NONE, Shape, check_variable, is_setting, shared_variable, variable};

/// What is wrong with a value, and what to write instead.
pub(super) struct Refusal {
    pub problem: String,
    pub instead: String,
}

impl Refusal {
    pub fn new(problem: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { problem: problem.into(), instead: instead.into() }
    }
}

/// The effective value of every setting, not checked yet, and the lists of the file.
pub(super) struct Layers {
    values: BTreeMap<&'static str, Found>,
    pub entries: Vec<Entry>,
    pub tokens: Vec<TokenEntry>,
}

impl Layers {
    /// Merges all layers.
    ///
    /// # Errors
    /// A `CONVOKE_*` variable is unknown, the file cannot be used, or a value is empty.
    pub fn collect(args: &ConfigArgs, env: &Env, file: Option<&file::Text>) -> Result<Self, ConfigError> {
        let mut file = file.map(|text| file::parse(text, env)).transpose()?.unwrap_or_default();
        for (name, value) in env.iter().filter(|(name, _)| !file.mentions(name)) {
            check_variable(name, value)?;
        }
        if let Some(name) = env.odd().iter().find(|name| is_setting(name)) {
            let origin = Origin::Variable(name.clone());
            return Err(ConfigError::new(name, &origin, "the value is not UTF-8", "write it in UTF-8"));
        }
        let mut values = BTreeMap::new();
        for key in &KEYS {
            let found = choose(key, args, env, file.values.remove(key.path));
            if found.text.is_empty() {
                return Err(ConfigError::new(
                    key.path,
                    &found.origin,
                    "the value is empty",
                    format!("write a value, or leave it out ({})", describe_default(key)),
                ));
            }
            values.insert(key.path, found);
        }
        Ok(Self { values, entries: file.subscribers, tokens: file.tokens })
    }

    /// The value of a setting in [`KEYS`].
    pub fn found(&self, path: &str) -> &Found {
        &self.values[path]
    }

    /// The setting's value, parsed with `parse`.
    pub fn read<T>(&self, path: &str, parse: impl FnOnce(&str) -> Result<T, Refusal>) -> Result<T, ConfigError> {
        parse(&self.found(path).text).map_err(|refusal| self.refuse(path, refusal))
    }

    /// The same for a setting that may be absent.
    pub fn read_optional<T>(
        &self,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Result<Option<T>, ConfigError> {
        if self.found(path).text == NONE { Ok(None) } else { self.read(path, parse).map(Some) }
    }

    /// The error for a setting whose value cannot be used.
    pub fn refuse(&self, path: &str, refusal: Refusal) -> ConfigError {
        ConfigError::new(path, &self.found(path).origin, refusal.problem, refusal.instead)
    }

    /// The error if `set` is set without `missing`, which it requires.
    pub fn alone(&self, set: &str, missing: &str) -> ConfigError {
        self.refuse(set, Refusal::new(format!("{missing} is not set"), format!("set both, or set this to {NONE}")))
    }

    /// The paths of all files that settings name.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let named = KEYS.iter().filter(|key| key.shape == Shape::File).map(|key| self.values[key.path].text.as_str());
        named.filter(|text| *text != NONE)
    }

    /// Where each setting came from.
    pub fn into_origins(self) -> BTreeMap<&'static str, Origin> {
        self.values.into_iter().map(|(path, found)| (path, found.origin)).collect()
    }
}

fn choose(key: &Key, args: &ConfigArgs, env: &Env, file: Option<Found>) -> Found {
    let from = |name: &str| {
        env.get(name).map(|text| Found { text: text.to_owned(), origin: Origin::Variable(name.to_owned()) })
    };
    let flag = key
        .flag
        .and_then(|flag| args.get(flag).map(|text| Found { text: text.to_owned(), origin: Origin::Flag(flag) }));
    flag.or_else(|| from(&variable(key)))
        .or(file)
        .or_else(|| shared_variable(key).and_then(from))
        .unwrap_or_else(|| Found { text: key.default.to_owned(), origin: Origin::Default })
}

fn describe_default(key: &Key) -> String {
    match key.default {
        NONE => format!("or `{NONE}`, which means the same"),
        default => format!("then it is {default}"),
    }
}
