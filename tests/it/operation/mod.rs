//! What an operator touches: settings, secrets, the admin listener, metrics, reload, TLS, start, stop, logs.

mod admin;
mod log;
mod reload;
mod settings;
mod start;
mod stop;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use convoke_simulator::Simulation;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    support::service::{APP_ID, Database, KEY, PATH, Service, WAIT_TIMEOUT, event, now, settings, signed, signed_by},
    support::{
        http::{self, RawConnection},
        nats::{NatsOptions, NatsServer, NatsVersion},
        port::Port,
        postgres::Postgres,
        process::{Convoke, Finished, run_convoke},
        proxy::Proxy,
        tls, tools,
        wait::{eventually, stretched},
    },
};

const SUBSCRIBER: [(&str, &str); 2] = [("CONVOKE_APP_ID", APP_ID), ("CONVOKE_APP_KEY", KEY)];

fn assert_refused(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), 2, "{finished:?}");
    let text = &finished.stderr;
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert_eq!(finished.stdout, "");
}

/// Status and body of a page of the admin listener, asked for with this `Authorization`.
async fn authorised(convoke: &Convoke, path: &str, authorization: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin.example\r\nAuthorization: {authorization}\r\n\r\n");
    asked(convoke, &request).await
}

/// The lines of a log in JSON, all of which must be that.
fn lines(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(parse).collect()
}

async fn asked(convoke: &Convoke, request: &str) -> (u16, String) {
    let mut connection = RawConnection::open(convoke.admin).await;
    connection.send(request.as_bytes()).await;
    let answer = connection.answer().await;
    (answer[9..12].parse().expect("a status"), answer)
}
