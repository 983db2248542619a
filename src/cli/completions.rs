//! `convoke completions` and `convoke man`: what packages install in addition to the program.

use std::path::PathBuf;

use anyhow::Context as _;

use super::Outcome;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  convoke completions bash > /etc/bash_completion.d/convoke")]
pub struct CompletionsArguments {
    /// The shell
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArguments {
    /// Folder for the man pages; made if it is missing
    folder: PathBuf,
}

pub fn completions(arguments: &CompletionsArguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::command(), "convoke", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(())
}

pub fn man(arguments: &ManArguments) -> Outcome {
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    clap_mangen::generate_to(super::command(), folder).with_context(|| format!("{}", folder.display()))?;
    Ok(())
}
