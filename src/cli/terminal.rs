//! Output and input of commands: JSON, progress bars, and the question before something is lost for good.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{Failure, Outcome};

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Outcome {
    println!("{}", serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?);
    Ok(())
}

/// A progress bar on standard error, if that is a terminal.
pub fn progress_bar(shown: bool, template: &str) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Fails if there is no terminal to ask on and `--yes` was not given. Must be called before anything is opened; [`confirm`] asks
/// later.
pub fn can_ask(yes: bool) -> Outcome {
    if yes || std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::Usage("standard input is not a terminal, so there is nobody to confirm: add --yes".to_owned()))
}

/// Asks the question, unless `yes`; any answer other than yes ends the command with the message `otherwise`.
pub fn confirm(yes: bool, question: &str, otherwise: &str) -> Outcome {
    if yes {
        return Ok(());
    }
    print!("{question}. Type yes: ");
    std::io::stdout().flush().context("the standard output")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("the standard input")?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    println!("{otherwise}");
    Err(Failure::Found)
}
