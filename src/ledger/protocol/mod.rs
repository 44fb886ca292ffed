//! The exactly-once protocol: decides the next step from the stored objects and the chain's
//! evidence. Pure.
//!
//! It owns every decision that could register an agent twice and must not know a client, a clock or
//! a task. [`super::store`] reads and writes the objects, [`crate::reconcile::registry`] carries
//! out the steps.
//!
//! Why at most one registration of a key is ever included (each line holds whichever replica
//! leads, and however its clock runs):
//! 1. Every write that allocates increases `next`, and writes are compare-and-swap: a nonce is
//!    allocated to one key only.
//! 2. A key gets a nonce only while it has no entry ([`allocate`]) and its record, read *after* the
//!    ledger, has no result.
//! 3. An entry is removed only after the record has a final outcome: a result, a revert, or a final
//!    transaction of something else at its nonce ([`EntryStep::RecordResult`],
//!    [`EntryStep::RecordReverted`] or [`EntryStep::RecordDisplaced`] precedes
//!    [`EntryStep::Prune`]). A reverted record never gets another nonce, and a displaced one only
//!    because nothing can be included at the former nonce any more.
//! 4. A transaction is signed only for an entry that was read back, and an account uses each nonce
//!    once.
//! 5. A key gets a nonce only after the chain's final logs of every account that may have registered
//!    it are proven not to contain it ([`super::registrants`]), and after all accounts were searched
//!    for its URI ([`super::sweep`]): deleting a record or a ledger, or changing the signer, cannot
//!    cause a second registration.
//! 6. A key gets no nonce while any other ledger of the chain registers it, and none while a premise
//!    is unknown ([`Premises`]).
//! 7. A record changes its signer only before anything is signed, and in steps that no concurrent
//!    allocation survives ([`move_step`]).
//! 8. A ledger that shows less than it has shown, or than a record knows, allocates nothing any more
//!    ([`super::rollback`]).
//!
//! Evidence that this version cannot resolve by itself is a [`Freeze`]: the operator allocates and
//! signs nothing until the evidence changes. If it concerns one entry, stored transactions are still
//! sent, since lower nonces let higher ones be included. A freeze is derived again at each reconcile.
//! Only a rollback is stored, as the ledger's quarantine, since its evidence may be gone after the
//! next restart.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, U256, keccak256};

use super::evidence::{
    AccountState, AdoptionTarget, Evidence, FinalRegistration, Inclusion, LedgerHistory,
    LedgerIdentity, LedgerSnapshot, Premises, UnknownPremise,
};
use super::foreign::NonceUse;
use super::freeze::Freeze;
use super::money::{Budget, Limits, Shortage};
use super::registrants::RegistrantIndexes;
use super::rollback::{LedgerMark, is_stopped};
use super::sweep::OrphanAgent;
use crate::api::{
    AgentCount, AgentRegistrationSpec, Attempt, DisplacingTransaction, Entry, Key, LedgerState,
    Nonce, Operation, Phase, ProvenAbsent, Quarantine, QuarantineReason, RegistrationResult,
    RevertedRegistration, SignerLedgerSpec, Wei,
};
use crate::chain::TransactionCounts;

/// Maximum number of allocated nonces that are not final. A constant of the protocol: recovery of a
/// lost ledger consumes as many nonces as any ledger can have had in flight.
pub const MAX_UNFINAL: u64 = 256;
/// Maximum characters of an agent's URI that a record keeps; the limit of the schema.
const AGENT_URI_LENGTH: usize = 2048;
/// Maximum attempts of one record; the limit of the schema.
const MAX_ATTEMPTS: usize = 256;
/// Number of attempts of one record that keep their signed bytes.
const RAW_ATTEMPTS_KEPT: usize = 8;

/// The next step of a ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerStep {
    /// Create the ledger, in quarantine.
    Create(SignerLedgerSpec),
    /// Write the ledger's uid to the marker in the IdentityRegistry's status.
    WriteMarker,
    /// Replace the ledger by its first active version.
    Activate(SignerLedgerSpec),
    /// Replace the ledger by one whose logs are read from an earlier block.
    LowerFromBlock(SignerLedgerSpec),
    /// Wait until the account has no transaction in flight.
    Wait,
    /// Wait until it is known whether the account had a ledger.
    AwaitPremise(UnknownPremise),
    /// Use the ledger.
    Ready,
}

