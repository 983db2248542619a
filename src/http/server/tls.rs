//! TLS with rustls. The certificate can be replaced without closing connections.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use convoke_core::throttle::Reminder;
use convoke_core::time::{Clock, Millis};

/// How long before its expiry a certificate is warned about.
const EXPIRY_WARNING_TIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How often the warning is repeated before the expiry, and after it.
const EXPIRES_LOG_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
const EXPIRED_LOG_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be read, or is not PEM.
    #[error("{0}: {1}")]
    File(String, #[source] tokio_rustls::rustls::pki_types::pem::Error),
    /// The file contains no certificate.
    #[error("{0}: it contains no certificate")]
    Empty(String),
    /// The key cannot be read, or is not PEM.
    #[error("{0}: {1}")]
    Key(String, #[source] tokio_rustls::rustls::pki_types::pem::Error),
    /// The key does not belong to the certificate.
    #[error("the key in {0} does not belong to the certificate in {1}")]
    Mismatch(String, String),
    /// rustls does not support this kind of certificate or key.
    #[error("certificate and key: {0}")]
    Unusable(#[from] Error),
}

/// The certificate in use. Clones share it.
#[derive(Clone)]
pub struct Certificates(Arc<RwLock<Shown>>);

/// A certificate with the configuration that presents it.
struct Shown {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    expires: Millis,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Reads a certificate chain and its key from PEM files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(read(cert, key)?))))
    }

    /// Reads the files again. New connections use the new certificate once the returned function is called.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn prepare(&self, cert: &Path, key: &Path) -> Result<impl FnOnce() + Send + use<>, TlsError> {
        let (shown, this) = (read(cert, key)?, self.clone());
        Ok(move || *this.0.write().unwrap_or_else(PoisonError::into_inner) = shown)
    }

    /// An acceptor for the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).config))
    }

    /// When the certificate expires.
    #[must_use]
    pub fn expires(&self) -> Millis {
        self.0.read().unwrap_or_else(PoisonError::into_inner).expires
    }

    /// What is wrong with the certificate's validity: it has expired, is not valid yet, or expires soon.
    #[must_use]
    pub fn trouble(&self, now: Millis) -> Option<Trouble> {
        let leaf = self.0.read().unwrap_or_else(PoisonError::into_inner).leaf.clone();
        let now = Duration::from_millis(now.get().unsigned_abs());
        match untimely(&leaf, now) {
            Some(Untimely::Before(start)) => Some(Trouble::Now(format!("is not valid before {}", date(start)))),
            Some(Untimely::After(end)) => Some(Trouble::Now(format!("has expired on {}", date(end)))),
            None => match untimely(&leaf, now + EXPIRY_WARNING_TIME) {
                Some(Untimely::After(end)) => Some(Trouble::Soon(format!("expires on {}", date(end)))),
                _ => None,
            },
        }
    }
}

/// What is wrong with a certificate's validity, as text for logs.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Clients reject it now.
    Now(String),
    /// Clients will reject it within days.
    Soon(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now(text) | Self::Soon(text) => f.write_str(text),
        }
    }
}

/// Watches the expiry of the certificate in use: without it, the platform may be the first to notice.
#[derive(Debug)]
pub struct CertificateWatch {
    clock: Clock,
    reminder: Reminder<Expiry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Expiry {
    Soon,
    Over,
}

impl CertificateWatch {
    /// For a certificate that expires at `expires`; what is wrong with it now was already logged at startup.
    #[must_use]
    pub fn new(expires: Millis, clock: Clock) -> Self {
        let mut watch = Self { clock, reminder: Reminder::new(Duration::ZERO) };
        watch.is_due(expires);
        watch
    }

