//! The commands that people type, each as a process.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use convoke_core::sign;
use encoding_rs::GB18030;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    support::service::{APP_ID, Database, KEY, PATH, Service, WAIT_TIMEOUT, event, settings, signed, sqlite},
    support::{
        nats::{NatsOptions, NatsServer, NatsVersion},
        port::Port,
        process::{Convoke, Finished, run_convoke},
        tools,
        wait::eventually,
    },
};

const COMMANDS: [&str; 15] = [
    "init",
    "serve",
    "demo",
    "simulate",
    "audit",
    "verify",
    "replay",
    "quarantine",
    "check",
    "config",
    "send",
    "health",
    "migrate",
    "export",
    "completions",
];

#[tokio::test]
async fn every_command_explains_itself() {
    let help = run_convoke(&["--help"], &[]).await;
    assert_eq!(help.code(), 0);
    for command in COMMANDS {
        assert!(help.stdout.contains(&format!("  {command} ")), "{command} in {}", help.stdout);
        let own = run_convoke(&[command, "--help"], &[]).await;
        assert_eq!((own.code(), own.stdout.contains("Usage: convoke")), (0, true), "{command}");
    }
    for (command, flags) in [
        (
            "serve",
            &["--config", "--listen", "--admin-listen", "--path", "--app-id", "--app-key-file", "--database-url"][..],
        ),
        ("demo", &["--once", "--nats-url"]),
        ("audit", &["--ledger"]),
        ("replay", &["--since", "--until", "--event", "--meeting", "--missing", "--again"]),
        ("export", &["--since", "--until", "--format", "--output", "events", "meetings", "attendance", "recordings"]),
        ("quarantine", &["list", "show", "retry", "discard"]),
    ] {
        let own = run_convoke(&[command, "--help"], &[]).await;
        for flag in flags {
            assert!(own.stdout.contains(flag), "{command} {flag}");
        }
    }
    let simulate = "--url --app-id --app-key-file --meetings --attendees --rate --connections --duration --duplicates --drop \
                    --resign-retries --shuffle --time-scale --seed --ledger --truth --ago --platform --platform-key-file \
                    --platform-sp-id --platform-newer-recordings";
    let own = run_convoke(&["simulate", "--help"], &[]).await;
    for flag in simulate.split_whitespace() {
        assert!(own.stdout.contains(flag), "simulate {flag}");
    }
    let version = run_convoke(&["--version"], &[]).await;
    assert_eq!(version.code(), 0);
    let begin = format!("convoke {} (", env!("CARGO_PKG_VERSION"));
    assert!(version.stdout.starts_with(&begin) && version.stdout.ends_with(")\n"), "{version:?}");
}

/// The manual's two samples that verify: the handshake as printed, and the second one as it was when it was signed.
const HANDSHAKE: &str = r#"{
  "appID": "1988692299",
  "timestamp": 1629183619116,
  "nonce": "85262798",
  "signature": "262ccb5f8854f824c41ea5854ba1798bfa850706fbc85b2be9fd7535ed6b8ff3",
  "eventInfo": { "event": "meeting.verify", "timestamp": 1629183619116 }
}"#;
const STARTED: &str = r#"{"appID":"123456789","timestamp":1629813991351,"nonce":"60426560",
 "signature":"E3945CAB9C583F394AE5E4957B83905E779CACAA2377D9542E19E011CC60A139",
 "eventInfo":{"event":"meeting.started","timestamp":1629813991351,"payload":{"meetingInfo":{"meetingID":"987446316"}}}}"#;

