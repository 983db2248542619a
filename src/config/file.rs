//! The settings file: finds and parses it, replaces `${NAME}`, and produces one text per key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use percent_encoding::AsciiSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::env::{ConfigArgs, Env};
use super::error::{ConfigError, Origin};
use super::keys::{KEYS, Key, NONE, SUBSCRIBER_KEYS, Shape, TOKEN_KEYS, nearest};

/// The file in the working directory that is used if no other is named.
const DEFAULT_FILE: &str = "convoke.toml";

/// A value as text, and where it was found. No `Debug`, because it may be a secret.
#[derive(Clone)]
pub(super) struct Found {
    pub text: String,
    pub origin: Origin,
}

/// The settings file. All names in it are known; nothing else has been checked.
#[derive(Default)]
pub(super) struct File {
    /// By key, for example `listen.events`.
    pub values: BTreeMap<&'static str, Found>,
    /// In the order of the file.
    pub subscribers: Vec<Entry>,
    pub tokens: Vec<TokenEntry>,
    text: Zeroizing<String>,
}

impl File {
    /// Whether the file refers to the variable `name`.
    pub fn mentions(&self, name: &str) -> bool {
        self.text.contains(&format!("${{{name}}}"))
    }
}

/// One `[[subscriber]]`.
pub(super) struct Entry {
    /// Where the entry begins.
    pub origin: Origin,
    pub app_id: Option<Found>,
    pub name: Option<Found>,
    pub keys: Vec<Found>,
    pub key_files: Vec<Found>,
}

/// One `[[admin.tokens]]`.
pub(super) struct TokenEntry {
    /// Where the entry begins.
    pub origin: Origin,
    pub name: Option<Found>,
    pub token: Option<Found>,
    pub token_file: Option<Found>,
    pub rights: Option<Vec<Found>>,
}

impl TokenEntry {
    /// The token file that the entry names.
    pub fn file(&self, env: &Env) -> Option<PathBuf> {
        self.token_file.as_ref().map(|file| env.resolve(&file.text))
    }
}

/// The text of the settings file.
#[derive(Clone)]
pub(super) struct Text {
    path: String,
    /// It may contain keys.
    text: Zeroizing<String>,
}

impl Text {
    /// The path as it was given.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Reads the file named by `--config` or `CONVOKE_CONFIG`, otherwise `convoke.toml`; `None`: there is none.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(args: &ConfigArgs, env: &Env) -> Result<Option<Text>, ConfigError> {
    let (path, origin) = match (&args.config, env.get("CONVOKE_CONFIG")) {
        (Some(path), _) => (path.display().to_string(), Origin::Flag("--config")),
        (None, Some(path)) => (path.to_owned(), Origin::Variable("CONVOKE_CONFIG".to_owned())),
        (None, None) => (DEFAULT_FILE.to_owned(), Origin::Default),
    };
    let resolved = match &args.config {
        Some(path) => env.resolve(path),
        None => env.resolve(&path),
    };
    match std::fs::read_to_string(resolved) {
        Ok(text) => Ok(Some(Text { path, text: Zeroizing::new(text) })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && origin == Origin::Default => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(ConfigError::new(
            "config",
            &origin,
            format!("the settings file {path} is not UTF-8"),
            "save it as UTF-8: an editor may have saved it as GBK or UTF-16",
        )),
        Err(error) => Err(ConfigError::new(
            "config",
            &origin,
            format!("the settings file {path} cannot be read: {error}"),
            "name a readable TOML file",
        )),
    }
}

/// Parses the file.
///
/// # Errors
/// It is not TOML, or contains an unknown name, a value of the wrong type, or a `${NAME}` that is unset.
pub(super) fn parse(text: &Text, env: &Env) -> Result<File, ConfigError> {
    Reader { path: &text.path, text: &text.text, env }.file()
}

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
    env: &'a Env,
}

