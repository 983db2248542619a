//! The cursor `recordings`, against the simulated platform, on both databases: a recording is asked for until it is decoded, and
//! announced once.

mod served;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use convoke::{
    cursor::{Cursor as _, Progress},
    intake::Intake,
    metrics::{Counters, Registry},
    recordings::Recordings,
};
use convoke_core::id::{EventId, Seq};
use convoke_core::time::{Clock, Millis};
use convoke_log::{Store, WorkCounts};
use convoke_platform::{Class, Client, Options};
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Recorded, Refusal, Run};
use tokio_util::sync::CancellationToken;

use crate::{
    log_contract::fixture::{Backend, append, on_both},
    simulated_platform,
    support::{
        sign::{self, NOW, millis},
        wait::eventually,
    },
};

on_both! {
    a_recording_is_asked_for_until_it_is_decoded_and_announced_once
    a_recording_that_is_never_decoded_is_given_up_after_a_week
    a_clock_that_was_days_ahead_for_a_moment_costs_no_recording
    a_clock_that_was_a_day_ahead_for_a_moment_takes_no_earlier_recording_for_the_newest
    whoever_dies_between_making_and_noting_makes_no_second_event
    two_replicas_that_ask_at_once_make_one_event
    the_newer_recording_system_is_asked_if_the_older_knows_nothing
    further_recordings_of_a_meeting_are_announced_too
    old_recordings_are_asked_for_once_when_it_is_switched_on_later
    an_answer_of_a_proxy_and_wrong_credentials_cost_nothing_but_time
    a_platform_that_is_away_is_asked_again
}

const UUID: &str = "11112222333344445555666677778888";
const MEETING: &str = "960000017";
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A log, a platform, and one clock for both, which the test sets.
struct Rig {
    backend: Backend,
    log: Arc<dyn Store>,
    intake: Intake,
    platform: Platform,
    clock: Arc<AtomicI64>,
    failures: Counters<Class>,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    async fn new(backend: Backend) -> Self {
        Self::with(backend, |_| {}).await
    }

    async fn with(backend: Backend, change: impl FnOnce(&mut PlatformOptions)) -> Self {
        let (platform, clock) = simulated_platform::started_at(NOW, change).await;
        let log = backend.log().await;
        let stop = CancellationToken::new();
        let failures = Registry::default().counters("failures", "Calls that failed.", "class");
        let (intake, writer) = Intake::new(log.clone(), Clock::System, Arc::default());
        let migrated = CancellationToken::new();
        migrated.cancel();
        tokio::spawn(writer.run(migrated, stop.clone()));
        eventually("events can be stored", WAIT_TIMEOUT, async || intake.accepting()).await;
        Self { backend, log, intake, platform, clock, failures, stop }
    }

    /// The cursor as a process of this name has it after its start.
    fn cursor(&self, owner: &str) -> Recordings {
        self.cursor_with(owner, simulated_platform::APP_KEY)
    }

    fn cursor_with(&self, owner: &str, key: &str) -> Recordings {
        let clock = Clock::Set(Arc::clone(&self.clock));
        let options = Options::new(self.platform.url(), simulated_platform::APP_ID, key.into());
        let client = Client::new(options, clock.clone()).expect("a client");
        let (log, intake, failures) = (self.log.clone(), self.intake.clone(), self.failures.clone());
        Recordings::new(log, intake, client, failures, clock, owner.to_owned(), self.stop.clone())
    }

    /// A process that starts, does what there is to do, and is killed.
    async fn works(&self) {
        self.works_until_idle(&mut self.cursor("us")).await;
    }

    async fn works_until_idle(&self, cursor: &mut Recordings) {
        while cursor.tick().await.expect("it goes on") != Progress::Idle {}
    }

    fn set(&self, ms: i64) {
        self.clock.store(ms, Ordering::Relaxed);
    }

    /// A recording finishes, in the platform's memory and in the log.
    async fn finishes(&self, at: i64, decoded_from: i64) {
        self.platform.edit(|archive| {
            if archive.get(UUID).is_none() {
                archive.put(Run::over(UUID, MEETING, millis(NOW - 30 * MINUTE), millis(NOW + 30 * MINUTE)));
            }
            let recorded = Recorded {
                finished: millis(at),
                length_s: 600,
                decode_end: millis(decoded_from),
                decoded_from: millis(decoded_from),
            };
            archive.edit(UUID, |run| run.recordings.push(recorded));
        });
        append(&self.log, &[finish(at)]).await;
    }

    /// Every `record.ready` in the log.
    async fn announced(&self) -> Vec<String> {
        let rows = self.log.read(Seq::START, 1_000).await.expect("a database");
        let ready = rows.into_iter().filter(|row| row.event == "record.ready");
        ready
            .map(|row| {
                assert_eq!(row.source, "platform");
                assert_eq!((row.meeting_id.as_deref(), row.meeting_uuid.as_deref()), (Some(MEETING), Some(UUID)));
                row.event_info.expect("nothing was forgotten")
            })
            .collect()
    }

