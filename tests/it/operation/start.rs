//! The start: before the database, on an old or a newer schema; and the log.

use super::*;

#[tokio::test]
async fn the_service_starts_before_its_database_and_becomes_ready_with_it() {
    let postgres = Postgres::start().await;
    let proxy = Proxy::start(postgres.address());
    proxy.cut();
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let convoke = settings().setting("DATABASE_URL", url).start().await;
    let post = async |body: Vec<u8>| http::post(convoke.events, PATH, body, &[]).await;
    assert_eq!(post(signed(r#"{"event":"meeting.verify","timestamp":1}"#)).await.status, 200);
    let refused = post(signed(&event("meeting.join", "1"))).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    assert_eq!(http::get(&format!("http://{}/readyz", convoke.events)).await.status, 503);
    assert!(http::metric(convoke.admin, "convoke_not_accepting_seconds").await > 0.0);
    proxy.heal();
    convoke.wait_ready(WAIT_TIMEOUT).await;
    assert_eq!(post(signed(&event("meeting.join", "1"))).await.status, 200);
    let complaints: Vec<_> = lines(&convoke.logs()).into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(complaints.len(), 1, "said once: {complaints:?}");
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_ends_the_service() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("c.db");
    let url = format!("sqlite://{}", file.display());
    let serve = || {
        let builder = settings().setting("DATABASE_URL", &url).arg("serve");
        builder.setting("LISTEN", "127.0.0.1:0").setting("ADMIN_LISTEN", "127.0.0.1:0").run()
    };
    let run_sql = |sql: &str| tools::output_of(std::process::Command::new("sqlite3").arg(&file).arg(sql));
    run_sql("CREATE TABLE events (somebody TEXT)");
    let foreign = serve().await;
    assert_eq!(foreign.code(), 1, "{}", foreign.stderr);
    assert!(foreign.stderr.contains("a table `events` that is not Convoke's"), "{}", foreign.stderr);

    std::fs::remove_file(&file).expect("a file");
    assert_eq!(settings().setting("DATABASE_URL", &url).arg("migrate").run().await.code(), 0);
    run_sql("INSERT INTO _sqlx_migrations VALUES (99990101000000, 'x', '2026-01-01', 1, x'00', 1)");
    let newer = serve().await;
    assert_eq!(newer.code(), 1, "{}", newer.stderr);
    assert!(newer.stderr.contains("newer"), "{}", newer.stderr);
}

#[tokio::test]
async fn without_leave_to_migrate_the_service_waits_until_somebody_did() {
    for database in [Database::Sqlite, Database::postgres().await] {
        let builder = match &database {
            Database::Sqlite => settings(),
            Database::Postgres(postgres) => settings().setting("DATABASE_URL", postgres.url()),
        };
        let convoke = builder.setting("MIGRATE", "false").start().await;
        eventually("it says what it waits for", WAIT_TIMEOUT, async || convoke.logs().contains("convoke migrate"))
            .await;
        let answer = http::post(convoke.events, PATH, signed(&event("meeting.join", "1")), &[]).await;
        assert_eq!(answer.status, 503);
        let migrated = convoke.run(&["migrate"]).await;
        assert_eq!(migrated.code(), 0, "{}", migrated.stderr);
        convoke.wait_ready(WAIT_TIMEOUT).await;
        let service = Service { convoke, database };
        service.acknowledged(&event("meeting.join", "1")).await;
        assert_eq!(service.count("events"), 1);
    }
}

#[tokio::test]
async fn it_is_ready_at_once_on_a_database_that_exists() {
    let mut service = Service::start().await;
    service.acknowledged(&event("meeting.join", "1")).await;
    service.convoke.kill().await;
    let begun = Instant::now();
    service.convoke.restart().await;
    service.convoke.wait_ready(WAIT_TIMEOUT).await;
    assert!(begun.elapsed() < stretched(Duration::from_secs(2)), "{:?}", begun.elapsed());
    assert_eq!(service.count("events"), 1);
}

#[tokio::test]
async fn the_log_is_one_line_a_failure_and_holds_nobodys_name() {
    let service = Service::start().await;
    let personal = ["Wáng Xiǎomíng", "login.of.wang", "+8657100000000001"];
    let info = |timestamp: &str| {
        format!(
            r#"{{"event":"meeting.join","timestamp":{timestamp},"payload":{{"attendeeInfo":{{"displayName":"{}","account":"{}","callNumber":"{}"}}}}}}"#,
            personal[0], personal[1], personal[2]
        )
    };
    let answers = [
        (signed(&info("1735700465789")), 200),
        (signed(&info("1735700465789")), 200),
        (signed(&info("null")), 200),
        (signed_by(APP_ID, "forged", &info("1")), 401),
        (signed(&info("1")).split_last().expect("a body").1.to_vec(), 400),
        (signed(&info("}")), 400),
    ];
    let before = service.convoke.logs().lines().count();
    for (body, status) in answers {
        assert_eq!(service.post(body).await.status, status);
    }
    eventually("each failure is logged", WAIT_TIMEOUT, async || service.convoke.logs().lines().count() >= before + 4)
        .await;
    let log = service.convoke.logs();
    let said: Vec<_> = lines(&log).split_off(before);
    assert_eq!(said.len(), 4, "one for each failure: {said:#?}");
    for line in &said {
        assert_eq!(line["level"], "WARN");
        assert!(
            line["reason"].is_string() && line["request_id"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
    for name in personal {
        assert!(!log.contains(name), "{name}");
    }
    // The other form, for people.
    let taken = Port::lease();
    let held = std::net::TcpListener::bind(taken.address()).expect("our port");
    let builder = settings().setting("LOG_FORMAT", "text").setting("LISTEN", taken.address().to_string()).arg("serve");
    let finished = builder.run().await;
    drop(held);
    assert_eq!(finished.code(), 1, "{}", finished.stderr);
    let first = finished.stderr.lines().next().unwrap_or_default();
    assert!(first.contains(" INFO ") && first.contains("convoke starts") && !first.contains('{'), "{first}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("convoke: listen.events: cannot listen on"), "{last}");
    assert!(!finished.stderr.contains('\u{1b}'), "no colours into a file");
}
