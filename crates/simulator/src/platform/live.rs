//! The push of one running meeting (manual, 6.1): its tokens, its WebSocket, and what happens in it.
//!
//! Where the manual leaves something open: the answer to a subscription that is refused has the code 1; a token that is not valid
//! any more is answered as a participant's that fails (chapter 22); after five wrong passwords a meeting is locked. A connection
//! without a valid token is opened and closed at once ("the server closes the connection", 6.1.3.1). A subscription is answered with
//! full messages, and later ones are incremental; what was told while nobody listened is not told again, unless [`Room::repeats`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::archive::{Archive, Run, State, Stay};
use super::options::PlatformOptions;
use super::refusal::Refusal;
use super::request::Query;
use crate::people::mix;
use convoke_core::time::Millis;

/// Where a WebSocket is opened.
pub(super) const PATH: &str = "/cms/open/websocket/confctl/increment/conn";

/// A token that opens a WebSocket is valid for so long, and once.
const SOCKET_TOKEN_MS: i64 = 60_000;
/// So many wrong passwords lock a meeting.
const MAX_WRONG: u32 = 5;
/// What may be told again to whoever comes back.
const MAX_RECENT: usize = 64;

const WRONG_PASSWORD: Refusal = Refusal::new(400, "MMC.111072065", "CONF_ID_OR_PASSWORD_ERROR");
const NOT_BEGUN: Refusal = Refusal::new(400, "MMC.111072005", "CONF_NOT_STARTED");
const OVER: Refusal = Refusal::new(400, "MMC.111072006", "CONF_IS_OVER");
const LOCKED: Refusal = Refusal::new(423, "MMC.111072064", "CONF_PASSWORD_LOCKED");
const NOT_VALID: Refusal = Refusal::new(400, "MMC.111081006", "PARTICIPANT_AUTHENTICATION_FAILED");

/// The host's password of a meeting with this number.
#[must_use]
pub fn host_password(conference_id: &str) -> String {
    let dice = conference_id.bytes().fold(0_u64, |dice, byte| mix(dice ^ u64::from(byte)));
    format!("{:06}", dice % 1_000_000)
}

/// All that is known of running meetings.
#[derive(Debug, Default)]
pub(super) struct Live {
    rooms: HashMap<String, Room>,
    control_tokens: HashMap<String, (String, Millis)>,
    socket_tokens: HashMap<String, (String, Millis)>,
    wrong: HashMap<String, u32>,
}

/// What goes to one who listens.
pub(super) enum Out {
    Text(String),
    Close,
    Cut,
}

#[derive(Debug)]
struct Listener {
    kinds: Vec<String>,
    send: mpsc::UnboundedSender<Out>,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Out")
    }
}

/// One running meeting, to be played. What happens is told to whoever listens.
#[derive(Debug, Default)]
pub struct Room {
    number: String,
    now: i64,
    version: u64,
    inside: BTreeMap<String, Map<String, Value>>,
    waiting: BTreeMap<String, Map<String, Value>>,
    status: Map<String, Value>,
    listeners: Vec<Listener>,
    recent: VecDeque<(String, String)>,
    /// One that the next overtakes.
    held: Option<(String, String)>,
    over: bool,
    /// Its time is that of a script, which may be long ago.
    scripted: bool,
    /// Whoever comes back is told so many of the last messages once more.
    pub repeats: usize,
    /// Every second message is overtaken by the one after it.
    pub reorders: bool,
    /// Nothing is answered or told.
    pub frozen: bool,
    /// All messages that were made.
    pub told: Vec<String>,
}

