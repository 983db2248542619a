//! The analyst tables of somebody forgotten are what the log makes of them.

use std::sync::Arc;

use convoke::{cursor, forget::Forget};
use convoke_log::{Handles, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::person::{ADA, BOB, event, no_secret, settled};
use crate::{
    log_contract::fixture::{Backend, append},
    support::sign::NOW,
    tables::{
        as_json::Seen,
        projection::{self, catch_up, happened},
    },
};

/// The cursor at work, as a service has it.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(log: &Arc<dyn Store>) -> Self {
        let stop = CancellationToken::new();
        let tables = projection::cursor(log, "a service");
        let task = tokio::spawn(cursor::run(tables, log.clone(), Arc::default(), stop.clone()));
        Self { stop, task }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }
}

pub fn forget(backend: &Backend, handles: Handles) -> Forget {
    Forget::new(backend.open(), None, handles, "a command".to_owned())
}

pub fn ada() -> Handles {
    Handles { users: vec![ADA.user.to_owned()], accounts: vec![ADA.account.to_owned()], ..Handles::default() }
}

/// The tables rebuilt from nothing but the log.
pub async fn rebuilt(backend: &Backend, log: &Arc<dyn Store>) -> Seen {
    for table in ["cursors", "meetings", "attendance", "recordings"] {
        backend.execute(&format!("DELETE FROM {table}")).await;
    }
    catch_up(&mut projection::cursor(log, "another")).await;
    Seen::of(backend).await
}

pub async fn a_rebuild_after_it_makes_the_same_tables(backend: Backend) {
    let log = backend.log().await;
    let events = happened(900);
    let (before, during) = events.split_at(600);
    log.append(before).await.expect("appended");
    let running = Running::start(&log);
    settled(&backend).await;
    // Who was there most often, by the user; and somebody by the number.
    let most = |column: &str| {
        format!(
            "SELECT {column} FROM attendance WHERE {column} IS NOT NULL GROUP BY {column} ORDER BY count(*) DESC LIMIT 1"
        )
    };
    let handles = Handles {
        users: vec![backend.value(&most("user_uuid")).await],
        call_numbers: vec![backend.value(&most("call_number")).await],
        ..Handles::default()
    };
    let theirs = format!("user_uuid = '{}' OR call_number = '{}'", handles.users[0], handles.call_numbers[0]);
    let stays: u64 =
        backend.value(&format!("SELECT count(*) FROM attendance WHERE {theirs}")).await.parse().expect("a count");
    assert!(stays > 3, "too little happened");
    // Half of it is not in the tables when it begins.
    log.append(during).await.expect("appended");
    let report = forget(&backend, handles).erase(false, |_| {}).await.expect("it is erased");
    assert!(report.erasure.counts.stays >= i64::try_from(stays).expect("a count") / 2, "{report:?}");
    settled(&backend).await;
    running.end().await;
    for table in ["events", "attendance"] {
        assert_eq!(backend.value(&format!("SELECT count(*) FROM {table} WHERE {theirs}")).await, "0");
    }
    let seen = Seen::of(&backend).await;
    assert_eq!(rebuilt(&backend, &log).await, seen);
}

pub async fn what_an_older_event_of_a_stay_held_is_erased_too(backend: Backend) {
    let log = backend.log().await;
    // Ada joined, and the left of the same stay names another user: the columns show that one, and `internal` both.
    let left = format!(
        r#""userUUID":"other","participantID":"{}","joinTime":{},"leftTime":{}"#,
        ADA.participant,
        NOW + 10,
        NOW + 90
    );
    append(
        &log,
        &[
            event("11", "meeting.join", 15, &ADA.attendee(10, 0)),
            event("11", "meeting.left", 95, &left),
            BOB.stay("11", 20, 30)[0].clone(),
        ],
    )
    .await;
    let running = Running::start(&log);
    settled(&backend).await;
    // The log has the join no more.
    backend.execute("DELETE FROM events WHERE event = 'meeting.join' AND account LIKE 'ada%'").await;
    forget(&backend, ada()).erase(false, |_| {}).await.expect("it is erased");
    running.end().await;
    let kept = "SELECT count(*) FROM attendance WHERE user_uuid IS NOT NULL";
    assert_eq!(backend.value(kept).await, "1", "Bob's");
    no_secret("the database", &super::person::dump(&backend).await);
}
