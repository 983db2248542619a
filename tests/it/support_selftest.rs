//! The support is tested itself: a test on a server that was never really killed would prove nothing.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{
    disk::SmallDisk,
    http::{self, RawConnection},
    nats::{NatsOptions, NatsServer, NatsVersion},
    port::Port,
    postgres::{Postgres, PostgresOptions, psql},
    process::{Convoke, ConvokeBuilder, run_convoke},
    proxy::Proxy,
    tools,
    wait::eventually,
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

async fn a_stream_survives_a_killed_server(version: NatsVersion) {
    let mut server = NatsServer::start(version, NatsOptions::default()).await;
    let config =
        || stream::Config { name: "KEPT".to_owned(), subjects: vec!["kept.>".to_owned()], ..stream::Config::default() };
    let jetstream = server.jetstream().await;
    jetstream.create_stream(config()).await.expect("a new stream");
    jetstream.publish("kept.one", "1".into()).await.expect("sent").await.expect("acknowledged");

    let before = server.id();
    server.kill().await;
    assert_eq!(server.id(), 0, "nothing runs");
    assert!(TcpStream::connect(server.address()).await.is_err(), "a killed server still answers");
    server.restart().await;
    assert!(server.id() != 0 && server.id() != before, "another process");
    let mut kept = server.jetstream().await.get_stream("KEPT").await.expect("the stream is still there");
    assert_eq!(kept.info().await.expect("its state").state.messages, 1);

    server.stop().await;
    server.lose_store();
    server.restart().await;
    server.jetstream().await.get_stream("KEPT").await.expect_err("the stream is lost with its store");
    assert!(server.log().contains("Server is ready"));
}

#[tokio::test]
async fn a_stream_survives_a_killed_server_of_the_oldest_version() {
    a_stream_survives_a_killed_server(NatsVersion::Oldest).await;
}

#[tokio::test]
async fn a_stream_survives_a_killed_server_of_the_newest_version() {
    a_stream_survives_a_killed_server(NatsVersion::Newest).await;
}

#[tokio::test]
async fn a_bus_has_the_limits_and_credentials_that_it_was_given() {
    let user = Some(("convoke".to_owned(), "secret".to_owned()));
    let options = NatsOptions {
        max_payload: Some(1024),
        max_file_store: Some(1 << 20),
        user,
        config: "server_name: limited\n".to_owned(),
        ..NatsOptions::default()
    };
    let mut server = NatsServer::start(NatsVersion::Newest, options).await;
    async_nats::connect(server.url()).await.expect_err("no user, no connection");
    let info = server.client().await.server_info();
    assert_eq!((info.max_payload, info.server_name.as_str()), (1024, "limited"));
    let account = server.jetstream().await.query_account().await.expect("JetStream's account");
    assert_eq!(account.storage, 0);

    server.options = NatsOptions { token: Some("secret".to_owned()), ..NatsOptions::default() };
    server.restart().await;
    async_nats::connect(server.url()).await.expect_err("no token, no connection");
    assert_eq!(server.client().await.server_info().max_payload, 1 << 20);
}

#[tokio::test]
async fn a_committed_row_survives_every_way_of_ending_postgresql() {
    let mut postgres = Postgres::start().await;
    assert_eq!([postgres.psql("SHOW fsync"), postgres.psql("SHOW synchronous_commit")].concat(), "onon");
    let url = postgres.database("kept");
    psql(&url, "CREATE TABLE kept (id int)");
    for times in 1..=3 {
        psql(&url, "INSERT INTO kept VALUES (1)");
        match times {
            1 => postgres.kill().await,
            2 => postgres.stop_immediate().await,
            _ => postgres.stop_fast().await,
        }
        assert_eq!(postgres.id(), 0, "nothing runs");
        assert!(TcpStream::connect(postgres.address()).await.is_err(), "an ended server still answers");
        postgres.restart().await;
        assert_eq!(psql(&url, "SELECT count(*) FROM kept"), times.to_string());
    }
    assert!(postgres.log().contains("was not properly shut down"), "none of them was a crash");
    // What is left of a killed cluster that nobody starts again is removed when it is dropped.
    postgres.kill().await;
}

