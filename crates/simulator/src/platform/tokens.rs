//! Who calls: App ID authentication and its tokens (manual, section 3.2.1; Developer Guide, "App ID authentication").

use std::collections::{BTreeMap, HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::Sha256;

use super::options::PlatformOptions;
use super::refusal::Refusal;
use convoke_core::time::Millis;

/// One user may have so many valid tokens; one more silently kills the oldest (section 3.2.1, for `clientType` 72).
const MAX_TOKENS: usize = 64;
/// The login account type of API calls (section 3.2.1).
const CLIENT_TYPE: i64 = 72;
/// Refresh tokens live 30 days in the samples.
const REFRESH_S: i64 = 30 * 86_400;

/// Whom a token acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The enterprise; `None`: the service provider itself.
    pub corp_id: Option<String>,
    /// The third-party user; `None`: the default administrator.
    pub user_id: Option<String>,
    pub administrator: bool,
}

impl Caller {
    /// The service provider's administrator, who sees every enterprise.
    pub(super) fn is_provider(&self) -> bool {
        self.corp_id.is_none()
    }
}

#[derive(Debug)]
struct Token {
    caller: Caller,
    expires: Millis,
}

/// The tokens that are remembered.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_text: HashMap<String, Token>,
    /// Refresh tokens, and the access token that each came with.
    refresh: HashMap<String, (Caller, String)>,
    /// Those of one user, the oldest first.
    of_user: BTreeMap<(Option<String>, Option<String>), VecDeque<String>>,
}

impl Tokens {
    /// Whom the token in the request's header acts for.
    pub(super) fn caller(&self, headers: &HeaderMap, now: Millis) -> Result<Caller, Refusal> {
        self.owner(given(headers)?, now)
    }

    fn owner(&self, text: &str, now: Millis) -> Result<Caller, Refusal> {
        match self.by_text.get(text) {
            None => Err(Refusal::TOKEN_INVALID),
            // Chapter 22: a session that timed out is a 400, not a 401.
            Some(token) if token.expires <= now => Err(Refusal::SESSION_TIMED_OUT),
            Some(token) => Ok(token.caller.clone()),
        }
    }

    /// 3.2.5: the token of the request is none any more. Whether its refresh token is, too, is not documented: here it is.
    pub(super) fn log_out(&mut self, headers: &HeaderMap, now: Millis) -> Result<(), Refusal> {
        self.caller(headers, now)?;
        self.end(given(headers)?);
        Ok(())
    }

    fn end(&mut self, access: &str) {
        self.by_text.remove(access);
        self.refresh.retain(|_, (_, its)| its != access);
        self.of_user.values_mut().for_each(|texts| texts.retain(|text| text != access));
    }

    /// 3.2.3: the header holds the *refresh* token, whatever its name says. What becomes of the two old ones is not documented:
    /// here both end, and do not count towards the 64.
    pub(super) fn refresh(
        &mut self,
        options: &PlatformOptions,
        headers: &HeaderMap,
        now: Millis,
    ) -> Result<Value, Refusal> {
        let (caller, access) = self.refresh.get(given(headers)?).cloned().ok_or(Refusal::TOKEN_INVALID)?;
        self.end(&access);
        Ok(self.issue(options, &caller, now))
    }

    /// 3.2.4. The manual's table and its samples name the second member differently.
    pub(super) fn validate(&mut self, options: &PlatformOptions, body: &[u8], now: Millis) -> Result<Value, Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BAD_LOGIN)?;
        let text = body["token"].as_str().ok_or(Refusal::BAD_LOGIN)?;
        let renew = ["needGenNewToken", "needGenerateToken"].iter().find_map(|name| body[*name].as_bool());
        let caller = self.owner(text, now)?;
        let mut answer = if renew.ok_or(Refusal::BAD_LOGIN)? {
            self.issue(options, &caller, now)
        } else {
            let expires = self.by_text.get(text).map_or(0, |token| token.expires.get() / 1_000);
            json!({
                "accessToken": text, "expireTime": expires, "validPeriod": null, "createTime": null,
                "daysPwdAvailable": null, "clientType": CLIENT_TYPE, "tokenType": 0, "user": user(options, &caller),
            })
        };
        if body["needAccountInfo"].as_bool() == Some(false) {
            answer["user"] = Value::Null;
        }
        Ok(answer)
    }

    /// How many would be accepted.
    pub(super) fn valid(&self, now: Millis) -> usize {
        self.by_text.values().filter(|token| token.expires > now).count()
    }

    /// All of them have expired, as of `now`.
    pub(super) fn expire(&mut self, now: Millis) {
        for token in self.by_text.values_mut() {
            token.expires = now;
        }
    }

    /// All of them are unknown from now on.
    pub(super) fn forget(&mut self) {
        self.by_text.clear();
        self.refresh.clear();
        self.of_user.clear();
    }

    /// The answer to an authentication of `caller` (table 3-4), with a new token.
    pub(super) fn issue(&mut self, options: &PlatformOptions, caller: &Caller, now: Millis) -> Value {
        let random = || format!("cnr{:032x}", rand::random::<u128>());
        let (access, refresh) = (random(), random());
        let of_user = self.of_user.entry((caller.corp_id.clone(), caller.user_id.clone())).or_default();
        if of_user.len() == MAX_TOKENS
            && let Some(oldest) = of_user.pop_front()
        {
            self.by_text.remove(&oldest);
            self.refresh.retain(|_, (_, its)| *its != oldest);
        }
        of_user.push_back(access.clone());
        let valid_s = i64::try_from(options.token_valid.as_secs()).unwrap_or(i64::MAX);
        let valid_ms = i64::try_from(options.token_valid.as_millis()).unwrap_or(i64::MAX);
        let expires = Millis::new(now.get().saturating_add(valid_ms)).unwrap_or(Millis::MAX);
        self.by_text.insert(access.clone(), Token { caller: caller.clone(), expires });
        self.refresh.insert(refresh.clone(), (caller.clone(), access.clone()));
        let created_s = now.get() / 1_000;
        json!({
            // `createTime` in milliseconds, `validPeriod` and `expireTime` in seconds: the units are mixed (table 3-4).
            "accessToken": access, "tokenIp": "192.0.2.10", "validPeriod": valid_s,
            "expireTime": created_s.saturating_add(valid_s), "createTime": now.get(),
            "user": user(options, caller),
            "clientType": CLIENT_TYPE, "forceLoginInd": null, "firstLogin": false, "pwdExpired": false,
            "daysPwdAvailable": -1, "delayDelete": false, "proxyToken": null, "tokenType": 0,
            "refreshToken": refresh, "refreshValidPeriod": REFRESH_S, "refreshCreateTime": now.get(),
            "refreshExpireTime": created_s + REFRESH_S,
        })
    }
}

