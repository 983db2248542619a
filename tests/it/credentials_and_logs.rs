//! What comes back, or is taken over, without anybody's hand.

use std::{fs::File, io::Write as _, path::Path, process::Stdio, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    support::service::{APP_ID, KEY, PATH, WAIT_TIMEOUT, event, now, signed, signed_by},
    support::tls,
    support::{
        http,
        nats::{NatsOptions, NatsServer, NatsVersion},
        port::Port,
        process::Convoke,
        wait::eventually,
    },
};

/// Files are looked at every ten seconds.
const WATCHED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_file_that_a_setting_names_is_used_soon_after_it_changed_and_a_half_written_pair_never() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let copy = |from: &str, to: &str| assert!(std::fs::copy(at(from), at(to)).expect("a copy") > 0);
    // As Kubernetes mounts a Secret: what is replaced is a link to a folder.
    let swap = |version: &str, key: &str| {
        std::fs::create_dir(at(version)).expect("a folder");
        std::fs::write(at(version).join("keys"), key).expect("a file");
        std::os::unix::fs::symlink(version, at("next")).expect("a link");
        std::fs::rename(at("next"), at("data")).expect("the link is replaced");
    };
    swap("one", "old");
    for name in ["before", "after"] {
        tls::certificate(&at(name), &at(&format!("{name}.key")));
    }
    copy("before", "cert");
    copy("before.key", "key");
    let builder =
        Convoke::builder().setting("NATS_URL", "none").setting("APP_ID", APP_ID).setting("SHUTDOWN_DELAY", "0s");
    let builder = builder.setting("APP_KEY_FILE", at("data/keys"));
    let mut convoke = builder.setting("TLS_CERT", at("cert")).setting("TLS_KEY", at("key")).start().await;
    eventually("the database is there", WAIT_TIMEOUT, async || convoke.logs().contains("accepting events")).await;
    let events = convoke.events;
    let status = async |certificate: &str, key: &str| {
        let Ok(stream) = tls::connect(events, &at(certificate), b"h2").await else { return 0 };
        tls::post_http2(stream, PATH, signed_by(APP_ID, key, &event("meeting.join", "1"))).await.0
    };
    assert_eq!((status("before", "old").await, status("after", "old").await), (200, 0));

    // The new certificate is there, its key not yet; and the subscriber's key has changed, too.
    copy("after", "cert");
    swap("two", "new");
    let said = |words: &str| convoke.logs().contains(words);
    eventually("it is noticed", WATCHED, async || said("changed files cannot be used")).await;
    assert!(said("does not belong to the certificate"));
    assert_eq!((status("before", "old").await, status("before", "new").await), (200, 401), "all of the old stays");
    copy("after.key", "key");
    eventually("both are used", WATCHED, async || said("are used from now on")).await;
    assert_eq!((status("after", "new").await, status("after", "old").await), (200, 401));
    assert_eq!(http::metric(convoke.admin, "convoke_reload_ok").await, 1.0);
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(WAIT_TIMEOUT).await.success());
}

/// Convoke in `folder`, whose standard streams are the test's to choose.
fn convoke(folder: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_convoke"));
    command.args(arguments).current_dir(folder).env_clear().kill_on_drop(true).stdin(Stdio::null());
    command.envs([("CONVOKE_APP_ID", APP_ID), ("CONVOKE_APP_KEY", KEY), ("CONVOKE_NATS_URL", "none")]);
    command
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("a device").into()
}

