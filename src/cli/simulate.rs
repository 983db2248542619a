//! `convoke simulate`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::running;
use super::{Failure, Outcome};
use crate::config::{self, ConfigArgs, Env, Settings};
use convoke_simulator::platform::{Platform, PlatformOptions};
use convoke_simulator::{self as simulator, Error, Report, SimulateArgs, Simulation};

/// The App ID of the simulated platform's API.
const APP_ID: &str = "0123456789abcdef0123456789abcdef";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  convoke simulate --meetings 5\n  convoke simulate --url https://your.host/openapi/meetingevent --rate 100 --duration 1m\n\nThe events are test data. Remove them with `convoke forget --test-data`."
)]
pub struct SimulateArguments {
    #[command(flatten)]
    options: SimulateArgs,
    /// Settings file in TOML, for what the flags leave out [env: CONVOKE_CONFIG] [default: ./convoke.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub async fn run(arguments: &SimulateArguments, env: &Env) -> Outcome {
    let options = &arguments.options;
    if let Some(address) = options.platform {
        return platform(options, address).await;
    }
    let simulation = simulation(arguments, env)?;
    let report = simulator::command(&simulation, CancellationToken::new()).await.map_err(|error| match error {
        Error::Handshake { .. } | Error::Record { .. } => Failure::Failed(error.into()),
        error => Failure::Usage(error.to_string()),
    })?;
    print(&report, options.json)
}

fn print(report: &Report, json: bool) -> Outcome {
    if json {
        return super::print_json(report);
    }
    println!("{report}");
    Ok(())
}

/// Simulates the platform with its API until Ctrl-C. Everything except the report goes to standard error.
async fn platform(arguments: &SimulateArgs, address: SocketAddr) -> Outcome {
    let file = &arguments.platform_key_file;
    let new_key = format!("{:032x}", rand::random::<u128>());
    let key = match config::write_secret(file, &new_key) {
        Ok(()) => SecretString::from(new_key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => first_key(file)?,
        Err(error) => return Err(anyhow::Error::new(error).context(format!("cannot write {}", file.display())).into()),
    };
    // Checked before a subscription can be enabled: after that, the command can no longer be refused.
    let checked = arguments.simulation("http://localhost/", String::new(), SecretString::default()).prepare();
    checked.map_err(|error| Failure::Usage(error.to_string()))?;
    let options = PlatformOptions {
        listen: address,
        sp_id: arguments.platform_sp_id.clone(),
        newer_recordings: arguments.platform_newer_recordings,
        ..PlatformOptions::new(APP_ID, key)
    };
    let platform = Platform::start(options).await.map_err(anyhow::Error::from)?;
    let key_file = std::path::absolute(file).context("the current folder")?;
    eprintln!("the platform's API is at {}; settings for Convoke:", platform.url());
    eprintln!("  export CONVOKE_PLATFORM_URL={}", platform.url());
    eprintln!("  export CONVOKE_PLATFORM_APP_ID={APP_ID}");
    eprintln!("  export CONVOKE_PLATFORM_APP_KEY_FILE={}", key_file.display());
    eprintln!("and, to hear what happens inside running meetings:");
    eprintln!("  export CONVOKE_LIVE_ENABLED=true CONVOKE_LIVE_MEETINGS=all");
    eprintln!("waiting until a subscription is enabled");

    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let subscribed = tokio::select! {
        subscribed = platform.enabled() => subscribed,
        _ = interrupt.recv() => return Ok(()),
    };
    eprintln!("enabled: pushing to {} as subscriber {}", subscribed.url, subscribed.subscriber_id);
    let simulation = Simulation {
        handshake: false,
        chronicle: Some(platform.chronicle()),
        ..arguments.simulation(&subscribed.url, subscribed.subscriber_id, subscribed.subscriber_key)
    };
    eprintln!("seed {}", simulation.seed);
    let report = {
        let mut run = std::pin::pin!(simulation.run(stop.clone()));
        tokio::select! {
            report = &mut run => report,
            _ = interrupt.recv() => {
                stop.cancel();
                run.await
            }
        }
    };
    print(&report.map_err(anyhow::Error::from)?, arguments.json)?;
    if !stop.is_cancelled() {
        eprintln!("the meetings are over; the API keeps answering until Ctrl-C");
        interrupt.recv().await;
    }
    platform.stop().await;
    Ok(())
}

fn first_key(file: &Path) -> Result<SecretString, Failure> {
    let keys = config::load_key_file(file)?;
    Ok(keys.into_iter().next().expect("a key file holds a key"))
}

/// The run that the flags describe. The settings are read only for what the flags leave out.
fn simulation(arguments: &SimulateArguments, env: &Env) -> Result<Simulation, Failure> {
    let SimulateArguments { options, config } = arguments;
    let key = options.app_key_file.as_deref().map(first_key).transpose()?;
    if let (Some(url), Some(app_id), Some(key)) = (&options.url, &options.app_id, &key) {
        return Ok(options.simulation(url, app_id, key.clone()));
    }
    let settings = Settings::load(&ConfigArgs { config: config.clone(), ..ConfigArgs::default() }, env)?;
    let url = options.url.clone().unwrap_or_else(|| running::events_url(&settings));
    if let (Some(app_id), Some(key)) = (&options.app_id, &key) {
        return Ok(options.simulation(&url, app_id, key.clone()));
    }
    let mut subscribers = settings.subscribers.iter();
    let subscriber = match &options.app_id {
        Some(app_id) => subscribers.find(|subscriber| *subscriber.app_id == **app_id),
        None => subscribers.next(),
    };
    let subscriber = subscriber.ok_or_else(|| {
        Failure::Usage(
            "no subscriber: give --app-id and --app-key-file, or configure one as for `convoke serve`".to_owned(),
        )
    })?;
    let key = key.unwrap_or_else(|| subscriber.keys[0].clone());
    Ok(options.simulation(&url, &*subscriber.app_id, key))
}
