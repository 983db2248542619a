//! JSON texts in every way that JSON allows to write them. The integration tests use this module too.

use proptest::prelude::*;

/// A JSON string token of any characters, each written as itself or as an escape, lone surrogates included.
fn string_token() -> impl Strategy<Value = String> {
    let escape = |unit: u16, upper: bool| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
    let unit = prop_oneof![
        6 => any::<char>().prop_map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        }),
        2 => (any::<char>(), any::<bool>())
            .prop_map(move |(c, upper)| c.encode_utf16(&mut [0; 2]).iter().map(|unit| escape(*unit, upper)).collect()),
        1 => (0xd800_u16..0xe000, any::<bool>()).prop_map(move |(unit, upper)| escape(unit, upper)),
        1 => prop::sample::select(vec![r"\/", "/", r"\b", r"\f", r"\n", r"\r", r"\t", "{", "}", "[", ":", ",", " "])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(unit, 0..12).prop_map(|units| format!("\"{}\"", units.concat()))
}

/// JSON as a list of tokens, so that white space can be put between them.
pub fn value() -> impl Strategy<Value = Vec<String>> {
    let number = prop_oneof![
        prop::sample::select(vec!["0", "-0", "-0.0", "1e400", "-1.50E-3", "12345678901234567890123", "1735700465001"])
            .prop_map(str::to_owned),
        prop::string::string_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?")
            .expect("a regular expression"),
    ];
    let leaf = prop_oneof![
        string_token().prop_map(|token| vec![token]),
        number.prop_map(|number| vec![number]),
        any::<i64>().prop_map(|n| vec![n.to_string()]),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(|word| vec![word.to_owned()]),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let separated = |parts: Vec<Vec<String>>, open: &str, close: &str| {
            let parts = parts.join(&",".to_owned());
            [vec![open.to_owned()], parts, vec![close.to_owned()]].concat()
        };
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(move |values| separated(values, "[", "]")),
            object(inner, 6).prop_map(move |members| separated(members, "{", "}")),
        ]
    })
}

/// The members of an object, some with names that Convoke reads.
fn object(value: impl Strategy<Value = Vec<String>>, most: usize) -> impl Strategy<Value = Vec<Vec<String>>> {
    let known =
        ["meetingInfo", "attendeeInfo", "attendeelInfo", "meetingID", "displayName", "joinTime", "event", "timestamp"];
    let name = prop_oneof![string_token(), prop::sample::select(known.to_vec()).prop_map(|name| format!("\"{name}\""))];
    let member = (name, value).prop_map(|(name, value)| [vec![name, ":".to_owned()], value].concat());
    prop::collection::vec(member, 0..most)
}

pub fn white_space() -> impl Strategy<Value = String> {
    prop::string::string_regex("[ \t\r\n]{0,3}").expect("a regular expression")
}

/// Joins the tokens with the given white space after each, in turn.
pub fn spread(tokens: &[String], spaces: &[String]) -> String {
    let mut spaces = spaces.iter().cycle();
    let mut out = String::new();
    for token in tokens {
        out.push_str(token);
        out.push_str(spaces.next().map_or("", String::as_str));
    }
    out
}