/// Decides the next step of a ledger as a whole.
///
/// A ledger is created in quarantine, then its uid is written to the marker, and only evidence read
/// after that can activate it. So nothing is ever signed under a ledger that could disappear
/// without a trace.
///
/// # Errors
/// Why nothing may be spent.
pub fn ledger_step(
    identity: &LedgerIdentity,
    ledger: Option<(&SignerLedgerSpec, &LedgerMark)>,
    history: &LedgerHistory,
    account: &AccountState,
) -> Result<LedgerStep, Freeze> {
    let mut used = history
        .remembered
        .iter()
        .filter(|seen| seen.next > Nonce(0));
    let mut marked = history.marker.iter().chain(&history.markers);
    let Some((ledger, mark)) = ledger else {
        let marked = marked.next();
        if marked.is_some() || history.has_attempts || used.next().is_some() {
            return Err(Freeze::LedgerLost {
                uid: marked.cloned(),
            });
        }
        return Ok(
            unreadable_record(history).unwrap_or_else(|| LedgerStep::Create(new_ledger(identity)))
        );
    };
    if ledger.cluster_uid != identity.cluster_uid {
        return Err(Freeze::LedgerCloned {
            owner: ledger.cluster_uid.clone(),
        });
    }
    if ledger.genesis_hash != identity.genesis_hash {
        return Err(Freeze::OtherChain {
            seen: identity.genesis_hash,
            recorded: ledger.genesis_hash,
        });
    }
    let replaced = used.find(|seen| seen.uid != mark.uid);
    let replaced = replaced.map(|seen| &seen.uid);
    if let Some(lost) = marked.find(|uid| **uid != mark.uid).or(replaced) {
        return Err(Freeze::LedgerLost {
            uid: Some(lost.clone()),
        });
    }
    let mut remembered = history.remembered.iter().filter(|_| !is_stopped(ledger));
    if let Some(seen) = remembered.find(|seen| seen.is_ahead_of(mark)) {
        return Err(Freeze::LedgerRolledBack {
            read: Box::new(mark.clone()),
            seen: Box::new(seen.clone()),
        });
    }
    if history.marker.is_none() {
        return Ok(LedgerStep::WriteMarker);
    }
    match &ledger.quarantine {
        Some(Quarantine {
            reason: QuarantineReason::New,
            ..
        }) => activate_new(ledger, history, account),
        Some(Quarantine { reason, .. }) => Err(Freeze::Quarantined { reason: *reason }),
        None => {
            if let Some((key, nonce)) = history.unaccounted {
                return Err(Freeze::EntryMissing { key, nonce });
            }
            Ok(with_earlier_start(ledger, history.bootstrap_from_block)
                .map_or(LedgerStep::Ready, LedgerStep::LowerFromBlock))
        }
    }
}

/// A record that cannot be read may have an attempt: then a ledger must have existed, and another
/// one must not be born.
fn unreadable_record(history: &LedgerHistory) -> Option<LedgerStep> {
    let name = history.unreadable_record.clone()?;
    Some(LedgerStep::AwaitPremise(UnknownPremise::RecordUnreadable {
        name,
    }))
}

/// The ledger with logs read from a configured block, if that is earlier than the recorded one.
/// Written, because the configuration may be removed and the logs between the two blocks must not
/// be left out after that.
fn with_earlier_start(
    ledger: &SignerLedgerSpec,
    configured: Option<u64>,
) -> Option<SignerLedgerSpec> {
    let lower = configured.filter(|block| ledger.from_block.is_some_and(|from| *block < from))?;
    Some(advance_history(SignerLedgerSpec {
        from_block: Some(lower),
        from_balance: Some(AgentCount::default()),
        from_registry: None,
        ..ledger.clone()
    }))
}

/// A new ledger, in quarantine: nothing can be allocated from it.
fn new_ledger(identity: &LedgerIdentity) -> SignerLedgerSpec {
    let ledger = SignerLedgerSpec {
        chain_id: identity.chain_id,
        genesis_hash: identity.genesis_hash,
        signer: identity.signer,
        cluster_uid: identity.cluster_uid.clone(),
        state: LedgerState::Quarantine,
        draining: false,
        quarantine: Some(Quarantine {
            reason: QuarantineReason::New,
            bound: Nonce(0),
        }),
        next: Nonce(0),
        finalized_nonce: Nonce(0),
        finalized_block: 0,
        entries: BTreeMap::new(),
        registering: BTreeMap::new(),
        from_block: None,
        from_balance: None,
        from_registry: None,
        epoch: 0,
        history_hash: B256::ZERO,
    };
    advance_history(ledger)
}

/// Decides whether a new ledger whose marker is written may become active.
fn activate_new(
    ledger: &SignerLedgerSpec,
    history: &LedgerHistory,
    account: &AccountState,
) -> Result<LedgerStep, Freeze> {
    if history.has_attempts {
        return Err(Freeze::LedgerLost { uid: None });
    }
    if let Some(step) = unreadable_record(history) {
        return Ok(step);
    }
    let TransactionCounts {
        finalized,
        latest,
        pending,
    } = account.counts;
    if finalized != pending || finalized != latest {
        return Ok(LedgerStep::Wait);
    }
    if finalized != Nonce(0) && history.bootstrap_nonce != Some(finalized) {
        return Err(Freeze::WalletUsed { count: finalized });
    }
    let active = SignerLedgerSpec {
        state: LedgerState::Active,
        quarantine: None,
        next: finalized,
        finalized_nonce: finalized,
        finalized_block: account.finalized_block,
        ..ledger.clone()
    };
    // An account without a final transaction has registered nothing up to that block. A used one
    // has, and only configuration says since when. Never the current block.
    let unused = account.balance_of_owner.filter(|_| finalized == Nonce(0));
    let active = match (unused, history.bootstrap_from_block) {
        (Some(balance), _) => SignerLedgerSpec {
            from_block: Some(account.finalized_block),
            from_balance: Some(AgentCount(balance.held)),
            from_registry: Some(balance.registry),
            ..active
        },
        (None, Some(block)) => SignerLedgerSpec {
            from_block: Some(block),
            from_balance: Some(AgentCount::default()),
            from_registry: None,
            ..active
        },
        (None, None) => active,
    };
    Ok(LedgerStep::Activate(advance_history(active)))
}

