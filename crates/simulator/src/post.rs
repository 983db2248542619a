//! One request, as the platform sends it, to any URL.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::client::{Client, Target};
use super::people::Who;
use super::script::{MeetingRef, Stay, Told};
use super::sender::{self, RequestWriter};
use super::world::test_meeting;
use super::{Error, body};
use convoke_core::event::HANDSHAKE;
use convoke_core::id::EventId;
use convoke_core::sign::Signer;
use convoke_core::time::{Clock, Millis, instant};

/// Where a request goes, and who signs it.
#[derive(Debug)]
pub struct Post<'a> {
    /// The callback URL of the receiver, `http` or `https`.
    pub url: &'a str,
    /// A PEM file to check an `https` receiver with, instead of the system's roots.
    pub ca_file: Option<&'a Path>,
    /// The subscriber ID.
    pub app_id: &'a str,
    /// The subscriber's key.
    pub key: &'a SecretString,
    /// The clock of the envelope and the event.
    pub clock: &'a Clock,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body that came back.
    pub body: Vec<u8>,
    /// From the connection's beginning to the end of the answer.
    pub took: Duration,
}

impl Post<'_> {
    /// A handshake whose nonce nobody can foresee.
    ///
    /// # Errors
    /// The URL cannot be used, or the receiver did not answer 200 with the nonce.
    pub async fn handshake(&self) -> Result<Answer, Error> {
        self.handshake_with(rand::random()).await
    }

    /// The same; nonce and request id come from `salt`.
    pub(super) async fn handshake_with(&self, salt: u64) -> Result<Answer, Error> {
        let mut info = Vec::new();
        let now = self.clock.now();
        body::handshake(&mut info, HANDSHAKE, now.get());
        let answer = self.exchange(now, salt, &info).await.map_err(|reason| match reason {
            Error::NoAnswer { reason } => Error::Handshake { reason },
            other => other,
        })?;
        let nonce = sender::nonce(salt).to_string();
        let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        if answer.status != 200 {
            let reason = format!("status {} instead of 200, with the body {text:?}", answer.status);
            return Err(Error::Handshake { reason });
        }
        let echo = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
        if echo["nonce"].as_str() == Some(nonce.as_str()) {
            return Ok(answer);
        }
        Err(Error::Handshake { reason: format!("the answer does not contain the nonce {nonce:?}, but {text:?}") })
    }

    /// An event of a meeting that is test data: of one person, if `event` is of attendees. Returns the event's id, too.
    ///
    /// # Errors
    /// The URL cannot be used, or there was no answer.
    pub async fn event(&self, event: &str) -> Result<(EventId, Answer), Error> {
        let now = self.clock.now();
        let mut random = rand::rng();
        let meeting = MeetingRef {
            id: random.random_range(100_000_000..1_000_000_000),
            uuid: test_meeting(random.random()),
            cycle_sub_id: None,
        };
        let mut info = Vec::new();
        if matches!(event, "meeting.join" | "meeting.left") {
            let who = Who::Employee(0);
            let stay = Stay {
                person: 0,
                participant_id: random.random(),
                user_agent: who.user_agent(0),
                role: "chair",
                joined_at: now.get() - 1,
                left_at: now.get(),
                told: Told::All,
                says_goodbye: true,
            };
            let left_at = if event == "meeting.left" { stay.left_at } else { 0 };
            let person = super::people::Person { display_name: "Convoke test".to_owned(), ..who.person(0) };
            body::attendee(&mut info, (event, now.get()), &meeting, &person, &stay, left_at);
        } else {
            body::meeting(&mut info, event, now.get(), &meeting, false);
        }
        let id = EventId::of(self.app_id, now, &info);
        Ok((id, self.exchange(now, random.random(), &info).await?))
    }

    async fn exchange(&self, at: Millis, salt: u64, info: &[u8]) -> Result<Answer, Error> {
        let target = Arc::new(Target::new(self.url, self.ca_file)?);
        let signer = Signer::new(self.app_id, self.key.expose_secret().as_bytes());
        let mut request = RequestWriter::new(&target);
        let bytes = request.write(&signer, self.clock, at.get(), salt, info);
        let begun = instant();
        let no_answer = |reason: String| Error::NoAnswer { reason };
        match timeout(self.timeout, Client::new(Arc::clone(&target)).exchange(bytes)).await {
            Ok(Ok(answer)) => Ok(Answer { status: answer.status, body: answer.body, took: begun.elapsed() }),
            Ok(Err(fault)) => Err(no_answer(format!("no answer from {}: {fault}", self.url))),
            Err(_) => Err(no_answer(format!("no answer from {} within {:?}", self.url, self.timeout))),
        }
    }
}
