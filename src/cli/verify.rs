//! `convoke verify`.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use strum::VariantArray as _;

use super::{Failure, Outcome};
use crate::config::{self, ConfigArgs, Env, Settings};
use crate::metrics::Label as _;
use crate::printable::printable;
use convoke_core::event::{Content, Delivery, Subscriber};
use convoke_core::time::Clock;
use convoke_core::verify::{self, Checked, Keyring, Malformed, Refusal};
use convoke_core::zone::TimeZone;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke verify body.json")]
pub struct VerifyArguments {
    /// File with the captured request body [default: -, the standard input]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub fn run(arguments: &VerifyArguments, env: &Env) -> Outcome {
    let mut body = read(arguments)?;
    let mut description = verify::describe(&body, Clock::System.now());
    let mut converted = false;
    if let Err(Malformed::NotUtf8) = description
        && let Some((encoding, text)) = verify::in_another_encoding(&body)
    {
        println!("the body is not UTF-8 and is refused (400, not_utf8): it can be read as {encoding}");
        println!("Did a program or a proxy convert it? Converted back to UTF-8:");
        body = text.into_bytes();
        description = verify::describe(&body, Clock::System.now());
        converted = true;
    }
    let (subscribers, zone) = subscribers(arguments, env, description.as_ref().ok().and_then(|d| d.app_id.as_deref()))?;
    let description = match description {
        Ok(description) => description,
        Err(malformed) => {
            println!("not an envelope: {}", printable(&malformed.to_string()));
            return Err(Failure::Found);
        }
    };
    let keyring = Keyring::new(&subscribers);
    let delivery = Delivery { received_at: Clock::System.now(), request_id: None, traceparent: None };
    let body = Bytes::from(body);
    match verify::verify(&body, &keyring, &delivery) {
        Ok(checked) => {
            print_event(&checked, &subscribers, &zone);
            if converted { Err(Failure::Found) } else { Ok(()) }
        }
        Err(refusal) => {
            println!("{}", printable(&refusal.to_string()));
            let app_id = printable(description.app_id.as_deref().unwrap_or("not text"));
            println!("  {}         {app_id}", description.app_id_name);
            match refusal {
                Refusal::Signature => explain(&description, &other_match(&body, &keyring, &subscribers)),
                Refusal::UnknownSubscriber => {
                    let known: Vec<_> = subscribers.iter().map(|subscriber| &*subscriber.app_id).collect();
                    let known = if known.is_empty() { "nobody".to_owned() } else { known.join(", ") };
                    println!("  configured   {known}");
                }
                Refusal::Malformed(_) => {}
            }
            Err(Failure::Found)
        }
    }
}

fn print_event(checked: &Checked, subscribers: &[Subscriber], zone: &TimeZone) {
    println!("the signature matches");
    println!("  form         {}", checked.form.as_str());
    let id = checked.verified.subscriber_id();
    let subscriber = subscribers.iter().find(|subscriber| subscriber.app_id == *id);
    let keys = subscriber.map_or(0, |subscriber| subscriber.keys.len());
    println!("  key          number {} of {keys} of subscriber {}", checked.key + 1, printable(id));
    match checked.verified.content() {
        Content::Handshake(_) => println!("  event        meeting.verify, the handshake"),
        Content::Event(event) => {
            println!("  event        {}", printable(&event.event));
            println!("  event_id     {}", event.event_id);
            println!("  occurred_at  {}", zone.local(event.occurred_at));
        }
        Content::Unreadable(unreadable) => {
            println!("  event        no event can be made from it: {}", printable(&unreadable.reason));
        }
    }
}

/// What matches instead, if no signature that a delivery may have does.
enum OtherMatch {
    /// A text that is not tried for deliveries.
    Text(verify::Fit),
    /// A key without the white space around it.
    Trimmed,
    Nothing {
        /// A key begins or ends with white space.
        blanks: bool,
    },
}

