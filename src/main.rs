//! The `convoke` program: parses its arguments, runs the command, and exits with its status.

use std::process::ExitCode;

fn main() -> ExitCode {
    convoke::cli::main()
}
