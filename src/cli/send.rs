//! `convoke send`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::running;
use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env, Settings};
use crate::printable::printable;
use convoke_core::event::{KNOWN_EVENTS, Subscriber};
use convoke_core::time::Clock;
use convoke_simulator::{Answer, Error, Post};

/// Maximum number of characters of a response that are shown.
const SHOWN_CHARACTERS: usize = 200;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke send --handshake\n  convoke send https://your.host/openapi/meetingevent --event meeting.join\n\nThe events are test data. Remove them with `convoke forget --test-data`."
)]
pub struct SendArguments {
    /// URL of the receiver [default: the events listener of the settings, on this machine]
    url: Option<String>,
    /// Send the handshake (`meeting.verify`), which is not stored
    #[arg(long, conflicts_with = "event")]
    handshake: bool,
    /// Type of the event
    #[arg(long, value_name = "TYPE", default_value = "meeting.create", value_parser = clap::builder::PossibleValuesParser::new(KNOWN_EVENTS))]
    event: String,
    /// The subscriber that signs it, if several are configured
    #[arg(long, value_name = "ID")]
    subscriber: Option<String>,
    /// PEM file with the CA of the server's certificate, instead of the system's CAs
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    settings: ConfigArgs,
}

pub async fn run(arguments: &SendArguments, env: &Env) -> Outcome {
    let settings = Settings::load(&arguments.settings, env)?;
    settings.require_subscribers()?;
    let subscriber = subscriber(&settings, arguments.subscriber.as_deref())?;
    let key: &SecretString =
        subscriber.keys.first().ok_or_else(|| Failure::Usage("the subscriber has no key".to_owned()))?;
    let url = arguments.url.clone().unwrap_or_else(|| running::events_url(&settings));
    let clock = Clock::System;
    let post = Post {
        url: &url,
        ca_file: arguments.tls_ca.as_deref(),
        app_id: &subscriber.app_id,
        key,
        clock: &clock,
        timeout: arguments.timeout,
    };
    if arguments.handshake {
        let answer = post.handshake().await.map_err(failure)?;
        println!("handshake  {url}");
        println!(
            "answer     200 in {} ms, with the right nonce: the platform would enable the push",
            answer.took.as_millis()
        );
        return Ok(());
    }
    let (id, answer) = post.event(&arguments.event).await.map_err(failure)?;
    println!("event      {} to {url}", arguments.event);
    println!("event_id   {id}");
    println!("answer     {} in {} ms", answer.status, answer.took.as_millis());
    if answer.status == 200 {
        println!("It is test data: `convoke forget --test-data` removes it.");
        return Ok(());
    }
    explain(&answer);
    Err(Failure::Found)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Url { .. } | Error::Roots { .. } => Failure::Usage(error.to_string()),
        error => Failure::Failed(error.into()),
    }
}

fn subscriber<'a>(settings: &'a Settings, named: Option<&str>) -> Result<&'a Subscriber, Failure> {
    let mut subscribers = settings.subscribers.iter();
    let found = match named {
        Some(id) => subscribers.find(|subscriber| *subscriber.app_id == *id),
        None => subscribers.next(),
    };
    found.ok_or_else(|| Failure::Usage(format!("--subscriber: {} is not configured", named.unwrap_or_default())))
}

/// Explains a response other than 200, as far as its status tells.
fn explain(answer: &Answer) {
    let text: String = String::from_utf8_lossy(&answer.body).chars().take(SHOWN_CHARACTERS).collect();
    if !text.trim().is_empty() {
        println!("body       {}", printable(text.trim()));
    }
    let hint = match answer.status {
        401 => "the receiver has another key or does not know this subscriber",
        403 => "the receiver, or a proxy before it, does not take events from this address (listen.allow_from)",
        404 => "the path is wrong: it must be the receiver's listen.path",
        405 | 415 => "the receiver does not take this method or content: is there a proxy that changes requests?",
        413 => "the receiver, or a proxy before it, does not take bodies of this length",
        429 | 503 => "the receiver cannot store events at present; the platform would send it again",
        300..=399 => "a redirect, which the platform does not follow",
        502 | 504 => "a proxy answered, and Convoke behind it did not",
        _ => "the platform would send it again",
    };
    println!("This means {hint}.");
}
