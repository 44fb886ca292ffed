//! The fence as a tower layer of a Kubernetes client: rejects every request but a read while the
//! fence is closed.
//!
//! It does not stop requests that were admitted before; [`super::executor`] does. [`Fence`] alone
//! decides what is admitted.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request};
use tower::{BoxError, Service};

use super::{Fence, NotLeading};
use crate::metrics;

/// Wraps a client in a [`FencedService`].
#[derive(Clone, Debug)]
pub struct FenceLayer {
    fence: Fence,
    metrics: metrics::KubeMetrics,
}

impl FenceLayer {
    /// A layer for this fence, which counts the requests that it rejects.
    #[must_use]
    pub fn new(fence: Fence, metrics: metrics::KubeMetrics) -> Self {
        Self { fence, metrics }
    }
}

impl<S> tower::Layer<S> for FenceLayer {
    type Service = FencedService<S>;

    fn layer(&self, inner: S) -> FencedService<S> {
        FencedService {
            layer: self.clone(),
            inner,
        }
    }
}

/// A client that starts no request but reads while the fence is closed.
#[derive(Clone, Debug)]
pub struct FencedService<S> {
    layer: FenceLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for FencedService<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let FenceLayer { fence, metrics } = &self.layer;
        if request.method() != Method::GET && !fence.is_open() {
            metrics.rejected(request.method());
            return Box::pin(async { Err(NotLeading::Closed.into()) });
        }
        let response = self.inner.call(request);
        Box::pin(async move { response.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use tower::{Layer as _, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn closed_fence_admits_reads_and_counts_rejected_writes() {
        let (fence, metrics) = (
            Fence::always_open(),
            metrics::Metrics::new("lease").unwrap(),
        );
        let layer = FenceLayer::new(fence.clone(), metrics.kube.clone());
        let client = layer.layer(service_fn(async |_: Request<()>| Ok::<_, BoxError>(())));
        let send = async |method: Method| {
            let request = Request::builder().method(method).body(()).unwrap();
            client
                .clone()
                .oneshot(request)
                .await
                .map_err(|error| error.to_string())
        };
        assert_eq!(send(Method::POST).await, Ok(()));
        fence.close();
        assert_eq!(send(Method::GET).await, Ok(()));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(send(method).await, Err(NotLeading::Closed.to_string()));
        }
        let text = metrics.render().unwrap();
        for series in [
            "{method=\"POST\"} 1",
            "{method=\"PUT\"} 1",
            "{method=\"GET\"} 0",
        ] {
            assert!(
                text.contains(&format!("serviceoffer_fence_rejections_total{series}")),
                "{text}"
            );
        }
    }
}