/// The next step of one entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryStep {
    /// Sign a transaction at this nonce, store it and send it.
    Sign,
    /// Send the stored attempt.
    Send(Attempt),
    /// Replace the stored attempt by one with higher fees at the same nonce (rule R4). As long as
    /// the limits do not allow that, send it as it is, unless it was sent recently.
    Replace {
        attempt: Attempt,
        sent_recently: bool,
    },
    /// Write the record's new phase. No decision depends on it.
    RecordPhase(AgentRegistrationSpec),
    /// Write the result to the record: the registration is final.
    RecordResult(AgentRegistrationSpec),
    /// Write to the record that its registration was included and reverted: that is final.
    RecordReverted(AgentRegistrationSpec),
    /// Write to the record that another transaction used the nonce: that is final.
    RecordDisplaced(AgentRegistrationSpec),
    /// Remove the entry: its record has a result, is terminally reverted or was displaced, and its
    /// nonce is final.
    Prune,
    /// Do nothing.
    Wait,
}

/// Decides the next step of the entry at a nonce. `record` is the record of its key, read after the
/// ledger.
///
/// # Errors
/// Why nothing may be spent.
pub fn entry_step(
    snapshot: LedgerSnapshot<'_>,
    nonce: Nonce,
    record: Option<&AgentRegistrationSpec>,
    evidence: &Evidence,
) -> Result<EntryStep, Freeze> {
    let Some(Entry {
        key: Some(key),
        operation: Operation::Register,
    }) = snapshot.ledger.entries.get(&nonce)
    else {
        return Err(Freeze::UnknownOperation { nonce });
    };
    let record = record.ok_or(Freeze::RecordMissing { key: *key, nonce })?;
    let counts = snapshot.account.counts;
    let is_final = nonce < counts.finalized;
    let is_own = is_own(snapshot, record);
    let signed_here = |transaction: Option<B256>| {
        let mut attempts = record.attempts.iter().filter(|_| is_own);
        attempts.any(|attempt| attempt.nonce == nonce && Some(attempt.hash) == transaction)
    };
    if let Some(result) = &record.result {
        return match (is_final, signed_here(result.transaction)) {
            (true, _) => Ok(EntryStep::Prune),
            // This endpoint lags behind the one that showed the result.
            (false, true) => Ok(EntryStep::Wait),
            (false, false) => Err(Freeze::RegistrationMisplaced { key: *key, nonce }),
        };
    }
    if record.phase == Phase::Reverted {
        let reverted = record
            .reverted
            .as_ref()
            .map(|reverted| reverted.transaction);
        match (is_final, reverted.map(|hash| signed_here(Some(hash)))) {
            (true, Some(true)) => return Ok(EntryStep::Prune),
            // This endpoint lags behind the one that showed the receipt.
            (false, Some(true) | None) => return Ok(EntryStep::Wait),
            (false, Some(false)) => {
                return Err(Freeze::RegistrationMisplaced { key: *key, nonce });
            }
            // An older version dropped the transaction, or another one used this nonce.
            (true, Some(false) | None) => {}
        }
    }
    if is_final {
        finalized_step(snapshot, nonce, record, evidence)
    } else if is_own && record.is_displaced(nonce) {
        // This endpoint lags behind the one that showed the other transaction.
        Ok(EntryStep::Wait)
    } else if nonce < counts.latest {
        let ours = evidence
            .included
            .is_some_and(|inclusion| inclusion.succeeded);
        Ok(if ours {
            record_phase(record, Phase::Included)
        } else {
            EntryStep::Wait
        })
    } else {
        unmined_step(snapshot, nonce, record, evidence)
    }
}

/// Whether what a record says of nonces is about the account of the ledger. Accounts count from the
/// same number, and a record names only the nonces of its signer, which may be another one by now.
fn is_own(snapshot: LedgerSnapshot<'_>, record: &AgentRegistrationSpec) -> bool {
    record.is_of(snapshot.ledger.chain_id, snapshot.ledger.signer)
}

