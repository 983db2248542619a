//! Lists as files for spreadsheets.

use std::path::PathBuf;

use super::{ALL, Scene, VIEW, event, who};
use crate::{
    export::readers,
    log_contract::fixture::{Backend, append},
    support::{
        rig::{LONG_TIMEOUT, lines_with},
        service::now,
        wait::eventually,
    },
};

const LISTS: [(&str, usize); 4] = [("events", 5), ("meetings", 1), ("attendance", 3), ("recordings", 1)];

pub async fn a_list_is_downloaded_whole_masked_as_it_is_shown_and_harmless_for_spreadsheets(backend: Backend) {
    let scene = Scene::start(backend).await;
    let at = now() - 3_600_000;
    scene.deliver(&event("meeting.started", at, "960000017", "run-a", "")).await;
    for n in 0..3 {
        let name = format!("=HYPERLINK({n})");
        scene.deliver(&event("meeting.join", at + n, "960000017", "run-a", &who(&name, at + n, 0))).await;
    }
    scene.deliver(&event("record.finish", at + 9, "960000017", "run-a", "")).await;
    scene.tables(1, 3).await;
    let mut workbooks: Vec<PathBuf> = Vec::new();
    for (list, rows) in LISTS {
        let answer = scene.ask(&format!("/api/v1/export/{list}"), ALL).await;
        let text = answer.text();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv; charset=utf-8")), "{text}");
        let name = format!("attachment; filename=\"convoke-{list}.csv\"");
        assert_eq!(answer.header("content-disposition"), Some(name.as_str()));
        assert!(text.starts_with('\u{feff}') && text.lines().count() == rows + 1, "{list}: {text}");
        assert!(
            !text.contains(",=") && !text.contains(",\"=") && !text.contains(",+86"),
            "no cell is a formula: {text}"
        );
        for token in [ALL, VIEW] {
            let answer = scene.ask(&format!("/api/v1/export/{list}?format=xlsx"), token).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let file = scene.backend.folder.path().join(format!("{token}-{list}.xlsx"));
            std::fs::write(&file, &answer.body).expect("a file");
            workbooks.push(file);
        }
    }
    // Of each list what who may see people sees, and what others do.
    for (found, (list, rows)) in readers::found(&workbooks).chunks(2).zip(LISTS) {
        let [named, masked] = found else { panic!("two of each") };
        let told = |workbook: &readers::Found| format!("{:?}", workbook.rows).contains("HYPERLINK");
        assert_eq!((named.rows.len(), masked.rows.len()), (rows, rows), "{list}");
        assert_eq!((told(named), told(masked)), (["events", "attendance"].contains(&list), false), "{list}");
    }
    let one = scene.ask("/api/v1/export/attendance?person=%3DHYPERLINK(1)%20Li&closed_by=open", ALL).await.text();
    assert!(one.contains("'=HYPERLINK(1) Li") && one.lines().count() == 2, "filtered as the list is: {one}");
    let masked = scene.ask("/api/v1/export/attendance", VIEW).await.text();
    assert!(masked.lines().count() == 4 && !masked.contains("HYPERLINK"), "{masked}");
    assert_eq!(scene.ask("/api/v1/export/attendance?person=x", VIEW).await.status, 403);
    for wrong in ["format=pdf", "limit=1", "since=x"] {
        assert_eq!(scene.ask(&format!("/api/v1/export/events?{wrong}"), ALL).await.status, 400, "{wrong}");
    }
}

pub async fn a_file_is_broken_off_when_the_database_fails_half_way(backend: Backend) {
    let scene = Scene::start(backend).await;
    // More than the connection takes ahead of who reads.
    let (log, pad) = (scene.backend.open(), "x".repeat(40_000));
    for batch in 0..12 {
        let large =
            |n| format!(r#"{{"event":"large","timestamp":{},"pad":"{pad}"}}"#, 1_781_000_000_000_i64 + batch * 100 + n);
        append(&log, &(0..60).map(large).collect::<Vec<_>>()).await;
    }
    log.close().await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/api/v1/export/events", scene.convoke.admin);
    let mut answer = client.get(url).bearer_auth(ALL).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut bytes = answer.chunk().await.expect("its beginning").expect("bytes").len();
    scene.backend.execute("ALTER TABLE events RENAME TO events_gone").await;
    let whole = loop {
        match answer.chunk().await {
            Ok(Some(more)) => bytes += more.len(),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    assert!(!whole && (1..720 * 40_000).contains(&bytes), "{bytes} bytes, and the file looks whole");
    eventually("the log says so", LONG_TIMEOUT, async || {
        if lines_with(&scene.convoke, "was cut off") == 1 { Ok(()) } else { Err(scene.convoke.logs()) }
    })
    .await;
}
