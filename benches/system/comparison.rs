//! Two columns of figures, measured alternately, and their ratio.

use std::fmt::Write as _;

use serde::Serialize;

use crate::statistics::median;

/// The required ratio of the second column to the first.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Must {
    AtLeast(f64),
    AtMost(f64),
    Nothing,
}

#[derive(Debug, Serialize)]
struct Line {
    what: String,
    must: Must,
    pairs: Vec<(f64, f64)>,
}

#[derive(Debug, Serialize)]
pub struct Table {
    title: String,
    heads: [String; 2],
    lines: Vec<Line>,
    /// What a reader has to know: what limits the figures, and what disturbed them.
    notes: Vec<String>,
}

impl Table {
    pub fn new(title: String, first: &str, second: &str) -> Self {
        Self { title, heads: [first.to_owned(), second.to_owned()], lines: Vec::new(), notes: Vec::new() }
    }

    /// Adds what one round measured on either side.
    pub fn pair(&mut self, what: &str, must: Must, first: f64, second: f64) {
        let place = self.lines.iter().position(|line| line.what == what).unwrap_or_else(|| {
            self.lines.push(Line { what: what.to_owned(), must, pairs: Vec::new() });
            self.lines.len() - 1
        });
        self.lines[place].pairs.push((first, second));
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub fn text(&self) -> String {
        let [first, second] = &self.heads;
        let mut text = format!("| {} | {first} | {second} | ratio | must | |\n|---|--:|--:|--:|--:|---|\n", self.title);
        for line in &self.lines {
            let of = |of: fn(&(f64, f64)) -> f64| median(&mut line.pairs.iter().map(of).collect::<Vec<_>>());
            let ratio = of(|(first, second)| second / first);
            let (must, mark) = match line.must {
                Must::AtLeast(bound) => (format!("≥ {bound}"), if ratio >= bound { "PASS" } else { "MISS" }),
                Must::AtMost(bound) => (format!("≤ {bound}"), if ratio <= bound { "PASS" } else { "MISS" }),
                Must::Nothing => (String::new(), ""),
            };
            let (first, second) = (figure(of(|pair| pair.0)), figure(of(|pair| pair.1)));
            let _ = writeln!(text, "| {} | {first} | {second} | {ratio:.2} | {must} | {mark} |", line.what);
        }
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        text
    }
}

/// Formats a value with its significant digits.
fn figure(value: f64) -> String {
    match value {
        it if it >= 100.0 => format!("{it:.0}"),
        it if it >= 10.0 => format!("{it:.1}"),
        it => format!("{it:.2}"),
    }
}
