//! The types of the examples are those of `deploy/asyncapi.yaml`, and their pins those that are tested.

use std::{collections::BTreeSet, fmt::Write as _, fs, process::Command};

use serde_json::{Value, json};
use toml::Table;

use super::typescript;
use crate::{
    packages::{deploy, read, yaml},
    support::tools,
};

/// What a consumer of attendance reads: the document's schema, and whether its `data` is typed.
const TYPES: [&str; 4] = ["MeetingInfo", "AttendeeInfo", "AttendanceData", "CloudEvent"];

fn schema(name: &str) -> Value {
    let mut schema = yaml("asyncapi.yaml")[0]["components"]["schemas"][name].take();
    if name == "CloudEvent" {
        // As in the events of attendance.
        schema["properties"]["data"] = json!({ "$ref": "#/components/schemas/AttendanceData" });
        schema["required"].as_array_mut().expect("a list").push(json!("data"));
    }
    schema
}

fn required(schema: &Value, member: &str) -> bool {
    schema["required"].as_array().is_some_and(|required| required.contains(&json!(member)))
}

/// The names of the types that a member may have, as this function calls them.
fn kinds(member: &Value, call: impl Fn(&str) -> &str) -> BTreeSet<String> {
    if let Some(reference) = member["$ref"].as_str() {
        return BTreeSet::from([reference.rsplit('/').next().expect("a name").to_owned()]);
    }
    let listed = match &member["type"] {
        Value::Array(listed) => listed.clone(),
        one => vec![one.clone()],
    };
    listed.iter().map(|kind| call(kind.as_str().expect("a type")).to_owned()).collect()
}

#[test]
fn the_types_of_the_consumer_in_python_are_those_of_the_document() {
    let script = "
import json, sys
from typing import get_args, get_type_hints
sys.path.insert(0, sys.argv[1])
import consumer
shapes = {}
for name in sys.argv[2:]:
    shape = getattr(consumer, name)
    shapes[name] = {
        member: {'required': member in shape.__required_keys__,
                 'kinds': sorted(kind.__name__ for kind in get_args(hint) or (hint,))}
        for member, hint in get_type_hints(shape).items()
    }
print(json.dumps(shapes))";
    let mut python = Command::new(tools::python());
    python.args(["-B", "-c", script]).arg(deploy("examples/python")).args(TYPES);
    let found: Value = serde_json::from_str(&tools::output_of(&mut python)).expect("JSON");
    for name in TYPES {
        let schema = schema(name);
        let members = schema["properties"].as_object().expect("properties").iter().map(|(member, property)| {
            let kinds = kinds(property, |kind| match kind {
                "string" => "str",
                "integer" => "int",
                "null" => "NoneType",
                other => panic!("{other}"),
            });
            (member.clone(), json!({ "required": required(&schema, member), "kinds": kinds }))
        });
        assert_eq!(found[name], Value::Object(members.collect()), "{name}");
    }
}

#[test]
fn the_consumer_in_typescript_passes_the_compiler_and_its_types_are_those_of_the_document() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    typescript(folder.path());
    let compiled = |checks: &str| {
        fs::write(folder.path().join("check.ts"), checks).expect("a file");
        let compiler = tools::node_modules("typescript").join("typescript/bin/tsc");
        let output = Command::new(tools::node()).arg(compiler).current_dir(folder.path()).output().expect("it starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut checks = String::from(
        "import type * as consumer from './consumer.ts';
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type MeetingInfo = consumer.MeetingInfo; type AttendeeInfo = consumer.AttendeeInfo; type AttendanceData = consumer.AttendanceData;
",
    );
    for name in TYPES {
        let schema = schema(name);
        let mut expected = String::new();
        for (member, property) in schema["properties"].as_object().expect("properties") {
            let kinds = kinds(property, |kind| if kind == "integer" { "number" } else { kind });
            let kinds: Vec<_> = kinds.into_iter().collect();
            let optional = if required(&schema, member) { "" } else { "?" };
            let _ = write!(expected, "{member}{optional}: {}; ", kinds.join(" | "));
        }
        let generic = if name == "CloudEvent" { "<AttendanceData>" } else { "" };
        let _ = writeln!(checks, "export const same{name}: Same<consumer.{name}{generic}, {{ {expected} }}> = true;");
    }
    let (good, said) = compiled(&checks);
    assert!(good, "{said}\n{checks}");
    // It would say so.
    let (good, said) = compiled(&checks.replace("leftTime?: number", "leftTime: number"));
    assert!(!good && said.contains("Type 'true' is not assignable to type 'false'"), "{said}");
}

#[test]
fn the_pins_of_the_examples_are_what_is_tested() {
    let setup = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup.sh")).expect("a script");
    for pin in read("examples/python/requirements.txt").lines() {
        assert!(setup.contains(&format!("({pin} ")), "{pin} is not what scripts/setup.sh installs");
    }

    // The crate of the example in Rust asks for what this one is built with, locked in the same versions.
    let ours = |file: &str| -> Table {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        fs::read_to_string(path).expect("a file").parse().expect("TOML")
    };
    let theirs = |file: &str| -> Table { read(&format!("examples/rust/{file}")).parse().expect("TOML") };
    let version = |dependency: &toml::Value| dependency.get("version").unwrap_or(dependency).clone();
    let (root, example) = (ours("Cargo.toml"), theirs("Cargo.toml"));
    let dependencies = example["dependencies"].as_table().expect("a table");
    assert!(dependencies.len() > 5, "{dependencies:?}");
    for (name, dependency) in dependencies {
        assert_eq!(version(dependency), version(&root["workspace"]["dependencies"][name]), "{name}");
    }
    let packages = |lock: &Table| -> BTreeSet<String> {
        let packages = lock["package"].as_array().expect("packages").iter();
        packages.map(|it| format!("{} {} {:?}", it["name"], it["version"], it.get("checksum"))).collect()
    };
    let (root, example) = (packages(&ours("Cargo.lock")), packages(&theirs("Cargo.lock")));
    let other: Vec<_> = example.difference(&root).collect();
    assert!(other.len() == 1 && other[0].contains("convoke-consumer"), "{other:#?}");
}
