//! When to ask, what a response means, and the bytes of `record.ready`.

use std::time::Duration;

use super::decide::{RETRIES, RETRY_PERIOD, first_attempt_at, judge, judge_failure};
use super::ready::{Found, Info, Ready};
use convoke_core::time::Millis;
use convoke_log::{RecordingOutcome, RecordingWorkItem};
use convoke_platform::{Class, RecordFile, Segment, SegmentFile, Viewers};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time in range")
}

/// When the recording finished.
const FINISHED: i64 = 1_781_524_800_000;

fn fetch() -> RecordingWorkItem {
    RecordingWorkItem {
        subscriber_id: "7700001234".to_owned(),
        meeting_uuid: "11112222333344445555666677778888".to_owned(),
        meeting_id: Some("960000017".to_owned()),
        finishes: 1,
        finished_at: at(FINISHED),
        tries: 0,
        ready: false,
        event_info: None,
    }
}

fn decoded() -> RecordFile {
    RecordFile {
        urls: vec!["https://u:p@192.0.2.30/rse/play.html;s=1?recordId=demo&token=secret#secret".to_owned()],
        length_s: Some(3_400),
        size_mb: Some(210),
        decoded: true,
        decode_end: Some(at(FINISHED + 300_000)),
        viewers: Some(Viewers::Enterprise),
        ..RecordFile::default()
    }
}

fn now() -> Millis {
    at(FINISHED).plus(10 * MINUTE)
}

fn event_info(fetched: RecordingOutcome) -> String {
    match fetched {
        RecordingOutcome::Ready { event_info, .. } => event_info,
        other => panic!("not ready: {other:?}"),
    }
}

#[test]
fn the_event_is_these_bytes_and_holds_no_secret() {
    let info = event_info(judge(&fetch(), &Found::of_file(&decoded()), now()));
    assert_eq!(
        info,
        r#"{"event":"record.ready","timestamp":1781525100000,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"recordInfo":{"lengthSeconds":3400,"sizeMB":210,"files":1,"viewUrl":"https://192.0.2.30/rse/play.html?recordId=demo","viewers":"enterprise"}}}"#
    );
}

#[test]
fn what_the_platform_does_not_say_is_null() {
    let file = RecordFile { decoded: true, ..RecordFile::default() };
    let fetch = RecordingWorkItem { meeting_id: None, ..fetch() };
    assert_eq!(
        event_info(judge(&fetch, &Found::of_file(&file), now())),
        r#"{"event":"record.ready","timestamp":1781524800000,"payload":{"meetingInfo":{"meetingID":null,"meetingUUID":"11112222333344445555666677778888"},"recordInfo":{"lengthSeconds":null,"sizeMB":null,"files":null,"viewUrl":null,"viewers":null}}}"#
    );
}

#[test]
fn it_happened_when_decoding_ended_but_neither_before_the_finish_nor_in_the_future() {
    let timestamp = |decode_end: i64| {
        let file = RecordFile { decode_end: Some(at(decode_end)), ..decoded() };
        let info = event_info(judge(&fetch(), &Found::of_file(&file), now()));
        serde_json::from_str::<serde_json::Value>(&info).expect("JSON")["timestamp"].as_i64()
    };
    assert_eq!(timestamp(FINISHED + 1), Some(FINISHED + 1));
    assert_eq!(timestamp(FINISHED - 1), Some(FINISHED));
    assert_eq!(timestamp(now().get() + 1), Some(FINISHED));
}

#[test]
fn of_an_address_only_what_lets_nobody_in_is_kept() {
    let view_url = |url: &str| match Found::of_file(&RecordFile { urls: vec![url.to_owned()], ..decoded() }) {
        Found::Ready(Ready { info, .. }) => info.view_url,
        other => panic!("{other:?}"),
    };
    assert_eq!(view_url("https://h/a/b?token=t").as_deref(), Some("https://h/a/b"));
    assert_eq!(view_url("https://h?token=t").as_deref(), Some("https://h"));
    assert_eq!(view_url("http://h:8/a#token=t").as_deref(), Some("http://h:8/a"));
    assert_eq!(view_url("https://token@h/a;token=t/b").as_deref(), Some("https://h/a"));
    for nothing in ["", "token", "javascript://h/a", "https://", "https://?token=t", "https://t@/a", "https://h/\na"] {
        assert_eq!(view_url(nothing), None, "{nothing}");
    }
}

fn segment(manual_order: i64, end: Option<i64>) -> Segment {
    let file = |record_type: &str, length_s| SegmentFile {
        record_type: Some(record_type.to_owned()),
        begin: Some(at(FINISHED - 300_000)),
        end: end.map(at),
        length_s: Some(length_s),
        size: Some(1_000_000),
    };
    Segment {
        manual_order: Some(manual_order),
        segment_order: Some(1),
        size: Some(7_300_400),
        files: vec![file("AUDIO", 299), file("SPEAKER_VIDEO", 300)],
    }
}

