//! One RPC endpoint of a chain: the only place where a chain is asked anything or sent anything.
//!
//! Every question has a time limit, is counted, and fails with an error that holds no URL: a URL may hold a credential in
//! any of its parts, and endpoints like to repeat it. Sending takes a [`Leading`]; nothing else here changes the world.

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
use crate::metrics::{Answer, Call, Chain as Metrics};

/// How long one question may take.
const BUDGET: Duration = Duration::from_secs(4);
/// How long a range of logs may take.
const LOGS_BUDGET: Duration = Duration::from_secs(12);
/// How long a connection may take.
const CONNECT_BUDGET: Duration = Duration::from_secs(3);
/// How much of an endpoint's own words is repeated.
const WORDS: usize = 200;

/// A question was not answered.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum RpcError {
    /// The chain's software answered with an error.
    #[error("{call} was refused: {words}")]
    RpcRefused {
        /// What was asked.
        call: &'static str,
        /// The error's own words, without credentials.
        words: String,
    },
    /// There was no answer that can be understood.
    #[error("{call} was not answered: {why}")]
    RpcUnreachable {
        /// What was asked.
        call: &'static str,
        /// Why.
        why: &'static str,
    },
    /// The answer lacks what every chain has.
    #[error("{call} was answered without {what}")]
    RpcIncomplete {
        /// What was asked.
        call: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// This replica does not lead.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

impl RpcError {
    /// One word for labels and reasons.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotLeading(error) => error.reason(),
            error => error.into_str(),
        }
    }
}

/// A URL that is no URL. Its text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL is not an absolute http or https URL")]
pub struct UrlError;

/// What became of bytes that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The endpoint has them, by this sending or by an earlier one.
    Accepted,
    /// Their nonce is used up: look for evidence. Never a reason to take another nonce.
    NonceUsed,
    /// The endpoint does not want them for now, in its own words; they may still be included.
    Refused(String),
    /// Nothing is known.
    Unknown,
}

