//! What the platform is to be like.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use convoke_core::time::Clock;

/// What the platform is to be like. Start from [`PlatformOptions::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct PlatformOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The App ID …
    pub app_id: String,
    /// … and its key.
    pub app_key: SecretString,
    /// The enterprises; for a single one the first.
    pub corp_ids: Vec<String>,
    /// The service provider that the App ID belongs to; with it, signatures have five parts.
    pub sp_id: Option<String>,
    /// Third-party users with an administrator's rights; without a user, the default administrator acts.
    pub administrators: Vec<String>,
    /// How often each call may be made in a [`PlatformOptions::minute`].
    pub limit: u32,
    /// What the gateway takes for a minute.
    pub minute: Duration,
    /// How long a token lives.
    pub token_valid: Duration,
    /// The failure to enable that locks a subscription, counted from 1.
    pub lock_after: u32,
    /// For how long it is locked.
    pub lock_for: Duration,
    /// The callback URL must answer the handshake within this time.
    pub handshake_timeout: Duration,
    /// A PEM file to check an `https` callback URL with, instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// How far back the history goes.
    pub retention: Duration,
    /// How long it takes to transcode a recording.
    pub decode_for: Duration,
    /// Meetings are recorded in the newer system (5.2.43), and the calls of the older one know of none.
    pub newer_recordings: bool,
    /// The enterprise is on the white list for download links.
    pub downloads: bool,
    /// The enterprise is on the flagship edition, which the dashboard is for (chapter 7).
    pub flagship: bool,
    /// The quality dashboard (7.1) was opened by sales. Where it was not, its lists are empty: what really comes is not documented.
    pub quality: bool,
    /// How far ahead of UTC the days of the statistics are (7.2), in minutes. It is not documented; the manual's samples cut days at
    /// 16:00 UTC.
    pub day_offset_min: i64,
    /// An administrator is told the host's password of a meeting: the manual does not say whether it is.
    pub tells_password: bool,
    /// How long the control token of a meeting is valid.
    pub control_token_valid: Duration,
    /// After so long without a heartbeat the connection to a meeting is closed.
    pub heartbeat_timeout: Duration,
    /// PEM files of a certificate and its key: with them, meetings are heard at a `wss://` address of their own.
    pub socket_tls: Option<(PathBuf, PathBuf)>,
    /// By how much the times in participant records are later than those of the events, at most.
    pub skew: Duration,
    /// Gives the time.
    pub clock: Clock,
}

impl PlatformOptions {
    /// A platform on a free port of this machine, with one enterprise, as the manual describes it: 100 calls a minute, tokens for 18
    /// hours, a lock for an hour after five failures (how many it takes, the manual does not say), history for six months. Recordings
    /// take ten seconds to transcode.
    #[must_use]
    pub fn new(app_id: impl Into<String>, app_key: SecretString) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            app_id: app_id.into(),
            app_key,
            corp_ids: vec!["660012345".to_owned()],
            sp_id: None,
            administrators: Vec::new(),
            limit: 100,
            minute: Duration::from_secs(60),
            token_valid: Duration::from_secs(18 * 3_600),
            lock_after: 5,
            lock_for: Duration::from_secs(3_600),
            handshake_timeout: Duration::from_secs(5),
            ca_file: None,
            retention: Duration::from_secs(183 * 86_400),
            decode_for: Duration::from_secs(10),
            newer_recordings: false,
            downloads: true,
            flagship: true,
            quality: true,
            day_offset_min: 8 * 60,
            tells_password: true,
            control_token_valid: Duration::from_secs(1_800),
            heartbeat_timeout: Duration::from_secs(180),
            socket_tls: None,
            skew: Duration::ZERO,
            clock: Clock::System,
        }
    }
}
