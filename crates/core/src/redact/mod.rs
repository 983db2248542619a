//! Removes members of `attendeeInfo` (in either spelling) and of `liveInfo` from a payload, in one pass over its text. The rest
//! of the text is unchanged.

#[cfg(test)]
mod tests;

use crate::raw_json;
use crate::verify::ATTENDEE_INFO;

/// The member that holds a message of a running meeting.
pub const LIVE_INFO: &str = "liveInfo";

/// What those messages call the fields of `attendeeInfo`.
const LIVE_NAMES: [(&str, &[&str]); 8] = [
    ("userUUID", &["ACCOUNT_ID", "accountId", "ownerID", "userID", "userId"]),
    ("userAgent", &["CLIENT_LOGIN_TYPE"]),
    ("account", &["ACCOUNT", "THIRDACCOUNT", "thirdAccount", "loginAccount"]),
    ("participantID", &["pid", "id"]),
    ("displayName", &["NAME", "name", "owner"]),
    ("joinTime", &["ADDTIME"]),
    ("role", &["ROLE"]),
    ("callNumber", &["TEL", "phone", "email", "sms", "hidePhone"]),
];

/// `hidden`, and what messages of running meetings call the same.
#[must_use]
pub fn with_live_names(mut hidden: Vec<String>) -> Vec<String> {
    let names = LIVE_NAMES.iter().filter(|(field, _)| hidden.iter().any(|hidden| hidden == field));
    let names: Vec<String> = names.flat_map(|(_, names)| *names).map(ToString::to_string).collect();
    hidden.extend(names);
    hidden
}

/// An open object or array.
struct Open {
    object: bool,
    /// It is an `attendeeInfo` or a `liveInfo`, or is inside one.
    attendee: bool,
    /// Something was written into it already, so the next item needs a comma.
    begun: bool,
}

/// Returns `payload`, well-formed JSON, without the members named in `hidden` of every `attendeeInfo`, at any depth
/// inside it. An `attendeeInfo` that is not an object is removed whole, since its content is unknown. A payload that is
/// not an object becomes null for the same reason.
#[must_use]
pub fn mask(payload: &str, hidden: &[String]) -> String {
    walk(payload, false, |name| hidden.iter().any(|hidden| hidden == name))
}

/// Returns `object`, well-formed JSON, without the members with these names, at any depth.
#[must_use]
pub fn without(object: &str, names: &[&str]) -> String {
    walk(object, true, |name| names.contains(&name))
}

/// Removes what is `hidden`, where `attendee` holds: in all of it, or in every `attendeeInfo` and `liveInfo`.
fn walk(payload: &str, attendee: bool, hidden: impl Fn(&str) -> bool) -> String {
    let bytes = payload.as_bytes();
    if bytes.first() != Some(&b'{') {
        return "null".to_owned();
    }
    let mut out = String::with_capacity(payload.len());
    out.push('{');
    let mut open = vec![Open { object: true, attendee, begun: false }];
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
            let is_attendee = called.is_some_and(|called| ATTENDEE_INFO.contains(&called) || called == LIVE_INFO);
            if level.attendee && called.is_some_and(&hidden) || is_attendee && !opens {
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
