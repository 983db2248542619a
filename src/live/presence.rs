//! Who is in a meeting, and how, by its messages, in whatever order they come: of each field the newest value counts. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::message::{LiveEvent, LiveKind, millis};
use convoke_core::time::Millis;
use convoke_log::{Place, PresentNow};

/// More are not shown: a meeting has so many at the most, and a hostile server as many as it likes.
const MAX_PEOPLE: usize = 5_000;

/// What is kept of a name.
const MAX_TEXT_CHARS: usize = 200;

/// When a message was made, and which of that millisecond it is.
type Moment = (i64, i64);

/// One list: those in the meeting, or those in the waiting room.
#[derive(Debug, Default)]
struct List {
    fields: HashMap<String, (Moment, String)>,
    gone: Option<Moment>,
}

impl List {
    fn is_there(&self) -> bool {
        self.fields.values().map(|(at, _)| *at).max() > self.gone
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }
}

#[derive(Debug, Default)]
struct Person {
    inside: List,
    waiting: List,
}

/// Who is in one meeting.
#[derive(Debug, Default)]
pub struct Presence {
    people: BTreeMap<String, Person>,
    speaking: (Moment, BTreeSet<String>),
    changed: BTreeSet<String>,
    /// Whether a full list came: before that, whoever was here before may still be.
    full: bool,
}

impl Presence {
    /// Adds what a message tells.
    pub fn add(&mut self, event: &LiveEvent) {
        let message = &event.message;
        let full = message["msgMode"].as_i64() == Some(0);
        // A full message has a time for its version, and comes before the changes to it.
        let version = message["version"].as_i64().filter(|_| !full).unwrap_or(0);
        let at = (event.at.get(), version);
        let entries = message["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        match event.kind {
            LiveKind::Participants => self.list(entries, at, full, |person| &mut person.inside),
            LiveKind::WaitingRoom => self.list(entries, at, full, |person| &mut person.waiting),
            LiveKind::Speakers if at > self.speaking.0 => {
                let now = entries.iter().filter_map(|entry| entry["pid"].as_str().map(shortened)).collect();
                let before = std::mem::replace(&mut self.speaking, (at, now)).1;
                self.changed.extend(before);
                self.changed.extend(self.speaking.1.iter().cloned());
            }
            _ => return,
        }
        self.full |= full && event.kind == LiveKind::Participants;
    }

    fn list(&mut self, entries: &[Value], at: Moment, full: bool, of: fn(&mut Person) -> &mut List) {
        let mut named = BTreeSet::new();
        for entry in entries {
            let Some(pid) = entry["pid"].as_str().filter(|pid| !pid.is_empty()).map(shortened) else { continue };
            if self.people.len() >= MAX_PEOPLE && !self.people.contains_key(&pid) {
                continue;
            }
            let list = of(self.people.entry(pid.clone()).or_default());
            if entry["mode"].as_i64() == Some(1) {
                list.gone = list.gone.max(Some(at));
            } else {
                // That they are there at all.
                let told = entry["pinfoMap"].as_object().into_iter().flatten();
                let told = told.map(|(name, value)| (name.as_str(), value)).chain([("", &Value::Null)]);
                for (name, value) in told {
                    let value = value.as_str().map(shortened).unwrap_or_default();
                    let field = list.fields.entry(name.to_owned()).or_insert_with(|| (at, String::new()));
                    if field.0 <= at {
                        *field = (at, value);
                    }
                }
            }
            named.insert(pid);
        }
        if full {
            for (pid, person) in self.people.iter_mut().filter(|(pid, _)| !named.contains(*pid)) {
                let list = of(person);
                if list.is_there() {
                    // What is newer than this message stays.
                    list.gone = list.gone.max(Some(at));
                    self.changed.insert(pid.clone());
                }
            }
        }
        self.changed.extend(named);
    }

    /// What was given as changed was not written: all of it is to be written anew.
    pub fn again(&mut self) {
        self.full = true;
    }

    /// Whether something changed since the last time.
    pub fn is_changed(&self) -> bool {
        self.full || !self.changed.is_empty()
    }

    /// What changed since the last time: who is there, and who is not any more (`None`: all others are not).
    pub fn changes(&mut self) -> Option<(Vec<PresentNow>, Option<Vec<String>>)> {
        let changed = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.full) {
            return Some((self.people.keys().filter_map(|pid| self.present(pid)).collect(), None));
        }
        let mut gone = Vec::new();
        let mut present = Vec::new();
        for pid in changed {
            match self.present(&pid) {
                Some(row) => present.push(row),
                None => gone.push(pid),
            }
        }
        (!present.is_empty() || !gone.is_empty()).then_some((present, Some(gone)))
    }

    fn present(&self, pid: &str) -> Option<PresentNow> {
        let person = self.people.get(pid)?;
        let inside = person.inside.is_there();
        // Who was let in is in both for a moment.
        let waits = person.waiting.is_there() && !inside && person.waiting.get("WAITINGSTATE") != Some("1");
        let (list, place) = match (inside, waits) {
            (true, _) if person.inside.flag("STATE") => (&person.inside, Place::Called),
            (true, _) => (&person.inside, Place::In),
            (false, true) => (&person.waiting, Place::Waiting),
            (false, false) => return None,
        };
        let text = |name: &str| list.get(name).map(str::to_owned);
        Some(PresentNow {
            participant_id: pid.to_owned(),
            place,
            display_name: text("NAME"),
            user_uuid: text("ACCOUNT_ID"),
            account: text("ACCOUNT").or_else(|| text("THIRDACCOUNT")),
            call_number: text("TEL"),
            host: list.flag("ROLE"),
            muted: list.flag("MUTE"),
            hand_raised: list.flag("HAND"),
            sharing: list.flag("SHARE"),
            speaking: self.speaking.1.contains(pid),
            since: list.get("ADDTIME").and_then(|at| millis(&Value::from(at))),
        })
    }
}

