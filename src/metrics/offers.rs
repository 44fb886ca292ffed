//! `serviceoffer_offers{condition,status}`: offers by condition, counted at every scrape.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use super::Error;
use super::label::{Label, label};

label!(
    /// A condition of an offer.
    OfferCondition, "condition" {
        Accepted = "Accepted",
        Registered = "Registered",
        Ready = "Ready",
    }
);

label!(
    /// Status of a condition.
    Status, "status" {
        True = "True",
        False = "False",
        /// The condition is Unknown or missing.
        Unknown = "Unknown",
    }
);

/// Number of offers by condition and status, in the order of [`OfferCondition::ALL`] and
/// [`Status::ALL`].
pub type OfferCounts = [[u64; Status::ALL.len()]; OfferCondition::ALL.len()];

pub(super) struct OfferCollector {
    gauges: IntGaugeVec,
    count: Arc<dyn Fn() -> OfferCounts + Send + Sync>,
}

impl OfferCollector {
    pub(super) fn new(
        count: impl Fn() -> OfferCounts + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let options = Opts::new("serviceoffer_offers", "Offers by condition and status.");
        let gauges = IntGaugeVec::new(options, &[OfferCondition::NAME, Status::NAME])?;
        Ok(Self {
            gauges,
            count: Arc::new(count),
        })
    }
}

impl Collector for OfferCollector {
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
