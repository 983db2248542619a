//! One meeting: the way in, listening, and coming back.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::message::{self, LiveRun, LiveTopic};
use super::presence::Presence;
use super::storing::Storing;
use super::{Connected, Context, Discarded, LiveParts, Pending, RETRY_DELAY, TASK, Unattended};
use crate::backfill::store;
use crate::backfill::synthesis::{self, FilledEvent, FilledRun};
use convoke_core::event::Source;
use convoke_core::time::Millis;
use convoke_log::{LiveMeeting, LiveState, LogError, RunKey};
use convoke_platform::backoff::Backoff;
use convoke_platform::socket::{Socket, SocketError};
use convoke_platform::{Class, ControlToken, InMeeting, PlatformError};

/// Texts that wait to be stored, of one meeting.
const MAX_PENDING_TEXTS: usize = 256;

/// A connection that was lost is opened again at once, so many times in a row.
const MAX_QUICK_RETRIES: u32 = 3;
const QUICK_RETRY_DELAY: Duration = Duration::from_millis(300);

/// A meeting that the platform does not know is asked for so many times.
const UNKNOWN_DELAY: Duration = Duration::from_secs(3);
const MAX_UNKNOWN: u32 = 5;

/// Why a connection ended, or there was none.
enum End {
    /// The meeting is over.
    Over,
    /// The platform does not know it, or not yet.
    Unknown,
    /// It is not to be tried again.
    Settled(LiveState, String),
    /// The platform's API failed.
    Platform(PlatformError),
    /// The connection was lost after it had been opened.
    Lost(SocketError),
    /// The database does not answer.
    Log(LogError),
}

