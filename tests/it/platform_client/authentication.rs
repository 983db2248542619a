//! Signing in: what is sent, how seldom, and what is said when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use convoke_core::time::Clock;
use convoke_platform::{Class, Client, Options};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::support::{rig::LONG_TIMEOUT, wait::eventually};

use super::scripted_server::{APP_ID, APP_KEY, AUTHENTICATION, Asked, LINK_CONFIG, Reply, Scripted, signed_in};

fn no_subscription(_: &Asked) -> Reply {
    Reply::Json(200, json!({}))
}

/// A clock that stands, and the hand to move it.
fn standing_clock() -> (Clock, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(1_735_700_400_000));
    (Clock::Set(Arc::clone(&now)), now)
}

fn hmac(signed: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(APP_KEY.as_bytes()).expect("any key");
    hex::encode(mac.chain_update(signed).finalize().into_bytes())
}

#[tokio::test]
async fn each_way_of_signing_in_sends_what_it_signs_and_nothing_that_it_must_not() {
    let (user, corp, sp) = (Some("alice@example-corp"), Some("660012345"), Some("sp1"));
    // Who we are, which of body's names are there, and what is signed between App ID and time.
    for (user_id, corp_id, sp_id, names, signed) in [
        (None, None, None, "", ":"),
        (user, None, None, "userId", ":alice@example-corp"),
        // A single enterprise knows its ID, too, and must not send it.
        (user, corp, None, "userId", ":alice@example-corp"),
        (user, corp, sp, "corpId userId", ":660012345:alice@example-corp"),
        (None, corp, sp, "corpId", ":660012345:"),
        (None, None, sp, "", "::"),
    ] {
        let platform = Scripted::signed_in(no_subscription).await;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let options =
            Options { user_id: owned(user_id), corp_id: owned(corp_id), sp_id: owned(sp_id), ..platform.options() };
        let (clock, _) = standing_clock();
        let identity = Client::new(options, clock).expect("a client").identity().await.expect("signed in");
        assert_eq!(identity.corp_id.as_deref(), Some("660012345"));
        assert_eq!((identity.user_type, identity.admin_type, identity.corp_type), (Some(2), Some(0), Some(0)));

        let asked = &platform.asked(AUTHENTICATION)[0];
        assert_eq!(asked.header("x-token-type"), Some("LongTicket"));
        assert_eq!(asked.header("content-type"), Some("application/json; charset=UTF-8"));
        let body = asked.body.as_object().expect("an object");
        let expected = ["appId", "clientType", "expireTime", "nonce"].into_iter().chain(names.split_whitespace());
        let mut expected: Vec<&str> = expected.collect();
        expected.sort_unstable();
        let mut sent: Vec<&str> = body.keys().map(String::as_str).collect();
        sent.sort_unstable();
        assert_eq!(sent, expected);
        assert_eq!((body["appId"].as_str(), body["clientType"].as_i64()), (Some(APP_ID), Some(72)));
        assert_eq!(body["expireTime"].as_i64(), Some(1_735_700_400 + 600), "seconds, ten minutes on");
        let nonce = body["nonce"].as_str().expect("a string");
        assert!((32..=64).contains(&nonce.len()), "{nonce}");
        for (name, value) in [("userId", user_id), ("corpId", corp_id.filter(|_| sp_id.is_some()))] {
            assert_eq!(body.get(name).and_then(|value| value.as_str()), value);
        }
        let signature = hmac(&format!("{APP_ID}{signed}:{}:{nonce}", 1_735_700_400 + 600));
        let access = base64::engine::general_purpose::STANDARD.encode(APP_ID);
        let header = format!("HMAC-SHA256 signature={signature},access={access}");
        assert_eq!(asked.header("authorization"), Some(header.as_str()), "{names}");
    }
}

