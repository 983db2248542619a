//! Files that are whole or not there, pipes, terminals.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};

use super::{CONVOKE, command, export, filled, read};
use crate::{
    log_contract::fixture::Backend,
    support::{tools, wait::eventually},
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// The names of the files in the backend's folder, but for the database's.
fn files(backend: &Backend) -> Vec<String> {
    let entries = fs::read_dir(backend.folder.path()).expect("the folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with("log.db"));
    names.sort();
    names
}

pub async fn a_file_is_there_only_once_it_is_whole(backend: Backend) {
    filled(&backend).await;
    let path = backend.folder.path().join("events.ndjson");
    let output = path.to_str().expect("text");
    assert_eq!(export(&backend, &["events", "-o", output]).await.code(), 0);
    let whole = read(&path);
    assert_eq!((files(&backend), whole.len() > 600), (vec!["events.ndjson".to_owned()], true));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600, "there are people in it");

    // What is there stays, unless it is to be replaced; then it stays as readable as it was.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    let refused = export(&backend, &["recordings", "-o", output]).await;
    assert!(refused.code() == 2 && refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(read(&path), whole);
    assert_eq!(export(&backend, &["recordings", "-o", output, "--force"]).await.code(), 0);
    assert!(read(&path).len() < whole.len());
    assert_eq!(mode(&path), 0o640);
    // A link is followed; what is no file is written to, and is there afterwards.
    let link = backend.folder.path().join("link.ndjson");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    assert_eq!(export(&backend, &["events", "-o", link.to_str().expect("text"), "--force"]).await.code(), 0);
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert_eq!(read(&path), whole);
    assert_eq!(export(&backend, &["events", "-o", "/dev/null"]).await.code(), 0);
    assert!(!fs::metadata("/dev/null").expect("it is there").is_file());
    let nowhere = backend.folder.path().join("no-folder/x.csv");
    let refused = export(&backend, &["events", "-o", nowhere.to_str().expect("text")]).await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    // A workbook goes by way of a temporary file.
    let workbook = backend.folder.path().join("events.xlsx");
    let no_room = command(&backend, &["events", "-o", workbook.to_str().expect("text")]);
    let refused = no_room.env("TMPDIR", "/dev/null").run().await;
    assert!(refused.code() == 1 && refused.stderr.contains("a temporary file in /dev/null (TMPDIR)"), "{refused:?}");
    assert_eq!(files(&backend), ["events.ndjson", "link.ndjson"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_killed_half_way_leaves_nothing_under_the_files_name() {
    let backend = Backend::postgres().await;
    filled(&backend).await;
    for (signal, code, left) in [(Signal::TERM, Some(1), 0), (Signal::INT, Some(1), 0), (Signal::KILL, None, 1)] {
        let mut in_the_way = PgConnection::connect(&backend.url).await.expect("a connection");
        sqlx::raw_sql("BEGIN; LOCK TABLE events").execute(&mut in_the_way).await.expect("a lock");
        let mut child = Command::new(CONVOKE)
            .args(["export", "events", "--output", "events.parquet", "--database-url", &backend.url])
            .current_dir(backend.folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        eventually("it waits for its first page", WAIT_TIMEOUT, async || {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM events%'";
            backend.value(waiting).await == "1"
        })
        .await;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process")).expect("a process");
        kill_process(pid, signal).expect("it gets the signal");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), code);
        in_the_way.close().await.expect("the lock goes");
        let files = files(&backend);
        assert_eq!(files.len(), left, "{files:?}");
        assert!(files.iter().all(|name| name.starts_with(".events.parquet.") && name.ends_with(".part")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_read_enough_ends_it_quietly() {
    let backend = Backend::sqlite();
    filled(&backend).await;
    for format in ["csv", "ndjson"] {
        let mut child = Command::new(CONVOKE)
            .args(["export", "events", "--format", format, "--database-url", &backend.url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(64, child.stdout.take().expect("a pipe"));
        reader.read_line(&mut line).expect("a line");
        drop(reader);
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!((child.wait().expect("it ends").code(), &*said), (Some(0), ""), "{format}");
        assert!(line.starts_with("seq,") || line.starts_with("{\"seq\":"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_no_parquet_and_a_bar_beside_a_file() {
    let backend = Backend::sqlite();
    filled(&backend).await;
    let on_a_terminal = |arguments: &[&str]| {
        let spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut command = Command::new(tools::python());
        command.args(["-c", spawn]).arg(CONVOKE).args(["export", "events", "--database-url", &backend.url]);
        let done = command.args(arguments).stdin(Stdio::null()).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (code, said) = on_a_terminal(&["--format", "parquet"]);
    assert!(code == Some(2) && said.contains("Parquet cannot be shown on a terminal"), "{said}");
    let (code, said) = on_a_terminal(&["--format", "xlsx"]);
    assert!(code == Some(2) && said.contains("a workbook cannot be shown on a terminal"), "{said}");
    let file = backend.folder.path().join("events.csv");
    let (code, said) = on_a_terminal(&["--output", file.to_str().expect("text")]);
    assert!(
        code == Some(0) && said.contains(" rows, ") && said.contains(" %  ") && said.contains("exported"),
        "{said}"
    );
    let (code, said) = on_a_terminal(&["--meeting", "960000017"]);
    assert!(code == Some(0) && said.contains("\r\n") && !said.contains(" %  "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spreadsheet_gets_no_formulas_and_others_what_is_there() {
    let backend = Backend::sqlite();
    filled(&backend).await;
    let plain = export(&backend, &["events"]).await.stdout;
    let safe = export(&backend, &["events", "--spreadsheet"]).await.stdout;
    assert!(plain.starts_with("seq,") && plain.contains(",=1+1,") && plain.contains(",@SUM(A1),"));
    assert!(safe.starts_with("\u{feff}seq,") && safe.contains(",'=1+1,") && safe.contains(",'@SUM(A1),"));
    assert!(!safe.contains(",=") && !safe.contains(",@"));
    assert!(safe.contains(",<b>王小明</b>,"), "what is no formula is as it was");
}
