//! The simulated enterprise: many meetings at once, merged into one stream of events in the order of its own time.
//!
//! Pure, and endless if it is asked to be: what it holds does not grow. Its clock starts at a given base and jumps from
//! event to event, so that an hour of meetings passes in the time that it takes to send them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::body;
use super::people::{Person, Uuid, mix};
use super::script::{self, Happened, MeetingRef, Plan, Script, What};
use super::truth;
use convoke_core::event::TEST_MEETINGS;
use convoke_core::time::Millis;

/// Meetings that go on at once, if nobody else is invited than a handful; fewer if they are large, so that memory stays
/// bounded by about [`MAX_PEOPLE`].
const MAX_MEETINGS: usize = 256;
const MAX_PEOPLE: usize = 16_384;
/// Seeds the company, which is the same in every world: an account is one person's.
const COMPANY: u64 = 7;
/// How many meeting ids are kept for another use.
const MAX_RETIRED_IDS: usize = 64;

/// Where what happens is recorded, whether or not an event of it is sent.
pub(crate) trait Witness: std::fmt::Debug + Send + Sync {
    /// The first `done` steps of `script` have happened. A meeting that was cancelled is not there any more.
    fn note(&self, script: &Script, done: usize);

    /// The same; the last step was that somebody came or went.
    fn passed(&self, script: &Script, done: usize);
}

/// What the world is to be like. The same settings make the same world.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorldSettings {
    /// Decides what happens.
    pub seed: u64,
    /// When it begins. Together with the seed it decides the UUIDs of meetings, so that another run with the same seed
    /// at another time has the same course but is not taken for a repetition.
    pub base: Millis,
    /// How many runs of meetings there are; `None` for no end.
    pub meetings: Option<u64>,
    /// How many people come to each.
    pub attendees: usize,
    /// Whether some go on for days.
    pub long_rooms: bool,
}

/// One run in so many goes on for days, if there are such.
const LONG_ROOMS: u64 = 15;

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    subscriber: Box<str>,
    settings: WorldSettings,
    begun: u64,
    shape: Xoshiro256PlusPlus,
    ids: Xoshiro256PlusPlus,
    live: Vec<Live>,
    /// The next step of every live meeting: its time and its place in `live`.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    retired: VecDeque<u32>,
    truth: Option<Vec<u8>>,
    witness: Option<Arc<dyn Witness>>,
}

#[derive(Debug)]
struct Live {
    script: Script,
    done: usize,
    /// How many occurrences of a recurring meeting are still to come.
    to_come: u8,
}

/// What a new run is of.
#[derive(Debug)]
enum Beginning {
    /// A meeting of its own.
    New,
    /// The next occurrence of the recurring meeting with this id, after which so many are to come.
    Occurrence(u32, u8),
    /// A meeting that is entered again by these people, and how many occurrences of it are to come.
    Again(MeetingRef, Vec<Person>, u8),
}

impl World {
    /// A world for `subscriber`, which keeps the truth only `with_truth`.
    pub(super) fn new(subscriber: &str, settings: WorldSettings, with_truth: bool) -> Self {
        let at_once = (MAX_PEOPLE / settings.attendees.max(1)).clamp(4, MAX_MEETINGS);
        let moment = u64::try_from(settings.base.get()).unwrap_or(0);
        let mut world = Self {
            subscriber: subscriber.into(),
            settings,
            begun: 0,
            shape: Xoshiro256PlusPlus::seed_from_u64(settings.seed),
            ids: Xoshiro256PlusPlus::seed_from_u64(mix(settings.seed) ^ mix(moment)),
            live: Vec::with_capacity(at_once),
            next: BinaryHeap::with_capacity(at_once),
            retired: VecDeque::with_capacity(MAX_RETIRED_IDS),
            truth: with_truth.then(Vec::new),
            witness: None,
        };
        let mut not_before = settings.base.get();
        for slot in 0..at_once {
            if let Some(live) = world.begin(Beginning::New, not_before) {
                world.next.push(Reverse((live.script.steps.first().map_or(0, |step| step.at), slot)));
                world.live.push(live);
            }
            not_before += world.shape.random_range(0..20_000);
        }
        world
    }

