//! Counts what the events listener refuses, by reason, since the start and in the last hour.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strum::VariantArray as _;

use crate::metrics::{Counters, Label as _, Registry};
use convoke_core::time::Millis;
use convoke_core::verify::{Malformed, Refusal};

const MINUTE: Duration = Duration::from_secs(60);
const MINUTES: usize = 60;

/// Why a request to the events path was not answered `200`, as in the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// The body is not an envelope.
    Malformed,
    /// The body is not UTF-8.
    NotUtf8,
    /// The body is not JSON.
    NotJson,
    /// The `appID` is not configured.
    UnknownSubscriber,
    /// No key matches the signature.
    Signature,
    /// The source is not in `listen.allow_from`.
    Forbidden,
    /// The body is larger than `listen.max_body`.
    TooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The connection ended within the body.
    BodyCut,
    /// The database is unavailable, full or read-only.
    Unavailable,
    /// The database did not answer in time.
    Slow,
    /// The queue of deliveries to be stored is full.
    QueueFull,
    /// Too many bodies were arriving, and this one was the oldest.
    Crowded,
    /// The method is not `POST`.
    Method,
    /// The path is not `listen.path`.
    Path,
    /// The body has a `Content-Encoding`.
    Encoding,
}

impl From<&Refusal> for Rejection {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::UnknownSubscriber => Self::UnknownSubscriber,
            Refusal::Signature => Self::Signature,
            Refusal::Malformed(Malformed::NotUtf8) => Self::NotUtf8,
            Refusal::Malformed(Malformed::NotJson | Malformed::NotAnObject) => Self::NotJson,
            Refusal::Malformed(_) => Self::Malformed,
        }
    }
}

/// Why a connection to the events listener brought no request, as in the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ConnectionFailure {
    /// The TLS handshake failed.
    Tls,
    /// The client spoke another protocol.
    NotHttp,
    /// The client spoke TLS on the plain HTTP port.
    TlsOnPlainPort,
    /// The client spoke plain HTTP on the TLS port.
    PlainOnTlsPort,
    /// The connection began with a header of the PROXY protocol.
    ProxyProtocol,
    /// The head of a request was too large.
    HeadTooLarge,
}

impl ConnectionFailure {
    /// What to do about it, as text.
    #[must_use]
    pub const fn todo(self) -> &'static str {
        match self {
            Self::Tls => "a TLS handshake failed; listen.tls_cert must contain the certificate followed by its chain",
            Self::NotHttp => {
                "the client did not send HTTP; if this is not a port scan, check which program connects here"
            }
            Self::TlsOnPlainPort => {
                "the client sent TLS to a plain HTTP port; set listen.tls_cert and listen.tls_key, or post to http://"
            }
            Self::PlainOnTlsPort => "the client sent plain HTTP to a TLS port; post to https://",
            Self::ProxyProtocol => "the PROXY protocol is not understood; switch it off in the load balancer",
            Self::HeadTooLarge => {
                "the head of a request is too large (events: 16 KiB and 64 headers, admin: 32 KiB and 256); check \
                 what the proxy in front adds"
            }
        }
    }
}

/// All counts, in the order of [`Refusals::series`].
type Counts = [u64; Rejection::VARIANTS.len() + ConnectionFailure::VARIANTS.len()];

/// Counts of refused requests and failed connections.
#[derive(Debug)]
pub struct Refusals {
    rejections: Counters<Rejection>,
    failures: Counters<ConnectionFailure>,
    /// The counts at each minute of the last hour, oldest first.
    samples: Mutex<VecDeque<(Millis, Counts)>>,
}

