//! 3.2.1: signatures, refusals, tokens.

use std::{sync::Arc, sync::atomic::AtomicI64, time::Duration};

use convoke_core::time::Clock;
use convoke_simulator::platform::{Call, PlatformOptions};
use reqwest::Method;
use serde_json::{Value, json};

use super::{APP_ID, APP_KEY, CORP, Client, Login, USER, assert_refused, options, signature, started};

const HISTORY: &str = "/v1/mmc/management/conferences/history?startDate=0&endDate=1&queryAll=true";

fn provider() -> PlatformOptions {
    PlatformOptions { sp_id: Some("sp-1".to_owned()), ..options() }
}

#[tokio::test]
async fn the_five_forms_of_the_signature_are_distinguished_and_taken() {
    let (single, multi) = (started(options()).await, started(provider()).await);
    for (platform, parts, body, company, kind) in [
        (&single, USER, json!({ "userId": USER }), json!(CORP), (2, 2)),
        (&single, "", json!({}), json!(CORP), (2, 0)),
        (&single, "", json!({ "userId": "" }), json!(CORP), (2, 0)),
        (&multi, &*format!("{CORP}:{USER}"), json!({ "corpId": CORP, "userId": USER }), json!(CORP), (2, 2)),
        (&multi, &*format!("{CORP}:"), json!({ "corpId": CORP }), json!(CORP), (2, 0)),
        (&multi, ":", json!({}), Value::Null, (1, 0)),
    ] {
        let answer = Login::new(parts, &body).send(platform).await;
        assert_eq!(answer.status, 200, "{parts:?} {body}: {}", answer.text());
        let user = &answer.json()["user"];
        assert_eq!(user["companyId"], company, "{parts:?}");
        assert_eq!((user["userType"].as_i64(), user["adminType"].as_i64()), (Some(kind.0), Some(kind.1)), "{parts:?}");
    }
}

/// The vectors of the signature: the same text must give the same digits, or this test's own arithmetic is wrong.
#[test]
fn the_vectors_of_the_signature_reproduce() {
    let tail = "1735701000:demoNonce0demoNonce1demoNonce2demoNonce3";
    for (parts, expected) in [
        (USER, "3bc976010855a13baf2ecdbb0c3aed15dd8d6bfe9ff7225e09e5d88162f3a545"),
        ("", "fca028e9795b2046462d69f9e6a39953dbe2b18a7570fe2d834e24f22afc9ab1"),
        (&*format!("{CORP}:{USER}"), "28ee37bef115859bba234c2b1a677419e1dee83b384a28a4bdc833800e51f781"),
        (&*format!("{CORP}:"), "7787ce36009848ffcc12df58548666933d876bef2a869214295592c522f8b276"),
        (":", "582cf48c4c0d34e730e3393d0da3f4d16ebaaa5b1b7d6fe4c97a51ba603ec613"),
    ] {
        assert_eq!(signature(APP_KEY, &format!("{APP_ID}:{parts}:{tail}")), expected, "{parts:?}");
    }
}

/// A change that makes a right authentication wrong.
type Spoil = fn(&mut Login);