#[tokio::test]
async fn verify_says_what_matched_or_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    };
    let (key, other_key) = (file("key", "123456\n"), file("other", "654321\n"));
    let verify = async |body: &str, key: &str| {
        let body = file("body.json", body);
        run_convoke(&["verify", &body, "--app-key-file", key], &[]).await
    };
    let said = |finished: &Finished, code: i32, words: &[&str]| {
        assert_eq!(finished.code(), code, "{finished:?}");
        for word in words {
            assert!(finished.stdout.contains(word), "no {word}: {}", finished.stdout);
        }
    };
    said(&verify(HANDSHAKE, &key).await, 0, &["the signature matches", "raw", "meeting.verify", "number 1 of 1"]);
    let event_id = "017b787b-e7b7-8";
    said(&verify(STARTED, &key).await, 0, &["meeting.started", event_id, "2021-08-24T14:06:31.351Z"]);
    said(
        &verify(HANDSHAKE, &other_key).await,
        1,
        &["the signature matches no key", "1988692299", "1629183619116", "85262798", "white space"],
    );
    // As the manual prints it, with members that were added after it was signed.
    let printed = STARTED.replace(r#""987446316""#, r#""987446316","meetingUUID":"x""#);
    said(&verify(&printed, &key).await, 1, &["matches no key", "meeting.started"]);
    said(&verify(&HANDSHAKE.replace("262c", "262"), &key).await, 1, &["64 hexadecimal digits"]);
    said(&verify("{}", &key).await, 1, &["not an envelope", "missing"]);
    // Signed over a text that no delivery is taken in, and with a key whose white space is too much.
    let info = |name: &str| format!(r#"{{"event":"x","timestamp":1735700465789,"payload":{{"name":"{name}"}}}}"#);
    let odd = |sent: &str, signed: &str| {
        let body = sign::envelope("1988692299", 1_735_700_465_790, "1", info(signed).as_bytes(), b"123456");
        String::from_utf8(body).expect("text").replace(&info(signed), &info(sent))
    };
    let fits =
        ["matches no key", "raw, spaced, unescaped", "fits", "< > & escaped", "key number 1", "The key is right"];
    said(&verify(&odd("R&D 'x'", r"R\u0026D 'x'"), &key).await, 1, &fits);
    let tried = ["matches no key", "and with", "members sorted by name", "UTF-16"];
    said(&verify(&odd("R&D", "another"), &key).await, 1, &tried);
    let blank = file("blank", "123456 \n");
    said(&verify(STARTED, &blank).await, 1, &["matches no key", "a key without the white space"]);
    said(&verify(&odd("R&D", "another"), &blank).await, 1, &["begins or ends with white space"]);
    said(&verify("GET /", &key).await, 1, &["not an envelope", "JSON"]);
    // Copied by programs that write GBK or UTF-16, signed so, and in none of them.
    let (named, gbk) = (info("王"), |text: &str| GB18030.encode(text).0.into_owned());
    let verify_bytes = async |body: Vec<u8>| {
        let path = folder.path().join("body.json");
        std::fs::write(&path, body).expect("a file");
        run_convoke(&["verify", path.to_str().expect("a plain path"), "--app-key-file", &key], &[]).await
    };
    let enveloped = |info: &[u8]| sign::envelope("1988692299", 1_735_700_465_790, "1", info, b"123456");
    let sent = String::from_utf8(enveloped(named.as_bytes())).expect("text");
    let copied = ["not UTF-8", "not_utf8", "read as GB18030 (GBK)", "the signature matches\n", "event_id"];
    said(&verify_bytes(gbk(&sent)).await, 1, &copied);
    let wide = sent.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16 = ["read as UTF-16LE", "the signature matches\n"];
    said(&verify_bytes([0xff, 0xfe].into_iter().chain(wide).collect()).await, 1, &utf16);
    let signed_so = ["read as GB18030 (GBK)", "fits", "eventInfo with: in GB18030 (GBK)"];
    said(&verify_bytes(enveloped(&gbk(&named))).await, 1, &signed_so);
    let latin = sent.replace('王', "\u{e9}").chars().map(|c| u8::try_from(c).expect("Latin-1")).collect();
    said(&verify_bytes(latin).await, 1, &["not an envelope: the body is not UTF-8"]);
    for (arguments, word) in [
        (vec!["verify", "/nowhere", "--app-key-file", &key], "/nowhere"),
        (vec!["verify", &file("body.json", HANDSHAKE), "--app-key-file", "/nowhere"], "--app-key-file"),
        (vec!["verify", &file("body.json", HANDSHAKE)], "`subscriber`"),
    ] {
        let refused = run_convoke(&arguments, &[]).await;
        assert!(refused.code() == 2 && refused.stderr.contains(word), "{refused:?}");
    }

    // With the service's settings, from the standard input.
    let piped = |body: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_convoke"));
        child.arg("verify").env_clear().envs([("CONVOKE_APP_ID", APP_ID), ("CONVOKE_APP_KEY", KEY)]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("convoke");
        child.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("an end");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    assert_eq!(piped(HANDSHAKE).0, Some(0));
    let (code, text) = piped(STARTED);
    assert!(code == Some(1) && text.contains("not a configured subscriber") && text.contains(APP_ID), "{text}");
}

#[tokio::test]
async fn the_quarantine_is_listed_shown_retried_and_discarded() {
    let service = Service::start().await;
    let bodies =
        [r#"{"timestamp":1}"#, r#"{"event":"","timestamp":1}"#, r#"{"event":"x","timestamp":"soon"}"#].map(signed);
    for body in &bodies {
        assert_eq!(service.post(body.clone()).await.status, 200);
    }
    let run = async |arguments: &[&str]| service.convoke.run(&[&["quarantine"], arguments].concat()).await;
    let list = run(&["list"]).await;
    assert_eq!((list.code(), list.stdout.lines().count()), (0, 3), "{list:?}");
    assert!(list.stdout.contains("event is missing") && list.stdout.contains(APP_ID));
    let lines = run(&["list", "--json"]).await.stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[1]["id"], &lines[1]["bytes"]), (&json!(2), &json!(bodies[1].len())));
    let show = run(&["show", "2"]).await;
    assert_eq!((show.code(), show.stdout.trim_end().as_bytes()), (0, &bodies[1][..]));
    assert!(show.stderr.contains("event is empty"));
    assert_eq!(run(&["show", "9"]).await.code(), 1);

    // Still no events for today's code …
    let retry = run(&["retry", "1"]).await;
    assert!(retry.code() == 1 && retry.stdout.contains("stays"), "{retry:?}");
    assert_eq!(service.count("quarantine"), 3);
    // … and an entry that an earlier version could not read, and this one can.
    let body = hex::encode(signed(&event("meeting.join", "77")));
    let insert = format!(
        "INSERT INTO quarantine (digest, subscriber_id, received_at, deliveries, reason, body)
         VALUES (x'00', '{APP_ID}', '2026-01-01T00:00:00.000Z', 3, 'an older version', x'{body}')"
    );
    let mut sql = Command::new("sqlite3");
    tools::output_of(sql.args(["-cmd", ".timeout 5000"]).arg(service.database_file()).arg(insert));
    let retry = run(&["retry", "--all"]).await;
    assert!(retry.code() == 1 && retry.stdout.contains("4: stored in the log"), "{retry:?}");
    assert_eq!(service.sql("SELECT meeting_id, deliveries FROM events"), "77|3");
    assert_eq!(service.count("quarantine"), 3);

    assert_eq!(run(&["discard", "1", "3", "--yes"]).await.code(), 0);
    assert_eq!(service.sql("SELECT id FROM quarantine"), "2");
    assert_eq!(run(&["discard", "1", "--yes"]).await.code(), 1);
    for wrong in [&["discard"][..], &["discard", "2"], &["retry"], &["show", "x"], &[]] {
        assert_eq!(run(wrong).await.code(), 2, "{wrong:?}");
    }
    assert_eq!(run(&["discard", "2", "--yes"]).await.code(), 0);
    assert!(run(&["list"]).await.stdout.contains("empty"));
}

#[tokio::test]
async fn an_implausible_time_is_admitted_by_somebody_who_knows_its_unit_on_sqlite() {
    admitted(&Service::start().await).await;
}

#[tokio::test]
async fn an_implausible_time_is_admitted_by_somebody_who_knows_its_unit_on_postgresql() {
    admitted(&Service::on(Database::postgres().await).await).await;
}

async fn admitted(service: &Service) {
    let started = |at: &str| format!(r#"{{"event":"meeting.started","timestamp":{at}}}"#);
    let times = ["1735700465789000", "\"001735700465\"", "0", "1735700465789001"];
    for time in times {
        service.acknowledged(&started(time)).await;
    }
    let run = async |arguments: &[&str]| service.convoke.run(&[&["quarantine"], arguments].concat()).await;
    let plain = run(&["retry", "--all"]).await;
    assert!(plain.code() == 1 && plain.stdout.contains("1: stays in the quarantine: implausible time; "), "{plain:?}");
    for (id, unit) in [("1", "microseconds"), ("2", "seconds"), ("3", "received"), ("4", "microseconds")] {
        let retry = run(&["retry", id, "--as", unit]).await;
        // Two texts of one moment are two events.
        assert!(retry.code() == 0 && retry.stdout.contains("stored in the log"), "{retry:?}");
    }
    assert_eq!(service.count("quarantine"), 0);
    let (at, same) = match service.database {
        Database::Sqlite => ("occurred_at", "occurred_at = received_at"),
        Database::Postgres(_) => {
            (r#"to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#, "occurred_at = received_at")
        }
    };
    let rows = service.sql(&format!("SELECT {at}, event_info FROM events WHERE NOT ({same}) ORDER BY seq"));
    let row = |at: &str, time: &str| format!("{at}|{}", started(time));
    let expected = [
        row("2025-01-01T03:01:05.789Z", times[0]),
        row("2025-01-01T03:01:05.000Z", times[1]),
        row("2025-01-01T03:01:05.789Z", times[3]),
    ];
    assert_eq!(rows.lines().collect::<Vec<_>>(), expected);
    assert_eq!(service.sql(&format!("SELECT event_info FROM events WHERE {same}")), started("0"));
    // It comes again, and is what it was.
    service.acknowledged(&started(times[0])).await;
    let again = run(&["retry", "--all", "--as", "microseconds"]).await;
    assert!(again.code() == 0 && again.stdout.contains("already in the log"), "{again:?}");
    assert_eq!(run(&["retry", "--all", "--as", "hours"]).await.code(), 2);
}

#[tokio::test]
async fn migrate_brings_the_database_up_to_date_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sqlite_url = format!("sqlite://{}", folder.path().join("c.db").display());
    let Database::Postgres(postgres) = Database::postgres().await else { unreachable!("just started") };
    for url in [sqlite_url, postgres.url()] {
        let run = async || run_convoke(&["migrate", "--database-url", &url], &[]).await;
        let first = run().await;
        assert!(first.code() == 0 && first.stdout.contains("applied"), "{first:?}");
        let second = run().await;
        assert!(second.code() == 0 && second.stdout.contains("up to date"), "{second:?}");
    }
    assert_eq!(sqlite(&folder.path().join("c.db"), "SELECT count(*) FROM events"), "0");
    let away = format!("postgres://postgres@{}/x", Port::lease().address());
    let failed = run_convoke(&["migrate", "--database-url", &away], &[]).await;
    assert_eq!(failed.code(), 1, "{failed:?}");
}

#[tokio::test]
async fn check_says_in_a_line_each_what_is_well_and_what_is_not() {
    let mut nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let mut service = Service::with(settings().setting("NATS_URL", nats.url()), Database::Sqlite).await;
    service.post(signed(r#"{"event":"meeting.verify","timestamp":1}"#)).await;
    service.acknowledged(&event("meeting.join", "1")).await;
    eventually("it is published", WAIT_TIMEOUT, async || {
        service.metric(r#"convoke_published_total{outcome="new"}"#).await == 1.0
    })
    .await;
    let check =
        async |service: &Service, arguments: &[&str]| service.convoke.run(&[&["check"], arguments].concat()).await;
    let failing = |finished: &Finished| -> Vec<String> {
        let failed = finished.stdout.lines().filter_map(|line| line.strip_prefix("FAIL"));
        failed.map(|line| line.trim_start().to_owned()).collect()
    };
    eventually("all is well", WAIT_TIMEOUT, async || {
        let well = check(&service, &[]).await;
        let all = ["settings", "database", "writing", "clock", "handshake", "cursor", "bus", "stream"];
        let named = all.iter().all(|what| well.stdout.lines().any(|line| line.starts_with(&format!("ok    {what}"))));
        if well.code() == 0 && named && failing(&well).is_empty() { Ok(()) } else { Err(format!("{well:?}")) }
    })
    .await;

    let database = check(&service, &["--database-url", "sqlite://elsewhere.db"]).await;
    assert_eq!((database.code(), failing(&database).len()), (1, 1), "{database:?}");
    assert!(failing(&database)[0].starts_with("database"));
    assert!(!service.convoke.folder().join("elsewhere.db").exists(), "looking makes no database");
    let unused = format!("nats://{}", Port::lease().address());
    let bus = check(&service, &["--nats-url", &unused]).await;
    assert_eq!((bus.code(), failing(&bus).len()), (1, 1), "{bus:?}");
    assert!(failing(&bus)[0].starts_with("bus"));
    assert_eq!(check(&service, &["--app-key-file", "/nowhere"]).await.code(), 2, "a wrong setting");
    let nobody = Convoke::builder().setting("NATS_URL", "none").arg("check").run().await;
    assert!(nobody.code() == 1 && failing(&nobody)[0].starts_with("settings"), "{nobody:?}");

    // The stream lost what had been published, and then all of it.
    service.convoke.kill().await;
    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("MEETINGS").await.expect("the stream");
    stream.purge().await.expect("a purge");
    let purged = check(&service, &[]).await;
    assert!(purged.code() == 1 && failing(&purged)[0].contains("it lost messages"), "{purged:?}");
    jetstream.delete_stream("MEETINGS").await.expect("it was there");
    let deleted = check(&service, &[]).await;
    assert!(deleted.code() == 1 && failing(&deleted)[0].contains("MEETINGS"), "{deleted:?}");
    nats.stop().await;
}

#[tokio::test]
async fn simulate_plays_the_platform_against_the_service() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ledger, truth) = (folder.path().join("ledger"), folder.path().join("truth"));
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).expect("a file");
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let url = format!("http://{}{PATH}", service.convoke.events);
    let (ledger_text, truth_text, key_text) = (text(&ledger), text(&truth), text(&key));
    let mut arguments = vec!["simulate", "--url", &url, "--app-id", APP_ID, "--app-key-file", &key_text];
    arguments.extend(["--meetings", "5", "--attendees", "4", "--duplicates", "0.2", "--shuffle", "--resign-retries"]);
    arguments.extend(["--seed", "7", "--ledger", &ledger_text, "--truth", &truth_text, "--time-scale", "1000"]);
    let run = run_convoke(&[&arguments[..], &["--json"]].concat(), &[]).await;
    assert_eq!(run.code(), 0, "{run:?}");
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!((report["seed"].as_u64(), report["given_up"].as_u64()), (Some(7), Some(0)), "{report}");
    assert_eq!(report["acknowledged"].as_u64(), Some(service.count("events")));
    let lines = std::fs::read_to_string(&ledger).expect("a ledger");
    assert_eq!(lines.lines().count() as u64, service.count("events"));
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    let mut members: Vec<_> = first.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["acknowledged_at", "event", "event_id", "subscriber_id"]);
    let id = first["event_id"].as_str().expect("an id");
    assert_eq!(service.sql(&format!("SELECT count(*) FROM events WHERE event_id = '{id}'")), "1");
    assert!(std::fs::metadata(&truth).expect("the truth").len() > 0);

    let people = run_convoke(&[&arguments[..7], &["--meetings", "1"]].concat(), &[]).await;
    for word in ["sent", "acknowledged", "retried", "given up", "throughput", "p50", "p99", "p99.9"] {
        assert!(people.stdout.contains(word), "{word} in {}", people.stdout);
    }
    let nobody = format!("http://{}{PATH}", Port::lease().address());
    let failed = run_convoke(&["simulate", "--url", &nobody, "--app-id", "1", "--app-key-file", &key_text], &[]).await;
    assert!(failed.code() == 1 && failed.stderr.contains("handshake"), "{failed:?}");
    let wrong = run_convoke(&["simulate", "--url", "ftp://x", "--app-id", "1", "--app-key-file", &key_text], &[]).await;
    assert_eq!(wrong.code(), 2, "{wrong:?}");
    assert_eq!(run_convoke(&["simulate"], &[]).await.code(), 2, "nobody to play");
}

/// A folder for temporary files of a demo, and a `PATH` on which it finds nats-server.
fn demo_place() -> (tempfile::TempDir, String) {
    let server = tools::nats_server(NatsVersion::Newest);
    let programs = server.parent().expect("a folder").to_str().expect("a plain path").to_owned();
    (tempfile::tempdir().expect("a temporary folder"), programs)
}

/// Nothing in its folder, and no process whose command line names it.
fn assert_nothing_is_left(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let name = folder.to_str().expect("a plain path");
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(name), "{line} runs on");
    }
}