/// Serves, takes events and stops while its log goes nowhere.
async fn goes_on_whatever_becomes_of_its_log(stderr: Stdio, keep: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (events, admin) = (Port::lease(), Port::lease());
    let mut command = convoke(folder.path(), &["serve"]);
    command.env("CONVOKE_LISTEN", events.address().to_string());
    command.env("CONVOKE_ADMIN_LISTEN", admin.address().to_string());
    command.env("CONVOKE_SHUTDOWN_DELAY", "0s").env("RUST_LOG", "trace");
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
    drop(child.stderr.take());
    let get = async |path: &str| http::try_get(&format!("http://{}{path}", events.address())).await;
    eventually("it is ready", WAIT_TIMEOUT, async || get("/readyz").await.is_ok_and(|answer| answer.status == 200))
        .await;
    let handshake = signed(r#"{"event":"meeting.verify","timestamp":1,"nonce":"n"}"#);
    for n in 0..100 {
        let refused = signed_by(APP_ID, "wrong", &event("meeting.join", "1"));
        assert_eq!(http::post(events.address(), PATH, refused, &[]).await.status, 401);
        let taken = signed(&event("meeting.join", &n.to_string()));
        assert_eq!(http::post(events.address(), PATH, taken, &[]).await.status, 200);
    }
    if !keep {
        let dropped = async || http::metric(admin.address(), "convoke_log_lines_dropped_total").await > 0.0;
        eventually("what cannot be written is counted", WAIT_TIMEOUT, dropped).await;
    }
    // Each is answered, whatever is answered.
    assert!(http::post(events.address(), PATH, handshake, &[]).await.status > 0);
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(path).await.expect("an answer").status, 200);
    }
    let id = rustix::process::Pid::from_raw(child.id().expect("it runs").cast_signed()).expect("an id");
    rustix::process::kill_process(id, Signal::TERM).expect("our own child");
    let ended = tokio::time::timeout(WAIT_TIMEOUT, child.wait()).await.expect("it ends in time").expect("a status");
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    // Full from the beginning: not even the first line can be written.
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = rustix::fs::fcntl_getfl(&writer).expect("its flags");
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).expect("it does not wait");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).expect("it waits again");
    goes_on_whatever_becomes_of_its_log(writer.into(), true).await;
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_ends_nothing() {
    goes_on_whatever_becomes_of_its_log(Stdio::piped(), false).await;
}

#[tokio::test]
async fn a_log_on_a_full_disk_ends_nothing() {
    goes_on_whatever_becomes_of_its_log(full(), false).await;
}

/// Runs it; `output` alone would give it a pipe that is read.
async fn printed_to(mut command: tokio::process::Command, stdout: Stdio) -> std::process::Output {
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("it starts");
    child.wait_with_output().await.expect("it runs")
}

#[tokio::test]
async fn a_command_ends_quietly_when_nobody_reads_and_says_so_when_the_disk_is_full() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("body"), signed(&event("meeting.join", "1"))).expect("a file");
    let migrated = convoke(folder.path(), &["migrate"]).output().await.expect("it runs");
    assert!(migrated.status.success(), "{migrated:?}");
    for arguments in [&["quarantine", "list"][..], &["verify", "body"], &["rebuild", "--yes"], &["migrate"], &["check"]]
    {
        let usual = convoke(folder.path(), arguments).output().await.expect("it runs");
        let (silent, usual) = (usual.stdout.is_empty(), usual.status.code());
        if arguments[0] == "rebuild" && usual == Some(2) {
            continue;
        }
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let closed = printed_to(convoke(folder.path(), arguments), writer.into()).await;
        assert_eq!(closed.status.code(), usual, "{arguments:?}: {closed:?}");
        let full = printed_to(convoke(folder.path(), arguments), full()).await;
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        if silent {
            assert_eq!(full.status.code(), usual, "{arguments:?} has nothing to write: {said}");
            continue;
        }
        assert_eq!(full.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("No space left on device") || usual == Some(1), "{arguments:?}: {said}");
    }
}

const PUBLISHED: &str = r#"convoke_published_total{outcome="new"}"#;

async fn posts(convoke: &Convoke, meeting: &str) {
    let body = signed(&event("meeting.join", meeting));
    assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, 200);
}

async fn published(convoke: &Convoke, events: f64) {
    let what = format!("{events} events are published");
    eventually(&what, WATCHED, async || http::metric(convoke.admin, PUBLISHED).await == events).await;
}

/// Convoke that publishes to this server.
fn publishing(nats: &NatsServer) -> crate::support::process::ConvokeBuilder {
    let builder = Convoke::builder().setting("APP_ID", APP_ID).setting("APP_KEY", KEY).setting("SHUTDOWN_DELAY", "0s");
    builder.setting("NATS_URL", nats.url())
}

