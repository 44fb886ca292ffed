//! Reads ledger, records and evidence for a pass. It writes nothing. [`super::logs`] reads the logs.
//!
//! The order is part of the proof in [`crate::ledger::protocol`]: the chain was read before
//! ([`crate::reconcile::registry::chain`]), the ledger is read next, the records after it.

use std::collections::{BTreeMap, BTreeSet};

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::Address;

use super::LedgerInput;
use super::foreign;
use super::logs::{self, Logs, OtherRegistrants};
use super::plan::{self, DayStart, EvidenceByNonce};
use super::questions::{self, Answers, Questions};
use crate::api::{
    AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, LedgerMarker, Nonce,
    SignerLedgerSpec,
};
use crate::chain::{RpcEndpoint, RpcError};
use crate::cluster::{self, Lenient};
use crate::ledger::evidence::{
    AccountState, AdoptionTarget, FinalRegistration, LedgerHistory, LedgerIdentity, LedgerSnapshot,
    OwnerBalance, UnknownPremise,
};
use crate::ledger::foreign::NonceUse;
use crate::ledger::protocol::{LedgerStep, asks_for_nonce, ledger_step};
use crate::ledger::registrants::{
    NamedAccounts, other_registrants, own_accounts, uids_of, unclaimed_agents, unsettled_ledgers,
};
use crate::ledger::rollback::unaccounted_nonce;
use crate::ledger::store::ReadRecords;
use crate::ledger::unreadable::{OtherLedgers, UnreadableRecord};
use crate::ledger::{Freeze, ReadLedger};
use crate::reconcile::registry::state::RegistryState;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// What a pass knows of the ledger, all of it read after the chain.
#[derive(Debug)]
pub(super) enum LedgerView {
    /// Nothing may be spent.
    Frozen(Freeze),
    /// The ledger cannot be decoded.
    Unreadable(UnknownPremise),
    /// The ledger as a whole needs something first.
    Unready(Box<(LedgerStep, Option<ReadLedger>)>),
    /// The ledger may be used.
    Ready(Box<ReadyLedger>),
}

/// A ledger that may be used, and everything that its decisions rest on.
#[derive(Debug)]
pub(super) struct ReadyLedger {
    pub(super) held: ReadLedger,
    pub(super) account_state: AccountState,
    pub(super) logs: Logs,
    /// Why no key may get its first nonce, whatever its logs show.
    pub(super) unsettled: Vec<UnknownPremise>,
    pub(super) records: Records,
    pub(super) evidence: EvidenceByNonce,
    /// Final registrations of keys without an entry.
    pub(super) registrations: BTreeMap<Key, Result<Vec<FinalRegistration>, RpcError>>,
    pub(super) adoption_targets: AdoptionTargets,
    /// What used final nonces that the ledger has not allocated.
    pub(super) uses_beyond_next: BTreeMap<Nonce, NonceUse>,
    /// Accounts that the IdentityRegistry uses or has used: they share its limits.
    pub(super) accounts: BTreeSet<Address>,
}

impl ReadyLedger {
    pub(super) fn snapshot(&self) -> LedgerSnapshot<'_> {
        LedgerSnapshot {
            ledger: self.held.spec(),
            index: self.logs.indexes.own(),
            account: &self.account_state,
        }
    }
}

/// What is known of agents that are to be adopted.
pub(super) type AdoptionTargets = BTreeMap<Key, Result<AdoptionTarget, RpcError>>;

/// Records that were read after the ledger.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) by_key: BTreeMap<Key, AgentRegistration>,
    /// What only a list of everything shows; `None` if only the records of entries were read.
    pub(super) census: Option<Census>,
}

/// What a list of all records and all ledgers of the chain shows.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Records that cannot be decoded.
    pub(super) unreadable: Vec<UnreadableRecord>,
    /// The other ledgers of the chain.
    pub(super) others: OtherLedgers,
    /// Ledger markers of all IdentityRegistries of the chain.
    pub(super) markers: Vec<LedgerMarker>,
}

