//! Lists: paging, filters, limits, masking, and hostile contents.

use base64::Engine as _;
use serde_json::Value;

use super::{ALL, Scene, VIEW, column, event, items, who};
use crate::{
    log_contract::fixture::Backend,
    support::service::now,
    support::{http::RawConnection, rig::LONG_TIMEOUT, wait::eventually},
};

const HOUR: i64 = 3_600_000;

/// Two runs of one number and one of another, two people, a recording; all of it in the last hours.
async fn story(scene: &Scene) -> i64 {
    let base = now() - 10 * HOUR;
    for (number, uuid, at) in
        [("960000017", "run-a", base), ("960000017", "run-b", base + HOUR), ("960000099", "run-c", base + 2 * HOUR)]
    {
        scene.deliver(&event("meeting.started", at, number, uuid, "")).await;
        for name in ["Ann", "Bob"] {
            let left = at + 20 * 60_000;
            scene.deliver(&event("meeting.join", at + 1_000, number, uuid, &who(name, at + 1_000, 0))).await;
            if uuid != "run-c" {
                scene.deliver(&event("meeting.left", left, number, uuid, &who(name, at + 1_000, left))).await;
            }
        }
        if uuid != "run-c" {
            scene.deliver(&event("meeting.end", at + HOUR / 2, number, uuid, "")).await;
            scene.deliver(&event("record.finish", at + HOUR / 2 + 1, number, uuid, "")).await;
        }
    }
    scene.tables(3, 6).await;
    base
}

/// All pages of a list, `limit` rows each; `between` is done after the first.
async fn pages(scene: &Scene, path: &str, limit: usize, between: impl AsyncFnOnce()) -> Vec<Value> {
    let (mut all, mut cursor, mut between) = (Vec::new(), None, Some(between));
    loop {
        let join = if path.contains('?') { '&' } else { '?' };
        let from = cursor.map_or(String::new(), |cursor: String| format!("&cursor={cursor}"));
        let page = scene.all(&format!("{path}{join}limit={limit}{from}")).await;
        assert!(items(&page).len() <= limit);
        all.extend(items(&page).iter().cloned());
        if let Some(between) = between.take() {
            between().await;
        }
        match page["next"].as_str() {
            Some(next) => {
                assert_eq!(items(&page).len(), limit, "a page that goes on is full");
                cursor = Some(next.to_owned());
            }
            None => return all,
        }
    }
}

