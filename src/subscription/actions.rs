//! The commands that change the subscription.

use std::time::Duration;

use super::memory::Memory;
use super::probe::{Unproven, probe};
use super::report::{ActionKind, Problem, Shown, SubscriptionReport};
use super::{Expected, in_words, plain, same_url};
use convoke_core::event::Subscriber;
use convoke_core::human;
use convoke_core::time::{Clock, Millis, instant};
use convoke_core::zone::TimeZone;
use convoke_log::{Handshakes, HandshakesSeen, LogError};
use convoke_platform::{Class, Client, NewSubscription, PlatformError, Status, Subscription};

/// Enabling failed because the platform's handshake was not answered (manual, table of error codes).
const ENABLE_FAILED_CODE: &str = "MMC.111071121";
/// The subscription is locked (same table).
const LOCKED_CODE: &str = "MMC.111071120";

/// How often the database is checked for the platform's handshake.
const HANDSHAKE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Options for setting the subscription.
#[derive(Debug)]
pub struct Set<'a> {
    /// The subscriber of the events, with the key that signs them.
    pub subscriber: &'a Subscriber,
    /// The URL to which events are pushed.
    pub url: &'a str,
    /// Whether an existing subscription may be replaced.
    pub replace: bool,
}

/// Options for enabling the subscription.
#[derive(Clone, Copy, Debug)]
pub struct Enable {
    /// Whether to probe the URL first.
    pub probe: bool,
    /// Whether to ask the platform even if the subscription is, or recently was, locked.
    pub force: bool,
    /// How long to wait for the platform's handshake to arrive in the database.
    pub wait: Duration,
}

/// An action in progress.
pub struct Actions<'a> {
    /// The client of the platform's API.
    pub client: &'a Client,
    /// The database that records handshakes and probes. Only enabling requires it.
    pub log: Option<&'a dyn Handshakes>,
    /// What the subscription should be.
    pub expected: Expected,
    /// The configured subscribers.
    pub subscribers: &'a [Subscriber],
    /// The clock.
    pub clock: Clock,
    /// Whose clocks show the times that are said.
    pub zone: TimeZone,
    /// The report so far.
    pub report: SubscriptionReport,
    /// Prints a message.
    pub say: &'a mut (dyn FnMut(&str) + Send),
}

impl std::fmt::Debug for Actions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actions").field("report", &self.report).finish_non_exhaustive()
    }
}

