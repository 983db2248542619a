//! The simulated world as the platform's memory.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use base64::Engine as _;
use convoke_core::time::Millis;
use convoke_simulator::{
    Simulation,
    platform::{Platform, State},
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{options, started};
use crate::support::service::{Database, Service, WAIT_TIMEOUT};
use crate::support::{
    child::{OwnChild, read_log},
    process::run_convoke,
    wait::eventually,
};

/// Meetings that nobody receives: every event is dropped.
pub async fn play(platform: &Platform, truth: Option<PathBuf>) {
    let simulation = Simulation {
        meetings: 40,
        attendees: 4,
        drop: 1.0,
        seed: 7,
        handshake: false,
        chronicle: Some(platform.chronicle()),
        truth,
        base: Millis::new(1_735_700_400_000),
        ..Simulation::new("http://127.0.0.1:9/", "1", "k".into())
    };
    simulation.run(CancellationToken::new()).await.expect("a run without deliveries");
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn ms(line: &Value, name: &str) -> Millis {
    line[name].as_str().and_then(Millis::parse).unwrap_or_else(|| panic!("{name} in {line}"))
}

#[tokio::test]
async fn what_happened_in_the_simulated_world_is_history_though_every_event_of_it_was_lost() {
    let platform = started(options()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let truth = folder.path().join("truth");
    play(&platform, Some(truth.clone())).await;
    let truth = lines(&truth);
    let kind = |kind: &'static str| truth.iter().filter(move |line| line["kind"] == kind);
    let of_run = |kind: &'static str, uuid: &str| {
        truth.iter().filter(|line| line["kind"] == kind && line["meeting_uuid"] == uuid).collect::<Vec<_>>()
    };
    // Bookings with a UUID of their own are the meetings that were held of them.
    let meetings = || kind("meeting").filter(|line| line["status"] != "scheduled");
    assert!(kind("dropped").count() > 100 && meetings().count() == 40);
    let mut remembered = 0;
    for meeting in meetings() {
        let uuid = meeting["meeting_uuid"].as_str().expect("a UUID");
        let run = platform.edit(|archive| archive.get(uuid).cloned());
        if meeting["status"] == "cancelled" {
            assert_eq!(run, None, "a cancelled meeting simply is not there");
            continue;
        }
        let run = run.unwrap_or_else(|| panic!("{uuid} is not remembered"));
        remembered += 1;
        assert_eq!(
            (run.state, run.conference_id.as_str()),
            (State::Over, meeting["meeting_id"].as_str().expect("an id"))
        );
        assert_eq!((run.started, run.ended), (Some(ms(meeting, "started_at")), Some(ms(meeting, "ended_at"))));
        assert_eq!(run.cycle_sub_conf_id.as_deref(), meeting["meeting_cycle_sub_id"].as_str());
        let mut stays: Vec<_> = of_run("stay", uuid)
            .into_iter()
            .map(|stay| {
                let text = |name: &str| stay[name].as_str().unwrap_or_default().to_owned();
                (ms(stay, "joined_at"), Some(ms(stay, "left_at")), text("display_name"), text("call_number"))
            })
            .collect();
        let mut shown: Vec<_> = run
            .stays
            .iter()
            .map(|stay| (stay.joined, stay.left, stay.display_name.to_string(), stay.call_number.to_string()))
            .collect();
        stays.sort();
        shown.sort();
        assert_eq!(shown, stays);
        let recordings: Vec<_> = of_run("recording", uuid).into_iter().map(|line| ms(line, "finished_at")).collect();
        assert_eq!(run.recordings.iter().map(|it| it.finished).collect::<Vec<_>>(), recordings);
    }
    assert!(remembered > 30, "{remembered}");
}

/// A process, and what it has said on its standard error.
struct Simulator {
    child: OwnChild,
    folder: TempDir,
}

impl Simulator {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
        command.env_clear().current_dir(folder.path());
        command.args([
            "simulate",
            "--platform",
            "127.0.0.1:0",
            "--json",
            "--ago",
            "2d",
            "--meetings",
            "6",
            "--attendees",
            "3",
        ]);
        command.args(["--seed", "5", "--ledger", "ledger", "--truth", "truth"]).args(more);
        let child =
            OwnChild::spawn("convoke simulate", &mut command, &folder.path().join("out"), &folder.path().join("err"));
        Self { child, folder }
    }

    fn said(&self) -> String {
        read_log(&self.folder.path().join("err"))
    }

    /// The value of a setting that it prints.
    async fn setting(&self, name: &str) -> String {
        let start = format!("export {name}=");
        eventually("the simulator prints its settings", WAIT_TIMEOUT, async || {
            let said = self.said();
            // The last line may be half written.
            said.split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
                .find_map(|line| line.trim().strip_prefix(&*start).map(str::to_owned))
        })
        .await
    }
}

/// A call to the API of the simulator, as anybody makes it.
async fn call(base: &str, method: Method, path: &str, headers: &[(&str, String)], body: &Value) -> Value {
    let client = reqwest::Client::builder().no_proxy().timeout(WAIT_TIMEOUT).build().expect("a client");
    let mut request = client.request(method, format!("{base}{path}")).body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.send().await.expect("an answer");
    let (status, text) = (response.status(), response.text().await.expect("a text"));
    assert_eq!(status.as_u16(), 200, "{path}: {text}");
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
}

#[tokio::test]
async fn convoke_hears_what_happens_inside_the_meetings_of_the_simulated_platform() {
    let mut simulator = Simulator::start(&["--rate", "10", "--duration", "10m"]);
    let mut builder = crate::support::service::settings();
    for name in ["PLATFORM_URL", "PLATFORM_APP_ID", "PLATFORM_APP_KEY_FILE"] {
        builder = builder.setting(name, simulator.setting(&format!("CONVOKE_{name}")).await);
    }
    builder = builder.setting("LIVE_ENABLED", "true").setting("LIVE_MEETINGS", "all");
    let service = Service::with(builder.clone(), Database::Sqlite).await;
    let callback = format!("http://{}{}", service.convoke.events, crate::support::service::PATH);
    let database = format!("sqlite://{}", service.database_file().display());
    let builder = builder.setting("PLATFORM_CALLBACK_URL", callback).setting("DATABASE_URL", database);
    for action in ["set", "enable"] {
        let done = builder.clone().arg("subscription").arg(action).run().await;
        assert_eq!(done.code(), 0, "{done:?}");
    }
    eventually("somebody who is muted is heard", WAIT_TIMEOUT * 2, async || {
        let muted =
            service.sql("SELECT count(*) FROM events WHERE event = 'live.participants' AND event_info LIKE '%MUTE%'");
        if muted == "0" { Err(muted) } else { Ok(()) }
    })
    .await;
    let check = service.convoke.run(&["check"]).await;
    assert!(check.stdout.contains("attended\n"), "{check:?}");
    simulator.child.signal(rustix::process::Signal::INT);
    assert!(simulator.child.wait_exit(WAIT_TIMEOUT).await.success());
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_before_anybody_can_enable_a_subscription() {
    for flag in ["--truth", "--ledger"] {
        let arguments = ["simulate", "--platform", "127.0.0.1:0", flag, "missing/folder/file"];
        let finished = run_convoke(&arguments, &[]).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stderr.contains("missing/folder/file"), "{}", finished.stderr);
        assert!(!finished.stderr.contains("the platform's API is at"), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn convoke_subscribes_with_the_simulated_platform_is_pushed_to_and_can_ask_what_was_lost() {
    let service = crate::support::service::Service::start().await;
    let mut simulator = Simulator::start(&["--drop", "0.5"]);
    let base = simulator.setting("CONVOKE_PLATFORM_URL").await;
    let app_id = simulator.setting("CONVOKE_PLATFORM_APP_ID").await;
    let key_file = simulator.setting("CONVOKE_PLATFORM_APP_KEY_FILE").await;
    let key = std::fs::read_to_string(&key_file).expect("the key file");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key_file).expect("the key file").permissions());
    assert_eq!(mode & 0o777, 0o600, "a key is for its owner");

    let (expires, nonce) = (4_000_000_000_i64, "n".repeat(32));
    let digits = super::signature(key.trim_end(), &format!("{app_id}::{expires}:{nonce}"));
    let access = base64::engine::general_purpose::STANDARD.encode(&app_id);
    let login = json!({ "appId": app_id, "clientType": 72, "expireTime": expires, "nonce": nonce });
    let headers = [
        ("X-Token-Type", "LongTicket".to_owned()),
        ("Content-Type", "application/json".to_owned()),
        ("Authorization", format!("HMAC-SHA256 signature={digits},access={access}")),
    ];
    let answer = call(&base, Method::POST, "/v2/usg/acs/auth/appauth", &headers, &login).await;
    let corp = answer["user"]["companyId"].as_str().expect("an enterprise").to_owned();
    let token = [("X-Access-Token", answer["accessToken"].as_str().expect("a token").to_owned())];

    let config = "/v1/mmc/management/webhook/link-config";
    let wanted = json!({
        "corpId": corp, "subscriberId": crate::support::service::APP_ID, "subscriberKey": crate::support::service::KEY,
        "url": format!("http://{}{}", service.convoke.events, crate::support::service::PATH),
    });
    call(&base, Method::POST, config, &token, &wanted).await;
    let shown = call(&base, Method::GET, &format!("{config}?corpId={corp}"), &token, &Value::Null).await;
    let id = shown["id"].as_str().expect("an id");
    let change = format!("/v1/mmc/management/webhook/change-status?id={id}&status=0");
    call(&base, Method::PUT, &change, &token, &Value::Null).await;

    eventually("the meetings are over", WAIT_TIMEOUT, async || simulator.said().contains("the meetings are over"))
        .await;
    let folder = simulator.folder.path().to_owned();
    let report: Value = serde_json::from_str(&read_log(&folder.join("out"))).expect("a report");
    assert!(report["dropped"].as_u64() > Some(0) && report["acknowledged"] == report["sent"], "{report}");
    assert_eq!(report["acknowledged"].as_u64(), Some(lines(&folder.join("ledger")).len() as u64));

    let now = convoke_core::time::Clock::System.now().get();
    let path = format!(
        "/v1/mmc/management/conferences/history?startDate={}&endDate={now}&queryAll=true&limit=500",
        now - 3 * 86_400_000
    );
    let history = call(&base, Method::GET, &path, &token, &Value::Null).await;
    let held = lines(&folder.join("truth"))
        .into_iter()
        .filter(|line| line["kind"] == "meeting" && line["status"] != "cancelled" && line["status"] != "scheduled");
    assert_eq!(history["count"].as_u64(), Some(held.count() as u64), "what was lost is history all the same");

    simulator.child.signal(rustix::process::Signal::INT);
    assert!(simulator.child.wait_exit(WAIT_TIMEOUT).await.success());
}