/// Reads the ledger, the records after it, and what the chain shows of them.
pub(super) async fn ledger(
    input: &LedgerInput<'_>,
    signer: Address,
    state: &mut RegistryState,
) -> Result<LedgerView, cluster::Error> {
    let LedgerInput {
        context,
        target,
        chain,
        ..
    } = input;
    let chain_id = target.contract.chain_id;
    let remembered = context.store.remembered(chain_id, signer);
    let held = match context.store.read_ledger(chain_id, signer).await? {
        None => None,
        Some(Lenient::Decoded(held)) => Some(held),
        Some(Lenient::Undecodable(ledger)) => {
            return Ok(LedgerView::Unreadable(UnknownPremise::LedgerUnreadable {
                name: ledger.name().to_owned(),
            }));
        }
    };
    let registry: Option<IdentityRegistry> = context.reader.cluster_wide(&target.name).await?;
    // Money is spent by the current spec, not by a copy that may be older.
    if registry
        .as_ref()
        .is_none_or(|registry| registry.metadata.generation != target.generation)
    {
        return Err(cluster::Error::Conflict);
    }
    let is_active = held
        .as_ref()
        .is_some_and(|held| held.spec().quarantine.is_none());
    let signers = signers_of(registry.as_ref());
    if let Some(registry) = &registry {
        context.store.remember_markers(registry);
    }
    let own_markers = context.store.markers_of(&target.name);
    let other_counts = if input.needs_census {
        let others = own_accounts(&signers, &own_markers);
        counts_of(input, others.into_iter().filter(|other| *other != signer)).await
    } else {
        BTreeMap::new()
    };
    let records = if input.needs_census || !is_active {
        census(input, held.as_ref()).await?
    } else {
        records_of_entries(input, held.as_ref()).await?
    };
    let account_state = match (&chain.account, is_active) {
        (Some(account), true) => account.account_state,
        // A ledger may be born only on counts that were read after its marker.
        _ => match birth_state(input, signer).await {
            Ok(account_state) => account_state,
            Err(error) => return Ok(waiting_for(held, error)),
        },
    };
    let identity = LedgerIdentity {
        chain_id,
        genesis_hash: chain.genesis_hash(),
        signer,
        cluster_uid: context.cluster_uid.clone(),
    };
    let history = LedgerHistory {
        marker: registry
            .as_ref()
            .and_then(|registry| marker(registry, signer)),
        markers: records
            .census
            .iter()
            .flat_map(|census| uids_of(&census.markers, signer))
            .map(str::to_owned)
            .collect(),
        has_attempts: records
            .by_key
            .values()
            .any(|record| identity.has_attempt(&record.spec)),
        unreadable_record: records
            .census
            .as_ref()
            .and_then(|census| census.unreadable.first())
            .map(|record| record.name.clone()),
        bootstrap_nonce: target
            .bootstrap
            .as_ref()
            .map(|bootstrap| Nonce(bootstrap.at_nonce)),
        bootstrap_from_block: target
            .bootstrap
            .as_ref()
            .and_then(|bootstrap| bootstrap.from_block),
        remembered,
        unaccounted: held.as_ref().and_then(|held| {
            let mut records = records.by_key.values();
            records.find_map(|record| {
                let nonce = unaccounted_nonce(held.spec(), &record.spec)?;
                Some((record.spec.key, nonce))
            })
        }),
    };
    let step = ledger_step(
        &identity,
        held.as_ref().map(|held| (held.spec(), held.mark())),
        &history,
        &account_state,
    );
    let held = match (step, held) {
        (Err(freeze), _) => return Ok(LedgerView::Frozen(freeze)),
        (Ok(LedgerStep::Ready), Some(held)) => held,
        (Ok(step), held) => return Ok(LedgerView::Unready(Box::new((step, held)))),
    };
    let used: BTreeSet<Address> = records
        .by_key
        .values()
        .filter(|record| record.spec.chain_id == chain_id && !record.spec.attempts.is_empty())
        .filter_map(|record| record.spec.signer)
        .collect();
    let named = records.census.as_ref().map(|census| NamedAccounts {
        signers: &signers,
        own_markers: &own_markers,
        markers: &census.markers,
        used: &used,
        others: &census.others,
        unreadable_records: &census.unreadable,
    });
    let mut unsettled = named.map_or_else(Vec::new, |named| {
        unsettled_ledgers(held.spec(), named, &other_counts)
    });
    // Logs are read for a decision that needs them, and not to keep up with the chain.
    let is_final = |nonce: &Nonce| *nonce < account_state.counts.finalized;
    let logs = if input.needs_census || held.spec().entries.keys().any(is_final) {
        let others = named.map(|named| OtherRegistrants {
            required: other_registrants(
                held.spec(),
                named,
                records.by_key.values().map(|record| &record.spec),
            ),
            ledgers: named.others,
            must_sweep: is_nonce_asked(input, held.spec(), &records),
            registered: registered(input, &records),
        });
        logs::read(input, &held, registry.as_ref(), others, state).await
    } else {
        logs::kept(signer, state)
    };
    let snapshot = LedgerSnapshot {
        ledger: held.spec(),
        index: logs.indexes.own(),
        account: &account_state,
    };
    let is_ours = |record: &AgentRegistrationSpec| target.has(record);
    unsettled.extend(named.and_then(|named| {
        let records = records.by_key.values().map(|record| &record.spec);
        let bootstrap = target.bootstrap.as_ref();
        unclaimed_agents(
            &logs.indexes,
            named,
            records.filter(|record| is_ours(record)),
            bootstrap.and_then(|bootstrap| bootstrap.ignore_agents.as_ref()),
        )
    }));
    let pending: Vec<Key> = records
        .by_key
        .values()
        .filter(|record| is_ours(&record.spec) && record.spec.is_open())
        .map(|record| record.spec.key)
        .filter(|key| !snapshot.ledger.registering.contains_key(key))
        .collect();
    let mut questions = Questions::default();
    questions.about_entries(snapshot, &records.by_key, is_ours);
    for key in &pending {
        let registrations = logs.indexes.registrations(*key);
        questions.about_registrations(registrations.map(|(_, event)| event));
    }
    let adopting = || {
        records
            .by_key
            .values()
            .filter(|record| is_ours(&record.spec))
    };
    questions.about_adoptions(adopting());
    let in_flight = records.by_key.values().flat_map(|record| {
        let attempts = record.spec.attempts.iter();
        attempts.map(|attempt| attempt.hash)
    });
    state
        .open_transactions
        .extend(in_flight.chain(questions.transactions.iter().copied()));
    let answers = ask(input, questions, state).await;
    let send_age = |hash| state.send_age(hash, chain.latest.number);
    let mut evidence = questions::evidence(snapshot, &records.by_key, is_ours, &answers, send_age);
    foreign::explain_entries(input, snapshot, &records.by_key, &mut evidence, state).await;
    let uses_beyond_next = foreign::beyond_next(input, snapshot, state).await;
    foreign::note_agreement(snapshot, state);
    let registrations = pending
        .into_iter()
        .map(|key| {
            let registrations = logs.indexes.registrations(key);
            (key, questions::final_registrations(registrations, &answers))
        })
        .collect();
    let adoption_targets = questions::adoption_targets(adopting(), &chain.finalized, &answers);
    Ok(LedgerView::Ready(Box::new(ReadyLedger {
        held,
        account_state,
        logs,
        unsettled,
        records,
        evidence,
        registrations,
        adoption_targets,
        uses_beyond_next,
        accounts: own_accounts(&signers, &own_markers),
    })))
}

