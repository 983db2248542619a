//! `convoke check` says everything that is wrong, and what to do about it.

use std::{fs, path::Path, process::Command};

use async_nats::jetstream::stream;

use crate::support::{
    docs, http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, psql},
    process::{Convoke, Finished},
    rig::*,
    tools,
    wait::eventually,
};

/// The report's line of this kind.
fn line<'a>(report: &'a Finished, begins: &str) -> &'a str {
    let line = report.stdout.lines().find(|line| line.starts_with(begins));
    line.unwrap_or_else(|| panic!("no line {begins:?}: {report:?}"))
}

fn has(report: &Finished, begins: &str) -> bool {
    report.stdout.lines().any(|line| line.starts_with(begins))
}

/// Runs `test` on an embedded database, whose statements go through `sqlite`, and on PostgreSQL.
async fn on_both(test: impl AsyncFn(&str)) {
    test(SQLITE).await;
    let postgres = Postgres::start().await;
    test(&postgres.url()).await;
}

async fn sql(convoke: &Convoke, database: &str, on_sqlite: &str, on_postgres: &str) {
    if database == SQLITE {
        sqlite(convoke.folder(), on_sqlite).await;
    } else {
        psql(database, on_postgres);
    }
}

#[tokio::test]
async fn a_nats_without_jetstream_is_named_as_that_and_the_report_goes_on() {
    let options = NatsOptions { without_jetstream: true, ..NatsOptions::default() };
    let nats = NatsServer::start(NatsVersion::Newest, options).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let report = convoke.run(&["check"]).await;
    let said = line(&report, "FAIL  stream");
    assert_eq!(report.code(), 1, "{report:?}");
    assert!(said.contains("runs without JetStream: start it with -js") && said.contains("store_dir"), "{said}");
    assert!(said.contains(&nats.address().to_string()), "{said}");
    assert!(has(&report, "ok    bus") && has(&report, "ok    database"), "{report:?}");
    eventually("the service says it in the same words", LONG_TIMEOUT, async || {
        lines_with(&convoke, "runs without JetStream: start it with -js") > 0
    })
    .await;
}

