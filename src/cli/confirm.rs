//! The question before something is lost for good. Where nobody can be asked, `--yes` has to say it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;

use super::{Failure, Outcome};

/// Refuses to go on where nobody can be asked and nobody said yes. To be called before anything is opened.
pub fn can_ask(yes: bool) -> Outcome {
    if yes || std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::Usage("standard input is no terminal, so nobody can be asked: say --yes to go on".to_owned()))
}

/// Asks; `otherwise` says what comes of any other answer than yes.
pub fn ask(question: &str, otherwise: &str) -> Outcome {
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
