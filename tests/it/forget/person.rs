//! Somebody to be forgotten, and somebody else.

use std::path::Path;

use serde_json::Value;

use crate::{
    log_contract::fixture::Backend,
    support::service,
    support::{
        http,
        process::Convoke,
        rig::{APP_ID, KEY, LONG_TIMEOUT, PATH},
        sign::NOW,
        wait::eventually,
    },
};

/// Somebody in meetings.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    pub user: &'static str,
    pub account: &'static str,
    pub number: &'static str,
    pub name: &'static str,
    pub participant: &'static str,
}

pub const ADA: Person = Person {
    user: "user-of-ada-secret",
    account: "ada.secret@demo",
    number: "+990001111111",
    name: "Ada Geheim \"王\"",
    participant: "participant-of-ada-secret",
};

pub const BOB: Person = Person {
    user: "user-of-bob",
    account: "bob@demo",
    number: "+990002222222",
    name: "Bob",
    participant: "participant-of-bob",
};

/// What nobody may find any more once Ada is forgotten; of her name a part that is written the same in SQL, JSON and text.
pub const SECRETS: [&str; 5] = [ADA.user, ADA.account, ADA.number, "Ada Geheim", ADA.participant];

impl Person {
    /// Members of `attendeeInfo`, times in ms after [`NOW`]; who has not left has `left` 0.
    pub fn attendee(&self, joined: i64, left: i64) -> String {
        format!(
            r#""userUUID":"{}","userAgent":"Web","account":"{}","participantID":"{}","displayName":{},"joinTime":{},"leftTime":{},"role":"GENERAL","callNumber":"{}""#,
            self.user,
            self.account,
            self.participant,
            serde_json::json!(self.name),
            NOW + joined,
            if left > 0 { NOW + left } else { 0 },
            self.number
        )
    }

    /// A join and a left.
    pub fn stay(&self, meeting: &str, joined: i64, left: i64) -> [String; 2] {
        [
            event(meeting, "meeting.join", joined + 5, &self.attendee(joined, 0)),
            event(meeting, "meeting.left", left + 5, &self.attendee(joined, left)),
        ]
    }
}

/// An event in the run of meeting `meeting`.
pub fn event(meeting: &str, kind: &str, at: i64, attendee: &str) -> String {
    let attendee = if attendee.is_empty() { String::new() } else { format!(r#","attendeeInfo":{{{attendee}}}"#) };
    format!(
        r#"{{"event":"{kind}","timestamp":{},"payload":{{"meetingInfo":{{"meetingID":"{meeting}","meetingUUID":"run-{meeting}"}}{attendee}}}}}"#,
        NOW + at
    )
}

/// Two meetings of Ada and Bob, in one of which Ada was twice, and one of Bob alone. Of Ada's last left only the participant and
/// the times are known.
pub fn meetings() -> Vec<String> {
    let half = format!(
        r#""participantID":"{}","displayName":{},"joinTime":{},"leftTime":{}"#,
        ADA.participant,
        serde_json::json!(ADA.name),
        NOW + 700,
        NOW + 900
    );
    let mut all = vec![event("11", "meeting.started", 0, "")];
    all.extend(ADA.stay("11", 10, 200));
    all.extend(ADA.stay("11", 150, 400));
    all.extend(BOB.stay("11", 20, 300));
    all.push(event("11", "meeting.end", 500, ""));
    all.push(event("22", "meeting.started", 600, ""));
    all.extend(BOB.stay("22", 650, 900));
    all.push(event("22", "meeting.join", 705, &ADA.attendee(700, 0)));
    all.push(event("22", "meeting.left", 905, &half));
    all.extend(BOB.stay("33", 1_000, 1_100));
    all
}

/// Signed as it arrives, with a nonce of its own.
pub fn body(nonce: u32, info: &str) -> Vec<u8> {
    convoke_core::sign::envelope(APP_ID, NOW, &nonce.to_string(), info.as_bytes(), KEY.as_bytes())
}

/// Delivers, and waits until the tables, and the relay if there is one, have read it.
pub async fn deliver(convoke: &Convoke, backend: &Backend, infos: &[String]) {
    for (nonce, info) in (10_000_000..).zip(infos) {
        assert_eq!(http::post(convoke.events, PATH, body(nonce, info), &[]).await.status, 200, "{info}");
    }
    settled(backend).await;
}

/// Waits until every cursor has read the log.
pub async fn settled(backend: &Backend) {
    eventually("the cursors have read everything", LONG_TIMEOUT, async || {
        let read = "SELECT sum(CASE WHEN position >= (SELECT max(seq) FROM events) THEN 0 ELSE 1 END) FROM cursors
                     HAVING max(name) = 'meetings'";
        let behind = backend.value(read).await;
        if behind == "0" { Ok(()) } else { Err(behind) }
    })
    .await;
}

/// Forgets Ada by her user UUID and her account.
pub async fn forget_ada(convoke: &Convoke, more: &[&str]) -> Value {
    let arguments = ["forget", "--user", ADA.user, "--account", ADA.account, "--yes", "--json"];
    let finished = convoke.run(&[&arguments[..], more].concat()).await;
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    no_secret("the command's output", &format!("{}{}", finished.stdout, finished.stderr));
    serde_json::from_str(&finished.stdout).expect("a report")
}

pub fn no_secret(place: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in {place}");
    }
}

pub fn has_every_secret(place: &str, text: &str) {
    for secret in SECRETS {
        assert!(text.contains(secret), "{secret} should be in {place} before");
    }
}

/// Every row of every table, as text.
pub async fn dump(backend: &Backend) -> String {
    if backend.postgres.is_some() {
        let rows =
            "SELECT string_agg(query_to_xml('SELECT * FROM ' || quote_ident(tablename), true, true, '')::text, '')
                      FROM pg_tables WHERE schemaname = 'public'";
        // XML writes a quotation mark as it is, and nothing else that is in a secret otherwise.
        return backend.value(rows).await;
    }
    service::sqlite(&backend.folder.path().join("log.db"), ".dump")
}

/// The bytes of all files in a folder, as text as far as they are.
pub fn files(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all += &files(&path);
        } else {
            // One that has gone in between has nothing in it.
            all += &String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default());
        }
    }
    all
}
