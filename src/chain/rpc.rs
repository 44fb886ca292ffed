//! One JSON-RPC endpoint of a chain: what the operator asks it, and what it says.
//!
//! Each method is one question of the registry loop and one batch of calls. Errors never contain a
//! URL: any part of a URL may be a credential, and endpoints often repeat it in their messages.
//! Sending takes a [`Leading`]; all other questions only read. The answers decide nothing here,
//! except about the endpoint's own [`EndpointHealth`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, Bytes, U256, b256};
use alloy::sol_types::{SolCall, SolEvent};
use serde_json::{Value, json};

use super::decode::{self, Missing, OwnerEvent};
use super::envelope::{CallFailure, RpcCall};
use super::error::Redaction;
use super::health::EndpointHealth;
use super::refusal::{Refusal, classify};
use super::transport::Transport;
use super::{
    AccountReading, AccountTransaction, AuthorizedTransfer, Block, ChainIdentity, FeeMarket, Head,
    LogPage, OnChainAgent, Receipt, RegisteredEvent, TokenReading, TransactionCounts, abi,
};
use crate::api::Nonce;
use crate::leader::fence::Effect;
use crate::leader::{Leading, NotLeading};
use crate::metrics::{ChainMetrics, Label as _, RpcMethod};

pub use super::error::RpcError;
pub use super::transport::UrlError;

/// Storage slot of a proxy's implementation (ERC-1967).
const IMPLEMENTATION_SLOT: B256 =
    b256!("360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc");
/// Blocks whose rewards are looked at, and the percentile of the rewards in each.
const FEE_HISTORY_BLOCKS: &str = "0xa";
const FEE_HISTORY_PERCENTILE: u64 = 20;
/// Blocks in which a transfer is looked for: those of the last half hour on most chains.
const TRANSFER_BLOCKS: u64 = 1000;
/// How often a call is sent again whose block the endpoint did not have.
const RETRIES: usize = 2;
/// Requests in a row without an answer after which a pass asks the endpoint nothing more.
const UNANSWERED: u32 = 2;

/// How an endpoint answered a sent transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The endpoint has the transaction, from this send or from an earlier one.
    Accepted,
    /// Nonce too low: the chain's evidence decides what used it. Never a reason to allocate another
    /// nonce.
    NonceUsed,
    /// The endpoint refuses the transaction for now. It may still be included.
    Refused {
        /// Meaning of the message.
        refusal: Refusal,
        /// Message of the endpoint, without credentials.
        message: String,
    },
    /// There was no answer, or only a rate limit: the endpoint may or may not have the transaction.
    Unanswered(RpcError),
}

/// One JSON-RPC endpoint. Clones share connections and health.
#[derive(Clone)]
pub struct RpcEndpoint {
    shared: Arc<Shared>,
    /// `None` if it is asked on behalf of no pass.
    pass: Option<Arc<Mutex<Unanswered>>>,
}

/// Requests that one pass has sent in a row without an answer.
#[derive(Debug, Default)]
struct Unanswered {
    requests: u32,
    last: Option<RpcError>,
}

struct Shared {
    transport: Transport,
    /// Scheme, host and port: the only parts of the URL that are shown.
    name: String,
    redaction: Redaction,
    created: Instant,
    health: Mutex<EndpointHealth>,
}

impl fmt::Debug for RpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RpcEndpoint")
            .field(&self.shared.name)
            .finish()
    }
}

impl fmt::Display for RpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.name)
    }
}