#[tokio::test]
async fn before_the_first_start_check_warns_and_sends_nobody_to_make_a_database() {
    on_both(async |database| {
        let report = convoke(database, "none").arg("check").run().await;
        let said = line(&report, "warn  database");
        assert!(said.contains("`convoke serve` creates") && said.contains("at its first start"), "{said}");
        assert!(report.code() == 0 && !report.stdout.contains("convoke migrate"), "{report:?}");
        let export = convoke(database, "none").arg("export").arg("events").run().await;
        assert!(export.code() == 1 && export.stderr.contains("database.url names a different one"), "{export:?}");
        assert!(!export.stderr.contains("convoke migrate"), "{export:?}");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_is_not_taken_for_one_that_was_never_made() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let js = nats.jetstream().await;
    let config = stream::Config { name: "MEETINGS".into(), subjects: vec!["meetings.>".into()], ..Default::default() };
    js.create_stream(config).await.expect("a stream");
    js.publish("meetings.events", "{}".into()).await.expect("sent").await.expect("stored");
    // Bound and never listened on: connections are refused.
    let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
    closed.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let port = closed.local_addr().expect("bound").port();
    let report = convoke(&format!("postgres://u@127.0.0.1:{port}/convoke"), &nats.url()).arg("check").run().await;
    assert_eq!(report.code(), 1, "{report:?}");
    let failures = report.stdout.lines().filter(|line| line.starts_with("FAIL  database")).collect::<Vec<_>>();
    assert!(failures.len() == 1 && !failures[0].contains("it does not exist or is empty"), "{report:?}");
}

#[tokio::test]
async fn without_a_service_that_accepts_events_check_fails() {
    on_both(async |database| {
        let mut convoke = convoke(database, "none").start().await;
        convoke.wait_ready(LONG_TIMEOUT).await;
        let well = convoke.run(&["check"]).await;
        assert!(well.code() == 0 && !has(&well, "FAIL"), "{well:?}");
        convoke.kill().await;
        sql(
            &convoke,
            database,
            "UPDATE heartbeat SET at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-3 minutes')",
            "UPDATE heartbeat SET at = now() - interval '3 minutes'",
        )
        .await;
        let report = convoke.run(&["check"]).await;
        let said = line(&report, "FAIL  service");
        assert!(report.code() == 1 && said.contains("no `convoke serve`") && said.contains("for 3m"), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn a_service_that_cannot_store_from_its_start_on_says_that_events_are_refused() {
    on_both(async |database| {
        let mut convoke = convoke(database, "none").start().await;
        convoke.wait_ready(LONG_TIMEOUT).await;
        convoke.kill().await;
        let away = "ALTER TABLE probe RENAME TO away";
        sql(&convoke, database, away, away).await;
        convoke.restart().await;
        eventually("it says so", LONG_TIMEOUT, async || {
            let logs = convoke.logs();
            let said = logs.lines().find(|line| line.contains("cannot store events: they are answered 503"));
            said.is_some_and(|line| line.contains("\"ERROR\""))
        })
        .await;
        assert_eq!(http::get(&format!("http://{}/readyz", convoke.admin)).await.status, 503);
    })
    .await;
}

/// Runs `convoke` as somebody else, in `folder`.
async fn as_nobody(folder: &Path, arguments: &[&str]) -> Finished {
    let mine = folder.join("convoke");
    if !mine.exists() {
        fs::copy(env!("CARGO_BIN_EXE_convoke"), &mine).expect("a copy that others can reach");
    }
    let builder = Convoke::builder().program("setpriv").setting("NATS_URL", "none").setting("APP_ID", APP_ID);
    let builder = builder.setting("APP_KEY", KEY).arg("--reuid=65534").arg("--regid=65534").arg("--clear-groups");
    let builder = builder.arg("env").arg("-C").arg(folder).arg(&mine);
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).run().await
}

#[tokio::test]
async fn a_database_that_root_made_for_another_user_is_named_with_its_owner_and_the_remedy() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).expect("given away");
    let url = format!("sqlite://{}", folder.path().join("convoke.db").display());
    let made = convoke(&url, "none").arg("migrate").run().await;
    assert!(made.code() == 0 && made.stderr.contains("belongs to root (uid 0)"), "{made:?}");
    assert!(made.stderr.contains("sudo chown 65534"), "{made:?}");
    let ours = convoke(&url, "none").arg("check").run().await;
    assert!(ours.stdout.contains("a service of that user cannot write it"), "{ours:?}");
    let theirs = as_nobody(folder.path(), &["check", "--database-url", &url]).await;
    assert_eq!(theirs.code(), 1, "{theirs:?}");
    assert!(theirs.stdout.contains("belongs to root (uid 0), and this process runs as"), "{theirs:?}");
    assert!(theirs.stdout.contains("(uid 65534): `sudo chown 65534 "), "{theirs:?}");
}

#[tokio::test]
async fn a_secret_that_others_may_read_is_named_at_the_start_and_by_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, mode: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("{KEY}\n")).expect("a file");
        tools::output_of(Command::new("chmod").arg(mode).arg(&path));
        path
    };
    let (open, private) = (file("app-key", "0644"), file("token", "0600"));
    let builder = Convoke::builder().setting("APP_ID", APP_ID).setting("APP_KEY_FILE", &open);
    let builder = builder.setting("ADMIN_TOKEN_FILE", &private).setting("NATS_URL", "none");
    let convoke = builder.start().await;
    let said = "app-key holds a secret, and every user of this machine may read it (mode 0644): `chmod o-rwx";
    assert_eq!(lines_with(&convoke, said), 1, "{}", convoke.logs());
    assert_eq!(lines_with(&convoke, "holds a secret"), 1, "{}", convoke.logs());
    let report = convoke.run(&["check"]).await;
    assert!(line(&report, "warn  secret").contains(said), "{report:?}");
}

#[tokio::test]
async fn the_quick_start_of_the_readme_works_as_printed_and_check_says_what_they_show() {
    let steps = docs::block("README.md", "Quick start with the real platform", "sh");
    let shown = docs::block("README.md", "Quick start with the real platform", "");
    let (build, files) = steps.split_once('\n').expect("lines");
    assert!(build.starts_with("cargo build"), "{build}");
    let files = files.strip_suffix("convoke serve\n").expect("the last step");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = Path::new(env!("CARGO_BIN_EXE_convoke")).parent().expect("a folder").display().to_string();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    tools::output_of(Command::new("sh").args(["-euc", files]).current_dir(folder.path()).env("PATH", path));
    let there = || {
        let builder = Convoke::builder().program("env").arg("-C").arg(folder.path());
        builder.arg(env!("CARGO_BIN_EXE_convoke"))
    };
    let convoke = there().arg("serve").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let kinds = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| Some(line.get(6..16)?.trim().to_owned()))
            .filter(|kind| !kind.is_empty())
            .collect()
    };
    eventually("check says it", LONG_TIMEOUT, async || {
        let report = there().arg("check").run().await;
        if report.code() == 0 && kinds(&report.stdout) == kinds(&shown) { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
}
