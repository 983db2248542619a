//! The life of one run of a meeting, planned as a whole: what happens, when, and who is there. Pure.
//!
//! `create, modify*, (cancel | started, (join | left | record.finish)*, end, (join, left)?, (started … end again), conclude?)`
//! after the manual's section 6.2.3; see [`plan`] for what is left to chance.

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use convoke_core::time::Millis;

use super::people::{Person, Uuid, Who};

/// What `meetingInfo` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MeetingRef {
    /// Nine digits.
    pub id: u32,
    /// One run of the meeting.
    pub uuid: Uuid,
    /// The occurrence of a recurring meeting.
    pub cycle_sub_id: Option<Uuid>,
}

/// An event that has happened. Its `eventInfo` is written apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub event: &'static str,
    pub occurred_at: Millis,
    pub meeting_uuid: Uuid,
}

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// What happens to a meeting. The number is an index into [`Script::stays`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Create,
    Modify,
    Cancel,
    Started,
    Join(usize),
    Left(usize),
    Record,
    End,
    Conclude,
}

/// Something that happens at `at`, in milliseconds: the event's timestamp. No two steps of a script have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub at: i64,
    pub what: What,
}

/// From joining to leaving, on one device. Times are `joinTime` and `leftTime`, a moment before their events'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// An index into [`Script::people`].
    pub person: usize,
    pub participant_id: Uuid,
    pub user_agent: &'static str,
    pub role: &'static str,
    pub joined_at: i64,
    pub left_at: i64,
    /// What is told of the person.
    pub told: Told,
    /// Whether a left event will be sent. Not for those who are there when the host ends the meeting for all, in some
    /// meetings: the manual does not say, so receivers must cope with both.
    pub says_goodbye: bool,
}

/// What the platform tells of a person in a stay: the manual does not say when it tells all that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// All that there is.
    All,
    /// Account and number, but no user.
    Account,
    /// The number alone.
    Number,
}

/// What a run is to be like, as far as the world decides it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub meeting: MeetingRef,
    /// The UUID of the booking, if it is to be another than the run's.
    pub booking: Uuid,
    /// Nothing happens before this time, in milliseconds.
    pub not_before: i64,
    /// How many people come.
    pub attendees: usize,
    /// Seeds the company.
    pub company: u64,
    /// An occurrence after the first of a recurring meeting: scheduled together with the first.
    pub already_scheduled: bool,
    /// Whether there may be another run of the same booking after this one.
    pub another_may_follow: bool,
    /// This is one: the booking is entered again, by these.
    pub entered_by: Option<Vec<Person>>,
    /// A room that is left open, from one day to three and a half.
    pub goes_on_for_days: bool,
}

/// One run of a meeting.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub meeting: MeetingRef,
    /// The UUID under which it was scheduled, edited and cancelled, if that is another: the manual does not say whether it is.
    pub booking: Option<Uuid>,
    /// When the booking is entered again, as another run.
    pub again_at: Option<i64>,
    pub people: Vec<Person>,
    pub stays: Vec<Stay>,
    /// In the order of time.
    pub steps: Vec<Step>,
}

