//! The page and the events listener behind a real nginx.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::scene;
use crate::{
    support::service::{Database, PATH, Service, WAIT_TIMEOUT, event, settings, signed},
    support::tls,
    support::{browser::Browser, docs, nginx::Nginx, wait::eventually},
};

#[tokio::test]
async fn the_page_works_behind_an_nginx_that_says_nothing_and_below_any_path() {
    let service = scene::guarded().await;
    let admin = service.convoke.admin;
    let nginx = Nginx::start(|listen| {
        format!(
            "server {{ listen {listen}; location / {{ proxy_pass http://{admin}; }} \
             location /ops/convoke/ {{ proxy_pass http://{admin}/; }} }}"
        )
    })
    .await;
    let browser = Browser::start().await;
    for (way, meeting) in [("", "987446316"), ("ops/convoke/", "987446317")] {
        let base = format!("http://{}/{way}", nginx.address());
        browser.goto(&base).await;
        browser.sees("label[for='token']", "").await;
        browser.types("input[name='token']", "not the token, but as long").await;
        browser.click("button[type='submit']").await;
        browser.sees("[role='alert']", "not right").await;
        browser.types("input[name='token']", scene::TOKEN).await;
        browser.click("button[type='submit']").await;
        // The browser's own lines about the two 401.
        browser.complaints().await;
        browser.sees("#verdict[data-level='ok']", "All is well").await;
        service.acknowledged(&event("meeting.started", meeting)).await;
        browser.sees("#feed", meeting).await;
        assert_eq!(browser.complaints().await, [""; 0], "{base}");
        assert_eq!(browser.js("return location.href.split('#')[0]", serde_json::json!([])).await, base);
        browser.click("#sign-out").await;
        browser.sees("label[for='token']", "").await;
        assert_eq!(browser.js("return location.href", serde_json::json!([])).await, base);
    }
    browser.quit().await;
}

#[tokio::test]
async fn the_documented_nginx_passes_deliveries_on_over_connections_that_it_keeps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    tls::certificate(&cert, &key);
    let builder = settings().setting("TRUSTED_PROXIES", "127.0.0.1").setting("ADMIN_TOKEN", scene::TOKEN);
    let service = Service::with(builder.setting("ALLOW_FROM", "127.0.0.1"), Database::Sqlite).await;
    let (events, admin) = (service.convoke.events, service.convoke.admin);
    let nginx = Nginx::start(|listen| {
        let mut text = docs::block("docs/install/reverse-proxy.md", "nginx", "nginx");
        for (there, here) in [
            ("listen 443 ssl", format!("listen {listen} ssl")),
            ("127.0.0.1:8080", events.to_string()),
            ("127.0.0.1:8081", admin.to_string()),
            ("/etc/nginx/fullchain.pem", cert.display().to_string()),
            ("/etc/nginx/privkey.pem", key.display().to_string()),
        ] {
            assert!(text.contains(there), "{there} in {text}");
            text = text.replace(there, &here);
        }
        text
    })
    .await;
    let ask = async |request: Vec<u8>| {
        let mut stream = tls::connect(nginx.address(), &cert, b"http/1.1").await.expect("TLS");
        stream.write_all(&request).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    for n in 0..5 {
        let body = signed(&event("meeting.join", &n.to_string()));
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: hooks.example.com\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = ask([head.as_bytes(), &body].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(service.count("events"), 5);
    let series = "convoke_connections";
    eventually("they came over one connection, which is kept", WAIT_TIMEOUT, async || {
        let token = format!("Bearer {}", scene::TOKEN);
        let answer = reqwest::Client::new().get(format!("http://{admin}/metrics")).header("authorization", token);
        let text = answer.send().await.expect("an answer").text().await.expect("a text");
        match crate::support::http::metric_in(&text, series) {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let page = "GET /convoke/ HTTP/1.1\r\nHost: hooks.example.com\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    let form = ask(page.into()).await;
    assert!(form.starts_with("HTTP/1.1 401 ") && form.contains(r#"action="session""#), "{form}");
    let probe = ask("GET /readyz HTTP/1.1\r\nHost: hooks.example.com\r\nConnection: close\r\n\r\n".into()).await;
    assert!(probe.starts_with("HTTP/1.1 404 "), "what is not named is nobody's: {probe}");
}
