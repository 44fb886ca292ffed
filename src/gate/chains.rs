//! Asks chains what became of a payment. It carries out; [`super::serve`] decides when to ask.
//!
//! The endpoints are those of IdentityRegistries whose URL is in the spec: the gate reads no Secret.
//! An endpoint may lag: that a payment is not used is true only of what was sent long before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::terms::Terms;
use super::wire::Authorization;
use crate::chain::{AuthorizedTransfer, RpcEndpoint, RpcError};
use crate::metrics::ChainMetrics;
use crate::telemetry::causes;

/// How long an endpoint may take. A buyer waits for it.
const LIMIT: Duration = Duration::from_secs(3);

/// What a chain shows of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OnChain {
    Unused,
    /// Its nonce was used, and its transfer is not among those of the latest blocks: it was
    /// cancelled, or used for something else, or long ago.
    Used,
    /// Its transfer was made.
    Charged {
        transaction: String,
    },
}

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
                Ok(Ok(Some(OnChain::Unused))) => shown = Some(OnChain::Unused),
                Ok(Ok(Some(used))) => return Some(used),
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
    let used = endpoint.authorization_used(chain_id, token, transfer.from, transfer.nonce);
    match used.await? {
        None => Ok(None),
        Some(false) => Ok(Some(OnChain::Unused)),
        Some(true) => {
            let made = endpoint.transfer_transaction(chain_id, token, &transfer);
            let charged = made.await?.map(|transaction| OnChain::Charged {
                transaction: transaction.to_string(),
            });
            Ok(charged.or(Some(OnChain::Used)))
        }
    }
}
