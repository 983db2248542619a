//! The relay, on the oldest and the newest bus: every event of the log reaches the stream, in the order of the log,
//! whatever happens in between.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream;
use convoke_simulator::Simulation;
use futures_util::{FutureExt as _, StreamExt as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, psql},
    process::Convoke,
    proxy::Proxy,
    rig::*,
    wait::eventually,
};

macro_rules! on_both_versions {
    ($($name:ident)*) => {
        mod oldest {
            use crate::support::nats::NatsVersion;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(NatsVersion::Oldest).await; })*
        }
        mod newest {
            use crate::support::nats::NatsVersion;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(NatsVersion::Newest).await; })*
        }
    };
}

mod contract;
mod limits;
mod outages;
mod replay;
mod replicas;
mod stream_state;

/// A bus, and Convoke on an embedded database.
async fn rig(version: NatsVersion) -> (NatsServer, Convoke) {
    let nats = NatsServer::start(version, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    (nats, convoke)
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(Message::event_id).collect()
}

fn sample_ids(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|sample| sample.id.as_str()).collect()
}

fn position(database: &str) -> i64 {
    psql(database, "SELECT coalesce(max(position), 0) FROM cursors WHERE name = 'bus'").parse().expect("a number")
}
