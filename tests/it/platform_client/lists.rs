//! Lists in pages, while tokens end and the platform stumbles.

use std::sync::Mutex;

use convoke_core::time::Millis;
use convoke_platform::{AttendeeRecord, Class, Conference, Item, Pages, PlatformError};
use serde_json::{Value, json};

use super::scripted_server::{AUTHENTICATION, Asked, HISTORY, Reply, Scripted};

const ATTENDEES: &str = "/v1/mmc/management/conferences/history/confAttendeeRecord";
const RECORDINGS: &str = "/v1/mmc/management/record/files";

fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time")
}

/// A page of meetings, named by their places, of `total`.
fn meetings(asked: &Asked, total: usize) -> Reply {
    let limit: usize = asked.query["limit"].parse().expect("a number");
    let names = asked.offset()..(asked.offset() + limit).min(total);
    let data: Vec<Value> =
        names.map(|n| json!({ "confUUID": format!("run-{n}"), "conferenceID": n.to_string() })).collect();
    Reply::Json(200, json!({ "offset": asked.offset(), "limit": limit, "count": total, "data": data }))
}

async fn all<T: Item>(mut pages: Pages<T>) -> Result<Vec<T>, PlatformError> {
    let mut items = Vec::new();
    while let Some(mut page) = pages.next().await? {
        assert!(!page.is_empty());
        items.append(&mut page);
    }
    assert!(pages.next().await?.is_none(), "the end stays the end");
    Ok(items)
}

fn in_order(items: &[Conference], total: usize) -> bool {
    let expected = (0..total).map(|n| format!("run-{n}"));
    items.iter().map(|item| item.conf_uuid.clone().unwrap_or_default()).eq(expected)
}

