//! Certificates are always checked.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use convoke_core::time::Clock;
use convoke_platform::{Class, Client, Options};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::scripted_server::{APP_ID, APP_KEY, AUTHENTICATION, LINK_CONFIG};
use super::scripted_server::{Reply, Scripted};
use crate::support::process::Convoke;
use crate::support::tools::output_of;

/// A self-signed certificate for 127.0.0.1, and its key.
fn certificate(folder: &Path) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=convoke-test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    output_of(openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(folder));
    let cert = CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate");
    (cert, PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key"))
}

/// TLS in front of `platform`; its base.
async fn in_front_of(platform: &Scripted, folder: &Path) -> (String, JoinHandle<()>) {
    let (cert, key) = certificate(folder);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let behind = platform.address;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not like the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut plain = TcpStream::connect(behind).await.expect("the platform");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut plain).await });
        }
    });
    (url, task)
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_once_and_nothing_is_sent() {
    let platform = Scripted::signed_in(|_| Reply::Json(200, json!({}))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (url, front) = in_front_of(&platform, folder.path()).await;
    let client = Client::new(Options { url, ..platform.options() }, Clock::System).expect("a client");
    let error = client.identity().await.expect_err("not trusted");
    assert_eq!(error.class, Class::Configuration, "{error}");
    assert!(error.problem.contains("certificate is not trusted"), "{error}");
    assert!(error.advice.contains("SSL_CERT_FILE"), "{error:?}");
    assert!(platform.asked(AUTHENTICATION).is_empty());
    front.abort();
}

#[tokio::test]
async fn a_certificate_of_an_authority_of_ones_own_is_trusted_when_ssl_cert_file_names_it() {
    let platform = Scripted::signed_in(|_| Reply::Json(200, json!({}))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (url, front) = in_front_of(&platform, folder.path()).await;
    let key = folder.path().join("app-key");
    std::fs::write(&key, APP_KEY).expect("a file");
    let database = format!("sqlite://{}", folder.path().join("convoke.db").display());
    let migrated = Convoke::builder().arg("migrate").setting("DATABASE_URL", &database).run().await;
    assert_eq!(migrated.code(), 0, "{migrated:?}");
    let show = || {
        let command = Convoke::builder().arg("subscription").arg("show").setting("DATABASE_URL", &database);
        command.setting("PLATFORM_URL", &url).setting("PLATFORM_APP_ID", APP_ID).setting("PLATFORM_APP_KEY_FILE", &key)
    };
    let refused = show().run().await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("certificate is not trusted"), "{refused:?}");
    assert!(platform.asked(AUTHENTICATION).is_empty());
    let shown = show().env("SSL_CERT_FILE", folder.path().join("cert.pem")).run().await;
    assert_eq!((platform.asked(AUTHENTICATION).len(), platform.asked(LINK_CONFIG).len()), (1, 1), "{shown:?}");
    front.abort();
}