/// Whether a record of the registry may get a nonce, as far as the cluster shows.
fn is_nonce_asked(input: &LedgerInput<'_>, ledger: &SignerLedgerSpec, records: &Records) -> bool {
    let mut records = records.by_key.values().map(|record| &record.spec);
    records.any(|record| {
        input.target.has(record)
            && input.allocatable.contains(&record.key)
            && asks_for_nonce(ledger, record)
    })
}

/// Keys of the registry that have their agents.
fn registered(input: &LedgerInput<'_>, records: &Records) -> BTreeSet<Key> {
    let records = records.by_key.values().map(|record| &record.spec);
    records
        .filter(|record| input.target.has(record) && record.result.is_some())
        .map(|record| record.key)
        .collect()
}

/// A ledger that has to wait because the chain did not answer.
fn waiting_for(held: Option<ReadLedger>, error: RpcError) -> LedgerView {
    tracing::debug!(%error, "the account could not be read");
    LedgerView::Unready(Box::new((LedgerStep::Wait, held)))
}

/// The account as it is after the ledger and its marker were read, with the number of agents that
/// it holds.
async fn birth_state(input: &LedgerInput<'_>, signer: Address) -> Result<AccountState, RpcError> {
    let chain = input.chain;
    let block = chain.finalized.number;
    let reading = chain.endpoint.account(signer, block).await?;
    let registry = input.target.contract.address;
    let held = chain.endpoint.balance_of(registry, signer, block).await?;
    Ok(AccountState {
        counts: reading.counts,
        finalized_block: block,
        base_fee: chain.latest.base_fee.unwrap_or_default(),
        balance_of_owner: Some(OwnerBalance { registry, held }),
    })
}