#[tokio::test]
async fn a_list_is_asked_for_as_the_manual_wants_it_and_read_page_by_page() {
    let platform = Scripted::signed_in(|asked| meetings(asked, 1100)).await;
    let mut pages = platform.client().history(at(1_735_660_800_000), at(1_735_747_199_999));
    assert_eq!(pages.total(), None);
    let first = pages.next().await.expect("a page").expect("a page");
    assert_eq!((first.len(), pages.total()), (500, Some(1100)));
    assert!(in_order(&all(platform.client().history(at(1), at(2))).await.expect("a list"), 1100));
    let asked = platform.asked(HISTORY);
    let query =
        |n: usize| asked[n].query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
    let window =
        "endDate=1735747199999 limit=500 offset=0 queryAll=true sortType=ASC_StartTIME startDate=1735660800000";
    assert_eq!(query(0), window);
    let offsets: Vec<usize> = asked[1..].iter().map(Asked::offset).collect();
    assert_eq!(offsets, [0, 499, 998], "each page overlaps the one before by a record");
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_list_is_replaced_and_nothing_is_lost_or_doubled() {
    for (status, code) in [(401, "USG.201000000"), (400, "MMC.118000001"), (400, "USG.000000004"), (401, "")] {
        let platform = Scripted::signed_in(move |asked| match asked.offset() {
            499 if asked.header("x-access-token") == Some("token-0") => {
                Reply::refusal(status, code, "session timed out")
            }
            _ => meetings(asked, 1200),
        })
        .await;
        let items = all(platform.client().history(at(1), at(2))).await.expect("a list");
        assert!(in_order(&items, 1200));
        assert_eq!((platform.asked(AUTHENTICATION).len(), platform.asked(HISTORY).len()), (2, 4), "{code}");
    }
}

#[tokio::test]
async fn a_window_without_a_meeting_is_an_empty_list_though_the_platform_calls_it_an_error() {
    let platform = Scripted::signed_in(|_| Reply::refusal(400, "MMC.111071069", "CONF_NOCONF_IN_SELECTED_TIME")).await;
    let mut pages = platform.client().history(at(1), at(2));
    assert!(pages.next().await.expect("no error").is_none());
    assert_eq!((pages.total(), platform.asked(HISTORY).len()), (Some(0), 1));
}

#[tokio::test]
async fn a_list_goes_on_where_it_was_after_an_error() {
    let platform = Scripted::signed_in(|asked| match asked.nth {
        1 => Reply::refusal(403, "MMC.111070002", "CONF_INSUFFICIENT_PERMISSIONS"),
        _ => meetings(asked, 700),
    })
    .await;
    let mut pages = platform.client().history(at(1), at(2));
    let mut items = pages.next().await.expect("a page").expect("a page");
    let error = pages.next().await.expect_err("refused");
    assert_eq!((error.class, error.doing), (Class::Configuration, "reading the history"));
    items.extend(pages.next().await.expect("a page").expect("a page"));
    assert!(in_order(&items, 700) && pages.next().await.expect("the end").is_none());
}

#[tokio::test]
async fn a_page_that_comes_again_is_asked_for_once_more_and_one_that_always_does_is_said_to() {
    let platform = Scripted::signed_in(|asked| {
        let again =
            Asked { query: [("offset".into(), "0".into()), ("limit".into(), "500".into())].into(), ..asked.clone() };
        meetings(if asked.nth == 1 { &again } else { asked }, 700)
    })
    .await;
    assert!(in_order(&all(platform.client().history(at(1), at(2))).await.expect("a list"), 700));

    let platform = Scripted::signed_in(|asked| {
        let again =
            Asked { query: [("offset".into(), "0".into()), ("limit".into(), "500".into())].into(), ..asked.clone() };
        meetings(&again, 700)
    })
    .await;
    let error = all(platform.client().history(at(1), at(2))).await.expect_err("no way on");
    assert!(error.problem.contains("the same page repeatedly") && error.class == Class::Incomplete, "{error}");
    assert_eq!(platform.asked(HISTORY).len(), 4);
}

/// The same request for the page that begins elsewhere.
fn from(asked: &Asked, offset: usize) -> Asked {
    let mut asked = asked.clone();
    asked.query.insert("offset".to_owned(), offset.to_string());
    asked
}

#[tokio::test]
async fn a_list_that_ends_before_its_total_is_said_to_be_incomplete_with_both_numbers() {
    type Answer = fn(&Asked) -> Reply;
    fn nothing(count: usize) -> Reply {
        Reply::Json(200, json!({ "count": count, "data": [] }))
    }
    let cases: [(&str, Answer, &str); 4] = [
        (
            "empty pages",
            |asked| if asked.offset() == 0 { meetings(asked, 730) } else { nothing(730) },
            "730 and returned 500",
        ),
        ("pages by number", |asked| meetings(&from(asked, asked.offset() * 500), 730), "730 and returned 500"),
        ("an empty first page", |_| nothing(3), "3 and returned 0"),
        (
            "no such meeting",
            |asked| match asked.offset() {
                0 => meetings(asked, 730),
                _ => Reply::refusal(400, "MMC.111071069", "CONF_NOCONF_IN_SELECTED_TIME"),
            },
            "returned 500",
        ),
    ];
    for (name, answer, words) in cases {
        let platform = Scripted::signed_in(answer).await;
        let mut pages = platform.client().history(at(1), at(2));
        let mut given = 0;
        let error = loop {
            match pages.next().await {
                Ok(page) => given += page.unwrap_or_else(|| panic!("{name}: it was believed")).len(),
                Err(error) => break error,
            }
        };
        assert_eq!((error.class, given as u64), (Class::Incomplete, pages.given()), "{name}");
        assert!(error.problem.contains(words) && error.advice.contains("`offset`"), "{name}: {error}");
        assert!(name == "no such meeting" || pages.next().await.expect("an end").is_none(), "{name}");
    }
    let platform = Scripted::signed_in(move |_| nothing(2)).await;
    let error = all(platform.client().attendees("run-1")).await.expect_err("participants");
    assert_eq!(error.class, Class::Incomplete);
    let error = all(platform.client().recordings(at(1), at(2))).await.expect_err("recordings");
    assert_eq!(error.class, Class::Incomplete);
    let platform = Scripted::signed_in(|asked| {
        let some = json!([{ "manualOrder": 1, "segmentOrder": 1 }]);
        let list = if asked.nth == 0 { some } else { json!([]) };
        Reply::Json(200, json!({ "code": "0", "data": { "segmentList": list, "segmentCount": 3 } }))
    })
    .await;
    let error = platform.client().segments("run-1").await.expect_err("segments");
    assert!(error.class == Class::Incomplete && error.problem.contains("3 and returned 1"), "{error}");
}

#[tokio::test]
async fn a_history_that_changes_between_two_pages_gives_every_meeting_once() {
    // By when: the oldest leave, or a meeting that lasted long joins those that began before it.
    let list = Mutex::new((0..1200).map(|n| format!("run-{n}")).collect::<Vec<_>>());
    let platform = Scripted::signed_in(move |asked| {
        let mut list = list.lock().expect("no panic");
        match asked.nth {
            1 => drop(list.drain(..40)),
            2 => list.insert(3, "late".to_owned()),
            _ => {}
        }
        let data: Vec<Value> =
            list.iter().skip(asked.offset()).take(500).map(|name| json!({ "confUUID": name })).collect();
        Reply::Json(200, json!({ "count": list.len(), "data": data }))
    })
    .await;
    let items = all(platform.client().history(at(1), at(2))).await.expect("a list");
    let mut names: Vec<String> = items.into_iter().filter_map(|item| item.conf_uuid).collect();
    names.sort_unstable();
    let mut expected: Vec<String> = (0..1200).map(|n| format!("run-{n}")).chain(["late".to_owned()]).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn odd_fields_of_an_item_cost_the_field_and_odd_items_cost_the_item() {
    let platform = Scripted::signed_in(|_| {
        Reply::Json(
            200,
            json!({ "count": "5", "data": [
                { "displayName": "王小明", "callNumber": 12345, "joinTime": "1735700465003", "leftTime": 0, "new": {} },
                { "displayName": "", "callNumber": null, "deviceType": ["x"], "joinTime": "soon", "leftTime": -1 },
                null, "text",
                { "displayName": "王小明", "callNumber": 12345, "joinTime": "1735700465003", "leftTime": 0, "new": {} },
            ] }),
        )
    })
    .await;
    let items = all(platform.client().attendees("run 1/ä&=?")).await.expect("a list");
    let first = AttendeeRecord {
        display_name: Some("王小明".to_owned()),
        call_number: Some("12345".to_owned()),
        joined_at: Some(at(1_735_700_465_003)),
        ..AttendeeRecord::default()
    };
    assert_eq!(items, [first, AttendeeRecord::default()]);
    assert_eq!(platform.asked(ATTENDEES)[0].query["confUUID"], "run 1/ä&=?");
}

#[tokio::test]
async fn the_recordings_are_read_with_their_units() {
    let platform = Scripted::signed_in(|_| {
        Reply::Json(
            200,
            json!({ "count": 1, "data": [{
                "confUUID": "run-1", "confID": "960000017", "url": ["https://192.0.2.30/play?token=demo", 7],
                "rcdTime": 3400, "rcdSize": 210, "isDecodeFinish": true, "decodeEndTime": 1_735_704_600_000_i64,
                "available": "true", "startTime": "2025-01-01 03:01",
            }] }),
        )
    })
    .await;
    let items = all(platform.client().recordings(at(1), at(2))).await.expect("a list");
    assert_eq!(items.len(), 1);
    let file = &items[0];
    assert_eq!((file.conf_uuid.as_deref(), file.conf_id.as_deref()), (Some("run-1"), Some("960000017")));
    assert_eq!(file.urls, ["https://192.0.2.30/play?token=demo"]);
    assert_eq!((file.length_s, file.size_mb, file.decoded, file.available), (Some(3400), Some(210), true, Some(true)));
    assert_eq!(file.decode_end, Some(at(1_735_704_600_000)));
    assert_eq!(platform.asked(RECORDINGS)[0].query["queryAll"], "true");
}

#[tokio::test]
async fn an_answer_without_a_list_is_not_taken_for_an_empty_one() {
    for body in [json!({}), json!({ "count": 3, "data": null }), json!([]), Value::Null] {
        let platform = Scripted::signed_in(move |_| Reply::Json(200, body.clone())).await;
        let error = platform.client().history(at(1), at(2)).next().await.expect_err("no list");
        assert!(error.problem.contains("no list"), "{error}");
    }
}
