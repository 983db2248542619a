//! Whoever looks, and however: in Chinese, with the keyboard, with a screen reader.

use std::collections::BTreeSet;

use serde_json::json;
use thirtyfour::Key;

use super::scene::{self, LIVE, page, story};
use crate::{
    support::service::{Service, WAIT_TIMEOUT},
    support::{
        browser::{Browser, NARROW, Scheme, WIDE},
        tools,
        wait::eventually,
    },
};

/// Every view, by name; asked for by the page, which may see it.
async fn views(browser: &Browser) -> [(&'static str, String); 11] {
    let newest =
        "fetch('/api/v1/events?limit=1').then((answer) => answer.json()).then(({ items }) => items[0].event_id)";
    let event = browser.promised(newest).await;
    [
        ("overview", "#/".to_owned()),
        ("meetings", "#/meetings".to_owned()),
        ("meeting", story(LIVE)),
        ("attendance", "#/attendance".to_owned()),
        ("recordings", "#/recordings".to_owned()),
        ("events", "#/events".to_owned()),
        ("event", format!("#/event/{}", event.as_str().expect("an event"))),
        ("quarantine", "#/quarantine".to_owned()),
        ("quarantined", "#/quarantine/1".to_owned()),
        ("actions", "#/actions".to_owned()),
        ("search", format!("#/search?q={}", scene::NUMBER)),
    ]
}

/// Goes to a view and waits until it has all that it asks for.
async fn show(browser: &Browser, service: &Service, hash: &str) {
    browser.goto(&page(service, hash)).await;
    settle(browser).await;
}

/// Waits until what the address asks for is there, with its lists and charts.
async fn settle(browser: &Browser) {
    eventually("the view is filled", WAIT_TIMEOUT, async || {
        let missing = browser
            .js(
                "if (document.querySelector('main')?.dataset.way !== location.hash) return 'the view';
                 const waiting = document.querySelectorAll('.loading, [aria-busy], .plot:empty, #verdict[data-level=unknown]');
                 return [...waiting].map((one) => one.outerHTML)",
                json!([]),
            )
            .await;
        if missing == json!([]) { Ok(()) } else { Err(missing) }
    })
    .await;
}

#[tokio::test]
async fn axe_finds_nothing_serious_in_any_view() {
    let service = scene::fill(scene::guarded().await).await;
    let browser = Browser::start().await;
    let axe = tools::axe();
    scene::sign_in(&browser, &service, scene::TOKEN).await;
    browser.sees("#feed", scene::NUMBER).await;
    show(&browser, &service, "#/").await;
    let views = views(&browser).await;
    for (size, scheme) in [(WIDE, Scheme::Light), (WIDE, Scheme::Dark), (NARROW, Scheme::Light)] {
        browser.look(size, scheme).await;
        for (name, hash) in &views {
            show(&browser, &service, hash).await;
            // What is folded away counts too.
            browser.js("for (const one of document.querySelectorAll('details')) one.open = true", json!([])).await;
            browser.js(&axe, json!([])).await;
            let found = browser
                .promised(
                    "axe.run(document, { resultTypes: ['violations'] }).then(({ violations, passes }) => [passes.length,
                       violations.filter((one) => ['serious', 'critical'].includes(one.impact))
                         .map((one) => [one.id, one.nodes.map((node) => node.html + ' ' + node.failureSummary)])])",
                )
                .await;
            assert!(found[0].as_u64() > Some(10), "axe looked: {found}");
            assert_eq!(found[1], json!([]), "{name}, {scheme:?}, {size:?}: {found:#}");
        }
    }
    browser.quit().await;
}

#[tokio::test]
async fn the_keyboard_reaches_everything() {
    let service = scene::busy().await;
    let browser = Browser::start().await;
    show(&browser, &service, "#/").await;
    // Nothing moves while it is walked through.
    browser.js("document.querySelector('#feed-pause').click(); document.querySelectorAll('a, button, input, select, summary').forEach((one, n) => one.dataset.n = n)", json!([])).await;
    let reachable = browser
        .js(
            "return [...document.querySelectorAll('[data-n]')].filter((one) => one.checkVisibility() && !one.disabled).map((one) => one.dataset.n)",
            json!([]),
        )
        .await;
    let reachable: BTreeSet<String> = serde_json::from_value(reachable).expect("numbers");
    let mut reached = BTreeSet::new();
    for step in 0..reachable.len() + 20 {
        browser.press(Key::Tab).await;
        let here = browser.js("const { dataset, className } = document.activeElement; return [dataset.n ?? null, className, getComputedStyle(document.activeElement).outlineStyle]", json!([])).await;
        if step == 0 {
            assert_eq!(here[1], json!("skip"), "the first stop leads past what is on every page");
        }
        if let Some(number) = here[0].as_str() {
            assert_ne!(here[2], json!("none"), "the focus is seen: {here}");
            reached.insert(number.to_owned());
        }
    }
    assert_eq!(reached, reachable);

    // The skip link skips, and the address stays.
    browser.js("document.querySelector('.skip').focus()", json!([])).await;
    browser.press(Key::Enter).await;
    assert_eq!(browser.js("return [document.activeElement.id, location.hash]", json!([])).await, json!(["main", "#/"]));

    // A way is gone by its key, and the focus is where the new view begins.
    browser.js("document.querySelector(\"nav a[href='#/events']\").focus()", json!([])).await;
    browser.press(Key::Enter).await;
    settle(&browser).await;
    assert_eq!(browser.js("return [document.activeElement.tagName, document.title]", json!([])).await[0], json!("H1"));
    browser.quit().await;
}

