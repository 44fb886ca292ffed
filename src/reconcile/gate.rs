//! What the operator knows of the gate: the table that the gate should serve, compiled from the same
//! objects, and what the gate reports that it does serve.
//!
//! [`GateWatch::start`] keeps both and says which offers to look at again. It reads only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::issues::OfferName;
use crate::cluster::Cache;
use crate::gate::keeper::{KeptTable, keep};
use crate::gate::report::{OfferReport, Report, ReportReader};
use crate::gate::table::{GateSettings, OfferTable};
use crate::metrics::GateMetrics;

/// How often the gate is asked for its report.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long the gate may be silent before its last report no longer counts.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an offer waits for a table that shows it.
const TABLE_WAIT: Duration = Duration::from_secs(2);
/// Offers that a listener may lag behind; one that lags further looks at every offer instead.
const BACKLOG: usize = 4096;

/// The gate, as far as the operator knows it. Clones share it.
#[derive(Clone)]
pub(crate) struct GateWatch {
    kept: watch::Receiver<KeptTable>,
    /// The last report, unless the gate has been silent for too long.
    report: watch::Sender<Option<Arc<Report>>>,
    changes: broadcast::Sender<OfferName>,
}

/// What is known of one offer.
#[derive(Clone, Debug)]
pub(crate) struct GateView {
    pub(crate) table: Arc<OfferTable>,
    /// What the gate reports; `None` if it does not have the offer.
    pub(crate) report: Option<OfferReport>,
    /// Whether the gate answers at all.
    pub(crate) is_reporting: bool,
}

impl GateWatch {
    /// Starts to watch. What is returned besides runs for as long as the process.
    pub(crate) fn start(
        cache: &Cache,
        settings: GateSettings,
        metrics: GateMetrics,
        reader: Option<ReportReader>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, kept) = watch::channel(KeptTable::default());
        let watch = Self {
            kept,
            report: watch::Sender::new(None),
            changes: broadcast::Sender::new(BACKLOG),
        };
        let tasks = {
            let (cache, watch) = (cache.clone(), watch.clone());
            async move {
                tokio::select! {
                    () = keep(cache, settings, metrics, sender) => {}
                    () = watch.clone().compare() => {}
                    () = watch.ask(reader) => {}
                }
            }
        };
        (watch, tasks)
    }

    /// Offers whose table entry or report changed, from here on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<OfferName> {
        self.changes.subscribe()
    }

    /// What is known of an offer, once the table is as new as the cache was.
    pub(crate) async fn view(&self, cache: &Cache, name: &OfferName) -> GateView {
        let version = cache.version();
        let mut kept = self.kept.clone();
        let caught_up = kept.wait_for(|kept| kept.version >= version);
        // What comes later triggers the offer again.
        let _ = timeout(TABLE_WAIT, caught_up).await;
        let table = Arc::clone(&self.kept.borrow().table);
        let report = self.report.borrow().clone();
        let offer = format!("{}/{}", name.0, name.1);
        GateView {
            table,
            report: report
                .as_ref()
                .and_then(|report| report.offers.get(&offer).cloned()),
            is_reporting: report.is_some(),
        }
    }

    /// Says which offers changed in the table.
    async fn compare(self) {
        let mut kept = self.kept.clone();
        let mut before = Arc::new(OfferTable::default());
        while kept.changed().await.is_ok() {
            let after = Arc::clone(&kept.borrow_and_update().table);
            if after.digest != before.digest {
                for name in after.differing(&before) {
                    let _ = self.changes.send(name);
                }
                before = after;
            }
        }
    }

    /// Asks the gate, and says which offers it reports otherwise than before.
    async fn ask(self, reader: Option<ReportReader>) {
        let Some(mut reader) = reader else {
            return std::future::pending().await;
        };
        let mut heard = Instant::now();
        loop {
            match reader.read().await {
                Ok(Some(report)) => {
                    heard = Instant::now();
                    self.take(Some(Arc::new(report)));
                }
                Ok(None) => heard = Instant::now(),
                Err(error) if heard.elapsed() > SILENCE && self.report.borrow().is_some() => {
                    warn!(%error, "the gate does not report");
                    reader.forget();
                    self.take(None);
                }
                Err(_) => {}
            }
            sleep(ASK_EVERY).await;
        }
    }

    fn take(&self, report: Option<Arc<Report>>) {
        let before = self.report.send_replace(report.clone());
        if before.is_none() != report.is_none() {
            info!(is_reporting = report.is_some(), "the gate's report");
        }
        let offers = |report: Option<Arc<Report>>| {
            report
                .map(|report| report.offers.clone())
                .unwrap_or_default()
        };
        let (before, after) = (offers(before), offers(report));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            if before.get(name) != after.get(name)
                && let Some((namespace, name)) = name.split_once('/')
            {
                let _ = self.changes.send((namespace.to_owned(), name.to_owned()));
            }
        }
    }
}
