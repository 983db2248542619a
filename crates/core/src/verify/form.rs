//! The forms of `eventInfo` that a signature may cover.
//!
//! The manual says only that it is "the event-information object converted to a JSON string", and its own samples are
//! pure ASCII. The text as sent is by far the likeliest; a sender that serialises once to sign and once more to send may
//! differ in how it escapes strings. So what the usual serialisers do by default is tried, each only where it makes another
//! text of this one, and no more: each costs a forger's victim one more HMAC a key.

use std::borrow::Cow;

use crate::raw_json::{Escaped, Slash, Style};

/// A form of `eventInfo`, with its members in the order received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Form {
    /// As sent, without insignificant white space.
    Raw,
    /// Exactly as sent.
    Spaced,
    /// With every character that JSON need not escape written as itself, in UTF-8. This one, like those that follow, has no
    /// insignificant white space.
    Unescaped,
    /// Unescaped, but every character outside of ASCII is written as `\uXXXX`, in lower-case hexadecimal.
    Escaped,
    /// The same in upper case.
    EscapedUpper,
    /// Unescaped, but `< > & = '` are written as `\u003c \u003e \u0026 \u003d \u0027`.
    Html,
    /// Unescaped, but `/` is written as `\/`.
    Slashes,
    /// The same, and every character outside of ASCII is written as `\uXXXX`, in lower-case hexadecimal.
    SlashesEscaped,
}

impl Form {
    /// This form of a text: `sent` as it came, `compact` without insignificant white space.
    pub(super) fn of<'a>(self, sent: &'a str, compact: &'a str) -> Cow<'a, str> {
        let style = match self {
            Self::Raw => return Cow::Borrowed(compact),
            Self::Spaced => return Cow::Borrowed(sent),
            Self::Unescaped => Style::PLAIN,
            Self::Escaped => Style { escaped: Escaped::All, ..Style::PLAIN },
            Self::EscapedUpper => Style { escaped: Escaped::All, upper: true, ..Style::PLAIN },
            Self::Html => Style { hex: "<>&='", ..Style::PLAIN },
            Self::Slashes => Style { slash: Slash::Escaped, ..Style::PLAIN },
            Self::SlashesEscaped => Style { escaped: Escaped::All, slash: Slash::Escaped, ..Style::PLAIN },
        };
        style.of(compact)
    }
}