impl<'a> Actions<'a> {
    /// Shows the subscription.
    ///
    /// # Errors
    /// The subscription cannot be read.
    pub async fn show(&mut self) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            (self.say)("there is no subscription: run `convoke subscription set`");
            return Ok(());
        };
        self.warn_of_differences(&is);
        (self.say)(&format!("record      {}", plain(&is.id)));
        (self.say)(&format!("subscriber  {}", plain(is.subscriber_id.as_deref().unwrap_or("none"))));
        (self.say)(&format!("url         {}", plain(is.url.as_deref().unwrap_or("none"))));
        (self.say)(&format!("status      {}", in_words(is.status)));
        if self.log.is_some() {
            let newest = self.handshakes(&is).await?.newest;
            let newest =
                newest.map_or_else(|| "none yet".to_owned(), |at| format!("newest at {}", self.zone.local(at)));
            (self.say)(&format!("handshakes  {newest}"));
        }
        if let Some(until) = self.report.locked_until {
            let until = self.zone.local(until);
            (self.say)(&format!("locked      until {until}, as far as this Convoke knows"));
        }
        Ok(())
    }

    /// Sets the subscription, and reads it back.
    ///
    /// # Errors
    /// There is another subscription already, or the platform did not accept this one.
    pub async fn set(&mut self, how: Set<'_>) -> Result<(), Problem> {
        let id = &how.subscriber.app_id;
        let is_it = |is: &Subscription| {
            is.subscriber_id.as_deref() == Some(&**id) && is.url.as_ref().is_some_and(|url| same_url(url, how.url))
        };
        self.warn_of_account().await?;
        let before = self.read().await?;
        if let Some(is) = before.as_ref().filter(|is| !is_it(is) && !how.replace) {
            let (subscriber, url) =
                (is.subscriber_id.as_deref().unwrap_or("none"), is.url.as_deref().unwrap_or("none"));
            return Err(Problem::new(
                ActionKind::Exists,
                format!(
                    "a subscription exists, for subscriber {} to {} ({}), and there can be only one: add --replace \
                     to set it to subscriber {id} and {}",
                    plain(subscriber),
                    plain(url),
                    in_words(is.status),
                    how.url
                ),
            ));
        }
        let new = NewSubscription {
            subscriber_id: id.to_string(),
            subscriber_key: how.subscriber.keys.first().cloned().unwrap_or_default(),
            url: how.url.to_owned(),
        };
        self.client.set_subscription(&new).await?;
        match self.read().await? {
            Some(is) if is_it(&is) => {
                (self.say)(&format!("set: subscriber {id}, signed with its first key, pushed to {}", how.url));
                let was_enabled = before.is_some_and(|before| before.status == Status::Enabled);
                if is.status == Status::Enabled {
                    (self.say)("it is enabled");
                } else if was_enabled {
                    self.warn(format!(
                        "setting the subscription disabled it (it is {}): no events are pushed until you run \
                         `convoke subscription enable`",
                        in_words(is.status)
                    ));
                } else {
                    (self.say)(&format!("it is {}: run `convoke subscription enable` next", in_words(is.status)));
                }
                Ok(())
            }
            Some(_) => Err(Problem::new(
                ActionKind::Unchanged,
                "the platform accepted the subscription but shows a different one: run `convoke subscription show`",
            )),
            None => Err(Problem::new(ActionKind::Unchanged, "the platform accepted the subscription but shows none")),
        }
    }

    /// Enables the subscription, if that is likely to work.
    ///
    /// # Errors
    /// Why it was not tried, or did not work.
    pub async fn enable(&mut self, how: Enable) -> Result<(), Problem> {
        self.warn_of_account().await?;
        let Some(is) = self.read().await? else {
            return Err(Problem::new(
                ActionKind::Missing,
                "there is no subscription: run `convoke subscription set` first",
            ));
        };
        self.warn_of_differences(&is);
        let log = self.log()?;
        let memory = Memory::load(log).await?;
        if is.status != Status::Enabled && !how.force {
            refuse_if_locked(&memory, log, &self.zone).await?;
        }
        let subscriber = self.subscriber_of(&is)?.clone();
        if how.probe {
            self.probe(log, &is, &subscriber).await?;
        }
        if is.status == Status::Enabled {
            (self.say)("it is already enabled: nothing was changed");
            return Ok(());
        }
        if let Some(ago) = memory.failed_lately(log.now().await?) {
            self.warn(format!(
                "enabling failed {} ago: too many failures lock the subscription for an hour",
                human::duration(ago)
            ));
        }
        let before = self.handshakes(&is).await?;
        let asked = self.client.change_status(&is.id, Status::Enabled).await;
        if let Err(error) = asked {
            self.after_failure(log, &is, memory, before, error).await?;
        }
        let arrived = self.wait_for_handshake(&is, before, how.wait).await?;
        let now = self.read().await?.map(|is| is.status);
        if now != Some(Status::Enabled) {
            let is = now.map_or_else(|| "gone".to_owned(), in_words);
            return Err(Problem::new(
                ActionKind::Unchanged,
                format!("the platform accepted the request to enable the subscription, but the subscription is {is}"),
            ));
        }
        if let Some(at) = arrived {
            let at = self.zone.local(at);
            (self.say)(&format!("the platform's handshake arrived at {at} and was answered"));
            (self.say)("enabled");
            return Ok(());
        }
        Err(Problem::new(
            ActionKind::Handshake,
            format!(
                "the platform shows it as enabled, but no handshake of the platform arrived in this database within \
                 {}: another receiver answered it. Check where the URL in `convoke subscription show` leads from the \
                 internet",
                human::duration(how.wait)
            ),
        ))
    }

    /// Disables the subscription, if it is enabled.
    ///
    /// # Errors
    /// The platform did not disable it.
    pub async fn disable(&mut self) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            (self.say)("there is no subscription: nothing is pushed");
            return Ok(());
        };
        self.warn_of_differences(&is);
        if is.status != Status::Enabled {
            (self.say)(&format!("it is {}, not enabled: nothing was changed", in_words(is.status)));
            return Ok(());
        }
        self.client.change_status(&is.id, Status::Disabled).await?;
        match self.read().await?.map(|is| is.status) {
            Some(Status::Enabled) => Err(Problem::new(
                ActionKind::Unchanged,
                "the platform accepted the request to disable the subscription, but the subscription is still enabled",
            )),
            _ => {
                (self.say)("disabled: events from now on are not pushed; only a backfill can get them");
                Ok(())
            }
        }
    }

    /// Deletes the subscription, if it is not enabled.
    ///
    /// # Errors
    /// It is enabled, or the platform did not delete it.
    pub async fn delete(&mut self) -> Result<(), Problem> {
        let Some(is) = self.read().await? else {
            (self.say)("there is no subscription");
            return Ok(());
        };
        self.warn_of_differences(&is);
        if is.status == Status::Enabled {
            let message = "it is enabled, and events are pushed: run `convoke subscription disable` first";
            return Err(Problem::new(ActionKind::Enabled, message));
        }
        self.client.delete_subscription(&is.id).await?;
        if self.read().await?.is_some() {
            let message = "the platform accepted the request to delete the subscription, but the subscription still \
                           exists";
            return Err(Problem::new(ActionKind::Unchanged, message));
        }
        (self.say)("deleted");
        Ok(())
    }

    /// Prints a warning, and adds it to the report.
    pub fn warn(&mut self, warning: String) {
        (self.say)(&format!("warning: {warning}"));
        self.report.warnings.push(warning);
    }

    /// Reads the subscription, its lock and its handshakes into the report.
    async fn read(&mut self) -> Result<Option<Subscription>, Problem> {
        let read = self.client.subscription().await?;
        if let Some(log) = self.log {
            let now = log.now().await?;
            let memory = Memory::noticed(log, read.as_ref().map(|is| is.status), now).await?;
            self.report.locked_until = memory.locked_until(now);
        }
        self.report.subscription = read.as_ref().map(|is| Shown {
            id: is.id.clone(),
            subscriber_id: is.subscriber_id.clone(),
            url: is.url.clone(),
            status: in_words(is.status),
        });
        if let Some(is) = &read {
            self.handshakes(is).await?;
        }
        Ok(read)
    }

    /// Before the platform refuses it: failures to enable count towards a lock.
    async fn warn_of_account(&mut self) -> Result<(), Problem> {
        for objection in self.client.identity().await?.objections() {
            self.warn(objection.to_owned());
        }
        Ok(())
    }

    fn warn_of_differences(&mut self, is: &Subscription) {
        for difference in self.expected.differences(is) {
            self.warn(difference);
        }
    }

    fn log(&self) -> Result<&'a dyn Handshakes, Problem> {
        self.log.ok_or_else(|| {
            Problem::new(
                ActionKind::Database,
                "the database cannot be used, and the handshake \
                                                                   must arrive in it",
            )
        })
    }

    async fn handshakes(&mut self, is: &Subscription) -> Result<HandshakesSeen, LogError> {
        let known = match (&is.subscriber_id, self.log) {
            (Some(id), Some(log)) => log.handshakes(id).await?,
            _ => HandshakesSeen::default(),
        };
        self.report.handshake_at = known.newest;
        Ok(known)
    }

    fn subscriber_of(&self, is: &Subscription) -> Result<&Subscriber, Problem> {
        let id = is.subscriber_id.as_deref().unwrap_or("none");
        self.subscribers.iter().find(|subscriber| &*subscriber.app_id == id).ok_or_else(|| {
            Problem::new(
                ActionKind::Subscriber,
                format!(
                    "the subscription is for subscriber {}, which is not configured here, so the handshake would be \
                     refused: configure it, or run `convoke subscription set`",
                    plain(id)
                ),
            )
        })
    }

    async fn probe(&mut self, log: &dyn Handshakes, is: &Subscription, subscriber: &Subscriber) -> Result<(), Problem> {
        let url = is.url.as_deref().unwrap_or_default();
        let shown = plain(url);
        match probe(log, url, subscriber, &self.clock).await {
            Ok(()) => {
                self.report.probed = Some(true);
                (self.say)(&format!("a probe sent to {shown} arrived in this Convoke"));
                Ok(())
            }
            Err(Unproven::Log(error)) => Err(error.into()),
            Err(unproven) => {
                self.report.probed = Some(false);
                Err(Problem::new(
                    ActionKind::Probe,
                    format!(
                        "{shown}: {unproven}. The platform was not asked to \
                                                             enable it"
                    ),
                ))
            }
        }
    }

    /// Records the failure. `Ok` if enabling may have worked all the same.
    async fn after_failure(
        &mut self,
        log: &dyn Handshakes,
        is: &Subscription,
        mut memory: Memory,
        before: HandshakesSeen,
        error: PlatformError,
    ) -> Result<(), Problem> {
        let now = log.now().await?;
        let code = error.code.as_deref();
        if code == Some(LOCKED_CODE) || (code.is_none() && error.status == Some(423)) {
            memory.lock(now);
            memory.keep(log).await?;
            let until = memory.locked_until(now).unwrap_or(now);
            self.report.locked_until = Some(until);
            let until = self.zone.local(until);
            let message = format!(
                "the platform has locked the subscription because enabling it failed too often: run this again after \
                 {until}"
            );
            return Err(Problem::of(ActionKind::Locked, message, &error));
        }
        if code != Some(ENABLE_FAILED_CODE) && error.class != Class::Transient {
            return Err(error.into());
        }
        memory.fail(now);
        memory.keep(log).await?;
        if code == Some(ENABLE_FAILED_CODE) {
            let after = self.handshakes(is).await?;
            let why = if after != before {
                "its handshake arrived here and was answered, but the answer did not reach the platform, or too \
                 late: check the proxies and firewalls in between"
            } else {
                "its handshake did not arrive here, although our own probe did. Either something blocks it on the \
                 way from the internet (a firewall, a name that resolves differently outside, listen.allow_from, a \
                 certificate that only this machine trusts), or it is signed with another key (`convoke subscription \
                 set` sets the first one again); the log of `convoke serve` and convoke_rejections_total show which"
            };
            let locked = self.read().await?.is_some_and(|is| is.status == Status::Locked);
            let count = if locked {
                "The subscription is now locked for an hour"
            } else {
                "Too many failures lock the subscription for an hour"
            };
            let message = format!(
                "the platform could not enable the subscription: {why}. {count}; fix the cause before you run this \
                 again"
            );
            return Err(Problem::of(ActionKind::Refused, message, &error));
        }
        // There was no response, or it does not tell the outcome.
        let read = self.read().await?;
        if read.is_some_and(|is| is.status == Status::Enabled) { Ok(()) } else { Err(error.into()) }
    }

    /// Waits for the platform's handshake. Returns when it arrived, if it did.
    async fn wait_for_handshake(
        &mut self,
        is: &Subscription,
        before: HandshakesSeen,
        wait: Duration,
    ) -> Result<Option<Millis>, Problem> {
        let begun = instant();
        loop {
            let now = self.handshakes(is).await?;
            if now != before {
                return Ok(now.newest);
            }
            if begun.elapsed() >= wait {
                return Ok(None);
            }
            tokio::time::sleep(HANDSHAKE_POLL_INTERVAL).await;
        }
    }
}

/// While the subscription is locked, the platform is not asked to enable it.
async fn refuse_if_locked(memory: &Memory, log: &dyn Handshakes, zone: &TimeZone) -> Result<(), Problem> {
    let Some(until) = memory.locked_until(log.now().await?) else { return Ok(()) };
    let until = zone.local(until);
    Err(Problem::new(
        ActionKind::Locked,
        format!(
            "the subscription is locked because enabling it failed too often, as far as this Convoke knows until \
             {until}. The platform was not asked: another failure might restart the hour. Add --force to ask it \
             anyway"
        ),
    ))
}
