//! Huawei's own Python SDK asks the simulated platform: that both sides of ours are right is judged by somebody else's reading of
//! the platform's manual, not by ours twice.

use std::process::Command;
use std::time::Duration;

use convoke_simulator::platform::{Call, Invited, Run, State, Stay};
use serde_json::{Value, json};

use crate::simulated_platform::{APP_ID, APP_KEY, options, started};
use crate::support::sign::{NOW, millis};
use crate::support::tools;

const HOUR: i64 = 3_600_000;

fn members<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list["data"].as_array().expect("a list").iter().map(|item| item[name].as_str().unwrap_or("-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_reads_from_the_simulated_platform_what_it_holds() {
    let platform = started(options()).await;
    let runs: Vec<Run> = Run::made_up(millis(NOW), Duration::from_secs(3_600), 4, 3).collect();
    let course = Run {
        invited: vec![
            Invited { user_uuid: Some("u-user".to_owned()), name: "User".to_owned(), ..Invited::default() },
            Invited { number: Some("+990001".to_owned()), name: "Room".to_owned(), ..Invited::default() },
        ],
        ..runs[0].clone()
    };
    // The counts of today and the dashboard do not reach back to the others.
    let now = convoke_core::time::Clock::System.now();
    let stays = vec![Stay { joined: now, left: None, ..course.stays[0].clone() }];
    let live = Run { state: State::Running, stays, ..Run::over("live", "1009", now, now) };
    platform.edit(|archive| {
        runs.iter().cloned().chain([course.clone(), live]).for_each(|run| archive.put(run));
        archive.left.insert("u-gone".to_owned());
    });
    let (host, port) = platform.url()["http://".len()..]
        .split_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .expect("an address");
    let mut sdk = Command::new(tools::official_sdk());
    sdk.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/platform_client/official_sdk.py"));
    sdk.args([&*host, &*port, APP_ID, &course.conf_uuid, "1009"]);
    sdk.args([NOW - HOUR, NOW + 9 * HOUR].map(|at| at.to_string())).args(["u-user", "u-gone"]).env("APP_KEY", APP_KEY);
    let answers = tokio::task::block_in_place(|| tools::output_of(&mut sdk));
    let answers: Value = serde_json::from_str(&answers).expect("JSON");

    let uuids = |runs: &[Run]| runs.iter().rev().map(|run| run.conf_uuid.clone()).collect::<Vec<_>>();
    assert_eq!(members(&answers["history"], "confUUID"), uuids(&runs), "the newest first");
    assert_eq!(answers["history"]["count"], 4);
    assert_eq!(answers["past"]["conferenceData"]["confUUID"], course.conf_uuid);
    assert_eq!(members(&answers["past"]["data"], "name"), [&*course.scheduler_name, "User", "Room"]);
    assert_eq!(members(&answers["past"]["data"], "userUUID")[1], "u-user");
    assert_eq!(members(&answers["past"]["data"], "participantID")[2], "+990001");
    let stays: Vec<Value> = course
        .stays
        .iter()
        .map(|stay| json!([*stay.display_name, stay.joined.get(), stay.left.map(convoke_core::time::Millis::get)]))
        .collect();
    let seen: Vec<Value> = answers["attendance"]["data"]
        .as_array()
        .expect("stays")
        .iter()
        .map(|stay| json!([stay["displayName"], stay["joinTime"], stay["leftTime"]]))
        .collect();
    assert_eq!((stays.len(), seen), (3, stays));
    let recorded: Vec<String> =
        uuids(&runs.iter().filter(|run| !run.recordings.is_empty()).cloned().collect::<Vec<_>>());
    assert!(!recorded.is_empty());
    assert_eq!(members(&answers["recordings"], "confUUID"), recorded);
    assert_eq!(members(&answers["running"], "confUUID"), ["live"]);
    assert_eq!(answers["current"]["conferenceData"]["conferenceID"], "1009");
    assert_eq!([&answers["today"]["confCount"], &answers["today"]["usedAccountsCount"]], [1, 1]);
    assert_eq!(members(&answers["present"], "participant_id"), [&*course.stays[0].participant_id]);
    assert_eq!(members(&answers["participants"], "participantID"), [&*course.stays[0].participant_id]);
    assert_eq!(members(&answers["statistics"], "confCount"), ["1"]);
    let users = &answers["users"]["body"];
    assert_eq!(
        (&users[0]["id"], &users[0]["title"], &users[1]["statusCode"]),
        (&json!("u-user"), &json!("Engineer"), &json!(2))
    );
    assert_eq!(answers["unknown"], json!({"status": 400, "code": "MMC.111070005"}));
    assert_eq!((platform.count(Call::LogOut), platform.tokens()), (1, 0), "{}", answers["log_out"]);
}