/// Plans a run. `shape` decides what happens, `ids` only what participants are called.
///
/// One in five single meetings is instant (no create), one in three scheduled ones has its booking under another UUID, one in
/// twelve is cancelled; one in six is entered again after its end, half of them as another run; one in ten has somebody who
/// comes after its end; one in three is recorded (up to three times); one in eight is ended for all without left events. Half of
/// the single ones are concluded: bookings that are kept are not, nor are recurring ones.
pub(super) fn plan(plan: &Plan, shape: &mut Xoshiro256PlusPlus, ids: &mut Xoshiro256PlusPlus) -> Script {
    let mut script = Script {
        meeting: plan.meeting,
        booking: None,
        again_at: None,
        people: Vec::new(),
        stays: Vec::new(),
        steps: Vec::new(),
    };
    let mut at = plan.not_before + shape.random_range(0..MINUTE_MS);
    let single = plan.meeting.cycle_sub_id.is_none();
    let instant = plan.already_scheduled || plan.entered_by.is_some() || (single && shape.random_ratio(1, 5));
    if !instant {
        script.booking = (single && shape.random_ratio(1, 3)).then_some(plan.booking);
        script.step(at, What::Create);
        for _ in 0..[0, 0, 0, 1, 1, 2][shape.random_range(0..6)] {
            at += shape.random_range(10 * SECOND_MS..10 * MINUTE_MS);
            script.step(at, What::Modify);
        }
        at += shape.random_range(MINUTE_MS..30 * MINUTE_MS);
        if single && shape.random_ratio(1, 12) {
            script.step(at, What::Cancel);
            return script;
        }
    }
    match &plan.entered_by {
        Some(people) => script.people.clone_from(people),
        None => script.invite(plan, shape),
    }
    let length = match plan.goes_on_for_days {
        true => shape.random_range(DAY_MS..7 * DAY_MS / 2),
        false => shape.random_range(10 * MINUTE_MS..60 * MINUTE_MS),
    };
    let everyone = 0..script.people.len();
    let end = script.session(at, at + length, everyone, shape, ids);
    at = end;
    if shape.random_ratio(1, 6) {
        let again = at + shape.random_range(30 * SECOND_MS..5 * MINUTE_MS);
        if plan.another_may_follow && shape.random() {
            script.again_at = Some(again);
        } else {
            let few = 0..script.people.len().div_ceil(2);
            at = script.session(again, again + shape.random_range(2 * MINUTE_MS..15 * MINUTE_MS), few, shape, ids);
        }
    }
    if single && script.again_at.is_none() && shape.random() {
        script.step(at + shape.random_range(2 * SECOND_MS..10 * MINUTE_MS), What::Conclude);
    }
    script.settle();
    script
}

impl Script {
    /// The UUID that an event has.
    pub(super) fn uuid_of(&self, what: What) -> Uuid {
        match (what, self.booking) {
            (What::Create | What::Modify | What::Cancel, Some(booking)) => booking,
            _ => self.meeting.uuid,
        }
    }

    fn step(&mut self, at: i64, what: What) {
        self.steps.push(Step { at, what });
    }

    /// Chooses the people: distinct employees, about one guest in ten, and some who dial in.
    fn invite(&mut self, plan: &Plan, shape: &mut Xoshiro256PlusPlus) {
        let company_size = plan.attendees.saturating_mul(4).next_power_of_two().max(512);
        let mask = u32::try_from(company_size - 1).unwrap_or(u32::MAX);
        let (first, stride) = (shape.random::<u32>(), shape.random::<u32>() | 1);
        let mut next = first;
        self.people = (0..plan.attendees)
            .map(|number| {
                next = next.wrapping_add(stride);
                let who = match shape.random_range(0..100) {
                    0..5 if number > 0 => Who::Guest(shape.random()),
                    5..9 if number > 0 => Who::Visitor(shape.random()),
                    9..15 if number > 0 => Who::Telephone(shape.random()),
                    _ => Who::Employee(next & mask),
                };
                who.person(plan.company)
            })
            .collect();
        self.rename(shape);
    }

    /// Visitors, of whom nothing but the name is known, have names of their own, or else one that is many people's.
    fn rename(&mut self, shape: &mut Xoshiro256PlusPlus) {
        let mut number = 0;
        for person in self.people.iter_mut().filter(|person| matches!(person.who, Who::Visitor(_))) {
            number += 1;
            if shape.random_ratio(1, 4) {
                person.display_name = "iPhone".to_owned();
            } else {
                person.display_name.push_str(&format!(" {number}"));
            }
        }
    }

