//! The settings of the platform's API: their meaning, and what is rejected.

use super::refusals::{assert_holds, file_refused, refused};
use super::*;

const CREDENTIALS: [(&str, &str); 2] = [("CONVOKE_PLATFORM_APP_ID", "a1"), ("CONVOKE_PLATFORM_APP_KEY_FILE", "key")];

fn desk() -> Desk {
    Desk::new(&[("key", "Hidden App Key\n")])
}

/// With credentials, the error for one variable's value must contain all of `parts`.
#[track_caller]
fn refused_with_credentials(more: &[(&str, &str)], parts: &[&str]) {
    let message = desk().refusal(&[&CREDENTIALS, more].concat());
    assert_holds(&message, &[&[more[0].0], parts].concat());
    assert!(!message.contains("Hidden"), "{message}");
}

#[test]
fn without_credentials_the_platforms_api_is_not_used() {
    assert!(Desk::new(&[]).load(&[]).platform.is_none());
    let off = [
        ("CONVOKE_PLATFORM_WATCH_EVERY", "off"),
        ("CONVOKE_BACKFILL_EVERY", "none"),
        ("CONVOKE_RECORDINGS_ENABLED", "false"),
        ("CONVOKE_PLATFORM_APP_ID", "none"),
    ];
    assert!(Desk::new(&[]).load(&off).platform.is_none());
}

#[test]
fn credentials_alone_make_a_client_of_the_mainland_site_and_switch_nothing_on() {
    let platform = desk().load(&CREDENTIALS).platform.expect("settings");
    assert_eq!(
        (platform.api.url.as_str(), platform.api.app_id.as_str()),
        ("https://api.meeting.huaweicloud.com", "a1")
    );
    assert_eq!(platform.api.app_key.expose_secret(), "Hidden App Key");
    assert_eq!(
        (platform.api.user_id, platform.api.corp_id, platform.api.sp_id, platform.callback_url),
        (None, None, None, None)
    );
    assert_eq!((platform.watch_every, platform.backfill_every), (None, None));
    assert!(!platform.recordings && !platform.enrich);
}

#[test]
fn each_setting_of_the_platform_is_read() {
    let desk = desk();
    desk.write(
        "convoke.toml",
        "[platform]\nurl = 'https://api.example.com/'\napp_id = 'a1'\napp_key_file = 'key'\nuser_id = 'alice@example-corp'\n\
         corp_id = '660012345'\nsp_id = 'sp1'\ncallback_url = 'https://hooks.example.com/openapi/meetingevent'\n\
         watch_every = '5m'\n[backfill]\nevery = '7d'\n[recordings]\nenabled = true\n[enrich]\nenabled = true\n",
    );
    let platform = desk.load(&[]).platform.expect("settings");
    assert_eq!(platform.api.url, "https://api.example.com", "without the slash at its end");
    assert_eq!(platform.api.user_id.as_deref(), Some("alice@example-corp"));
    assert_eq!((platform.api.corp_id.as_deref(), platform.api.sp_id.as_deref()), (Some("660012345"), Some("sp1")));
    assert_eq!(platform.callback_url.as_deref(), Some("https://hooks.example.com/openapi/meetingevent"));
    assert_eq!(platform.watch_every, Some(Duration::from_secs(300)));
    assert_eq!(platform.backfill_every, Some(Duration::from_secs(7 * 86_400)));
    assert!(platform.recordings && platform.enrich);
}

#[test]
fn the_platforms_key_does_not_show() {
    let shown = format!("{:?}", desk().load(&CREDENTIALS));
    assert!(shown.contains("a1") && !shown.contains("Hidden"), "{shown}");
}

#[test]
fn what_needs_the_platforms_api_is_refused_without_credentials_for_it() {
    for (variable, value) in [
        ("CONVOKE_PLATFORM_URL", "https://api.example.com"),
        ("CONVOKE_PLATFORM_USER_ID", "alice"),
        ("CONVOKE_PLATFORM_CORP_ID", "1"),
        ("CONVOKE_PLATFORM_SP_ID", "1"),
        ("CONVOKE_PLATFORM_CALLBACK_URL", "https://hooks.example.com/"),
        ("CONVOKE_PLATFORM_WATCH_EVERY", "5m"),
        ("CONVOKE_BACKFILL_EVERY", "1h"),
        ("CONVOKE_RECORDINGS_ENABLED", "true"),
        ("CONVOKE_ENRICH_ENABLED", "true"),
    ] {
        refused(variable, value, &[variable, "platform.app_id is not set", "platform.app_key_file"]);
    }
}

#[test]
fn half_of_the_credentials_is_refused() {
    refused("CONVOKE_PLATFORM_APP_ID", "a", &["`platform.app_id`", "platform.app_key_file is not set"]);
    let message = desk().refusal(&CREDENTIALS[1..]);
    assert_holds(&message, &["`platform.app_key_file`", "platform.app_id is not set"]);
}

