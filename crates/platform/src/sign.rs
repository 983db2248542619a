//! The signature of the App ID authentication (Developer Guide, "App ID authentication"; Server API manual, 3.2.1). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The account to authenticate as, which determines what is signed. An empty name counts as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor<'a> {
    /// A single enterprise: a user of it, or its default administrator.
    Enterprise { user: Option<&'a str> },
    /// A service provider: a user of one of its enterprises, the administrator of that enterprise, or its own administrator.
    Provider { corp: Option<&'a str>, user: Option<&'a str> },
}

/// The data of one authentication, which are signed and sent with the signature.
pub(super) struct Claim<'a> {
    pub app_id: &'a str,
    pub actor: Actor<'a>,
    /// When the signature expires, in seconds since 1970.
    pub expires: i64,
    /// 32 to 64 characters, used only once.
    pub nonce: &'a str,
}

impl Claim<'_> {
    /// The header `Authorization`. Wiped when dropped: until it expires it is as valuable as the key.
    pub(super) fn authorization(&self, key: &SecretString) -> Zeroizing<String> {
        let signature = self.signature(key);
        Zeroizing::new(format!("HMAC-SHA256 signature={signature},access={}", BASE64.encode(self.app_id)))
    }

    /// The parts are joined by colons, and empty parts keep their colons. (The Chinese guide's third colon for the
    /// administrator of an enterprise would make six parts of five, and is taken for a misprint.)
    fn signature(&self, key: &SecretString) -> String {
        let (app_id, expires, nonce) = (self.app_id, self.expires, self.nonce);
        let signed = match self.actor {
            Actor::Enterprise { user } => format!("{app_id}:{}:{expires}:{nonce}", user.unwrap_or_default()),
            Actor::Provider { corp, user } => {
                format!("{app_id}:{}:{}:{expires}:{nonce}", corp.unwrap_or_default(), user.unwrap_or_default())
            }
        };
        let mac =
            Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
        hex::encode(mac.chain_update(signed).finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Option<&str> = Some("alice@example-corp");
    const CORP: Option<&str> = Some("660012345");

    fn claim(actor: Actor<'_>) -> Claim<'_> {
        Claim {
            app_id: "0123456789abcdef0123456789abcdef",
            actor,
            expires: 1_735_701_000,
            nonce: "demoNonce0demoNonce1demoNonce2demoNonce3",
        }
    }

    fn key() -> SecretString {
        SecretString::from("DemoAppKeyDemoAppKeyDemoAppKey01")
    }

    #[test]
    fn every_form_of_the_signature_is_the_one_that_another_implementation_made() {
        for (actor, signature) in [
            (Actor::Enterprise { user: USER }, "3bc976010855a13baf2ecdbb0c3aed15dd8d6bfe9ff7225e09e5d88162f3a545"),
            (Actor::Enterprise { user: None }, "fca028e9795b2046462d69f9e6a39953dbe2b18a7570fe2d834e24f22afc9ab1"),
            (
                Actor::Provider { corp: CORP, user: USER },
                "28ee37bef115859bba234c2b1a677419e1dee83b384a28a4bdc833800e51f781",
            ),
            (
                Actor::Provider { corp: CORP, user: None },
                "7787ce36009848ffcc12df58548666933d876bef2a869214295592c522f8b276",
            ),
            (
                Actor::Provider { corp: None, user: None },
                "582cf48c4c0d34e730e3393d0da3f4d16ebaaa5b1b7d6fe4c97a51ba603ec613",
            ),
        ] {
            assert_eq!(claim(actor).signature(&key()), signature, "{actor:?}");
        }
    }

    #[test]
    fn the_header_holds_signature_and_app_id_as_the_manual_prints_it() {
        assert_eq!(
            *claim(Actor::Enterprise { user: USER }).authorization(&key()),
            "HMAC-SHA256 signature=3bc976010855a13baf2ecdbb0c3aed15dd8d6bfe9ff7225e09e5d88162f3a545,\
             access=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        );
    }
}
