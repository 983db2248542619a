//! README and docs/: what they print works, their tables are complete, and their links lead somewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    packages::yaml,
    support::service::{Database, Service, event, settings},
    support::{
        child::{OwnChild, read_log},
        docs::{self, sections},
        nats::{NatsOptions, NatsServer, NatsVersion},
        rig::LONG_TIMEOUT,
        tools,
        wait::eventually,
    },
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

/// Every page: of the root, of docs/ and of deploy/, by its path in the repository.
fn pages() -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    let mut folders = vec![Path::new(ROOT).join("docs"), Path::new(ROOT).join("deploy")];
    let mut add = |path: &Path| {
        let name = path.strip_prefix(ROOT).expect("below the root").to_str().expect("a plain path");
        if name.ends_with(".md") {
            pages.insert(name.to_owned());
        }
    };
    for entry in fs::read_dir(ROOT).expect("the root") {
        add(&entry.expect("an entry").path());
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true if !path.ends_with("node_modules") && !path.ends_with("target") => folders.push(path),
                _ => add(&path),
            }
        }
    }
    pages
}

/// The headings' anchors, as GitHub and mdbook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor = |heading: &str| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
    sections(page).iter().map(|section| anchor(&section.heading)).collect()
}

/// What a page's links and pictures name, code aside.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prose in sections(page).into_iter().map(|section| section.prose) {
        // Code between backticks comes at every other place.
        let text: String = prose.split('`').step_by(2).collect();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(targets.map(str::to_owned));
    }
    found
}

