//! Pages of lists. A cursor is a place in one list, asked for in one way, and of no use for another.

use axum::Json;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::QUERY_TIMEOUT;
use super::error::ApiError;
use super::params::ListParams;
use convoke_log::{Listing, Order, Page};

/// How a cursor begins: one that another version made is none.
const VERSION: u8 = 1;

/// So many rows, unless more or fewer are asked for.
const DEFAULT_LIMIT: u32 = 100;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor to go on with; null at the end of the list. A page of large events ends after 2 MiB of them, before its limit.
    pub next: Option<String>,
}

impl<A, B> ListParams<A, B> {
    /// The page of the list of this name that is asked for.
    pub fn page<K: DeserializeOwned>(&self, list: &str, order: Order) -> Result<Page<K>, ApiError> {
        let after = self.paging.cursor.as_ref().map(|cursor| self.read_cursor(list, &cursor.0)).transpose()?;
        let limit =
            self.paging.limit.as_ref().map_or(DEFAULT_LIMIT, |limit| u32::try_from(limit.0).unwrap_or(DEFAULT_LIMIT));
        Ok(Page { order, after, limit, within: QUERY_TIMEOUT })
    }

    fn read_cursor<K: DeserializeOwned>(&self, list: &str, cursor: &str) -> Result<K, ApiError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
        let read = bytes.and_then(|bytes| serde_json::from_slice::<(u8, String, String, K)>(&bytes).ok());
        match read {
            Some((VERSION, of, fingerprint, key)) if of == list && fingerprint == self.fingerprint => Ok(key),
            _ => Err(ApiError::bad(
                "allowed is a cursor that came as next from the same list, asked for with the same parameters",
            )),
        }
    }

    /// The answer, of rows for whoever asks.
    pub fn list<T, K: Serialize>(&self, list: &str, listing: Listing<T, K>, mask: impl FnMut(T) -> T) -> Json<List<T>> {
        let next = listing.next.map(|key| {
            let written = serde_json::json!((VERSION, list, &self.fingerprint, key)).to_string();
            BASE64_URL_SAFE_NO_PAD.encode(written)
        });
        Json(List { items: listing.rows.into_iter().map(mask).collect(), next })
    }
}
