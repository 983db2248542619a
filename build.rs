//! What `convoke --version` says of the source: its commit and the date of it.
//!
//! `GIT_COMMIT` and `SOURCE_DATE_EPOCH` (seconds) name them where there is no repository, as in a build from an archive. A build
//! for development says neither: it would be made again after each commit.

#![expect(clippy::disallowed_methods, reason = "what a build is told, it is told by its environment")]

use std::env;
use std::process::Command;

fn main() {
    for name in ["GIT_COMMIT", "SOURCE_DATE_EPOCH", "PROFILE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Where what HEAD stands for is noted; in a worktree that is elsewhere.
    if let (true, Some(log)) = (release, output("git", &["rev-parse", "--git-path", "logs/HEAD"])) {
        println!("cargo::rerun-if-changed={log}");
    }
    let git = |format: &str| release.then(|| output("git", &["log", "-1", format])).flatten();
    let commit = env::var("GIT_COMMIT").ok().or_else(|| git("--format=%H"));
    let commit = commit.map(|commit| commit.chars().take(10).collect::<String>());
    let epoch = env::var("SOURCE_DATE_EPOCH").ok().filter(|epoch| epoch != "0");
    let date = epoch
        .and_then(|epoch| output("date", &["-u", "-d", &format!("@{epoch}"), "+%F"]))
        .or_else(|| git("--format=%cs"));
    let source: Vec<String> = [commit, date].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let source = if source.is_empty() { "development build".to_owned() } else { source.join(" ") };
    println!("cargo::rustc-env=BUILD_VERSION={version} ({source})");
}

/// What a program prints, in one line; `None`: it is not there, or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
