//! Requests documents at a constant rate while offers change, and times the answers.
//!
//! A request is sent when it is due, whether or not earlier ones were answered, so a slow answer
//! hides no other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use election::Candidate;
use harness::bench::{Distribution, ProgressTrack};
use reqwest::header::HOST;
use scale::offers::{BASE_URL, Kind, Offers};
use scale::replicas::Role;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Requests per second.
pub const RATE: usize = 100;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Path of the listing of all agents.
const LISTING: &str = "/.well-known/agent-registration.json";

/// What is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Document {
    /// The document of one agent, of all agents in turn.
    Agent,
    /// The listing of all agents.
    Listing,
}

impl Document {
    /// Display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "/agents/<key>.json",
            Self::Listing => "listing",
        }
    }
}

/// How one replica served one kind of document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Serving {
    /// What was requested.
    pub document: Document,
    /// From which replica.
    pub role: Role,
    /// Number of requests.
    pub requests: usize,
    /// Offers that changed in that time.
    pub changes: usize,
    /// Size of the largest document in bytes.
    pub bytes: usize,
    /// Median time until the whole document was read, in milliseconds.
    pub p50: f64,
    /// The time that 99 of 100 requests took at most, in milliseconds.
    pub p99: f64,
    /// The longest time, in milliseconds.
    pub max: f64,
}

/// Requests one kind of document from a replica for some seconds.
///
/// # Errors
/// If a request fails, or an offer cannot be changed.
pub async fn measure(
    offers: &Offers,
    replica: (Role, &Candidate),
    document: Document,
    agents: &[String],
    seconds: usize,
    track: &ProgressTrack,
) -> Result<Serving> {
    let (role, candidate) = replica;
    let address = candidate.argument("--http-bind").context("--http-bind")?;
    let host = BASE_URL.trim_start_matches("http://");
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()?;
    let urls: Arc<Vec<String>> = Arc::new(match document {
        Document::Agent => agents
            .iter()
            .map(|path| format!("http://{address}{path}"))
            .collect(),
        Document::Listing => vec![format!("http://{address}{LISTING}")],
    });
    ensure!(!urls.is_empty(), "there are no agents");
    // The first request opens a connection and builds the listing.
    get(&client, &urls[0], host).await?;
    let (mut running, changes) = tokio::try_join!(send(&client, &urls, host, seconds), async {
        let mut ticks = interval(Duration::from_secs(1));
        for change in 0..seconds {
            ticks.tick().await;
            offers
                .change(Kind::Registered, change % agents.len())
                .await?;
            track.step("");
        }
        anyhow::Ok(seconds)
    })?;
    let (mut times, mut bytes) = (Vec::new(), 0);
    while let Some(answer) = running.join_next().await {
        let (time, size) = answer??;
        times.push(time.as_secs_f64() * 1000.0);
        bytes = bytes.max(size);
    }
    let times = Distribution::of(times);
    let quantile = |share| times.quantile(share).unwrap_or(f64::NAN);
    Ok(Serving {
        document,
        role,
        requests: times.count(),
        changes,
        bytes,
        p50: quantile(0.5),
        p99: quantile(0.99),
        max: quantile(1.0),
    })
}

/// Sends all requests when they are due.
async fn send(
    client: &reqwest::Client,
    urls: &Arc<Vec<String>>,
    host: &'static str,
    seconds: usize,
) -> Result<JoinSet<Result<(Duration, usize)>>> {
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(RATE)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = JoinSet::new();
    for number in 0..seconds * RATE {
        ticks.tick().await;
        let (client, urls) = (client.clone(), Arc::clone(urls));
        running.spawn(async move {
            // A stride that has no factor in common with most counts, so that every agent is
            // requested.
            get(&client, &urls[number * 7919 % urls.len()], host).await
        });
    }
    Ok(running)
}

/// How long a document took, and its size.
async fn get(client: &reqwest::Client, url: &str, host: &str) -> Result<(Duration, usize)> {
    let begun = Instant::now();
    let response = client.get(url).header(HOST, host).send().await;
    let mut response = response?.error_for_status()?;
    let mut size = 0;
    while let Some(chunk) = response.chunk().await? {
        size += chunk.len();
    }
    Ok((begun.elapsed(), size))
}