impl Room {
    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners.iter().filter(|listener| !listener.send.is_closed()).count()
    }

    /// Somebody comes.
    pub fn join(&mut self, pid: &str, fields: &[(&str, &str)]) {
        self.let_in(pid);
        let now = self.now.to_string();
        let map = self.inside.entry(pid.to_owned()).or_default();
        let standard = [("STATE", "0"), ("MUTE", "0"), ("HAND", "0"), ("ROLE", "0"), ("ADDTIME", now.as_str())];
        for (name, value) in standard.iter().chain(fields) {
            map.insert((*name).to_owned(), json!(value));
        }
        let map = map.clone();
        self.tell("ParticipantsNotify", json!({ "data": [{ "pid": pid, "mode": 0, "pinfoMap": map }] }));
    }

    /// Something about somebody changes.
    pub fn change(&mut self, pid: &str, fields: &[(&str, &str)]) {
        let Some(map) = self.inside.get_mut(pid) else { return };
        let changed: Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        map.extend(changed.clone());
        self.tell("ParticipantsNotify", json!({ "data": [{ "pid": pid, "mode": 0, "pinfoMap": changed }] }));
    }

    /// Somebody goes.
    pub fn leave(&mut self, pid: &str) {
        if self.inside.remove(pid).is_some() {
            self.tell("ParticipantsNotify", json!({ "data": [{ "pid": pid, "mode": 1 }] }));
        }
    }

    /// Somebody waits to be let in.
    pub fn wait(&mut self, pid: &str, fields: &[(&str, &str)]) {
        let mut map: Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        map.insert("WAITINGSTATE".to_owned(), json!("0"));
        self.waiting.insert(pid.to_owned(), map.clone());
        self.tell("WaitingListNotify", json!({ "data": [{ "pid": pid, "mode": 0, "pinfoMap": map }] }));
    }

    /// Nobody waits any more by this name.
    fn let_in(&mut self, pid: &str) {
        if self.waiting.remove(pid).is_some() {
            self.tell("WaitingListNotify", json!({ "data": [{ "pid": pid, "mode": 1 }] }));
        }
    }

    /// What came of a call, or why somebody left (7.7).
    pub fn call_result(&mut self, number: &str, code: &str) {
        // The table has `errorCode`, the sample `resultCode`.
        let name = if self.version.is_multiple_of(2) { "resultCode" } else { "errorCode" };
        self.tell("InviteResultNotify", json!({ "data": [{ "callNumber": number, name: code }] }));
    }

    /// Who is the loudest.
    pub fn speak(&mut self, pids: &[&str]) {
        let data: Vec<Value> = pids.iter().map(|pid| json!({ "pid": pid, "speakingVolume": 42 })).collect();
        self.tell("SpeakerChangeNotify", json!({ "data": data }));
    }

    /// Something about the meeting changes.
    pub fn status(&mut self, fields: Value) {
        if let Value::Object(fields) = fields {
            self.status.extend(fields.clone());
            self.tell("ConfDynamicInfoNotify", Value::Object(fields));
        }
    }

    /// Those who are there do something, and some of them speak.
    fn stir(&mut self) {
        let dice = mix(self.now.unsigned_abs());
        let there: Vec<String> = self.inside.keys().cloned().collect();
        let one = |turn: u32| usize::try_from(dice.rotate_right(turn * 8) & 0xffff).unwrap_or(0);
        for turn in 0..2 {
            let Some(pid) = there.get(one(turn) % there.len().max(1)) else { return };
            let name = ["MUTE", "MUTE", "HAND", "SHARE"][one(turn + 2) % 4];
            let on = self.inside.get(pid).is_some_and(|map| map.get(name) == Some(&json!("1")));
            self.change(pid, &[(name, if on { "0" } else { "1" })]);
        }
        let speaking: Vec<&str> = there
            .iter()
            .enumerate()
            .filter(|(place, _)| (place + one(4)).is_multiple_of(4))
            .map(|(_, pid)| &**pid)
            .collect();
        self.speak(&speaking[..speaking.len().min(3)]);
    }

    /// A message of any kind.
    pub fn tell(&mut self, kind: &str, fields: Value) {
        self.version += 1;
        let text = self.message(kind, 1, self.version.into(), fields);
        self.told.push(text.clone());
        self.recent.push_back((kind.to_owned(), text.clone()));
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        if self.reorders && self.held.is_none() && self.version.is_multiple_of(2) {
            self.held = Some((kind.to_owned(), text));
            return;
        }
        self.send(kind, &text);
        if let Some((kind, text)) = self.held.take() {
            self.send(&kind, &text);
        }
    }

    /// A text, to everybody, whatever it is.
    pub fn raw(&mut self, text: &str) {
        self.listeners.iter().for_each(|listener| drop(listener.send.send(Out::Text(text.to_owned()))));
    }

    /// Every connection is lost.
    pub fn cut(&mut self) {
        self.listeners.drain(..).for_each(|listener| drop(listener.send.send(Out::Cut)));
    }

    /// The meeting ends: it says so, and the connections are closed.
    pub fn end(&mut self) {
        self.status(json!({ "state": "Destroyed" }));
        if let Some((kind, text)) = self.held.take() {
            self.send(&kind, &text);
        }
        self.over = true;
        self.listeners.drain(..).for_each(|listener| drop(listener.send.send(Out::Close)));
    }

    fn send(&mut self, kind: &str, text: &str) {
        if self.frozen {
            return;
        }
        self.listeners.retain(|listener| {
            !listener.kinds.iter().any(|wanted| wanted == kind)
                || listener.send.send(Out::Text(text.to_owned())).is_ok()
        });
    }

    /// The common frame of section 7.
    fn message(&self, kind: &str, mode: i64, version: Value, mut fields: Value) -> String {
        // Captions have texts for these (6.1.3.8).
        let text = |value: Value| if kind == "RealTimeSubtitleNotify" { json!(value.to_string()) } else { value };
        fields["confID"] = json!(self.number);
        fields["msgID"] = json!(format!("{:032x}", rand::random::<u128>()));
        fields["msgMode"] = json!(mode);
        fields["version"] = text(version);
        fields["createTime"] = text(json!(self.now));
        fields["action"] = json!(kind);
        fields.to_string()
    }

    /// The full messages that follow a subscription.
    fn full(&self, kinds: &[String]) -> Vec<String> {
        let list = |map: &BTreeMap<String, Map<String, Value>>| {
            let entries = map.iter().map(|(pid, map)| json!({ "pid": pid, "mode": 0, "pinfoMap": map }));
            json!({ "data": entries.collect::<Vec<_>>() })
        };
        let basic = json!({
            "displayID": self.number, "title": format!("Sync {}", self.number), "recType": 1, "media": 2, "confMode": "COMMON",
            "pws": [{ "role": "chair", "pwd": host_password(&self.number) }, { "role": "general", "pwd": "*****" }],
            "guestJoinUri": format!("https://c.meeting.huaweicloud.com/#/j/{}/{:048}", self.number, 0),
        });
        let mut dynamic = json!({ "state": "Created", "lock": 0, "recState": 0 });
        dynamic.as_object_mut().expect("an object").extend(self.status.clone());
        let all = [
            ("ConfBasicInfoNotify", basic),
            ("ConfDynamicInfoNotify", dynamic),
            ("ParticipantsNotify", list(&self.inside)),
            ("WaitingListNotify", list(&self.waiting)),
        ];
        let wanted = all.into_iter().filter(|(kind, _)| kinds.iter().any(|wanted| wanted == kind));
        wanted.map(|(kind, fields)| self.message(kind, 0, json!(self.now), fields)).collect()
    }
}