impl RpcEndpoint {
    /// Creates a client for the endpoint at a URL. It sends no request yet.
    ///
    /// # Errors
    /// If the text is not an absolute http or https URL.
    pub fn new(url: &str, metrics: ChainMetrics) -> Result<Self, UrlError> {
        let transport = Transport::new(url, metrics)?;
        let shared = Shared {
            name: transport.name(),
            redaction: transport.redaction(),
            transport,
            created: Instant::now(),
            health: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            pass: None,
        })
    }

    /// The endpoint as one pass asks it. Once it leaves two requests in a row unanswered, the rest
    /// of the pass has the same error without being sent, and the pass ends soon.
    #[must_use]
    pub fn for_pass(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            pass: Some(Arc::default()),
        }
    }

    /// Why the pass asks nothing more.
    #[must_use]
    pub fn stopped_answering(&self) -> Option<RpcError> {
        let pass = self.pass.as_ref()?;
        let unanswered = pass.lock().unwrap_or_else(PoisonError::into_inner);
        unanswered
            .last
            .clone()
            .filter(|_| unanswered.requests >= UNANSWERED)
    }

    /// Health of the endpoint, from all answers so far.
    #[must_use]
    pub fn health(&self) -> EndpointHealth {
        self.lock_health().clone()
    }

    /// Judges the endpoint by the chain that it serves.
    pub fn check_chain(&self, expected: u64, actual: u64) {
        self.lock_health()
            .chain_checked(expected, actual, self.age());
    }

    /// Judges the endpoint by its latest block and the best latest block of the other endpoints.
    pub fn check_head(&self, head: u64, best_of_others: u64) {
        self.lock_health()
            .head_checked(head, best_of_others, self.age());
    }

    fn lock_health(&self) -> MutexGuard<'_, EndpointHealth> {
        self.shared
            .health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn age(&self) -> Duration {
        self.shared.created.elapsed()
    }

    /// Sends calls, and returns their answers in the same order.
    ///
    /// Behind a load balancer, a node that is a few blocks behind answers that it does not have a
    /// block which another one has just served: such calls are sent again.
    async fn ask(&self, calls: &[RpcCall]) -> Vec<Result<Value, RpcError>> {
        let mut answers = self.request(calls).await;
        for _ in 0..RETRIES {
            let missing: Vec<usize> = (0..calls.len())
                .filter(|at| matches!(answers[*at], Err(RpcError::RpcHistoryMissing { .. })))
                .collect();
            if missing.is_empty() {
                break;
            }
            let again: Vec<RpcCall> = missing.iter().map(|at| calls[*at].clone()).collect();
            for (at, answer) in missing.into_iter().zip(self.request(&again).await) {
                answers[at] = answer;
            }
        }
        answers
    }

    async fn request(&self, calls: &[RpcCall]) -> Vec<Result<Value, RpcError>> {
        if let Some(error) = self.stopped_answering() {
            return vec![Err(error); calls.len()];
        }
        let answers = self.shared.transport.request(calls).await;
        let answers: Vec<_> = calls
            .iter()
            .zip(answers)
            .map(|(call, answer)| answer.map_err(|failure| self.read_failure(call.method, failure)))
            .collect();
        self.count_unanswered(&answers);
        answers
    }

    fn count_unanswered(&self, answers: &[Result<Value, RpcError>]) {
        let Some(pass) = &self.pass else {
            return;
        };
        let mut unanswered = pass.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.last() {
            Some(Err(error)) if error.unanswered_requests() > 0 => {
                let requests = error.unanswered_requests();
                unanswered.requests = unanswered.requests.saturating_add(requests);
                unanswered.last = Some(error.clone());
            }
            Some(_) => *unanswered = Unanswered::default(),
            None => {}
        }
    }

    /// Sends one call.
    async fn ask_one(&self, method: RpcMethod, params: Value) -> Result<Value, RpcError> {
        let mut answers = self.ask(&[RpcCall::new(method, params)]).await;
        answers
            .pop()
            .unwrap_or(Err(incomplete(method, Missing("result"))))
    }

    fn read_failure(&self, method: RpcMethod, failure: CallFailure) -> RpcError {
        match failure {
            CallFailure::Unreachable(cause) => RpcError::unreachable(method, cause),
            CallFailure::Incomplete(missing) => incomplete(method, Missing(missing)),
            CallFailure::Refused(refused) => {
                let refusal = classify(
                    method,
                    refused.http_status,
                    refused.code,
                    &refused.message,
                    refused.data.as_ref(),
                );
                let mut message = self.shared.redaction.redact(&refused.message);
                if message.is_empty() {
                    message = refused
                        .code
                        .map_or("no message".to_owned(), |code| format!("error {code}"));
                }
                RpcError::refused(method, refusal, refused.retry_after, message)
            }
        }
    }

    /// Records in the health how a question was answered.
    fn judge<T>(&self, question: &'static str, answer: Result<T, RpcError>) -> Result<T, RpcError> {
        let mut health = self.lock_health();
        match &answer {
            Err(error) if error.is_endpoint_fault() => {
                for _ in 0..error.unanswered_requests().max(1) {
                    health.failed(question, error.to_string());
                }
            }
            _ => health.answered(question, self.age()),
        }
        drop(health);
        answer
    }

    /// Records the health after questions about many items: one that failed is a matter of its
    /// item, and only if all failed the endpoint is to blame.
    fn judge_items<T>(&self, question: &'static str, answers: &[Result<T, RpcError>]) {
        let is_fault = |answer: &&Result<T, RpcError>| matches!(answer, Err(error) if error.is_endpoint_fault());
        let worst = answers.iter().find(is_fault);
        match worst {
            Some(Err(error)) if answers.iter().all(|answer| is_fault(&answer)) => {
                self.lock_health().failed(question, error.to_string());
            }
            _ if answers.is_empty() => {}
            _ => self.lock_health().answered(question, self.age()),
        }
    }

    /// The latest and the last finalized block.
    pub async fn head(&self) -> Result<Head, RpcError> {
        let head = self.read_head().await;
        self.judge("head", head)
    }

    async fn read_head(&self) -> Result<Head, RpcError> {
        let calls = [BlockNumberOrTag::Latest, BlockNumberOrTag::Finalized]
            .map(|at| RpcCall::new(RpcMethod::Block, json!([at, false])));
        let [latest, finalized] = take(self.ask(&calls).await)?;
        let read = |block: Value| decode::block(&block).map_err(of(RpcMethod::Block));
        let latest =
            read(latest?)?.ok_or_else(|| incomplete(RpcMethod::Block, Missing("latest block")))?;
        let finalized = match finalized {
            Ok(block) => read(block)?,
            // Chains and nodes without finality refuse the tag, each with its own error.
            Err(error) if is_definite(&error) => None,
            Err(error) => return Err(error),
        };
        // Behind a load balancer, the second answer may be from a node that is ahead.
        let latest = finalized
            .filter(|finalized| finalized.number > latest.number)
            .unwrap_or(latest);
        Ok(Head { latest, finalized })
    }

    /// A block by number or tag; `None` if it does not exist yet.
    pub async fn block(&self, at: BlockNumberOrTag) -> Result<Option<Block>, RpcError> {
        let answer = self.ask_one(RpcMethod::Block, json!([at, false])).await;
        let block = answer.and_then(|block| decode::block(&block).map_err(of(RpcMethod::Block)));
        self.judge("block", block)
    }

    /// Transactions of an account in a block. The block lists them, so the endpoint needs no index of
    /// transactions.
    pub async fn transactions_in(
        &self,
        block: u64,
        account: Address,
    ) -> Result<Vec<AccountTransaction>, RpcError> {
        let at = BlockNumberOrTag::Number(block);
        let answer = self.ask_one(RpcMethod::Block, json!([at, true])).await;
        let found = answer.and_then(|block| {
            decode::transactions_of(&block, account).map_err(of(RpcMethod::Block))
        });
        self.judge("transactions_in", found)
    }

    /// The chain that the endpoint serves, and the contract at the registry's address.
    pub async fn identity(&self, contract: Address) -> Result<ChainIdentity, RpcError> {
        let identity = self.read_identity(contract).await;
        self.judge("identity", identity)
    }

    async fn read_identity(&self, contract: Address) -> Result<ChainIdentity, RpcError> {
        let code = |at: Address| RpcCall::new(RpcMethod::Code, json!([at, "latest"]));
        let [op_stack, scroll] = abi::FEE_ORACLES;
        let calls = [
            RpcCall::new(RpcMethod::ChainId, json!([])),
            RpcCall::new(
                RpcMethod::Block,
                json!([BlockNumberOrTag::Number(0), false]),
            ),
            code(contract),
            RpcCall::new(
                RpcMethod::Storage,
                json!([contract, IMPLEMENTATION_SLOT, "latest"]),
            ),
            view(contract, &abi::getVersionCall {}, BlockNumberOrTag::Latest),
            code(op_stack),
            code(scroll),
        ];
        let [
            chain_id,
            genesis,
            code,
            slot,
            version,
            op_stack_code,
            scroll_code,
        ] = take(self.ask(&calls).await)?;
        let has_code = |code: Result<Value, RpcError>| {
            let hash = decode::code_hash(&code?).map_err(of(RpcMethod::Code))?;
            Ok::<_, RpcError>(hash.is_some())
        };
        let fee_oracle = match (has_code(op_stack_code)?, has_code(scroll_code)?) {
            (true, _) => Some(op_stack),
            (false, true) => Some(scroll),
            (false, false) => None,
        };
        let chain_id = decode::number(&chain_id?)
            .ok_or_else(|| incomplete(RpcMethod::ChainId, Missing("chain id")))?;
        // A node that keeps no old blocks has no first one either.
        let genesis = match tolerate(genesis)? {
            Some(block) => decode::block(&block).map_err(of(RpcMethod::Block))?,
            None => None,
        };
        let implementation = match tolerate(slot)? {
            Some(slot) => decode::address_in_slot(&slot).map_err(of(RpcMethod::Storage))?,
            None => None,
        };
        let version = tolerate(version)?.and_then(|version| {
            decode::returns::<abi::getVersionCall>(&version, "contract version").ok()
        });
        Ok(ChainIdentity {
            chain_id,
            genesis: genesis.map(|block| block.hash),
            code_hash: decode::code_hash(&code?).map_err(of(RpcMethod::Code))?,
            implementation,
            version,
            fee_oracle,
        })
    }

    /// How a token describes itself.
    pub async fn token(&self, token: Address) -> Result<TokenReading, RpcError> {
        let reading = self.read_token(token).await;
        self.judge("token", reading)
    }

    async fn read_token(&self, token: Address) -> Result<TokenReading, RpcError> {
        let at = BlockNumberOrTag::Latest;
        let calls = [
            RpcCall::new(RpcMethod::ChainId, json!([])),
            view(token, &abi::nameCall {}, at),
            view(token, &abi::versionCall {}, at),
            view(token, &abi::decimalsCall {}, at),
            view(token, &abi::DOMAIN_SEPARATORCall {}, at),
        ];
        let [chain_id, name, version, decimals, domain_separator] = take(self.ask(&calls).await)?;
        let chain_id = decode::number(&chain_id?)
            .ok_or_else(|| incomplete(RpcMethod::ChainId, Missing("chain id")))?;
        Ok(TokenReading {
            chain_id,
            name: returned::<abi::nameCall>(name)?,
            version: returned::<abi::versionCall>(version)?,
            decimals: returned::<abi::decimalsCall>(decimals)?,
            domain_separator: returned::<abi::DOMAIN_SEPARATORCall>(domain_separator)?,
        })
    }

    /// Whether an authorization of a token's transfer was used or cancelled by the latest block;
    /// `None` if the endpoint serves another chain, or the token does not say.
    pub async fn authorization_used(
        &self,
        chain_id: u64,
        token: Address,
        authorizer: Address,
        nonce: B256,
        at: BlockNumberOrTag,
    ) -> Result<Option<bool>, RpcError> {
        let question = abi::authorizationStateCall { authorizer, nonce };
        let state = self
            .read_authorization(chain_id, token, &question, at)
            .await;
        self.judge("authorization", state)
    }

    async fn read_authorization(
        &self,
        chain_id: u64,
        token: Address,
        question: &abi::authorizationStateCall,
        at: BlockNumberOrTag,
    ) -> Result<Option<bool>, RpcError> {
        let calls = [
            RpcCall::new(RpcMethod::ChainId, json!([])),
            view(token, question, at),
        ];
        let [own, state] = take(self.ask(&calls).await)?;
        let is_of_chain = decode::number(&own?) == Some(chain_id);
        let state = returned::<abi::authorizationStateCall>(state)?;
        Ok(state.filter(|_| is_of_chain))
    }

    /// The transaction that made an authorized transfer in the latest blocks; `None` if the endpoint
    /// does not show it, or serves another chain.
    pub async fn transfer_transaction(
        &self,
        chain_id: u64,
        token: Address,
        transfer: &AuthorizedTransfer,
    ) -> Result<Option<B256>, RpcError> {
        let found = self.read_transfer(chain_id, token, transfer).await;
        self.judge("transfer", found)
    }

    async fn read_transfer(
        &self,
        chain_id: u64,
        token: Address,
        transfer: &AuthorizedTransfer,
    ) -> Result<Option<B256>, RpcError> {
        let latest = json!([BlockNumberOrTag::Latest, false]);
        let calls = [
            RpcCall::new(RpcMethod::ChainId, json!([])),
            RpcCall::new(RpcMethod::Block, latest),
        ];
        let [own, latest] = take(self.ask(&calls).await)?;
        if decode::number(&own?) != Some(chain_id) {
            return Ok(None);
        }
        let Some(latest) = decode::block(&latest?).map_err(of(RpcMethod::Block))? else {
            return Ok(None);
        };
        let range = (latest.number.saturating_sub(TRANSFER_BLOCKS), latest.number);
        let events = [
            abi::AuthorizationUsed::SIGNATURE_HASH,
            abi::Transfer::SIGNATURE_HASH,
        ];
        // Both have the payer in the same topic.
        let filter = json!([{
            "address": token,
            "fromBlock": BlockNumberOrTag::Number(range.0),
            "toBlock": BlockNumberOrTag::Number(range.1),
            "topics": [events, B256::left_padding_from(transfer.from.as_slice())],
        }]);
        let logs = self.ask_one(RpcMethod::Logs, filter).await?;
        decode::transfer_transaction(&logs, token, transfer, range).map_err(of(RpcMethod::Logs))
    }

    /// Transaction counts, balance and code of an account.
    pub async fn account(
        &self,
        account: Address,
        finalized_block: u64,
    ) -> Result<AccountReading, RpcError> {
        let reading = self.read_account(account, finalized_block).await;
        self.judge("account", reading)
    }

    async fn read_account(
        &self,
        account: Address,
        finalized_block: u64,
    ) -> Result<AccountReading, RpcError> {
        let count =
            |at: BlockNumberOrTag| RpcCall::new(RpcMethod::TransactionCount, json!([account, at]));
        let calls = [
            count(BlockNumberOrTag::Number(finalized_block)),
            count(BlockNumberOrTag::Latest),
            count(BlockNumberOrTag::Pending),
            RpcCall::new(RpcMethod::Balance, json!([account, "latest"])),
            RpcCall::new(RpcMethod::Code, json!([account, "latest"])),
        ];
        let [finalized, latest, pending, balance, code] = take(self.ask(&calls).await)?;
        Ok(AccountReading {
            counts: TransactionCounts {
                finalized: read_count(finalized)?,
                latest: read_count(latest)?,
                pending: read_count(pending)?,
            },
            balance: read_balance(balance)?,
            has_code: decode::code_hash(&code?)
                .map_err(of(RpcMethod::Code))?
                .is_some(),
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
            .ask_one(RpcMethod::TransactionCount, json!([account, at]))
            .await;
        self.judge("transaction_count", read_count(answer))
    }

    /// Current fees. The latest block shows whether the chain has EIP-1559.
    pub async fn fee_market(&self, latest: &Block) -> Result<FeeMarket, RpcError> {
        let market = match latest.base_fee {
            Some(base_fee) => {
                let tip = self.read_tip(base_fee).await;
                tip.map(|tip| FeeMarket::Dynamic { base_fee, tip })
            }
            None => {
                let gas_price = self.read_gas_price().await;
                gas_price.map(|gas_price| FeeMarket::Legacy { gas_price })
            }
        };
        self.judge("fee_market", market)
    }

    /// What recent transactions paid, but at least what the node suggests: on a quiet chain recent
    /// blocks are empty, and a node may include nothing below its own minimum.
    async fn read_tip(&self, base_fee: u128) -> Result<u128, RpcError> {
        let calls = [
            RpcCall::new(
                RpcMethod::FeeHistory,
                json!([FEE_HISTORY_BLOCKS, "latest", [FEE_HISTORY_PERCENTILE]]),
            ),
            RpcCall::new(RpcMethod::PriorityFee, json!([])),
        ];
        let [history, suggestion] = take(self.ask(&calls).await)?;
        let paid = tolerate(history)?.and_then(|history| decode::median_reward(&history));
        let suggested = tolerate(suggestion)?.and_then(|fee| decode::amount(&fee));
        let tip = match paid.max(suggested) {
            Some(tip) => tip,
            // An endpoint that knows only prices.
            None => self.read_gas_price().await?.saturating_sub(base_fee),
        };
        Ok(tip.max(1))
    }

    async fn read_gas_price(&self) -> Result<u128, RpcError> {
        let price = self.ask_one(RpcMethod::GasPrice, json!([])).await?;
        decode::amount(&price).ok_or_else(|| incomplete(RpcMethod::GasPrice, Missing("gas price")))
    }

    /// What a rollup charges for a transaction besides gas, in wei: for its publication on L1, by its
    /// unsigned encoding, and for its operator, by its gas limit.
    ///
    /// # Errors
    /// Also if the oracle answers no question about the publication: then the cost is not known.
    pub async fn rollup_fee(
        &self,
        oracle: Address,
        unsigned: &[u8],
        gas: u64,
    ) -> Result<u128, RpcError> {
        let fee = self.read_rollup_fee(oracle, unsigned, gas).await;
        self.judge("rollup_fee", fee)
    }

    async fn read_rollup_fee(
        &self,
        oracle: Address,
        unsigned: &[u8],
        gas: u64,
    ) -> Result<u128, RpcError> {
        let latest = BlockNumberOrTag::Latest;
        let bound = abi::getL1FeeUpperBoundCall {
            unsignedTxSize: U256::from(unsigned.len()),
        };
        let data = abi::getL1FeeCall {
            data: Bytes::copy_from_slice(unsigned),
        };
        let operator = abi::getOperatorFeeCall {
            gasUsed: U256::from(gas),
        };
        let calls = [
            view(oracle, &bound, latest),
            view(oracle, &data, latest),
            view(oracle, &operator, latest),
        ];
        let [bound, data, operator] = take(self.ask(&calls).await)?;
        // All of them return one number.
        let amount = |answer| -> Result<Option<u128>, RpcError> {
            let fee = tolerate(answer)?.and_then(|fee| {
                let fee = decode::returns::<abi::getL1FeeCall>(&fee, "L1 fee");
                fee.ok()
            });
            Ok(fee.map(|fee| fee.saturating_to()))
        };
        // Older oracles revert where they lack a function.
        let data_fee = amount(bound)?.or(amount(data)?);
        let data_fee = data_fee.ok_or_else(|| incomplete(RpcMethod::Call, Missing("L1 fee")))?;
        let operator_fee = amount(operator)?.unwrap_or_default();
        Ok(data_fee.saturating_add(operator_fee))
    }

    /// Estimates the gas of a call on the latest block. By default some nodes (anvil, older
    /// geth) take the pending one, in which the account's own transactions have already made the
    /// next one cheaper: a replacement of the first of them would run out of gas.
    ///
    /// # Errors
    /// [`Refusal::Reverted`] if the call would revert, and [`Refusal::InsufficientFunds`] if the
    /// account cannot pay for it.
    pub async fn estimate_gas(
        &self,
        from: Address,
        to: Address,
        calldata: Bytes,
    ) -> Result<u64, RpcError> {
        let call = json!([{ "from": from, "to": to, "data": calldata }, BlockNumberOrTag::Latest]);
        let answer = self.ask_one(RpcMethod::EstimateGas, call).await;
        let gas = answer.and_then(|gas| {
            decode::number(&gas).ok_or_else(|| incomplete(RpcMethod::EstimateGas, Missing("gas")))
        });
        self.judge("estimate_gas", gas)
    }

    /// Number of agents that an owner holds at a block.
    pub async fn balance_of(
        &self,
        registry: Address,
        owner: Address,
        block: u64,
    ) -> Result<U256, RpcError> {
        let call = view(
            registry,
            &abi::balanceOfCall { owner },
            BlockNumberOrTag::Number(block),
        );
        let answer = self.ask_one(call.method, call.params).await;
        let balance = answer.and_then(|balance| {
            decode::returns::<abi::balanceOfCall>(&balance, "balance").map_err(of(RpcMethod::Call))
        });
        self.judge("balance_of", balance)
    }

    /// Logs of an owner in a range of blocks.
    ///
    /// # Errors
    /// Also if a log lacks its block or transaction. [`RpcError::narrows_range`] says whether fewer
    /// blocks may succeed.
    pub async fn log_page(
        &self,
        registry: Address,
        owner: Address,
        from: u64,
        to: u64,
    ) -> Result<LogPage, RpcError> {
        let page = self.read_log_page(registry, owner, from, to).await;
        self.judge_range("log_page", (from, to), page)
    }

    /// Registrations by all accounts in a range of blocks, each with its account.
    ///
    /// # Errors
    /// Those of [`Self::log_page`].
    pub async fn registrations(
        &self,
        registry: Address,
        from: u64,
        to: u64,
    ) -> Result<Vec<(Address, RegisteredEvent)>, RpcError> {
        let filter = log_filter(
            registry,
            (from, to),
            json!([abi::Registered::SIGNATURE_HASH]),
        );
        let logs = self.ask_one(filter.method, filter.params).await;
        let found = logs.and_then(|logs| {
            decode::registrations(&logs, registry, (from, to)).map_err(of(RpcMethod::Logs))
        });
        self.judge_range("registrations", (from, to), found)
    }

    /// An answer about a range of blocks: the range is to blame, until it cannot be smaller.
    fn judge_range<T>(
        &self,
        call: &'static str,
        (from, to): (u64, u64),
        answer: Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        match answer {
            Err(error) if error.narrows_range() && from < to => Err(error),
            answer => self.judge(call, answer),
        }
    }

    async fn read_log_page(
        &self,
        registry: Address,
        owner: Address,
        from: u64,
        to: u64,
    ) -> Result<LogPage, RpcError> {
        let owner_topic = B256::left_padding_from(owner.as_slice());
        let transfer = abi::Transfer::SIGNATURE_HASH;
        let filter = |topics| log_filter(registry, (from, to), topics);
        // `Registered` and `Transfer` have the owner in the same topic. One filter for both comes
        // from one node, so that each mint can be matched with its registration.
        let calls = [
            filter(json!([
                [abi::Registered::SIGNATURE_HASH, transfer],
                null,
                owner_topic
            ])),
            filter(json!([transfer, owner_topic])),
        ];
        let [incoming, outgoing] = take(self.ask(&calls).await)?;
        let (incoming, outgoing) = (incoming?, outgoing?);
        let range = (from, to);
        let events =
            decode::incoming(&incoming, registry, owner, range).map_err(of(RpcMethod::Logs))?;
        let mut page = LogPage {
            from,
            to,
            given: decode::outgoing(&outgoing, registry, owner, range)
                .map_err(of(RpcMethod::Logs))?,
            ..LogPage::default()
        };
        for event in events {
            match event {
                OwnerEvent::Registered(registration) => page.registrations.push(registration),
                OwnerEvent::Minted(agent_id) => page.mints.push(agent_id),
                OwnerEvent::Received => page.received += 1,
            }
        }
        Ok(page)
    }

    /// Receipts of transactions; `None` for one that no block contains.
    pub async fn receipts(&self, hashes: &[B256]) -> Vec<Result<Option<Receipt>, RpcError>> {
        let receipts = self
            .ask_each(RpcMethod::Receipt, hashes, decode::receipt)
            .await;
        self.judge_items("receipts", &receipts);
        receipts
    }

    /// Senders and nonces of transactions; `None` for one that the endpoint does not know.
    pub async fn transactions(
        &self,
        hashes: &[B256],
    ) -> Vec<Result<Option<(Address, Nonce)>, RpcError>> {
        let transactions = self
            .ask_each(RpcMethod::Transaction, hashes, decode::transaction)
            .await;
        self.judge_items("transactions", &transactions);
        transactions
    }

    async fn ask_each<T>(
        &self,
        method: RpcMethod,
        hashes: &[B256],
        read: impl Fn(&Value) -> Result<T, Missing>,
    ) -> Vec<Result<T, RpcError>> {
        let calls: Vec<RpcCall> = hashes
            .iter()
            .map(|hash| RpcCall::new(method, json!([hash])))
            .collect();
        let answers = self.ask(&calls).await;
        answers
            .into_iter()
            .map(|answer| read(&answer?).map_err(of(method)))
            .collect()
    }

    /// Agents by id at a block; `None` for one that the contract does not know.
    pub async fn agents(
        &self,
        contract: Address,
        ids: &[U256],
        block: u64,
    ) -> Vec<Result<Option<OnChainAgent>, RpcError>> {
        let at = BlockNumberOrTag::Number(block);
        let calls: Vec<RpcCall> = ids
            .iter()
            .flat_map(|id| {
                [
                    view(contract, &abi::ownerOfCall { tokenId: *id }, at),
                    view(contract, &abi::tokenURICall { tokenId: *id }, at),
                ]
            })
            .collect();
        let mut answers = self.ask(&calls).await.into_iter();
        let mut agents = Vec::with_capacity(ids.len());
        while let (Some(owner), Some(uri)) = (answers.next(), answers.next()) {
            agents.push(read_agent(owner, uri));
        }
        self.judge_items("agents", &agents);
        agents
    }

    /// Sends the stored bytes of a signed transaction.
    ///
    /// # Errors
    /// Only if this replica is not the leader. Any answer of the endpoint is an outcome, since a
    /// transaction that was sent may be included whatever the endpoint answered.
    pub async fn send(&self, leading: &Leading, raw: &Bytes) -> Result<SendOutcome, NotLeading> {
        let answer = leading
            .guard(Effect::Chain, self.ask_one(RpcMethod::Send, json!([raw])))
            .await?;
        Ok(match self.judge("send", answer) {
            Ok(_) => SendOutcome::Accepted,
            Err(RpcError::RpcRefused {
                refusal: Refusal::AlreadyKnown,
                ..
            }) => SendOutcome::Accepted,
            Err(RpcError::RpcRefused {
                refusal: Refusal::NonceTooLow,
                ..
            }) => SendOutcome::NonceUsed,
            Err(RpcError::RpcRefused {
                refusal, message, ..
            }) => SendOutcome::Refused { refusal, message },
            Err(RpcError::RpcMethodMissing { message, .. }) => SendOutcome::Refused {
                refusal: Refusal::MethodMissing,
                message,
            },
            Err(RpcError::RpcHistoryMissing { message, .. }) => SendOutcome::Refused {
                refusal: Refusal::HistoryMissing,
                message,
            },
            Err(error) => SendOutcome::Unanswered(error),
        })
    }
}

/// Asks for the logs of a contract in a range of blocks.
fn log_filter(contract: Address, (from, to): (u64, u64), topics: Value) -> RpcCall {
    let filter = json!([{
        "address": contract,
        "fromBlock": BlockNumberOrTag::Number(from),
        "toBlock": BlockNumberOrTag::Number(to),
        "topics": topics,
    }]);
    RpcCall::new(RpcMethod::Logs, filter)
}

/// The answers to a fixed number of calls.
fn take<const N: usize>(
    answers: Vec<Result<Value, RpcError>>,
) -> Result<[Result<Value, RpcError>; N], RpcError> {
    answers.try_into().map_err(|_| RpcError::RpcIncomplete {
        call: "batch",
        missing: "answer to each call",
    })
}

fn incomplete(method: RpcMethod, Missing(missing): Missing) -> RpcError {
    RpcError::RpcIncomplete {
        call: method.as_str(),
        missing,
    }
}

fn of(method: RpcMethod) -> impl Fn(Missing) -> RpcError {
    move |missing| incomplete(method, missing)
}

/// Whether the endpoint would refuse the same call again: it is not a matter of load or connection.
fn is_definite(error: &RpcError) -> bool {
    matches!(
        error,
        RpcError::RpcRangeLimited { .. }
            | RpcError::RpcHistoryMissing { .. }
            | RpcError::RpcMethodMissing { .. }
            | RpcError::RpcRefused { .. }
    )
}

/// An answer that not every endpoint has: `None` if this one definitely refuses it, or has none.
fn tolerate(answer: Result<Value, RpcError>) -> Result<Option<Value>, RpcError> {
    match answer {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_null())),
        Err(error) if is_definite(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Call of a view function.
fn view<C: SolCall>(to: Address, call: &C, at: BlockNumberOrTag) -> RpcCall {
    let data = Bytes::from(call.abi_encode());
    RpcCall::new(RpcMethod::Call, json!([{ "to": to, "data": data }, at]))
}

/// What a view function returned; `None` if the contract has no such function.
fn returned<C: SolCall>(answer: Result<Value, RpcError>) -> Result<Option<C::Return>, RpcError> {
    let answer = tolerate(answer)?;
    Ok(answer.and_then(|answer| decode::returns::<C>(&answer, "result").ok()))
}

fn read_count(answer: Result<Value, RpcError>) -> Result<Nonce, RpcError> {
    decode::number(&answer?)
        .map(Nonce)
        .ok_or_else(|| incomplete(RpcMethod::TransactionCount, Missing("transaction count")))
}

fn read_balance(answer: Result<Value, RpcError>) -> Result<u128, RpcError> {
    decode::amount(&answer?).ok_or_else(|| incomplete(RpcMethod::Balance, Missing("balance")))
}

fn read_agent(
    owner: Result<Value, RpcError>,
    uri: Result<Value, RpcError>,
) -> Result<Option<OnChainAgent>, RpcError> {
    let owner = match owner {
        Ok(owner) => {
            decode::returns::<abi::ownerOfCall>(&owner, "owner").map_err(of(RpcMethod::Call))?
        }
        Err(error) if error.is_revert() => return Ok(None),
        Err(error) => return Err(error),
    };
    if owner.is_zero() {
        return Ok(None);
    }
    let uri = match uri {
        Ok(uri) => Some(uri),
        Err(error) if error.is_revert() => None,
        Err(error) => return Err(error),
    };
    Ok(Some(decode::agent(owner, uri.as_ref())))
}
