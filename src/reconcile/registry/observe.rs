//! Gathers what a pass decides on. It writes nothing and sends nothing.
//!
//! The order of its questions is part of the protocol: the chain before the ledger, the ledger
//! before the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, U256};
use jiff::Timestamp;
use kube::ResourceExt;

use super::adoption::taken_by;
use super::blocked::{Blocked, Unverified};
use super::records::{OfferClaim, RecordDefaults};
use super::state::{IndexOf, RegistryState};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, Endpoint as EndpointSpec, IdentityRegistry, Key,
    Nonce,
};
use crate::chain::scan::{ScanStep, hinted_limit};
use crate::chain::{
    AccountReading, Block, FeeMarket, OnChainAgent, Receipt, RpcEndpoint, RpcError,
    TransactionSigner, abi,
};
use crate::cluster;
use crate::ledger::evidence::{
    AccountState, AdoptionTarget, Evidence, FinalRegistration, Inclusion, LedgerHistory,
    LedgerIdentity, LedgerSnapshot,
};
use crate::ledger::index::OwnerIndex;
use crate::ledger::money::Limits;
use crate::ledger::protocol::{LedgerStep, ledger_step};
use crate::ledger::{Freeze, ReadLedger};
use crate::reconcile::Context;
use crate::registration::eligibility::Eligibility;
use crate::registration::identity::{self, address_of};

/// How long a pass may spend on reading logs; the rest is read in the next one.
const SCAN_BUDGET: Duration = Duration::from_secs(15);
/// How long the first block of a day is good for.
const DAY_EVERY: Duration = Duration::from_secs(60);
/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// Something could not be gathered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Kubernetes(#[from] cluster::Error),
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// What a registry's spec stands for.
#[derive(Debug)]
pub(super) struct RegistryTarget {
    pub(super) name: String,
    /// Generation of the spec.
    generation: Option<i64>,
    pub(super) chain_id: u64,
    pub(super) address: Address,
    /// The endpoint that answers; the first one until one has.
    pub(super) endpoint: RpcEndpoint,
    others: Vec<RpcEndpoint>,
    pub(super) signer: Option<TransactionSigner>,
    pub(super) limits: Limits,
    bootstrap: Option<Nonce>,
}

impl RegistryTarget {
    pub(super) fn record_defaults(&self, chain: &ChainSnapshot) -> RecordDefaults {
        RecordDefaults {
            chain_id: self.chain_id,
            registry: self.address,
            code_hash: chain.code_hash,
            signer: self.signer.as_ref().map(TransactionSigner::address),
        }
    }

    /// Whether a registry object is for this registry contract.
    pub(super) fn is_of(&self, registry: &IdentityRegistry) -> bool {
        registry.spec.chain_id == self.chain_id && address_of(registry) == Some(self.address)
    }

    /// Whether a record is one of this registry contract.
    pub(super) fn has(&self, record: &AgentRegistrationSpec) -> bool {
        record.chain_id == self.chain_id && record.registry.address == self.address
    }
}

/// Reads what the spec refers to.
pub(super) async fn target(
    context: &Context,
    registry: &IdentityRegistry,
) -> Result<Result<RegistryTarget, Blocked>, cluster::Error> {
    let spec = &registry.spec;
    let name = registry.name_any();
    let Some(address) = address_of(registry) else {
        return Ok(Err(Blocked::Unverified(Unverified::NoContract {
            address: Address::ZERO,
            chain_id: spec.chain_id,
        })));
    };
    let limits = match Limits::read(&spec.limits) {
        Ok(limits) => limits,
        Err(error) => return Ok(Err(error.into())),
    };
    if spec.quorum > 1 {
        return Ok(Err(Blocked::QuorumNotSupported {
            quorum: spec.quorum,
        }));
    }
    let mut endpoints = Vec::new();
    for endpoint in &spec.rpc {
        match resolve(context, endpoint).await? {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(blocked) => return Ok(Err(blocked)),
        }
    }
    let Some((endpoint, others)) = endpoints.split_first() else {
        return Ok(Err(Blocked::EndpointUnknown(
            "spec.rpc names no endpoint".to_owned(),
        )));
    };
    let signer = match signer(context, registry).await? {
        Ok(signer) => signer,
        Err(blocked) => return Ok(Err(blocked)),
    };
    let bootstrap = spec
        .bootstrap
        .as_ref()
        .map(|bootstrap| Nonce(bootstrap.at_nonce));
    let (endpoint, others) = (endpoint.clone(), others.to_vec());
    let generation = registry.metadata.generation;
    Ok(Ok(RegistryTarget {
        name,
        generation,
        chain_id: spec.chain_id,
        address,
        endpoint,
        others,
        signer,
        limits,
        bootstrap,
    }))
}