#[tokio::test]
async fn many_callers_at_once_share_one_authentication() {
    let platform = Scripted::start(|asked| match asked.path.as_str() {
        AUTHENTICATION => Reply::After(Duration::from_millis(200), Box::new(signed_in(asked))),
        _ => no_subscription(asked),
    })
    .await;
    let client = platform.client();
    let calls = (0..40).map(|_| {
        let client = client.clone();
        async move { client.subscription().await }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1);
    let asked = platform.asked(LINK_CONFIG);
    assert_eq!(asked.len(), 40);
    assert!(asked.iter().all(|asked| asked.header("x-access-token") == Some("token-0")));
}

#[tokio::test]
async fn a_token_that_was_killed_is_replaced_by_one_authentication_for_all_callers() {
    let platform = Scripted::start(|asked| match asked.path.as_str() {
        AUTHENTICATION => Reply::After(Duration::from_millis(100), Box::new(signed_in(asked))),
        _ if asked.header("x-access-token") == Some("token-0") => {
            Reply::After(Duration::from_millis(50), Box::new(Reply::refusal(401, "USG.201000000", "Invalid token.")))
        }
        _ => no_subscription(asked),
    })
    .await;
    let client = platform.client();
    client.identity().await.expect("signed in");
    let calls = (0..20).map(|_| {
        let client = client.clone();
        async move { client.subscription().await }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!((platform.asked(AUTHENTICATION).len(), platform.most_at_once(AUTHENTICATION)), (2, 1));
}

#[tokio::test]
async fn a_token_is_renewed_ten_minutes_before_its_end_whatever_the_two_clocks_say() {
    let platform = Scripted::signed_in(no_subscription).await;
    // The platform's answer says that the token was made, and ends, in 2024; we live an hour earlier.
    let (clock, now) = standing_clock();
    now.fetch_sub(3_600_000, Ordering::Relaxed);
    let client = Client::new(platform.options(), clock).expect("a client");
    client.identity().await.expect("signed in");
    now.fetch_add((64_800 - 601) * 1000, Ordering::Relaxed);
    client.identity().await.expect("signed in");
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1);
    now.fetch_add(2000, Ordering::Relaxed);
    client.identity().await.expect("signed in");
    assert_eq!(platform.asked(AUTHENTICATION).len(), 2);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_serves_until_its_end() {
    let platform = Scripted::start(|asked| match (asked.path.as_str(), asked.nth) {
        (AUTHENTICATION, 0) => signed_in(asked),
        (AUTHENTICATION, _) => Reply::refusal(401, "USG.206010025", "App auth failed."),
        _ => no_subscription(asked),
    })
    .await;
    let (clock, now) = standing_clock();
    let client = Client::new(platform.options(), clock).expect("a client");
    client.subscription().await.expect("an answer");
    now.fetch_add((64_800 - 300) * 1000, Ordering::Relaxed);
    for _ in 0..3 {
        client.subscription().await.expect("an answer");
    }
    assert_eq!(platform.asked(AUTHENTICATION).len(), 2, "tried once, and not again at once");
    now.fetch_add(301_000, Ordering::Relaxed);
    assert_eq!(client.subscription().await.expect_err("no token").class, Class::Configuration);
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_is_a_failure_and_does_not_lead_to_endless_authentications() {
    let platform = Scripted::signed_in(|_| Reply::refusal(401, "MMC.118000000", "USER_AUTHENTICATION_FAILED")).await;
    let (clock, now) = standing_clock();
    let client = Client::new(platform.options(), clock).expect("a client");
    let error = client.subscription().await.expect_err("refused");
    assert_eq!((error.class, error.code.as_deref()), (Class::Token, Some("MMC.118000000")));
    assert_eq!((platform.asked(AUTHENTICATION).len(), platform.asked(LINK_CONFIG).len()), (2, 2));

    for _ in 0..30 {
        assert_eq!(client.subscription().await.expect_err("refused").class, Class::Token);
    }
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1 + 5, "five replacements at once");
    let error = client.subscription().await.expect_err("refused");
    assert!(error.wait.is_some_and(|wait| wait <= Duration::from_secs(1800)), "{error:?}");
    now.fetch_add(1_800_000, Ordering::Relaxed);
    for _ in 0..3 {
        client.subscription().await.expect_err("refused");
    }
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1 + 5 + 1, "and one more in half an hour");
}

#[tokio::test]
async fn a_wrong_key_is_tried_once_and_then_not_for_a_minute() {
    let platform = Scripted::start(|_| Reply::refusal(401, "USG.206010025", "App auth failed.")).await;
    let (clock, now) = standing_clock();
    let client = Client::new(platform.options(), clock).expect("a client");
    for _ in 0..10 {
        let error = client.subscription().await.expect_err("refused");
        assert_eq!((error.class, error.status, error.doing), (Class::Configuration, Some(401), "authenticating"));
        assert!(error.problem.contains("401 USG.206010025 App auth failed."), "{error}");
        assert!(error.advice.contains("platform.app_key_file") && error.advice.contains("clock"), "{error:?}");
        assert_eq!(error.request_id.as_deref(), Some("request-1"));
    }
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1);
    // Twice as long with each further failure.
    for (seconds, authentications) in [(59, 1), (2, 2), (119, 2), (2, 3)] {
        now.fetch_add(seconds * 1000, Ordering::Relaxed);
        client.subscription().await.expect_err("refused");
        assert_eq!(platform.asked(AUTHENTICATION).len(), authentications, "{seconds}");
    }
}

#[tokio::test]
async fn a_refused_signature_says_how_far_the_clocks_are_apart() {
    for (date, said) in [
        ("Wed, 01 Jan 2025 04:00:00 GMT", "this machine's clock is 1h behind the platform's"),
        ("Wed, 01 Jan 2025 02:00:00 GMT", "this machine's clock is 1h ahead of the platform's"),
        ("Wed, 01 Jan 2025 03:00:07 GMT", "this machine's clock and the platform's agree"),
    ] {
        let platform = Scripted::start(move |_| {
            let body = json!({ "error_code": "USG.206010025", "error_msg": "App auth failed." }).to_string();
            Reply::Text(401, vec![("date", date.to_owned())], body)
        })
        .await;
        let (clock, _) = standing_clock();
        let client = Client::new(platform.options(), clock).expect("a client");
        let error = client.identity().await.expect_err("refused");
        assert!(error.problem.ends_with(said), "{error}");
    }
}

#[tokio::test]
async fn a_locked_account_is_left_alone_for_as_long_as_the_platform_says() {
    let platform =
        Scripted::start(|_| Reply::refusal(423, "USG.206030015", "User is locked, try in 700 seconds.")).await;
    let (clock, now) = standing_clock();
    let client = Client::new(platform.options(), clock).expect("a client");
    let error = client.identity().await.expect_err("locked");
    assert_eq!((error.class, error.wait), (Class::Locked, Some(Duration::from_secs(700))));
    now.fetch_add(300_000, Ordering::Relaxed);
    let error = client.identity().await.expect_err("still locked");
    assert_eq!((error.class, error.wait), (Class::Locked, Some(Duration::from_secs(400))));
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1);
    now.fetch_add(400_000, Ordering::Relaxed);
    client.identity().await.expect_err("locked again");
    assert_eq!(platform.asked(AUTHENTICATION).len(), 2);
}

