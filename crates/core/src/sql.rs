//! Database encodings of times and ids. PostgreSQL has types for both. SQLite stores text that sorts in the same order.

use ::time::OffsetDateTime;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};
use uuid::Uuid;

use crate::id::EventId;
use crate::time::Millis;

/// Encodes `$ours` in PostgreSQL as `$column`, which `$into` writes, and in SQLite as its text, which `$parse` reads.
macro_rules! stored {
    ($ours:ty: $column:ty, $into:expr, $from:path, $parse:expr) => {
        impl Type<Postgres> for $ours {
            fn type_info() -> PgTypeInfo {
                <$column as Type<Postgres>>::type_info()
            }
        }

        impl PgHasArrayType for $ours {
            fn array_type_info() -> PgTypeInfo {
                <$column>::array_type_info()
            }
        }

        impl Encode<'_, Postgres> for $ours {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                Encode::<Postgres>::encode($into(*self), buffer)
            }
        }

        impl Decode<'_, Postgres> for $ours {
            fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                <$column as Decode<Postgres>>::decode(value).map($from)
            }
        }

        impl Type<Sqlite> for $ours {
            fn type_info() -> SqliteTypeInfo {
                <str as Type<Sqlite>>::type_info()
            }
        }

        impl Encode<'_, Sqlite> for $ours {
            fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
                Encode::<Sqlite>::encode(self.text(), buffer)
            }
        }

        impl Decode<'_, Sqlite> for $ours {
            fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
                let text = <&str as Decode<Sqlite>>::decode(value)?;
                $parse(text).ok_or_else(|| format!("{text} is not one that was stored").into())
            }
        }
    };
}

/// Midnight of 2000-01-01, from which PostgreSQL counts microseconds.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// As [`OffsetDateTime`] is encoded, without a calendar.
fn microseconds(at: Millis) -> i64 {
    (at.get() - POSTGRES_EPOCH_MS) * 1_000
}

stored!(Millis: OffsetDateTime, microseconds, Millis::from_date_time, Millis::parse);
stored!(EventId: Uuid, EventId::uuid, EventId::from_uuid, |text| Uuid::try_parse(text).ok().map(EventId::from_uuid));