async fn resolve(
    context: &Context,
    endpoint: &EndpointSpec,
) -> Result<Result<RpcEndpoint, Blocked>, cluster::Error> {
    let unknown = |message: String| Ok(Err(Blocked::EndpointUnknown(message)));
    let url = match (&endpoint.url, &endpoint.url_from) {
        (Some(url), _) => url.clone(),
        (None, Some(from)) => match context.reader.secret(&from.secret_key_ref).await? {
            Some(url) => url,
            None => {
                let key = &from.secret_key_ref;
                return unknown(format!(
                    "Secret {} has no key {}: create it in the namespace of the operator, with the URL of the endpoint",
                    key.name, key.key
                ));
            }
        },
        (None, None) => return unknown("an endpoint has neither url nor urlFrom".to_owned()),
    };
    match RpcEndpoint::new(&url, context.metrics.chain.clone()) {
        Ok(endpoint) => Ok(Ok(endpoint)),
        Err(error) => unknown(format!("an endpoint cannot be used: {error}")),
    }
}

async fn signer(
    context: &Context,
    registry: &IdentityRegistry,
) -> Result<Result<Option<TransactionSigner>, Blocked>, cluster::Error> {
    let Some(first) = registry.spec.signers.first() else {
        return Ok(Ok(None));
    };
    let Some(key) = context.reader.secret(&first.secret_ref).await? else {
        let (secret, key) = (first.secret_ref.name.clone(), first.secret_ref.key.clone());
        return Ok(Err(Blocked::SecretMissing { secret, key }));
    };
    let address = first.address.parse().unwrap_or_default();
    Ok(TransactionSigner::new(&key, address)
        .map(Some)
        .map_err(|error| Blocked::KeyMismatch {
            address: first.address.clone(),
            error,
        }))
}

/// The chain at one look.
#[derive(Debug)]
pub(super) struct ChainSnapshot {
    pub(super) endpoint: RpcEndpoint,
    pub(super) genesis_hash: B256,
    pub(super) latest: Block,
    pub(super) finalized: Block,
    pub(super) code_hash: B256,
    pub(super) version: String,
    pub(super) account: Option<SignerAccount>,
}

/// The signer's account at that look.
#[derive(Clone, Debug)]
pub(super) struct SignerAccount {
    pub(super) account_state: AccountState,
    pub(super) balance: u128,
    pub(super) market: FeeMarket,
}

/// Looks at the chain through the first endpoint that answers.
pub(super) async fn chain(
    target: &RegistryTarget,
    state: &mut RegistryState,
) -> Result<Result<ChainSnapshot, Unverified>, RpcError> {
    let (address, chain_id) = (target.address, target.chain_id);
    let mut identity = target.endpoint.identity(address).await;
    let mut endpoint = &target.endpoint;
    for other in &target.others {
        if identity.is_ok() {
            break;
        }
        let answer = other.identity(address).await;
        if answer.is_ok() {
            (identity, endpoint) = (answer, other);
        }
    }
    let identity = identity?;
    if identity.chain_id != chain_id {
        return Ok(Err(Unverified::WrongChain {
            expected: chain_id,
            actual: identity.chain_id,
        }));
    }
    let Some(genesis_hash) = identity.genesis else {
        return Ok(Err(Unverified::NoFinality));
    };
    let Some(code_hash) = identity.code_hash else {
        return Ok(Err(Unverified::NoContract { address, chain_id }));
    };
    let Some(version) = identity.version else {
        return Ok(Err(Unverified::NotARegistry { address }));
    };
    let head = endpoint.head().await?;
    let latest = head.latest;
    let Some(finalized) = head.finalized else {
        return Ok(Err(Unverified::NoFinality));
    };
    let account = match &target.signer {
        None => None,
        Some(signer) => {
            let address = signer.address();
            let reading = endpoint.account(address, finalized.number).await?;
            if reading.has_code {
                return Ok(Err(Unverified::SignerHasCode { address }));
            }
            let account_state = account_state(reading, &latest, &finalized);
            let balance = reading.balance;
            let market = endpoint.fee_market(&latest).await?;
            let market = market.ok_or(RpcError::RpcIncomplete {
                call: "eth_getBlockByNumber",
                missing: "base fee of a block",
            })?;
            Some(SignerAccount {
                account_state,
                balance,
                market,
            })
        }
    };
    let chain = ChainSnapshot {
        endpoint: endpoint.clone(),
        genesis_hash,
        latest,
        finalized,
        code_hash,
        version,
        account,
    };
    if let Some(signer) = &target.signer {
        index(target, &chain, signer.address(), state).await?;
    }
    Ok(Ok(chain))
}