#[tokio::test]
async fn an_authentication_that_failed_in_passing_is_tried_again_with_a_new_nonce() {
    let platform = Scripted::start(|asked| match asked.nth {
        0 => Reply::refusal(500, "USG.000000001", "The server is busy."),
        1 => Reply::Gone,
        _ => signed_in(asked),
    })
    .await;
    platform.client().identity().await.expect("signed in in the end");
    let nonces: Vec<String> =
        platform.asked(AUTHENTICATION).iter().map(|asked| asked.body["nonce"].to_string()).collect();
    assert_eq!(nonces.len(), 3);
    assert!(nonces[0] != nonces[1] && nonces[1] != nonces[2] && nonces[0] != nonces[2]);
}

#[tokio::test]
async fn an_authentication_that_nobody_waited_for_is_not_followed_at_once_by_another() {
    let slow = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&slow);
    let platform = Scripted::start(move |asked| {
        let pause = Duration::from_secs(if still.load(Ordering::Relaxed) { 60 } else { 0 });
        Reply::After(pause, Box::new(signed_in(asked)))
    })
    .await;
    // Its clock stands, so that the pause is whole however long the machine takes for the rest.
    let (clock, _) = standing_clock();
    let client = Client::new(platform.options(), clock).expect("a client");
    tokio::select! {
        _ = client.identity() => panic!("it was answered"),
        () = eventually("it is asked", LONG_TIMEOUT, async || platform.asked(AUTHENTICATION).len() == 1) => {}
    }
    slow.store(false, Ordering::Relaxed);
    let impatient = tokio::time::timeout(Duration::from_millis(300), client.identity()).await;
    assert!(impatient.is_err(), "it waits for its turn");
    assert_eq!(platform.asked(AUTHENTICATION).len(), 1);
    client.identity().await.expect("signed in after a second");
    assert_eq!(platform.asked(AUTHENTICATION).len(), 2);
}
