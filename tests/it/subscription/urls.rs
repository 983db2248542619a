//! Public URLs that lead somewhere else: each is found out before the platform is asked.

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing::any,
};
use serde_json::{Value, json};

use convoke_simulator::platform::PlatformOptions;

use super::{Rig, says};
use crate::{
    simulated_platform::options,
    support::port::Port,
    support::service::{APP_ID, Database, KEY, PATH, Service, settings},
    support::tls,
};

/// A receiver of a few lines, on a port of its own.
async fn receiver(answer: impl Fn(Value) -> axum::response::Response + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let router =
        Router::new().fallback(any(async move |body: Bytes| answer(serde_json::from_slice(&body).unwrap_or_default())));
    // It ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Rig {
    /// Sets this URL, and expects that enabling it is refused with these words, and without asking the platform.
    async fn refuses(&mut self, url: &str, words: &[&str]) {
        url.clone_into(&mut self.url);
        let set = self.run(&["set", "--replace"]).await;
        assert_eq!(set.code(), 0, "{set:?}");
        let (code, json) = self.json(&["enable"]).await;
        let problem = &json["problem"];
        assert_eq!((code, problem["kind"].as_str(), &json["probed"]), (1, Some("probe"), &json!(false)), "{json}");
        let message = problem["message"].as_str().expect("a sentence");
        says(message, words);
        says(message, &[url, "The platform was not asked"]);
        assert_eq!(self.asked(), 0, "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_does_not_end_in_this_convoke_is_found_out_before_the_platform_is_asked() {
    let mut rig = Rig::start().await;
    let own = rig.url.clone();
    let nobody = Port::lease();
    rig.refuses(&format!("http://{}{PATH}", nobody.address()), &["cannot be reached", "--without-probe"]).await;
    rig.refuses(&own.replace(PATH, "/openapi/another"), &["404", "listen.path"]).await;

    // Another Convoke, with the same key and its own database; with our database, and another key.
    let other = Service::start().await;
    let elsewhere = format!("http://{}{PATH}", other.convoke.events);
    rig.refuses(&elsewhere, &["another Convoke", "database.url"]).await;
    assert_eq!(other.count("probes"), 0, "it notes nothing that it did not expect");
    let database = format!("sqlite://{}", rig.service.database_file().display());
    let keyless = settings().setting("APP_KEY", "another-key").setting("DATABASE_URL", &database);
    let keyless = Service::with(keyless, Database::Sqlite).await;
    rig.refuses(&format!("http://{}{PATH}", keyless.convoke.events), &["does not know subscriber", APP_ID, "401"])
        .await;

    let echo = receiver(|body| {
        (
            [(header::CONTENT_TYPE, "application/json")],
            json!({"event": "meeting.verify", "nonce": body["nonce"]}).to_string(),
        )
            .into_response()
    });
    rig.refuses(&echo.await, &["every handshake", "wrong key"]).await;
    let deaf = receiver(|_| StatusCode::OK.into_response());
    rig.refuses(&deaf.await, &["without the nonce"]).await;
    let portal = receiver(|_| (StatusCode::OK, "<html>Please log in</html>").into_response());
    rig.refuses(&portal.await, &["without the nonce"]).await;
    let target = own.clone();
    let redirect =
        receiver(move |_| (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target.clone())]).into_response());
    rig.refuses(&redirect.await, &["redirects (307)"]).await;
    let guarded = receiver(|_| StatusCode::FORBIDDEN.into_response());
    rig.refuses(&guarded.await, &["403", "listen.allow_from", "--without-probe"]).await;
    let broken = receiver(|_| StatusCode::BAD_GATEWAY.into_response());
    rig.refuses(&broken.await, &["answers with status 502"]).await;

    // Nothing of all that is in the way of the right one, nor held against it.
    rig.url = own;
    assert!(
        rig.json(&["show"]).await.1["warnings"][0]
            .as_str()
            .is_some_and(|warning| warning.contains("the subscription pushes to"))
    );
    let set = rig.done(&["set", "--replace"], &["set:"]).await;
    assert!(!set.stdout.contains("warning"), "{set:?}");
    rig.done(&["enable"], &["enabled"]).await;
    assert_eq!(rig.asked(), 1);
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_in_front_that_answers_in_our_place_is_found_out_though_the_probe_arrives() {
    let mut rig = Rig::start().await;
    let target = rig.url.clone();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    // It passes everything on, and says yes to everything.
    let url = receiver(move |body| {
        let (client, target, copy) = (client.clone(), target.clone(), body.to_string());
        tokio::spawn(async move { client.post(target).body(copy).send().await });
        axum::Json(json!({"event": "meeting.verify", "nonce": body["nonce"]})).into_response()
    });
    rig.refuses(&url.await, &["every handshake", "wrong key"]).await;
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_probe_a_handshake_that_another_convoke_answered_is_missed_afterwards() {
    let mut rig = Rig::start().await;
    let other = Service::start().await;
    rig.url = format!("http://{}{PATH}", other.convoke.events);
    rig.done(&["set"], &["set:"]).await;
    let (code, json) = rig.json(&["enable", "--without-probe", "--wait", "500ms"]).await;
    assert_eq!((code, json["problem"]["kind"].as_str()), (1, Some("handshake")), "{json}");
    assert_eq!((json["subscription"]["status"].as_str(), &json["probed"]), (Some("enabled"), &Value::Null));
    assert_eq!(other.sql("SELECT answered FROM handshakes"), "1");
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_named_and_a_probe_that_was_caught_is_worth_nothing_later() {
    let mut rig = Rig::start().await;
    let service_url = rig.url.clone();
    let (caught, catch) = tokio::sync::mpsc::unbounded_channel();
    let (mut catch, caught) = (catch, caught);
    let url = receiver(move |body| {
        let nonce = body["nonce"].clone();
        caught.send(body.to_string()).expect("the test listens");
        axum::Json(json!({"event": "meeting.verify", "nonce": nonce})).into_response()
    });
    rig.refuses(&url.await, &["every handshake"]).await;
    let genuine = catch.recv().await.expect("the probe");
    assert!(!genuine.contains(KEY), "the key itself goes nowhere");
    // Whoever caught it sends it to the real one, and changes nothing that is known of the platform.
    for _ in 0..3 {
        let answer = rig.service.post(genuine.clone()).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(rig.service.count("handshakes"), 0);
    assert_eq!(rig.service.metric("convoke_last_handshake_timestamp_seconds").await, 0.0);
    // Digits cannot be moved from one signed part into the next.
    let mut moved: Value = serde_json::from_str(&genuine).expect("JSON");
    let (app_id, timestamp) = (moved["appID"].as_str().expect("text").to_owned(), moved["timestamp"].to_string());
    moved["appID"] = json!(format!("{app_id}{}", &timestamp[..1]));
    assert_eq!(rig.service.post(moved.to_string()).await.status, 401);

    rig.service.convoke.kill().await;
    rig.refuses(&service_url, &["cannot be reached"]).await;
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_https_the_certificate_is_checked_first() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    tls::certificate(&cert, &key);
    let service = settings().setting("TLS_CERT", &cert).setting("TLS_KEY", &key);
    let platform = PlatformOptions { ca_file: Some(cert.clone()), ..options() };
    let mut rig = Rig::with(Service::with(service, Database::Sqlite).await, platform).await;
    let url = rig.url.replace("http:", "https:");
    rig.refuses(&url, &["certificate", "platform would not trust it either"]).await;
    let trusting = rig.run_with(&["enable"], |builder| builder.env("SSL_CERT_FILE", &cert)).await;
    assert_eq!(trusting.code(), 0, "{trusting:?}");
    assert_eq!((rig.status(), rig.asked()), (Some(0), 1));
    rig.platform.stop().await;
}
