//! Asks chains what became of a payment. It carries out; [`super::serve`] decides when to ask.
//!
//! The endpoints are those of IdentityRegistries whose URL is in the spec: the gate reads no Secret.
//! An endpoint may lag: that a payment is not used is true only of what was sent long before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::U256;
use tokio::time::timeout;
use tracing::debug;

use super::payment::OnChain;
use super::terms::Terms;
use super::unix_seconds;
use super::wire::Authorization;
use crate::chain::{AuthorizedTransfer, RpcEndpoint, RpcError};
use crate::metrics::ChainMetrics;
use crate::telemetry::causes;

/// How long an endpoint may take. A buyer waits for it.
const LIMIT: Duration = Duration::from_secs(3);
/// Seconds after the end of an authorization from which a block shows what became of it: the blocks
/// before are not reorganized any more.
const SETTLED: u64 = 120;

/// The endpoints of chains.
pub(crate) struct ChainReader {
    metrics: ChainMetrics,
    /// By URL.
    endpoints: Mutex<HashMap<String, RpcEndpoint>>,
}

impl ChainReader {
    pub(crate) fn new(metrics: ChainMetrics) -> Self {
        Self {
            metrics,
            endpoints: Mutex::default(),
        }
    }

    /// What these endpoints show of an authorization; `None` if none of them answers.
    pub(crate) async fn read(
        &self,
        urls: &[String],
        terms: &Terms,
        authorization: &Authorization,
    ) -> Option<OnChain> {
        let mut shown = None;
        for endpoint in urls.iter().filter_map(|url| self.endpoint(url)) {
            match timeout(LIMIT, ask(&endpoint, terms, authorization)).await {
                Ok(Ok(Some(used @ (OnChain::Used | OnChain::Charged { .. })))) => {
                    return Some(used);
                }
                // What one endpoint leaves open is open.
                Ok(Ok(Some(OnChain::Unused))) => shown = Some(OnChain::Unused),
                Ok(Ok(Some(OnChain::Expired))) => shown = shown.or(Some(OnChain::Expired)),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    debug!(%endpoint, error = %causes(&error), "failed to ask a token");
                }
                Err(_) => debug!(%endpoint, "an endpoint is too slow"),
            }
        }
        shown
    }

    fn endpoint(&self, url: &str) -> Option<RpcEndpoint> {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(url) {
            return Some(endpoint.clone());
        }
        let endpoint = RpcEndpoint::new(url, self.metrics.clone()).ok()?;
        endpoints.insert(url.to_owned(), endpoint.clone());
        Some(endpoint)
    }
}