fn account_state(reading: AccountReading, latest: &Block, finalized: &Block) -> AccountState {
    AccountState {
        counts: reading.counts,
        finalized_block: finalized.number,
        base_fee: latest.base_fee.unwrap_or_default(),
    }
}

/// Reads logs until the index reaches the final block, or the time for it is up.
async fn index(
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    owner: Address,
    state: &mut RegistryState,
) -> Result<(), RpcError> {
    let of = IndexOf {
        chain_id: target.chain_id,
        genesis_hash: chain.genesis_hash,
        registry: target.address,
        owner,
    };
    if state.index.as_ref().is_none_or(|(known, ..)| *known != of) {
        let index = empty_index(target, chain, owner).await?;
        state.index = Some((of, Arc::new(index), ScanStep::default()));
    }
    let Some((_, index, step)) = &mut state.index else {
        return Ok(());
    };
    let index = Arc::make_mut(index);
    let begun = Instant::now();
    while let Some((from, to)) = step.range(index.next_block(), chain.finalized.number) {
        if begun.elapsed() > SCAN_BUDGET {
            return Ok(());
        }
        match chain
            .endpoint
            .log_page(target.address, owner, from, to)
            .await
        {
            Ok(page) => {
                *step = step.grown();
                // A page is asked for from where the index ends, so it cannot leave a gap.
                let _ = index.extend(page);
            }
            Err(error) if error.narrows_range() => {
                let limit = hinted_limit(&error.to_string());
                *step = step.refused((from, to), limit).ok_or(error)?;
            }
            Err(error) => return Err(error),
        }
    }
    let last = index
        .next_block()
        .checked_sub(1)
        .filter(|last| index.proven_to() != Some(*last));
    if let Some(last) = last {
        let balance = chain
            .endpoint
            .balance_of(target.address, owner, last)
            .await?;
        if !index.verify_balance(balance) {
            // Logs are missing: an endpoint left some out. Only a new reading can tell.
            state.index = None;
        }
    }
    Ok(())
}

/// An index that begins at the account's first use, with what others had given it until then.
async fn empty_index(
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    owner: Address,
) -> Result<OwnerIndex, RpcError> {
    let first = first_use(&chain.endpoint, owner, &chain.finalized).await;
    let Some(before) = first.checked_sub(1) else {
        return Ok(OwnerIndex::new(owner, 0, U256::ZERO));
    };
    match chain
        .endpoint
        .balance_of(target.address, owner, before)
        .await
    {
        Ok(held) => Ok(OwnerIndex::new(owner, first, held)),
        // There was no registry yet.
        Err(RpcError::RpcIncomplete { .. }) => Ok(OwnerIndex::new(owner, first, U256::ZERO)),
        // The state of that block is forgotten: everything is read.
        Err(RpcError::RpcRefused { .. } | RpcError::RpcHistoryMissing { .. }) => {
            Ok(OwnerIndex::new(owner, 0, U256::ZERO))
        }
        Err(error) => Err(error),
    }
}

/// First block in which the account can have done anything: it sends nothing while its count is
/// zero. An endpoint that has forgotten old states cannot tell; then everything is read.
async fn first_use(endpoint: &RpcEndpoint, account: Address, finalized: &Block) -> u64 {
    let (mut unused, mut used) = (0, finalized.number + 1);
    while unused + 1 < used {
        let middle = unused + (used - unused) / 2;
        match endpoint
            .transaction_count_at(account, BlockNumberOrTag::Number(middle))
            .await
        {
            Ok(Nonce(0)) => unused = middle,
            Ok(_) => used = middle,
            Err(_) => return 0,
        }
    }
    // Block `unused` itself is read again: an index needs a first block to vouch for.
    unused
}

