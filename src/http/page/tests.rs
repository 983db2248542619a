//! What the files promise without a browser: complete, small, and without a way for text to become markup.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use axum::http::Request;
use tower::ServiceExt as _;

use super::*;
use crate::http::refusals::{ConnectionFailure, Rejection};
use crate::metrics::Label as _;
use strum::VariantArray as _;

/// What an empty cache may cost, uncompressed.
const MAX_BYTES: usize = 200 << 10;

fn text(path: &str) -> &'static str {
    let asset = Assets::get(path).unwrap_or_else(|| panic!("no file {path}"));
    let Cow::Borrowed(content) = asset.data else { panic!("{path} is compiled in") };
    std::str::from_utf8(content).expect("UTF-8")
}

fn paths() -> impl Iterator<Item = String> {
    Assets::iter().map(Cow::into_owned)
}

/// Our own scripts: path and text.
fn scripts() -> impl Iterator<Item = (String, &'static str)> {
    let own = paths().filter(|path| path.ends_with(".js") && !path.starts_with("vendor/"));
    own.map(|path| {
        let text = text(&path);
        (path, text)
    })
}

/// What a browser reads of ours, the shell too.
fn with_the_shell(files: impl Iterator<Item = (String, &'static str)>) -> impl Iterator<Item = (String, &'static str)> {
    files.chain([("index.html".to_owned(), SHELL)])
}

fn files_below(folder: &Path, found: &mut BTreeSet<String>, root: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found, root);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// What stands between `before` and the next `after`, everywhere.
fn between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

#[test]
fn every_file_of_the_folder_is_compiled_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page/assets");
    let mut found = BTreeSet::new();
    files_below(&root, &mut found, &root);
    assert_eq!(found, paths().collect());
}

/// What a script imports, by path: at once, and when it is wanted.
fn imports(path: &str) -> [Vec<String>; 2] {
    let absolute = |import: &str| {
        let mut target = Path::new(path).parent().unwrap().to_path_buf();
        for part in Path::new(import).components() {
            match part {
                std::path::Component::ParentDir => assert!(target.pop(), "{path}: {import}"),
                std::path::Component::Normal(name) => target.push(name),
                _ => {}
            }
        }
        target.to_str().unwrap().to_owned()
    };
    ["from '", "import('"].map(|before| between(text(path), before, '\'').map(absolute).collect())
}

/// All that a script needs at once.
fn needed_by(path: &str, found: &mut BTreeSet<String>) {
    if found.insert(path.to_owned()) {
        let [at_once, _] = imports(path);
        at_once.iter().for_each(|import| needed_by(import, found));
    }
}

#[test]
fn the_shell_names_what_the_first_look_needs_and_nothing_else() {
    let named: Vec<&str> = between(SHELL, "=\"assets/", '"').collect();
    let unique: BTreeSet<String> = named.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(named.len(), unique.len(), "named twice");
    let mut needed = BTreeSet::new();
    needed_by("js/main.js", &mut needed);
    needed.extend(paths().filter(|path| !path.starts_with("js/") && !path.ends_with("LICENSE")));
    assert_eq!(unique, needed);
}

#[test]
fn every_import_leads_to_a_file_and_to_every_script_leads_one() {
    let mut led_to: BTreeSet<String> = ["early.js", "js/main.js"].map(str::to_owned).into();
    for (path, _) in scripts() {
        for import in imports(&path).concat() {
            text(&import);
            led_to.insert(import);
        }
    }
    assert_eq!(led_to, scripts().map(|(path, _)| path).collect());
}

#[test]
fn nothing_turns_text_into_markup_or_code() {
    let doors = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "createContextualFragment",
        "DOMParser",
        "setHTML",
        "srcdoc",
        "eval(",
        "new Function",
        "javascript:",
        "setTimeout('",
        "cssText",
        "createPolicy",
    ];
    for (path, script) in with_the_shell(scripts()) {
        for door in doors {
            assert!(!script.contains(door), "{path} has {door}");
        }
    }
    for attribute in [" onclick=\"", " onload=\"", " style=\"", "<style", "<script>"] {
        assert!(!SHELL.contains(attribute), "the shell has {attribute}, which the policy forbids");
    }
    // Elements are made in one place.
    let makers: Vec<String> =
        scripts().filter(|(_, script)| script.contains("createElementNS(")).map(|(path, _)| path).collect();
    assert_eq!(makers, ["js/dom.js"]);
}

#[test]
fn nothing_is_named_that_is_elsewhere() {
    let allowed = ["http://www.w3.org/2000/svg"];
    let own = paths().filter(|path| !path.starts_with("vendor/"));
    for (path, text) in with_the_shell(own.map(|path| {
        let text = text(&path);
        (path, text)
    })) {
        for scheme in ["http://", "https://", "\"//"] {
            for rest in text.split(scheme).skip(1) {
                let address = format!("{scheme}{}", rest.split(['"', '\'', '`', ')', ' ']).next().unwrap());
                assert!(allowed.contains(&address.as_str()), "{path} names {address}");
            }
        }
    }
}

