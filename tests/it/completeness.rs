//! The platform's own counts beside ours, against the simulated platform, on both databases: days that differ are told, and an hour in
//! which nothing arrives.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use convoke::{
    backfill::ComparisonError,
    completeness::{
        Completeness, CountsSource, DayState,
        task::{CompletenessMetrics, CompletenessParts, CompletenessTask, LastFound},
    },
    metrics::Registry,
    projection,
};
use convoke_core::{time::Clock, zone::TimeZone};
use convoke_platform::{Client, Options};
use convoke_simulator::platform::{Call, PlatformOptions, Run, State};
use tokio::sync::watch;

use crate::{
    log_contract::fixture::{Backend, on_both},
    running::Rig,
    simulated_platform,
    support::sign::{APP_ID, NOW, millis},
};

on_both! {
    a_day_of_which_the_platform_counts_more_differs_and_says_what_backfill_would_find
    an_hour_in_which_the_platform_counts_meetings_and_nothing_arrives_is_told
    a_service_provider_sees_its_enterprises_each_by_a_token_of_its_own
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

impl Rig {
    pub fn client(&self, user: Option<&str>) -> Client {
        let options = Options {
            user_id: user.map(str::to_owned),
            ..Options::new(self.platform.url(), simulated_platform::APP_ID, simulated_platform::APP_KEY.into())
        };
        Client::new(options, Clock::Set(Arc::clone(&self.clock))).expect("a client")
    }

    fn completeness(&self, user: Option<&str>) -> Completeness {
        Completeness {
            log: self.log.clone(),
            client: self.client(user),
            clock: Clock::Set(Arc::clone(&self.clock)),
            subscribers: Arc::from([Arc::from(APP_ID)]),
            zone: TimeZone::ahead(8 * 60),
        }
    }
}

/// What is pushed of a run.
fn pushes(run: &Run) -> Vec<String> {
    let meeting = format!(r#""meetingInfo":{{"meetingID":"{}","meetingUUID":"{}"}}"#, run.conference_id, run.conf_uuid);
    let begin = run.started.expect("it was held").get();
    let mut all = vec![format!(r#"{{"event":"meeting.started","timestamp":{begin},"payload":{{{meeting}}}}}"#)];
    all.extend(run.stays.iter().map(|stay| {
        let (participant, joined) = (&stay.participant_id, stay.joined.get());
        format!(
            r#"{{"event":"meeting.join","timestamp":{joined},"payload":{{{meeting},"attendeeInfo":{{"participantID":"{participant}","joinTime":{joined}}}}}}}"#
        )
    }));
    let end = run.ended.expect("it is over").get();
    all.push(format!(r#"{{"event":"meeting.end","timestamp":{end},"payload":{{{meeting}}}}}"#));
    all
}

async fn a_day_of_which_the_platform_counts_more_differs_and_says_what_backfill_would_find(backend: Backend) {
    let mut rig = Rig::new(backend, |options| options.administrators = vec!["bob@example-corp".to_owned()]).await;
    // Every second hour for three days, at the end of which is now.
    let runs: Vec<Run> = Run::made_up(millis(NOW - 4 * DAY), Duration::from_secs(7_200), 48, 3).collect();
    rig.platform.edit(|archive| runs.iter().cloned().for_each(|run| archive.put(run)));
    let lost = 15..20;
    let pushed = runs.iter().enumerate().filter(|(number, _)| !lost.contains(number));
    let pushed: Vec<String> = pushed.flat_map(|(_, run)| pushes(run)).collect();
    rig.pushed(&pushed).await;
    let (since, until) = (millis(NOW - 4 * DAY), millis(NOW));
    let found = rig.completeness(None).compare(since, until).await.expect("it is compared");
    assert_eq!((found.source, &*found.zone, found.refused.clone()), (CountsSource::Statistics, "UTC+08:00", None));
    let (platform, here): (Vec<_>, Vec<_>) =
        found.days.iter().map(|day| (day.platform.meetings.unwrap_or(0), day.here.meetings.unwrap_or(0))).unzip();
    assert_eq!((platform.iter().sum::<u64>(), here.iter().sum::<u64>()), (48, 43));
    let attendances: u64 = found.days.iter().filter_map(|day| day.here.attendances).sum();
    assert_eq!(attendances, 43 * 3);
    assert_eq!(found.days.iter().filter_map(|day| day.here.seconds).sum::<u64>(), 43 * 1_800);
    let missing: u64 = found.days.iter().filter_map(|day| day.would_fill).sum();
    assert_eq!((found.missing_meetings, missing), (5, 5), "{found}");
    assert!(found.differing >= 1 && found.compared > found.differing, "{found}");
    assert_eq!(found.days.last().map(|day| day.state), Some(DayState::Young));
    assert!(found.to_string().contains("DIFFERS: history has"), "{found}");
    // Somebody who sees only his own meetings compares nothing; another administrator the same.
    let refused = rig.completeness(Some("alice@example-corp")).compare(since, until).await;
    assert!(matches!(refused, Err(ComparisonError::NotAdministrator(_))), "{refused:?}");
    let again = rig.completeness(Some("bob@example-corp")).compare(since, until).await.expect("it is compared");
    assert_eq!(again.days, found.days);
    // An edition without the statistics: history counts the meetings.
    let mut basic = Rig::new(Backend::sqlite(), |options| options.flagship = false).await;
    basic.platform.edit(|archive| runs.iter().cloned().for_each(|run| archive.put(run)));
    basic.pushed(&pushed).await;
    let less = basic.completeness(None).compare(since, until).await.expect("it is compared");
    assert_eq!((less.source, less.missing_meetings, less.differing), (CountsSource::History, 5, found.differing));
    assert!(less.refused.as_deref().is_some_and(|words| words.contains("MBI.104030001")), "{less}");
    assert!(less.days.iter().all(|day| day.platform.attendances.is_none()), "{less}");
}

async fn an_hour_in_which_the_platform_counts_meetings_and_nothing_arrives_is_told(backend: Backend) {
    let mut rig = Rig::new(backend, |_| {}).await;
    let registry = Registry::default();
    let failures = registry.counters("failures", "Calls that failed.", "class");
    let parts = CompletenessParts {
        owner: "us".to_owned(),
        cursor: projection::CURSOR,
        subscribers: watch::channel(Arc::from([Arc::from(APP_ID)])).1,
        log: rig.log.clone(),
        client: rig.client(None),
        zone: TimeZone::default(),
        metrics: CompletenessMetrics::new(&registry, failures),
        clock: Clock::Set(Arc::clone(&rig.clock)),
    };
    let mut task = CompletenessTask::new(parts, Duration::from_secs(3_600));
    // A noon in China, so that no day ends meanwhile.
    let noon = NOW - NOW % DAY + 4 * HOUR + DAY;
    let mut silent = Vec::new();
    for minute in (0..=90).step_by(15) {
        let now = noon + minute * MINUTE;
        rig.clock.store(now, Ordering::Relaxed);
        if minute == 15 {
            let run = Run { state: State::Running, ..Run::over("lost", "960000019", millis(now), millis(now + HOUR)) };
            rig.platform.edit(|archive| archive.put(run));
        }
        if minute == 90 {
            let back = format!(
                r#"{{"event":"meeting.started","timestamp":{now},"payload":{{"meetingInfo":{{"meetingID":"1","meetingUUID":"back"}}}}}}"#
            );
            crate::log_contract::fixture::append_at(&rig.log, &[back], now).await;
            rig.follow().await;
        }
        task.step().await.expect("it is read");
        silent
            .push(LastFound::load(&*rig.log).await.expect("a note").silent_since.map(|since| (since - noon) / MINUTE));
    }
    // It began at 15, which is between the readings of 0 and of 15; its events had half an hour to come.
    assert_eq!(silent, [None, None, None, Some(0), Some(0), Some(0), None]);
    assert!(registry.render().contains("convoke_completeness_silent 0"));
}

async fn a_service_provider_sees_its_enterprises_each_by_a_token_of_its_own(backend: Backend) {
    let corps = ["corp-a", "corp-b"].map(str::to_owned);
    let change = |options: &mut PlatformOptions| {
        (options.sp_id, options.corp_ids) = (Some("provider".to_owned()), corps.to_vec());
    };
    let mut rig = Rig::new(backend, change).await;
    let held = Run::made_up(millis(NOW - 4 * DAY), Duration::from_secs(7_200), 30, 2);
    let running = Run { state: State::Running, ..Run::over("now", "960000017", millis(NOW), millis(NOW + HOUR)) };
    for (number, run) in held.chain([running]).enumerate() {
        rig.platform.edit(|archive| archive.put(Run { corp_id: Some(corps[number % 3 / 2].clone()), ..run }));
    }
    let client = |rig: &Rig, corp_ids: &[String]| {
        let options = Options {
            sp_id: Some("provider".to_owned()),
            corp_ids: corp_ids.to_vec(),
            ..Options::new(rig.platform.url(), simulated_platform::APP_ID, simulated_platform::APP_KEY.into())
        };
        Client::new(options, Clock::Set(Arc::clone(&rig.clock))).expect("a client")
    };
    let compared = async |rig: &Rig, corp_ids: &[String]| {
        let completeness = Completeness { client: client(rig, corp_ids), ..rig.completeness(None) };
        completeness.compare(millis(NOW - 4 * DAY), millis(NOW - DAY)).await
    };
    let sum = compared(&rig, &corps).await.expect("it is compared");
    assert_eq!(sum.days.iter().filter_map(|day| day.platform.meetings).sum::<u64>(), 30, "{sum}");
    assert_eq!((sum.missing_meetings, rig.platform.count(Call::Authenticate)), (26, 2), "without the young day: {sum}");
    assert!(sum.days.iter().filter_map(|day| day.would_fill).sum::<u64>() >= 26, "{sum}");
    let one = compared(&rig, &corps[1..]).await.expect("it is compared");
    assert_eq!(one.days.iter().filter_map(|day| day.platform.meetings).sum::<u64>(), 10, "its own alone: {one}");
    // Whose sign-in is refused is told, and the others are compared.
    let some = [corps[1].clone(), "corp-c".to_owned()];
    let others = compared(&rig, &some).await.expect("it is compared");
    assert_eq!((&others.days, others.not_compared.len()), (&one.days, 1), "{others}");
    assert!(others.to_string().contains("NOT COMPARED: enterprise corp-c: "), "{others}");
    assert!(one.days.iter().any(|day| day.would_fill_of.contains_key("corp-b")), "{one}");
    let refused = compared(&rig, &[]).await.expect_err("whose?");
    assert!(refused.to_string().contains("platform.corp_ids"), "{refused}");
    let mut task = rig.task_of(client(&rig, &[&corps[..], &some[1..]].concat()));
    assert_eq!(rig.reads(&mut task, 3).await.expect("a reading").starts, 1, "of whichever enterprise");
}