    /// The same world, watched by the platform.
    pub(super) fn seen_by(mut self, witness: Option<Arc<dyn Witness>>) -> Self {
        self.witness = witness;
        self
    }

    /// Lets the next thing happen and writes its `eventInfo` to `info` (cleared first), or `None` if all is over.
    pub(super) fn next(&mut self, info: &mut Vec<u8>) -> Option<Happened> {
        let Reverse((at, slot)) = self.next.pop()?;
        let live = self.live.get_mut(slot)?;
        let step = *live.script.steps.get(live.done)?;
        live.done += 1;
        info.clear();
        let event = write(info, &live.script, step.what, at);
        let meeting_uuid = live.script.uuid_of(step.what);
        if let Some(witness) = &self.witness {
            match step.what {
                What::Join(_) | What::Left(_) => witness.passed(&live.script, live.done),
                _ => witness.note(&live.script, live.done),
            }
        }
        match live.script.steps.get(live.done) {
            Some(following) => self.next.push(Reverse((following.at, slot))),
            None => self.replace(slot, at),
        }
        Some(Happened { event, occurred_at: Millis::new(at).unwrap_or(Millis::MAX), meeting_uuid })
    }

    /// Stops the world in the midst of whatever goes on: the truth of what has happened until now is completed.
    pub(super) fn stop(&mut self) {
        self.next.clear();
        for live in std::mem::take(&mut self.live) {
            self.tell(&live.script, live.done);
        }
    }

    /// Notes in the truth that the platform lost an event.
    pub(super) fn tell_dropped(&mut self, happened: &Happened, info: &[u8]) {
        if let Some(truth) = &mut self.truth {
            truth::dropped(truth, &self.subscriber, happened, info);
        }
    }

    /// The lines of the truth so far, to be written out and cleared. Always `None` without a truth.
    pub(super) fn truth(&mut self) -> Option<&mut Vec<u8>> {
        self.truth.as_mut()
    }

    fn tell(&mut self, script: &Script, done: usize) {
        if let Some(witness) = &self.witness
            && done > 0
        {
            witness.note(script, done);
        }
        if let Some(truth) = &mut self.truth {
            truth::run(truth, &self.subscriber, script, done);
        }
    }

    /// The meeting in `slot` is over: the next begins in its place.
    fn replace(&mut self, slot: usize, now: i64) {
        let Some(live) = self.live.get(slot) else { return };
        let meeting = live.script.meeting;
        let beginning = match (live.script.again_at, live.to_come.checked_sub(1)) {
            (Some(_), _) => {
                let few = live.script.people.len().div_ceil(2);
                Beginning::Again(meeting, live.script.people[..few].to_vec(), live.to_come)
            }
            (None, Some(left)) => Beginning::Occurrence(meeting.id, left),
            (None, None) => Beginning::New,
        };
        let not_before = live.script.again_at.map_or(now, |again| again.max(now));
        let over = matches!(beginning, Beginning::New);
        let following = self.begin(beginning, not_before);
        if over {
            if self.retired.len() == MAX_RETIRED_IDS {
                self.retired.pop_front();
            }
            self.retired.push_back(meeting.id);
        }
        let over = match following {
            Some(following) => {
                self.next.push(Reverse((following.script.steps.first().map_or(now, |step| step.at), slot)));
                std::mem::replace(&mut self.live[slot], following)
            }
            // The slot stays, empty: others are known by their place.
            None => Live {
                script: std::mem::replace(
                    &mut self.live[slot].script,
                    Script {
                        meeting,
                        booking: None,
                        again_at: None,
                        people: Vec::new(),
                        stays: Vec::new(),
                        steps: Vec::new(),
                    },
                ),
                done: std::mem::take(&mut self.live[slot].done),
                to_come: 0,
            },
        };
        self.tell(&over.script, over.done);
    }

