//! Who is one person: by what events tell together, across all runs of a subscriber; names within one run.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use convoke_core::time::Millis;
use convoke_log::{Attributes, Handle, HandleKind, IdentityRow, PersonBy, ProjectedEvent, RunKey};
use uuid::Uuid;

/// A handle that is longer is none, and too long for an index.
const MAX_HANDLE_BYTES: usize = 512;

/// Identities that are known to be stored: hashes of 16 bytes. Past so many they are looked up again.
const MAX_KNOWN: usize = 200_000;

/// Handles whose people are in memory.
const MAX_HANDLES: usize = 20_000;

/// What is told of a stay beside its user, its account and its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StayPerson {
    /// By what it is known who that is; `None`: it is not.
    pub by: Option<PersonBy>,
    /// Who, if it is not what the stay itself says.
    pub other: Option<Arc<str>>,
}

impl StayPerson {
    /// Who that is; `told` finds what the stay itself says.
    pub fn of<'a>(&'a self, told: impl FnOnce(PersonBy) -> Option<&'a str>) -> Option<&'a str> {
        self.by.and_then(|by| self.other.as_deref().or_else(|| told(by)))
    }

    /// As a row has it, beside what it says.
    pub fn read(person: Option<&str>, by: Option<PersonBy>, told: &Attributes<&str>) -> Self {
        let own = Self { by, other: None };
        if own.of(|by| told.person(by)) == person { own } else { Self { by, other: person.map(Arc::from) } }
    }
}

/// The people of all handles that were asked for.
#[derive(Debug, Default)]
pub struct People {
    handles: HashMap<Handle, BTreeSet<Arc<str>>>,
    known: HashSet<u128>,
    hashers: [RandomState; 2],
}

impl People {
    fn hash(&self, subscriber_id: &str, kind: HandleKind, handle: &str, person: &str) -> u128 {
        // One text is hashed faster than four.
        let text = [subscriber_id, kind.as_str(), handle, person].join("\0");
        let [one, other] = self.hashers.each_ref().map(|hasher| u128::from(hasher.hash_one(&text)));
        one << 64 | other
    }

    /// What an event tells together, as far as it is not known to be stored.
    pub fn unknown(&self, fact: &ProjectedEvent) -> impl Iterator<Item = IdentityRow> {
        identities(fact).filter_map(|(kind, text, person)| {
            let known = self.known.contains(&self.hash(&fact.subscriber_id, kind, text, person));
            (!known).then(|| IdentityRow { handle: handle(&fact.subscriber_id, kind, text), person: person.clone() })
        })
    }

    /// Those of these handles whose people are not in memory.
    pub fn missing(&self, handles: impl Iterator<Item = Handle>) -> BTreeSet<Handle> {
        handles.filter(|handle| !self.handles.contains_key(handle)).collect()
    }

    /// The accounts of these numbers, as handles.
    pub fn accounts(&self, handles: &BTreeSet<Handle>) -> BTreeSet<Handle> {
        let numbers = handles.iter().filter(|handle| handle.kind == HandleKind::NumberAccount);
        let accounts = numbers.flat_map(|handle| {
            let accounts = self.handles.get(handle).into_iter().flatten();
            accounts.map(|account| Handle { kind: HandleKind::Account, text: account.clone(), ..handle.clone() })
        });
        self.missing(accounts)
    }

    /// Takes in all that is stored of these handles.
    pub fn stored(&mut self, handles: BTreeSet<Handle>, identities: Vec<IdentityRow>) {
        for handle in handles {
            self.handles.entry(handle).or_default();
        }
        for identity in identities {
            self.learn(identity);
        }
    }

    /// Takes in what is stored, or is going to be; whether it is new.
    pub fn learn(&mut self, identity: IdentityRow) -> bool {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let Handle { subscriber_id, kind, text } = &identity.handle;
        self.known.insert(self.hash(subscriber_id, *kind, text, &identity.person));
        self.handles.entry(identity.handle).or_default().insert(identity.person)
    }

    /// Forgets handles, if there are too many, but not those of what is not stored yet; whether it did.
    pub fn trim(&mut self, pending: &[IdentityRow]) -> bool {
        let trims = self.handles.len() > MAX_HANDLES + pending.len();
        if trims {
            let pending: HashSet<&Handle> = pending.iter().map(|identity| &identity.handle).collect();
            self.handles.retain(|handle, _| pending.contains(handle));
        }
        trims
    }

    /// The users of a handle, or the accounts.
    fn of(&self, subscriber_id: &Arc<str>, kind: HandleKind, text: &str) -> impl Iterator<Item = &Arc<str>> {
        let handle = Handle { subscriber_id: subscriber_id.clone(), kind, text: text.into() };
        self.handles.get(&handle).into_iter().flatten()
    }

    /// The only user of an account, if there is one.
    fn of_account(&self, subscriber_id: &Arc<str>, account: &str) -> Option<Arc<str>> {
        let mut users = self.of(subscriber_id, HandleKind::Account, account);
        users.next().filter(|_| users.next().is_none()).cloned()
    }

