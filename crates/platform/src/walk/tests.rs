//! Reads lists that are served from memory and changed between two pages.

use proptest::prelude::*;

use super::*;

/// Maximum number of calls for this many records: no list may keep a reader for ever.
fn bound(records: usize) -> usize {
    (MAX_WALKS as usize + MAX_GAPS as usize) * (records / 100 + MAX_ODD_PAGES as usize + 2)
}

/// A page as the platform returns it.
fn page(list: &[Key], offset: u64, limit: usize, count: bool) -> Page {
    let from = usize::try_from(offset).expect("small").min(list.len());
    let to = (from + limit).min(list.len());
    Page { count: count.then_some(list.len() as u64), keys: list[from..to].to_vec() }
}

/// The result of a reading.
#[derive(Debug)]
struct Outcome {
    taken: Vec<Key>,
    calls: usize,
    failures: Vec<Step>,
    /// Whether the total was higher than the number of records at the end.
    short: bool,
}

/// Reads to the end; `serve` returns the page for the number of the call and the offset.
fn walk(most: usize, mut serve: impl FnMut(usize, u64) -> Page) -> Outcome {
    let mut walk = Walk::new(500, 1);
    let mut outcome = Outcome { taken: Vec::new(), calls: 0, failures: Vec::new(), short: false };
    while let Some(offset) = walk.ask() {
        assert!(outcome.calls < most, "no end: {outcome:?} {walk:?}");
        let page = serve(outcome.calls, offset);
        outcome.calls += 1;
        match walk.take(&page) {
            Step::Take(places) => outcome.taken.extend(places.into_iter().map(|place| page.keys[place])),
            Step::Again => {}
            failure => {
                outcome.failures.push(failure);
                // A caller continues a few times, and then gives up.
                if outcome.failures.len() == 3 {
                    return outcome;
                }
            }
        }
    }
    outcome.short = walk.is_short();
    outcome
}

fn numbers(count: u64) -> Vec<Key> {
    (0..count).map(Key::from).collect()
}

#[test]
fn a_list_that_stays_is_read_in_order_and_in_the_fewest_calls_that_overlap() {
    for (count, calls) in [(0, 1), (1, 1), (499, 1), (500, 1), (501, 2), (999, 2), (1000, 3), (10_000, 21)] {
        let list = numbers(count);
        let outcome = walk(100, |_, offset| page(&list, offset, 500, true));
        assert_eq!((outcome.taken, outcome.calls), (list, calls), "{count}");
        assert!(outcome.failures.is_empty());
        assert_eq!(calls as u64, count.saturating_sub(1).div_ceil(499).max(1), "the formula");
    }
}

#[test]
fn a_platform_that_gives_less_at_once_than_was_asked_for_or_no_total_is_read_to_its_end() {
    let list = numbers(730);
    for (limit, count) in [(100, true), (7, true), (1, true), (500, false), (100, false), (1, false)] {
        let outcome = walk(2000, |_, offset| page(&list, offset, limit, count));
        assert_eq!(outcome.taken, list, "{limit} {count}");
    }
}

#[test]
fn records_that_move_past_us_are_read_all_the_same() {
    let before = numbers(1700);
    for (gone, calls) in [(1, 6), (30, 6), (498, 6), (700, 7), (1100, 6)] {
        // The oldest records leave after the second page: those at 999 and later move to earlier offsets.
        let after = before[gone..].to_vec();
        let outcome = walk(50, |call, offset| page(if call < 2 { &before } else { &after }, offset, 500, true));
        assert!(after.iter().all(|key| outcome.taken.contains(key)), "{gone}");
        assert!(outcome.calls <= calls, "{gone}: {}", outcome.calls);
    }
}

#[test]
fn a_list_that_moves_without_changing_its_length_is_noticed() {
    let before = numbers(1200);
    let mut after = before[3..].to_vec();
    after.extend([5000, 5001, 5002]);
    let outcome = walk(50, |call, offset| page(if call < 1 { &before } else { &after }, offset, 500, true));
    assert!(after.iter().all(|key| outcome.taken.contains(key)));
    assert_eq!(outcome.taken.len(), 1203);
}

