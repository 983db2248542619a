//! What the platform would have delivered over months, signed, without delivering it: to fill a log with.

use bytes::Bytes;

use super::people::mix;
use super::world::{World, WorldSettings};
use convoke_core::sign::Signer;
use convoke_core::time::Millis;

const DAY_MS: i64 = 86_400_000;

/// When the first meetings of a day begin, in milliseconds after midnight.
const MORNING_MS: i64 = 8 * 3_600_000;

/// Signed bodies in the order in which their events happened: each day has its own meetings, whole ones.
///
/// The same arguments make the same bodies. Few events over many days end early: no day has less than one meeting.
#[derive(Debug)]
pub struct History {
    signer: Signer,
    attendees: usize,
    first_day: i64,
    days: u32,
    days_begun: u32,
    events_left: u64,
    /// What the days so far have held, from which the next one is planned.
    events: u64,
    meetings: u64,
    world: Option<World>,
    info: Vec<u8>,
}

impl History {
    /// `events` events of `app_id`, signed with `key`, spread over the `days` days before that of `until`, with so many
    /// people in each meeting.
    #[must_use]
    pub fn new(app_id: &str, key: &[u8], events: u64, (days, until): (u32, Millis), attendees: usize) -> Self {
        let today = until.get() - until.get() % DAY_MS;
        Self {
            signer: Signer::new(app_id, key),
            attendees,
            first_day: (today - i64::from(days) * DAY_MS).max(0),
            days,
            days_begun: 0,
            events_left: events,
            // Most people join once and leave once.
            events: 2 * attendees as u64 + 8,
            meetings: 1,
            world: None,
            info: Vec::with_capacity(1024),
        }
    }

    /// When it begins.
    #[must_use]
    pub fn begins(&self) -> Millis {
        Millis::new(self.first_day).unwrap_or(Millis::EPOCH)
    }

    fn next_day(&mut self) -> World {
        let day = i64::from(self.days_begun);
        let left = u64::from(self.days.saturating_sub(self.days_begun).max(1));
        let meetings = ((self.events_left / left) * self.meetings / self.events).max(1);
        let last = left == 1;
        self.days_begun = self.days_begun.saturating_add(1);
        self.meetings += if last { 0 } else { meetings };
        let settings = WorldSettings {
            seed: mix(u64::from(self.days_begun)),
            base: Millis::new(self.first_day + day * DAY_MS + MORNING_MS).unwrap_or(Millis::MAX),
            meetings: (!last).then_some(meetings),
            attendees: self.attendees,
            long_rooms: false,
        };
        World::new(self.signer.app_id(), settings, false)
    }
}

/// When an event happened, and the body that describes it.
impl Iterator for History {
    type Item = (Millis, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        self.events_left = self.events_left.checked_sub(1)?;
        let happened = loop {
            let happened = self.world.as_mut().and_then(|world| world.next(&mut self.info));
            match happened {
                Some(happened) => break happened,
                None => self.world = Some(self.next_day()),
            }
        };
        self.events += 1;
        let at = happened.occurred_at.get();
        let mut body = Vec::with_capacity(self.info.len() + 192);
        let mut digits = [0; 20];
        let nonce = convoke_core::sign::itoa(10_000_000 + at % 90_000_000, &mut digits);
        self.signer.envelope_into(&mut body, at, nonce, &self.info);
        Some((happened.occurred_at, Bytes::from(body)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    const NOW: Millis = Millis::MAX;

    fn days(events: u64, days: u32) -> BTreeMap<i64, usize> {
        let mut found = BTreeMap::new();
        for (at, _) in History::new("1", b"k", events, (days, NOW), 5) {
            *found.entry(at.get() / DAY_MS).or_default() += 1;
        }
        found
    }

    #[test]
    fn a_history_has_as_many_events_as_were_asked_for_each_of_them_once_in_the_order_of_time() {
        let all: Vec<_> = History::new("1", b"k", 5_000, (7, NOW), 5).collect();
        assert_eq!(all.len(), 5_000);
        assert!(all.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        assert_eq!(all.iter().map(|(_, body)| body).collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn it_is_spread_evenly_over_its_days_and_ends_before_today() {
        let found = days(20_000, 10);
        let today = NOW.get() / DAY_MS;
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), (today - 10..today).collect::<Vec<_>>());
        assert!(found.values().all(|events| (1_500..2_500).contains(events)), "{found:?}");
    }
}