#[test]
fn segments_of_the_newer_system_are_added_up() {
    let found = Found::of_segments(&[segment(1, Some(FINISHED)), segment(2, Some(FINISHED + 1))]);
    let expected = Ready {
        at: Some(at(FINISHED + 1)),
        starts: Some(2),
        info: Info {
            length_seconds: Some(600),
            size_mb: serde_json::Number::from_f64(14.601),
            files: Some(4),
            view_url: None,
            viewers: None,
        },
    };
    assert_eq!(found, Found::Ready(expected));
    assert_eq!(Found::of_segments(&[]), Found::Nothing);
    assert_eq!(Found::of_segments(&[segment(1, Some(FINISHED)), segment(2, None)]), Found::Unfinished);
    assert_eq!(Found::of_segments(&[Segment { files: Vec::new(), ..segment(1, None) }]), Found::Unfinished);
    let sizes_of_files = Segment { size: None, ..segment(1, Some(FINISHED)) };
    match Found::of_segments(&[sizes_of_files]) {
        Found::Ready(ready) => assert_eq!(ready.info.size_mb, serde_json::Number::from_f64(2.0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_asked_first_after_a_minute_whatever_the_platforms_clock_says() {
    let now = at(FINISHED);
    assert_eq!(first_attempt_at(now, now), now.plus(MINUTE));
    assert_eq!(first_attempt_at(now.minus(30 * MINUTE), now), now, "old ones at once");
    assert_eq!(first_attempt_at(now.plus(HOUR), now), now.plus(MINUTE));
}

#[test]
fn it_is_asked_again_after_pauses_that_double_up_to_half_an_hour() {
    let pauses: Vec<_> = (0..7).map(|tries| RETRIES.retry_at(tries, now()).since(now()).as_secs() / 60).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(RETRIES.retry_at(u32::MAX, now()).since(now()), 30 * MINUTE);
}

#[test]
fn what_is_never_decoded_is_given_up_after_a_week_and_what_is_older_is_asked_for_once() {
    let closed = Found::of_file(&RecordFile { available: Some(false), ..decoded() });
    assert_eq!(closed, Found::Unfinished, "nobody may watch it");
    let file = Found::of_file(&RecordFile { decoded: false, ..decoded() });
    let (mut fetch, mut now, mut asked) = (fetch(), first_attempt_at(at(FINISHED), at(FINISHED)), 0);
    let reason = loop {
        asked += 1;
        match judge(&fetch, &file, now) {
            RecordingOutcome::Later { due_at, .. } => now = due_at,
            RecordingOutcome::GivenUp { reason, .. } => break reason,
            other => panic!("{other:?}"),
        }
        fetch.tries += 1;
    };
    assert_eq!(reason, "the platform has not processed it yet");
    let week = now.since(at(FINISHED));
    assert!(week >= RETRY_PERIOD && week < RETRY_PERIOD + 30 * MINUTE, "{week:?}");
    assert_eq!(asked, 341);
    let old = at(FINISHED).plus(RETRY_PERIOD);
    for found in [Found::Nothing, Found::Unfinished] {
        let judged = judge(&self::fetch(), &found, old);
        assert!(
            matches!(judged, RecordingOutcome::GivenUp { at, .. } if at == old),
            "it is known by which clock: {judged:?}"
        );
    }
    event_info(judge(&self::fetch(), &Found::of_file(&decoded()), old));
}

#[test]
fn an_answer_about_earlier_recordings_of_the_meeting_is_not_taken_for_the_newest() {
    let known = event_info(judge(&fetch(), &Found::of_file(&decoded()), now()));
    let second = RecordingWorkItem { finishes: 2, finished_at: now(), event_info: Some(known), ..fetch() };
    let soon = now().plus(MINUTE);
    let later =
        |file: &RecordFile| matches!(judge(&second, &Found::of_file(file), soon), RecordingOutcome::Later { .. });
    assert!(later(&decoded()), "decoded before the second one finished");
    let same = RecordFile { decode_end: Some(soon), ..decoded() };
    assert!(later(&same), "the same as was known");
    let both = RecordFile { length_s: Some(3_500), ..same };
    assert!(!later(&both));
    assert!(later(&RecordFile { decode_end: Some(at(FINISHED + 300_000)), ..both }));
    // Only an hour of attempts counts, not a clock that was ahead.
    for ahead in [HOUR, RETRY_PERIOD, 100 * RETRY_PERIOD] {
        let judged = judge(&second, &Found::of_file(&decoded()), now().plus(ahead));
        assert!(matches!(judged, RecordingOutcome::Later { .. }), "{judged:?}");
    }
    let tried = |tries| judge(&RecordingWorkItem { tries, ..second.clone() }, &Found::of_file(&decoded()), soon);
    assert!(matches!(tried(5), RecordingOutcome::Later { .. }));
    event_info(tried(6));
    let waited: Duration = (0..6).map(|tries| RETRIES.retry_at(tries, soon).since(soon)).sum();
    assert_eq!(waited, HOUR + MINUTE);

    let starts = |starts| {
        let segments: Vec<_> = (1..=starts).map(|order| segment(order, Some(FINISHED))).collect();
        judge(&second, &Found::of_segments(&segments), soon)
    };
    assert!(matches!(starts(1), RecordingOutcome::Later { .. }));
    assert!(matches!(starts(2), RecordingOutcome::Ready { .. }));
}

#[test]
fn a_failed_call_says_something_about_a_recording_or_about_the_platform() {
    let (young, old) = (now(), at(FINISHED).plus(2 * RETRY_PERIOD));
    let tried = |tries| RecordingWorkItem { tries, ..fetch() };
    for class in [Class::Token, Class::Configuration, Class::Locked] {
        assert_eq!(judge_failure(&tried(1_000), class, "no", old), None, "{class:?}");
    }
    let given_up = |tries, class, now| {
        matches!(judge_failure(&tried(tries), class, "no", now), Some(RecordingOutcome::GivenUp { .. }))
    };
    assert!(!given_up(1_000, Class::Transient, young), "an outage costs nothing");
    assert!(!given_up(8, Class::Transient, old));
    assert!(given_up(9, Class::Transient, old));
    assert!(!given_up(1, Class::Bug, young));
    assert!(given_up(2, Class::Bug, young));
    assert!(!given_up(0, Class::Gone, young));
    assert!(given_up(0, Class::Gone, old));
}
