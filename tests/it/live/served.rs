//! A whole service beside a platform: what its page shows of a running meeting, and that the platform's own push does not notice whatever goes
//! wrong in the meeting's.

use std::time::{Duration, Instant};

use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Refusal, Run, State};
use serde_json::json;

use super::{NUMBER, UUID, now};
use crate::simulated_platform;
use crate::support::browser::{Browser, NARROW, Scheme, WIDE};
use crate::support::service::{APP_ID, Database, Service, WAIT_TIMEOUT, event, settings};
use crate::support::wait::{eventually, stretched};

const TOKEN: &str = "a-token-for-the-tests-of-live-meetings";

async fn beside(platform: &Platform) -> (Service, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("platform.key");
    std::fs::write(&key, simulated_platform::APP_KEY).expect("a temporary file");
    platform.edit(|archive| {
        let mut run = Run::over(UUID, NUMBER, now(), now());
        (run.state, run.ended) = (State::Running, None);
        archive.put(run);
    });
    let settings = settings()
        .setting("PLATFORM_URL", platform.url())
        .setting("PLATFORM_APP_ID", simulated_platform::APP_ID)
        .setting("PLATFORM_APP_KEY_FILE", key)
        .setting("LIVE_ENABLED", "true")
        .setting("LIVE_MEETINGS", "all")
        .setting("LIVE_MESSAGES", "status,participants,waiting_room,speakers")
        .setting("ADMIN_TOKEN", TOKEN);
    let service = Service::with(settings, Database::Sqlite).await;
    service.acknowledged(&super::pushed("meeting.started", now(), &serde_json::Value::Null)).await;
    (service, folder)
}

async fn listened(platform: &Platform) {
    eventually("somebody listens", WAIT_TIMEOUT * 2, async || {
        platform.in_meeting(NUMBER, |room| room.listeners()) == 1
    })
    .await;
}

#[tokio::test]
async fn the_page_shows_who_is_how_in_a_running_meeting_within_a_second_in_both_languages() {
    let platform = Platform::start(simulated_platform::options()).await.expect("it starts");
    let (service, _folder) = beside(&platform).await;
    listened(&platform).await;
    platform.in_meeting(NUMBER, |room| {
        room.join("a", &[("NAME", "王小明"), ("ROLE", "1")]);
        room.join("b", &[("NAME", "Sofia Lindqvist")]);
        room.wait("c", &[("NAME", "Omar Haddad")]);
    });
    for (language, words, all) in [
        ("en-GB", ["hand raised", "sharing", "speaking", "in the waiting room"], "muted"),
        ("zh-CN", ["举手", "正在共享", "正在发言", "等候室中"], "已静音"),
    ] {
        let browser = Browser::speaking(language).await;
        browser.goto(&format!("http://{}/", service.convoke.admin)).await;
        browser.types("input[name='token']", TOKEN).await;
        browser.click("button[type='submit']").await;
        // Whoever goes on before the answer is not signed in.
        browser.sees("#feed", NUMBER).await;
        browser.goto(&format!("http://{}/#/meeting/{APP_ID}/{UUID}", service.convoke.admin)).await;
        browser.sees("#meeting-now", "Omar Haddad").await;
        platform.in_meeting(NUMBER, |room| {
            room.change("a", &[("HAND", "1"), ("SHARE", "1")]);
            room.change("b", &[("MUTE", "0")]);
            room.speak(&["b"]);
        });
        for word in words {
            browser.sees("#meeting-now", word).await;
        }
        let told = Instant::now();
        platform.in_meeting(NUMBER, |room| room.change("b", &[("MUTE", "1")]));
        browser.sees("#meeting-now", all).await;
        assert!(told.elapsed() < stretched(Duration::from_secs(1)), "{:?}", told.elapsed());
        println!("{language}: shown after {:?}", told.elapsed());
        for (name, size) in [("wide", WIDE), ("narrow", NARROW)] {
            browser.look(size, Scheme::Light).await;
            browser.screenshot(&format!("live-{language}-{name}")).await;
        }
        assert_eq!(browser.complaints().await.into_iter().filter(|line| !line.contains("401")).count(), 0);
        browser.quit().await;
        platform.in_meeting(NUMBER, |room| {
            room.change("a", &[("HAND", "0"), ("SHARE", "0")]);
            room.speak(&[]);
        });
    }
}

#[tokio::test]
async fn whatever_goes_wrong_in_a_meeting_the_platforms_push_is_answered_and_stored() {
    let options = PlatformOptions { minute: Duration::from_secs(1), ..simulated_platform::options() };
    let platform = Platform::start(options).await.expect("it starts");
    let (service, _folder) = beside(&platform).await;
    let long = json!({ "action": "New", "x": "x".repeat(1 << 20) }).to_string();
    let faults: [(&str, &dyn Fn()); 6] = [
        ("cut", &|| platform.in_meeting(NUMBER, |room| room.cut())),
        ("frozen", &|| platform.in_meeting(NUMBER, |room| room.frozen = true)),
        ("throttled and refused", &|| {
            platform.inject(Call::ControlToken, Fault::TooMany, 1);
            platform.inject(Call::SocketToken, Fault::Refuse(Refusal::BUSY), 1);
            platform.in_meeting(NUMBER, |room| {
                room.frozen = false;
                room.cut();
            });
        }),
        ("no JSON", &|| platform.in_meeting(NUMBER, |room| (0..100).for_each(|_| room.raw("{\"action\":")))),
        ("1 MiB", &|| platform.in_meeting(NUMBER, |room| room.raw(&long))),
        ("a clock off by an hour", &|| platform.set_ahead(3_600_000)),
    ];
    for (number, (name, fault)) in faults.iter().enumerate() {
        listened(&platform).await;
        fault();
        for pushed in 0..5 {
            let begun = Instant::now();
            service.acknowledged(&event("meeting.started", &format!("98{number}{pushed}"))).await;
            assert!(begun.elapsed() < stretched(Duration::from_secs(3)), "{name}: {:?}", begun.elapsed());
        }
    }
    assert_eq!(service.sql("SELECT count(*) FROM events WHERE source = 'push' AND meeting_id LIKE '98__'"), "30");
    listened(&platform).await;
}
