//! What people do with the subscription, and what they are told.

use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::memory::Memory;
use super::probe::{Unproven, probe};
use super::{Expected, in_words, plain, same_url};
use crate::event::{Clock, Millis, Subscriber};
use crate::intake::rounded;
use crate::log::{Handshakes, Log, LogError};
use crate::vendor::{Class, NewSubscription, Status, Subscription, Vendor, VendorError};

/// Enabling failed, as the platform's handshake was not answered (manual, table of error codes).
const ENABLE_FAILED: &str = "MMC.111071121";
/// The subscription is locked (ditto).
const LOCKED: &str = "MMC.111071120";

/// How often the database is asked whether the platform's handshake is there.
const POLL: Duration = Duration::from_millis(200);

/// What kept an action from being done. The names are part of the JSON that people's scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is no subscription.
    Missing,
    /// There is another one already.
    Exists,
    /// It is for a subscriber that is not configured here.
    Subscriber,
    /// The URL did not pass the probe.
    Probe,
    /// It is locked, or was a short time ago.
    Locked,
    /// The platform could not enable it.
    Refused,
    /// It is enabled, but the platform's handshake did not arrive here.
    Handshake,
    /// It is not what it was set to.
    Unchanged,
    /// It has to be disabled first.
    Enabled,
    /// The platform's API failed.
    Platform,
    /// The database failed.
    Database,
}

/// A failure, for people and for scripts.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// A sentence.
    pub message: String,
    /// The platform's code, if it gave one.
    pub code: Option<String>,
    /// The platform's name for the request, for its support.
    pub request_id: Option<String>,
}

impl Problem {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, request_id: None }
    }

    fn of(kind: Kind, message: impl Into<String>, error: &VendorError) -> Self {
        Self {
            code: error.code.clone(),
            request_id: error.request_id.as_deref().map(str::to_owned),
            ..Self::new(kind, message)
        }
    }
}

impl From<VendorError> for Problem {
    fn from(error: VendorError) -> Self {
        let request = error.request_id.as_ref().map(|id| format!(" (request {})", plain(id))).unwrap_or_default();
        Self::of(Kind::Platform, format!("{error}{request}. {}", error.advice), &error)
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        Self::new(Kind::Database, error.to_string())
    }
}

/// The subscription, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    id: String,
    subscriber_id: Option<String>,
    url: Option<String>,
    status: String,
}

/// What is known when an action is over.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// As it was last read; `None`: there is none, or it was not read.
    pub subscription: Option<Shown>,
    /// The newest handshake of the platform with its subscriber, by whichever process.
    pub handshake_at: Option<String>,
    /// Until when the platform refuses to enable it, as far as is known.
    pub locked_until: Option<String>,
    /// Whether the probe through the public URL arrived; `None`: it was not sent.
    pub probed: Option<bool>,
    /// What is not as it should be, a sentence each.
    pub warnings: Vec<String>,
}

/// How to set.
#[derive(Debug)]
pub struct Set<'a> {
    /// Whose events, and the key that is to sign them.
    pub subscriber: &'a Subscriber,
    /// Where to.
    pub url: &'a str,
    /// Whether another subscription may be replaced.
    pub replace: bool,
}

/// How to enable.
#[derive(Clone, Copy, Debug)]
pub struct Enable {
    /// Whether to probe the URL first.
    pub probe: bool,
    /// Whether to ask the platform even if it is, or lately was, locked.
    pub force: bool,
    /// How long to wait for the platform's handshake to arrive in the database.
    pub wait: Duration,
}

/// One action, on the way.
pub struct Actions<'a> {
    /// The platform.
    pub vendor: &'a Vendor,
    /// The database that handshakes and probes arrive in.
    pub log: &'a dyn Log,
    /// What it should be.
    pub expected: Expected,
    /// Whoever may sign.
    pub subscribers: &'a [Subscriber],
    /// The time.
    pub clock: Clock,
    /// What is known so far.
    pub report: Report,
    /// Tells people what was done.
    pub say: &'a mut (dyn FnMut(&str) + Send),
}

