//! Keyed hashes of what identifies an erased person: enough to recognise them when the platform reports them again, without
//! anything readable.
//!
//! The platform's history knows a stay by a name and a number, and a name may be shared by many. So a number that was given to
//! `convoke forget` is recognised everywhere, and so is a name together with its number; either of them alone is only recognised
//! in a run in which an erased stay had it.

use std::collections::HashMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use convoke_core::time::Millis;
use convoke_log::{Details, Handles, Invitation, LogError, RunKey, Suppression};

/// Length of a key in bytes.
const KEY_BYTES: usize = 32;

/// Computes the hashes.
#[derive(Clone)]
pub struct SuppressionKey(Hmac<Sha256>);

impl std::fmt::Debug for SuppressionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SuppressionKey")
    }
}

/// Something that identifies a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identifier<'a> {
    User(&'a str),
    Account(&'a str),
    Number(&'a str),
    /// The name of an erased person, which is searched for among hosts.
    Name(&'a str),
    NameAndNumber(&'a str, &'a str),
    NumberInRun(&'a RunKey, &'a str),
    /// The name in a stay without a number.
    NameInRun(&'a RunKey, &'a str),
    /// The name in a stay with a number: it only identifies a reported stay without a number.
    NameBesideNumberInRun(&'a RunKey, &'a str),
    /// Only for the record of erasures.
    Stay(&'a str),
    /// Only for the record of erasures.
    NameInMeeting(&'a str, &'a str),
}

impl SuppressionKey {
    /// A new key for a database that has none: 64 random hexadecimal digits.
    #[must_use]
    pub fn fresh_key() -> String {
        hex::encode(rand::random::<[u8; KEY_BYTES]>())
    }

    /// With the key from the database.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// With the key of `log`; `None` if no person was ever erased there.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn of(log: &dyn Suppression) -> Result<Option<Self>, LogError> {
        Ok(log.forgotten_key().await?.as_deref().map(Self::new))
    }

    fn hash(&self, identifier: Identifier<'_>) -> String {
        let (kind, run, values): (u8, Option<&RunKey>, [&str; 2]) = match identifier {
            Identifier::User(user) => (1, None, [user, ""]),
            Identifier::Account(account) => (2, None, [account, ""]),
            Identifier::Number(number) => (3, None, [number, ""]),
            Identifier::Name(name) => (4, None, [name, ""]),
            Identifier::NameAndNumber(name, number) => (5, None, [name, number]),
            Identifier::NumberInRun(run, number) => (6, Some(run), [number, ""]),
            Identifier::NameInRun(run, name) => (7, Some(run), [name, ""]),
            Identifier::NameBesideNumberInRun(run, name) => (8, Some(run), [name, ""]),
            Identifier::Stay(stay) => (9, None, [stay, ""]),
            Identifier::NameInMeeting(meeting, name) => (10, None, [meeting, name]),
        };
        let mut mac = self.0.clone();
        mac.update(&[kind]);
        let (subscriber, uuid) = run.map_or(("", ""), |run| (&*run.subscriber_id, &*run.meeting_uuid));
        for part in [subscriber, uuid, values[0], values[1]] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        hex::encode(mac.finalize().into_bytes())
    }

    /// The hash of a person for the record of erasures: it does not depend on the order of the handles.
    #[must_use]
    pub fn person(&self, handles: &Handles) -> String {
        let mut hashes = self.of_handles(handles);
        hashes.extend(handles.stays.iter().map(|stay| self.hash(Identifier::Stay(&stay.to_string()))));
        let meeting = handles.meeting.as_deref().unwrap_or_default();
        hashes.extend(handles.names.iter().map(|name| self.hash(Identifier::NameInMeeting(meeting, name))));
        hashes.sort_unstable();
        hashes.dedup();
        let mut mac = self.0.clone();
        hashes.iter().for_each(|hash| mac.update(hash.as_bytes()));
        hex::encode(mac.finalize().into_bytes())
    }

    /// The hashes by which the handles are recognised.
    #[must_use]
    pub fn of_handles(&self, handles: &Handles) -> Vec<String> {
        let users = handles.users.iter().map(|user| Identifier::User(user));
        let accounts = handles.accounts.iter().map(|account| Identifier::Account(account));
        let numbers = handles.call_numbers.iter().map(|number| Identifier::Number(number));
        users.chain(accounts).chain(numbers).map(|identifier| self.hash(identifier)).collect()
    }

    /// The hash by which a person who was named only by a name is recognised in this run.
    #[must_use]
    pub fn of_name(&self, run: &RunKey, name: &str) -> String {
        self.hash(Identifier::NameInRun(run, name))
    }

    /// The hashes by which an erased stay is recognised; if `everywhere`, also its name and number in other runs.
    #[must_use]
    pub fn of_stay(
        &self,
        run: Option<&RunKey>,
        name: Option<&str>,
        number: Option<&str>,
        everywhere: bool,
    ) -> Vec<String> {
        let mut identifiers: Vec<Identifier<'_>> = Vec::new();
        if everywhere {
            identifiers.extend(name.map(Identifier::Name));
            identifiers.extend(name.zip(number).map(|(name, number)| Identifier::NameAndNumber(name, number)));
        }
        if let Some(run) = run {
            identifiers.extend(number.map(|number| Identifier::NumberInRun(run, number)));
            identifiers.extend(name.map(|name| match number {
                Some(_) => Identifier::NameBesideNumberInRun(run, name),
                None => Identifier::NameInRun(run, name),
            }));
        }
        identifiers.into_iter().map(|identifier| self.hash(identifier)).collect()
    }

    /// The hashes by which a stay that the platform reports is looked up.
    fn of_platform_stay(&self, run: &RunKey, name: Option<&str>, number: Option<&str>) -> Vec<String> {
        let mut identifiers = Vec::new();
        if let Some(number) = number {
            identifiers.extend([Identifier::Number(number), Identifier::NumberInRun(run, number)]);
            identifiers.extend(name.map(|name| Identifier::NameAndNumber(name, number)));
        }
        if let Some(name) = name {
            identifiers.push(Identifier::NameInRun(run, name));
            identifiers.extend(number.is_none().then_some(Identifier::NameBesideNumberInRun(run, name)));
        }
        identifiers.into_iter().map(|identifier| self.hash(identifier)).collect()
    }

    /// The hashes by which a text in a body may name an erased person in this run.
    #[must_use]
    pub fn of_text(&self, run: &RunKey, text: &str) -> Vec<String> {
        [self.of_platform_stay(run, Some(text), None), self.of_platform_stay(run, None, Some(text))].concat()
    }

    /// The hashes by which a host is looked up: the platform gives an ID and a name, or one in place of the other.
    #[must_use]
    pub fn of_host(&self, host: Option<&str>, user_uuid: Option<&str>) -> Vec<String> {
        let texts = host.into_iter().chain(user_uuid);
        let identifiers =
            texts.flat_map(|text| [Identifier::User(text), Identifier::Account(text), Identifier::Name(text)]);
        identifiers.map(|identifier| self.hash(identifier)).collect()
    }

    /// The hashes by which somebody who was invited to a run is looked up.
    #[must_use]
    pub fn of_invitation(&self, run: &RunKey, invitation: &Invitation) -> Vec<String> {
        let Invitation { user_uuid, account, call_number, display_name, .. } = invitation;
        let users = user_uuid.iter().map(|user| Identifier::User(user));
        let accounts = account.iter().map(|account| Identifier::Account(account));
        let by_id = users.chain(accounts).map(|identifier| self.hash(identifier));
        by_id.chain(self.of_platform_stay(run, display_name.as_deref(), call_number.as_deref())).collect()
    }

    /// Which of these rows are about a person who was erased, each with the time of the last erasure.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn forgotten_invitations(
        &self,
        log: &dyn Suppression,
        rows: &[(&RunKey, &Invitation)],
    ) -> Result<Vec<Option<Millis>>, LogError> {
        let hashes: Vec<Vec<String>> =
            rows.iter().map(|(run, invitation)| self.of_invitation(run, invitation)).collect();
        let found = forgotten(log, &hashes).await?;
        Ok(hashes.iter().map(|hashes| hashes.iter().filter_map(|hash| found.get(hash)).max().copied()).collect())
    }

    /// When the host of a run was erased, if it was.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn host_forgotten(
        &self,
        log: &dyn Suppression,
        host: Option<&str>,
        user_uuid: Option<&str>,
    ) -> Result<Option<Millis>, LogError> {
        Ok(log.forgotten(&self.of_host(host, user_uuid)).await?.into_values().max())
    }
}

/// A stay as the platform reports it.
#[derive(Clone, Copy, Debug)]
pub struct PlatformStay<'a> {
    /// `displayName`.
    pub name: Option<&'a str>,
    /// `callNumber`.
    pub number: Option<&'a str>,
    /// When it began, or if that is unknown, when it ended.
    pub at: Option<Millis>,
}