    /// People come and go from `start` on, some twice or with two devices. Returns when it really ended: once everyone
    /// had left, at `end` or a little later.
    fn session(
        &mut self,
        start: i64,
        end: i64,
        present: std::ops::Range<usize>,
        shape: &mut Xoshiro256PlusPlus,
        ids: &mut Xoshiro256PlusPlus,
    ) -> i64 {
        self.step(start, What::Started);
        let for_all = shape.random_ratio(1, 8);
        let length = end - start;
        for person in present {
            let chair = person == 0;
            let late = if shape.random_ratio(3, 4) { MINUTE_MS } else { length / 2 };
            let joined_at = start + 1 + if chair { 0 } else { shape.random_range(0..late) };
            let participant_id = ids.random();
            let role = if chair { "CHAIR" } else { "GENERAL" };
            let device = |number| self.people[person].who.user_agent(number);
            let (first, second) = (device(0), device(1));
            let stays_on = chair || shape.random_ratio(3, 5);
            let farewell = end - shape.random_range(0..20 * SECOND_MS);
            let mut left_at = if stays_on { farewell } else { shape.random_range(joined_at + 5 * SECOND_MS..end) };
            let mut says_goodbye = !(for_all && stays_on);
            let back_at = joined_at + shape.random_range(10 * SECOND_MS..length / 3);
            if !chair && shape.random_ratio(1, 7) && back_at + 10 * SECOND_MS < left_at {
                // Out and in again: as the same participant or as a new one, since the manual does not say which.
                let out_at = back_at - shape.random_range(2 * SECOND_MS..8 * SECOND_MS);
                let again = if shape.random() { participant_id } else { ids.random() };
                let told = Told::All;
                let whole =
                    Stay { person, participant_id, user_agent: first, role, joined_at, left_at, told, says_goodbye };
                let told = self.less(person, shape);
                self.stay(Stay { left_at: out_at, says_goodbye: true, ..whole }, shape);
                self.stay(Stay { participant_id: again, joined_at: back_at, told, ..whole }, shape);
                continue;
            }
            if matches!(self.people[person].who, Who::Employee(_)) && shape.random_ratio(1, 12) {
                // A second device, which is a participant of its own.
                let also_at = joined_at + shape.random_range(SECOND_MS..(left_at - joined_at).max(3 * SECOND_MS) / 2);
                let also = Stay {
                    person,
                    participant_id: ids.random(),
                    user_agent: second,
                    role: "GENERAL",
                    joined_at: also_at,
                    left_at,
                    told: self.less(person, shape),
                    says_goodbye,
                };
                self.stay(also, shape);
                left_at -= SECOND_MS;
                says_goodbye = true;
            }
            let told = Told::All;
            self.stay(
                Stay { person, participant_id, user_agent: first, role, joined_at, left_at, told, says_goodbye },
                shape,
            );
        }
        if shape.random_ratio(1, 3) {
            for _ in 0..shape.random_range(1..4_usize) {
                self.step(shape.random_range(start + length / 4..end), What::Record);
            }
        }
        let ended_at = end + shape.random_range(SECOND_MS..3 * SECOND_MS);
        self.step(ended_at, What::End);
        if shape.random_ratio(1, 10) && !self.people.is_empty() {
            self.straggle(ended_at, shape, ids);
        }
        ended_at
    }

    /// Somebody enters as the meeting ends, is thrown out, and it is not always said that they left.
    fn straggle(&mut self, ended_at: i64, shape: &mut Xoshiro256PlusPlus, ids: &mut Xoshiro256PlusPlus) {
        let person = shape.random_range(0..self.people.len());
        let joined_at = ended_at + shape.random_range(30..90);
        let straggler = Stay {
            person,
            participant_id: ids.random(),
            user_agent: self.people[person].who.user_agent(0),
            role: "GENERAL",
            joined_at,
            left_at: joined_at + shape.random_range(SECOND_MS..20 * SECOND_MS),
            told: Told::All,
            says_goodbye: shape.random_ratio(2, 3),
        };
        self.stay(straggler, shape);
    }

    /// What is told of a person of whom all was told before: of employees now and then less.
    fn less(&self, person: usize, shape: &mut Xoshiro256PlusPlus) -> Told {
        match (self.people[person].who, shape.random_range(0..4)) {
            (Who::Employee(_), 0) => Told::Account,
            (Who::Employee(_), 1) => Told::Number,
            _ => Told::All,
        }
    }

    /// Adds a stay and its events, each a moment after its time.
    fn stay(&mut self, stay: Stay, shape: &mut Xoshiro256PlusPlus) {
        let number = self.stays.len();
        self.step(stay.joined_at + shape.random_range(20..900), What::Join(number));
        if stay.says_goodbye {
            self.step(stay.left_at + shape.random_range(20..900), What::Left(number));
        }
        self.stays.push(stay);
    }

