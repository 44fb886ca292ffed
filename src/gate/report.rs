//! What a gate tells the operator: which generation of each offer it serves, and which upstreams
//! answer. The operator, which holds keys, never calls an upstream itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;

use super::health::{Probe, UpstreamHealth};
use super::keeper::KeptTable;
use super::proxy::Proxy;
use super::table::{OfferTable, Published};

/// Path of the report on the admin port.
pub(crate) const PATH: &str = "/report";
/// How long a gate may take to report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Mean time between two probes of an upstream.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// How long an upstream may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Upstreams that are probed at a time.
const PROBES_AT_ONCE: usize = 16;
/// How often probes that are due are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a gate says of an offer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfferReport {
    pub uid: String,
    pub generation: i64,
    /// `None` until the upstream was probed often enough.
    pub health: Option<UpstreamHealth>,
}

/// What a gate says of all offers that have a place in its table, by `namespace/name`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub offers: BTreeMap<String, OfferReport>,
}

/// Probes of upstreams, by uid of the offer. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes(Arc<Mutex<HashMap<String, Probe>>>);

impl Probes {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<String, Probe>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn report(&self, table: &OfferTable) -> Report {
        let offer = |offer: &Arc<Published>| {
            let report = OfferReport {
                uid: offer.uid.clone(),
                generation: offer.generation,
                health: self.with(|all| all.get(&offer.uid)?.health.clone()),
            };
            (format!("{}/{}", offer.name.0, offer.name.1), report)
        };
        Report {
            offers: table.published().map(offer).collect(),
        }
    }
}

/// Serves the report. A reader that names the tag of the last one gets it only if it changed.
pub(crate) fn router(table: watch::Receiver<KeptTable>, probes: Probes) -> Router {
    Router::new()
        .route(PATH, get(report))
        .with_state((table, probes))
}

async fn report(
    State((table, probes)): State<(watch::Receiver<KeptTable>, Probes)>,
    fields: HeaderMap,
) -> Response {
    let table = Arc::clone(&table.borrow().table);
    let Ok(body) = serde_json::to_string(&probes.report(&table)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let hash: [u8; 32] = Sha256::digest(&body).into();
    let tag = format!("\"{}\"", alloy::primitives::hex::encode(&hash[..16]));
    let known = fields
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok());
    if known == Some(tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    ([(ETAG, tag)], body).into_response()
}

/// Reads the report of a gate.
pub(crate) struct ReportReader {
    client: reqwest::Client,
    url: String,
    /// Tag of the last report.
    tag: Option<String>,
}

/// The gate did not report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("failed to ask the gate")]
    Request(#[from] reqwest::Error),
    #[error("the gate answered {0}")]
    Status(StatusCode),
    #[error("the gate's report cannot be decoded")]
    Decode(#[from] serde_json::Error),
}

impl ReportReader {
    /// # Errors
    /// If no HTTP client can be built.
    pub(crate) fn new(url: String) -> Result<Self, ReportError> {
        let client = reqwest::Client::builder()
            .timeout(REPORT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            client,
            url,
            tag: None,
        })
    }

    /// The report; `None` if it is the last one.
    ///
    /// # Errors
    /// If the gate does not answer, or not with a report.
    pub(crate) async fn read(&mut self) -> Result<Option<Report>, ReportError> {
        let mut request = self.client.get(&self.url);
        if let Some(tag) = &self.tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            StatusCode::OK => {
                let tag = response.headers().get(ETAG);
                let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
                let report = serde_json::from_slice(&response.bytes().await?)?;
                self.tag = tag;
                Ok(Some(report))
            }
            status => Err(ReportError::Status(status)),
        }
    }

    /// Asks for the whole report next time.
    pub(crate) fn forget(&mut self) {
        self.tag = None;
    }
}

/// Probes every upstream of the table, again and again.
pub(crate) async fn probe(table: watch::Receiver<KeptTable>, probes: Probes, proxy: Proxy) {
    let begun = std::time::Instant::now();
    loop {
        let current = Arc::clone(&table.borrow().table);
        let now = begun.elapsed();
        let due: Vec<_> = current
            .published()
            .filter(|offer| offer.upstream.is_ok())
            .filter(|offer| {
                probes.with(|all| {
                    let probe = all.entry(offer.uid.clone()).or_default();
                    probe.is_due(offer.generation, now)
                })
            })
            .cloned()
            .collect();
        let uids = current.uids();
        probes.with(|all| all.retain(|uid, _| uids.contains(uid.as_str())));
        let probing = futures::stream::iter(due).for_each_concurrent(PROBES_AT_ONCE, |offer| {
            let (proxy, probes) = (&proxy, &probes);
            async move {
                let answer = ask(proxy, &offer).await;
                let jitter = rand::random::<f64>().mul_add(0.4, 0.8);
                let next = begun.elapsed() + PROBE_EVERY.mul_f64(jitter);
                probes.with(|all| {
                    let probe = all.entry(offer.uid.clone()).or_default();
                    probe.answered(offer.generation, &answer, next);
                });
            }
        });
        probing.await;
        sleep(LOOK_EVERY).await;
    }
}

/// The status with which an upstream answers on its health path, or why it does not.
async fn ask(proxy: &Proxy, offer: &Published) -> Result<u16, String> {
    let upstream = offer.upstream.as_ref().map_err(ToString::to_string)?;
    let path = match offer.health_path.is_empty() {
        true => "/",
        false => offer.health_path.as_str(),
    };
    let request = Request::builder()
        .uri(path)
        .header("host", &upstream.host)
        .body(Body::empty())
        .map_err(|_| format!("healthPath {path:?} is not a path"))?;
    let response = proxy.send(request, upstream, Some(PROBE_TIMEOUT)).await;
    match response {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(error.to_string()),
    }
}
