//! New keys and certificates while the service runs.

use super::*;

fn write_keys(path: &Path, keys: &[&str]) {
    std::fs::write(path, keys.join("\n")).expect("a key file");
}

#[tokio::test]
async fn new_keys_are_taken_without_a_restart_and_bad_ones_leave_the_old() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("keys");
    write_keys(&file, &["old"]);
    let builder = Convoke::builder().setting("NATS_URL", "none").setting("APP_ID", APP_ID);
    let mut service = Service::with(builder.setting("APP_KEY_FILE", &file), Database::Sqlite).await;
    let events = service.convoke.events;
    // One connection that lives through it all.
    let mut connection = RawConnection::open(events).await;
    let mut status = async |key: &str| {
        let body = signed_by(APP_ID, key, &event("meeting.join", "1"));
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(&[head.as_bytes(), &body].concat()).await;
        connection.answer().await[9..12].to_owned()
    };
    assert_eq!((status("old").await.as_str(), status("new").await.as_str()), ("200", "401"));

    write_keys(&file, &["old", "new"]);
    service.convoke.signal(Signal::HUP);
    eventually("the new key counts", WAIT_TIMEOUT, async || status("new").await == "200").await;
    assert_eq!(status("old").await, "200");
    assert_eq!(service.metric("convoke_reload_ok").await, 1.0);

    write_keys(&file, &["old", "", "new"]);
    service.convoke.signal(Signal::HUP);
    eventually("the failure shows", WAIT_TIMEOUT, async || service.metric("convoke_reload_ok").await == 0.0).await;
    assert_eq!((status("old").await.as_str(), status("new").await.as_str()), ("200", "200"));
    assert_eq!(service.convoke.logs().matches("could not reload").count(), 1);

    write_keys(&file, &["new"]);
    service.convoke.signal(Signal::HUP);
    eventually("the old key is gone", WAIT_TIMEOUT, async || status("old").await == "401").await;
    assert_eq!(service.metric("convoke_reload_ok").await, 1.0);
}

#[tokio::test]
async fn https_is_served_in_both_versions_and_its_certificate_is_replaced_while_it_runs() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    for name in ["one", "two"] {
        tls::certificate(&at(&format!("{name}.cert")), &at(&format!("{name}.key")));
    }
    let put = |name: &str| {
        std::fs::copy(at(&format!("{name}.cert")), &cert).expect("a copy");
        std::fs::copy(at(&format!("{name}.key")), &key).expect("a copy");
    };
    put("one");
    let builder = settings().setting("TLS_CERT", &cert).setting("TLS_KEY", &key);
    let mut service = Service::with(builder, Database::Sqlite).await;
    let events = service.convoke.events;

    let mut old = tls::connect(events, &at("one.cert"), b"http/1.1").await.expect("HTTPS");
    let mut post = async |meeting: &str| {
        let body = signed(&event("meeting.join", meeting));
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        old.write_all(&[head.as_bytes(), &body].concat()).await.expect("an open connection");
        let mut answer = vec![0; 4096];
        let read = old.read(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer[..read.min(12)]).into_owned()
    };
    assert_eq!(post("1").await, "HTTP/1.1 200");
    let h2 = tls::connect(events, &at("one.cert"), b"h2").await.expect("HTTPS");
    assert_eq!(tls::post_http2(h2, PATH, signed(&event("meeting.join", "2"))).await, (200, String::new()));
    // Plain HTTP is answered that it is wrong here.
    assert_eq!(http::post(events, PATH, signed(&event("meeting.join", "3")), &[]).await.status, 400);

    // A key of another certificate: the old pair stays.
    std::fs::copy(at("two.key"), &key).expect("a copy");
    service.convoke.signal(Signal::HUP);
    eventually("the failure shows", WAIT_TIMEOUT, async || service.metric("convoke_reload_ok").await == 0.0).await;
    tls::connect(events, &at("one.cert"), b"h2").await.expect("the old certificate");

    put("two");
    service.convoke.signal(Signal::HUP);
    eventually("the new certificate is shown", WAIT_TIMEOUT, async || {
        tls::connect(events, &at("two.cert"), b"h2").await
    })
    .await;
    eventually("and the success, too", WAIT_TIMEOUT, async || service.metric("convoke_reload_ok").await == 1.0).await;
    tls::connect(events, &at("one.cert"), b"h2").await.expect_err("the old certificate is gone");
    assert_eq!(post("4").await, "HTTP/1.1 200", "the connection under the old certificate goes on");
    assert_eq!(service.count("events"), 3);

    // Who never says hello does not hold up the end.
    let silent = RawConnection::open(events).await;
    tls::connect(events, &at("two.cert"), b"h2").await.expect("accepted after the silent one");
    service.convoke.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(service.convoke.wait_exit(WAIT_TIMEOUT).await.success());
    assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{:?}", begun.elapsed());
    drop(silent);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_wrong_setting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    tls::certificate(&at("one.cert"), &at("one.key"));
    tls::certificate(&at("two.cert"), &at("two.key"));
    std::fs::write(at("rubbish"), "rubbish").expect("a file");
    for (cert, key, named) in [
        ("one.cert", "nowhere", "`listen.tls_key`"),
        ("nowhere", "one.key", "`listen.tls_cert`"),
        ("rubbish", "one.key", "`listen.tls_cert`"),
        ("one.cert", "rubbish", "`listen.tls_key`"),
        ("one.cert", "two.key", "`listen.tls_key`"),
    ] {
        let builder = settings().setting("LISTEN", "127.0.0.1:0").setting("ADMIN_LISTEN", "127.0.0.1:0");
        let finished = builder.setting("TLS_CERT", at(cert)).setting("TLS_KEY", at(key)).arg("serve").run().await;
        assert_refused(&finished, &[named, "CONVOKE_TLS_"]);
    }
}