pub async fn every_list_is_read_page_by_page_and_stays_stable_while_events_arrive(backend: Backend) {
    let scene = Scene::start(backend).await;
    let base = story(&scene).await;
    scene.deliver(r#"{"event":"","timestamp":1}"#).await;
    scene.deliver(r#"{"event":"","timestamp":2}"#).await;
    let lists = ["events", "events?order=oldest", "meetings", "attendance", "recordings", "quarantine"];
    for (number, list) in lists.into_iter().enumerate() {
        let path = format!("/api/v1/{list}");
        let whole = items(&scene.all(&path).await).clone();
        assert!(whole.len() >= 2, "{list}");
        let news = async || {
            // Newer than all there is.
            let at = now() + i64::try_from(number).expect("few") * 60_000;
            scene.deliver(&event("meeting.join", at, "1", &format!("new-{number}"), &who("Eve", at, 0))).await;
            scene.deliver(&event("record.finish", at + 1, "1", &format!("new-{number}"), "")).await;
            scene.deliver(&format!(r#"{{"event":"","timestamp":{at}}}"#)).await;
            scene.tables(4 + number as u64, 7 + number as u64).await;
        };
        let read = pages(&scene, &path, 1, news).await;
        let known: Vec<_> = read.iter().filter(|item| whole.contains(item)).collect();
        assert_eq!(known, whole.iter().collect::<Vec<_>>(), "{list}: each once, in the same order");
        let newer = if list.ends_with("oldest") { 2 } else { 0 };
        assert_eq!(read.len(), whole.len() + newer, "{list}: what is newer comes where it belongs, or not at all");
    }
    let oldest = column(&scene.all("/api/v1/events?order=oldest&limit=3").await, "occurred_at");
    assert!(
        oldest.is_sorted() && oldest[0] == convoke_core::time::Millis::new(base).expect("a time").to_string(),
        "{oldest:?}"
    );
}

pub async fn every_filter_of_every_list_leaves_out_what_it_should(backend: Backend) {
    let scene = Scene::start(backend).await;
    let base = story(&scene).await;
    let time = |ms: i64| convoke_core::time::Millis::new(ms).expect("a time").to_string();
    let (second, third) = (time(base + HOUR), time(base + 2 * HOUR));
    let everybody = [("person", "user-Ann"), ("person", "Ann.li"), ("person", "part-Ann"), ("person", "Ann%20Li")];
    let count = async |path: &str| items(&scene.all(&format!("/api/v1/{path}")).await).len();

    for (list, all, of_ann, of_number, of_run, from_second) in [
        ("events", 17, 5, 14, 7, 10),
        ("meetings", 3, 3, 2, 1, 2),
        ("attendance", 6, 3, 4, 2, 4),
        ("recordings", 2, 2, 2, 1, 1),
    ] {
        assert_eq!(count(list).await, all, "{list}");
        assert_eq!(count(&format!("{list}?subscriber=7700001234")).await, all);
        assert_eq!(count(&format!("{list}?subscriber=1")).await, 0);
        assert_eq!(count(&format!("{list}?meeting=960000017")).await, of_number, "{list}");
        assert_eq!(count(&format!("{list}?meeting=run-b")).await, of_run, "{list}");
        assert_eq!(count(&format!("{list}?meeting=nobody's")).await, 0);
        assert_eq!(count(&format!("{list}?since={second}")).await, from_second, "{list}");
        assert_eq!(count(&format!("{list}?until={second}")).await, all - from_second, "{list}");
        assert_eq!(count(&format!("{list}?since={third}&until={second}")).await, 0);
        assert_eq!(count(&format!("{list}?since=2020-01-01&until=2020-02-01")).await, 0);
        for (name, value) in everybody {
            assert_eq!(count(&format!("{list}?{name}={value}")).await, of_ann, "{list} {value}");
        }
        assert_eq!(count(&format!("{list}?person=Ann")).await, 0, "{list}: a part of a name is nobody");
        assert_eq!(
            count(&format!("{list}?person=user-Ann&meeting=run-b&since=2020-01-01")).await,
            of_run.min(if list == "events" { 2 } else { 1 })
        );
    }
    assert_eq!(count("events?event=meeting.join").await, 6);
    assert_eq!(count("events?event=meeting.join&meeting=run-a&person=user-Bob").await, 1);
    assert_eq!((count("events?source=push").await, count("events?source=backfill").await), (17, 0));
    assert_eq!((count("meetings?status=live").await, count("meetings?status=ended").await), (1, 2));
    assert_eq!((count("attendance?closed_by=open").await, count("attendance?closed_by=left").await), (2, 4));
    assert_eq!(column(&scene.all("/api/v1/meetings").await, "meeting_uuid"), ["run-c", "run-b", "run-a"]);

    let run = scene.all("/api/v1/meetings/7700001234/run-a").await;
    assert_eq!(run["stays"].as_array().map(Vec::len), Some(2));
    assert_eq!((&run["meeting"]["participants"], run["recordings"].as_array().map(Vec::len)), (&2.into(), Some(1)));
    let link = "cloudlink://welinksoftclient/h5page?page=joinConfByLink&conf_id=960000017&name=Convoke&open_mic=false&open_camera=false";
    assert_eq!((&run["open_in_client"], &run["stays_left_out"]), (&link.into(), &0.into()));
    let newest = scene.all("/api/v1/events?limit=1").await;
    let one = &items(&newest)[0];
    assert_eq!(&scene.all(&format!("/api/v1/events/{}", one["event_id"].as_str().expect("an id"))).await, one);
    for (q, meetings, stays) in
        [("960000017", 2, 0), ("run-c", 1, 0), ("user-Ann", 3, 3), ("Bob%20Li", 3, 3), ("x", 0, 0)]
    {
        let found = scene.all(&format!("/api/v1/search?q={q}")).await;
        let counted = ["meetings", "stays"].map(|of| found[of].as_array().expect("an array").len());
        assert_eq!(counted, [meetings, stays], "{q}");
    }
}

pub async fn limits_are_said_and_what_is_not_there_is_not_found(backend: Backend) {
    let scene = Scene::start(backend).await;
    story(&scene).await;
    let next = scene.all("/api/v1/events?limit=2").await["next"].as_str().expect("more").to_owned();
    let refused = [
        ("events?limit=0", "from 1 to 1000"),
        ("events?limit=1001", "from 1 to 1000"),
        ("events?limit=x", "from 1 to 1000"),
        ("events?since=yesterday", "RFC 3339"),
        ("events?until=2026-13-01", "RFC 3339"),
        ("events?source=pull", "push backfill platform"),
        ("events?order=up", "newest oldest"),
        ("events?colour=red", "limit, cursor"),
        ("events?colour=red", "colour is no parameter of this"),
        ("events?event=a&event=b", "event is there twice"),
        ("events?limit=x", "limit"),
        ("meetings?status=dead", "status"),
        ("events?event=a&event=b", "once each"),
        ("events?subscriber=", "1 to 100"),
        ("meetings?status=dead", "scheduled cancelled live ended concluded"),
        ("attendance?closed_by=me", "left meeting_end rejoin open"),
        ("events?cursor=abc", "next from the same list"),
        (&format!("events?order=oldest&cursor={next}"), "next from the same list"),
        (&format!("events?event=meeting.join&cursor={next}"), "next from the same list"),
        (&format!("recordings?cursor={next}"), "next from the same list"),
        ("events?person=x&since=2020-01-01", "31 days"),
        ("events?person=x&since=2020-01-01&until=2020-03-01", "31 days"),
        ("search", "q"),
        (&format!("search?q={}", "x".repeat(201)), "1 to 200"),
        ("stats/events?since=2026-01-01&until=2026-01-03", "1500 points"),
        ("stats/events?step=second", "minute 10m hour day"),
        ("stats/meetings?utc_offset_minutes=2000", "from -1080 to 1080"),
        ("stream?last_event_id=-1", "from 0"),
        ("health?verbose", "no parameters"),
    ];
    for (path, allowed) in refused {
        let answer = scene.ask(&format!("/api/v1/{path}"), ALL).await;
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/problem+json")), "{path}");
        let problem = answer.json();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(allowed)), "{path}: {problem}");
    }
    let hostile = scene.ask("/api/v1/events?%3Cscript%3E=%3Cscript%3E&limit=%3Cscript%3E", ALL).await;
    assert!(hostile.status == 400 && !hostile.text().contains("script"), "{}", hostile.text());
    // The same question goes on, however many are asked for.
    assert_eq!(items(&scene.all(&format!("/api/v1/events?limit=5&cursor={next}")).await).len(), 5);
    for missing in [
        "events/00000000-0000-8000-8000-000000000000",
        "events/x",
        "meetings/7700001234/nothing",
        "meetings/7700001234/%00",
        "meetings/1/run-a",
        "meetings/%ff/%ff",
        "quarantine/99",
        "quarantine/x",
        "quarantine/99999999999999999999",
        "nothing",
    ] {
        let answer = scene.ask(&format!("/api/v1/{missing}"), ALL).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (404, Some("application/problem+json")),
            "{missing}"
        );
    }
}

pub async fn personal_data_is_masked_unless_the_token_has_the_right(backend: Backend) {
    let scene = Scene::start(backend).await;
    story(&scene).await;
    scene.deliver(r#"{"event":"","timestamp":1,"payload":{"attendeeInfo":{"displayName":"Ann Li"}}}"#).await;
    let personal = ["user-Ann", "Ann.li", "part-Ann", "Ann Li", "+8613900001", "user-Bob", "Bob.li"];
    let paths = ["events", "meetings/7700001234/run-a", "attendance", "recordings", "quarantine", "quarantine/1"];
    for path in paths {
        let path = format!("/api/v1/{path}");
        let (full, masked) = (scene.ask(&path, ALL).await, scene.ask(&path, VIEW).await);
        assert_eq!((full.status, masked.status), (200, 200), "{path}");
        for secret in personal {
            assert!(!masked.text().contains(secret), "{secret} in {path}: {}", masked.text());
        }
        assert!(full.text().contains(r#""masked":false"#) && masked.text().contains(r#""masked":true"#), "{path}");
        if !path.contains("recordings") && !path.ends_with("quarantine") {
            assert!(full.text().contains("Ann Li"), "{path}");
        }
    }
    let stays = scene.ask("/api/v1/attendance", VIEW).await.json();
    let stay = &items(&stays)[0];
    assert_eq!((&stay["user_uuid"], &stay["participant_id"]), (&Value::Null, &Value::Null));
    let name = stay["display_name"].as_str().expect("a name");
    assert!(name == "A…" || name == "B…", "{name}");
    let people: std::collections::HashSet<_> = column(&stays, "person").into_iter().collect();
    assert!(
        people.len() == 2 && people.iter().all(|person| person.starts_with("p-") && person.len() == 12),
        "{people:?}"
    );
    // An id that is a hash of somebody is another one, in the cursor too, which goes on all the same.
    let known = column(&scene.ask("/api/v1/attendance", ALL).await.json(), "stay_id");
    let (mut read, mut from) = (Vec::new(), String::new());
    while read.len() < known.len() {
        let page = scene.ask(&format!("/api/v1/attendance?limit=1{from}"), VIEW).await.json();
        read.extend(column(&page, "stay_id"));
        let Some(next) = page["next"].as_str() else { break };
        let written = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(next).expect("Base64");
        let written = String::from_utf8(written).expect("text");
        assert!(!known.iter().any(|id| written.contains(id)), "{written}");
        from = format!("&cursor={next}");
    }
    assert_eq!(read, column(&stays, "stay_id"));
    let led = |ids: &[String]| ids.iter().map(|id| id[..13].to_owned()).collect::<Vec<_>>();
    assert!(led(&read) == led(&known) && read.iter().all(|id| !known.contains(id)), "{read:?} of {known:?}");
    let event = scene.ask("/api/v1/events?event=meeting.join&limit=1", VIEW).await.json();
    assert_eq!(items(&event)[0]["event_info"], Value::Null);
    assert_eq!(scene.ask("/api/v1/quarantine/1", VIEW).await.json()["body"], Value::Null);
    let session = async |token| scene.ask("/api/v1/session", token).await.json()["right"].clone();
    assert_eq!((session(ALL).await, session(VIEW).await), ("full".into(), "masked".into()));
    // Whether there is somebody of that name is not shown either.
    for list in ["events", "meetings", "attendance", "recordings"] {
        for person in ["Ann%20Li", "user-Ann", "nobody"] {
            let path = format!("/api/v1/{list}?person={person}");
            let (full, masked) = (scene.ask(&path, ALL).await, scene.ask(&path, VIEW).await);
            assert_eq!((full.status, masked.status), (200, 403), "{path}: {}", masked.text());
            assert!(masked.json()["detail"].as_str().is_some_and(|detail| detail.contains("masked")), "{path}");
        }
    }
    let found = async |q: &str, token| {
        let found = scene.ask(&format!("/api/v1/search?q={q}"), token).await.json();
        (found["meetings"].as_array().map_or(0, Vec::len), found["stays"].as_array().map_or(0, Vec::len))
    };
    assert!(found("user-Ann", ALL).await.1 > 0);
    assert_eq!(found("user-Ann", VIEW).await, (0, 0));
    assert_eq!(found("run-a", VIEW).await, (1, 0), "a meeting is found");
    // What is named after somebody, what is theirs, and the ways in.
    scene.backend.execute("UPDATE meetings SET subject = 'Ann Li''s meeting', host = 'Ann Li'").await;
    scene.backend.execute("UPDATE attendance SET user_agent = 'Ann Li''s phone'").await;
    scene.backend.execute("UPDATE events SET user_agent = 'Ann Li''s phone'").await;
    scene
        .backend
        .execute("UPDATE recordings SET view_url = 'https://example.com/of-Ann', ready_at = finished_at")
        .await;
    for path in ["meetings", "meetings/7700001234/run-a", "attendance", "events", "recordings", "search?q=run-a"] {
        let path = format!("/api/v1/{path}");
        let (full, masked) = (scene.ask(&path, ALL).await.text(), scene.ask(&path, VIEW).await.text());
        assert!(["Ann Li's", "of-Ann"].iter().any(|personal| full.contains(personal)), "{path}: {full}");
        for personal in ["Ann Li", "of-Ann", "cloudlink://"] {
            assert!(!masked.contains(personal), "{personal} in {path}: {masked}");
        }
    }
    for path in ["/metrics", "/readyz?verbose"] {
        assert_eq!((scene.ask(path, ALL).await.status, scene.ask(path, VIEW).await.status), (200, 200), "{path}");
    }
}

pub async fn large_events_are_reported_a_bounded_part_at_a_time(backend: Backend) {
    const LARGE: usize = 24;
    let scene = Scene::start(backend).await;
    let padding = "x".repeat(255_000);
    for number in 0..LARGE {
        let at = now() - HOUR + i64::try_from(number).expect("few");
        scene
            .deliver(&format!(
                r#"{{"event":"meeting.modify","timestamp":{at},"payload":{{"meetingInfo":{{"meetingUUID":"run-a"}},"x":"{padding}"}}}}"#
            ))
            .await;
    }
    eventually("the run is known from its first event to its last", LONG_TIMEOUT, async || {
        let known = scene.backend.value("SELECT coalesce(max(modifications), 0) FROM meetings").await;
        if known == LARGE.to_string() { Ok(()) } else { Err(known) }
    })
    .await;
    for order in ["newest", "oldest"] {
        for filter in ["", "&meeting=run-a"] {
            let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
            loop {
                let path = format!("/api/v1/events?limit=1000&order={order}{filter}{cursor}");
                let answer = scene.ask(&path, ALL).await;
                assert!(answer.status == 200 && answer.body.len() < 4 << 20, "{path}: {} bytes", answer.body.len());
                let page = answer.json();
                seen.extend(items(&page).iter().map(|item| item["seq"].as_i64().expect("a number")));
                pages += 1;
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            seen.sort_unstable();
            assert_eq!(seen.len(), LARGE, "{order}{filter}");
            seen.dedup();
            assert!(seen.len() == LARGE && (3..10).contains(&pages), "{order}{filter}: {pages} pages");
        }
    }
    // Many who ask for all of it and do not read: what is held for them is bounded, and everybody else is answered.
    let mut readers = Vec::new();
    for _ in 0..24 {
        let mut connection = RawConnection::open(scene.convoke.admin).await;
        let head = format!("GET /api/v1/events?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\n\r\n");
        connection.send(head.as_bytes()).await;
        readers.push(connection);
    }
    assert_eq!(scene.ask("/api/v1/events?limit=1", ALL).await.status, 200, "a small one is");
    drop(readers);
    eventually("who went left the place", LONG_TIMEOUT, async || {
        match scene.ask("/api/v1/events?limit=1000", ALL).await.status {
            200 => Ok(()),
            status => Err(status),
        }
    })
    .await;
}

pub async fn sql_and_html_in_every_field_are_text(backend: Backend) {
    let scene = Scene::start(backend).await;
    let (hostile, at) = ("'; DROP TABLE events; --<script>alert(1)</script>${x}%00\\u0000", now() - HOUR);
    let attendee = ["userUUID", "userAgent", "account", "participantID", "displayName", "role", "callNumber"]
        .map(|field| format!(r#""{field}":"{hostile}""#))
        .join(",");
    let attendee = format!(r#"{attendee},"joinTime":{at},"leftTime":0"#);
    scene.deliver(&event("meeting.join", at, hostile, hostile, &attendee)).await;
    scene.deliver(&event(hostile, at + 1, hostile, hostile, &attendee)).await;
    scene.tables(1, 1).await;
    let stored = hostile.replace("\\u0000", "\u{fffd}");
    let event = &items(&scene.all("/api/v1/events?event=meeting.join").await)[0].clone();
    for field in
        ["meeting_id", "meeting_uuid", "user_uuid", "user_agent", "account", "display_name", "role", "call_number"]
    {
        assert_eq!(event[field], stored.as_str(), "{field}");
    }
    assert!(
        event["event_info"]["payload"]["attendeeInfo"]["displayName"].as_str().is_some_and(|name| name.ends_with('\0'))
    );
    let asked = "'%3B%20DROP%20TABLE%20events%3B%20--%3Cscript%3Ealert(1)%3C/script%3E%24%7Bx%7D%2500%00";
    for list in ["events", "meetings", "attendance"] {
        for field in ["meeting", "person"] {
            let found = scene.all(&format!("/api/v1/{list}?{field}={asked}")).await;
            assert!(!items(&found).is_empty(), "{list} {field}");
        }
        for field in ["subscriber", "meeting", "person"] {
            for injected in ["'%20OR%20'1'%3D'1", "x%22%3B--", "%25", "_", "%5C"] {
                let found = scene.all(&format!("/api/v1/{list}?{field}={injected}")).await;
                assert_eq!(items(&found).len(), 0, "{list} {field} {injected}");
            }
        }
    }
    assert_eq!(items(&scene.all(&format!("/api/v1/events?event={asked}")).await).len(), 1);
    let path = asked.replace("</", "%3C%2F").replace('/', "%2F");
    let run = scene.all(&format!("/api/v1/meetings/7700001234/{path}")).await;
    assert_eq!(run["stays"][0]["display_name"], stored.as_str());
    assert!(!run["open_in_client"].as_str().expect("a link").contains(['<', '\'', ' ']), "{run}");
    let answer = scene.ask(&format!("/api/v1/search?q={asked}"), ALL).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["stays"][0]["display_name"], stored.as_str());
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

pub async fn the_quarantine_says_why(backend: Backend) {
    let scene = Scene::start(backend).await;
    scene.deliver(r#"{"event":"","timestamp":1,"x":"<b>\ud800</b>"}"#).await;
    let list = scene.all("/api/v1/quarantine").await;
    let entry = &items(&list)[0];
    assert_eq!((&entry["subscriber_id"], &entry["deliveries"]), (&"7700001234".into(), &1.into()));
    let one = scene.all(&format!("/api/v1/quarantine/{}", entry["id"])).await;
    assert_eq!((&one["reason"], &one["bytes"]), (&entry["reason"], &entry["bytes"]));
    assert!(one["body"].as_str().is_some_and(|body| body.contains(r"<b>\ud800</b>")), "{one}");
    assert!(one["reading"].as_str().is_some_and(|reading| reading.starts_with("Still no event: ")), "{one}");
}