    /// Whether it is time to log again what is wrong with a certificate that expires at `expires`.
    pub fn is_due(&mut self, expires: Millis) -> bool {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        if expires <= now {
            self.reminder.is_due(Expiry::Over, EXPIRED_LOG_INTERVAL, steady)
        } else if expires <= now.plus(EXPIRY_WARNING_TIME) {
            self.reminder.is_due(Expiry::Soon, EXPIRES_LOG_INTERVAL, steady)
        } else {
            self.reminder.is_over();
            false
        }
    }
}

enum Untimely {
    Before(UnixTime),
    After(UnixTime),
}

fn date(at: UnixTime) -> String {
    let at = i64::try_from(at.as_secs()).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.map(|at| at.date().to_string()).unwrap_or_default()
}

/// The expiry, found by checking the certificate at the latest time there is.
fn expiry(leaf: &CertificateDer<'static>) -> Millis {
    let end = match untimely(leaf, Duration::from_millis(Millis::MAX.get().unsigned_abs())) {
        Some(Untimely::After(end)) => {
            i64::try_from(end.as_secs()).ok().and_then(|end| Millis::new(end.checked_mul(1000)?))
        }
        _ => None,
    };
    end.unwrap_or(Millis::MAX)
}

/// Whether a certificate is not valid at `at` (time since 1970), and the end or start of its validity. This verifies it as a
/// client would, with the certificate itself as the trusted root, because the verifier checks the validity first.
fn untimely(leaf: &CertificateDer<'static>, at: Duration) -> Option<Untimely> {
    let mut roots = RootCertStore::empty();
    roots.add(leaf.clone()).ok()?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let name = ServerName::try_from("localhost").ok()?;
    match verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::since_unix_epoch(at)) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(Untimely::After(not_after))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Some(Untimely::Before(not_before))
        }
        _ => None,
    }
}

fn read(cert: &Path, key: &Path) -> Result<Shown, TlsError> {
    let file = |path: &Path| path.display().to_string();
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::File(file(cert), error))?;
    let leaf = chain.first().cloned().ok_or_else(|| TlsError::Empty(file(cert)))?;
    let unreadable = |error| TlsError::Key(file(key), error);
    let pem = Zeroizing::new(std::fs::read(key).map_err(|error| unreadable(pem::Error::Io(error)))?);
    let der = private_key(&pem).map_err(unreadable)?;
    let der = PrivateKeyDer::try_from(&der[..]).map_err(|_| unreadable(pem::Error::NoItemsFound))?;
    let certified = CertifiedKey::new(chain, ring::sign::any_supported_type(&der)?);
    match certified.keys_match() {
        Err(Error::InconsistentKeys(_)) => return Err(TlsError::Mismatch(file(key), file(cert))),
        matched => matched?,
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let expires = expiry(&leaf);
    Ok(Shown { config: Arc::new(config), leaf, expires })
}

/// The first private key in a PEM file, as DER. The parser of rustls leaves the key's text in memory that it has freed; here nothing
/// is left.
fn private_key(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, pem::Error> {
    const LABELS: [&[u8]; 3] = [b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"];
    let label = |line: &[u8]| {
        let label = line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")?;
        LABELS.into_iter().find(|known| *known == label)
    };
    let mut lines = pem.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    let label = lines.by_ref().find_map(label).ok_or(pem::Error::NoItemsFound)?;
    let end_marker = [b"-----END ", label, b"-----"].concat();
    // Allocated in advance: a growing buffer would leave copies in memory.
    let mut text = Zeroizing::new(Vec::with_capacity(pem.len()));
    for line in lines {
        if line == end_marker {
            let mut der = Zeroizing::new(Vec::with_capacity(text.len()));
            let decoded = BASE64_STANDARD.decode_vec(&*text, &mut der);
            return decoded.map(|()| der).map_err(|error| pem::Error::Base64Decode(error.to_string()));
        }
        text.extend_from_slice(line);
    }
    Err(pem::Error::MissingSectionEnd { end_marker })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn a_certificate_that_runs_out_while_it_is_served_is_spoken_of_daily_and_then_hourly() {
        let hours = |hours: i64| Millis::new(hours * 3_600_000).expect("a time");
        let time = Arc::new(AtomicI64::new(0));
        let set = |hour| time.store(hours(hour).get(), Ordering::Relaxed);
        let clock = Clock::Set(Arc::clone(&time));
        let end = hours(24 * 30);
        let mut watch = CertificateWatch::new(end, clock.clone());
        let mut is_due = |hour, end| {
            set(hour);
            watch.is_due(end)
        };
        let said: Vec<i64> = (0..24 * 30 + 4).filter(|hour| is_due(*hour, end)).collect();
        let daily = (16..30).map(|day| day * 24);
        assert_eq!(said, daily.chain([720, 721, 722, 723]).collect::<Vec<_>>());
        assert!(!is_due(725, hours(24 * 365)), "it was replaced");
        set(700);
        let mut begun = CertificateWatch::new(end, clock);
        assert!(!begun.is_due(end), "the start has said so");
        set(720);
        assert!(begun.is_due(end));
    }
}