#[tokio::test]
async fn the_demo_runs_once_with_a_bus_of_its_own_and_leaves_nothing() {
    let (folder, programs) = demo_place();
    let demo = Convoke::builder().arg("demo").arg("--once").args_small().env("PATH", programs);
    let finished = demo.env("TMPDIR", folder.path()).run().await;
    assert_eq!(finished.code(), 0, "{finished:?}");
    for word in
        ["started a private nats-server", "acknowledged", "0 of them missing", "\nclean\n", "sqlite3 ", "CONVOKE_DEMO"]
            .into_iter()
            .chain([
                "$ convoke subscription enable\n",
                "\nenabled\n",
                "$ convoke backfill --since",
                "a record.ready for each",
                "/api/v1/meetings?status=live",
                "/   the page, in a browser",
            ])
    {
        assert!(finished.stdout.contains(word), "{word} in {}", finished.stdout);
    }
    assert_nothing_is_left(folder.path());
}

#[tokio::test]
async fn the_demo_uses_a_bus_that_it_is_given() {
    let nats = NatsServer::start(NatsVersion::Oldest, NatsOptions::default()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Convoke::builder().arg("demo").arg("--once").args_small().arg("--nats-url").arg(nats.url());
    let finished = demo.env("PATH", "").env("TMPDIR", folder.path()).run().await;
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert!(!finished.stdout.contains("started a private"), "{}", finished.stdout);
    let stream = nats.jetstream().await.get_stream("CONVOKE_DEMO").await.expect("the demo's stream");
    assert_eq!(stream.cached_info().config.subjects, ["demo.>"]);
    assert!(stream.cached_info().state.messages > 0);
    assert_nothing_is_left(folder.path());

    let wrong = Convoke::builder().arg("demo").arg("--once").arg("--nats-server").arg("/nowhere").run().await;
    assert!(wrong.code() == 2 && wrong.stderr.contains("--nats-url"), "{wrong:?}");
}

#[tokio::test]
async fn the_demo_works_from_the_program_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Convoke::builder().arg("demo").arg("--once").args_small().env("PATH", "").env("TMPDIR", folder.path());
    let finished = demo.run().await;
    assert_eq!(finished.code(), 0, "{finished:?}");
    for said in [
        "there is no nats-server",
        "stored in SQLite. The audit of ledger and log",
        "\nclean\n",
        concat!("  ", env!("CARGO_BIN_EXE_convoke"), " send http://"),
    ] {
        assert!(finished.stdout.contains(said), "{said} in {}", finished.stdout);
    }
    assert!(!finished.stdout.contains("stream view"), "{}", finished.stdout);
    assert_nothing_is_left(folder.path());
}

