//! The watchdog, look by look.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use axum::{Router, routing::post};
use convoke::metrics::Registry;
use convoke::projection::CURSOR;
use convoke::subscription::{Expected, memory::Memory, watch};
use convoke_core::time::Clock;
use convoke_log::{self as log, Store};
use convoke_platform::{self as platform, Client, NewSubscription, Status};
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions};
use serde_json::{Value, json};

use super::refused;
use crate::{
    simulated_platform::{APP_ID as PLATFORM_APP_ID, APP_KEY as PLATFORM_APP_KEY, options, started},
    support::service::{APP_ID, KEY},
    support::{http::metric_in, port::Port},
};

const TTL: Duration = Duration::from_secs(3600);
const WATCH_INTERVAL: Duration = Duration::from_secs(300);

struct Bench {
    platform: Platform,
    client: Client,
    log: Arc<dyn Store>,
    registry: Registry,
    time: Arc<AtomicI64>,
    expected: tokio::sync::watch::Sender<Expected>,
    watch: watch::SubscriptionWatch,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// A watchdog that expects pushes to this URL.
    async fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = format!("sqlite://{}", folder.path().join("log.db").display());
        let log = log::open(&log::Options { url: database, ..log::Options::default() }).expect("a URL of a database");
        log.migrate(true).await.expect("it can be migrated");
        let platform = started(PlatformOptions { lock_after: 1, ..options() }).await;
        let options = platform::Options::new(platform.url(), PLATFORM_APP_ID, PLATFORM_APP_KEY.into());
        let client = Client::new(options, Clock::System).expect("a client");
        let (status, shown) = tokio::sync::watch::channel(None);
        let registry = Registry::default();
        watch::register(&shown, &registry);
        let time = Arc::new(AtomicI64::new(0));
        let should = Expected { url: Some(url.to_owned()), subscribers: [APP_ID.into()].into() };
        let expected = tokio::sync::watch::Sender::new(should);
        let watch = watch::SubscriptionWatch::new(
            client.clone(),
            log.clone(),
            status,
            expected.subscribe(),
            "us".to_owned(),
            WATCH_INTERVAL,
            Clock::Set(Arc::clone(&time)),
        );
        Self { platform, client, log, registry, time, expected, watch, _folder: folder }
    }

    /// Looks when it is time again; what is shown then.
    async fn look(&mut self) -> Vec<String> {
        self.time.fetch_add(300_000, Ordering::Relaxed);
        self.look_now().await
    }

    /// Looks; what is shown then.
    async fn look_now(&mut self) -> Vec<String> {
        self.watch.look().await.expect("the database can be read");
        let page = self.registry.render();
        let known = ["enabled", "unknown", "elsewhere", "disabled", "locked", "missing"];
        let value = |status: &str| metric_in(&page, &format!(r#"convoke_subscription_status{{status="{status}"}}"#));
        assert!(known.iter().all(|status| value(status).is_some()), "{page}");
        known.into_iter().filter(|status| value(status) == Some(1.0)).map(str::to_owned).collect()
    }

    async fn set(&self, url: &str) {
        let new = NewSubscription { subscriber_id: APP_ID.to_owned(), subscriber_key: KEY.into(), url: url.to_owned() };
        self.client.set_subscription(&new).await.expect("it is set");
    }

    async fn enable(&self) -> bool {
        let is = self.client.subscription().await.expect("an answer").expect("a subscription");
        self.client.change_status(&is.id, Status::Enabled).await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_shows_every_standing_while_the_lease_is_its_own() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let echo = async |axum::Json(body): axum::Json<Value>| {
        axum::Json(json!({"event": "meeting.verify", "nonce": body["nonce"]}))
    };
    let router = Router::new().fallback(post(echo));
    // It ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut bench = Bench::new(&url).await;
    assert_eq!(bench.look().await, [""; 0]);
    bench.log.lease(CURSOR, "another", TTL).await.expect("a lease");
    assert_eq!(bench.look().await, [""; 0]);
    assert_eq!(bench.platform.calls().values().sum::<u64>(), 0, "others watch");
    bench.log.release(CURSOR, "another").await.expect("it is given up");
    bench.log.lease(CURSOR, "us", TTL).await.expect("a lease").expect("it is free");

    assert_eq!(bench.look().await, ["missing"]);
    bench.set(&url).await;
    assert_eq!(bench.look().await, ["disabled"]);
    assert!(bench.enable().await);
    assert_eq!(bench.look().await, ["enabled"]);
    // Not asked before it is time.
    let asked = bench.platform.count(Call::ShowSubscription);
    for _ in 0..3 {
        bench.time.fetch_add(60_000, Ordering::Relaxed);
        bench.watch.look().await.expect("the database can be read");
    }
    assert_eq!(bench.platform.count(Call::ShowSubscription), asked);
    // But at once when other subscribers are configured.
    let should = bench.expected.borrow().clone();
    bench.expected.send_replace(Expected { subscribers: ["another".into()].into(), ..should.clone() });
    assert_eq!(bench.look_now().await, ["elsewhere"]);
    bench.expected.send_replace(should);
    assert_eq!(bench.look_now().await, ["enabled"]);

    bench.platform.inject(Call::ShowSubscription, refused(403, "MMC.111070002"), 1);
    assert_eq!(bench.look().await, ["unknown"]);
    bench.platform.inject(
        Call::ShowSubscription,
        Fault::Body(json!({"id": "1", "subscriberId": APP_ID, "url": url, "status": 9}).to_string()),
        1,
    );
    assert_eq!(bench.look().await, ["unknown"]);
    assert_eq!(bench.look().await, ["enabled"]);

    bench.set(&format!("{url}/another")).await;
    assert!(bench.enable().await);
    assert_eq!(bench.look().await, ["elsewhere"]);
    bench.set(&format!("http://{}/", Port::lease().address())).await;
    assert!(!bench.enable().await);
    let now = bench.log.now().await.expect("a time");
    assert_eq!(Memory::load(&*bench.log).await.expect("a note").locked_until(now), None);
    assert_eq!(bench.look().await, ["locked"]);
    let now = bench.log.now().await.expect("a time");
    assert!(
        Memory::load(&*bench.log).await.expect("a note").locked_until(now).is_some(),
        "the next enable knows of it"
    );

    bench.log.release(CURSOR, "us").await.expect("it is given up");
    bench.log.lease(CURSOR, "another", TTL).await.expect("a lease").expect("it is free");
    assert_eq!(bench.look().await, [""; 0], "what another replica watches is not known here");
    bench.platform.stop().await;
}
