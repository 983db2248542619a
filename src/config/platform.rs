//! The settings of the platform's API and of the tasks that use it.

use std::time::Duration;

use secrecy::SecretString;

use super::env::Env;
use super::error::ConfigError;
use super::keys::{KEYS, NONE};
use super::layers::{Layers, Refusal};
use super::{Platform, parse, secrets};
use crate::live::LiveOptions;
use convoke_platform::socket::SocketTls;

/// The platform's site for mainland China, the only one that its manual names (section 1.4).
const MAINLAND: &str = "https://api.meeting.huaweicloud.com";

/// Checking more often would waste the platform's limit of about 100 calls a minute.
const MIN_WATCH_INTERVAL: Duration = Duration::from_secs(60);
/// Gaps are only searched for in what is older than a day, so there is no hurry.
const MIN_BACKFILL_INTERVAL: Duration = Duration::from_secs(60);
/// A list a minute is a hundredth of the platform's limit.
const MIN_RUNNING_INTERVAL: Duration = Duration::from_secs(60);
/// The platform's counts are those of days.
const MIN_COMPLETENESS_INTERVAL: Duration = Duration::from_secs(600);
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);

/// One task has them all.
const MAX_LIVE_MEETINGS: usize = 500;
const MIN_LIVE_RETENTION: Duration = Duration::from_secs(3_600);
const MAX_LIVE_RETENTION: Duration = Duration::from_secs(100 * 31_557_600);

/// Turns off a task that uses the platform's API.
const OFF: &str = "off";

/// Settings that have no meaning without the credentials.
const DEPENDENT: [&str; 14] = [
    "platform.url",
    "platform.user_id",
    "platform.corp_id",
    "platform.sp_id",
    "platform.corp_ids",
    "platform.callback_url",
    "platform.watch_every",
    "platform.running_every",
    "platform.completeness_every",
    "backfill.every",
    "recordings.enabled",
    "enrich.enabled",
    "enrich.people",
    "live.enabled",
];

/// The platform's API; `None` without credentials.
pub(super) fn platform(layers: &Layers, env: &Env) -> Result<Option<Platform>, ConfigError> {
    let text = |path: &str| layers.read_optional(path, parse::platform_id);
    let app_id = text("platform.app_id")?;
    let read_key = |text: &str| Ok(SecretString::from(secrets::secret_of(&env.resolve(text))?.as_str()));
    let app_key = layers.read_optional("platform.app_key_file", read_key)?;
    let (app_id, app_key) = match (app_id, app_key) {
        (Some(app_id), Some(app_key)) => (app_id, app_key),
        (Some(_), None) => return Err(layers.alone("platform.app_id", "platform.app_key_file")),
        (None, Some(_)) => return Err(layers.alone("platform.app_key_file", "platform.app_id")),
        (None, None) => {
            let set = |path: &&str| {
                let (text, default) = (&*layers.found(path).text, KEYS.iter().find(|key| key.path == *path));
                !matches!(text, NONE | OFF | "false") && default.is_none_or(|key| key.default != text)
            };
            return match DEPENDENT.into_iter().find(set) {
                None => Ok(None),
                Some(path) => Err(layers.refuse(
                    path,
                    Refusal::new(
                        "it needs the platform's API, and platform.app_id is not set",
                        "set platform.app_id and platform.app_key_file too, or leave this out",
                    ),
                )),
            };
        }
    };
    let (user_id, corp_id, sp_id) = (text("platform.user_id")?, text("platform.corp_id")?, text("platform.sp_id")?);
    if user_id.is_some() && corp_id.is_none() && sp_id.is_some() {
        return Err(layers.refuse(
            "platform.user_id",
            Refusal::new(
                "a service provider's user belongs to one enterprise, and platform.corp_id is not set",
                "set platform.corp_id too, or leave this out to act as the provider's or the enterprise's administrator",
            ),
        ));
    }
    let corp_ids = layers.read("platform.corp_ids", parse::ids)?;
    if !corp_ids.is_empty() && (sp_id.is_none() || corp_id.is_some()) {
        return Err(layers.refuse(
            "platform.corp_ids",
            Refusal::new(
                "these are enterprises of a service provider, each asked as its administrator",
                "set platform.sp_id and leave platform.corp_id out, or, for a single enterprise, leave this out",
            ),
        ));
    }
    let url = layers.read_optional("platform.url", parse::api_url)?.unwrap_or_else(|| MAINLAND.to_owned());
    Ok(Some(Platform {
        api: convoke_platform::Options {
            user_id,
            corp_id,
            sp_id,
            corp_ids,
            ..convoke_platform::Options::new(url, app_id, app_key)
        },
        callback_url: layers.read_optional("platform.callback_url", parse::callback_url)?,
        watch_every: every(layers, "platform.watch_every", MIN_WATCH_INTERVAL)?,
        running_every: every(layers, "platform.running_every", MIN_RUNNING_INTERVAL)?,
        completeness_every: every(layers, "platform.completeness_every", MIN_COMPLETENESS_INTERVAL)?,
        backfill_every: every(layers, "backfill.every", MIN_BACKFILL_INTERVAL)?,
        recordings: layers.read("recordings.enabled", parse::boolean)?,
        enrich: layers.read("enrich.enabled", parse::boolean)?,
        people: layers.read("enrich.people", parse::boolean)?,
        live: live(layers, env)?,
    }))
}

/// Attending running meetings; `None`: off.
fn live(layers: &Layers, env: &Env) -> Result<Option<LiveOptions>, ConfigError> {
    let (all, meetings) = layers.read("live.meetings", parse::live_meetings)?;
    let options = LiveOptions {
        all,
        meetings,
        hosts: layers.read("live.hosts", parse::ids)?,
        // A number within these bounds fits.
        max_meetings: layers.read("live.max_meetings", |text| parse::integer(text, 1..=MAX_LIVE_MEETINGS))? as u32,
        topics: layers.read("live.messages", parse::live_topics)?,
        retention: layers
            .read_optional("live.retention", |text| parse::duration(text, MIN_LIVE_RETENTION..=MAX_LIVE_RETENTION))?,
        tls: SocketTls {
            ca: layers.read_optional("live.tls_ca", |text| Ok(env.resolve(text)))?,
            name: layers.read("live.tls_name", parse::certificate_name)?,
        },
    };
    Ok(layers.read("live.enabled", parse::boolean)?.then_some(options))
}

fn every(layers: &Layers, path: &str, least: Duration) -> Result<Option<Duration>, ConfigError> {
    layers.read(path, |text| match text {
        OFF | NONE => Ok(None),
        _ => parse::duration(text, least..=MAX_INTERVAL).map(Some),
    })
}
