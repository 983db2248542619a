//! Secrets do not come out, and do not stay in memory longer than they are needed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use convoke::config::{ConfigArgs, Env, Settings};
use convoke_simulator::platform::{Platform, PlatformOptions};
use rustix::process::Signal;

use crate::support::nats::{NatsOptions, NatsServer, NatsVersion};
use crate::support::process::{Convoke, run_convoke};
use crate::support::rig::{LONG_TIMEOUT, metric_over};
use crate::support::service::{APP_ID, WAIT_TIMEOUT};
use crate::support::tools::output_of;
use crate::support::wait::eventually;

const KEY: &str = "plAntEd-kEy-8c1f0b27d94e";
const BUS_TOKEN: &str = "plAntEd-bUs-77d2";
const TOKEN: &str = "plAntEd-tOkEn-5b0e6a13f7";

/// How often `needle` stands in the memory of a process.
fn in_memory(id: u32, needle: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).expect("a running process");
    let memory = File::open(format!("/proc/{id}/mem")).expect("the memory of a child");
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (from, to) = range.split_once('-').expect("two addresses");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let mut bytes = vec![0; usize::try_from(address(to) - address(from)).expect("a size")];
        // Some regions are the kernel's own.
        if memory.read_exact_at(&mut bytes, address(from)).is_ok() {
            found += bytes.windows(needle.len()).filter(|window| *window == needle).count();
        }
    }
    found
}

#[tokio::test]
async fn keys_from_files_are_wiped_from_memory_and_never_come_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("key"), format!("{KEY}\n")).expect("a file");
    std::fs::write(at("token"), TOKEN).expect("a file");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9"]);
    openssl.args(["-subj", "/CN=convoke-test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    output_of(openssl.arg("-out").arg(at("cert")).arg("-keyout").arg(at("tls")));
    let pem = std::fs::read_to_string(at("tls")).expect("a key");
    let tls = pem.lines().nth(1).expect("a line of the key").to_owned();
    let options = NatsOptions { token: Some(BUS_TOKEN.to_owned()), ..NatsOptions::default() };
    let nats = NatsServer::start(NatsVersion::Newest, options).await;
    std::fs::write(at("bus"), BUS_TOKEN).expect("a file");

    let mut convoke = Convoke::builder()
        .setting("APP_ID", APP_ID)
        .setting("APP_KEY_FILE", at("key"))
        .setting("ADMIN_TOKEN_FILE", at("token"))
        .setting("TLS_CERT", at("cert"))
        .setting("TLS_KEY", at("tls"))
        .setting("NATS_URL", nats.url())
        .setting("NATS_TOKEN_FILE", at("bus"))
        .setting("SHUTDOWN_DELAY", "0s")
        .env("RUST_LOG", "trace")
        .start()
        .await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    // To show that the search finds what is there.
    assert!(in_memory(convoke.id(), convoke.folder().display().to_string().as_bytes()) > 0);
    let id = convoke.id();
    let wiped = |when: &str| {
        for (what, secret) in [("the key", KEY), ("the admin token", TOKEN), ("the TLS key", &tls)] {
            assert_eq!(in_memory(id, secret.as_bytes()), 0, "{what} is in memory {when}");
        }
    };
    wiped("after the start");
    let reloads = |convoke: &Convoke| convoke.logs().matches("reloaded subscribers").count();
    convoke.signal(Signal::HUP);
    eventually("the files are read again", WAIT_TIMEOUT, async || reloads(&convoke) == 1).await;
    // Other parts are reloaded after the subscribers, and each wipes what it has read at its own end.
    eventually("nothing of them is in memory", WAIT_TIMEOUT, async || {
        [KEY, TOKEN, tls.as_str()].iter().all(|secret| in_memory(id, secret.as_bytes()) == 0)
    })
    .await;

    let check = convoke.run(&["check"]).await;
    convoke.signal(Signal::TERM);
    assert!(convoke.wait_exit(WAIT_TIMEOUT).await.success());
    let said = [convoke.logs(), convoke.stdout(), check.stdout, check.stderr].concat();
    assert!(said.contains("\"level\":\"TRACE\""), "the log was not at its most talkative");
    for secret in [KEY, TOKEN, BUS_TOKEN, &tls] {
        let found = said.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} in: {}", found.unwrap_or_default());
    }
}