#[tokio::test]
async fn two_clusters_of_one_test_share_nothing() {
    let settings = vec![("max_connections".to_owned(), "7".to_owned())];
    let (one, two) = tokio::join!(
        Postgres::start(),
        Postgres::start_with(PostgresOptions { settings, ..PostgresOptions::default() })
    );
    one.database("only_in_one");
    assert_eq!(two.psql("SELECT count(*) FROM pg_database WHERE datname = 'only_in_one'"), "0");
    assert_eq!(two.psql("SHOW max_connections"), "7");
}

#[tokio::test]
async fn a_proxy_cuts_stalls_and_heals() {
    let upstream = echo().await;
    let proxy = Proxy::start(upstream);
    let mut connection = TcpStream::connect(proxy.address()).await.expect("the network is up");
    assert_eq!(echoed(&mut connection, "up").await.expect("an echo"), "up");

    proxy.stall();
    connection.write_all(b"late").await.expect("a stalled network takes bytes");
    let mut second = TcpStream::connect(proxy.address()).await.expect("a stalled network takes connections");
    second.write_all(b"second").await.expect("a stalled network takes bytes");
    let mut buffer = [0; 4];
    let early = timeout(Duration::from_millis(100), connection.read_exact(&mut buffer)).await;
    early.expect_err("a stalled network passes nothing on");
    proxy.heal();
    connection.read_exact(&mut buffer).await.expect("what was held back comes");
    assert_eq!(&buffer, b"late");

    proxy.cut();
    let reset = connection.read(&mut buffer).await.expect_err("a cut connection is reset");
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(proxy.address()).await.expect_err("a cut network refuses");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    proxy.heal();
    let mut third = TcpStream::connect(proxy.address()).await.expect("the network is up again");
    assert_eq!(echoed(&mut third, "again").await.expect("an echo"), "again");
    third.shutdown().await.expect("an open connection");
    assert_eq!(third.read(&mut buffer).await.expect("a polite end, not a reset"), 0);
}

#[tokio::test]
async fn a_proxy_passes_over_a_server_that_is_gone_and_can_be_slow() {
    let gone = Port::lease();
    let proxy = Proxy::balance(vec![gone.address(), echo().await]);
    for _ in 0..3 {
        let mut connection = TcpStream::connect(proxy.address()).await.expect("the network is up");
        assert_eq!(echoed(&mut connection, "up").await.expect("an echo"), "up");
    }
    let late = Duration::from_millis(50);
    proxy.slow(late);
    let started = Instant::now();
    let mut connection = TcpStream::connect(proxy.address()).await.expect("a slow network takes connections");
    assert_eq!(echoed(&mut connection, "slow").await.expect("an echo"), "slow");
    assert!(started.elapsed() >= 2 * late, "late in both directions");
}

#[tokio::test]
async fn a_frozen_cluster_answers_when_it_is_thawed_and_not_before() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    postgres.freeze().await;
    let mut asked = tokio::task::spawn_blocking(move || psql(&url, "SELECT 1"));
    timeout(Duration::from_millis(200), &mut asked).await.expect_err("a frozen server answers");
    postgres.thaw();
    assert_eq!(timeout(WAIT_TIMEOUT, asked).await.expect("an answer in time").expect("no panic"), "1");
}

#[tokio::test]
async fn a_small_disk_is_soon_full() {
    let Some(disk) = SmallDisk::mount(64 * 1024) else { return };
    let file = disk.path().join("file");
    let full = std::fs::write(&file, vec![1; 128 * 1024]).expect_err("twice what fits");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let mounted = disk.path().to_owned();
    drop(disk);
    assert!(!mounted.exists(), "unmounted and removed");
}

#[tokio::test]
async fn postgresql_can_live_on_a_small_disk() {
    let Some(disk) = SmallDisk::mount(96 << 20) else { return };
    let options = PostgresOptions { within: Some(disk.path().to_owned()), ..PostgresOptions::default() };
    let postgres = Postgres::start_with(options).await;
    assert!(postgres.psql("SHOW data_directory").starts_with(disk.path().to_str().expect("a plain path")));
}

#[tokio::test]
#[should_panic(expected = "in vain until a pig flies; last seen: it walks")]
async fn waiting_in_vain_names_what_it_waited_for() {
    eventually("a pig flies", Duration::from_millis(20), async || Err::<(), _>("it walks")).await;
}

#[tokio::test]
#[should_panic(expected = "the probe did not answer")]
async fn waiting_for_a_probe_that_hangs_ends_too() {
    eventually("it ends", Duration::from_millis(20), std::future::pending::<Option<()>>).await;
}

