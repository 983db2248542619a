//! The known floods of HTTP/2, frame by frame.

use crate::support::http::RawConnection;
use crate::support::http2::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame,
};
use crate::support::service::{Database, PATH, Service, WAIT_TIMEOUT, event, settings};
use crate::support::wait::eventually;

/// The setting of a connection that bounds its requests under way, and its code.
const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
const MAX_HEADER_LIST_SIZE: [u8; 2] = [0, 6];
const ENHANCE_YOUR_CALM: u32 = 11;

/// All that is said until the connection is closed.
async fn last_words(mut connection: RawConnection) -> Vec<Frame> {
    http2::frames(&connection.read_to_end().await)
}

/// The error that the connection was ended with.
fn goodbye(frames: &[Frame]) -> Option<u32> {
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY)?;
    Some(u32::from_be_bytes(last.payload[4..8].try_into().expect("four bytes")))
}

#[tokio::test]
async fn limits_of_a_connection_are_announced() {
    let service = Service::start().await;
    let mut connection = http2::open(service.convoke.events).await;
    connection.finish_sending().await;
    let frames = last_words(connection).await;
    let settings = frames.iter().find(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).expect("settings");
    let value = |code: [u8; 2]| {
        let entry = settings.payload.chunks_exact(6).find(|entry| entry[..2] == code).expect("the setting");
        u32::from_be_bytes(entry[2..].try_into().expect("four bytes"))
    };
    assert_eq!((value(MAX_CONCURRENT_STREAMS), value(MAX_HEADER_LIST_SIZE)), (256, 64 << 10));
}

#[tokio::test]
async fn requests_cancelled_as_soon_as_they_are_sent_end_the_connection() {
    let service = Service::start().await;
    let mut connection = http2::open(service.convoke.events).await;
    let mut burst = Vec::new();
    for id in (1..2_000).step_by(2) {
        burst.extend(frame(HEADERS, END_HEADERS, id, &http2::post(PATH)));
        burst.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // It may be over before all is sent.
    let _ = connection.try_send(&burst).await;
    assert_eq!(goodbye(&last_words(connection).await), Some(ENHANCE_YOUR_CALM));
    service.acknowledged(&event("meeting.join", "1")).await;
}

#[tokio::test]
async fn a_head_that_is_continued_without_end_ends_the_connection() {
    let service = Service::start().await;
    let mut connection = http2::open(service.convoke.events).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &http2::post(PATH));
    for _ in 0..1_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &http2::header("x", "y")));
    }
    let _ = connection.try_send(&flood).await;
    assert_eq!(goodbye(&last_words(connection).await), Some(ENHANCE_YOUR_CALM));
    service.acknowledged(&event("meeting.join", "1")).await;
}

