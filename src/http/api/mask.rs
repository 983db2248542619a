//! Masking: the one place that knows what is personal in a row, and hides it from who may not see it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::http::auth::Right;
use crate::intake::REFUSED_BY_DATABASE;
use convoke_log::{ListedEvent, ListedMeeting, ListedQuarantined, ListedRecording, ListedStay, PresentNow};

/// An id of a stay: bytes of the time that leads it, and of each half of the rest.
const LED: usize = 6;
const HALF: usize = 5;

/// Four of them are as good as any permutation.
const ROUNDS: u8 = 4;

/// No text begins with this byte: what is made of an id is nobody's pseudonym.
const STAY: u8 = 0xff;

/// Hides what is personal. Whoever is hidden keeps one pseudonym for as long as the process lives, and no longer: who
/// collects them learns nothing about who they are, nor about yesterday.
pub(crate) struct Mask {
    pseudonyms: Hmac<Sha256>,
}

impl Default for Mask {
    fn default() -> Self {
        let key: [u8; 32] = rand::random();
        Self { pseudonyms: Hmac::new_from_slice(&key).expect("HMAC takes a key of any length") }
    }
}

/// What is nobody's business who may not see people.
pub(crate) fn open<T>(value: Option<T>, right: Right) -> Option<T> {
    value.filter(|_| right == Right::Full)
}

/// The first character.
fn initial(text: &str) -> String {
    text.chars().take(1).chain(['…']).collect()
}

/// The last two digits, if there are more than those.
fn last_digits(text: &str) -> String {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
    let shown = digits.len().saturating_sub(2).max(2).min(digits.len());
    ['…'].into_iter().chain(digits[shown..].iter().copied()).collect()
}

fn shorten(text: &mut Option<String>, shorter: impl Fn(&str) -> String) {
    *text = text.as_deref().map(shorter);
}

impl Mask {
    fn pseudonym(&self, person: &str) -> String {
        let digest = self.pseudonyms.clone().chain_update(person).finalize().into_bytes();
        format!("p-{}", hex::encode(&digest[..5]))
    }

    /// A stay's id, as somebody with this right sees it. It is led by a time and goes on with a hash of who it is, which tells
    /// whether a guess is right: in its place comes something that only we can turn back.
    pub fn stay_id(&self, id: Uuid, right: Right) -> Uuid {
        if right == Right::Masked { self.permute(id, 0..ROUNDS) } else { id }
    }

    /// Which stay is meant by that. Of an id that another process has masked the time alone is right.
    pub fn named_stay(&self, id: Uuid, right: Right) -> Uuid {
        if right == Right::Masked { self.permute(id, (0..ROUNDS).rev()) } else { id }
    }

    /// A Feistel network: what its rounds do in one order they undo in the other.
    fn permute(&self, id: Uuid, rounds: impl Iterator<Item = u8>) -> Uuid {
        let mut bytes = id.into_bytes();
        let (led, hash) = bytes.split_at_mut(LED);
        let (mut changed, mut other) = hash.split_at_mut(HALF);
        let mut even = true;
        for round in rounds {
            if even != (round % 2 == 0) {
                (changed, other, even) = (other, changed, !even);
            }
            let pad = self.pseudonyms.clone().chain_update([STAY, round]).chain_update(&*led).chain_update(&*other);
            changed.iter_mut().zip(pad.finalize().into_bytes()).for_each(|(byte, pad)| *byte ^= pad);
        }
        Uuid::from_bytes(bytes)
    }

    /// An event, for somebody with this right.
    pub fn event(&self, mut row: ListedEvent, right: Right) -> ListedEvent {
        if right == Right::Masked {
            row.masked = true;
            (row.user_uuid, row.user_agent, row.participant_id, row.event_info) = (None, None, None, None);
            shorten(&mut row.account, initial);
            shorten(&mut row.display_name, initial);
            shorten(&mut row.call_number, last_digits);
        }
        row
    }

