//! The way to one running meeting's own push: the host's password, the control token, and the token of the WebSocket (manual,
//! 4.2.10, 5.2.1 and 5.2.29).

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::call::{Call, UNEXPECTED_ADVICE};
use super::error::{Class, PlatformError};
use super::{Client, existing, parse};

const CONTROL_TOKEN: &str = "/v1/mmc/control/conferences/token";
const SOCKET_TOKEN: &str = "/v1/mmc/control/conferences/wsToken";

/// How long a control token is valid, where the answer does not say it.
const CONTROL_TOKEN_VALID: Duration = Duration::from_secs(1_800);

/// What the detail of a meeting says about its host.
#[derive(Clone, Debug, Default)]
pub struct Chair {
    /// The password of the host; `None`: our account is not told.
    pub password: Option<SecretString>,
    /// Who scheduled it, as a user.
    pub user_uuid: Option<String>,
}

/// Controls one meeting, for as long as it is valid.
#[derive(Clone, Debug)]
pub struct ControlToken {
    /// The token.
    pub token: SecretString,
    /// The address of the WebSocket, without a path.
    pub socket_url: String,
    /// How long it is valid, from its answer on: what counts is the time that passes, not what the clocks say.
    pub valid: Duration,
}

/// What a failed call says about the meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InMeeting {
    /// It is over.
    Over,
    /// It has not begun.
    NotBegun,
    /// Its number or its password is wrong: to try that again would lock it.
    WrongPassword,
}

impl InMeeting {
    /// What `error` says, if it is about the meeting.
    #[must_use]
    pub fn of(error: &PlatformError) -> Option<Self> {
        match error.code.as_deref()? {
            "MMC.111072006" => Some(Self::Over),
            "MMC.111070005" | "MMC.111072005" => Some(Self::NotBegun),
            "MMC.111072065" => Some(Self::WrongPassword),
            _ => None,
        }
    }
}

impl Client {
    /// What the detail of a meeting that is not over says about its host, by its number (4.2.10); `None`: the platform does not
    /// know it.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn chair(&self, conference_id: &str) -> Result<Option<Chair>, PlatformError> {
        let query = vec![("conferenceID", conference_id.to_owned())];
        let call = Call::get("reading a meeting's host", super::DETAIL, query);
        let Some(answer) = existing(self.core.call(&call).await)? else { return Ok(None) };
        let Some(data) = answer.get("conferenceData").filter(|data| data.is_object()) else { return Ok(None) };
        let role = |entry: &&Value| parse::text(entry, &["conferenceRole"]).as_deref() == Some("chair");
        let password =
            parse::array(data, "passwordEntry").iter().find(role).and_then(|it| parse::text(it, &["password"]));
        // What is hidden by stars is not told.
        let password = password.filter(|password| !password.bytes().all(|byte| byte == b'*')).map(SecretString::from);
        Ok(Some(Chair { password, user_uuid: parse::text(data, &["userUUID"]) }))
    }

    /// A control token for a running meeting (5.2.1). With the one before it is kept alive, and a new one comes if that is over.
    ///
    /// # Errors
    /// [`PlatformError`]; see [`InMeeting`].
    pub async fn control_token(
        &self,
        conference_id: &str,
        password: &SecretString,
        before: Option<&ControlToken>,
    ) -> Result<ControlToken, PlatformError> {
        let doing = "asking for a meeting's control token";
        let call = Call::get(doing, CONTROL_TOKEN, vec![("conferenceID", conference_id.to_owned())]);
        let mut headers = vec![("x-password", password.clone())];
        headers.extend(before.map(|before| ("x-conference-authorization", before.token.clone())));
        let answer = self.core.call_in_meeting(&call, &headers).await?;
        let data = answer.get("data").filter(|data| data.is_object()).unwrap_or(&answer);
        let valid = parse::integer(data, &["confTokenExpireTime"]).and_then(|seconds| u64::try_from(seconds).ok());
        let token = parse::text(data, &["token"]).map(SecretString::from);
        let socket_url = parse::text(data, &["wsURL", "wsUrl"]).or_else(|| Some(before?.socket_url.clone()));
        match token.or_else(|| Some(before?.token.clone())).zip(socket_url) {
            Some((token, socket_url)) => Ok(ControlToken {
                token,
                socket_url,
                valid: valid.filter(|seconds| *seconds > 0).map_or(CONTROL_TOKEN_VALID, Duration::from_secs),
            }),
            None => Err(without("the platform's answer contains no control token", doing)),
        }
    }

    /// A token that opens one WebSocket within a minute (5.2.29).
    ///
    /// # Errors
    /// [`PlatformError`]; see [`InMeeting`].
    pub async fn socket_token(
        &self,
        conference_id: &str,
        control: &ControlToken,
    ) -> Result<SecretString, PlatformError> {
        let doing = "asking for a meeting's WebSocket token";
        let call = Call::get(doing, SOCKET_TOKEN, vec![("conferenceID", conference_id.to_owned())]);
        let headers = [("x-conference-authorization", SecretString::from(control.token.expose_secret()))];
        let answer = self.core.call_in_meeting(&call, &headers).await?;
        let data = answer.get("data").filter(|data| data.is_object()).unwrap_or(&answer);
        // The manual's table and sample spell it differently.
        parse::text(data, &["webSocketToken", "websocketToken"])
            .map(SecretString::from)
            .ok_or_else(|| without("the platform's answer contains no WebSocket token", doing))
    }
}

fn without(problem: &'static str, doing: &'static str) -> PlatformError {
    let error = PlatformError::new(Class::Bug, doing, problem, UNEXPECTED_ADVICE);
    PlatformError { status: Some(200), ..error }
}
