//! The authentication request, and the token in its response, which every other call sends (manual, 3.2.1).

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::model::Identity;
use super::sign::{Actor, Claim};
use super::{Core, parse};

/// Validity of the signature in seconds, as the manual suggests.
const CLAIM_LIFETIME_S: i64 = 600;
/// Lifetime of a token whose response does not state one. The manual says "valid for 12 to 24 hours".
const MIN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A token that is considered valid.
#[derive(Clone)]
pub(super) struct Token {
    pub text: SecretString,
    /// The number of the authentication that returned it.
    pub generation: u64,
    pub identity: Identity,
}

/// The response to an authentication, as far as it is used.
pub(super) struct Authenticated {
    pub token: SecretString,
    pub valid: Duration,
    pub identity: Identity,
}

impl Authenticated {
    /// `None` if it contains no token.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let seconds = |name: &str| parse::integer(answer, &[name]).filter(|seconds| *seconds > 0);
        // `validPeriod` and `expireTime` are seconds, `createTime` milliseconds.
        let counted = || Some(seconds("expireTime")? - seconds("createTime")? / 1000).filter(|seconds| *seconds > 0);
        let valid = seconds("validPeriod").or_else(counted).and_then(|seconds| u64::try_from(seconds).ok());
        Some(Self {
            token: SecretString::from(parse::text(answer, &["accessToken"])?),
            valid: valid.map_or(MIN_LIFETIME, |seconds| Duration::from_secs(seconds.min(7 * 86_400))),
            identity: parse::identity(answer),
        })
    }
}

/// The body and the header `Authorization` of an authentication. Made anew for each, because a nonce can be used only once.
pub(super) fn claim(core: &Core) -> (Zeroizing<String>, Zeroizing<Vec<u8>>) {
    let options = &core.options;
    let filled = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let (user, corp) = (filled(&options.user_id), filled(&options.corp_id));
    let provider = options.sp_id.is_some();
    let actor = if provider {
        Actor::Provider { corp: corp.as_deref(), user: user.as_deref() }
    } else {
        Actor::Enterprise { user: user.as_deref() }
    };
    let nonce = Zeroizing::new(hex::encode(rand::random::<[u8; 24]>()));
    let expires = core.clock.now().get() / 1000 + CLAIM_LIFETIME_S;
    let claim = Claim { app_id: &options.app_id, actor, expires, nonce: &nonce };
    let authorization = claim.authorization(&core.key());
    let mut body = json!({ "appId": options.app_id, "clientType": 72, "expireTime": expires, "nonce": *nonce });
    if let Some(user) = user {
        body["userId"] = user.into();
    }
    // With `corpId`, the authentication of a single enterprise fails.
    if let Some(corp) = corp.filter(|_| provider) {
        body["corpId"] = corp.into();
    }
    (authorization, Zeroizing::new(body.to_string().into_bytes()))
}

impl Token {
    /// The value of `X-Access-Token`.
    pub(super) fn exposed(&self) -> &str {
        self.text.expose_secret()
    }
}
