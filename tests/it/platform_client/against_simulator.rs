//! The client of the platform's API against the simulated platform, which was made from the platform's manual and not from the
//! client: each call, and what goes wrong with them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::routing::post;
use convoke_core::time::{Clock, Millis};
use convoke_platform::{Class, Client, Item, NewSubscription, Options, Pages, PlatformError, Status};
use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Recorded, Refusal, Run, State};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::simulated_platform::{APP_ID, APP_KEY, CORP, USER, options, started};

const SP: &str = "00000000000000000000000000000001";

fn at(ms: i64) -> Millis {
    Millis::new(ms).expect("a time")
}

/// The settings of a single enterprise's administrator.
fn settings(platform: &Platform) -> Options {
    Options::new(platform.url(), APP_ID, APP_KEY.into())
}

fn client(platform: &Platform) -> Client {
    Client::new(settings(platform), Clock::System).expect("a client")
}

/// So many runs, one each minute, the first two days ago; and the window that holds them.
async fn with_history(runs: usize, stays: usize, options: PlatformOptions) -> (Platform, Millis, Millis) {
    let platform = started(options).await;
    let until = Clock::System.now().minus(Duration::from_secs(86_400));
    let since = until.minus(Duration::from_secs(60 * runs as u64));
    platform.edit(|archive| {
        for run in Run::made_up(since, Duration::from_secs(60), runs, stays) {
            archive.put(run);
        }
    });
    (platform, since, until)
}

/// All items, after which the list must have ended.
async fn all<T: Item>(mut pages: Pages<T>) -> Result<Vec<T>, PlatformError> {
    let mut items = Vec::new();
    while let Some(page) = pages.next().await? {
        items.extend(page);
    }
    Ok(items)
}

/// The UUIDs of the history, all of them different.
async fn uuids(client: &Client, since: Millis, until: Millis) -> Vec<String> {
    let runs = all(client.history(since, until)).await.expect("the history");
    let uuids: Vec<String> = runs.into_iter().map(|run| run.conf_uuid.expect("a UUID")).collect();
    assert_eq!(uuids.iter().collect::<HashSet<_>>().len(), uuids.len(), "each once");
    uuids
}

fn in_archive(platform: &Platform) -> Vec<String> {
    platform.edit(|archive| archive.runs().map(|run| run.conf_uuid.clone()).collect())
}

#[tokio::test]
async fn all_ways_of_signing_in_are_accepted_and_say_who_we_are() {
    let administrators = vec![USER.to_owned()];
    for (user_id, corp_id, sp_id, types) in [
        (None, None, None, (Some(2), Some(0))),
        (Some(USER), None, None, (Some(2), Some(1))),
        (Some("bob"), Some(CORP), None, (Some(2), Some(2))),
        (Some(USER), Some(CORP), Some(SP), (Some(2), Some(1))),
        (None, Some(CORP), Some(SP), (Some(2), Some(0))),
        (None, None, Some(SP), (Some(1), Some(0))),
    ] {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let administrators = administrators.clone();
        let platform = started(PlatformOptions { sp_id: owned(sp_id), administrators, ..options() }).await;
        let settings =
            Options { user_id: owned(user_id), corp_id: owned(corp_id), sp_id: owned(sp_id), ..settings(&platform) };
        let client = Client::new(settings, Clock::System).expect("a client");
        let identity = client.identity().await.expect("signed in");
        assert_eq!((identity.user_type, identity.admin_type), types, "{user_id:?} {corp_id:?} {sp_id:?}");
        let of_none = sp_id.is_some() && corp_id.is_none();
        assert_eq!(identity.corp_id.as_deref(), (!of_none).then_some(CORP));
        assert_eq!((identity.sp_id.as_deref(), identity.corp_type), (Some(SP), Some(0)));
        assert_eq!(platform.count(Call::Authenticate), 1);
    }
}

#[tokio::test]
async fn a_wrong_key_or_clock_is_distinguished_by_how_far_the_clocks_are_from_each_other() {
    let platform = started(options()).await;
    let wrong = Options { app_key: SecretString::from("another key"), ..settings(&platform) };
    let error = Client::new(wrong, Clock::System).expect("a client").identity().await.expect_err("refused");
    assert_eq!((error.class, error.code.as_deref()), (Class::Configuration, Some("USG.206010025")));
    assert!(error.problem.ends_with("this machine's clock and the platform's agree"), "{error}");

    platform.set_ahead(3_600_000);
    let error = client(&platform).identity().await.expect_err("refused");
    assert!(
        error.problem.contains("this machine's clock is ") && error.problem.ends_with("behind the platform's"),
        "{error}"
    );
    assert!(error.problem.contains("1h") || error.problem.contains("59m"), "{error}");
    assert!(error.advice.contains("this machine's clock"), "{error:?}");

    // An hour behind it takes us, and a token's end is judged by how long it lasts.
    platform.set_ahead(-3_600_000);
    let client = client(&platform);
    client.subscription().await.expect("an answer");
    client.subscription().await.expect("an answer");
    assert_eq!(platform.count(Call::Authenticate), 3);
}

