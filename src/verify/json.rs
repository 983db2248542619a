//! What is needed of JSON text that `serde_json` has already found to be well formed: its bytes without insignificant
//! white space, its depth, and its strings character by character with everything that JSON allows in them.

use std::borrow::Cow;

/// What [`compact`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Levels of objects and arrays, the outermost counted.
    pub depth: usize,
}

/// `raw` without insignificant white space, borrowed where it has none, which is what the platform sends.
pub fn compact(raw: &str) -> (Cow<'_, str>, Shape) {
    let bytes = raw.as_bytes();
    let (mut level, mut depth, mut at) = (0_usize, 0_usize, 0_usize);
    // Where the part of `raw` begins that has not been copied yet.
    let mut start = 0;
    let mut copy = String::new();
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                level += 1;
                depth = depth.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            b' ' | b'\t' | b'\n' | b'\r' => {
                copy.push_str(&raw[start..at - 1]);
                start = at;
            }
            _ => {}
        }
    }
    let shape = Shape { depth };
    if start == 0 {
        return (Cow::Borrowed(raw), shape);
    }
    copy.push_str(&raw[start..]);
    (Cow::Owned(copy), shape)
}

/// The place after the quotation mark that ends the string whose content begins at `at`.
pub fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(n) if bytes[at + n] == b'"' => return at + n + 1,
            // A backslash and what it escapes, of which only the first character could be a quotation mark.
            Some(n) => at += n + 2,
            None => return bytes.len(),
        }
    }
}

/// The strings and the numbers of a JSON text, wherever they stand in it, in their order, each as a text column would have it.
/// Without recursion, and of whatever depth.
pub fn scalars(text: &str) -> impl Iterator<Item = Cow<'_, str>> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            match bytes.get(at)? {
                b'"' => {
                    at = string_end(bytes, at + 1).min(bytes.len());
                    return storable_text(text.get(start..at)?);
                }
                b'-' | b'0'..=b'9' => {
                    let length = bytes[at..].iter().position(|byte| b",]} \t\r\n".contains(byte));
                    at = length.map_or(bytes.len(), |length| at + length);
                    return text.get(start..at).map(Cow::Borrowed);
                }
                _ => at += 1,
            }
        }
    })
}

/// One unit of a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A character, escaped or not.
    Char(char),
    /// Half of a surrogate pair, escaped, without the other half. JSON allows it, Unicode text cannot hold it.
    Lone(u16),
}

/// The units of a JSON string's content (between its quotation marks).
pub fn units(content: &str) -> impl Iterator<Item = Unit> + '_ {
    let mut chars = content.chars();
    std::iter::from_fn(move || {
        let c = chars.next()?;
        if c != '\\' {
            return Some(Unit::Char(c));
        }
        Some(match chars.next()? {
            'b' => Unit::Char('\u{8}'),
            'f' => Unit::Char('\u{c}'),
            'n' => Unit::Char('\n'),
            'r' => Unit::Char('\r'),
            't' => Unit::Char('\t'),
            'u' => {
                let first = hex4(chars.as_str())?;
                chars = chars.as_str()[4..].chars();
                match char::from_u32(u32::from(first)) {
                    Some(c) => Unit::Char(c),
                    None => {
                        let rest = chars.as_str();
                        let second = rest.strip_prefix("\\u").and_then(hex4).unwrap_or(0);
                        match char::decode_utf16([first, second]).next() {
                            Some(Ok(c)) => {
                                chars = rest[6..].chars();
                                Unit::Char(c)
                            }
                            _ => Unit::Lone(first),
                        }
                    }
                }
            }
            escaped => Unit::Char(escaped),
        })
    })
}

fn hex4(text: &str) -> Option<u16> {
    u16::from_str_radix(text.get(..4)?, 16).ok()
}

/// The text of a JSON string token (with its quotation marks), as exactly as Unicode text can hold it: `None` if it has
/// a lone surrogate.
pub fn exact_text(token: &str) -> Option<Cow<'_, str>> {
    let content = content(token)?;
    if !content.contains('\\') {
        return Some(Cow::Borrowed(content));
    }
    units(content)
        .map(|unit| match unit {
            Unit::Char(c) => Some(c),
            Unit::Lone(_) => None,
        })
        .collect::<Option<String>>()
        .map(Cow::Owned)
}

/// The text of a JSON string token, with U+FFFD for what a database's text column cannot hold: U+0000 and lone
/// surrogates.
pub fn storable_text(token: &str) -> Option<Cow<'_, str>> {
    let content = content(token)?;
    if !content.contains('\\') {
        return Some(Cow::Borrowed(content));
    }
    Some(Cow::Owned(
        units(content)
            .map(|unit| match unit {
                Unit::Char('\0') | Unit::Lone(_) => char::REPLACEMENT_CHARACTER,
                Unit::Char(c) => c,
            })
            .collect(),
    ))
}

/// What stands between the quotation marks of a string token; `None` if it is no string.
fn content(token: &str) -> Option<&str> {
    token.strip_prefix('"')?.strip_suffix('"')
}
