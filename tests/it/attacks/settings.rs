//! Settings that contradict each other, or what is outside: said plainly, with what to change.

use std::path::Path;
use std::process::Command;

use crate::support::nats::{NatsOptions, NatsServer, NatsVersion};
use crate::support::process::Finished;
use crate::support::service::{Database, Service, WAIT_TIMEOUT, event, settings};
use crate::support::tools::output_of;
use crate::support::wait::eventually;

/// Writes a self-signed certificate that is valid from and to these days (`20260101000000Z`), and its key.
fn certificate(folder: &Path, from: &str, to: &str) {
    // An authority that signs itself: only `openssl ca` of all versions takes dates.
    let config = "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n\
                  default_md = sha256\npolicy = p\nunique_subject = no\nx509_extensions = e\n\
                  [p]\ncommonName = supplied\n[e]\nsubjectAltName = IP:127.0.0.1\n";
    std::fs::write(folder.join("ca.cnf"), config).expect("a file");
    std::fs::write(folder.join("index"), "").expect("a file");
    let openssl = |arguments: &str| {
        output_of(Command::new("openssl").current_dir(folder).args(arguments.split(' ')));
    };
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=convoke-test -out request -keyout key.pem",
    );
    openssl(&format!(
        "ca -selfsign -batch -notext -config ca.cnf -in request -keyfile key.pem -startdate {from} -enddate {to} -out cert.pem"
    ));
}

/// `convoke serve` that is to be refused.
async fn refused(more: &[(&str, &str)], words: &[&str]) {
    let builder = settings().setting("LISTEN", "127.0.0.1:0").setting("ADMIN_LISTEN", "127.0.0.1:0");
    let builder = more.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
    let finished = builder.arg("serve").run().await;
    assert_eq!(finished.code(), 2, "{more:?}: {finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?} is not in: {}", finished.stderr);
    }
}

#[tokio::test]
async fn settings_that_contradict_each_other_stop_the_start_with_a_sentence() {
    let open = ("ADMIN_LISTEN", "0.0.0.0:0");
    refused(&[open], &["`listen.admin`", "there is no admin.token", "set admin.token_file"]).await;
    refused(&[("RETENTION", "24h")], &["`database.retention`", "less than", "48h"]).await;
    refused(&[("TRUSTED_PROXIES", "0.0.0.0/0")], &["`listen.trusted_proxies`", "everybody", "proxies in front"]).await;
    refused(&[("SHUTDOWN_DELAY", "30s")], &["`listen.shutdown_delay`", "25s in all", "shorter"]).await;
    refused(&[("DATABASE_URL", "sqlite://x.db?mode=ro")], &["`database.url`", "is read-only"]).await;
    refused(&[("PATH_EVENTS", "/livez")], &["`listen.path`", "a probe"]).await;
    refused(&[("LISTEN", "127.0.0.1:9"), ("ADMIN_LISTEN", "127.0.0.1:9")], &["the same address", "another port"]).await;
    let window = [("NATS_MAX_AGE", "5m")];
    refused(&window, &["`nats.duplicate_window`", "longer than nats.max_age", "write 5m or less"]).await;
}

fn line<'a>(finished: &'a Finished, begins: &str) -> &'a str {
    let found = finished.stdout.lines().find(|line| line.starts_with(begins));
    found.unwrap_or_else(|| panic!("no line {begins:?} in:\n{}", finished.stdout))
}

#[tokio::test]
async fn a_stream_that_the_broker_cannot_hold_is_said_plainly_and_events_are_kept() {
    let options = NatsOptions { max_file_store: Some(10 << 20), max_payload: Some(8_000), ..NatsOptions::default() };
    let nats = NatsServer::start(NatsVersion::Newest, options).await;
    for (name, value, sentence, remedy) in [
        (
            "NATS_MAX_BYTES",
            "1 GiB",
            "the server has no room for nats.max_bytes = 1.0 GiB",
            "set a smaller nats.max_bytes",
        ),
        ("NATS_REPLICAS", "3", "too few servers for nats.replicas = 3", "1 for a single server"),
    ] {
        let builder = settings().setting("NATS_URL", nats.url()).setting(name, value);
        let service = Service::with(builder, Database::Sqlite).await;
        let said = eventually("it is said", WAIT_TIMEOUT, async || {
            service.convoke.logs().lines().find(|line| line.contains(sentence)).map(str::to_owned)
        })
        .await;
        assert!(said.contains(remedy), "{said}");
        service.acknowledged(&event("meeting.join", "1")).await;
        let check = service.convoke.run(&["check"]).await;
        assert_eq!(check.code(), 1, "{}", check.stdout);
        let failed = line(&check, "FAIL  stream");
        assert!(failed.contains(sentence) && failed.contains(remedy), "{failed}");
        assert!(line(&check, "warn  bus").contains("raise max_payload"), "{}", check.stdout);
    }
    // What fits is not left behind by the trial.
    let fits = settings().setting("NATS_URL", nats.url()).setting("NATS_MAX_BYTES", "5 MiB");
    fits.arg("migrate").run().await;
    let builder = settings().setting("NATS_URL", nats.url()).setting("NATS_MAX_BYTES", "5 MiB");
    let check = builder.arg("check").run().await;
    assert!(!check.stdout.contains("FAIL  stream"), "{}", check.stdout);
    use futures_util::StreamExt as _;
    let jetstream = nats.jetstream().await;
    assert_eq!(jetstream.stream_names().count().await, 0);
}

#[tokio::test]
async fn a_certificate_that_nobody_will_believe_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let soon = crate::support::service::now() + 5 * 86_400_000;
    let soon = convoke_core::time::Millis::new(soon).expect("a time").to_string();
    let soon: String = soon.chars().filter(char::is_ascii_digit).take(14).chain(['Z']).collect();
    for (from, to, level, words) in [
        ("20200101000000Z", "20210101000000Z", "FAIL", "has expired on 2021-01-01"),
        ("20990101000000Z", "20990201000000Z", "FAIL", "is not valid before 2099-01-01"),
        ("20200101000000Z", soon.as_str(), "warn", "expires on 2"),
        ("20200101000000Z", "20990101000000Z", "ok", "cert.pem, with its key"),
    ] {
        certificate(folder.path(), from, to);
        let builder = || settings().setting("TLS_CERT", &cert).setting("TLS_KEY", &key);
        let check = builder().arg("check").run().await;
        let said = line(&check, &format!("{level:<5} TLS"));
        assert!(said.contains(words), "{said}");
        if level != "ok" {
            // It serves all the same: some who post do not look.
            let service = Service::with(builder(), Database::Sqlite).await;
            assert!(service.convoke.logs().contains(words), "{}", service.convoke.logs());
        }
    }
    std::fs::copy(&cert, folder.path().join("other.pem")).expect("a copy");
    certificate(folder.path(), "20200101000000Z", "20990101000000Z");
    let (cert, key) = (folder.path().join("other.pem").display().to_string(), key.display().to_string());
    let words = ["`listen.tls_key`", "key.pem does not belong to the certificate in", "other.pem"];
    refused(&[("TLS_CERT", cert.as_str()), ("TLS_KEY", key.as_str())], &words).await;
}
