//! How the helpers are: the tasks without which events are still taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::metrics::Metrics;

/// All helpers of this process.
#[derive(Debug)]
pub struct Helpers {
    metrics: Arc<Metrics>,
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
    /// None yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, known: Mutex::default() }
    }

    /// It has been started.
    pub fn started(&self, name: &'static str) {
        self.with(name, |helper| helper.running = true);
    }

    /// It has failed, and will be started again.
    pub fn failed(&self, name: &'static str, why: &str) {
        self.metrics.task_restarts.with_label_values(&[name]).inc();
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
