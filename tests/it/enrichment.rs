//! Enrichment, against the simulated platform, on both databases: what events do not carry is asked for once for each run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use convoke::{
    cursor::{Cursor as _, Progress},
    enrichment::{Directory, Enrichment},
    metrics::{Counters, Registry},
    projection::{self, Projector},
};
use convoke_core::time::Clock;
use convoke_log::{Store, WorkCounts};
use convoke_platform::{Class, Client, Options};
use convoke_simulator::platform::{Call, Fault, Invited, Platform, PlatformOptions, Refusal, Run, State};

use crate::{
    log_contract::fixture::{Backend, append, on_both},
    simulated_platform,
    support::{
        sign::{NOW, millis},
        wait::eventually,
    },
};

on_both! {
    scheduled_live_and_past_runs_are_asked_for_once
    a_number_that_was_used_again_enriches_no_other_run
    a_clock_that_was_days_ahead_for_a_moment_costs_no_details
    a_service_provider_learns_the_enterprise_of_each_meeting
    only_who_moves_the_cursor_of_the_tables_asks
    a_refused_question_is_a_pause_and_a_wrong_one_is_given_up
    tables_that_are_made_anew_keep_what_is_known
    the_plan_of_a_series_is_that_of_the_occurrence_that_was_held
    who_was_invited_and_did_not_come_is_told
    departments_are_asked_for_two_hundred_people_at_once_and_weekly
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A log with its tables, a platform, and one clock for both, which the test sets.
struct Rig {
    backend: Backend,
    log: Arc<dyn Store>,
    platform: Platform,
    clock: Arc<AtomicI64>,
    failures: Counters<Class>,
    tables: Projector,
}

impl Rig {
    async fn new(backend: Backend) -> Self {
        Self::with(backend, |_| {}).await
    }

    async fn with(backend: Backend, change: impl FnOnce(&mut PlatformOptions)) -> Self {
        let (platform, clock) = simulated_platform::started_at(NOW, change).await;
        let log = backend.log().await;
        let failures = Registry::default().counters("failures", "Calls that failed.", "class");
        let tables = Projector::new(log.clone(), "us".to_owned());
        Self { backend, log, platform, clock, failures, tables }
    }

    /// The task as a process that has just started has it.
    fn task(&self, corp_id: Option<&str>, sp_id: Option<&str>) -> Enrichment {
        let clock = Clock::Set(Arc::clone(&self.clock));
        let options = Options {
            corp_id: corp_id.map(str::to_owned),
            sp_id: sp_id.map(str::to_owned),
            ..Options::new(self.platform.url(), simulated_platform::APP_ID, simulated_platform::APP_KEY.into())
        };
        let client = Client::new(options, clock.clone()).expect("a client");
        let leader = (projection::CURSOR, "us".to_owned());
        Enrichment::new(self.log.clone(), client, self.failures.clone(), clock, leader)
    }

    /// Events come, and the tables follow.
    async fn happens(&mut self, event: &str, uuid: &str, number: &str, at: i64) {
        let meeting = format!(r#"{{"meetingID":"{number}","meetingUUID":"{uuid}"}}"#);
        append(
            &self.log,
            &[format!(r#"{{"event":"{event}","timestamp":{at},"payload":{{"meetingInfo":{meeting}}}}}"#)],
        )
        .await;
        self.follow().await;
    }

    /// The tables follow the log to its end; so their cursor's lease is fresh.
    async fn follow(&mut self) {
        let head = self.log.head().await.expect("a database");
        loop {
            self.tables.tick().await.expect("it goes on");
            let cursors = self.log.cursors().await.expect("a database");
            if cursors.iter().any(|state| state.name == projection::CURSOR && state.position >= head) {
                break;
            }
        }
    }

    async fn works(&mut self, task: &mut Enrichment) {
        // Or the lease would end while a test takes its time.
        self.log.lease(projection::CURSOR, "us", WAIT_TIMEOUT).await.expect("a database");
        while task.step().await.expect("a database") {}
    }

    fn directory(&self) -> Directory {
        let clock = Clock::Set(Arc::clone(&self.clock));
        let options = Options::new(self.platform.url(), simulated_platform::APP_ID, simulated_platform::APP_KEY.into());
        let client = Client::new(options, clock.clone()).expect("a client");
        let leader = (projection::CURSOR, "us".to_owned());
        Directory::new(self.log.clone(), client, self.failures.clone(), clock, leader)
    }

    async fn asks(&mut self, task: &mut Directory) {
        self.log.lease(projection::CURSOR, "us", WAIT_TIMEOUT).await.expect("a database");
        while task.step().await.expect("a database") {}
    }

    async fn works_anew(&mut self) {
        let mut task = self.task(None, None);
        self.works(&mut task).await;
    }

    fn set(&self, ms: i64) {
        self.clock.store(ms, Ordering::Relaxed);
    }

    fn holds(&self, uuid: &str, number: &str, state: State) {
        let run = Run { state, ..Run::over(uuid, number, millis(NOW), millis(NOW + HOUR)) };
        let run = Run { subject: format!("Subject of {uuid}"), ..run };
        self.platform.edit(|archive| archive.put(run));
    }

    /// `subject|minutes that it was scheduled for|host|corp_id`
    async fn row(&self, uuid: &str) -> String {
        let minutes = match self.backend.postgres {
            Some(_) => "extract(epoch FROM scheduled_end_at - scheduled_start_at) / 60",
            None => "(julianday(scheduled_end_at) - julianday(scheduled_start_at)) * 1440",
        };
        let sql = format!(
            "SELECT coalesce(subject, '-') || '|' || coalesce(CAST(CAST(round({minutes}) AS integer) AS text), '-') ||
                    '|' || coalesce(host, '-') || '|' || coalesce(corp_id, '-')
               FROM meetings WHERE meeting_uuid = '{uuid}'"
        );
        self.backend.value(&sql).await
    }

    fn asked(&self) -> (u64, u64) {
        (self.platform.count(Call::NotOverDetail), self.platform.count(Call::HistoryDetail))
    }
}

async fn scheduled_live_and_past_runs_are_asked_for_once(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    for (uuid, number, event, state) in [
        ("past", "1001", "meeting.conclude", State::Over),
        ("live", "1002", "meeting.started", State::Running),
        ("planned", "1003", "meeting.create", State::Scheduled),
        ("cancelled", "1004", "meeting.cancel", State::Over),
    ] {
        rig.happens(event, uuid, number, NOW).await;
        if event != "meeting.cancel" {
            rig.holds(uuid, number, state);
        }
    }
    rig.set(NOW + 1_000);
    rig.works_anew().await;
    for (uuid, minutes) in [("past", "-"), ("live", "60"), ("planned", "60")] {
        let expected = format!("Subject of {uuid}|{minutes}|Demo User|{}", simulated_platform::CORP);
        assert_eq!(rig.row(uuid).await, expected, "when it was held is no plan");
    }
    let more = "SELECT host_user_uuid || '|' || conference_type FROM meetings WHERE meeting_uuid = 'past'";
    assert_eq!(rig.backend.value(more).await, "aaaabbbbccccddddeeeeffff00001111|FUTURE");
    assert_eq!(rig.row("cancelled").await, "-|-|-|-");
    assert_eq!(rig.asked(), (2, 1));
    rig.happens("meeting.end", "live", "1002", NOW + HOUR).await;
    rig.set(NOW + DAY);
    rig.works_anew().await;
    assert_eq!(rig.asked(), (2, 1), "once");
    assert_eq!(rig.log.work_counts().await.expect("a database").1, WorkCounts::default());

    rig.platform.edit(|archive| archive.edit("planned", |run| run.subject = "Another subject".to_owned()));
    rig.happens("meeting.modify", "planned", "1003", NOW + DAY).await;
    rig.works_anew().await;
    assert_eq!(rig.asked(), (3, 1), "and again after it was modified");
    assert_eq!(rig.row("planned").await, format!("Another subject|60|Demo User|{}", simulated_platform::CORP));
}

async fn a_number_that_was_used_again_enriches_no_other_run(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    rig.happens("meeting.started", "first", "1001", NOW).await;
    rig.happens("meeting.started", "second", "1001", NOW + 1).await;
    // Of the first one the platform knows nothing yet; its number is the second one's.
    rig.holds("second", "1001", State::Running);
    rig.works_anew().await;
    let expected =
        |uuid: &str, minutes: &str| format!("Subject of {uuid}|{minutes}|Demo User|{}", simulated_platform::CORP);
    assert_eq!((rig.row("first").await, rig.row("second").await), ("-|-|-|-".to_owned(), expected("second", "60")));
    rig.holds("first", "1001", State::Over);
    rig.set(NOW + 60_000);
    rig.works_anew().await;
    assert_eq!(rig.row("first").await, expected("first", "-"));

    // A run that never becomes known is given up after a day.
    rig.happens("meeting.conclude", "unknown", "1009", NOW).await;
    rig.works_anew().await;
    rig.set(NOW + DAY);
    rig.works_anew().await;
    assert_eq!(rig.log.work_counts().await.expect("a database").1, WorkCounts { waiting: 0, given_up: 1 });
    assert_eq!(rig.row("unknown").await, format!("-|-|-|{}", simulated_platform::CORP));
}

async fn a_clock_that_was_days_ahead_for_a_moment_costs_no_details(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    rig.happens("meeting.conclude", "one", "1001", NOW).await;
    rig.set(NOW + 8 * DAY);
    rig.works_anew().await;
    assert_eq!(rig.log.work_counts().await.expect("a database").1, WorkCounts { waiting: 0, given_up: 1 });
    rig.holds("one", "1001", State::Over);
    rig.set(NOW + HOUR);
    rig.works_anew().await;
    assert_eq!(rig.row("one").await, format!("Subject of one|-|Demo User|{}", simulated_platform::CORP));
    assert_eq!(rig.log.work_counts().await.expect("a database").1, WorkCounts::default());
}

async fn a_service_provider_learns_the_enterprise_of_each_meeting(backend: Backend) {
    let corps = ["corp-a", "corp-b"];
    let mut rig = Rig::with(backend, |options| {
        options.sp_id = Some("provider".to_owned());
        options.corp_ids = corps.map(str::to_owned).to_vec();
    })
    .await;
    for (uuid, number, corp) in [("one", "1001", corps[0]), ("two", "1002", corps[1])] {
        rig.happens("meeting.conclude", uuid, number, NOW).await;
        rig.holds(uuid, number, State::Over);
        rig.platform.edit(|archive| archive.edit(uuid, |run| run.corp_id = Some(corp.to_owned())));
    }
    let mut task = rig.task(None, Some("provider"));
    rig.works(&mut task).await;
    assert_eq!(rig.row("one").await, "Subject of one|-|Demo User|corp-a");
    assert_eq!(rig.row("two").await, "Subject of two|-|Demo User|corp-b");
    assert_eq!([Call::Enterprise, Call::Authenticate].map(|call| rig.platform.count(call)), [2, 3], "a token each");

    // A service provider that learns nothing else about a meeting still learns whose it is.
    rig.happens("meeting.conclude", "three", "1002", NOW).await;
    let refused = Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS"));
    rig.platform.inject(Call::HistoryDetail, refused, 1);
    let mut task = rig.task(None, Some("provider"));
    rig.works(&mut task).await;
    assert_eq!(rig.row("three").await, "-|-|-|corp-b");
}

async fn only_who_moves_the_cursor_of_the_tables_asks(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    rig.happens("meeting.conclude", "one", "1001", NOW).await;
    rig.holds("one", "1001", State::Over);
    let mut task = rig.task(Some("corp"), None);
    rig.backend.execute("UPDATE cursors SET lease_owner = 'them'").await;
    assert!(!task.step().await.expect("a database"));
    assert_eq!(rig.platform.count(Call::HistoryDetail), 0);
    rig.backend.execute("UPDATE cursors SET lease_owner = 'us'").await;
    rig.works(&mut task).await;
    assert_eq!(rig.row("one").await, "Subject of one|-|Demo User|corp");
}

async fn a_refused_question_is_a_pause_and_a_wrong_one_is_given_up(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    rig.happens("meeting.conclude", "one", "1001", NOW).await;
    rig.holds("one", "1001", State::Over);
    let refused = || Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS"));
    rig.platform.inject(Call::HistoryDetail, refused(), 1);
    let mut task = rig.task(None, None);
    rig.works(&mut task).await;
    assert_eq!(rig.failures.of(Class::Configuration).get(), 1);
    rig.set(NOW + 10 * 60_000);
    rig.works(&mut task).await;
    assert_eq!(rig.asked(), (0, 1), "it is left alone");
    rig.set(NOW + HOUR);
    rig.works(&mut task).await;
    assert_eq!(rig.row("one").await, format!("Subject of one|-|Demo User|{}", simulated_platform::CORP));

    rig.happens("meeting.conclude", "two", "1002", NOW).await;
    let wrong = Fault::Refuse(Refusal::new(400, "MMC.111070001", "CONF_BAD_REQUEST"));
    rig.platform.inject(Call::HistoryDetail, wrong, 3);
    for hour in 2..6 {
        rig.set(NOW + hour * HOUR);
        rig.works_anew().await;
    }
    assert_eq!(rig.asked(), (0, 5));
    assert_eq!(rig.log.work_counts().await.expect("a database").1, WorkCounts { waiting: 0, given_up: 1 });
}

async fn tables_that_are_made_anew_keep_what_is_known(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    rig.happens("meeting.conclude", "one", "1001", NOW).await;
    rig.holds("one", "1001", State::Over);
    rig.works_anew().await;
    let before = rig.row("one").await;
    assert_eq!(before, format!("Subject of one|-|Demo User|{}", simulated_platform::CORP));

    rig.log.release(projection::CURSOR, "us").await.expect("a database");
    let lease = convoke_log::Lease { cursor: projection::CURSOR, owner: "rebuild", ttl: WAIT_TIMEOUT };
    eventually("the lease is free", WAIT_TIMEOUT, async || {
        rig.log.lease(lease.cursor, lease.owner, lease.ttl).await.expect("a database")
    })
    .await;
    rig.log.clear_tables(lease).await.expect("a database");
    assert_eq!(rig.row("one").await, "");
    rig.log.release(lease.cursor, lease.owner).await.expect("a database");
    rig.tables = Projector::new(rig.log.clone(), "us".to_owned());
    assert_ne!(rig.tables.tick().await.expect("it goes on"), Progress::Standby);
    rig.follow().await;
    rig.works_anew().await;
    assert_eq!((rig.row("one").await, rig.asked()), (before, (0, 1)));
}

fn invited(user: &str, account: &str, number: &str, name: &str) -> Invited {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Invited { user_uuid: some(user), account: some(account), number: some(number), name: name.to_owned() }
}

impl Rig {
    /// Somebody was in a run for so many minutes from `NOW` on.
    async fn was_there(&mut self, uuid: &str, participant: &str, ids: &str, minutes: i64) {
        let left = NOW + minutes * 60_000;
        let attendee = format!(r#"{{"participantID":"{participant}",{ids},"joinTime":{NOW},"leftTime":{left}}}"#);
        let meeting = format!(r#"{{"meetingID":"1001","meetingUUID":"{uuid}"}}"#);
        let payload = format!(r#"{{"meetingInfo":{meeting},"attendeeInfo":{attendee}}}"#);
        append(&self.log, &[format!(r#"{{"event":"meeting.left","timestamp":{left},"payload":{payload}}}"#)]).await;
        self.follow().await;
    }

    async fn list(&self, what: &str, sql: &str) -> String {
        let list = if self.backend.postgres.is_some() { "string_agg" } else { "group_concat" };
        self.backend.value(&format!("SELECT coalesce({list}({what}, ', '), '-') FROM ({sql}) AS t")).await
    }
}

async fn who_was_invited_and_did_not_come_is_told(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    let people = vec![
        invited("u-user", "a-user", "+1", "User"),
        invited("", "a-known", "", "By an account of which the user is known"),
        invited("", "", "+3", "By number"),
        invited("", "", "", "Guest"),
        invited("u-away", "a-away", "+4", "Away"),
        invited("", "", "+5", "Phone away"),
        invited("u-late", "", "", "Short"),
    ];
    rig.happens("meeting.create", "course", "1001", NOW - HOUR).await;
    rig.platform.edit(|archive| {
        let run = Run::over("course", "1001", millis(NOW), millis(NOW + HOUR));
        archive.put(Run { state: State::Scheduled, invited: people, ..run });
    });
    rig.works_anew().await;
    let invited = "SELECT count(*) FROM invitations";
    assert_eq!(rig.backend.value(invited).await, "8", "with the host");
    assert_eq!(rig.backend.value("SELECT count(*) FROM absentees").await, "0", "it is not held yet");

    // One who was asked by mistake is taken off the list before it begins; a crowd takes more than a page.
    let crowd = (0..250).map(|number| invited_user(&format!("u-crowd-{number}")));
    rig.platform.edit(|archive| {
        archive.edit("course", |run| {
            run.invited.pop();
            run.invited.extend(crowd);
        });
    });
    rig.happens("meeting.modify", "course", "1001", NOW - HOUR / 2).await;
    rig.works_anew().await;
    assert_eq!(rig.backend.value(invited).await, "257");
    rig.happens("meeting.started", "course", "1001", NOW).await;
    rig.was_there("course", "p1", r#""userUUID":"u-user","displayName":"U""#, 30).await;
    rig.was_there("course", "p1b", r#""account":"a-user","displayName":"U, twice""#, 20).await;
    rig.was_there("elsewhere", "p0", r#""userUUID":"u-known","account":"a-known""#, 1).await;
    rig.was_there("course", "p2", r#""userUUID":"u-known","displayName":"K""#, 10).await;
    rig.was_there("course", "p3", r#""callNumber":"+3","displayName":"Somebody""#, 5).await;
    rig.was_there("course", "p4", r#""displayName":"Guest""#, 5).await;
    rig.was_there("course", "p9", r#""userUUID":"u-host","displayName":"Nobody invited them""#, 50).await;
    let named = "attendee_type IS NOT NULL AND invitee NOT LIKE 'u-crowd-%'";
    assert_eq!(rig.backend.value("SELECT count(*) FROM absentees").await, "0", "it is not over");
    rig.happens("meeting.end", "course", "1001", NOW + HOUR).await;
    let there = format!("SELECT invitee, minutes FROM invitees WHERE stays > 0 AND {named} ORDER BY invitee");
    let there = rig.list("invitee || ' ' || CAST(round(minutes) AS integer)", &there).await;
    assert_eq!(there, "+3 5, Guest 5, a-known 10, u-user 30", "two devices at once count once");
    let away = format!("SELECT invitee FROM absentees WHERE {named} ORDER BY invitee");
    assert_eq!(rig.list("invitee", &away).await, "+5, aaaabbbbccccddddeeeeffff00001111, u-away");
    assert_eq!(rig.backend.value("SELECT count(*) FROM absentees").await, "253");
    let percent = "SELECT CAST(round(100.0 * count(*) FILTER (WHERE minutes >= 10) / count(*)) AS integer)
                     FROM invitees WHERE meeting_uuid = 'course' AND invitee NOT LIKE 'u-crowd-%'";
    assert_eq!(rig.backend.value(percent).await, "29");
}

fn invited_user(user: &str) -> Invited {
    invited(user, "", "", user)
}

async fn departments_are_asked_for_two_hundred_people_at_once_and_weekly(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    let leaves = |participant: usize, ids: &str| {
        let attendee = format!(r#"{{"participantID":"p{participant}",{ids},"joinTime":{NOW},"leftTime":{}}}"#, NOW + 1);
        let payload = format!(r#"{{"meetingInfo":{{"meetingUUID":"run"}},"attendeeInfo":{attendee}}}"#);
        format!(r#"{{"event":"meeting.left","timestamp":{},"payload":{payload}}}"#, NOW + 1)
    };
    let mut infos: Vec<String> = (0..300)
        .map(|number| leaves(number, &format!(r#""userUUID":"user-{number:03}","account":"account-{number}""#)))
        .collect();
    infos.push(leaves(900, r#""userUUID":"user-alone""#));
    infos.push(leaves(901, r#""account":"no-user""#));
    append(&rig.log, &infos).await;
    rig.follow().await;
    rig.platform.edit(|archive| archive.left.insert("user-007".to_owned()));
    let refused = Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS"));
    rig.platform.inject(Call::Users, refused, 1);
    let mut task = rig.directory();
    rig.asks(&mut task).await;
    let known = "SELECT count(*) || ' ' || count(told_at) || ' ' || count(department) FROM people";
    assert_eq!(rig.backend.value(known).await, "301 0 0", "a refusal is a pause");
    let mut task = rig.directory();
    rig.asks(&mut task).await;
    assert_eq!(rig.backend.value(known).await, "301 300 300");
    assert_eq!(rig.platform.count(Call::Users), 3);
    let personal = "SELECT count(*) FROM people WHERE coalesce(title, '') NOT IN ('Engineer', '')";
    assert_eq!(rig.backend.value(personal).await, "0");
    let of_department = "SELECT count(DISTINCT department) || ' ' || count(*) FROM department_attendance";
    assert_eq!(rig.backend.value(of_department).await, "4 302");

    // Who was erased meanwhile does not come back with the next answer; who left the enterprise has no department.
    rig.platform.edit(|archive| archive.left.insert("user-008".to_owned()));
    rig.set(NOW + 6 * DAY);
    rig.asks(&mut task).await;
    assert_eq!(rig.platform.count(Call::Users), 3, "not before a week is over");
    rig.set(NOW + 8 * DAY);
    rig.asks(&mut task).await;
    assert_eq!(rig.platform.count(Call::Users), 5);
    assert_eq!(rig.backend.value(known).await, "301 299 299");
}

async fn the_plan_of_a_series_is_that_of_the_occurrence_that_was_held(backend: Backend) {
    let mut rig = Rig::new(backend).await;
    for week in 0..3 {
        let (begins, uuid) = (NOW + week * 7 * DAY, format!("week-{week}"));
        rig.platform.edit(|archive| {
            let run = Run::over(&uuid, "1001", millis(begins), millis(begins + HOUR));
            let cycle_sub_conf_id = Some(format!("occurrence-{week}"));
            archive.put(Run { state: State::Scheduled, started: None, ended: None, cycle_sub_conf_id, ..run });
        });
    }
    // Each begins some minutes late; the platform gives the first one's id and times with every one of them.
    for week in 0..3 {
        let (at, uuid) = (NOW + week * 7 * DAY + 4 * 60_000, format!("week-{week}"));
        rig.happens("meeting.started", &uuid, "1001", at).await;
        rig.set(at + 1_000);
        rig.platform.edit(|archive| {
            archive.edit(&uuid, |run| (run.state, run.started) = (State::Running, Some(millis(at))));
        });
        rig.works_anew().await;
        rig.platform.edit(|archive| {
            archive.edit(&uuid, |run| (run.state, run.ended) = (State::Over, Some(millis(at + HOUR / 2))));
        });
        rig.happens("meeting.end", &uuid, "1001", at + HOUR / 2).await;
    }
    let late = match rig.backend.postgres {
        Some(_) => "extract(epoch FROM started_at - scheduled_start_at) / 60",
        None => "(julianday(started_at) - julianday(scheduled_start_at)) * 1440",
    };
    let plans = format!("SELECT meeting_uuid, round({late}) AS minutes FROM meetings ORDER BY meeting_uuid");
    let plans = rig.list("meeting_uuid || ' ' || CAST(minutes AS integer)", &plans).await;
    assert_eq!(plans, "week-0 4, week-1 4, week-2 4");
}
