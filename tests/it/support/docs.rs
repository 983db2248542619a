//! The documentation's own commands, queries and samples: what tests and benchmarks run is what people read.

use std::fs;

/// What the queries ask about: their tests' small world has exactly these.
pub const DAY: &str = "2026-06-15";
pub const MEETING: &str = "960000017";
pub const RUN: &str = "11112222333344445555666677778888";
pub const PERSON: &str = "0307e0400f0a11eca58a9fcb8e69dde8";

/// A block of code, and what is written behind the fence that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub info: String,
    pub text: String,
}

/// A part of a page, from its heading up to the next one.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Without its `#`; empty before the first.
    pub heading: String,
    /// The lines outside of blocks.
    pub prose: String,
    pub blocks: Vec<Block>,
}

/// A page's sections, in its order; `file` is its path in the repository.
pub fn sections(file: &str) -> Vec<Section> {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut sections = vec![Section::default()];
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let section = sections.last_mut().expect("there is one");
        let text = line.trim_start();
        if let Some(info) = text.strip_prefix("```") {
            let indent = line.len() - text.len();
            let inside = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let text = inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
            section.blocks.push(Block { info: info.to_owned(), text });
        } else if line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().to_owned();
            sections.push(Section { heading, ..Section::default() });
        } else {
            section.prose.push_str(line);
            section.prose.push('\n');
        }
    }
    sections
}

/// The blocks below a heading.
pub fn blocks(file: &str, heading: &str) -> Vec<Block> {
    let section = sections(file).into_iter().find(|section| section.heading == heading);
    section.unwrap_or_else(|| panic!("{file} has no section {heading:?}")).blocks
}

/// The text of the first block below a heading that is opened with these words.
pub fn block(file: &str, heading: &str, info: &str) -> String {
    let block = blocks(file, heading).into_iter().find(|block| block.info == info);
    block.unwrap_or_else(|| panic!("{heading:?} of {file} has no block {info:?}")).text
}

/// A query, and the comment above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub question: String,
    pub sql: String,
}

/// The queries about attendance, in the page's order.
pub fn queries() -> Vec<Query> {
    statements("Questions")
}

/// What makes the analysts' role.
pub fn role() -> String {
    statements("A role for analysts").into_iter().map(|query| query.sql).collect::<Vec<_>>().join(";\n")
}

/// Every statement below this heading; a comment before it is its question.
fn statements(heading: &str) -> Vec<Query> {
    let mut found = Vec::new();
    for statement in block("docs/use/attendance.md", heading, "sql").split_terminator(";\n") {
        let is_comment = |line: &&str| line.starts_with("-- ");
        let question = statement.lines().filter(is_comment).map(|line| &line[3..]).collect::<Vec<_>>().join(" ");
        let lines: Vec<&str> = statement.lines().filter(|line| !is_comment(line) && !line.is_empty()).collect();
        if !lines.is_empty() {
            found.push(Query { question, sql: lines.join("\n") });
        }
    }
    found
}
