//! Reads an account's logs into its owner-log index, page by page, and proves it by the account's
//! balance.
//!
//! It owns where reading starts and continues, and when it is tried again. It must not decide what
//! an index proves: [`crate::ledger::index`] does. It asks for no state of an old block: the
//! balance is read at the last final block only. The one exception is the transaction count at a
//! configured block, and an endpoint that no longer has it is accepted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, U256};
use strum::IntoStaticStr;

use crate::api::{AgentRegistrationSpec, IndexPosition, Nonce};
use crate::chain::scan::{ScanStep, hinted_limit};
use crate::chain::{RpcEndpoint, RpcError};
use crate::ledger::index::{IndexOf, IndexStart, OwnerIndex, PageRejected};

/// How often in a row logs may be incomplete before a position that was never proven is dropped, and
/// reading backs off.
const MISMATCHES: u32 = 2;
/// The same after an index was proven: only what follows is read again, and a node that is behind
/// catches up.
const MISMATCHES_AFTER_PROOF: u32 = 5;
/// How long reading backs off.
const BACK_OFF: Duration = Duration::from_secs(60);
/// Blocks whose logs some nodes behind a load balancer may lack, because they are behind the others.
pub(super) const LAG: u64 = 16;

/// Which logs are read, and what is known of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexQuery<'a> {
    pub(super) of: IndexOf,
    pub(super) start: IndexStart,
    /// The last final block.
    pub(super) last: u64,
    /// Position that the registry's status holds for the account.
    pub(super) position: Option<&'a IndexPosition>,
    /// Records of all registries. They may come from a cache.
    pub(super) records: &'a [Arc<AgentRegistrationSpec>],
    /// How long reading may take; the rest is read later.
    pub(super) budget: Duration,
}

/// What is known of an account's registrations.
#[derive(Clone, Debug, Default)]
pub(super) struct IndexReading {
    /// The last index that was proven complete.
    pub(super) index: Option<Arc<OwnerIndex>>,
    /// Next block to read and last final block, while there are blocks to read.
    pub(super) progress: Option<(u64, u64)>,
    /// Why reading does not continue.
    pub(super) problem: Option<IndexProblem>,
    /// Whether logs were incomplete, and may be complete in the next pass.
    pub(super) is_retried_soon: bool,
    /// Where another replica can continue; to be stored with
    /// [`crate::ledger::index::updated_positions`].
    pub(super) position: Option<IndexPosition>,
    /// Whether the configured block is accepted without proof, because the endpoint no longer has
    /// the state of that block.
    pub(super) is_start_unverified: bool,
}

/// Why logs cannot be read or prove nothing. The name of a variant is the reason of the condition
/// that reports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum IndexProblem {
    /// The endpoint failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The logs do not account for the agents that the account holds.
    #[error(
        "account {account} holds {expected} agents by the registry contract and {found} by the \
         chain's logs: use an endpoint that has the logs of all blocks, or set spec.bootstrap.fromBlock to \
         an earlier block; nothing is registered until the logs are complete"
    )]
    LogsIncomplete {
        account: Address,
        /// Agents that the account holds.
        expected: U256,
        /// Agents that the logs show.
        found: U256,
    },
    /// The account had sent transactions at the configured block.
    #[error(
        "account {account} had sent {count} transactions at block {block}: set spec.bootstrap.fromBlock \
         to a block at which it had sent none"
    )]
    FromBlockTooLate {
        account: Address,
        /// The configured block, or the last final one if that is earlier.
        block: u64,
        count: Nonce,
    },
}

impl IndexReading {
    /// What is known without asking the chain.
    pub(super) fn kept(state: Option<&IndexState>) -> Self {
        state.map_or_else(Self::default, |state| state.reading(None, None))
    }

    /// Whether all logs were read.
    pub(super) fn is_complete(&self) -> bool {
        self.problem.is_none() && !self.is_behind()
    }

    /// Whether more logs can be read at once.
    pub(super) fn is_behind(&self) -> bool {
        self.progress.is_some_and(|(next, last)| next <= last) && self.problem.is_none()
    }
}

impl IndexProblem {
    /// Reason of the condition.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Rpc(error) => error.reason(),
            own => own.into(),
        }
    }
}

