//! `convoke subscription`, with a running service, against the simulated platform: the whole life of a subscription, and all
//! the ways in which enabling it must not be tried.

mod urls;
mod watch;

use std::path::PathBuf;

use convoke_simulator::platform::{Call, Fault, Platform, PlatformOptions, Refusal};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    simulated_platform::{APP_ID as PLATFORM_APP_ID, APP_KEY as PLATFORM_APP_KEY, options, started},
    support::service::{APP_ID, Database, KEY, PATH, Service, WAIT_TIMEOUT, settings},
    support::{
        process::{ConvokeBuilder, Finished},
        wait::eventually,
    },
};

/// A service, a platform, and the settings of commands that work on both.
struct Rig {
    service: Service,
    platform: Platform,
    folder: TempDir,
    url: String,
}

impl Rig {
    async fn start() -> Self {
        Self::with(Service::start().await, options()).await
    }

    async fn with(service: Service, options: PlatformOptions) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("key"), PLATFORM_APP_KEY).expect("a file");
        let url = format!("http://{}{PATH}", service.convoke.events);
        Self { service, platform: started(options).await, folder, url }
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// With the credentials, as a command or a service has them.
    fn credentials(&self, builder: ConvokeBuilder) -> ConvokeBuilder {
        let builder = builder.setting("PLATFORM_URL", self.platform.url()).setting("PLATFORM_APP_ID", PLATFORM_APP_ID);
        let builder =
            builder.setting("PLATFORM_APP_KEY_FILE", self.key_file()).setting("PLATFORM_CALLBACK_URL", &self.url);
        match &self.service.database {
            Database::Sqlite => {
                builder.setting("DATABASE_URL", format!("sqlite://{}", self.service.database_file().display()))
            }
            Database::Postgres(postgres) => builder.setting("DATABASE_URL", postgres.url()),
        }
    }

    /// Runs `convoke subscription` with these arguments, after `change` to its settings.
    async fn run_with(&self, arguments: &[&str], change: impl FnOnce(ConvokeBuilder) -> ConvokeBuilder) -> Finished {
        let builder = change(self.credentials(settings())).arg("subscription");
        arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).run().await
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, |builder| builder).await
    }

    /// What is done well, and said so.
    async fn done(&self, arguments: &[&str], words: &[&str]) -> Finished {
        let done = self.run(arguments).await;
        assert_eq!(done.code(), 0, "{done:?}");
        says(&done.stdout, words);
        done
    }

    /// What fails while running, with a sentence.
    async fn fails(&self, arguments: &[&str], words: &[&str]) {
        let failed = self.run(arguments).await;
        assert_eq!(failed.code(), 1, "{failed:?}");
        says(&failed.stderr, words);
    }

    async fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let run = self.run(&[arguments, &["--json"]].concat()).await;
        let json = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {run:?}"));
        (run.code(), json)
    }

    /// The platform's: 0 enabled, 1 disabled, 2 locked.
    fn status(&self) -> Option<i64> {
        self.platform.subscription().map(|is| is.status)
    }

    /// How often the platform was asked to enable, or disable.
    fn asked(&self) -> u64 {
        self.platform.count(Call::ChangeStatus)
    }
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} in: {text}");
    }
}