async fn ask(
    endpoint: &RpcEndpoint,
    terms: &Terms,
    authorization: &Authorization,
) -> Result<Option<OnChain>, RpcError> {
    let (chain_id, token) = (terms.chain_id, terms.token.address);
    let transfer = AuthorizedTransfer {
        from: authorization.from,
        to: authorization.to,
        value: authorization.value,
        nonce: authorization.nonce,
    };
    let used = async |at| {
        let (from, nonce) = (transfer.from, transfer.nonce);
        let used = endpoint.authorization_used(chain_id, token, from, nonce, at);
        used.await
    };
    match used(BlockNumberOrTag::Latest).await? {
        None => return Ok(None),
        Some(false) => {}
        Some(true) => {
            let made = endpoint.transfer_transaction(chain_id, token, &transfer);
            let charged = made.await?.map(|transaction| OnChain::Charged {
                transaction: transaction.to_string(),
            });
            return Ok(charged.or(Some(OnChain::Used)));
        }
    }
    let settled = authorization
        .valid_before
        .saturating_add(U256::from(SETTLED));
    if U256::from(unix_seconds()) < settled {
        return Ok(Some(OnChain::Unused));
    }
    let latest = endpoint.block(BlockNumberOrTag::Latest).await?;
    let Some(latest) = latest.filter(|latest| U256::from(latest.timestamp) >= settled) else {
        return Ok(Some(OnChain::Unused));
    };
    // Nodes behind one URL differ in their latest block.
    let used = used(BlockNumberOrTag::Number(latest.number)).await?;
    Ok(Some(match used {
        Some(false) => OnChain::Expired,
        _ => OnChain::Unused,
    }))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256, Bytes};
    use alloy::sol_types::SolValue;
    use axum::Json;
    use axum::routing::post;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::api::PaymentFlow;
    use crate::gate::terms::Token;
    use crate::metrics::Metrics;

    const NUMBER: u64 = 7;

    /// What an endpoint shows of an authorization.
    #[derive(Clone, Copy)]
    struct Shown {
        /// Seconds since the end of the authorization, of the latest block.
        late: u64,
        is_used: bool,
        /// As of the latest block that was named before.
        was_used: bool,
    }

    fn ended(seconds: u64) -> Authorization {
        Authorization {
            from: Address::repeat_byte(1),
            to: Address::repeat_byte(2),
            value: U256::from(2000),
            valid_after: U256::ZERO,
            valid_before: U256::from(unix_seconds() - seconds),
            nonce: B256::repeat_byte(3),
        }
    }

    fn terms() -> Terms {
        Terms {
            chain_id: 31337,
            token: Token {
                address: Address::repeat_byte(4),
                name: "USDC".into(),
                version: "2".into(),
                decimals: 6,
                is_verified: true,
            },
            amount: U256::from(2000),
            pay_to: Address::repeat_byte(2),
            max_timeout_seconds: 60,
            flow: PaymentFlow::Authorization,
        }
    }

    fn result(call: &Value, shown: Shown, end: u64) -> Value {
        let number = format!("{NUMBER:#x}");
        match call["method"].as_str().unwrap() {
            "eth_chainId" => json!("0x7a69"),
            "eth_getBlockByNumber" => json!({
                "number": number,
                "hash": B256::repeat_byte(5),
                "timestamp": format!("{:#x}", end + shown.late),
            }),
            "eth_call" if call["params"][1] == json!(number) => {
                json!(Bytes::from(shown.was_used.abi_encode()))
            }
            "eth_call" => json!(Bytes::from(shown.is_used.abi_encode())),
            _ => json!([]),
        }
    }

    /// The URL of an endpoint.
    async fn endpoint(shown: Shown, end: u64) -> String {
        let answer = async move |Json(request): Json<Value>| {
            let one = |call: &Value| json!({ "jsonrpc": "2.0", "id": call["id"], "result": result(call, shown, end) });
            Json(match request.as_array() {
                Some(calls) => calls.iter().map(one).collect(),
                None => one(&request),
            })
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/", post(answer));
        tokio::spawn(crate::http::serve(listener, router, std::future::pending()));
        url
    }

    /// What endpoints show together of an authorization that ended that many seconds ago.
    async fn read(ago: u64, endpoints: &[Shown]) -> Option<OnChain> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authorization = ended(ago);
        let mut urls = Vec::new();
        for shown in endpoints {
            urls.push(endpoint(*shown, authorization.valid_before.to()).await);
        }
        let reader = ChainReader::new(Metrics::new("lease").unwrap().chain.clone());
        reader.read(&urls, &terms(), &authorization).await
    }

    const UNUSED: Shown = Shown {
        late: SETTLED,
        is_used: false,
        was_used: false,
    };

    #[tokio::test]
    async fn unused_authorization_is_expired_once_a_later_block_is_settled() {
        let young = Shown {
            late: SETTLED - 1,
            ..UNUSED
        };
        let lagging = Shown {
            was_used: true,
            ..UNUSED
        };
        let used = Shown {
            is_used: true,
            ..UNUSED
        };
        for (ago, endpoints, expected) in [
            (SETTLED, &[UNUSED][..], OnChain::Expired),
            (SETTLED - 60, &[UNUSED], OnChain::Unused),
            (SETTLED, &[young], OnChain::Unused),
            (SETTLED, &[lagging], OnChain::Unused),
            (SETTLED, &[UNUSED, UNUSED], OnChain::Expired),
            (SETTLED, &[UNUSED, young], OnChain::Unused),
            (SETTLED, &[young, UNUSED], OnChain::Unused),
            (SETTLED, &[UNUSED, used], OnChain::Used),
        ] {
            assert_eq!(read(ago, endpoints).await, Some(expected));
        }
        assert_eq!(read(SETTLED, &[]).await, None);
    }
}
