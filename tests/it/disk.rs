//! A disk that fills: said before, answered 503, and recovered from without anybody starting anything again.

use std::os::unix::fs::PermissionsExt;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::{disk::SmallDisk, http, nats::*, process::Convoke, rig::*, wait::eventually};

/// Lets no file of a process grow beyond so many bytes; `None`: as it was.
fn limit_files(id: u32, bytes: Option<u64>) {
    let process = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(Some(process), Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).expect("our own child");
}

/// Needs no mount and no root: to the database, a limit on the size of its files is a full disk.
#[tokio::test]
async fn files_that_cannot_grow_are_answered_503_and_recovered_from_without_a_restart() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    // A signal would end the process instead of failing its write.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrapper = folder.path().join("convoke");
    let script = format!("#!/bin/sh\ntrap '' XFSZ\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_convoke"));
    std::fs::write(&wrapper, script).expect("written");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    let convoke = convoke(SQLITE, &nats.url()).program(&wrapper).start().await;
    convoke.wait_ready(TEN).await;
    let mut stored = deliver(&convoke, 0..20).await;
    for round in 1..=2 {
        let length = |name: &str| convoke.folder().join(name).metadata().map_or(0, |file| file.len());
        // Where the write-ahead log is the longer one, the database could grow to its length first, event by event.
        eventually("the write-ahead log is the shorter one", LONG_TIMEOUT, async || {
            sqlite(convoke.folder(), "PRAGMA wal_checkpoint(TRUNCATE)").await;
            let (log, database) = (length("convoke.db-wal"), length("convoke.db"));
            if log < database { Ok(()) } else { Err(format!("{log} and {database} bytes")) }
        })
        .await;
        limit_files(convoke.id(), Some(length("convoke.db-wal").max(length("convoke.db")) + 40_000));
        let mut number = round * 10_000;
        // A checkpoint makes room again in the write-ahead log, as long as the database itself may grow: full is what
        // refuses, is not ready, and refuses still.
        let refused = eventually("the files are full", LONG_TIMEOUT, async || {
            number += 1;
            let sample = Sample::number(number);
            for _ in 0..2 {
                let status = sample.deliver(convoke.events).await;
                assert!(matches!(status, 200 | 503), "{status}");
                if status == 200 {
                    stored.push(sample);
                    return Err("an event was stored");
                }
                if http::get(&format!("http://{}/readyz", convoke.events)).await.status != 503 {
                    return Err("it is ready");
                }
            }
            Ok(sample)
        })
        .await;
        limit_files(convoke.id(), None);
        convoke.wait_ready(TEN).await;
        assert_eq!(refused.deliver(convoke.events).await, 200);
        stored.push(refused);
        stored.extend(deliver(&convoke, round * 10_000 + 5_000..round * 10_000 + 5_020).await);
    }
    let mut expected: Vec<String> = stored.into_iter().map(|sample| sample.id).collect();
    expected.sort_unstable();
    let rows = sqlite(convoke.folder(), "SELECT event_id FROM events ORDER BY event_id").await;
    let kept: Vec<String> = rows.into_iter().map(|mut row| row.remove(0).expect("an id")).collect();
    assert_eq!(kept, expected, "what was acknowledged is in the log once, and nothing else");
    assert_eq!(audit(&convoke, None).await.0, 0);
    assert_eq!(lines_with(&convoke, "\"listening\""), 2, "it was started once");
}

#[tokio::test]
async fn a_disk_with_little_room_is_warned_of_before_it_is_full() {
    let Some(disk) = SmallDisk::mount(64 << 20) else { return };
    let database = format!("sqlite://{}", disk.path().join("convoke.db").display());
    let convoke = convoke(&database, "none").start().await;
    convoke.wait_ready(TEN).await;
    deliver(&convoke, 0..1).await;
    eventually("it is said", TEN, async || lines_with(&convoke, "almost full") == 1).await;
    let check: Convoke = convoke;
    let check = check.run(&["check"]).await;
    assert!(check.stdout.lines().any(|line| line.starts_with("warn  disk")), "{check:?}");
}