#[tokio::test]
async fn a_subscription_is_set_enabled_by_a_real_handshake_disabled_and_deleted() {
    let platform = started(options()).await;
    let answers = axum::Router::new().route(
        "/events",
        post(
            |Json(body): Json<Value>| async move { Json(json!({ "event": "meeting.verify", "nonce": body["nonce"] })) },
        ),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/events", listener.local_addr().expect("an address"));
    let receiver = tokio::spawn(async move { axum::serve(listener, answers).await });

    let client = client(&platform);
    assert_eq!(client.subscription().await.expect("an answer"), None);
    let new = NewSubscription {
        subscriber_id: "7700001234".to_owned(),
        subscriber_key: SecretString::from("demo-Subscriber-Key-2025"),
        url: url.clone(),
    };
    client.set_subscription(&new).await.expect("set");
    let found = client.subscription().await.expect("an answer").expect("a subscription");
    assert_eq!((found.subscriber_id.as_deref(), found.url.as_deref()), (Some("7700001234"), Some(url.as_str())));
    assert_eq!(found.status, Status::Disabled);
    client.change_status(&found.id, Status::Enabled).await.expect("enabled");
    assert_eq!(client.subscription().await.expect("an answer").expect("there").status, Status::Enabled);
    client.change_status(&found.id, Status::Disabled).await.expect("disabled");
    assert_eq!(client.subscription().await.expect("an answer").expect("there").status, Status::Disabled);
    client.delete_subscription(&found.id).await.expect("deleted");
    assert_eq!(client.subscription().await.expect("an answer"), None);
    receiver.abort();
}

#[tokio::test]
async fn enabling_in_vain_is_reported_and_at_last_locked_for_an_hour() {
    let now = Arc::new(AtomicI64::new(1_735_700_400_000));
    let clock = Clock::Set(Arc::clone(&now));
    let platform = started(PlatformOptions { lock_after: 2, clock: clock.clone(), ..options() }).await;
    let client = Client::new(settings(&platform), clock).expect("a client");
    let new = NewSubscription {
        subscriber_id: "7700001234".to_owned(),
        subscriber_key: SecretString::from("k"),
        url: "http://127.0.0.1:1/".to_owned(),
    };
    client.set_subscription(&new).await.expect("set");
    let id = client.subscription().await.expect("an answer").expect("there").id;
    for _ in 0..2 {
        let error = client.change_status(&id, Status::Enabled).await.expect_err("nobody answers");
        assert_eq!((error.code.as_deref(), error.class), (Some("MMC.111071121"), Class::Configuration));
    }
    let error = client.change_status(&id, Status::Enabled).await.expect_err("locked");
    assert_eq!((error.code.as_deref(), error.class), (Some("MMC.111071120"), Class::Locked));
    assert_eq!((error.wait, error.request_id.map(|id| id.len())), (Some(Duration::from_secs(3600)), Some(32)));
    assert_eq!(client.subscription().await.expect("an answer").expect("there").status, Status::Locked);
    assert_eq!(platform.count(Call::ChangeStatus), 3);
    now.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(client.subscription().await.expect("an answer").expect("there").status, Status::Disabled);
}

#[tokio::test]
async fn a_history_takes_the_fewest_calls_that_overlap_and_so_do_its_participants() {
    let (platform, since, until) = with_history(1_600, 3, options()).await;
    let client = client(&platform);
    let runs = all(client.history(since, until)).await.expect("the history");
    assert_eq!(
        runs.iter().map(|run| run.conf_uuid.clone().unwrap_or_default()).collect::<Vec<_>>(),
        in_archive(&platform)
    );
    assert_eq!(platform.count(Call::History), 4, "(1600 - 1) / 499, rounded up");
    let first = &runs[0];
    assert_eq!(first.start.map(Millis::get), Some(since.get() / 60_000 * 60_000), "whole minutes");
    assert_eq!((first.state.as_deref(), first.has_record_file), (Some("Destroyed"), Some(true)));
    assert_eq!(first.subject.as_deref(), Some("Meeting 900000000"));

    let uuid = runs[7].conf_uuid.as_deref().expect("a UUID");
    let stays = all(client.attendees(uuid)).await.expect("the participants");
    let expected = platform.edit(|archive| archive.get(uuid).expect("there").stays.clone());
    assert_eq!((stays.len(), platform.count(Call::Attendees)), (3, 1));
    for (stay, expected) in stays.iter().zip(&expected) {
        assert_eq!(stay.display_name.as_deref(), Some(&*expected.display_name));
        assert_eq!(stay.call_number.as_deref(), Some(&*expected.call_number));
        assert_eq!((stay.joined_at, stay.left_at), (Some(expected.joined), expected.left));
    }
    let crowd = Run::made_up(since, Duration::from_secs(1), 1, 1_300).next().expect("a run");
    platform.edit(|archive| archive.put(Run { conf_uuid: "crowd".to_owned(), ..crowd }));
    assert_eq!(all(client.attendees("crowd")).await.expect("the participants").len(), 1_300);
    assert_eq!(platform.count(Call::Attendees), 1 + 3);
    assert_eq!(platform.count(Call::Authenticate), 1);
}

#[tokio::test]
async fn windows_without_a_meeting_and_beyond_the_retention_are_empty() {
    let (platform, since, until) = with_history(3, 1, options()).await;
    let client = client(&platform);
    assert_eq!(uuids(&client, at(1), since.minus(Duration::from_millis(1))).await, Vec::<String>::new());
    let old = until.minus(Duration::from_secs(200 * 86_400));
    platform.edit(|archive| archive.put(Run::over("old", "900000000", old, old)));
    assert_eq!(uuids(&client, old, until).await.len(), 3, "what is older than six months is not there");
    assert!(all(client.attendees("old")).await.expect("an empty list").is_empty());
    assert_eq!(client.past_conference("old").await.expect("an answer"), None);
}

#[tokio::test]
async fn a_list_survives_everything_that_may_come_in_between() {
    let faults = [
        ("503", Fault::Refuse(Refusal::UPGRADING)),
        ("500", Fault::Refuse(Refusal::BUSY)),
        ("400, session", Fault::Refuse(Refusal::SESSION_TIMED_OUT)),
        ("401", Fault::Refuse(Refusal::TOKEN_INVALID)),
        ("expired", Fault::ExpireTokens),
        ("forgotten", Fault::ForgetTokens),
        ("502, HTML", Fault::Html(502)),
        ("closed", Fault::Drop),
        ("half", Fault::DropHalf),
        ("cut off", Fault::Body("{\"data\":[".to_owned())),
        ("repeated", Fault::RepeatPage),
        ("slow", Fault::Slow(Duration::from_millis(300))),
    ];
    let (platform, since, until) = with_history(1_100, 0, options()).await;
    for (name, fault) in faults {
        let client = client(&platform);
        platform.inject_after(Call::History, 1, fault, 1);
        assert_eq!(uuids(&client, since, until).await, in_archive(&platform), "{name}");
    }
}

#[tokio::test]
async fn a_list_that_changes_between_two_pages_is_whole_in_the_end() {
    let (platform, since, until) = with_history(1_600, 0, options()).await;
    let before = in_archive(&platform);
    let client = client(&platform);
    // The oldest leave while we read …
    let oldest = before[..30].to_vec();
    platform.inject_after(
        Call::History,
        2,
        Fault::edit(move |archive| oldest.iter().for_each(|uuid| drop(archive.remove(uuid)))),
        1,
    );
    assert_eq!(uuids(&client, since, until).await, before, "given before they left");
    // … or a long meeting ends that began before the others.
    let late = Run::over("late", "900000000", since, until);
    platform.inject_after(Call::History, 2, Fault::edit(move |archive| archive.put(late.clone())), 1);
    let mut found = uuids(&client, since, until).await;
    found.sort_unstable();
    let mut expected = in_archive(&platform);
    expected.sort_unstable();
    assert!(expected.contains(&"late".to_owned()));
    assert_eq!(found, expected);
}

#[tokio::test]
async fn html_where_the_history_should_be_is_a_sentence_about_a_proxy() {
    let (platform, since, until) = with_history(3, 0, options()).await;
    platform.inject(Call::History, Fault::Html(200), 1);
    let error = all(client(&platform).history(since, until)).await.expect_err("a login page");
    assert_eq!(error.class, Class::Configuration);
    assert!(error.advice.contains("proxy or a login page"), "{error:?}");
    assert_eq!(platform.count(Call::History), 1);
}

#[tokio::test]
async fn the_pace_keeps_us_from_ever_being_throttled() {
    let minute = Duration::from_secs(1);
    let (platform, since, until) = with_history(3, 0, PlatformOptions { limit: 5, minute, ..options() }).await;
    let client = client(&platform);
    // So that the client has seen a header before it makes many calls at once.
    assert_eq!(uuids(&client, since, until).await.len(), 3);
    let many = (0..14).map(|_| uuids(&client, since, until));
    futures_util::future::join_all(many).await;
    assert_eq!(platform.count(Call::History), 15, "none was refused and made again");

    platform.inject(Call::History, Fault::TooMany, 2);
    assert_eq!(uuids(&client, since, until).await.len(), 3, "somebody else used up the limit");
    assert_eq!(platform.count(Call::History), 18);
}

#[tokio::test]
async fn a_token_that_a_65th_authentication_killed_is_replaced() {
    let platform = started(options()).await;
    let first = client(&platform);
    first.subscription().await.expect("an answer");
    for _ in 0..64 {
        client(&platform).identity().await.expect("signed in");
    }
    first.subscription().await.expect("an answer");
    assert_eq!(platform.count(Call::Authenticate), 1 + 64 + 1);
    assert_eq!(platform.count(Call::ShowSubscription), 3);
}

#[tokio::test]
async fn a_recording_is_there_before_it_is_decoded_and_segments_after() {
    let now = Clock::System.now();
    let finished = now.minus(Duration::from_secs(600));
    let recorded = |decoded_from| Recorded { finished, length_s: 5 * 3_600, decode_end: finished, decoded_from };
    for newer_recordings in [false, true] {
        let (platform, since, until) = with_history(0, 0, PlatformOptions { newer_recordings, ..options() }).await;
        let client = client(&platform);
        let mut run = Run::over("run-1", "960000017", since, until);
        run.recordings = vec![recorded(now), recorded(at(now.get() + 3_600_000))];
        platform.edit(|archive| archive.put(run));
        let file = client.recording("run-1").await.expect("an answer");
        let listed = all(client.recordings(since, until)).await.expect("a list");
        assert_eq!((file.is_some(), listed.len()), (!newer_recordings, usize::from(!newer_recordings)));
        if let Some(file) = file {
            assert_eq!((file.decoded, file.length_s, file.urls.len()), (false, Some(36_000), 2));
            assert_eq!((file.conf_id.as_deref(), file.decode_end), (Some("960000017"), Some(finished)));
            platform.edit(|archive| archive.edit("run-1", |run| run.recordings.truncate(1)));
            assert!(client.recording("run-1").await.expect("an answer").expect("a recording").decoded);
        }
        let segments = client.segments("run-1").await.expect("an answer");
        let orders: Vec<_> = segments.iter().map(|it| (it.manual_order, it.segment_order)).collect();
        let expected = if newer_recordings { vec![(Some(1), Some(1)), (Some(1), Some(2))] } else { Vec::new() };
        assert_eq!(orders, expected);
        assert!(segments.iter().all(|segment| segment.size.is_some() && segment.files.len() == 2));
        assert_eq!(client.recording("none").await.expect("an answer"), None);
        assert_eq!(client.segments("none").await.expect("an answer"), []);
    }
}

#[tokio::test]
async fn a_meeting_is_found_by_its_number_while_it_is_not_over_and_by_its_run_afterwards() {
    let (platform, since, until) =
        with_history(0, 0, PlatformOptions { sp_id: Some(SP.to_owned()), ..options() }).await;
    let settings = Options { sp_id: Some(SP.to_owned()), ..settings(&platform) };
    let provider = Client::new(settings, Clock::System).expect("a client");
    let client = provider.of_enterprise(CORP);
    let mut run = Run::over("run-1", "960000017", since, until);
    run.state = State::Running;
    run.cycle_sub_conf_id = Some("sub-1".to_owned());
    platform.edit(|archive| archive.put(run.clone()));
    let now = client.conference("960000017").await.expect("an answer").expect("a meeting");
    assert_eq!((now.conf_uuid.as_deref(), &*now.occurrences[0].id), (Some("run-1"), "sub-1"));
    assert_eq!((now.state.as_deref(), now.scheduler_name.as_deref()), (Some("Created"), Some("Demo User")));
    assert_eq!(client.past_conference("run-1").await.expect("an answer"), None);

    run.state = State::Over;
    platform.edit(|archive| archive.put(run));
    assert_eq!(client.conference("960000017").await.expect("an answer"), None);
    let then = client.past_conference("run-1").await.expect("an answer").expect("a run");
    assert_eq!((then.conference_id.as_deref(), then.state.as_deref()), (Some("960000017"), Some("Destroyed")));
    assert_eq!(provider.enterprise_of("960000017").await.expect("an answer").as_deref(), Some(CORP));
    assert_eq!(provider.enterprise_of("1").await.expect("an answer"), None);
}

#[tokio::test]
async fn without_the_rights_of_an_administrator_it_is_said_whom_to_ask() {
    let (platform, since, until) = with_history(3, 0, options()).await;
    let settings = Options { user_id: Some("bob".to_owned()), ..settings(&platform) };
    let error =
        all(Client::new(settings, Clock::System).expect("a client").history(since, until)).await.expect_err("no");
    assert_eq!((error.class, error.code.as_deref()), (Class::Configuration, Some("MMC.111070002")));
    assert!(error.advice.contains("administrator"), "{error:?}");
}