fn shortened(text: &str) -> String {
    // What the databases refuse.
    text.chars().take(MAX_TEXT_CHARS).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

/// The end that a message tells, if it does.
pub fn ended(event: &LiveEvent) -> Option<Millis> {
    let over = event.kind == LiveKind::Status && event.message["state"].as_str() == Some("Destroyed");
    over.then_some(event.at)
}

#[cfg(test)]
mod tests {
    use super::super::message::{Heard, LiveRun, heard};
    use super::*;

    fn add(presence: &mut Presence, at: i64, rest: &str) {
        let text = format!(r#"{{"createTime":{},{rest}}}"#, 1_735_700_466_000 + at);
        let run = LiveRun { meeting_id: "1", meeting_uuid: "u" };
        let Heard::Event(event) = heard(&text, run, Millis::EPOCH) else { panic!("{text}") };
        presence.add(&event);
    }

    /// Each as `name place flags`.
    fn shown(presence: &Presence) -> Vec<String> {
        let flags = |row: &PresentNow| {
            let all = [(row.muted, 'm'), (row.hand_raised, 'h'), (row.sharing, 's'), (row.speaking, 't')];
            all.into_iter().filter_map(|(on, letter)| on.then_some(letter)).collect::<String>()
        };
        let rows = presence.people.keys().filter_map(|pid| presence.present(pid));
        rows.map(|row| {
            format!("{} {} {}", row.display_name.clone().unwrap_or_default(), row.place.as_str(), flags(&row))
        })
        .collect()
    }

    #[test]
    fn of_each_field_the_newest_value_counts_whatever_order_the_messages_come_in() {
        let messages = [
            (
                0,
                r#""action":"ParticipantsNotify","msgMode":0,"version":1735700466000,"data":[{"pid":"a","mode":0,"pinfoMap":{"NAME":"A","MUTE":"1"}},{"pid":"b","mode":0,"pinfoMap":{"NAME":"B","STATE":"1"}}]"#,
            ),
            (
                5,
                r#""action":"ParticipantsNotify","msgMode":1,"version":39,"data":[{"pid":"a","mode":0,"pinfoMap":{"MUTE":"0","HAND":"1"}}]"#,
            ),
            (
                5,
                r#""action":"ParticipantsNotify","msgMode":1,"version":40,"data":[{"pid":"a","mode":0,"pinfoMap":{"HAND":"0"}}]"#,
            ),
            (6, r#""action":"ParticipantsNotify","msgMode":1,"version":41,"data":[{"pid":"b","mode":1}]"#),
            (
                7,
                r#""action":"WaitingListNotify","msgMode":1,"version":3,"data":[{"pid":"c","mode":0,"pinfoMap":{"NAME":"C","WAITINGSTATE":"0"}}]"#,
            ),
            (
                9,
                r#""action":"SpeakerChangeNotify","msgMode":0,"version":1735700466009,"data":[{"pid":"a","speakingVolume":7}]"#,
            ),
        ];
        for turn in 0..messages.len() {
            for reversed in [false, true] {
                let mut presence = Presence::default();
                let mut order: Vec<_> = messages.iter().cycle().skip(turn).take(messages.len()).collect();
                if reversed {
                    order.reverse();
                }
                order.into_iter().for_each(|(at, text)| add(&mut presence, *at, text));
                assert_eq!(shown(&presence), ["A in t", "C waiting "], "{turn} {reversed}");
            }
        }
    }

    #[test]
    fn a_full_list_ends_who_is_not_in_it_and_replaces_what_was_written_before() {
        let mut presence = Presence::default();
        add(
            &mut presence,
            0,
            r#""action":"ParticipantsNotify","msgMode":1,"data":[{"pid":"a","pinfoMap":{"NAME":"A"}}]"#,
        );
        let (present, gone) = presence.changes().expect("it changed");
        assert_eq!((present.len(), gone), (1, Some(Vec::new())));
        add(
            &mut presence,
            5,
            r#""action":"ParticipantsNotify","msgMode":0,"data":[{"pid":"b","pinfoMap":{"NAME":"B"}}]"#,
        );
        let (present, gone) = presence.changes().expect("it changed");
        assert_eq!((present.len(), &*present[0].participant_id, gone), (1, "b", None));
        assert_eq!(presence.changes(), None);
    }
}