/// Offers that lead to this registry.
pub(super) fn claims(
    context: &Context,
    registry: &IdentityRegistry,
    now: Timestamp,
) -> Vec<OfferClaim> {
    let registries = context.cache.registries();
    let name = registry.name_any();
    let mut offers = context.cache.offers();
    offers.retain(|offer| {
        offer.spec.registration.is_some() && offer.metadata.deletion_timestamp.is_none()
    });
    offers.sort_by_key(|offer| {
        (
            offer
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            offer.namespace(),
            offer.name_any(),
        )
    });
    let claim = |offer: &crate::api::ServiceOffer| {
        let own = offer.spec.registration.as_ref()?;
        let offer_name = (offer.namespace()?, offer.name_any());
        let records = context.cache.records_of(&offer_name);
        let resolution = identity::resolve(offer, &registries, &records).ok()?;
        if resolution.registry.name_any() != name {
            return None;
        }
        let eligibility =
            crate::reconcile::offer::eligibility_of(&context.cache, offer, registry, now);
        let status = offer.status.as_ref();
        let recorded_key = status.and_then(|status| status.registration.as_ref()?.key);
        Some(OfferClaim {
            name: offer_name,
            uid: offer.uid().unwrap_or_default(),
            generation: offer.metadata.generation,
            identity: resolution.identity,
            key: resolution.key,
            edition: own.edition,
            adopt: own.agent_id.clone(),
            // An id beside a key is this operator's own mirror, and not a legacy one.
            legacy_agent_id: status
                .filter(|_| recorded_key.is_none())
                .and_then(|status| status.agent_id.clone()),
            eligible: eligibility == Eligibility::Eligible,
            key_in_status: recorded_key == Some(resolution.key),
        })
    };
    offers.iter().filter_map(|offer| claim(offer)).collect()
}

/// What a pass knows of the ledger and of the records, all of it read after the chain.
#[derive(Debug)]
pub(super) enum LedgerView {
    /// The registry has no signer.
    Watching {
        records: Vec<AgentRegistration>,
        adoption_targets: BTreeMap<Key, AdoptionTarget>,
    },
    /// The ledger as a whole needs something first.
    Unready(Box<(LedgerStep, Option<ReadLedger>)>),
    /// The ledger may be used.
    Ready(Box<Ready>),
}

/// A ledger that may be used.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) held: ReadLedger,
    pub(super) account_state: AccountState,
    pub(super) index: Arc<OwnerIndex>,
    /// Every record if `census`, else those of the entries.
    pub(super) records: BTreeMap<Key, AgentRegistration>,
    pub(super) census: bool,
    pub(super) evidence: BTreeMap<Nonce, Evidence>,
    /// Final registrations of keys that have no entry.
    pub(super) registrations: BTreeMap<Key, Vec<FinalRegistration>>,
    pub(super) adoption_targets: BTreeMap<Key, AdoptionTarget>,
    /// First block of the last 24 hours.
    pub(super) day: u64,
}

