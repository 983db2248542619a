//! The pages on backup and restore, `deploy/backup-*.md`: the very commands that they give, run while events come in.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::support::{
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::{Postgres, PostgresOptions, psql},
    process::Convoke,
    rig::*,
    tools,
};

const SQLITE_PAGE: &str = include_str!("../../docs/operate/backup-sqlite.md");
const POSTGRES_PAGE: &str = include_str!("../../docs/operate/backup-postgres.md");

/// The code block of a page that is marked with this name.
pub fn block(page: &str, name: &str) -> String {
    let begin = page.lines().position(|line| line.starts_with("```") && line.split_whitespace().nth(1) == Some(name));
    let begin = begin.unwrap_or_else(|| panic!("the page has no block {name}"));
    let lines: Vec<&str> = page.lines().skip(begin + 1).take_while(|line| *line != "```").collect();
    lines.join("\n")
}

/// Runs a block as it stands, but for the places in it.
pub fn run(script: &str, places: &[(&str, &str)], environment: &[(&str, &str)]) {
    let script = places.iter().fold(script.to_owned(), |script, (there, here)| {
        assert!(script.contains(there), "{script} does not name {there}");
        script.replace(there, here)
    });
    let path = std::env::join_paths(
        std::iter::once(tools::postgres_bin())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).envs(environment.iter().copied()).env("PATH", path.expect("a PATH"));
    tools::output_of(&mut shell);
}

fn path(folder: &Path) -> &str {
    folder.to_str().expect("a plain path")
}

async fn newest_bus() -> NatsServer {
    NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await
}

/// The commands of the page, run beside the service.
async fn check_says_that_the_stream_is_newer(page: &str, convoke: &Convoke) -> i64 {
    assert_eq!(block(page, "check"), "convoke check");
    let check = convoke.run(&["check"]).await;
    let line = check.stdout.lines().find(|line| line.contains("is newer than the log"));
    let line = line.unwrap_or_else(|| panic!("no word of it: {check:?}"));
    assert!(check.code() == 1 && line.starts_with("FAIL") && line.contains("docs/operate/backup-"), "{line}");
    let seq = line.split("up to seq ").nth(1).and_then(|rest| rest.split(',').next());
    seq.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"))
}

