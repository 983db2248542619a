//! The folder deploy/: each package judged by somebody else's validator, and, as far as that goes without a container engine
//! or a cluster, run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use convoke::config::{ConfigArgs, Env, Settings};
use serde_json::Value;

use crate::{
    support::service::{KEY, PATH, Service, WAIT_TIMEOUT, event, settings, signed},
    support::{
        child::OwnChild,
        docs, http,
        nats::NatsVersion,
        port::Port,
        postgres::{Postgres, PostgresOptions, psql},
        process::Convoke,
        rig, tools,
        wait::eventually,
    },
};

/// A file or folder of deploy/.
pub fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

pub fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a script prints that is handed to the Python of the test set.
fn python(script: &str, argument: &Path) -> String {
    tools::output_of(Command::new(tools::python()).args(["-c", script]).arg(argument))
}

/// The documents of a YAML file.
pub fn yaml(path: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    serde_json::from_str(&python(script, &deploy(path))).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

/// One of the folder's settings files with its secrets' folders replaced, in a folder where those files are; and what
/// Convoke makes of it.
fn load(path: &str, secrets: &[&str], files: &[&str]) -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path().to_str().expect("a plain path");
    for file in files {
        fs::write(folder.path().join(file), "a-secret-of-the-tests\n").expect("a file");
    }
    let mut toml = read(path);
    for prefix in secrets {
        assert!(toml.contains(prefix), "{prefix} is not in {path}");
        toml = toml.replace(prefix, here);
    }
    let config = folder.path().join("convoke.toml");
    fs::write(&config, toml).expect("a file");
    let args = ConfigArgs { config: Some(config), ..ConfigArgs::default() };
    let settings = Settings::load(&args, &Env::of([], folder.path())).unwrap_or_else(|error| panic!("{path}: {error}"));
    (folder, settings)
}

fn seconds(text: &str) -> Duration {
    text.parse::<humantime::Duration>().unwrap_or_else(|error| panic!("{text}: {error}")).into()
}

#[test]
fn every_settings_file_of_the_packages_is_taken_and_its_package_waits_for_a_graceful_end() {
    let (_folder, image) = load("image/etc/convoke/convoke.toml", &[], &[]);
    assert_eq!(image.listen.events.to_string(), "0.0.0.0:8080");
    assert!(image.database.url.starts_with("sqlite:///var/lib/convoke/"), "{}", image.database.url);

    let (_folder, compose) =
        load("compose/convoke.toml", &["/run/secrets"], &["app-key", "admin-token", "nats-password"]);
    compose.check_serve().expect("complete");
    let file = &yaml("compose/compose.yaml")[0];
    let grace = seconds(text(&file["services"]["convoke"]["stop_grace_period"]));
    assert!(grace > compose.listen.shutdown_timeout && grace > image.listen.shutdown_timeout);

    let (_folder, kubernetes) =
        load("kubernetes/convoke.toml", &["/run/secrets/convoke"], &["app-key", "admin-token", "nats.creds"]);
    kubernetes.check_serve().expect("complete");
    let pod = &yaml("kubernetes/deployment.yaml")[0]["spec"]["template"]["spec"];
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().expect("a number"));
    assert!(grace > kubernetes.listen.shutdown_timeout);
    // Until the last proxy knows: readiness probes fail first, then addresses are taken out.
    assert!(kubernetes.listen.shutdown_delay >= Duration::from_secs(10));
    assert!(kubernetes.listen.shutdown_timeout > kubernetes.listen.shutdown_delay);

    let (_folder, systemd) = load("systemd/convoke.toml", &["/etc/convoke"], &["app-key", "admin-token"]);
    systemd.check_serve().expect("complete");
    let unit = read("systemd/convoke.service");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("TimeoutStopSec");
    assert!(seconds(stop) > systemd.listen.shutdown_timeout);
}

#[test]
fn hadolint_finds_nothing_in_the_dockerfile_and_what_it_copies_is_in_the_context() {
    let dockerfile = deploy("Dockerfile");
    let found = tools::output_of(Command::new(tools::python().with_file_name("hadolint")).arg(&dockerfile));
    assert_eq!(found, "");

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).expect("a .dockerignore");
    let in_context = |path: &str| {
        let mut taken = true;
        for rule in ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (takes, pattern) = rule.strip_prefix('!').map_or((false, rule), |pattern| (true, pattern));
            let fits = match pattern.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => path == pattern || path.starts_with(&format!("{pattern}/")),
            };
            if fits {
                taken = takes;
            }
        }
        taken
    };
    let text = read("Dockerfile");
    let mut copied = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        copied.extend_from_slice(&words[..words.len() - 1]);
    }
    assert!(copied.contains(&"src") && copied.contains(&"Cargo.lock"), "{copied:?}");
    for path in copied {
        assert!(root.join(path).exists() && in_context(path), "{path}");
    }
    for left_out in ["target", ".git", "deploy/compose", "tests", "convoke.db"] {
        assert!(!in_context(left_out), "{left_out}");
    }

    let needed = env!("CARGO_PKG_RUST_VERSION");
    let base = text.lines().find_map(|line| line.strip_prefix("ARG RUST_IMAGE=rust:")).expect("a base image");
    assert!(base.starts_with(needed) && base.contains("bookworm"), "{base} for Rust {needed}");
}