/// The step of an entry whose nonce is used in a finalized block.
fn finalized_step(
    snapshot: LedgerSnapshot<'_>,
    nonce: Nonce,
    record: &AgentRegistrationSpec,
    evidence: &Evidence,
) -> Result<EntryStep, Freeze> {
    let key = record.key;
    let attempts = || {
        let attempts = record.attempts.iter();
        attempts.filter(|attempt| attempt.nonce == nonce)
    };
    let place_of = |registration: &FinalRegistration| {
        let signed_here = attempts().any(|attempt| attempt.hash == registration.event.transaction);
        match (registration.sender, registration.nonce) {
            _ if !registration.confirmed => Place::Elsewhere,
            (Some(sender), Some(at)) if sender == snapshot.ledger.signer && at == nonce => {
                Place::Here
            }
            (Some(_), Some(_)) => Place::Elsewhere,
            // The endpoint does not know the transaction, but the record does.
            _ if signed_here => Place::Here,
            // Nor does the record, which was lost with its attempts. As for a record without an
            // entry, the log is enough: nothing else can be included at this nonce.
            _ if attempts().next().is_none() => Place::Here,
            _ => Place::Unknown,
        }
    };
    let places: Vec<Place> = evidence.registrations.iter().map(place_of).collect();
    let here = places.iter().position(|place| *place == Place::Here);
    if let Some(registration) = here.and_then(|here| evidence.registrations.get(here)) {
        return Ok(EntryStep::RecordResult(with_result(record, registration)));
    }
    if places.contains(&Place::Elsewhere) {
        return Err(Freeze::RegistrationMisplaced { key, nonce });
    }
    // The rest are transactions that the endpoint does not know.
    if !evidence.registrations.is_empty() {
        return Ok(EntryStep::Wait);
    }
    // Logs that the index does not contain yet prove nothing, and an index that contains the key
    // proves the opposite, even if its registration could not be looked at.
    let proven_to = snapshot
        .index
        .proven_to()
        .filter(|block| *block >= snapshot.account.finalized_block);
    let Some(proven_to) = proven_to.filter(|_| !snapshot.index.contains(key)) else {
        return Ok(EntryStep::Wait);
    };
    match evidence.included {
        Some(inclusion) if !inclusion.succeeded => {
            let ours = attempts().any(|attempt| attempt.hash == inclusion.transaction);
            // A receipt of a block that is not final, or of a transaction that the record does not
            // store, proves nothing.
            let is_final = inclusion.block <= snapshot.account.finalized_block.min(proven_to);
            Ok(if ours && is_final {
                EntryStep::RecordReverted(with_reverted(record, &inclusion))
            } else {
                EntryStep::Wait
            })
        }
        // The record cannot say what has used a nonce of another account.
        _ if !is_own(snapshot, record) => Err(Freeze::KeyUsedElsewhere { nonce, key }),
        // Only here, where complete logs would contradict a record that is wrong.
        _ if record.is_displaced(nonce) => Ok(EntryStep::Prune),
        // Rule R6: the nonce is used by a transaction that registers nothing of ours.
        _ => match evidence.used_by.filter(|used| used.displaces(key)) {
            Some(used) => Ok(EntryStep::RecordDisplaced(with_displaced(
                record, nonce, &used,
            ))),
            None => Err(Freeze::KeyUsedElsewhere { nonce, key }),
        },
    }
}

/// Where a final registration was made, seen from one entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the nonce of the entry, by its signer.
    Here,
    /// At another nonce or by another account, or the registry does not know its agent.
    Elsewhere,
    /// The endpoint does not know the transaction.
    Unknown,
}

/// The record of a registration that was included and reverted. A record that was reverted before
/// has counted the cost.
fn with_reverted(record: &AgentRegistrationSpec, inclusion: &Inclusion) -> AgentRegistrationSpec {
    let cost = if record.phase == Phase::Reverted {
        0
    } else {
        inclusion.cost
    };
    AgentRegistrationSpec {
        phase: Phase::Reverted,
        reverted: Some(RevertedRegistration {
            transaction: inclusion.transaction,
            block: inclusion.block,
        }),
        spent_wei: Some(with_cost(record, cost)),
        ..record.clone()
    }
}

/// The record of a registration whose nonce something else has used. No attempt at that nonce can be
/// included any more, so the key may get another nonce.
fn with_displaced(
    record: &AgentRegistrationSpec,
    nonce: Nonce,
    used: &NonceUse,
) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        phase: Phase::Pending,
        displaced: Some(DisplacingTransaction {
            nonce,
            transaction: used.transaction,
            block: used.block,
        }),
        spent_wei: match used.cost {
            0 => record.spent_wei,
            cost => Some(with_cost(record, cost)),
        },
        ..record.clone()
    }
}

fn with_cost(record: &AgentRegistrationSpec, cost: u128) -> Wei {
    Wei(record.spent_wei.unwrap_or_default().0.saturating_add(cost))
}

/// The step of an entry whose nonce is not used in any block.
fn unmined_step(
    snapshot: LedgerSnapshot<'_>,
    nonce: Nonce,
    record: &AgentRegistrationSpec,
    evidence: &Evidence,
) -> Result<EntryStep, Freeze> {
    let Some(attempt) = record
        .attempts
        .iter()
        .rfind(|attempt| attempt.nonce == nonce && attempt.raw.is_some())
    else {
        return Ok(EntryStep::Sign);
    };
    // A reorg removed the block that included it: send it again.
    if record.phase == Phase::Included {
        return Ok(record_phase(record, Phase::Sent));
    }
    let is_below_market = attempt.max_fee_per_gas.0 < snapshot.account.base_fee;
    // A higher nonce waits for the lower ones, whatever its fee is.
    let is_overdue = evidence.is_overdue && nonce == snapshot.account.counts.latest;
    Ok(if is_below_market || is_overdue {
        EntryStep::Replace {
            attempt: attempt.clone(),
            sent_recently: evidence.sent_recently,
        }
    } else if evidence.sent_recently {
        EntryStep::Wait
    } else {
        EntryStep::Send(attempt.clone())
    })
}

