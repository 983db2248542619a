//! HTTP as the platform, an operator, or somebody with bad manners speaks it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than any answer may take: an event is answered within 3 s, a stop within 30.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Posts a body; panics if there is no answer.
pub async fn post(address: SocketAddr, path: &str, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Answer {
    try_post(address, path, body, headers).await.expect("an answer")
}

/// Posts a body to a server that may be gone.
pub async fn try_post(
    address: SocketAddr,
    path: &str,
    body: impl Into<Bytes>,
    headers: &[(&str, &str)],
) -> reqwest::Result<Answer> {
    let request = client().post(format!("http://{address}{path}")).body(body.into());
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

/// Gets a URL; panics if there is no answer.
pub async fn get(url: &str) -> Answer {
    try_get(url).await.expect("an answer")
}

pub async fn try_get(url: &str) -> reqwest::Result<Answer> {
    send(client().get(url)).await
}

/// The value of a series on `/metrics`, such as `convoke_deliveries_total{outcome="stored"}`: the sum over all
/// series that have these labels. Panics if there is none, since every series is to exist from the start.
pub async fn metric(admin: SocketAddr, series: &str) -> f64 {
    let text = get(&format!("http://{admin}/metrics")).await.text();
    metric_in(&text, series).unwrap_or_else(|| panic!("no series {series} in:\n{text}"))
}

/// The same, in a text in Prometheus' format.
pub fn metric_in(text: &str, series: &str) -> Option<f64> {
    let (name, labels) = name_and_labels(series);
    let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (candidate, value) = line.rsplit_once(' ')?;
        let (its_name, its_labels) = name_and_labels(candidate);
        let fits = its_name == name && labels.iter().all(|(label, value)| its_labels.get(label) == Some(value));
        if fits { value.parse::<f64>().ok() } else { None }
    });
    values.reduce(|sum, value| sum + value)
}

/// Sends bytes as they are and returns all that comes back until the server closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = RawConnection::open(address).await;
    connection.send(bytes).await;
    connection.read_to_end().await
}

/// A connection on which a test sends what it wants, as slowly as it wants.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    /// Read, but belonging to the next answer.
    ahead: Vec<u8>,
}

impl RawConnection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server takes connections");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, ahead: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the server reads on");
    }

    /// For a server that may close, or stop to read, before all is sent.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        timeout(ANSWER_TIMEOUT, self.stream.write_all(bytes)).await?
    }

    /// One answer, head and body, as long as its `Content-Length` says; the connection stays open.
    pub async fn answer(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.ahead);
        loop {
            if let Some(length) = answer_length(&bytes).filter(|length| bytes.len() >= *length) {
                self.ahead = bytes.split_off(length);
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut bytes)).await.expect("an answer in time");
            let seen = String::from_utf8_lossy(&bytes);
            assert!(read.expect("a readable connection") > 0, "closed within an answer, after: {seen}");
        }
    }

    /// What has come by now, at least a byte.
    pub async fn read_some(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.ahead);
        let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut bytes)).await.expect("something in time");
        assert!(read.expect("a readable connection") > 0, "closed");
        bytes
    }

    /// All that comes until the server closes; a reset ends it too.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.ahead);
        while let Ok(1..) =
            timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut bytes)).await.expect("the server closes in time")
        {
        }
        bytes
    }

    /// Says that no more is to come, and still listens.
    pub async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Goes away at once, with a reset, as a crashed client does.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a socket option");
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build().expect("an HTTP client")
}

async fn send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.bytes().await? })
}

/// Splits `name{a="b",c="d"}`. Values with a comma or an escaped quote do not occur in our metrics.
fn name_and_labels(series: &str) -> (&str, BTreeMap<&str, &str>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    (name, labels.map(|(label, value)| (label.trim(), value.trim_matches('"'))).collect())
}

/// Where the first answer ends, once its head is complete.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    Some(head + length.unwrap_or(0))
}