    /// Brings the steps into the order of time and moves those apart that fell into the same millisecond, so that no
    /// two events of a meeting can have the same content.
    fn settle(&mut self) {
        self.steps.sort_by_key(|step| step.at);
        let mut last = i64::MIN;
        for step in &mut self.steps {
            step.at = step.at.max(last + 1);
            last = step.at;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn scripts(count: u64, attendees: usize) -> impl Iterator<Item = Script> {
        (0..count).map(move |seed| {
            let meeting = MeetingRef { id: 960_000_017, uuid: 1, cycle_sub_id: seed.is_multiple_of(3).then_some(2) };
            let given = Plan {
                meeting,
                booking: 3,
                not_before: 1_700_000_000_000,
                attendees,
                company: 9,
                already_scheduled: false,
                another_may_follow: !seed.is_multiple_of(6),
                entered_by: None,
                goes_on_for_days: seed % 50 == 7,
            };
            plan(&given, &mut Xoshiro256PlusPlus::seed_from_u64(seed), &mut Xoshiro256PlusPlus::seed_from_u64(seed))
        })
    }

    #[test]
    fn steps_are_in_order_and_no_two_have_the_same_time() {
        for script in scripts(300, 12) {
            assert!(script.steps.windows(2).all(|pair| pair[0].at < pair[1].at), "{:?}", script.steps);
            assert!(script.steps.iter().all(|step| step.at >= 1_700_000_000_000));
        }
    }

    #[test]
    fn every_left_follows_its_join_and_its_times_are_in_order() {
        for script in scripts(300, 12) {
            let mut inside = std::collections::HashSet::new();
            for step in &script.steps {
                match step.what {
                    What::Join(stay) => {
                        assert!(inside.insert(stay), "joined twice");
                        assert!(script.stays[stay].joined_at < step.at);
                    }
                    What::Left(stay) => {
                        assert!(inside.remove(&stay), "left before joining");
                        let Stay { joined_at, left_at, .. } = script.stays[stay];
                        assert!(joined_at < left_at && left_at < step.at);
                    }
                    _ => {}
                }
            }
            assert!(inside.iter().all(|stay| !script.stays[*stay].says_goodbye), "somebody never left");
        }
    }

    #[test]
    fn starts_and_ends_alternate_and_nobody_comes_to_a_meeting_that_is_not_on() {
        for script in scripts(300, 12) {
            let (mut on, mut sessions, mut ended_at) = (false, 0, 0);
            for step in &script.steps {
                match step.what {
                    What::Started => {
                        assert!(!on);
                        (on, sessions) = (true, sessions + 1);
                    }
                    What::End => {
                        assert!(on);
                        (on, ended_at) = (false, step.at);
                    }
                    What::Join(stay) if !on => {
                        let late = script.stays[stay].joined_at - ended_at;
                        assert!((1..100).contains(&late), "only as it ends: {:?}", script.steps);
                    }
                    What::Record => assert!(on, "{:?}", script.steps),
                    _ => {}
                }
            }
            assert!(!on && sessions <= 2);
        }
    }

    #[test]
    fn everything_that_a_meeting_can_go_through_is_seen() {
        let all: Vec<_> = scripts(300, 12).collect();
        let has = |what: &dyn Fn(&Script) -> bool| all.iter().any(what);
        let count = |script: &Script, what: What| script.steps.iter().filter(|step| step.what == what).count();
        assert!(has(&|script| count(script, What::Cancel) == 1 && count(script, What::Started) == 0));
        assert!(has(&|script| count(script, What::Started) == 2), "re-entered");
        assert!(has(&|script| script.again_at.is_some()), "re-entered as another run");
        assert!(has(&|script| script.booking.is_some()), "scheduled under another UUID");
        assert!(has(&|script| count(script, What::Conclude) == 0 && script.meeting.cycle_sub_id.is_none()), "kept");
        let ends = |script: &Script| script.steps.iter().rev().find(|step| step.what == What::End).map(|step| step.at);
        let late = |script: &Script, told: bool| {
            script.stays.iter().any(|stay| Some(stay.joined_at) > ends(script) && stay.says_goodbye == told)
        };
        assert!(has(&|script| ends(script).is_some() && late(script, true)), "a straggler");
        assert!(has(&|script| ends(script).is_some() && late(script, false)), "who is not seen leaving");
        assert!(has(&|script| count(script, What::Record) > 1));
        assert!(has(&|script| count(script, What::Modify) > 1));
        assert!(has(&|script| count(script, What::Create) == 0), "instant");
        assert!(has(&|script| script.stays.iter().any(|stay| !stay.says_goodbye)), "ended for all");
        assert!(has(&|script| script.people.iter().any(|person| person.account.is_empty())));
    }

    #[test]
    fn the_people_of_a_meeting_are_distinct_however_many_they_are() {
        for script in scripts(4, 3_000) {
            let accounts: Vec<_> =
                script.people.iter().map(|person| &person.account).filter(|account| !account.is_empty()).collect();
            let distinct: std::collections::HashSet<_> = accounts.iter().collect();
            assert_eq!(accounts.len(), distinct.len());
        }
    }
}
