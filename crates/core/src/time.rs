//! Time: [`Millis`], a timestamp; [`Clock`], the source of timestamps; [`instant`], for measuring durations.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ::time::OffsetDateTime;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, never negative, at most
/// 9999-12-31T23:59:59.999Z. The platform's own unit, and the resolution of every stored time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

impl Millis {
    /// 9999-12-31T23:59:59.999Z, the last time with a four-digit year.
    pub const MAX: Self = Self(253_402_300_799_999);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The time `ms` milliseconds after the epoch, or `None` outside of `0..=`[`Millis::MAX`].
    #[must_use]
    pub const fn new(ms: i64) -> Option<Self> {
        if ms >= 0 && ms <= Self::MAX.0 { Some(Self(ms)) } else { None }
    }

    /// Reads exactly the format that [`Millis`]'s `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let fixed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
        if bytes.len() != 24 || fixed.iter().any(|(at, byte)| bytes[*at] != *byte) {
            return None;
        }
        let number = |from: usize, to: usize| {
            bytes[from..to]
                .iter()
                .try_fold(0_u16, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u16::from(byte - b'0')))
        };
        let small = |from: usize| number(from, from + 2).and_then(|n| u8::try_from(n).ok());
        let month = ::time::Month::try_from(small(5)?).ok()?;
        let date = ::time::Date::from_calendar_date(i32::from(number(0, 4)?), month, small(8)?).ok()?;
        let time = ::time::Time::from_hms_milli(small(11)?, small(14)?, small(17)?, number(20, 23)?).ok()?;
        Some(Self::from_date_time(OffsetDateTime::new_utc(date, time)))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, with their fraction.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch fit")]
    pub const fn seconds(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// The time elapsed since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// This time minus `age`, not before the epoch.
    #[must_use]
    pub fn minus(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)).max(0))
    }

    /// This time plus `more`, not after [`Millis::MAX`].
    #[must_use]
    pub fn plus(self, more: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(more.as_millis()).unwrap_or(i64::MAX)).min(Self::MAX.0))
    }

    /// The same time as a type of the `time` crate.
    #[must_use]
    pub fn date_time(self) -> OffsetDateTime {
        let (seconds, ms) = (self.0 / 1_000, u16::try_from(self.0 % 1_000).unwrap_or(0));
        let at = OffsetDateTime::from_unix_timestamp(seconds).and_then(|at| at.replace_millisecond(ms));
        at.unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The time `at`, cut to whole milliseconds; times out of range become the nearest limit.
    #[must_use]
    pub fn from_date_time(at: OffsetDateTime) -> Self {
        Self((at.unix_timestamp() * 1_000 + i64::from(at.millisecond())).clamp(0, Self::MAX.0))
    }

    /// The text that `Display` writes, shared.
    #[must_use]
    pub fn text(self) -> Arc<str> {
        Arc::from(String::from_utf8_lossy(&self.characters()))
    }

    fn characters(self) -> [u8; 24] {
        let at = self.date_time();
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, milli) = at.to_hms_milli();
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let numbers = [
            (0..4, u32::try_from(year).unwrap_or(0)),
            (5..7, u32::from(u8::from(month))),
            (8..10, u32::from(day)),
            (11..13, u32::from(hour)),
            (14..16, u32::from(minute)),
            (17..19, u32::from(second)),
            (20..23, u32::from(milli)),
        ];
        for (place, mut number) in numbers {
            for digit in text[place].iter_mut().rev() {
                *digit += u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
        }
        text
    }
}

/// Reads exactly the format that `Display` writes.
impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a time as it is stored"))
    }
}

impl PartialSchema for Millis {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
    }
}

impl ToSchema for Millis {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`: RFC 3339 in UTC, always with three decimals, so that text order is time order.
impl fmt::Display for Millis {
    /// Avoids the formatting machinery: every event writes several of these.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.characters()).map_err(|_| fmt::Error)?)
    }
}

/// The source of the current time. It is a parameter, so that tests can set the time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system clock.
    #[default]
    System,
    /// The value that the test stored last, in milliseconds.
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The current time.
    #[must_use]
    pub fn now(&self) -> Millis {
        match self {
            #[expect(clippy::disallowed_methods, reason = "the one place where the system's clock is read")]
            Self::System => Millis::from_date_time(OffsetDateTime::now_utc()),
            Self::Set(ms) => Millis(ms.load(Ordering::Relaxed)),
        }
    }

    /// A monotonic time for measuring durations. It is unrelated to the time of day.
    #[must_use]
    pub fn steady(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(instant);
        match self {
            Self::System => START.elapsed(),
            Self::Set(ms) => Duration::from_millis(ms.load(Ordering::Relaxed).unsigned_abs()),
        }
    }
}

/// The monotonic clock, for measuring durations where no [`Clock`] is available.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where the steady clock is read")]
pub fn instant() -> Instant {
    Instant::now()
}
