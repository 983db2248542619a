//! The forms of `eventInfo` that a signature may cover.
//!
//! The manual says only that it is "the event-information object converted to a JSON string", and its own samples are
//! pure ASCII. The text as sent is by far the likeliest; a sender that serialises once to sign and once more to send may
//! differ in how it escapes strings, and in nothing else that we could guess. So there are three forms, no more: each costs
//! a forger's victim one more HMAC a key.

use std::borrow::Cow;

use super::json::{self, Unit};

/// A form of `eventInfo`, always without insignificant white space and with its members in the order received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As sent.
    Raw,
    /// With every character that JSON need not escape written as itself, in UTF-8.
    Unescaped,
    /// The same, with every character outside of ASCII written as `\uXXXX`, in lower-case hexadecimal.
    Escaped,
}

impl Form {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Unescaped, Self::Escaped];

    /// As in the label `form` of `convoke_signature_form_total`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Unescaped => "unescaped",
            Self::Escaped => "escaped",
        }
    }

    /// This form of `compact`, which is well-formed JSON without insignificant white space.
    pub(super) fn of(self, compact: &str) -> Cow<'_, str> {
        let ascii = match self {
            Self::Raw => return Cow::Borrowed(compact),
            Self::Unescaped if !compact.contains('\\') => return Cow::Borrowed(compact),
            Self::Escaped if !compact.contains('\\') && compact.is_ascii() => return Cow::Borrowed(compact),
            Self::Unescaped => false,
            Self::Escaped => true,
        };
        let mut out = String::with_capacity(compact.len());
        let mut rest = compact;
        while let Some(quote) = rest.find('"') {
            let (before, string) = rest.split_at(quote + 1);
            let end = json::string_end(string.as_bytes(), 0);
            out.push_str(before);
            rewrite(&mut out, &string[..end - 1], ascii);
            out.push('"');
            rest = &string[end..];
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

/// Appends a string's content, as this form writes it.
fn rewrite(out: &mut String, content: &str, ascii: bool) {
    if content.contains('\\') {
        json::units(content).for_each(|unit| push(out, unit, ascii));
        return;
    }
    // Nothing is escaped, so there is nothing but runs that stay as they are, and characters outside of ASCII.
    let mut rest = content;
    while let Some(at) = rest.bytes().position(|byte| ascii && !byte.is_ascii()) {
        let (run, other) = rest.split_at(at);
        out.push_str(run);
        let end = other.bytes().position(|byte| byte.is_ascii()).unwrap_or(other.len());
        other[..end].encode_utf16().for_each(|unit| escape(out, unit));
        rest = &other[end..];
    }
    out.push_str(rest);
}

fn push(out: &mut String, unit: Unit, ascii: bool) {
    match unit {
        Unit::Char('"') => out.push_str("\\\""),
        Unit::Char('\\') => out.push_str("\\\\"),
        Unit::Char('\u{8}') => out.push_str("\\b"),
        Unit::Char('\u{c}') => out.push_str("\\f"),
        Unit::Char('\n') => out.push_str("\\n"),
        Unit::Char('\r') => out.push_str("\\r"),
        Unit::Char('\t') => out.push_str("\\t"),
        Unit::Char(c) if c < ' ' || (ascii && !c.is_ascii()) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escape(out, *unit);
            }
        }
        Unit::Char(c) => out.push(c),
        Unit::Lone(unit) => escape(out, unit),
    }
}

fn escape(out: &mut String, unit: u16) {
    let digit = |shift: u16| char::from(b"0123456789abcdef"[usize::from(unit >> shift & 0xf)]);
    out.extend(['\\', 'u', digit(12), digit(8), digit(4), digit(0)]);
}
