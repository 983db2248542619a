//! The subscriptions of enterprises and of the service provider (manual, section 6.3). What the manual leaves open is played at its worst for
//! the caller: setting one disables it, and neither disabling nor deleting clears a lock.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hyper::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::options::PlatformOptions;
use super::refusal::Refusal;
use super::request::Query;
use super::tokens::Caller;
use convoke_core::time::Millis;

/// Whose subscription: an enterprise's or the service provider's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Enterprise(String),
    Provider(String),
}

/// A subscription as the platform keeps it.
#[derive(Clone, Debug)]
pub struct Subscribed {
    /// Of the record.
    pub id: String,
    /// The `appID` of the pushes.
    pub subscriber_id: String,
    /// The key that signs them.
    pub subscriber_key: SecretString,
    /// Where they go.
    pub url: String,
    /// 0 enabled, 1 disabled, 2 locked.
    pub status: i64,
}

/// The records, and the locks, which outlive them.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    records: BTreeMap<Owner, Subscribed>,
    failures: BTreeMap<Owner, u32>,
    locked_until: BTreeMap<Owner, Millis>,
}

const ENABLED: i64 = 0;
const DISABLED: i64 = 1;
const LOCKED: i64 = 2;

/// The only documented words of success, in the length that the samples show (39 bytes).
pub(super) fn done() -> Value {
    json!({ "returnCode": 0, "returnDesc": "Success" })
}

/// Exactly one of `corpId` and `spId` names whose subscription it is, and it must be the caller's.
fn owner(options: &PlatformOptions, caller: &Caller, corp: Option<&str>, sp: Option<&str>) -> Result<Owner, Refusal> {
    if !caller.administrator {
        return Err(Refusal::NOT_PERMITTED);
    }
    match (corp, sp) {
        (Some(corp), None) => match &caller.corp_id {
            Some(own) if own != corp => Err(Refusal::NOT_PERMITTED),
            None if !options.corp_ids.iter().any(|known| known == corp) => Err(Refusal::NOT_PERMITTED),
            _ => Ok(Owner::Enterprise(corp.to_owned())),
        },
        (None, Some(sp)) if caller.is_provider() && options.sp_id.as_deref() == Some(sp) => {
            Ok(Owner::Provider(sp.to_owned()))
        }
        (None, Some(_)) => Err(Refusal::NOT_PERMITTED),
        _ => Err(Refusal::BAD_PARAMETER),
    }
}

/// `https://`, or `http://` to this machine itself: the manual demands HTTPS, but a fake is mostly tried without certificates.
fn url_is_allowed(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => loopback,
        _ => false,
    }
}

impl Subscriptions {
    /// The one that pushes go to.
    pub(super) fn enabled(&self) -> Option<Subscribed> {
        self.records.values().find(|record| record.status == ENABLED).cloned()
    }

    /// The first.
    pub(super) fn any(&self) -> Option<Subscribed> {
        self.records.values().next().cloned()
    }

