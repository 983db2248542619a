//! The commands of the first hour: settings made, shown and checked; one event sent; the service asked whether it is well.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    process::{Convoke, Finished, run_convoke},
    rig::{APP_ID, KEY, LONG_TIMEOUT, PATH, SQLITE, convoke, sqlite},
    tools,
    wait::eventually,
};

const CONVOKE: &str = env!("CARGO_BIN_EXE_convoke");

/// A command in a folder, as one types it there.
async fn run_in(folder: &Path, arguments: &[&str]) -> Finished {
    let builder = Convoke::builder().program("env").arg("-C").arg(folder).arg(CONVOKE);
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).run().await
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).expect("it is there").permissions().mode() & 0o777
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn init_makes_what_serve_starts_with_and_overwrites_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let there = folder.path();
    let made = run_in(there, &["init"]).await;
    assert_eq!(made.code(), 0, "{made:?}");
    assert_eq!(files(there), ["admin.token", "convoke.key", "convoke.toml"]);
    assert_eq!((mode(&there.join("convoke.key")), mode(&there.join("admin.token"))), (0o600, 0o600));
    let [key, token] = ["convoke.key", "admin.token"].map(|name| fs::read_to_string(there.join(name)).expect("text"));
    assert!(key.trim().len() >= 24 && token.trim().len() >= 24 && key != token);
    assert!(!made.stdout.contains(key.trim()) && !made.stdout.contains(token.trim()), "a secret is not printed");

    let service = Convoke::builder().program("env").arg("-C").arg(there).arg(CONVOKE).arg("serve").start().await;
    service.wait_ready(LONG_TIMEOUT).await;
    let again = run_in(there, &["init"]).await;
    assert_eq!(again.code(), 2, "{again:?}");
    assert!(again.stderr.contains("convoke.toml exists and is never overwritten"), "{again:?}");
    fs::remove_file(there.join("convoke.toml")).expect("it is removed");
    let still = run_in(there, &["init"]).await;
    assert_eq!((still.code(), files(there).contains(&"convoke.toml".to_owned())), (2, false), "{still:?}");
    assert_eq!(fs::read_to_string(there.join("convoke.key")).expect("text"), key);
}

#[tokio::test]
async fn init_takes_flags_quotes_what_needs_it_and_leaves_nothing_behind_if_they_are_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("password"), "a ${b} \"c\"\r\n").expect("a file");
    let arguments = ["init", "my settings", "--app-id", "a\"${HOME}\\b", "--app-key-file", "password"];
    let made = run_in(folder.path(), &arguments).await;
    assert_eq!(made.code(), 0, "{made:?}");
    let settings = folder.path().join("my settings/convoke.toml");
    assert!(made.stdout.contains("convoke serve --config '"), "a path with a space is quoted: {made:?}");
    assert_eq!(fs::read_to_string(settings.with_file_name("convoke.key")).expect("text"), "a ${b} \"c\"\n");
    let shown = run_convoke(&["config", "--config", settings.to_str().expect("text")], &[]).await;
    assert_eq!(shown.code(), 0, "{shown:?}");
    let shown: toml::Table = shown.stdout.parse().expect("TOML");
    assert_eq!(shown["subscriber"][0]["app_id"].as_str(), Some("a\"$${HOME}\\b"));

    for wrong in [["--listen", "nowhere"], ["--database-url", "mysql://x"], ["--app-key-file", "/nowhere/at/all"]] {
        let refused = run_in(folder.path(), &["init", "other", wrong[0], wrong[1]]).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert_eq!(files(&folder.path().join("other")), [""; 0], "{refused:?}");
    }
    let secret = "postgres://convoke:secret-word@127.0.0.1/convoke";
    let made = run_in(folder.path(), &["init", "third", "--database-url", secret]).await;
    assert_eq!((made.code(), mode(&folder.path().join("third/convoke.toml"))), (0, 0o600), "{made:?}");
    assert!(!made.stdout.contains("secret-word"), "{made:?}");
}

/// Types an answer at each prompt, once it is there and the terminal does not echo any more: what is typed before is thrown away.
const TYPIST: &str = r#"
import os, pty, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], "init"])
said = b""
for prompt, answer in [("Subscriber ID", "typed-id"), ("Password", "typed password"), ("Database", ""), ("NATS", ""),
                       ("Address", "127.0.0.1:8090")]:
    while prompt.encode() not in said:
        said += os.read(terminal, 4096)
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    sys.stdout.write(said.decode(errors="replace"))
    said = b""
    os.write(terminal, (answer + "\n").encode())
