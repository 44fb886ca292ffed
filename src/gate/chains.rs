//! Asks chains what became of a payment. It carries out: [`super::serve`] decides when to ask, and
//! [`super::payment`] what the readings mean together.
//!
//! The endpoints are those of IdentityRegistries whose URL is in the spec: the gate reads no Secret.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use futures::future::join_all;
use tokio::time::timeout;
use tracing::debug;

use super::payment::AuthorizationReading;
use super::terms::Terms;
use super::wire::Authorization;
use crate::chain::{AuthorizedTransfer, RpcEndpoint, RpcError};
use crate::metrics::ChainMetrics;
use crate::telemetry::causes;

/// How long an endpoint may take. A buyer waits for it.
const LIMIT: Duration = Duration::from_secs(3);

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

    /// What these endpoints show of an authorization, by those that answer.
    pub(crate) async fn read(
        &self,
        urls: &[String],
        terms: &Terms,
        authorization: &Authorization,
    ) -> Vec<AuthorizationReading> {
        let endpoints = urls.iter().filter_map(|url| self.endpoint(url));
        let readings = join_all(endpoints.map(|endpoint| async move {
            let reading = timeout(LIMIT, ask(&endpoint, terms, authorization)).await;
            match reading {
                Ok(Ok(reading)) => return reading,
                Ok(Err(error)) => {
                    debug!(%endpoint, error = %causes(&error), "failed to ask a token");
                }
                Err(_) => debug!(%endpoint, "an endpoint is too slow"),
            }
            None
        }));
        readings.await.into_iter().flatten().collect()
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

/// What an endpoint shows of an authorization; `None` if it serves another chain, or the token does
/// not say.
async fn ask(
    endpoint: &RpcEndpoint,
    terms: &Terms,
    authorization: &Authorization,
) -> Result<Option<AuthorizationReading>, RpcError> {
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
        None => Ok(None),
        Some(true) => {
            let made = endpoint.transfer_transaction(chain_id, token, &transfer);
            let transaction = made.await?.map(|transaction| transaction.to_string());
            Ok(Some(AuthorizationReading::Used { transaction }))
        }
        Some(false) => {
            let latest = endpoint.block(BlockNumberOrTag::Latest).await;
            let mut as_of = None;
            if let Ok(Some(latest)) = latest {
                let at = BlockNumberOrTag::Number(latest.number);
                // A node that lags does not know this block.
                let is_unused = matches!(used(at).await, Ok(Some(false)));
                as_of = is_unused.then_some(latest.timestamp);
            }
            Ok(Some(AuthorizationReading::Unused { as_of }))
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256, Bytes, U256};
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

    const TIME: u64 = 1200;

    /// What an endpoint answers of an authorization.
    #[derive(Clone, Copy, Default)]
    struct Answers {
        chain_id: u64,
        is_used: bool,
        /// As of the block that it named as the latest.
        was_used: bool,
    }

    fn authorization() -> Authorization {
        Authorization {
            from: Address::repeat_byte(1),
            to: Address::repeat_byte(2),
            value: U256::from(2000),
            valid_after: U256::ZERO,
            valid_before: U256::from(1000),
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

    fn result(call: &Value, answers: Answers) -> Value {
        let number = format!("{NUMBER:#x}");
        match call["method"].as_str().unwrap() {
            "eth_chainId" => json!(format!("{:#x}", answers.chain_id)),
            "eth_getBlockByNumber" => json!({
                "number": number,
                "hash": B256::repeat_byte(5),
                "timestamp": format!("{TIME:#x}"),
            }),
            "eth_call" if call["params"][1] == json!(number) => {
                json!(Bytes::from(answers.was_used.abi_encode()))
            }
            "eth_call" => json!(Bytes::from(answers.is_used.abi_encode())),
            _ => json!([]),
        }
    }

    /// The URL of an endpoint.
    async fn endpoint(answers: Answers) -> String {
        let answer = async move |Json(request): Json<Value>| {
            let one = |call: &Value| json!({ "jsonrpc": "2.0", "id": call["id"], "result": result(call, answers) });
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

    #[tokio::test]
    async fn authorization_is_unused_as_of_a_block_that_the_endpoint_names() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let reader = ChainReader::new(Metrics::new("lease").unwrap().chain.clone());
        let unused = Answers {
            chain_id: 31337,
            ..Answers::default()
        };
        let lagging = Answers {
            was_used: true,
            ..unused
        };
        let used = Answers {
            is_used: true,
            ..unused
        };
        let elsewhere = Answers {
            chain_id: 1,
            ..unused
        };
        let mut urls = vec!["http://127.0.0.1:1".to_owned()];
        for answers in [unused, lagging, used, elsewhere] {
            urls.push(endpoint(answers).await);
        }
        assert_eq!(
            reader.read(&urls, &terms(), &authorization()).await,
            [
                AuthorizationReading::Unused { as_of: Some(TIME) },
                AuthorizationReading::Unused { as_of: None },
                AuthorizationReading::Used { transaction: None },
            ]
        );
    }
}