/// Reads the ledger, then the records, then what the chain shows of them.
pub(super) async fn ledger(
    context: &Context,
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    claims: &[OfferClaim],
    state: &mut RegistryState,
) -> Result<Result<LedgerView, Freeze>, Failure> {
    let (Some(signer), Some(account)) = (&target.signer, &chain.account) else {
        let records = if adopting(context, target) {
            context.store.records_after(None).await?
        } else {
            Vec::new()
        };
        let adoption_targets = adoption_targets(target, chain, &records).await?;
        return Ok(Ok(LedgerView::Watching {
            records,
            adoption_targets,
        }));
    };
    let address = signer.address();
    let held = context.store.read_ledger(target.chain_id, address).await?;
    let registry: Option<IdentityRegistry> = context.reader.cluster_wide(&target.name).await?;
    // Money is spent by the spec that stands, not by a copy that may be older: it may have been
    // taken back since.
    if registry
        .as_ref()
        .is_none_or(|registry| registry.metadata.generation != target.generation)
    {
        return Err(cluster::Error::Conflict.into());
    }
    let active = held
        .as_ref()
        .is_some_and(|held| held.spec().quarantine.is_none());
    let waiting = claims
        .iter()
        .any(|claim| claim.eligible && waits(context, claim.key));
    let census = waiting || !active || adopting(context, target);
    let records = match (&held, census) {
        (Some(held), false) => entries_records(context, held).await?,
        (held, _) => by_key(context.store.records_after(held.as_ref()).await?),
    };
    // A ledger may be born only on counts that were read after its marker.
    let account_state = if active {
        account.account_state
    } else {
        let reading = chain
            .endpoint
            .account(address, chain.finalized.number)
            .await?;
        account_state(reading, &chain.latest, &chain.finalized)
    };
    let identity = LedgerIdentity {
        chain_id: target.chain_id,
        genesis_hash: chain.genesis_hash,
        signer: address,
        cluster_uid: context.cluster_uid.clone(),
    };
    let history = LedgerHistory {
        marker: registry
            .as_ref()
            .and_then(|registry| marker(registry, address)),
        has_attempts: records
            .values()
            .any(|record| identity.has_attempt(&record.spec)),
        bootstrap_nonce: target.bootstrap,
        highest_next: state
            .seen
            .get(&(target.chain_id, address))
            .copied()
            .unwrap_or_default(),
    };
    let step = ledger_step(
        &identity,
        held.as_ref().map(|held| (held.spec(), held.uid())),
        &history,
        &account_state,
    );
    let held = match (step, held) {
        (Err(freeze), _) => return Ok(Err(freeze)),
        (Ok(LedgerStep::Ready), Some(held)) => held,
        (Ok(step), held) => return Ok(Ok(LedgerView::Unready(Box::new((step, held))))),
    };
    state
        .seen
        .insert((target.chain_id, address), held.spec().next);
    let Some(index) = state.index.as_ref().map(|(_, index, _)| Arc::clone(index)) else {
        return Ok(Ok(LedgerView::Unready(Box::new((
            LedgerStep::Wait,
            Some(held),
        )))));
    };
    let snapshot = LedgerSnapshot {
        ledger: held.spec(),
        index: &index,
        account: &account_state,
    };
    let evidence = evidence(target, chain, snapshot, &records, state).await?;
    let mut registrations = BTreeMap::new();
    let pending = records
        .values()
        .filter(|record| target.has(&record.spec) && record.spec.result.is_none());
    for key in pending
        .map(|record| record.spec.key)
        .filter(|key| !snapshot.ledger.registering.contains_key(key))
    {
        let found = final_registrations_of(target, chain, &index, key).await?;
        if !found.is_empty() {
            registrations.insert(key, found);
        }
    }
    let adoption_targets = adoption_targets(target, chain, records.values()).await?;
    let day = if census {
        day(chain, state).await?
    } else {
        state.day.map_or(0, |(block, _)| block)
    };
    Ok(Ok(LedgerView::Ready(Box::new(Ready {
        held,
        account_state,
        index,
        records,
        census,
        evidence,
        registrations,
        adoption_targets,
        day,
    }))))
}

/// Whether a key has no result yet, as far as the cache knows.
fn waits(context: &Context, key: Key) -> bool {
    context
        .cache
        .record(key)
        .is_some_and(|record| record.spec.result.is_none())
}

/// Whether a record waits to adopt an agent, as far as the cache knows.
fn adopting(context: &Context, target: &RegistryTarget) -> bool {
    let waits =
        |record: &AgentRegistration| record.spec.adopt.is_some() && record.spec.result.is_none();
    context
        .cache
        .records()
        .iter()
        .any(|record| target.has(&record.spec) && waits(record))
}

async fn entries_records(
    context: &Context,
    held: &ReadLedger,
) -> Result<BTreeMap<Key, AgentRegistration>, cluster::Error> {
    let keys: BTreeSet<Key> = held
        .spec()
        .entries
        .values()
        .filter_map(|entry| entry.key)
        .collect();
    let mut records = BTreeMap::new();
    for key in keys {
        if let Some(record) = context.store.record_after(held, key).await? {
            records.insert(key, record);
        }
    }
    Ok(records)
}

fn by_key(records: Vec<AgentRegistration>) -> BTreeMap<Key, AgentRegistration> {
    records
        .into_iter()
        .map(|record| (record.spec.key, record))
        .collect()
}

fn marker(registry: &IdentityRegistry, signer: Address) -> Option<String> {
    let ledgers = &registry.status.as_ref()?.ledgers;
    let own = ledgers
        .iter()
        .find(|marker| marker.signer == format!("{signer:#x}"))?;
    Some(own.uid.clone())
}