    /// 6.3.2.1
    pub(super) fn set(
        &mut self,
        options: &PlatformOptions,
        caller: &Caller,
        body: &[u8],
        now: Millis,
    ) -> Result<(), Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BAD_JSON)?;
        let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
        let owner = owner(options, caller, text("corpId"), text("spId"))?;
        let (Some(subscriber_id), Some(key), Some(url)) = (text("subscriberId"), text("subscriberKey"), text("url"))
        else {
            return Err(Refusal::BAD_PARAMETER);
        };
        if !url_is_allowed(url) {
            return Err(Refusal::BAD_PARAMETER);
        }
        let status = if self.is_locked(&owner, now) { LOCKED } else { DISABLED };
        let id = self.records.get(&owner).map(|old| old.id.clone());
        let record = Subscribed {
            id: id.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())),
            subscriber_id: subscriber_id.to_owned(),
            subscriber_key: SecretString::from(key),
            url: url.to_owned(),
            status,
        };
        self.records.insert(owner, record);
        Ok(())
    }

    /// 6.3.2.2; the key is never returned, and neither is whose it is. What comes without a record is not documented.
    pub(super) fn show(
        &mut self,
        options: &PlatformOptions,
        caller: &Caller,
        query: &Query,
        now: Millis,
    ) -> Result<Value, Refusal> {
        let owner = owner(options, caller, query.get("corpId"), query.get("spId"))?;
        self.unlock(now);
        Ok(match self.records.get(&owner) {
            None => json!({}),
            Some(Subscribed { id, subscriber_id, url, status, .. }) => {
                json!({ "id": id, "subscriberId": subscriber_id, "url": url, "status": status })
            }
        })
    }

    /// 6.3.2.3
    pub(super) fn delete(
        &mut self,
        options: &PlatformOptions,
        caller: &Caller,
        query: &Query,
    ) -> Result<Value, Refusal> {
        let owner = self.owner_of(options, caller, query.required("id")?)?;
        self.records.remove(&owner);
        Ok(done())
    }

    /// 6.3.2.4: what is to be enabled, if that is asked for; its handshake has to be tried, and its outcome reported to
    /// [`Subscriptions::shaken`].
    pub(super) fn change(
        &mut self,
        options: &PlatformOptions,
        caller: &Caller,
        query: &Query,
        now: Millis,
    ) -> Result<Option<(Owner, Subscribed)>, Refusal> {
        let owner = self.owner_of(options, caller, query.required("id")?)?;
        let status = query.number("status")?.ok_or(Refusal::BAD_PARAMETER)?;
        self.unlock(now);
        if status != LOCKED && self.is_locked(&owner, now) {
            return Err(Refusal::SUBSCRIPTION_LOCKED);
        }
        let Some(record) = self.records.get_mut(&owner) else { return Err(Refusal::BAD_PARAMETER) };
        match status {
            ENABLED => return Ok(Some((owner, record.clone()))),
            DISABLED => record.status = DISABLED,
            LOCKED => self.lock(&owner, options, now),
            _ => return Err(Refusal::BAD_PARAMETER),
        }
        Ok(None)
    }

    /// What became of the handshake that enabling demands (section 6.3.1). Failures are counted until one succeeds; how many
    /// are too many, the manual does not say.
    pub(super) fn shaken(
        &mut self,
        options: &PlatformOptions,
        owner: &Owner,
        tried: &Subscribed,
        answered: bool,
        now: Millis,
    ) -> Result<Value, Refusal> {
        if answered {
            self.failures.remove(owner);
            let record = self.records.get_mut(owner).filter(|record| is_same(record, tried));
            record.ok_or(Refusal::ENABLE_FAILED)?.status = ENABLED;
            return Ok(done());
        }
        let failures = self.failures.entry(owner.clone()).or_default();
        *failures += 1;
        if *failures >= options.lock_after {
            self.failures.remove(owner);
            self.lock(owner, options, now);
        }
        Err(Refusal::ENABLE_FAILED)
    }

    fn lock(&mut self, owner: &Owner, options: &PlatformOptions, now: Millis) {
        let wait = i64::try_from(options.lock_for.as_millis()).unwrap_or(i64::MAX);
        let until = Millis::new(now.get().saturating_add(wait)).unwrap_or(Millis::MAX);
        self.locked_until.insert(owner.clone(), until);
        if let Some(record) = self.records.get_mut(owner) {
            record.status = LOCKED;
        }
    }

    fn is_locked(&self, owner: &Owner, now: Millis) -> bool {
        self.locked_until.get(owner).is_some_and(|until| now < *until)
    }

    /// Locks that are over leave a disabled subscription.
    fn unlock(&mut self, now: Millis) {
        let records = &mut self.records;
        self.locked_until.retain(|owner, until| {
            let locked = now < *until;
            if let (false, Some(record)) = (locked, records.get_mut(owner)) {
                record.status = DISABLED;
            }
            locked
        });
    }

    /// An id that is not there is a wrong parameter: the status tables of these calls have no 400, the table of errors has.
    fn owner_of(&self, options: &PlatformOptions, caller: &Caller, id: &str) -> Result<Owner, Refusal> {
        let found = self.records.iter().find(|(_, record)| record.id == id);
        let found = found.map(|(owner, _)| owner).ok_or(Refusal::BAD_PARAMETER)?;
        match found {
            Owner::Enterprise(corp) => owner(options, caller, Some(corp), None),
            Owner::Provider(sp) => owner(options, caller, None, Some(sp)),
        }
    }
}

/// Whether the record is still what was tried: it may have been set again meanwhile.
fn is_same(one: &Subscribed, other: &Subscribed) -> bool {
    (&one.id, &one.subscriber_id, &one.url) == (&other.id, &other.subscriber_id, &other.url)
        && one.subscriber_key.expose_secret() == other.subscriber_key.expose_secret()
}