#[tokio::test]
async fn a_password_of_the_bus_that_was_changed_in_its_file_is_used_without_anybodys_hand() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "before-8c1f\n").expect("a file");
    let user = Some(("convoke".to_owned(), "before-8c1f".to_owned()));
    let mut nats = NatsServer::start(NatsVersion::Newest, NatsOptions { user, ..NatsOptions::default() }).await;
    let convoke = publishing(&nats).setting("NATS_USER", "convoke").setting("NATS_PASSWORD_FILE", &file).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    posts(&convoke, "1").await;
    published(&convoke, 1.0).await;

    // Whoever runs the bus changes it there first.
    let config = nats.folder().join("nats.conf");
    let text = std::fs::read_to_string(&config).expect("its configuration").replace("before-8c1f", "after-27d9");
    std::fs::write(&config, text).expect("a file");
    nats.signal(Signal::HUP);
    let refused = "authorization violation for user convoke";
    eventually("it is said", WATCHED, async || convoke.logs().contains(refused)).await;
    posts(&convoke, "2").await;
    std::fs::write(&file, "after-27d9\n").expect("a file");
    published(&convoke, 2.0).await;
    let logs = convoke.logs();
    let lines = || logs.lines().filter(|line| line.to_lowercase().contains("authorization violation"));
    assert!(lines().all(|line| line.contains(refused) || line.contains("NATS reported an error")), "{logs}");
    assert!(lines().count() <= 6, "one line a failure: {logs}");
    assert!(!logs.contains("8c1f") && !logs.contains("27d9"), "{logs}");
}

/// A JWT of NATS, signed by `issuer`, as `nsc` makes one: `nats` is what `subject` is, and may.
fn jwt(issuer: &KeyPair, subject: &KeyPair, expires: Option<i64>, nats: &Value) -> String {
    let mut claims = json!({
        "jti": subject.public_key(), "iat": 0, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "test", "nats": nats,
    });
    if let Some(at) = expires {
        claims["exp"] = at.into();
    }
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).expect("a signature"));
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_jwt_that_expires_and_was_renewed_in_its_file_is_no_interruption() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
    let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_account = |account: &KeyPair, more: Value| {
        jwt(&operator, account, None, &json!({ "type": "account", "version": 2, "limits": more }))
    };
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        jwt(&operator, &operator, None, &json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        account.public_key(),
        of_account(&account, limits),
        system.public_key(),
        of_account(&system, json!({ "conn": -1, "subs": -1 })),
    );
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions { config, ..NatsOptions::default() }).await;
    let file = folder.path().join("user.creds");
    let renew = |seconds: i64| {
        let may = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let jwt = jwt(&account, &user, Some(now() / 1_000 + seconds), &may);
        let seed = user.seed().expect("a seed");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&file, text).expect("a file");
    };
    renew(15);
    let convoke = publishing(&nats).setting("NATS_CREDS_FILE", &file).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    posts(&convoke, "1").await;
    published(&convoke, 1.0).await;
    renew(3_600);
    let cut = "User Authentication Expired";
    eventually("the server cuts what has expired", WATCHED, async || convoke.logs().contains(cut)).await;
    posts(&convoke, "2").await;
    published(&convoke, 2.0).await;
    let logs = convoke.logs();
    assert_eq!(logs.matches("\"connected to NATS\"").count(), 2, "nobody tried the old one again: {logs}");
    assert!(!logs.to_lowercase().contains("authorization violation"), "{logs}");
}

#[tokio::test]
async fn the_bus_is_reached_with_an_nkey_and_a_client_certificate_and_without_it_is_said_that_it_wants_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["server", "client"] {
        tls::certificate(&at(name), &at(&format!("{name}.key")));
    }
    let pair = KeyPair::new_user();
    std::fs::write(at("nkey"), pair.seed().expect("a seed")).expect("a file");
    let config = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\n\
         authorization {{ users: [ {{ nkey: {} }} ] }}\n",
        at("server").display(),
        at("server.key").display(),
        at("client").display(),
        pair.public_key()
    );
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions { config, ..NatsOptions::default() }).await;
    let builder = || publishing(&nats).setting("NATS_TLS_CA", at("server")).setting("NATS_NKEY_FILE", at("nkey"));
    let convoke =
        builder().setting("NATS_TLS_CERT", at("client")).setting("NATS_TLS_KEY", at("client.key")).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    posts(&convoke, "1").await;
    published(&convoke, 1.0).await;
    drop(convoke);

    let without = builder().start().await;
    eventually("it is said", WATCHED, async || without.logs().contains("requires a client certificate")).await;
    let check = without.run(&["check"]).await;
    assert!(check.stdout.contains("requires a client certificate"), "{}", check.stdout);
}