#[test]
fn key_files_of_the_platform_that_hold_no_key_are_refused() {
    for (text, part) in [("", "one line"), ("\n", "one line"), ("Hidden\nHidden\n", "one line")] {
        let desk = Desk::new(&[("key", text)]);
        let message = desk.refusal(&CREDENTIALS);
        assert_holds(&message, &["`platform.app_key_file`", part]);
        assert!(!message.contains("Hidden"), "{message}");
    }
    assert_holds(&Desk::new(&[]).refusal(&CREDENTIALS), &["`platform.app_key_file`", "cannot be read"]);
    assert_holds(&Desk::new(&[("key", &"x".repeat(70_000))]).refusal(&CREDENTIALS), &["64 KiB"]);
}

#[test]
fn addresses_that_would_show_the_key_or_lead_nowhere_are_refused() {
    for (url, part) in [
        ("http://api.example.com", "http is allowed for loopback addresses only"),
        ("http://10.0.0.1:8090", "http is allowed for loopback addresses only"),
        ("ftp://api.example.com", "neither https nor http"),
        ("api.example.com", "neither https nor http"),
        ("/v1", "names no host"),
        ("https://", "is not a URL"),
        ("https://a b", "is not a URL"),
        ("https://me:Hidden@api.example.com", "contains credentials"),
        ("https://me:Hidden@api example.com", "is not a URL"),
        ("https://api.example.com/#v1", "fragment"),
    ] {
        refused_with_credentials(&[("CONVOKE_PLATFORM_URL", url)], &["`platform.url`", part, "https://api.meeting"]);
        let parts = ["`platform.callback_url`", part, "https://hooks.example.com/openapi/meetingevent"];
        refused_with_credentials(&[("CONVOKE_PLATFORM_CALLBACK_URL", url)], &parts);
    }
    refused_with_credentials(
        &[("CONVOKE_PLATFORM_URL", "https://api.example.com?a=b")],
        &["`platform.url`", "no query"],
    );
    for loopback in ["http://127.0.0.1:8090", "http://[::1]:8090", "http://localhost:8090"] {
        let url = ("CONVOKE_PLATFORM_URL", loopback);
        assert_eq!(desk().load(&[&CREDENTIALS[..], &[url]].concat()).platform.expect("settings").api.url, loopback);
    }
}

#[test]
fn ids_that_the_platform_cannot_have_given_are_refused() {
    for variable in ["CONVOKE_PLATFORM_USER_ID", "CONVOKE_PLATFORM_CORP_ID", "CONVOKE_PLATFORM_SP_ID"] {
        refused_with_credentials(&[(variable, " 660012345")], &["begins or ends with white space", "console"]);
        refused_with_credentials(&[(variable, "6600\t12345")], &["control character"]);
    }
    let message = desk().refusal(&[("CONVOKE_PLATFORM_APP_ID", "a1\n"), CREDENTIALS[1]]);
    assert_holds(&message, &["`platform.app_id`", "white space"]);
    let user_of_a_provider = [("CONVOKE_PLATFORM_USER_ID", "alice"), ("CONVOKE_PLATFORM_SP_ID", "sp1")];
    refused_with_credentials(&user_of_a_provider, &["`platform.user_id`", "platform.corp_id is not set"]);
    let corps = ("CONVOKE_PLATFORM_CORP_IDS", "660012345, 660054321");
    refused_with_credentials(&[corps], &["`platform.corp_ids`", "set platform.sp_id"]);
    let provider = [corps, ("CONVOKE_PLATFORM_SP_ID", "sp1")];
    refused_with_credentials(&[&provider[..], &[("CONVOKE_PLATFORM_CORP_ID", "1")]].concat(), &["`platform.corp_ids`"]);
    let platform = desk().load(&[&CREDENTIALS[..], &provider].concat()).platform.expect("settings");
    assert_eq!(platform.api.corp_ids, ["660012345", "660054321"]);
}

#[test]
fn times_that_would_spend_the_platforms_patience_are_refused() {
    for variable in ["CONVOKE_PLATFORM_WATCH_EVERY", "CONVOKE_BACKFILL_EVERY"] {
        refused_with_credentials(&[(variable, "59s")], &["less than 1m"]);
        refused_with_credentials(&[(variable, "8d")], &["more than 7d"]);
        refused_with_credentials(&[(variable, "5")], &["unit"]);
        refused_with_credentials(&[(variable, "often")], &[]);
    }
    for variable in ["CONVOKE_RECORDINGS_ENABLED", "CONVOKE_ENRICH_ENABLED"] {
        refused_with_credentials(&[(variable, "yes")], &["true or false"]);
    }
    file_refused("[platform]\nwatch_every = 60\n", &["`platform.watch_every`", "a string"]);
    file_refused("[recordings]\nenabled = 'true'\n", &["`recordings.enabled`", "true or false"]);
    file_refused("[platform]\napp_key = 'Hidden'\n", &["`platform.app_key`"]);
}
