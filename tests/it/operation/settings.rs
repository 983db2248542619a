//! Settings that cannot be used, their order, and the secrets among them.

use super::*;

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_refused_with_its_name_its_place_and_the_remedy() {
    let cases: [(&str, &str, &[&str]); 16] = [
        ("LISTEN", "everywhere", &["`listen.events`", "CONVOKE_LISTEN", "127.0.0.1:8080"]),
        ("ADMIN_LISTEN", "0.0.0.0:0", &["`listen.admin`", "CONVOKE_ADMIN_LISTEN", "admin.token_file"]),
        ("PATH_EVENTS", "events", &["`listen.path`", "/openapi/meetingevent"]),
        ("MAX_BODY", "big", &["`listen.max_body`", "256 KiB"]),
        ("ALLOW_FROM", "10.0.0.0/33", &["`listen.allow_from`", "10.0.0.0/8"]),
        ("TRUSTED_PROXIES", "proxy", &["`listen.trusted_proxies`"]),
        ("SHUTDOWN_DELAY", "2", &["`listen.shutdown_delay`", "25s"]),
        ("TLS_CERT", "cert.pem", &["`listen.tls_cert`", "listen.tls_key"]),
        ("DATABASE_URL", "mysql://h/d", &["`database.url`", "sqlite://", "postgres://"]),
        ("RETENTION", "47h", &["`database.retention`", "2days"]),
        ("MIGRATE", "yes", &["`database.migrate`", "true or false"]),
        ("NATS_URL", "http://h", &["`nats.url`", "nats://HOST:4222", "none"]),
        ("NATS_REPLICAS", "6", &["`nats.replicas`"]),
        ("PRIVACY_MASK", "displayNam", &["`privacy.mask`", "displayName"]),
        ("LOG_FORMAT", "xml", &["`log.format`", "text", "json"]),
        ("LISTENN", "127.0.0.1:1", &["CONVOKE_LISTENN", "CONVOKE_LISTEN?"]),
    ];
    for (name, value, words) in cases {
        let variable = format!("CONVOKE_{name}");
        let finished = run_convoke(&["serve"], &[SUBSCRIBER[0], SUBSCRIBER[1], (&variable, value)]).await;
        assert_refused(&finished, words);
        let empty = run_convoke(&["serve"], &[SUBSCRIBER[0], SUBSCRIBER[1], (&variable, "")]).await;
        assert_refused(&empty, &[if name == "LISTENN" { "CONVOKE_LISTENN" } else { "empty" }]);
    }
    assert_refused(&run_convoke(&["serve"], &[]).await, &["`subscriber`", "CONVOKE_APP_ID", "[[subscriber]]"]);
    assert_refused(&run_convoke(&["serve"], &SUBSCRIBER[..1]).await, &["CONVOKE_APP_KEY_FILE"]);
    assert_refused(&run_convoke(&["serve"], &SUBSCRIBER[1..]).await, &["CONVOKE_APP_ID"]);
    let no_file = [SUBSCRIBER[0], ("CONVOKE_APP_KEY_FILE", "/nowhere/key")];
    assert_refused(&run_convoke(&["serve"], &no_file).await, &["key_files", "/nowhere/key", "CONVOKE_APP_ID"]);
    let flag = run_convoke(&["serve", "--listen", "x"], &SUBSCRIBER).await;
    assert_refused(&flag, &["`listen.events`", "--listen"]);
    assert_refused(
        &run_convoke(&["serve"], &[SUBSCRIBER[0], SUBSCRIBER[1], ("RUST_LOG", "a=b=c")]).await,
        &["RUST_LOG"],
    );
    for wrong in [&["sevre"][..], &["serve", "--listne", "x"], &[]] {
        assert_eq!(run_convoke(wrong, &SUBSCRIBER).await.code(), 2, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_settings_file_that_cannot_be_used_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("c.toml");
    let subscriber = "[[subscriber]]\napp_id = \"1\"\nkeys = [\"k\"]\n";
    let cases: [(&str, &[&str]); 7] = [
        ("[listen]\nevent = \"127.0.0.1:1\"\n", &["`listen.event`", "line 2", "events"]),
        ("[lisen]\nevents = \"127.0.0.1:1\"\n", &["`lisen", "line 1"]),
        ("[nats]\nurl = \"${CONVOKE_NOT_SET}\"\n", &["`nats.url`", "line 2", "CONVOKE_NOT_SET", "set this variable"]),
        ("[database]\nmigrate = \"yes\"\n", &["`database.migrate`", "line 2", "true or false"]),
        ("[listen\n", &["not TOML", "line 1"]),
        ("[[subscriber]]\napp_id = \"2\"\nkeys = [\"\"]\n", &["subscriber.keys", "line 3", "empty"]),
        ("[[subscriber]]\napp_id = \"2\"\npassword = \"s3cr3t\"\n", &["subscriber.password", "line 3"]),
    ];
    for (text, words) in cases {
        let text = if text.starts_with("[[") { text.to_owned() } else { format!("{text}{subscriber}") };
        std::fs::write(&path, text).expect("a file");
        let finished = run_convoke(&["serve", "--config", path.to_str().expect("a plain path")], &[]).await;
        assert_refused(&finished, words);
        assert!(finished.stderr.contains("c.toml") && !finished.stderr.contains("s3cr3t"), "{}", finished.stderr);
    }
    assert_refused(&run_convoke(&["serve", "--config", "/nowhere.toml"], &[]).await, &["--config", "/nowhere.toml"]);
}

#[tokio::test]
async fn a_flag_counts_more_than_a_variable_than_the_file_than_the_shared_variable_than_the_default() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let file = folder.path().join("c.toml");
    std::fs::write(&file, format!("[database]\nurl = \"{}\"\n", url("file"))).expect("a file");
    let (flag, variable, shared) = (url("flag"), url("variable"), url("shared"));
    let file = file.to_str().expect("a plain path");
    let flag_args = ["migrate", "--database-url", &flag];
    let variables = [("CONVOKE_CONFIG", file), ("DATABASE_URL", &shared), ("CONVOKE_DATABASE_URL", &variable)];
    for (arguments, variables, expected) in [
        (&flag_args[..], &variables[..], "/flag:"),
        (&["migrate"], &variables, "/variable:"),
        (&["migrate"], &variables[..2], "/file:"),
        (&["migrate"], &variables[1..2], "/shared:"),
        (&["migrate"], &[], "convoke.db:"),
    ] {
        let finished = run_convoke(arguments, variables).await;
        assert_eq!(finished.code(), 0, "{finished:?}");
        assert!(finished.stdout.contains(expected), "{expected}: {}", finished.stdout);
    }
}

#[tokio::test]
async fn no_secret_shows_at_any_level_of_the_log_in_help_or_in_errors() {
    const SECRETS: [&str; 4] = ["kEy-7f3a9c", "tOkEn-5d21e8-5d21e8", "pAsSwOrD-93bb", "nAtSpW-2c66"];
    let [key, token, password, nats_password] = SECRETS;
    let postgres = Postgres::start().await;
    let user = Some(("convoke".to_owned(), nats_password.to_owned()));
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions { user, ..NatsOptions::default() }).await;
    let address = postgres.address();
    let builder = || {
        Convoke::builder()
            .setting("APP_ID", APP_ID)
            .setting("APP_KEY", key)
            .setting("ADMIN_TOKEN", token)
            .setting("DATABASE_URL", format!("postgres://postgres:{password}@{address}/postgres"))
            .setting("NATS_URL", format!("nats://convoke:{nats_password}@{}", nats.address()))
            .setting("SHUTDOWN_DELAY", "0s")
            .env("RUST_LOG", "trace")
    };
    let mut convoke = builder().start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    for (sign_with, status) in [(key, 200), ("other", 401)] {
        let body = signed_by(APP_ID, sign_with, &event("meeting.join", "1"));
        assert_eq!(http::post(convoke.events, PATH, body, &[]).await.status, status);
    }
    let handshake = signed_by(APP_ID, key, r#"{"event":"meeting.verify","timestamp":1}"#);
    assert_eq!(http::post(convoke.events, PATH, handshake, &[]).await.status, 200);
    let metrics = authorised(&convoke, "/metrics", &format!("Bearer {token}")).await;
    let verbose = authorised(&convoke, "/readyz?verbose", &format!("Bearer {token}")).await;
    assert_eq!((metrics.0, verbose.0), (200, 200));
    convoke.signal(Signal::HUP);
    eventually("it has read its keys again", WAIT_TIMEOUT, async || convoke.logs().contains("reloaded")).await;
    let beside = [&["check"][..], &["verify", "/dev/null"], &["audit", "--wait", "0s"], &["quarantine", "list"]];
    let mut said = metrics.1 + verbose.1.as_str();
    for arguments in beside {
        let finished = convoke.run(arguments).await;
        said += &(finished.stdout + finished.stderr.as_str());
    }
    for command in ["serve", "demo", "simulate", "audit", "verify", "replay", "quarantine", "check", "migrate"] {
        let finished = convoke.run(&[command, "--help"]).await;
        assert_eq!(finished.code(), 0);
        said += &(finished.stdout + finished.stderr.as_str());
    }
    for (name, value) in [("LISTEN", "x"), ("MAX_BODY", "x"), ("APP_KEYS", key), ("RETENTION", "1h")] {
        let finished = builder().setting(name, value).arg("serve").run().await;
        assert_eq!(finished.code(), 2);
        said += &(finished.stdout + finished.stderr.as_str());
    }
    for (name, value) in [
        ("DATABASE_URL", format!("postgers://u:{password}@h/d")),
        ("NATS_URL", format!("http://u:{nats_password}@h")),
        ("ADMIN_TOKEN", format!("{token} x")),
        ("APP_KEY", format!("{key}\n")),
    ] {
        let finished = builder().setting(name, value).arg("serve").run().await;
        assert_eq!(finished.code(), 2, "{name}: {}", finished.stderr);
        said += &(finished.stdout + finished.stderr.as_str());
    }
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(WAIT_TIMEOUT).await.success());
    said += &(convoke.logs() + convoke.stdout().as_str());
    assert!(said.contains("\"level\":\"TRACE\""), "the log was not at its most talkative");
    for secret in SECRETS {
        let found = said.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} in: {}", found.unwrap_or_default());
    }
}

#[tokio::test]
async fn credentials_in_the_url_of_the_bus_are_used() {
    let user = Some(("con/voke".to_owned(), "p@ss, w:rd".to_owned()));
    let by_password = NatsServer::start(NatsVersion::Newest, NatsOptions { user, ..NatsOptions::default() }).await;
    let token = Some("t0ken".to_owned());
    let by_token = NatsServer::start(NatsVersion::Oldest, NatsOptions { token, ..NatsOptions::default() }).await;
    for (login, server) in [("con%2Fvoke:p%40ss%2C%20w%3Ard", &by_password), ("t0ken", &by_token)] {
        let url = format!("nats://{login}@{}", server.address());
        let service = Service::with(settings().setting("NATS_URL", url), Database::Sqlite).await;
        service.acknowledged(&event("meeting.join", "1")).await;
        eventually("it is published", WAIT_TIMEOUT, async || {
            service.metric(r#"convoke_published_total{outcome="new"}"#).await == 1.0
        })
        .await;
        assert_eq!(service.convoke.run(&["audit"]).await.code(), 0);
    }
}
