//! The forms of `eventInfo` that a signature may cover.
//!
//! The manual says only that it is "the event-information object converted to a JSON string", and its samples are pure
//! ASCII. The text as sent is by far the most likely; a sender that serialises once to sign and again to send may
//! escape strings differently. So the defaults of the usual serialisers are tried, each only if it changes this text,
//! and nothing more: each form costs one more HMAC per key for a forged request.

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
    /// With every character written as itself, in UTF-8, unless JSON requires an escape. This form and the following
    /// ones have no insignificant white space.
    Unescaped,
    /// Like `Unescaped`, but every character outside ASCII is written as `\uXXXX`, in lower-case hexadecimal.
    Escaped,
    /// Like `Escaped`, in upper-case hexadecimal.
    EscapedUpper,
    /// Like `Unescaped`, but `< > & = '` are written as `\u003c \u003e \u0026 \u003d \u0027`.
    Html,
    /// Like `Unescaped`, but `/` is written as `\/`.
    Slashes,
    /// Like `Slashes`, and every character outside ASCII is written as `\uXXXX`, in lower-case hexadecimal.
    SlashesEscaped,
}

impl Form {
    /// Converts a text to this form: `sent` is the text as received, `compact` the same without insignificant white space.
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
