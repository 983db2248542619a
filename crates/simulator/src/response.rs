//! Reads just enough of an HTTP/1.1 response to know its status, where it ends, and whether the connection lives on. Pure.

/// More than any receiver has reason to answer. A longer response counts as malformed.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// What a whole response said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub status: u16,
    /// Without its framing.
    pub body: Vec<u8>,
    /// The connection may carry another request.
    pub keep_alive: bool,
}

/// How far reading has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bytes are needed.
    Partial,
    /// All there.
    Whole(Response),
    /// This is no HTTP/1.1 response, or too long a one.
    Malformed,
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads `bytes`, all that has come since the request; `closed` once there will be no more. Interim responses (1xx) are
/// skipped.
pub(super) fn read(mut bytes: &[u8], closed: bool) -> Progress {
    loop {
        if bytes.len() > MAX_RESPONSE_BYTES {
            return Progress::Malformed;
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if closed { Progress::Malformed } else { Progress::Partial };
        };
        let Some((status, framing, keep_alive)) = head(&bytes[..end]) else { return Progress::Malformed };
        bytes = &bytes[end + 4..];
        if (100..200).contains(&status) {
            continue;
        }
        let whole = |body: &[u8], keep_alive| {
            Progress::Whole(Response { status, body: body.to_vec(), keep_alive: keep_alive && !closed })
        };
        return match framing {
            Framing::Length(length) if length > MAX_RESPONSE_BYTES => Progress::Malformed,
            // Bytes beyond the response answer nothing that was asked: the connection is not to be trusted further.
            Framing::Length(length) if bytes.len() >= length => {
                whole(&bytes[..length], keep_alive && bytes.len() == length)
            }
            Framing::Chunked => match unchunk(bytes) {
                Some(Some(body)) => whole(&body, keep_alive),
                Some(None) if !closed => Progress::Partial,
                _ => Progress::Malformed,
            },
            Framing::UntilClose if closed => whole(bytes, false),
            Framing::Length(_) if closed => Progress::Malformed,
            Framing::Length(_) | Framing::UntilClose => Progress::Partial,
        };
    }
}

/// Status, framing and persistence from the head without its final blank line.
fn head(head: &[u8]) -> Option<(u16, Framing, bool)> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status_line = lines.next()?;
    let minor = status_line.strip_prefix(b"HTTP/1.")?;
    let mut keep_alive = minor.first()? == &b'1';
    let status = std::str::from_utf8(minor.get(2..5)?).ok()?.parse().ok()?;
    let mut framing = if matches!(status, 100..200 | 204 | 304) { Framing::Length(0) } else { Framing::UntilClose };
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") && !matches!(framing, Framing::Chunked) {
            framing = Framing::Length(std::str::from_utf8(value).ok()?.parse().ok()?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") {
            if value.eq_ignore_ascii_case(b"close") {
                keep_alive = false;
            } else if value.eq_ignore_ascii_case(b"keep-alive") {
                keep_alive = true;
            }
        }
    }
    Some((status, framing, keep_alive))
}

/// The body of a chunked message: `None` if malformed, `Some(None)` if not all is there yet.
fn unchunk(mut bytes: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Some(None) };
        let size = bytes[..end].split(|byte| *byte == b';').next()?.trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16)
            .ok()
            .filter(|size| *size <= MAX_RESPONSE_BYTES)?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            // Trailers, if any, end with an empty line as well.
            let done = bytes.starts_with(b"\r\n") || bytes.windows(4).any(|four| four == b"\r\n\r\n");
            return Some(done.then_some(body));
        }
        let (Some(chunk), Some(after)) = (bytes.get(..size), bytes.get(size + 2..)) else { return Some(None) };
        body.extend_from_slice(chunk);
        bytes = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, closed: bool) -> Option<(u16, String, bool)> {
        match read(text.as_bytes(), closed) {
            Progress::Whole(it) => Some((it.status, String::from_utf8_lossy(&it.body).into_owned(), it.keep_alive)),
            _ => None,
        }
    }

    #[test]
    fn a_response_is_whole_at_exactly_its_length_and_not_before() {
        let text = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nX: y\r\n\r\nhello";
        for end in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..end], false), Progress::Partial, "{end}");
        }
        assert_eq!(whole(text, false), Some((200, "hello".into(), true)));
    }

    #[test]
    fn chunked_and_unframed_bodies_are_read_to_their_end() {
        let chunked = "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for end in 0..chunked.len() {
            assert_eq!(read(&chunked.as_bytes()[..end], false), Progress::Partial, "{end}");
        }
        assert_eq!(whole(chunked, false), Some((503, "abcde".into(), true)));
        assert_eq!(whole("HTTP/1.1 200 OK\r\n\r\nrest", true), Some((200, "rest".into(), false)));
        assert_eq!(whole("HTTP/1.1 204 No Content\r\n\r\n", false), Some((204, String::new(), true)));
    }

    #[test]
    fn a_connection_does_not_outlive_what_its_server_said() {
        let answer = |version: &str, header: &str| {
            whole(&format!("HTTP/{version} 200 OK\r\n{header}Content-Length: 0\r\n\r\n"), false).map(|it| it.2)
        };
        assert_eq!(answer("1.1", ""), Some(true));
        assert_eq!(answer("1.1", "Connection: close\r\n"), Some(false));
        assert_eq!(answer("1.0", ""), Some(false));
        assert_eq!(answer("1.0", "Connection: keep-alive\r\n"), Some(true));
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP", false).map(|it| it.2), Some(false));
    }

    #[test]
    fn interim_responses_are_skipped() {
        assert_eq!(
            whole("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).map(|it| it.0),
            Some(200)
        );
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        for text in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ""] {
            assert_eq!(read(text.as_bytes(), true), Progress::Malformed, "{text}");
        }
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true), Progress::Malformed);
    }
}