    /// The only person of a number, if there is one.
    fn of_number(&self, subscriber_id: &Arc<str>, number: &str) -> Option<Arc<str>> {
        let users = self.of(subscriber_id, HandleKind::Number, number).cloned();
        let accounts = self.of(subscriber_id, HandleKind::NumberAccount, number);
        let accounts =
            accounts.map(|account| self.of_account(subscriber_id, account).unwrap_or_else(|| account.clone()));
        let people: BTreeSet<Arc<str>> = users.chain(accounts).collect();
        people.first().filter(|_| people.len() == 1).cloned()
    }

    /// Who that is, by all but names.
    pub fn person(&self, run: &RunKey, told: &Attributes<&str>) -> StayPerson {
        let known = |by, other: Option<Arc<str>>, own: &str| StayPerson {
            by: Some(by),
            other: other.filter(|other| **other != *own),
        };
        match (told.user_uuid, told.account, told.call_number) {
            (Some(user), ..) => known(PersonBy::User, None, user),
            (None, Some(account), _) => known(PersonBy::Account, self.of_account(&run.subscriber_id, account), account),
            (None, None, Some(number)) => known(PersonBy::Number, self.of_number(&run.subscriber_id, number), number),
            (None, None, None) if told.display_name.is_some() => StayPerson { by: Some(PersonBy::Name), other: None },
            _ => StayPerson { by: told.participant_id.map(|_| PersonBy::Participant), other: None },
        }
    }
}

fn handle(subscriber_id: &Arc<str>, kind: HandleKind, text: &str) -> Handle {
    Handle { subscriber_id: subscriber_id.clone(), kind, text: text.into() }
}

/// What an event tells together: a handle and a person.
fn identities(fact: &ProjectedEvent) -> impl Iterator<Item = (HandleKind, &Arc<str>, &Arc<str>)> {
    let (user, account, number) = (&fact.attendee.user_uuid, &fact.attendee.account, &fact.attendee.call_number);
    let together = [
        (HandleKind::Account, account, user),
        (HandleKind::Number, number, user),
        (HandleKind::NumberAccount, if user.is_none() { number } else { &None }, account),
    ];
    together.into_iter().filter_map(|(kind, text, person)| {
        let (text, person) = (text.as_ref()?, person.as_ref()?);
        let short = text.len() <= MAX_HANDLE_BYTES && person.len() <= MAX_HANDLE_BYTES;
        short.then_some((kind, text, person))
    })
}

/// The handles by which a stay that tells no user may be somebody's.
pub fn handles(run: &RunKey, told: &Attributes<&str>) -> impl Iterator<Item = Handle> {
    let account = told.account.map(|account| handle(&run.subscriber_id, HandleKind::Account, account));
    let number = told.call_number.filter(|_| account.is_none()).map(|number| {
        [HandleKind::Number, HandleKind::NumberAccount].map(|kind| handle(&run.subscriber_id, kind, number))
    });
    let all = account.into_iter().chain(number.into_iter().flatten());
    all.filter(|_| told.user_uuid.is_none()).filter(|handle| handle.text.len() <= MAX_HANDLE_BYTES)
}

/// A stay of somebody of whom a name alone is known: from when to when, if they have left.
pub type NamedStay = (Millis, Option<Millis>, Uuid);

/// Whose the stays of a run are that are known by these names alone: stays that overlap are different people's. Says of those that
/// are not the first's whose they are.
pub fn by_name(names: &BTreeMap<&str, Vec<NamedStay>>) -> HashMap<Uuid, Arc<str>> {
    let mut others = HashMap::new();
    for (name, stays) in names {
        let mut stays = stays.clone();
        stays.sort_unstable_by_key(|(joined, left, id)| (*joined, left.unwrap_or(Millis::MAX), *id));
        // Until when each of them is there.
        let mut people: Vec<(Millis, Option<Arc<str>>)> = Vec::new();
        let mut number = 1;
        for (joined, left, id) in stays {
            let until = left.unwrap_or(Millis::MAX);
            if let Some((there, other)) = people.iter_mut().find(|(there, _)| *there <= joined) {
                *there = until;
                others.extend(other.clone().map(|other| (id, other)));
                continue;
            }
            let other = (!people.is_empty()).then(|| {
                loop {
                    number += 1;
                    let other = format!("{name} ({number})");
                    if !names.contains_key(&*other) {
                        break Arc::<str>::from(other);
                    }
                }
            });
            others.extend(other.clone().map(|other| (id, other)));
            people.push((until, other));
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Millis {
        Millis::new(ms).expect("a time")
    }

    #[test]
    fn stays_of_one_name_are_one_guest_unless_they_overlap() {
        let stay = |id: u128, from: i64, until: Option<i64>| (at(from), until.map(at), Uuid::from_u128(id));
        let stays = vec![stay(4, 300, None), stay(1, 100, Some(200)), stay(2, 150, Some(260)), stay(3, 200, Some(250))];
        let other = vec![stay(5, 0, Some(1))];
        let named = by_name(&BTreeMap::from([("Li", stays), ("Li (2)", other)]));
        let second = Arc::<str>::from("Li (3)");
        assert_eq!(named, HashMap::from([(Uuid::from_u128(2), second)]), "another one is called Li (2)");
    }
}