    async fn counts(&self) -> WorkCounts {
        self.log.work_counts().await.expect("a database").0
    }

    async fn reason(&self) -> String {
        self.backend.value("SELECT reason FROM fetches").await
    }

    fn asked(&self) -> u64 {
        self.platform.count(Call::Recording)
    }
}

fn finish(at: i64) -> String {
    let meeting = format!(r#"{{"meetingID":"{MEETING}","meetingUUID":"{UUID}"}}"#);
    format!(r#"{{"event":"record.finish","timestamp":{at},"payload":{{"meetingInfo":{meeting}}}}}"#)
}

fn ready(at: i64, info: &str) -> String {
    let meeting = format!(r#"{{"meetingID":"{MEETING}","meetingUUID":"{UUID}"}}"#);
    format!(
        r#"{{"event":"record.ready","timestamp":{at},"payload":{{"meetingInfo":{meeting},"recordInfo":{{{info}}}}}}}"#
    )
}

const ONE: &str = r#""lengthSeconds":600,"sizeMB":14,"files":1,"viewUrl":"https://192.0.2.30/rse/play.html?recordId=11112222333344445555666677778888-0","viewers":"participants""#;
const TWO: &str = r#""lengthSeconds":1200,"sizeMB":28,"files":2,"viewUrl":"https://192.0.2.30/rse/play.html?recordId=11112222333344445555666677778888-0","viewers":"participants""#;

async fn a_recording_is_asked_for_until_it_is_decoded_and_announced_once(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW + 150_000).await;
    rig.works().await;
    assert_eq!((rig.asked(), rig.counts().await.waiting), (0, 1), "not at once");
    rig.set(NOW + MINUTE);
    rig.works().await;
    assert_eq!(rig.asked(), 1);
    assert_eq!(rig.reason().await, "the platform has not processed it yet");
    rig.set(NOW + 2 * MINUTE - 1);
    rig.works().await;
    assert_eq!(rig.asked(), 1);
    rig.set(NOW + 2 * MINUTE);
    rig.works().await;
    assert_eq!((rig.asked(), rig.announced().await.len()), (2, 0));
    rig.set(NOW + 4 * MINUTE);
    rig.works().await;
    assert_eq!(rig.announced().await, [ready(NOW + 150_000, ONE)]);
    rig.set(NOW + 30 * DAY);
    rig.works().await;
    assert_eq!((rig.asked(), rig.announced().await.len()), (3, 1));
    assert_eq!(rig.counts().await, WorkCounts::default());
    assert_eq!(rig.platform.count(Call::Segments), 0);
    let token = rig.backend.value("SELECT count(*) FROM fetches WHERE event_info LIKE '%token%'").await;
    assert_eq!(token, "0");
}

async fn a_recording_that_is_never_decoded_is_given_up_after_a_week(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW + 365 * DAY).await;
    rig.works().await;
    for (at, asked) in [(NOW + MINUTE, 1), (NOW + 7 * DAY - 1, 2), (NOW + 7 * DAY + 30 * MINUTE, 3)] {
        assert_eq!(rig.counts().await, WorkCounts { waiting: 1, given_up: 0 });
        rig.set(at);
        rig.works().await;
        assert_eq!(rig.asked(), asked);
    }
    assert_eq!(rig.counts().await, WorkCounts { waiting: 0, given_up: 1 });
    assert_eq!(rig.reason().await, "the platform has not processed it yet");
    rig.set(NOW + 30 * DAY);
    rig.works().await;
    assert_eq!((rig.asked(), rig.announced().await), (3, Vec::new()));
}

async fn a_clock_that_was_days_ahead_for_a_moment_costs_no_recording(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW + 2 * MINUTE).await;
    rig.works().await;
    rig.platform.edit(|archive| archive.edit(UUID, |run| run.recordings[0].decoded_from = millis(NOW + 30 * DAY)));
    rig.set(NOW + 8 * DAY);
    rig.works().await;
    assert_eq!((rig.asked(), rig.counts().await), (1, WorkCounts { waiting: 0, given_up: 1 }));
    rig.set(NOW + MINUTE);
    rig.works().await;
    assert_eq!((rig.asked(), rig.counts().await), (2, WorkCounts { waiting: 1, given_up: 0 }));
    rig.platform.edit(|archive| archive.edit(UUID, |run| run.recordings[0].decoded_from = millis(NOW + 2 * MINUTE)));
    rig.set(NOW + 30 * MINUTE);
    rig.works().await;
    assert_eq!(rig.announced().await, [ready(NOW + 2 * MINUTE, ONE)]);
}

