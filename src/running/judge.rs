//! What one reading of the platform's list of running meetings says, together with those before it. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use convoke_core::time::Millis;
use convoke_log::LiveRun;

/// A live run of which something happened this recently may not be in the list yet, or not be in history yet.
const MIN_SILENCE: Duration = Duration::from_secs(2 * 60);

/// A live run of which something happened this recently is expected in the list.
const FRESH_TIME: Duration = Duration::from_secs(5 * 60);

/// Of fewer fresh runs than this, most may end between two readings.
const MIN_FRESH_RUNS: usize = 4;

/// So many readings in a row have to say the same.
const READINGS: u32 = 2;

/// How long a run is not asked for again that the history did not have; it doubles each time.
const MIN_PAUSE: Duration = Duration::from_secs(5 * 60);
const MAX_PAUSE: Duration = Duration::from_secs(6 * 3_600);

/// Most runs that are asked for after one reading.
const MAX_ASKED: usize = 20;

/// What is remembered from one reading to the next.
#[derive(Debug, Default)]
pub struct SeenRuns {
    /// In how many readings in a row a live run was missing.
    missing: HashMap<String, u32>,
    /// In how many readings in a row a run was listed whose start is not known here.
    unknown: HashMap<String, u32>,
    /// When a run may be asked for again, and the pause before that.
    asked: HashMap<String, (Duration, Duration)>,
}

/// What a reading says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The list lacks so many runs that were heard of a moment ago that it cannot be true: nothing follows from it.
    Implausible,
    /// These runs may have ended, and those have begun; by UUID.
    Told {
        /// To be looked for in history.
        ended: Vec<String>,
        /// Running, and their start is not known here.
        begun: Vec<String>,
    },
}

/// When a reading took place.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Millis,
    /// The same on the monotonic clock.
    pub steady: Duration,
    /// Nothing was ever read before.
    pub first: bool,
}

