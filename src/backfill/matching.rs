//! Matches the stays of the platform's history with the known stays. Where the dashboard tells no participant ID, a match can only go
//! by the number, or the name, and the times, which differ by some milliseconds between the platform's sources.

use std::time::Duration;

use convoke_core::time::Millis;
use convoke_log::StaySnapshot;

/// Maximum difference between the times that two sources of the platform give for the same moment.
pub const TOLERANCE: Duration = Duration::from_secs(5);

/// A stay in the platform's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastStay {
    /// `displayName`.
    pub display_name: Option<String>,
    /// `callNumber`.
    pub call_number: Option<String>,
    /// `joinTime`.
    pub joined_at: Option<Millis>,
    /// `leftTime`.
    pub left_at: Option<Millis>,
    /// `participantID` of the dashboard.
    pub participant_id: Option<String>,
    /// `userUUID` of the dashboard.
    pub user_uuid: Option<String>,
    /// `terminalType` of the dashboard: the client.
    pub terminal_type: Option<String>,
    /// `role` of the dashboard.
    pub role: Option<String>,
    /// `leftReason` of the dashboard.
    pub left_reason: Option<i64>,
    /// `deviceType` of the history.
    pub device_type: Option<String>,
    /// `mediaType` of the history.
    pub media_type: Option<String>,
    /// `deptName` of either.
    pub department: Option<String>,
    /// Which of the platform's lists tell of it.
    pub told_by: Option<&'static str>,
    /// Whether its person was erased since: no event is made of it.
    pub forgotten: bool,
}

/// For each stay of the history, the index of the known stay that matches it, if there is one.
///
/// Two stays can match if they have the same participant, or if their call numbers are equal (or, if either has none, their names), and if they began within
/// [`TOLERANCE`] of each other, or both ended with a leave within it. Of these candidates, those with the same participant and then
/// the nearest in time are paired first,
/// and each stay is paired only once. A stay of an erased person matches none.
pub fn pair(past: &[PastStay], known: &[StaySnapshot]) -> Vec<Option<usize>> {
    let mut candidates = Vec::new();
    for (p, one) in past.iter().enumerate().filter(|(_, one)| !one.forgotten) {
        for (k, other) in known.iter().enumerate() {
            let same_id = one.participant_id.is_some() && one.participant_id == other.participant_id;
            // Whether the dashboard's ids are those of the events is not documented: other ids do not mean other people.
            if (same_id || same_person(one, other))
                && let Some(distance) = distance(one, other)
            {
                candidates.push((!same_id, distance, p, k));
            }
        }
    }
    candidates.sort_unstable();
    let mut pairs = vec![None; past.len()];
    let mut taken = vec![false; known.len()];
    for (_, _, p, k) in candidates {
        if pairs[p].is_none() && !taken[k] {
            pairs[p] = Some(k);
            taken[k] = true;
        }
    }
    pairs
}

fn same_person(past: &PastStay, known: &StaySnapshot) -> bool {
    match (&past.call_number, &known.call_number) {
        (Some(one), Some(other)) => one == other,
        _ => past.display_name == known.display_name,
    }
}

/// How far apart two stays are in time; `None`: too far to match.
fn distance(past: &PastStay, known: &StaySnapshot) -> Option<Duration> {
    let apart = |one: Option<Millis>, other: Option<Millis>| {
        let (one, other) = (one?, other?);
        Some(one.since(other).max(other.since(one))).filter(|apart| *apart <= TOLERANCE)
    };
    let joins = apart(past.joined_at, known.joined_at);
    let leaves = apart(past.left_at, known.left_at.filter(|_| known.left));
    match (joins, leaves) {
        (Some(joins), Some(leaves)) => Some(joins.min(leaves)),
        (joins, leaves) => joins.or(leaves),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Option<Millis> {
        #[expect(clippy::cast_possible_truncation, reason = "a time of a test")]
        Millis::new(1_790_000_000_000 + (seconds * 1e3) as i64)
    }

    fn past(number: &str, name: &str, joined: f64, left: f64) -> PastStay {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        PastStay {
            call_number: text(number),
            display_name: text(name),
            joined_at: at(joined),
            left_at: at(left),
            ..PastStay::default()
        }
    }

    fn known(number: &str, name: &str, joined: f64, left: Option<f64>) -> StaySnapshot {
        let PastStay { call_number, display_name, joined_at, .. } = past(number, name, joined, 0.0);
        let left_at = left.and_then(at);
        StaySnapshot { call_number, display_name, joined_at, left_at, left: left.is_some(), ..StaySnapshot::default() }
    }

    #[test]
    fn a_stay_is_known_by_its_number_and_a_time_that_is_near() {
        let there = [known("+1", "Ada", 0.0, Some(60.0))];
        assert_eq!(pair(&[past("+1", "Renamed", 4.9, 99.0)], &there), [Some(0)], "the name does not matter");
        assert_eq!(pair(&[past("+1", "Ada", 5.1, 99.0)], &there), [None], "5 s are the tolerance");
        assert_eq!(pair(&[past("+1", "Ada", 30.0, 55.1)], &there), [Some(0)], "or by the leave");
        assert_eq!(pair(&[past("+2", "Ada", 0.0, 60.0)], &there), [None], "another number is another person");
    }

    #[test]
    fn without_a_number_on_either_side_the_name_counts() {
        for (one, other) in [("", "+1"), ("+1", ""), ("", "")] {
            assert_eq!(pair(&[past(one, "Ada", 1.0, 9.0)], &[known(other, "Ada", 0.0, None)]), [Some(0)]);
            assert_eq!(pair(&[past(one, "Ada", 1.0, 9.0)], &[known(other, "Bob", 0.0, None)]), [None]);
        }
        assert_eq!(pair(&[past("", "", 1.0, 9.0)], &[known("", "", 0.0, None)]), [Some(0)], "by time alone");
    }

    #[test]
    fn the_nearest_are_paired_first_and_each_once() {
        // Leaves and rejoins within the tolerance.
        let there = [known("+1", "A", 0.0, Some(2.0)), known("+1", "A", 4.0, None)];
        assert_eq!(pair(&[past("+1", "A", 4.1, 60.0), past("+1", "A", 0.1, 2.1)], &there), [Some(1), Some(0)]);
        assert_eq!(pair(&[past("+1", "A", 4.0, 60.0), past("+1", "A", 3.0, 50.0)], &there[1..]), [Some(0), None]);
    }

    #[test]
    fn an_end_that_was_only_the_meetings_is_no_leave() {
        let there = [StaySnapshot { left_at: at(60.0), left: false, ..known("+1", "A", 0.0, None) }];
        assert_eq!(pair(&[past("+1", "A", 30.0, 60.0)], &there), [None]);
        assert_eq!(pair(&[PastStay { joined_at: None, ..past("+1", "A", 0.0, 60.0) }], &there), [None]);
    }
}