/// Records of a watch-only registry that wait to adopt an agent, and what the chain shows of those
/// agents.
pub(super) async fn adoptions(
    input: &LedgerInput<'_>,
    state: &mut RegistryState,
) -> Result<(Vec<AgentRegistration>, AdoptionTargets), cluster::Error> {
    if !input.needs_census {
        return Ok((Vec::new(), AdoptionTargets::new()));
    }
    let mut records = input.context.store.records_after(None).await?.records;
    records.retain(|record| input.target.has(&record.spec));
    let mut questions = Questions::default();
    questions.about_adoptions(&records);
    let answers = ask(input, questions, state).await;
    let targets = questions::adoption_targets(&records, &input.chain.finalized, &answers);
    Ok((records, targets))
}

/// Every record, every other ledger of the chain, and every ledger marker.
async fn census(
    input: &LedgerInput<'_>,
    held: Option<&ReadLedger>,
) -> Result<Records, cluster::Error> {
    let store = &input.context.store;
    let ReadRecords {
        records,
        unreadable,
    } = store.records_after(held).await?;
    let others = match held {
        Some(held) => store.other_ledgers_after(held).await?,
        None => OtherLedgers::default(),
    };
    let markers = store
        .markers_after(held, input.target.contract.chain_id)
        .await?;
    let census = Census {
        unreadable,
        others,
        markers,
    };
    Ok(Records {
        by_key: by_key(records),
        census: Some(census),
    })
}

/// Records of a ledger's entries. One that cannot be decoded is missing from the answer.
async fn records_of_entries(
    input: &LedgerInput<'_>,
    held: Option<&ReadLedger>,
) -> Result<Records, cluster::Error> {
    let Some(held) = held else {
        return Ok(Records::default());
    };
    let keys: BTreeSet<Key> = held
        .spec()
        .entries
        .values()
        .filter_map(|entry| entry.key)
        .collect();
    let mut records = Vec::new();
    for key in keys {
        if let Some(Lenient::Decoded(record)) = input.context.store.record_after(held, key).await? {
            records.push(record);
        }
    }
    Ok(Records {
        by_key: by_key(records),
        census: None,
    })
}

fn by_key(records: Vec<AgentRegistration>) -> BTreeMap<Key, AgentRegistration> {
    records
        .into_iter()
        .map(|record| (record.spec.key, record))
        .collect()
}

