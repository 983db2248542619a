//! Makes untrusted text safe for terminals: text from a participant, or from the signer of a body, is displayed, and a terminal
//! obeys control characters. Those are escaped, as are the characters that change the direction of text.

use std::borrow::Cow;
use std::io::{self, Write};

/// Whether a terminal would do more with it than display it.
const fn is_odd(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // C0, DEL and C1; marks, embeddings, overrides and isolates of the text direction.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => false,
    }
}

/// The text, safe for a terminal.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    push(&mut out, text);
    Cow::Owned(out)
}

fn push(out: &mut String, text: &str) {
    for c in text.chars() {
        if is_odd(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
}

/// Writes untrusted text to a terminal. Invalid UTF-8 becomes U+FFFD; a line may end with `\r\n`.
#[derive(Debug)]
pub struct Printable<W> {
    to: W,
    /// An incomplete character, or the first half of `\r\n`; the rest has not arrived yet.
    begun: Vec<u8>,
}

impl<W: Write> Printable<W> {
    /// Writes to this terminal.
    pub const fn new(to: W) -> Self {
        Self { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let mut out = String::with_capacity(self.begun.len());
        let mut rest = 0;
        for chunk in self.begun.utf8_chunks() {
            push(&mut out, &chunk.valid().replace("\r\n", "\n"));
            rest += chunk.valid().len() + chunk.invalid().len();
            if !chunk.invalid().is_empty() {
                if rest == self.begun.len() && chunk.invalid().len() < 4 {
                    rest -= chunk.invalid().len();
                } else {
                    out.push('\u{fffd}');
                }
            }
        }
        // This may be the first half of `\r\n`.
        if self.begun[..rest].ends_with(b"\r") && rest == self.begun.len() {
            rest -= 1;
            out.truncate(out.len() - r"\u{d}".len());
        }
        self.begun.drain(..rest);
        self.to.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_as_escapes() {
        assert_eq!(printable("Ada 王\t😀\n"), "Ada 王\t😀\n");
        assert_eq!(
            printable("\x1b]0;x\x07\u{9b}31m\u{202e}a\u{2069}\r\x7f"),
            r"\u{1b}]0;x\u{7}\u{9b}31m\u{202e}a\u{2069}\u{d}\u{7f}"
        );
    }

    #[test]
    fn pieces_of_a_text_are_written_as_the_whole_of_it() {
        let text = "a\r\n王\x1b[31m\u{9b}😀\rz\r\n".as_bytes();
        let whole = "a\n王\\u{1b}[31m\\u{9b}😀\\u{d}z\n";
        for size in 1..=text.len() {
            let mut shown = Printable::new(Vec::new());
            for piece in text.chunks(size) {
                shown.write_all(piece).unwrap();
            }
            assert_eq!(String::from_utf8(shown.to).unwrap(), whole, "{size} bytes at a time");
        }
        let mut shown = Printable::new(Vec::new());
        shown.write_all(b"a\xff\x9b\xffb\n").unwrap();
        assert_eq!(String::from_utf8(shown.to).unwrap(), "a\u{fffd}\u{fffd}\u{fffd}b\n");
    }
}
