//! The tasks of the service, named and supervised.
//!
//! If a task that the delivery guarantee depends on (a listener, the writer) ends early, the process ends. A helper that panics
//! or ends early is restarted with growing back-off, counted, and shown: its work is delayed, but events are still taken.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::FutureExt as _;
use strum::VariantArray as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::health::Helpers;

/// Back-off before a helper is restarted: it starts at the minimum and doubles with each further failure.
const MIN_RESTART_DELAY: Duration = Duration::from_secs(1);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(60);

/// A task that ran this long is healthy: its back-off starts again.
const STABLE_TIME: Duration = Duration::from_secs(300);

/// When a task is stopped. The phases follow one another: each begins when all tasks of the one before have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray)]
pub(super) enum Phase {
    /// Tasks that take events or fetch them from the platform; the writer must still run for them.
    Sources,
    /// The writer.
    Writer,
    /// Tasks that read the log.
    Cursors,
    /// What operators need to watch the shutdown, and the database's upkeep.
    Rest,
}

/// The name of a task that ended, and its result.
type Ended = (&'static str, anyhow::Result<()>);

/// Named tasks, and the token that stops each phase.
pub(super) struct Tasks {
    set: JoinSet<Ended>,
    running: Vec<(&'static str, Phase)>,
    stops: [CancellationToken; Phase::VARIANTS.len()],
    helpers: Arc<Helpers>,
    /// Makes every running helper panic.
    #[cfg(test)]
    pub(super) sabotage: Arc<tokio::sync::Notify>,
}

impl Tasks {
    /// No tasks yet; the state of the helpers is recorded in `helpers`.
    pub fn new(helpers: Arc<Helpers>) -> Self {
        Self {
            set: JoinSet::new(),
            running: Vec::new(),
            stops: Default::default(),
            helpers,
            #[cfg(test)]
            sabotage: Arc::default(),
        }
    }

    /// The token that is cancelled when a phase begins.
    pub fn stop(&self, phase: Phase) -> CancellationToken {
        self.stops[phase as usize].clone()
    }

    /// Spawns a task whose end is the end of the process.
    pub fn spawn(&mut self, name: &'static str, phase: Phase, task: impl Future<Output = ()> + Send + 'static) {
        self.join(name, phase, async {
            task.await;
            Ok(())
        });
    }

    /// Spawns a helper that is restarted until its phase begins. An error that it returns still ends the process: a restart would
    /// not help.
    pub fn keep<T>(
        &mut self,
        name: &'static str,
        phase: Phase,
        mut start: impl FnMut(CancellationToken) -> T + Send + 'static,
    ) where
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.helpers.started(name);
        let stop = self.stop(phase);
        let stopped = stop.clone();
        let start = move || start(stopped.clone());
        #[cfg(test)]
        let start = sabotaged(start, Arc::clone(&self.sabotage));
        let task = kept(name, Arc::clone(&self.helpers), stop, start);
        self.join(name, phase, task);
    }

    fn join(
        &mut self,
        name: &'static str,
        phase: Phase,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.running.push((name, phase));
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits until a task ends.
    pub async fn next(&mut self) -> anyhow::Result<Ended> {
        let (name, result) = match self.set.join_next().await {
            Some(ended) => ended.map_err(|error| anyhow!("a task panicked: {error}"))?,
            None => bail!("nothing runs"),
        };
        self.running.retain(|(other, _)| *other != name);
        Ok((name, result))
    }

    /// Stops all tasks, phase by phase.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for phase in Phase::VARIANTS {
            self.stop(*phase).cancel();
            while self.running.iter().any(|(_, other)| other == phase) {
                let (name, result) = self.next().await?;
                result.with_context(|| format!("the {name}"))?;
            }
        }
        Ok(())
    }
}

