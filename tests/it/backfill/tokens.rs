//! Whoever signs in gives the token back: the platform keeps 64 for a user, and kills the oldest for one more.

use std::time::Duration;

use convoke_simulator::platform::{Call, Fault, Refusal};
use rustix::process::Signal;

use super::scene::{Scene, lost};
use crate::support::{
    process::RUN_WITHIN,
    rig::{LONG_TIMEOUT, metric_over},
    wait::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_gives_its_token_back_whatever_becomes_of_it() {
    let scene = Scene::with(lost(2, 1)).await;
    let refused = || Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS"));
    let since = scene.since();
    let backfill = ["backfill", "--since", &*since];
    let cases: [(&[&str], Option<Call>); 5] = [
        (&backfill, None),
        (&backfill, Some(Call::History)),
        (&["subscription", "show"], None),
        (&["subscription", "show"], Some(Call::ShowSubscription)),
        (&["check"], None),
    ];
    for (number, (arguments, fails)) in (1..).zip(cases) {
        if let Some(call) = fails {
            scene.platform.inject(call, refused(), 1);
        }
        let builder = arguments.iter().fold(scene.builder(), |builder, argument| builder.arg(argument));
        let finished = builder.run().await;
        assert_eq!(finished.code() == 0, fails.is_none(), "{arguments:?}: {finished:?}");
        assert_eq!(scene.platform.tokens(), 0, "{arguments:?}");
        assert_eq!((scene.platform.count(Call::Authenticate), scene.platform.count(Call::LogOut)), (number, number));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_takes_no_token_back_costs_seconds_and_changes_no_status() {
    let scene = Scene::with(lost(2, 1)).await;
    for fault in [Fault::Slow(Duration::from_secs(3_600)), Fault::Refuse(Refusal::BUSY), Fault::Html(200), Fault::Drop]
    {
        scene.platform.inject(Call::LogOut, fault, 1);
        let finished = scene.run(&["--since", &scene.since()]).await;
        assert_eq!((finished.code(), &*finished.stderr), (0, ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_stopped_gives_its_token_back_and_ends_as_by_the_signal() {
    let scene = Scene::with(lost(2, 1)).await;
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        scene.platform.inject(Call::Attendees, Fault::Slow(Duration::from_secs(3_600)), 1);
        let before = scene.platform.count(Call::Attendees);
        let mut child = scene.spawn(&["--since", &scene.since()]);
        eventually("it hangs", LONG_TIMEOUT, async || scene.platform.count(Call::Attendees) > before).await;
        assert_eq!(scene.platform.tokens(), 1);
        child.signal(signal);
        assert_eq!(child.wait_exit(RUN_WITHIN).await.code(), Some(status));
        assert_eq!(scene.platform.tokens(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_one_token_and_gives_it_back_when_it_stops() {
    let scene = Scene::with(lost(2, 1)).await;
    let settings = [("BACKFILL_EVERY", "1h"), ("PLATFORM_WATCH_EVERY", "1m")];
    let builder = settings.iter().fold(scene.builder(), |builder, (name, value)| builder.setting(name, value));
    let mut convoke = builder.start().await;
    metric_over(&convoke, "convoke_backfill_completed_timestamp_seconds", 1.0, LONG_TIMEOUT).await;
    let watched = async || scene.platform.count(Call::ShowSubscription) > 0;
    eventually("the subscription is watched", LONG_TIMEOUT, watched).await;
    assert_eq!((scene.platform.tokens(), scene.platform.count(Call::Authenticate)), (1, 1));
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(LONG_TIMEOUT).await.success());
    assert_eq!(scene.platform.tokens(), 0);
}