/// One endpoint.
#[derive(Clone)]
pub struct RpcEndpoint {
    provider: RootProvider<AnyNetwork>,
    /// Scheme and host: all of the URL that is ever shown.
    name: String,
    /// Parts of the URL that must not be repeated.
    secrets: Vec<String>,
    metrics: Metrics,
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
    /// The endpoint at a URL. Nothing is asked yet.
    ///
    /// # Errors
    /// If it is no URL.
    pub fn new(url: &str, metrics: Metrics) -> Result<Self, UrlError> {
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
            .connect_timeout(CONNECT_BUDGET)
            .timeout(LOGS_BUDGET)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| UrlError)?;
        let secrets = secrets(&url);
        // No fillers: nonce, gas and fees are decided here, and nowhere else.
        let provider = ProviderBuilder::<_, _, AnyNetwork>::default().connect_reqwest(client, url);
        Ok(Self {
            provider,
            name,
            secrets,
            metrics,
        })
    }

    /// Asks, within a time limit, and counts the answer.
    async fn ask<T>(
        &self,
        call: Call,
        question: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, RpcError> {
        let begun = Instant::now();
        let budget = if call == Call::Logs {
            LOGS_BUDGET
        } else {
            BUDGET
        };
        let name = crate::metrics::Label::as_str(call);
        let answer = match tokio::time::timeout(budget, question).await {
            Ok(answer) => answer.map_err(|error| self.read_error(name, &error)),
            Err(_) => Err(RpcError::RpcUnreachable {
                call: name,
                why: "no answer in time",
            }),
        };
        let kind = match &answer {
            Ok(_) => Answer::Ok,
            Err(RpcError::RpcRefused { .. }) => Answer::Refused,
            Err(_) => Answer::Unreachable,
        };
        self.metrics.requested(call, kind, begun.elapsed());
        answer
    }

    fn read_error(&self, call: &'static str, error: &TransportError) -> RpcError {
        match error {
            AlloyError::ErrorResp(payload) => RpcError::RpcRefused {
                call,
                words: self.without_secrets(&payload.message),
            },
            AlloyError::NullResp => RpcError::RpcIncomplete {
                call,
                what: "a result",
            },
            AlloyError::Transport(TransportErrorKind::HttpError(error)) => {
                RpcError::RpcUnreachable {
                    call,
                    why: match error.status {
                        401 | 403 => "the endpoint refuses the credentials",
                        404 => "the endpoint has no such path",
                        429 => "the endpoint asks for fewer requests",
                        500.. => "the endpoint has an error of its own",
                        _ => "the endpoint does not speak JSON-RPC here",
                    },
                }
            }
            AlloyError::Transport(TransportErrorKind::Custom(error)) => RpcError::RpcUnreachable {
                call,
                why: match error.downcast_ref::<reqwest::Error>() {
                    Some(error) if error.is_timeout() => "no answer in time",
                    Some(error) if error.is_connect() => "no connection",
                    _ => "the connection broke",
                },
            },
            _ => RpcError::RpcUnreachable {
                call,
                why: "the answer is not JSON-RPC",
            },
        }
    }

    /// An endpoint's own words, shortened, without any part of its URL that could be a credential.
    fn without_secrets(&self, words: &str) -> String {
        let clean = self
            .secrets
            .iter()
            .fold(words.to_owned(), |text, secret| text.replace(secret, "***"));
        clean
            .chars()
            .filter(|letter| !letter.is_control())
            .take(WORDS)
            .collect()
    }

    /// EIP-155 id of the chain.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn chain_id(&self) -> Result<u64, RpcError> {
        self.ask(Call::ChainId, self.provider.get_chain_id()).await
    }

    /// A block by number or tag; `None` if there is none yet.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn block(&self, at: BlockNumberOrTag) -> Result<Option<Block>, RpcError> {
        let block = self
            .ask(
                Call::Block,
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

    /// Keccak-256 of the code at an address; `None` if there is none.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn code_hash(&self, address: Address) -> Result<Option<B256>, RpcError> {
        let code = self
            .ask(Call::Code, self.provider.get_code_at(address).into_future())
            .await?;
        Ok((!code.is_empty()).then(|| keccak256(code)))
    }

    /// Version that the registry names; `None` if it does not answer like a registry.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn version(&self, registry: Address) -> Result<Option<String>, RpcError> {
        self.view(registry, &abi::getVersionCall {}, BlockId::latest())
            .await
    }

    /// Owner of an agent at a block; `None` if the registry does not know it.
    ///
    /// # Errors
    /// If there is no answer.
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
    ///
    /// # Errors
    /// If there is no answer.
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

    /// Number of agents of an owner at a block.
    ///
    /// # Errors
    /// If there is no answer.
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
            what: "a balance",
        })
    }

    /// Asks a contract; `None` if it reverts, or answers something else.
    async fn view<C: SolCall>(
        &self,
        to: Address,
        call: &C,
        block: BlockId,
    ) -> Result<Option<C::Return>, RpcError> {
        let request = TransactionRequest::default()
            .with_to(to)
            .with_input(call.abi_encode());
        let question = self
            .provider
            .call(WithOtherFields::new(request))
            .block(block);
        let question = async {
            match question.await {
                Ok(bytes) => Ok(Some(bytes)),
                // Only an error with revert data is the contract's own answer; any other is the endpoint's.
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
        let bytes = self.ask(Call::Call, question).await?;
        Ok(bytes.and_then(|bytes| C::abi_decode_returns(&bytes).ok()))
    }

    /// How often an account has sent: up to a final block, up to the latest, and with what waits.
    ///
    /// # Errors
    /// If there is no answer.
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

    /// How often an account has sent up to a block.
    ///
    /// # Errors
    /// If there is no answer, also because the endpoint has forgotten that block's state.
    pub async fn transaction_count_at(
        &self,
        account: Address,
        at: BlockNumberOrTag,
    ) -> Result<Nonce, RpcError> {
        let question = self
            .provider
            .get_transaction_count(account)
            .block_id(at.into())
            .into_future();
        self.ask(Call::TransactionCount, question).await.map(Nonce)
    }

    /// What an account holds, in wei.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn balance(&self, account: Address) -> Result<u128, RpcError> {
        let balance = self
            .ask(
                Call::Balance,
                self.provider.get_balance(account).into_future(),
            )
            .await?;
        Ok(balance.saturating_to())
    }

    /// Fees of the moment.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn fee_market(&self, latest: &Block) -> Result<FeeMarket, RpcError> {
        let estimate = self
            .ask(Call::FeeHistory, self.provider.estimate_eip1559_fees())
            .await?;
        Ok(FeeMarket {
            base_fee: latest.base_fee,
            tip: estimate.max_priority_fee_per_gas,
        })
    }

    /// Gas that a call of the registry would use; refused if the call would revert.
    ///
    /// # Errors
    /// If there is no answer, or the call would revert.
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
        let question = self
            .provider
            .estimate_gas(WithOtherFields::new(request))
            .into_future();
        self.ask(Call::EstimateGas, question).await
    }

    /// What a range of blocks holds of an owner.
    ///
    /// # Errors
    /// If there is no answer, or a log without its place in the chain.
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
            .ask(Call::Logs, self.provider.get_logs(&registered))
            .await?;
        let received = self
            .ask(Call::Logs, self.provider.get_logs(&received))
            .await?
            .len() as u64;
        let given = self
            .ask(Call::Logs, self.provider.get_logs(&given))
            .await?
            .len() as u64;
        let registrations = logs
            .iter()
            .map(read_registration)
            .collect::<Option<Vec<_>>>();
        let registrations = registrations.ok_or(RpcError::RpcIncomplete {
            call: "eth_getLogs",
            what: "a log's place",
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
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn transaction(&self, hash: B256) -> Result<Option<(Address, Nonce)>, RpcError> {
        let transaction = self
            .ask(
                Call::Transaction,
                self.provider.get_transaction_by_hash(hash),
            )
            .await?;
        Ok(transaction.map(|transaction| (transaction.from(), Nonce(transaction.nonce()))))
    }

    /// What became of a transaction; `None` if no block holds it.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        let receipt = self
            .ask(Call::Receipt, self.provider.get_transaction_receipt(hash))
            .await?;
        Ok(receipt.and_then(|receipt| {
            // Rollups of the OP stack charge for data apart from gas, in a field of their own.
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

    /// Sends stored bytes.
    ///
    /// # Errors
    /// Only if this replica must not send. What the endpoint answers is an outcome, since bytes that were sent may be
    /// included whatever it says.
    pub async fn send(&self, leading: &Leading, raw: &Bytes) -> Result<SendOutcome, NotLeading> {
        let question = async {
            let sent = self.provider.send_raw_transaction(raw).await;
            sent.map(|_| ())
        };
        let answer = leading
            .guard(Effect::Chain, self.ask(Call::Send, question))
            .await?;
        Ok(match answer {
            Ok(()) => SendOutcome::Accepted,
            Err(RpcError::RpcRefused { words, .. }) => read_refusal(words),
            Err(_) => SendOutcome::Unknown,
        })
    }
}

/// What a refusal to take bytes means. Clients agree on neither codes nor words, so families of words decide.
fn read_refusal(words: String) -> SendOutcome {
    let lower = words.to_lowercase();
    let has = |families: &[&str]| families.iter().any(|family| lower.contains(family));
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
        SendOutcome::Refused(words)
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

/// Every part of a URL that may be a credential: user, password, path and query, whole and in pieces.
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
    // The longest first, so that no piece of a longer one is left standing.
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
    async fn nothing_of_a_url_but_scheme_and_host_is_ever_shown() {
        let endpoint =
            endpoint("https://user:hunter22@rpc.example:8443/v3/0123456789abcdef?key=sesame");
        assert_eq!(endpoint.to_string(), "https://rpc.example:8443");
        assert_eq!(
            format!("{endpoint:?}"),
            "RpcEndpoint(\"https://rpc.example:8443\")"
        );
        let words =
            "bad project 0123456789abcdef (key=sesame) of user:hunter22 at /v3/0123456789abcdef";
        let clean = endpoint.without_secrets(words);
        for secret in ["0123456789abcdef", "sesame", "hunter22", "user"] {
            assert!(!clean.contains(secret), "{clean}");
        }
        assert!(endpoint.without_secrets(&"x".repeat(1000)).len() <= WORDS);
    }

    #[tokio::test]
    async fn an_error_says_why_without_saying_where() {
        let endpoint = endpoint("http://127.0.0.1:1/v3/0123456789abcdef");
        let error = endpoint.chain_id().await.unwrap_err();
        assert_eq!(
            error,
            RpcError::RpcUnreachable {
                call: "eth_chainId",
                why: "no connection"
            }
        );
        assert!(!error.to_string().contains("0123456789abcdef"));
    }

    #[test]
    fn only_absolute_http_urls_are_endpoints() {
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
    fn refusals_are_read_by_families_of_words_whatever_the_client() {
        for words in [
            "already known",
            "transaction already imported",
            "Known transaction: 0x1",
            "AlreadyKnown",
        ] {
            assert_eq!(read_refusal(words.into()), SendOutcome::Accepted, "{words}");
        }
        for words in [
            "nonce too low",
            "Nonce is too low: next 5",
            "OldNonce",
            "nonce too low: address 0x, tx: 1 state: 2",
        ] {
            assert_eq!(
                read_refusal(words.into()),
                SendOutcome::NonceUsed,
                "{words}"
            );
        }
        for words in [
            "replacement transaction underpriced",
            "Insufficient funds for gas * price + value",
            "max fee per gas less than block base fee",
            "txpool is full",
        ] {
            assert_eq!(
                read_refusal(words.into()),
                SendOutcome::Refused(words.into()),
                "{words}"
            );
        }
    }
}
