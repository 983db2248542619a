//! A wider family of texts that a signature may cover: the output of serialisers of Java, .NET, PHP, Python, Go and
//! JavaScript in their various configurations. There are too many to try for each delivery, so `convoke verify`
//! searches them for a single body.

use std::borrow::Cow;
use std::collections::HashSet;

use encoding_rs::{Encoding as Charset, GB18030};

use super::{Keyring, MAX_DEPTH, fingerprint, matching_key};
use crate::raw_json::{self, Escaped, Slash, Style};
use crate::verify::envelope::Envelope;

/// A text of the family that matches a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Fit {
    /// A description of the text.
    pub form: String,
    /// The index of the subscriber's key that matched, from 0.
    pub key: usize,
}

/// The white space of a text, and its indentation per level if it is split into lines.
#[derive(Clone, Copy)]
struct Layout {
    colon: &'static str,
    comma: &'static str,
    indent: Option<&'static str>,
}

/// One option of the serialiser, and its description. The first entry of each table is the usual option.
type Choice<T> = (T, &'static str);

const ORDERS: [Choice<bool>; 2] = [(false, ""), (true, "members sorted by name")];

const NULLS: [Choice<bool>; 2] = [(true, ""), (false, "null members omitted")];

const LAYOUTS: [Choice<Layout>; 6] = [
    (Layout { colon: ":", comma: ",", indent: None }, ""),
    (Layout { colon: ": ", comma: ", ", indent: None }, "a space after each colon and comma"),
    (Layout { colon: ": ", comma: ",", indent: Some("  ") }, "on several lines, indented by 2"),
    (Layout { colon: ": ", comma: ",", indent: Some("    ") }, "on several lines, indented by 4"),
    (Layout { colon: ": ", comma: ",", indent: Some("\t") }, "on several lines, indented by tabs"),
    (
        Layout { colon: " : ", comma: ",", indent: Some("  ") },
        "on several lines, indented by 2, a space on both sides of each colon",
    ),
];

const ESCAPED: [Choice<Escaped>; 4] = [
    (Escaped::Nothing, ""),
    (Escaped::All, "non-ASCII characters escaped"),
    (Escaped::LineEnds, "U+2028 and U+2029 escaped"),
    (Escaped::Punctuation, "U+0080 to U+009F and U+2000 to U+20FF escaped"),
];

const HEX: [Choice<&str>; 8] = [
    ("", ""),
    ("<>&='", "< > & = ' escaped"),
    ("<>&", "< > & escaped"),
    ("<>&'", "< > & ' escaped"),
    ("<>&'\"", "< > & ' \" escaped as \\u…"),
    ("<>&'\"+`\u{7f}", "< > & ' \" + ` U+007F escaped as \\u…"),
    ("<>()", "< > ( ) escaped"),
    ("\u{7f}", "U+007F escaped"),
];

const UPPER: [Choice<bool>; 2] = [(false, ""), (true, "upper-case hexadecimal digits")];

const SLASHES: [Choice<Slash>; 3] =
    [(Slash::Plain, ""), (Slash::Escaped, "/ written \\/"), (Slash::AfterLess, "</ written <\\/")];

const ENCODINGS: [Choice<Encoding>; 5] = [
    (Encoding::Utf8, ""),
    (Encoding::Ascii, "in ASCII, with ? for every other character"),
    (Encoding::Latin1, "in ISO 8859-1, with ? for every other character"),
    (Encoding::Utf16, "in UTF-16, little-endian"),
    (Encoding::Gb18030, "in GB18030 (GBK)"),
];

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    Ascii,
    Latin1,
    Utf16,
    Gb18030,
}

/// Descriptions of the options that are tried, in every combination.
#[must_use]
pub fn words() -> Vec<&'static str> {
    fn of<T>(table: &[Choice<T>]) -> impl Iterator<Item = &'static str> {
        table.iter().skip(1).map(|(_, words)| *words)
    }
    of(&ORDERS)
        .chain(of(&NULLS))
        .chain(of(&LAYOUTS))
        .chain(of(&ESCAPED))
        .chain(of(&HEX))
        .chain(of(&UPPER))
        .chain(of(&SLASHES))
        .chain(of(&ENCODINGS))
        .collect()
}

/// The simplest text of the family that one of the subscriber's keys signed, if there is one.
#[must_use]
pub fn search(body: &[u8], keyring: &Keyring) -> Option<Fit> {
    let envelope = Envelope::parse(body).ok()?;
    let (app_id, nonce, signature) = (envelope.app_id?, envelope.nonce?, envelope.signature?);
    let macs = keyring.subscribers.get(&*app_id)?;
    let (compact, shape) = raw_json::compact(envelope.event_info);
    if shape.depth > MAX_DEPTH {
        return None;
    }
    let prefix = [app_id.as_bytes(), envelope.timestamp.as_bytes(), nonce.as_bytes()];
    let mut tried = HashSet::new();
    for variant in variants(&Style::PLAIN.of(&compact)) {
        let text = variant.text(&compact);
        if tried.insert(fingerprint(&text))
            && let Some(key) = matching_key(macs, prefix, &text, &signature)
        {
            return Some(Fit { form: variant.words.join(", "), key });
        }
    }
    None
}

