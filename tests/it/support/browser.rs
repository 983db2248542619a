//! A headless Chromium, private to the test, and what a person does with it.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use thirtyfour::{ChromiumLikeCapabilities as _, DesiredCapabilities, Key, LoggingPrefsLogLevel, WebDriver};

use super::{
    child::{OwnChild, print_if_failing},
    http,
    port::Port,
    tools,
    wait::eventually,
};

/// Longer than a browser needs to start, or to paint, on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the viewer's machine looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    pub const BOTH: [Self; 2] = [Self::Light, Self::Dark];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A desk's screen and a small phone's, in CSS pixels.
pub const WIDE: (u32, u32) = (1400, 900);
pub const NARROW: (u32, u32) = (360, 740);

/// A running browser with one tab. It is ended, with all that it started, when it is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: WebDriver,
    process: OwnChild,
    folder: tempfile::TempDir,
    _port: Port,
}

impl Browser {
    /// One that prefers English.
    pub async fn start() -> Self {
        Self::speaking("en-GB").await
    }

    /// One that prefers `language`.
    pub async fn speaking(language: &str) -> Self {
        let (chromium, chromedriver) = tools::chromium();
        let folder = tempfile::Builder::new().prefix("convoke-browser-").tempdir().expect("a temporary folder");
        let port = Port::lease();
        let log = folder.path().join("chromedriver.log");
        let mut command = Command::new(chromedriver);
        command.arg(format!("--port={}", port.number())).env("HOME", folder.path());
        let process = OwnChild::spawn("chromedriver", &mut command, &log, &log);
        let url = format!("http://{}", port.address());
        eventually("chromedriver is ready", WAIT_TIMEOUT, async || {
            http::try_get(&format!("{url}/status")).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        let mut wanted = DesiredCapabilities::chrome();
        let data = format!("--user-data-dir={}", folder.path().join("profile").display());
        let languages = format!("--accept-lang={language}");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-breakpad",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-sync",
            "--hide-scrollbars",
            &data,
            &languages,
        ];
        for argument in arguments {
            wanted.add_arg(argument).expect("an argument");
        }
        wanted.set_binary(&chromium.to_string_lossy()).expect("a program");
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All).expect("a level");
        let driver = WebDriver::new(url, wanted).await.expect("chromium starts");
        let browser = Self { driver, process, folder, _port: port };
        browser.look(WIDE, Scheme::Light).await;
        browser.cdp("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Shanghai" })).await;
        browser
    }

    /// Ends it in good order.
    pub async fn quit(self) {
        self.driver.clone().quit().await.expect("a browser that ends");
    }

    pub async fn goto(&self, url: &str) {
        self.driver.goto(url).await.expect("a page");
    }

    /// What the body of a function returns, called with `arguments`.
    pub async fn js(&self, script: &str, arguments: Value) -> Value {
        let arguments = if let Value::Array(list) = arguments { list } else { vec![arguments] };
        let answer = self.driver.execute(script, arguments).await;
        answer.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// What an expression, which may be a promise, becomes.
    pub async fn promised(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1]; Promise.resolve({expression}).then(done, (error) => done(`failed: ${{error}}`));"
        );
        let answer = self.driver.execute_async(script, Vec::new()).await;
        answer.unwrap_or_else(|error| panic!("{expression}: {error}")).json().clone()
    }

    /// The text that a person sees in the first element that fits; empty if there is none.
    pub async fn text(&self, css: &str) -> String {
        let text = self.js("return document.querySelector(arguments[0])?.innerText ?? ''", json!([css])).await;
        text.as_str().expect("text").to_owned()
    }

    /// Waits until that text contains `wanted`; returns it.
    pub async fn sees(&self, css: &str, wanted: &str) -> String {
        eventually(&format!("{css} says {wanted:?}"), WAIT_TIMEOUT, async || {
            let text = self.text(css).await;
            if text.contains(wanted) { Ok(text) } else { Err(text) }
        })
        .await
    }

    pub async fn count(&self, css: &str) -> u64 {
        let count = self.js("return document.querySelectorAll(arguments[0]).length", json!([css])).await;
        count.as_u64().expect("a number")
    }

    /// Presses the mouse on an element, as a person would: it has to be in sight, and on top.
    pub async fn click(&self, css: &str) {
        let element = self.driver.find(thirtyfour::By::Css(css)).await;
        element.unwrap_or_else(|error| panic!("{css}: {error}")).click().await.expect("it can be clicked");
    }

    /// Types into a field.
    pub async fn types(&self, css: &str, text: &str) {
        let element = self.driver.find(thirtyfour::By::Css(css)).await.expect("a field");
        element.clear().await.expect("it can be emptied");
        element.send_keys(text).await.expect("it can be typed into");
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: Key) {
        self.driver.action_chain().send_keys(key).perform().await.expect("a key");
    }

    /// Sets the size of the window and the viewer's colour scheme.
    pub async fn look(&self, (width, height): (u32, u32), scheme: Scheme) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme.name() }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Asks the browser itself.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let answer = self.driver.cdp().send_raw(command, parameters).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Keeps a picture of the whole page as `target/screenshots/{name}.png`.
    pub async fn screenshot(&self, name: &str) {
        let picture =
            self.cdp("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true })).await;
        let picture = BASE64_STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        let folder = screenshots();
        fs::create_dir_all(&folder).expect("the target folder can be written");
        fs::write(folder.join(format!("{name}.png")), picture).expect("the target folder can be written");
    }

    /// Errors and warnings that the browser's console has had since the last call: of scripts, of the policy, of requests.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.expect("a log");
        let serious = log.into_iter().filter(|entry| entry.level == "SEVERE" || entry.level == "WARNING");
        serious.map(|entry| format!("{}: {}", entry.level, entry.message)).collect()
    }

    /// The text of a dialog that is open.
    pub async fn dialog(&self) -> Option<String> {
        self.driver.get_alert_text().await.ok()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        print_if_failing("chromedriver", &self.folder.path().join("chromedriver.log"));
        // Otherwise it would ask a driver that is gone to end, and wait for the answer. Fails only if it was asked before.
        let _ = self.driver.clone().leak();
        self.process.kill();
        // A driver that was killed leaves its browser behind. All of its processes name the folder, which nobody else has.
        let folder = self.folder.path().as_os_str().as_encoded_bytes();
        let names_it = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(folder.len()).any(|part| part == folder)
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
        for process in ids.filter(names_it).filter_map(Pid::from_raw) {
            // Fails only for one that has just ended.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// Where pictures are kept.
pub fn screenshots() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(target).join("screenshots")
}
