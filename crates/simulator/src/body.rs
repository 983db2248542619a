//! The JSON of `eventInfo`, compact, members in the order of the manual's tables 6-34 to 6-37. Pure.

use super::people::{Person, Uuid};
use super::script::{MeetingRef, Stay, Told};
use convoke_core::sign::{hex_into, itoa};

/// Appends the `eventInfo` of the handshake, which has no payload.
pub(super) fn handshake(out: &mut Vec<u8>, event: &str, at: i64) {
    head(out, event, at);
    out.push(b'}');
}

/// Appends the `eventInfo` of an event of a meeting as a whole. `with_cycle` says whether this type of event names the
/// occurrence (section 6: started, end, conclude and record.finish do in the samples, the others do not).
pub(super) fn meeting(out: &mut Vec<u8>, event: &str, at: i64, meeting: &MeetingRef, with_cycle: bool) {
    head(out, event, at);
    meeting_info(out, meeting, with_cycle);
    out.extend_from_slice(b"}}");
}

/// Appends the `eventInfo` of a join (`left_time` 0) or a left event.
pub(super) fn attendee(
    out: &mut Vec<u8>,
    (event, at): (&str, i64),
    meeting: &MeetingRef,
    person: &Person,
    stay: &Stay,
    left_time: i64,
) {
    head(out, event, at);
    meeting_info(out, meeting, false);
    out.extend_from_slice(b",\"attendeeInfo\":{\"userUUID\":\"");
    if let (Told::All, Some(uuid)) = (stay.told, person.user_uuid) {
        push_uuid(out, uuid);
    }
    out.extend_from_slice(b"\",\"userAgent\":");
    string(out, stay.user_agent);
    out.extend_from_slice(b",\"account\":");
    string(out, if stay.told == Told::Number { "" } else { &person.account });
    out.extend_from_slice(b",\"participantID\":\"");
    push_uuid(out, stay.participant_id);
    out.extend_from_slice(b"\",\"displayName\":");
    string(out, &person.display_name);
    out.extend_from_slice(b",\"joinTime\":");
    number(out, stay.joined_at);
    out.extend_from_slice(b",\"leftTime\":");
    number(out, left_time);
    out.extend_from_slice(b",\"role\":");
    string(out, stay.role);
    out.extend_from_slice(b",\"callNumber\":");
    string(out, &person.call_number);
    out.extend_from_slice(b"}}}");
}

fn head(out: &mut Vec<u8>, event: &str, at: i64) {
    out.extend_from_slice(b"{\"event\":");
    string(out, event);
    out.extend_from_slice(b",\"timestamp\":");
    number(out, at);
}

fn meeting_info(out: &mut Vec<u8>, meeting: &MeetingRef, with_cycle: bool) {
    out.extend_from_slice(b",\"payload\":{\"meetingInfo\":{\"meetingID\":\"");
    number(out, i64::from(meeting.id));
    out.extend_from_slice(b"\",\"meetingUUID\":\"");
    push_uuid(out, meeting.uuid);
    if let (true, Some(cycle)) = (with_cycle, meeting.cycle_sub_id) {
        out.extend_from_slice(b"\",\"meetingCycleSubID\":\"");
        push_uuid(out, cycle);
    }
    out.extend_from_slice(b"\"}");
}

fn number(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa(number, &mut [0; 20]));
}

fn push_uuid(out: &mut Vec<u8>, uuid: Uuid) {
    let mut digits = [0; 32];
    hex_into(&uuid.to_be_bytes(), &mut digits);
    out.extend_from_slice(&digits);
}

/// The platform's form of a UUID: 32 lower-case hex digits.
pub(super) fn uuid_text(uuid: Uuid) -> String {
    format!("{uuid:032x}")
}

/// Appends `text` as a JSON string: what must be escaped is, everything else is raw UTF-8 (as in vector 4).
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"\\u00",
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(escape);
        if escape.len() == 4 {
            let mut digits = [0; 2];
            hex_into(&[*byte], &mut digits);
            out.extend_from_slice(&digits);
        }
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_as_a_json_string() {
        for text in ["", "王小明", "a\"b\\c/d", "\u{0}\u{1f}\n\r\t\u{7f}", "😀 مريم", "O'Neil <x&y>", "\u{2028}"]
        {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).ok().as_deref(), Some(text));
        }
    }

    #[test]
    fn the_documented_join_is_reproduced_byte_for_byte() {
        let person = Person {
            who: crate::people::Who::Employee(0),
            user_uuid: Some(0xaaaa_bbbb_cccc_dddd_eeee_ffff_0000_1111),
            account: "demo.user".into(),
            display_name: "王小明".into(),
            call_number: "+8657100000000001".into(),
        };
        let stay = Stay {
            person: 0,
            participant_id: 0x9999_8888_7777_6666_5555_4444_3333_2222,
            user_agent: "WeLink-desktop",
            role: "CHAIR",
            joined_at: 1_735_700_465_001,
            left_at: 0,
            told: Told::All,
            says_goodbye: true,
        };
        let meeting =
            MeetingRef { id: 960_000_017, uuid: 0x1111_2222_3333_4444_5555_6666_7777_8888, cycle_sub_id: Some(7) };
        let mut out = Vec::new();
        attendee(&mut out, ("meeting.join", 1_735_700_465_789), &meeting, &person, &stay, 0);
        assert_eq!(
            String::from_utf8_lossy(&out),
            r#"{"event":"meeting.join","timestamp":1735700465789,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"王小明","joinTime":1735700465001,"leftTime":0,"role":"CHAIR","callNumber":"+8657100000000001"}}}"#
        );
    }
}