/// What the chain shows of each entry: only what a decision can need is asked.
async fn evidence(
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    state: &RegistryState,
) -> Result<BTreeMap<Nonce, Evidence>, RpcError> {
    let mut all = BTreeMap::new();
    let counts = snapshot.account.counts;
    for (nonce, entry) in &snapshot.ledger.entries {
        let Some(record) = entry
            .key
            .and_then(|key| records.get(&key))
            .map(|record| &record.spec)
        else {
            continue;
        };
        let attempts = || {
            record
                .attempts
                .iter()
                .filter(|attempt| attempt.nonce == *nonce)
        };
        let mut evidence = Evidence::default();
        if record.result.is_some() {
            continue;
        }
        if *nonce < counts.finalized {
            evidence.registrations =
                final_registrations_of(target, chain, snapshot.index, record.key).await?;
        }
        if *nonce < counts.latest && evidence.registrations.is_empty() {
            for attempt in attempts() {
                if let Some(receipt) = receipt(chain, attempt.hash).await? {
                    evidence.included = Some(Inclusion {
                        transaction: attempt.hash,
                        succeeded: receipt.succeeded,
                    });
                }
            }
        }
        let last = attempts().next_back();
        let sent = last.and_then(|attempt| state.sent.get(&attempt.hash));
        evidence.sent_recently = sent.is_some_and(|block| *block >= chain.latest.number);
        all.insert(*nonce, evidence);
    }
    Ok(all)
}

/// Everything that proves whose a key's final registrations are.
async fn final_registrations_of(
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    index: &OwnerIndex,
    key: Key,
) -> Result<Vec<FinalRegistration>, RpcError> {
    let mut registrations = Vec::new();
    for event in index.registrations(key) {
        let mut transactions = chain.endpoint.transactions(&[event.transaction]).await;
        let transaction = transactions.pop().transpose()?.flatten();
        let receipt = receipt(chain, event.transaction).await?;
        let (Some((sender, nonce)), Some(receipt)) = (transaction, receipt) else {
            let missing = "transaction of a log that it returned";
            return Err(RpcError::RpcIncomplete {
                call: "eth_getTransactionByHash",
                missing,
            });
        };
        let owner = agent(target, chain, event.agent_id).await?;
        registrations.push(FinalRegistration {
            event: event.clone(),
            sender,
            nonce,
            confirmed: receipt.succeeded && owner.is_some(),
            cost: receipt.cost,
        });
    }
    Ok(registrations)
}

async fn receipt(chain: &ChainSnapshot, hash: B256) -> Result<Option<Receipt>, RpcError> {
    let mut receipts = chain.endpoint.receipts(&[hash]).await;
    Ok(receipts.pop().transpose()?.flatten())
}

async fn agent(
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    agent_id: U256,
) -> Result<Option<OnChainAgent>, RpcError> {
    let block = chain.finalized.number;
    let mut agents = chain
        .endpoint
        .agents(target.address, &[agent_id], block)
        .await;
    Ok(agents.pop().transpose()?.flatten())
}

/// What is known of agents that are to be adopted.
async fn adoption_targets<'a>(
    target: &RegistryTarget,
    chain: &ChainSnapshot,
    records: impl IntoIterator<Item = &'a AgentRegistration> + Clone,
) -> Result<BTreeMap<Key, AdoptionTarget>, RpcError> {
    let ours = || {
        records
            .clone()
            .into_iter()
            .filter(|record| target.has(&record.spec))
    };
    let mut adoption_targets = BTreeMap::new();
    for record in ours().filter(|record| record.spec.result.is_none()) {
        let Some(agent_id) = record.spec.adopt.as_deref().and_then(abi::agent_id) else {
            continue;
        };
        let block = chain.finalized.number;
        let known = agent(target, chain, agent_id).await?;
        let exists_at = known.is_some().then_some((block, chain.finalized.hash));
        let agent_uri = known.map(|agent| agent.uri).unwrap_or_default();
        let taken_by = taken_by(record, agent_id, &agent_uri, ours());
        adoption_targets.insert(
            record.spec.key,
            AdoptionTarget {
                exists_at,
                agent_uri,
                taken_by,
            },
        );
    }
    Ok(adoption_targets)
}

/// First block of the last 24 hours, by the chain's own time.
async fn day(chain: &ChainSnapshot, state: &mut RegistryState) -> Result<u64, RpcError> {
    if let Some((block, _)) = state.day.filter(|(_, found)| found.elapsed() < DAY_EVERY) {
        return Ok(block);
    }
    let since = chain.latest.timestamp.saturating_sub(DAY);
    let (mut before, mut within) = (state.day.map_or(0, |(block, _)| block), chain.latest.number);
    while before < within {
        let middle = before + (within - before) / 2;
        match chain
            .endpoint
            .block(BlockNumberOrTag::Number(middle))
            .await?
        {
            Some(block) if block.timestamp < since => before = middle + 1,
            Some(_) => within = middle,
            None => {
                return Err(RpcError::RpcIncomplete {
                    call: "eth_getBlockByNumber",
                    missing: "block below the latest",
                });
            }
        }
    }
    state.day = Some((within, Instant::now()));
    Ok(within)
}
