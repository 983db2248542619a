//! What is printed, line by line.

/// The lines, and whether one of them says that something is wrong.
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

    /// A part of the report that could not be made is a failure of its own; the rest goes on.
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