#[test]
fn records_that_are_put_in_front_of_us_are_found_by_another_walk() {
    let before = numbers(1200);
    let mut after = before.clone();
    after.splice(10..10, (0..700).map(|n| 10_000 + n));
    let outcome = walk(50, |call, offset| page(if call < 2 { &before } else { &after }, offset, 500, true));
    assert_eq!(outcome.taken.len(), 1900);
    // New ones at the end cost nothing extra.
    let mut after = before.clone();
    after.extend((0..10).map(|n| 10_000 + n));
    let outcome = walk(50, |call, offset| page(if call < 2 { &before } else { &after }, offset, 500, true));
    assert_eq!((outcome.taken, outcome.calls), (after, 3));
}

#[test]
fn a_page_that_comes_twice_costs_a_call_and_loses_nothing() {
    let list = numbers(1400);
    let outcome = walk(50, |call, offset| page(&list, if call == 1 { 0 } else { offset }, 500, true));
    assert_eq!((outcome.taken, outcome.calls), (list, 4));
}

#[test]
fn a_page_that_always_comes_again_is_a_failure_or_the_end() {
    let list = numbers(1400);
    let outcome = walk(50, |_, _| page(&list, 0, 500, true));
    assert_eq!(outcome.taken, list[..500]);
    assert!(outcome.failures.iter().all(|failure| *failure == Step::Repeats) && outcome.failures.len() == 3);
    // Like the dashboard's list, which has no reliable total.
    let outcome = walk(50, |_, offset| page(&list, offset.min(900), 500, false));
    assert_eq!((outcome.taken, outcome.failures), (list, Vec::new()));
}

#[test]
fn an_empty_page_before_the_end_is_asked_for_again_and_never_believed() {
    let list = numbers(1400);
    let empty = || Page { count: Some(1400), keys: Vec::new() };
    let outcome = walk(50, |call, offset| if call == 1 { empty() } else { page(&list, offset, 500, true) });
    assert_eq!((outcome.taken, outcome.short), (list.clone(), false));
    let outcome = walk(50, |call, offset| if call >= 1 { empty() } else { page(&list, offset, 500, true) });
    assert_eq!((outcome.taken.len(), outcome.calls, outcome.short), (500, 1 + 3, true));
}

#[test]
fn a_list_of_which_less_comes_than_its_total_says_is_never_taken_for_whole() {
    let list = numbers(1400);
    let index = |offset: u64| page(&list, offset * 500, 500, true);
    let ends: [(&str, &dyn Fn(u64) -> Page); 6] = [
        ("cut off", &|offset| Page { count: Some(1400), ..page(&list[..500], offset, 500, true) }),
        ("cut off within a page", &|offset| Page { count: Some(1400), ..page(&list[..700], offset, 500, true) }),
        ("a page's number", &index),
        ("a page's number, and past the end the last page", &|offset| index(offset.min(2))),
        ("nothing and no total past the end", &|offset| match offset {
            0 => page(&list, 0, 500, true),
            _ => Page { count: Some(0), keys: Vec::new() },
        }),
        ("a total that is too large", &|offset| Page { count: Some(1401), ..page(&list, offset, 500, true) }),
    ];
    for (name, serve) in ends {
        let outcome = walk(100, |_, offset| serve(offset));
        assert!(outcome.short || !outcome.failures.is_empty(), "{name}: {} taken", outcome.taken.len());
    }
    // A list that shrinks while it is read is complete.
    for left in [0, 1, 600] {
        let outcome = walk(50, |call, offset| page(&list[..if call < 2 { 1400 } else { left }], offset, 500, true));
        assert!(!outcome.short && outcome.failures.is_empty(), "{left}: {outcome:?}");
    }
}

#[test]
fn a_list_that_is_another_one_each_time_comes_to_an_end() {
    let mut next = 0;
    let outcome = walk(1000, |_, _| {
        next += 500;
        Page { count: Some(1_000_000_000), keys: (next..next + 500).collect() }
    });
    assert_eq!(outcome.failures.last(), Some(&Step::Restless));
}