    /// A run, for somebody with this right.
    pub fn meeting(&self, mut row: ListedMeeting, right: Right) -> ListedMeeting {
        if right == Right::Masked {
            row.masked = true;
            (row.subject, row.host_user_uuid, row.virtual_room) = (None, None, None);
            shorten(&mut row.host, initial);
        }
        row
    }

    /// Somebody in a running meeting, for somebody with this right.
    pub fn present(&self, mut row: PresentNow, right: Right) -> PresentNow {
        if right == Right::Masked {
            row.participant_id = self.pseudonym(&row.participant_id);
            row.user_uuid = None;
            shorten(&mut row.account, initial);
            shorten(&mut row.display_name, initial);
            shorten(&mut row.call_number, last_digits);
        }
        row
    }

    /// A stay, for somebody with this right.
    pub fn stay(&self, mut row: ListedStay, right: Right) -> ListedStay {
        if right == Right::Masked {
            row.masked = true;
            row.stay_id = self.stay_id(row.stay_id, right);
            (row.participant_id, row.user_uuid, row.user_agent, row.department) = (None, None, None, None);
            shorten(&mut row.person, |person| self.pseudonym(person));
            shorten(&mut row.account, initial);
            shorten(&mut row.display_name, initial);
            shorten(&mut row.call_number, last_digits);
        }
        row
    }

    /// A recording, for somebody with this right.
    pub fn recording(&self, mut row: ListedRecording, right: Right) -> ListedRecording {
        if right == Right::Masked {
            row.masked = true;
            row.view_url = None;
        }
        row
    }

    /// An entry of the quarantine without its body, for somebody with this right.
    pub fn quarantined(&self, mut row: ListedQuarantined, right: Right) -> ListedQuarantined {
        if right == Right::Masked {
            row.masked = true;
            // What the database says may cite the values.
            if row.reason.starts_with(REFUSED_BY_DATABASE) {
                REFUSED_BY_DATABASE.clone_into(&mut row.reason);
            }
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_a_character_and_numbers_two_digits() {
        assert_eq!(initial("王小明"), "王…");
        assert_eq!(initial("A"), "A…");
        assert_eq!(last_digits("+8613900001234"), "…34");
        assert_eq!(last_digits("123"), "…3", "never all of a short one");
        assert_eq!(last_digits("12"), "…");
        assert_eq!(last_digits("sip:x"), "…");
    }

    #[test]
    fn a_person_keeps_one_pseudonym_while_the_process_lives() {
        let (one, other) = (Mask::default(), Mask::default());
        assert_eq!(one.pseudonym("li"), one.pseudonym("li"));
        assert_ne!(one.pseudonym("li"), one.pseudonym("wang"));
        assert_ne!(one.pseudonym("li"), other.pseudonym("li"));
        assert!(one.pseudonym("li").len() == 12 && one.pseudonym("li").starts_with("p-"));
    }

    #[test]
    fn a_masked_id_of_a_stay_keeps_its_time_and_nothing_else_and_only_its_process_can_turn_it_back() {
        let (one, other) = (Mask::default(), Mask::default());
        let id = Uuid::from_u128(0x0199_d3a0_7c00_1122_3344_5566_7788_99aa);
        assert_eq!((one.stay_id(id, Right::Full), one.named_stay(id, Right::Full)), (id, id));
        let masked = one.stay_id(id, Right::Masked);
        assert_eq!(
            (masked.as_bytes()[..LED].to_vec(), one.stay_id(id, Right::Masked)),
            (id.as_bytes()[..LED].to_vec(), masked)
        );
        assert_eq!(one.named_stay(masked, Right::Masked), id);
        assert_ne!(other.named_stay(masked, Right::Masked), id);
        // Whatever differs, all of the rest does.
        for near in [id.as_u128() ^ 1, id.as_u128() ^ (1 << 79), id.as_u128() ^ (1 << 80)].map(Uuid::from_u128) {
            let (left, right) = (one.stay_id(near, Right::Masked).into_bytes(), masked.into_bytes());
            assert!(left[LED..LED + HALF] != right[LED..LED + HALF] && left[LED + HALF..] != right[LED + HALF..]);
        }
    }
}
