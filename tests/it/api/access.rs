//! Tokens, sessions, and what is said to those without.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use super::{ALL, Scene, ask, builder, deliver, event, request, streams::Source, who};
use crate::{
    log_contract::fixture::Backend,
    support::service::settings,
    support::{
        http::Answer,
        process::Convoke,
        rig::{self, LONG_TIMEOUT},
        wait::eventually,
    },
};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn get(convoke: &Convoke, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(convoke, Method::GET, path, headers, "").await
}

/// Opens a session; the cookie as a browser sends it back, and the header that set it.
pub async fn log_in(convoke: &Convoke, body: &'static str, headers: &[(&str, &str)]) -> (String, String) {
    let answer = request(convoke, Method::POST, "/session", &[headers, &[FORM]].concat(), body).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("./")), "{}", answer.text());
    let set = answer.header("set-cookie").expect("a cookie").to_owned();
    (set.split(';').next().expect("a pair").to_owned(), set)
}

#[tokio::test]
async fn a_session_is_opened_with_a_token_and_is_as_good_as_it() {
    let backend = Backend::sqlite();
    let mut scene = Scene { convoke: builder(&backend).start().await, backend };
    scene.convoke.wait_ready(LONG_TIMEOUT).await;
    let convoke = &scene.convoke;
    let (full, set) = log_in(convoke, "token=all-of-it-and-no-less", &[]).await;
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(part), "{part} is not in {set}");
    }
    assert!(!set.contains("Secure") && !set.contains(ALL), "{set}");
    let (masked, set) = log_in(convoke, "token=+view-only-and-no-more%0A", &[("x-forwarded-proto", "https")]).await;
    assert!(set.contains("; Secure"), "{set}");
    let right = async |convoke: &Convoke, cookie: &str| {
        let answer = get(convoke, "/api/v1/session", &[("cookie", cookie)]).await;
        (answer.status, answer.text())
    };
    assert!(right(convoke, &full).await.1.contains(r#""right":"full""#));
    assert!(right(convoke, &format!("a=b; {masked}")).await.1.contains(r#""right":"masked""#));
    // What was forged, in whatever way, is none.
    let (head, proof) = full.rsplit_once('.').expect("a proof");
    for forged in [
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{}", proof.to_lowercase()),
        masked.replace("masked", "full"),
    ] {
        let (status, body) = right(convoke, &forged).await;
        assert!(status == 401 && body.contains(r#""status":401"#), "{forged}: {body}");
    }
    let wrong = get(convoke, "/api/v1/session", &[("cookie", &full), ("authorization", "Bearer x")]).await;
    assert_eq!(wrong.status, 401, "who sends a token is judged by it");

    let ended = request(convoke, Method::POST, "/session/end", &[("cookie", &full)], "").await;
    assert_eq!((ended.status, ended.header("location")), (303, Some("../")));
    assert!(
        ended.header("set-cookie").is_some_and(|set| set.starts_with("convoke_session=;") && set.contains("Max-Age=0"))
    );
    assert_eq!(request(convoke, Method::POST, "/session/end", &[], "").await.status, 401);
    assert_eq!(right(convoke, &full).await.0, 401, "a copy of the cookie is worth nothing");

    let (full, _) = log_in(convoke, "token=all-of-it-and-no-less", &[]).await;
    scene.convoke.restart().await;
    scene.convoke.wait_ready(LONG_TIMEOUT).await;
    assert_eq!(right(&scene.convoke, &full).await.0, 200, "a session survives a restart");
    let backend = Backend::sqlite();
    let other = builder(&backend).setting("ADMIN_TOKEN", "another-one-of-the-tests").start().await;
    other.wait_ready(LONG_TIMEOUT).await;
    assert_eq!(right(&other, &full).await.0, 401, "and not a new token");
    assert_eq!(right(&other, &masked).await.0, 200, "which is another's");
}

#[tokio::test]
async fn no_page_of_another_site_opens_or_ends_a_session() {
    let scene = Scene::start(Backend::sqlite()).await;
    let convoke = &scene.convoke;
    let host = convoke.admin.to_string();
    let ours = format!("http://{host}");
    let (cookie, _) =
        log_in(convoke, "token=all-of-it-and-no-less", &[("sec-fetch-site", "same-origin"), ("origin", &ours)]).await;
    for foreign in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        for path in ["/session", "/session/end"] {
            let headers = [foreign, FORM, ("cookie", cookie.as_str())];
            let answer = request(convoke, Method::POST, path, &headers, "token=all-of-it-and-no-less").await;
            assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{foreign:?} {path}");
        }
    }
    let without = request(
        convoke,
        Method::POST,
        "/session",
        &[("origin", "http://evil.example"), FORM],
        "token=all-of-it-and-no-less",
    )
    .await;
    assert_eq!((without.status, without.header("set-cookie")), (403, None));
    let read = request(convoke, Method::GET, "/session", &[("cookie", &cookie)], "").await;
    assert_eq!((read.status, read.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn behind_a_proxy_that_changes_the_host_the_browsers_word_is_enough_and_else_it_is_said_what_to_do() {
    let scene = Scene::start(Backend::sqlite()).await;
    let convoke = &scene.convoke;
    let renamed = ("origin", "https://ops.example");
    let browser = ("accept", "text/html,*/*;q=0.8");
    for header in [("sec-fetch-site", "same-origin"), ("x-forwarded-host", "ops.example")] {
        let (cookie, _) = log_in(convoke, "token=all-of-it-and-no-less", &[renamed, header]).await;
        let ended = request(convoke, Method::POST, "/session/end", &[("cookie", &cookie), renamed, header], "").await;
        assert_eq!(ended.status, 303, "{header:?}");
    }
    for (language, word) in [("en", "must pass the host on"), ("zh-CN", "前置代理须传递主机名")] {
        let headers = [renamed, browser, ("accept-language", language), FORM];
        let refused = request(convoke, Method::POST, "/session", &headers, "token=all-of-it-and-no-less").await;
        let html = refused.text();
        assert_eq!((refused.status, refused.header("set-cookie")), (403, None));
        assert!(html.contains(word) && html.contains("proxy_set_header Host $host;"), "{html}");
    }
    let program = request(convoke, Method::POST, "/session", &[renamed, FORM], "token=all-of-it-and-no-less").await;
    let detail = program.json()["detail"].as_str().map(str::to_owned).unwrap_or_default();
    assert!(program.status == 403 && detail.contains("proxy_set_header Host") && detail.contains("X-Forwarded-Host"));
    let logs = convoke.logs();
    let line = logs.lines().find(|line| line.contains("page of another host")).expect("a line");
    assert!(line.contains("ops.example") && line.contains("proxy_set_header Host $host"), "{line}");
}

#[tokio::test]
async fn a_browser_without_a_session_gets_a_form_and_nothing_else() {
    let scene = Scene::start(Backend::sqlite()).await;
    let convoke = &scene.convoke;
    let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let form = get(convoke, "/", &[browser, ("accept-language", "zh-CN,zh;q=0.9,en;q=0.8")]).await;
    let html = form.text();
    assert_eq!((form.status, form.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(
        (form.header("content-type"), form.header("cache-control")),
        (Some("text/html; charset=utf-8"), Some("no-store"))
    );
    assert!(html.contains("令牌") && html.contains(r#"lang="zh-CN""#) && !html.contains("<script"), "{html}");
    assert!(get(convoke, "/", &[browser]).await.text().contains("Sign in"));
    let style = html.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).expect("a style").0;
    let policy = form.header("content-security-policy").expect("a policy");
    let hash = BASE64_STANDARD.encode(Sha256::digest(style));
    assert!(
        policy.contains(&format!("style-src 'sha256-{hash}'")) && policy.contains("default-src 'none'"),
        "{policy}"
    );
    for (path, accept) in
        [("/", "*/*"), ("/api/v1/events", browser.1), ("/assets/app.js", browser.1), ("/metrics", browser.1)]
    {
        let answer = get(convoke, path, &[("accept", accept)]).await;
        let seen = (answer.status, answer.header("content-type"), answer.text());
        let expected = r#"{"type":"about:blank","title":"Unauthorized","status":401}"#.to_owned();
        assert_eq!(seen, (401, Some("application/problem+json"), expected), "{path}");
    }
    for body in ["token=wrong", "token=", "", "token=%ff", "other=x", "token=<script>alert(1)</script>"] {
        let again = request(convoke, Method::POST, "/session", &[FORM], body).await;
        assert_eq!((again.status, again.header("set-cookie")), (401, None), "{body}");
        assert!(again.text().contains(r#"role="alert""#) && !again.text().contains("alert(1)"), "{body}");
    }
}

pub async fn signing_out_ends_the_session_on_every_replica(backend: Backend) {
    let (one, other) = (builder(&backend).start().await, builder(&backend).start().await);
    one.wait_ready(LONG_TIMEOUT).await;
    other.wait_ready(LONG_TIMEOUT).await;
    let (cookie, _) = log_in(&one, "token=all-of-it-and-no-less", &[]).await;
    let (second, _) = log_in(&one, "token=all-of-it-and-no-less", &[]).await;
    let status =
        async |convoke: &Convoke, cookie: &str| get(convoke, "/api/v1/session", &[("cookie", cookie)]).await.status;
    assert_eq!((status(&one, &cookie).await, status(&other, &cookie).await), (200, 200));
    assert_eq!(request(&one, Method::POST, "/session/end", &[("cookie", &cookie)], "").await.status, 303);
    assert_eq!(status(&one, &cookie).await, 401);
    eventually("the other replica knows", LONG_TIMEOUT, async || match status(&other, &cookie).await {
        401 => Ok(()),
        status => Err(status),
    })
    .await;
    assert_eq!((status(&one, &second).await, status(&other, &second).await), (200, 200), "another session goes on");
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_ends_with_all_that_it_opened_and_by_sighup_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str, token: &str| std::fs::write(at(name), token).expect("a file");
    write("all", "first-for-everything\n");
    write("view", "first-for-the-viewers\n");
    let backend = Backend::sqlite();
    let builder = rig::convoke(&backend.url, "none").setting("ADMIN_TOKEN_FILE", at("all"));
    let mut convoke = builder.setting("ADMIN_VIEWER_TOKEN_FILE", at("view")).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let right = async |convoke: &Convoke, token: &str| {
        let answer = ask(convoke, "/api/v1/session", token).await;
        (answer.status == 200).then(|| answer.json()["right"].as_str().expect("a word").to_owned())
    };
    let (cookie, _) = log_in(&convoke, "token=first-for-everything", &[]).await;
    let (viewer, _) = log_in(&convoke, "token=first-for-the-viewers", &[]).await;
    let held =
        async |convoke: &Convoke, cookie: &str| get(convoke, "/api/v1/session", &[("cookie", cookie)]).await.status;
    let mut streams = Vec::new();
    for header in [("authorization", "Bearer first-for-everything"), ("cookie", &cookie), ("cookie", &viewer)] {
        streams.push(Source::open_by(&convoke, "/api/v1/stream", header, None).await);
    }

    write("all", "second-for-everything\n");
    let noticed = "changed files are used";
    eventually("the file is noticed", Duration::from_secs(60), async || convoke.logs().contains(noticed)).await;
    assert_eq!(right(&convoke, "first-for-everything").await, None);
    assert_eq!(right(&convoke, "second-for-everything").await.as_deref(), Some("full"));
    assert_eq!(right(&convoke, "first-for-the-viewers").await.as_deref(), Some("masked"));
    assert_eq!((held(&convoke, &cookie).await, held(&convoke, &viewer).await), (401, 200));
    for mut ended in streams.drain(..2) {
        while ended.block().await.is_some() {}
    }
    deliver(&convoke, &event("meeting.join", 1_790_000_000_000, "960000017", "run-a", &who("Ann", 1, 0))).await;
    assert!(streams[0].event().await.is_some(), "whose token is the same watches on");

    // What cannot be used changes nothing; and that nobody is asked any more is not for a file to say.
    let reloads = |convoke: &Convoke, words: &str| convoke.logs().matches(words).count();
    write("view", "second-for-everything\n");
    convoke.signal(Signal::HUP);
    eventually("it is refused", LONG_TIMEOUT, async || reloads(&convoke, "could not reload") == 1).await;
    assert_eq!(right(&convoke, "first-for-the-viewers").await.as_deref(), Some("masked"));
    write("view", "second-for-the-viewers\n");
    convoke.signal(Signal::HUP);
    eventually("it is taken", LONG_TIMEOUT, async || right(&convoke, "first-for-the-viewers").await.is_none()).await;
    assert_eq!(right(&convoke, "second-for-the-viewers").await.as_deref(), Some("masked"));
    while streams[0].block().await.is_some() {}
}

#[tokio::test]
async fn who_guesses_learns_nothing_more_and_nobody_else_waits() {
    let backend = Backend::sqlite();
    let convoke = builder(&backend).setting("TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let from = |source: &'static str| ("x-forwarded-for", source);
    let (guesser, neighbour, elsewhere) = (from("2001:db8::1"), from("2001:db8::2"), from("192.0.2.1"));
    let (cookie, _) = log_in(&convoke, "token=all-of-it-and-no-less", &[guesser]).await;
    let bearer = async |token: &str, source| {
        get(&convoke, "/api/v1/session", &[("authorization", &format!("Bearer {token}")), source]).await
    };
    let mut wrong = 0;
    let refused = loop {
        let answer = bearer(&format!("wrong-{wrong}"), guesser).await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 401);
        wrong += 1;
        // Some time passes meanwhile, and brings a few more.
        assert!(wrong < 100, "nothing stops the guesses");
    };
    assert!(wrong >= 10, "a few mistakes are nothing: {wrong}");
    let seconds: u64 = refused.header("retry-after").and_then(|after| after.parse().ok()).expect("when to come again");
    assert!((1..=7).contains(&seconds), "{seconds}");
    // The right one is not distinguished from the wrong ones, wherever it is tried, until there is a guess to spare again.
    let mut shut = 0;
    for source in [guesser, neighbour] {
        shut += usize::from(bearer(ALL, source).await.status == 429);
        let form = request(&convoke, Method::POST, "/session", &[FORM, source], "token=all-of-it-and-no-less").await;
        shut += usize::from(form.status == 429 && form.text().contains(r#"role="alert""#));
    }
    assert!(shut >= 2, "{shut} of 4 were refused");
    // The form comes at once, a session goes on, and elsewhere the token is as good as ever.
    let form = get(&convoke, "/", &[("accept", "text/html"), guesser]).await;
    assert!(form.status == 401 && form.text().contains("<form"), "{}", form.text());
    assert_eq!(get(&convoke, "/api/v1/session", &[("cookie", &cookie), guesser]).await.status, 200);
    assert_eq!(bearer(ALL, elsewhere).await.status, 200);
    // What the log says of either names who it was, and not the proxy.
    let renamed = [("origin", "https://ops.example"), FORM, elsewhere];
    assert_eq!(request(&convoke, Method::POST, "/session", &renamed, "").await.status, 403);
    let logs = convoke.logs();
    for (words, client) in
        [("no token, or a wrong one", r#""source":"2001:db8::""#), ("page of another host", r#""peer":"192.0.2.1""#)]
    {
        let line = logs.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no line in {logs}"));
        assert!(line.contains(client), "{line}");
    }
}

#[tokio::test]
async fn every_answer_forbids_the_browser_what_no_page_of_ours_needs() {
    let scene = Scene::start(Backend::sqlite()).await;
    for path in ["/api/v1/events", "/api/v1/nothing", "/api/v1/events?limit=0", "/metrics", "/livez"] {
        let answer = scene.ask(path, ALL).await;
        let policy = answer.header("content-security-policy").expect("a policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        assert!(answer.header("permissions-policy").is_some_and(|policy| policy.contains("camera=()")), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "no other site reads it");
    }
}

#[tokio::test]
async fn without_a_token_only_this_machine_is_answered_and_sees_no_personal_data() {
    let convoke = settings().start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let session = get(&convoke, "/api/v1/session", &[]).await.json();
    assert_eq!((&session["right"], &session["token_required"]), (&"masked".into(), &false.into()));
    for host in ["evil.example", "127.0.0.1.evil.example"] {
        assert_eq!(get(&convoke, "/api/v1/events", &[("host", host)]).await.status, 403, "{host}");
    }
    let open = request(&convoke, Method::POST, "/session", &[FORM], "token=x").await;
    assert_eq!((open.status, open.header("set-cookie")), (303, None), "there is nothing to log in to");
}

#[tokio::test]
async fn each_token_of_the_list_has_its_name_and_rights_and_a_changed_file_counts_without_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, config) = (folder.path().join("night"), folder.path().join("convoke.toml"));
    std::fs::write(&file, "the-token-of-the-night\n").expect("a file");
    let night = format!(
        "[[admin.tokens]]\nname = \"night\"\ntoken_file = \"{}\"\nrights = [\"view\", \"operate\"]\n",
        file.display()
    );
    std::fs::write(&config, &night).expect("a file");
    let backend = Backend::sqlite();
    let mut convoke = builder(&backend).setting("CONFIG", &config).start().await;
    convoke.wait_ready(LONG_TIMEOUT).await;
    let asks = async |convoke: &Convoke, token: &str| {
        let answer = ask(convoke, "/api/v1/session", token).await;
        if answer.status == 200 { answer.json() } else { answer.status.into() }
    };
    let session = asks(&convoke, ALL).await;
    assert_eq!(session["name"], "admin.token");
    assert_eq!(session["rights"], serde_json::json!(["view", "see_people", "operate"]));
    let session = asks(&convoke, "the-token-of-the-night").await;
    assert_eq!((&session["name"], &session["right"]), (&"night".into(), &"masked".into()));
    assert_eq!(session["rights"], serde_json::json!(["view", "operate"]));
    let (cookie, _) = log_in(&convoke, "token=the-token-of-the-night", &[]).await;
    let opened = async |convoke: &Convoke| get(convoke, "/api/v1/session", &[("cookie", &cookie)]).await;
    assert_eq!(opened(&convoke).await.json()["name"], "night");

    std::fs::write(&file, "another-token-of-the-night\n").expect("a file");
    // Not by asking: too many wrong tokens are not even looked at.
    let says = async |convoke: &Convoke, words: &str| {
        eventually(
            words,
            LONG_TIMEOUT,
            async || if convoke.logs().contains(words) { Ok(()) } else { Err(convoke.logs()) },
        )
        .await;
    };
    says(&convoke, "changed files are used").await;
    assert_eq!(asks(&convoke, "another-token-of-the-night").await["name"], "night");
    assert_eq!((asks(&convoke, "the-token-of-the-night").await, opened(&convoke).await.status), (401.into(), 401));
    // The list itself is read again when somebody says so.
    let day = "[[admin.tokens]]\nname = \"day\"\ntoken = \"the-token-of-the-day\"\nrights = [\"see_people\"]\n";
    std::fs::write(&config, day).expect("a file");
    convoke.signal(Signal::HUP);
    says(&convoke, "reloaded subscribers").await;
    assert_eq!(asks(&convoke, "the-token-of-the-day").await["name"], "day");
    assert_eq!(asks(&convoke, "another-token-of-the-night").await, 401);
    assert_eq!(asks(&convoke, "the-token-of-the-day").await["rights"], serde_json::json!(["view", "see_people"]));
    for secret in ["the-token-of", "another-token-of"] {
        assert!(!convoke.logs().contains(secret));
    }
}
