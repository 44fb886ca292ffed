//! The fence as a tower layer of a Kubernetes client: rejects every request but a read while the
//! fence is closed.
//!
//! There is one exception, the quarantine of a ledger ([`StopsOnly`]). It does not stop requests
//! that were admitted before; [`super::executor`] does. [`Fence`] alone decides what is admitted.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request};
use tower::{BoxError, Service};

use super::{Fence, NotLeading};
use crate::api::{GROUP, VERSION};
use crate::metrics;

/// Marks the one write that needs no leadership, because it can only stop: it puts a SignerLedger
/// in quarantine. [`crate::cluster::quarantine`] alone marks a request so.
#[derive(Clone, Copy, Debug)]
pub struct StopsOnly;

impl StopsOnly {
    /// Whether a request is marked, and replaces a SignerLedger.
    fn admits<B>(request: &Request<B>) -> bool {
        let ledgers = format!("/apis/{GROUP}/{VERSION}/signerledgers/");
        request.extensions().get::<Self>().is_some()
            && request.method() == Method::PUT
            && request.uri().path().starts_with(&ledgers)
    }
}

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
        let needs_leadership = request.method() != Method::GET && !StopsOnly::admits(&request);
        if needs_leadership && !fence.is_open() {
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
    async fn closed_fence_admits_the_quarantine_of_a_ledger_and_no_other_write() {
        const LEDGER: &str = "/apis/obol.org/v1alpha1/signerledgers/1-0x51";
        let metrics = metrics::Metrics::new("lease").unwrap().kube;
        let fence = Fence::always_open();
        fence.close();
        let client = FenceLayer::new(fence, metrics)
            .layer(service_fn(async |_: Request<()>| Ok::<_, BoxError>(())));
        let admits = async |method: Method, path: &str, marked: bool| {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            if marked {
                request.extensions_mut().insert(StopsOnly);
            }
            client.clone().oneshot(request).await.is_ok()
        };
        assert!(admits(Method::PUT, LEDGER, true).await);
        assert!(!admits(Method::PUT, LEDGER, false).await);
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            assert!(!admits(method, LEDGER, true).await);
        }
        for path in [
            "/apis/obol.org/v1alpha1/agentregistrations/r-a",
            "/apis/obol.org/v1alpha1/signerledgers",
        ] {
            assert!(!admits(Method::PUT, path, true).await, "{path}");
        }
    }

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