#[test]
fn records_that_are_alike_are_given_once_and_lead_to_no_further_walk() {
    let mut list = numbers(600);
    list[100] = 7;
    list[101] = 7;
    let outcome = walk(50, |_, offset| page(&list, offset, 500, true));
    assert_eq!((outcome.taken.len(), outcome.calls), (598, 2));
}

/// A change between two pages: insert or remove a number of records at a place, or swap two neighbours.
#[derive(Clone, Debug)]
enum Change {
    In(usize, usize),
    Out(usize, usize),
    Swap(usize),
    None,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (any::<usize>(), 1..700_usize).prop_map(|(at, n)| Change::In(at, n)),
        2 => (any::<usize>(), 1..700_usize).prop_map(|(at, n)| Change::Out(at, n)),
        2 => any::<usize>().prop_map(Change::Swap),
        4 => Just(Change::None),
    ]
}

fn apply(list: &mut Vec<Key>, change: &Change, fresh: &mut Key) {
    match *change {
        Change::In(at, n) => {
            let at = at % (list.len() + 1);
            list.splice(at..at, (0..n as Key).map(|n| *fresh + n));
            *fresh += n as Key;
        }
        Change::Out(at, n) if !list.is_empty() => {
            let at = at % list.len();
            list.drain(at..(at + n).min(list.len()));
        }
        Change::Swap(at) if list.len() > 1 => {
            let at = at % (list.len() - 1);
            list.swap(at, at + 1);
        }
        Change::Out(..) | Change::Swap(_) | Change::None => {}
    }
}

proptest! {
    #[test]
    fn any_list_that_changes_in_any_way_ends_and_gives_nothing_twice(
        length in 0..3000_u64, limit in 1..=500_usize, count in any::<bool>(),
        changes in prop::collection::vec(change(), 0..30),
    ) {
        let mut list = numbers(length);
        let mut fresh = 1_000_000;
        let most = 200 * bound(length as usize + 700 * changes.len()) / limit.min(100) + 100;
        let outcome = walk(most, |call, offset| {
            if let Some(change) = changes.get(call) { apply(&mut list, change, &mut fresh); }
            page(&list, offset, limit, count)
        });
        let distinct: HashSet<Key> = outcome.taken.iter().copied().collect();
        prop_assert_eq!(distinct.len(), outcome.taken.len());
    }

    /// Retention removes the oldest records during the reading: all remaining ones are returned.
    #[test]
    fn whatever_stays_is_given_while_old_ones_leave(
        length in 0..5000_u64, leave in prop::collection::vec(0..400_usize, 0..9),
    ) {
        let mut list = numbers(length);
        let outcome = walk(500, |call, offset| {
            if let Some(gone) = leave.get(call) { list.drain(..(*gone).min(list.len())); }
            page(&list, offset, 500, true)
        });
        prop_assert!(outcome.failures.is_empty() && !outcome.short);
        let taken: HashSet<Key> = outcome.taken.into_iter().collect();
        prop_assert!(list.iter().all(|key| taken.contains(key)));
    }

    /// After one change of any kind, everything that was there from the first page to the last is returned.
    #[test]
    fn whatever_is_there_from_first_to_last_is_given_if_the_list_changes_once(
        length in 0..4000_u64, at in 0..9_usize, change in change(),
    ) {
        let mut list = numbers(length);
        let mut fresh = 1_000_000;
        let outcome = walk(500, |call, offset| {
            if call == at { apply(&mut list, &change, &mut fresh); }
            page(&list, offset, 500, true)
        });
        prop_assert!(outcome.failures.is_empty() && !outcome.short);
        let taken: HashSet<Key> = outcome.taken.into_iter().collect();
        let missing: Vec<&Key> = list.iter().filter(|key| **key < 1_000_000 && !taken.contains(key)).collect();
        prop_assert!(missing.is_empty(), "{:?}", missing);
    }
}
