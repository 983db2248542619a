//! The platform's list of running meetings, against the simulated platform, on both databases: a lost `meeting.end` is healed within
//! minutes, who was in at the first start is there, and a list that cannot be true costs nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use convoke::{
    backfill::{
        ComparisonError,
        matching::PastStay,
        plan::Plan,
        store,
        synthesis::{self, FilledEvent, FilledRun},
    },
    cursor::Cursor as _,
    intake::Intake,
    metrics::Registry,
    projection::{self, Projector},
    running::{Healed, RunningMeetings, RunningMetrics, RunningParts},
};
use convoke_core::{event::Source, time::Clock};
use convoke_log::{Lease, Store};
use convoke_platform::Client;
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Refusal, Run, State, Stay};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    log_contract::fixture::{Backend, append, on_both},
    simulated_platform,
    support::process::Convoke,
    support::sign::{APP_ID, NOW, millis},
};

on_both! {
    a_meeting_whose_end_was_lost_is_over_within_minutes_and_a_late_end_corrects_it
    who_was_in_at_the_first_start_is_there_and_what_is_pushed_later_is_theirs
    a_list_that_is_refused_short_empty_or_one_users_costs_nothing
    what_history_tells_of_a_stay_has_columns_of_its_own
    who_was_taken_over_from_the_platform_can_be_forgotten
}

const MINUTE: i64 = 60_000;
const LEASE_TIME: Duration = Duration::from_secs(600);

pub struct Rig {
    pub backend: Backend,
    pub log: Arc<dyn Store>,
    pub platform: Platform,
    pub clock: Arc<AtomicI64>,
    tables: Projector,
    intake: Intake,
    writer: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Rig {
    pub async fn new(backend: Backend, change: impl FnOnce(&mut PlatformOptions)) -> Self {
        let (platform, clock) = simulated_platform::started_at(NOW, change).await;
        let log = backend.log().await;
        let tables = Projector::new(log.clone(), "us".to_owned());
        let (intake, writer) = Intake::new(log.clone(), Clock::Set(Arc::clone(&clock)), Arc::default());
        let migrated = CancellationToken::new();
        migrated.cancel();
        let writer = tokio::spawn(writer.without_heartbeat().run(migrated, CancellationToken::new()));
        Self { backend, log, platform, clock, tables, intake, writer }
    }

    /// The task as a process that has just started has it, acting as this user.
    fn task(&self, user: Option<&str>) -> RunningMeetings {
        self.task_of(self.client(user))
    }

    pub fn task_of(&self, client: Client) -> RunningMeetings {
        let clock = Clock::Set(Arc::clone(&self.clock));
        RunningMeetings::new(RunningParts {
            owner: "us".to_owned(),
            cursor: projection::CURSOR,
            subscribers: watch::channel(Arc::from([Arc::from(APP_ID)])).1,
            log: self.log.clone(),
            intake: self.intake.clone(),
            client,
            metrics: RunningMetrics::new(&Registry::default()),
            clock,
        })
    }

    /// Reads the list so many minutes after [`NOW`]; the tables follow.
    pub async fn reads(&mut self, task: &mut RunningMeetings, minute: i64) -> Result<Healed, ComparisonError> {
        self.clock.store(NOW + minute * MINUTE, Ordering::Relaxed);
        let read = task.read().await;
        self.follow().await;
        read
    }

    pub async fn pushed(&mut self, infos: &[String]) {
        append(&self.log, infos).await;
        self.follow().await;
    }

    pub async fn follow(&mut self) {
        let head = self.log.head().await.expect("a database");
        while self.position().await < head {
            self.tables.tick().await.expect("it goes on");
        }
    }

    async fn position(&self) -> convoke_core::id::Seq {
        let cursors = self.log.cursors().await.expect("a database");
        let ours = cursors.iter().find(|state| state.name == projection::CURSOR);
        ours.map_or(convoke_core::id::Seq::START, |state| state.position)
    }

    fn holds(&self, state: State, stays: Vec<Stay>, ended: i64) {
        let run = Run { state, stays, ..Run::over(UUID, NUMBER, millis(NOW - 5 * MINUTE), millis(NOW + ended)) };
        self.platform.edit(|archive| archive.put(run));
    }

    /// `status ended stays/participants: participant name by joined left; …`, times in ms after [`NOW`].
    async fn tables(&self) -> String {
        let after = |column: &str| match self.backend.postgres {
            Some(_) => format!("round(extract(epoch FROM {column}) * 1000 - {NOW})"),
            None => format!("round((julianday({column}) - 2440587.5) * 86400000 - {NOW})"),
        };
        let text = |column: &str| format!("coalesce(CAST(CAST({} AS bigint) AS text), '-')", after(column));
        let list = if self.backend.postgres.is_some() { "string_agg" } else { "group_concat" };
        let run = format!(
            "SELECT status || ' ' || {} || ' ' || stays || '/' || participants || ': ' || coalesce((
                        SELECT {list}(stay, '; ') FROM (
                            SELECT coalesce(participant_id, '-') || ' ' || coalesce(display_name, '-') || ' ' || closed_by || ' ' ||
                                   {} || ' ' || {} AS stay
                              FROM attendance ORDER BY participant_id, joined_at) AS one), '-')
               FROM meetings",
            text("ended_at"),
            text("joined_at"),
            text("left_at")
        );
        self.backend.value(&run).await
    }

    async fn events(&self, source: &str) -> String {
        self.backend.value(&format!("SELECT CAST(count(*) AS text) FROM events WHERE source = '{source}'")).await
    }
}