#[tokio::test]
async fn no_key_of_a_subscriber_is_in_memory_beside_a_backfill_either_and_none_that_was_replaced() {
    const API_APP: &str = "0123456789abcdef0123456789abcdef";
    const API_KEYS: [&str; 2] = ["plAntEd-aPi-kEy-1e5d30c7a2", "plAntEd-aPi-kEy-94b7f6c0e8"];
    const NEXT_KEY: &str = "plAntEd-nExt-kEy-6b20a7d3f1";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str, key: &str| std::fs::write(at(name), format!("{key}\n")).expect("a file");
    let platform = Platform::start(PlatformOptions::new(API_APP, API_KEYS[0].into())).await.expect("a free port");
    write("key", KEY);
    write("api", API_KEYS[0]);
    let mut convoke = Convoke::builder()
        .setting("APP_ID", APP_ID)
        .setting("APP_KEY_FILE", at("key"))
        .setting("NATS_URL", "none")
        .setting("PLATFORM_URL", platform.url())
        .setting("PLATFORM_APP_ID", API_APP)
        .setting("PLATFORM_APP_KEY_FILE", at("api"))
        .setting("BACKFILL_EVERY", "1h")
        .start()
        .await;
    let done = "convoke_backfill_completed_timestamp_seconds";
    metric_over(&convoke, done, 1.0, LONG_TIMEOUT).await;
    assert!(in_memory(convoke.id(), API_KEYS[0].as_bytes()) > 0, "the platform's is what it signs in with");
    assert_eq!(in_memory(convoke.id(), KEY.as_bytes()), 0, "in memory after a backfill");
    write("key", NEXT_KEY);
    write("api", API_KEYS[1]);
    convoke.signal(Signal::HUP);
    eventually("the files are read again", WAIT_TIMEOUT, async || convoke.logs().contains("reloaded subscribers"))
        .await;
    for replaced in [KEY, NEXT_KEY, API_KEYS[0]] {
        assert_eq!(in_memory(convoke.id(), replaced.as_bytes()), 0, "{replaced} is in memory after a reload");
    }
}

