//! The `convoke` program: parses its arguments, runs the command, and ends with its status.

use std::process::ExitCode;

/// Events are taken by one thread and given back by another, and the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    convoke::cli::main()
}
