//! The README's own SQL: what tests and benchmarks run is what people read.

use std::fs;

/// What the README's queries ask about: its tests' small world has exactly these.
pub const DAY: &str = "2026-06-15";
pub const MEETING: &str = "960000017";
pub const RUN: &str = "11112222333344445555666677778888";
pub const PERSON: &str = "0307e0400f0a11eca58a9fcb8e69dde8";

/// A query, and the comment above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub question: String,
    pub sql: String,
}

/// The queries of the README, in its order.
pub fn queries() -> Vec<Query> {
    statements().into_iter().filter(|query| query.sql.starts_with("SELECT")).collect()
}

/// What makes the analysts' role.
pub fn role() -> String {
    let role: Vec<String> =
        statements().into_iter().filter(|query| !query.sql.starts_with("SELECT")).map(|query| query.sql).collect();
    assert!(!role.is_empty(), "the README makes a role");
    role.join(";\n")
}

/// Every statement about the tables in a block of SQL; a comment before it is its question.
fn statements() -> Vec<Query> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let (_, tables) = readme.split_once("\n## Tables\n").expect("the section");
    let (tables, _) = tables.split_once("\n## ").expect("the next section");
    let blocks = tables.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut found = Vec::new();
    for statement in blocks.flat_map(|block| block.split_terminator(";\n")) {
        let is_comment = |line: &&str| line.starts_with("-- ");
        let question = statement.lines().filter(is_comment).map(|line| &line[3..]).collect::<Vec<_>>().join(" ");
        let lines: Vec<&str> = statement.lines().filter(|line| !is_comment(line) && !line.is_empty()).collect();
        if !lines.is_empty() {
            found.push(Query { question, sql: lines.join("\n") });
        }
    }
    found
}
