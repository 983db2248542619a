//! What an event tells of who it is about: the texts of a row of `attendance`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use convoke_core::event::Attendee;

/// Between two texts. None of them has it in itself: U+0000 is taken out of what comes in, and PostgreSQL has no such text.
const BETWEEN: char = '\0';

/// The texts, in one piece of memory: many thousands of these are kept while their meetings go on. One that is not told is
/// empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Texts<String>", into = "Texts<String>")]
pub struct Told(Arc<str>);

/// The same, one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Texts<T> {
    /// The meeting's number.
    pub meeting_id: Option<T>,
    /// The participant.
    pub participant_id: Option<T>,
    /// The user.
    pub user_uuid: Option<T>,
    /// The login name.
    pub account: Option<T>,
    /// The name that is shown.
    pub display_name: Option<T>,
    /// The number.
    pub call_number: Option<T>,
    /// The kind of client.
    pub user_agent: Option<T>,
    /// The role.
    pub role: Option<T>,
}

impl<T> Texts<T> {
    fn from_array(texts: [Option<T>; 8]) -> Self {
        let [meeting_id, participant_id, user_uuid, account, display_name, call_number, user_agent, role] = texts;
        Self { meeting_id, participant_id, user_uuid, account, display_name, call_number, user_agent, role }
    }

    /// In the order of their columns.
    fn into_array(self) -> [Option<T>; 8] {
        let Self { meeting_id, participant_id, user_uuid, account, display_name, call_number, user_agent, role } = self;
        [meeting_id, participant_id, user_uuid, account, display_name, call_number, user_agent, role]
    }
}

impl<'a> Texts<&'a str> {
    /// What an event tells.
    #[must_use]
    pub fn of(meeting_id: Option<&'a Arc<str>>, who: &'a Attendee) -> Self {
        Self {
            meeting_id: meeting_id.map(|text| &**text),
            participant_id: who.participant_id.as_deref(),
            user_uuid: who.user_uuid.as_deref(),
            account: who.account.as_deref(),
            display_name: who.display_name.as_deref(),
            call_number: who.call_number.as_deref(),
            user_agent: who.user_agent.as_deref(),
            role: who.role.as_deref(),
        }
    }

    /// Each of these, or else of the others.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut texts = self.into_array();
        for (text, other) in texts.iter_mut().zip(other.into_array()) {
            *text = text.or(other);
        }
        Self::from_array(texts)
    }

    /// Who that is: the user UUID, else the account, else the call number, else the participant.
    #[must_use]
    pub fn person(&self) -> Option<&'a str> {
        self.user_uuid.or(self.account).or(self.call_number).or(self.participant_id)
    }

    /// In one piece.
    #[must_use]
    pub fn told(self) -> Told {
        let texts = self.into_array();
        let mut whole =
            String::with_capacity(texts.iter().flatten().map(|text| text.len()).sum::<usize>() + texts.len());
        for (place, text) in texts.into_iter().enumerate() {
            if place > 0 {
                whole.push(BETWEEN);
            }
            match text {
                Some(text) if text.contains(BETWEEN) => whole.extend(text.chars().filter(|char| *char != BETWEEN)),
                text => whole.push_str(text.unwrap_or_default()),
            }
        }
        Told(whole.into())
    }
}

impl Told {
    /// One by one.
    #[must_use]
    pub fn texts(&self) -> Texts<&str> {
        let mut texts = [None; 8];
        for (place, text) in texts.iter_mut().zip(self.0.split(BETWEEN)) {
            *place = Some(text).filter(|text| !text.is_empty());
        }
        Texts::from_array(texts)
    }
}

impl Default for Told {
    fn default() -> Self {
        Texts::default().told()
    }
}

impl From<Told> for Texts<String> {
    fn from(told: Told) -> Self {
        Self::from_array(told.texts().into_array().map(|text| text.map(str::to_owned)))
    }
}

impl From<Texts<String>> for Told {
    fn from(texts: Texts<String>) -> Self {
        let texts = texts.into_array();
        Texts::from_array(texts.each_ref().map(Option::as_deref)).told()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_is_read_one_by_one() {
        let texts =
            Texts { user_uuid: Some("u"), display_name: Some("李"), role: Some("GENERAL"), ..Texts::default() };
        let told = texts.told();
        assert_eq!(told.texts(), texts);
        assert_eq!(told.texts().person(), Some("u"));
        assert_eq!(Told::default().texts(), Texts::default());
        let json = serde_json::to_string(&told).expect("JSON");
        assert_eq!(serde_json::from_str::<Told>(&json).expect("the same"), told);
        let hostile = Texts { account: Some("a\0b"), ..Texts::default() }.told();
        assert_eq!(hostile.texts(), Texts { account: Some("ab"), ..Texts::default() });
    }
}
