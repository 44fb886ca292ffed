//! Families of series with typed labels. A family cannot be used with labels that it does not have,
//! on which the `prometheus` crate panics.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{Error, Label, register};

/// Drops the empty names and values of [`Label`]s that stand for "no label".
fn present<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    labels
        .iter()
        .copied()
        .filter(|text| !text.is_empty())
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
        let counters = IntCounterVec::new(Opts::new(name, help), &present(&[A::NAME, B::NAME]))?;
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
            .with_label_values(&present(&[a.as_str(), b.as_str()]))
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
            register(registry, HistogramVec::new(options, &present(&[A::NAME]))?)?,
            PhantomData,
        );
        for a in A::ALL {
            timers.0.with_label_values(&present(&[a.as_str()]));
        }
        Ok(timers)
    }

    pub(super) fn observe(&self, a: A, duration: Duration) {
        self.0
            .with_label_values(&present(&[a.as_str()]))
            .observe(duration.as_secs_f64());
    }
}

/// Counters by chain and one label. A chain has no series before [`track`](Self::track).
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

/// Gauges by chain. A chain has no series before [`track`](Self::track).
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