const UUID: &str = "11112222333344445555666677778888";
const NUMBER: &str = "960000017";

fn stay(participant: &str, joined: i64, left: Option<i64>) -> Stay {
    Stay {
        display_name: format!("Person {participant}").into(),
        call_number: format!("+99111{participant}").into(),
        participant_id: participant.into(),
        user_uuid: None,
        account: None,
        host: false,
        device_type: "Web",
        joined: millis(NOW + joined),
        left: left.map(|left| millis(NOW + left)),
    }
}

fn of_meeting(event: &str, at: i64) -> String {
    format!(
        r#"{{"event":"{event}","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"{NUMBER}","meetingUUID":"{UUID}"}}}}}}"#,
        NOW + at
    )
}

fn of_person(event: &str, participant: &str, joined: i64, left: Option<i64>) -> String {
    format!(
        r#"{{"event":"{event}","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"{NUMBER}","meetingUUID":"{UUID}"}},"attendeeInfo":{{"participantID":"{participant}","displayName":"Person {participant}","callNumber":"+99111{participant}","joinTime":{},"leftTime":{}}}}}}}"#,
        NOW + left.unwrap_or(joined) + 50,
        NOW + joined,
        left.map_or(0, |left| NOW + left)
    )
}

async fn a_meeting_whose_end_was_lost_is_over_within_minutes_and_a_late_end_corrects_it(backend: Backend) {
    let mut rig = Rig::new(backend, |_| {}).await;
    let mut task = rig.task(None);
    rig.pushed(&[of_meeting("meeting.started", 0), of_person("meeting.join", "1", 10, None)]).await;
    rig.holds(State::Running, vec![stay("1", 10, None)], MINUTE);
    // Another meeting goes on, or the list would be empty.
    let other = Run { state: State::Running, ..Run::over("other", "960000018", millis(NOW), millis(NOW + MINUTE)) };
    rig.platform.edit(|archive| archive.put(other));
    let first = rig.reads(&mut task, 3).await.expect("a reading");
    assert_eq!((first.starts, first.ends), (1, 0), "the other one did not start here");
    let gone = 10 * MINUTE + 17_250;
    rig.holds(State::Over, vec![stay("1", 10, Some(gone))], gone + 400);
    assert_eq!(rig.reads(&mut task, 12).await.expect("a reading"), Healed::default(), "once is not enough");
    assert!(rig.backend.value(&format!("SELECT status FROM meetings WHERE meeting_uuid = '{UUID}'")).await == "live");
    assert_eq!(rig.reads(&mut task, 15).await.expect("a reading").ends, 1);
    rig.backend.execute("DELETE FROM meetings WHERE meeting_uuid = 'other'").await;
    assert_eq!(rig.tables().await, format!("ended {gone} 1/1: 1 Person 1 meeting_end 10 {gone}"));
    assert_eq!([Call::HistoryDetail, Call::Attendees].map(|call| rig.platform.count(call)), [1, 1]);
    assert_eq!(rig.events("platform").await, "2", "that start and this end");
    // The platform retries for a day.
    rig.pushed(&[of_meeting("meeting.end", gone + 500)]).await;
    let exact = gone + 500;
    assert_eq!(rig.tables().await, format!("ended {exact} 1/1: 1 Person 1 meeting_end 10 {exact}"));
}

