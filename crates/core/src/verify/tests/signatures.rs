//! Section 6.2 of the manual: the signature, its forms, and invalid signatures.

use sha2::Digest as _;

use super::*;

/// `appID`, envelope timestamp, nonce, key, eventInfo, signature: the two samples of the manual that can be
/// computed, and three of our own.
const VECTORS: [[&str; 6]; 5] = [
    [
        "1988692299",
        "1629183619116",
        "85262798",
        SAMPLE_KEY,
        r#"{"event":"meeting.verify","timestamp":1629183619116}"#,
        "262ccb5f8854f824c41ea5854ba1798bfa850706fbc85b2be9fd7535ed6b8ff3",
    ],
    [
        "123456789",
        "1629813991351",
        "60426560",
        SAMPLE_KEY,
        r#"{"event":"meeting.started","timestamp":1629813991351,"payload":{"meetingInfo":{"meetingID":"987446316"}}}"#,
        "e3945cab9c583f394ae5e4957b83905e779cacaa2377d9542e19e011cc60a139",
    ],
    [
        APP_ID,
        "1735700400123",
        "10203040",
        KEY,
        r#"{"event":"meeting.verify","timestamp":1735700400123}"#,
        "dc8c3a8dbd508aac5372116a8d0f6ac79baec3310c751c88de008f4aca18a447",
    ],
    [APP_ID, TIMESTAMP, NONCE, KEY, JOIN, "0cbe32bded83b43d0372403f3d4677a684215dc73695c90805ead985650848c3"],
    [
        APP_ID,
        "1735704000456",
        "90807060",
        KEY,
        r#"{"event":"meeting.end","timestamp":1735704000456,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}}}"#,
        "1e40fe2b09d22ef8d59ca64cf14514c82ddd9f9a39cde7cb1711619c950dfcc0",
    ],
];

pub(super) const JOIN: &str = r#"{"event":"meeting.join","timestamp":1735700465789,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"王小明","joinTime":1735700465001,"leftTime":0,"role":"CHAIR","callNumber":"+8657100000000001"}}}"#;

/// The manual's verification request (004:12369-12378), laid out as printed.
const PRINTED: &str = r#"{
    "appID": "1988692299",
    "timestamp": 1629183619116,
    "nonce": "85262798",
    "signature": "262ccb5f8854f824c41ea5854ba1798bfa850706fbc85b2be9fd7535ed6b8ff3",
    "eventInfo": {
        "event": "meeting.verify",
        "timestamp": 1629183619116
    }
}"#;

fn samples_keyring() -> Keyring {
    Keyring::new(&[subscriber("1988692299", &[SAMPLE_KEY])])
}

#[test]
fn the_vectors_of_the_manual_and_our_own_verify_as_sent() {
    for [app_id, timestamp, nonce, key, info, signature] in VECTORS {
        let keyring = Keyring::new(&[subscriber(app_id, &[key])]);
        for name in ["appID", "appId"] {
            for signature in [signature.to_owned(), signature.to_uppercase()] {
                for (timestamp, nonce) in
                    [(timestamp.to_owned(), format!("\"{nonce}\"")), (format!("\"{timestamp}\""), nonce.to_owned())]
                {
                    let body = format!(
                        r#"{{"{name}":"{app_id}","timestamp":{timestamp},"nonce":{nonce},"signature":"{signature}","eventInfo":{info}}}"#
                    );
                    let checked = verify(&body.clone().into(), &keyring, &delivery()).expect(&body);
                    assert_eq!((checked.form, checked.key), (Form::Raw, 0));
                    assert_eq!(&**checked.verified.subscriber_id(), app_id);
                }
            }
        }
    }
}