/// The token in a request's header.
fn given(headers: &HeaderMap) -> Result<&str, Refusal> {
    let text = headers.get("X-Access-Token").and_then(|value| value.to_str().ok());
    text.filter(|text| !text.is_empty()).ok_or(Refusal::TOKEN_MISSING)
}

/// The user's data (table 3-10).
fn user(options: &PlatformOptions, caller: &Caller) -> Value {
    let admin_type = match (&caller.user_id, caller.administrator) {
        (None, _) => 0,
        (Some(_), true) => 1,
        (Some(_), false) => 2,
    };
    json!({
        "userId": "aaaabbbbccccddddeeeeffff00001111",
        "ucloginAccount": "Auto-aaaabbbbccccddddeeeeffff00001111",
        "thirdAccount": caller.user_id,
        "companyId": caller.corp_id, "spId": options.sp_id.as_deref().unwrap_or("00000000000000000000000000000001"),
        "userType": if caller.is_provider() { 1 } else { 2 }, "adminType": admin_type,
        "corpType": if options.flagship { 0 } else { 5 }, "status": 0, "appId": options.app_id,
    })
}

/// Checks an authentication: header, body and signature (section 3.2.1).
pub(super) fn authenticate(
    options: &PlatformOptions,
    headers: &HeaderMap,
    body: &[u8],
    now: Millis,
) -> Result<Caller, Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Both are required by the table; most of the manufacturer's own clients leave out the former.
    if !matches!(header("X-Token-Type"), "" | "LongTicket") || !header("Content-Type").starts_with("application/json") {
        return Err(Refusal::BAD_LOGIN);
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BAD_LOGIN)?;
    let text = |name: &str| match &body[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.as_str())),
        _ => Err(Refusal::BAD_LOGIN),
    };
    let (Some(app_id), Some(nonce), Some(expires)) = (text("appId")?, text("nonce")?, body["expireTime"].as_i64())
    else {
        return Err(Refusal::BAD_LOGIN);
    };
    if body["clientType"].as_i64() != Some(CLIENT_TYPE) || !(32..=64).contains(&nonce.chars().count()) {
        return Err(Refusal::BAD_LOGIN);
    }
    if app_id != options.app_id {
        return Err(Refusal::APP_UNKNOWN);
    }
    let (corp, user) = (text("corpId")?, text("userId")?.unwrap_or_default());
    let signed = match (&options.sp_id, corp) {
        (None, None) => format!("{app_id}:{user}:{expires}:{nonce}"),
        // Only in SP mode; in single-enterprise mode it must not be sent, or authentication fails.
        (None, Some(_)) => return Err(Refusal::APP_AUTH_FAILED),
        (Some(_), corp) => format!("{app_id}:{}:{user}:{expires}:{nonce}", corp.unwrap_or_default()),
    };
    // `Authorization: HMAC-SHA256 signature=<hex>,access=<Base64(appId)>`; without `access` by the manual's FAQ, and from most of
    // the manufacturer's own clients, which write the hex in capitals, too.
    let Some(given) = header("Authorization").strip_prefix("HMAC-SHA256 signature=") else {
        return Err(Refusal::APP_AUTH_FAILED);
    };
    let (signature, access) = given.split_once(",access=").map_or((given, None), |(hex, access)| (hex, Some(access)));
    let mut mac =
        Hmac::<Sha256>::new_from_slice(options.app_key.expose_secret().as_bytes()).map_err(|_| Refusal::BUSY)?;
    mac.update(signed.as_bytes());
    let signature = hex::decode(signature).map_err(|_| Refusal::APP_AUTH_FAILED)?;
    let good = mac.verify_slice(&signature).is_ok() && access.is_none_or(|access| access == STANDARD.encode(app_id));
    // An expiry of 0 is never.
    let late = expires != 0 && expires < now.get() / 1_000;
    if !good || late {
        return Err(Refusal::APP_AUTH_FAILED);
    }
    let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let corp_id = match (&options.sp_id, filled(corp.unwrap_or_default())) {
        (None, _) => options.corp_ids.first().cloned(),
        (Some(_), None) if !user.is_empty() => return Err(Refusal::APP_AUTH_FAILED),
        (Some(_), Some(corp)) if !options.corp_ids.contains(&corp) => return Err(Refusal::ENTERPRISE_UNKNOWN),
        (Some(_), corp) => corp,
    };
    let user_id = filled(user);
    let administrator = user_id.as_ref().is_none_or(|user| options.administrators.contains(user));
    Ok(Caller { corp_id, user_id, administrator })
}
