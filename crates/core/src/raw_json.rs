//! Operations on JSON text that `serde_json` has already found to be well-formed: removing insignificant white space,
//! measuring depth, reading strings character by character with every escape that JSON allows, and writing the strings
//! again in another escaping style.

use std::borrow::Cow;

/// Members of an object, as raw text.
#[derive(Debug)]
pub struct Members<'a, const N: usize> {
    /// The value of each member. Of a duplicate member the last value counts, as in most parsers.
    pub values: [Option<&'a str>; N],
    /// Whether the member occurs more than once.
    pub doubled: [bool; N],
}

/// Finds the members with the given `names` in `token`, in one pass and without recursion; `None` if it is not an object.
#[must_use]
pub fn members<'a, const N: usize>(token: &'a str, names: [&str; N]) -> Option<Members<'a, N>> {
    let bytes = token.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut members = Members { values: [None; N], doubled: [false; N] };
    let mut at = next(bytes, 1);
    while bytes.get(at) == Some(&b'"') {
        let named = string_end(bytes, at + 1);
        let start = next(bytes, named);
        let end = value_end(bytes, start);
        let name = exact_text(token.get(at..named)?);
        if let Some(n) = names.iter().position(|wanted| Some(*wanted) == name.as_deref()) {
            members.doubled[n] |= members.values[n].replace(token.get(start..end)?).is_some();
        }
        at = next(bytes, end);
    }
    Some(members)
}

/// The position of the next byte that is not a comma, a colon or white space.
pub fn next(bytes: &[u8], at: usize) -> usize {
    let between = |byte: &u8| !matches!(byte, b',' | b':' | b' ' | b'\t' | b'\r' | b'\n');
    bytes.get(at..).and_then(|rest| rest.iter().position(between)).map_or(bytes.len(), |n| at + n)
}

/// The raw value of the member `name` of the object `token`; the last one if it is duplicate.
#[must_use]
pub fn member<'a>(token: &'a str, name: &str) -> Option<&'a str> {
    members(token, [name])?.values[0]
}

/// What [`compact`] measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Nesting levels of objects and arrays, including the outermost.
    pub depth: usize,
}

/// `raw` without insignificant white space. Borrowed if there is none, which is how the platform sends it.
pub fn compact(raw: &str) -> (Cow<'_, str>, Shape) {
    let bytes = raw.as_bytes();
    let (mut level, mut depth, mut at) = (0_usize, 0_usize, 0_usize);
    // Start of the part of `raw` that is not copied yet.
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

/// The position after the closing quotation mark of the string whose content starts at `at`.
pub fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at..).unwrap_or_default().iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(n) if bytes[at + n] == b'"' => return at + n + 1,
            // Skip the backslash and the character after it, which may be a quotation mark.
            Some(n) => at += n + 2,
            None => return bytes.len(),
        }
    }
}

/// The end of the value that starts at `at`.
pub fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at) {
            Some(b'"') => at = string_end(bytes, at + 1),
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            Some(b',' | b':') => {
                at += 1;
                continue;
            }
            // A number, or `true`, `false`, `null`.
            Some(_) => {
                let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':' | b' ' | b'\t' | b'\r' | b'\n');
                at += bytes[at..].iter().position(ends).unwrap_or(bytes.len() - at).max(1);
            }
            None => return at,
        }
        if depth == 0 {
            return at;
        }
    }
}

/// All strings and numbers of a JSON text, at any depth and in their order, each as a text column would store it. Not
/// recursive, so the depth is not limited.
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
    /// An escaped surrogate without its other half. JSON allows it; Unicode text cannot hold it.
    Lone(u16),
}

/// The units of the content of a JSON string (without its quotation marks).
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

/// How strings are written. In every style, `"`, `\`, control characters and lone surrogates are escaped, as JSON
/// requires, with the two-character escape where JSON has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Which characters outside ASCII are escaped.
    pub escaped: Escaped,
    /// ASCII characters written as `\u00XX` although JSON does not require it.
    pub hex: &'static str,
    /// Whether the hexadecimal digits of escapes are upper case.
    pub upper: bool,
    /// Whether a slash is written as `\/`.
    pub slash: Slash,
}