#[tokio::test]
async fn what_is_printed_for_debugging_holds_no_secret() {
    const SECRETS: [&str; 4] = ["plAntEd-kEy", "plAntEd-tOkEn-of-16", "plAntEd-dAtAbAsE", "plAntEd-bUs"];
    let [key, token, database, bus] = SECRETS;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (database, nats) = (format!("postgres://u:{database}@h/d"), format!("nats://u:{bus}@h"));
    let variables = [
        ("CONVOKE_APP_ID", "a"),
        ("CONVOKE_APP_KEY", key),
        ("CONVOKE_ADMIN_TOKEN", token),
        ("CONVOKE_DATABASE_URL", &database),
        ("CONVOKE_NATS_URL", &nats),
    ];
    let env = Env::of(variables, folder.path());
    let args = ConfigArgs { database_url: Some(database.clone()), nats_url: Some(nats.clone()), ..Default::default() };
    let settings = Settings::load(&args, &env).expect("sound settings");
    let log = convoke::app::log_options(&settings);
    let access = convoke::http::auth::Access::new(
        &settings.admin,
        convoke::http::server::ClientSources::default(),
        convoke_log::open(&log).expect("a log"),
        convoke_core::time::Clock::System,
    );
    let printed = [
        format!("{settings:?} {env:?} {args:?}"),
        format!("{:?} {:?}", settings.subscribers, settings.subscriber_sources),
        format!(
            "{:?} {:?}",
            convoke::app::bus_options(&settings),
            convoke_core::verify::Keyring::new(&settings.subscribers)
        ),
        format!("{access:?}"),
        format!("{:?}", log),
    ]
    .concat();
    for secret in SECRETS {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

/// Is in each secret of the settings below.
const MARK: &str = "plAntEd";

/// Every place of the settings that a secret can be written into, or that names a file with one.
fn settings_with_secrets(folder: &std::path::Path) -> String {
    for file in ["keys", "admin-token", "token", "platform-key", "nats-password"] {
        std::fs::write(folder.join(file), format!("{MARK}-iN-tHe-fIlE-{file}\n")).expect("a file");
    }
    let creds = format!("-----BEGIN NATS USER JWT-----\n{MARK}\n------END NATS USER JWT------\n");
    std::fs::write(folder.join("nats.creds"), creds).expect("a file");
    let folder = folder.display();
    format!(
        r#"
[[subscriber]]
app_id = "1"
keys = ["{MARK}-kEy", "${{SECOND_KEY}}"]
key_files = ["{folder}/keys"]
[database]
url = "postgres://convoke:${{DATABASE_WORD}}@127.0.0.1/convoke?sslpassword={MARK}"
[nats]
url = "nats://convoke:{MARK}-wOrd@127.0.0.1:4222,nats://convoke:${{BUS_WORD}}@127.0.0.1:4223"
[admin]
token = "{MARK}-aDmin-tOkEn"
viewer_token = "${{VIEWER_TOKEN}}"
[[admin.tokens]]
name = "a"
token = "{MARK}-tOkEn-oF-tHe-lIst"
rights = ["view"]
[[admin.tokens]]
name = "b"
token_file = "{folder}/token"
rights = ["operate"]
[platform]
app_id = "0123456789abcdef"
app_key_file = "{folder}/platform-key"
"#
    )
}

#[tokio::test]
async fn config_prints_no_secret_in_any_of_its_modes_nor_in_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = settings_with_secrets(folder.path());
    let file = |text: &str| {
        let path = folder.path().join("convoke.toml");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let known = ["SECOND_KEY", "DATABASE_WORD", "BUS_WORD", "VIEWER_TOKEN"];
    let values = known.map(|name| format!("{MARK}-${{{name}/:@"));
    let environment: Vec<(&str, &str)> = known.into_iter().zip(values.iter().map(String::as_str)).collect();
    let run = async |arguments: &[&str], more: &[(&str, &str)]| {
        let config = folder.path().join("convoke.toml").display().to_string();
        let arguments = [&["config", "--config", &config], arguments].concat();
        let finished = run_convoke(&arguments, &[&environment, more].concat()).await;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        let lines = said.lines().filter(|line| line.to_lowercase().contains(&MARK.to_lowercase()));
        assert_eq!(lines.collect::<Vec<_>>(), [""; 0], "{arguments:?} {more:?}");
        finished
    };
    file(&good);
    for (mode, word) in [(&[][..], "***"), (&["--effective"], "***"), (&["--check"], "ok "), (&["--default"], "[nats]")]
    {
        let shown = run(mode, &[]).await;
        assert!(shown.code() == 0 && shown.stdout.contains(word), "{mode:?} {shown:?}");
    }
    for files in [("NATS_CREDS_FILE", "nats.creds"), ("NATS_TOKEN_FILE", "nats-password")] {
        let path = folder.path().join(files.1).display().to_string();
        let more = [(&*format!("CONVOKE_{}", files.0), &*path), ("CONVOKE_NATS_URL", "nats://127.0.0.1:4222")];
        assert!(run(&[], &more).await.stdout.contains(files.1));
        run(&["--check"], &more).await;
    }
    for (name, value) in [
        ("DATABASE_URL", "convoke:plAntEd@127.0.0.1/convoke"),
        ("DATABASE_URL", "postgres:convoke:plAntEd@127.0.0.1/convoke"),
        ("DATABASE_URL", "postgres://convoke:plAntEd/word@127.0.0.1/convoke"),
        ("DATABASE_URL", "postgres://convoke:plAntEd"),
        ("DATABASE_URL", "mysql://convoke:plAntEd@127.0.0.1/convoke"),
        ("NATS_URL", "convoke:plAntEd@127.0.0.1:4222"),
        ("NATS_URL", "nats://plAntEd/word@127.0.0.1:4222"),
        ("NATS_URL", "http://convoke:plAntEd@127.0.0.1:4222"),
        ("ADMIN_TOKEN", "plAntEd"),
        ("ADMIN_TOKEN", "plAntEd with blanks in it"),
        ("ADMIN_TOKEN", "plAntEd-tOkEn-oF-tHe-lIst"),
        ("ADMIN_VIEWER_TOKEN", "plAntEd-aDmin-tOkEn"),
        ("APP_KEY", "plAntEd"),
        ("APP_KEYS", "plAntEd"),
        ("PLATFORM_URL", "user:plAntEd@api.example.com"),
        ("PLATFORM_CALLBACK_URL", "https://user:plAntEd@hooks.example.com/"),
        ("OTLP_ENDPOINT", "user:plAntEd@127.0.0.1:4318"),
    ] {
        let variable = format!("CONVOKE_{name}");
        let refused = run(&["--check"], &[(&variable, value)]).await;
        assert!(refused.code() == 2 && !refused.stderr.is_empty(), "{name} {value}: {refused:?}");
        run(&["--effective"], &[(&variable, value)]).await;
    }
    for (right, wrong) in [
        ("token = \"plAntEd-aDmin-tOkEn\"", "token = plAntEd-aDmin-tOkEn"),
        ("token = \"plAntEd-aDmin-tOkEn\"", "token = \"plAntEd-aDmin-tOkEn"),
        ("token = \"plAntEd-aDmin-tOkEn\"", "tokens = \"plAntEd-aDmin-tOkEn\""),
        ("token = \"plAntEd-aDmin-tOkEn\"", "token = [\"plAntEd-aDmin-tOkEn\"]"),
        ("token = \"plAntEd-aDmin-tOkEn\"", "token = \"plAntEd-${\""),
        ("token = \"plAntEd-tOkEn-oF-tHe-lIst\"", "token = \"plAntEd\""),
        ("keys = [\"plAntEd-kEy\"", "keys = [\"plAntEd-kEy\\n\""),
        ("keys = [\"plAntEd-kEy\", \"${SECOND_KEY}\"]", "keys = \"plAntEd-kEy\""),
        ("keys = [\"plAntEd-kEy\", \"${SECOND_KEY}\"]", "key = [\"plAntEd-kEy\"]"),
        ("app_id = \"1\"", "appid = \"1\""),
    ] {
        assert!(good.contains(right), "{right}");
        file(&good.replacen(right, wrong, 1));
        for mode in [&["--check"][..], &["--effective"], &[]] {
            let refused = run(mode, &[]).await;
            assert!(refused.code() == 2 && !refused.stderr.is_empty(), "{wrong}: {refused:?}");
        }
    }
    file(&good);
    for (name, text) in [
        ("keys", "\u{feff}plAntEd\n".to_owned()),
        ("keys", "plAntEd\n\nplAntEd\n".to_owned()),
        ("token", "plAntEd\nplAntEd\n".to_owned()),
        ("token", "plAntEd\n".to_owned()),
        ("platform-key", "plAntEd\nplAntEd\n".to_owned()),
        ("platform-key", "plAntEd".repeat(10_000)),
    ] {
        let before = std::fs::read(folder.path().join(name)).expect("a file");
        std::fs::write(folder.path().join(name), text).expect("a file");
        let refused = run(&["--check"], &[]).await;
        assert!(refused.code() == 2 && refused.stderr.contains(name), "{name}: {refused:?}");
        std::fs::write(folder.path().join(name), before).expect("a file");
    }
}
