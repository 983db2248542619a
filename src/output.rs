//! What commands print: the one way to standard output and standard error, which never panics.
//!
//! The reader may have gone (`convoke quarantine list | head`): a command then does its work to the end and says no more.
//! Anything else that keeps words from coming out, such as a full disk, is remembered, and ends the command with status 1.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// What kept words from coming out, apart from a reader that has gone.
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

/// Prints to standard output.
pub fn print(text: Arguments<'_>) {
    write(|out| out.write_fmt(text));
}

/// Writes bytes to standard output as they are.
pub fn bytes(bytes: &[u8]) {
    write(|out| out.write_all(bytes));
}

/// Prints to standard error. What cannot be said there can be said nowhere.
pub fn print_error(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Waits until everything is out; what was in the way of it, if anything was.
///
/// # Errors
/// For people: why the standard output did not take what was printed.
pub fn finish() -> Result<(), String> {
    write(Write::flush);
    let failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.map_or(Ok(()), |failure| Err(format!("the standard output did not take everything: {failure}")))
}

fn write(act: impl FnOnce(&mut io::StdoutLock<'static>) -> io::Result<()>) {
    match act(&mut io::stdout().lock()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => {
            FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        }
    }
}
