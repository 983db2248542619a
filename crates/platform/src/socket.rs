//! The WebSocket of one running meeting (manual, 6.1.3): opening, subscribing, the heartbeat, and the texts that come.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Uri;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, crypto::ring,
};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, error::CapacityError};

use super::error::{Class, PlatformError};

/// The path of the manual's section 6.1.3.1.
const PATH: &str = "/cms/open/websocket/confctl/increment/conn";

/// Maximum length of a message: a hundred people in full are a tenth of it.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// How long connecting, and the answer to a subscription, may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Which name a certificate must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CertificateName {
    /// That of the address that the platform gives: a name, or a number.
    #[default]
    Address,
    /// This one.
    Named(String),
    /// Any, if an authority that is trusted vouches for it.
    Any,
}

/// How the server of a WebSocket is checked.
#[derive(Clone, Debug, Default)]
pub struct SocketTls {
    /// A PEM file with the authority, if it is none of the system's.
    pub ca: Option<PathBuf>,
    /// The name.
    pub name: CertificateName,
}

/// Why there is no connection, or not any more. None of them repeats a token.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address that the platform gave.
    #[error("the address of the WebSocket is not one ({0})")]
    Address(&'static str),
    /// The server could not be checked.
    #[error("TLS: {0}")]
    Tls(String),
    /// The server answered something else than a WebSocket.
    #[error("the server answered {0} instead of opening the WebSocket")]
    Refused(u16),
    /// The subscription was refused.
    #[error("the subscription was refused: {0}")]
    Unsubscribed(String),
    /// A message is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message is longer than 1 MiB")]
    TooLong,
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Slow(Duration),
}

impl From<SocketError> for PlatformError {
    fn from(error: SocketError) -> Self {
        let advice = match error {
            SocketError::Tls(_) => {
                "Name the server's authority in live.tls_ca, or the name in its certificate in live.tls_name."
            }
            _ => "",
        };
        Self::new(Class::Transient, "listening to a running meeting", error.to_string(), advice)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open connection.
pub struct Socket {
    stream: WebSocketStream<Box<dyn Stream>>,
    /// What came before the subscription was answered.
    early: Vec<String>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    /// Opens the connection for a meeting, at the address that its control token came with.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn open(
        url: &str,
        conference_id: &str,
        token: &SecretString,
        tls: &SocketTls,
    ) -> Result<Self, SocketError> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, connect(url, conference_id, token, tls)).await;
        let stream = opened.unwrap_or(Err(SocketError::Slow(OPEN_TIMEOUT)))?;
        Ok(Self { stream, early: Vec::new() })
    }

    /// Subscribes to these kinds of messages (6.1.3.2), and waits for the answer.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn subscribe(
        &mut self,
        conference_id: &str,
        kinds: &[&str],
        control: &SecretString,
    ) -> Result<(), SocketError> {
        let data =
            json!({ "conferenceID": conference_id, "subscribeType": kinds, "confToken": control.expose_secret() });
        let sequence = self.ask("Subscribe", json!({ "data": data.to_string() })).await?;
        let answered = async {
            while let Some(text) = self.receive().await? {
                let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                if answer["action"] != "Subscribe" || answer["sequence"] != *sequence {
                    if self.early.len() < 64 {
                        self.early.push(text);
                    }
                    continue;
                }
                let data = &answer["data"];
                return match data["returnCode"].as_i64() {
                    None | Some(0) => Ok(()),
                    Some(code) => {
                        let why = data["returnDesc"].as_str().unwrap_or_default().chars().take(100).collect::<String>();
                        Err(SocketError::Unsubscribed(format!("{code} {why}").replace(control.expose_secret(), "***")))
                    }
                };
            }
            Err(SocketError::Lost("closed before the subscription was answered".to_owned()))
        };
        tokio::time::timeout(OPEN_TIMEOUT, answered).await.unwrap_or(Err(SocketError::Slow(OPEN_TIMEOUT)))
    }

    /// Switches captions on (6.1.3.8): they stop only with the meeting.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn start_captions(&mut self, conference_id: &str, control: &SecretString) -> Result<(), SocketError> {
        let data = json!({
            "conferenceID": conference_id,
            "confToken": control.expose_secret(),
            "isSubtitle": 1,
            "subtitleType": 0,
            "sisProperty": "chinese_16k_general",
        });
        self.ask("ConfControl", json!({ "type": "REALTIMESUBTITLE", "data": data.to_string() })).await.map(drop)
    }

    /// Sends a heartbeat (6.1.3.11). Without one the server closes after 180 s.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn beat(&mut self) -> Result<(), SocketError> {
        self.ask("HeartBeat", json!({})).await.map(drop)
    }

    /// The next text that came; `None`: the server closed the connection. May be dropped while it waits.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn next(&mut self) -> Result<Option<String>, SocketError> {
        match self.early.is_empty() {
            true => self.receive().await,
            false => Ok(Some(self.early.remove(0))),
        }
    }

    /// Closes the connection, if the server listens.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close(None)).await;
    }

    async fn receive(&mut self) -> Result<Option<String>, SocketError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(text.as_str().to_owned())),
                // Texts that were sent as bytes.
                Some(Ok(Message::Binary(bytes))) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                // Answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => return Ok(None),
                Some(Err(error)) => return Err(failed(error)),
            }
        }
    }

    /// Sends a message with these members, and returns its sequence.
    async fn ask(&mut self, action: &str, mut message: Value) -> Result<String, SocketError> {
        // 30 digits, as in the manual's samples.
        let sequence = format!("{:030}", rand::random::<u64>());
        message["sequence"] = Value::from(&*sequence);
        message["action"] = Value::from(action);
        let sent = self.stream.send(Message::text(message.to_string()));
        match tokio::time::timeout(OPEN_TIMEOUT, sent).await {
            Ok(sent) => sent.map_err(failed)?,
            Err(_) => return Err(SocketError::Slow(OPEN_TIMEOUT)),
        }
        Ok(sequence)
    }
}

