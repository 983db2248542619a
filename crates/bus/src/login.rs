//! Login to NATS. Files are read at every connection, so that the next connection uses a rotated secret or a renewed JWT.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// Ways to log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// A file with the JWT and the seed of a user.
    Creds(PathBuf),
    /// A file with the seed of a user.
    Nkey(PathBuf),
    /// A user, and a file with the password.
    Password(String, PathBuf),
    /// A file with a token.
    Token(PathBuf),
    /// User and password from the URL.
    KnownPassword(String, SecretString),
    /// A token from the URL.
    KnownToken(SecretString),
}

impl Login {
    /// A description for messages, such as `user convoke`, without a secret.
    pub(super) fn who(&self) -> String {
        match self {
            Self::Password(user, _) | Self::KnownPassword(user, _) => format!("user {user}"),
            Self::Creds(file) => format!("the credentials in {}", file.display()),
            Self::Nkey(file) => format!("the nkey in {}", file.display()),
            Self::Token(file) => format!("the token in {}", file.display()),
            Self::KnownToken(_) => "the token in nats.url".to_owned(),
        }
    }

    /// Checks that the contents of the file can be used.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn check(&self) -> Result<(), AuthError> {
        self.auth(b"nothing").map(drop)
    }

    /// The response to the server, which has sent `nonce` to be signed.
    pub(super) fn auth(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        match self {
            Self::Creds(file) => {
                let text = read(file)?;
                let (Some(jwt), Some(seed)) = (section(&text, "USER JWT"), section(&text, "NKEY SEED")) else {
                    return Err(unusable(
                        file,
                        "this is not a credentials file: it contains no user JWT with its seed",
                    ));
                };
                auth.jwt = Some(jwt.to_owned());
                auth.signature = Some(pair(file, seed)?.sign(nonce).map_err(|error| unusable(file, error))?);
            }
            Self::Nkey(file) => {
                let text = read(file)?;
                // Tools write the seed alone, or between two lines.
                let pair = pair(file, section(&text, "NKEY SEED").unwrap_or_else(|| text.trim()))?;
                auth.nkey = Some(pair.public_key());
                auth.signature = Some(pair.sign(nonce).map_err(|error| unusable(file, error))?);
            }
            Self::Password(user, file) => {
                auth.username = Some(user.clone());
                auth.password = Some(read(file)?.trim_end_matches(['\r', '\n']).to_owned());
            }
            Self::Token(file) => auth.token = Some(read(file)?.trim_end_matches(['\r', '\n']).to_owned()),
            Self::KnownPassword(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.expose_secret().to_owned());
            }
            Self::KnownToken(token) => auth.token = Some(token.expose_secret().to_owned()),
        }
        Ok(auth)
    }
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> AuthError {
    AuthError::new(format!("{}: {why}", file.display()))
}

fn read(file: &Path) -> Result<Zeroizing<String>, AuthError> {
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| unusable(file, error))
}

fn pair(file: &Path, seed: &str) -> Result<KeyPair, AuthError> {
    KeyPair::from_seed(seed).map_err(|error| unusable(file, format!("its seed is invalid: {error}")))
}

/// The text between the lines that begin and end the section `name`.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(name))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_is_read_as_tools_write_it_and_signs_what_the_server_sends() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("user.creds");
        let pair = KeyPair::new_user();
        let seed = pair.seed().expect("a seed");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0eXAi.eyJqdGki.c2ln\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            std::fs::write(&file, text).expect("a file");
            let auth = Login::Creds(file.clone()).auth(b"nonce").expect("it is sound");
            assert_eq!(auth.jwt.as_deref(), Some("eyJ0eXAi.eyJqdGki.c2ln"));
            pair.verify(b"nonce", &auth.signature.expect("a signature")).expect("it is the user's");
        }
        std::fs::write(&file, format!("{seed}\n")).expect("a file");
        assert_eq!(Login::Nkey(file.clone()).auth(b"n").expect("it is sound").nkey, Some(pair.public_key()));
        let refused = Login::Creds(file.clone()).auth(b"n").err().expect("there is no JWT").to_string();
        assert!(refused.contains("user.creds") && !refused.contains(&seed), "{refused}");
        std::fs::write(&file, "SUANOSEED").expect("a file");
        let refused = Login::Nkey(file).auth(b"n").err().expect("it is no seed").to_string();
        assert!(!refused.contains("SUANOSEED"), "{refused}");
    }
}
