//! The registry on which every part registers its own metrics. It knows none of them: their names, and the enums that are their
//! labels, are defined next to what they measure.
//!
//! All time series exist from the start, so that a rate over the first increment is correct. Hot paths keep their series and look
//! nothing up. A value that a part has anyway is read from it at each scrape ([`Registry::show`]); a metric is never read back.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, TextEncoder,
};

/// Buckets for durations of milliseconds, in seconds.
pub const LATENCY_SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The values of a label: an enum whose variants convert to the label's text.
pub trait Label: strum::VariantArray + Into<&'static str> + Copy + PartialEq + 'static {
    /// The text of the label.
    fn as_str(self) -> &'static str {
        self.into()
    }
}

impl<T: strum::VariantArray + Into<&'static str> + Copy + PartialEq + 'static> Label for T {}

/// A counter for each value of a label. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counters<L>(Arc<[IntCounter]>, PhantomData<L>);

impl<L: Label> Counters<L> {
    /// The counter of this value.
    #[must_use]
    pub fn of(&self, value: L) -> &IntCounter {
        &self.0[L::VARIANTS.iter().position(|known| *known == value).unwrap_or_default()]
    }
}

/// All metrics of one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(prometheus::Registry);

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// Registers a metric. Names are constants in the code, so a mistake shows at the first start.
    ///
    /// # Panics
    /// If another metric has the same name and labels.
    pub fn register<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("the metric's name and labels are sound");
        self.0.register(Box::new(metric.clone())).expect("the metric's name is used once");
        metric
    }

    /// Registers a counter.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    /// Registers a counter for each value of `label`.
    #[must_use]
    pub fn counters<L: Label>(&self, name: &str, help: &str, label: &str) -> Counters<L> {
        self.counters_with(Opts::new(name, help), label)
    }

    /// The same with constant labels.
    #[must_use]
    pub fn counters_with<L: Label>(&self, opts: Opts, label: &str) -> Counters<L> {
        let family = self.register(IntCounterVec::new(opts, &[label]));
        Counters(L::VARIANTS.iter().map(|value| family.with_label_values(&[value.as_str()])).collect(), PhantomData)
    }

    /// Registers a gauge of whole numbers.
    #[must_use]
    pub fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    /// Registers a gauge.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    /// Registers a gauge with constant labels; `value` is called at each scrape.
    pub fn show(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let opts = labels.iter().fold(Opts::new(name, help), |opts, (name, value)| opts.const_label(*name, *value));
        let _ = self.register(Gauge::with_opts(opts).map(|gauge| Shown { gauge, value: Arc::new(value) }));
    }

    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.gather(), &mut text) {
            tracing::error!(%error, "could not render the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A histogram that is not registered yet.
///
/// # Errors
/// If its name or its buckets are invalid.
pub fn histogram(name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

/// A gauge whose value is read at each scrape.
struct Shown<F> {
    gauge: Gauge,
    value: Arc<F>,
}

impl<F> Clone for Shown<F> {
    fn clone(&self) -> Self {
        Self { gauge: self.gauge.clone(), value: Arc::clone(&self.value) }
    }
}

impl<F: Fn() -> f64 + Send + Sync> Collector for Shown<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.value)());
        self.gauge.collect()
    }
}
