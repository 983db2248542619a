//! What a running meeting told becomes events of the log, and who is in it becomes rows.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::message::{self, Heard, LiveEvent, LiveRun};
use super::presence::{Presence, ended};
use super::{Context, Discarded, LiveParts, Pending, RETRY_DELAY};
use crate::backfill::store;
use convoke_core::event::Source;
use convoke_core::time::Millis;
use convoke_log::RunKey;

/// How many texts are stored at once.
const MAX_BATCH: usize = 64;

/// How long it waits while the intake is busy.
const BUSY_DELAY: Duration = Duration::from_millis(20);

/// How often it is written who is there, if that changes, and when something was heard, if it does not.
const SHOW_INTERVAL: Duration = Duration::from_millis(400);
const HEARD_INTERVAL: Duration = Duration::from_secs(3);

/// Stores what came, in order.
pub(super) struct Storing<'a> {
    pub(super) context: &'a Context,
    pub(super) run: LiveRun<'a>,
    pub(super) key: &'a RunKey,
    pub(super) presence: Presence,
    pub(super) heard_at: &'a mut Option<Millis>,
    pub(super) ended_at: &'a mut Option<Millis>,
}

impl Storing<'_> {
    pub(super) async fn store(&mut self, gap: Option<LiveEvent>, mut pending: mpsc::Receiver<Pending>) {
        if let Some(gap) = gap {
            self.keep(&[gap]).await;
        }
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut shown_at = Instant::now();
        loop {
            let show_in = if self.presence.is_changed() { SHOW_INTERVAL } else { HEARD_INTERVAL };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(shown_at + show_in), if self.heard_at.is_some() => {
                    shown_at = Instant::now();
                    self.show().await;
                    continue;
                }
                received = pending.recv_many(&mut batch, MAX_BATCH) => if received == 0 { return self.show().await },
            }
            let metrics = &self.context.parts.metrics;
            let received = batch.iter().map(|(at, _, _)| *at).max();
            let mut events = Vec::with_capacity(batch.len());
            for (received_at, text, _) in &batch {
                match message::heard(text, self.run, *received_at) {
                    Heard::Event(event) => events.push(event),
                    Heard::Answer => {}
                    Heard::Noise => {
                        metrics.discarded.of(Discarded::NotJson).inc();
                        self.context.throttle.run("noise", |suppressed| {
                            tracing::warn!(
                                suppressed,
                                "a running meeting sent a text that is no message: it is not kept"
                            );
                        });
                    }
                }
            }
            self.keep(&events).await;
            for event in &events {
                self.presence.add(event);
                *self.ended_at = self.ended_at.or_else(|| ended(event));
            }
            *self.heard_at = received.or(*self.heard_at);
            // Their share of the memory is given back.
            batch.clear();
        }
    }

    /// Stores events, however long that takes. What the platform pushes comes first.
    async fn keep(&self, events: &[LiveEvent]) {
        let LiveParts { intake, clock, metrics, .. } = &self.context.parts;
        if events.is_empty() {
            return;
        }
        loop {
            while intake.is_busy() || !intake.accepting() {
                tokio::time::sleep(BUSY_DELAY).await;
            }
            match store(intake, clock, (&self.key.subscriber_id, Source::Live), events).await {
                Ok(stored) => {
                    for (event, appended) in events.iter().zip(stored) {
                        if appended == convoke_log::Appended::Stored {
                            metrics.messages.of(event.kind).inc();
                        }
                    }
                    return;
                }
                Err(error) => tracing::debug!(%error, "what a running meeting told is stored later"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Shows who is there. If that fails, it is shown with the next message.
    async fn show(&mut self) {
        let (Some(heard_at), LiveParts { log, .. }) = (*self.heard_at, &self.context.parts) else { return };
        let (present, gone) = self.presence.changes().unwrap_or((Vec::new(), Some(Vec::new())));
        if let Err(error) = log.keep_present(self.key, heard_at, &present, gone.as_deref()).await {
            tracing::debug!(%error, "who is in a meeting is shown later");
            self.presence.again();
        }
    }
}