#[tokio::test]
async fn the_demo_stays_until_it_is_stopped() {
    let (folder, programs) = demo_place();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_convoke"));
    command.args(["demo", "--meetings", "2", "--attendees", "2"]).env_clear();
    command.env("PATH", programs).env("TMPDIR", folder.path()).current_dir(folder.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("convoke");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let output = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains(" send http://") {
                let sent =
                    tokio::process::Command::new("sh").args(["-c", line.trim()]).output().await.expect("a shell");
                assert!(sent.status.success(), "{line}: {sent:?}");
            }
            if line.contains("Ctrl-C ends the demo") {
                return;
            }
        }
        panic!("it ended early");
    };
    tokio::time::timeout(WAIT_TIMEOUT * 2, output).await.expect("the demo's story in time");
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
    kill_process(id, Signal::INT).expect("our own child");
    let status = tokio::time::timeout(WAIT_TIMEOUT, child.wait()).await.expect("an end in time").expect("a status");
    assert_eq!(status.code(), Some(0));
    assert_nothing_is_left(folder.path());
}

/// A small demo is as good as a long one here.
trait Small {
    fn args_small(self) -> Self;
}

impl Small for crate::support::process::ConvokeBuilder {
    fn args_small(self) -> Self {
        self.arg("--meetings").arg("4").arg("--attendees").arg("3").arg("--seed").arg("5")
    }
}