#[tokio::test]
async fn the_service_is_started_killed_and_started_again_on_its_ports() {
    let (_folder, builder) = stand_in();
    let mut convoke = builder.arg("serve").setting("DATABASE_URL", "sqlite://here.db").start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    assert_eq!(http::metric(convoke.admin, r#"deliveries_total{outcome="stored"}"#).await, 5.0);
    let before = (convoke.events, convoke.admin);

    convoke.kill().await;
    assert!(http::try_get(&format!("http://{}/readyz", convoke.events)).await.is_err(), "killed, but it answers");
    convoke.restart().await;
    assert_eq!((convoke.events, convoke.admin), before);
    convoke.wait_ready(WAIT_TIMEOUT).await;
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(WAIT_TIMEOUT).await.success());

    assert_eq!(convoke.logs().matches(r#""listener":"admin""#).count(), 2);
    assert_eq!(convoke.stdout(), "started\nstarted\n");
    let beside = convoke.run(&["print"]).await;
    assert_eq!((beside.code(), beside.stdout.trim()), (0, "sqlite://here.db"));
    assert_eq!(beside.stderr, "");
    assert!(convoke.folder().join("convoke.db").exists(), "it ran in another folder");
}

#[tokio::test]
async fn the_service_is_answered_and_spoken_to_byte_by_byte() {
    let (_folder, builder) = stand_in();
    let convoke = builder.start().await;
    let answer = http::post(convoke.events, "/echo", "body", &[("X-Request-ID", "r-1")]).await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-request-id")), (200, "body", Some("r-1")));
    assert_eq!(http::get(&format!("http://{}/json", convoke.events)).await.json()["ok"], true);

    let mut slow = RawConnection::open(convoke.events).await;
    for piece in ["POST /echo HTTP/1.1\r\nHost: h\r\n", "Content-Length: 4\r\n\r\n", "sl", "ow"] {
        slow.send(piece.as_bytes()).await;
    }
    assert!(slow.answer().await.ends_with("\r\n\r\nslow"));
    slow.try_send(b"POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nhal").await.expect("an open connection");
    slow.finish_sending().await;
    assert!(String::from_utf8_lossy(&slow.read_to_end().await).contains("hal"));

    let cut = RawConnection::open(convoke.events).await;
    cut.reset();
    let whole = http::raw(convoke.events, b"GET /json HTTP/1.0\r\n\r\n").await;
    assert!(whole.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn the_programs_of_the_test_set_are_there() {
    for (program, argument) in [
        (tools::promtool(), "--version"),
        (tools::python(), "--version"),
        (tools::table_readers(), "--version"),
        (tools::nats_server(NatsVersion::Oldest), "--version"),
    ] {
        assert_ne!(tools::output_of(Command::new(program).arg(argument)), "");
    }
    let interop = "import nats, cloudevents; print('both')";
    assert_eq!(tools::output_of(Command::new(tools::python()).args(["-c", interop])), "both\n");
    assert!(run_convoke(&["--help"], &[("LC_ALL", "C")]).await.status.success());
}

#[test]
fn a_metric_is_the_sum_of_the_series_with_its_labels() {
    let text = "# TYPE n counter\nn{a=\"1\",b=\"x\"} 2\nn{a=\"2\",b=\"x\"} 3\nn{a=\"2\",b=\"y\"} 4\nnn 9\n";
    for (series, sum) in [("n", Some(9.0)), ("n{b=\"x\"}", Some(5.0)), ("n{b=\"y\",a=\"1\"}", None), ("nn", Some(9.0))]
    {
        assert_eq!(http::metric_in(text, series), sum, "{series}");
    }
}

/// A server that sends back what it gets.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn echoed(connection: &mut TcpStream, text: &str) -> io::Result<String> {
    connection.write_all(text.as_bytes()).await?;
    let mut bytes = vec![0; text.len()];
    connection.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program with the manners of `convoke serve`, so that these tests do not depend on Convoke.
fn stand_in() -> (tempfile::TempDir, ConvokeBuilder) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program: PathBuf = folder.path().join("stand-in");
    std::fs::write(&program, include_str!("support/stand_in.py")).expect("the temporary folder can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    (folder, Convoke::builder().program(program))
}
