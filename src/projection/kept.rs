//! Who was in a run that does not go on, and for how long: rows that are kept of it, so that months of them are not added up from
//! their stays. They tell the same as the view `person_attendance` tells of a run that goes on.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use convoke_core::time::Millis;
use convoke_log::{ClosedBy, KeptRow};
use uuid::Uuid;

use super::people::StayPerson;
use super::stay::{Ended, Stay};

/// A stay that is over.
#[derive(Debug)]
pub struct Attended<'a> {
    person: Cow<'a, str>,
    from: Millis,
    until: Millis,
    stay_id: Uuid,
    name: Option<&'a str>,
    estimated: bool,
}

impl<'a> Attended<'a> {
    /// `None` if no time is told of it. `ended` is when, and how, it ended for who has not left.
    pub fn new(stay_id: Uuid, stay: &'a Stay, person: &'a StayPerson, ended: Option<Ended>) -> Option<Self> {
        let (joined, left) = (stay.joined_at(), stay.left_at());
        let from = joined.or(left)?;
        let name = stay.attributes().display_name;
        let person = stay.person(person).or(name);
        Some(Self {
            person: person.map_or_else(|| stay_id.to_string().into(), Cow::Borrowed),
            from,
            until: left.or(ended.map(|(at, _)| at)).map_or(from, |until| until.max(from)),
            stay_id,
            name,
            estimated: left.is_none() && ended.is_none_or(|(at, by)| by == ClosedBy::Rejoin || Some(at) == joined),
        })
    }

    /// Who leaves in the millisecond of joining was there for one.
    fn gone(&self) -> i64 {
        self.until.get().max(self.from.get() + 1)
    }
}

/// A row for each person of these stays, in their order.
pub fn people(mut stays: Vec<Attended<'_>>) -> Vec<KeptRow> {
    stays.sort_unstable_by(|a, b| (&a.person, a.from).cmp(&(&b.person, b.from)));
    stays.chunk_by(|a, b| a.person == b.person).filter_map(person).collect()
}

/// The row of one person, of their stays in the order of joining.
fn person(stays: &[Attended<'_>]) -> Option<KeptRow> {
    let first = stays.first()?;
    let named =
        stays.iter().filter(|stay| stay.name.is_some()).max_by_key(|stay| (stay.until, stay.from, stay.stay_id));
    let (mut present_ms, mut until, mut devices) = (0, 0, 1);
    let mut there: BinaryHeap<Reverse<i64>> = BinaryHeap::new();
    for stay in stays {
        let from = stay.from.get();
        present_ms += (stay.gone() - from.max(until)).max(0);
        until = until.max(stay.gone());
        if stays.len() > 1 {
            while there.peek().is_some_and(|Reverse(gone)| *gone <= from) {
                there.pop();
            }
            there.push(Reverse(stay.gone()));
            devices = devices.max(there.len());
        }
    }
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    Some(KeptRow {
        person: Arc::from(&*first.person),
        display_name: named.and_then(|stay| stay.name).map(Arc::from),
        stays: count(stays.len()),
        devices: count(devices),
        present_ms,
        first_joined_at: first.from,
        last_left_at: Millis::new(until).unwrap_or(first.from),
        estimated: stays.iter().any(|stay| stay.estimated),
    })
}