/// Transaction counts of accounts, with what is pending. One that the endpoint does not say is missing.
async fn counts_of(
    input: &LedgerInput<'_>,
    accounts: impl Iterator<Item = Address>,
) -> BTreeMap<Address, Nonce> {
    let endpoint = &input.chain.endpoint;
    let mut counts = BTreeMap::new();
    for account in accounts {
        let pending = BlockNumberOrTag::Pending;
        let count = endpoint.transaction_count_at(account, pending).await;
        counts.extend(count.ok().map(|count| (account, count)));
    }
    counts
}

/// Accounts that the spec lists.
fn signers_of(registry: Option<&IdentityRegistry>) -> Vec<Address> {
    let signers = registry.iter().flat_map(|registry| &registry.spec.signers);
    signers
        .filter_map(|signer| signer.address.parse().ok())
        .collect()
}

fn marker(registry: &IdentityRegistry, signer: Address) -> Option<String> {
    let ledgers = &registry.status.as_ref()?.ledgers;
    uids_of(ledgers, signer).next().map(str::to_owned)
}

/// Asks the endpoint of the pass, in batches. Final answers are kept for later passes, and receipts of
/// other blocks until there is another latest block. One that may be final by then is asked for again:
/// what is recorded rests on it.
async fn ask(input: &LedgerInput<'_>, questions: Questions, state: &mut RegistryState) -> Answers {
    let endpoint = &input.chain.endpoint;
    let (latest, finalized) = (&input.chain.latest, &input.chain.finalized);
    let mut answers = Answers::default();
    let mut receipts = Vec::new();
    for hash in questions.receipts {
        let shown = state.receipts_at(latest.hash).get(&hash).copied();
        let shown = shown.filter(|receipt| receipt.block > finalized.number);
        match state.final_receipts.get(&hash).copied().or(shown) {
            Some(known) => {
                answers.receipts.insert(hash, Ok(Some(known)));
            }
            None => receipts.push(hash),
        }
    }
    for (hash, receipt) in receipts.iter().zip(endpoint.receipts(&receipts).await) {
        if let Ok(Some(receipt)) = &receipt {
            match receipt.block <= finalized.number {
                true => state.final_receipts.insert(*hash, *receipt),
                false => state.receipts_at(latest.hash).insert(*hash, *receipt),
            };
        }
        answers.receipts.insert(*hash, receipt);
    }
    let transactions: Vec<_> = questions
        .transactions
        .into_iter()
        .filter(|hash| match state.final_transactions.get(hash) {
            Some(transaction) => {
                answers.transactions.insert(*hash, Ok(Some(*transaction)));
                false
            }
            None => true,
        })
        .collect();
    let found = endpoint.transactions(&transactions).await;
    for (hash, transaction) in transactions.into_iter().zip(found) {
        // It was asked for because a log of a final block names it.
        if let Ok(Some(transaction)) = &transaction {
            state.final_transactions.insert(hash, *transaction);
        }
        answers.transactions.insert(hash, transaction);
    }
    let agents: Vec<_> = questions.agents.into_iter().collect();
    let found = endpoint
        .agents(input.target.contract.address, &agents, finalized.number)
        .await;
    answers.agents = agents.into_iter().zip(found).collect();
    answers
}

/// First block from which spending counts as of the last 24 hours.
pub(super) async fn day_start<'a>(
    endpoint: &RpcEndpoint,
    (snapshot, accounts): (LedgerSnapshot<'_>, &BTreeSet<Address>),
    latest_time: u64,
    records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
    times: &mut BTreeMap<u64, u64>,
) -> Result<u64, RpcError> {
    let blocks = plan::spending_blocks(snapshot, accounts, records);
    times.retain(|block, _| blocks.contains(block));
    let since = latest_time.saturating_sub(DAY);
    loop {
        match plan::day_start(&blocks, times, since) {
            DayStart::From(block) => return Ok(block),
            DayStart::AskTimeOf(number) => {
                let block = endpoint
                    .block(BlockNumberOrTag::Number(number))
                    .await?
                    .ok_or(RpcError::RpcIncomplete {
                        call: "eth_getBlockByNumber",
                        missing: "block of a final transaction",
                    })?;
                times.insert(number, block.timestamp);
            }
        }
    }
}
