//! One JSON-RPC endpoint of a chain: the only file that sends requests or transactions to a chain.
//!
//! Every request has a time limit and is counted. Errors never contain a URL: any part of a URL may
//! be a credential, and endpoints often repeat it in their messages. Sending takes a [`Leading`];
//! all other requests only read.

use std::fmt;
use std::time::{Duration, Instant};

use alloy::consensus::Transaction as _;
use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::network::{AnyNetwork, ReceiptResponse, TransactionBuilder, TransactionResponse};
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use alloy::providers::{Provider, ProviderBuilder, RootProvider};
use alloy::rpc::types::{Filter, TransactionRequest};
use alloy::serde::WithOtherFields;
use alloy::sol_types::{SolCall, SolEvent};
use alloy::transports::{RpcError as AlloyError, TransportError, TransportErrorKind};

use super::{Block, FeeMarket, LogPage, Receipt, RegisteredEvent, TransactionCounts, abi};
use crate::api::Nonce;
use crate::leader::fence::Effect;
use crate::leader::{Leading, NotLeading};
use crate::metrics::{ChainMetrics, RpcMethod, RpcResult};

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Time limit of a request for logs.
const LOGS_TIMEOUT: Duration = Duration::from_secs(12);
/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum characters of an endpoint's own message that are repeated.
const MESSAGE_LENGTH: usize = 200;

/// Why a request failed. The name of a variant is the reason of the condition.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum RpcError {
    /// The node answered with an error.
    #[error("{call} was refused: {message}")]
    RpcRefused {
        /// JSON-RPC method.
        call: &'static str,
        /// Message of the node, without credentials.
        message: String,
    },
    /// The node did not answer in JSON-RPC, or not at all.
    #[error("{call} failed: {cause}")]
    RpcUnreachable {
        /// JSON-RPC method.
        call: &'static str,
        /// Cause of the failure.
        cause: &'static str,
    },
    /// The answer lacks a part that every node has.
    #[error("{call} returned no {missing}")]
    RpcIncomplete {
        /// JSON-RPC method.
        call: &'static str,
        /// Missing part of the answer.
        missing: &'static str,
    },
    /// This replica is not the leader.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

impl RpcError {
    /// Reason for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.into_str()
    }
}

/// The text is not a URL. The error does not repeat it, since it may contain a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL is not an absolute http or https URL")]
pub struct UrlError;

/// How an endpoint answered a sent transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The endpoint has the transaction, from this send or from an earlier one.
    Accepted,
    /// Nonce too low: the chain's evidence decides what used it. Never a reason to allocate another
    /// nonce.
    NonceUsed,
    /// The endpoint refuses the transaction for now, with this message. It may still be included.
    Refused(String),
    /// There was no answer: the endpoint may or may not have the transaction.
    Unknown,
}

#[derive(Clone)]
pub struct RpcEndpoint {
    provider: RootProvider<AnyNetwork>,
    /// Scheme, host and port: the only parts of the URL that are shown.
    name: String,
    /// Parts of the URL that must never be shown.
    secrets: Vec<String>,
    metrics: ChainMetrics,
}

impl fmt::Debug for RpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RpcEndpoint").field(&self.name).finish()
    }
}

