//! TLS by rustls, with certificates that can be replaced while connections go on.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be read, or is not PEM.
    #[error("{0}: {1}")]
    File(String, #[source] tokio_rustls::rustls::pki_types::pem::Error),
    /// There is no certificate in the file.
    #[error("{0}: no certificate in it")]
    Empty(String),
    /// The key cannot be read, or is not PEM.
    #[error("{0}: {1}")]
    Key(String, #[source] tokio_rustls::rustls::pki_types::pem::Error),
    /// The two do not go together, or are of a kind that rustls does not know.
    #[error("certificate and key: {0}")]
    Unusable(#[from] tokio_rustls::rustls::Error),
}

/// The certificate in use. Clones share it.
#[derive(Clone)]
pub struct Certificates(Arc<RwLock<Arc<ServerConfig>>>);

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
        Ok(Self(Arc::new(RwLock::new(Arc::new(config(cert, key)?)))))
    }

    /// Reads them again; new connections use them. The old ones stay if the new ones cannot be used.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn reload(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        let config = Arc::new(config(cert, key)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// For the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn config(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let file = |path: &Path| path.display().to_string();
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::File(file(cert), error))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(file(cert)));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key(file(key), error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
