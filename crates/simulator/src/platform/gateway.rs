//! The gateway in front of the calls: how often each was called, how often it may be, and what goes wrong on purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::archive::Archive;
use super::options::PlatformOptions;
use super::refusal::Refusal;
use super::request::Call;

/// Something that goes wrong with a call.
#[derive(Clone)]
pub enum Fault {
    /// An error answer instead of the real one.
    Refuse(Refusal),
    /// Throttled, whatever the limit says.
    TooMany,
    /// A page for people with this status, as a proxy or a login page in between gives.
    Html(u16),
    /// This body, with 200, instead of the real one.
    Body(String),
    /// The connection is closed without an answer.
    Drop,
    /// The connection is closed in the middle of the answer.
    DropHalf,
    /// The answer comes after this time.
    Slow(Duration),
    /// A list repeats its previous page.
    RepeatPage,
    /// All tokens expire, just before this call.
    ExpireTokens,
    /// All tokens become invalid, just before this call.
    ForgetTokens,
    /// What the platform remembers changes, just before this call.
    Edit(Arc<dyn Fn(&mut Archive) + Send + Sync>),
}

impl Fault {
    /// What the platform remembers changes, just before the call.
    pub fn edit(change: impl Fn(&mut Archive) + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(change))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse(refusal) => write!(f, "Refuse({} {})", refusal.status, refusal.code),
            Self::TooMany => f.write_str("TooMany"),
            Self::Html(status) => write!(f, "Html({status})"),
            Self::Body(_) => f.write_str("Body"),
            Self::Drop => f.write_str("Drop"),
            Self::DropHalf => f.write_str("DropHalf"),
            Self::Slow(time) => write!(f, "Slow({time:?})"),
            Self::RepeatPage => f.write_str("RepeatPage"),
            Self::ExpireTokens => f.write_str("ExpireTokens"),
            Self::ForgetTokens => f.write_str("ForgetTokens"),
            Self::Edit(_) => f.write_str("Edit"),
        }
    }
}

#[derive(Debug)]
struct Planned {
    call: Call,
    after: u64,
    times: u64,
    fault: Fault,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    calls: BTreeMap<Call, u64>,
    planned: Vec<Planned>,
    /// When the current minute of a call began, and how often it was called since.
    windows: BTreeMap<Call, (Duration, u32)>,
}

/// How many calls remain in this minute, and whether this one was too many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub remain: u32,
    pub exceeded: bool,
}

impl Gateway {
    pub(super) fn calls(&self) -> BTreeMap<Call, u64> {
        self.calls.clone()
    }

    pub(super) fn plan(&mut self, call: Call, fault: Fault, after: u64, times: u64) {
        self.planned.push(Planned { call, after, times, fault });
    }

    pub(super) fn count(&mut self, call: Call) {
        *self.calls.entry(call).or_default() += 1;
    }

    /// What is to go wrong this time; of several plans the oldest that is not used up.
    pub(super) fn fault(&mut self, call: Call) -> Option<Fault> {
        let at = self.planned.iter().position(|planned| planned.call == call)?;
        let planned = &mut self.planned[at];
        if planned.after > 0 {
            planned.after -= 1;
            return None;
        }
        let fault = planned.fault.clone();
        planned.times = planned.times.saturating_sub(1);
        if planned.times == 0 {
            self.planned.remove(at);
        }
        Some(fault)
    }

    /// Counts a call against the limit: so many in a minute that begins with the first of them.
    pub(super) fn allow(&mut self, call: Call, options: &PlatformOptions, now: Duration) -> Allowance {
        let (began, used) = self.windows.entry(call).or_insert((now, 0));
        if now.saturating_sub(*began) >= options.minute {
            (*began, *used) = (now, 0);
        }
        *used = used.saturating_add(1);
        Allowance { remain: options.limit.saturating_sub(*used), exceeded: *used > options.limit }
    }
}

/// The unit of the limit as the gateway words it; a compressed minute is given in seconds.
pub(super) fn unit(minute: Duration) -> String {
    if minute == Duration::from_secs(60) {
        "1 minute".to_owned()
    } else {
        format!("{} second", minute.as_secs().max(1))
    }
}
