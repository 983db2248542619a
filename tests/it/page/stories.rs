//! A meeting's story, the quarantine, the search; and what is hostile in all of them.

use serde_json::json;

use super::{
    open,
    scene::{self, LIVE, NUMBER, OVER, TOKEN, VIEWER, page, sign_in, story},
};
use crate::{support::browser::Browser, support::service::Service};

#[tokio::test]
async fn a_meetings_story_the_quarantine_and_the_search_are_reported() {
    let service = scene::fill(scene::guarded().await).await;
    let browser = Browser::start().await;
    sign_in(&browser, &service, TOKEN).await;
    browser.sees("#verdict", "One body is in the quarantine.").await;

    // From the overview to the story of the run that is on.
    browser.click("#live-meetings a").await;
    browser.sees("h1", NUMBER).await;
    browser.sees("#meeting-body", "Still on").await;
    assert_eq!(browser.js("return document.activeElement.tagName", json!([])).await, json!("H1"), "the focus follows");
    assert_eq!(browser.count(".timeline .lines .line").await, 3, "a line for each person");
    assert_eq!(browser.count(".timeline .lines .bar").await, 4, "a bar for each stay");
    assert_eq!(browser.count(".timeline .mark").await, 1, "the recording");
    let link = browser.js("return document.querySelector('#open-in-client').href", json!([])).await;
    let link = link.as_str().expect("a link");
    assert!(link.starts_with("cloudlink://welinksoftclient/h5page?page=joinConfByLink"), "{link}");
    assert!(link.contains(&format!("conf_id={NUMBER}")) && link.contains("open_mic=false"), "{link}");
    browser.click("#stays-summary").await;
    let stays = browser.sees("#stays-table", "Sofia Lindqvist").await;
    assert!(stays.contains("Windows") && stays.contains("still there"), "{stays}");
    browser.sees("#meeting-events", "That is all: 10.").await;

    // It goes on while one looks at it.
    scene::joins_as(&service, "Ana Ruiz").await;
    browser.sees(".timeline", "Ana Ruiz").await;

    // A run that is over.
    browser.goto(&page(&service, &story(OVER))).await;
    browser.sees("#meeting-body", "Concluded").await;
    assert_eq!(browser.count(".timeline .bar-meeting_end").await, 1, "who never left");

    // One that never was.
    browser.goto(&page(&service, &story("none"))).await;
    browser.sees("#meeting-body", "There is no such thing here").await;

    // The quarantine, and why.
    browser.click("nav a[href='#/quarantine']").await;
    browser.sees("main table", "event is missing").await;
    browser.click("main table a").await;
    browser.sees("#quarantine-body", "<b>no event</b>").await;

    // A meeting by its number and its UUID, a person by a handle; what is not there is said to be not there.
    for (asked, found, times) in [(NUMBER, NUMBER, 2), (LIVE, NUMBER, 1), ("sofia", "Sofia Lindqvist", 1)] {
        browser.types("#search-field", asked).await;
        browser.click(".search button").await;
        browser.sees("h1", asked).await;
        browser.sees("#results", found).await;
        let rows = browser.count("#results section:first-child tbody tr").await;
        assert_eq!(rows, times, "{asked}");
    }
    browser.types("#search-field", "nobody").await;
    browser.click(".search button").await;
    browser.sees("#results", "Nothing found").await;

    // Lists are filtered by what stands in the address, and a wrong question is answered with what is allowed.
    browser.goto(&page(&service, "#/events?event=record.finish")).await;
    browser.sees("main", "That is all: 1.").await;
    browser.goto(&page(&service, "#/meetings?status=concluded")).await;
    browser.sees("main", "That is all: 1.").await;
    // What is listed can be downloaded: no more, and no less.
    for (format, begins) in [("csv", "\u{feff}subscriber_id,"), ("xlsx", "PK")] {
        let link = browser
            .js("return document.querySelector(arguments[0]).href", json!([format!("#download-{format}")]))
            .await;
        let link = link.as_str().expect("a link").to_owned();
        assert!(link.ends_with(&format!("/api/v1/export/meetings?status=concluded&format={format}")), "{link}");
        let file = browser.promised(&format!("fetch('{link}').then((answer) => answer.text())")).await;
        let file = file.as_str().expect("text").to_owned();
        assert!(file.starts_with(begins) || format!("\u{feff}{file}").starts_with(begins), "{file:.80}");
        assert!(format == "xlsx" || file.trim_end().lines().count() == 2, "{file}");
    }
    browser.goto(&page(&service, "#/events?since=yesterday")).await;
    browser.sees("main .failed", "This cannot be asked.").await;
    browser.quit().await;
}

