//! What running meetings cost the enterprise push: the same load with and without twenty of them attended, alternately. A hundred people
//! are in each, and each meeting tells something every second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_core::event::Source;
use convoke_core::time::{Clock, Millis};
use convoke_core::verify::pulled;
use convoke_log::{self as log, Append};
use convoke_simulator::platform::{Platform, PlatformOptions, Run, State};

use crate::run::{Bench, Case, Measured, Setup};
use crate::servers::{API_APP, API_KEY, APP_ID};
use crate::statistics::median;

const MEETINGS: usize = 20;
const PEOPLE: usize = 100;
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for attending all meetings.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The goal: events per second with the meetings, to without.
const MIN_RATIO: f64 = 0.97;

/// Measures and prints it for both databases.
pub async fn run(bench: &mut Bench) {
    println!(
        "\n| {MEETINGS} running meetings attended, closed loop | connections | events/s without / with | ratio | must | CPU s per 1000 events \
         without / with | p99 ms without / with | MB at most without / with |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    );
    for case in [Case::SQLITE, Case::POSTGRES] {
        for connections in bench.options.connections.clone() {
            let mut rounds = Vec::new();
            for round in 1..=bench.options.rounds {
                eprintln!("  round {round}, running meetings with {}, {connections} connections", case.name());
                let without = measure(bench, case, connections, false).await;
                let with = measure(bench, case, connections, true).await;
                if without.stolen.max(with.stolen) <= bench.options.steal {
                    rounds.push((without, with));
                }
            }
            print(case, connections, &rounds);
        }
    }
}

fn print(case: Case, connections: usize, rounds: &[(Measured, Measured)]) {
    let of = |of: &dyn Fn(&(Measured, Measured)) -> f64| median(&mut rounds.iter().map(of).collect::<Vec<_>>());
    let both = |value: &dyn Fn(&Measured) -> f64| (of(&|round| value(&round.0)), of(&|round| value(&round.1)));
    let (rate, cpu) = (both(&|it| it.rate), both(&|it| it.cpu.whole() / 1e3));
    let (p99, peak) = (both(&|it| it.p99_ms), both(&|it| it.peak_mb));
    let ratio = of(&|round| round.1.rate / round.0.rate);
    println!(
        "| {} | {connections} | {:.0} / {:.0} | {ratio:.2} | ≥ {MIN_RATIO} {} | {:.3} / {:.3} | {:.1} / {:.1} | {:.0} / {:.0} |",
        case.name(),
        rate.0,
        rate.1,
        if ratio >= MIN_RATIO { "PASS" } else { "MISS" },
        cpu.0,
        cpu.1,
        p99.0,
        p99.1,
        peak.0,
        peak.1,
    );
}

fn number(meeting: usize) -> String {
    (960_000_100 + meeting).to_string()
}

/// One measurement. The meetings run and tell in both cases; only with `attended` does the service listen.
async fn measure(bench: &mut Bench, case: Case, connections: usize, attended: bool) -> Measured {
    let platform = platform().await;
    let key = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(key.path(), API_KEY).expect("a file");
    let mut setup = bench.start(case).await;
    setup.server.stop().await;
    begin(setup.server.database_url()).await;
    if attended {
        let numbers: Vec<String> = (0..MEETINGS).map(number).collect();
        for (name, value) in [
            ("PLATFORM_APP_ID", API_APP.to_owned()),
            ("PLATFORM_APP_KEY_FILE", key.path().display().to_string()),
            ("PLATFORM_URL", platform.url()),
            ("LIVE_ENABLED", "true".to_owned()),
            ("LIVE_MEETINGS", numbers.join(",")),
        ] {
            setup.server.set(name, value);
        }
    }
    setup.server.start().await;
    if attended {
        all_attended(&platform).await;
    }
    let measured = told(&platform, &mut setup, connections, bench.options.seconds).await;
    if attended {
        let attended = setup.server.metric("convoke_live_meetings").await;
        assert_eq!(attended.to_string(), MEETINGS.to_string(), "so many are attended");
    }
    setup.server.stop().await;
    platform.stop().await;
    measured
}

/// A platform on which the meetings run.
async fn platform() -> Platform {
    let options = PlatformOptions { limit: u32::MAX, ..PlatformOptions::new(API_APP, API_KEY.into()) };
    let platform = Platform::start(options).await.expect("a free port");
    let now = Clock::System.now();
    for meeting in 0..MEETINGS {
        platform.edit(|archive| {
            let mut run = Run::over(&uuid(meeting), &number(meeting), now, now);
            (run.state, run.ended) = (State::Running, None);
            archive.put(run);
        });
        platform.in_meeting(&number(meeting), |room| {
            for person in 0..PEOPLE {
                room.join(&format!("p{person}"), &[("NAME", &format!("Person {person}"))]);
            }
        });
    }
    platform
}

fn uuid(meeting: usize) -> String {
    format!("{meeting:032x}")
}

/// Tells the log that the meetings have started.
async fn begin(url: &str) {
    let log = log::open(&log::Options { url: url.to_owned(), ..log::Options::default() }).expect("a sound URL");
    let (subscriber, now) = (Arc::from(APP_ID), Clock::System.now());
    let batch: Vec<Append> = (0..MEETINGS).map(|meeting| started(&subscriber, meeting, now)).collect();
    log.append(&batch).await.expect("a database");
    log.close().await;
}

fn started(subscriber: &Arc<str>, meeting: usize, now: Millis) -> Append {
    let info = format!(
        r#"{{"event":"meeting.started","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"{}","meetingUUID":"{}"}}}}}}"#,
        now.get(),
        number(meeting),
        uuid(meeting)
    );
    let verified = Arc::new(pulled(subscriber, &info, Source::Platform, now));
    Append { verified, deliveries: 1, last_delivered_at: now }
}

async fn all_attended(platform: &Platform) {
    let begun = Instant::now();
    while (0..MEETINGS).any(|meeting| platform.in_meeting(&number(meeting), |room| room.listeners()) == 0) {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "not all meetings are attended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Measures, while each meeting tells that somebody was muted or may speak again.
async fn told(platform: &Platform, setup: &mut Setup, connections: usize, seconds: f64) -> Measured {
    let telling = async {
        let mut every = tokio::time::interval(TELL_INTERVAL);
        for turn in 0_usize.. {
            every.tick().await;
            let (person, muted) =
                (format!("p{}", turn % PEOPLE), if (turn / PEOPLE).is_multiple_of(2) { "1" } else { "0" });
            for meeting in 0..MEETINGS {
                platform.in_meeting(&number(meeting), |room| room.change(&person, &[("MUTE", muted)]));
            }
        }
    };
    tokio::select! {
        measured = setup.measure(connections, None, seconds) => measured,
        () = telling => unreachable!("they tell for ever"),
    }
}
