//! Every way in which a body can fail to be an envelope (`400` in the contract's table), without a panic.

use super::signatures::JOIN;
use super::*;

fn malformed(body: impl Into<Vec<u8>>) -> Malformed {
    let body = body.into();
    match check(body.clone()) {
        Err(Refusal::Malformed(malformed)) => malformed,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(&body)),
    }
}

/// A correctly signed body with one replacement.
fn changed(from: &str, to: &str) -> String {
    let body = body(JOIN);
    assert_eq!(body.matches(from).count(), 1, "{from} stands there once");
    body.replace(from, to)
}

#[test]
fn a_body_that_is_not_utf8_is_distinguished_from_one_that_is_not_json() {
    let mut bytes = body(JOIN).into_bytes();
    let at = bytes.iter().position(|byte| *byte >= 0x80).expect("a name in Chinese");
    bytes.remove(at);
    assert_eq!(malformed(bytes), Malformed::NotUtf8);
    // A surrogate encoded as if it were UTF-8, then UTF-16, Latin-1, and an overlong NUL.
    for bytes in [&b"{\"a\":\"\xed\xa0\x80\"}"[..], b"\xff\xfe{\0}\0", b"{\"a\":\"\xe9\"}", b"\xc0\x80"] {
        assert_eq!(malformed(bytes), Malformed::NotUtf8);
    }
}

#[test]
fn a_body_that_is_not_one_json_value_is_refused() {
    let good = body(JOIN);
    for text in [
        String::new(),
        " \n".to_owned(),
        format!("\u{feff}\u{feff}{good}"),
        format!(" \u{feff}{good}"),
        format!("{good}\u{feff}"),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("{good},"),
        format!("{good}\0"),
        format!("//\n{good}"),
        good.replace(',', ",,"),
        good.replace("}}}}", "}}},}"),
        good.replace("\"appID\"", "appID"),
        good.replace('"', "'"),
        good.replace("WeLink", "We\nLink"),
        good.replace("WeLink", "We\\qLink"),
        good.replace("WeLink", "We\\u12xLink"),
        good.replace("{\"appID\"", "{\"a\nb\":1,\"appID\""),
        good.replace("{\"appID\"", "{\"a\u{1}\\u0041\":1,\"appID\""),
        good.replace("{\"appID\"", "{\"a\\q\":1,\"appID\""),
        good.replace("{\"event\"", "{\"a\tb\":1,\"event\""),
        good.replace("\"leftTime\":0", "\"leftTime\":00"),
        good.replace("\"leftTime\":0", "\"leftTime\":+1"),
        good.replace("\"leftTime\":0", "\"leftTime\":.5"),
        good.replace("\"leftTime\":0", "\"leftTime\":1."),
        good.replace("\"leftTime\":0", "\"leftTime\":NaN"),
        good.replace("\"leftTime\":0", "\"leftTime\":True"),
        good.replace("\"leftTime\":0", "\"leftTime\":\u{a0}0"),
    ] {
        assert_eq!(malformed(text), Malformed::NotJson);
    }
}

#[test]
fn a_byte_order_mark_before_the_body_is_passed_over() {
    let marked = check(format!("\u{feff}{}", body(JOIN))).expect("it is signed");
    assert_eq!(marked.verified, check(body(JOIN)).expect("it is signed").verified);
}

#[test]
fn json_that_is_no_object_is_refused() {
    let in_array = format!("[{}]", body(JOIN));
    for text in ["null", "true", "0", "-1.5e300", "\"\"", "[]", "\"appID\"", &in_array] {
        assert_eq!(malformed(text), Malformed::NotAnObject, "{text}");
    }
}

