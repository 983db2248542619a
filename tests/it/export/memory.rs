//! Memory does not grow with what is exported.

use std::{
    fs,
    io::Read as _,
    process::{Command, Stdio},
};

use super::CONVOKE;
use crate::log_contract::fixture::Backend;

/// So many rows of 4 KB each, the first of them of the subscriber `few`.
async fn rows(backend: &Backend, rows: u32, few: u32) {
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO events (event_id, subscriber_id, event, occurred_at, received_at, source, deliveries, last_delivered_at,
                             event_info)
         SELECT printf('019ecb27-%04x-8000-8000-%012x', i / 60000, i), iif(i <= {few}, 'few', 's'), 'meeting.join', '2026-06-15T12:00:00.000Z',
                '2026-06-15T12:00:00.000Z', 'push', 1, '2026-06-15T12:00:00.000Z',
                '{{\"blob\":\"' || hex(randomblob(2000)) || '\"}}' FROM n"
    );
    backend.execute(&sql).await;
}

/// The most memory that an export takes, in MB, as far as can be seen while it is read, and how many bytes were read.
fn peak(backend: &Backend, format: &str, filter: &[&str]) -> (u64, usize) {
    let mut child = Command::new(CONVOKE)
        .args(["export", "events", "--format", format, "--database-url", &backend.url])
        .args(filter)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let status = format!("/proc/{}/status", child.id());
    let (mut most, mut total, mut buffer) = (0, 0, vec![0; 256 << 10]);
    loop {
        let read = stdout.read(&mut buffer).expect("it can be read");
        if read == 0 {
            break;
        }
        total += read;
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
        let kib: u64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        most = most.max(kib >> 10);
    }
    assert!(child.wait().expect("it ends").success());
    (most, total)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_as_much_takes_no_more_memory() {
    // The small one is a few row groups of Parquet, too.
    let (small, large) = (Backend::sqlite(), Backend::sqlite());
    for (backend, count, few) in [(&small, 10_000, 1_000), (&large, 30_000, 6_000)] {
        backend.log().await.close().await;
        rows(backend, count, few).await;
    }
    // A workbook is compressed, which takes its time without optimization.
    for (format, least, filter) in
        [("ndjson", 100 << 20, &[][..]), ("parquet", 100 << 20, &[]), ("xlsx", 10 << 20, &["--subscriber", "few"])]
    {
        let ((little, some), (much, more)) = (peak(&small, format, filter), peak(&large, format, filter));
        assert!(more > 2 * some && more > least, "{some} and {more} bytes");
        assert!(much < little + 24, "{format}: {little} MB for {some} bytes, {much} MB for {more} bytes");
    }
}