/// What was refused in the last hour.
#[derive(Debug)]
pub struct Hour {
    /// Start of the period.
    pub since: Millis,
    /// Full minutes since then.
    pub minutes: u64,
    /// The number for each reason, as in the label `reason`.
    pub counts: Vec<(&'static str, u64)>,
}

impl Refusals {
    /// Registers the counters, at zero.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            rejections: registry.counters(
                "convoke_rejections_total",
                "Requests to the events listener, except its probes, that were not answered 200.",
                "reason",
            ),
            failures: registry.counters(
                "convoke_connection_failures_total",
                "Connections to the events listener that brought no request that could be read.",
                "reason",
            ),
            samples: Mutex::default(),
        }
    }

    /// Counts a refused request.
    pub fn rejected(&self, reason: Rejection) {
        self.rejections.of(reason).inc();
    }

    /// Counts a failed connection.
    pub fn failed(&self, reason: ConnectionFailure) {
        self.failures.of(reason).inc();
    }

    /// Number of refused requests since the start, by reason, in the order of the variants.
    #[must_use]
    pub fn rejections(&self) -> [u64; Rejection::VARIANTS.len()] {
        std::array::from_fn(|place| self.rejections.of(Rejection::VARIANTS[place]).get())
    }

    fn series(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let rejections = Rejection::VARIANTS.iter().map(|it| (it.as_str(), self.rejections.of(*it).get()));
        let failures = ConnectionFailure::VARIANTS.iter().map(|it| (it.as_str(), self.failures.of(*it).get()));
        rejections.chain(failures)
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts.iter_mut().zip(self.series()).for_each(|(count, (_, now))| *count = now);
        counts
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<(Millis, Counts)>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample if the last one is a minute old. Must be called about once a second. If the clock was set back, the samples
    /// start again.
    pub fn sample(&self, now: Millis) {
        let mut samples = self.samples();
        if samples.back().is_some_and(|(at, _)| *at > now) {
            samples.clear();
        }
        if samples.back().is_none_or(|(at, _)| now.since(*at) >= MINUTE) {
            samples.push_back((now, self.counts()));
            while samples.len() > MINUTES {
                samples.pop_front();
            }
        }
    }

    /// The counts since the oldest sample of the last hour.
    #[must_use]
    pub fn last_hour(&self, now: Millis) -> Hour {
        let samples = self.samples();
        let hour = MINUTE * u32::try_from(MINUTES).unwrap_or(u32::MAX);
        let oldest = samples.iter().find(|(at, _)| *at <= now && now.since(*at) <= hour);
        let counted = self.counts();
        let (since, before) = oldest.copied().unwrap_or((now, counted));
        let reasons = self.series().map(|(reason, _)| reason);
        Hour {
            since,
            minutes: now.since(since).as_secs().div_ceil(60).min(MINUTES as u64),
            counts: reasons.zip(counted.iter().zip(before).map(|(now, before)| now.saturating_sub(before))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Millis {
        Millis::new(seconds * 1000).unwrap()
    }

    fn signatures(hour: &Hour) -> u64 {
        hour.counts.iter().filter(|(reason, _)| *reason == Rejection::Signature.as_str()).map(|(_, count)| count).sum()
    }

    #[test]
    fn what_is_older_than_an_hour_is_not_counted_any_more() {
        let refusals = Refusals::new(&Registry::default());
        for second in 0..=7_200 {
            refusals.sample(at(second));
            if second % 60 == 30 {
                refusals.rejected(Rejection::Signature);
            }
            if second == 90 {
                let hour = refusals.last_hour(at(second));
                assert_eq!((signatures(&hour), hour.since, hour.minutes), (2, at(0), 2));
            }
        }
        let hour = refusals.last_hour(at(7_200));
        assert!((59..=60).contains(&signatures(&hour)) && hour.minutes <= 60, "{hour:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_begins_anew() {
        let refusals = Refusals::new(&Registry::default());
        refusals.sample(at(7_200));
        refusals.rejected(Rejection::Signature);
        refusals.sample(at(100));
        refusals.rejected(Rejection::Signature);
        let hour = refusals.last_hour(at(110));
        assert_eq!((signatures(&hour), hour.since), (1, at(100)));
        assert_eq!(signatures(&Refusals::new(&Registry::default()).last_hour(at(1))), 0);
    }
}
