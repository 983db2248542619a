//! From rows to what is told of them: the one place that knows what is personal, and hides it from who may not see it.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use sha2::Sha256;
use uuid::Uuid;

use super::ask::Time;
use super::items::{Event, Info, Meeting, Quarantined, Recording, Stay};
use crate::http::access::Right;
use crate::intake::REFUSED_BY_DATABASE;
use convoke_core::time::Millis;
use convoke_log::{ListedEvent, ListedMeeting, ListedQuarantined, ListedRecording, ListedStay};

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

fn time(at: Option<Millis>) -> Option<Time> {
    at.map(Time)
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
    pub fn event(&self, row: ListedEvent, right: Right) -> Event {
        let masked = right == Right::Masked;
        Event {
            seq: row.seq.0,
            event_id: row.event_id.to_string(),
            subscriber_id: row.subscriber_id,
            event: row.event,
            occurred_at: Time(row.occurred_at),
            received_at: Time(row.received_at),
            meeting_id: row.meeting_id,
            meeting_uuid: row.meeting_uuid,
            meeting_cycle_sub_id: row.meeting_cycle_sub_id,
            user_uuid: open(row.user_uuid, right),
            user_agent: open(row.user_agent, right),
            account: if masked { row.account.as_deref().map(initial) } else { row.account },
            participant_id: open(row.participant_id, right),
            display_name: if masked { row.display_name.as_deref().map(initial) } else { row.display_name },
            role: row.role,
            call_number: if masked { row.call_number.as_deref().map(last_digits) } else { row.call_number },
            join_time: time(row.join_time),
            left_time: time(row.left_time),
            source: row.source,
            deliveries: row.deliveries,
            last_delivered_at: Time(row.last_delivered_at),
            request_id: row.request_id,
            event_info: open(row.event_info, right).map(info),
            forgotten_at: time(row.forgotten_at),
            masked,
        }
    }

    /// A run, for somebody with this right.
    pub fn meeting(&self, row: ListedMeeting, right: Right) -> Meeting {
        let masked = right == Right::Masked;
        Meeting {
            subscriber_id: row.subscriber_id,
            meeting_uuid: row.meeting_uuid,
            meeting_id: row.meeting_id,
            meeting_cycle_sub_id: row.meeting_cycle_sub_id,
            status: row.status.into(),
            created_at: time(row.created_at),
            modified_at: time(row.modified_at),
            modifications: row.modifications,
            cancelled_at: time(row.cancelled_at),
            started_at: time(row.started_at),
            ended_at: time(row.ended_at),
            concluded_at: time(row.concluded_at),
            stays: row.stays,
            participants: row.participants,
            peak_participants: row.peak_participants,
            recordings: row.recordings,
            first_event_at: Time(row.first_event_at),
            last_event_at: Time(row.last_event_at),
            subject: open(row.subject, right),
            scheduled_start_at: time(row.scheduled_start_at),
            scheduled_end_at: time(row.scheduled_end_at),
            host: if masked { row.host.as_deref().map(initial) } else { row.host },
            corp_id: row.corp_id,
            masked,
        }
    }

    /// A stay, for somebody with this right.
    pub fn stay(&self, row: ListedStay, right: Right) -> Stay {
        let masked = right == Right::Masked;
        Stay {
            stay_id: self.stay_id(row.stay_id, right).to_string(),
            subscriber_id: row.subscriber_id,
            meeting_uuid: row.meeting_uuid,
            meeting_id: row.meeting_id,
            participant_id: open(row.participant_id, right),
            person: if masked { row.person.map(|person| self.pseudonym(&person)) } else { row.person },
            user_uuid: open(row.user_uuid, right),
            account: if masked { row.account.as_deref().map(initial) } else { row.account },
            display_name: if masked { row.display_name.as_deref().map(initial) } else { row.display_name },
            call_number: if masked { row.call_number.as_deref().map(last_digits) } else { row.call_number },
            user_agent: open(row.user_agent, right),
            role: row.role,
            joined_at: time(row.joined_at),
            left_at: time(row.left_at),
            duration_s: row.duration_s,
            closed_by: row.closed_by.into(),
            masked,
        }
    }

    /// A recording, for somebody with this right.
    pub fn recording(&self, row: ListedRecording, right: Right) -> Recording {
        Recording {
            event_id: row.event_id.to_string(),
            subscriber_id: row.subscriber_id,
            meeting_uuid: row.meeting_uuid,
            meeting_id: row.meeting_id,
            finished_at: Time(row.finished_at),
            ready_at: time(row.ready_at),
            length_s: row.length_s,
            size_mb: row.size_mb,
            files: row.files,
            view_url: open(row.view_url, right),
            masked: right == Right::Masked,
        }
    }

    /// An entry of the quarantine without its body, for somebody with this right.
    pub fn quarantined(&self, row: ListedQuarantined, right: Right) -> Quarantined {
        Quarantined {
            id: row.id,
            subscriber_id: row.subscriber_id,
            received_at: Time(row.received_at),
            deliveries: row.deliveries,
            // What the database says may cite the values.
            reason: match row.reason.split_once(REFUSED_BY_DATABASE) {
                Some(("", _)) if right == Right::Masked => REFUSED_BY_DATABASE.to_owned(),
                _ => row.reason,
            },
            bytes: row.bytes,
            masked: right == Right::Masked,
        }
    }
}

/// Lone surrogates are escapes that many parsers refuse, and with them the whole answer.
fn info(text: String) -> Info {
    match serde_json::from_str::<Box<RawValue>>(&text) {
        Ok(json) if strict(&text) => Info::Json(json),
        _ => Info::Text(text),
    }
}

/// Whether every string in it is Unicode, and it is no deeper than every parser goes.
fn strict(json: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(json).is_ok()
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

    #[test]
    fn what_is_no_json_for_everybody_is_told_as_text() {
        assert!(matches!(info(r#"{"a":1.0}"#.to_owned()), Info::Json(_)));
        assert!(matches!(info(r#"{"a":"\ud800"}"#.to_owned()), Info::Text(_)));
        let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
        assert!(matches!(info(deep), Info::Text(_)));
    }
}