/// Whether the account's transaction count proves that reading starts early enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartCheck {
    Pending,
    Proven,
    /// The endpoint no longer has the state of the block.
    Unverified,
}

/// An index and how far it was read. It can be rebuilt from the chain.
#[derive(Debug)]
pub(crate) struct IndexState {
    of: IndexOf,
    start: IndexStart,
    /// The last index that was proven complete, or the one that reading began with.
    base: Arc<OwnerIndex>,
    /// The base with the pages that were read since.
    unproven: Option<OwnerIndex>,
    start_check: StartCheck,
    /// How often in a row logs were incomplete.
    mismatches: u32,
    /// Why reading backs off, and until when.
    back_off: Option<(IndexProblem, Instant)>,
}

impl IndexState {
    /// Continues at the stored position if the records confirm it, else starts again.
    fn begin(query: &IndexQuery<'_>) -> Self {
        let records = query.records.iter().map(AsRef::as_ref);
        let resumed = query
            .position
            .and_then(|position| OwnerIndex::resume(&query.of, &query.start, position, records));
        Self {
            of: query.of,
            start: query.start,
            base: Arc::new(resumed.unwrap_or_else(|| empty(&query.of, &query.start))),
            unproven: None,
            start_check: if query.start.is_configured {
                StartCheck::Pending
            } else {
                StartCheck::Proven
            },
            mismatches: 0,
            back_off: None,
        }
    }

    /// Whether this is what the query asks for. An index that was read from another block is
    /// dropped, and its position with it.
    fn answers(&self, query: &IndexQuery<'_>) -> bool {
        self.of == query.of && self.start == query.start
    }

    /// Where reading started, if this is what the index is of.
    pub(super) fn start_of(&self, of: &IndexOf) -> Option<IndexStart> {
        (self.of == *of).then_some(self.start)
    }

    /// Whether a record without a result needs logs below the position at which reading continued:
    /// its agent is registered, and only they show how.
    fn lacks_logs(&self, records: &[Arc<AgentRegistrationSpec>]) -> bool {
        records
            .iter()
            .any(|record| record.result.is_none() && self.base.lacks_logs_of(record.key))
    }

    /// Last block up to which the index is proven complete.
    pub(super) fn proven_to(&self) -> Option<u64> {
        self.base.proven_to()
    }

    fn restart(&mut self) {
        self.base = Arc::new(empty(&self.of, &self.start));
        self.unproven = None;
    }

    fn index(&self) -> &OwnerIndex {
        self.unproven.as_ref().unwrap_or(&self.base)
    }

    fn index_mut(&mut self) -> &mut OwnerIndex {
        self.unproven.get_or_insert_with(|| (*self.base).clone())
    }

    /// Keeps what was proven and drops the rest. An index that was not proven since reading began
    /// may rest on a wrong position.
    fn incomplete(&mut self, last: u64, expected: U256, found: U256) -> IndexReading {
        let problem = IndexProblem::LogsIncomplete {
            account: self.of.owner,
            expected,
            found,
        };
        self.unproven = None;
        let is_proven = self.base.proven_to().is_some();
        // All that is missing is so new that a node which is behind lacks it.
        if is_proven && last.saturating_sub(LAG) < self.base.next_block() {
            return IndexReading {
                is_retried_soon: true,
                ..self.reading(Some(problem), None)
            };
        }
        self.mismatches = self.mismatches.saturating_add(1);
        let most = if is_proven {
            MISMATCHES_AFTER_PROOF
        } else {
            MISMATCHES
        };
        let is_retried_soon = self.mismatches < most;
        if !is_retried_soon {
            if !is_proven {
                self.restart();
            }
            self.back_off = Some((problem.clone(), Instant::now() + BACK_OFF));
        }
        IndexReading {
            is_retried_soon,
            ..self.reading(Some(problem), None)
        }
    }

    fn proven(&mut self) {
        if let Some(proven) = self.unproven.take() {
            self.base = Arc::new(proven);
        }
        self.mismatches = 0;
    }

    fn reading(&self, problem: Option<IndexProblem>, last: Option<u64>) -> IndexReading {
        let index = self.index();
        IndexReading {
            index: self
                .base
                .proven_to()
                .is_some()
                .then(|| Arc::clone(&self.base)),
            progress: last.map(|last| (index.next_block(), last)),
            problem,
            is_retried_soon: false,
            position: if index.next_block() > self.start.block {
                index.position()
            } else {
                None
            },
            is_start_unverified: self.start_check == StartCheck::Unverified,
        }
    }
}

