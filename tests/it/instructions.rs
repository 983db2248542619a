//! How many instructions an event costs, counted by Valgrind: a figure that does not depend on how busy the machine is.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use convoke::relay::Encoder;
use convoke_core::{
    event::{Delivery, Subscriber},
    id::Seq,
    verify::{Keyring, verify},
};

use crate::{
    log_contract::fixture::{Backend, append},
    support::{
        sign::{APP_ID, KEY, NOW, millis, signed},
        tools,
    },
};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/instructions.json");

/// What may be more than recorded: another compiler writes other instructions.
const MARGIN: f64 = 0.10;

/// Events in a commit.
const BATCH: usize = 32;

/// Names what is counted, and how often it is done.
const WORK: &str = "CONVOKE_TEST_COUNTED_WORK";

fn info(n: usize) -> String {
    let at = NOW + i64::try_from(n).expect("few");
    format!(
        r#"{{"event":"meeting.join","timestamp":{at},"payload":{{"meetingInfo":{{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}},"attendeeInfo":{{"userUUID":"aaaabbbbccccddddeeeeffff{n:08}","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"王小明","joinTime":{at},"leftTime":0,"role":"CHAIR","callNumber":"+8657100000000001"}}}}}}"#
    )
}

#[test]
#[ignore = "the test below runs it under Valgrind"]
fn counted_work() {
    let work = env::var(WORK).expect("the name of the work, and how often");
    let (name, times) = work.split_once(' ').expect("two words");
    let times: usize = times.parse().expect("a number");
    match name {
        "verify" => {
            let keyring = Keyring::new(&[Subscriber { app_id: APP_ID.into(), keys: vec![KEY.into()], name: None }]);
            let delivery =
                Delivery { received_at: millis(NOW), request_id: Some("a-request".into()), traceparent: None };
            let body = signed(&info(0));
            (0..times).for_each(|_| drop(verify(&body, &keyring, &delivery).expect("it is signed")));
        }
        "store" => blocking(async {
            let backend = Backend::sqlite();
            let log = backend.log().await;
            for batch in 0..times {
                let infos: Vec<String> = (0..BATCH).map(|n| info(batch * BATCH + n)).collect();
                append(&log, &infos).await;
            }
        }),
        "encode" => blocking(async {
            let backend = Backend::sqlite();
            let log = backend.log().await;
            append(&log, &[info(0)]).await;
            let row = log.read(Seq::START, 1).await.expect("a row").remove(0);
            let encoder = Encoder::new("meetings", Vec::new());
            (0..times).for_each(|_| drop(encoder.encode(row.row(), false).expect("it was not forgotten")));
        }),
        other => panic!("nobody counts {other}"),
    }
}

fn blocking(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

/// The instructions of this program while it does the work so many times.
fn counted(name: &str, times: u32) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("counted");
    let mut valgrind = Command::new(tools::valgrind());
    valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display()));
    valgrind.arg(env::current_exe().expect("this program"));
    valgrind.args(["--exact", "instructions::counted_work", "--ignored", "--test-threads=1"]);
    tools::output_of(valgrind.env(WORK, format!("{name} {times}")));
    let text = fs::read_to_string(&file).expect("what was counted");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("the total");
    total.trim().parse().expect("a number")
}

#[test]
fn verifying_storing_and_encoding_an_event_cost_no_more_instructions_than_recorded() {
    let recorded: BTreeMap<String, f64> =
        serde_json::from_str(&fs::read_to_string(Path::new(RECORDED)).expect("it is there")).expect("JSON");
    let batch = u32::try_from(BATCH).expect("few");
    // The difference is without what comes once: the start, the table's making. That differs from run to run, so there are enough.
    let each = |name, few, many, events| (counted(name, many) - counted(name, few)) / f64::from((many - few) * events);
    let now = [
        ("verify", each("verify", 5, 25, 1)),
        ("store", each("store", 1, 4, batch)),
        ("encode", each("encode", 50, 1_050, 1)),
    ];
    let more = now.iter().filter(|(name, cost)| *cost > recorded[*name] * (1.0 + MARGIN)).collect::<Vec<_>>();
    assert!(
        more.is_empty(),
        "instructions of an event (unoptimised): {more:.0?}; recorded: {recorded:?}; all: {now:.0?}"
    );
}
