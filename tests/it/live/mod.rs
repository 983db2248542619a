//! What running meetings tell themselves, against the simulated platform: nothing that was told while somebody listened is lost, nothing is
//! there twice, and whatever goes wrong, the platform's own push does not notice.

mod interop;
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use convoke::cursor;
use convoke::intake::Intake;
use convoke::live::{self, LiveMetrics, LiveOptions, LivePace, LiveParts, LiveTopic};
use convoke::metrics::Registry;
use convoke::projection::Projector;
use convoke_core::id::Seq;
use convoke_core::time::{Clock, Millis};
use convoke_log::recent::RecentRows;
use convoke_log::{Handles, Store};
use convoke_platform::socket::{CertificateName, SocketTls};
use convoke_platform::{Client, Options};
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Refusal, Run, State, host_password};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::log_contract::fixture::{Backend, append, on_both};
use crate::support::tls;
use crate::support::wait::{eventually, stretched};
use crate::{forget, simulated_platform, support::service::WAIT_TIMEOUT};

on_both! {
    a_meeting_is_heard_through_two_cuts_and_a_killed_replica_and_log_tables_and_presence_equal_the_truth
    a_meeting_that_cannot_be_attended_says_so_once_and_a_command_mends_it
    only_what_is_wanted_is_attended_and_no_more_than_max_meetings
}

const NUMBER: &str = "960000017";
const UUID: &str = "11112222333344445555666677778888";

/// What a process needs for it, and a running meeting that was pushed.
struct Scene {
    backend: Backend,
    log: Arc<dyn Store>,
    platform: Platform,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    intake: Intake,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn now() -> Millis {
    Clock::System.now()
}

fn pushed(event: &str, at: Millis, attendee: &Value) -> String {
    let meeting = json!({ "meetingID": NUMBER, "meetingUUID": UUID });
    let mut info = json!({ "event": event, "timestamp": at.get(), "payload": { "meetingInfo": meeting } });
    if !attendee.is_null() {
        info["payload"]["attendeeInfo"] = attendee.clone();
    }
    info.to_string()
}

impl Scene {
    async fn new(backend: Backend, change: impl FnOnce(&mut PlatformOptions)) -> Self {
        let mut options = simulated_platform::options();
        change(&mut options);
        let platform = Platform::start(options).await.expect("it starts");
        let log = backend.log().await;
        let recent: Arc<RecentRows> = Arc::default();
        let (intake, writer) = Intake::new(log.clone(), Clock::System, Arc::clone(&recent));
        let (migrated, stop) = (CancellationToken::new(), CancellationToken::new());
        migrated.cancel();
        let tables = Projector::new(log.clone(), "tables".to_owned());
        let tasks = vec![
            tokio::spawn(writer.without_heartbeat().run(migrated, CancellationToken::new())),
            tokio::spawn(cursor::run(tables, log.clone(), recent, stop.clone())),
        ];
        let scene = Self { backend, log, platform, stop, tasks, intake };
        let started = now();
        scene.platform.edit(|archive| {
            let mut run = Run::over(UUID, NUMBER, started, started);
            (run.state, run.ended) = (State::Running, None);
            archive.put(run);
        });
        append(&scene.log, &[pushed("meeting.started", started, &Value::Null)]).await;
        scene
    }

    /// Attends, as the replica `owner`.
    fn attends(
        &self,
        owner: &str,
        change: impl FnOnce(&mut LiveOptions, &mut LivePace),
    ) -> (JoinHandle<()>, CancellationToken) {
        let mut options = LiveOptions {
            all: true,
            meetings: Vec::new(),
            hosts: Vec::new(),
            max_meetings: 20,
            topics: LiveTopic::ALL.to_vec(),
            retention: None,
            tls: SocketTls::default(),
        };
        // A second takes a second, but not so many of them.
        let (lease, grace) = (Duration::from_secs(2), Duration::from_millis(200));
        let mut pace = LivePace { lease, grace, ..LivePace::default() };
        change(&mut options, &mut pace);
        let api = Options::new(self.platform.url(), simulated_platform::APP_ID, simulated_platform::APP_KEY.into());
        let parts = LiveParts {
            owner: owner.to_owned(),
            log: self.log.clone(),
            intake: self.intake.clone(),
            client: Client::new(api, Clock::System).expect("a client"),
            options,
            pace,
            metrics: LiveMetrics::new(&Registry::default()),
            clock: Clock::System,
        };
        let (migrated, stop) = (CancellationToken::new(), self.stop.child_token());
        migrated.cancel();
        (tokio::spawn(live::run(parts, migrated, stop.clone())), stop)
    }

