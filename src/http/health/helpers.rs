//! The state of the helpers: the tasks that taking events does not depend on.

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

/// The state of one helper.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Helper {
    /// Whether it is running; otherwise it waits to be restarted.
    pub running: bool,
    /// How often it was restarted since this process started.
    pub restarts: u64,
    /// The last reason for a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

impl Helpers {
    /// For the helpers with these names; none has started yet.
    #[must_use]
    pub fn new(names: &[&'static str], registry: &Registry) -> Self {
        let help = "Failures of helpers, after each of which it is started again.";
        let restarts = registry.register(IntCounterVec::new(Opts::new("convoke_task_restarts_total", help), &["task"]));
        for name in names {
            let _ = restarts.with_label_values(&[name]);
        }
        Self { restarts, known: Mutex::default() }
    }

    /// Notes that a helper was started.
    pub fn started(&self, name: &'static str) {
        self.with(name, |helper| helper.running = true);
    }

    /// Notes that a helper failed and will be restarted.
    pub fn failed(&self, name: &'static str, why: &str) {
        self.restarts.with_label_values(&[name]).inc();
        self.with(name, |helper| {
            helper.running = false;
            helper.restarts += 1;
            helper.last_failure = Some(why.to_owned());
        });
    }

    /// All helpers, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, Helper> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with(&self, name: &'static str, change: impl FnOnce(&mut Helper)) {
        change(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    }
}
