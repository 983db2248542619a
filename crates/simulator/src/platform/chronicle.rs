//! How the simulated world becomes the platform's memory: what happens there is remembered whether or not its event arrives.

use std::collections::HashSet;
use std::sync::Arc;

use super::archive::{Invited, Recorded, Run, State, Stay};
use super::memory::Shared;
use super::options::PlatformOptions;
use crate::body::uuid_text;
use crate::people::{DEVICES, mix};
use crate::script::{Script, Step, What};
use crate::world::Witness;
use convoke_core::time::Millis;

/// Records in the platform what happens in a world. Who comes and goes is recorded when something else happens, or while somebody
/// listens to the meeting: a running meeting may have more people in it than the platform says.
#[derive(Clone)]
pub struct Chronicle(pub(super) Arc<Shared>);

impl std::fmt::Debug for Chronicle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chronicle")
    }
}

const MINUTE_MS: i64 = 60_000;
/// Schedules are made in steps of so many milliseconds.
const SLOT_MS: i64 = 15 * MINUTE_MS;

fn at(ms: i64) -> Millis {
    Millis::new(ms).unwrap_or(Millis::MAX)
}

impl Witness for Chronicle {
    fn note(&self, script: &Script, done: usize) {
        let decoded_from = self.0.now();
        let mut state = self.0.state();
        match self.run(script, done, decoded_from) {
            Some(mut run) => {
                // What was recorded before keeps its time.
                if let Some(known) = state.archive.get(&run.conf_uuid) {
                    for (new, known) in run.recordings.iter_mut().zip(&known.recordings) {
                        new.decoded_from = known.decoded_from;
                    }
                }
                let next = script.steps.get(..=done).filter(|steps| matches!(steps[done].what, What::Join(_)));
                let next = next.and_then(|steps| stays(steps, script).pop());
                let latest = done.checked_sub(1).and_then(|last| script.steps.get(last));
                state.live.follow(&run, next.as_ref(), latest.map_or(decoded_from, |step| at(step.at)));
                state.archive.put(run);
            }
            None => drop(state.archive.remove(&uuid_text(script.meeting.uuid))),
        }
    }

    fn passed(&self, script: &Script, done: usize) {
        if self.0.state().live.is_heard(&script.meeting.id.to_string()) {
            self.note(script, done);
        }
    }
}

impl Chronicle {
    fn run(&self, script: &Script, done: usize, now: Millis) -> Option<Run> {
        let options = &self.0.options;
        let steps = script.steps.get(..done)?;
        let latest = steps.iter().rev().find_map(|step| match step.what {
            What::Cancel => None,
            What::Started => Some(State::Running),
            What::End | What::Conclude => Some(State::Over),
            What::Create | What::Modify => Some(State::Scheduled),
            What::Join(_) | What::Left(_) | What::Record => None,
        });
        if steps.last()?.what == What::Cancel {
            return None;
        }
        let when = |what: What| script.steps.iter().find(|step| step.what == what).map(|step| step.at);
        let happened = |what: What| steps.iter().rev().find(|step| step.what == what).map(|step| step.at);
        let begins = when(What::Started).unwrap_or(script.steps.last()?.at);
        let ends = when(What::End).unwrap_or(begins + SLOT_MS);
        let host = script.people.first();
        let conference_id = script.meeting.id.to_string();
        let corps = options.corp_ids.len().max(1);
        let corp_id = options.corp_ids.get(usize::try_from(script.meeting.id).unwrap_or(0) % corps).cloned();
        Some(Run {
            conf_uuid: uuid_text(script.meeting.uuid),
            cycle_sub_conf_id: script.meeting.cycle_sub_id.map(uuid_text),
            subject: format!("Sync {}", &conference_id[conference_id.len().saturating_sub(4)..]),
            scheduler_name: host.map(|host| host.display_name.clone()).unwrap_or_default(),
            scheduler_uuid: host.and_then(|host| host.user_uuid).map(uuid_text),
            corp_id,
            conference_id,
            state: latest?,
            scheduled: (at(begins - begins % MINUTE_MS), at(ends - ends % SLOT_MS + SLOT_MS)),
            started: steps.iter().find(|step| step.what == What::Started).map(|step| at(step.at)),
            ended: happened(What::End).map(at),
            invited: invited(script),
            stays: stays(steps, script),
            recordings: recordings(steps, options, now),
        })
    }
}

