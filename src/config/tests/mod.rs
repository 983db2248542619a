//! Precedence, how files are read, and that no secret is shown. Rejected values are in `refusals`.

mod platform;
mod refusals;

use std::time::Duration;

use secrecy::ExposeSecret;

use super::keys::{KEYS, variable};
use super::layers::Layers;
use super::*;

/// A working directory with these files, and settings that are read in it.
struct Desk {
    directory: tempfile::TempDir,
    args: ConfigArgs,
}

impl Desk {
    fn new(files: &[(&str, &str)]) -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap(), args: ConfigArgs::default() };
        for (name, text) in files {
            desk.write(name, text);
        }
        desk
    }

    fn with_file(settings: &str) -> Self {
        Self::new(&[("convoke.toml", settings)])
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn env(&self, variables: &[(&str, &str)]) -> Env {
        Env::of(variables.iter().copied(), self.directory.path())
    }

    fn try_load(&self, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::load(&self.args, &self.env(variables))
    }

    fn load(&self, variables: &[(&str, &str)]) -> Settings {
        self.try_load(variables).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(&self, variables: &[(&str, &str)]) -> String {
        self.try_load(variables).expect_err("refused").to_string()
    }
}

fn keys(subscriber: &Subscriber) -> Vec<&str> {
    subscriber.keys.iter().map(ExposeSecret::expose_secret).collect()
}

#[test]
fn without_any_setting_the_defaults_of_the_contract_hold() {
    let settings = Desk::new(&[]).load(&[]);
    assert_eq!(settings.listen.events.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.listen.admin.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.listen.path, "/openapi/meetingevent");
    assert_eq!(settings.listen.tls, None);
    assert_eq!(settings.listen.max_body, 262_144);
    assert!(settings.listen.allow_from.is_empty() && settings.listen.trusted_proxies.is_empty());
    assert_eq!(settings.listen.idle_timeout, Duration::from_secs(90));
    assert_eq!(settings.listen.shutdown_delay, Duration::from_secs(2));
    assert_eq!(settings.listen.shutdown_timeout, Duration::from_secs(25));
    assert!(settings.subscribers.is_empty());
    assert_eq!(settings.database.url, "sqlite://convoke.db");
    assert!(settings.database.migrate);
    assert_eq!(settings.database.retention, None);
    assert_eq!(settings.nats.url.as_deref(), Some("nats://127.0.0.1:4222"));
    assert_eq!((settings.nats.stream.as_str(), settings.nats.subject_prefix.as_str()), ("MEETINGS", "meetings"));
    assert_eq!((settings.nats.replicas, settings.nats.max_bytes), (1, None));
    assert_eq!(settings.nats.max_age, Duration::from_secs(30 * 86_400));
    assert_eq!(settings.nats.duplicate_window, Duration::from_secs(600));
    assert!(settings.admin.tokens.is_empty() && settings.privacy.mask.is_empty() && settings.log.format.is_none());
    assert_eq!(settings.telemetry.otlp_endpoint, None);
}

#[test]
fn the_reference_file_holds_every_key_with_its_default_and_its_variable() {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text = REFERENCE.lines().map(uncommented).collect::<Vec<_>>().join("\n");
    let desk = Desk::with_file(&text);
    let env = desk.env(&[]);
    let file = super::file::read(&desk.args, &env).unwrap_or_else(|error| panic!("{error}"));
    let layers = Layers::collect(&desk.args, &env, file.as_ref()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for key in &KEYS {
        let found = layers.found(key.path);
        assert_eq!(found.text, key.default, "{}", key.path);
        assert!(matches!(found.origin, Origin::File { .. }), "{} is missing", key.path);
        assert!(REFERENCE.contains(&variable(key)), "{} is missing", variable(key));
        assert!(key.flag.is_none_or(|flag| REFERENCE.contains(flag)), "{:?} is missing", key.flag);
    }
    desk.load(&[]);
    Desk::with_file(REFERENCE).load(&[]);
}

#[test]
fn every_variable_of_the_contract_is_accepted() {
    let files =
        [("secret", "s3cret\n"), ("token", "a-token-in-a-file\n"), ("keys", "k\n"), ("cert.pem", ""), ("key.pem", "")];
    let desk = Desk::new(&files);
    let common = [
        ("CONVOKE_LISTEN", "0.0.0.0:8080"),
        ("CONVOKE_ADMIN_LISTEN", "0.0.0.0:8081"),
        ("CONVOKE_PATH_EVENTS", "/events"),
        ("CONVOKE_TLS_CERT", "cert.pem"),
        ("CONVOKE_TLS_KEY", "key.pem"),
        ("CONVOKE_MAX_BODY", "1 MiB"),
        ("CONVOKE_ALLOW_FROM", "10.0.0.0/8, 192.0.2.7"),
        ("CONVOKE_TRUSTED_PROXIES", "::1"),
        ("CONVOKE_IDLE_TIMEOUT", "2m"),
        ("CONVOKE_SHUTDOWN_DELAY", "0s"),
        ("CONVOKE_SHUTDOWN_TIMEOUT", "5s"),
        ("CONVOKE_APP_ID", "1988692299"),
        ("CONVOKE_APP_KEY", "a key, and a comma"),
        ("CONVOKE_APP_KEY_FILE", "keys"),
        ("CONVOKE_DATABASE_URL", "postgres://me:pw@db:5432/convoke"),
        ("CONVOKE_MIGRATE", "false"),
        ("CONVOKE_RETENTION", "48h"),
        ("CONVOKE_NATS_URL", "nats://a:4222,tls://b:4222"),
        ("CONVOKE_NATS_STREAM", "S"),
        ("CONVOKE_NATS_SUBJECT_PREFIX", "acme.meetings"),
        ("CONVOKE_NATS_TLS_CA", "secret"),
        ("CONVOKE_NATS_USER", "u"),
        ("CONVOKE_NATS_PASSWORD_FILE", "secret"),
        ("CONVOKE_NATS_REPLICAS", "3"),
        ("CONVOKE_NATS_MAX_AGE", "1d"),
        ("CONVOKE_NATS_MAX_BYTES", "10 GiB"),
        ("CONVOKE_NATS_DUPLICATE_WINDOW", "1h"),
        ("CONVOKE_ADMIN_TOKEN", "t0ken-of-16-char"),
        ("CONVOKE_PRIVACY_MASK", "displayName,callNumber"),
        ("CONVOKE_PLATFORM_URL", "none"),
        ("CONVOKE_PLATFORM_APP_ID", "none"),
        ("CONVOKE_PLATFORM_APP_KEY_FILE", "none"),
        ("CONVOKE_PLATFORM_USER_ID", "none"),
        ("CONVOKE_PLATFORM_CORP_ID", "none"),
        ("CONVOKE_PLATFORM_SP_ID", "none"),
        ("CONVOKE_PLATFORM_CALLBACK_URL", "none"),
        ("CONVOKE_PLATFORM_WATCH_EVERY", "off"),
        ("CONVOKE_BACKFILL_EVERY", "off"),
        ("CONVOKE_RECORDINGS_ENABLED", "false"),
        ("CONVOKE_ENRICH_ENABLED", "false"),
        ("CONVOKE_LOG_FORMAT", "json"),
    ];
    let settings = desk.load(&common);
    assert_eq!(settings.listen.allow_from, ["10.0.0.0/8".parse().unwrap(), "192.0.2.7/32".parse::<IpNet>().unwrap()]);
    let tls = settings.listen.tls.unwrap();
    assert_eq!((tls.cert, tls.key), (desk.path("cert.pem"), desk.path("key.pem")));
    assert_eq!(settings.listen.max_body, 1_048_576);
    assert_eq!(keys(&settings.subscribers[0]), ["a key, and a comma", "k"]);
    assert_eq!(settings.database.retention, Some(Duration::from_secs(48 * 3600)));
    assert!(!settings.database.migrate);
    assert_eq!(settings.nats.url.as_deref(), Some("nats://a:4222,tls://b:4222"));
    let Some(Login::Password(user, file)) = settings.nats.login else { panic!("another way") };
    assert_eq!((user.as_str(), file), ("u", desk.path("secret")));
    assert_eq!(settings.nats.max_bytes, Some(10 << 30));
    assert_eq!(settings.admin.tokens[0].token.expose_secret(), "t0ken-of-16-char");
    assert_eq!(settings.privacy.mask, ["displayName", "callNumber"]);
    assert_eq!(settings.log.format, Some(LogFormat::Json));

    let others = desk.load(&[("CONVOKE_NATS_CREDS_FILE", "secret"), ("CONVOKE_ADMIN_TOKEN_FILE", "token")]);
    assert!(matches!(&others.nats.login, Some(Login::Creds(file)) if *file == desk.path("secret")));
    assert_eq!(others.admin.tokens[0].token.expose_secret(), "a-token-in-a-file");
    let token = desk.load(&[("CONVOKE_NATS_TOKEN_FILE", "secret")]);
    assert!(matches!(&token.nats.login, Some(Login::Token(file)) if *file == desk.path("secret")));
    let nkey = desk.load(&[
        ("CONVOKE_NATS_NKEY_FILE", "secret"),
        ("CONVOKE_NATS_TLS_CERT", "cert.pem"),
        ("CONVOKE_NATS_TLS_KEY", "key.pem"),
    ]);
    assert!(matches!(&nkey.nats.login, Some(Login::Nkey(file)) if *file == desk.path("secret")));
    assert_eq!(nkey.nats.tls.map(|tls| (tls.cert, tls.key)), Some((desk.path("cert.pem"), desk.path("key.pem"))));
    for file in ["secret", "cert.pem", "key.pem"] {
        assert!(nkey.files.contains(&desk.path(file)), "{file} is not watched");
    }
}

#[test]
fn a_flag_counts_more_than_a_variable_than_the_file_than_a_shared_variable_than_the_default() {
    let mut desk = Desk::new(&[]);
    let shared = ("DATABASE_URL", "sqlite://shared.db");
    let ours = ("CONVOKE_DATABASE_URL", "sqlite://ours.db");
    assert_eq!(desk.load(&[]).database.url, "sqlite://convoke.db");
    assert_eq!(desk.load(&[shared]).database.url, "sqlite://shared.db");
    desk.write("convoke.toml", "[database]\nurl = 'sqlite://file.db'\n");
    assert_eq!(desk.load(&[shared]).database.url, "sqlite://file.db");
    assert_eq!(desk.load(&[shared, ours]).database.url, "sqlite://ours.db");
    desk.args.database_url = Some("sqlite://flag.db".to_owned());
    let settings = desk.load(&[shared, ours]);
    assert_eq!(settings.database.url, "sqlite://flag.db");
    assert_eq!(settings.origin("database.url"), &Origin::Flag("--database-url"));
    assert_eq!(settings.origin("nats.url"), &Origin::Default);
}

#[test]
fn every_flag_sets_its_setting() {
    let mut desk = Desk::new(&[("keys", "k"), ("other.toml", "[nats]\nstream = 'OTHER'\n"), ("convoke.toml", "bad")]);
    desk.args = ConfigArgs {
        config: Some("other.toml".into()),
        listen: Some("127.0.0.1:1".into()),
        admin_listen: Some("127.0.0.1:2".into()),
        path: Some("/p".into()),
        app_id: Some("a".into()),
        app_key_file: Some("keys".into()),
        database_url: Some("sqlite://d.db".into()),
        nats_url: Some("none".into()),
        log_format: Some("text".into()),
    };
    let settings = desk.load(&[("CONVOKE_CONFIG", "missing.toml"), ("CONVOKE_APP_KEY", "not this")]);
    assert_eq!((settings.listen.events.port(), settings.listen.admin.port()), (1, 2));
    assert_eq!(settings.listen.path, "/p");
    assert_eq!(keys(&settings.subscribers[0]), ["k"]);
    assert_eq!(settings.nats.url, None);
    assert_eq!(settings.nats.stream, "OTHER");
    assert_eq!(settings.log.format, Some(LogFormat::Text));
}

#[test]
fn the_variable_that_names_the_file_counts_more_than_the_usual_file() {
    let desk = Desk::new(&[("convoke.toml", "bad"), ("other.toml", "[nats]\nurl = 'none'\n")]);
    assert_eq!(desk.load(&[("CONVOKE_CONFIG", "other.toml"), ("NATS_URL", "nats://shared")]).nats.url, None);
}

#[test]
fn variables_in_the_files_strings_are_replaced_once() {
    let desk = Desk::with_file(
        "nats.stream = '${A}_${B}'\nnats.replicas = '${N}'\nlisten.allow_from = ['${NETS}']\n\
         [[subscriber]]\napp_id = 'x'\nkeys = ['${KEY}', '$${A}', 'cash$', '$A']\n",
    );
    let nets = ("NETS", "10.0.0.0/8,::1/128");
    let settings = desk.load(&[("A", "one"), ("B", "two"), ("N", "3"), nets, ("KEY", "${A}")]);
    assert_eq!(settings.nats.stream, "one_two");
    assert_eq!(settings.nats.replicas, 3);
    assert_eq!(settings.listen.allow_from.len(), 2);
    assert_eq!(keys(&settings.subscribers[0]), ["${A}", "${A}", "cash$", "$A"]);
}

#[test]
fn a_variable_that_the_file_asks_for_may_have_any_name() {
    let desk = Desk::with_file("[[subscriber]]\napp_id = 'x'\nkeys = ['${CONVOKE_KEY_OF_ACME}']\n");
    assert_eq!(keys(&desk.load(&[("CONVOKE_KEY_OF_ACME", "k")]).subscribers[0]), ["k"]);
}

#[test]
fn the_flags_stand_in_the_help_with_their_variable_key_and_default() {
    use clap::CommandFactory;
    /// What the command does.
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        _config: ConfigArgs,
        /// Another flag.
        #[arg(long)]
        _other: bool,
    }
    let help = Command::command().render_long_help().to_string();
    assert!(help.starts_with("What the command does"), "{help}");
    for key in KEYS.iter().filter(|key| key.flag.is_some()) {
        for part in [key.flag.unwrap(), &variable(key), key.path, key.default] {
            assert!(help.contains(part), "{part} is not in:\n{help}");
        }
    }
    for part in ["CONVOKE_CONFIG", "--app-id", "CONVOKE_APP_ID", "CONVOKE_APP_KEY_FILE", "CONVOKE_APP_KEY"] {
        assert!(help.contains(part), "{part} is not in:\n{help}");
    }
}

#[test]
fn none_undoes_what_a_lower_layer_sets() {
    let desk = Desk::with_file(
        "[listen]\nallow_from = ['10.0.0.0/8']\n[database]\nretention = '60d'\n[nats]\ntoken_file = 'missing'\n",
    );
    let settings = desk.load(&[
        ("CONVOKE_ALLOW_FROM", "none"),
        ("CONVOKE_RETENTION", "none"),
        ("CONVOKE_NATS_TOKEN_FILE", "none"),
        ("CONVOKE_NATS_MAX_AGE", "none"),
    ]);
    assert!(settings.listen.allow_from.is_empty() && settings.database.retention.is_none());
    assert_eq!(settings.nats.max_age, Duration::ZERO);
}

#[test]
fn a_key_file_holds_one_key_a_line_exactly_as_it_stands() {
    let desk = Desk::new(&[("keys", " one \r\ntwo\tand a half\n\r\n\n"), ("more", "three")]);
    desk.write("convoke.toml", "[[subscriber]]\napp_id='a'\nname='A'\nkeys=['zero']\nkey_files=['keys','more']\n");
    let settings = desk.load(&[]);
    assert_eq!(keys(&settings.subscribers[0]), ["zero", " one ", "two\tand a half", "three"]);
    assert_eq!(settings.subscribers[0].name.as_deref(), Some("A"));
    assert_eq!(settings.subscriber_sources[0].key_files, [desk.path("keys"), desk.path("more")]);
    assert_eq!(load_key_file(&desk.path("more")).unwrap().len(), 1);
}

#[test]
fn the_environments_subscriber_replaces_the_whole_list() {
    let desk = Desk::with_file("[[subscriber]]\napp_id='a'\nkeys=['x']\n[[subscriber]]\napp_id='b'\nkeys=['y']\n");
    assert_eq!(desk.load(&[]).subscribers.len(), 2);
    let settings = desk.load(&[("CONVOKE_APP_ID", "c"), ("CONVOKE_APP_KEY", "z")]);
    assert_eq!(settings.subscribers.len(), 1);
    assert_eq!(&*settings.subscribers[0].app_id, "c");
}

#[test]
fn a_reload_reads_the_list_and_the_key_files_again_and_fails_without_harm() {
    let desk = Desk::new(&[("keys", "old\n"), ("convoke.toml", "[[subscriber]]\napp_id='a'\nkey_files=['keys']\n")]);
    let env = desk.env(&[]);
    let settings = Settings::load(&desk.args, &env).unwrap();
    desk.write("keys", "old\nnew\n");
    assert_eq!(keys(&load_subscribers(&settings.subscriber_sources).unwrap()[0]), ["old", "new"]);
    let sources = SettingsSources::read(&desk.args, &env).unwrap();
    assert_eq!(keys(&sources.settings().unwrap().subscribers[0]), ["old", "new"]);
    desk.write("keys", "\n");
    assert!(sources.settings().unwrap_err().to_string().contains("contains no key"));
    desk.write("keys", "new\n");
    desk.write("convoke.toml", "");
    assert_eq!(keys(&sources.settings().unwrap().subscribers[0]), ["new"], "the settings file is as it was read");
    let settings = sources.again().unwrap().settings().unwrap();
    assert!(settings.check_serve().unwrap_err().to_string().contains("CONVOKE_APP_ID"));
}

#[test]
fn the_more_important_of_two_admin_tokens_counts() {
    let desk = Desk::new(&[("token", "a-token-from-a-file\n"), ("convoke.toml", "admin.token_file = 'token'\n")]);
    let token = |variables: &[(&str, &str)]| desk.load(variables).admin.tokens[0].token.expose_secret().to_owned();
    assert_eq!(token(&[]), "a-token-from-a-file");
    assert_eq!(token(&[("CONVOKE_ADMIN_TOKEN", "a-direct-token-here")]), "a-direct-token-here");
}

#[test]
fn no_secret_shows_in_debug_output() {
    let desk = Desk::new(&[("pw", "Hidden1"), ("keys", "Hidden2")]);
    desk.write("convoke.toml", "[[subscriber]]\napp_id='a'\nkeys=['Hidden3']\nkey_files=['keys']\n");
    let variables = [
        ("CONVOKE_DATABASE_URL", "postgres://me:Hidden4@db/x?password=Hidden5"),
        ("CONVOKE_NATS_URL", "nats://me:Hidden6@a:4222,nats://Hidden7@b:4222"),
        ("CONVOKE_ADMIN_TOKEN", "Hidden8-Hidden8-Hidden8"),
        ("CONVOKE_ADMIN_VIEWER_TOKEN", "Hidden10-Hidden10-Hidden10"),
    ];
    let by_file =
        [("CONVOKE_NATS_URL", "nats://a:4222"), ("CONVOKE_NATS_USER", "u"), ("CONVOKE_NATS_PASSWORD_FILE", "pw")];
    let mut args = desk.args.clone();
    args.database_url = Some("postgres://me:Hidden9@db/x".to_owned());
    let (one, other) = (desk.load(&variables), desk.load(&by_file));
    let shown = format!("{one:?} {other:?} {:?} {args:?}", desk.env(&variables));
    assert!(!shown.contains("Hidden") && shown.contains("@db/x"), "{shown}");
}

#[test]
fn urls_are_shown_without_what_may_be_secret() {
    for (url, shown) in [
        ("sqlite://convoke.db?mode=rwc", "sqlite://convoke.db?mode=rwc"),
        ("nats://a:4222,tls://b", "nats://a:4222,tls://b"),
        ("postgres://u:p@ss/w@h/d", "postgres://***@h/d"),
        ("postgres://u:p?x@h/d", "***?***"),
        ("postgres://h/d?user=u&password=a,b", "postgres://h/d?***"),
        ("nats://u:a,b@h", "***,***@h"),
        ("u:p@h", "***@h"),
        ("postgres://u:p,w@h1,h2:5433/d", "postgres://***@h1,h2:5433/d"),
        ("postgres://h1,h2:5433/d", "postgres://h1,h2:5433/d"),
        ("postgres://u:123#w@h/d", "postgres://***@h/d"),
        ("postgres://u:secret/d", "postgres://***"),
        ("nats://u:secret", "nats://***"),
        ("nats://[::1],nats://[::1]:4222", "nats://[::1],nats://[::1]:4222"),
    ] {
        assert_eq!(redact_url(url), shown);
    }
}

#[test]
fn a_password_from_a_variable_is_taken_as_it_is_whatever_is_in_it() {
    for password in ["p#w", "p/w", "p?w", "p%41w", "123#w", "12/w", "p@w", "p w", "p:w", "p,w", "p&w=ü${A}"] {
        let desk = Desk::with_file(
            "database.url = 'postgres://convoke:${PW}@${HOSTS}/convoke?sslmode=disable&application_name=${PW}'\n\
             nats.url = 'nats://${PW}:${PW}@a:4222,nats://b'\n",
        );
        let settings = desk.load(&[("PW", password), ("HOSTS", "pg1,pg2:5433")]);
        let database = settings.database.url.strip_prefix("postgres://convoke:").expect("scheme and user");
        let (database, rest) = database.split_once('@').expect("a password and hosts");
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        assert_eq!(decoded(database), password);
        let (rest, parameter) = rest.rsplit_once('=').expect("parameters");
        assert_eq!(rest, "pg1,pg2:5433/convoke?sslmode=disable&application_name");
        assert_eq!(decoded(parameter), password);
        let nats = settings.nats.url.as_deref().expect("a URL");
        let server: async_nats::ServerAddr = nats.split(',').next().expect("the first").parse().expect("a server");
        assert_eq!(server.password().map(decoded).as_deref(), Some(password));
        assert_eq!((server.host(), nats.ends_with(",nats://b")), ("a", true));
    }
}

#[test]
fn a_variable_with_the_whole_url_stays_as_it_is() {
    let desk = Desk::with_file("database.url = '${URL}'\nnats.url = '${NATS}'\n");
    let (database, nats) = ("postgres://u:p%23w@pg1,pg2/db?sslmode=disable", "nats://u:p%23w@a:4222,nats://b");
    let settings = desk.load(&[("URL", database), ("NATS", nats)]);
    assert_eq!((settings.database.url.as_str(), settings.nats.url.as_deref()), (database, Some(nats)));
}

#[test]
fn no_part_of_a_password_is_in_a_refusal() {
    for url in ["postgres://u:123#hidden@h/d", "postgres://u:1/hidden@h/d", "postgres://u:hidden/d"] {
        let message = Desk::new(&[]).refusal(&[("DATABASE_URL", url)]);
        assert!(!message.contains("hidden") && !message.contains("123"), "{message}");
    }
    for url in ["nats://u:123#hidden@h", "nats://u:1/hidden@h", "nats://u:1?hidden@h", "nats://u:hidden"] {
        let message = Desk::new(&[]).refusal(&[("NATS_URL", url)]);
        assert!(!message.contains("hidden") && !message.contains("123"), "{message}");
    }
    refusals::refused("DATABASE_URL", "postgres://pg1,/d", &["a comma without a host"]);
    refusals::refused("DATABASE_URL", "postgres://h/d?target_session_attrs=standby", &["asks for a read-only server"]);
    refusals::refused(
        "DATABASE_URL",
        "postgres://h/d?target_session_attrs=rw",
        &["has an unknown target_session_attrs: write read-write, primary or any"],
    );
}

#[test]
fn settings_files_are_named_as_the_user_named_them() {
    let desk = Desk::with_file("\n[listen]\nevents = 'x'\n");
    let error = desk.try_load(&[]).unwrap_err();
    assert_eq!(error.setting(), "listen.events");
    assert_eq!(error.origin().to_string(), "convoke.toml, line 3");
}

#[test]
fn tokens_of_the_list_have_names_and_rights_beside_those_of_single_settings() {
    let text = "admin.viewer_token = 'a-viewers-HIDDEN-token'
[[admin.tokens]]\nname = 'night'\ntoken_file = 'f'\nrights = ['view', 'operate']
[[admin.tokens]]\nname = '审计'\ntoken = '${AUDIT}'\nrights = ['see_people']\n";
    let desk = Desk::new(&[("f", "HIDDEN-token-in-a-file\n"), ("convoke.toml", text)]);
    let settings = desk.load(&[("AUDIT", "HIDDEN-of-environment")]);
    let rights = |see_people, operate| AdminRights { see_people, operate };
    let found: Vec<_> = settings.admin.tokens.iter().map(|token| (&*token.name, token.rights)).collect();
    let expected =
        [("admin.viewer_token", rights(false, false)), ("night", rights(false, true)), ("审计", rights(true, false))];
    assert_eq!(found, expected);
    assert_eq!(settings.admin.tokens[1].token.expose_secret(), "HIDDEN-token-in-a-file");
    assert_eq!(settings.admin.widest().map(|token| &*token.name), Some("审计"));
    let file = desk.path("f");
    assert!(settings.files.contains(&file) && settings.secret_files.contains(&file), "its file is watched, and kept");
    assert!(!format!("{settings:?}").contains("HIDDEN"));
}

#[test]
fn a_key_with_white_space_at_an_end_is_taken_as_it_is_and_warned_of_without_being_shown() {
    let desk = Desk::new(&[("keys", "s3cret\ns3cret \n")]);
    let settings = desk.load(&[("CONVOKE_APP_ID", "660012345"), ("CONVOKE_APP_KEY_FILE", "keys")]);
    assert_eq!(keys(&settings.subscribers[0]), ["s3cret", "s3cret "]);
    let warned: Vec<String> = settings.secret_warnings().filter(|text| !text.contains("chmod")).collect();
    let [warning] = &warned[..] else { panic!("one warning: {warned:?}") };
    assert!(warning.contains("key number 2 of subscriber 660012345 begins or ends with white space"), "{warning}");
    assert!(!warning.contains("s3cret"), "{warning}");
}
