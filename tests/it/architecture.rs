//! What `docs/architecture.md` says of the house is so: who may know whom, and one name for one thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A crate of the workspace, or a program in many files, by the folder of its modules.
const CRATES: [&str; 7] = [
    "src",
    "benches/system",
    "crates/bus/src",
    "crates/core/src",
    "crates/log/src",
    "crates/platform/src",
    "crates/simulator/src",
];

type Module = Vec<String>;

/// The text of each module of a crate without its comments and tests.
fn modules(top: &str) -> BTreeMap<Module, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(top);
    let mut found = BTreeMap::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = module_of(path.strip_prefix(&top).expect("below it"));
                if !module.iter().any(|part| part.starts_with("tests")) {
                    found.insert(module, code(&fs::read_to_string(&path).expect("a file")));
                }
            }
        }
    }
    assert!(!found.is_empty(), "{} has modules", top.display());
    found
}

fn module_of(path: &Path) -> Module {
    let without = PathBuf::from(path).with_extension("");
    let mut parts: Module = without.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that a module names, as parts from the crate's root on.
fn named(module: &Module, text: &str) -> Vec<Module> {
    let path = regex::Regex::new(r"\b(crate|super|self)((?:::[a-z_0-9]+)*)(::\{)?").expect("a pattern");
    let visibility = regex::Regex::new(r"pub\(in [^)]*\)").expect("a pattern");
    let text = visibility.replace_all(text, "pub");
    let mut found = Vec::new();
    for hit in path.captures_iter(&text) {
        let mut base = if &hit[1] == "crate" { Vec::new() } else { module.clone() };
        if &hit[1] == "super" {
            base.pop();
        }
        for part in hit[2].split("::").filter(|part| !part.is_empty()) {
            if part == "super" {
                base.pop();
            } else {
                base.push(part.to_owned());
            }
        }
        if hit.get(3).is_some() {
            let group = &text[hit.get(0).expect("the whole").end()..];
            found.extend(first_names(group).into_iter().map(|name| [base.clone(), vec![name]].concat()));
        }
        found.push(base);
    }
    found
}

/// The names at the beginning of each part of a group of imports, from behind its bracket on.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut at_start, mut names) = (0, true, Vec::new());
    let mut name = String::new();
    for letter in group.chars() {
        if depth == 0 && at_start && (letter.is_alphanumeric() || letter == '_') {
            name.push(letter);
            continue;
        }
        if !name.is_empty() {
            names.push(std::mem::take(&mut name));
            at_start = false;
        }
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ => {}
        }
    }
    names.extend(Some(name).filter(|name| !name.is_empty()));
    names
}

/// For each module that has children: which of them names which other.
fn knowledge(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let mut known: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, text) in modules {
        for path in named(module, text) {
            // What follows the module's name is an item of it.
            let Some(target) = (1..=path.len()).rev().map(|n| &path[..n]).find(|path| modules.contains_key(*path))
            else {
                continue;
            };
            let shared = module.iter().zip(target).take_while(|(a, b)| a == b).count();
            // A module and its parent are one room.
            if let (Some(from), Some(to)) = (module.get(shared), target.get(shared)) {
                let rooms = known.entry(module[..shared].to_vec()).or_default();
                rooms.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    known
}

/// A way from `room` back to itself.
fn circle(room: &str, known: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut waiting = vec![vec![room.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = waiting.pop() {
        for next in known.get(way.last()?).into_iter().flatten() {
            if next == room {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                waiting.push([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

#[test]
fn no_module_knows_itself_by_way_of_others() {
    let mut circles = BTreeSet::new();
    for top in CRATES {
        for (parent, rooms) in knowledge(&modules(top)) {
            for room in rooms.keys() {
                if let Some(way) = circle(room, &rooms) {
                    circles.insert(format!("{top}/{}: {} → {room}", parent.join("/"), way.join(" → ")));
                }
            }
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_search_for_circles_finds_one() {
    let module = |path: &str, text: &str| (path.split('/').map(str::to_owned).collect::<Module>(), code(text));
    let modules = BTreeMap::from([
        module("a", "use crate::{b, c::Thing};\n// crate::d"),
        module("b/inner", "use super::super::c::{self};"),
        module("b", "mod inner;"),
        module("c", "fn f() { crate::a::g() }\n#[cfg(test)]\nmod tests { use crate::b; }"),
        module("d", "use super::a;"),
    ]);
    let rooms = &knowledge(&modules)[&Vec::new()];
    assert_eq!(circle("c", rooms), Some(vec!["c".to_owned(), "a".to_owned()]));
    assert!(circle("b", rooms).is_some() && circle("d", rooms).is_none());
}

#[test]
fn crates_know_only_what_is_left_of_them() {
    for (name, may) in
        [("core", &[][..]), ("log", &["core"]), ("bus", &["core"]), ("platform", &["core"]), ("simulator", &["core"])]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates").join(name).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(path).expect("a manifest").parse().expect("TOML");
        let dependencies = manifest["dependencies"].as_table().expect("dependencies");
        let ours: Vec<&str> = dependencies.keys().filter_map(|name| name.strip_prefix("convoke-")).collect();
        assert_eq!(ours, may, "{name}");
    }
}

/// A name that is searched for leads to one type.
#[test]
fn a_public_type_is_alone_with_its_name_in_its_crate() {
    let declared = regex::Regex::new(r"(?m)^ *pub (?:struct|enum|trait|type|union) (\w+)").expect("a pattern");
    let mut doubled = Vec::new();
    for top in CRATES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (module, text) in modules(top) {
            for hit in declared.captures_iter(&text) {
                places.entry(hit[1].to_owned()).or_default().push(module.join("::"));
            }
        }
        let several = places.into_iter().filter(|(_, places)| places.len() > 1);
        doubled.extend(several.map(|(name, places)| format!("{top}: {name} in {}", places.join(", "))));
    }
    assert!(doubled.is_empty(), "{doubled:#?}");
}