    async fn listened(&self, listeners: usize) {
        eventually("somebody listens", WAIT_TIMEOUT, async || {
            self.platform.in_meeting(NUMBER, |room| room.listeners()) == listeners
        })
        .await;
    }

    /// Events of running meetings in the log: type and message.
    async fn heard(&self) -> Vec<(String, Value)> {
        let rows = self.log.read(Seq::START, 10_000).await.expect("a database");
        let rows = rows.into_iter().filter(|row| row.source == "live");
        rows.map(|row| {
            let info: Value = serde_json::from_str(&row.event_info.expect("nobody was forgotten")).expect("JSON");
            assert_eq!((row.meeting_id.as_deref(), row.meeting_uuid.as_deref()), (Some(NUMBER), Some(UUID)));
            (row.event, info["payload"]["liveInfo"].clone())
        })
        .collect()
    }

    /// Waits until so many events of this type are there.
    async fn heard_of(&self, event: &str, count: usize) {
        eventually(&format!("{count} of {event}"), WAIT_TIMEOUT, async || {
            self.heard().await.iter().filter(|(kind, _)| kind == event).count() >= count
        })
        .await;
    }

    async fn standing(&self) -> Vec<(&'static str, String)> {
        let all = self.log.live_standings().await.expect("a database");
        all.into_iter().map(|it| (it.state.as_str(), it.reason.unwrap_or_default())).collect()
    }
}

fn id(message: &Value) -> String {
    message["msgID"].as_str().unwrap_or_default().to_owned()
}

async fn a_meeting_is_heard_through_two_cuts_and_a_killed_replica_and_log_tables_and_presence_equal_the_truth(
    backend: Backend,
) {
    let mut scene = Scene::new(backend, |_| {}).await;
    let platform = &scene.platform;
    let (first, _) = scene.attends("one", |_, _| {});
    scene.listened(1).await;
    let come = |pid: &str, number: &str| {
        let at = now();
        platform.in_meeting(NUMBER, |room| {
            room.join(pid, &[("NAME", &format!("Guest {pid}")), ("TEL", number), ("ADDTIME", &at.get().to_string())]);
        });
        json!({ "participantID": pid, "displayName": format!("Guest {pid}"), "callNumber": number, "joinTime": at.get(), "leftTime": 0, "role": "GENERAL" })
    };
    let (a, b) = (come("a", "+991"), come("b", "+992"));
    append(&scene.log, &[pushed("meeting.join", now(), &a), pushed("meeting.join", now(), &b)]).await;
    platform.in_meeting(NUMBER, |room| {
        room.reorders = true;
        for _ in 0..10 {
            room.change("a", &[("MUTE", "1")]);
            room.change("a", &[("MUTE", "0"), ("HAND", "1")]);
        }
        room.repeats = 5;
        room.cut();
        // Nobody hears this, until they come back.
        room.change("b", &[("SHARE", "1")]);
    });
    scene.listened(1).await;
    platform.in_meeting(NUMBER, |room| {
        room.wait("c", &[("NAME", "Guest c")]);
        room.speak(&["b"]);
        room.call_result("+993", "11076005");
        room.raw(r#"{"action":"SomethingNew","msgID":"new"}"#);
        room.cut();
    });
    scene.listened(1).await;
    scene.heard_of("live.gap", 2).await;
    // A process that is killed does not give its lease back.
    first.abort();
    eventually("it is gone", WAIT_TIMEOUT, async || first.is_finished()).await;
    let killed = tokio::time::Instant::now();
    let (_second, _) = scene.attends("two", |_, _| {});
    scene.heard_of("live.gap", 3).await;
    assert!(killed.elapsed() < stretched(Duration::from_secs(10)), "{:?}", killed.elapsed());
    scene.listened(1).await;
    let mut left = a.clone();
    left["leftTime"] = json!(now().get());
    append(&scene.log, &[pushed("meeting.left", now(), &left)]).await;
    scene.platform.in_meeting(NUMBER, |room| {
        room.reorders = false;
        room.change("b", &[("MUTE", "1")]);
        room.call_result("+991", "11076002");
        room.leave("a");
    });
    eventually("it is shown who is there, and how", WAIT_TIMEOUT, async || {
        let rows = scene.backend.value(
            "SELECT string_agg(participant_id || ':' || place || ':' || display_name || ':'
                    || CASE WHEN muted THEN 'm' ELSE '' END || CASE WHEN hand_raised THEN 'h' ELSE '' END
                    || CASE WHEN sharing THEN 's' ELSE '' END || CASE WHEN speaking THEN 't' ELSE '' END, ' ' ORDER BY participant_id)
               FROM live_presence",
        );
        let rows = rows.await;
        if rows == "b:in:Guest b:mst c:waiting:Guest c:" { Ok(()) } else { Err(rows) }
    })
    .await;
    let told: Vec<Value> = scene.platform.in_meeting(NUMBER, |room| {
        room.end();
        room.told.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    });
    // The platform's own end is lost: the meeting told it.
    eventually("it is over", WAIT_TIMEOUT, async || {
        let status = scene.backend.value(&format!("SELECT status FROM meetings WHERE meeting_uuid = '{UUID}'")).await;
        let left = scene.backend.value("SELECT count(*) FROM live_meetings").await;
        let present = scene.backend.value("SELECT count(*) FROM live_presence").await;
        if (&*status, &*left, &*present) == ("ended", "0", "0") {
            Ok(())
        } else {
            Err(format!("{status} {left} {present}"))
        }
    })
    .await;
    let heard = scene.heard().await;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for (_, message) in &heard {
        *times.entry(id(message)).or_default() += 1;
    }
    for message in &told {
        assert_eq!(times.get(&id(message)), Some(&1), "{message}");
    }
    let known: BTreeSet<String> = told.iter().map(id).collect();
    let kept = heard.iter().filter(|(_, message)| message["msgMode"] == 1).map(|(_, message)| id(message));
    assert!(kept.collect::<BTreeSet<_>>().is_subset(&known));
    let kinds: BTreeSet<&str> = heard.iter().map(|(kind, _)| kind.as_str()).collect();
    let all = [
        "live.call_result",
        "live.gap",
        "live.meeting",
        "live.other",
        "live.participants",
        "live.speakers",
        "live.status",
        "live.waiting_room",
    ];
    assert_eq!(kinds, all.into());
    let log = format!("{heard:?}");
    assert!(
        !log.contains(&host_password(NUMBER)) && !log.contains("guestJoinUri") && !log.contains("confToken"),
        "{log}"
    );
    // What came of calls, and why somebody left.
    let calls = "SELECT string_agg(call_number || ' ' || coalesce(reason, '') || ' ' || came_later, ',') FROM failed_invitations";
    let calls = scene.backend.value(calls).await;
    assert!(["+993 no_answer 0", "+993 no_answer false"].contains(&&*calls), "{calls}");
    let reasons = "SELECT string_agg(display_name || ' ' || coalesce(leave_reason, '-'), ',' ORDER BY display_name) FROM attendance";
    assert_eq!(scene.backend.value(reasons).await, "Guest a removed_by_host,Guest b -");
    // Who is forgotten is in none of the messages any more.
    let handles = Handles { call_numbers: vec!["+991".to_owned()], ..Handles::default() };
    forget::tables::forget(&scene.backend, handles).erase(false, |_| {}).await.expect("it is erased");
    let named = r#"event_info LIKE '%"a"%' OR event_info LIKE '%+991%' OR event_info LIKE '%Guest a%'"#;
    let left = scene.backend.value(&format!("SELECT count(*) FROM events WHERE {named}")).await;
    let results = scene.backend.value("SELECT string_agg(call_number, ',') FROM call_results").await;
    let others = scene.backend.value("SELECT count(*) FROM events WHERE event_info LIKE '%+993%'").await;
    assert_eq!((&*left, &*results, &*others), ("0", "+993", "1"));
    scene.stop.cancel();
    scene.tasks.drain(..).for_each(|task| task.abort());
}

async fn a_meeting_that_cannot_be_attended_says_so_once_and_a_command_mends_it(backend: Backend) {
    let scene = Scene::new(backend, |options| {
        (options.tells_password, options.minute) = (false, Duration::from_secs(1));
    })
    .await;
    let (_task, _) = scene.attends("one", |_, _| {});
    let stands = async |state: &str, words: &str| {
        eventually(&format!("{state}: {words}"), WAIT_TIMEOUT, async || {
            let all = scene.standing().await;
            let right = matches!(&*all, [(its, why)] if *its == state && why.contains(words));
            if right { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
    };
    stands("no_password", "does not tell this account the host's password").await;
    // Its clock is put an hour ahead of ours.
    scene.platform.set_ahead(3_600_000);
    scene.log.attach_live(NUMBER, Some("wrong")).await.expect("a database");
    stands("refused", "the password that was given is wrong").await;
    assert_eq!(scene.platform.count(Call::ControlToken), 1, "a wrong password is not tried again");
    // Faults pass, and so does what is no message.
    scene.platform.inject(Call::ControlToken, Fault::TooMany, 1);
    scene.platform.inject(Call::SocketToken, Fault::Refuse(Refusal::BUSY), 1);
    scene.log.attach_live(NUMBER, Some(&host_password(NUMBER))).await.expect("a database");
    stands("attending", "").await;
    scene.listened(1).await;
    scene.platform.in_meeting(NUMBER, |room| {
        room.raw("{");
        room.raw("no message");
        room.raw(&"[".repeat(100_000));
        room.join("a", &[("NAME", "A\0\u{1F600}")]);
        room.raw(&json!({ "action": "New", "x": "x".repeat(1 << 20) }).to_string());
    });
    // Too long: the connection is given up, and opened again.
    scene.heard_of("live.gap", 1).await;
    scene.listened(1).await;
    // The end is pushed: nothing is attended any more, and the password is gone.
    append(&scene.log, &[pushed("meeting.end", now(), &Value::Null)]).await;
    eventually("it is forgotten", WAIT_TIMEOUT, async || scene.standing().await.is_empty()).await;
    scene.heard_of("live.participants", 1).await;
    // What it told is kept for its own time, and what was pushed for another.
    let old = "UPDATE events SET received_at = '2026-01-01T00:00:00.000Z', occurred_at = '2026-01-01T00:00:00.000Z'";
    scene.backend.execute(&format!("{old} WHERE event IN ('live.gap', 'meeting.started')")).await;
    eventually("what is old is gone", WAIT_TIMEOUT, async || {
        scene.log.expire_live(Duration::from_secs(86_400)).await.expect("a database");
        scene.heard().await.iter().all(|(kind, _)| kind != "live.gap")
    })
    .await;
    assert!(!scene.heard().await.is_empty());
    assert_eq!(scene.backend.value("SELECT count(*) FROM events WHERE event = 'meeting.started'").await, "1");
}

async fn only_what_is_wanted_is_attended_and_no_more_than_max_meetings(backend: Backend) {
    const OTHER: &str = "960000018";
    const HOST: &str = "0123456789abcdef0123456789abcdef";
    let scene = Scene::new(backend, |_| {}).await;
    let (started, other_uuid) = (now(), UUID.replace('1', "9"));
    scene.platform.edit(|archive| {
        let mut run = Run::over(&other_uuid, OTHER, started, started);
        (run.state, run.ended, run.scheduler_uuid) = (State::Running, None, Some(HOST.to_owned()));
        archive.put(run);
    });
    let other = pushed("meeting.started", started, &Value::Null).replace(NUMBER, OTHER).replace(UUID, &other_uuid);
    append(&scene.log, &[other]).await;
    let listeners = |number: &str| scene.platform.in_meeting(number, |room| room.listeners());
    // By its host.
    let (task, stop) = scene.attends("one", |options, _| (options.all, options.hosts) = (false, vec![HOST.to_owned()]));
    eventually("its host's meeting is attended, the other is not", WAIT_TIMEOUT, async || {
        let all = scene.standing().await;
        let unwanted = ("unwanted", "its host is not in live.hosts".to_owned());
        if listeners(OTHER) == 1 && all.contains(&unwanted) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    assert_eq!(listeners(NUMBER), 0);
    stop.cancel();
    task.await.expect("it ends");
    // One at a time: the second waits until the first is over.
    for number in [NUMBER, OTHER] {
        scene.log.attach_live(number, Some(&host_password(number))).await.expect("a database");
    }
    let (_task, _) = scene.attends("two", |options, _| options.max_meetings = 1);
    let attended = async || {
        eventually("one is attended", WAIT_TIMEOUT, async || {
            let both = (listeners(NUMBER), listeners(OTHER));
            assert_ne!(both, (1, 1), "there is room for one");
            if both == (0, 0) { Err(format!("{:?}", scene.standing().await)) } else { Ok(()) }
        })
        .await;
        if listeners(NUMBER) == 1 { NUMBER } else { OTHER }
    };
    let first = attended().await;
    scene.platform.in_meeting(first, |room| room.end());
    eventually("the other one follows", WAIT_TIMEOUT, async || attended().await != first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_on_an_address_is_checked_by_its_own_authority_and_name_and_a_server_that_freezes_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    tls::certificate(&cert, &key);
    let files = (cert.clone(), key);
    let scene = Scene::new(Backend::sqlite(), |options| {
        (options.socket_tls, options.control_token_valid) = (Some(files), Duration::from_secs(1));
    })
    .await;
    for (ca, name, works) in [
        (None, CertificateName::Any, false),
        (Some(cert.clone()), CertificateName::Named("convoke.example".to_owned()), false),
        (Some(cert.clone()), CertificateName::Any, true),
        (Some(cert.clone()), CertificateName::Address, true),
    ] {
        let stop = if works {
            let (task, stop) = scene.attends("one", |options, pace| {
                options.tls = SocketTls { ca, name };
                (pace.beat, pace.silence) = (Duration::from_millis(100), Duration::from_millis(400));
            });
            scene.listened(1).await;
            (task, stop)
        } else {
            let (task, stop) = scene.attends("one", |options, _| options.tls = SocketTls { ca, name });
            eventually("it says why", WAIT_TIMEOUT, async || {
                let all = scene.standing().await;
                if all.iter().any(|(_, why)| why.contains("TLS: ")) { Ok(()) } else { Err(format!("{all:?}")) }
            })
            .await;
            (task, stop)
        };
        let (task, stopped) = stop;
        if works {
            // Heartbeats are answered, and the control token is kept alive; then nothing is.
            let (asked, opened) = (scene.platform.count(Call::ControlToken), scene.platform.count(Call::SocketToken));
            eventually("it is kept alive", WAIT_TIMEOUT, async || scene.platform.count(Call::ControlToken) > asked)
                .await;
            assert_eq!(scene.platform.count(Call::SocketToken), opened);
            scene.platform.in_meeting(NUMBER, |room| room.frozen = true);
            eventually("it is left", WAIT_TIMEOUT, async || {
                let all = scene.standing().await;
                if all.iter().any(|(_, why)| why.contains("no answer within")) {
                    Ok(())
                } else {
                    Err(format!("{all:?}"))
                }
            })
            .await;
            scene.platform.in_meeting(NUMBER, |room| room.frozen = false);
        }
        stopped.cancel();
        task.await.expect("it ends");
        scene.listened(0).await;
    }
}