/// Whether the record has room for another attempt.
///
/// # Errors
/// [`Shortage::AttemptLimitReached`].
pub fn check_attempts(record: &AgentRegistrationSpec) -> Result<(), Shortage> {
    let attempts = record.attempts.len();
    if attempts < MAX_ATTEMPTS {
        Ok(())
    } else {
        Err(Shortage::AttemptLimitReached { attempts })
    }
}

/// Records the phase, unless the record already has it.
fn record_phase(record: &AgentRegistrationSpec, phase: Phase) -> EntryStep {
    if record.phase == phase {
        return EntryStep::Wait;
    }
    EntryStep::RecordPhase(AgentRegistrationSpec {
        phase,
        ..record.clone()
    })
}

/// Phase of a record whose agent has its id.
fn final_phase(record: &AgentRegistrationSpec) -> Phase {
    if record.tombstone.unwrap_or_default() {
        Phase::Tombstoned
    } else {
        Phase::Registered
    }
}

/// The record with the result of its final registration.
fn with_result(
    record: &AgentRegistrationSpec,
    registration: &FinalRegistration,
) -> AgentRegistrationSpec {
    // Without a receipt the cost is at most what the attempt allows.
    let worst = || {
        let mut attempts = record.attempts.iter();
        attempts
            .find(|attempt| attempt.hash == registration.event.transaction)
            .map(worst_cost)
    };
    let cost = registration.cost.or_else(worst).unwrap_or_default();
    let with_uri = match record.agent_uri {
        Some(_) => record.clone(),
        None => with_agent_uri(record, &registration.event.agent_uri),
    };
    // An agent is of the account that registered it. A record with attempts keeps its signer, whose
    // ledger they belong to.
    let signer = match record.attempts.as_slice() {
        [] => Some(registration.registrant),
        _ => record.signer,
    };
    AgentRegistrationSpec {
        signer,
        phase: final_phase(record),
        result: Some(registration.result()),
        spent_wei: Some(with_cost(record, cost)),
        ..with_uri
    }
}

/// What a transaction costs at most, in wei, without the rollup's part.
#[must_use]
pub fn worst_cost(attempt: &Attempt) -> u128 {
    attempt.max_fee_per_gas.0.saturating_mul(attempt.gas.into())
}

/// The record with the URI that its agent has on chain: anyone may have written it, so one that the
/// schema does not accept is kept as a hash.
fn with_agent_uri(record: &AgentRegistrationSpec, agent_uri: &str) -> AgentRegistrationSpec {
    let fits =
        agent_uri.chars().count() <= AGENT_URI_LENGTH && !agent_uri.chars().any(char::is_control);
    let (agent_uri, agent_uri_hash) = if fits {
        (Some(agent_uri.to_owned()), None)
    } else {
        (None, Some(keccak256(agent_uri)))
    };
    AgentRegistrationSpec {
        agent_uri,
        agent_uri_hash,
        ..record.clone()
    }
}

/// The next step of a record that has neither a result nor an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingStep {
    /// Write the result to the record: the agent exists.
    Adopt(Box<AgentRegistrationSpec>),
    /// Report that the requested agent does not exist or belongs to another record.
    RefuseAdoption(AdoptionRefused),
    /// Allocate a nonce: the chain's logs prove that the key is not registered.
    Allocate,
    /// Report that the record must not get a nonce.
    Refuse(Freeze),
    /// Report the agent of another account that may be the one that the record asks for.
    HoldBack(OrphanAgent),
    /// Wait until the logs of every registrant are proven up to the last finalized block.
    AwaitIndex,
    /// Do nothing.
    Wait,
}

/// Why an agent cannot be adopted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptionRefused {
    /// The contract does not know the agent.
    #[error("agent {id} does not exist in the registry contract: correct registration.agentId")]
    AgentNotFound {
        /// As the offer has it.
        id: String,
    },
    /// Another record has the agent.
    #[error(
        "the agent already belongs to another identity (record r-{by}): set registration.agentId \
         to an agent of this offer, or, if the other offer is in the same namespace, set \
         registration.identity of both to the same value"
    )]
    AgentTaken { by: Key },
}