/// Those of these hashes that belong to erased people.
async fn forgotten(log: &dyn Suppression, hashes: &[Vec<String>]) -> Result<HashMap<String, Millis>, LogError> {
    let mut found = HashMap::new();
    for chunk in hashes.concat().chunks(1_000) {
        found.extend(log.forgotten(chunk).await?);
    }
    Ok(found)
}

/// For each of these stays of a run, whether its person was erased since.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn forgotten_stays(
    log: &dyn Suppression,
    run: &RunKey,
    stays: &[PlatformStay<'_>],
) -> Result<Vec<bool>, LogError> {
    let Some(suppression) = SuppressionKey::of(log).await? else { return Ok(vec![false; stays.len()]) };
    let hashes: Vec<Vec<String>> =
        stays.iter().map(|stay| suppression.of_platform_stay(run, stay.name, stay.number)).collect();
    let found = forgotten(log, &hashes).await?;
    let forgotten = |(stay, hashes): (&PlatformStay<'_>, &Vec<String>)| {
        let until = hashes.iter().filter_map(|hash| found.get(hash)).max();
        // A stay without a time may be from before the erasure.
        until.is_some_and(|until| stay.at.is_none_or(|at| at <= *until))
    };
    Ok(stays.iter().zip(&hashes).map(forgotten).collect())
}

