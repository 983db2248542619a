//! Keyed hashes of what identifies a forgotten person: enough to recognise them when the platform reports them again, and
//! nothing to read.
//!
//! The platform's history knows a stay by a name and a number, of which a name may be anybody's. So a number that was given to
//! `convoke forget` is recognised everywhere; a name together with its number, too; and either alone only in a run in which
//! a stay was erased that had it.

use std::collections::HashMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use convoke_core::time::Millis;
use convoke_log::{Details, Handles, LogError, RunKey, Suppression};

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Makes the hashes.
#[derive(Clone)]
pub struct SuppressionKey(Hmac<Sha256>);

impl std::fmt::Debug for SuppressionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SuppressionKey")
    }
}

/// What identifies a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identifier<'a> {
    User(&'a str),
    Account(&'a str),
    Number(&'a str),
    /// The name of somebody who was forgotten, which is looked for among hosts.
    Name(&'a str),
    NameAndNumber(&'a str, &'a str),
    NumberInRun(&'a RunKey, &'a str),
    /// Of a stay without a number.
    NameInRun(&'a RunKey, &'a str),
    /// Of a stay with a number: it identifies only who has none.
    NameBesideNumberInRun(&'a RunKey, &'a str),
    /// Only for the record of erasures.
    Stay(&'a str),
    /// The same.
    NameInMeeting(&'a str, &'a str),
}

impl SuppressionKey {
    /// A key for a database that has none: 64 random hex digits.
    #[must_use]
    pub fn fresh_key() -> String {
        hex::encode(rand::random::<[u8; KEY_BYTES]>())
    }

    /// With the key that the database keeps.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// With the key of `log`; `None` if nobody was ever forgotten there.
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

    /// The person that is named so, for the record of erasures: the same in whatever order the handles are given.
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

    /// By which the handles are recognised.
    #[must_use]
    pub fn of_handles(&self, handles: &Handles) -> Vec<String> {
        let users = handles.users.iter().map(|user| Identifier::User(user));
        let accounts = handles.accounts.iter().map(|account| Identifier::Account(account));
        let numbers = handles.call_numbers.iter().map(|number| Identifier::Number(number));
        users.chain(accounts).chain(numbers).map(|identifier| self.hash(identifier)).collect()
    }

    /// By which somebody is recognised in this run who was named by a name alone.
    #[must_use]
    pub fn of_name(&self, run: &RunKey, name: &str) -> String {
        self.hash(Identifier::NameInRun(run, name))
    }

    /// By which a stay is recognised that was erased; if `everywhere`, also its name and number elsewhere.
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

    /// Hashes by which a stay of the platform is looked for.
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

    /// Hashes by which a text of a body may name somebody in this run.
    #[must_use]
    pub fn of_text(&self, run: &RunKey, text: &str) -> Vec<String> {
        [self.of_platform_stay(run, Some(text), None), self.of_platform_stay(run, None, Some(text))].concat()
    }

    /// Hashes by which a host is looked for: the platform gives an id or a name.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Vec<String> {
        [Identifier::User(host), Identifier::Account(host), Identifier::Name(host)]
            .map(|identifier| self.hash(identifier))
            .into()
    }

    /// When the host of a run was forgotten, if it was.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn host_forgotten(&self, log: &dyn Suppression, host: &str) -> Result<Option<Millis>, LogError> {
        Ok(log.forgotten(&self.of_host(host)).await?.into_values().max())
    }
}

/// A stay as the platform reports it.
#[derive(Clone, Copy, Debug)]
pub struct PlatformStay<'a> {
    /// `displayName`.
    pub name: Option<&'a str>,
    /// `callNumber`.
    pub number: Option<&'a str>,
    /// When it began, or else when it ended.
    pub at: Option<Millis>,
}

/// Which of these stays of a run are of somebody who was forgotten since.
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
    let mut found: HashMap<String, Millis> = HashMap::new();
    for chunk in hashes.concat().chunks(1_000) {
        found.extend(log.forgotten(chunk).await?);
    }
    let forgotten = |(stay, hashes): (&PlatformStay<'_>, &Vec<String>)| {
        let until = hashes.iter().filter_map(|hash| found.get(hash)).max();
        // Without a time it may be from before.
        until.is_some_and(|until| stay.at.is_none_or(|at| at <= *until))
    };
    Ok(stays.iter().zip(&hashes).map(forgotten).collect())
}

/// Removes from the details of a run that began at `began` a host who was forgotten since, and a subject with the
/// host's name in it.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn without_forgotten(log: &dyn Suppression, began: Millis, details: &mut Details) -> Result<(), LogError> {
    let Some(host) = details.host.as_deref() else { return Ok(()) };
    let Some(suppression) = SuppressionKey::of(log).await? else { return Ok(()) };
    if suppression.host_forgotten(log, host).await?.is_some_and(|until| began <= until) {
        let named = details.subject.as_deref().is_some_and(|subject| subject.contains(host));
        details.host = None;
        details.subject = details.subject.take().filter(|_| !named);
    }
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

    /// Whether a person reported so in run `r` is recognised, once a stay with this name and number in run `r` was erased.
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
