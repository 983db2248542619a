//! Attributes of a participant: the text columns of a row of `attendance`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::PersonBy;

/// The texts in a single allocation, because many thousands of these are kept during live meetings, and where each of them ends.
/// A missing text is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Attributes<String>", into = "Attributes<String>")]
pub struct ParticipantAttributes(Arc<Packed>);

#[derive(Debug, PartialEq, Eq)]
struct Packed {
    ends: [u32; TEXTS],
    texts: Box<str>,
}

/// The same texts as separate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes<T> {
    /// The meeting's number.
    pub meeting_id: Option<T>,
    /// The participant id.
    pub participant_id: Option<T>,
    /// The user UUID.
    pub user_uuid: Option<T>,
    /// The login name.
    pub account: Option<T>,
    /// The displayed name.
    pub display_name: Option<T>,
    /// The call number.
    pub call_number: Option<T>,
    /// The kind of client.
    pub user_agent: Option<T>,
    /// The role.
    pub role: Option<T>,
    /// The kind of device, by the platform's history.
    pub device_type: Option<T>,
    /// What was shown or heard, by the platform's history.
    pub media_type: Option<T>,
    /// The department, by the platform's history.
    pub department: Option<T>,
    /// Why they left, by the platform's dashboard.
    pub leave_reason: Option<T>,
}

/// How many texts there are.
const TEXTS: usize = 12;

impl<T> Attributes<T> {
    fn from_array(texts: [Option<T>; TEXTS]) -> Self {
        let [meeting_id, participant_id, user_uuid, account, display_name, call_number, user_agent, role, rest @ ..] =
            texts;
        let [device_type, media_type, department, leave_reason] = rest;
        Self {
            meeting_id,
            participant_id,
            user_uuid,
            account,
            display_name,
            call_number,
            user_agent,
            role,
            device_type,
            media_type,
            department,
            leave_reason,
        }
    }

    /// In the order of the fields.
    fn into_array(self) -> [Option<T>; TEXTS] {
        [
            self.meeting_id,
            self.participant_id,
            self.user_uuid,
            self.account,
            self.display_name,
            self.call_number,
            self.user_agent,
            self.role,
            self.device_type,
            self.media_type,
            self.department,
            self.leave_reason,
        ]
    }
}

/// The place among the fields of what tells who it is.
const fn place(by: PersonBy) -> usize {
    match by {
        PersonBy::Participant => 1,
        PersonBy::User => 2,
        PersonBy::Account => 3,
        PersonBy::Name => 4,
        PersonBy::Number => 5,
    }
}

impl<'a> Attributes<&'a str> {
    /// As [`ParticipantAttributes::person`].
    #[must_use]
    pub fn person(&self, by: PersonBy) -> Option<&'a str> {
        self.into_array()[place(by)]
    }

    /// Packs the texts together, without U+0000, which PostgreSQL cannot store.
    #[must_use]
    pub fn pack(self) -> ParticipantAttributes {
        let texts = self.into_array();
        let mut whole = String::with_capacity(texts.iter().flatten().map(|text| text.len()).sum());
        let ends = texts.map(|text| {
            whole.push_str(text.unwrap_or_default());
            u32::try_from(whole.len()).unwrap_or(u32::MAX)
        });
        if whole.contains('\0') {
            let texts = texts.map(|text| text.map(|text| text.replace('\0', "")));
            return Attributes::from_array(texts.each_ref().map(Option::as_deref)).pack();
        }
        ParticipantAttributes(Arc::new(Packed { ends, texts: whole.into() }))
    }
}

impl ParticipantAttributes {
    /// The texts as separate fields.
    #[must_use]
    pub fn unpack(&self) -> Attributes<&str> {
        Attributes::from_array(std::array::from_fn(|text| self.text(text)))
    }

    /// What tells who it is, where that is known by this.
    #[must_use]
    pub fn person(&self, by: PersonBy) -> Option<&str> {
        self.text(place(by))
    }

    /// One of the texts, by its place among the fields.
    fn text(&self, place: usize) -> Option<&str> {
        let end = *self.0.ends.get(place)? as usize;
        let start = place.checked_sub(1).and_then(|before| self.0.ends.get(before)).map_or(0, |end| *end as usize);
        if start == end { None } else { self.0.texts.get(start..end) }
    }
}

impl Default for ParticipantAttributes {
    fn default() -> Self {
        Attributes::default().pack()
    }
}

impl From<ParticipantAttributes> for Attributes<String> {
    fn from(packed: ParticipantAttributes) -> Self {
        Self::from_array(packed.unpack().into_array().map(|text| text.map(str::to_owned)))
    }
}

impl From<Attributes<String>> for ParticipantAttributes {
    fn from(texts: Attributes<String>) -> Self {
        let texts = texts.into_array();
        Attributes::from_array(texts.each_ref().map(Option::as_deref)).pack()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_is_read_one_by_one() {
        let texts = Attributes {
            user_uuid: Some("u"),
            display_name: Some("李"),
            role: Some("GENERAL"),
            ..Attributes::default()
        };
        let packed = texts.pack();
        assert_eq!(packed.unpack(), texts);
        assert_eq!([PersonBy::User, PersonBy::Name].map(|by| packed.person(by)), [Some("u"), Some("李")]);
        let told =
            Attributes { participant_id: Some("p"), account: Some("a"), call_number: Some("+1"), ..texts }.pack();
        let others = [PersonBy::Participant, PersonBy::Account, PersonBy::Number];
        assert_eq!(others.map(|by| told.person(by)), [Some("p"), Some("a"), Some("+1")]);
        assert_eq!(ParticipantAttributes::default().unpack(), Attributes::default());
        let json = serde_json::to_string(&packed).expect("JSON");
        assert_eq!(serde_json::from_str::<ParticipantAttributes>(&json).expect("the same"), packed);
        let hostile = Attributes { account: Some("a\0b"), ..Attributes::default() }.pack();
        assert_eq!(hostile.unpack(), Attributes { account: Some("ab"), ..Attributes::default() });
    }
}