async fn whoever_dies_between_making_and_noting_makes_no_second_event(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW).await;
    rig.set(NOW + MINUTE);
    rig.works().await;
    let announced = rig.announced().await;
    assert_eq!(announced, [ready(NOW, ONE)]);

    // As if it had been killed after the append; the platform would say something else now.
    rig.backend.execute("UPDATE fetches SET state = 'ready', due_at = finished_at").await;
    rig.platform.edit(|archive| archive.edit(UUID, |run| run.recordings[0].length_s = 1));
    rig.works().await;
    assert_eq!((rig.announced().await, rig.asked()), (announced.clone(), 1));
    assert_eq!(rig.counts().await, WorkCounts::default());
    assert_eq!(rig.backend.value("SELECT deliveries FROM events WHERE event = 'record.ready'").await, "2");

    // As if it had been killed before the append.
    rig.backend.execute("UPDATE fetches SET state = 'ready', due_at = finished_at").await;
    rig.backend.execute("DELETE FROM events WHERE event = 'record.ready'").await;
    rig.works().await;
    assert_eq!((rig.announced().await, rig.asked()), (announced, 1));
}

async fn two_replicas_that_ask_at_once_make_one_event(backend: Backend) {
    let rig = Arc::new(Rig::new(backend).await);
    rig.finishes(NOW, NOW).await;
    let mut standby = rig.cursor("them");
    rig.works().await;
    assert_eq!(standby.tick().await.expect("a database"), Progress::Standby);

    rig.set(NOW + MINUTE);
    rig.platform.inject(Call::Recording, Fault::Slow(Duration::from_secs(6)), 1);
    let asking = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move {
            let mut cursor = rig.cursor("us");
            // Its lease goes to another in the middle of the question: it learns that when it renews it, or when it is answered.
            while let Ok(progress) = cursor.tick().await
                && !matches!(progress, Progress::Idle | Progress::Standby)
            {}
        }
    });
    eventually("the first one asks", WAIT_TIMEOUT, async || rig.asked() == 1).await;
    rig.backend.execute("UPDATE cursors SET lease_owner = 'them' WHERE name = 'recordings'").await;
    // Another answer than the first one will get.
    rig.platform.edit(|archive| archive.edit(UUID, |run| run.recordings[0].length_s = 300));
    rig.works_until_idle(&mut standby).await;
    asking.await.expect("no panic");
    let announced = rig.announced().await;
    assert_eq!(announced.len(), 1, "{announced:?}");
    assert!(announced[0].contains(r#""lengthSeconds":300"#), "{announced:?}");
    assert_eq!(rig.counts().await, WorkCounts::default());
}

async fn the_newer_recording_system_is_asked_if_the_older_knows_nothing(backend: Backend) {
    let rig = Rig::with(backend, |options| options.newer_recordings = true).await;
    rig.finishes(NOW, NOW + 90_000).await;
    rig.set(NOW + MINUTE);
    rig.works().await;
    assert_eq!(rig.reason().await, "the platform has no recording of the meeting");
    rig.set(NOW + 2 * MINUTE);
    rig.works().await;
    let info = r#""lengthSeconds":600,"sizeMB":14.4,"files":2,"viewUrl":null,"viewers":null"#;
    assert_eq!(rig.announced().await, [ready(NOW, info)]);
    assert_eq!((rig.asked(), rig.platform.count(Call::Segments)), (2, 2));

    // Of two starts of recording the second comes later.
    rig.finishes(NOW + 5 * MINUTE, NOW + 8 * MINUTE).await;
    rig.set(NOW + 6 * MINUTE);
    rig.works().await;
    assert_eq!(rig.reason().await, "the platform does not list the meeting's newest recording yet");
    rig.set(NOW + 9 * MINUTE);
    rig.works().await;
    let info = r#""lengthSeconds":1200,"sizeMB":28.8,"files":4,"viewUrl":null,"viewers":null"#;
    assert_eq!(rig.announced().await[1..], [ready(NOW + 5 * MINUTE, info)]);
}

async fn further_recordings_of_a_meeting_are_announced_too(backend: Backend) {
    let rig = Rig::new(backend).await;
    // Two within a minute are asked for together.
    rig.finishes(NOW, NOW + 20_000).await;
    rig.finishes(NOW + 10_000, NOW + 30_000).await;
    rig.works().await;
    rig.set(NOW + 70_000);
    rig.works().await;
    assert_eq!((rig.announced().await, rig.asked()), (vec![ready(NOW + 30_000, TWO)], 1));

    // Of a third one the platform first says nothing.
    append(&rig.log, &[finish(NOW + 3 * MINUTE)]).await;
    rig.set(NOW + 4 * MINUTE);
    rig.works().await;
    assert_eq!(rig.announced().await.len(), 1);
    assert_eq!(rig.reason().await, "the platform does not list the meeting's newest recording yet");
    // After an hour of tries what it says is all that there is.
    for minute in [5, 7, 11, 19, 35, 65] {
        assert_eq!(rig.announced().await.len(), 1, "before minute {minute}");
        rig.set(NOW + minute * MINUTE);
        rig.works().await;
    }
    assert_eq!(rig.announced().await[1..], [ready(NOW + 3 * MINUTE, TWO)]);
    assert_eq!(rig.counts().await, WorkCounts::default());
}

async fn a_clock_that_was_a_day_ahead_for_a_moment_takes_no_earlier_recording_for_the_newest(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW + 20_000).await;
    rig.set(NOW + MINUTE);
    rig.works().await;
    // Of the second one the platform first says nothing.
    append(&rig.log, &[finish(NOW + 3 * MINUTE)]).await;
    for at in [NOW + 4 * MINUTE, NOW + DAY, NOW + 5 * MINUTE] {
        rig.set(at);
        rig.works().await;
        assert_eq!(rig.announced().await, [ready(NOW + 20_000, ONE)]);
    }
    rig.finishes(NOW + 3 * MINUTE, NOW + 6 * MINUTE).await;
    rig.set(NOW + 20 * MINUTE);
    rig.works().await;
    assert_eq!(rig.announced().await[1..], [ready(NOW + 6 * MINUTE, TWO)]);
}

