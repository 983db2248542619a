//! What prevents a start, and the error for it.

use super::*;

/// The error for one variable's value must contain all of `parts`.
#[track_caller]
pub(super) fn refused(name: &str, value: &str, parts: &[&str]) {
    let message = Desk::new(&[]).refusal(&[(name, value)]);
    assert_holds(&message, &[&[name], parts].concat());
}

#[track_caller]
pub(super) fn file_refused(text: &str, parts: &[&str]) {
    assert_holds(&Desk::with_file(text).refusal(&[]), parts);
}

#[track_caller]
pub(super) fn assert_holds(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_message_names_the_setting_its_origin_the_problem_and_the_remedy() {
    let message = Desk::new(&[]).refusal(&[("CONVOKE_RETENTION", "47h")]);
    assert_holds(&message, &["`database.retention` (from CONVOKE_RETENTION): `47h` is less than", "write", "48h"]);
    let mut desk = Desk::new(&[]);
    desk.args.listen = Some("8080".to_owned());
    assert_holds(&desk.refusal(&[]), &["`listen.events` (from --listen): `8080`", "127.0.0.1:8080"]);
    refused("DATABASE_URL", "mysql://h/d", &["`database.url` (from DATABASE_URL)", "mysql", "postgres://"]);
    refused("NATS_URL", "http://h", &["`nats.url` (from NATS_URL)", "nats://"]);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    refused("CONVOKE_LISTN", "x", &["did you mean CONVOKE_LISTEN?"]);
    refused("CONVOKE_APP_KEYFILE", "x", &["did you mean CONVOKE_APP_KEY_FILE?"]);
    refused("CONVOKE_SOMETHING_ELSE", "x", &["no setting uses this variable"]);
    file_refused("[listen]\nevent = 'x'\n", &["`listen.event`", "convoke.toml, line 2", "`listen.events`"]);
    file_refused("[databse]\nurl = 'x'\n", &["`databse`", "did you mean `database`?"]);
    file_refused("listen.tls_cert.pem = 'x'\n", &["`listen.tls_cert`", "a string"]);
    file_refused("colour = 1\n", &["`colour`", "no setting has this name"]);
    file_refused("[[subscriber]]\napp_id = 'a'\nkey = 'SECRET'\n", &["`subscriber.key`", "line 3", "`keys`"]);
}

#[test]
fn the_variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_ours() {
    Desk::new(&[]).load(&[
        ("CONVOKE_SERVICE_HOST", "10.0.0.1"),
        ("CONVOKE_SERVICE_PORT", "80"),
        ("CONVOKE_SERVICE_PORT_HTTP", "80"),
        ("CONVOKE_PORT", "tcp://10.0.0.1:80"),
        ("CONVOKE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("CONVOKE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("CONVOKE_ADMIN_SERVICE_HOST", "10.0.0.2"),
        ("CONVOKE_ADMIN_PORT_81_TCP_PROTO", "tcp"),
    ]);
    refused("CONVOKE_PORT", "8080", &["no setting"]);
}

#[test]
fn wrong_types_in_the_file_are_refused() {
    file_refused("listen.events = 8080\n", &["`listen.events`", "a string, not a whole number"]);
    file_refused("listen.max_body = true\n", &["`listen.max_body`", "bytes"]);
    file_refused("listen.allow_from = '10.0.0.0/8'\n", &["`listen.allow_from`", "an array"]);
    file_refused("listen.allow_from = [1]\n", &["`listen.allow_from`", "not a whole number"]);
    file_refused("database.migrate = 'yes'\n", &["`database.migrate`", "true or false"]);
    file_refused("nats.replicas = '3'\n", &["`nats.replicas`", "a whole number, not a string"]);
    file_refused("nats.replicas = 99999999999999999999\n", &["`nats.replicas`", "out of range"]);
    file_refused("database.retention = 60\n", &["`database.retention`", "a string"]);
    file_refused("listen = 1\n", &["`listen`", "[listen]"]);
    file_refused("[subscriber]\napp_id = 'a'\n", &["`subscriber`", "[[subscriber]]"]);
    file_refused("subscriber = ['a']\n", &["`subscriber`", "[[subscriber]]"]);
    file_refused("[[subscriber]]\napp_id = 1988692299\n", &["`subscriber.app_id`", "quotes"]);
    file_refused("[[subscriber]]\napp_id = 'a'\nkeys = 'SECRET'\n", &["`subscriber.keys`", "an array of strings"]);
}

#[test]
fn a_file_that_cannot_be_used_is_refused() {
    refused("CONVOKE_CONFIG", "missing.toml", &["missing.toml cannot be read"]);
    refused("CONVOKE_CONFIG", "", &["cannot be read"]);
    let message = Desk::with_file("[listen]\n\nkeys = ['SECRET\n").refusal(&[]);
    assert_holds(&message, &["convoke.toml, line 3", "not TOML"]);
    assert!(!message.contains("SECRET"), "{message}");
    file_refused("[nats]\nstream = 'A'\nstream = 'B'\n", &["line 3", "not TOML"]);
}

#[test]
fn unset_and_malformed_replacements_are_refused() {
    file_refused("nats.stream = '${UNSET_NAME}'\n", &["`nats.stream`", "line 1", "${UNSET_NAME} is not set"]);
    file_refused("nats.stream = 'a${B'\n", &["`nats.stream`", "no `}`", "$${"]);
    file_refused("nats.stream = '${A:-b}'\n", &["`nats.stream`", "name of a variable"]);
    file_refused("[[subscriber]]\napp_id = 'a'\nkeys = ['${UNSET_NAME}']\n", &["`subscriber.keys`", "UNSET_NAME"]);
    let message = Desk::with_file("nats.stream = '${EMPTY}'\n").refusal(&[("EMPTY", "")]);
    assert_holds(&message, &["`nats.stream`", "empty"]);
}

#[test]
fn empty_values_are_refused_everywhere() {
    for key in &KEYS {
        refused(&variable(key), "", &[key.path, "empty"]);
    }
    refused("DATABASE_URL", "", &["empty"]);
}

#[test]
fn listeners_that_cannot_work_are_refused() {
    for address in ["8080", ":8080", "localhost:8080", "127.0.0.1:99999", "127.0.0.1", "127.0.0.1:"] {
        refused("CONVOKE_LISTEN", address, &["`listen.events`", "an IP address and a port"]);
    }
    refused("CONVOKE_LISTEN", "127.0.0.1:8081", &["the same address"]);
    refused("CONVOKE_ADMIN_LISTEN", "0.0.0.0:8080", &["`listen.admin`", "the same address"]);
    Desk::new(&[]).load(&[("CONVOKE_LISTEN", "127.0.0.1:0"), ("CONVOKE_ADMIN_LISTEN", "127.0.0.1:0")]);
    for path in ["events", "/a b", "/a?b", "/{id}", "/livez", "/readyz", "/readyz/", "/:id", "/a/../b", "/é"] {
        refused("CONVOKE_PATH_EVENTS", path, &["`listen.path`", "/openapi/meetingevent"]);
    }
    for size in ["0", "256", "1 GiB", "big", "-1"] {
        refused("CONVOKE_MAX_BODY", size, &["`listen.max_body`", "256 KiB"]);
    }
    refused("CONVOKE_TLS_CERT", "c.pem", &["listen.tls_key is not set"]);
    refused("CONVOKE_TLS_KEY", "k.pem", &["listen.tls_cert is not set"]);
    for list in ["10.0.0.0/33", "10.0.0.0/8,", "example.com"] {
        refused("CONVOKE_ALLOW_FROM", list, &["`listen.allow_from`", "10.0.0.0/8"]);
    }
    refused("CONVOKE_IDLE_TIMEOUT", "0s", &["`listen.idle_timeout`", "less than 1s"]);
    refused("CONVOKE_SHUTDOWN_DELAY", "2", &["`listen.shutdown_delay`", "unit"]);
    refused("CONVOKE_SHUTDOWN_TIMEOUT", "2h", &["`listen.shutdown_timeout`", "more than 1h"]);
    for everybody in ["0.0.0.0/0", "10.0.0.0/8,::/0", "::ffff:0.0.0.0/96"] {
        refused("CONVOKE_TRUSTED_PROXIES", everybody, &["`listen.trusted_proxies`", "everybody", "10.0.0.0/8"]);
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let delay = "listen.shutdown_delay alone is 2s (from the default)";
    refused("CONVOKE_SHUTDOWN_TIMEOUT", "1s", &["`listen.shutdown_timeout`", delay, "longer"]);
    refused("CONVOKE_SHUTDOWN_DELAY", "1m", &["`listen.shutdown_delay`", "25s in all", "shorter"]);
    Desk::new(&[]).load(&[("CONVOKE_SHUTDOWN_DELAY", "5s"), ("CONVOKE_SHUTDOWN_TIMEOUT", "5s")]);
    for read_only in ["sqlite://c.db?mode=ro", "sqlite://c.db?immutable=true"] {
        refused("CONVOKE_DATABASE_URL", read_only, &["`database.url`", "is read-only", "sqlite://FILE"]);
    }
    let desk = Desk::new(&[("f", "HIDDEN")]);
    let url = ("CONVOKE_NATS_URL", "nats://a,nats://HIDDEN@b");
    for (name, value) in [("CONVOKE_NATS_TOKEN_FILE", "f"), ("CONVOKE_NATS_CREDS_FILE", "f")] {
        let message = desk.refusal(&[url, (name, value)]);
        assert_holds(&message, &[name, "nats.url (from CONVOKE_NATS_URL) contains credentials too", "out of the URL"]);
        assert!(!message.contains("HIDDEN"), "{message}");
    }
    let message = desk.refusal(&[url, ("CONVOKE_NATS_USER", "u"), ("CONVOKE_NATS_PASSWORD_FILE", "f")]);
    assert_holds(&message, &["`nats.user`", "contains credentials too"]);
}

#[test]
fn databases_that_cannot_work_are_refused() {
    for url in ["mysql://h/d", "convoke.db", "postgres:d", "postgres://h:port/d", "sqlite://", "sqlite::memory:"] {
        refused("CONVOKE_DATABASE_URL", url, &["`database.url`", "sqlite://FILE"]);
    }
    let message = Desk::new(&[]).refusal(&[("DATABASE_URL", "postgres://me:HIDDEN@h:port/d")]);
    assert!(!message.contains("HIDDEN") && message.contains("postgres://***@h:port/d"), "{message}");
    for retention in ["47h", "30", "0s", "forever"] {
        refused("CONVOKE_RETENTION", retention, &["`database.retention`", "30d"]);
    }
    refused("CONVOKE_MIGRATE", "maybe", &["`database.migrate`", "true or false"]);
}

#[test]
fn buses_that_cannot_work_are_refused() {
    for url in ["localhost:4222", "http://h", "nats://", "nats://a,b", "nats://a,", "nats://a:port", "none,nats://a"] {
        refused("CONVOKE_NATS_URL", url, &["`nats.url`", "nats://HOST:4222"]);
    }
    let message = Desk::new(&[]).refusal(&[("NATS_URL", "http://me:HIDDEN@h")]);
    assert!(!message.contains("HIDDEN"), "{message}");
    for stream in ["a b", "a.b", "*", ">", "a/b", "a\\b", "a\tb"] {
        refused("CONVOKE_NATS_STREAM", stream, &["`nats.stream`", "MEETINGS"]);
    }
    for prefix in ["a b", ".a", "a.", "a..b", "a.*", ">", "$SYS", "_INBOX"] {
        refused("CONVOKE_NATS_SUBJECT_PREFIX", prefix, &["`nats.subject_prefix`", "acme.meetings"]);
    }
    for replicas in ["0", "6", "-1", "many"] {
        refused("CONVOKE_NATS_REPLICAS", replicas, &["`nats.replicas`", "1 to 5"]);
    }
    refused("CONVOKE_NATS_MAX_BYTES", "0", &["`nats.max_bytes`"]);
    refused("CONVOKE_NATS_DUPLICATE_WINDOW", "31d", &["longer than nats.max_age, 30d"]);
    refused("CONVOKE_NATS_DUPLICATE_WINDOW", "0s", &["`nats.duplicate_window`"]);
    let message = Desk::new(&[]).refusal(&[("CONVOKE_NATS_MAX_AGE", "5m")]);
    assert_holds(&message, &["`nats.duplicate_window`", "5m (from CONVOKE_NATS_MAX_AGE)"]);
}

#[test]
fn unclear_ways_to_log_in_are_refused() {
    refused("CONVOKE_NATS_USER", "u", &["nats.password_file is not set"]);
    refused("CONVOKE_NATS_PASSWORD_FILE", "f", &["nats.user is not set"]);
    let desk = Desk::new(&[
        ("f", "x"),
        ("two", "x\ny\n"),
        ("spaced", "x y and the rest of it"),
        ("short", "fifteen-letters"),
        ("empty", "\n"),
    ]);
    let message = desk.refusal(&[("CONVOKE_NATS_TOKEN_FILE", "f"), ("CONVOKE_NATS_CREDS_FILE", "f")]);
    assert_holds(&message, &["`nats.token_file`", "nats.creds_file"]);
    let message = desk.refusal(&[("CONVOKE_NATS_TOKEN_FILE", "f"), ("CONVOKE_NATS_NKEY_FILE", "f")]);
    assert_holds(&message, &["`nats.token_file`", "nats.nkey_file"]);
    refused("CONVOKE_NATS_TLS_CERT", "f", &["nats.tls_key is not set"]);
    let message = desk.refusal(&[("CONVOKE_ADMIN_TOKEN_FILE", "f"), ("CONVOKE_ADMIN_TOKEN", "x")]);
    assert_holds(&message, &["`admin.token_file`", "admin.token is set too"]);
    for (name, file) in [
        ("CONVOKE_NATS_TOKEN_FILE", "missing"),
        ("CONVOKE_NATS_CREDS_FILE", "missing"),
        ("CONVOKE_NATS_TLS_CA", "missing"),
        ("CONVOKE_NATS_TOKEN_FILE", "two"),
        ("CONVOKE_ADMIN_TOKEN_FILE", "empty"),
        ("CONVOKE_ADMIN_TOKEN_FILE", "spaced"),
        ("CONVOKE_ADMIN_TOKEN_FILE", "short"),
    ] {
        assert_holds(&desk.refusal(&[(name, file)]), &[name]);
    }
    refused("CONVOKE_ADMIN_TOKEN", "HIDDEN TOKEN OF 16", &["`admin.token`", "space"]);
    refused("CONVOKE_ADMIN_TOKEN", "HIDDEN-15-CHARS", &["`admin.token`", "15 characters", "at least 16"]);
    refused("CONVOKE_ADMIN_VIEWER_TOKEN", "x", &["`admin.viewer_token`", "at least 16"]);
    let message = desk.refusal(&[("CONVOKE_ADMIN_TOKEN", "HIDDEN TOKEN OF 16")]);
    assert!(!message.contains("HIDDEN"), "{message}");
}

#[test]
fn a_viewers_token_that_protects_nothing_is_refused() {
    let desk = Desk::new(&[("f", "HIDDEN-HIDDEN-HIDDEN"), ("g", "another-of-16-characters")]);
    let alone = desk.refusal(&[("CONVOKE_ADMIN_VIEWER_TOKEN", "HIDDEN-HIDDEN-HIDDEN")]);
    assert_holds(&alone, &["`admin.viewer_token` (from CONVOKE_ADMIN_VIEWER_TOKEN)", "admin.token is not set"]);
    let same =
        desk.refusal(&[("CONVOKE_ADMIN_TOKEN", "HIDDEN-HIDDEN-HIDDEN"), ("CONVOKE_ADMIN_VIEWER_TOKEN_FILE", "f")]);
    assert_holds(&same, &["`admin.viewer_token_file` (from CONVOKE_ADMIN_VIEWER_TOKEN_FILE)", "the same token"]);
    let both = desk.refusal(&[("CONVOKE_ADMIN_VIEWER_TOKEN", "x"), ("CONVOKE_ADMIN_VIEWER_TOKEN_FILE", "f")]);
    assert_holds(&both, &["`admin.viewer_token_file`", "admin.viewer_token is set too"]);
    refused("CONVOKE_ADMIN_VIEWER_TOKEN", "HIDDEN TOKEN OF 16", &["`admin.viewer_token`", "space"]);
    assert!(![alone, same, both].concat().contains("HIDDEN"));
    let admin = desk.load(&[("CONVOKE_ADMIN_TOKEN_FILE", "f"), ("CONVOKE_ADMIN_VIEWER_TOKEN_FILE", "g")]).admin;
    assert_eq!(
        admin.tokens.iter().map(|token| &*token.name).collect::<Vec<_>>(),
        ["admin.token", "admin.viewer_token"]
    );
}

#[test]
fn subscribers_that_cannot_work_are_refused() {
    let entry = |text: &str| format!("[[subscriber]]\n{text}\n");
    for (text, part) in [
        ("keys = ['HIDDEN']", "app_id = "),
        ("app_id = ''\nkeys = ['HIDDEN']", "empty"),
        ("app_id = \"a\\tb\"\nkeys = ['HIDDEN']", "control character"),
        ("app_id = ' '\nkeys = ['HIDDEN']", "white space"),
        ("app_id = 'a '\nkeys = ['HIDDEN']", "white space"),
        ("app_id = 'a'\nname = ''\nkeys = ['HIDDEN']", "`subscriber.name`"),
        ("app_id = 'a'", "has no key"),
        ("app_id = 'a'\nkeys = []", "has no key"),
        ("app_id = 'a'\nkeys = ['']", "a key is empty"),
        ("app_id = 'a'\nkeys = [\"HIDDEN\\n\"]", "line break"),
        ("app_id = 'a'\nkey_files = ['']", "the path is empty"),
        ("app_id = 'a'\nkey_files = ['missing']", "cannot be read"),
        ("app_id = 'a'\nkeys = ['HIDDEN']\n[[subscriber]]\napp_id = 'a'\nkeys = ['HIDDEN']", "line 1 too"),
    ] {
        let message = Desk::with_file(&entry(text)).refusal(&[]);
        assert_holds(&message, &["`subscriber.", "convoke.toml, line", part]);
        assert!(!message.contains("HIDDEN"), "{message}");
    }
    refused("CONVOKE_APP_ID", "a", &["CONVOKE_APP_KEY_FILE"]);
    refused("CONVOKE_APP_KEY", "HIDDEN", &["CONVOKE_APP_ID"]);
    assert!(!Desk::new(&[]).refusal(&[("CONVOKE_APP_KEY", "HIDDEN")]).contains("HIDDEN"));
    let message = Desk::new(&[]).refusal(&[("CONVOKE_APP_ID", "a"), ("CONVOKE_APP_KEY", "")]);
    assert_holds(&message, &["CONVOKE_APP_KEY", "empty"]);
}

#[test]
fn key_files_that_hold_no_usable_key_are_refused() {
    for (text, part) in [
        ("", "contains no key"),
        ("\r\n\n", "contains no key"),
        ("HIDDEN\n\nHIDDEN\n", "line 2"),
        ("\nHIDDEN\n", "line 1"),
        ("\u{feff}HIDDEN\n", "byte order mark"),
    ] {
        let desk = Desk::new(&[("keys", text)]);
        let message = desk.refusal(&[("CONVOKE_APP_ID", "a"), ("CONVOKE_APP_KEY_FILE", "keys")]);
        assert_holds(&message, &["subscriber.key_files", "keys", part]);
        assert!(!message.contains("HIDDEN"), "{message}");
    }
    let desk = Desk::new(&[("long", &"x".repeat(70_000))]);
    std::fs::write(desk.path("binary"), [0xff, 0xfe]).unwrap();
    for (file, part) in [("long", "64 KiB"), ("binary", "UTF-8"), (".", "cannot be read")] {
        assert_holds(&load_key_file(&desk.path(file)).unwrap_err().to_string(), &["--app-key-file", part]);
    }
}

#[test]
fn masks_and_log_forms_that_do_not_exist_are_refused() {
    refused("CONVOKE_PRIVACY_MASK", "displayname", &["`privacy.mask`", "did you mean displayName?"]);
    refused("CONVOKE_PRIVACY_MASK", "shoeSize", &["`privacy.mask`", "callNumber"]);
    for url in ["localhost:4318", "ftp://a", "http://u:p4ss@a", "http://a/?b", "http://a/#b", "http://a/v1/traces"] {
        refused("CONVOKE_OTLP_ENDPOINT", url, &["`telemetry.otlp_endpoint`", "http://localhost:4318"]);
    }
    refused("CONVOKE_LOG_FORMAT", "xml", &["`log.format`", "json"]);
}

#[test]
fn serve_wants_subscribers_and_a_token_for_an_open_admin_listener() {
    let desk = Desk::new(&[("pem", "x")]);
    let error = desk.load(&[]).check_serve().unwrap_err().to_string();
    assert_holds(&error, &["`subscriber`", "CONVOKE_APP_ID", "[[subscriber]]"]);
    let app = [("CONVOKE_APP_ID", "a"), ("CONVOKE_APP_KEY", "k")];
    desk.load(&app).check_serve().unwrap();
    let check = |more: &[(&str, &str)]| desk.load(&[&app, more].concat()).check_serve();
    let open = ("CONVOKE_ADMIN_LISTEN", "0.0.0.0:8081");
    assert_holds(&check(&[open]).unwrap_err().to_string(), &["(from CONVOKE_ADMIN_LISTEN)", "admin.token_file"]);
    check(&[open, ("CONVOKE_ADMIN_TOKEN", "a-token-of-the-tests")]).unwrap();
    check(&[("CONVOKE_ADMIN_LISTEN", "[::1]:8081")]).unwrap();
    let error = check(&[("CONVOKE_TLS_CERT", "pem"), ("CONVOKE_TLS_KEY", "missing")]).unwrap_err().to_string();
    assert_holds(&error, &["`listen.tls_key` (from CONVOKE_TLS_KEY)", "cannot be read"]);
}

#[test]
fn tokens_of_the_list_that_cannot_work_are_refused_with_their_line() {
    let file = |text: &str| Desk::new(&[("f", "HIDDEN-HIDDEN-HIDDEN"), ("convoke.toml", text)]);
    let token = "name = 'a'\ntoken = 'HIDDEN-HIDDEN-HIDDEN'\nrights = ['view']";
    for (entries, parts) in [
        ("token = 'HIDDEN-HIDDEN-HIDDEN'\nrights = ['view']", &["`admin.tokens.name`", "line 1", "has no name"][..]),
        ("name = ' a'\ntoken = 'HIDDEN-HIDDEN-HIDDEN'\nrights = ['view']", &["`admin.tokens.name`", "line 2"]),
        ("name = 'a'\nrights = ['view']", &["`admin.tokens.token`", "line 1", "no token"]),
        ("name = 'a'\ntoken = 'HIDDEN-HIDDEN-HIDDEN'\ntoken_file = 'f'\nrights = ['view']", &["two tokens", "line 1"]),
        ("name = 'a'\ntoken = 'HIDDEN'\nrights = ['view']", &["`admin.tokens.token`", "line 3", "at least 16"]),
        ("name = 'a'\ntoken_file = 'missing'\nrights = ['view']", &["`admin.tokens.token_file`", "line 3", "missing"]),
        ("name = 'a'\ntoken_file = 'f'", &["`admin.tokens.rights`", "line 1", "no rights"]),
        ("name = 'a'\ntoken_file = 'f'\nrights = []", &["`admin.tokens.rights`", "no rights"]),
        ("name = 'a'\ntoken_file = 'f'\nrights = 'view'", &["`admin.tokens.rights`", "line 4", "an array"]),
        ("name = 'a'\ntoken_file = 'f'\nrights = ['operat']", &["`admin.tokens.rights`", "line 4", "`operate`"]),
        ("name = 'a'\ntoken_fil = 'HIDDEN'", &["`admin.tokens.token_fil`", "line 3", "`token_file`"]),
        (&format!("{token}\n[[admin.tokens]]\n{}", token.replace("HIDDEN-", "OTHER-")), &["named `a`", "line 6"]),
        (&format!("{token}\n[[admin.tokens]]\n{}", token.replace("'a'", "'b'")), &["same token as `a`", "line 5"]),
    ] {
        let message = file(&format!("[[admin.tokens]]\n{entries}\n")).refusal(&[]);
        assert_holds(&message, &[&["convoke.toml, line"], parts].concat());
        assert!(!message.contains("HIDDEN"), "{message}");
    }
    file_refused("admin.tokens = 'HIDDEN'\n", &["`admin.tokens`", "[[admin.tokens]]"]);
    let twice = file(&format!("[[admin.tokens]]\n{token}\n")).refusal(&[("CONVOKE_ADMIN_TOKEN_FILE", "f")]);
    assert_holds(&twice, &["same token as `admin.token`"]);
}

#[test]
fn a_file_that_is_not_utf8_is_refused_with_how_it_may_have_come_about() {
    let desk = Desk::new(&[]);
    // "会议" in GBK.
    std::fs::write(desk.path("convoke.toml"), b"# \xbb\xe1\xd2\xe9\n").unwrap();
    assert_holds(&desk.refusal(&[]), &["the settings file convoke.toml is not UTF-8", "GBK or UTF-16"]);
    std::fs::write(desk.path("key"), b"\xbb\xe1").unwrap();
    std::fs::write(desk.path("convoke.toml"), "").unwrap();
    let error = desk.refusal(&[("CONVOKE_APP_ID", "a"), ("CONVOKE_APP_KEY_FILE", "key")]);
    assert_holds(&error, &["key is not UTF-8", "GBK or UTF-16"]);
}