/// Decides the next step of a record that has neither a result nor an entry. `ledger` is `None` if
/// the registry has no signer and only watches.
#[must_use]
pub fn pending_step(
    ledger: Option<&SignerLedgerSpec>,
    record: &AgentRegistrationSpec,
    indexes: Option<&RegistrantIndexes>,
    registrations: &[FinalRegistration],
    target: Option<&AdoptionTarget>,
) -> PendingStep {
    if record.result.is_some()
        || ledger.is_some_and(|ledger| ledger.registering.contains_key(&record.key))
    {
        return PendingStep::Wait;
    }
    if let Some(id) = &record.adopt {
        return match target {
            None => PendingStep::Wait,
            Some(AdoptionTarget {
                taken_by: Some(by), ..
            }) => PendingStep::RefuseAdoption(AdoptionRefused::AgentTaken { by: *by }),
            Some(AdoptionTarget {
                exists_at: None, ..
            }) => PendingStep::RefuseAdoption(AdoptionRefused::AgentNotFound { id: id.clone() }),
            Some(AdoptionTarget {
                exists_at: Some(at),
                agent_uri,
                ..
            }) => PendingStep::Adopt(Box::new(with_adopted_agent(record, *at, agent_uri))),
        };
    }
    let (Some(ledger), Some(indexes)) = (ledger, indexes) else {
        return PendingStep::Wait;
    };
    if let Some(registration) = registrations
        .iter()
        .find(|registration| registration.confirmed)
    {
        return PendingStep::Adopt(Box::new(with_result(record, registration)));
    }
    // This version does not register again after a registration that reverted.
    if record.tombstone.unwrap_or_default() || record.phase == Phase::Reverted {
        return PendingStep::Wait;
    }
    // An entry outlives its record's attempts until there is an outcome. So this ledger is older than
    // the record, and the attempt may still be included.
    if let Some(attempt) = record.live_attempt() {
        return PendingStep::Refuse(Freeze::EntryMissing {
            key: record.key,
            nonce: attempt.nonce,
        });
    }
    // See `move_step`.
    if record.moved_from.is_some() {
        return PendingStep::Wait;
    }
    if let Some(orphan) = indexes.orphan_of(record.key) {
        return PendingStep::HoldBack(orphan.clone());
    }
    if indexes.proves_absent(ledger, record.key) {
        PendingStep::Allocate
    } else {
        PendingStep::AwaitIndex
    }
}

/// Whether a record asks for its first nonce: then [`pending_step`] needs the logs of all accounts.
#[must_use]
pub fn asks_for_nonce(ledger: &SignerLedgerSpec, record: &AgentRegistrationSpec) -> bool {
    record.is_open() && record.adopt.is_none() && !ledger.registering.contains_key(&record.key)
}

/// The account that a record waits for instead of its ledger's, if the record can be moved or is
/// being moved.
#[must_use]
pub fn former_signer(record: &AgentRegistrationSpec, signer: Address) -> Option<Address> {
    let is_unbegun = record.is_open() && record.attempts.is_empty() && record.adopt.is_none();
    let other = record.signer.filter(|other| *other != signer);
    record.moved_from.or(other).filter(|_| is_unbegun)
}

/// What keeps an open record with a signer that is not the first one any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The signer finishes it.
    InFlight,
    /// Something else has used the nonce of what was signed. A signer that is not the first one gives
    /// no other, and what it has signed cannot be moved.
    Displaced,
}

/// What a signer has begun of an open record; `None` if the record can be moved. `is_registering` says
/// whether its ledger registers the key.
#[must_use]
pub fn begun(record: &AgentRegistrationSpec, is_registering: bool) -> Option<Begun> {
    if is_registering || record.live_attempt().is_some() {
        Some(Begun::InFlight)
    } else {
        (!record.attempts.is_empty()).then_some(Begun::Displaced)
    }
}

/// The next step of moving a record to another signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// The former signer's ledger registers the key: it finishes what it began.
    Keep,
    /// Write the record.
    Write(Box<AgentRegistrationSpec>),
    /// Write the former signer's ledger once more, if it has one, and then this record.
    Complete(Box<AgentRegistrationSpec>),
}

/// Decides the next step of moving a record to another signer. `ledger` is that of
/// [`former_signer`], read after the record.
///
/// Two ledgers must never register one key. An allocation reads the ledger, then the record, then
/// writes the ledger. So the record is moved first, and marked: a later allocation by either signer
/// reads that and allocates nothing. Then the former signer's ledger is written: that fails if an
/// earlier allocation was written in between, and makes every earlier one fail that is still to be
/// written. Only then is the mark removed.
#[must_use]
pub fn move_step(
    ledger: Option<&SignerLedgerSpec>,
    record: &AgentRegistrationSpec,
    to: Address,
) -> MoveStep {
    let is_registering = ledger.is_some_and(|ledger| ledger.registering.contains_key(&record.key));
    match (record.moved_from, is_registering) {
        (None, true) => MoveStep::Keep,
        (None, false) => MoveStep::Write(Box::new(AgentRegistrationSpec {
            signer: Some(to),
            moved_from: record.signer,
            ..record.clone()
        })),
        // An allocation was faster than the move.
        (Some(former), true) => MoveStep::Write(Box::new(AgentRegistrationSpec {
            signer: Some(former),
            moved_from: None,
            ..record.clone()
        })),
        // What displaced a nonce of the former signer says nothing about the next one's.
        (Some(_), false) => MoveStep::Complete(Box::new(AgentRegistrationSpec {
            moved_from: None,
            displaced: None,
            ..record.clone()
        })),
    }
}

