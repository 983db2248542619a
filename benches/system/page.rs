//! The web page, open while events arrive: its resources in the browser over time, what the first paint requests from
//! the service, and how much open pages reduce ingest.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::comparison::{Must, Table};
use crate::run::{Bench, Case, Measured, Setup};
use crate::support::browser::Browser;
use crate::support::http::RawConnection;

/// The page open in a browser while events come in, and ingest with many of them open
#[derive(Clone, Debug, clap::Args)]
pub struct Page {
    /// Events per second while the browser looks
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// How long the browser looks, in seconds
    #[arg(long, default_value_t = 60.0)]
    length: f64,
    /// Pages open at once, for what they take from ingest
    #[arg(long, default_value_t = 50)]
    pages: usize,
}

/// How often everything needed for the first paint is fetched.
const FETCHES: usize = 20;

/// Minimum frames per second of a page that counts as live.
const LIVE: f64 = 10.0;

impl Page {
    pub async fn run(&self, bench: &mut Bench) {
        let looked = self.look(bench).await;
        println!("{}", looked.text());
        let shared = self.share(bench).await;
        println!("{}", shared.text());
    }

    /// One browser, from the start of the load to its end.
    async fn look(&self, bench: &mut Bench) -> Table {
        let mut setup = bench.start(Case::SQLITE).await;
        let title = format!("one page at {:.0} events/s for {:.0} s", self.rate, self.length);
        let mut table = Table::new(title, "at the start", "at the end");
        let (bytes, milliseconds) = first_paint(&setup).await;
        table.note(format!(
            "all {} files of the page, {bytes} bytes, one after the other on one connection, median of {FETCHES}: {milliseconds:.1} ms",
            files(&setup).await.len()
        ));
        // Makes sure that every list and chart is there from the start.
        setup.load(64, Some(self.rate), Duration::from_secs(3), Duration::from_secs(3_600)).await;
        let browser = Browser::start().await;
        browser.goto(&format!("http://{}/", setup.server.admin())).await;
        browser.sees("#verdict[data-level='ok']", "All is well").await;
        browser.cdp("Performance.enable", json!({})).await;
        let length = Duration::from_secs_f64(self.length);
        let (report, (first, last)) = tokio::join!(setup.load(64, Some(self.rate), length, Duration::ZERO), async {
            let started = Instant::now();
            // Long enough to fill the lists and charts.
            tokio::time::sleep((length / 3).min(Duration::from_secs(10))).await;
            let first = needed(&browser).await;
            tokio::time::sleep((length.saturating_sub(started.elapsed())).saturating_sub(Duration::from_secs(4))).await;
            (first, needed(&browser).await)
        });
        for (index, (what, must)) in NEEDED.into_iter().enumerate() {
            table.pair(what, must, first[index], last[index]);
        }
        table.note(format!(
            "{} events acknowledged; at the end the page says: {}",
            report.acknowledged,
            browser.text("#tile-rate").await.replace('\n', ", ")
        ));
        let complaints = browser.complaints().await;
        assert!(complaints.is_empty(), "the browser complained: {complaints:?}");
        browser.quit().await;
        setup.server.stop().await;
        table
    }

    /// The closed loop, alternately without and with open pages.
    async fn share(&self, bench: &mut Bench) -> Table {
        let mut table =
            Table::new("ingest, 256 connections, SQLite".to_owned(), "no page open", &format!("{} open", self.pages));
        let seconds = bench.options.seconds;
        for round in 0..bench.options.rounds {
            let mut setup = bench.start(Case::SQLITE).await;
            // Alternating, because the log grows during both.
            let (alone, watched) = if round % 2 == 0 {
                let alone = setup.measure(256, None, seconds).await;
                (alone, self.watched(&mut setup, seconds).await)
            } else {
                let watched = self.watched(&mut setup, seconds).await;
                (setup.measure(256, None, seconds).await, watched)
            };
            table.pair("events/s", Must::AtLeast(0.95), alone.rate, watched.rate);
            table.pair("p99, ms", Must::Nothing, alone.p99_ms, watched.p99_ms);
            setup.server.stop().await;
        }
        table
    }

    /// The closed loop while the streams of the pages are read.
    async fn watched(&self, setup: &mut Setup, seconds: f64) -> Measured {
        let mut pages = JoinSet::new();
        for _ in 0..self.pages {
            let mut connection = RawConnection::open(setup.server.admin()).await;
            connection.send(b"GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
            pages.spawn(async move {
                loop {
                    connection.read_some().await;
                }
            });
        }
        let measured = setup.measure(256, None, seconds).await;
        pages.shutdown().await;
        measured
    }
}

/// What is compared, and the required ratio.
const NEEDED: [(&str, Must); 4] = [
    ("memory of its scripts, MB", Must::AtMost(1.25)),
    ("nodes", Must::AtMost(1.1)),
    ("listeners", Must::AtMost(1.1)),
    ("frames a second", Must::AtLeast(0.5)),
];

/// Memory after a garbage collection, nodes, listeners, and frames per second.
async fn needed(browser: &Browser) -> [f64; 4] {
    browser.cdp("HeapProfiler.collectGarbage", json!({})).await;
    let metrics = browser.cdp("Performance.getMetrics", json!({})).await;
    let metric = |name: &str| {
        let mut metrics = metrics["metrics"].as_array().into_iter().flatten();
        metrics.find(|metric| metric["name"] == name).and_then(|metric| metric["value"].as_f64()).expect("a metric")
    };
    let frames = browser
        .promised(
            "new Promise((done) => {
               const begun = performance.now();
               let frames = 0;
               requestAnimationFrame(function next() {
                 frames += 1;
                 const time = performance.now() - begun;
                 if (time > 2000) done(frames / time * 1000);
                 else requestAnimationFrame(next);
               });
             })",
        )
        .await
        .as_f64()
        .expect("a number");
    assert!(frames > LIVE, "the page is not live: {frames} frames a second");
    [metric("JSHeapUsedSize") / 1e6, metric("Nodes"), metric("JSEventListeners"), frames]
}

/// The paths in the HTML shell.
async fn files(setup: &Setup) -> Vec<String> {
    let mut connection = RawConnection::open(setup.server.admin()).await;
    let shell = fetch(&mut connection, "/").await;
    let named = shell.split("=\"assets/").skip(1).filter_map(|rest| rest.split('"').next());
    named.map(|path| format!("/assets/{path}")).chain(["/".to_owned(), "/assets/js/lang/en.js".to_owned()]).collect()
}

async fn fetch(connection: &mut RawConnection, path: &str) -> String {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\n\r\n").as_bytes()).await;
    let answer = connection.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    answer
}

/// Bytes and median time of everything that an empty cache needs.
async fn first_paint(setup: &Setup) -> (usize, f64) {
    let files = files(setup).await;
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..FETCHES {
        let started = Instant::now();
        let mut connection = RawConnection::open(setup.server.admin()).await;
        bytes = 0;
        for path in &files {
            bytes += fetch(&mut connection, path).await.len();
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    (bytes, crate::statistics::median(&mut times))
}
