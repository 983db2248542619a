//! The report of `convoke check`, line by line.

/// Prints the lines, and notes whether one of them is a failure.
#[derive(Default)]
pub(super) struct Report {
    pub failed: bool,
}

impl Report {
    pub fn ok(&self, what: &str, text: impl std::fmt::Display) {
        println!("ok    {what:<10} {text}");
    }

    pub fn warn(&self, what: &str, text: impl std::fmt::Display) {
        println!("warn  {what:<10} {text}");
    }

    /// If a part of the report cannot be made, that is a failure of its own; the other parts go on.
    pub fn part(&mut self, what: &str, outcome: Result<(), impl Into<anyhow::Error>>) {
        if let Err(error) = outcome {
            self.fail(what, format!("{:#}", error.into()));
        }
    }

    pub fn fail(&mut self, what: &str, text: impl std::fmt::Display) {
        self.failed = true;
        println!("FAIL  {what:<10} {text}");
    }
}