/// Every second of those with a user who come, and for every fourth person one more who does not.
fn invited(script: &Script) -> Vec<Invited> {
    let comes =
        script.people.iter().skip(1).step_by(2).filter(|person| person.user_uuid.is_some()).map(|person| Invited {
            user_uuid: person.user_uuid.map(uuid_text),
            account: Some(person.account.clone()),
            number: Some(person.call_number.clone()),
            name: person.display_name.clone(),
        });
    let stays_away = (0..script.people.len().div_ceil(4)).map(|number| {
        let dice = u128::from(mix(u64::try_from(number).unwrap_or(0)));
        Invited {
            user_uuid: Some(uuid_text(script.meeting.uuid ^ dice)),
            name: format!("Away {number}"),
            ..Invited::default()
        }
    });
    comes.chain(stays_away).collect()
}

/// The stays that have begun. Who never left was there until the meeting ended, the first time after he came.
fn stays(steps: &[Step], script: &Script) -> Vec<Stay> {
    let gone: HashSet<usize> = steps
        .iter()
        .filter_map(|step| match step.what {
            What::Left(number) => Some(number),
            _ => None,
        })
        .collect();
    let ends: Vec<i64> = steps.iter().filter(|step| step.what == What::End).map(|step| step.at).collect();
    let over = steps.iter().rev().find(|step| matches!(step.what, What::Started | What::End)).map(|step| step.what)
        == Some(What::End);
    let joined = steps.iter().filter_map(|step| match step.what {
        What::Join(number) => script.stays.get(number).map(|stay| (number, stay)),
        _ => None,
    });
    joined
        .filter_map(|(number, stay)| {
            let person = script.people.get(stay.person)?;
            // Who came as it ended was thrown out.
            let thrown_out = ends.last().filter(|end| **end <= stay.joined_at && over).map(|_| stay.joined_at);
            let closed = || ends.iter().copied().find(|end| *end > stay.joined_at).or(thrown_out);
            let left = if gone.contains(&number) { Some(stay.left_at) } else { closed() };
            Some(Stay {
                display_name: person.display_name.as_str().into(),
                call_number: person.call_number.as_str().into(),
                participant_id: uuid_text(stay.participant_id).into(),
                user_uuid: person.user_uuid.map(|uuid| uuid_text(uuid).into()),
                account: Some(person.account.as_str()).filter(|account| !account.is_empty()).map(Arc::from),
                host: stay.role == "CHAIR",
                device_type: device(stay.user_agent),
                joined: at(stay.joined_at),
                left: left.map(at),
            })
        })
        .collect()
}

/// What the participant records call a device: localised text, of which the manual prints only the Chinese.
fn device(user_agent: &str) -> &'static str {
    match user_agent {
        "PSTN" => "Telephone",
        "Web" => "Web",
        agent if DEVICES.last() == Some(&agent) => "Hard terminal",
        _ => "Soft terminal",
    }
}

/// Each recording began half way between what was before it and its end.
fn recordings(steps: &[Step], options: &PlatformOptions, now: Millis) -> Vec<Recorded> {
    let decode_ms = i64::try_from(options.decode_for.as_millis()).unwrap_or(0);
    let mut before = steps.iter().find(|step| step.what == What::Started).map_or(0, |step| step.at);
    let finished = steps.iter().filter(|step| step.what == What::Record);
    finished
        .map(|step| {
            let length_s = ((step.at - before) / 2_000).max(1);
            before = step.at;
            let finished = at(step.at);
            Recorded {
                finished,
                length_s,
                decode_end: at(step.at + decode_ms),
                decoded_from: at(now.get() + decode_ms),
            }
        })
        .collect()
}
