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

/// Encodes `$ours` as `$column` in PostgreSQL, and in SQLite as the text that `Display` writes and `$parse` reads.
macro_rules! stored {
    ($ours:ty: $column:ty, $into:path, $from:path, $parse:expr) => {
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
                Encode::<Sqlite>::encode(self.to_string(), buffer)
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

stored!(Millis: OffsetDateTime, Millis::date_time, Millis::from_date_time, Millis::parse);
stored!(EventId: Uuid, EventId::uuid, EventId::from_uuid, |text| Uuid::try_parse(text).ok().map(EventId::from_uuid));
