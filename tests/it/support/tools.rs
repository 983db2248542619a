//! Finds the programs that `scripts/setup.sh test` installs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::nats::NatsVersion;

/// The nats-server of a version; `NATS_SERVER_OLDEST` or `NATS_SERVER_NEWEST` name another one.
pub fn nats_server(version: NatsVersion) -> PathBuf {
    let variable = match version {
        NatsVersion::Oldest => "NATS_SERVER_OLDEST",
        NatsVersion::Newest => "NATS_SERVER_NEWEST",
    };
    let installed = folder().join("nats-server").join(version.number()).join("nats-server");
    expect_program(env::var_os(variable).map_or(installed, PathBuf::from))
}

/// Makes a site of the documentation.
pub fn mdbook() -> PathBuf {
    expect_program(folder().join("mdbook/0.5.4/mdbook"))
}

/// Checks metrics and alert rules.
pub fn promtool() -> PathBuf {
    let installed = folder().join("promtool");
    if installed.exists() { installed } else { PathBuf::from("promtool") }
}

/// A connection pooler for PostgreSQL.
pub fn pgbouncer() -> PathBuf {
    let installed = folder().join("pgbouncer");
    if installed.exists() { installed } else { PathBuf::from("pgbouncer") }
}

/// A proxy for HTTP.
pub fn nginx() -> PathBuf {
    let installed = folder().join("nginx");
    if installed.exists() { installed } else { PathBuf::from("nginx") }
}

/// A Python that has somebody else's clients for NATS and CloudEvents.
pub fn python() -> PathBuf {
    expect_program(folder().join("venv/bin/python"))
}

/// The Node.js that is asked for, whatever the system has.
pub fn node() -> PathBuf {
    expect_program(folder().join("node/24.19.0/bin/node"))
}

/// The packages of one of the folders with a `package.json`: `asyncapi` or `typescript`.
pub fn node_modules(name: &str) -> PathBuf {
    expect_program(folder().join(format!("node-{name}")).join("node_modules"))
}

/// A program of `deploy/examples` that cargo builds beside the tests.
pub fn example(name: &str) -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_convoke")).parent().expect("a folder");
    let program = programs.join("examples").join(name);
    assert!(program.exists(), "{} is not built: cargo build --example {name}", program.display());
    program
}

/// A Python that has DuckDB, Polars, pandas and openpyxl.
pub fn table_readers() -> PathBuf {
    expect_program(folder().join("venv-export/bin/python"))
}

/// Counts instructions.
pub fn valgrind() -> PathBuf {
    on_path("valgrind")
}

/// LibreOffice.
pub fn libreoffice() -> PathBuf {
    on_path("soffice")
}

/// A Python that has Huawei's own client of the platform.
pub fn official_sdk() -> PathBuf {
    expect_program(folder().join("venv-sdk/bin/python"))
}

/// Chromium, and the program through which it is controlled.
pub fn chromium() -> (PathBuf, PathBuf) {
    (on_path("chromium"), on_path("chromedriver"))
}

/// The script that judges how accessible a page is.
pub fn axe() -> String {
    let file = expect_program(folder().join("node/axe-core-4.14.1/axe.min.js"));
    std::fs::read_to_string(file).expect("axe-core can be read")
}

/// Tests an HTTP interface by its OpenAPI document.
pub fn schemathesis() -> PathBuf {
    expect_program(folder().join("venv-schemathesis/bin/schemathesis"))
}

/// The folder with `initdb` and `postgres`: `PG_BIN`, or the newest that Debian's packages brought, or on the `PATH`.
pub fn postgres_bin() -> PathBuf {
    let packaged = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        versions
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
            .filter(|(_, bin)| bin.join("initdb").exists())
            .max()
            .map(|(_, bin)| bin)
    };
    let on_path = || env::split_paths(&env::var_os("PATH")?).find(|folder| folder.join("initdb").exists());
    let folder = env::var_os("PG_BIN").map(PathBuf::from).or_else(packaged).or_else(on_path);
    folder.expect("PostgreSQL's server is not installed: run scripts/setup.sh test")
}

/// What a program prints; panics, with its own words, if it fails.
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

fn folder() -> PathBuf {
    env::var_os("TOOLS_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools"), PathBuf::from)
}

fn on_path(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{program} is missing: run scripts/setup.sh test"))
}

fn expect_program(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run scripts/setup.sh test", path.display());
    path
}