#[tokio::test]
async fn a_hostile_name_stays_text() {
    let names = [
        "<img src=x onerror=\"alert('name');window.owned=1\">",
        "<script>alert('name');window.owned=1</script>",
        "\"><svg/onload=alert(1)>{{7*7}}${alert(1)}",
        "javascript:alert('name')",
        "'; DROP TABLE events; --",
        "\u{202e}gnp.exe\u{202c} \u{0}\u{7}",
        "__proto__",
    ];
    let service = scene::guarded().await;
    for name in names {
        scene::joins_as(&service, name).await;
    }
    service.acknowledged(&json!({ "timestamp": 1, "payload": names }).to_string()).await;
    let browser = Browser::start().await;
    sign_in(&browser, &service, TOKEN).await;
    browser.sees("#feed", names[0]).await;
    browser.goto(&page(&service, &story(LIVE))).await;
    browser.sees(".timeline", "<script>").await;
    browser.click("#stays-summary").await;
    browser.sees("#stays-table", names[2]).await;
    browser.sees("#meeting-events", names[1]).await;
    browser.goto(&page(&service, "#/events")).await;
    browser.sees("main table", names[3]).await;
    let row = "[...document.querySelectorAll('main tbody tr')].find((row) => row.innerText.includes('onerror'))";
    browser.js(&format!("{row}.querySelector('a').click()"), json!([])).await;
    browser.sees("#event-body pre", "onerror").await;
    browser.goto(&page(&service, "#/quarantine/1")).await;
    browser.sees("#quarantine-body pre", "onerror").await;
    for name in &names[..5] {
        browser.types("#search-field", name).await;
        browser.click(".search button").await;
        browser.sees("h1", name.split('\u{0}').next().expect("text")).await;
        browser.sees("#found-stays", name).await;
    }
    let hostile =
        browser.count("main img, main script, main iframe, main svg[onload], [onerror], a[href^='javascript']").await;
    assert_eq!(hostile, 0);
    assert_eq!(browser.js("return window.owned ?? null", json!([])).await, json!(null));
    assert_eq!(
        (browser.dialog().await, browser.complaints().await),
        (None, vec![]),
        "no script ran, none was stopped either"
    );
    browser.quit().await;
}

#[tokio::test]
async fn only_who_has_a_token_sees_the_page_and_only_the_right_one_sees_people() {
    let service = scene::fill(scene::guarded().await).await;
    let browser = Browser::start().await;
    sign_in(&browser, &service, "a wrong one").await;
    assert_eq!(browser.count("input[name='token']").await, 1, "it is asked for again");
    assert_eq!((browser.count("#app").await, browser.count("[role='alert']").await), (0, 1));
    browser.complaints().await; // The browser's own line about the 401.

    sign_in(&browser, &service, VIEWER).await;
    browser.sees("#masked-note", "Personal data is masked").await;
    browser.sees("#feed", "王…").await;
    browser.goto(&page(&service, &story(LIVE))).await;
    browser.sees(".timeline", "S…").await;
    assert!(!browser.text("body").await.contains("Lindqvist"));
    assert_eq!(browser.complaints().await, [""; 0]);

    // Out again, and what comes after the cookie is the form.
    browser.click("#sign-out").await;
    browser.sees("label[for='token']", "Token").await;
    sign_in(&browser, &service, TOKEN).await;
    browser.sees("#feed", "王小明").await;
    assert_eq!(browser.count("#masked-note").await, 0);

    // The session ends while the page is open: it says so, and asks nothing more.
    browser.cdp("Network.clearBrowserCookies", json!({})).await;
    browser.goto(&page(&service, "#/meetings")).await;
    browser.sees("#banner", "Your session has ended.").await;
    browser.click("#banner a").await;
    browser.sees("label[for='token']", "Token").await;
    browser.quit().await;
}

#[tokio::test]
async fn without_a_token_the_page_is_masked_and_says_why() {
    let service = scene::busy().await;
    let browser = Browser::start().await;
    open_busy(&browser, &service).await;
    browser.sees("#masked-note", "no token is set").await;
    assert_eq!(browser.count("#sign-out").await, 0);
    browser.goto(&page(&service, "#/quarantine/1")).await;
    browser.sees("#quarantine-body", "Masked").await;
    browser.quit().await;
}

async fn open_busy(browser: &Browser, service: &Service) {
    browser.goto(&page(service, "#/")).await;
    browser.sees("#feed", NUMBER).await;
}

#[tokio::test]
async fn the_feed_can_be_stopped_to_be_read() {
    let service = Service::start().await;
    let browser = Browser::start().await;
    open(&browser, &service).await;
    scene::joins_as(&service, "first").await;
    browser.sees("#feed", NUMBER).await;
    browser.click("#feed-pause").await;
    scene::joins_as(&service, "second").await;
    // Whoever listens beside the page has had two messages with both, so the page has had one.
    let heard = browser.promised(
        "new Promise((heard) => {
           const beside = new EventSource('/api/v1/live');
           let messages = 0;
           beside.addEventListener('live', ({ data }) => {
             if (JSON.parse(data).newest.length < 2 || ++messages < 2) return;
             beside.close();
             heard(true);
           });
         })",
    );
    assert_eq!(heard.await, json!(true));
    assert_eq!(browser.count("#feed li").await, 1, "it stands still");
    browser.click("#feed-pause").await;
    browser.sees("#feed li:nth-child(2)", NUMBER).await;
    browser.quit().await;
}
