//! The platform's signature, and the envelope that carries it (manual, section 6.2.3 and table 6-33). Pure.
//!
//! Tests and benchmarks make their signed bodies here too. The code is deliberately independent of the receiver's
//! verification: two separate implementations of the manual check each other.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The signature of an event: `hmacSHA256(appID + timestamp + nonce + eventInfo, key)`, 64 lower-case hex digits.
///
/// `timestamp_ms` is the timestamp of the envelope, `event_info` the compact JSON exactly as it will be sent.
#[must_use]
pub fn sign(app_id: &str, timestamp_ms: i64, nonce: &str, event_info: &[u8], key: &[u8]) -> String {
    let signer = Signer::new(app_id, key);
    hex::encode(signer.digest(itoa(timestamp_ms, &mut [0; 20]), nonce.as_bytes(), event_info))
}

/// The signed request body, compact, with the members in the platform's order: `appID`, `timestamp`, `nonce`,
/// `signature`, `eventInfo`. `event_info` is copied byte for byte.
#[must_use]
pub fn envelope(app_id: &str, timestamp_ms: i64, nonce: &str, event_info: &[u8], key: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(event_info.len() + 192);
    Signer::new(app_id, key).envelope_into(&mut body, timestamp_ms, nonce.as_bytes(), event_info);
    body
}

/// Prefix of the nonce when the key of a forged probe is derived. Other signed messages start with an `appID`, and no
/// `appID` starts like this.
pub(crate) const FORGED_PROBE: &[u8] = b"convoke forged probe";

