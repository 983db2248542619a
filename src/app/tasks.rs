//! The tasks of the service, named and supervised.
//!
//! One that the promise needs (a listener, the writer) ends the process if it ends early. A helper that panics or ends early
//! is started again with growing pauses, counted, and shown: what it does comes late, and events are taken meanwhile.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::FutureExt as _;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::helpers::Helpers;

/// The pause before a helper is started again; doubled with each failure that follows soon.
const MIN_RESTART_DELAY: Duration = Duration::from_secs(1);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(60);

/// Who has run for so long is well again: the pauses start over.
const STABLE_TIME: Duration = Duration::from_secs(300);

/// What a task says when it ends.
type Ended = (&'static str, anyhow::Result<()>);

/// Named tasks.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<Ended>,
    running: Vec<&'static str>,
    /// Makes every helper that runs panic.
    #[cfg(test)]
    pub(super) sabotage: Arc<tokio::sync::Notify>,
}

impl Tasks {
    /// A task whose end is the end of the process.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.join(name, async {
            task.await;
            Ok(())
        });
    }

    /// A task that is started again until `stop`. An error that it returns is the end of the process all the same: nothing
    /// can be done about it here.
    pub(super) fn keep<T>(
        &mut self,
        name: &'static str,
        helpers: &Arc<Helpers>,
        stop: &CancellationToken,
        start: impl FnMut() -> T + Send + 'static,
    ) where
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        helpers.started(name);
        #[cfg(test)]
        let start = sabotaged(start, Arc::clone(&self.sabotage));
        self.join(name, kept(name, Arc::clone(helpers), stop.clone(), start));
    }

    fn join(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.running.push(name);
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits for the next task to end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Ended> {
        let (name, result) = match self.set.join_next().await {
            Some(ended) => unwrap(ended)?,
            None => bail!("nothing runs"),
        };
        self.running.retain(|other| *other != name);
        Ok((name, result))
    }

    /// Waits until those of these tasks that run have ended.
    pub(super) async fn finish(&mut self, names: &[&'static str]) -> anyhow::Result<()> {
        while self.running.iter().any(|name| names.contains(name)) {
            let (name, result) = self.next().await?;
            result.with_context(|| format!("the {name}"))?;
        }
        Ok(())
    }
}

fn unwrap(ended: Result<Ended, JoinError>) -> anyhow::Result<Ended> {
    ended.map_err(|error| anyhow!("a task panicked: {error}"))
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
        // Within the guard is what makes the task, too. What tasks share is behind locks that outlive a panic.
        let result = AssertUnwindSafe(async { start().await }).catch_unwind().await;
        let why = match result {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
            Ok(Ok(())) => "it ended by itself".to_owned(),
            Err(panic) => format!("it panicked: {}", words(&*panic)),
        };
        if began.elapsed() >= STABLE_TIME {
            pause = MIN_RESTART_DELAY;
        }
        helpers.failed(name, &why);
        tracing::error!(task = name, why, ?pause, "a part of the service failed; it is started again");
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

/// What a panic said.
pub(crate) fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::metrics::Registry;

    const NAME: &str = "helper";

    fn helpers() -> (Registry, Arc<Helpers>) {
        let registry = Registry::default();
        (registry.clone(), Arc::new(Helpers::new(&[NAME], &registry)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_panics_or_ends_is_started_again_with_growing_pauses_and_named() {
        let ((registry, helpers), stop, mut tasks) = (helpers(), CancellationToken::new(), Tasks::default());
        let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (noted, begin) = (Arc::clone(&starts), Instant::now());
        let stopped = stop.clone();
        tasks.keep(NAME, &helpers, &stop, move || {
            let (noted, stopped) = (Arc::clone(&noted), stopped.clone());
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
                        stopped.cancelled().await;
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
        // The pauses: 1, 2, 4, 8, 16, 32, 60 s, and after 300 s without a failure 1 s.
        assert_eq!(*starts.lock().expect("a lock"), [0, 1, 3, 7, 15, 31, 63, 123, 424]);
        let page = registry.render();
        assert!(page.contains("convoke_task_restarts_total{task=\"helper\"} 8\n"), "{page}");
        assert!(helpers.all()[NAME].running);
        stop.cancel();
        tasks.finish(&[NAME]).await.expect("it stops");
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_waits_to_be_started_again_does_not_hold_up_a_stop() {
        let ((_, helpers), stop, mut tasks) = (helpers(), CancellationToken::new(), Tasks::default());
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        tasks.keep(NAME, &helpers, &stop, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("at once") }
        });
        tokio::time::sleep(Duration::from_secs(70)).await;
        let before = Instant::now();
        stop.cancel();
        tasks.finish(&[NAME]).await.expect("it stops");
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(starts.load(Ordering::Relaxed), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_helper_cannot_do_anything_about_is_the_end_of_the_process_as_is_the_end_of_a_listener() {
        let ((_, helpers), stop, mut tasks) = (helpers(), CancellationToken::new(), Tasks::default());
        tasks.keep(NAME, &helpers, &stop, || async { bail!("a newer schema") });
        let (name, result) = tasks.next().await.expect("it ended");
        assert_eq!((name, result.expect_err("it failed").to_string()), (NAME, "a newer schema".to_owned()));
        tasks.spawn("listener", async { panic!("gone") });
        assert!(tasks.next().await.is_err());
    }
}