impl std::fmt::Debug for Actions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actions").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Actions<'_> {
    /// Shows it.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn show(&mut self) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            (self.say)("there is no subscription: `convoke subscription set` makes one");
            return Ok(());
        };
        (self.say)(&format!("record      {}", plain(&is.id)));
        (self.say)(&format!("subscriber  {}", plain(is.subscriber_id.as_deref().unwrap_or("none"))));
        (self.say)(&format!("url         {}", plain(is.url.as_deref().unwrap_or("none"))));
        (self.say)(&format!("status      {}", in_words(is.status)));
        let handshakes = self.handshakes(&is).await?;
        let newest = handshakes.newest.map_or_else(|| "none yet".to_owned(), |at| format!("newest at {at}"));
        (self.say)(&format!("handshakes  {newest}"));
        if let Some(until) = &self.report.locked_until {
            (self.say)(&format!("locked      until {until} as far as is known here"));
        }
        Ok(())
    }

    /// Sets it, and reads it back.
    ///
    /// # Errors
    /// There is another one, or the platform did not take it.
    pub async fn set(&mut self, how: Set<'_>) -> Result<(), Problem> {
        let id = &how.subscriber.app_id;
        let is_it = |is: &Subscription| {
            is.subscriber_id.as_deref() == Some(&**id) && is.url.as_ref().is_some_and(|url| same_url(url, how.url))
        };
        let before = self.read().await?;
        if let Some(is) = before.as_ref().filter(|is| !is_it(is) && !how.replace) {
            let (subscriber, url) =
                (is.subscriber_id.as_deref().unwrap_or("none"), is.url.as_deref().unwrap_or("none"));
            return Err(Problem::new(
                Kind::Exists,
                format!(
                    "there is a subscription already, for subscriber {} to {} ({}), and there can be only one: --replace sets it \
                     to subscriber {id} and {}",
                    plain(subscriber),
                    plain(url),
                    in_words(is.status),
                    how.url
                ),
            ));
        }
        let key = how.subscriber.keys.first().map_or("", |key| key.expose_secret());
        let new = NewSubscription {
            subscriber_id: id.to_string(),
            subscriber_key: SecretString::from(key),
            url: how.url.to_owned(),
        };
        self.vendor.set_subscription(&new).await?;
        match self.read().await? {
            Some(is) if is_it(&is) => {
                (self.say)(&format!("set: subscriber {id}, its first key, to {}", how.url));
                let was_enabled = before.is_some_and(|before| before.status == Status::Enabled);
                if is.status == Status::Enabled {
                    (self.say)("it is enabled");
                } else if was_enabled {
                    self.warn(format!(
                        "setting it switched it off (it is {}): no events are pushed until `convoke subscription enable`",
                        in_words(is.status)
                    ));
                } else {
                    (self.say)(&format!("it is {}: `convoke subscription enable` comes next", in_words(is.status)));
                }
                Ok(())
            }
            Some(_) => Err(Problem::new(
                Kind::Unchanged,
                "the platform took the subscription, and shows another one: see `show`",
            )),
            None => {
                Err(Problem::new(Kind::Unchanged, "the platform took the subscription, and says that there is none"))
            }
        }
    }

    /// Enables it, if that can be expected to work.
    ///
    /// # Errors
    /// Why it was not tried, or did not work.
    pub async fn enable(&mut self, how: Enable) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            return Err(Problem::new(Kind::Missing, "there is no subscription: run `convoke subscription set` first"));
        };
        let mut memory = Memory::load(self.log).await?;
        if is.status != Status::Enabled && !how.force {
            self.refuse_if_locked(&memory).await?;
        }
        let subscriber = self.subscriber_of(&is)?.clone();
        if how.probe {
            self.probe(&is, &subscriber).await?;
        }
        if is.status == Status::Enabled {
            (self.say)("it was enabled already: the platform was not asked again");
            return Ok(());
        }
        if let Some(ago) = memory.failed_lately(self.log.now().await?) {
            self.warn(format!(
                "enabling failed {} ago: too many failures lock the subscription for an hour",
                rounded(ago)
            ));
        }
        let before = self.handshakes(&is).await?;
        let asked = self.vendor.change_status(&is.id, Status::Enabled).await;
        if let Err(error) = asked {
            self.after_failure(&is, &mut memory, before, error).await?;
        }
        let arrived = self.wait_for_handshake(&is, before, how.wait).await?;
        let now = self.read().await?.map(|is| is.status);
        if now != Some(Status::Enabled) {
            let is = now.map_or_else(|| "gone".to_owned(), in_words);
            return Err(Problem::new(
                Kind::Unchanged,
                format!("the platform took the order to enable it, and says that it is {is}"),
            ));
        }
        if let Some(at) = arrived {
            (self.say)(&format!("the platform's handshake arrived at {at} and was answered"));
            (self.say)("enabled");
            return Ok(());
        }
        Err(Problem::new(
            Kind::Handshake,
            format!(
                "the platform says that it is enabled, but no handshake of it came into this database within {}: whoever answered \
                 it, it was not this Convoke. Compare the URL in `show` with where you expect it to lead from the internet",
                rounded(how.wait)
            ),
        ))
    }

    /// Disables it, unless it is not enabled anyway.
    ///
    /// # Errors
    /// The platform did not do it.
    pub async fn disable(&mut self) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            (self.say)("there is no subscription: nothing is pushed");
            return Ok(());
        };
        if is.status != Status::Enabled {
            (self.say)(&format!("it is {}, not enabled: left as it is", in_words(is.status)));
            return Ok(());
        }
        self.vendor.change_status(&is.id, Status::Disabled).await?;
        match self.read().await?.map(|is| is.status) {
            Some(Status::Enabled) => Err(Problem::new(
                Kind::Unchanged,
                "the platform took the order to disable it, and says that it is enabled",
            )),
            _ => {
                (self.say)("disabled: what happens from now on is not pushed, and only a backfill brings it");
                Ok(())
            }
        }
    }

    /// Deletes it, once it is disabled.
    ///
    /// # Errors
    /// It is enabled, or the platform did not do it.
    pub async fn delete(&mut self) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            (self.say)("there is no subscription");
            return Ok(());
        };
        if is.status == Status::Enabled {
            let message = "it is enabled, and events are pushed: run `convoke subscription disable` first";
            return Err(Problem::new(Kind::Enabled, message));
        }
        self.vendor.delete_subscription(&is.id).await?;
        if self.read().await?.is_some() {
            let message = "the platform took the order to delete it, and still has it";
            return Err(Problem::new(Kind::Unchanged, message));
        }
        (self.say)("deleted");
        Ok(())
    }

    fn warn(&mut self, warning: String) {
        (self.say)(&format!("warning: {warning}"));
        self.report.warnings.push(warning);
    }

    /// Reads it, and what belongs to it, into the report.
    async fn read(&mut self) -> Result<Option<Subscription>, Problem> {
        let read = self.vendor.subscription().await?;
        let now = self.log.now().await?;
        let before = Memory::load(self.log).await?;
        let mut memory = before;
        memory.see(read.as_ref().map(|is| is.status), now);
        if memory != before {
            memory.keep(self.log).await?;
        }
        self.report.locked_until = memory.locked_until(now).map(|until| until.to_string());
        self.report.subscription = read.as_ref().map(|is| Shown {
            id: is.id.clone(),
            subscriber_id: is.subscriber_id.clone(),
            url: is.url.clone(),
            status: in_words(is.status),
        });
        if let Some(is) = &read {
            self.handshakes(is).await?;
            for difference in self.expected.differences(is) {
                if !self.report.warnings.contains(&difference) {
                    self.warn(difference);
                }
            }
        }
        Ok(read)
    }

    async fn handshakes(&mut self, is: &Subscription) -> Result<Handshakes, LogError> {
        let known = match &is.subscriber_id {
            Some(id) => self.log.handshakes(id).await?,
            None => Handshakes::default(),
        };
        self.report.handshake_at = known.newest.map(|at| at.to_string());
        Ok(known)
    }

    fn subscriber_of(&self, is: &Subscription) -> Result<&Subscriber, Problem> {
        let id = is.subscriber_id.as_deref().unwrap_or("none");
        self.subscribers.iter().find(|subscriber| &*subscriber.app_id == id).ok_or_else(|| {
            Problem::new(
                Kind::Subscriber,
                format!(
                    "the subscription is for subscriber {}, which is not configured here, so its handshake would be refused: \
                     configure it, or run `convoke subscription set`",
                    plain(id)
                ),
            )
        })
    }

    /// A lock is not tried out.
    async fn refuse_if_locked(&self, memory: &Memory) -> Result<(), Problem> {
        let Some(until) = memory.locked_until(self.log.now().await?) else { return Ok(()) };
        Err(Problem::new(
            Kind::Locked,
            format!(
                "the subscription is locked, because enabling it failed too often; as far as is known here until {until}. The \
                 platform was not asked: another failure might begin the hour anew. --force asks it all the same"
            ),
        ))
    }

    async fn probe(&mut self, is: &Subscription, subscriber: &Subscriber) -> Result<(), Problem> {
        let url = is.url.as_deref().unwrap_or_default();
        let shown = plain(url);
        match probe(self.log, url, subscriber, &self.clock).await {
            Ok(()) => {
                self.report.probed = Some(true);
                (self.say)(&format!("a probe sent to {shown} arrived in this Convoke"));
                Ok(())
            }
            Err(Unproven::Log(error)) => Err(error.into()),
            Err(unproven) => {
                self.report.probed = Some(false);
                Err(Problem::new(Kind::Probe, format!("{shown}: {unproven}. The platform was not asked")))
            }
        }
    }

    /// Remembers what failed. `Ok` if it may have worked all the same.
    async fn after_failure(
        &mut self,
        is: &Subscription,
        memory: &mut Memory,
        before: Handshakes,
        error: VendorError,
    ) -> Result<(), Problem> {
        let now = self.log.now().await?;
        let code = error.code.as_deref();
        if code == Some(LOCKED) || (code.is_none() && error.status == Some(423)) {
            memory.lock(now);
            memory.keep(self.log).await?;
            let until = memory.locked_until(now).unwrap_or(now);
            self.report.locked_until = Some(until.to_string());
            let message = format!(
                "the platform has locked the subscription, because enabling it failed too often: not before {until}, run this again"
            );
            return Err(Problem::of(Kind::Locked, message, &error));
        }
        if code != Some(ENABLE_FAILED) && error.class != Class::Transient {
            return Err(error.into());
        }
        memory.fail(now);
        memory.keep(self.log).await?;
        if code == Some(ENABLE_FAILED) {
            let after = self.handshakes(is).await?;
            let why = if after.answered > before.answered {
                "its handshake did arrive here and was answered, so the answer did not reach it, or too late: look at what \
                 stands between"
            } else {
                "its handshake did not arrive here, though ours did: it is kept from us on the way from the internet (a firewall, a \
                 name that leads elsewhere from outside, listen.allow_from, a certificate that only this machine trusts), or it \
                 is signed with another key (`convoke subscription set` sets the first one again); \
                 convoke_rejections_total and the log of `convoke serve` tell which"
            };
            let locked = self.read().await?.is_some_and(|is| is.status == Status::Locked);
            let count = if locked {
                "That was one failure too many: it is locked for an hour"
            } else {
                "Too many failures lock it for an hour"
            };
            let message = format!(
                "the platform could not enable the subscription: {why}. {count}; do not run this again before something has \
                 changed"
            );
            return Err(Problem::of(Kind::Refused, message, &error));
        }
        // No answer, or none that says what became of it.
        let read = self.read().await?;
        if read.is_some_and(|is| is.status == Status::Enabled) { Ok(()) } else { Err(error.into()) }
    }

    /// When the platform's handshake arrived, if it did.
    async fn wait_for_handshake(
        &mut self,
        is: &Subscription,
        before: Handshakes,
        wait: Duration,
    ) -> Result<Option<Millis>, Problem> {
        let begun = Instant::now();
        loop {
            let now = self.handshakes(is).await?;
            if now.answered > before.answered {
                return Ok(now.newest);
            }
            if begun.elapsed() >= wait {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