async fn old_recordings_are_asked_for_once_when_it_is_switched_on_later(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW + MINUTE).await;
    let lost = finish(NOW).replace(UUID, "aaaabbbbccccddddeeeeffff00001111");
    append(&rig.log, &[lost]).await;
    rig.set(NOW + 60 * DAY);
    rig.works().await;
    rig.set(NOW + 61 * DAY);
    rig.works().await;
    assert_eq!(rig.announced().await, [ready(NOW + MINUTE, ONE)]);
    assert_eq!((rig.asked(), rig.counts().await), (2, WorkCounts { waiting: 0, given_up: 1 }));
    let id = EventId::of(sign::APP_ID, millis(NOW + MINUTE), ready(NOW + MINUTE, ONE).as_bytes());
    assert!(rig.log.find(&[id]).await.expect("a database").contains_key(&id), "its id is from its content alone");

    // Switched off, forgotten, and on again.
    rig.backend.execute("DELETE FROM cursors").await;
    rig.works().await;
    assert_eq!((rig.announced().await.len(), rig.asked()), (1, 2));
}

async fn an_answer_of_a_proxy_and_wrong_credentials_cost_nothing_but_time(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW).await;
    rig.set(NOW + MINUTE);
    rig.works_until_idle(&mut rig.cursor_with("us", "not the key")).await;
    assert_eq!(rig.failures.of(Class::Configuration).get(), 1);
    assert_eq!((rig.counts().await, rig.reason().await), (WorkCounts { waiting: 1, given_up: 0 }, String::new()));

    // The same process goes on when what was wrong is over, after its pause.
    rig.platform.inject(
        Call::Recording,
        Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS")),
        1,
    );
    rig.platform.inject(
        Call::Segments,
        Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS")),
        1,
    );
    let mut cursor = rig.cursor("us");
    rig.works_until_idle(&mut cursor).await;
    assert_eq!((rig.asked(), rig.announced().await.len()), (1, 0));
    rig.set(NOW + 10 * MINUTE);
    rig.works_until_idle(&mut cursor).await;
    assert_eq!(rig.asked(), 1, "it is left alone");
    rig.set(NOW + 45 * MINUTE);
    eventually("it is asked again", WAIT_TIMEOUT, async || {
        rig.works_until_idle(&mut cursor).await;
        rig.announced().await.len() == 1
    })
    .await;
    assert_eq!(rig.announced().await, [ready(NOW, ONE)]);
}

async fn a_platform_that_is_away_is_asked_again(backend: Backend) {
    let rig = Rig::new(backend).await;
    rig.finishes(NOW, NOW).await;
    rig.set(NOW + MINUTE);
    rig.platform.inject(Call::Recording, Fault::Html(502), 1_000);
    let begun = Millis::new(NOW).expect("a time");
    rig.works().await;
    assert_eq!(rig.counts().await, WorkCounts { waiting: 1, given_up: 0 });
    assert_ne!(rig.reason().await, "");
    assert_eq!(rig.log.due_recordings(begun.plus(Duration::from_secs(60)), 1).await.expect("a database"), []);
    let due = rig.log.due_recordings(begun.plus(Duration::from_secs(150)), 1).await.expect("a database");
    assert_eq!(due.len(), 1, "{due:?}");
    assert_eq!(rig.announced().await, Vec::<String>::new());
}