/// Removes from the details of a run that began at `began` who was erased since: the host, with the subject if it contains the
/// host's name, and invitees.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn without_forgotten(
    log: &dyn Suppression,
    run: &RunKey,
    began: Millis,
    details: &mut Details,
) -> Result<(), LogError> {
    let (host, user_uuid) = (details.host.as_deref(), details.host_user_uuid.as_deref());
    if host.or(user_uuid).is_none() && details.invitations.is_empty() {
        return Ok(());
    }
    let Some(suppression) = SuppressionKey::of(log).await? else { return Ok(()) };
    if suppression.host_forgotten(log, host, user_uuid).await?.is_some_and(|until| began <= until) {
        let named = details.subject.as_deref().zip(host).is_some_and(|(subject, host)| subject.contains(host));
        // A personal number is somebody's as well.
        (details.host, details.host_user_uuid, details.virtual_room) = (None, None, None);
        details.subject = details.subject.take().filter(|_| !named);
    }
    let rows: Vec<_> = details.invitations.iter().map(|invitation| (run, invitation)).collect();
    let mut forgotten = suppression.forgotten_invitations(log, &rows).await?.into_iter();
    details.invitations.retain(|_| forgotten.next().flatten().is_none_or(|until| began > until));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suppression() -> SuppressionKey {
        SuppressionKey::new("a key of a test")
    }

    fn run(uuid: &str) -> RunKey {
        RunKey { subscriber_id: "1".into(), meeting_uuid: uuid.into() }
    }

    /// Whether a reported person is recognised in `in_run` after a stay with this name and number in run `r` was erased.
    fn recognised(erased: (&str, &str), reported: (&str, &str), in_run: &str) -> bool {
        let some = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        let leak = |text: &str| some(Box::leak(text.to_owned().into_boxed_str()));
        let known = suppression().of_stay(Some(&run("r")), leak(erased.0), leak(erased.1), true);
        suppression()
            .of_platform_stay(&run(in_run), leak(reported.0), leak(reported.1))
            .iter()
            .any(|hash| known.contains(hash))
    }

    #[test]
    fn in_its_run_an_erased_stay_is_known_by_its_number_or_without_one_by_its_name() {
        assert!(recognised(("Ada", "+1"), ("Renamed", "+1"), "r"));
        assert!(recognised(("Ada", "+1"), ("Ada", ""), "r"));
        assert!(recognised(("Ada", ""), ("Ada", "+1"), "r"));
        assert!(recognised(("Ada", ""), ("Ada", ""), "r"));
        assert!(!recognised(("iPhone", "+1"), ("iPhone", "+2"), "r"), "another number is another person");
        assert!(!recognised(("Ada", "+1"), ("Bob", ""), "r"));
    }

    #[test]
    fn in_other_runs_it_takes_the_name_and_the_number() {
        assert!(recognised(("Ada", "+1"), ("Ada", "+1"), "other"));
        for reported in [("Ada", ""), ("Ada", "+2"), ("Bob", "+1")] {
            assert!(!recognised(("Ada", "+1"), reported, "other"), "{reported:?}");
        }
    }

    #[test]
    fn a_number_that_was_given_is_known_everywhere() {
        let handles = Handles { call_numbers: vec!["+1".to_owned()], ..Handles::default() };
        let known = suppression().of_handles(&handles);
        assert!(suppression().of_platform_stay(&run("any"), Some("Anybody"), Some("+1")).contains(&known[0]));
    }

    #[test]
    fn a_person_is_the_same_in_whatever_order_it_is_named() {
        let named = |accounts: &[&str]| {
            let accounts = accounts.iter().map(|&account| account.to_owned()).collect();
            suppression().person(&Handles { accounts, ..Handles::default() })
        };
        assert_eq!(named(&["a", "b"]), named(&["b", "a", "b"]));
        assert_ne!(named(&["a", "b"]), named(&["ab"]));
        let user = Handles { users: vec!["a".to_owned()], ..Handles::default() };
        assert_ne!(named(&["a"]), suppression().person(&user), "another kind of name is another name");
        let guest = |meeting: &str, names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            suppression().person(&Handles { meeting: Some(meeting.to_owned()), names, ..Handles::default() })
        };
        assert_ne!(guest("1", &["a"]), guest("2", &["a"]), "the same name in another meeting");
        assert_ne!(
            named(&["a"]),
            SuppressionKey::new("another key")
                .person(&Handles { accounts: vec!["a".to_owned()], ..Handles::default() })
        );
    }
}