fn with_adopted_agent(
    record: &AgentRegistrationSpec,
    (block, block_hash): (u64, B256),
    agent_uri: &str,
) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        phase: final_phase(record),
        result: record.adopt.clone().map(|agent_id| RegistrationResult {
            agent_id,
            transaction: None,
            block,
            block_hash,
        }),
        ..with_agent_uri(record, agent_uri)
    }
}

/// A record that asks for a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationRequest<'a> {
    /// The record, read after the ledger.
    pub record: &'a AgentRegistrationSpec,
    /// Namespace that pays; see [`payer`].
    pub namespace: Option<&'a str>,
    /// Worst-case cost of the registration, in wei.
    pub cost: u128,
}

/// How many nonces an allocation may hand out and what it may spend.
#[derive(Clone, Debug)]
pub struct AllocationBounds<'a> {
    /// Maximum number of allocated nonces that no block uses yet.
    pub window: usize,
    /// Spending limits of the registry.
    pub spending: &'a Limits,
    /// What may be spent.
    pub budget: Budget,
    /// What must be known before a nonce is allocated.
    pub premises: &'a Premises,
    /// Keys that any other ledger of the chain registers.
    pub registering_elsewhere: &'a BTreeSet<Key>,
    /// The logs of every account that may have registered.
    pub indexes: &'a RegistrantIndexes,
}

/// Result of an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The ledger to write; `None` if no nonce was allocated.
    pub ledger: Option<SignerLedgerSpec>,
    /// Allocated nonces and their keys.
    pub allocated: Vec<(Nonce, Key)>,
    /// Keys that could not be paid for, and why.
    pub shortages: Vec<(Key, Shortage)>,
}

/// Rule R1: allocates nonces to as many requests as window, capacity and budget allow, in one
/// write.
///
/// Records must have been read after this version of the ledger, and the write must be conditional
/// on this version.
#[must_use]
pub fn allocate(
    snapshot: LedgerSnapshot<'_>,
    requests: &[AllocationRequest<'_>],
    mut bounds: AllocationBounds<'_>,
) -> Allocation {
    let mut allocation = Allocation::default();
    if snapshot.ledger.state != LedgerState::Active
        || snapshot.ledger.draining
        || nonce_ahead(snapshot).is_some()
        || !bounds.premises.unknown.is_empty()
    {
        return allocation;
    }
    let unmined = snapshot
        .ledger
        .entries
        .range(snapshot.account.counts.latest..)
        .count();
    let end = Nonce(
        snapshot
            .ledger
            .finalized_nonce
            .0
            .saturating_add(MAX_UNFINAL),
    );
    let mut after = snapshot.ledger.clone();
    for request in requests {
        let record = request.record;
        let fits = record.is_of(snapshot.ledger.chain_id, snapshot.ledger.signer)
            && !bounds.registering_elsewhere.contains(&record.key)
            && pending_step(Some(&after), record, Some(bounds.indexes), &[], None)
                == PendingStep::Allocate;
        if !fits || unmined + allocation.allocated.len() >= bounds.window || after.next >= end {
            continue;
        }
        if let Err(shortage) =
            bounds
                .budget
                .reserve(bounds.spending, request.namespace, request.cost)
        {
            allocation.shortages.push((record.key, shortage));
            continue;
        }
        let nonce = after.next;
        after.entries.insert(
            nonce,
            Entry {
                key: Some(record.key),
                operation: Operation::Register,
            },
        );
        after.registering.insert(record.key, nonce);
        after.next = nonce.next();
        allocation.allocated.push((nonce, record.key));
    }
    allocation.ledger = (!allocation.allocated.is_empty()).then(|| advance_history(after));
    allocation
}

/// The premise that the ledger allocated every transaction of its account is not known. Entries that
/// it has are still finished: a nonce belongs to one key, whatever else was sent.
#[must_use]
pub fn nonce_ahead(snapshot: LedgerSnapshot<'_>) -> Option<UnknownPremise> {
    let TransactionCounts {
        finalized,
        latest,
        pending,
    } = snapshot.account.counts;
    let (count, next) = (pending.max(latest).max(finalized), snapshot.ledger.next);
    (count > next).then_some(UnknownPremise::NonceAhead { count, next })
}

/// The tombstone of an agent that no offer uses any more. `None` if the record is one already, or
/// if its registration is in flight or it is being moved to another signer, which is finished first. If the record has no result, a write
/// of [`advance_history`] must follow: it makes an allocation fail that read the record before. A
/// reverted registration keeps its phase, or reviving its agent would register it again.
#[must_use]
pub fn retired(
    ledger: Option<&SignerLedgerSpec>,
    record: &AgentRegistrationSpec,
) -> Option<AgentRegistrationSpec> {
    let in_flight = ledger.is_some_and(|ledger| ledger.registering.contains_key(&record.key));
    let done = record.tombstone.unwrap_or_default();
    let is_moving = record.moved_from.is_some();
    (!in_flight && !done && !is_moving).then(|| AgentRegistrationSpec {
        phase: if record.phase == Phase::Reverted {
            Phase::Reverted
        } else {
            Phase::Tombstoned
        },
        tombstone: Some(true),
        ..record.clone()
    })
}

/// The record of an agent that an offer uses again: the same agent, without a transaction.
#[must_use]
pub fn revived(record: &AgentRegistrationSpec) -> AgentRegistrationSpec {
    let phase = match (&record.result, record.phase) {
        (Some(_), _) => Phase::Registered,
        (None, Phase::Reverted) => Phase::Reverted,
        (None, _) => Phase::Pending,
    };
    AgentRegistrationSpec {
        phase,
        tombstone: None,
        ..record.clone()
    }
}

/// Rule R5, second half: the ledger without the entries of finished or reverted registrations, with
/// their finality recorded. `blocks` are the blocks of their transactions.
#[must_use]
pub fn without_entries(
    ledger: &SignerLedgerSpec,
    nonces: &BTreeSet<Nonce>,
    blocks: &[u64],
    account: &AccountState,
) -> SignerLedgerSpec {
    let mut after = ledger.clone();
    after.entries.retain(|nonce, _| !nonces.contains(nonce));
    after.registering.retain(|_, nonce| !nonces.contains(nonce));
    after.finalized_nonce = after
        .finalized_nonce
        .max(account.counts.finalized.min(after.next));
    // An allocation after this write needs an index that contains these transactions.
    after.finalized_block = blocks.iter().copied().fold(after.finalized_block, u64::max);
    advance_history(after)
}

/// The ledger with only its history hash changed: writing it makes every concurrent allocation
/// fail.
#[must_use]
pub fn advance_history(ledger: SignerLedgerSpec) -> SignerLedgerSpec {
    let content = serde_json::to_vec(&ledger).unwrap_or_default();
    SignerLedgerSpec {
        history_hash: keccak256(content),
        ..ledger
    }
}

/// Rule R3, first half: the record with one more attempt, to be stored before it is sent.
/// `proven_to` is the last block up to which the key was proven absent.
#[must_use]
pub fn with_attempt(
    record: &AgentRegistrationSpec,
    attempt: Attempt,
    calldata_hash: B256,
    agent_uri: &str,
    proven_to: Option<u64>,
) -> AgentRegistrationSpec {
    let mut after = AgentRegistrationSpec {
        phase: Phase::Sent,
        agent_uri: Some(agent_uri.to_owned()),
        calldata_hash: Some(calldata_hash),
        proven_absent: proven_to
            .map(|block| ProvenAbsent { block })
            .or_else(|| record.proven_absent.clone()),
        ..record.clone()
    };
    after.attempts.push(attempt);
    let surplus = after.attempts.len().saturating_sub(RAW_ATTEMPTS_KEPT);
    after
        .attempts
        .iter_mut()
        .take(surplus)
        .for_each(|attempt| attempt.raw = None);
    after
}

/// What the entries of a ledger may cost besides what their transactions say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryCosts {
    /// What a rollup charges for each transaction besides gas, in wei.
    pub rollup_fee: u128,
    /// Cost of an entry without a signed transaction, in wei; such an entry reserves nothing if it
    /// is not given.
    pub unsigned: Option<u128>,
}