#[test]
fn the_verification_request_passes_as_printed_with_any_white_space() {
    let spread = PRINTED.replace(':', " :\t").replace(',', " \r\n,").replace('{', "{ \n\t ");
    // This replaces the colons inside strings too, but no value of this body contains one.
    for text in [
        PRINTED.to_owned(),
        PRINTED.replace("    ", "\t"),
        PRINTED.replace('\n', "\r\n"),
        spread,
        format!("\r\n\t {PRINTED} \n"),
        PRINTED.replace([' ', '\n'], ""),
    ] {
        let checked = verify(&text.clone().into(), &samples_keyring(), &delivery()).expect(&text);
        assert_eq!(checked.form, Form::Raw);
        let Content::Handshake(handshake) = checked.verified.content() else { panic!("{text} is no handshake") };
        assert_eq!(handshake.nonce, "85262798");
        assert_eq!(handshake.received_at.get(), RECEIVED_AT);
    }
}

#[test]
fn a_name_escaped_to_sign_but_not_to_send_or_the_other_way_round_is_counted_by_its_form() {
    let escaped = JOIN.replace("王小明", r"\u738b\u5c0f\u660e");
    assert_eq!(
        sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{escaped}")),
        "cef6bcafb9deda04111c6d08f095643ab4fdc24da75ec7551f25d0a3daede25a"
    );
    for (sent, signed, form) in [
        (JOIN, JOIN, Form::Raw),
        (&*escaped, &*escaped, Form::Raw),
        (&*escaped, JOIN, Form::Unescaped),
        (JOIN, &*escaped, Form::Escaped),
    ] {
        let checked = check(body_signed_over(sent, signed)).expect("it is signed");
        assert_eq!(checked.form, form);
        let Content::Event(event) = checked.verified.content() else { panic!("it is an event") };
        assert_eq!(&*event.event_info, sent, "what was sent is kept, not what was signed");
        assert_eq!(event.attendee.display_name.as_deref(), Some("王小明"));
    }
}