impl Live {
    /// A meeting, to be played.
    pub(super) fn room(&mut self, number: &str, now: Millis) -> &mut Room {
        let room = self
            .rooms
            .entry(number.to_owned())
            .or_insert_with(|| Room { number: number.to_owned(), ..Room::default() });
        // No two messages are of one millisecond: the manual does not say what orders them then.
        room.now = if room.scripted { room.now + 1 } else { now.get().max(room.now + 1) };
        room
    }

    /// Whether somebody listens to this meeting.
    pub(super) fn is_heard(&self, number: &str) -> bool {
        self.rooms.get(number).is_some_and(|room| room.listeners() > 0)
    }

    /// Plays what becomes known of a run at a time of its script: those who come and go, and what they do. Who comes next may wait
    /// to be let in.
    pub(super) fn follow(&mut self, run: &Run, next: Option<&Stay>, now: Millis) {
        match run.state {
            State::Scheduled => {}
            State::Running => {
                let room = self.room(&run.conference_id, now);
                (room.scripted, room.over) = (true, false);
                room.now = now.get().max(room.now);
                let there: BTreeMap<&str, _> = run
                    .stays
                    .iter()
                    .filter(|stay| stay.left.is_none())
                    .map(|stay| (&*stay.participant_id, stay))
                    .collect();
                let gone: Vec<String> =
                    room.inside.keys().filter(|pid| !there.contains_key(pid.as_str())).cloned().collect();
                gone.iter().for_each(|pid| room.leave(pid));
                for (pid, stay) in &there {
                    if !room.inside.contains_key(*pid) {
                        let joined = stay.joined.get().to_string();
                        let more = [("ROLE", if stay.host { "1" } else { "0" }), ("ADDTIME", &*joined)];
                        let fields: Vec<_> = named(stay).into_iter().chain(more).collect();
                        room.join(pid, &fields);
                    }
                }
                room.stir();
                let dice = next.map_or(0, |stay| mix(stay.joined.get().unsigned_abs()));
                if let Some(stay) = next.filter(|_| dice % 3 == 1) {
                    room.wait(&stay.participant_id, &named(stay));
                }
            }
            State::Over => {
                if let Some(mut room) = self.rooms.remove(&run.conference_id).filter(|room| !room.over) {
                    room.now = now.get().max(room.now + 1);
                    room.end();
                }
            }
        }
    }
}

/// What is told of who somebody is.
fn named(stay: &Stay) -> [(&str, &str); 4] {
    [
        ("NAME", &*stay.display_name),
        ("TEL", &*stay.call_number),
        ("ACCOUNT_ID", stay.user_uuid.as_deref().unwrap_or_default()),
        ("ACCOUNT", stay.account.as_deref().unwrap_or_default()),
    ]
}

