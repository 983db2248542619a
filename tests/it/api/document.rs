//! The OpenAPI document, held against the service: by us, and by schemathesis.

use std::process::Command;

use serde_json::Value;

use super::{ALL, Scene, event, who};
use crate::{log_contract::fixture::Backend, support::service::now, support::tools};

#[tokio::test]
async fn every_route_is_in_the_document_and_every_route_of_it_is_there() {
    let scene = Scene::start(Backend::sqlite()).await;
    let document = scene.all("/api/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let expected = [
        "actions",
        "actions/{action_id}",
        "attendance",
        "events",
        "events/{event_id}",
        "export/attendance",
        "export/events",
        "export/meetings",
        "export/recordings",
        "health",
        "live",
        "meetings",
        "meetings/{subscriber_id}/{meeting_uuid}",
        "meetings/{subscriber_id}/{meeting_uuid}/now",
        "openapi.json",
        "quarantine",
        "quarantine/discard",
        "quarantine/retry",
        "quarantine/{id}",
        "recordings",
        "refusals",
        "replay",
        "search",
        "session",
        "stats/events",
        "stats/meetings",
        "stats/participants",
        "stream",
    ];
    let described: Vec<_> = paths.keys().map(|path| path.trim_start_matches("/api/v1/")).collect();
    assert_eq!(described, expected);
    let mut ids = std::collections::HashSet::new();
    for (path, item) in paths {
        let acts = item["get"].is_null();
        let operation = &item[if acts { "post" } else { "get" }];
        assert!(operation["summary"].as_str().is_some_and(|it| !it.is_empty()), "{path} says what it is");
        assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{path}");
        for status in ["200", "400", "401", "503"] {
            assert!(operation["responses"][status].is_object(), "{path} {status}");
        }
        if acts {
            for status in ["403", "409", "415"] {
                assert!(operation["responses"][status].is_object(), "{path} {status}");
            }
            continue;
        }
        // Refused for the parameter: so it is there, and no stream is opened to find out.
        let asked = path.replace(['{', '}'], "");
        let answer = scene.ask(&format!("{asked}?unknown=1"), ALL).await;
        let known = answer.status == 400 || (path.contains('{') && answer.status == 404);
        assert!(known, "{path}: {}", answer.status);
        let posted = super::request(
            &scene.convoke,
            reqwest::Method::POST,
            &asked,
            &[("authorization", &format!("Bearer {ALL}"))],
            "",
        )
        .await;
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    let text = document.to_string();
    for reference in text.split(r##""$ref":"#"##).skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "nothing is at {pointer}");
    }
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!((&schemes["token"]["scheme"], &schemes["session"]["in"]), (&"bearer".into(), &"cookie".into()));
}

/// Runs it, with the same few examples of each operation every time; the statuses of all answers. The two streams have no
/// end, for which it would wait: how they answer is tested in `streams`, and their refusals with all others in `lists`.
fn schemathesis(scene: &Scene, token: Option<&str>, document: &Value, examples: u32) -> Vec<i64> {
    let folder = scene.convoke.folder();
    let (file, report) = (folder.join("openapi.json"), folder.join("report.har"));
    std::fs::write(&file, document.to_string()).expect("a file");
    let mut command = Command::new(tools::schemathesis());
    command.arg("run").arg(&file).args(["--url", &format!("http://{}", scene.convoke.admin)]);
    command.args(["--phases", "examples,fuzzing", "--mode", "all", "--seed", "20260301"]);
    // One worker: before 3.11.8, two threads of Python that parse at once may end with "AST constructor recursion depth
    // mismatch" (python/cpython#106905).
    command.args(["--workers", "1"]);
    command.args(["--max-examples", &examples.to_string(), "--no-color", "--suppress-health-check", "all"]);
    command.args(["--checks", CHECKS, "--exclude-path-regex", "/(stream|live)$", "--request-timeout", "30"]);
    command.args(["--generation-with-security-parameters", "false", "--report", "har"]);
    command.arg("--report-har-path").arg(&report);
    command.args(token.iter().flat_map(|token| ["--header".to_owned(), format!("Authorization: Bearer {token}")]));
    tools::output_of(command.current_dir(folder));
    let report: Value = serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("a HAR");
    let entries = report["log"]["entries"].as_array().expect("entries");
    entries.iter().map(|entry| entry["response"]["status"].as_i64().expect("a status")).collect()
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_that_is_not_as_the_document_says() {
    let scene = Scene::start(Backend::sqlite()).await;
    let at = now() - 3_600_000;
    scene.deliver(&event("meeting.started", at, "960000017", "run-a", "")).await;
    scene.deliver(&event("meeting.join", at + 1, "960000017", "run-a", &who("Ann", at + 1, 0))).await;
    scene.deliver(&event("record.finish", at + 2, "960000017", "run-a", "")).await;
    scene.deliver(r#"{"event":"","timestamp":1}"#).await;
    scene.tables(1, 1).await;
    let document = scene.all("/api/v1/openapi.json").await;
    let statuses = tokio::task::block_in_place(|| schemathesis(&scene, Some(ALL), &document, 12));
    assert!([200, 400, 404].iter().all(|status| statuses.contains(status)), "{statuses:?}");
    // Without a token everything is the same, and slow: one or two of each.
    let statuses = tokio::task::block_in_place(|| schemathesis(&scene, None, &document, 2));
    assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 401), "{statuses:?}");
}
