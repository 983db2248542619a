//! The platform, or what stands in between, at its worst.

use std::time::Duration;

use convoke_core::time::{Clock, Millis};
use convoke_platform::{Class, Client, NewSubscription, Options, PlatformError, Status};
use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpListener;

use super::scripted_server::{APP_KEY, AUTHENTICATION, CHANGE_STATUS, LINK_CONFIG, Reply, Scripted, signed_in};

fn html(status: u16) -> Reply {
    Reply::Text(status, vec![("content-type", "text/html".to_owned())], "<html>Please log in</html>".to_owned())
}

/// What comes of a call that is not repeated, and gets this answer.
async fn enabling(reply: impl Fn() -> Reply + Send + Sync + 'static) -> PlatformError {
    let platform = Scripted::signed_in(move |_| reply()).await;
    let error = platform.client().change_status("id", Status::Enabled).await.expect_err("a failure");
    assert_eq!(platform.asked(CHANGE_STATUS).len(), 1, "enabling is never tried again: {error}");
    error
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_passes() {
    let platform = Scripted::signed_in(|asked| match asked.nth {
        0 => Reply::refusal(503, "USG.000000008", "The system is being upgraded."),
        1 => Reply::Gone,
        2 => html(502),
        3 => Reply::refusal(500, "MMC.111070003", "CONF_EXCEPTION"),
        _ => Reply::Json(200, json!({ "id": "1", "status": 0 })),
    })
    .await;
    assert!(platform.client().subscription().await.expect("an answer").is_some());
    assert_eq!(platform.asked(LINK_CONFIG).len(), 5);
}

#[tokio::test]
async fn what_does_not_pass_is_given_up_with_the_platforms_code_and_request_id() {
    let platform = Scripted::signed_in(|_| Reply::refusal(500, "MMC.111071001", "CONF\r\nFAILED")).await;
    let error = platform.client().subscription().await.expect_err("a failure");
    assert_eq!(error.to_string(), "reading the subscription: the platform answered 500 MMC.111071001 CONF  FAILED");
    assert_eq!(
        (error.class, error.status, error.code.as_deref()),
        (Class::Transient, Some(500), Some("MMC.111071001"))
    );
    assert_eq!(error.request_id.as_deref(), Some("request-1"));
    assert_eq!(platform.asked(LINK_CONFIG).len(), 6);
}

#[tokio::test]
async fn a_throttled_call_waits_as_long_as_the_answer_says_and_is_made_again() {
    let platform = Scripted::signed_in(|asked| match asked.nth {
        0 => {
            let headers = vec![("retry-after", "1".to_owned())];
            let body = json!({ "error_code": "APIG.0308", "error_msg": "The throttling threshold has been reached" });
            Reply::Text(429, headers, body.to_string())
        }
        _ => Reply::Json(200, json!({})),
    })
    .await;
    let client = platform.client();
    client.identity().await.expect("signed in");
    let start = tokio::time::Instant::now();
    client.subscription().await.expect("an answer");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(platform.asked(LINK_CONFIG).len(), 2);
}

#[tokio::test]
async fn the_gateways_headers_are_heeded_before_it_throttles() {
    let platform = Scripted::signed_in(|asked| {
        let left = 3_usize.saturating_sub(asked.nth + 1);
        let headers = vec![
            ("x-apig-ratelimit-api", format!("remain:{left},limit:3,time:1 second")),
            ("x-apig-ratelimit-api", "remain:100,limit:200,time:1 minute".to_owned()),
        ];
        Reply::Text(200, headers, "{}".to_owned())
    })
    .await;
    let client = platform.client();
    client.identity().await.expect("signed in");
    let start = tokio::time::Instant::now();
    for _ in 0..4 {
        client.subscription().await.expect("an answer");
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn enabling_is_never_tried_again_by_itself() {
    let error = enabling(|| Reply::Gone).await;
    assert_eq!((error.class, error.status), (Class::Transient, None));
    let error = enabling(|| Reply::refusal(500, "MMC.111070003", "CONF_EXCEPTION")).await;
    assert_eq!(error.class, Class::Transient);
    assert_eq!(enabling(|| Reply::refusal(429, "APIGW.0308", "")).await.class, Class::Transient);

    let error = enabling(|| Reply::refusal(423, "MMC.111071120", "WEBHOOK_CONFIG_IS_LOCKED")).await;
    assert_eq!((error.class, error.wait), (Class::Locked, Some(Duration::from_secs(3600))));
    assert!(error.advice.contains("wait an hour"), "{error:?}");
    let error = enabling(|| Reply::refusal(400, "MMC.111071121", "WEBHOOK_CONFIG_ENABLE_FAILED")).await;
    assert_eq!((error.class, error.code.as_deref()), (Class::Configuration, Some("MMC.111071121")));
    assert!(error.advice.contains("did not answer the platform's handshake"), "{error:?}");
}

#[tokio::test]
async fn a_page_of_html_is_said_to_be_one() {
    for (status, class) in [(200, Class::Configuration), (404, Class::Configuration), (502, Class::Transient)] {
        let error = enabling(move || html(status)).await;
        assert_eq!((error.class, error.status), (class, Some(status)));
        assert!(error.problem.contains("an HTML page came instead of JSON"), "{error}");
    }
    assert!(enabling(|| html(200)).await.advice.contains("A proxy or a login page answered"));
    // Unnamed, but to be seen.
    let error = enabling(|| Reply::Text(200, Vec::new(), " <!doctype html>".to_owned())).await;
    assert!(error.problem.contains("HTML"), "{error}");
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let elsewhere = Scripted::signed_in(|_| Reply::Json(200, json!({}))).await;
    let location = format!("http://{}/", elsewhere.address);
    let error = enabling(move || Reply::Text(302, vec![("location", location.clone())], String::new())).await;
    assert_eq!((error.class, error.status), (Class::Configuration, Some(302)));
    assert!(error.advice.contains("platform.url"), "{error:?}");
    assert_eq!(elsewhere.asked("/").len(), 0);
}

#[tokio::test]
async fn an_answer_that_is_no_json_or_cut_off_is_a_failure_that_may_pass() {
    let error = enabling(|| Reply::Text(200, Vec::new(), "{\"id\":".to_owned())).await;
    assert_eq!(error.class, Class::Transient);
    assert!(error.problem.contains("not JSON"), "{error}");
    let longer = || Reply::Text(200, vec![("content-length", "900".to_owned())], "{}".to_owned());
    assert_eq!(enabling(longer).await.class, Class::Transient);
}

#[tokio::test]
async fn an_answer_without_end_is_left_at_sixteen_mebibytes() {
    let error = enabling(|| Reply::Endless).await;
    assert_eq!(error.class, Class::Bug);
    assert!(error.problem.contains("larger than 16 MiB"), "{error}");
}

#[tokio::test]
async fn a_platform_that_says_nothing_is_left_after_the_time_that_was_set() {
    let platform = Scripted::signed_in(|_| Reply::After(Duration::from_secs(60), Box::new(Reply::Gone))).await;
    let options = Options { timeout: Duration::from_millis(400), ..platform.options() };
    let client = Client::new(options, Clock::System).expect("a client");
    let error = client.change_status("id", Status::Enabled).await.expect_err("silence");
    assert_eq!(error.class, Class::Transient);
    assert!(error.problem.contains("no answer from the platform within 400ms"), "{error}");
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_said_to_be_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let platform = Scripted::signed_in(|_| Reply::Gone).await;
    let client = Client::new(Options { url, ..platform.options() }, Clock::System).expect("a client");
    let error = client.identity().await.expect_err("nobody there");
    assert_eq!((error.class, error.status), (Class::Transient, None));
    assert!(error.problem.contains("onnection refused"), "{error}");
}

#[tokio::test]
async fn refusals_that_somebody_has_to_settle_are_not_tried_again_and_say_what_to_do() {
    for (status, code, class, advice) in [
        (403, "MMC.111070002", Class::Configuration, "administrator"),
        (403, "", Class::Configuration, "administrator"),
        (403, "MBI.104030001", Class::Configuration, "flagship"),
        (404, "APIG.0101", Class::Configuration, "platform.url"),
        (412, "", Class::Configuration, "disabled"),
        (500, "MMC.111071117", Class::Configuration, "list"),
        (423, "MMC.118000002", Class::Locked, "unlock"),
        (400, "MMC.111071061", Class::Bug, "request ID"),
        (418, "", Class::Bug, "request ID"),
    ] {
        let platform = Scripted::signed_in(move |_| Reply::refusal(status, code, "TEXT")).await;
        let error = platform.client().subscription().await.expect_err("a refusal");
        assert_eq!((error.class, error.status), (class, Some(status)), "{status} {code}");
        assert!(error.advice.contains(advice), "{error:?}");
        assert!(error.problem.contains("TEXT"), "{error}");
        assert_eq!(platform.asked(LINK_CONFIG).len(), 1, "{status} {code}");
    }
}

#[tokio::test]
async fn no_secret_shows_in_errors_or_debug_output_even_if_the_platform_repeats_it() {
    let echo = |header: &'static str| {
        move |asked: &super::scripted_server::Asked| {
            let secret = asked.header(header).unwrap_or_default();
            let text = format!("you sent {secret} and {APP_KEY} and {}", asked.body["subscriberKey"]);
            Reply::Json(400, json!({ "error_code": format!("X{secret}"), "error_msg": text }))
        }
    };
    let platform = Scripted::start(echo("authorization")).await;
    let client = platform.client();
    let error = client.identity().await.expect_err("refused");
    let signature = platform.asked(AUTHENTICATION)[0].header("authorization").expect("there").to_owned();
    let shown = format!("{error} {error:?} {client:?} {:?}", platform.options());
    assert!(!shown.contains(APP_KEY) && !shown.contains(&signature), "{shown}");

    let echoed = echo("x-access-token");
    let platform =
        Scripted::start(move |asked| if asked.path == AUTHENTICATION { signed_in(asked) } else { echoed(asked) }).await;
    let client = platform.client();
    let new = NewSubscription {
        subscriber_id: "7700001234".to_owned(),
        subscriber_key: SecretString::from("demo-Subscriber-Key-2025"),
        url: "https://hooks.example.com/".to_owned(),
    };
    let error = client.set_subscription(&new).await.expect_err("refused");
    let mut pages = client.history(Millis::EPOCH, Millis::MAX);
    let other = pages.next().await.expect_err("refused");
    let shown = format!("{error} {error:?} {other} {other:?} {client:?} {pages:?} {new:?}");
    for secret in ["token-0", APP_KEY, "demo-Subscriber-Key-2025"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}
