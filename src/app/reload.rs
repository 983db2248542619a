//! New settings for a running service: at `SIGHUP`, and whenever a file changes that a setting names.
//!
//! Each part that can change its settings has registered how. First every part checks the new settings; only if none rejects
//! them, all parts apply them. The settings file itself is read only at `SIGHUP`: whoever edits it decides when it is complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tasks::{Phase, Tasks};
use crate::config::{Settings, SettingsSources};
use crate::metrics::Registry;
use convoke_core::secret;
use convoke_core::throttle::Throttle;

/// How often the files are checked for changes. The kernel's file notifications are not used: they miss changes on network file
/// systems, and the symlink swaps of Kubernetes unless every link is watched.
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Files that cannot be used are tried again at each check, and logged this often.
const LOG_INTERVAL: Duration = Duration::from_secs(600);

/// The helper that checks the files for changes.
pub(super) const NAME: &str = "file_watch";

/// Applies the new settings. It cannot fail.
type Apply = Box<dyn FnOnce() + Send>;

/// Checks new settings without changing anything.
type Check = Box<dyn Fn(&Settings) -> anyhow::Result<Apply> + Send + Sync>;

/// Gives new settings to the parts of a running service.
pub struct Reloader {
    parts: Vec<Check>,
    ok: IntGauge,
    throttle: Throttle,
    state: Mutex<State>,
}

struct State {
    sources: SettingsSources,
    /// The files that the settings name, with their content when they were last applied.
    files: Seen,
}

/// Digests of files; `None` for a file that cannot be read.
type Seen = BTreeMap<PathBuf, Option<[u8; 32]>>;

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reloader")
    }
}

impl Reloader {
    /// No parts are registered yet.
    pub(super) fn new(settings: &Settings, registry: &Registry) -> Self {
        let sources = settings.sources.clone();
        let files = look(settings.files.iter().cloned());
        let throttle = Throttle::new(1, LOG_INTERVAL);
        let ok = registry.int_gauge("convoke_reload_ok", "1 unless the last reload of the settings failed.");
        ok.set(1);
        Self { parts: Vec::new(), ok, throttle, state: Mutex::new(State { sources, files }) }
    }

    /// Registers a part: `check` checks new settings, and the function that it returns applies them.
    pub(super) fn part<A: FnOnce() + Send + 'static>(
        &mut self,
        check: impl Fn(&Settings) -> anyhow::Result<A> + Send + Sync + 'static,
    ) {
        self.parts.push(Box::new(move |new| Ok(Box::new(check(new)?))));
    }

    /// Registers a value derived from the settings. The receiver is notified when the value changes.
    pub(super) fn follow<T: PartialEq + Send + Sync + 'static>(
        &mut self,
        settings: &Settings,
        value: fn(&Settings) -> T,
    ) -> watch::Receiver<T> {
        let (sender, receiver) = watch::channel(value(settings));
        self.part(move |new| {
            let (sender, new) = (sender.clone(), value(new));
            Ok(move || {
                sender.send_if_modified(|known| {
                    let changed = *known != new;
                    *known = new;
                    changed
                });
            })
        });
        receiver
    }

    /// Reads everything again. If anything is wrong, all old settings stay.
    pub fn reload(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = state.sources.again().map_err(anyhow::Error::from);
        let result = sources.and_then(|sources| {
            let files = self.take(&sources, &state.files)?;
            *state = State { sources, files };
            Ok(())
        });
        self.ok.set(i64::from(result.is_ok()));
        match result {
            Ok(()) => tracing::info!("reloaded subscribers, keys, certificates and credentials"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "could not reload: the old settings stay in use");
            }
        }
    }

    /// Reads the files that the settings name again, if one has changed.
    fn reload_files(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(&state.files, &look(state.files.keys().cloned()));
        if changed.is_empty() {
            return;
        }
        let result = self.take(&state.sources, &state.files);
        self.ok.set(i64::from(result.is_ok()));
        match result {
            Ok(files) => {
                state.files = files;
                tracing::info!(files = changed.join(", "), "changed files are used from now on");
            }
            // They may be half written; the next check tries again.
            Err(error) => self.throttle.run("files", |suppressed| {
                let (error, files) = (format!("{error:#}"), changed.join(", "));
                tracing::error!(error, files, suppressed, "changed files cannot be used: the old ones stay in use");
            }),
        }
    }

    /// Gives the settings from `sources` to all parts, and returns the digests of the files.
    fn take(&self, sources: &SettingsSources, known: &Seen) -> anyhow::Result<Seen> {
        // Taken before the settings are read: a later change is then found by the next check.
        let mut before = look(known.keys().cloned());
        let settings = sources.settings()?;
        settings.check_serve()?;
        let ready = self.parts.iter().map(|check| check(&settings)).collect::<anyhow::Result<Vec<_>>>()?;
        for apply in ready {
            apply();
        }
        let (known, new): (Vec<_>, Vec<_>) = settings.files.iter().cloned().partition(|file| before.contains_key(file));
        before.retain(|file, _| known.contains(file));
        before.extend(look(new.into_iter()));
        Ok(before)
    }

    /// Adds a helper that checks the files for changes.
    pub(super) fn watching(self, tasks: &mut Tasks) -> Arc<Self> {
        let this = Arc::new(self);
        let watcher = Arc::clone(&this);
        tasks.keep(NAME, Phase::Rest, move |stop| Arc::clone(&watcher).watch(stop));
        this
    }

    async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(FILE_POLL_INTERVAL) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let this = Arc::clone(&self);
            // A file system that hangs must not block other tasks, nor the shutdown.
            let looked = tokio::task::spawn_blocking(move || this.reload_files());
            tokio::select! {
                result = looked => if let Err(error) = result { std::panic::resume_unwind(error.into_panic()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

fn look(files: impl Iterator<Item = PathBuf>) -> Seen {
    let digest = |file: &Path| std::fs::read(file).ok().map(|text| secret::digest(&zeroize::Zeroizing::new(text)));
    files.map(|file| (digest(&file), file)).map(|(digest, file)| (file, digest)).collect()
}

fn changed(before: &Seen, now: &Seen) -> Vec<String> {
    let differs = |(file, digest): &(&PathBuf, &Option<[u8; 32]>)| before.get(*file) != Some(digest);
    now.iter().filter(differs).map(|(file, _)| file.display().to_string()).collect()
}