#[tokio::test]
async fn what_is_wrong_with_an_authentication_is_refused() {
    let platform = started(options()).await;
    let cases: [(&str, Spoil, u16, &str); 12] = [
        ("another key", |login| login.key = "no".into(), 401, "USG.206010025"),
        (
            "signed for a user that the body does not name",
            |login| login.signed = login.signed.replacen("::", ":u:", 1),
            401,
            "USG.206010025",
        ),
        ("a colon too many", |login| login.signed = login.signed.replacen("::", ":::", 1), 401, "USG.206010025"),
        ("corpId in single-enterprise mode", |login| login.body["corpId"] = json!(CORP), 401, "USG.206010025"),
        (
            "expired",
            |login| {
                login.signed = login.signed.replace("4000000000", "1735701000");
                login.body["expireTime"] = json!(1_735_701_000);
            },
            401,
            "USG.206010025",
        ),
        ("an App ID that is not there", |login| login.body["appId"] = json!("other"), 400, "USG.201200003"),
        ("another type of client", |login| login.body["clientType"] = json!(0), 400, "USG.000000003"),
        ("a short nonce", |login| login.body["nonce"] = json!("x".repeat(31)), 400, "USG.000000003"),
        ("a long nonce", |login| login.body["nonce"] = json!("x".repeat(65)), 400, "USG.000000003"),
        ("no expiry", |login| login.body["expireTime"] = Value::Null, 400, "USG.000000003"),
        ("another X-Token-Type", |login| login.headers[0].1 = "ShortTicket".into(), 400, "USG.000000003"),
        ("no Content-Type", |login| drop(login.headers.remove(1)), 400, "USG.000000003"),
    ];
    for (what, spoil, status, code) in cases {
        let mut login = Login::administrator();
        spoil(&mut login);
        let answer = login.send(&platform).await;
        assert_eq!((answer.status, answer.json()["error_code"].as_str()), (status, Some(code)), "{what}");
    }
    let login = Login::administrator();
    let right = login.authorization();
    let (signature, access) = right.split_once(",access=").expect("two parts");
    for wrong in [&format!("{signature},access=AAAA"), &right.replacen("HMAC-SHA256 ", "", 1), ""] {
        assert_refused(&login.send_with(&platform, wrong).await, 401, "USG.206010025");
    }
    let upper =
        format!("HMAC-SHA256 signature={},access={access}", signature.rsplit('=').next().unwrap().to_uppercase());
    assert_eq!(login.send_with(&platform, &upper).await.status, 200, "either case of hex is compared alike");
    assert_eq!(platform.count(Call::Authenticate), 16);
}

#[tokio::test]
async fn it_takes_what_every_sdk_of_the_vendor_sends_to_sign_in() {
    let platform = started(options()).await;
    let mut login = Login::administrator();
    // None of them but Python's names `access`, and none sends `X-Token-Type`; Python's leaves empty members in the body.
    login.headers.remove(0);
    login.body["userId"] = json!("");
    login.body["corpId"] = Value::Null;
    login.body["deptCode"] = Value::Null;
    let right = login.authorization();
    let (signature, _) = right.split_once(",access=").expect("two parts");
    for authorization in [signature, &right] {
        assert_eq!(login.send_with(&platform, authorization).await.status, 200, "{authorization}");
    }
    // Java's reads the request's id of every refusal from its body.
    let refused = login.send_with(&platform, "").await;
    assert_eq!(refused.json()["request_id"].as_str(), refused.header("X-Request-Id"), "{}", refused.text());
    assert!(refused.header("X-Request-Id").is_some());
}

#[tokio::test]
async fn a_token_is_given_back_renewed_and_looked_at() {
    const TOKEN: &str = "/v1/usg/acs/token";
    let platform = started(options()).await;
    let issued = Login::administrator().send(&platform).await.json();
    let text = |answer: &Value, name: &str| answer[name].as_str().expect("a token").to_owned();
    let client = |token: String| Client { platform: &platform, token };
    let (access, refresh) = (text(&issued, "accessToken"), text(&issued, "refreshToken"));

    let look = json!({ "token": access, "needGenNewToken": false, "needAccountInfo": true });
    let seen = client(String::new()).call(Method::POST, &format!("{TOKEN}/validate"), &look).await;
    assert_eq!((seen.status, text(&seen.json(), "accessToken")), (200, access.clone()));
    assert_eq!(seen.json()["user"]["companyId"], CORP);
    let unknown = json!({ "token": "made up", "needGenNewToken": false });
    let unknown = client(String::new()).call(Method::POST, &format!("{TOKEN}/validate"), &unknown).await;
    assert_refused(&unknown, 401, "MMC.118000000");

    // The header takes the refresh token, whatever its name says.
    assert_refused(&client(access.clone()).call(Method::PUT, TOKEN, &Value::Null).await, 401, "MMC.118000000");
    let renewed = client(refresh.clone()).call(Method::PUT, TOKEN, &Value::Null).await.json();
    let next = client(text(&renewed, "accessToken"));
    assert_refused(&client(access).get(HISTORY).await, 401, "MMC.118000000");
    assert_refused(&next.get(HISTORY).await, 400, "MMC.111071069");
    assert_eq!(platform.tokens(), 1, "a renewed one takes no second place");

    assert_eq!(next.call(Method::DELETE, TOKEN, &Value::Null).await.status, 200);
    assert_refused(&next.get(HISTORY).await, 401, "MMC.118000000");
    assert_refused(&next.call(Method::DELETE, TOKEN, &Value::Null).await, 401, "MMC.118000000");
    assert_refused(
        &client(text(&renewed, "refreshToken")).call(Method::PUT, TOKEN, &Value::Null).await,
        401,
        "MMC.118000000",
    );
    assert_eq!(platform.tokens(), 0);
}

