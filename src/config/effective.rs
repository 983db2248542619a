//! Shows the effective settings in the format of a settings file.

use std::fmt::Write as _;

use super::SettingsSources;
use super::error::{ConfigError, Origin, redact_url};
use super::keys::{KEYS, NONE, Shape};
use super::layers::Layers;
use super::subscribers;

/// Printed in place of a secret.
const HIDDEN: &str = "***";

impl SettingsSources {
    /// Every setting with its effective value and, in a comment, where it comes from. Secrets are hidden.
    ///
    /// # Errors
    /// The settings file or a variable cannot be read. The values themselves are not checked.
    pub fn effective(&self) -> Result<String, ConfigError> {
        let mut layers = Layers::collect(&self.args, &self.env, self.file.as_ref())?;
        let subscribers = subscribers::sources(&self.args, &self.env, std::mem::take(&mut layers.entries))?;
        let mut text = String::new();
        for subscriber in subscribers {
            let files = subscriber.key_files.iter().map(|file| toml_string(&file.to_string_lossy()));
            let _ =
                writeln!(text, "[[subscriber]]  # {}\napp_id = {}", subscriber.origin, toml_string(&subscriber.app_id));
            if let Some(name) = &subscriber.name {
                let _ = writeln!(text, "name = {}", toml_string(name));
            }
            let _ = writeln!(text, "key_files = [{}]", files.collect::<Vec<_>>().join(", "));
            let keys = vec![toml_string(HIDDEN); subscriber.keys.len()];
            let _ = writeln!(text, "keys = [{}]\n", keys.join(", "));
        }
        let mut section = "";
        for key in &KEYS {
            let (table, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if table != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{table}]");
                section = table;
            }
            let found = layers.found(key.path);
            let shown = match found.text.as_str() {
                value if value != NONE && key.secret() => HIDDEN.to_owned(),
                // Also what is no URL, as one without its scheme: it may hold a password all the same.
                value if value.contains("://") || key.is_url() => redact_url(value),
                value => value.to_owned(),
            };
            let value = match key.shape {
                Shape::List if shown == NONE => "[]".to_owned(),
                Shape::List => {
                    format!(
                        "[{}]",
                        shown.split(',').map(|part| toml_string(part.trim())).collect::<Vec<_>>().join(", ")
                    )
                }
                Shape::Bool | Shape::Integer => shown,
                Shape::Text | Shape::File | Shape::Bytes => toml_string(&shown),
            };
            let assigned = format!("{name} = {value}");
            let origin = match &found.origin {
                Origin::Default => "default".to_owned(),
                origin => origin.to_string(),
            };
            let _ = writeln!(text, "{assigned:<44}  # {origin}");
        }
        for token in &layers.tokens {
            let _ = writeln!(text, "\n[[admin.tokens]]  # {}", token.origin);
            for (key, found) in [("name", &token.name), ("token_file", &token.token_file)] {
                if let Some(found) = found {
                    let _ = writeln!(text, "{key} = {}", toml_string(&found.text));
                }
            }
            if token.token.is_some() {
                let _ = writeln!(text, "token = {}", toml_string(HIDDEN));
            }
            let rights = token.rights.iter().flatten().map(|right| toml_string(&right.text)).collect::<Vec<_>>();
            let _ = writeln!(text, "rights = [{}]", rights.join(", "));
        }
        Ok(text)
    }

    /// The name of the settings file, or a placeholder if there is none.
    #[must_use]
    pub fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "the settings".to_owned(), |file| file.path().to_owned())
    }
}

/// `text` as a string for the settings file, in which `${` would name a variable.
#[must_use]
pub fn toml_string(text: &str) -> String {
    toml::Value::String(text.replace("${", "$${")).to_string()
}