/// Which characters outside ASCII are written as `\uXXXX`, although JSON does not require it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaped {
    /// None.
    #[default]
    Nothing,
    /// U+2028 and U+2029, which end a line in JavaScript.
    LineEnds,
    /// U+0080 to U+009F, and U+2000 to U+20FF, which includes typographic quotation marks and dashes.
    Punctuation,
    /// All.
    All,
}

/// Which slashes are written as `\/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slash {
    /// None.
    #[default]
    Plain,
    /// Only after `<`, so that the text cannot close a script element.
    AfterLess,
    /// All.
    Escaped,
}

impl Style {
    /// Every character is written as itself, in UTF-8, unless JSON requires an escape.
    pub const PLAIN: Self = Self { escaped: Escaped::Nothing, hex: "", upper: false, slash: Slash::Plain };

    /// Whether this style escapes `c`. Does not cover control characters, `"` and `\`, which every style escapes.
    fn escapes(&self, c: char, before: char) -> bool {
        match c {
            '/' => match self.slash {
                Slash::Plain => false,
                Slash::AfterLess => before == '<',
                Slash::Escaped => true,
            },
            _ if c.is_ascii() => self.hex.contains(c),
            _ => match self.escaped {
                Escaped::Nothing => false,
                Escaped::LineEnds => matches!(c, '\u{2028}' | '\u{2029}'),
                Escaped::Punctuation => matches!(c, '\u{80}'..='\u{9f}' | '\u{2000}'..='\u{20ff}'),
                Escaped::All => true,
            },
        }
    }

    /// Appends the content of a string, which must be well-formed, in this style.
    pub fn write(&self, out: &mut String, content: &str) {
        let mut before = ' ';
        for unit in units(content) {
            self.push(out, unit, before);
            before = if let Unit::Char(c) = unit { c } else { ' ' };
        }
    }

    fn push(&self, out: &mut String, unit: Unit, before: char) {
        let c = match unit {
            Unit::Char(c) => c,
            Unit::Lone(unit) => return self.escape(out, unit),
        };
        let short = match c {
            _ if c != '/' && self.escapes(c, before) => return self.escape_all(out, c),
            '/' if self.escapes(c, before) => "\\/",
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            _ if c < ' ' => return self.escape_all(out, c),
            _ => return out.push(c),
        };
        out.push_str(short);
    }

    fn escape_all(&self, out: &mut String, c: char) {
        c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| self.escape(out, *unit));
    }

    fn escape(&self, out: &mut String, unit: u16) {
        let digits = if self.upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
        let digit = |shift: u16| digits[usize::from(unit >> shift & 0xf)];
        let escape = [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)];
        out.push_str(std::str::from_utf8(&escape).unwrap_or_default());
    }

    /// Rewrites the strings of `compact` (well-formed JSON without insignificant white space) in this style. Borrowed
    /// if it contains nothing that the style could change.
    pub fn of<'a>(&self, compact: &'a str) -> Cow<'a, str> {
        if !self.touches(compact) {
            return Cow::Borrowed(compact);
        }
        let mut out = String::with_capacity(compact.len());
        let mut rest = compact;
        while let Some(quote) = rest.find('"') {
            let (before, string) = rest.split_at(quote + 1);
            let end = string_end(string.as_bytes(), 0);
            let Some(content) = string.get(..end.saturating_sub(1)) else { break };
            out.push_str(before);
            if self.touches(content) {
                self.write(&mut out, content);
            } else {
                out.push_str(content);
            }
            out.push('"');
            rest = &string[end..];
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// Whether this style could change the text. Without a backslash, the text contains nothing that must be escaped.
    fn touches(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        bytes.contains(&b'\\')
            || self.escaped != Escaped::Nothing && !text.is_ascii()
            || self.slash != Slash::Plain && bytes.contains(&b'/')
            || !self.hex.is_empty() && bytes.iter().any(|byte| self.hex.as_bytes().contains(byte))
    }
}

/// The text of a JSON string token (with its quotation marks), exactly; `None` if it has a lone surrogate, which
/// Unicode text cannot hold.
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

/// The text of a JSON string token, with U+FFFD in place of what a text column of a database cannot hold:
/// U+0000 and lone surrogates.
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

/// The text between the quotation marks of a string token; `None` if it is not a string.
fn content(token: &str) -> Option<&str> {
    token.strip_prefix('"')?.strip_suffix('"')
}