#[test]
fn each_member_is_required_once_and_unknown_ones_are_ignored() {
    let good = body(JOIN);
    let members = [
        ("appID", format!("\"{APP_ID}\"")),
        ("timestamp", TIMESTAMP.to_owned()),
        ("nonce", format!("\"{NONCE}\"")),
        ("signature", format!("\"{}\"", sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}")))),
        ("eventInfo", JOIN.to_owned()),
    ];
    let join = |parts: Vec<String>| format!("{{{}}}", parts.join(","));
    let all = || members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
    assert_eq!(join(all().collect()), good);
    for (n, (name, value)) in members.iter().enumerate() {
        let without = all().enumerate().filter(|(m, _)| *m != n).map(|(_, member)| member);
        assert_eq!(malformed(join(without.collect())), Malformed::Missing(name));
        // Duplicate with the same value, with another value, and with a name that is written with escapes.
        let escaped = format!("\\u{:04X}{}", u32::from(name.as_bytes()[0]), &name[1..]);
        for second in [format!("\"{name}\":{value}"), format!("\"{name}\":null"), format!("\"{escaped}\":{value}")] {
            assert_eq!(malformed(join(all().chain([second.clone()]).collect())), Malformed::Doubled(name), "{second}");
            assert_eq!(malformed(join(std::iter::once(second).chain(all()).collect())), Malformed::Doubled(name));
        }
        // A name written with escapes is the same name.
        let renamed = good.replacen(&format!("\"{name}\":"), &format!("\"{escaped}\":"), 1);
        assert!(check(renamed).is_ok(), "{escaped}");
        // A null does not count as a value.
        let null = all().enumerate().map(|(m, member)| if m == n { format!("\"{name}\":null") } else { member });
        assert!(matches!(malformed(join(null.collect())), Malformed::Wrong(wrong, _) if wrong == *name));
    }
    assert_eq!(
        malformed(join(all().chain([format!("\"appId\":\"{APP_ID}\"")]).collect())),
        Malformed::Doubled("appID")
    );
    let both = format!("\"appId\":\"{APP_ID}\",\"app\\u0049d\":\"{APP_ID}\"");
    assert_eq!(malformed(good.replace(&format!("\"appID\":\"{APP_ID}\""), &both)), Malformed::Doubled("appID"));

    // The order does not matter, nor do unknown names, even if they contain a lone surrogate.
    let unknown = ["\"x\":[[],{}]", "\"APPID\":1", "\"\":null", r#""\ud800":"\udfff""#, r#""\u0000":"""#, "\"x\":2"];
    let members: Vec<_> = unknown.into_iter().map(str::to_owned).chain(all()).rev().collect();
    assert!(check(join(members)).is_ok());
}

#[test]
fn members_of_a_wrong_type_are_refused() {
    let (app_id, nonce) = (format!("\"appID\":\"{APP_ID}\""), format!("\"nonce\":\"{NONCE}\""));
    let wrong = |name, value| Malformed::Wrong(name, value);
    for value in [APP_ID, "true", "[]", "{}", "1.5"] {
        assert_eq!(malformed(changed(&app_id, &format!("\"appID\":{value}"))), wrong("appID", "a string"));
    }
    let signature = format!("\"{}\"", sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}")));
    for value in ["1", "false", "[\"\"]", "{}"] {
        assert_eq!(malformed(changed(&signature, value)), wrong("signature", "a string"));
    }
    for value in ["1.0", "1e3", "-1.5", "true", "false", "[]", "{}"] {
        let body = changed(&nonce, &format!("\"nonce\":{value}"));
        assert_eq!(malformed(body), wrong("nonce", "a string or an integer"));
    }
    for value in ["null", "[]", "\"{}\"", "1", "true"] {
        assert_eq!(malformed(changed(JOIN, value)), wrong("eventInfo", "an object"));
    }
    let timestamp = format!("\"timestamp\":{TIMESTAMP},");
    for value in [
        "173570046579",
        "17357004657901",
        "-173570046579",
        "-1735700465790",
        "1735700465790.0",
        "17357004657.0",
        "1.73570046e12",
        "1735700465e3",
        "\"\"",
        "\"173570046579\"",
        "\"17357004657901\"",
        "\" 173570046579\"",
        "\"+173570046579\"",
        "\"١٧٣٥٧٠\"",
        "\"\\ud80017357\"",
        "\"173570046579x\"",
        "[]",
        "{}",
        "true",
        "false",
    ] {
        let body = changed(&timestamp, &format!("\"timestamp\":{value},"));
        assert_eq!(malformed(body), wrong("timestamp", "13 digits"), "{value}");
    }
}

#[test]
fn a_nonce_may_be_any_string_or_integer_and_is_signed_by_its_characters() {
    for (sent, signed) in [
        ("\"\"", ""),
        ("0", "0"),
        ("-0", "-0"),
        ("-17", "-17"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("\"007\"", "007"),
        ("\"\\u0031\\u0032\"", "12"),
        ("\"随机\"", "随机"),
        ("\"a \\\"quoted\\\" \\ud83d\\ude00\"", "a \"quoted\" 😀"),
    ] {
        let signature = sign(KEY, &format!("{APP_ID}{TIMESTAMP}{signed}{{\"event\":\"meeting.verify\"}}"));
        let body = format!(
            r#"{{"appID":"{APP_ID}","timestamp":{TIMESTAMP},"nonce":{sent},"signature":"{signature}","eventInfo":{{"event":"meeting.verify"}}}}"#
        );
        let checked = check(body).unwrap_or_else(|refusal| panic!("{sent}: {refusal}"));
        let Content::Handshake(handshake) = checked.verified.content() else { panic!("it is a handshake") };
        assert_eq!(handshake.nonce, signed);
    }
}

#[test]
fn envelope_texts_that_unicode_cannot_hold_match_nothing() {
    let info = r#"{"event":"meeting.verify"}"#;
    let with = |app_id: &str, nonce: &str, signed: &str| {
        let signature = sign(KEY, signed);
        check(format!(
            r#"{{"appID":"{app_id}","timestamp":{TIMESTAMP},"nonce":"{nonce}","signature":"{signature}","eventInfo":{info}}}"#
        ))
        .err()
    };
    // Whatever the sender may have signed in place of the lone surrogate.
    for nonce in [r"\ud800", r#""\ud800""#, "\u{fffd}", "?", ""] {
        let signed = format!("{APP_ID}{TIMESTAMP}{nonce}{info}");
        assert_eq!(with(APP_ID, r"\ud800", &signed), Some(Refusal::Signature), "{nonce}");
    }
    assert_eq!(with(r"\ud800", NONCE, &format!("{TIMESTAMP}{NONCE}{info}")), Some(Refusal::UnknownSubscriber));
}

#[test]
fn a_body_cut_short_anywhere_is_refused_as_no_json_or_no_utf8() {
    let body = body(JOIN);
    for length in 0..body.len() {
        let cut = &body.as_bytes()[..length];
        let expected = if std::str::from_utf8(cut).is_ok() { Malformed::NotJson } else { Malformed::NotUtf8 };
        assert_eq!(malformed(cut), expected, "cut to {length} bytes");
    }
}

#[test]
fn nesting_in_an_unsigned_body_is_not_recursed_into() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let good = body(JOIN);
    assert!(check(good.replace("{\"appID\"", &format!("{{\"x\":{},\"appID\"", deep(100_000)))).is_ok());
    for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000), deep(100_000)] {
        assert!(check(text.clone()).is_err());
        assert!(
            check(good.replace("{\"appID\"", &format!("{{\"x\":{text},\"appID\"")))
                .err()
                .is_none_or(|refusal| { refusal == Refusal::Malformed(Malformed::NotJson) })
        );
    }
}

#[test]
fn the_description_of_an_unsigned_body_says_what_stands_there() {
    let now = Millis::new(RECEIVED_AT).expect("a time");
    let description = describe(body(JOIN).as_bytes(), now).expect("an envelope");
    assert_eq!(description.app_id.as_deref(), Some(APP_ID));
    assert_eq!(description.app_id_name, "appID");
    assert_eq!(description.nonce.as_deref(), Some(NONCE));
    assert_eq!(description.event, Ok("meeting.join".to_owned()));
    assert!(description.signature_is_hex && !description.had_white_space);
    let odd = body("{ }").replace("appID", "appId").replace(NONCE, r"\udfff");
    let description = describe(odd.as_bytes(), now).expect("an envelope");
    assert_eq!((description.app_id_name, description.nonce, &*description.event_info), ("appId", None, "{}"));
    assert!(description.had_white_space);
    assert_eq!(description.event, Err("event is missing".to_owned()));
    assert_eq!(describe(b"{}", now).err(), Some(Malformed::Missing("appID")));
}
