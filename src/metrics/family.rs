//! Families of series with typed labels: they cannot be asked for a label that they do not have, which the `prometheus`
//! crate would answer with a panic.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{Error, Label, register};

/// Names of the labels that exist.
fn names<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    labels
        .iter()
        .copied()
        .filter(|name| !name.is_empty())
        .collect()
}

/// Counters by two labels.
#[derive(Debug)]
pub(super) struct Counters<A, B>(IntCounterVec, PhantomData<(A, B)>);

impl<A, B> Clone for Counters<A, B> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<A: Label, B: Label> Counters<A, B> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Result<Self, Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), &names(&[A::NAME, B::NAME]))?;
        let counters = Self(register(registry, counters)?, PhantomData);
        for a in A::ALL {
            for b in B::ALL {
                counters.add(*a, *b, 0);
            }
        }
        Ok(counters)
    }

    pub(super) fn increment(&self, a: A, b: B) {
        self.add(a, b, 1);
    }

    fn add(&self, a: A, b: B, count: u64) {
        self.0
            .with_label_values(&names(&[a.as_str(), b.as_str()]))
            .inc_by(count);
    }
}

/// Gauges by one label.
#[derive(Debug)]
pub(super) struct Gauges<A>(GaugeVec, PhantomData<A>);

impl<A> Clone for Gauges<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<A: Label> Gauges<A> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Result<Self, Error> {
        let gauges = Self(
            register(registry, GaugeVec::new(Opts::new(name, help), &[A::NAME])?)?,
            PhantomData,
        );
        A::ALL.iter().for_each(|a| gauges.set(*a, 0.0));
        Ok(gauges)
    }

    pub(super) fn set(&self, a: A, value: f64) {
        self.0.with_label_values(&[a.as_str()]).set(value);
    }

    pub(super) fn add(&self, a: A, value: f64) {
        self.0.with_label_values(&[a.as_str()]).add(value);
    }
}

/// Histograms of durations in seconds, by one label.
#[derive(Debug)]
pub(super) struct Timers<A>(HistogramVec, PhantomData<A>);

impl<A> Clone for Timers<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<A: Label> Timers<A> {
    pub(super) fn new(
        registry: &Registry,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Self, Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let timers = Self(
            register(registry, HistogramVec::new(options, &names(&[A::NAME]))?)?,
            PhantomData,
        );
        for a in A::ALL {
            timers.0.with_label_values(&names(&[a.as_str()]));
        }
        Ok(timers)
    }

    pub(super) fn observe(&self, a: A, duration: Duration) {
        self.0
            .with_label_values(&names(&[a.as_str()]))
            .observe(duration.as_secs_f64());
    }
}

/// Counters by chain and one more label.
#[derive(Debug)]
pub(super) struct ChainCounters<A>(IntCounterVec, PhantomData<A>);

impl<A> Clone for ChainCounters<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<A: Label> ChainCounters<A> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Result<Self, Error> {
        Ok(Self(
            register(
                registry,
                IntCounterVec::new(Opts::new(name, help), &["chain", A::NAME])?,
            )?,
            PhantomData,
        ))
    }

    pub(super) fn track(&self, chain_id: u64) {
        for a in A::ALL {
            self.0
                .with_label_values(&[chain_id.to_string().as_str(), a.as_str()]);
        }
    }

    pub(super) fn increment(&self, chain_id: u64, a: A) {
        self.0
            .with_label_values(&[chain_id.to_string().as_str(), a.as_str()])
            .inc();
    }
}

/// Gauges by chain.
#[derive(Clone, Debug)]
pub(super) struct ChainGauges(GaugeVec);

impl ChainGauges {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Result<Self, Error> {
        Ok(Self(register(
            registry,
            GaugeVec::new(Opts::new(name, help), &["chain"])?,
        )?))
    }

    pub(super) fn track(&self, chain_id: u64) {
        self.0.with_label_values(&[chain_id.to_string()]);
    }

    pub(super) fn set(&self, chain_id: u64, value: f64) {
        self.0.with_label_values(&[chain_id.to_string()]).set(value);
    }
}

/// Numbers that are computed when they are asked for.
pub(super) mod collectors {
    use std::sync::Arc;

    use prometheus::core::{Collector, Desc};
    use prometheus::proto::MetricFamily;
    use prometheus::{IntGaugeVec, Opts, PullingGauge};

    use crate::metrics::{Compute, Error, Label, OfferCondition, OfferCounts, Status};

    /// Numbers of the runtime that everything but the elector runs on, as far as tokio's stable API has them.
    pub(in crate::metrics) fn runtime() -> Vec<Box<dyn Collector>> {
        type Read = fn(&tokio::runtime::RuntimeMetrics) -> f64;
        let gauges: [(&str, &str, Read); 3] = [
            ("serviceoffer_tokio_workers", "Worker threads.", |metrics| {
                metrics.num_workers() as f64
            }),
            (
                "serviceoffer_tokio_alive_tasks",
                "Tasks that have not ended.",
                |metrics| metrics.num_alive_tasks() as f64,
            ),
            (
                "serviceoffer_tokio_global_queue_depth",
                "Tasks that wait for a worker.",
                |metrics| metrics.global_queue_depth() as f64,
            ),
        ];
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return Vec::new();
        };
        let pull = |(name, help, read): (&str, &str, Read)| {
            let handle = handle.clone();
            PullingGauge::new(name, help, Box::new(move || read(&handle.metrics()))).ok()
        };
        gauges
            .into_iter()
            .filter_map(pull)
            .map(|gauge| Box::new(gauge) as Box<dyn Collector>)
            .collect()
    }

    /// `serviceoffer_offers{condition,status}`.
    pub(in crate::metrics) struct Offers {
        gauges: IntGaugeVec,
        count: Compute<OfferCounts>,
    }

    impl Offers {
        pub(in crate::metrics) fn new(
            count: impl Fn() -> OfferCounts + Send + Sync + 'static,
        ) -> Result<Self, Error> {
            let options = Opts::new("serviceoffer_offers", "Offers by condition and its status.");
            let gauges = IntGaugeVec::new(options, &[OfferCondition::NAME, Status::NAME])?;
            Ok(Self {
                gauges,
                count: Arc::new(count),
            })
        }
    }

    impl Collector for Offers {
        fn desc(&self) -> Vec<&Desc> {
            self.gauges.desc()
        }

        fn collect(&self) -> Vec<MetricFamily> {
            let counts = (self.count)();
            for (condition, row) in OfferCondition::ALL.iter().zip(counts) {
                for (status, count) in Status::ALL.iter().zip(row) {
                    let gauge = self
                        .gauges
                        .with_label_values(&[condition.as_str(), status.as_str()]);
                    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
            self.gauges.collect()
        }
    }
}