try:
    while said := os.read(terminal, 4096):
        sys.stdout.write(said.decode(errors="replace"))
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn init_asks_on_a_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(tools::python());
    command.args(["-c", TYPIST, CONVOKE]).current_dir(folder.path());
    let done = command.output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && !said.contains("typed password"), "{said}");
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).expect("text");
    assert_eq!(text("convoke.key"), "typed password\n");
    let settings: toml::Table = text("convoke.toml").parse().expect("TOML");
    assert_eq!(settings["subscriber"][0]["app_id"].as_str(), Some("typed-id"));
    assert_eq!(settings["listen"]["events"].as_str(), Some("127.0.0.1:8090"));
}

#[tokio::test]
async fn config_shows_what_counts_and_where_it_comes_from_and_hides_secrets() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = "[[subscriber]]\napp_id = \"1\"\nkeys = [\"key-in-the-file\"]\n[listen]\nmax_body = \"1 MiB\"\n\
                    allow_from = [\"10.0.0.0/8\", \"192.0.2.1\"]\n";
    fs::write(folder.path().join("convoke.toml"), settings).expect("a file");
    let there = || Convoke::builder().program("env").arg("-C").arg(folder.path());
    let environment = |builder: crate::support::process::ConvokeBuilder| {
        builder
            .setting("DATABASE_URL", "postgres://convoke:word-1@127.0.0.1/convoke")
            .setting("ADMIN_TOKEN", "token-of-the-environment")
    };
    let run = async |arguments: &[&str]| {
        let builder = environment(there()).arg(CONVOKE).arg("config");
        arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).run().await
    };
    let shown = run(&["--listen", "127.0.0.1:9000"]).await;
    assert_eq!(shown.code(), 0, "{shown:?}");
    for secret in ["key-in-the-file", "word-1", "token-of-the-environment"] {
        assert!(!shown.stdout.contains(secret), "{secret} in {}", shown.stdout);
    }
    let origin = |name: &str| {
        let line = shown.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once("  # ").map(|(_, origin)| origin.to_owned()).unwrap_or_default()
    };
    assert_eq!(origin("events"), "--listen");
    assert_eq!(origin("max_body"), "convoke.toml, line 5");
    assert_eq!(origin("url = \"postgres"), "CONVOKE_DATABASE_URL");
    assert_eq!(origin("path"), "default");
    let table: toml::Table = shown.stdout.parse().expect("TOML");
    assert_eq!(table["listen"]["allow_from"].as_array().map(Vec::len), Some(2));
    assert_eq!(table["admin"]["token"].as_str(), Some("***"));
    assert_eq!(run(&["--effective", "--listen", "127.0.0.1:9000"]).await.stdout, shown.stdout);

    let reference = run(&["--default"]).await;
    let expected = fs::read_to_string("src/config/convoke.default.toml").expect("text");
    assert_eq!((reference.code(), reference.stdout), (0, expected));
    let good = run(&["--check"]).await;
    assert_eq!((good.code(), &*good.stdout), (0, "ok    convoke.toml can be used, with 1 subscriber\n"), "{good:?}");
    let open = run(&["--check", "--admin-listen", "nowhere"]).await;
    assert_eq!((open.code(), open.stdout.is_empty()), (2, true), "{open:?}");
    let nobody = run_convoke(&["config", "--check"], &[]).await;
    assert_eq!(nobody.code(), 2, "{nobody:?}");
    assert!(nobody.stderr.contains("nobody is configured"), "{nobody:?}");
}

