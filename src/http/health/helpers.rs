//! How the helpers are: the tasks without which events are still taken.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounterVec, Opts};
use serde::Serialize;

use crate::metrics::Registry;

/// All helpers of this process.
#[derive(Debug)]
pub struct Helpers {
    restarts: IntCounterVec,
    known: Mutex<BTreeMap<&'static str, Helper>>,
}

/// One of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Helper {
    /// Whether it runs; else it waits to be started again.
    pub running: bool,
    /// How often it had to be started again since this process began.
    pub restarts: u64,
    /// Why, at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

impl Helpers {
    /// None yet, of those that may be there.
    #[must_use]
    pub fn new(names: &[&'static str], registry: &Registry) -> Self {
        let help = "Failures of helpers, after each of which it is started again.";
        let restarts = registry.register(IntCounterVec::new(Opts::new("convoke_task_restarts_total", help), &["task"]));
        for name in names {
            let _ = restarts.with_label_values(&[name]);
        }
        Self { restarts, known: Mutex::default() }
    }

    /// It has been started.
    pub fn started(&self, name: &'static str) {
        self.with(name, |helper| helper.running = true);
    }

    /// It has failed, and will be started again.
    pub fn failed(&self, name: &'static str, why: &str) {
        self.restarts.with_label_values(&[name]).inc();
        self.with(name, |helper| {
            helper.running = false;
            helper.restarts += 1;
            helper.last_failure = Some(why.to_owned());
        });
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, Helper> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with(&self, name: &'static str, change: impl FnOnce(&mut Helper)) {
        change(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    }
}