fn failed(error: WsError) -> SocketError {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => SocketError::TooLong,
        WsError::Http(answer) => SocketError::Refused(answer.status().as_u16()),
        // It may have the address in it, and that the token.
        WsError::Url(_) | WsError::HttpFormat(_) => SocketError::Address("the request cannot be serialized"),
        error => SocketError::Lost(error.to_string()),
    }
}

async fn connect(
    url: &str,
    conference_id: &str,
    token: &SecretString,
    tls: &SocketTls,
) -> Result<WebSocketStream<Box<dyn Stream>>, SocketError> {
    let base: Uri = url.trim_end_matches('/').parse().map_err(|_| SocketError::Address("it cannot be read"))?;
    let host = base.host().ok_or(SocketError::Address("it has no host"))?.trim_matches(['[', ']']);
    let secure = match base.scheme_str() {
        Some("wss") => true,
        Some("ws") if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => false,
        _ => return Err(SocketError::Address("only wss:// is safe")),
    };
    let port = base.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let lost = |error: std::io::Error| SocketError::Lost(error.to_string());
    let stream = TcpStream::connect((host, port)).await.map_err(lost)?;
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Stream> = if secure {
        let (config, name) = tls_config(host, tls)?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Box::new(connected.map_err(|error| SocketError::Tls(error.to_string()))?)
    } else {
        Box::new(stream)
    };
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (conference_id, token) = (encoded(conference_id), encoded(token.expose_secret()));
    let address = format!("{}{PATH}?confID={conference_id}&tmpToken={token}", url.trim_end_matches('/'));
    let limits =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES)).max_frame_size(Some(MAX_MESSAGE_BYTES));
    let opened = tokio_tungstenite::client_async_with_config(address, stream, Some(limits)).await;
    opened.map(|(stream, _)| stream).map_err(failed)
}

fn tls_config(host: &str, tls: &SocketTls) -> Result<(ClientConfig, ServerName<'static>), SocketError> {
    let problem = |error: &dyn fmt::Display| SocketError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| problem(&error))? {
                let certificate = certificate.map_err(|error| problem(&error))?;
                roots.add(certificate).map_err(|error| problem(&error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err(SocketError::Tls("there are no CA certificates to verify the server's with".to_owned()));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(&error))?;
    let config = if tls.name == CertificateName::Any {
        let checked = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = AnyName(checked.map_err(|error| problem(&error))?);
        config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    } else {
        config.with_root_certificates(roots).with_no_client_auth()
    };
    let name = match &tls.name {
        CertificateName::Named(name) => name.clone(),
        CertificateName::Address | CertificateName::Any => host.to_owned(),
    };
    let name = ServerName::try_from(name).map_err(|error| problem(&error))?;
    Ok((config, name))
}

/// Checks a certificate in all but its name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // It is checked last, after the chain and the dates.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
