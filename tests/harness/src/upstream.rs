//! An upstream on the node that counts what it is asked, and Services that lead to programs on the
//! node.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use serde_json::json;
use tokio::net::TcpListener;

use crate::objects::{create, delete_if_exists};

/// Path that answers with a stream of events.
pub const EVENTS: &str = "/events";
/// Number of events of a stream.
pub const EVENT_COUNT: usize = 6;
/// Path of a websocket that sends back every text.
pub const ECHO: &str = "/echo";
/// Time between two events.
pub const EVENT_EVERY: Duration = Duration::from_secs(1);

/// What the upstream saw, and what it does.
#[derive(Debug, Default)]
pub struct Upstream {
    /// Number of requests, without those of its health.
    pub requests: AtomicUsize,
    /// Status code of its health; 0 for 200.
    pub health: AtomicUsize,
    /// Status code of every answer; 0 for 200.
    pub status: AtomicUsize,
    /// Milliseconds before every answer.
    pub delay: AtomicUsize,
}

impl Upstream {
    /// Serves at a free port of an address, for as long as the process runs.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn serve(host: IpAddr) -> Result<(Arc<Self>, SocketAddr)> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let upstream = Arc::new(Self::default());
        let state = Arc::clone(&upstream);
        let router = Router::new().fallback(Self::answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((upstream, address))
    }

    /// Number of requests so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn answer(State(upstream): State<Arc<Self>>, request: Request) -> Response {
        let code = |stored: &AtomicUsize| {
            let status = stored.load(Ordering::SeqCst) as u16;
            StatusCode::from_u16(status).unwrap_or(StatusCode::OK)
        };
        if request.uri().path() == "/health" {
            return (code(&upstream.health), "health").into_response();
        }
        let count = upstream.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let delay = upstream.delay.load(Ordering::SeqCst) as u64;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let status = code(&upstream.status);
        if request.uri().path() == EVENTS {
            return events();
        }
        if request.uri().path() == ECHO {
            let (mut parts, _) = request.into_parts();
            return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
                Ok(upgrade) => upgrade.on_upgrade(echo),
                Err(rejection) => rejection.into_response(),
            };
        }
        let payer = request.headers().get("x-payment-payer").cloned();
        let payer = payer.and_then(|payer| payer.to_str().map(str::to_owned).ok());
        let target = request.uri().to_string();
        let answer = json!({ "count": count, "target": target, "payer": payer });
        (status, Body::from(format!("{answer}\n"))).into_response()
    }
}

/// An event every [`EVENT_EVERY`].
fn events() -> Response {
    let events = stream::unfold(0, |nth| async move {
        if nth == EVENT_COUNT {
            return None;
        }
        if nth > 0 {
            tokio::time::sleep(EVENT_EVERY).await;
        }
        Some((Ok::<_, Infallible>(format!("data: {nth}\n\n")), nth + 1))
    });
    let fields = [("content-type", "text/event-stream")];
    (fields, Body::from_stream(events)).into_response()
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A port that nothing listens on.
///
/// # Errors
/// If there is none.
pub async fn free_port(host: IpAddr) -> Result<u16> {
    let listener = TcpListener::bind((host, 0)).await?;
    Ok(listener.local_addr()?.port())
}

/// Leads port 80 of a Service to an address of the node, and creates the Service if it does not
/// exist. It has a selector, as Services of sellers have.
///
/// # Errors
/// If the API server refuses.
pub async fn point_service(
    client: Client,
    namespace: &str,
    name: &str,
    to: SocketAddr,
) -> Result<()> {
    // Else the Service would lead to where an earlier one of its name led, for a moment.
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    delete_if_exists(&slices, &format!("{name}-node")).await?;
    let services = Api::<Service>::namespaced(client, namespace);
    if services.get_opt(name).await?.is_none() {
        let service = json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
        });
        let service: Service = serde_json::from_value(service)?;
        create(&services, &service).await?;
    }
    let slice = json!({
        "metadata": {
            "name": format!("{name}-node"), "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "tests",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [to.ip()], "conditions": { "ready": true } }],
        "ports": [{ "port": to.port() }],
    });
    let slice: EndpointSlice = serde_json::from_value(slice)?;
    create(&slices, &slice).await?;
    Ok(())
}