impl Reader<'_> {
    fn file(&self) -> Result<File, ConfigError> {
        // Only the message and the position: the line itself may contain a key.
        let table = DeTable::parse(self.text).map_err(|error| {
            let origin = self.origin(error.span().map_or(0, |span| span.start));
            ConfigError::new("config", &origin, format!("not TOML: {}", error.message()), "correct this line")
        })?;
        let mut file = File { text: Zeroizing::new(self.text.to_owned()), ..File::default() };
        self.table("", table.get_ref(), &mut file)?;
        Ok(file)
    }

    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        Origin::File { path: self.path.to_owned(), line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
    }

    fn table(&self, parent: &str, table: &DeTable<'_>, file: &mut File) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path =
                if parent.is_empty() { name.get_ref().to_string() } else { format!("{parent}.{}", name.get_ref()) };
            let origin = self.origin(name.span().start);
            if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                let text = self.value(key, value, &origin)?;
                file.values.insert(key.path, Found { text, origin });
            } else if path == "subscriber" {
                file.subscribers = self.list(&path, value, &origin, Self::subscriber)?;
            } else if path == TOKENS {
                file.tokens = self.list(&path, value, &origin, Self::token)?;
            } else if KEYS.iter().any(|key| key.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))) {
                let DeValue::Table(inner) = value.get_ref() else {
                    return Err(wrong_type(&path, &origin, value, "a table", &format!("write [{path}]")));
                };
                self.table(&path, inner, file)?;
            } else {
                let sections = KEYS.iter().filter_map(|key| Some(key.path.split_once('.')?.0));
                let known = KEYS.iter().map(|key| key.path).chain(["subscriber", TOKENS]).chain(sections);
                return Err(unknown(&path, &origin, nearest(&path, known)));
            }
        }
        Ok(())
    }

    /// The value of `key`, as it would be written in the environment.
    fn value(&self, key: &Key, value: &Spanned<DeValue<'_>>, origin: &Origin) -> Result<String, ConfigError> {
        match (key.shape, value.get_ref()) {
            (Shape::Integer | Shape::Bytes, DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix()).map(|number| number.to_string()).map_err(|_| {
                    ConfigError::new(key.path, origin, format!("{number} is out of range"), "write a smaller number")
                })
            }
            (Shape::Bool, DeValue::Boolean(value)) => Ok(value.to_string()),
            (Shape::List, DeValue::Array(_)) => {
                let items = self.strings(key.path, value, origin)?;
                Ok(if items.is_empty() { NONE.to_owned() } else { items.join(",") })
            }
            // Any setting may be a string if it is filled from the environment, where all values are text.
            (Shape::Text | Shape::File | Shape::Bytes, DeValue::String(text)) => self.fill(key.path, text, origin),
            (_, DeValue::String(text)) if text.contains("${") || text == NONE => self.fill(key.path, text, origin),
            (Shape::Text | Shape::File, _) => Err(wrong_type(key.path, origin, value, "a string", "put it in quotes")),
            (Shape::List, _) => Err(wrong_type(key.path, origin, value, "an array of strings", "write [\"…\"]")),
            (Shape::Bool, _) => Err(wrong_type(key.path, origin, value, "a boolean", "write true or false")),
            (Shape::Integer, _) => {
                Err(wrong_type(key.path, origin, value, "a whole number", "write it without quotes"))
            }
            (Shape::Bytes, _) => {
                Err(wrong_type(key.path, origin, value, "a number of bytes", "write it as in \"256 KiB\""))
            }
        }
    }

    fn strings(&self, path: &str, value: &Spanned<DeValue<'_>>, origin: &Origin) -> Result<Vec<String>, ConfigError> {
        let refused = |value| Err(wrong_type(path, origin, value, "an array of strings", "write [\"…\"]"));
        let DeValue::Array(items) = value.get_ref() else { return refused(value) };
        let mut texts = Vec::new();
        for item in items.iter() {
            let DeValue::String(text) = item.get_ref() else { return refused(item) };
            texts.push(self.fill(path, text, origin)?);
        }
        Ok(texts)
    }

    /// Reads a list of tables.
    fn list<T>(
        &self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        origin: &Origin,
        read: impl Fn(&Self, &DeTable<'_>, Origin) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let refused = |value| Err(wrong_type(path, origin, value, "a list of tables", &format!("write [[{path}]]")));
        let DeValue::Array(items) = value.get_ref() else { return refused(value) };
        let mut entries = Vec::new();
        for item in items.iter() {
            let DeValue::Table(table) = item.get_ref() else { return refused(item) };
            entries.push(read(self, table, self.origin(item.span().start))?);
        }
        Ok(entries)
    }

    fn subscriber(&self, table: &DeTable<'_>, origin: Origin) -> Result<Entry, ConfigError> {
        let mut entry = Entry { origin, app_id: None, name: None, keys: Vec::new(), key_files: Vec::new() };
        for (name, value) in table {
            let path = format!("subscriber.{}", name.get_ref());
            let origin = self.origin(name.span().start);
            match name.get_ref().as_ref() {
                "app_id" => entry.app_id = Some(self.text(&path, value, origin)?),
                "name" => entry.name = Some(self.text(&path, value, origin)?),
                "keys" => entry.keys = self.texts(&path, value, &origin)?,
                "key_files" => entry.key_files = self.texts(&path, value, &origin)?,
                other => return Err(unknown(&path, &origin, nearest(other, SUBSCRIBER_KEYS))),
            }
        }
        Ok(entry)
    }

    fn token(&self, table: &DeTable<'_>, origin: Origin) -> Result<TokenEntry, ConfigError> {
        let mut entry = TokenEntry { origin, name: None, token: None, token_file: None, rights: None };
        for (name, value) in table {
            let path = format!("{TOKENS}.{}", name.get_ref());
            let origin = self.origin(name.span().start);
            match name.get_ref().as_ref() {
                "name" => entry.name = Some(self.text(&path, value, origin)?),
                "token" => entry.token = Some(self.text(&path, value, origin)?),
                "token_file" => entry.token_file = Some(self.text(&path, value, origin)?),
                "rights" => entry.rights = Some(self.texts(&path, value, &origin)?),
                other => return Err(unknown(&path, &origin, nearest(other, TOKEN_KEYS))),
            }
        }
        Ok(entry)
    }

    fn text(&self, path: &str, value: &Spanned<DeValue<'_>>, origin: Origin) -> Result<Found, ConfigError> {
        let DeValue::String(text) = value.get_ref() else {
            return Err(wrong_type(path, &origin, value, "a string", "put it in quotes"));
        };
        Ok(Found { text: self.fill(path, text, &origin)?, origin })
    }

    fn texts(&self, path: &str, value: &Spanned<DeValue<'_>>, origin: &Origin) -> Result<Vec<Found>, ConfigError> {
        let texts = self.strings(path, value, origin)?;
        Ok(texts.into_iter().map(|text| Found { text, origin: origin.clone() }).collect())
    }

    /// `text` with every `${NAME}` replaced by that variable, and every `$${` by a plain `${`. Inserted values are not expanded
    /// again, and are percent-encoded within a URL, so that any password can be used as it is.
    fn fill(&self, setting: &str, text: &str, origin: &Origin) -> Result<String, ConfigError> {
        // The error contains no part of `text` except a well-formed name, because the text may be a key.
        let refused = |problem: String, instead: &str| Err(ConfigError::new(setting, origin, problem, instead));
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                filled.extend([before, "${"]);
                rest = after;
                continue;
            }
            let Some((name, after)) = after.split_once('}') else {
                return refused("a `${` has no `}`".to_owned(), "write ${NAME}, or $${ for these two characters");
            };
            let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !named {
                return refused(
                    "a `${…}` does not contain the name of a variable".to_owned(),
                    "write ${NAME} with letters, digits and `_` only, or $${ for the two characters",
                );
            }
            let Some(value) = self.env.get(name) else {
                return refused(format!("${{{name}}} is not set"), "set this variable, or write the value itself");
            };
            filled.push_str(before);
            if URLS.contains(&setting) && encoded(&text[..text.len() - rest.len() + at], after) {
                filled.extend(percent_encoding::utf8_percent_encode(value, RESERVED));
            } else {
                filled.push_str(value);
            }
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The list of the admin listener's tokens.
const TOKENS: &str = "admin.tokens";

/// Settings whose value is a URL that may contain a password.
const URLS: [&str; 2] = ["database.url", "nats.url"];

/// All characters except those that are never special in a URL.
const RESERVED: &AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether a value between these two parts of a URL must be encoded: it is a user, a password, or part of what follows the hosts.
/// The beginning of the URL, hosts, and whole query parameters are inserted as they are.
fn encoded(before: &str, after: &str) -> bool {
    let Some((_, before)) = before.rsplit_once("://") else { return false };
    if before.contains(['/', '?']) {
        return !before.ends_with(['?', '&']);
    }
    let hosts = after.find(['/', '?']).unwrap_or(after.len());
    after[..hosts].contains('@')
}

fn wrong_type(path: &str, origin: &Origin, value: &Spanned<DeValue<'_>>, wanted: &str, instead: &str) -> ConfigError {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    ConfigError::new(path, origin, format!("must be {wanted}, not {found}"), instead)
}

fn unknown(path: &str, origin: &Origin, near: Option<&str>) -> ConfigError {
    let instead = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "remove it; `convoke config --default` prints all settings".to_owned(),
    };
    ConfigError::new(path, origin, "no setting has this name", instead)
}
