//! What users and their programs touch, word for word: a change of it is seen here first, and is made on purpose.
//!
//! After a change that is wanted: `INSTA_UPDATE=always make test ARGS="-E 'test(surface)'"`, and look at the difference. The
//! commands are a page of the documentation, which is made so as well.

use std::collections::{BTreeSet, VecDeque};

use crate::support::{
    http,
    nats::{NatsOptions, NatsServer, NatsVersion},
    postgres::Postgres,
    process::{Convoke, run_convoke},
    rig::*,
    wait::eventually,
};

fn compare(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "surface" }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Every series that is there from the start on, with its labels and without its value, and what it says of itself.
#[tokio::test]
async fn metrics_have_these_names_labels_and_series() {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let convoke = convoke(SQLITE, &nats.url()).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let text = eventually("all are there", LONG_TIMEOUT, async || {
        let text = http::get(&format!("http://{}/metrics", convoke.admin)).await.text();
        // The lags of the cursors come with their first look.
        let all = ["bus", "meetings"].iter().all(|cursor| text.contains(&format!("lag_events{{cursor=\"{cursor}\"}}")));
        if all { Ok(text) } else { Err(text) }
    })
    .await;
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let series: BTreeSet<String> = text
        .lines()
        .map(|line| if line.starts_with('#') { line } else { line.rsplit_once(' ').expect("a value").0 })
        .map(|line| line.replace(&version, "version=\"…\""))
        .collect();
    compare("metrics", &series.into_iter().collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn the_api_describes_itself_so() {
    let convoke = convoke(SQLITE, "none").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let document = http::get(&format!("http://{}/api/v1/openapi.json", convoke.admin)).await.json();
    compare("openapi", &serde_json::to_string_pretty(&document).expect("JSON"));
}

/// Names, arguments, settings with their variables, keys and defaults.
#[tokio::test]
async fn commands_and_settings_are_these() {
    let mut waiting = VecDeque::from([Vec::new()]);
    let mut all = "# Command line\n\nWhat `--help` prints of each command. A command that reads settings takes all of their flags; its help shows those that it uses.\n".to_owned();
    while let Some(path) = waiting.pop_front() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = run_convoke(&arguments, &[("COLUMNS", "120")]).await;
        assert_eq!(help.code(), 0, "{help:?}");
        let name = [vec!["convoke".to_owned()], path.clone()].concat().join(" ");
        // Not what the width of the terminal leaves at the end of a line.
        let text: Vec<&str> = help.stdout.lines().map(str::trim_end).collect();
        all.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", text.join("\n").trim_end()));
        // Headings are those of the groups of commands, or `Commands:`; a line that begins deeper goes on with the one before.
        let commands = help.stdout.split_once("<COMMAND>\n").map_or("", |(_, rest)| rest);
        let commands = commands.split("\nOptions:\n").next().unwrap_or_default().lines();
        let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            waiting.push_back([path.clone(), vec![name.to_owned()]].concat());
        }
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/command-line.md");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(page, &all).expect("the page");
    }
    let documented = std::fs::read_to_string(page).expect("the page");
    assert!(
        documented == all,
        "docs/command-line.md is not what the commands say: INSTA_UPDATE=always makes it anew\n{all}"
    );
}

/// What changes from run to run, replaced by what it is.
fn steady(report: &str, convoke: &Convoke) -> String {
    let folder = convoke.folder().display().to_string();
    let mut text = report.replace(&folder, "FOLDER");
    for (pattern, replacement) in [
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"\d+(\.\d+)? [KMGT]?i?B\b", "SIZE"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"\d+(\.\d+)*\.\d+( \([^)]*\))?", "VERSION"),
        (r"processed by \S+", "processed by PROCESS"),
        (r"\b\d+ ?(ms|s|min|h|m)\b", "DURATION"),
    ] {
        text = regex::Regex::new(pattern).expect("a pattern").replace_all(&text, replacement).into_owned();
    }
    text
}

#[tokio::test]
async fn check_says_this_of_a_service_that_is_well() {
    let (nats, postgres) =
        tokio::join!(NatsServer::start(NatsVersion::Newest, NatsOptions::default()), Postgres::start());
    for (name, database, bus) in
        [("check_sqlite", SQLITE.to_owned(), "none".to_owned()), ("check_postgres", postgres.url(), nats.url())]
    {
        let convoke = convoke(&database, &bus).start().await;
        convoke.wait_ready(LONG_TIMEOUT).await;
        let report = eventually("all is well", LONG_TIMEOUT, async || {
            let report = convoke.run(&["check"]).await;
            let mut cursors = report.stdout.lines().filter(|line| line.contains("cursor"));
            let well = !report.stdout.contains("FAIL") && cursors.all(|line| line.contains("processed by"));
            if well { Ok(report) } else { Err(format!("{report:?}")) }
        })
        .await;
        compare(name, &steady(&report.stdout, &convoke));
    }
}
