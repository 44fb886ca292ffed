//! Clients of the API server.
//!
//! A client retries nothing by itself: a write that is repeated behind the back of whoever sent it turns its own success
//! into a conflict, and can replay it long after it was decided.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::Service;

use crate::leader::{Fence, fence};
use crate::metrics;

/// How long a connection may take.
const CONNECT_BUDGET: Duration = Duration::from_secs(3);
/// How long a connection may be silent. Watches end every minute and send bookmarks before.
const SILENCE_BUDGET: Duration = Duration::from_secs(70);

/// The configuration that every client here starts from.
///
/// # Errors
/// If neither a kubeconfig nor a Pod's service account is at hand.
pub async fn config() -> Result<Config, kube::config::InferConfigError> {
    Ok(settle(Config::infer().await?))
}

fn settle(mut config: Config) -> Config {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_BUDGET);
    config.read_timeout = Some(SILENCE_BUDGET);
    config.reset_reader_on_write = true;
    config
}

/// The elector's client: on connections of its own, and under no fence, since its writes are what opens one.
///
/// # Errors
/// If the configuration cannot be used.
pub fn unfenced(config: Config) -> Result<Client, kube::Error> {
    Client::try_from(settle(config))
}

/// The client of everything else.
///
/// # Errors
/// If the configuration cannot be used.
pub fn fenced(config: Config, fence: Fence, metrics: metrics::Client) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(settle(config))?;
    let fence = fence::Layer::new(fence, metrics.clone());
    Ok(builder.with_layer(&Count(metrics)).with_layer(&fence).build())
}

/// Counts every request that leaves the process.
#[derive(Clone, Debug)]
struct Count(metrics::Client);

impl<S> tower::Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { metrics: self.0.clone(), inner }
    }
}

#[derive(Clone, Debug)]
struct Counted<S> {
    metrics: metrics::Client,
    inner: S,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (metrics, method, begun) = (self.metrics.clone(), request.method().clone(), Instant::now());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            metrics.requested(&method, response.as_ref().ok().map(Response::status), begun.elapsed());
            response
        })
    }
}