/// Which run has this number now, and whether it is running.
fn running(archive: &Archive, live: &Live, number: &str) -> Result<(), Refusal> {
    let mut states = archive.runs().filter(|run| run.conference_id == number).map(|run| run.state);
    let over = live.rooms.get(number).is_some_and(|room| room.over);
    match states.next_back() {
        Some(State::Running) if !over => Ok(()),
        Some(State::Running | State::Over) => Err(OVER),
        Some(State::Scheduled) => Err(NOT_BEGUN),
        None => Err(WRONG_PASSWORD),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

fn later(now: Millis, by: Duration) -> Millis {
    now.plus(by)
}

/// Whether this is a valid control token of the meeting: bare, or `Basic` with its Base64.
fn controls(live: &Live, number: &str, token: &str, now: Millis) -> bool {
    let decoded = token.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text).ok());
    let token = decoded.map_or_else(|| token.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    live.control_tokens.get(&token).is_some_and(|(of, until)| of == number && *until > now)
}

/// 5.2.1.
pub(super) fn control_token(
    options: &PlatformOptions,
    socket_url: &str,
    (archive, live): (&Archive, &mut Live),
    (headers, query): (&HeaderMap, &Query),
    now: Millis,
) -> Result<Value, Refusal> {
    let number = query.required("conferenceID")?.to_owned();
    if header(headers, "x-login-type") != Some("1") {
        return Err(Refusal::BAD_PARAMETER);
    }
    let password = header(headers, "x-password").unwrap_or_default();
    running(archive, live, &number)?;
    if live.wrong.get(&number).is_some_and(|wrong| *wrong >= MAX_WRONG) {
        return Err(LOCKED);
    }
    let kept = header(headers, "x-conference-authorization").filter(|token| controls(live, &number, token, now));
    let token = match kept {
        Some(token) => token.to_owned(),
        None if password == host_password(&number) => format!("{:032x}", rand::random::<u128>()),
        None => {
            *live.wrong.entry(number).or_default() += 1;
            return Err(WRONG_PASSWORD);
        }
    };
    let until = later(now, options.control_token_valid);
    live.control_tokens.insert(token.clone(), (number, until));
    Ok(json!({
        "data": {
            "token": token, "tmpWsToken": "", "wsURL": socket_url, "role": 1, "expireTime": until.get(),
            "confTokenExpireTime": options.control_token_valid.as_secs().max(1), "userID": "", "orgID": options.corp_ids.first(),
            "supportNotifyType": ["INCREMENT"],
        },
        "addressToken": "", "globalPublicIP": "",
    }))
}

/// 5.2.29.
pub(super) fn socket_token(
    (archive, live): (&Archive, &mut Live),
    (headers, query): (&HeaderMap, &Query),
    now: Millis,
) -> Result<Value, Refusal> {
    let number = query.required("conferenceID")?.to_owned();
    running(archive, live, &number)?;
    let control = header(headers, "x-conference-authorization").unwrap_or_default();
    if !controls(live, &number, control, now) {
        return Err(NOT_VALID);
    }
    let token = format!("{:032x}", rand::random::<u128>());
    let until = Millis::new(now.get() + SOCKET_TOKEN_MS).unwrap_or(Millis::MAX);
    live.socket_tokens.insert(token.clone(), (number, until));
    Ok(json!({ "webSocketToken": token }))
}

/// The number of the meeting that this query opens: the token is used up.
pub(super) fn admit(live: &mut Live, query: &Query, now: Millis) -> Option<String> {
    let (number, until) = live.socket_tokens.remove(query.get("tmpToken")?)?;
    (until > now && query.get("confID") == Some(&number)).then_some(number)
}

/// Whether nothing is answered in this meeting.
pub(super) fn is_frozen(live: &Live, number: &str) -> bool {
    live.rooms.get(number).is_some_and(|room| room.frozen)
}

/// 6.1.3.2: the answer, and the full messages.
pub(super) fn subscribe(
    live: &mut Live,
    number: &str,
    asked: &Value,
    send: &mpsc::UnboundedSender<Out>,
    now: Millis,
) -> Vec<String> {
    let data: Value = asked["data"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let kinds = data["subscribeType"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let kinds: Vec<String> = kinds.collect();
    let valid = data["conferenceID"] == *number
        && !kinds.is_empty()
        && controls(live, number, data["confToken"].as_str().unwrap_or_default(), now);
    let (code, words) = if valid { (0, "SUCCESS") } else { (1, "FAILED") };
    let answer = json!({
        "action": "Subscribe", "sequence": asked["sequence"], "data": { "returnCode": code, "returnDesc": words },
    });
    let mut answers = vec![answer.to_string()];
    if valid {
        let room = live.room(number, now);
        let repeated = room.recent.iter().rev().take(room.repeats).filter(|(kind, _)| kinds.contains(kind));
        let mut repeated: Vec<String> = repeated.map(|(_, text)| text.clone()).collect();
        repeated.reverse();
        answers.extend(repeated);
        answers.extend(room.full(&kinds));
        room.listeners.push(Listener { kinds, send: send.clone() });
    }
    answers
}