async fn who_was_in_at_the_first_start_is_there_and_what_is_pushed_later_is_theirs(backend: Backend) {
    let mut rig = Rig::new(backend, |_| {}).await;
    let mut task = rig.task(None);
    let left_before = stay("0", -4 * MINUTE, Some(-3 * MINUTE));
    rig.holds(
        State::Running,
        vec![left_before, stay("1", -3 * MINUTE, None), stay("2", -2 * MINUTE, None)],
        60 * MINUTE,
    );
    let begun = Healed { starts: 1, joins: 2, ends: 0 };
    assert_eq!(rig.reads(&mut task, 0).await.expect("a reading"), begun);
    assert_eq!(rig.tables().await, "live - 2/2: 1 Person 1 open 0 -; 2 Person 2 open 0 -");
    assert_eq!(rig.reads(&mut task, 3).await.expect("a reading"), Healed::default(), "once");
    let joined = -3 * MINUTE;
    rig.pushed(&[of_person("meeting.left", "1", joined, Some(MINUTE))]).await;
    let expected = format!("live - 2/2: 1 Person 1 left {joined} {MINUTE}; 2 Person 2 open 0 -");
    assert_eq!(rig.tables().await, expected, "their stay, from the time that the left has");
    // Made anew the tables are the same.
    let lease = Lease { cursor: projection::CURSOR, owner: "us", ttl: LEASE_TIME };
    rig.tables.release().await;
    rig.log.lease(projection::CURSOR, "us", LEASE_TIME).await.expect("a database");
    rig.log.clear_tables(lease).await.expect("a database");
    rig.tables = Projector::new(rig.log.clone(), "us".to_owned());
    rig.follow().await;
    assert_eq!(rig.tables().await, expected);
    rig.pushed(&[of_meeting("meeting.end", 2 * MINUTE)]).await;
    let ended = 2 * MINUTE;
    let expected = format!("ended {ended} 2/2: 1 Person 1 left {joined} {MINUTE}; 2 Person 2 meeting_end 0 {ended}");
    assert_eq!(rig.tables().await, expected);
    // Nothing is live: nothing is asked any more.
    let before = rig.platform.count(Call::Running);
    assert_eq!(rig.reads(&mut task, 30).await.expect("a reading"), Healed::default());
    assert_eq!(rig.platform.count(Call::Running), before);
}

async fn what_history_tells_of_a_stay_has_columns_of_its_own(backend: Backend) {
    let mut rig = Rig::new(backend, |_| {}).await;
    rig.pushed(&[of_meeting("meeting.started", 0)]).await;
    let stay = PastStay {
        display_name: Some("Person 1".to_owned()),
        participant_id: Some("1".to_owned()),
        joined_at: Some(millis(NOW)),
        left_at: Some(millis(NOW + MINUTE)),
        left_reason: Some(1),
        device_type: Some("Soft terminal".to_owned()),
        media_type: Some("Video".to_owned()),
        department: Some("Sales".to_owned()),
        ..PastStay::default()
    };
    let run = FilledRun { meeting_id: Some(NUMBER), meeting_uuid: UUID, cycle_sub_id: None };
    let mut plan = Plan::default();
    let (joined, left) = (millis(NOW), millis(NOW + MINUTE));
    plan.add(FilledEvent::Join, joined, synthesis::join(joined, &run, &stay));
    plan.add(FilledEvent::Left, left, synthesis::left(joined, left, &run, &stay));
    let (clock, subscriber) = (Clock::Set(Arc::clone(&rig.clock)), Arc::from(APP_ID));
    store(&rig.intake, &clock, (&subscriber, Source::Backfill), &plan.events).await.expect("it is stored");
    rig.follow().await;
    let told = "SELECT device_type || ' ' || media_type || ' ' || department || ' ' || leave_reason FROM attendance";
    assert_eq!(rig.backend.value(told).await, "Soft terminal Video Sales network");
    // Read back, and written anew.
    rig.tables.release().await;
    rig.tables = Projector::new(rig.log.clone(), "us".to_owned());
    rig.pushed(&[of_meeting("meeting.end", 2 * MINUTE)]).await;
    assert_eq!(rig.backend.value(told).await, "Soft terminal Video Sales network");
}