/// Decodes a body that is not UTF-8, and names its encoding: from the byte order mark if there is one, otherwise
/// GB18030, which programs on Chinese systems write. For diagnosis only: deliveries are never decoded this way, as
/// their meaning would be a guess.
#[must_use]
pub fn in_another_encoding(body: &[u8]) -> Option<(&'static str, String)> {
    let (charset, mark) = Charset::for_bom(body).unwrap_or((GB18030, 0));
    let text = charset.decode_without_bom_handling_and_without_replacement(&body[mark..])?;
    Envelope::parse(text.as_bytes()).ok()?;
    let name = if charset == GB18030 { "GB18030 (GBK)" } else { charset.name() };
    Some((name, text.into_owned()))
}

struct Variant {
    sorted: bool,
    nulls: bool,
    layout: Layout,
    style: Style,
    encoding: Encoding,
    words: Vec<&'static str>,
}

/// All options that can change this text, with the fewest deviations from the usual first.
fn variants(plain: &str) -> Vec<Variant> {
    /// The whole table if its options matter for this text, else only the usual one.
    fn of<T>(table: &[Choice<T>], matters: bool) -> &[Choice<T>] {
        if matters { table } else { &table[..1] }
    }
    let ascii = plain.is_ascii();
    let hex = plain.contains(['<', '>', '&', '=', '\'', '"', '+', '`', '(', ')', '\u{7f}']);
    let mut all = Vec::new();
    for (sorted, order) in of(&ORDERS, true) {
        for (nulls, dropped) in of(&NULLS, plain.contains("null")) {
            for (layout, laid_out) in of(&LAYOUTS, true) {
                for (escaped, what) in of(&ESCAPED, !ascii) {
                    for (hex, also) in of(&HEX, hex) {
                        for (upper, digits) in of(&UPPER, true) {
                            for (slash, slashes) in of(&SLASHES, plain.contains('/')) {
                                for (encoding, encoded) in of(&ENCODINGS, !ascii) {
                                    let words =
                                        [order, dropped, laid_out, what, also, digits, slashes, encoded].into_iter();
                                    all.push(Variant {
                                        sorted: *sorted,
                                        nulls: *nulls,
                                        layout: *layout,
                                        style: Style { escaped: *escaped, hex, upper: *upper, slash: *slash },
                                        encoding: *encoding,
                                        words: words.copied().filter(|words| !words.is_empty()).collect(),
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    all.sort_by_key(|variant| variant.words.len());
    all
}

impl Variant {
    fn text(&self, compact: &str) -> Vec<u8> {
        let mut text = String::with_capacity(2 * compact.len());
        self.value(&mut text, compact, 0);
        match self.encoding {
            Encoding::Utf8 => text.into_bytes(),
            Encoding::Ascii => text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect(),
            Encoding::Latin1 => text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
            Encoding::Utf16 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Gb18030 => GB18030.encode(&text).0.into_owned(),
        }
    }

    /// Appends a value, given as compact text, at nesting level `level`.
    fn value(&self, out: &mut String, value: &str, level: usize) {
        match value.as_bytes().first() {
            Some(b'"') => self.string(out, value),
            Some(b'{') => {
                let mut members: Vec<(&str, &str)> = members(value);
                members.retain(|(_, value)| self.nulls || *value != "null");
                if self.sorted {
                    members.sort_by_cached_key(|(name, _)| raw_json::storable_text(name).map(Cow::into_owned));
                }
                self.list(out, ('{', '}'), level, members, |out, (name, value)| {
                    self.string(out, name);
                    out.push_str(self.layout.colon);
                    self.value(out, value, level + 1);
                });
            }
            Some(b'[') => self.list(out, ('[', ']'), level, elements(value), |out, value| {
                self.value(out, value, level + 1);
            }),
            _ => out.push_str(value),
        }
    }

    fn list<T>(
        &self,
        out: &mut String,
        (open, close): (char, char),
        level: usize,
        items: Vec<T>,
        write: impl Fn(&mut String, T),
    ) {
        let line = |out: &mut String, level| {
            if let Some(indent) = self.layout.indent {
                out.push('\n');
                (0..level).for_each(|_| out.push_str(indent));
            }
        };
        out.push(open);
        let any = !items.is_empty();
        for (n, item) in items.into_iter().enumerate() {
            if n > 0 {
                out.push_str(self.layout.comma);
            }
            line(out, level + 1);
            write(out, item);
        }
        if any {
            line(out, level);
        }
        out.push(close);
    }

    fn string(&self, out: &mut String, token: &str) {
        out.push('"');
        self.style.write(out, &token[1..token.len() - 1]);
        out.push('"');
    }
}

/// The members of an object as raw text, each a name and a value.
fn members(object: &str) -> Vec<(&str, &str)> {
    let bytes = object.as_bytes();
    let mut members = Vec::new();
    let mut at = 1;
    while bytes.get(at) == Some(&b'"') {
        let named = raw_json::string_end(bytes, at + 1);
        let end = raw_json::value_end(bytes, named + 1);
        members.push((&object[at..named], &object[named + 1..end]));
        // Skip the comma.
        at = end + 1;
    }
    members
}

/// The elements of an array as raw text.
fn elements(array: &str) -> Vec<&str> {
    let bytes = array.as_bytes();
    let mut elements = Vec::new();
    let mut at = 1;
    while bytes.get(at).is_some_and(|byte| *byte != b']') {
        let end = raw_json::value_end(bytes, at);
        elements.push(&array[at..end]);
        at = end + 1;
    }
    elements
}