#[tokio::test]
async fn a_signature_that_expires_with_0_never_does() {
    let platform = started(options()).await;
    let mut login = Login::administrator();
    login.signed = login.signed.replace("4000000000", "0");
    login.body["expireTime"] = json!(0);
    assert_eq!(login.send(&platform).await.status, 200);
}

#[tokio::test]
async fn a_clock_that_is_ahead_sees_signatures_as_expired_and_says_so_in_its_date() {
    let clock = Clock::Set(Arc::new(AtomicI64::new(1_735_700_400_000)));
    let platform = started(PlatformOptions { clock, ..options() }).await;
    let mut login = Login::administrator();
    login.signed = login.signed.replace("4000000000", "1735701000");
    login.body["expireTime"] = json!(1_735_701_000);
    let answer = login.send(&platform).await;
    assert_eq!((answer.status, answer.header("Date")), (200, Some("Wed, 01 Jan 2025 03:00:00 GMT")));
    platform.set_ahead(3_600_000);
    let answer = login.send(&platform).await;
    assert_refused(&answer, 401, "USG.206010025");
    assert_eq!(answer.header("Date"), Some("Wed, 01 Jan 2025 04:00:00 GMT"));
}

#[tokio::test]
async fn the_units_of_an_answer_are_mixed_as_the_platform_mixes_them() {
    let platform = started(options()).await;
    let answer = Login::administrator().send(&platform).await.json();
    let number = |name: &str| answer[name].as_i64().unwrap_or_else(|| panic!("{name} in {answer}"));
    assert_eq!(number("createTime") / 1_000 + number("validPeriod"), number("expireTime"));
    assert_eq!(number("refreshCreateTime") / 1_000 + number("refreshValidPeriod"), number("refreshExpireTime"));
    assert_eq!((number("validPeriod"), number("tokenType"), number("clientType")), (64_800, 0, 72));
}

#[tokio::test]
async fn the_65th_token_of_a_user_silently_kills_the_oldest_and_nobody_elses() {
    let platform = started(options()).await;
    let oldest = Client::new(&platform).await;
    let other =
        Client { platform: &platform, token: Login::new(USER, &json!({ "userId": USER })).token(&platform).await };
    let mut tokens = Vec::new();
    for _ in 0..63 {
        tokens.push(Login::administrator().token(&platform).await);
    }
    assert_refused(&oldest.get(HISTORY).await, 400, "MMC.111071069");
    Login::administrator().token(&platform).await;
    assert_refused(&oldest.get(HISTORY).await, 401, "MMC.118000000");
    let second = Client { platform: &platform, token: tokens.swap_remove(0) };
    assert_refused(&second.get(HISTORY).await, 400, "MMC.111071069");
    assert_refused(&other.get(HISTORY).await, 403, "MMC.111070002");
}

#[tokio::test]
async fn a_token_is_needed_known_and_not_expired() {
    let now = Arc::new(AtomicI64::new(1_735_700_400_000));
    let clock = Clock::Set(Arc::clone(&now));
    let platform = started(PlatformOptions { clock, token_valid: Duration::from_secs(60), ..options() }).await;
    let mut client = Client::new(&platform).await;
    assert_refused(&client.get(HISTORY).await, 400, "MMC.111071069");
    now.fetch_add(60_000, std::sync::atomic::Ordering::Relaxed);
    assert_refused(&client.get(HISTORY).await, 400, "MMC.118000001");
    client.token = "made up".into();
    assert_refused(&client.get(HISTORY).await, 401, "MMC.118000000");
    client.token = String::new();
    assert_refused(&client.get(HISTORY).await, 400, "MMC.111070111");
}

#[tokio::test]
async fn a_service_provider_names_enterprises_that_are_its_own() {
    let platform = started(provider()).await;
    let unknown = Login::new("1:", &json!({ "corpId": "1" })).send(&platform).await;
    assert_refused(&unknown, 400, "USG.201020000");
    let nobodys = Login::new(&format!(":{USER}"), &json!({ "userId": USER })).send(&platform).await;
    assert_refused(&nobodys, 401, "USG.206010025");
    let three_colons = Login::new(&format!("{CORP}::"), &json!({ "corpId": CORP })).send(&platform).await;
    assert_refused(&three_colons, 401, "USG.206010025");
}