fn refused(status: u16, code: &'static str) -> Fault {
    Fault::Refuse(Refusal::new(status, code, "for the test"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_set_enabled_shown_disabled_and_deleted() {
    let rig = Rig::start().await;
    rig.done(&["show"], &["there is no subscription"]).await;
    rig.fails(&["enable"], &["no subscription", "subscription set"]).await;
    rig.done(&["disable"], &["no subscription"]).await;
    rig.done(&["delete"], &["no subscription"]).await;

    rig.done(&["set"], &[APP_ID, &rig.url, "disabled", "enable"]).await;
    let set = rig.platform.subscription().expect("it is set");
    assert_eq!((&*set.subscriber_id, &set.url, set.status), (APP_ID, &rig.url, 1));
    rig.done(&["set"], &["set:"]).await;

    let handshakes = r#"convoke_deliveries_total{event="meeting.verify",outcome="verified"}"#;
    let newest = "convoke_last_handshake_timestamp_seconds";
    assert_eq!(rig.service.metric(newest).await, 0.0);
    let enabled = rig.done(&["enable"], &["arrived in this Convoke", "handshake arrived at", "enabled"]).await;
    assert!(enabled.stderr.is_empty(), "{enabled:?}");
    assert_eq!((rig.status(), rig.asked()), (Some(0), 1));
    // The probe left no trace in what is known of the platform.
    assert_eq!(rig.service.sql("SELECT subscriber_id, answered FROM handshakes"), format!("{APP_ID}|1"));
    assert_eq!(rig.service.metric(handshakes).await, 1.0);
    assert!(rig.service.metric(newest).await > 0.0);
    let rejections = r#"convoke_rejections_total{reason="signature"}"#;
    assert_eq!(rig.service.metric(rejections).await, 0.0, "the forged probe is our own");
    says(&rig.service.convoke.logs(), &["self-test: a wrongly signed probe was refused, as it should be"]);
    // Who has no key cannot make one, whatever the nonce.
    let body = convoke_core::sign::envelope(
        APP_ID,
        1_629_183_619_116,
        "convoke-probe-00000000000000000000000000000001",
        br#"{"event":"meeting.verify","timestamp":1629183619116}"#,
        b"guessed",
    );
    assert_eq!(rig.service.post(body).await.status, 401);
    assert_eq!(rig.service.metric(rejections).await, 1.0);
    let refused = rig.service.convoke.logs().matches("refused a delivery").count();
    assert_eq!(refused, 1, "the stranger's alone");

    rig.done(&["show"], &[&set.id, APP_ID, &rig.url, "enabled", "newest at"]).await;
    rig.done(&["enable"], &["arrived in this Convoke", "already enabled"]).await;
    rig.fails(&["delete"], &["enabled", "disable"]).await;
    assert_eq!(rig.asked(), 1);
    rig.done(&["disable"], &["disabled"]).await;
    assert_eq!((rig.status(), rig.asked()), (Some(1), 2));
    rig.done(&["disable"], &["nothing was changed"]).await;
    assert_eq!(rig.asked(), 2);
    rig.done(&["enable"], &["handshake arrived at", "enabled"]).await;
    // The platform may switch off what is set again.
    rig.done(&["set"], &["warning: setting the subscription disabled it", "enable"]).await;
    rig.done(&["delete"], &["deleted"]).await;
    assert!(rig.platform.subscription().is_none());
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_and_the_probe_may_be_answered_by_any_replica() {
    let postgres = Database::postgres().await;
    let first = Service::on(postgres).await;
    let Database::Postgres(database) = &first.database else { unreachable!("just started") };
    let other = settings().setting("DATABASE_URL", database.url()).start().await;
    other.wait_ready(WAIT_TIMEOUT).await;
    let mut rig = Rig::with(first, options()).await;
    rig.url = format!("http://{}{PATH}", other.events);
    rig.done(&["set"], &["set:"]).await;
    rig.done(&["enable"], &["arrived in this Convoke", "handshake arrived at", "enabled"]).await;
    assert_eq!(rig.service.sql("SELECT answered FROM handshakes"), "1");
    let lines = other.logs();
    assert!(lines.contains("answered a probe") && lines.contains("answered a handshake"), "{lines}");
    assert!(!rig.service.convoke.logs().contains("answered a"));
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_json_holds_is_the_same_for_every_action_and_outcome() {
    let rig = Rig::start().await;
    let members = ["action", "done", "handshake_at", "locked_until", "probed", "problem", "subscription", "warnings"];
    let mut seen = Vec::new();
    for action in ["show", "enable", "set", "show", "enable", "delete", "disable", "delete"] {
        let (code, json) = rig.json(&[action]).await;
        let mut names: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, members);
        assert_eq!((json["action"].as_str(), json["done"].as_bool()), (Some(action), Some(code == 0)), "{json}");
        let problem = json["problem"]["kind"].as_str().unwrap_or_default().to_owned();
        seen.push((code, problem, json["subscription"]["status"].as_str().unwrap_or_default().to_owned()));
    }
    let expected = [
        (0, "", ""),
        (1, "missing", ""),
        (0, "", "disabled"),
        (0, "", "disabled"),
        (0, "", "enabled"),
        (1, "enabled", "enabled"),
        (0, "", "disabled"),
        (0, "", ""),
    ];
    assert_eq!(seen, expected.map(|(code, problem, status)| (code, problem.to_owned(), status.to_owned())));

    rig.json(&["set"]).await;
    rig.json(&["enable"]).await;
    let (_, json) = rig.json(&["show"]).await;
    let subscription = json["subscription"].as_object().expect("an object");
    let mut names: Vec<_> = subscription.keys().collect();
    names.sort_unstable();
    assert_eq!(names, ["id", "status", "subscriber_id", "url"]);
    let at = json["handshake_at"].as_str().expect("a time");
    assert!(convoke_core::time::Millis::parse(at).is_some(), "{at}");
    assert_eq!((json["probed"].clone(), json["warnings"].clone()), (Value::Null, serde_json::json!([])));
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_and_settings_end_with_status_2() {
    let rig = Rig::start().await;
    let usage = async |arguments: &[&str], words: &[&str], change: fn(ConvokeBuilder) -> ConvokeBuilder| {
        let refused = rig.run_with(arguments, change).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        says(&refused.stderr, words);
    };
    let none = settings().arg("subscription").arg("show").run().await;
    assert_eq!(none.code(), 2, "{none:?}");
    says(&none.stderr, &["platform.app_id", "platform.app_key_file"]);
    usage(&["set"], &["platform.callback_url"], |builder| builder.setting("PLATFORM_CALLBACK_URL", "none")).await;
    usage(&["set"], &["platform.callback_url", "https"], |builder| {
        builder.setting("PLATFORM_CALLBACK_URL", "http://hooks.example.com/")
    })
    .await;
    usage(&["set", "--subscriber", "77"], &["--subscriber 77", APP_ID], |builder| builder).await;
    usage(&["enable", "--wait", "long"], &["--wait"], |builder| builder).await;
    usage(&["lock"], &["unrecognized"], |builder| builder).await;
    usage(&[], &["Usage"], |builder| builder).await;
    assert!(rig.platform.calls().values().all(|calls| *calls == 0), "{:?}", rig.platform.calls());
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_subscribers_one_is_chosen_and_another_ones_subscription_is_not_replaced_unasked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("convoke.toml");
    let text = format!(
        "[[subscriber]]\napp_id = \"{APP_ID}\"\nkeys = [\"${{ONE}}\"]\n[[subscriber]]\napp_id = \"2\"\nkeys = [\"${{TWO}}\", \"${{ONE}}\"]\n"
    );
    std::fs::write(&file, text).expect("a file");
    let several = |builder: ConvokeBuilder| {
        builder.setting("CONFIG", &file).env("ONE", KEY).env("TWO", "the-second").setting("NATS_URL", "none")
    };
    let base = || several(convoke_with_nothing()).setting("SHUTDOWN_DELAY", "0s");
    let rig = Rig::with(Service::with(base(), Database::Sqlite).await, options()).await;
    let run = async |arguments: &[&str]| {
        let builder = rig.credentials(base()).arg("subscription");
        arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).run().await
    };
    let unclear = run(&["set"]).await;
    assert_eq!(unclear.code(), 2, "{unclear:?}");
    says(&unclear.stderr, &["--subscriber", APP_ID, "2"]);
    let set = run(&["set", "--subscriber", "2"]).await;
    assert_eq!(set.code(), 0, "{set:?}");
    // The first of its keys.
    let enabled = run(&["enable"]).await;
    assert_eq!(enabled.code(), 0, "{enabled:?}");
    assert_eq!(rig.service.sql("SELECT subscriber_id, answered FROM handshakes"), "2|1");

    let other = run(&["set", "--subscriber", APP_ID]).await;
    assert_eq!(other.code(), 1, "{other:?}");
    says(&other.stderr, &["subscriber 2", &rig.url, "enabled", "--replace"]);
    assert_eq!(rig.platform.count(Call::SetSubscription), 1);
    let replaced = run(&["set", "--subscriber", APP_ID, "--replace"]).await;
    assert_eq!(replaced.code(), 0, "{replaced:?}");
    assert_eq!(rig.platform.subscription().expect("one").subscriber_id, APP_ID);

    // Somebody who has only the other one.
    let stranger = rig.run_with(&["enable"], |builder| builder.setting("APP_ID", "2")).await;
    assert_eq!(stranger.code(), 1, "{stranger:?}");
    says(&stranger.stderr, &[APP_ID, "not configured here"]);
    assert_eq!(rig.asked(), 1);
    rig.platform.stop().await;
}

fn convoke_with_nothing() -> ConvokeBuilder {
    crate::support::process::Convoke::builder()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_cannot_reach_us_is_reported_remembered_and_locks_after_too_many() {
    let rig = Rig::with(Service::start().await, PlatformOptions { lock_after: 2, ..options() }).await;
    rig.done(&["set"], &["set:"]).await;
    // The platform still has a key that was taken away since: its handshake is refused, ours is not.
    let (old, new) = (KEY, "a-new-key");
    let file = rig.folder.path().join("subscriber-key");
    std::fs::write(&file, new).expect("a file");
    let service =
        Service::with(with_key_file(&file).setting("DATABASE_URL", database_url(&rig)), Database::Sqlite).await;
    let run = async |arguments: &[&str], words: &[&str]| {
        let builder = rig.credentials(with_key_file(&file)).arg("subscription");
        let run = arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).run().await;
        assert_eq!(run.code(), 1, "{run:?}");
        says(&format!("{}{}", run.stdout, run.stderr), words);
        run
    };
    // The platform pushes to the service with the new key.
    let url = format!("http://{}{PATH}", service.convoke.events);
    rig.platform.edit(|_| ());
    let set = rig.run_with(&["set", "--replace"], |builder| builder.setting("PLATFORM_CALLBACK_URL", &url)).await;
    assert_eq!(set.code(), 0, "with the old key {old}: {set:?}");

    let words = [
        "arrived in this Convoke",
        "did not arrive here, although our own probe did",
        "another key",
        "Too many failures",
    ];
    run(&["enable"], &words).await;
    assert_eq!((rig.status(), rig.asked()), (Some(1), 1));
    // Not repeated, and the next one is warned.
    let words = ["warning: enabling failed", "ago", "is now locked for an hour"];
    let second = run(&["enable"], &words).await;
    assert!(!second.stdout.contains(new) && !second.stderr.contains(old), "no key is shown");
    assert_eq!((rig.status(), rig.asked()), (Some(2), 2));

    run(&["enable"], &["locked", "until", "The platform was not asked"]).await;
    assert_eq!(rig.asked(), 2);
    let (code, json) = rig.json(&["show"]).await;
    assert_eq!((code, json["subscription"]["status"].as_str()), (0, Some("locked")));
    let until = json["locked_until"].as_str().and_then(convoke_core::time::Millis::parse).expect("a time");
    let left = until.get() - crate::support::service::now();
    assert!((3_400_000..=3_600_000).contains(&left), "{left}");
    run(&["enable", "--force"], &["has locked the subscription", "run this again after"]).await;
    assert_eq!(rig.asked(), 3);
    rig.platform.stop().await;
}

fn with_key_file(file: &std::path::Path) -> ConvokeBuilder {
    let builder = convoke_with_nothing().setting("APP_ID", APP_ID).setting("APP_KEY_FILE", file);
    builder.setting("NATS_URL", "none").setting("SHUTDOWN_DELAY", "0s")
}

fn database_url(rig: &Rig) -> String {
    format!("sqlite://{}", rig.service.database_file().display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_the_status_does_not_show_is_remembered_all_the_same() {
    let rig = Rig::start().await;
    rig.done(&["set"], &["set:"]).await;
    rig.platform.inject(Call::ChangeStatus, refused(423, "MMC.111071120"), 1);
    rig.fails(&["enable"], &["has locked the subscription", "run this again after"]).await;
    rig.fails(&["enable"], &["The platform was not asked", "--force"]).await;
    assert_eq!((rig.status(), rig.asked()), (Some(1), 1));
    let (code, json) = rig.json(&["enable"]).await;
    assert_eq!((code, json["problem"]["kind"].as_str()), (1, Some("locked")), "{json}");
    rig.done(&["enable", "--force"], &["enabled"]).await;
    assert_eq!(rig.status(), Some(0));
    rig.done(&["disable"], &["disabled"]).await;
    // What succeeded is held against nobody.
    let enabled = rig.done(&["enable"], &["enabled"]).await;
    assert!(!enabled.stdout.contains("warning"), "{enabled:?}");
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_got_lost_is_not_asked_for_again_but_looked_up() {
    let rig = Rig::start().await;
    rig.done(&["set"], &["set:"]).await;
    rig.platform.inject(Call::ChangeStatus, Fault::Drop, 1);
    rig.fails(&["enable"], &["subscription"]).await;
    assert_eq!(rig.asked(), 1, "failures are counted: it is never repeated");
    rig.platform.inject(Call::ChangeStatus, Fault::DropHalf, 1);
    let second = rig.run(&["enable"]).await;
    assert_eq!(rig.asked(), 2);
    // If the platform did it before its answer was lost, it is done.
    assert_eq!(second.code() == 0, rig.status() == Some(0), "{second:?}");
    says(&second.stdout, &["warning: enabling failed"]);
    // It said yes and did not do it.
    rig.run(&["disable"]).await;
    rig.platform.inject(Call::ChangeStatus, Fault::Body("{}".to_owned()), 1);
    rig.fails(&["enable", "--wait", "100ms"], &["accepted the request to enable", "disabled"]).await;
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_of_the_app_id_and_a_platform_that_is_away_are_distinguished() {
    let rig = Rig::start().await;
    std::fs::write(rig.key_file(), "not the key").expect("a file");
    rig.fails(&["show"], &["platform.app_key_file"]).await;
    let (code, json) = rig.json(&["enable"]).await;
    assert_eq!((code, json["problem"]["kind"].as_str()), (1, Some("platform")), "{json}");
    assert!(json["problem"]["code"].as_str().is_some_and(|code| code.starts_with("USG.")), "{json}");
    assert!(!json.to_string().contains("not the key"));
    std::fs::write(rig.key_file(), PLATFORM_APP_KEY).expect("a file");
    rig.platform.inject(Call::ShowSubscription, refused(403, "MMC.111070002"), 1);
    rig.fails(&["show"], &["no permission"]).await;
    let url = rig.platform.url();
    let Rig { service, platform, folder, .. } = rig;
    platform.stop().await;
    let away = settings()
        .setting("PLATFORM_URL", &url)
        .setting("PLATFORM_APP_ID", PLATFORM_APP_ID)
        .setting("PLATFORM_APP_KEY_FILE", folder.path().join("key"))
        .setting("DATABASE_URL", format!("sqlite://{}", service.database_file().display()));
    let away = away.arg("subscription").arg("show").run().await;
    assert_eq!(away.code(), 1, "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_enabling_works_while_the_database_is_away() {
    let rig = Rig::start().await;
    rig.done(&["set"], &["set:"]).await;
    rig.done(&["enable"], &["enabled"]).await;
    let run = async |action: &str| {
        let away = |builder: ConvokeBuilder| builder.setting("DATABASE_URL", "sqlite://nowhere.db");
        let run = rig.run_with(&[action], away).await;
        (run.code(), format!("{}{}", run.stdout, run.stderr))
    };
    for (action, code, words) in [
        ("enable", 1, ["does not exist", "nowhere.db"]),
        ("show", 0, ["warning", "enabled"]),
        ("disable", 0, ["warning", "disabled"]),
        ("set", 0, ["warning", "set:"]),
        ("delete", 0, ["warning", "deleted"]),
    ] {
        let (ended, text) = run(action).await;
        assert_eq!(ended, code, "{action}: {text}");
        says(&text, &words);
    }
    assert!(rig.platform.subscription().is_none());
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_speaks_of_the_platform_only_with_credentials() {
    let mut rig = Rig::start().await;
    let check = async |rig: &Rig| {
        let run = rig.credentials(settings()).arg("check").run().await;
        let lines: Vec<_> =
            run.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        (run.code(), lines)
    };
    let has = |lines: &[String], start: &str| lines.iter().any(|line| line.starts_with(start));
    let without = rig.service.convoke.run(&["check"]).await;
    assert!(!without.stdout.contains("platform ") && !without.stdout.contains("subscribed"), "{without:?}");
    let (code, lines) = check(&rig).await;
    assert!(code == 0 && has(&lines, "ok platform") && has(&lines, "warn subscribed the API shows none"), "{lines:?}");
    rig.done(&["set"], &[]).await;
    assert!(has(&check(&rig).await.1, "warn subscribed it is disabled"));
    rig.done(&["enable"], &[]).await;
    let (code, lines) = check(&rig).await;
    assert!(code == 0 && has(&lines, "ok subscribed"), "{lines:?}");
    rig.url = "https://elsewhere.example.com/openapi/meetingevent".to_owned();
    let (code, lines) = check(&rig).await;
    assert!(
        code == 1 && has(&lines, "FAIL subscribed") && lines.concat().contains("elsewhere.example.com"),
        "{lines:?}"
    );
    std::fs::write(rig.key_file(), "not the key").expect("a file");
    let (code, lines) = check(&rig).await;
    assert!(code == 1 && has(&lines, "FAIL platform"), "{lines:?}");
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_watchdog_shows_how_the_subscription_stands() {
    let mut rig = Rig::start().await;
    let watching = rig.credentials(settings()).setting("PLATFORM_WATCH_EVERY", "60s").start().await;
    let standing = async |status: &str| {
        crate::support::http::metric(watching.admin, &format!(r#"convoke_subscription_status{{status="{status}"}}"#))
            .await
    };
    // The lease is the first service's: this one waits.
    watching.wait_ready(WAIT_TIMEOUT).await;
    assert_eq!(standing("missing").await, 0.0);
    assert_eq!(rig.platform.count(Call::ShowSubscription), 0);
    rig.service.convoke.kill().await;
    eventually("it watches", WAIT_TIMEOUT * 2, async || standing("missing").await == 1.0).await;
    for other in ["enabled", "disabled", "locked", "elsewhere", "unknown"] {
        assert_eq!(standing(other).await, 0.0, "{other}");
    }
    let log = watching.logs();
    assert_eq!(log.lines().filter(|line| line.contains("is not as it should be")).count(), 1, "{log}");
    rig.platform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_or_an_edition_that_the_platform_will_refuse_is_told_before_it_is_asked() {
    let rig = Rig::with(Service::start().await, PlatformOptions { flagship: false, ..options() }).await;
    let mistyped = rig.run_with(&["set"], |builder| builder.setting("PLATFORM_USER_ID", "alcie@example-corp")).await;
    let told = [mistyped.stdout, mistyped.stderr].concat();
    says(&told, &["no administrator", "mistyped", "creates an ordinary account", "not on the flagship edition"]);
}