/// The libraries that the program asks for, as the Dockerfile finds them.
fn libraries() -> Vec<PathBuf> {
    let listed = tools::output_of(Command::new("ldd").arg(env!("CARGO_BIN_EXE_convoke")));
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[test]
fn the_program_asks_for_no_library_but_those_of_c_and_the_compiler() {
    let names: BTreeSet<String> =
        libraries().iter().map(|path| path.file_name().expect("a file").to_string_lossy().into_owned()).collect();
    let foreign: Vec<&String> = names
        .iter()
        .filter(|name| !["libc.", "libm.", "libgcc_s.", "ld-linux"].iter().any(|known| name.starts_with(known)))
        .collect();
    assert!(foreign.is_empty() && !names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn the_program_runs_in_the_images_file_system_read_only_and_as_its_user() {
    let mounts = Command::new("unshare").args(["--mount", "true"]).output().expect("unshare starts");
    if !mounts.status.success() {
        eprintln!("no mounts of our own here, not run: {}", String::from_utf8_lossy(&mounts.stderr).trim());
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, data) = (folder.path().join("image"), folder.path().join("data"));
    let run = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(folder.path());
        command.env("PROGRAM", env!("CARGO_BIN_EXE_convoke")).env("IMAGE", deploy("image"));
        tools::output_of(&mut command)
    };
    run(r#"cp -r "$IMAGE" image && install -D "$PROGRAM" image/usr/local/bin/convoke
           install -d image/tmp image/var/lib/convoke && install -d -o 65532 -g 65532 data"#);
    for library in libraries() {
        tools::output_of(Command::new("cp").args(["--parents", "-L"]).arg(library).arg(&root));
    }
    let inside = "mount --bind image image && mount --bind data image/var/lib/convoke \
                  && mount -o remount,bind,ro image && cd image \
                  && exec chroot --userspec=65532:65532 . /usr/local/bin/convoke serve";
    let convoke = settings()
        .program("unshare")
        .arg("--mount")
        .arg("sh")
        .arg("-euc")
        .arg(format!("cd '{}' && {inside}", folder.path().display()))
        .env("CONVOKE_CONFIG", "/etc/convoke/convoke.toml")
        .start()
        .await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    let answer = http::post(convoke.events, PATH, signed(&event("meeting.join", "42")), &[]).await;
    assert_eq!(answer.status, 200);
    assert!(data.join("convoke.db").exists(), "the volume has the database");
    let status = fs::read_to_string(format!("/proc/{}/status", convoke.id())).expect("a running process");
    assert!(status.contains("Uid:\t65532\t65532\t65532\t65532"), "{status}");
}

#[test]
fn the_compose_file_is_valid_pinned_and_opens_only_the_events_to_the_network() {
    let check = "import sys, compose_spec; compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read()).validate()";
    python(check, &deploy("compose/compose.yaml"));
    let file = &yaml("compose/compose.yaml")[0];
    let services = file["services"].as_object().expect("services");
    let mut open = Vec::new();
    for (name, service) in services {
        let (image, tag) = text(&service["image"]).rsplit_once(':').expect("a tag");
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{image}:{tag}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        open.extend(items(&service["ports"]).iter().map(text).filter(|port| !port.starts_with("127.0.0.1:")));
        for secret in items(&service["secrets"]) {
            let secret = secret.as_str().unwrap_or_else(|| text(&secret["source"]));
            assert!(text(&file["secrets"][secret]["file"]).starts_with("./secrets/"), "{secret}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = text(volume).split(':').next().unwrap_or_default();
            let there = match source.strip_prefix("./") {
                Some(path) => deploy("compose").join(path).exists(),
                None => file["volumes"].get(source).is_some(),
            };
            assert!(there, "{source}");
        }
    }
    assert_eq!(open, ["8080:8080"]);
    let ours = format!("convoke:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(services["convoke"]["image"], *ours);
    assert!(read("Dockerfile").contains(&format!("-t {ours} ")));
    let nats = text(&services["nats"]["image"]);
    assert!(nats.contains(NatsVersion::Newest.number()), "{nats} is not the release that the tests run on");
}

/// nats-server with the configuration of the Compose file, but its own port and folder.
async fn compose_nats(folder: &Path, [port, monitor]: &[Port; 2]) -> OwnChild {
    let mut text = read("compose/nats.conf");
    for (theirs, ours) in [
        ("0.0.0.0:4222", port.address().to_string()),
        ("127.0.0.1:8222", monitor.address().to_string()),
        ("/data", folder.join("store").display().to_string()),
    ] {
        assert!(text.contains(theirs), "{theirs}");
        text = text.replace(theirs, &ours);
    }
    let config = folder.join("nats.conf");
    fs::write(&config, text).expect("a file");
    fs::write(folder.join("auth.conf"), "authorization { user: convoke, password: \"bus-secret\" }\n").expect("a file");
    let program = tools::nats_server(NatsVersion::Newest);
    tools::output_of(Command::new(&program).arg("-t").arg("-c").arg(&config));
    let log = folder.join("nats.log");
    let server = OwnChild::spawn("nats-server", Command::new(&program).arg("-c").arg(&config), &log, &log);

    // What the health check asks.
    let file = &yaml("compose/compose.yaml")[0];
    let asked = items(&file["services"]["nats"]["healthcheck"]["test"]).last().and_then(Value::as_str).expect("a URL");
    let asked = asked.replace("127.0.0.1:8222", &monitor.address().to_string());
    eventually("nats-server is well", WAIT_TIMEOUT, async || {
        http::try_get(&asked).await.is_ok_and(|a| a.status == 200)
    })
    .await;
    let jetstream = http::get(&format!("http://{}/jsz", monitor.address())).await.json();
    assert_eq!(jetstream["config"]["sync_interval"], 1_000_000_000_u64, "{jetstream}");
    server
}

/// PostgreSQL with the settings of the Compose file, and a password for the user that it makes.
async fn compose_postgres(folder: &Path) -> Postgres {
    let access = folder.join("pg_hba.conf");
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all convoke 127.0.0.1/32 scram-sha-256\n";
    fs::write(&access, rules).expect("a file");
    let file = &yaml("compose/compose.yaml")[0];
    let command: Vec<&str> = items(&file["services"]["postgres"]["command"]).iter().map(text).collect();
    let mut settings: Vec<(String, String)> = command[1..]
        .chunks(2)
        .map(|pair| {
            assert_eq!(pair[0], "-c");
            let (name, value) = pair[1].split_once('=').expect("name=value");
            (name.to_owned(), value.to_owned())
        })
        .collect();
    assert!(settings.contains(&("fsync".to_owned(), "on".to_owned())), "{settings:?}");
    settings.push(("hba_file".to_owned(), access.display().to_string()));
    let postgres = Postgres::start_with(PostgresOptions { settings, ..PostgresOptions::default() }).await;
    postgres.psql("CREATE ROLE convoke LOGIN PASSWORD 'database-secret'");
    postgres.psql("CREATE DATABASE convoke OWNER convoke");
    postgres
}

#[tokio::test]
async fn the_three_parts_of_the_compose_file_work_together_with_its_settings_and_secrets() {
    // Where PostgreSQL's user may read its access rules, too.
    let folder = tempfile::tempdir().expect("a temporary folder");
    output_of_chmod(folder.path(), "0711");
    let ports = [Port::lease(), Port::lease()];
    let _nats = compose_nats(folder.path(), &ports).await;
    let postgres = compose_postgres(folder.path()).await;

    for (name, secret) in
        [("app-key", KEY), ("admin-token", "admin-secret-of-the-tests"), ("nats-password", "bus-secret")]
    {
        fs::write(folder.path().join(name), format!("{secret}\n")).expect("a file");
    }
    let database = postgres.address();
    let passwords = folder.path().join("pgpass");
    let line = format!("{}:{}:convoke:convoke:database-secret\n", database.ip(), database.port());
    fs::write(&passwords, line).expect("a file");
    output_of_chmod(&passwords, "0400");

    let mut toml = read("compose/convoke.toml");
    for (theirs, ours) in [
        ("@postgres:5432/", format!("@{database}/")),
        ("nats://nats:4222", format!("nats://{}", ports[0].address())),
        ("/run/secrets", folder.path().display().to_string()),
    ] {
        assert!(toml.contains(theirs), "{theirs}");
        toml = toml.replace(theirs, &ours);
    }
    let config = folder.path().join("convoke.toml");
    fs::write(&config, toml).expect("a file");

    let mut convoke = Convoke::builder().env("CONVOKE_CONFIG", &config).env("PGPASSFILE", &passwords).start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    let answer = http::post(convoke.events, PATH, signed(&event("meeting.join", "42")), &[]).await;
    assert_eq!(answer.status, 200);
    let metrics = format!("http://{}/metrics", convoke.admin);
    assert_eq!(http::get(&metrics).await.status, 401, "the admin listener asks for its token");
    let options = async_nats::ConnectOptions::new().user_and_password("convoke".into(), "bus-secret".into());
    let client = options.connect(ports[0].address().to_string()).await.expect("a connection");
    rig::stream_holds(&async_nats::jetstream::new(client), 1, WAIT_TIMEOUT).await;
    let rows = "SELECT meeting_id FROM events";
    assert_eq!(psql(&format!("postgres://postgres@{database}/convoke"), rows), "42");

    let checked = convoke.run(&["check"]).await;
    assert_eq!(checked.code(), 0, "{checked:?}");
    assert!(!checked.stdout.contains("differs from the settings"), "{}", checked.stdout);
    // The same file, not private: it is as if there were none, and the log says so.
    output_of_chmod(&passwords, "0440");
    let checked = convoke.run(&["check"]).await;
    assert!(checked.code() == 1 && checked.stdout.contains("FAIL  database"), "{checked:?}");
    convoke.restart().await;
    eventually("the log says why", WAIT_TIMEOUT, async || convoke.logs().contains("not strict enough")).await;
}

fn output_of_chmod(path: &Path, mode: &str) {
    tools::output_of(Command::new("chmod").arg(mode).arg(path));
}

/// The steps of docs/install/systemd.md in a folder that stands for the machine, and then what the unit starts, with no files but those.
#[tokio::test]
async fn what_the_steps_install_starts_as_the_unit_starts_it_without_an_edit() {
    let block = docs::block("docs/install/systemd.md", "2. Install", "sh install");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let machine = folder.path().join("machine");
    let here = machine.to_str().expect("a plain path");
    for (from, to) in [
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"), "deploy"),
        (PathBuf::from(env!("CARGO_BIN_EXE_convoke")), "target/release/convoke"),
    ] {
        fs::create_dir_all(folder.path().join("target/release")).expect("a folder");
        std::os::unix::fs::symlink(from, folder.path().join(to)).expect("a link");
    }
    fs::write(folder.path().join("app-key"), format!("{KEY}\n")).expect("a file");
    fs::create_dir_all(machine.join("usr/local/bin")).expect("a folder");
    fs::create_dir_all(machine.join("var/lib/convoke")).expect("a folder");
    let of_the_machine = |text: &str| {
        ["/usr/", "/etc/", "/var/lib/"]
            .iter()
            .fold(text.to_owned(), |text, path| text.replace(path, &format!("{here}{path}")))
    };
    let script = of_the_machine(&block)
        .replace("sudo ", "")
        .replace(" -g convoke", "")
        .replace("systemd-sysusers", "true")
        .replace("systemctl", "true");
    tools::output_of(Command::new("sh").args(["-euc", &script]).current_dir(folder.path()));

    let unit =
        of_the_machine(&fs::read_to_string(machine.join("etc/systemd/system/convoke.service")).expect("the unit"));
    let settings: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(!settings.iter().any(|line| line.starts_with("LoadCredential") || line.starts_with("Environment")));
    let start = settings.iter().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let mut words = start.split(' ');
    let builder = Convoke::builder().program(words.next().expect("the program"));
    let config = machine.join("etc/convoke/convoke.toml");
    let toml = of_the_machine(&fs::read_to_string(&config).expect("the settings"));
    fs::write(&config, toml).expect("the same, on this machine");
    let nowhere = format!("nats://{}", Port::lease().address());
    let builder = words.fold(builder, |builder, word| builder.arg(word)).setting("NATS_URL", nowhere);
    let convoke = builder.start().await;
    convoke.wait_ready(WAIT_TIMEOUT).await;
    assert!(machine.join("var/lib/convoke/convoke.db").exists());
    assert_eq!(http::get(&format!("http://{}/metrics", convoke.admin)).await.status, 401, "it asks for its token");
    let token = fs::read_to_string(machine.join("etc/convoke/admin-token")).expect("the token");
    assert!(token.trim().len() >= 40, "{token}");
    assert!(!convoke.logs().contains("holds a secret"), "{}", convoke.logs());
}

#[test]
fn systemd_accepts_the_unit_and_calls_its_exposure_ok() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unit = folder.path().join("convoke.service");
    let here = read("systemd/convoke.service").replace("/usr/local/bin/convoke", env!("CARGO_BIN_EXE_convoke"));
    fs::write(&unit, here).expect("a file");
    let verify = Command::new("systemd-analyze").arg("verify").arg(&unit).output().expect("systemd-analyze starts");
    let said = String::from_utf8_lossy(&verify.stderr);
    // It also names what is wrong with the machine's own units, which is not ours to judge.
    assert!(verify.status.success() && !said.contains("convoke"), "{said}");
    // 1.5 of 10, "OK"; above, the status is 1.
    let judged = tools::output_of(
        Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=15", "--no-pager"]).arg(&unit),
    );
    assert!(judged.contains("OK"), "{judged}");
    assert!(read("systemd/convoke.sysusers").contains("\nu convoke "));
}

#[test]
fn the_manifests_fit_their_schemas_and_one_another() {
    let kustomization = &yaml("kubernetes/kustomization.yaml")[0];
    let resources: Vec<String> =
        items(&kustomization["resources"]).iter().map(|name| format!("kubernetes/{}", text(name))).collect();
    let fit = |files: &[PathBuf]| {
        let mut validator = Command::new(tools::python().with_file_name("kubernetes-validate"));
        let said = validator.args(["--strict", "--quiet"]).args(files).output().expect("kubernetes-validate starts");
        // A kind that has no schema is but a warning to it.
        let words = [said.stdout, said.stderr].concat();
        assert!(said.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
    };
    fit(&resources.iter().map(|resource| deploy(resource)).collect::<Vec<_>>());
    match Command::new("kubectl").arg("kustomize").arg(deploy("kubernetes")).output() {
        Ok(built) => {
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            let folder = tempfile::tempdir().expect("a temporary folder");
            let whole = folder.path().join("all.yaml");
            fs::write(&whole, &built.stdout).expect("a file");
            fit(&[whole]);
        }
        Err(error) => eprintln!("kubectl is not here ({error}): the kustomization as a whole is not checked"),
    }

    let documents: Vec<Value> = resources.iter().flat_map(|path| yaml(path)).collect();
    let of =
        |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let deployment = of("Deployment");
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(of("Service")["spec"]["selector"], *labels);
    assert_eq!(of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], *labels);
    assert_eq!(of("ServiceAccount")["metadata"]["name"], pod["spec"]["serviceAccountName"]);
    assert_eq!(of("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["path"], PATH);
    let container = &pod["spec"]["containers"][0];
    let ports: Vec<&str> = items(&container["ports"]).iter().map(|port| text(&port["name"])).collect();
    let named = [
        &container["livenessProbe"]["httpGet"]["port"],
        &container["readinessProbe"]["httpGet"]["port"],
        &of("Service")["spec"]["ports"][0]["targetPort"],
        &of("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"],
        &of("NetworkPolicy")["spec"]["ingress"][1]["ports"][0]["port"],
    ];
    assert!(named.iter().all(|name| ports.contains(&text(name))), "{named:?} of {ports:?}");
    let generated = &kustomization["configMapGenerator"][0]["name"];
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], *generated);
    assert_eq!(kustomization["images"][0]["name"], container["image"]);
    assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn what_a_stand_in_kept_is_delivered_again_once_and_in_order() {
    let (stand_in, service) = (Service::start().await, Service::start().await);
    let known = event("meeting.started", "1");
    service.acknowledged(&known).await;
    stand_in.acknowledged(&known).await;
    for (kind, meeting) in [("meeting.join", "王"), ("record.finish", "3"), ("meeting.end", "1")] {
        stand_in.acknowledged(&event(kind, meeting)).await;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("key");
    let redeliver = |content: &str| {
        fs::write(&key, content).expect("a file");
        let mut command = Command::new(tools::python());
        command.arg(deploy("redeliver.py")).arg(stand_in.database_file());
        command.arg(format!("http://{}{PATH}", service.convoke.events)).arg("--key-file").arg(&key);
        command.output().expect("Python starts")
    };
    let refused = redeliver("another key\n");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "0 delivered, 4 refused\n");
    assert_eq!(service.count("events"), 1);
    for _ in 0..2 {
        let done = redeliver(&format!("{KEY}\n"));
        assert_eq!(String::from_utf8_lossy(&done.stdout), "4 delivered, 0 refused\n", "{done:?}");
        assert!(done.status.success());
        let log = "SELECT event_id, event, meeting_id, event_info FROM events ORDER BY seq";
        assert_eq!(service.sql(log), stand_in.sql(log));
    }
}
