//! Metrics of the process itself: its build, its resources and its async runtime.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGauge, Opts, PullingGauge};
use tokio::runtime::{Handle, RuntimeMetrics};

use super::Error;

pub(super) fn collectors() -> Result<Vec<Box<dyn Collector>>, Error> {
    let build = Opts::new(
        "serviceoffer_build_info",
        "Always 1; the labels describe the build.",
    );
    let build = IntGauge::with_opts(build.const_label("version", env!("CARGO_PKG_VERSION")))?;
    build.set(1);
    let mut collectors: Vec<Box<dyn Collector>> =
        vec![Box::new(ProcessCollector::for_self()), Box::new(build)];
    if let Ok(handle) = Handle::try_current() {
        for gauge in tokio_gauges(&handle)? {
            collectors.push(Box::new(gauge));
        }
    }
    Ok(collectors)
}

/// What tokio's stable API reports of the runtime that everything but the elector runs on.
fn tokio_gauges(handle: &Handle) -> Result<Vec<PullingGauge>, Error> {
    type Read = fn(&RuntimeMetrics) -> f64;
    let gauges: [(&str, &str, Read); 3] = [
        (
            "serviceoffer_tokio_workers",
            "Worker threads of the async runtime.",
            |metrics| metrics.num_workers() as f64,
        ),
        (
            "serviceoffer_tokio_alive_tasks",
            "Tasks of the async runtime that have not finished.",
            |metrics| metrics.num_alive_tasks() as f64,
        ),
        (
            "serviceoffer_tokio_global_queue_depth",
            "Tasks that are waiting for a worker thread.",
            |metrics| metrics.global_queue_depth() as f64,
        ),
    ];
    let mut pulling = Vec::new();
    for (name, help, read) in gauges {
        let handle = handle.clone();
        let value = move || read(&handle.metrics());
        pulling.push(PullingGauge::new(name, help, Box::new(value))?);
    }
    Ok(pulling)
}