#[test]
fn every_address_is_relative_so_that_the_page_works_below_any_path() {
    for (path, text) in with_the_shell(scripts()) {
        for absolute in ["/assets", "/api/", "/session"] {
            for quote in ["'", "\"", "`"] {
                assert!(!text.contains(&format!("{quote}{absolute}")), "{path} names {absolute}");
            }
        }
        for attribute in ["href: '/", "action: '/", "href=\"/", "src=\"/"] {
            assert!(!text.contains(attribute), "{path} has {attribute}");
        }
    }
}

#[test]
fn the_first_look_is_small() {
    let files = between(SHELL, "=\"assets/", '"').chain(["js/lang/en.js"]);
    let bytes = files.map(|path| text(path).len()).sum::<usize>() + SHELL.len();
    // The rest is for heads of answers, and for what the API says.
    assert!(bytes <= MAX_BYTES - (35 << 10), "{bytes} bytes");
}

/// A dictionary's keys, each with the placeholders in its text.
fn dictionary(path: &str) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let lines = text(path).lines().filter_map(|line| line.strip_prefix("  "));
    let entries = lines.filter_map(|line| match line.strip_prefix('\'') {
        Some(quoted) => quoted.split_once("': "),
        None => line.split_once(": "),
    });
    let mut words = BTreeMap::new();
    for (key, value) in entries {
        assert!(!value.trim_matches([',', '\'']).is_empty(), "{path}: {key} is empty");
        let before = words.insert(key, between(value, "{", '}').filter(|name| !name.contains(' ')).collect());
        assert!(before.is_none(), "{path}: {key} is there twice");
    }
    words
}

#[test]
fn both_languages_say_the_same_things() {
    let (english, chinese) = (dictionary("js/lang/en.js"), dictionary("js/lang/zh.js"));
    assert!(english.len() > 200, "{}", english.len());
    assert_eq!(
        english.keys().collect::<Vec<_>>(),
        chinese.keys().collect::<Vec<_>>(),
        "the same keys, in the order of the alphabet"
    );
    for (key, placeholders) in &english {
        assert_eq!(placeholders, &chinese[key], "{key}");
    }
}

#[test]
fn every_word_that_is_asked_for_is_there_and_every_word_is_asked_for() {
    let words = dictionary("js/lang/en.js");
    let all: String = scripts().filter(|(path, _)| !path.starts_with("js/lang/")).map(|(_, script)| script).collect();
    for call in ["t('", "nodes('", "has('"] {
        let called = all
            .match_indices(call)
            .filter(|(at, _)| !all[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_'));
        for (at, _) in called {
            let key = all[at + call.len()..].split('\'').next().unwrap();
            assert!(words.contains_key(key), "there is no word for {key}");
        }
    }
    // A word whose key is made of parts is used if its first part is.
    let made: Vec<&str> = between(&all, "`", '$').filter(|start| start.contains('.') && !start.contains(' ')).collect();
    for key in words.keys() {
        let whole = all.contains(&format!("'{key}'"))
            || all.contains(&format!("'{}'", key.trim_end_matches(".do").trim_end_matches(".more")));
        let by_id = ["cursors", "refused", "subscribers"].iter().any(|id| key.starts_with(id));
        assert!(whole || by_id || made.iter().any(|start| key.starts_with(start)), "nothing says {key}");
    }
}

#[test]
fn every_reason_of_a_refusal_has_a_sentence() {
    let words = dictionary("js/lang/en.js");
    let rejections = Rejection::VARIANTS.iter().map(|reason| reason.as_str());
    let failures = ConnectionFailure::VARIANTS.iter().map(|reason| reason.as_str());
    for reason in rejections.chain(failures) {
        assert!(words.contains_key(format!("refusal.{reason}").as_str()), "{reason}");
    }
}

async fn answer(path: &str, if_none_match: Option<&str>) -> Response {
    let mut request = Request::get(path);
    if let Some(tags) = if_none_match {
        request = request.header(IF_NONE_MATCH, tags);
    }
    router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let first = answer("/assets/js/main.js", None).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
    assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
    let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
    for tags in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let again = answer("/assets/js/main.js", Some(&tags)).await;
        assert_eq!(
            (again.status(), again.headers()[ETAG].to_str().unwrap()),
            (StatusCode::NOT_MODIFIED, etag.as_str()),
            "{tags}"
        );
    }
    assert_eq!(answer("/assets/js/main.js", Some("\"other\"")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn only_files_of_the_page_are_served() {
    for path in [
        "/assets/",
        "/assets/js",
        "/assets/js/none.js",
        "/assets/../mod.rs",
        "/assets/%2e%2e/mod.rs",
        "/assets/index.html",
        "/assets//etc/passwd",
    ] {
        assert_eq!(answer(path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let shell = answer("/", None).await;
    assert_eq!(
        (shell.status(), &shell.headers()[CACHE_CONTROL]),
        (StatusCode::OK, &HeaderValue::from_static("no-store"))
    );
}
