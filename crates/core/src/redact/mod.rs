//! Removes members of `attendeeInfo` (in either spelling) from a payload, in one pass over its text. The rest
//! of the text is unchanged.

#[cfg(test)]
mod tests;

use crate::raw_json;
use crate::verify::ATTENDEE_INFO;

/// An open object or array.
struct Open {
    object: bool,
    /// It is an `attendeeInfo`, or is inside one.
    attendee: bool,
    /// Something was written into it already, so the next item needs a comma.
    begun: bool,
}

/// Returns `payload`, well-formed JSON, without the members named in `hidden` of every `attendeeInfo`, at any depth
/// inside it. An `attendeeInfo` that is not an object is removed whole, since its content is unknown. A payload that is
/// not an object becomes null for the same reason.
#[must_use]
pub fn mask(payload: &str, hidden: &[String]) -> String {
    let bytes = payload.as_bytes();
    if bytes.first() != Some(&b'{') {
        return "null".to_owned();
    }
    let mut out = String::with_capacity(payload.len());
    out.push('{');
    let mut open = vec![Open { object: true, attendee: false, begun: false }];
    let mut at = 1;
    while let Some(level) = open.last_mut() {
        at = raw_json::next(bytes, at);
        let Some(byte) = bytes.get(at) else { break };
        if matches!(byte, b'}' | b']') {
            out.push(char::from(*byte));
            open.pop();
            at += 1;
            continue;
        }
        let mut attendee = level.attendee;
        let mut member = None;
        if level.object {
            let end = raw_json::string_end(bytes, at + 1);
            let token = &payload[at..end];
            at = raw_json::next(bytes, end);
            let (called, opens) = (raw_json::exact_text(token), bytes.get(at) == Some(&b'{'));
            let called = called.as_deref();
            let is_attendee = called.is_some_and(|called| ATTENDEE_INFO.contains(&called));
            if level.attendee && called.is_some_and(|called| hidden.iter().any(|hidden| hidden == called))
                || is_attendee && !opens
            {
                at = raw_json::value_end(bytes, at);
                continue;
            }
            attendee |= is_attendee;
            member = Some(token);
        }
        if std::mem::replace(&mut level.begun, true) {
            out.push(',');
        }
        if let Some(token) = member {
            out.push_str(token);
            out.push(':');
        }
        match bytes.get(at) {
            Some(byte @ (b'{' | b'[')) => {
                out.push(char::from(*byte));
                open.push(Open { object: *byte == b'{', attendee, begun: false });
                at += 1;
            }
            _ => {
                let end = raw_json::value_end(bytes, at);
                out.push_str(&payload[at..end]);
                at = end;
            }
        }
    }
    out
}