    /// Plans the next run.
    fn begin(&mut self, beginning: Beginning, not_before: i64) -> Option<Live> {
        let left = self.settings.meetings.map(|meetings| meetings.saturating_sub(self.begun));
        if left == Some(0) {
            return None;
        }
        self.begun += 1;
        let after = left.map_or(u8::MAX, |left| u8::try_from(left - 1).unwrap_or(u8::MAX));
        let already_scheduled = !matches!(beginning, Beginning::New);
        let mut occurrence = None;
        let mut entered_by = None;
        let (id, to_come, recurring) = match beginning {
            Beginning::Occurrence(id, to_come) => (id, to_come.min(after), true),
            Beginning::Again(meeting, people, to_come) => {
                (occurrence, entered_by) = (meeting.cycle_sub_id, Some(people));
                (meeting.id, to_come.min(after), meeting.cycle_sub_id.is_some())
            }
            Beginning::New => {
                let recurring = self.shape.random_ratio(1, 4);
                let to_come = if recurring { self.shape.random_range(1..4).min(after) } else { 0 };
                let reuse = self.shape.random_ratio(1, 4);
                let new_id = self.shape.random_range(900_000_000..1_000_000_000);
                let id = if reuse { self.retired.pop_front().unwrap_or(new_id) } else { new_id };
                (id, to_come, recurring)
            }
        };
        // All are always drawn, so that the ids do not depend on one another.
        let (uuid, cycle) = (test_meeting(self.ids.random()), self.ids.random());
        let booking = test_meeting(self.ids.random());
        let plan = Plan {
            meeting: MeetingRef { id, uuid, cycle_sub_id: recurring.then_some(occurrence.unwrap_or(cycle)) },
            booking,
            not_before: not_before + 1,
            attendees: self.settings.attendees,
            company: COMPANY,
            already_scheduled,
            another_may_follow: after > 0,
            entered_by,
            goes_on_for_days: self.settings.long_rooms && self.begun % LONG_ROOMS == 4,
        };
        Some(Live { script: script::plan(&plan, &mut self.shape, &mut self.ids), done: 0, to_come })
    }
}

/// Writes the event of one step; returns its type.
fn write(info: &mut Vec<u8>, script: &Script, what: What, at: i64) -> &'static str {
    let event = name(what);
    match what {
        What::Join(number) | What::Left(number) => {
            if let Some(stay) = script.stays.get(number)
                && let Some(person) = script.people.get(stay.person)
            {
                let left_time = if matches!(what, What::Left(_)) { stay.left_at } else { 0 };
                body::attendee(info, (event, at), &script.meeting, person, stay, left_time);
            }
        }
        What::Create | What::Modify | What::Cancel => {
            let booking = MeetingRef { uuid: script.uuid_of(what), ..script.meeting };
            body::meeting(info, event, at, &booking, false);
        }
        What::Started | What::Record | What::End | What::Conclude => {
            body::meeting(info, event, at, &script.meeting, true);
        }
    }
    event
}

/// The event type of a step (manual, table 6-34).
const fn name(what: What) -> &'static str {
    match what {
        What::Create => "meeting.create",
        What::Modify => "meeting.modify",
        What::Cancel => "meeting.cancel",
        What::Started => "meeting.started",
        What::Join(_) => "meeting.join",
        What::Left(_) => "meeting.left",
        What::Record => "record.finish",
        What::End => "meeting.end",
        What::Conclude => "meeting.conclude",
    }
}

