//! The queue and its writer, tested with a scripted log.

mod scripted;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::task::JoinSet;

use super::*;
use convoke_core::event::{Delivery, Subscriber};
use convoke_core::verify::{Keyring, verify};
use scripted::Scripted;

const NOW: i64 = 1_781_524_800_000;

fn millis(ms: i64) -> Millis {
    Millis::new(ms).expect("a time in range")
}

/// A delivery with this `eventInfo`, verified the only way there is.
fn delivery(event_info: &str) -> (Verified, Bytes) {
    delivery_with("1", event_info)
}

fn delivery_with(nonce: &str, event_info: &str) -> (Verified, Bytes) {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"key").expect("a key of any length");
    mac.update(format!("a1781524800000{nonce}{event_info}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let body = Bytes::from(format!(
        r#"{{"appID":"a","timestamp":1781524800000,"nonce":"{nonce}","signature":"{signature}","eventInfo":{event_info}}}"#
    ));
    let keyring = Keyring::new(&[Subscriber { app_id: "a".into(), keys: vec!["key".into()], name: None }]);
    let delivery = Delivery { received_at: millis(NOW), request_id: None, traceparent: None };
    (verify(&body, &keyring, &delivery).expect("it is signed").verified, body)
}

fn info(name: &str) -> String {
    format!(r#"{{"event":"{name}","timestamp":{NOW}}}"#)
}

struct Harness {
    log: Arc<Scripted>,
    intake: Intake,
    recent: Arc<RecentRows>,
    migrated: CancellationToken,
    time: Arc<AtomicI64>,
    finish: CancellationToken,
    writer: JoinSet<()>,
}

impl Harness {
    fn not_migrated() -> Self {
        let log = Arc::new(Scripted::default());
        let recent = Arc::new(RecentRows::default());
        let time = Arc::new(AtomicI64::new(NOW));
        let (intake, writer) =
            Intake::new(log.clone() as Arc<dyn Log>, Clock::Set(Arc::clone(&time)), Arc::clone(&recent));
        let (migrated, finish) = (CancellationToken::new(), CancellationToken::new());
        let mut set = JoinSet::new();
        set.spawn(writer.run(migrated.clone(), finish.clone()));
        Self { log, intake, recent, migrated, time, finish, writer: set }
    }

    /// A harness whose log answers at once.
    async fn open() -> Self {
        let harness = Self::not_migrated();
        harness.log.let_through(10_000);
        harness.migrate().await;
        harness
    }

    /// A delivery that arrives at the same moment may still be refused.
    async fn migrate(&self) {
        self.migrated.cancel();
        while !self.intake.accepting() {
            tokio::task::yield_now().await;
        }
    }

    /// A harness whose log holds its next append, which has begun with this first delivery.
    async fn held() -> (Self, Answer) {
        let harness = Self::open().await;
        harness.log.hold();
        let first = harness.store("first");
        harness.log.wait_begun().await;
        (harness, first)
    }

    /// A caller that stores the event with this name and waits for the outcome.
    fn store(&self, name: &str) -> Answer {
        self.store_at(&info(name), NOW)
    }

    /// The delivery is in the queue when this returns, if there is room.
    fn store_at(&self, event_info: &str, at: i64) -> Answer {
        let (verified, body) = delivery(event_info);
        self.enqueue(verified, body, at)
    }

    /// As if the event had been read from this body.
    fn store_body(&self, name: &str, body: Bytes) -> Answer {
        self.enqueue(delivery(&info(name)).0, body, NOW)
    }

    fn enqueue(&self, verified: Verified, body: Bytes, at: i64) -> Answer {
        let intake = self.intake.clone();
        let mut answer: Answer = Box::pin(async move { intake.store(verified, body, millis(at)).await });
        if let Some(early) = now(&mut answer) {
            answer = Box::pin(std::future::ready(early));
        }
        answer
    }

    fn store_all(&self, names: &[&str]) -> Vec<Answer> {
        names.iter().map(|name| self.store(name)).collect()
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Appended, NotStored>> + Send>>;

/// The outcome, if it is known yet.
fn now(answer: &mut Answer) -> Option<Result<Appended, NotStored>> {
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

async fn answers(waiting: Vec<Answer>) -> Vec<Result<Appended, NotStored>> {
    let mut outcomes = Vec::new();
    for answer in waiting {
        outcomes.push(answer.await);
    }
    outcomes
}

#[tokio::test]
async fn nobody_is_answered_before_the_append_returned() {
    let (harness, mut first) = Harness::held().await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!(now(&mut first), None);
    }
    let appended = harness.recent.appended();
    harness.log.let_through(1);
    assert_eq!(first.await, Ok(Appended::Stored));
    appended.await;
}

#[tokio::test]
async fn what_gathered_during_a_commit_goes_into_the_next_up_to_a_bound() {
    let (harness, first) = Harness::held().await;
    let names: Vec<_> = (0..300).map(|n| format!("e{n}")).collect();
    let waiting: Vec<_> = names.iter().map(|name| harness.store(name)).collect();
    harness.log.let_through(10);
    assert_eq!(first.await, Ok(Appended::Stored));
    assert_eq!(answers(waiting).await, vec![Ok(Appended::Stored); 300]);
    let batches = harness.log.batches();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, MAX_BATCH, 44]);
    assert_eq!(batches[1..].concat(), names, "in the order in which they came");
}

#[tokio::test]
async fn of_copies_in_one_batch_the_first_is_stored_and_the_others_are_duplicates() {
    let (harness, first) = Harness::held().await;
    let unreadable = r#"{"event":""}"#;
    let waiting = vec![
        harness.store_at(&info("a"), NOW + 1),
        harness.store_at(&info("b"), NOW),
        harness.store_at(&info("a"), NOW + 9),
        harness.store_at(unreadable, NOW),
        harness.store_at(&info("a"), NOW + 5),
        harness.store_at(unreadable, NOW),
        harness.store("first"),
    ];
    harness.log.let_through(10);
    assert_eq!(first.await, Ok(Appended::Stored));
    use Appended::{Duplicate, Quarantined, Stored};
    let expected = [Stored, Stored, Duplicate, Quarantined, Duplicate, Quarantined, Duplicate].map(Ok);
    assert_eq!(answers(waiting).await, expected);
    assert_eq!(harness.log.batches()[1], ["a", "b", "-", "first"]);
    let merged = harness.log.merged();
    assert_eq!(merged[1..], [(3, NOW + 9), (1, NOW), (2, NOW), (1, NOW)]);
}

#[tokio::test]
async fn only_the_event_that_the_database_refuses_goes_to_the_quarantine() {
    let (harness, first) = Harness::held().await;
    harness.log.refuse(["bad", "worse"]);
    let waiting = harness.store_all(&["a", "b", "bad", "c", "d", "bad", "e", "f", "worse"]);
    harness.log.let_through(100);
    assert_eq!(first.await, Ok(Appended::Stored));
    use Appended::{Quarantined, Stored};
    let expected = [Stored, Stored, Quarantined, Stored, Stored, Quarantined, Stored, Stored, Quarantined].map(Ok);
    assert_eq!(answers(waiting).await, expected);
    assert_eq!(harness.log.stored(), ["first", "a", "b", "c", "d", "e", "f"], "in order, all the same");
    let quarantined = harness.log.quarantined();
    assert_eq!(quarantined.iter().map(|(_, deliveries)| *deliveries).collect::<Vec<_>>(), [2, 1]);
    for ((unreadable, _), name) in quarantined.iter().zip(["bad", "worse"]) {
        assert_eq!(unreadable.body, delivery(&info(name)).1, "the whole body is kept");
        assert_eq!(unreadable.reason, "the database refuses it: by the script");
        assert_eq!(&*unreadable.subscriber_id, "a");
    }
    assert!(harness.intake.accepting(), "one bad row says nothing about the database");
}

#[tokio::test]
async fn a_refused_event_that_cannot_even_be_quarantined_is_not_acknowledged() {
    let (harness, first) = Harness::held().await;
    harness.log.refuse(["bad"]);
    harness.log.refuse_quarantine();
    let waiting = harness.store_all(&["a", "bad", "b"]);
    harness.log.let_through(100);
    assert_eq!(first.await, Ok(Appended::Stored));
    let expected = [Ok(Appended::Stored), Err(NotStored::Unavailable), Ok(Appended::Stored)];
    assert_eq!(answers(waiting).await, expected);
}

#[tokio::test]
async fn a_log_that_fails_once_is_asked_again_and_one_that_fails_twice_is_unavailable() {
    let harness = Harness::open().await;
    harness.log.fail_next(&[true]);
    assert_eq!(harness.store("a").await, Ok(Appended::Stored));
    assert_eq!(harness.log.batches(), [["a"], ["a"]]);
    assert!(harness.intake.accepting());

    harness.log.fail_next(&[true, true]);
    assert_eq!(harness.store("b").await, Err(NotStored::Unavailable));
    assert!(!harness.intake.accepting());
    assert_eq!(harness.intake.refusing_for(), Duration::ZERO, "since now, by the clock that it was given");
    // Another attempt is made all the same, and succeeds.
    assert_eq!(harness.store("b").await, Ok(Appended::Stored));
    assert!(harness.intake.accepting());
    assert_eq!(harness.log.stored(), ["a", "b"]);
}

#[tokio::test]
async fn what_was_stored_before_the_log_failed_is_acknowledged_and_the_rest_is_not() {
    let (harness, first) = Harness::held().await;
    harness.log.refuse(["bad"]);
    // The first delivery; the whole batch, which is rejected; its first half; its second half, which fails twice.
    harness.log.fail_next(&[false, false, false, true, true]);
    let waiting = harness.store_all(&["a", "b", "bad", "c"]);
    harness.log.let_through(100);
    assert_eq!(first.await, Ok(Appended::Stored));
    let lost = Err(NotStored::Unavailable);
    assert_eq!(answers(waiting).await, [Ok(Appended::Stored), Ok(Appended::Stored), lost, lost]);
    assert_eq!(harness.log.stored(), ["first", "a", "b"]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_by_number_and_by_bytes() {
    let (harness, first) = Harness::held().await;
    let waiting: Vec<_> = (0..MAX_QUEUED).map(|n| harness.store(&format!("e{n}"))).collect();
    assert_eq!(now(&mut harness.store("one more")), Some(Err(NotStored::QueueFull)));
    harness.log.let_through(1_000);
    assert_eq!(first.await, Ok(Appended::Stored));
    assert!(answers(waiting).await.iter().all(|outcome| *outcome == Ok(Appended::Stored)));

    let (harness, first) = Harness::held().await;
    let large = || harness.store_body("large", Bytes::from(vec![b' '; MAX_QUEUED_BYTES / 3]));
    let mut waiting = vec![large(), large()];
    assert_eq!(now(&mut large()), Some(Err(NotStored::QueueFull)));
    waiting.push(harness.store("a small one"));
    harness.log.let_through(1_000);
    assert_eq!(first.await, Ok(Appended::Stored));
    use Appended::{Duplicate, Stored};
    assert_eq!(answers(waiting).await, [Ok(Stored), Ok(Duplicate), Ok(Stored)]);
    assert_eq!(large().await, Ok(Duplicate), "there is room again");
}

#[tokio::test]
async fn callers_that_gave_up_are_passed_over() {
    let (harness, first) = Harness::held().await;
    let mut waiting = harness.store_all(&["a", "b", "a", "c"]);
    // The first copy of `a`, and `c`.
    drop((waiting.remove(3), waiting.remove(0)));
    harness.log.let_through(10);
    assert_eq!(first.await, Ok(Appended::Stored));
    assert_eq!(answers(waiting).await, [Ok(Appended::Stored), Ok(Appended::Stored)]);
    assert_eq!(harness.log.batches()[1], ["b", "a"]);
    assert_eq!(harness.log.merged()[1..], [(1, NOW), (1, NOW)]);

    harness.log.hold();
    let gone = harness.store("d");
    harness.log.wait_begun().await;
    drop((gone, harness.store("e")));
    harness.log.let_through(10);
    assert_eq!(harness.store("f").await, Ok(Appended::Stored), "giving up in the middle harms nobody else");
    assert_eq!(harness.log.stored(), ["first", "b", "a", "d", "f"]);
}

#[tokio::test]
async fn a_handshake_is_noted_and_nobody_waits_for_it() {
    let (harness, first) = Harness::held().await;
    harness.intake.note(delivery(r#"{"event":"meeting.verify"}"#).0, millis(NOW));
    harness.intake.note(delivery(r#"{"event":"meeting.verify"}"#).0, millis(NOW + 1));
    let waiting = harness.store("a");
    harness.log.let_through(10);
    assert_eq!((first.await, waiting.await), (Ok(Appended::Stored), Ok(Appended::Stored)));
    assert_eq!(harness.log.batches()[1], ["meeting.verify", "a"]);
}

#[tokio::test]
async fn a_probe_is_not_taken_for_a_copy_of_a_handshake() {
    let (harness, first) = Harness::held().await;
    for nonce in ["1", "convoke-probe-1", "2", "convoke-probe-2"] {
        harness.intake.note(delivery_with(nonce, r#"{"event":"meeting.verify"}"#).0, millis(NOW));
    }
    harness.log.let_through(10);
    assert_eq!(first.await, Ok(Appended::Stored));
    assert_eq!(harness.store("a").await, Ok(Appended::Stored));
    assert_eq!(harness.log.batches()[1], ["meeting.verify"; 3]);
}

#[tokio::test]
async fn until_the_log_is_migrated_everything_is_refused_at_once() {
    let harness = Harness::not_migrated();
    assert!(!harness.intake.accepting());
    assert_eq!(harness.store("a").await, Err(NotStored::Unavailable));
    assert_eq!(harness.log.batches(), [[""; 0]; 0]);
    harness.log.let_through(10);
    harness.migrate().await;
    assert_eq!(harness.store("a").await, Ok(Appended::Stored));
    assert!(harness.intake.accepting());
}

#[tokio::test]
async fn the_writer_stores_what_is_queued_before_it_ends() {
    let (harness, first) = Harness::held().await;
    let waiting = harness.store_all(&["a", "b"]);
    let Harness { log, intake, mut writer, .. } = harness;
    drop(intake);
    log.let_through(10);
    assert_eq!(first.await, Ok(Appended::Stored));
    assert_eq!(answers(waiting).await, [Ok(Appended::Stored), Ok(Appended::Stored)]);
    writer.join_next().await.expect("the writer").expect("it ends");
    assert_eq!(log.stored(), ["first", "a", "b"]);
}

#[tokio::test]
async fn while_events_are_accepted_the_heartbeat_is_written_each_minute_and_at_the_end() {
    let mut harness = Harness::open().await;
    assert_eq!(harness.store("first").await, Ok(Appended::Stored));
    let begun = harness.log.beats();
    assert!(begun <= 1, "one at the start");
    for (minute, name) in ["second", "third", "fourth"].into_iter().enumerate() {
        harness.time.fetch_add(60_000, Ordering::Relaxed);
        // The first call may return before the writer looks at the clock; the second one returns after that.
        assert_eq!(harness.store(name).await, Ok(Appended::Stored));
        assert_eq!(harness.store(name).await, Ok(Appended::Duplicate));
        assert_eq!(harness.log.beats(), 2 + u32::try_from(minute).unwrap());
    }
    harness.finish.cancel();
    harness.writer.join_next().await.expect("it ends").expect("no panic");
    assert_eq!(harness.log.beats(), 5);
}

#[tokio::test]
async fn how_long_nobody_accepted_events_before_the_start_counts_while_they_are_refused() {
    let harness = Harness::not_migrated();
    harness.log.set_heartbeat(Duration::from_secs(5 * 3600));
    harness.log.refuse_probes(true);
    harness.time.fetch_add(60_000, Ordering::Relaxed);
    assert_eq!((harness.intake.refusing_for().as_secs(), harness.intake.refusing_at_least()), (60, true));
    harness.migrated.cancel();
    while harness.intake.refusing_at_least() {
        tokio::task::yield_now().await;
    }
    assert_eq!((harness.intake.refusing_for().as_secs(), harness.intake.accepting()), (5 * 3600, false));
    harness.log.refuse_probes(false);
    harness.migrate().await;
    assert_eq!(harness.intake.refusing_for(), Duration::ZERO);
}