impl fmt::Display for RpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl RpcEndpoint {
    /// Creates a client for the endpoint at a URL. It sends no request yet.
    ///
    /// # Errors
    /// If the text is not an absolute http or https URL.
    pub fn new(url: &str, metrics: ChainMetrics) -> Result<Self, UrlError> {
        let url: reqwest::Url = url.trim().parse().map_err(|_| UrlError)?;
        let host = url
            .host_str()
            .filter(|_| matches!(url.scheme(), "http" | "https"))
            .ok_or(UrlError)?;
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let name = format!("{}://{host}{port}", url.scheme());
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LOGS_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| UrlError)?;
        let secrets = secrets(&url);
        // No fillers: the ledger decides nonce, gas and fees, and a filler would replace them.
        let provider = ProviderBuilder::<_, _, AnyNetwork>::default().connect_reqwest(client, url);
        Ok(Self {
            provider,
            name,
            secrets,
            metrics,
        })
    }

    /// Sends a request with a time limit, and counts the answer.
    async fn request<T>(
        &self,
        call: RpcMethod,
        answer: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, RpcError> {
        let begun = Instant::now();
        let limit = if call == RpcMethod::Logs {
            LOGS_TIMEOUT
        } else {
            REQUEST_TIMEOUT
        };
        let name = crate::metrics::Label::as_str(call);
        let answer = match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error| self.read_error(name, &error)),
            Err(_) => Err(RpcError::RpcUnreachable {
                call: name,
                cause: "timed out",
            }),
        };
        let kind = match &answer {
            Ok(_) => RpcResult::Ok,
            Err(RpcError::RpcRefused { .. }) => RpcResult::Refused,
            Err(_) => RpcResult::Unreachable,
        };
        self.metrics.requested(call, kind, begun.elapsed());
        answer
    }

    fn read_error(&self, call: &'static str, error: &TransportError) -> RpcError {
        match error {
            AlloyError::ErrorResp(payload) => RpcError::RpcRefused {
                call,
                message: self.redact(&payload.message),
            },
            AlloyError::NullResp => RpcError::RpcIncomplete {
                call,
                missing: "result",
            },
            AlloyError::Transport(TransportErrorKind::HttpError(error)) => {
                RpcError::RpcUnreachable {
                    call,
                    cause: match error.status {
                        401 | 403 => "the endpoint rejects the credentials (HTTP 401 or 403)",
                        404 => "the endpoint has no such path (HTTP 404)",
                        429 => "the endpoint limits the request rate (HTTP 429)",
                        500.. => "the endpoint reports a server error (HTTP 5xx)",
                        _ => "the endpoint does not serve JSON-RPC at this URL",
                    },
                }
            }
            AlloyError::Transport(TransportErrorKind::Custom(error)) => RpcError::RpcUnreachable {
                call,
                cause: match error.downcast_ref::<reqwest::Error>() {
                    Some(error) if error.is_timeout() => "timed out",
                    Some(error) if error.is_connect() => "could not connect",
                    _ => "the connection was lost",
                },
            },
            _ => RpcError::RpcUnreachable {
                call,
                cause: "the answer is not JSON-RPC",
            },
        }
    }

    /// Message of an endpoint, shortened, without any part of its URL that may be a credential.
    fn redact(&self, message: &str) -> String {
        let clean = self
            .secrets
            .iter()
            .fold(message.to_owned(), |text, secret| {
                text.replace(secret, "***")
            });
        clean
            .chars()
            .filter(|letter| !letter.is_control())
            .take(MESSAGE_LENGTH)
            .collect()
    }

    /// EIP-155 id of the chain.
    pub async fn chain_id(&self) -> Result<u64, RpcError> {
        self.request(RpcMethod::ChainId, self.provider.get_chain_id())
            .await
    }

    /// A block by number or tag; `None` if it does not exist yet.
    pub async fn block(&self, at: BlockNumberOrTag) -> Result<Option<Block>, RpcError> {
        let block = self
            .request(
                RpcMethod::Block,
                self.provider.get_block_by_number(at).into_future(),
            )
            .await?;
        Ok(block.map(|block| Block {
            number: block.header.number,
            hash: block.header.hash,
            timestamp: block.header.timestamp,
            base_fee: block.header.base_fee_per_gas.unwrap_or_default().into(),
        }))
    }

    /// Keccak-256 of the code at an address; `None` if there is no code.
    pub async fn code_hash(&self, address: Address) -> Result<Option<B256>, RpcError> {
        let code = self
            .request(
                RpcMethod::Code,
                self.provider.get_code_at(address).into_future(),
            )
            .await?;
        Ok((!code.is_empty()).then(|| keccak256(code)))
    }

    /// Version of the registry contract; `None` if the contract does not answer like a registry.
    pub async fn version(&self, registry: Address) -> Result<Option<String>, RpcError> {
        self.view(registry, &abi::getVersionCall {}, BlockId::latest())
            .await
    }

    /// Owner of an agent at a block; `None` if the registry does not know it.
    pub async fn owner_of(
        &self,
        registry: Address,
        agent_id: U256,
        block: u64,
    ) -> Result<Option<Address>, RpcError> {
        self.view(
            registry,
            &abi::ownerOfCall { tokenId: agent_id },
            BlockId::number(block),
        )
        .await
    }

    /// URI of an agent at a block; `None` if the registry does not know it.
    pub async fn token_uri(
        &self,
        registry: Address,
        agent_id: U256,
        block: u64,
    ) -> Result<Option<String>, RpcError> {
        self.view(
            registry,
            &abi::tokenURICall { tokenId: agent_id },
            BlockId::number(block),
        )
        .await
    }

    /// Number of agents that an owner holds at a block.
    pub async fn balance_of(
        &self,
        registry: Address,
        owner: Address,
        block: u64,
    ) -> Result<U256, RpcError> {
        let balance = self
            .view(
                registry,
                &abi::balanceOfCall { owner },
                BlockId::number(block),
            )
            .await?;
        balance.ok_or(RpcError::RpcIncomplete {
            call: "eth_call",
            missing: "balance",
        })
    }

    /// Calls a view function; `None` if it reverts or returns something else.
    async fn view<C: SolCall>(
        &self,
        to: Address,
        call: &C,
        block: BlockId,
    ) -> Result<Option<C::Return>, RpcError> {
        let request = TransactionRequest::default()
            .with_to(to)
            .with_input(call.abi_encode());
        let call = self
            .provider
            .call(WithOtherFields::new(request))
            .block(block);
        let answer = async {
            match call.await {
                Ok(bytes) => Ok(Some(bytes)),
                // Only an error with revert data comes from the contract; any other comes from the
                // endpoint.
                Err(error)
                    if error
                        .as_error_resp()
                        .is_some_and(|payload| payload.as_revert_data().is_some()) =>
                {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let bytes = self.request(RpcMethod::Call, answer).await?;
        Ok(bytes.and_then(|bytes| C::abi_decode_returns(&bytes).ok()))
    }

    /// Transaction counts of an account at a finalized block, at the latest block and including its
    /// pending transactions.
    pub async fn transaction_counts(
        &self,
        account: Address,
        finalized: u64,
    ) -> Result<TransactionCounts, RpcError> {
        Ok(TransactionCounts {
            finalized: self
                .transaction_count_at(account, BlockNumberOrTag::Number(finalized))
                .await?,
            latest: self
                .transaction_count_at(account, BlockNumberOrTag::Latest)
                .await?,
            pending: self
                .transaction_count_at(account, BlockNumberOrTag::Pending)
                .await?,
        })
    }

    /// Transaction count of an account at a block.
    ///
    /// # Errors
    /// Also if the endpoint has pruned the state of that block.
    pub async fn transaction_count_at(
        &self,
        account: Address,
        at: BlockNumberOrTag,
    ) -> Result<Nonce, RpcError> {
        let answer = self
            .provider
            .get_transaction_count(account)
            .block_id(at.into())
            .into_future();
        self.request(RpcMethod::TransactionCount, answer)
            .await
            .map(Nonce)
    }

    /// Balance of an account, in wei.
    pub async fn balance(&self, account: Address) -> Result<u128, RpcError> {
        let balance = self
            .request(
                RpcMethod::Balance,
                self.provider.get_balance(account).into_future(),
            )
            .await?;
        Ok(balance.saturating_to())
    }

    /// Current fees.
    pub async fn fee_market(&self, latest: &Block) -> Result<FeeMarket, RpcError> {
        let estimate = self
            .request(RpcMethod::FeeHistory, self.provider.estimate_eip1559_fees())
            .await?;
        Ok(FeeMarket {
            base_fee: latest.base_fee,
            tip: estimate.max_priority_fee_per_gas,
        })
    }

    /// Estimates the gas of a call.
    ///
    /// # Errors
    /// [`RpcError::RpcRefused`] also if the call would revert.
    pub async fn estimate_gas(
        &self,
        from: Address,
        to: Address,
        calldata: Bytes,
    ) -> Result<u64, RpcError> {
        let request = TransactionRequest::default()
            .with_from(from)
            .with_to(to)
            .with_input(calldata);
        let answer = self
            .provider
            .estimate_gas(WithOtherFields::new(request))
            .into_future();
        self.request(RpcMethod::EstimateGas, answer).await
    }

    /// Logs of an owner in a range of blocks.
    ///
    /// # Errors
    /// Also if a log lacks its block or transaction.
    pub async fn log_page(
        &self,
        registry: Address,
        owner: Address,
        from: u64,
        to: u64,
    ) -> Result<LogPage, RpcError> {
        let range = Filter::new()
            .address(registry)
            .from_block(from)
            .to_block(to);
        let topic = B256::left_padding_from(owner.as_slice());
        let registered = range
            .clone()
            .event_signature(abi::Registered::SIGNATURE_HASH)
            .topic2(topic);
        let received = range
            .clone()
            .event_signature(abi::Transfer::SIGNATURE_HASH)
            .topic2(topic);
        let given = range
            .event_signature(abi::Transfer::SIGNATURE_HASH)
            .topic1(topic);
        let logs = self
            .request(RpcMethod::Logs, self.provider.get_logs(&registered))
            .await?;
        let received = self
            .request(RpcMethod::Logs, self.provider.get_logs(&received))
            .await?
            .len() as u64;
        let given = self
            .request(RpcMethod::Logs, self.provider.get_logs(&given))
            .await?
            .len() as u64;
        let registrations = logs
            .iter()
            .map(read_registration)
            .collect::<Option<Vec<_>>>();
        let registrations = registrations.ok_or(RpcError::RpcIncomplete {
            call: "eth_getLogs",
            missing: "block or transaction of a log",
        })?;
        Ok(LogPage {
            from,
            to,
            registrations,
            received,
            given,
        })
    }

    /// Sender and nonce of a transaction; `None` if the endpoint does not know it.
    pub async fn transaction(&self, hash: B256) -> Result<Option<(Address, Nonce)>, RpcError> {
        let transaction = self
            .request(
                RpcMethod::Transaction,
                self.provider.get_transaction_by_hash(hash),
            )
            .await?;
        Ok(transaction.map(|transaction| (transaction.from(), Nonce(transaction.nonce()))))
    }

    /// Receipt of a transaction; `None` if no block contains it.
    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        let receipt = self
            .request(
                RpcMethod::Receipt,
                self.provider.get_transaction_receipt(hash),
            )
            .await?;
        Ok(receipt.and_then(|receipt| {
            // OP Stack rollups charge an L1 data fee besides gas, in a separate field.
            let data_fee = receipt
                .other
                .get_deserialized::<U256>("l1Fee")
                .and_then(Result::ok)
                .unwrap_or_default();
            let gas_fee = receipt
                .effective_gas_price()
                .saturating_mul(receipt.gas_used().into());
            let cost = gas_fee.saturating_add(data_fee.saturating_to());
            Some(Receipt {
                succeeded: receipt.status(),
                block: receipt.block_number()?,
                cost,
            })
        }))
    }

    /// Sends the stored bytes of a signed transaction.
    ///
    /// # Errors
    /// Only if this replica is not the leader. Any answer of the endpoint is an outcome, since a
    /// transaction that was sent may be included whatever the endpoint answered.
    pub async fn send(&self, leading: &Leading, raw: &Bytes) -> Result<SendOutcome, NotLeading> {
        let answer = async {
            let sent = self.provider.send_raw_transaction(raw).await;
            sent.map(|_| ())
        };
        let answer = leading
            .guard(Effect::Chain, self.request(RpcMethod::Send, answer))
            .await?;
        Ok(match answer {
            Ok(()) => SendOutcome::Accepted,
            Err(RpcError::RpcRefused { message, .. }) => read_refusal(message),
            Err(_) => SendOutcome::Unknown,
        })
    }
}

/// Interprets the message of a refused send. Clients agree on neither error codes nor messages, so
/// known phrases decide.
fn read_refusal(message: String) -> SendOutcome {
    let lower = message.to_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    if has(&[
        "already known",
        "already imported",
        "already in mempool",
        "known transaction",
        "alreadyknown",
    ]) {
        SendOutcome::Accepted
    } else if has(&["nonce too low", "nonce is too low", "old nonce", "oldnonce"]) {
        SendOutcome::NonceUsed
    } else {
        SendOutcome::Refused(message)
    }
}

fn read_registration(log: &alloy::rpc::types::Log) -> Option<RegisteredEvent> {
    let event = abi::Registered::decode_log(&log.inner).ok()?;
    Some(RegisteredEvent {
        agent_id: event.agentId,
        agent_uri: event.agentURI.clone(),
        transaction: log.transaction_hash?,
        block: log.block_number?,
        block_hash: log.block_hash?,
    })
}

/// Every part of a URL that may be a credential: user, password, path and query, as a whole and
/// each segment or value.
fn secrets(url: &reqwest::Url) -> Vec<String> {
    let pieces = url.path_segments().into_iter().flatten().map(str::to_owned);
    let values = url
        .query_pairs()
        .map(|(_, value)| value.into_owned())
        .collect::<Vec<_>>();
    let whole = [
        url.as_str(),
        url.path(),
        url.query().unwrap_or_default(),
        url.username(),
        url.password().unwrap_or_default(),
    ];
    let mut secrets: Vec<String> = whole
        .into_iter()
        .map(str::to_owned)
        .chain(pieces)
        .chain(values)
        .filter(|secret| secret.len() > 3)
        .collect();
    // Longest first: replacing a shorter secret first could leave the rest of a longer one
    // readable.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> RpcEndpoint {
        let _ = rustls::crypto::ring::default_provider().install_default();
        RpcEndpoint::new(url, crate::metrics::Metrics::new("lease").unwrap().chain).unwrap()
    }

    #[tokio::test]
    async fn only_scheme_host_and_port_of_a_url_are_shown() {
        let endpoint =
            endpoint("https://user:hunter22@rpc.example:8443/v3/0123456789abcdef?key=sesame");
        assert_eq!(endpoint.to_string(), "https://rpc.example:8443");
        assert_eq!(
            format!("{endpoint:?}"),
            "RpcEndpoint(\"https://rpc.example:8443\")"
        );
        let message =
            "bad project 0123456789abcdef (key=sesame) of user:hunter22 at /v3/0123456789abcdef";
        let clean = endpoint.redact(message);
        for secret in ["0123456789abcdef", "sesame", "hunter22", "user"] {
            assert!(!clean.contains(secret), "{clean}");
        }
        assert!(endpoint.redact(&"x".repeat(1000)).len() <= MESSAGE_LENGTH);
    }

    #[tokio::test]
    async fn error_names_the_cause_but_not_the_url() {
        let endpoint = endpoint("http://127.0.0.1:1/v3/0123456789abcdef");
        let error = endpoint.chain_id().await.unwrap_err();
        assert_eq!(
            error,
            RpcError::RpcUnreachable {
                call: "eth_chainId",
                cause: "could not connect"
            }
        );
        assert!(!error.to_string().contains("0123456789abcdef"));
    }

    #[test]
    fn only_absolute_http_urls_are_accepted() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let metrics = crate::metrics::Metrics::new("lease").unwrap().chain;
        for url in [
            "",
            "rpc.example",
            "ftp://rpc.example",
            "file:///etc/passwd",
            "http://",
        ] {
            assert_eq!(
                RpcEndpoint::new(url, metrics.clone()).unwrap_err(),
                UrlError,
                "{url}"
            );
        }
        assert!(
            RpcEndpoint::new(" http://rpc.example\n", metrics).is_ok(),
            "a Secret often ends with a newline"
        );
    }

    #[test]
    fn refused_sends_are_read_by_phrase_for_every_client() {
        for message in [
            "already known",
            "transaction already imported",
            "Known transaction: 0x1",
            "AlreadyKnown",
        ] {
            assert_eq!(
                read_refusal(message.into()),
                SendOutcome::Accepted,
                "{message}"
            );
        }
        for message in [
            "nonce too low",
            "Nonce is too low: next 5",
            "OldNonce",
            "nonce too low: address 0x, tx: 1 state: 2",
        ] {
            assert_eq!(
                read_refusal(message.into()),
                SendOutcome::NonceUsed,
                "{message}"
            );
        }
        for message in [
            "replacement transaction underpriced",
            "Insufficient funds for gas * price + value",
            "max fee per gas less than block base fee",
            "txpool is full",
        ] {
            assert_eq!(
                read_refusal(message.into()),
                SendOutcome::Refused(message.into()),
                "{message}"
            );
        }
    }
}