/// The UUID of a meeting that is test data (see [`TEST_MEETINGS`]), made of a random one.
pub(super) fn test_meeting(random: Uuid) -> Uuid {
    let mark = u64::from_str_radix(TEST_MEETINGS, 16).unwrap_or_default();
    (u128::from(mark) << 64) | (random & u128::from(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap, HashSet};

    use super::*;
    use convoke_core::event::KNOWN_EVENTS;

    const SETTINGS: WorldSettings =
        WorldSettings { seed: 7, base: Millis::EPOCH, meetings: Some(600), attendees: 5, long_rooms: false };

    fn all(settings: WorldSettings) -> (Vec<(Happened, Vec<u8>)>, String) {
        let mut world = World::new("7700001234", settings, true);
        let (mut events, mut info) = (Vec::new(), Vec::new());
        while let Some(happened) = world.next(&mut info) {
            events.push((happened, info.clone()));
        }
        let truth = world.truth().map(|lines| String::from_utf8_lossy(lines).into_owned());
        (events, truth.unwrap_or_default())
    }

    #[test]
    fn the_same_seed_and_base_make_the_same_world_to_the_byte() {
        assert!(all(SETTINGS) == all(SETTINGS));
    }

    #[test]
    fn another_seed_makes_another_world() {
        assert!(all(SETTINGS).0 != all(WorldSettings { seed: 8, ..SETTINGS }).0);
    }

    #[test]
    fn the_same_seed_at_another_time_takes_the_same_course_with_other_uuids() {
        let later = WorldSettings { base: Millis::new(1_700_000_000_000).unwrap_or(Millis::EPOCH), ..SETTINGS };
        let (one, two) = (all(SETTINGS).0, all(later).0);
        assert_eq!(one.len(), two.len());
        for ((one, _), (two, _)) in one.iter().zip(&two) {
            assert_eq!(one.event, two.event);
            assert_eq!(two.occurred_at.get() - one.occurred_at.get(), 1_700_000_000_000);
            assert_ne!(one.meeting_uuid, two.meeting_uuid);
        }
    }

    #[test]
    fn every_event_is_distinct_and_they_come_in_the_order_of_time() {
        let (events, _) = all(SETTINGS);
        assert_eq!(events.iter().map(|(_, info)| info).collect::<HashSet<_>>().len(), events.len());
        assert!(events.windows(2).all(|pair| pair[0].0.occurred_at <= pair[1].0.occurred_at));
    }

    #[test]
    fn all_types_of_event_occur_and_each_is_json_with_the_documented_members() {
        let (events, _) = all(SETTINGS);
        let seen: BTreeSet<_> = events.iter().map(|(happened, _)| happened.event).collect();
        assert_eq!(seen, BTreeSet::from(KNOWN_EVENTS));
        for (happened, info) in &events {
            let value: serde_json::Value = serde_json::from_slice(info).expect("JSON");
            assert_eq!(value["event"], happened.event);
            assert_eq!(value["timestamp"], happened.occurred_at.get());
            let meeting = &value["payload"]["meetingInfo"];
            assert_eq!(meeting["meetingID"].as_str().map(str::len), Some(9));
            assert_eq!(meeting["meetingUUID"].as_str().map(str::len), Some(32));
            let attendee = &value["payload"]["attendeeInfo"];
            match happened.event {
                "meeting.join" => assert_eq!(attendee["leftTime"], 0),
                "meeting.left" => assert!(attendee["leftTime"].as_i64() > attendee["joinTime"].as_i64()),
                _ => assert!(attendee.is_null()),
            }
        }
    }

    #[test]
    fn a_meeting_id_is_used_again_with_new_uuids() {
        let (events, _) = all(SETTINGS);
        let mut runs: HashMap<String, HashSet<String>> = HashMap::new();
        // Occurrences of a recurring meeting share its id anyway, but only one of them is created.
        for (_, info) in events.iter().filter(|(happened, _)| happened.event == "meeting.create") {
            let value: serde_json::Value = serde_json::from_slice(info).expect("JSON");
            let meeting = &value["payload"]["meetingInfo"];
            runs.entry(meeting["meetingID"].to_string()).or_default().insert(meeting["meetingUUID"].to_string());
        }
        assert!(runs.values().any(|uuids| uuids.len() > 1));
    }

    #[test]
    fn bodies_of_joins_and_lefts_are_about_as_large_as_the_platforms() {
        let (events, _) = all(SETTINGS);
        let sizes: Vec<_> = events
            .iter()
            .filter(|(happened, _)| matches!(happened.event, "meeting.join" | "meeting.left"))
            .map(|(happened, info)| {
                convoke_core::sign::envelope("7700001234", happened.occurred_at.get(), "12345678", info, b"k").len()
            })
            .collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((600..=750).contains(&mean), "{mean}");
    }

    #[test]
    fn a_world_that_is_stopped_says_what_had_happened() {
        let mut world = World::new("7700001234", WorldSettings { meetings: None, ..SETTINGS }, true);
        let mut info = Vec::new();
        let joins = (0..5_000).filter_map(|_| world.next(&mut info)).filter(|it| it.event == "meeting.join").count();
        world.stop();
        assert_eq!(world.next(&mut info), None);
        let truth = String::from_utf8_lossy(world.truth().expect("a truth")).into_owned();
        assert_eq!(truth.lines().filter(|line| line.starts_with(r#"{"kind":"stay""#)).count(), joins);
        assert!(truth.contains(r#""closed_by":"open""#) && truth.contains(r#""status":"live""#));
    }
}