async fn kept<T>(
    name: &'static str,
    helpers: Arc<Helpers>,
    stop: CancellationToken,
    mut start: impl FnMut() -> T + Send + 'static,
) -> anyhow::Result<()>
where
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut pause = MIN_RESTART_DELAY;
    loop {
        let began = Instant::now();
        // The guard includes the creation of the task. Shared state is behind locks that survive a panic.
        let result = AssertUnwindSafe(async { start().await }).catch_unwind().await;
        let why = match result {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
            Ok(Ok(())) => "it ended by itself".to_owned(),
            Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
        };
        if began.elapsed() >= STABLE_TIME {
            pause = MIN_RESTART_DELAY;
        }
        helpers.failed(name, &why);
        tracing::error!(task = name, why, ?pause, "a task of the service failed; restarting it");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
        helpers.started(name);
        pause = (pause * 2).min(MAX_RESTART_DELAY);
    }
}

#[cfg(test)]
fn sabotaged<T>(
    mut start: impl FnMut() -> T + Send + 'static,
    sabotage: Arc<tokio::sync::Notify>,
) -> impl FnMut() -> futures_util::future::BoxFuture<'static, anyhow::Result<()>> + Send + 'static
where
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    move || {
        let (work, sabotage) = (start(), Arc::clone(&sabotage));
        Box::pin(async move {
            tokio::select! {
                ended = work => ended,
                () = sabotage.notified() => panic!("sabotaged"),
            }
        })
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::metrics::Registry;

    const NAME: &str = "helper";

    fn tasks() -> (Registry, Arc<Helpers>, Tasks) {
        let registry = Registry::default();
        let helpers = Arc::new(Helpers::new(&[NAME], &registry));
        (registry, Arc::clone(&helpers), Tasks::new(helpers))
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_panics_or_ends_is_started_again_with_growing_pauses_and_named() {
        let (registry, helpers, mut tasks) = tasks();
        let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (noted, begin) = (Arc::clone(&starts), Instant::now());
        tasks.keep(NAME, Phase::Rest, move |stop| {
            let noted = Arc::clone(&noted);
            async move {
                let nth = {
                    let mut noted = noted.lock().expect("a lock");
                    noted.push(begin.elapsed().as_secs());
                    noted.len()
                };
                match nth {
                    1 => panic!("out of {}", "range"),
                    2..8 => Ok(()),
                    8 => {
                        tokio::time::sleep(STABLE_TIME).await;
                        panic!("again")
                    }
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        while helpers.all()[NAME].restarts == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let helper = helpers.all()[NAME].clone();
        assert_eq!((helper.restarts, helper.last_failure.as_deref()), (1, Some("it panicked: out of range")));
        tokio::time::sleep(Duration::from_secs(600)).await;
        // The back-off: 1, 2, 4, 8, 16, 32, 60 s, and after 300 s without a failure 1 s again.
        assert_eq!(*starts.lock().expect("a lock"), [0, 1, 3, 7, 15, 31, 63, 123, 424]);
        let page = registry.render();
        assert!(page.contains("convoke_task_restarts_total{task=\"helper\"} 8\n"), "{page}");
        assert!(helpers.all()[NAME].running);
        tasks.stop_all().await.expect("it stops");
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_waits_to_be_started_again_does_not_hold_up_a_stop() {
        let (_, _, mut tasks) = tasks();
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        tasks.keep(NAME, Phase::Rest, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("at once") }
        });
        tokio::time::sleep(Duration::from_secs(70)).await;
        let before = Instant::now();
        tasks.stop_all().await.expect("it stops");
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(starts.load(Ordering::Relaxed), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_helper_cannot_do_anything_about_is_the_end_of_the_process_as_is_the_end_of_a_listener() {
        let (_, _, mut tasks) = tasks();
        tasks.keep(NAME, Phase::Rest, |_| async { bail!("a newer schema") });
        let (name, result) = tasks.next().await.expect("it ended");
        assert_eq!((name, result.expect_err("it failed").to_string()), (NAME, "a newer schema".to_owned()));
        tasks.spawn("listener", Phase::Sources, async { panic!("gone") });
        assert!(tasks.next().await.is_err());
    }
}
