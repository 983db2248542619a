//! Frames of HTTP/2 (RFC 9113), for those who send what no client would.

use std::net::SocketAddr;

use super::http::RawConnection;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What every connection begins with, and no settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The header block of a `POST`, without compression.
pub fn post(path: &str) -> Vec<u8> {
    // Indexed: `:method POST`, `:scheme http`; literal, not indexed: `:path`, `:authority`.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(4, path), (1, "h")] {
        block.extend([name, u8::try_from(value.len()).expect("a short value")]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A header with a name of its own, neither indexed nor compressed; both are short.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
        block.extend_from_slice(text.as_bytes());
    }
    block
}

/// A connection that has said hello.
pub async fn open(address: SocketAddr) -> RawConnection {
    let mut connection = RawConnection::open(address).await;
    connection.send(PREFACE).await;
    connection
}

/// The frames that these bytes begin with.
pub fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some(payload) = rest.get(..length) else { break };
        frames.push(Frame { kind: *kind, flags: *flags, payload: payload.to_vec() });
        bytes = &rest[length..];
    }
    frames
}