impl SeenRuns {
    /// Whether the list is to be read even though nothing is live here.
    pub fn waits(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Judges a complete list. `live` are the runs that go on as far as we know, `listed` those of the list, `started` those of the
    /// list whose start is known here.
    pub fn judge(
        &mut self,
        live: &[LiveRun],
        listed: &HashSet<String>,
        started: &HashSet<String>,
        at: Moment,
    ) -> Verdict {
        let silence = |run: &LiveRun| at.now.since(run.last_event_at);
        let fresh: Vec<&LiveRun> = live.iter().filter(|run| silence(run) < FRESH_TIME).collect();
        let lacking = fresh.iter().filter(|run| !listed.contains(&run.meeting_uuid)).count();
        let most_are_gone = fresh.len() >= MIN_FRESH_RUNS && lacking * 2 > fresh.len();
        if (listed.is_empty() && !fresh.is_empty()) || most_are_gone {
            return Verdict::Implausible;
        }
        let absent = live.iter().filter(|run| !listed.contains(&run.meeting_uuid) && silence(run) >= MIN_SILENCE);
        let before = std::mem::take(&mut self.missing);
        let count =
            |before: &HashMap<String, u32>, uuid: &str| before.get(uuid).copied().unwrap_or(0).saturating_add(1);
        self.missing = absent.map(|run| (run.meeting_uuid.clone(), count(&before, &run.meeting_uuid))).collect();
        let before = std::mem::take(&mut self.unknown);
        let new = listed.iter().filter(|uuid| !started.contains(*uuid));
        self.unknown = new.map(|uuid| (uuid.clone(), count(&before, uuid))).collect();
        let missing = &self.missing;
        self.asked.retain(|uuid, _| missing.contains_key(uuid));

        let due = |run: &&LiveRun| {
            let asked = self.asked.get(&run.meeting_uuid).is_some_and(|(next, _)| *next > at.steady);
            missing.get(&run.meeting_uuid).is_some_and(|times| *times >= READINGS) && !asked
        };
        // `live` begins with those that were heard of last, whose end matters most.
        let ended = live.iter().filter(due).take(MAX_ASKED).map(|run| run.meeting_uuid.clone()).collect();
        let enough = |(uuid, times): (&String, &u32)| (at.first || *times >= READINGS).then(|| uuid.clone());
        let mut begun: Vec<String> = self.unknown.iter().filter_map(enough).collect();
        begun.sort_unstable();
        Verdict::Told { ended, begun }
    }

    /// The history did not have this run, or not its end: it is asked for again later, and less and less often.
    pub fn not_found(&mut self, uuid: &str, steady: Duration) {
        let pause = self.asked.get(uuid).map_or(MIN_PAUSE, |(_, pause)| (*pause * 2).min(MAX_PAUSE));
        self.asked.insert(uuid.to_owned(), (steady + pause, pause));
    }

    /// A start was stored, or need not be.
    pub fn settled(&mut self, uuid: &str) {
        self.unknown.remove(uuid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const START: i64 = 1_790_000_000_000;

    fn live(runs: &[(&str, i64)]) -> Vec<LiveRun> {
        let run = |(uuid, minute): &(&str, i64)| LiveRun {
            subscriber_id: "1".to_owned(),
            meeting_uuid: (*uuid).to_owned(),
            last_event_at: Millis::new(START + minute * MINUTE).expect("a time"),
        };
        runs.iter().map(run).collect()
    }

    fn names(uuids: &[&str]) -> HashSet<String> {
        uuids.iter().map(|uuid| (*uuid).to_owned()).collect()
    }

    fn read(memory: &mut SeenRuns, minute: i64, runs: &[(&str, i64)], listed: &[&str], started: &[&str]) -> Verdict {
        let now = Millis::new(START + minute * MINUTE).expect("a time");
        let at = Moment { now, steady: Duration::from_secs(minute.unsigned_abs() * 60), first: minute == 0 };
        memory.judge(&live(runs), &names(listed), &names(started), at)
    }

    fn told(ended: &[&str], begun: &[&str]) -> Verdict {
        let texts = |uuids: &[&str]| uuids.iter().map(|uuid| (*uuid).to_owned()).collect();
        Verdict::Told { ended: texts(ended), begun: texts(begun) }
    }

    #[test]
    fn a_run_that_two_lists_in_a_row_lack_is_looked_for_and_one_that_comes_back_is_not() {
        let (mut memory, runs) = (SeenRuns::default(), [("a", -10), ("b", -10)]);
        assert_eq!(read(&mut memory, 3, &runs, &["b"], &["b"]), told(&[], &[]));
        assert_eq!(read(&mut memory, 6, &runs, &["a", "b"], &["a", "b"]), told(&[], &[]));
        assert_eq!(read(&mut memory, 9, &runs, &["b"], &["b"]), told(&[], &[]));
        assert_eq!(read(&mut memory, 12, &runs, &["b"], &["b"]), told(&["a"], &[]));
        memory.not_found("a", Duration::from_secs(12 * 60));
        assert_eq!(read(&mut memory, 15, &runs, &["b"], &["b"]), told(&[], &[]), "not so soon again");
        assert_eq!(read(&mut memory, 18, &runs, &["b"], &["b"]), told(&["a"], &[]));
        memory.not_found("a", Duration::from_secs(18 * 60));
        assert_eq!(read(&mut memory, 27, &runs, &["b"], &["b"]), told(&[], &[]), "and later each time");
        assert_eq!(read(&mut memory, 28, &runs, &["b"], &["b"]), told(&["a"], &[]));
    }

    #[test]
    fn a_run_of_which_something_was_heard_a_moment_ago_is_waited_for() {
        let mut memory = SeenRuns::default();
        for minute in 3..8 {
            let runs = [("a", minute - 1), ("b", minute - 1)];
            assert_eq!(read(&mut memory, minute, &runs, &["b"], &["b"]), told(&[], &[]), "minute {minute}");
        }
    }

    #[test]
    fn an_empty_list_while_meetings_go_on_says_nothing_nor_does_one_without_most_of_them() {
        let mut memory = SeenRuns::default();
        assert_eq!(read(&mut memory, 3, &[("a", 0)], &[], &[]), Verdict::Implausible);
        assert_eq!(
            read(&mut memory, 6, &[("a", 0)], &[], &[]),
            told(&[], &[]),
            "nothing was heard of it for 5 minutes"
        );
        assert_eq!(read(&mut memory, 9, &[("a", 0)], &[], &[]), told(&["a"], &[]));
        let runs = [("a", 9), ("b", 9), ("c", 9), ("d", 9)];
        assert_eq!(read(&mut memory, 12, &runs, &["a"], &["a"]), Verdict::Implausible);
        assert_eq!(read(&mut memory, 12, &runs, &["a", "b"], &["a", "b"]), told(&[], &[]), "half may end");
    }

    #[test]
    fn a_run_that_did_not_start_here_is_believed_at_the_second_time_and_at_the_very_first_start_at_once() {
        let mut memory = SeenRuns::default();
        assert_eq!(read(&mut memory, 0, &[], &["x"], &[]), told(&[], &["x"]));
        memory.settled("x");
        assert!(!memory.waits());
        assert_eq!(read(&mut memory, 3, &[], &["x", "y"], &["x"]), told(&[], &[]));
        assert!(memory.waits());
        assert_eq!(read(&mut memory, 6, &[], &["x", "y"], &["x"]), told(&[], &["y"]));
    }

    #[test]
    fn so_many_runs_are_asked_for_at_once_and_the_rest_later() {
        let (mut memory, names): (_, Vec<String>) = (SeenRuns::default(), (0..50).map(|n| format!("{n:02}")).collect());
        let runs: Vec<(&str, i64)> = names.iter().map(|name| (&**name, -100)).collect();
        read(&mut memory, 3, &runs, &["z"], &["z"]);
        let mut asked = HashSet::new();
        for minute in 6..9 {
            let Verdict::Told { ended, .. } = read(&mut memory, minute, &runs, &["z"], &["z"]) else { panic!("told") };
            assert!(ended.len() <= MAX_ASKED);
            ended.iter().for_each(|uuid| memory.not_found(uuid, Duration::from_secs(minute.unsigned_abs() * 60)));
            asked.extend(ended);
        }
        assert_eq!(asked.len(), 50);
    }
}