fn other_match(body: &Bytes, keyring: &Keyring, subscribers: &[Subscriber]) -> OtherMatch {
    if let Some(fit) = verify::search(body, keyring) {
        return OtherMatch::Text(fit);
    }
    let trimmed = subscribers.iter().map(|subscriber| {
        let keys = subscriber.keys.iter().map(|key| key.expose_secret().trim().into()).collect();
        Subscriber { keys, ..subscriber.clone() }
    });
    let trimmed = Keyring::new(&trimmed.collect::<Vec<_>>());
    if verify::authenticate(body, &trimmed).is_ok() {
        return OtherMatch::Trimmed;
    }
    let has_blanks = |key: &SecretString| key.expose_secret() != key.expose_secret().trim();
    OtherMatch::Nothing { blanks: subscribers.iter().flat_map(|subscriber| &subscriber.keys).any(has_blanks) }
}

/// Prints what to check when no key matches.
fn explain(description: &verify::Description, other_match: &OtherMatch) {
    if !description.signature_is_hex {
        println!("  signature    is not 64 hexadecimal digits");
    }
    println!("  timestamp    {}", printable(&description.timestamp.to_string()));
    println!("  nonce        {}", printable(description.nonce.as_deref().unwrap_or("not text")));
    match &description.event {
        Ok(event) => println!("  event        {}", printable(&event.to_string())),
        Err(reason) => println!("  event        no event could be made from it: {}", printable(&reason.to_string())),
    }
    if description.had_white_space {
        println!("  eventInfo    contains white space; it was tried with and without it");
    }
    let forms = verify::Form::VARIANTS.iter().map(|form| form.as_str()).collect::<Vec<_>>().join(", ");
    println!("  tried        appID + timestamp + nonce + eventInfo, with every key, in the forms {forms}");
    match other_match {
        OtherMatch::Text(fit) => {
            println!("  fits         eventInfo with: {} (key number {})", fit.form, fit.key + 1);
            println!(
                "The key is right. The sender signs a different text from the one it sends, and Convoke accepts no \
                 delivery in that form:"
            );
            println!("report it with this output, and if you can, make the sender sign exactly what it sends.");
            return;
        }
        OtherMatch::Trimmed => {
            println!("  fits         a key without the white space that it begins or ends with");
            println!("Remove the white space from the key file: the whole line is the key, including spaces.");
            return;
        }
        OtherMatch::Nothing { blanks } => {
            println!("  and with     any of these, alone and together: {}", verify::words().join("; "));
            if *blanks {
                println!(
                    "  key          begins or ends with white space, which is part of the key; without it the \
                     signature does not match either"
                );
            }
        }
    }
    println!(
        "Is the key the password of this subscriber ID in the platform's push configuration? Is the body \
              unchanged?"
    );
}

fn read(arguments: &VerifyArguments) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    match arguments.file.as_deref().filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            body = std::fs::read(path).map_err(|error| {
                Failure::Usage(format!("{}: {error}; name a file with a request body", path.display()))
            })?;
        }
        None => {
            std::io::stdin().lock().read_to_end(&mut body).context("the standard input")?;
        }
    }
    Ok(body)
}

/// The configured subscribers; with a key file but without an appID, the subscriber that the body names. And the zone that times
/// are shown in.
fn subscribers(
    arguments: &VerifyArguments,
    env: &Env,
    named: Option<&str>,
) -> Result<(Vec<Subscriber>, TimeZone), Failure> {
    let mut args = arguments.settings.clone();
    if args.app_id.is_none()
        && let Some(file) = args.app_key_file.take()
    {
        let keys = config::load_key_file(file.as_ref())?;
        let zone =
            Settings::load(&args, env).map_or_else(|_| TimeZone::default(), |settings| settings.reports.time_zone);
        return Ok((vec![Subscriber { app_id: Arc::from(named.unwrap_or_default()), keys, name: None }], zone));
    }
    let settings = Settings::load(&args, env)?;
    settings.require_subscribers()?;
    Ok((settings.subscribers, settings.reports.time_zone))
}
