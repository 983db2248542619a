//! The output of commands: the only way to standard output and standard error, which never panics.
//!
//! The reader may be gone (`convoke quarantine list | head`): a command then finishes its work without further output. Any other
//! write error, such as a full disk, is recorded, and the command ends with status 1.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// Why output could not be written, except that the reader is gone.
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

/// Prints to standard output.
pub fn print(text: Arguments<'_>) {
    write(|out| out.write_fmt(text));
}

/// Writes bytes to standard output as they are.
pub fn bytes(bytes: &[u8]) {
    write(|out| out.write_all(bytes));
}

/// Prints to standard error. A failure is ignored, because there is nowhere to report it.
pub fn print_error(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Flushes the output.
///
/// # Errors
/// Why standard output did not accept everything that was printed, as text.
pub fn finish() -> Result<(), String> {
    write(Write::flush);
    let failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.map_or(Ok(()), |failure| Err(format!("could not write everything to the standard output: {failure}")))
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