async fn a_list_that_is_refused_short_empty_or_one_users_costs_nothing(backend: Backend) {
    let mut rig = Rig::new(backend, |_| {}).await;
    let mut task = rig.task(None);
    rig.pushed(&[of_meeting("meeting.started", 0), of_person("meeting.join", "1", 10, None)]).await;
    rig.holds(State::Running, vec![stay("1", 10, None)], MINUTE);
    rig.reads(&mut task, 0).await.expect("a reading");
    let empty = |count: u64| Fault::Body(format!(r#"{{"offset":0,"limit":500,"count":{count},"data":[]}}"#));
    let refused = Fault::Refuse(Refusal::new(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS"));
    rig.platform.inject(Call::Running, refused, 1);
    let error = rig.reads(&mut task, 10).await.expect_err("refused").to_string();
    assert!(error.contains("CONF_INSUFFICIENT_PERMISSIONS"), "{error}");
    rig.platform.inject(Call::Running, empty(3), 5);
    let error = rig.reads(&mut task, 13).await.expect_err("cut short").to_string();
    assert!(error.contains("announced 3 and returned 0"), "{error}");
    // Empty twice, and the history does not have it: it goes on.
    rig.platform.inject(Call::Running, empty(0), 2);
    for minute in [16, 19] {
        assert_eq!(rig.reads(&mut task, minute).await.expect("a reading"), Healed::default());
    }
    assert_eq!(rig.platform.count(Call::HistoryDetail), 1);
    // Empty though something was heard a moment ago.
    rig.pushed(&[of_person("meeting.join", "2", 20 * MINUTE, None)]).await;
    rig.platform.inject(Call::Running, empty(0), 1);
    assert_eq!(rig.reads(&mut task, 21).await.expect("a reading"), Healed::default());
    // Somebody who is no administrator is not even asked for.
    let before = rig.platform.count(Call::Running);
    let error = rig.task(Some("alice@example-corp")).read().await.expect_err("his own meetings only").to_string();
    assert!(error.contains("no administrator"), "{error}");
    assert_eq!(rig.platform.count(Call::Running), before);
    let open = format!("live - 2/2: 1 Person 1 open 10 -; 2 Person 2 open {} -", 20 * MINUTE);
    assert_eq!(rig.tables().await, open);
    assert_eq!(rig.events("platform").await, "0");
}

async fn who_was_taken_over_from_the_platform_can_be_forgotten(backend: Backend) {
    let mut rig = Rig::new(backend, |_| {}).await;
    let mut task = rig.task(None);
    rig.holds(State::Running, vec![stay("1", -MINUTE, None), stay("2", -MINUTE, None)], 60 * MINUTE);
    assert_eq!(rig.reads(&mut task, 0).await.expect("a reading").joins, 2);
    rig.tables.release().await;
    let builder = Convoke::builder().setting("DATABASE_URL", &rig.backend.url).setting("NATS_URL", "none");
    let forget = ["forget", "--call-number", "+991111", "--yes"];
    let forgot = forget.into_iter().fold(builder, |builder, argument| builder.arg(argument)).run().await;
    assert_eq!(forgot.code(), 0, "{}", forgot.stderr);
    let left = "SELECT CAST(count(*) AS text) FROM events WHERE source = 'platform' AND event_info LIKE '%991111%'";
    assert_eq!(rig.backend.value(left).await, "0");
    let stays = "SELECT CAST(count(display_name) AS text) || ' of ' || count(*) FROM attendance";
    assert_eq!(rig.backend.value(stays).await, "1 of 1", "of a stay without a time nothing is left");
}
