//! Participants who joined more than once. If a left was lost, the next join tells when they had left at the latest.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use convoke_core::id::EventId;
use convoke_core::time::Millis;
use uuid::Uuid;

/// The stays of participants who have several.
#[derive(Debug, Default)]
pub struct Rejoins {
    /// A stay of each participant.
    one: HashMap<u128, Uuid>,
    /// All stays of those who have more.
    several: HashMap<u128, BTreeSet<Uuid>>,
}

/// What the ids of one participant's stays have in common: all but the time of joining, by which they are led.
fn participant(stay_id: Uuid) -> u128 {
    stay_id.as_u128() & (u128::MAX >> 48)
}

impl Rejoins {
    /// Adds a stay of which the participant and the time of joining are told.
    pub fn add(&mut self, stay_id: Uuid) {
        let participant = participant(stay_id);
        let one = *self.one.entry(participant).or_insert(stay_id);
        if one != stay_id {
            self.several.entry(participant).or_default().extend([one, stay_id]);
        }
    }

    /// Takes a stay away. Which others of the participant there are.
    pub fn remove(&mut self, stay_id: Uuid) -> Vec<Uuid> {
        let participant = participant(stay_id);
        let mut others = self.several.remove(&participant).unwrap_or_default();
        others.remove(&stay_id);
        if self.one.get(&participant) == Some(&stay_id) {
            self.one.remove(&participant);
        }
        others.iter().for_each(|other| self.add(*other));
        others.into_iter().collect()
    }

    /// All stays of the participants of these who have several.
    pub fn of<'a>(&'a self, stay_ids: &'a [Uuid]) -> impl Iterator<Item = Uuid> + 'a {
        let asked = if self.several.is_empty() { &[][..] } else { stay_ids };
        asked.iter().filter_map(|id| self.several.get(&participant(*id))).flatten().copied()
    }

    /// When the participant of this stay joined again.
    pub fn next(&self, stay_id: Uuid) -> Option<Millis> {
        if self.several.is_empty() {
            return None;
        }
        let stays = self.several.get(&participant(stay_id))?;
        let next = stays.range((Bound::Excluded(stay_id), Bound::Unbounded)).next()?;
        Some(EventId::from_uuid(*next).occurred_at())
    }
}