#[tokio::test]
async fn headers_over_the_limit_are_not_taken() {
    let service = Service::with(settings().setting("TRUSTED_PROXIES", "127.0.0.0/8"), Database::Sqlite).await;
    let mut connection = http2::open(service.convoke.events).await;
    let value = "y".repeat(100);
    let mut block = http2::post(PATH);
    block.extend(http2::header("x-forwarded-for", "203.0.113.9"));
    // 32 bytes more are counted for each (RFC 9113, section 6.5.2).
    (0..150).for_each(|_| block.extend(http2::header("x", &value)));
    let (first, rest) = block.split_at(15_000);
    connection.send(&frame(HEADERS, END_STREAM, 1, first)).await;
    connection.send(&frame(CONTINUATION, END_HEADERS, 1, rest)).await;
    let mut bytes = Vec::new();
    let frames = eventually("it is answered", WAIT_TIMEOUT, async || {
        bytes.extend(connection.read_some().await);
        let frames = http2::frames(&bytes);
        frames.iter().any(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0).then_some(frames)
    })
    .await;
    // `:status`, and `431` in Huffman's code.
    let answer = frames.iter().find(|frame| frame.kind == HEADERS).expect("a head");
    assert_eq!(answer.payload[..5], [0x48, 0x83, 0x69, 0x90, 0xff]);
    let counted = service.metric(r#"convoke_connection_failures_total{reason="head_too_large"}"#).await;
    assert_eq!(counted, 1.0, "it is counted as over HTTP/1");
    let body = frames.iter().filter(|frame| frame.kind == DATA).flat_map(|frame| frame.payload.clone());
    let words = String::from_utf8(body.collect()).expect("text");
    assert!(words.contains("the limit is 16 KiB"), "{words}");
    let logs = service.convoke.logs();
    let line = logs.lines().find(|line| line.contains("answered 431")).unwrap_or_else(|| panic!("no line in {logs}"));
    assert!(line.contains(r#""peer":"203.0.113.9""#), "{line}");
}

#[tokio::test]
async fn heads_that_are_short_only_by_compression_are_refused_and_hold_no_memory() {
    let service = Service::start().await;
    let before = super::memory(service.convoke.id(), "VmRSS");
    let mut connection = http2::open(service.convoke.events).await;
    // The first of a connection makes an entry in the table of headers, `x: y`, which a byte each then names.
    let block = |entry: &[u8]| [http2::post(PATH), entry.to_vec(), vec![0xbe; 1_800]].concat();
    let mut flood = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(b"\x40\x01x\x01y"));
    (3..512).step_by(2).for_each(|id| flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &block(b""))));
    connection.send(&flood).await;
    let series = r#"convoke_connection_failures_total{reason="head_too_large"}"#;
    let each = "1.8 kB each on the way, 60 kB when read";
    eventually(each, WAIT_TIMEOUT, async || service.metric(series).await == 256.0).await;
    let after = super::memory(service.convoke.id(), "VmRSS");
    assert!(after.saturating_sub(before) < 120_000, "from {before} to {after} kB");
    service.acknowledged(&event("meeting.join", "1")).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_empty_frames_do_not_go_on_for_ever() {
    let service = Service::start().await;
    let mut connection = http2::open(service.convoke.events).await;
    let mut requests = Vec::new();
    // None of them has a body yet.
    for id in (1..=601).step_by(2) {
        requests.extend(frame(HEADERS, END_HEADERS, id, &http2::post(PATH)));
    }
    connection.send(&requests).await;
    connection.send(&frame(PING, 0, 0, b"are you?")).await;
    connection.finish_sending().await;
    let frames = last_words(connection).await;
    let refused = frames.iter().filter(|frame| frame.kind == RST_STREAM && frame.payload == 7_u32.to_be_bytes());
    assert_eq!(refused.count(), 301 - 256);

    let mut connection = http2::open(service.convoke.events).await;
    let mut flood = frame(HEADERS, END_HEADERS, 1, &http2::post(PATH));
    (0..50_000).for_each(|_| flood.extend(frame(DATA, 0, 1, b"")));
    let _ = connection.try_send(&flood).await;
    assert_eq!(goodbye(&last_words(connection).await), Some(ENHANCE_YOUR_CALM));
    service.acknowledged(&event("meeting.join", "1")).await;
}

#[tokio::test]
async fn floods_of_pings_and_settings_are_answered_and_nothing_more() {
    let service = Service::start().await;
    let before = super::memory(service.convoke.id(), "VmRSS");
    let mut connection = http2::open(service.convoke.events).await;
    for _ in 0..100 {
        let mut flood = Vec::new();
        (0..100).for_each(|_| flood.extend(frame(PING, 0, 0, b"12345678")));
        (0..100).for_each(|_| flood.extend(frame(SETTINGS, 0, 0, b"")));
        if connection.try_send(&flood).await.is_err() {
            break;
        }
    }
    service.acknowledged(&event("meeting.join", "1")).await;
    let after = super::memory(service.convoke.id(), "VmRSS");
    assert!(after.saturating_sub(before) < 20_000, "from {before} to {after} kB");
}