fn empty(of: &IndexOf, start: &IndexStart) -> OwnerIndex {
    OwnerIndex::new(of.owner, start.block, start.held)
}

/// What was read of the logs of each account.
#[derive(Debug, Default)]
pub(crate) struct IndexStates {
    pub(super) by_account: BTreeMap<Address, IndexState>,
    /// How many blocks an endpoint searches at once does not depend on the account.
    pub(super) step: ScanStep,
}

/// Reads logs until the index is proven at the last final block, or the budget is used up.
pub(super) async fn read_index(
    endpoint: &RpcEndpoint,
    query: IndexQuery<'_>,
    states: &mut IndexStates,
) -> IndexReading {
    let IndexStates { by_account, step } = states;
    by_account.retain(|owner, state| *owner != query.of.owner || state.answers(&query));
    let state = by_account
        .entry(query.of.owner)
        .or_insert_with(|| IndexState::begin(&query));
    if state.lacks_logs(query.records) {
        state.restart();
    }
    if let Some((problem, until)) = &state.back_off {
        if Instant::now() < *until {
            return state.reading(Some(problem.clone()), None);
        }
        state.back_off = None;
    }
    if let Err(problem) = check_start(endpoint, &query, state).await {
        return state.reading(Some(problem), None);
    }
    match read_to(endpoint, &query, state, step).await {
        Ok(Pages::All) => state.reading(None, None),
        Ok(Pages::Some) => state.reading(None, Some(query.last)),
        Ok(Pages::Incomplete { expected, found }) => {
            if is_proven_before_lag(endpoint, query, state, step).await {
                state.reading(None, None)
            } else {
                state.incomplete(query.last, expected, found)
            }
        }
        Err(error) => state.reading(Some(error.into()), Some(query.last)),
    }
}

/// Reads logs up to a block, and proves the index there.
async fn read_to(
    endpoint: &RpcEndpoint,
    query: &IndexQuery<'_>,
    state: &mut IndexState,
    step: &mut ScanStep,
) -> Result<Pages, RpcError> {
    match read_pages(endpoint, query, state, step).await? {
        Pages::All => prove(endpoint, query, state).await,
        pages => Ok(pages),
    }
}

/// After logs were incomplete: whether those that every node has are complete.
async fn is_proven_before_lag(
    endpoint: &RpcEndpoint,
    query: IndexQuery<'_>,
    state: &mut IndexState,
    step: &mut ScanStep,
) -> bool {
    state.unproven = None;
    let earlier = IndexQuery {
        last: query.last.saturating_sub(LAG),
        ..query
    };
    earlier.last >= state.index().next_block()
        && matches!(
            read_to(endpoint, &earlier, state, step).await,
            Ok(Pages::All)
        )
}

