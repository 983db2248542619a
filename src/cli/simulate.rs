//! `convoke simulate`.

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome};
use crate::config::{ConfigArgs, Env, Settings};
use crate::simulate::{self, Error, SimulateArgs};

pub async fn run(arguments: &SimulateArgs, env: &Env) -> Outcome {
    let (app_id, key) = credentials(arguments, env)?;
    let simulation = arguments.simulation(app_id, key);
    let report = simulate::command(&simulation, CancellationToken::new()).await.map_err(|error| match error {
        Error::Handshake { .. } | Error::Record { .. } => Failure::Failed(error.into()),
        error => Failure::Usage(error.to_string()),
    })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Whose events to sign, and with which key: the flags, else the first configured subscriber.
fn credentials(arguments: &SimulateArgs, env: &Env) -> Result<(String, SecretString), Failure> {
    if let (Some(app_id), Some(file)) = (&arguments.app_id, &arguments.app_key_file) {
        let key = simulate::read_key(file).map_err(|error| Failure::Usage(error.to_string()))?;
        return Ok((app_id.clone(), key));
    }
    let settings = Settings::load(&ConfigArgs::default(), env)?;
    let subscriber = match &arguments.app_id {
        Some(app_id) => settings.subscribers.iter().find(|subscriber| *subscriber.app_id == **app_id),
        None => settings.subscribers.first(),
    };
    let Some(subscriber) = subscriber else {
        return Err(Failure::Usage(
            "no subscriber to play: give --app-id and --app-key-file, or configure one as for `convoke serve`"
                .to_owned(),
        ));
    };
    let key = match &arguments.app_key_file {
        Some(file) => simulate::read_key(file).map_err(|error| Failure::Usage(error.to_string()))?,
        None => subscriber.keys[0].clone(),
    };
    Ok((subscriber.app_id.to_string(), key))
}