/// Nothing of the log is missing in the stream, which has more.
async fn the_audit_is_clean_but_for_unknown_messages(page: &str, convoke: &Convoke) {
    assert_eq!(block(page, "audit"), "convoke audit");
    let (status, findings) = audit(convoke, None).await;
    assert_eq!(status, 0, "{findings:#}");
    assert!(findings["stream"]["foreign"].as_u64() > Some(0), "{findings:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_log_is_backed_up_and_restored_beside_a_newer_stream_under_load() {
    let nats = newest_bus().await;
    let mut convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let backups = tempfile::tempdir().expect("a temporary folder");
    let folder = path(convoke.folder()).to_owned();
    let places = [("/var/lib/convoke", folder.as_str()), ("/var/backups/convoke", path(backups.path()))];
    let mut load = Load::steady(convoke.events, 31);
    for _ in 0..3 {
        load.proceeds(60).await;
        run(&block(SQLITE_PAGE, "backup"), &places, &[]);
    }
    load.proceeds(100).await;
    load.stop().await;
    assert_eq!(audit(&convoke, Some(&load.ledger)).await.0, 0, "the backup disturbed nothing");

    convoke.kill().await;
    run(&block(SQLITE_PAGE, "restore"), &places, &[]);
    let newest = check_says_that_the_stream_is_newer(SQLITE_PAGE, &convoke).await;
    let sequence = block(SQLITE_PAGE, "sequence").replace("SEQ=0", &format!("SEQ={newest}"));
    run(&sequence, &places[..1], &[]);
    convoke.restart().await;
    convoke.wait_ready(TEN).await;
    let js = nats.jetstream().await;
    let before = read_stream(&js, STREAM).await.len();
    let new = deliver(&convoke, 0..5).await;
    let messages = stream_holds(&js, before + 5, TEN).await;
    let published: Vec<(&str, i64)> = messages[before..].iter().map(|m| (m.event_id(), m.sequence())).collect();
    let ids: Vec<&str> = new.iter().map(|sample| sample.id.as_str()).collect();
    assert_eq!(published.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert!(published.iter().all(|(_, seq)| *seq > newest), "{published:?} after {newest}");
    the_audit_is_clean_but_for_unknown_messages(SQLITE_PAGE, &convoke).await;
    metric_over(&convoke, "convoke_stream_unknown_events", 0.0, LONG_TIMEOUT).await;
    assert_eq!(lines_with(&convoke, "was an older backup of the log restored?"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_dump_is_taken_and_restored_beside_a_newer_stream_under_load() {
    let (nats, postgres) = tokio::join!(newest_bus(), Postgres::start());
    let mut first = convoke(&postgres.url(), &nats.url()).start().await;
    first.wait_ready(TEN).await;
    let backups = tempfile::tempdir().expect("a temporary folder");
    let places = [("/var/backups/convoke", path(backups.path()))];
    let mut load = Load::steady(first.events, 32);
    load.proceeds(100).await;
    run(&block(POSTGRES_PAGE, "dump"), &places, &[("DATABASE_URL", &postgres.url())]);
    load.proceeds(100).await;
    load.stop().await;
    assert_eq!(audit(&first, Some(&load.ledger)).await.0, 0, "the dump disturbed nothing");
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait_exit(TEN).await.success());

    let restored = postgres.database("restored");
    run(&block(POSTGRES_PAGE, "restore-dump"), &places, &[("RESTORED_URL", &restored)]);
    let second = convoke(&restored, &nats.url()).start().await;
    second.wait_ready(TEN).await;
    let newest = check_says_that_the_stream_is_newer(POSTGRES_PAGE, &second).await;
    // Without step 2, the numbers of lost events are given again: the relay and the audit do without them.
    let js = nats.jetstream().await;
    let before = read_stream(&js, STREAM).await.len();
    deliver(&second, 0..5).await;
    let messages = stream_holds(&js, before + 5, TEN).await;
    assert!(messages[before..].iter().all(|message| message.sequence() < newest), "the case that is meant");
    the_audit_is_clean_but_for_unknown_messages(POSTGRES_PAGE, &second).await;
    let sequence = block(POSTGRES_PAGE, "sequence").replace("SEQ=0", &format!("SEQ={newest}"));
    run(&sequence, &[], &[("RESTORED_URL", &restored)]);
    deliver(&second, 5..6).await;
    let seq: i64 = psql(&restored, "SELECT max(seq) FROM events").parse().expect("a number");
    assert!(seq > newest, "{seq} after {newest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_base_backup_and_its_archive_lose_nothing_under_load() {
    let backups = tempfile::tempdir().expect("a temporary folder");
    let open = |folder: &Path| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("ours");
    let archive = backups.path().join("wal");
    std::fs::create_dir(&archive).expect("a folder");
    [backups.path(), &archive].into_iter().for_each(open);
    let settings = block(POSTGRES_PAGE, "archive").replace("/var/backups/convoke", path(backups.path()));
    let settings = settings.lines().map(|line| {
        let (name, value) = line.split_once(" = ").expect("name = value");
        (name.to_owned(), value.trim_matches('\'').to_owned())
    });
    let options = PostgresOptions { settings: settings.collect(), ..PostgresOptions::default() };
    let (nats, mut postgres) = tokio::join!(newest_bus(), Postgres::start_with(options));
    let convoke = convoke(&postgres.url(), &nats.url()).start().await;
    convoke.wait_ready(TEN).await;
    let mut load = Load::steady(convoke.events, 33);
    load.proceeds(60).await;
    let backup = ("/var/backups/convoke", path(backups.path()));
    run(&block(POSTGRES_PAGE, "base"), &[backup], &[("DATABASE_URL", &postgres.url())]);
    load.proceeds(100).await;

    // The server is lost with its disk; what it archived until then is there. The service goes on.
    postgres.stop_fast().await;
    let data = postgres.data();
    run(&block(POSTGRES_PAGE, "restore-base"), &[backup, ("/var/lib/postgresql/data", path(&data))], &[]);
    postgres.give(&data);
    postgres.restart().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    load.proceeds(60).await;
    load.stop().await;
    nothing_is_lost(&convoke, &nats.jetstream().await, &load.ledger).await;
    assert!(postgres.log().contains("archive recovery complete"), "{}", postgres.log());
}
