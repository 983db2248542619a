//! Whatever the platform writes into a payload comes out of the log and of the stream as it was written.

#[path = "../../crates/core/src/verify/tests/json_text.rs"]
mod json_text;

use std::cell::Cell;

use async_nats::jetstream::consumer::pull;
use convoke_core::id::EventId;
use convoke_core::sign;
use convoke_core::time::Millis;
use futures_util::StreamExt;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::{runtime::Handle, sync::Mutex, task::block_in_place, time::timeout};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, psql},
    process::Convoke,
    rig::*,
};
use json_text::{spread, value, white_space};

const CASES: u32 = 100;

/// Any JSON, some of it very deep and some of it long.
fn payload() -> impl Strategy<Value = Vec<String>> {
    let within = |open: &'static str, close: &'static str| {
        (value(), 1..500_usize).prop_map(move |(inner, levels)| {
            [vec![open.to_owned(); levels], inner, vec![close.to_owned(); levels]].concat()
        })
    };
    prop_oneof![
        10 => value(),
        1 => within("[", "]"),
        1 => within("{\"\":", "}"),
        1 => (value(), 0..100_000_usize).prop_map(|(inner, length)| {
            [vec!["[".to_owned(), format!("\"{}\"", "长".repeat(length / 3)), ",".to_owned()], inner, vec!["]".to_owned()]]
                .concat()
        }),
    ]
}

/// The only event of the log with this id.
async fn logged(convoke: &Convoke, postgres: Option<&Postgres>, id: &str) -> String {
    let sql = format!("SELECT event_info FROM events WHERE event_id = '{id}'");
    match postgres {
        Some(postgres) => psql(&postgres.url(), &sql),
        None => sqlite(convoke.folder(), &sql).await[0][0].clone().expect("not forgotten"),
    }
}

async fn every_payload_survives(postgres: Option<Postgres>) {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let database = postgres.as_ref().map_or_else(|| SQLITE.to_owned(), Postgres::url);
    let convoke = convoke(&database, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    // The first event makes the stream.
    deliver(&convoke, 0..1).await;
    stream_holds(&nats.jetstream().await, 1, TEN).await;
    let stream = nats.jetstream().await.get_stream(STREAM).await.expect("a stream");
    let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.expect("a consumer");
    let messages = Mutex::new(consumer.messages().await.expect("messages"));

    let number = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let inputs = (payload(), prop::collection::vec(white_space(), 1..8));
    let outcome = runner.run(&inputs, |(payload, spaces)| {
        let at = 1_790_100_000_000 + number.replace(number.get() + 1);
        let head = format!(r#"{{"event":"meeting.join","timestamp":{at},"payload":"#);
        let (compact, sent) = (payload.concat(), spread(&payload, &spaces));
        let info = format!("{head}{compact}}}");
        let id = EventId::of(APP_ID, Millis::new(at).expect("a time"), info.as_bytes()).to_string();
        let signature = sign::sign(APP_ID, at, "12345678", info.as_bytes(), KEY.as_bytes());
        let body = format!(
            r#"{{"appID":"{APP_ID}","timestamp":{at},"nonce":"12345678","signature":"{signature}","eventInfo":{head}{sent}}}}}"#
        );
        block_in_place(|| {
            Handle::current().block_on(async {
                prop_assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, 200);
                prop_assert_eq!(logged(&convoke, postgres.as_ref(), &id).await, info);
                loop {
                    let next = timeout(TEN, messages.lock().await.next()).await.expect("a message in time");
                    let message = next.expect("not ended").expect("a message");
                    let is = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
                    if is.is_some_and(|is| is.as_str() == id) {
                        let text = String::from_utf8_lossy(&message.payload).into_owned();
                        let verbatim = text.ends_with(&format!(r#","data":{compact}}}"#));
                        prop_assert!(verbatim, "{compact} is not the data of {text}");
                        return Ok(());
                    }
                }
            })
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_payload_survives_to_log_and_stream_byte_for_byte_on_sqlite() {
    every_payload_survives(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_payload_survives_to_log_and_stream_byte_for_byte_on_postgresql() {
    every_payload_survives(Some(Postgres::start().await)).await;
}
