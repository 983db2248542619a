//! Learns who is one person from what is folded, and looks up what is stored of them.

use std::collections::BTreeSet;

use super::people::{self, People};
use super::{Held, MAX_UNSETTLED_RUNS, Projector, log_failed};
use crate::cursor::Retry;
use convoke_log::{Attributes, Handle, IdentityRow, LogError, ProjectedEvent, RunKey};

impl Projector {
    /// The runs of which it is to be found out again who was there: some, if there are many.
    pub(super) async fn unsettled(&mut self) -> Result<Vec<RunKey>, Retry> {
        let Some(held) = &mut self.held else { return Ok(Vec::new()) };
        if !held.unsettled || !held.unwritten.changes.settled.is_empty() || held.writing.is_some() {
            return Ok(Vec::new());
        }
        let runs = self.log.unsettled_runs(MAX_UNSETTLED_RUNS).await.map_err(|error| log_failed(&error))?;
        held.unsettled = runs.len() >= MAX_UNSETTLED_RUNS as usize;
        Ok(runs)
    }

    /// Sees to it that `people` has all of these handles.
    pub(super) async fn look_up(&self, people: &mut People, handles: BTreeSet<Handle>) -> Result<(), LogError> {
        self.look_up_each(people, people.missing(handles.iter().cloned())).await?;
        // Of a number the accounts are known only now.
        self.look_up_each(people, people.accounts(&handles)).await
    }

    async fn look_up_each(&self, people: &mut People, handles: BTreeSet<Handle>) -> Result<(), LogError> {
        if !handles.is_empty() {
            let stored = self.log.identities(&handles.iter().cloned().collect::<Vec<_>>()).await?;
            people.stored(handles, stored);
        }
        Ok(())
    }

    /// Learns from joins and lefts who is one person, and looks up what is known of those in them, and of `handles`. What says the same as
    /// the other side of its stay needs not be among them: that side was, and its page is not passed until what it told is stored.
    pub(super) async fn identify(
        &self,
        held: &mut Held,
        telling: &[&ProjectedEvent],
        mut handles: BTreeSet<Handle>,
    ) -> Result<(), LogError> {
        let new: BTreeSet<IdentityRow> = telling.iter().flat_map(|fact| held.people.unknown(fact)).collect();
        handles.extend(new.iter().map(|identity| identity.handle.clone()));
        for fact in telling.iter().filter(|fact| fact.attendee.user_uuid.is_none()) {
            let Some(uuid) = &fact.meeting.uuid else { continue };
            let run = RunKey { subscriber_id: fact.subscriber_id.clone(), meeting_uuid: uuid.clone() };
            let told = Attributes {
                account: fact.attendee.account.as_deref(),
                call_number: fact.attendee.call_number.as_deref(),
                ..Attributes::default()
            };
            handles.extend(people::handles(&run, &told));
        }
        self.look_up(&mut held.people, handles).await?;
        for identity in new {
            if held.people.learn(identity.clone()) {
                held.unwritten.changes.identities.push(identity);
            }
        }
        Ok(())
    }
}