/// Reservations for the entries of a ledger: the worst-case cost of each registration in flight,
/// and the namespace that pays.
#[must_use]
pub fn reservations(
    ledger: &SignerLedgerSpec,
    record_of: impl Fn(Key) -> Option<AgentRegistrationSpec>,
    costs: EntryCosts,
) -> Vec<Reservation> {
    let reserve = |(nonce, entry): (&Nonce, &Entry)| {
        let record = entry.key.and_then(&record_of);
        let attempts = record
            .iter()
            .flat_map(|record| &record.attempts)
            .filter(|attempt| attempt.nonce == *nonce);
        let signed = attempts.map(worst_cost).max();
        let worst = signed.map(|cost| cost.saturating_add(costs.rollup_fee));
        Some(Reservation {
            nonce: *nonce,
            amount: worst.or(costs.unsigned)?,
            namespace: record.as_ref().and_then(payer).map(str::to_owned),
        })
    };
    ledger.entries.iter().filter_map(reserve).collect()
}

/// Worst-case cost of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub nonce: Nonce,
    /// Reserved amount, in wei.
    pub amount: u128,
    /// Namespace that pays.
    pub namespace: Option<String>,
}

/// Namespace that pays for an agent: the one that its identity names. An agent that a whole registry
/// shares is paid by the offer for which the record was made, which came first or raised the edition.
/// `None` if the record lists no offer.
#[must_use]
pub fn payer(record: &AgentRegistrationSpec) -> Option<&str> {
    let named = record.identity.split('/').next();
    let named = named.filter(|namespace| !namespace.is_empty());
    named.or_else(|| Some(record.offers.first()?.namespace.as_str()))
}

/// Whether the agent id of a record and one on chain are the same. Ids are compared as numbers.
#[must_use]
pub fn same_agent(agent_id: &str, other: U256) -> bool {
    U256::from_str_radix(agent_id, 10) == Ok(other)
}

#[cfg(test)]
mod tests;
