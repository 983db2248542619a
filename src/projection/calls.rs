//! What came of calling somebody into a meeting, and why they left it, in the platform's codes (manual, 6.1.3.7 and chapter 22).

use std::sync::Arc;

use serde_json::Value;

use convoke_log::{CallOutcome, CallResultRow, ProjectedEvent};

/// Of one event so many are read.
const MAX_RESULTS: usize = 1_000;

/// A stay ended for this reason if it was told so near its end.
const SAME_LEAVE_MS: u64 = 60_000;

/// What an event tells.
pub fn read(fact: &ProjectedEvent) -> Vec<CallResultRow> {
    let info = fact.event_info.as_deref().and_then(|info| serde_json::from_str::<Value>(info).ok()).unwrap_or_default();
    let (Some(uuid), Some(data)) = (&fact.meeting.uuid, info["payload"]["liveInfo"]["data"].as_array()) else {
        return Vec::new();
    };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.replace('\0', "\u{fffd}")),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let results = data.iter().take(MAX_RESULTS).zip(0_i64..).filter_map(|(entry, item)| {
        // The manual's table and its sample differ.
        let code = text(&entry["errorCode"]).or_else(|| text(&entry["resultCode"]))?;
        let (outcome, reason) = meaning(&code);
        Some(CallResultRow {
            event_id: fact.event_id,
            item,
            subscriber_id: fact.subscriber_id.clone(),
            meeting_uuid: uuid.clone(),
            meeting_id: fact.meeting.id.clone(),
            told_at: fact.event_id.occurred_at(),
            call_number: Arc::from(text(&entry["callNumber"]).filter(|number| !number.is_empty())?),
            code: Arc::from(code),
            outcome,
            reason: reason.map(Arc::from),
        })
    });
    results.collect()
}

/// What a code means: eight digits here, and nine with a prefix in the table of errors.
fn meaning(code: &str) -> (CallOutcome, Option<&'static str>) {
    use CallOutcome::{Left, NotReached, Reached, Unknown};
    let digits = code.trim().strip_prefix("MMC.").unwrap_or(code.trim());
    let digits = if digits.len() == 9 { digits.strip_prefix('1').unwrap_or(digits) } else { digits };
    match digits {
        "0" => (Reached, None),
        "11111001" | "11111002" | "11111003" | "11111004" | "12010015" => (Left, Some("network")),
        "11076010" => (Left, Some("left")),
        "11076001" | "11076002" | "11072076" => (Left, Some("removed_by_host")),
        "11076016" => (Left, Some("removed_by_portal")),
        "11072075" => (Left, Some("meeting_ended")),
        "11072077" => (Left, Some("meeting_deleted")),
        "11072078" | "11072079" => (Left, Some("moved")),
        "11076003" => (NotReached, Some("room_full")),
        "11076004" => (NotReached, Some("capacity_used_up")),
        "11076005" => (NotReached, Some("no_answer")),
        "11076006" => (NotReached, Some("unknown_number")),
        "11076007" => (NotReached, Some("offline")),
        "11076008" => (NotReached, Some("busy")),
        "11076009" => (NotReached, Some("refused")),
        "11076011" => (NotReached, Some("no_media_resources")),
        "11076012" => (NotReached, Some("telephones_not_opened")),
        "11076014" => (NotReached, Some("timeout")),
        "11072080" | "11072081" => (NotReached, Some("failed")),
        _ => (Unknown, None),
    }
}

/// Why somebody with this number left then, if it was told: the nearest in time counts, of two the newer one.
pub fn reason_of<'a>(
    results: impl Iterator<Item = &'a CallResultRow>,
    number: &str,
    left_at: convoke_core::time::Millis,
) -> Option<&'a str> {
    let away = |row: &CallResultRow| row.told_at.get().abs_diff(left_at.get());
    let theirs = results.filter(|row| row.outcome == CallOutcome::Left && &*row.call_number == number);
    let nearest = theirs.filter(|row| away(row) <= SAME_LEAVE_MS);
    nearest.min_by_key(|row| (away(row), std::cmp::Reverse((row.event_id, row.item))))?.reason.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_the_same_in_each_of_their_forms_and_unknown_ones_are_no_error() {
        for code in ["11076005", "111076005", "MMC.111076005", " 11076005 "] {
            assert_eq!(meaning(code), (CallOutcome::NotReached, Some("no_answer")), "{code}");
        }
        assert_eq!(meaning("0"), (CallOutcome::Reached, None));
        assert_eq!(meaning("11111004"), (CallOutcome::Left, Some("network")));
        for odd in ["", "1", "MMC.", "123456789", "x"] {
            assert_eq!(meaning(odd), (CallOutcome::Unknown, None), "{odd}");
        }
    }
}
