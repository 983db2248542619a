//! The client of the platform's REST API. Knows HTTP and the platform's words, and nothing of the log or the bus.

mod error;
mod model;

pub use error::{Class, VendorError};
pub use model::{
    AttendeeRecord, Conference, Identity, NewSubscription, RecordFile, Segment, SegmentFile, Status, Subscription,
};

use std::time::Duration;

use secrecy::SecretString;

use crate::event::{Clock, Millis};

/// Where the platform's API is, and who we are there.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its base, without a slash at the end.
    pub url: String,
    /// The App ID …
    pub app_id: String,
    /// … and its key.
    pub app_key: SecretString,
    /// The third-party user to act as; `None`: the default administrator.
    pub user_id: Option<String>,
    /// The enterprise.
    pub corp_id: Option<String>,
    /// The service provider; its presence chooses the multi-tenant forms of the signature.
    pub sp_id: Option<String>,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
}

/// The client. Cheap to clone; clones share the token, the connections and the pace.
#[derive(Clone, Debug)]
pub struct Vendor {
    _options: std::sync::Arc<Options>,
}

/// The items of a list that the platform gives in pages, one page after the other, each item once.
#[derive(Debug)]
pub struct Pages<T> {
    _items: std::marker::PhantomData<T>,
}

impl<T> Pages<T> {
    /// The next items, at least one; `None` at the end. May be called again after an error, and goes on where it was.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, VendorError> {
        todo!()
    }

    /// How many items the platform said that there are, once a page has come.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        todo!()
    }
}

impl Vendor {
    /// A client; connects to nothing yet.
    ///
    /// # Errors
    /// There is nothing to check the platform's certificate with.
    pub fn new(_options: Options, _clock: Clock) -> Result<Self, VendorError> {
        todo!()
    }

    /// Who we are to the platform, from the answer to the authentication.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn identity(&self) -> Result<Identity, VendorError> {
        todo!()
    }

    /// The subscription; `None` if there is none.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn subscription(&self) -> Result<Option<Subscription>, VendorError> {
        todo!()
    }

    /// Sets the subscription.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn set_subscription(&self, _new: &NewSubscription) -> Result<(), VendorError> {
        todo!()
    }

    /// Enables or disables it. Never tried again by itself: failures are counted by the platform.
    ///
    /// # Errors
    /// [`VendorError`]; [`Class::Locked`] if it was tried too often.
    pub async fn change_status(&self, _id: &str, _status: Status) -> Result<(), VendorError> {
        todo!()
    }

    /// Deletes it.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn delete_subscription(&self, _id: &str) -> Result<(), VendorError> {
        todo!()
    }

    /// The runs of the enterprise that were over by now, whose start lies in `since..=until`, by start. No meeting in the window is
    /// no error, but an empty list.
    #[must_use]
    pub fn history(&self, _since: Millis, _until: Millis) -> Pages<Conference> {
        todo!()
    }

    /// The stays of a run that is over.
    #[must_use]
    pub fn attendees(&self, _conf_uuid: &str) -> Pages<AttendeeRecord> {
        todo!()
    }

    /// The recordings in `since..=until`.
    #[must_use]
    pub fn recordings(&self, _since: Millis, _until: Millis) -> Pages<RecordFile> {
        todo!()
    }

    /// The recording of one run; `None` if there is none.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn recording(&self, _conf_uuid: &str) -> Result<Option<RecordFile>, VendorError> {
        todo!()
    }

    /// The same in the newer recording system (5.2.43), as segments; empty if there is none.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn segments(&self, _conf_uuid: &str) -> Result<Vec<Segment>, VendorError> {
        todo!()
    }

    /// A meeting that is not over, by its number; `None` if there is none.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn conference(&self, _conference_id: &str) -> Result<Option<Conference>, VendorError> {
        todo!()
    }

    /// A run that is over; `None` if there is none.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn past_conference(&self, _conf_uuid: &str) -> Result<Option<Conference>, VendorError> {
        todo!()
    }

    /// The enterprise of a meeting, for service providers; `None` if the platform does not know the meeting.
    ///
    /// # Errors
    /// [`VendorError`].
    pub async fn enterprise_of(&self, _conference_id: &str) -> Result<Option<String>, VendorError> {
        todo!()
    }
}
