//! Explains why there is no connection to NATS, and what to do.

use super::login::Login;

/// Converts an error text of the client library to plain words.
pub(super) fn explain(text: &str, login: Option<&Login>, client_certificate: bool) -> String {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|words| lower.contains(words));
    let who = login.map_or_else(|| "no user: no credentials are configured".to_owned(), Login::who);
    if has(&["authorization violation", "authentication expired", "authentication revoked"]) {
        format!("{} for {who}", reason(&lower))
    } else if has(&["failed signing nonce"]) {
        format!("cannot log in: {}", rest(text))
    } else if has(&["dns error", "failed to lookup address"]) {
        "no such host: the name cannot be resolved".to_owned()
    } else if has(&["connection refused"]) {
        "connection refused: no server listens there".to_owned()
    } else if has(&["certificaterequired", "certificate required", "handshakefailure", "badcertificate", "unknownca"])
        && has(&["alert"])
    {
        match client_certificate {
            true => "the server rejects the client certificate in nats.tls_cert".to_owned(),
            false => "the server requires a client certificate: set nats.tls_cert and nats.tls_key".to_owned(),
        }
    } else if has(&["unknownissuer"]) {
        "the server's certificate is signed by an unknown CA: name your CA file in nats.tls_ca".to_owned()
    } else if has(&["invalid peer certificate"]) {
        format!("the server's certificate is not trusted: {}", rest(text))
    } else if has(&["invalidcontenttype", "corrupt message"]) {
        "the server speaks no TLS: write nats:// instead of tls://, or give the server a certificate".to_owned()
    } else if has(&["timed out"]) {
        "no answer in time".to_owned()
    } else if has(&["expected info"]) {
        "the program that listens there is not a NATS server".to_owned()
    } else if text.is_empty() {
        "no server answered yet".to_owned()
    } else {
        rest(text).to_owned()
    }
}

/// Whether only an operator can fix it: the login is refused.
pub(super) fn is_refusal(words: &str) -> bool {
    words.starts_with("authorization") || words.starts_with("authentication") || words.starts_with("cannot log in")
}

fn reason(lower: &str) -> &str {
    let known = ["authentication expired", "authentication revoked"];
    known.into_iter().find(|known| lower.contains(known)).unwrap_or("authorization violation")
}

/// Removes the kind of error that the library puts before the cause.
fn rest(text: &str) -> &str {
    ["IO error: ", "TLS error: ", "failed signing nonce: "]
        .iter()
        .fold(text, |text, kind| text.strip_prefix(kind).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_names_who_it_was_for_and_what_else_is_wrong_is_said_in_plain_words() {
        let login = Login::Password("convoke".to_owned(), "/run/password".into());
        let said = explain("authorization violation: nats: authorization violation", Some(&login), false);
        assert_eq!(said, "authorization violation for user convoke");
        assert!(is_refusal(&said));
        for (text, words) in [
            ("IO error: Connection refused (os error 111)", "connection refused"),
            ("DNS error", "no such host"),
            ("IO error: received fatal alert: CertificateRequired", "client certificate"),
            ("IO error: invalid peer certificate: UnknownIssuer", "nats.tls_ca"),
            ("IO error: received corrupt message of type InvalidContentType", "speaks no TLS"),
            ("timed out", "no answer in time"),
            ("IO error: broken pipe", "broken pipe"),
        ] {
            let said = explain(text, None, false);
            assert!(said.contains(words) && !is_refusal(&said), "{said}");
        }
    }
}