/// The key for a probe with this nonce that must be refused. It is a wrong key that only a holder of `key` can derive.
#[must_use]
pub fn forged_probe_key(key: &[u8], nonce: &str) -> String {
    let mac = Hmac::<Sha256>::new(&padded(key)).chain_update(FORGED_PROBE).chain_update(nonce.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Signs for one subscriber. Holds the key as HMAC state, not as text.
#[derive(Clone)]
pub struct Signer {
    app_id: Box<str>,
    /// `{"appID":"…","timestamp":`, escaped once.
    prefix: Box<[u8]>,
    /// Initialised with the key and the app id, which starts every message.
    mac: Hmac<Sha256>,
}

impl Signer {
    /// A signer for `app_id` with `key`, the bytes of the platform's password. HMAC accepts keys of any length.
    #[must_use]
    pub fn new(app_id: &str, key: &[u8]) -> Self {
        let mut mac = Hmac::<Sha256>::new(&padded(key));
        mac.update(app_id.as_bytes());
        let prefix = format!("{{\"appID\":{},\"timestamp\":", serde_json::Value::from(app_id));
        Self { app_id: app_id.into(), prefix: prefix.into_bytes().into(), mac }
    }

    /// The app id of the subscriber.
    #[must_use]
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// Appends a signed envelope to `body`. `nonce` must need no escaping in JSON (the platform sends digits).
    pub fn envelope_into(&self, body: &mut Vec<u8>, timestamp_ms: i64, nonce: &[u8], event_info: &[u8]) {
        let mut digits = [0; 20];
        let timestamp = itoa(timestamp_ms, &mut digits);
        let mut hex_digits = [0; 64];
        let digest = self.digest(timestamp, nonce, event_info);
        hex_into(&digest, &mut hex_digits);
        body.extend_from_slice(&self.prefix);
        body.extend_from_slice(timestamp);
        body.extend_from_slice(b",\"nonce\":\"");
        body.extend_from_slice(nonce);
        body.extend_from_slice(b"\",\"signature\":\"");
        body.extend_from_slice(&hex_digits);
        body.extend_from_slice(b"\",\"eventInfo\":");
        body.extend_from_slice(event_info);
        body.push(b'}');
    }

    fn digest(&self, timestamp: &[u8], nonce: &[u8], event_info: &[u8]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(timestamp);
        mac.update(nonce);
        mac.update(event_info);
        mac.finalize().into_bytes().into()
    }
}

/// Shows the subscriber, never the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

/// `key` as a full block, as RFC 2104 defines it: a long key is hashed, a short one is padded with zeros. HMAC cannot
/// refuse a key of block size, so signing cannot fail.
fn padded(key: &[u8]) -> hmac::digest::Key<Hmac<Sha256>> {
    use sha2::Digest;
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    block
}

/// Writes the decimal digits of `number` into `room`.
#[must_use]
pub fn itoa(number: i64, room: &mut [u8; 20]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        room[at] = b'-';
    }
    &room[at..]
}

/// Writes `bytes` as lower-case hexadecimal into `out`, which must be twice as long.
pub fn hex_into(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_KEY: &[u8] = b"demo-Subscriber-Key-2025";
    const JOIN: &str = r#"{"event":"meeting.join","timestamp":1735700465789,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888"},"attendeeInfo":{"userUUID":"aaaabbbbccccddddeeeeffff00001111","userAgent":"WeLink-desktop","account":"demo.user","participantID":"99998888777766665555444433332222","displayName":"王小明","joinTime":1735700465001,"leftTime":0,"role":"CHAIR","callNumber":"+8657100000000001"}}}"#;

    #[test]
    fn the_two_samples_of_the_manual_reproduce() {
        let verify = br#"{"event":"meeting.verify","timestamp":1629183619116}"#;
        assert_eq!(
            sign("198869229916291836", 1_911_685_262_798, "", verify, b"123456"),
            sign("1988692299", 1_629_183_619_116, "85262798", verify, b"123456"),
            "the parts are joined without separators",
        );
        assert_eq!(
            sign("1988692299", 1_629_183_619_116, "85262798", verify, b"123456"),
            "262ccb5f8854f824c41ea5854ba1798bfa850706fbc85b2be9fd7535ed6b8ff3",
        );
        let started =
            br#"{"event":"meeting.started","timestamp":1629813991351,"payload":{"meetingInfo":{"meetingID":"987446316"}}}"#;
        assert_eq!(
            sign("123456789", 1_629_813_991_351, "60426560", started, b"123456"),
            "e3945cab9c583f394ae5e4957b83905e779cacaa2377d9542e19e011cc60a139",
        );
    }

    #[test]
    fn our_own_vectors_reproduce() {
        assert_eq!(
            sign(
                "7700001234",
                1_735_700_400_123,
                "10203040",
                br#"{"event":"meeting.verify","timestamp":1735700400123}"#,
                OWN_KEY
            ),
            "dc8c3a8dbd508aac5372116a8d0f6ac79baec3310c751c88de008f4aca18a447",
        );
        assert_eq!(
            sign("7700001234", 1_735_700_465_790, "50607080", JOIN.as_bytes(), OWN_KEY),
            "0cbe32bded83b43d0372403f3d4677a684215dc73695c90805ead985650848c3",
        );
        let end = br#"{"event":"meeting.end","timestamp":1735704000456,"payload":{"meetingInfo":{"meetingID":"960000017","meetingUUID":"11112222333344445555666677778888","meetingCycleSubID":"0f0e0d0c0b0a09080706050403020100"}}}"#;
        assert_eq!(
            sign("7700001234", 1_735_704_000_456, "90807060", end, OWN_KEY),
            "1e40fe2b09d22ef8d59ca64cf14514c82ddd9f9a39cde7cb1711619c950dfcc0",
        );
    }

    #[test]
    fn an_envelope_is_compact_and_holds_the_event_byte_for_byte() {
        let body = envelope("7700001234", 1_735_700_465_790, "50607080", JOIN.as_bytes(), OWN_KEY);
        let expected = format!(
            r#"{{"appID":"7700001234","timestamp":1735700465790,"nonce":"50607080","signature":"0cbe32bded83b43d0372403f3d4677a684215dc73695c90805ead985650848c3","eventInfo":{JOIN}}}"#
        );
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }

    #[test]
    fn keys_longer_than_a_block_are_hashed_first() {
        // RFC 4231, test case 6, on `padded` directly: a signer would add the app id, timestamp and nonce to the message.
        let text = "Test Using Larger Than Block-Size Key - Hash Key First";
        let mut mac = Hmac::<Sha256>::new(&padded(&[0xaa; 131]));
        mac.update(text.as_bytes());
        assert_eq!(
            hex::encode(mac.finalize().into_bytes()),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_signer_does_not_show_its_key() {
        assert_eq!(format!("{:?}", Signer::new("a", b"hunter2")), r#"Signer { app_id: "a", .. }"#);
    }
}