#[test]
fn slashes_surrogate_pairs_and_control_characters_are_unescaped_and_escaped_as_json_needs() {
    let info = |text: &str| format!(r#"{{"event":"x","timestamp":1735700465789,"payload":{{"{text}":["{text}"]}}}}"#);
    for (sent, signed, form) in [
        (r"a\/b", "a/b", Form::Unescaped),
        (r"\ud83d\ude00", "😀", Form::Unescaped),
        (r"\uD83D\uDE00", "😀", Form::Unescaped),
        ("😀", r"\ud83d\ude00", Form::Escaped),
        (r"\uD83D\uDE00", r"\ud83d\ude00", Form::Escaped),
        (r"\u0041\u0022\u005C", r#"A\"\\"#, Form::Unescaped),
        (r"\u0008\u0009\u000A\u000C\u000D", r"\b\t\n\f\r", Form::Unescaped),
        (r"\u001F\u0000é", r"\u001f\u0000é", Form::Unescaped),
        (r"\u001F\u0000é", r"\u001f\u0000\u00e9", Form::Escaped),
        (r"\u2028 \u007f", "\u{2028} \u{7f}", Form::Unescaped),
        ("\u{2028} \u{7f}", "\\u2028 \u{7f}", Form::Escaped),
        // Lone surrogates cannot be written as themselves.
        (r"\uD800x王", r"\ud800x\u738b", Form::Escaped),
        (r"\uDE00\uD83Dx", r"\ude00\ud83dx", Form::Unescaped),
        (r"\uD83D\uD83D\uDE00", "\\ud83d😀", Form::Unescaped),
    ] {
        let checked = check(body_signed_over(&info(sent), &info(signed)));
        assert_eq!(checked.unwrap_or_else(|refusal| panic!("{sent}: {refusal}")).form, form, "{sent}");
    }
}

/// What a serialiser sends, what another one signs (as the content of a name), and the form that matches.
const PAIRS: [(&str, &str, Form); 20] = [
    // Gson escapes for HTML unless configured not to.
    ("R&D", r"R\u0026D", Form::Html),
    ("O'N", r"O\u0027N", Form::Html),
    ("a<b", r"a\u003cb", Form::Html),
    ("a=b", r"a\u003db", Form::Html),
    ("R&D <王> 'x' = 1", r"R\u0026D \u003c王\u003e \u0027x\u0027 \u003d 1", Form::Html),
    (r"R\u0026D", "R&D", Form::Unescaped),
    (r"O\u0027N", "O'N", Form::Unescaped),
    (r"R\u0026D", r"R\u0026D", Form::Raw),
    // PHP escapes slashes, and everything outside of ASCII.
    ("a/b", r"a\/b", Form::Slashes),
    ("王/b", r"王\/b", Form::Slashes),
    ("王/b", r"\u738b\/b", Form::SlashesEscaped),
    (r"a\/b", "a/b", Form::Unescaped),
    (r"\u738b\/b", "王/b", Form::Unescaped),
    // Jackson writes upper-case hexadecimal, Python lower-case.
    ("王", r"\u738B", Form::EscapedUpper),
    ("é", r"\u00E9", Form::EscapedUpper),
    ("😀", r"\uD83D\uDE00", Form::EscapedUpper),
    ("王", r"\u738b", Form::Escaped),
    (r"\u738B", "王", Form::Unescaped),
    (r"\u738B", r"\u738b", Form::Escaped),
    ("\u{2028}", r"\u2028", Form::Escaped),
];

#[test]
fn what_one_serialiser_sends_and_another_signs_is_taken_and_counted_by_its_form() {
    let named = |name: &str| JOIN.replace("王小明", name);
    for (sent, signed, form) in PAIRS {
        let checked = check(body_signed_over(&named(sent), &named(signed)));
        let checked = checked.unwrap_or_else(|refusal| panic!("{sent} as {signed}: {refusal}"));
        assert_eq!(checked.form, form, "{sent} as {signed}");
        let Content::Event(event) = checked.verified.content() else { panic!("it is an event") };
        assert_eq!(*event.event_info, named(sent), "what was sent is kept");
    }
}

#[test]
fn a_signature_over_the_text_as_sent_with_its_white_space_is_taken() {
    let spaced = JOIN.replace(',', ", ").replace(':', ": ");
    assert_eq!(
        sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{spaced}")),
        "fe24e1ac149fd9edbe087b5b7e971766a47c20f88b2fd753f61ec4617bf82204"
    );
    let lines = JOIN.replace(',', ",\r\n\t").replace('{', "{ ");
    for sent in [&spaced, &lines] {
        let checked = check(body_signed_over(sent, sent)).expect("it is signed");
        assert_eq!(checked.form, Form::Spaced);
        let Content::Event(event) = checked.verified.content() else { panic!("it is an event") };
        assert_eq!(&*event.event_info, JOIN);
    }
}

#[test]
fn other_forms_are_not_guessed() {
    let spaced = JOIN.replace(',', ", ").replace(':', ": ");
    let reordered = r#"{"timestamp":1735700465789,"event":"meeting.join"}"#;
    let in_order = r#"{"event":"meeting.join","timestamp":1735700465789}"#;
    let tabbed = spaced.replace(' ', "\t");
    for (sent, signed) in [(JOIN, &*spaced), (&*spaced, &*tabbed), (reordered, in_order)] {
        assert_eq!(check(body_signed_over(sent, signed)).err(), Some(Refusal::Signature));
    }
}

/// The form that `convoke verify` finds in the wider family.
fn wider(sent: &str, signed: &str) -> Option<String> {
    let body = body_signed_over(sent, signed);
    assert_eq!(check(body.clone()).err(), Some(Refusal::Signature), "{signed} is none of the forms of a delivery");
    search(body.as_bytes(), &keyring()).map(|fit| fit.form)
}

#[test]
fn the_wider_family_names_the_text_that_was_signed() {
    let named =
        |name: &str| format!(r#"{{"event":"x","timestamp":1735700465789,"payload":{{"displayName":"{name}"}}}}"#);
    let (all, upper) = ("non-ASCII characters escaped", "upper-case hexadecimal digits");
    for (sent, signed, words) in [
        // The output of .NET's System.Text.Json, of Newtonsoft's, and of Go's libraries.
        (
            r#"R&D \"王+\" `x'"#,
            r"R\u0026D \u0022\u738B\u002B\u0022 \u0060x\u0027",
            &*format!("{all}, < > & ' \" + ` U+007F escaped as \\u…, {upper}"),
        ),
        ("<R&D = '王'>", r"\u003cR\u0026D = \u0027王\u0027\u003e", "< > & ' escaped"),
        ("R&D '王' \u{2028}", r"R\u0026D '王' \u2028", "U+2028 and U+2029 escaped, < > & escaped"),
        // The output of some libraries of Java and PHP.
        ("R&D 王", r"R\u0026D \u738B", &*format!("{all}, < > & = ' escaped, {upper}")),
        ("</b> / — 王", r"<\/b> / \u2014 王", "U+0080 to U+009F and U+2000 to U+20FF escaped, </ written <\\/"),
        ("R&D/王", r"R\u0026D\/王", "< > & = ' escaped, / written \\/"),
    ] {
        assert_eq!(wider(&named(sent), &named(signed)).as_deref(), Some(words), "{signed}");
    }
    let sorted = r#"{"event":"meeting.join","payload":{"a":null,"b":[1,{"y":2,"z":"王"}]},"timestamp":1735700465789}"#;
    let sent = r#"{"timestamp":1735700465789,"event":"meeting.join","payload":{"b":[1,{"z":"王","y":2}],"a":null}}"#;
    assert_eq!(wider(sent, sorted).as_deref(), Some("members sorted by name"));
    let spaced = r#"{"timestamp": 1735700465789, "event": "meeting.join", "payload": {"b": [1, {"z": "\u738b", "y": 2}], "a": null}}"#;
    assert_eq!(wider(sent, spaced), Some(format!("a space after each colon and comma, {all}")));
    let dropped = sent.replace(r#","a":null"#, "");
    assert_eq!(wider(sent, &dropped).as_deref(), Some("null members omitted"));
    let value: serde_json::Value = serde_json::from_str(sorted).expect("JSON");
    let pretty = serde_json::to_string_pretty(&value).expect("JSON");
    assert_eq!(wider(sent, &pretty).as_deref(), Some("members sorted by name, on several lines, indented by 2"));
    assert_eq!(wider(sent, &sent.replace('王', "?")).as_deref(), Some("in ASCII, with ? for every other character"));
    // A changed word matches nothing.
    assert_eq!(wider(sent, &sent.replace("join", "left")), None);
    assert!(words().iter().all(|words| !words.is_empty()) && words().len() == 24, "{}", words().len());
}

#[test]
fn a_wrong_signature_of_any_shape_matches_no_key() {
    let good = sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}"));
    let body = body(JOIN);
    let with = |signature: &str| body.replace(&format!("\"{good}\""), signature);
    let flipped = format!("{}{}", if good.starts_with('0') { '1' } else { '0' }, &good[1..]);
    for wrong in [
        "\"\"".to_owned(),
        format!("\"{flipped}\""),
        format!("\"{}\"", &good[..63]),
        format!("\"{}\"", &good[..62]),
        format!("\"{good}0\""),
        format!("\"{good}00\""),
        format!("\" {good}\""),
        format!("\"0x{}\"", &good[2..]),
        format!("\"{}g\"", &good[..63]),
        format!("\"{}é\"", &good[..62]),
        format!("\"{}\"", "0".repeat(64)),
        format!("\"\\ud800{}\"", &good[..61]),
        format!("\"{}\"", sign("another key", &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}"))),
        format!("\"{}\"", sign("", &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}"))),
        format!("\"{}\"", hex::encode(Sha256::digest(format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}{KEY}")))),
    ] {
        assert_eq!(check(with(&wrong)).err(), Some(Refusal::Signature), "{wrong}");
    }
    // The signature may be in upper case, or contain escapes.
    let first = format!("\\u{:04x}", u32::from(good.as_bytes()[0]));
    for right in [format!("\"{}\"", good.to_uppercase()), format!("\"{first}{}\"", &good[1..])] {
        assert!(check(with(&right)).is_ok(), "{right}");
    }
}

#[test]
fn digits_moved_between_the_signed_parts_do_not_pass() {
    // The parts are joined without separators, so all of these have the same HMAC.
    let signature = sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}"));
    let with = |app_id: &str, timestamp: &str, nonce: &str| {
        check(format!(
            r#"{{"appID":"{app_id}","timestamp":{timestamp},"nonce":"{nonce}","signature":"{signature}","eventInfo":{JOIN}}}"#
        ))
        .map(|checked| checked.form)
    };
    let not_13_digits = Err(Refusal::Malformed(Malformed::Wrong("timestamp", "13 digits")));
    assert_eq!(with(APP_ID, TIMESTAMP, NONCE), Ok(Form::Raw));
    assert_eq!(with(APP_ID, &format!("{TIMESTAMP}5"), "0607080"), not_13_digits);
    assert_eq!(with(APP_ID, "173570046579", "050607080"), not_13_digits);
    assert_eq!(with("77000012341", "735700465790", NONCE), not_13_digits);
    assert_eq!(with("770000123", "4173570046579", "050607080"), Err(Refusal::UnknownSubscriber));
    assert_eq!(with("77000012341", "7357004657905", "0607080"), Err(Refusal::UnknownSubscriber));
}

#[test]
fn digits_moved_from_one_subscriber_to_another_need_the_others_key() {
    let keyring = Keyring::new(&[subscriber(APP_ID, &[KEY]), subscriber("77000012341", &["another key"])]);
    let signature = sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}"));
    let body = format!(
        r#"{{"appID":"77000012341","timestamp":7357004657905,"nonce":"0607080","signature":"{signature}","eventInfo":{JOIN}}}"#
    );
    assert_eq!(verify(&body.into(), &keyring, &delivery()).err(), Some(Refusal::Signature));
}

#[test]
fn any_of_a_subscribers_keys_may_sign_and_no_other_subscribers() {
    let keyring =
        Keyring::new(&[subscriber(APP_ID, &["new", "newer", KEY]), subscriber("another", &["key of another"])]);
    let checked = verify(&body(JOIN).into(), &keyring, &delivery()).expect("the last key fits");
    assert_eq!(checked.key, 2);
    // Also with one of the later forms.
    let escaped = JOIN.replace("王小明", r"\u738b\u5c0f\u660e");
    let checked = verify(&body_signed_over(JOIN, &escaped).into(), &keyring, &delivery()).expect("signed");
    assert_eq!((checked.key, checked.form), (2, Form::Escaped));

    for (keys, refusal) in [
        ([subscriber(APP_ID, &["new", "newer"]), subscriber("another", &[KEY])], Refusal::Signature),
        ([subscriber("7700001235", &[KEY]), subscriber("", &[KEY])], Refusal::UnknownSubscriber),
    ] {
        assert_eq!(verify(&body(JOIN).into(), &Keyring::new(&keys), &delivery()).err(), Some(refusal));
    }
}

#[test]
fn a_key_of_any_length_and_alphabet_signs_with_its_bytes() {
    for key in ["k", "密码-пароль", "key with blanks ", &"k".repeat(64), &"k".repeat(65), &"k".repeat(1000)] {
        let signature = sign(key, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}"));
        let body = body(JOIN).replace(&sign(KEY, &format!("{APP_ID}{TIMESTAMP}{NONCE}{JOIN}")), &signature);
        assert!(verify(&body.into(), &Keyring::new(&[subscriber(APP_ID, &[key])]), &delivery()).is_ok(), "{key}");
    }
}

#[test]
fn the_decoy_that_answers_for_unknown_subscribers_lets_nobody_in() {
    let signature = sign("no subscriber", &format!("x{TIMESTAMP}{NONCE}{JOIN}"));
    let body = format!(
        r#"{{"appID":"x","timestamp":{TIMESTAMP},"nonce":"{NONCE}","signature":"{signature}","eventInfo":{JOIN}}}"#
    );
    assert_eq!(check(body).err(), Some(Refusal::UnknownSubscriber));
}

#[test]
fn no_more_than_eight_forms_are_ever_tried_and_equal_ones_once() {
    // A forgery costs one HMAC per key for each distinct form, and there are no more forms than these.
    let distinct = |info: &str| {
        let (compact, _) = raw_json::compact(info);
        let forms: Vec<_> = Form::VARIANTS.iter().map(|form| form.of(info, &compact)).collect();
        forms.iter().enumerate().filter(|(n, form)| !forms[..*n].contains(form)).count()
    };
    assert_eq!(Form::VARIANTS.len(), 8);
    assert_eq!(distinct(r#"{"event":"meeting.end","timestamp":1}"#), 1);
    assert_eq!(distinct(r#"{"event":"meeting.end", "timestamp":1}"#), 2);
    assert_eq!(distinct(r#"{"event":"\/"}"#), 2);
    assert_eq!(distinct(r#"{"event":"é"}"#), 3);
    assert_eq!(distinct(r#"{"event": "\/王é\u003d"}"#), 8);
    // A form that changes nothing does not copy the text.
    let plain = r#"{"event":"a"}"#;
    assert!(Form::VARIANTS.iter().all(|form| matches!(form.of(plain, plain), Cow::Borrowed(_))));
    // An escape is six bytes for one, so no form is longer than six times the text as sent.
    let grown = Form::Html.of(r#"{"a":"&&&&"}"#, r#"{"a":"&&&&"}"#).len();
    assert!(grown <= 6 * r#"{"a":"&&&&"}"#.len(), "{grown}");
}

#[test]
fn nothing_that_prints_a_keyring_prints_a_key() {
    let text = format!("{:?}", Keyring::new(&[subscriber(APP_ID, &["s3cret"])]));
    assert!(text.contains(APP_ID) && !text.contains("s3cret"), "{text}");
}

#[test]
fn a_forged_probe_verifies_for_nobody_and_is_known_to_who_has_the_key_alone() {
    const VERIFY: &str = r#"{"event":"meeting.verify","timestamp":1735700400123}"#;
    let nonce = format!("{PROBE}0123456789abcdef");
    let envelope = |app_id: &str, nonce: &str, event_info: &str, key: &str| {
        crate::sign::envelope(app_id, 1_735_700_400_123, nonce, event_info.as_bytes(), key.as_bytes())
    };
    let derived = |key: &str, nonce: &str| crate::sign::forged_probe_key(key.as_bytes(), nonce);
    let keyring = Keyring::new(&[subscriber(APP_ID, &["another", KEY]), subscriber("other", &["third"])]);
    let forged = envelope(APP_ID, &nonce, VERIFY, &derived(KEY, &nonce));
    let refused = verify(&Bytes::from(forged.clone()), &keyring, &delivery()).expect_err("a wrong key");
    assert_eq!(refused, Refusal::Signature);
    assert!(is_forged_probe(&forged, &keyring));
    let long = format!(r#"{{"event":"meeting.verify","timestamp":1735700400123,"x":"{}"}}"#, "x".repeat(300));
    for (what, stranger) in [
        ("a guessed key", envelope(APP_ID, &nonce, VERIFY, "guessed")),
        ("one derived of a guessed key", envelope(APP_ID, &nonce, VERIFY, &derived("guessed", &nonce))),
        ("one of another nonce", envelope(APP_ID, &format!("{nonce}0"), VERIFY, &derived(KEY, &nonce))),
        ("no nonce of a probe", envelope(APP_ID, "1", VERIFY, &derived(KEY, "1"))),
        ("another subscriber's key", envelope("other", &nonce, VERIFY, &derived(KEY, &nonce))),
        ("the key of the stand-ins", envelope("nobody", &nonce, VERIFY, &derived("no subscriber", &nonce))),
        ("a long text", envelope(APP_ID, &nonce, &long, &derived(KEY, &nonce))),
        ("no envelope", b"{}".to_vec()),
    ] {
        assert!(!is_forged_probe(&stranger, &keyring), "{what}");
    }
}