#[tokio::test]
async fn send_says_how_a_receiver_answered_an_event_and_a_handshake() {
    let service = convoke(SQLITE, "none").start().await;
    service.wait_ready(LONG_TIMEOUT).await;
    let url = format!("http://{}{PATH}", service.events);
    let shaken = service.run(&["send", &url, "--handshake"]).await;
    assert_eq!(shaken.code(), 0, "{shaken:?}");
    assert!(shaken.stdout.contains("with the right nonce"), "{shaken:?}");
    for event in ["meeting.create", "meeting.join", "record.finish"] {
        let sent = service.run(&["send", &url, "--event", event]).await;
        assert_eq!(sent.code(), 0, "{sent:?}");
        let id = sent.stdout.lines().find_map(|line| line.strip_prefix("event_id   ")).expect("an id");
        let found = format!("SELECT event, meeting_uuid FROM events WHERE event_id = '{id}'");
        let rows = sqlite(service.folder(), &found).await;
        assert_eq!(rows[0][0].as_deref(), Some(event), "{sent:?}");
        assert!(rows[0][1].as_deref().is_some_and(|uuid| uuid.starts_with("7e57da7a7e57da7a") && uuid.len() == 32));
    }

    // The address of the settings, where none is named.
    let listening = service.events.to_string();
    assert_eq!(service.run(&["send", "--handshake", "--listen", &listening]).await.code(), 0);
    let key = service.folder().join("wrong.key");
    fs::write(&key, "another key\n").expect("a file");
    let flags = ["--app-id", APP_ID, "--app-key-file", key.to_str().expect("text")];
    let wrong_path = format!("http://{}/elsewhere", service.events);
    let cases: [(Vec<&str>, &str); 3] = [
        ([&["send", &url][..], &flags].concat(), "answer     401"),
        ([&["send", &url, "--handshake"][..], &flags].concat(), "status 401"),
        (vec!["send", &wrong_path], "listen.path"),
    ];
    for (arguments, said) in cases {
        let refused = service.run(&arguments).await;
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(format!("{}{}", refused.stdout, refused.stderr).contains(said), "{said}: {refused:?}");
    }
    let refused = service.run(&["send", "ftp://127.0.0.1/"]).await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    let refused = service.run(&["send", &url, "--subscriber", "nobody"]).await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(!refused.stderr.contains(KEY));
}

#[tokio::test]
async fn health_is_the_status_of_the_running_service() {
    let service = convoke(SQLITE, "none").start().await;
    service.wait_ready(LONG_TIMEOUT).await;
    let well = service.run(&["health"]).await;
    assert_eq!((well.code(), &*well.stdout), (0, "ready\n"), "{well:?}");
    let alive = service.run(&["health", "--live"]).await;
    assert_eq!((alive.code(), &*alive.stdout), (0, "alive\n"), "{alive:?}");
    fs::remove_file(service.folder().join("convoke.db")).expect("it is removed");
    eventually("it is not ready", LONG_TIMEOUT, async || {
        let found = service.run(&["health"]).await;
        if (found.code(), &*found.stdout) == (1, "not ready\n") { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(service.run(&["health", "--live"]).await.code(), 0, "the process is there all the same");
    let free = crate::support::port::Port::lease();
    let away = service.run(&["health", "--admin-listen", &free.address().to_string()]).await;
    assert_eq!(away.code(), 1, "{away:?}");
    assert!(away.stderr.contains("no answer from"), "{away:?}");
}

#[tokio::test]
async fn completions_and_man_pages_know_every_command() {
    let help = run_convoke(&["--help"], &[]).await.stdout;
    let commands: Vec<&str> = help
        .lines()
        .take_while(|line| *line != "Options:")
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15, "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run_convoke(&["completions", shell], &[]).await;
        assert_eq!(script.code(), 0, "{script:?}");
        assert!(commands.iter().all(|command| script.stdout.contains(command)), "{shell}");
    }
    let script = run_convoke(&["completions", "bash"], &[]).await.stdout;
    let checked = "source /dev/stdin && complete -p convoke";
    let mut bash =
        Command::new("bash").args(["-c", checked]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
    bash.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("it reads");
    assert!(bash.wait_with_output().expect("it ends").status.success(), "bash takes it");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let man = run_in(folder.path(), &["man", "pages"]).await;
    assert_eq!(man.code(), 0, "{man:?}");
    for command in commands.iter().filter(|command| **command != "help") {
        let page = fs::read_to_string(folder.path().join(format!("pages/convoke-{command}.1"))).expect("a page");
        assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS"), "{command}");
    }
}

#[tokio::test]
async fn a_help_shows_the_settings_that_its_command_uses() {
    let settings = ["--listen", "--admin-listen", "--path", "--app-id", "--database-url", "--nats-url", "--log-format"];
    for (command, used) in [
        ("serve", &settings[..]),
        ("verify", &["--app-id"]),
        ("export", &["--database-url", "--log-format"]),
        ("health", &["--admin-listen"]),
        ("forget", &["--database-url", "--nats-url", "--log-format"]),
    ] {
        let help = run_convoke(&[command, "--help"], &[]).await.stdout;
        let shown: Vec<&str> = settings.into_iter().filter(|flag| help.contains(&format!("{flag} <"))).collect();
        assert_eq!(shown, used, "{command}");
    }
    // What is not shown is taken all the same, so that one line of flags serves every command.
    let export = run_convoke(&["verify", "--nats-url", "none", "--help"], &[]).await;
    assert_eq!(export.code(), 0, "{export:?}");
}
