//! Departments and titles of the users who were in meetings, from the platform's directory: 200 users in a call, each again
//! after a week.
//!
//! Only what the table `people` holds is kept of the answers, and they are never logged: they contain phone numbers and mail
//! addresses. A user whose row was erased meanwhile stays erased.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Steps;
use crate::cursor::lease;
use crate::metrics::Counters;
use convoke_core::throttle::Throttle;
use convoke_core::time::{Clock, instant};
use convoke_log::{DuePerson, KnownPerson, LogError, WorkLists};
use convoke_platform::backoff::Backoff;
use convoke_platform::{Class, Client, DirectoryUser, MAX_DIRECTORY_USERS, PlatformError};

/// The task's name, for logs and metrics.
pub const PEOPLE_TASK: &str = "people";

/// How often an idle task checks whether somebody is due, and whether it should do the work.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// How often new users are searched for. If a search takes long, the task rests this many times as long as the search took.
const SEARCH_INTERVAL: Duration = Duration::from_secs(60);
const SEARCH_REST_FACTOR: u32 = 60;

/// When a user is asked for again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(7 * 86_400);

/// The task.
#[derive(Debug)]
pub struct Directory {
    log: Arc<dyn WorkLists>,
    client: Client,
    failures: Counters<Class>,
    clock: Clock,
    /// The cursor whose owner does the work, and this process's owner name.
    leader: (&'static str, String),
    backoff: Backoff,
    /// When the next search for new users is due.
    next_search: Option<Instant>,
    refused: Throttle,
}

impl Directory {
    /// The task. It works while `leader.1` holds the lease of the cursor `leader.0`.
    #[must_use]
    pub fn new(
        log: Arc<dyn WorkLists>,
        client: Client,
        failures: Counters<Class>,
        clock: Clock,
        leader: (&'static str, String),
    ) -> Self {
        let (backoff, refused) = (Backoff::new(PEOPLE_TASK), Throttle::default());
        Self { log, client, failures, clock, leader, backoff, next_search: None, refused }
    }

    /// Asks for users until `stop`.
    pub async fn run(self, migrated: CancellationToken, stop: CancellationToken) {
        super::run(self, migrated, stop).await;
    }

    /// Asks for one list of users. Returns whether there was one, and an answer.
    ///
    /// # Errors
    /// [`LogError`]; nothing is lost.
    pub async fn step(&mut self) -> Result<bool, LogError> {
        let (cursor, us) = &self.leader;
        if lease::moved_by(&*self.log, cursor, us).await?.is_none() {
            return Ok(false);
        }
        let begun = instant();
        if self.next_search.is_none_or(|next_search| begun >= next_search) {
            self.log.queue_people(self.clock.now()).await?;
            self.next_search = Some(instant() + SEARCH_INTERVAL.max(begun.elapsed() * SEARCH_REST_FACTOR));
        }
        if !self.backoff.left(self.clock.steady()).is_zero() {
            return Ok(false);
        }
        let due = self.log.due_people(self.clock.now(), REFRESH_INTERVAL, MAX_DIRECTORY_USERS).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let users: Vec<&str> = due.iter().map(|person| person.user_uuid.as_str()).collect();
        match self.users(&users).await {
            Ok(answer) => {
                self.backoff.answered();
                let known = known(&due, &answer);
                if answer.iter().any(|user| user.status == Some(NOT_PERMITTED)) {
                    self.refused.run("refused", |suppressed| {
                        tracing::warn!(
                            task = PEOPLE_TASK,
                            suppressed,
                            "the platform does not show the department of some users to this account: platform.user_id \
                             should be an administrator"
                        );
                    });
                }
                let now = self.clock.now();
                self.log.settle_people(&known, now, now.plus(REFRESH_INTERVAL)).await?;
                Ok(true)
            }
            Err(error) => {
                self.failures.of(error.class).inc();
                self.backoff.failed(self.clock.steady(), &error, rand::random());
                Ok(false)
            }
        }
    }
}

impl Directory {
    /// What the enterprises say of these users, and first what one knows that another does not.
    async fn users(&self, users: &[&str]) -> Result<Vec<DirectoryUser>, PlatformError> {
        let mut answer = Vec::new();
        for enterprise in self.client.enterprises() {
            answer.extend(enterprise.users(users).await?);
        }
        answer.sort_by_key(|user| user.status.is_some_and(|status| status > UNCHANGED));
        Ok(answer)
    }
}

impl Steps for Directory {
    const NAMES: (&'static str, &'static str) = (PEOPLE_TASK, "cannot read the directory");
    const PAUSE: Duration = POLL_INTERVAL;

    fn next(&mut self) -> impl Future<Output = Result<bool, LogError>> + Send {
        self.step()
    }
}

/// `statusCode` of a user that has not changed: only the ID comes with it (manual, 11.2.4).
const UNCHANGED: i64 = 1;
/// `statusCode` of a user that this account may not see.
const NOT_PERMITTED: i64 = 3;

/// What the answer says of each of these users; `None` for one that it does not know, or does not tell.
fn known(due: &[DuePerson], answer: &[DirectoryUser]) -> Vec<KnownPerson> {
    let of = |person: &DuePerson| {
        // The manual's sample has no ID.
        answer.iter().find(|user| match &user.id {
            Some(id) => *id == person.user_uuid,
            None => user.account.is_some() && user.account == person.account,
        })
    };
    let known = |person: &DuePerson| {
        let told = of(person).filter(|user| user.status.is_none_or(|status| status <= UNCHANGED));
        KnownPerson {
            user_uuid: person.user_uuid.clone(),
            told: told.is_some(),
            unchanged: told.is_some_and(|user| user.status == Some(UNCHANGED)),
            department: told.and_then(|user| user.department.clone()),
            title: told.and_then(|user| user.title.clone()),
        }
    };
    due.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_id_or_else_by_account_and_unknown_ones_are_told_as_such() {
        let due = |user: &str, account: Option<&str>| DuePerson {
            user_uuid: user.to_owned(),
            account: account.map(str::to_owned),
        };
        let user = |id: Option<&str>, account: Option<&str>, status, department: &str| DirectoryUser {
            id: id.map(str::to_owned),
            account: account.map(str::to_owned),
            status,
            department: Some(department.to_owned()),
            title: None,
        };
        let answer = [
            user(None, Some("bob"), None, "Sales"),
            user(Some("u1"), Some("ada"), Some(0), "R&D"),
            user(Some("u3"), None, Some(2), "old"),
            user(Some("u4"), None, Some(3), "secret"),
            user(Some("u5"), None, Some(1), "ignored"),
        ];
        let asked = [
            due("u1", None),
            due("u2", Some("bob")),
            due("u3", None),
            due("u4", None),
            due("u5", None),
            due("u6", None),
        ];
        let known = known(&asked, &answer);
        let seen: Vec<_> = known.iter().map(|it| (it.told, it.unchanged, it.department.as_deref())).collect();
        assert_eq!(
            seen,
            [
                (true, false, Some("R&D")),
                (true, false, Some("Sales")),
                (false, false, None),
                (false, false, None),
                (true, true, Some("ignored")),
                (false, false, None)
            ]
        );
    }
}
