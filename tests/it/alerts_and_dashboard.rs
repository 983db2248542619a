//! What watches Convoke: alert rules, dashboard and runbook hold together, and use only what a running Convoke shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    packages::{deploy, read, yaml},
    support::service::{Database, Service, settings},
    support::{
        http,
        nats::{NatsOptions, NatsServer, NatsVersion},
        process::run_convoke,
        tools,
    },
};

/// Series by their names, with the values of each label.
type Shown = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What Prometheus adds to every series.
const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operate/runbook.md");
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

fn rules() -> Vec<Value> {
    let file = yaml("prometheus/alerts.yml").remove(0);
    let groups = file["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/convoke.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

/// Each query of the dashboard, with the text of its legend.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let targets = panels(dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| (string(target, "expr").to_owned(), string(target, "legendFormat").to_owned())).collect()
}

/// A query as Prometheus gets it.
fn filled(query: &str) -> String {
    query.replace("$__rate_interval", "5m").replace("$job", "convoke")
}

/// What a running service with a bus shows on its first page of metrics.
async fn shown() -> Shown {
    let nats = NatsServer::start(NatsVersion::Newest, NatsOptions::default()).await;
    let service = Service::with(settings().setting("NATS_URL", nats.url()), Database::Sqlite).await;
    let page = http::get(&format!("http://{}/metrics", service.convoke.admin)).await.text();
    let mut shown = Shown::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let known = shown.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('=')) {
            known.entry(label.0.to_owned()).or_default().insert(label.1.trim_matches('"').to_owned());
        }
    }
    shown
}

/// The text up to the closing of what `text` is within.
fn up_to(text: &str, close: char) -> &str {
    text.split_once(close).unwrap_or_else(|| panic!("no {close} in {text}")).0
}

