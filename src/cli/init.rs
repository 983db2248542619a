//! `convoke init`: creates a folder with settings, key and token, from which `convoke serve` starts.

use std::io::{ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dialoguer::{Input, Password};
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use zeroize::Zeroizing;

use super::{Failure, Outcome};
use crate::config::{self, ConfigArgs, Env, Settings, toml_string};

const SETTINGS: &str = "convoke.toml";
const KEY: &str = "convoke.key";
const TOKEN: &str = "admin.token";

/// The range of a new subscriber ID: as many digits as in the platform's samples.
const SUBSCRIBER_ID_DIGITS: std::ops::Range<u64> = 1_000_000_000..10_000_000_000;
/// The length of a new password and of a new token.
const SECRET_CHARACTERS: usize = 32;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke init --app-id 1988692299\n  convoke serve")]
pub struct InitArguments {
    /// Folder for the files; made if it is missing
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Subscriber ID of the push configuration [default: a new one]
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// File with the password of the push configuration; `-`: the standard input [default: a new password]
    #[arg(long, value_name = "FILE")]
    app_key_file: Option<PathBuf>,
    /// Database: sqlite://FILE or postgres://USER:PASSWORD@HOST/NAME [default: convoke.db in the folder]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// NATS server that events are published to [default: none]
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// Address that takes the platform's events [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Ask nothing, also on a terminal
    #[arg(long)]
    yes: bool,
}

/// The values that are written to the files.
struct Answers {
    app_id: String,
    key: Zeroizing<String>,
    database_url: String,
    nats_url: String,
    listen: String,
}

pub fn run(arguments: &InitArguments, env: &Env) -> Outcome {
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    let here = folder == Path::new(".");
    // Relative paths in the settings are relative to the working directory.
    let folder = if here { folder.clone() } else { folder.canonicalize().context("the folder")? };
    let file = |name: &str| if here { PathBuf::from(name) } else { folder.join(name) };
    let files = [file(SETTINGS), file(KEY), file(TOKEN)];
    if let Some(there) = files.iter().find(|file| file.exists()) {
        let there = there.display();
        return Err(Failure::Usage(format!("{there} exists and is never overwritten: name another folder")));
    }
    let answers = answers(arguments, &file("convoke.db"))?;
    let [settings, key, token] = &files;
    let mut written = Vec::new();
    let mut make = || -> Outcome {
        // A file that another process created in the meantime is not removed.
        let mut note = |file: &Path, result: std::io::Result<()>| -> Outcome {
            if result.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::AlreadyExists) {
                written.push(file.to_owned());
            }
            Ok(result.with_context(|| file.display().to_string())?)
        };
        note(key, config::write_secret(key, &answers.key))?;
        note(token, config::write_secret(token, &secret()))?;
        // The settings may contain the database's password.
        let private = answers.database_url.contains('@');
        note(settings, config::write_settings(settings, &answers.settings(key, token), private))?;
        let args = ConfigArgs { config: Some(settings.clone()), ..ConfigArgs::default() };
        Settings::load(&args, env)?;
        Ok(())
    };
    if let Err(failure) = make() {
        for file in written {
            let _ = std::fs::remove_file(file);
        }
        return Err(failure);
    }
    answers.print_next_steps(&files, here);
    Ok(())
}

fn answers(arguments: &InitArguments, database: &Path) -> Result<Answers, Failure> {
    let ask = !arguments.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let text = |given: &Option<String>, question: &str, default: String| -> Result<String, Failure> {
        match given {
            Some(given) => Ok(given.clone()),
            None if ask => {
                Ok(Input::new().with_prompt(question).default(default).interact_text().map_err(anyhow::Error::from)?)
            }
            None => Ok(default),
        }
    };
    let new_id = rand::rng().random_range(SUBSCRIBER_ID_DIGITS).to_string();
    let app_id = text(&arguments.app_id, "Subscriber ID of the push configuration", new_id)?;
    let key = match &arguments.app_key_file {
        Some(file) => config::load_password(file)?,
        None if ask => {
            let prompt = "Password of the push configuration (Enter: a new one)";
            let typed = Password::new().with_prompt(prompt).allow_empty_password(true).interact();
            let typed = Zeroizing::new(typed.map_err(anyhow::Error::from)?);
            if typed.is_empty() { secret() } else { typed }
        }
        None => secret(),
    };
    let encoded = percent_encoding::utf8_percent_encode(&database.to_string_lossy(), PATH).to_string();
    Ok(Answers {
        app_id,
        key,
        database_url: text(&arguments.database_url, "Database", format!("sqlite://{encoded}"))?,
        nats_url: text(&arguments.nats_url, "NATS server (none: nothing is published)", "none".to_owned())?,
        listen: text(&arguments.listen, "Address for the platform's events", "127.0.0.1:8080".to_owned())?,
    })
}

/// Characters that need no encoding in the path of a URL.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

fn secret() -> Zeroizing<String> {
    Zeroizing::new(rand::rng().sample_iter(Alphanumeric).take(SECRET_CHARACTERS).map(char::from).collect())
}

/// A path, quoted for a shell if necessary.
fn in_a_shell(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

impl Answers {
    fn settings(&self, key: &Path, token: &Path) -> String {
        let Self { app_id, key: _, database_url, nats_url, listen } = self;
        let [app_id, database_url, nats_url, listen] =
            [app_id, database_url, nats_url, listen].map(|text| toml_string(text));
        let [key, token] = [key, token].map(|file| toml_string(&file.to_string_lossy()));
        format!(
            "# Made by `convoke init`. All settings, with their defaults: `convoke config --default`.\n\n\
             [[subscriber]]\napp_id = {app_id}\nkey_files = [{key}]\n\n\
             [listen]\nevents = {listen}\n\n\
             [database]\nurl = {database_url}\n\n\
             # \"none\": events are stored and not published. With a server: \"nats://127.0.0.1:4222\".\n\
             [nats]\nurl = {nats_url}\n\n\
             [admin]\ntoken_file = {token}\n"
        )
    }

    fn print_next_steps(&self, [settings, key, token]: &[PathBuf; 3], here: bool) {
        let [settings, key, token] = [settings, key, token].map(|file| file.display());
        let config = if here { String::new() } else { format!(" --config {}", in_a_shell(&settings.to_string())) };
        println!("made {settings}, {key} (the password) and {token} (for the page)\n");
        println!("Next:");
        println!("1. Start the service:                convoke serve{config}");
        println!("2. Test it, in a second terminal:    convoke send --handshake{config}");
        println!("3. Make it reachable by HTTPS, and add a push configuration in the platform's portal:");
        println!("     subscriber ID (订阅者ID)   {}", self.app_id);
        println!("     password (密码)            the line in {key}");
        println!("     push URL (推送URL)         https://your.host/openapi/meetingevent");
        println!("4. Press Enable (启用), then look:     convoke check{config}");
        println!("5. The page: http://127.0.0.1:8081/  It asks for the line in {token}.");
    }
}