/// Checks that the account had sent nothing at a configured block.
async fn check_start(
    endpoint: &RpcEndpoint,
    query: &IndexQuery<'_>,
    state: &mut IndexState,
) -> Result<(), IndexProblem> {
    if state.start_check != StartCheck::Pending {
        return Ok(());
    }
    let block = query.start.block.min(query.last);
    let count = endpoint
        .transaction_count_at(query.of.owner, BlockNumberOrTag::Number(block))
        .await;
    match count {
        Ok(Nonce(0)) => state.start_check = StartCheck::Proven,
        Ok(count) => {
            let problem = IndexProblem::FromBlockTooLate {
                account: query.of.owner,
                block,
                count,
            };
            state.back_off = Some((problem.clone(), Instant::now() + BACK_OFF));
            return Err(problem);
        }
        Err(error) if lacks_history(&error) => state.start_check = StartCheck::Unverified,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// What reading pages led to.
enum Pages {
    /// The index reaches the last block that was asked for.
    All,
    /// The budget is used up.
    Some,
    /// A page lacks logs.
    Incomplete { expected: U256, found: U256 },
}

async fn read_pages(
    endpoint: &RpcEndpoint,
    query: &IndexQuery<'_>,
    state: &mut IndexState,
    step: &mut ScanStep,
) -> Result<Pages, RpcError> {
    let (registry, owner) = (query.of.registry, query.of.owner);
    let begun = Instant::now();
    while let Some((from, to)) = step.range(state.index().next_block(), query.last) {
        if begun.elapsed() > query.budget {
            return Ok(Pages::Some);
        }
        match endpoint.log_page(registry, owner, from, to).await {
            Ok(page) => {
                *step = step.grown();
                if let Err(rejected) = state.index_mut().extend(page) {
                    return Ok(incomplete(rejected, state.index()));
                }
            }
            Err(error) => *step = narrowed(*step, (from, to), error)?,
        }
    }
    Ok(Pages::All)
}

/// The step after a request for logs that failed, if fewer blocks may succeed.
///
/// # Errors
/// The error, if they may not.
pub(super) fn narrowed(
    step: ScanStep,
    range: (u64, u64),
    error: RpcError,
) -> Result<ScanStep, RpcError> {
    if !error.narrows_range() {
        return Err(error);
    }
    let limit = hinted_limit(&error.to_string());
    step.refused(range, limit).ok_or(error)
}

/// What a rejected page says about the agents of the account.
fn incomplete(rejected: PageRejected, index: &OwnerIndex) -> Pages {
    let (expected, found) = match rejected {
        PageRejected::MintWithoutRegistration {
            expected, found, ..
        } => (expected, found),
        PageRejected::MoreGivenThanReceived { given, received } => (given, received),
        // A page is requested from where the index ends, so it leaves no gap.
        PageRejected::IndexGap { .. } => (index.held(), index.held()),
    };
    Pages::Incomplete { expected, found }
}

/// Compares the index with the account's balance at the last block that was read, unless it was
/// proven there.
async fn prove(
    endpoint: &RpcEndpoint,
    query: &IndexQuery<'_>,
    state: &mut IndexState,
) -> Result<Pages, RpcError> {
    let end = state.index().next_block().checked_sub(1);
    let unproven = end.filter(|end| *end <= query.last && state.index().proven_to() != Some(*end));
    let Some(end) = unproven else {
        return Ok(Pages::All);
    };
    let balance = endpoint
        .balance_of(query.of.registry, query.of.owner, end)
        .await?;
    if state.index_mut().verify_balance(balance) {
        state.proven();
        return Ok(Pages::All);
    }
    Ok(Pages::Incomplete {
        expected: balance,
        found: state.index().held(),
    })
}

/// Whether the endpoint answered that it does not have the state of a block. It was asked for
/// nothing but that state, so a refusal in words that are not known means the same.
const fn lacks_history(error: &RpcError) -> bool {
    matches!(
        error,
        RpcError::RpcHistoryMissing { .. } | RpcError::RpcRefused { .. }
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use alloy::primitives::{Address, B256, LogData};
    use alloy::sol_types::SolEvent;
    use axum::extract::State;
    use axum::routing::post;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{AgentRegistrationSpec, Key, Phase, RegistrationResult};
    use crate::chain::abi;
    use crate::ledger::fixtures::{GENESIS, SIGNER, key, record, result};
    use crate::metrics::Metrics;

    const OF: IndexOf = IndexOf {
        chain_id: 31337,
        genesis_hash: GENESIS,
        registry: Address::ZERO,
        owner: SIGNER,
    };

    /// What a chain shows of the signer.
    #[derive(Default)]
    struct Chain {
        /// Blocks of its registrations, and the keys.
        registrations: Vec<(u64, Key)>,
        /// Logs of blocks below this one are left out.
        first_log: u64,
        /// Logs of blocks above this one are left out.
        last_log: Option<u64>,
        /// Agents that it holds, from a block on.
        balance: u64,
        balance_since: u64,
        /// Its transaction count; `None` if the state is no longer there.
        count: Option<u64>,
        /// Maximum blocks of one request for logs.
        widest: Option<u64>,
        /// Ranges of answered requests for logs.
        read: Vec<(u64, u64)>,
    }

    impl Chain {
        fn answer(&mut self, request: &Value) -> Value {
            if let Some(batch) = request.as_array() {
                return batch.iter().map(|one| self.answer(one)).collect();
            }
            let parameters = &request["params"];
            let answer = match request["method"].as_str().unwrap() {
                "eth_getLogs" => self.logs(&parameters[0]),
                "eth_call" => {
                    let block: U256 = parameters[1].as_str().unwrap().parse().unwrap();
                    let is_held = block >= U256::from(self.balance_since);
                    let balance = if is_held { self.balance } else { 2 };
                    Ok(json!(B256::from(U256::from(balance))))
                }
                "eth_getTransactionCount" => match self.count {
                    Some(count) => Ok(json!(format!("{count:#x}"))),
                    None => Err("missing trie node"),
                },
                method => panic!("{method}"),
            };
            let mut response = json!({ "jsonrpc": "2.0", "id": request["id"] });
            match answer {
                Ok(result) => response["result"] = result,
                Err(message) => response["error"] = json!({ "code": -32000, "message": message }),
            }
            response
        }

        fn logs(&mut self, filter: &Value) -> Result<Value, &'static str> {
            let block = |name: &str| {
                let text = filter[name].as_str().unwrap();
                u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
            };
            let (from, to) = (block("fromBlock"), block("toBlock"));
            if self.widest.is_some_and(|widest| to - from >= widest) {
                return Err("query exceeds max block range");
            }
            if filter["topics"]
                .as_array()
                .unwrap()
                .get(2)
                .is_none_or(Value::is_null)
            {
                return Ok(json!([]));
            }
            self.read.push((from, to));
            let shown = self.registrations.iter().filter(|(block, _)| {
                let is_served =
                    *block >= self.first_log && self.last_log.is_none_or(|last| *block <= last);
                (from..=to).contains(block) && is_served
            });
            Ok(shown
                .flat_map(|(block, key)| logs_of(*block, *key))
                .collect())
        }
    }

    /// The logs of a registration at a block, whose number is the agent's id as well.
    fn logs_of(block: u64, key: Key) -> [Value; 2] {
        let id = U256::from(block);
        let registered = abi::Registered {
            agentId: id,
            agentURI: format!("https://agents.example/agents/{key}.json"),
            owner: SIGNER,
        };
        let mint = abi::Transfer {
            from: Address::ZERO,
            to: SIGNER,
            tokenId: id,
        };
        [mint.encode_log_data(), registered.encode_log_data()].map(|log: LogData| {
            json!({
                "address": Address::ZERO, "topics": log.topics(), "data": log.data,
                "blockNumber": format!("{block:#x}"), "blockHash": B256::ZERO,
                "transactionHash": B256::ZERO, "transactionIndex": "0x0", "logIndex": "0x0",
                "removed": false,
            })
        })
    }

    struct Node {
        endpoint: RpcEndpoint,
        chain: Arc<Mutex<Chain>>,
        states: IndexStates,
    }

    impl Node {
        async fn start(chain: Chain) -> Self {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let chain = Arc::new(Mutex::new(chain));
            let answer = async |State(chain): State<Arc<Mutex<Chain>>>,
                                Json(request): Json<Value>| {
                Json(chain.lock().unwrap().answer(&request))
            };
            let router = Router::new()
                .route("/", post(answer))
                .with_state(Arc::clone(&chain));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self {
                endpoint: RpcEndpoint::new(&url, Metrics::new("lease").unwrap().chain).unwrap(),
                chain,
                states: IndexStates::default(),
            }
        }

        async fn read(&mut self, query: IndexQuery<'_>) -> IndexReading {
            read_index(&self.endpoint, query, &mut self.states).await
        }

        fn change(&self, change: impl FnOnce(&mut Chain)) {
            change(&mut self.chain.lock().unwrap());
        }

        fn ranges(&self) -> Vec<(u64, u64)> {
            std::mem::take(&mut self.chain.lock().unwrap().read)
        }
    }

    fn start(block: u64) -> IndexStart {
        IndexStart {
            block,
            ..IndexStart::default()
        }
    }

    fn query(block: u64, last: u64) -> IndexQuery<'static> {
        IndexQuery {
            of: OF,
            start: start(block),
            last,
            position: None,
            records: &[],
            budget: Duration::from_secs(60),
        }
    }

    fn two_agents() -> Chain {
        Chain {
            registrations: vec![(20, key('a')), (40, key('b'))],
            balance: 2,
            ..Chain::default()
        }
    }

    fn registered(letter: char, block: u64) -> Arc<AgentRegistrationSpec> {
        Arc::new(AgentRegistrationSpec {
            phase: Phase::Registered,
            result: Some(RegistrationResult { block, ..result(7) }),
            ..record(letter)
        })
    }

    #[tokio::test]
    async fn index_is_read_from_its_start_and_then_only_what_is_new() {
        let mut node = Node::start(two_agents()).await;
        let reading = node.read(query(10, 50)).await;
        let index = reading.index.unwrap();
        assert_eq!((reading.problem, reading.progress), (None, None));
        assert!(index.contains(key('a')) && index.contains(key('b')));
        assert_eq!(index.proven_to(), Some(50));
        assert_eq!(reading.position.unwrap().block, 51);
        assert_eq!(node.ranges(), [(10, 50)]);
        let again = node.read(query(10, 50)).await;
        assert_eq!(again.index.unwrap(), index);
        assert_eq!(node.ranges(), []);
        node.read(query(10, 60)).await;
        assert_eq!(node.ranges(), [(51, 60)]);
        node.read(query(5, 60)).await;
        assert_eq!(node.ranges(), [(5, 60)], "an earlier start reads again");
    }

    #[tokio::test]
    async fn unused_account_is_proven_without_any_log() {
        let mut node = Node::start(Chain::default()).await;
        let reading = node.read(query(51, 50)).await;
        assert_eq!(reading.index.unwrap().proven_to(), Some(50));
        assert_eq!((reading.position, node.ranges()), (None, vec![]));
        let behind = node.read(query(61, 50)).await;
        assert!(behind.index.is_none(), "the endpoint lags behind the start");
    }

    #[tokio::test]
    async fn refused_range_is_narrowed() {
        let mut node = Node::start(Chain {
            widest: Some(700),
            ..two_agents()
        })
        .await;
        let reading = node.read(query(0, 2_000)).await;
        assert_eq!(reading.index.unwrap().proven_to(), Some(2_000));
        assert!(node.ranges().iter().all(|(from, to)| to - from < 700));
    }

    #[tokio::test]
    async fn reading_that_ends_with_its_budget_shows_progress() {
        let mut node = Node::start(two_agents()).await;
        let spent = IndexQuery {
            budget: Duration::ZERO,
            ..query(0, 30_000)
        };
        let reading = node.read(spent).await;
        assert!(reading.index.is_none());
        assert_eq!(reading.progress.unwrap().1, 30_000);
        let done = node.read(query(0, 30_000)).await;
        assert_eq!(
            (done.index.unwrap().proven_to(), done.progress),
            (Some(30_000), None)
        );
    }

    #[tokio::test]
    async fn position_is_continued_only_with_the_same_records() {
        let mut node = Node::start(two_agents()).await;
        let position = node.read(query(10, 50)).await.position;
        node.ranges();
        let records = [registered('a', 20), registered('b', 40)];
        let with = |records| IndexQuery {
            position: position.as_ref(),
            records,
            ..query(10, 60)
        };
        node.states = IndexStates::default();
        let resumed = node.read(with(&records)).await;
        assert_eq!(node.ranges(), [(51, 60)]);
        assert_eq!(resumed.index.unwrap().proven_to(), Some(60));

        let deleted = [registered('a', 20), Arc::new(record('b'))];
        let again = node.read(with(&deleted)).await.index.unwrap();
        assert_eq!(node.ranges(), [(10, 60)], "its log is needed to adopt it");
        assert_eq!(again.registrations(key('b')).len(), 1);

        node.states = IndexStates::default();
        node.read(with(&records[..1])).await;
        assert_eq!(node.ranges(), [(10, 60)], "a record is missing");
    }

    #[tokio::test]
    async fn incomplete_logs_keep_what_was_proven_and_back_off() {
        let mut node = Node::start(two_agents()).await;
        node.read(query(10, 50)).await;
        node.change(|chain| chain.balance = 3);
        let incomplete = IndexProblem::LogsIncomplete {
            account: OF.owner,
            expected: U256::from(3),
            found: U256::from(2),
        };
        for mismatches in 1..=MISMATCHES_AFTER_PROOF + 1 {
            node.ranges();
            let reading = node.read(query(10, 90)).await;
            assert_eq!(reading.problem.as_ref(), Some(&incomplete));
            assert_eq!(reading.index.unwrap().proven_to(), Some(50));
            assert_eq!(reading.is_retried_soon, mismatches < MISMATCHES_AFTER_PROOF);
            let is_read = mismatches <= MISMATCHES_AFTER_PROOF;
            let read = [(51, 90), (51, 74)];
            assert_eq!(node.ranges(), if is_read { &read[..] } else { &[] });
        }
        assert_eq!(incomplete.reason(), "LogsIncomplete");
    }

    #[tokio::test]
    async fn logs_that_only_a_node_behind_lacks_are_read_again_every_time() {
        let mut node = Node::start(two_agents()).await;
        node.read(query(10, 50)).await;
        node.change(|chain| chain.balance = 3);
        for _ in 0..=MISMATCHES_AFTER_PROOF {
            node.ranges();
            let reading = node.read(query(10, 66)).await;
            assert!(reading.is_retried_soon && reading.problem.is_some());
            assert_eq!(node.ranges(), [(51, 66)]);
        }
    }

    #[tokio::test]
    async fn logs_that_lack_the_newest_are_proven_up_to_there() {
        let mut node = Node::start(two_agents()).await;
        node.read(query(10, 40)).await;
        node.change(|chain| {
            chain.registrations.push((60, key('c')));
            chain.last_log = Some(59);
            (chain.balance, chain.balance_since) = (3, 60);
        });
        node.ranges();
        let reading = node.read(query(10, 60)).await;
        assert_eq!(node.ranges(), [(41, 60), (41, 44)]);
        assert_eq!((reading.problem, reading.progress), (None, None));
        assert_eq!(reading.index.unwrap().proven_to(), Some(44));
        node.change(|chain| chain.last_log = None);
        let reading = node.read(query(10, 61)).await;
        assert_eq!(node.ranges(), [(45, 61)]);
        assert!(reading.index.unwrap().contains(key('c')));
    }

    #[tokio::test]
    async fn endpoint_that_leaves_out_old_logs_proves_nothing() {
        let mut node = Node::start(Chain {
            first_log: 30,
            ..two_agents()
        })
        .await;
        let reading = node.read(query(10, 50)).await;
        assert!(reading.index.is_none());
        let incomplete = IndexProblem::LogsIncomplete {
            account: OF.owner,
            expected: U256::from(2),
            found: U256::ONE,
        };
        assert_eq!(reading.problem, Some(incomplete));
    }

    #[tokio::test]
    async fn wrong_position_is_dropped_after_two_mismatches() {
        let mut node = Node::start(two_agents()).await;
        let mut position = node.read(query(10, 50)).await.position.unwrap();
        position.held = crate::api::AgentCount(U256::from(7));
        let records = [registered('a', 20), registered('b', 40)];
        let with = IndexQuery {
            position: Some(&position),
            records: &records,
            ..query(10, 60)
        };
        node.states = IndexStates::default();
        for _ in 0..2 {
            assert!(node.read(with).await.problem.is_some());
        }
        node.states.by_account.get_mut(&OF.owner).unwrap().back_off = None;
        node.ranges();
        assert_eq!(node.read(with).await.index.unwrap().proven_to(), Some(60));
        assert_eq!(node.ranges(), [(10, 60)]);
    }

    #[tokio::test]
    async fn configured_start_must_precede_every_transaction() {
        let mut node = Node::start(Chain {
            count: Some(3),
            ..two_agents()
        })
        .await;
        let configured = IndexQuery {
            start: IndexStart {
                is_configured: true,
                ..start(10)
            },
            ..query(10, 50)
        };
        let late = node.read(configured).await;
        let problem = IndexProblem::FromBlockTooLate {
            account: OF.owner,
            block: 10,
            count: Nonce(3),
        };
        assert_eq!((late.problem, node.ranges()), (Some(problem), vec![]));

        node.states = IndexStates::default();
        node.change(|chain| chain.count = Some(0));
        let proven = node.read(configured).await;
        assert!(proven.index.is_some() && !proven.is_start_unverified);

        node.states = IndexStates::default();
        node.change(|chain| chain.count = None);
        let unverified = node.read(configured).await;
        assert!(unverified.index.is_some() && unverified.is_start_unverified);
    }
}