impl From<PlatformError> for End {
    fn from(error: PlatformError) -> Self {
        Self::Platform(error)
    }
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// A control token, and when it is to be kept alive.
#[derive(Clone)]
struct Control {
    token: ControlToken,
    renew_at: Instant,
}

impl Control {
    fn new(token: ControlToken) -> Self {
        let renew_at = Instant::now() + token.valid.mul_f64(0.75);
        Self { token, renew_at }
    }
}

/// One meeting that is attended.
struct Attendance {
    context: Arc<Context>,
    meeting: LiveMeeting,
    run: RunKey,
    stop: CancellationToken,
    control: Option<Control>,
    /// When its newest message came that is stored.
    heard_at: Option<Millis>,
    /// Its end, if it told it.
    ended_at: Option<Millis>,
}

/// Attends a meeting until it is over, or until `stop`.
pub(super) async fn attend(context: Arc<Context>, meeting: LiveMeeting, stop: CancellationToken) {
    let Some(run) = meeting.run() else { return };
    let heard_at = meeting.heard_at;
    let mut attendance = Attendance { context, meeting, run, stop, control: None, heard_at, ended_at: None };
    let stop = attendance.stop.clone();
    // May be dropped at any point: what was stored is recognised when it is told again.
    let work = async {
        if let Some(at) = attendance.until_over().await {
            attendance.heal(at).await;
            // It stays ours until the tables say so, too.
            std::future::pending::<()>().await;
        }
        // A command may bring it back.
        attendance.context.attended().remove(attendance.number());
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Attendance {
    fn parts(&self) -> &LiveParts {
        &self.context.parts
    }

    fn number(&self) -> &str {
        &self.meeting.meeting_id
    }

    /// Connects, again and again. Returns when it is over, if it is.
    async fn until_over(&mut self) -> Option<Millis> {
        let mut backoff = Backoff::new(TASK);
        let (mut quick, mut unknown) = (0, 0);
        loop {
            let begun = Instant::now();
            let end = self.connection(&mut backoff).await;
            let clock = self.parts().clock.clone();
            let pause = match end {
                End::Over => return Some(self.ended_at.unwrap_or_else(|| clock.now())),
                End::Settled(state, reason) => {
                    self.settle(state, &reason).await;
                    return None;
                }
                End::Unknown if unknown < MAX_UNKNOWN => {
                    unknown += 1;
                    UNKNOWN_DELAY
                }
                End::Unknown => {
                    self.settle(LiveState::Refused, "the platform knows no such meeting that is not over").await;
                    return None;
                }
                End::Log(error) => {
                    tracing::debug!(%error, "attending a meeting waits for the database");
                    RETRY_DELAY
                }
                End::Lost(error) => {
                    tracing::info!(meeting_id = self.number(), %error, "the connection to a running meeting ended; it is opened again");
                    self.explain(&error.to_string()).await;
                    quick = if begun.elapsed() > self.parts().pace.silence { 0 } else { quick + 1 };
                    if quick <= MAX_QUICK_RETRIES {
                        QUICK_RETRY_DELAY.mul_f64(1.0 + rand::random::<f64>())
                    } else {
                        backoff.failed(clock.steady(), &error.into(), rand::random());
                        backoff.left(clock.steady())
                    }
                }
                End::Platform(error) => {
                    self.explain(&error.to_string()).await;
                    backoff.failed(clock.steady(), &error, rand::random());
                    backoff.left(clock.steady()).max(RETRY_DELAY)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Notes why it is not attended now.
    async fn explain(&self, reason: &str) {
        let LiveParts { log, owner, .. } = self.parts();
        let _ = log.settle_live(self.number(), owner, LiveState::Attending, Some(reason)).await;
    }

    /// Says once that it is not attended.
    async fn settle(&self, state: LiveState, reason: &str) {
        let LiveParts { log, owner, metrics, .. } = self.parts();
        loop {
            match log.settle_live(self.number(), owner, state, Some(reason)).await {
                Ok(new) => {
                    let counted = match state {
                        LiveState::NoPassword => Unattended::NoPassword,
                        LiveState::Refused => Unattended::Refused,
                        _ => return,
                    };
                    if new {
                        metrics.unattended.of(counted).inc();
                        tracing::warn!(meeting_id = self.number(), "a running meeting is not attended: {reason}");
                    }
                    return;
                }
                Err(error) => tracing::debug!(%error, "noting that a meeting is not attended is tried again"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// The control token, as long as it is valid.
    async fn control(&mut self) -> Result<Control, End> {
        if let Some(control) = self.control.as_ref().filter(|control| control.renew_at > Instant::now()) {
            return Ok(control.clone());
        }
        let password = match self.meeting.password.clone().map(SecretString::from) {
            Some(password) => password,
            None => self.told_password().await?,
        };
        let before = self.control.take().map(|control| control.token);
        let asked = self.parts().client.control_token(self.number(), &password, before.as_ref()).await;
        let control = Control::new(asked.map_err(|error| self.refused(error))?);
        self.control = Some(control.clone());
        Ok(control)
    }

    /// The host's password, as the platform tells it.
    async fn told_password(&self) -> Result<SecretString, End> {
        // A service provider asks under the meeting's enterprise.
        let mut chair = None;
        for client in self.parts().client.of_meeting(Some(self.number())).await? {
            chair = client.chair(self.number()).await?;
            if chair.is_some() {
                break;
            }
        }
        let Some(chair) = chair else { return Err(End::Unknown) };
        if !self.meeting.asked && !self.parts().options.wants(self.number(), chair.user_uuid.as_deref()) {
            return Err(End::Settled(LiveState::Unwanted, "its host is not in live.hosts".to_owned()));
        }
        chair.password.ok_or_else(|| {
            let reason = "the platform does not tell this account the host's password: give it by `convoke live attach NUMBER \
                          --password-file FILE`";
            End::Settled(LiveState::NoPassword, reason.to_owned())
        })
    }

    fn refused(&self, error: PlatformError) -> End {
        match InMeeting::of(&error) {
            Some(InMeeting::Over) => End::Over,
            Some(InMeeting::NotBegun) => End::Unknown,
            Some(InMeeting::WrongPassword) if self.meeting.password.is_some() => End::Settled(
                LiveState::Refused,
                "its number or the password that was given is wrong: give another one by `convoke live attach`"
                    .to_owned(),
            ),
            Some(InMeeting::WrongPassword) => {
                End::Settled(LiveState::Refused, "the platform refuses the host's password that it told".to_owned())
            }
            None if matches!(error.class, Class::Token | Class::Configuration | Class::Locked) => {
                End::Settled(LiveState::Refused, error.with_advice())
            }
            None => End::Platform(error),
        }
    }

    /// One connection, from its opening to its end.
    async fn connection(&mut self, backoff: &mut Backoff) -> End {
        let (socket, control) = match self.open().await {
            Ok(opened) => opened,
            Err(end) => {
                if matches!(end, End::Platform(_)) {
                    self.parts().metrics.connections.of(Connected::Failed).inc();
                }
                return end;
            }
        };
        backoff.answered();
        let LiveParts { log, owner, metrics, clock, .. } = self.parts().clone();
        metrics.connections.of(Connected::Opened).inc();
        metrics.meetings.inc();
        let _guard = Decrease(metrics.meetings.clone());
        if let Err(error) = log.settle_live(self.number(), &owner, LiveState::Attending, None).await {
            return error.into();
        }
        let (number, uuid) = (self.meeting.meeting_id.clone(), Arc::clone(&self.run.meeting_uuid));
        let run = LiveRun { meeting_id: &number, meeting_uuid: &uuid };
        let gap = self.heard_at.map(|from| message::gap(run, from, clock.now()));
        tracing::info!(meeting_id = number, again = gap.is_some(), "attends a running meeting");
        let (texts, pending) = mpsc::channel(MAX_PENDING_TEXTS);
        let context = Arc::clone(&self.context);
        let mut storing = Storing {
            context: &context,
            run,
            key: &self.run,
            presence: Presence::default(),
            heard_at: &mut self.heard_at,
            ended_at: &mut self.ended_at,
        };
        let mut listening = Listening {
            context: &context,
            number: &number,
            password: self.meeting.password.clone().map(SecretString::from),
            control,
            texts,
        };
        let (end, ()) = tokio::join!(listening.listen(socket), storing.store(gap, pending));
        self.control = Some(listening.control);
        metrics.connections.of(Connected::Lost).inc();
        match end {
            _ if self.ended_at.is_some() => End::Over,
            Ok(()) => End::Lost(SocketError::Lost("the server closed it".to_owned())),
            Err(error) => {
                if matches!(error, SocketError::TooLong) {
                    metrics.discarded.of(Discarded::TooLong).inc();
                }
                End::Lost(error)
            }
        }
    }

    async fn open(&mut self) -> Result<(Socket, Control), End> {
        let control = self.control().await?;
        let LiveParts { client, options, .. } = self.parts().clone();
        let token = match client.socket_token(self.number(), &control.token).await {
            Ok(token) => token,
            Err(mut error) => {
                // It may be the control token that is not valid any more.
                self.control = None;
                if error.class == Class::Token {
                    error.class = Class::Transient;
                }
                return Err(self.refused(error));
            }
        };
        let failed = |error: SocketError| End::Platform(error.into());
        let mut socket =
            Socket::open(&control.token.socket_url, self.number(), &token, &options.tls).await.map_err(failed)?;
        let mut kinds: Vec<&str> = options.topics.iter().flat_map(|topic| topic.kinds()).copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        socket.subscribe(self.number(), &kinds, &control.token.token).await.map_err(failed)?;
        if options.topics.contains(&LiveTopic::Captions) {
            socket.start_captions(self.number(), &control.token.token).await.map_err(failed)?;
        }
        Ok((socket, control))
    }

    /// Stores the end of a meeting that told it, if what the platform pushes does not.
    async fn heal(&self, at: Millis) {
        let LiveParts { log, intake, clock, pace, .. } = self.parts();
        tokio::time::sleep(pace.grace).await;
        let uuid = self.run.meeting_uuid.to_string();
        loop {
            let healed = async {
                let known = log.known_runs(std::slice::from_ref(&uuid)).await.map_err(crate::backfill::Error::from)?;
                let goes_on = known.iter().any(|run| run.live_at.is_some());
                if goes_on {
                    let run = FilledRun { meeting_id: Some(self.number()), meeting_uuid: &uuid, cycle_sub_id: None };
                    let end = synthesis::of_meeting(FilledEvent::End, at, &run);
                    store(intake, clock, (&self.run.subscriber_id, Source::Platform), &[end]).await?;
                    tracing::warn!(
                        meeting_uuid = uuid,
                        "a meeting is over whose meeting.end did not arrive: the meeting itself told its end"
                    );
                }
                Ok::<(), crate::backfill::Error>(())
            };
            match healed.await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the end of a meeting is stored later"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

/// Decreases a gauge when it is dropped.
struct Decrease(prometheus::IntGauge);

impl Drop for Decrease {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Receives what comes, and says that we are there.
struct Listening<'a> {
    context: &'a Context,
    number: &'a str,
    password: Option<SecretString>,
    control: Control,
    texts: mpsc::Sender<Pending>,
}

impl Listening<'_> {
    async fn listen(&mut self, mut socket: Socket) -> Result<(), SocketError> {
        let outcome = self.receive(&mut socket).await;
        // Whoever stores learns that nothing more comes.
        self.texts = mpsc::channel(1).0;
        if outcome.is_ok() {
            socket.close().await;
        }
        outcome
    }

    async fn receive(&mut self, socket: &mut Socket) -> Result<(), SocketError> {
        let LiveParts { pace, clock, .. } = &self.context.parts;
        let mut beat = tokio::time::interval_at(Instant::now() + pace.beat, pace.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                _ = beat.tick() => socket.beat().await?,
                () = tokio::time::sleep_until(heard + pace.silence) => return Err(SocketError::Slow(pace.silence)),
                () = tokio::time::sleep_until(self.control.renew_at) => self.keep_alive(socket, &mut beat).await?,
                text = socket.next() => {
                    let Some(text) = text? else { return Ok(()) };
                    let received_at = clock.now();
                    let size = u32::try_from(text.len().max(1)).unwrap_or(u32::MAX);
                    let room = Arc::clone(&self.context.pending).acquire_many_owned(size);
                    let Ok(room) = beating(socket, &mut beat, room).await? else { return Ok(()) };
                    let sent = self.texts.send((received_at, text, room));
                    if beating(socket, &mut beat, sent).await?.is_err() {
                        return Ok(());
                    }
                    heard = Instant::now();
                }
            }
        }
    }

    /// Keeps the control token alive: the manual does not say whether a subscription outlives it.
    async fn keep_alive(&mut self, socket: &mut Socket, beat: &mut Interval) -> Result<(), SocketError> {
        let LiveParts { client, .. } = &self.context.parts;
        // "Not checked in a keep-alive call", but required.
        let password = self.password.clone().unwrap_or_default();
        let asked = client.control_token(self.number, &password, Some(&self.control.token));
        match beating(socket, beat, asked).await? {
            Ok(token) => self.control = Control::new(token),
            Err(error) => {
                tracing::debug!(%error, "the control token of a meeting could not be kept alive; it is tried again");
                self.control.renew_at = Instant::now() + (self.control.token.valid / 20).max(RETRY_DELAY);
            }
        }
        Ok(())
    }
}

/// Waits for something while heartbeats go on.
async fn beating<T>(
    socket: &mut Socket,
    beat: &mut Interval,
    wanted: impl Future<Output = T>,
) -> Result<T, SocketError> {
    tokio::pin!(wanted);
    loop {
        tokio::select! {
            outcome = &mut wanted => return Ok(outcome),
            _ = beat.tick() => socket.beat().await?,
        }
    }
}
