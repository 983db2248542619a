//! Access to the admin listener: tokens with names and rights, from the single settings and from the list in the file.

use secrecy::{ExposeSecret as _, SecretString};

use super::env::Env;
use super::error::{ConfigError, Origin};
use super::file::{Found, TokenEntry};
use super::keys::{NONE, nearest};
use super::layers::{Layers, Refusal};
use super::{Admin, AdminRights, AdminToken, parse, secrets};

/// Maximum length of a token's name, in characters.
const MAX_NAME_CHARS: usize = 64;

const VIEW: &str = "view";
const SEE_PEOPLE: &str = "see_people";
const OPERATE: &str = "operate";

pub(super) fn admin(layers: &Layers, entries: Vec<TokenEntry>, env: &Env) -> Result<Admin, ConfigError> {
    let mut tokens = Vec::new();
    let everything = AdminRights { see_people: true, operate: true };
    if let Some((token, _)) = token(layers, env, "admin.token", "admin.token_file")? {
        tokens.push(AdminToken { name: "admin.token".into(), token, rights: everything });
    }
    let viewers = token(layers, env, "admin.viewer_token", "admin.viewer_token_file")?;
    if let Some((token, path)) = viewers {
        let problem = match tokens.first() {
            None if entries.is_empty() => {
                Some(("admin.token is not set, so nobody would have more rights", "set admin.token_file too"))
            }
            Some(other) if other.token.expose_secret() == token.expose_secret() => {
                Some(("it is the same token as admin.token, which shows personal data", "write a different one"))
            }
            _ => None,
        };
        if let Some((problem, instead)) = problem {
            let refusal = Refusal::new(problem, format!("{instead}, or set this to {NONE}"));
            return Err(layers.refuse(path, refusal));
        }
        tokens.push(AdminToken { name: "admin.viewer_token".into(), token, rights: AdminRights::default() });
    }
    for entry in entries {
        let (name, found) = name(&entry)?;
        let token = listed(&entry, env)?;
        if let Some(other) = tokens.iter().find(|other| *other.name == *name) {
            let problem = format!("another token is named `{}`", other.name);
            return Err(ConfigError::new("admin.tokens.name", &found.origin, problem, "write another name"));
        }
        if let Some(other) = tokens.iter().find(|other| other.token.expose_secret() == token.expose_secret()) {
            let problem = format!("`{name}` has the same token as `{}`", other.name);
            return Err(ConfigError::new("admin.tokens", &entry.origin, problem, "give each its own"));
        }
        tokens.push(AdminToken { name: name.into(), token, rights: rights(&entry)? });
    }
    Ok(Admin { tokens })
}

fn name(entry: &TokenEntry) -> Result<(&str, &Found), ConfigError> {
    let Some(found) = &entry.name else {
        let instead = "write name = \"…\": actions with this token are logged under it";
        return Err(ConfigError::new("admin.tokens.name", &entry.origin, "this [[admin.tokens]] has no name", instead));
    };
    let text = found.text.as_str();
    let fits = !text.is_empty() && text.trim() == text && text.chars().count() <= MAX_NAME_CHARS;
    if fits && !text.chars().any(char::is_control) {
        return Ok((text, found));
    }
    let problem = "the name is empty, too long, or holds a control character or white space around it";
    let instead = format!("write one of 1 to {MAX_NAME_CHARS} characters");
    Err(ConfigError::new("admin.tokens.name", &found.origin, problem, instead))
}

/// The token of an entry, given directly or in a file.
fn listed(entry: &TokenEntry, env: &Env) -> Result<SecretString, ConfigError> {
    let (path, found, read) = match (&entry.token, &entry.token_file) {
        (Some(token), None) => {
            ("admin.tokens.token", token, parse::token(&token.text).map(|()| token.text.as_str().into()))
        }
        (None, Some(file)) => ("admin.tokens.token_file", file, in_file(&file.text, env)),
        (found, _) => {
            let problem = if found.is_some() { "there are two tokens" } else { "there is no token" };
            let instead = "write either token_file = \"…\" or token = \"${…}\"";
            return Err(ConfigError::new("admin.tokens.token", &entry.origin, problem, instead));
        }
    };
    read.map_err(|refusal| ConfigError::new(path, &found.origin, refusal.problem, refusal.instead))
}

fn rights(entry: &TokenEntry) -> Result<AdminRights, ConfigError> {
    let known = [VIEW, SEE_PEOPLE, OPERATE];
    let instead = "write rights = [\"view\"], with \"see_people\" for personal data and \"operate\" for actions";
    let refused = |origin: &Origin, problem: &str, instead: &str| {
        Err(ConfigError::new("admin.tokens.rights", origin, problem, instead))
    };
    let Some(found) = entry.rights.as_ref().filter(|found| !found.is_empty()) else {
        return refused(&entry.origin, "this token has no rights", instead);
    };
    if let Some(unknown) = found.iter().find(|right| !known.contains(&right.text.as_str())) {
        let near = nearest(&unknown.text, known).map(|near| format!("did you mean `{near}`?"));
        return refused(&unknown.origin, "one of the rights is unknown", near.as_deref().unwrap_or(instead));
    }
    let has = |right| found.iter().any(|found| found.text == right);
    // Every token may view, even if its rights do not list that.
    Ok(AdminRights { see_people: has(SEE_PEOPLE), operate: has(OPERATE) })
}

fn in_file(text: &str, env: &Env) -> Result<SecretString, Refusal> {
    let token = secrets::secret_of(&env.resolve(text))?;
    parse::token(&token)?;
    Ok(SecretString::from(token.as_str()))
}

/// A token, with the setting that it comes from: the token itself, or the file that contains it.
fn token(
    layers: &Layers,
    env: &Env,
    direct: &'static str,
    file_path: &'static str,
) -> Result<Option<(SecretString, &'static str)>, ConfigError> {
    let (token, file) = (layers.found(direct), layers.found(file_path));
    let use_file = if token.text == NONE {
        true
    } else if file.text == NONE {
        false
    } else {
        // If both are set, the one with the higher precedence is used, unless both come from the same place.
        match (&token.origin, &file.origin) {
            (Origin::Variable(_), Origin::File { .. }) => false,
            (Origin::File { .. }, Origin::Variable(_)) => true,
            _ => {
                let refusal =
                    Refusal::new(format!("{direct} is set too"), format!("leave one out, or set it to {NONE}"));
                return Err(layers.refuse(file_path, refusal));
            }
        }
    };
    if !use_file {
        layers.read(direct, parse::token)?;
        return Ok(Some((token.text.as_str().into(), direct)));
    }
    Ok(layers.read_optional(file_path, |text| in_file(text, env))?.map(|token| (token, file_path)))
}