/// Everything that a query asks for and a running Convoke does not show.
fn unknown(query: &str, shown: &Shown) -> Vec<String> {
    let mut unknown = Vec::new();
    let everywhere: BTreeSet<&str> =
        shown.values().flat_map(BTreeMap::keys).map(String::as_str).chain(TARGET_LABELS).collect();
    for (at, _) in query.match_indices("convoke_") {
        let rest = &query[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let Some(labels) = shown.get(&rest[..end]) else {
            unknown.push(rest[..end].to_owned());
            continue;
        };
        let Some(matchers) = rest[end..].strip_prefix('{') else { continue };
        for matcher in up_to(matchers, '}').split(',') {
            let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
            let value = value.trim_start_matches(['=', '~']).trim_matches('"');
            let known = labels.get(label.trim());
            let fits = known.is_some_and(|known| value.split('|').all(|one| known.contains(one)));
            if !fits && !TARGET_LABELS.contains(&label.trim()) {
                unknown.push(format!("{}{{{matcher}}}", &rest[..end]));
            }
        }
    }
    for clause in ["by (", "on ("] {
        for (at, _) in query.match_indices(clause) {
            let labels = up_to(&query[at + clause.len()..], ')').split(',').map(str::trim);
            unknown.extend(labels.filter(|label| !everywhere.contains(label)).map(str::to_owned));
        }
    }
    unknown
}

#[tokio::test]
async fn alerts_and_dashboard_ask_only_for_series_and_labels_that_a_running_convoke_shows() {
    let shown = shown().await;
    let dashboard = dashboard();
    let alerts: Vec<String> = rules().iter().map(|rule| string(rule, "expr").to_owned()).collect();
    let asked: Vec<String> = queries(&dashboard).into_iter().map(|(query, _)| query).chain(alerts).collect();
    for query in &asked {
        assert_eq!(unknown(query, &shown), [""; 0], "in: {query}");
    }
    // That it can tell.
    for (query, missing) in [
        ("rate(convoke_events_total[5m])", "convoke_events_total"),
        ("sum by (le, subscribers) (x)", "subscribers"),
        (
            r#"convoke_rejections_total{job="a",reason=~"slow|lazy"}"#,
            r#"convoke_rejections_total{reason=~"slow|lazy"}"#,
        ),
        (r#"convoke_quarantined{reason="x"}"#, r#"convoke_quarantined{reason="x"}"#),
    ] {
        assert_eq!(unknown(query, &shown), [missing]);
    }
    // A legend names what the query leaves over.
    for (query, legend) in queries(&dashboard) {
        for (at, _) in legend.match_indices("{{") {
            let label = up_to(&legend[at + 2..], '}');
            let left = match query.split_once("by (") {
                Some((_, labels)) => up_to(labels, ')').split(',').any(|one| one.trim() == label),
                None => label == "instance",
            };
            assert!(left, "{legend} of {query}");
        }
    }
    let families: BTreeSet<&str> = shown
        .keys()
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect();
    let forgotten: Vec<&&str> =
        families.iter().filter(|family| !asked.iter().any(|query| query.contains(**family))).collect();
    assert!(forgotten.is_empty(), "neither alert nor panel shows {forgotten:?}");
}

#[test]
fn promtool_accepts_the_rules_the_scraping_and_every_query_of_the_dashboard() {
    let promtool = |arguments: &[&str]| {
        tools::output_of(Command::new(tools::promtool()).args(arguments).current_dir(deploy("prometheus")))
    };
    assert!(promtool(&["check", "rules", "alerts.yml"]).contains("SUCCESS"));
    assert!(promtool(&["check", "config", "--syntax-only", "prometheus.yml"]).contains("SUCCESS"));
    let config = yaml("prometheus/prometheus.yml").remove(0);
    assert_eq!(config["scrape_configs"][0]["job_name"], "convoke");

    let queries: Vec<Value> = queries(&dashboard())
        .iter()
        .enumerate()
        .map(|(n, (query, _))| serde_json::json!({ "record": format!("query:{n}"), "expr": filled(query) }))
        .collect();
    assert!(queries.len() > 20);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("queries.yml");
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": queries }] });
    fs::write(&file, groups.to_string()).expect("a file");
    assert!(promtool(&["check", "rules", file.to_str().expect("a plain path")]).contains("SUCCESS"));
}

#[test]
fn each_alert_fires_in_a_story_in_which_it_was_silent_before() {
    let stories = ["alerts_test.yml", "alerts_days_test.yml"];
    let mut promtool = Command::new(tools::promtool());
    tools::output_of(promtool.args(["test", "rules"]).args(stories).current_dir(deploy("prometheus")));

    let files: Vec<Value> = stories.iter().flat_map(|file| yaml(&format!("prometheus/{file}"))).collect();
    let looks: Vec<&Value> = files
        .iter()
        .flat_map(|file| file["tests"].as_array().expect("tests"))
        .flat_map(|test| test["promql_expr_test"].as_array().expect("looks"))
        .collect();
    let fired: String = looks.iter().map(|look| look["exp_samples"].to_string()).collect();
    for rule in rules() {
        let name = string(&rule, "alert");
        // 1 h and 12 h are distinguished by their number: see the story.
        let named = fired.contains(&format!(r#"alertname=\"{name}\""#));
        let counted = name == "ConvokeNotAccepting12h" && looks.iter().any(|look| look["eval_time"] == "12h10m");
        assert!(named || counted, "{name} fires in no story");
    }
    assert!(looks.iter().filter(|look| look["exp_samples"] == serde_json::json!([])).count() > 10);
}

#[test]
fn each_alert_says_how_bad_it_is_and_has_its_section_in_the_runbook() {
    let runbook = fs::read_to_string(RUNBOOK).expect("the runbook");
    let sections: BTreeMap<&str, &str> = runbook
        .split("\n### ")
        .skip(1)
        .map(|section| {
            let (name, text) = section.split_once('\n').expect("a title and a text");
            (name, text.split("\n#").next().unwrap_or_default())
        })
        .collect();
    let rules = rules();
    let mut alerts = BTreeSet::new();
    for rule in &rules {
        let name = string(rule, "alert");
        alerts.insert(name);
        assert!(["warning", "critical"].contains(&string(&rule["labels"], "severity")), "{name}");
        assert!(!string(&rule["annotations"], "summary").is_empty(), "{name}");
        let anchor = format!("runbook.md#{}", name.to_lowercase());
        assert_eq!(string(&rule["annotations"], "runbook_url"), anchor);
        let text = sections.get(name).unwrap_or_else(|| panic!("{name} has no section"));
        assert!(text.split_whitespace().count() > 20, "{name}: {text}");
    }
    let without: Vec<_> = sections.keys().filter(|name| !alerts.contains(*name)).collect();
    assert!(without.is_empty(), "sections of alerts that do not exist: {without:?}");

    // Every link of the page leads somewhere.
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"))
        .collect();
    for (at, _) in runbook.match_indices("](") {
        let target = up_to(&runbook[at + 2..], ')');
        let there = match target.strip_prefix('#') {
            Some(anchor) => anchors.contains(anchor),
            None => Path::new(RUNBOOK).with_file_name(target.split('#').next().unwrap_or_default()).is_file(),
        };
        assert!(there, "{target} leads nowhere");
    }
}

#[tokio::test]
async fn every_command_that_the_runbook_names_exists_with_its_options() {
    let runbook = fs::read_to_string(RUNBOOK).expect("the runbook");
    let mut named: BTreeMap<Vec<&str>, BTreeSet<&str>> = BTreeMap::new();
    for (at, _) in runbook.match_indices("convoke ") {
        let before = runbook[..at].chars().next_back();
        let line = up_to(&runbook[at + "convoke ".len()..], '\n');
        let mut words = line.split('`').next().unwrap_or_default().split(" #").next().unwrap_or_default().split(' ');
        let mut command = vec![words.next().unwrap_or_default()];
        if ["quarantine", "subscription"].contains(&command[0]) {
            command.extend(words.next());
        }
        if matches!(before, Some('`' | '\n')) && command[0].chars().all(|c| c.is_ascii_lowercase()) {
            named.entry(command).or_default().extend(words.filter(|word| word.starts_with("--")));
        }
    }
    assert!(named.len() >= 7 && named[&vec!["replay"]].contains("--missing"), "{named:?}");
    for (command, options) in named {
        let help = run_convoke(&[&command[..], &["--help"]].concat(), &[]).await;
        assert_eq!(help.code(), 0, "{command:?}: {}", help.stderr);
        let missing: Vec<_> = options.iter().filter(|option| !help.stdout.contains(**option)).collect();
        assert!(missing.is_empty(), "{command:?} has no {missing:?}");
    }
}

#[test]
fn the_dashboard_is_whole_its_panels_apart_and_its_data_source_a_choice() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut rows = 0;
    for panel in panels(&dashboard) {
        let title = string(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("{title}: {key}"));
        assert!(at("x") + at("w") <= 24, "{title}");
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} covers another panel at {cell:?}");
        }
        if panel["type"] == "row" {
            rows += 1;
            continue;
        }
        let targets = panel["targets"].as_array().expect("queries");
        assert!(!targets.is_empty(), "{title}");
        let sources = targets.iter().chain([panel]).map(|one| &one["datasource"]["uid"]);
        sources.for_each(|uid| assert_eq!(uid, "${datasource}", "{title}"));
        let names: BTreeSet<&str> = targets.iter().map(|target| string(target, "refId")).collect();
        assert_eq!(names.len(), targets.len(), "{title}");
    }
    assert_eq!(rows, 8);
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().map(|variable| string(variable, "name")).collect();
    assert_eq!(names, ["datasource", "job"]);
}
