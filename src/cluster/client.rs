//! Kubernetes API clients.
//!
//! No client retries by itself: a write that is retried without its caller turns its own success
//! into a conflict, and can be replayed long after it was decided.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::Service;

use crate::leader::Fence;
use crate::leader::clock::Clock;
use crate::leader::fence::{FenceLayer, FencedExecutor};
use crate::metrics;

/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may be silent. Watches end every minute, and send bookmarks more often.
const READ_TIMEOUT: Duration = Duration::from_secs(70);

/// The configuration of all clients: from the kubeconfig, or from the service account of the Pod.
///
/// # Errors
/// If there is neither.
pub async fn config() -> Result<Config, kube::config::InferConfigError> {
    Ok(configure(Config::infer().await?))
}

fn configure(mut config: Config) -> Config {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config
}

/// The elector's client, with its own connections. It has no fence, because its writes are what
/// opens the fence.
pub fn unfenced(config: Config) -> Result<Client, kube::Error> {
    Client::try_from(configure(config))
}

/// A client that only reads: its fence never opens.
pub fn reading(config: Config, metrics: metrics::KubeMetrics) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(configure(config))?;
    let fence = FenceLayer::new(Fence::closed(Clock::start()), metrics.clone());
    Ok(builder
        .with_layer(&RequestCounter(metrics))
        .with_layer(&fence)
        .build())
}

/// A client that writes while the fence is open, with its own connections.
pub fn writing(
    config: Config,
    fence: Fence,
    metrics: metrics::KubeMetrics,
) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from((configure(config), FencedExecutor::new(fence.clone())))?;
    let fence = FenceLayer::new(fence, metrics.clone());
    Ok(builder
        .with_layer(&RequestCounter(metrics))
        .with_layer(&fence)
        .build())
}

/// Counts and times every request that leaves the process.
#[derive(Clone, Debug)]
struct RequestCounter(metrics::KubeMetrics);

impl<S> tower::Layer<S> for RequestCounter {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> CountedService<S> {
        CountedService {
            metrics: self.0.clone(),
            inner,
        }
    }
}

#[derive(Clone, Debug)]
struct CountedService<S> {
    metrics: metrics::KubeMetrics,
    inner: S,
}

impl<S, A, B> Service<Request<A>> for CountedService<S>
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
        let (metrics, method, begun) = (
            self.metrics.clone(),
            request.method().clone(),
            Instant::now(),
        );
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            metrics.requested(
                &method,
                response.as_ref().ok().map(Response::status),
                begun.elapsed(),
            );
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use http::StatusCode;
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::Api;
    use kube::api::PostParams;

    use super::*;
    use crate::metrics::Metrics;
    use crate::telemetry::causes;

    /// A server that rejects every request with one status code, and counts them.
    async fn rejecting_server(code: StatusCode) -> (Config, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let reject = async move || {
            counted.fetch_add(1, Ordering::Relaxed);
            (code, [("retry-after", "0")])
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(reject)).await });
        let config = Config::new(address.parse().unwrap());
        assert!(config.default_retry, "kube retries by default");
        (config, count)
    }

    fn leases(client: &Client) -> Api<Lease> {
        Api::namespaced(client.clone(), "operators")
    }

    fn metrics() -> metrics::KubeMetrics {
        Metrics::new("lease").unwrap().kube
    }

    #[tokio::test]
    async fn no_client_retries_a_rejected_request() {
        for code in [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ] {
            let (config, count) = rejecting_server(code).await;
            let elector = unfenced(config.clone()).unwrap();
            let reader = reading(config.clone(), metrics()).unwrap();
            let writer = writing(config, Fence::always_open(), metrics()).unwrap();
            let mut sent = 0;
            let mut sends_one = |what: &str| {
                sent += 1;
                assert_eq!(count.load(Ordering::Relaxed), sent, "{code} of a {what}");
            };
            assert!(leases(&reader).get("a").await.is_err());
            sends_one("read");
            for client in [elector, writer] {
                let (lease, parameters) = (Lease::default(), PostParams::default());
                assert!(leases(&client).create(&parameters, &lease).await.is_err());
                sends_one("creation");
                assert!(
                    leases(&client)
                        .replace("a", &parameters, &lease)
                        .await
                        .is_err()
                );
                sends_one("replacement");
            }
        }
    }

    #[tokio::test]
    async fn closed_fence_and_reading_client_send_no_write() {
        let (config, count) = rejecting_server(StatusCode::SERVICE_UNAVAILABLE).await;
        let reader = reading(config.clone(), metrics()).unwrap();
        let writer = writing(config, Fence::closed(Clock::start()), metrics()).unwrap();
        for client in [&reader, &writer] {
            let error = leases(client)
                .create(&PostParams::default(), &Lease::default())
                .await
                .unwrap_err();
            assert!(
                causes(&error).to_string().contains("not the leader"),
                "{error:?}"
            );
        }
        assert_eq!(count.load(Ordering::Relaxed), 0);
        assert!(leases(&reader).get("a").await.is_err());
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