#[tokio::test]
async fn a_chinese_viewer_reads_chinese_and_a_choice_is_remembered() {
    let service = scene::in_zone("Asia/Tokyo").await;
    let browser = Browser::speaking("zh-CN").await;
    show(&browser, &service, "#/").await;
    assert_eq!(browser.js("return document.documentElement.lang", json!([])).await, json!("zh-CN"));
    browser.sees("#happened", "每分钟事件数").await;
    // The setting counts, wherever the viewer is.
    browser.sees("#zone", "Asia/Tokyo（UTC+9）").await;
    // No word is missing: a key would be shown in its place.
    for (_, hash) in views(&browser).await {
        show(&browser, &service, &hash).await;
        let text = browser.text("body").await;
        let keys = text.split_whitespace().filter(|word| {
            let mut parts = word.split('.');
            let known = [
                "tile",
                "verdict",
                "finding",
                "nav",
                "meeting",
                "event",
                "stay",
                "quarantine",
                "filter",
                "list",
                "act",
                "actions",
                "attendance",
            ];
            parts.next().is_some_and(|first| known.contains(&first)) && parts.next().is_some()
        });
        let events = |word: &&str| {
            !["create", "modify", "started", "join", "left", "end", "conclude"].iter().any(|kind| word.ends_with(kind))
        };
        assert_eq!(keys.filter(events).collect::<Vec<_>>(), [""; 0], "{hash}");
    }
    show(&browser, &service, "#/meetings").await;
    browser.click("#language").await;
    browser.sees("h1", "Meetings").await;
    assert_eq!(
        browser.js("return [document.documentElement.lang, document.activeElement.id]", json!([])).await,
        json!(["en", "language"])
    );
    browser.goto(&page(&service, "#/quarantine")).await;
    browser.js("location.reload()", json!([])).await;
    browser.sees("h1", "Quarantine").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.quit().await;
}

#[tokio::test]
async fn dark_follows_the_machine_unless_the_viewer_chose() {
    let service = Service::start().await;
    let browser = Browser::start().await;
    let ground = async || browser.js("return getComputedStyle(document.body).backgroundColor", json!([])).await;
    let (light, dark) = (json!("rgb(244, 246, 248)"), json!("rgb(14, 19, 24)"));
    for (scheme, expected) in [(Scheme::Light, &light), (Scheme::Dark, &dark)] {
        browser.look(WIDE, scheme).await;
        show(&browser, &service, "#/").await;
        assert_eq!(&ground().await, expected, "as the machine is");
    }
    browser.js("const choice = document.querySelector('#scheme'); choice.value = 'light'; choice.dispatchEvent(new Event('change'))", json!([])).await;
    assert_eq!(ground().await, light, "at once");
    browser.goto("about:blank").await;
    show(&browser, &service, "#/").await;
    assert_eq!(ground().await, light, "and the next time");
    browser.quit().await;
}

/// Looks at every view in this language, at a desk and on a phone, by day and by night; keeps pictures.
async fn look_around(tag: &str, language: &str) {
    let service = scene::fill(scene::guarded().await).await;
    let browser = Browser::speaking(tag).await;
    scene::sign_in(&browser, &service, scene::TOKEN).await;
    browser.sees("#feed", scene::NUMBER).await;
    let views = views(&browser).await;
    for (size, width) in [(NARROW, "narrow"), (WIDE, "wide")] {
        for scheme in Scheme::BOTH {
            browser.look(size, scheme).await;
            for (name, hash) in &views {
                show(&browser, &service, hash).await;
                let beyond = browser
                    .js(
                        "const beyond = (one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.plot, .hidden-text, thead');
                         return [document.documentElement.scrollWidth - innerWidth,
                                 [...document.querySelectorAll('main *')].filter(beyond).map((one) => one.outerHTML.slice(0, 120))]",
                        json!([]),
                    )
                    .await;
                assert_eq!(beyond, json!([0, []]), "{name}, {width}: nothing is beyond the edge");
                browser.screenshot(&format!("{name}-{language}-{}-{width}", scheme.name())).await;
            }
        }
    }
    browser.quit().await;
}

#[tokio::test]
async fn a_phone_needs_no_sideways_scrolling_and_pictures_are_kept_in_english() {
    look_around("en-GB", "en").await;
}

#[tokio::test]
async fn a_phone_needs_no_sideways_scrolling_and_pictures_are_kept_in_chinese() {
    look_around("zh-CN", "zh").await;
}
