//! What the program says of mistakes that are easily made, where no other module has the case: what is wrong, and what to do.

use crate::support::{
    nats::{NatsOptions, NatsServer, NatsVersion},
    port::Port,
    process::{Convoke, run_convoke},
    rig::*,
};

#[tokio::test]
async fn a_time_that_is_none_and_a_time_zone_that_is_none_are_refused_with_what_to_write() {
    for command in [&["export", "events"][..], &["replay"], &["backfill", "--dry-run"]] {
        for time in ["soon", "2026-11-27T08:00[Asia/Tokyo]"] {
            let refused = run_convoke(&[command, &["--since", time]].concat(), &[]).await;
            assert_eq!(refused.code(), 2, "{refused:?}");
            let advice = "write for example 2026-03-01, or 2026-03-01 08:30";
            assert!(refused.stderr.contains("--since") && refused.stderr.contains(advice), "{refused:?}");
        }
    }
    for (zone, instead) in [
        ("Asia/Shangai", "did you mean Asia/Shanghai?"),
        ("Beijing", "did you mean Asia/Shanghai?"),
        ("UTC+8", "did you mean Asia/Shanghai?"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("somewhere", "as in Asia/Shanghai, Europe/Berlin or UTC"),
    ] {
        let refused = run_convoke(&["config", "--check"], &[("CONVOKE_TIME_ZONE", zone)]).await;
        let named = refused.stderr.contains("reports.time_zone") && refused.stderr.contains(zone);
        assert!(refused.code() == 2 && named && refused.stderr.contains(instead), "{zone}: {refused:?}");
    }
}

#[tokio::test]
async fn check_says_why_there_is_no_connection_to_nats() {
    let free = Port::lease();
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    for (url, reason) in [
        (format!("nats://{}", free.address()), "connection refused: no server listens there"),
        ("nats://nosuch.invalid:4222".to_owned(), "no such host"),
        (format!("tls://{}", nats.address()), "the server speaks no TLS: write nats:// instead of tls://"),
    ] {
        let report = convoke(SQLITE, &url).arg("check").run().await;
        let line = report.stdout.lines().find(|line| line.starts_with("FAIL  bus")).unwrap_or_default();
        assert!(report.code() == 1 && line.contains(reason), "{url}: {report:?}");
    }
}

#[tokio::test]
async fn an_unknown_database_host_is_named_and_the_percent_encoding_of_passwords_is_explained() {
    let url = "postgres://convoke:word@nosuch.invalid/convoke";
    let report = run_convoke(&["check"], &[("CONVOKE_DATABASE_URL", url), ("CONVOKE_NATS_URL", "none")]).await;
    let line = report.stdout.lines().find(|line| line.starts_with("FAIL  database")).unwrap_or_default();
    assert!(line.contains("no such host") && line.contains("`@` as %40") && !line.contains("word@"), "{report:?}");
}

#[tokio::test]
async fn settings_that_were_saved_in_another_encoding_are_refused_by_that_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("convoke.toml");
    let (gbk, _, _) = encoding_rs::GBK.encode("# 会议\n");
    let utf16: Vec<u8> = "\u{feff}# 会议\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [&*gbk, &utf16] {
        std::fs::write(&file, bytes).expect("a file");
        let refused = run_convoke(&["config", "--config", file.to_str().expect("text")], &[]).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        for word in ["convoke.toml is not UTF-8", "GBK or UTF-16"] {
            assert!(refused.stderr.contains(word), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn an_https_url_of_a_plain_listener_is_named_as_that() {
    let convoke = convoke(SQLITE, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let url = format!("https://{}/openapi/meetingevent", convoke.events);
    for arguments in [&["send", &*url][..], &["send", "--handshake", &url], &["simulate", "--url", &url]] {
        let refused = convoke.run(arguments).await;
        let said = "speaks plain HTTP: write http://, or set listen.tls_cert there";
        assert!(refused.code() == 1 && refused.stderr.contains(said), "{arguments:?} {refused:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_undone_is_refused_without_yes_where_nobody_can_be_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for command in
        [&["forget", "--account", "a"][..], &["forget", "--test-data"], &["rebuild"], &["quarantine", "discard", "1"]]
    {
        let builder = command.iter().fold(Convoke::builder(), |builder, argument| builder.arg(argument));
        let database = format!("sqlite://{}", folder.path().join("convoke.db").display());
        let refused = builder.setting("DATABASE_URL", database).setting("NATS_URL", "none").run().await;
        assert!(refused.code() == 2 && refused.stderr.contains("add --yes"), "{command:?} {refused:?}");
    }
}

#[tokio::test]
async fn simulate_takes_from_the_settings_file_what_its_flags_leave_out() {
    let listening = convoke(SQLITE, "none").start().await;
    listening.wait_ready(LONG_TIMEOUT).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("convoke.toml");
    let settings = format!(
        "[[subscriber]]\napp_id = \"{APP_ID}\"\nkeys = [\"{KEY}\"]\n[listen]\nevents = \"{}\"\n",
        listening.events
    );
    std::fs::write(&file, settings).expect("a file");
    let file = file.to_str().expect("text");
    let simulated = run_convoke(&["simulate", "--config", file, "--meetings", "1", "--attendees", "2"], &[]).await;
    assert!(simulated.code() == 0 && simulated.stdout.contains("acknowledged"), "{simulated:?}");
    assert!(!simulated.stdout.contains("acknowledged  0\n"), "{simulated:?}");
    let nobody = run_convoke(&["simulate", "--config", file, "--app-id", "2"], &[]).await;
    assert!(nobody.code() == 2 && nobody.stderr.contains("no subscriber"), "{nobody:?}");
}
