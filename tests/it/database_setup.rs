//! The first contact with a database: what a person has to mend is said once, with what to do, by whichever command meets it;
//! and `serve` goes on when it is mended.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::Connection as _;

use crate::support::{
    postgres::Postgres,
    process::{Convoke, ConvokeBuilder, Finished},
    rig::*,
    wait::eventually,
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// `check` and `migrate` say all of these, once each.
async fn is_said(make: impl Fn() -> ConvokeBuilder, says: &[&str]) {
    let each_once = |text: &str| {
        for part in says {
            assert_eq!(text.matches(part).count(), 1, "{part:?} in: {text}");
        }
        assert!(!text.contains(" line ") && !text.contains("run `convoke migrate`"), "{text}");
    };
    let checked: Finished = make().arg("check").run().await;
    let line = checked.stdout.lines().find(|line| line.starts_with("FAIL  database")).expect("a line");
    each_once(line);
    let migrated = make().arg("migrate").run().await;
    assert_eq!(migrated.code(), 1);
    each_once(&migrated.stderr);
}

/// So does `serve`, which answers 503 until it is mended.
async fn is_survived(make: impl Fn() -> ConvokeBuilder, says: &str, mend: impl FnOnce()) {
    let convoke: Convoke = make().start().await;
    // Its upkeep may have met it as well, which is a warning.
    let failures = |line: &&str| line.contains(says) && line.contains("\"ERROR\"");
    let failed = || -> Vec<String> { convoke.logs().lines().filter(failures).map(str::to_owned).collect() };
    eventually("it says so", WAIT_TIMEOUT, async || !failed().is_empty()).await;
    assert_eq!(Sample::number(1).deliver(convoke.events).await, 503);
    mend();
    convoke.wait_ready(WAIT_TIMEOUT).await;
    assert_eq!(Sample::number(1).deliver(convoke.events).await, 200);
    let lines = failed();
    assert!(lines.len() == 1 && lines[0].contains("answered 503"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_in_postgresql_are_said_with_who_can_give_them() {
    let postgres = Postgres::start().await;
    postgres.psql("CREATE ROLE convoke LOGIN");
    postgres.database("meetings");
    let url = postgres.url().replace("postgres@", "convoke@").replace("/postgres", "/meetings");
    let make = || convoke(&url, "none");
    let denied = "permission denied for schema public";
    is_said(make, &[denied, "ALTER DATABASE meetings OWNER TO convoke"]).await;
    postgres.psql("ALTER ROLE convoke SET search_path = ''");
    is_said(make, &["ALTER ROLE convoke RESET search_path"]).await;
    postgres.psql("ALTER ROLE convoke RESET search_path");
    is_survived(make, denied, || drop(postgres.psql("ALTER DATABASE meetings OWNER TO convoke"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_a_missing_database_are_distinguished_from_a_server_that_is_away() {
    let postgres = Postgres::start().await;
    let rules = postgres.data().join("pg_hba.conf");
    let before = fs::read_to_string(&rules).expect("its rules");
    fs::write(&rules, format!("host all convoke 127.0.0.1/32 scram-sha-256\n{before}")).expect("a rule more");
    // Whatever a generator of passwords may come up with.
    postgres.psql("CREATE ROLE convoke LOGIN PASSWORD '123#w/?%41 @:w'");
    postgres.psql("SELECT pg_reload_conf()");
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("convoke.toml");
    let url = format!("postgres://convoke:${{PGPASS}}@{}/meetings", postgres.address());
    fs::write(&settings, format!("database.url = '{url}'\nnats.url = 'none'\n")).expect("settings");
    let make = |password: &str| {
        let builder = Convoke::builder().setting("APP_ID", APP_ID).setting("APP_KEY", KEY);
        builder.setting("CONFIG", &settings).env("PGPASS", password)
    };
    is_said(|| make("hidden"), &["password authentication failed for user \"convoke\"", "PGPASSFILE"]).await;
    let finished = make("hidden").arg("migrate").run().await;
    assert!(!finished.stderr.contains("hidden"), "{}", finished.stderr);
    let right = || make("123#w/?%41 @:w");
    let missing = "database \"meetings\" does not exist";
    is_said(right, &[missing, "CREATE DATABASE"]).await;
    is_survived(right, "does not exist", || drop(postgres.psql("CREATE DATABASE meetings OWNER convoke"))).await;
}

/// Convoke as a user who may not write everywhere.
fn as_somebody(database: &str, folder: &Path) -> ConvokeBuilder {
    let builder = convoke(database, "none").setting("CONFIG", "/dev/null");
    if !rustix::process::geteuid().is_root() {
        return builder;
    }
    let program = folder.join("convoke-as-nobody");
    let script =
        format!("#!/bin/sh\nexec setpriv --reuid 65534 --clear-groups {} \"$@\"\n", env!("CARGO_BIN_EXE_convoke"));
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    builder.program(program)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own path");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_or_a_file_that_sqlite_cannot_write_is_named_with_the_user_and_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    mode(folder.path(), 0o755);
    let data: PathBuf = folder.path().join("data");
    let url = format!("sqlite://{}/convoke.db", data.display());
    let make = || as_somebody(&url, folder.path());
    let missing = format!("there is no folder {}", data.display());
    let finished = make().arg("migrate").run().await;
    assert!(finished.code() == 1 && finished.stderr.contains(&missing), "{}", finished.stderr);
    is_survived(make, &missing, || {
        fs::create_dir(&data).expect("a folder");
        mode(&data, 0o777);
    })
    .await;

    // Somebody restored a backup as root, say: it can be read, and that is all.
    for entry in fs::read_dir(&data).expect("the folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    let file = data.join("convoke.db");
    let migrated = convoke(&url, "none").arg("migrate").run().await;
    assert_eq!(migrated.code(), 0, "{}", migrated.stderr);
    mode(&file, 0o444);
    let unwritable = format!("cannot write {}", file.display());
    is_survived(make, &unwritable, || {
        // Those that SQLite made beside it have the file's own mode.
        for entry in fs::read_dir(&data).expect("the folder") {
            mode(&entry.expect("an entry").path(), 0o666);
        }
    })
    .await;

    // The same with what SQLite keeps beside it, which stays there while somebody else has it open.
    let mut held = sqlx::SqliteConnection::connect(&url).await.expect("a connection");
    sqlx::query("SELECT count(*) FROM events").execute(&mut held).await.expect("it is read");
    let all = |mode_of_each: u32| {
        let entries: Vec<PathBuf> =
            fs::read_dir(&data).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
        entries.iter().for_each(|entry| mode(entry, mode_of_each));
        entries.len()
    };
    assert_eq!(all(0o444), 3);
    is_survived(make, &unwritable, || assert_eq!(all(0o666), 3)).await;
    held.close().await.expect("closed");

    mode(&data, 0o555);
    let url = format!("sqlite://{}/other.db", data.display());
    let finished = as_somebody(&url, folder.path()).arg("migrate").run().await;
    let unwritable = format!("cannot write {}", data.display());
    assert!(finished.code() == 1 && finished.stderr.contains(&unwritable), "{}", finished.stderr);
    assert!(finished.stderr.contains("sudo chown"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_nobody_has_used_yet_is_left_to_the_service_to_fill() {
    let postgres = Postgres::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = format!("sqlite://{}/convoke.db", folder.path().display());
    for url in [postgres.url(), sqlite] {
        let finished = convoke(&url, "none").arg("check").run().await;
        assert!(finished.stdout.contains("`convoke serve` creates"), "{}", finished.stdout);
        assert!(!finished.stdout.contains("run `convoke migrate`"), "{}", finished.stdout);
    }
}