/// What `attribute` names in a page of HTML.
fn named<'a>(html: &'a str, attribute: &'a str) -> impl Iterator<Item = &'a str> {
    html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn the_documentation_is_a_site_in_which_every_link_leads_somewhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let site = folder.path().join("site");
    let mut book = Command::new(Path::new(ROOT).join("scripts/book.py"));
    tools::output_of(book.arg(&site).env("MDBOOK", tools::mdbook()));
    let mut html: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut folders = vec![site.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                html.insert(path.clone(), fs::read_to_string(path).expect("text"));
            }
        }
    }
    assert!(html.len() > 40, "{:?}", html.keys());
    let mut broken = Vec::new();
    for (page, text) in html.iter().filter(|(page, _)| !page.ends_with("404.html")) {
        let content =
            text.split_once("<main>").map_or("", |(_, rest)| rest.split("</main>").next().unwrap_or_default());
        for link in named(content, "href=\"").chain(named(content, "src=\"")).filter(|link| is_relative(link)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
            let target = if path.is_empty() { page.clone() } else { page.with_file_name(&*path) };
            let anchor = percent_encoding::percent_decode_str(anchor).decode_utf8_lossy();
            let found = match html.get(&target.canonicalize().unwrap_or_default()) {
                Some(text) => anchor.is_empty() || text.contains(&format!("id=\"{anchor}\"")),
                None => target.exists(),
            };
            if !found {
                broken.push(format!("{} → {link}", page.strip_prefix(&site).expect("below").display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn is_relative(link: &str) -> bool {
    !link.contains("://") && !link.starts_with("mailto:")
}

#[test]
fn every_link_and_anchor_of_the_documentation_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for page in &pages {
        for link in links(page).into_iter().filter(|link| is_relative(link)) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let mut target = PathBuf::from(page);
            if !file.is_empty() {
                target.pop();
                for part in file.split('/') {
                    match part {
                        ".." => assert!(target.pop(), "{page}: {link} leads out of the repository"),
                        part => target.push(part),
                    }
                }
            }
            let name = target.to_str().expect("a plain path");
            let there = Path::new(ROOT).join(&target).exists();
            if !there || !(anchor.is_empty() || pages.contains(name) && anchors(name).contains(anchor)) {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_readme_is_a_front_door_in_two_languages_and_the_contents_list_every_page() {
    for readme in READMES {
        let lines = fs::read_to_string(Path::new(ROOT).join(readme)).expect("it is there").lines().count();
        assert!(lines <= 200, "{readme} has {lines} lines");
    }
    // The same pages, in whichever language, beside the other README and the picture with its words.
    let outline = |readme| {
        let links = links(readme).into_iter().filter(|link| !link.contains("README") && !link.contains("images/"));
        let names: Vec<String> = links.map(|link| link.rsplit('/').next().unwrap_or_default().to_owned()).collect();
        (sections(readme).len(), names)
    };
    let [english, chinese] = READMES.map(outline);
    assert_eq!(english, chinese);

    let listed: BTreeSet<String> = links("docs/SUMMARY.md").into_iter().map(|link| format!("docs/{link}")).collect();
    let there: BTreeSet<String> =
        pages().into_iter().filter(|page| page.starts_with("docs/") && page != "docs/SUMMARY.md").collect();
    assert_eq!(listed, there, "docs/SUMMARY.md lists every page of docs/");
}

/// A page's blocks, without what is said in comments.
fn code(page: &str) -> BTreeSet<String> {
    let without = |line: &str| {
        let end = ["# ", "-- "].iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
        format!("{}\n", line[..end].trim_end())
    };
    let blocks = sections(page).into_iter().flat_map(|section| section.blocks);
    blocks.filter(|block| !block.info.is_empty()).map(|block| block.text.lines().map(without).collect()).collect()
}

#[test]
fn what_the_chinese_pages_print_is_what_the_english_ones_do_and_the_runbook_has_every_alert() {
    let pages = pages();
    let mut chinese: Vec<&str> = pages.iter().map(String::as_str).filter(|page| page.starts_with("docs/zh/")).collect();
    chinese.push("README.zh-CN.md");
    for page in chinese {
        let name = page.strip_prefix("docs/zh/").unwrap_or("README.md");
        let of_it =
            |other: &&String| !other.contains("/zh/") && (*other == name || other.ends_with(&format!("/{name}")));
        let english = pages.iter().find(of_it).unwrap_or_else(|| panic!("{page} has no original"));
        let (there, here) = (code(english), code(page));
        assert!(here.is_subset(&there), "{page}: {:#?}", here.difference(&there));
    }
    let alerts = |page| -> Vec<String> {
        let headings = sections(page).into_iter().map(|section| section.heading);
        headings.filter(|heading| heading.starts_with("Convoke") && !heading.contains(':')).collect()
    };
    assert_eq!(alerts("docs/operate/runbook.md"), alerts("docs/zh/runbook.md"));
}

#[test]
fn the_table_of_settings_has_every_key_with_its_default_and_its_variable() {
    let text = fs::read_to_string(Path::new(ROOT).join("src/config/convoke.default.toml")).expect("it is there");
    let page: String = sections("docs/configuration.md").into_iter().map(|section| section.prose).collect();
    let mut section = "";
    let mut expected = BTreeMap::new();
    let mut variables = BTreeSet::new();
    for line in text.lines() {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        variables.extend(words.filter(|word| word.starts_with("CONVOKE_") && word.len() > 8));
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
            && !section.is_empty()
            && !key.contains(' ')
        {
            expected.insert(format!("{section}.{key}"), value);
        }
    }
    assert!(expected.len() > 40, "{expected:?}");
    for (key, value) in expected {
        assert!(page.contains(&format!("\n| `{key}` | `{value}` | `CONVOKE_")), "{key} = {value}");
    }
    for variable in variables {
        assert!(page.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn the_samples_of_events_are_those_of_the_streams_description() {
    let blocks = sections("docs/use/events.md").into_iter().flat_map(|section| section.blocks);
    let shown: Vec<Value> = blocks.map(|block| serde_json::from_str(&block.text).expect("JSON")).collect();
    let described = &yaml("asyncapi.yaml")[0]["components"]["messages"];
    let messages = described.as_object().expect("messages").values();
    let examples: Vec<&Value> = messages.filter_map(|message| message["examples"].as_array()).flatten().collect();
    assert_eq!(shown.len(), examples.len());
    for example in examples {
        assert!(shown.contains(&example["payload"]), "{example}");
    }
}

/// The server as docs/install/nats.md configures it, with the users and rights of the page.
async fn documented_server() -> NatsServer {
    let config = docs::block("docs/install/nats.md", "The server", "conf");
    let (_, users) = config.split_once("authorization ").expect("the users");
    let config = format!("authorization {users}");
    NatsServer::start(NatsVersion::Newest, NatsOptions { config, ..NatsOptions::default() }).await
}

#[tokio::test]
async fn the_documented_rights_are_enough_for_convoke_and_for_the_first_consumer_in_ten_lines() {
    let nats = documented_server().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let password = folder.path().join("password");
    fs::write(&password, "change-me").expect("our own folder");
    let builder = settings().setting("NATS_URL", nats.url());
    let builder = builder.setting("NATS_USER", "convoke").setting("NATS_PASSWORD_FILE", &password);
    let service = Service::with(builder, Database::Sqlite).await;
    service.acknowledged(&event("meeting.started", "987446316")).await;
    service.acknowledged(&event("meeting.join", "987446317")).await;
    eventually("both are published", LONG_TIMEOUT, async || {
        let published = service.metric(r#"convoke_published_total{outcome="new"}"#).await;
        if published >= 2.0 { Ok(()) } else { Err(published.to_string()) }
    })
    .await;
    let check = service.convoke.run(&["check"]).await;
    assert!(!check.stdout.contains("FAIL"), "{check:?}");
    let audit = service.convoke.run(&["audit"]).await;
    assert_eq!(audit.code(), 0, "{audit:?}");

    let address = nats.address();
    let script = docs::block("docs/use/consume.md", "Ten lines of Python", "python")
        .replace("nats://127.0.0.1:4222", &format!("nats://reports:change-me-too@{address}"));
    assert!(script.lines().filter(|line| !line.is_empty()).count() <= 10, "{script}");
    let mut command = Command::new(tools::python());
    command.args(["-c", &script]).current_dir(folder.path());
    let log = folder.path().join("consumer.log");
    let mut consumer = OwnChild::spawn("first-steps", &mut command, &log, &log);
    eventually("it prints both", LONG_TIMEOUT, async || {
        let said = read_log(&log);
        assert_eq!(consumer.exited(), None, "it ended: {said}");
        let seen = ["meeting.started 987446316", "meeting.join 987446317"].iter().all(|line| said.contains(line));
        if seen { Ok(()) } else { Err(said) }
    })
    .await;
    consumer.kill();
}
