//! The CEL rules of the CRDs that guard ledgers and records, as predicates.
//!
//! The operator's own writes must pass them in every schedule. They restate `src/api`, which the
//! API server evaluates; the flows try the originals on a real one.

use serviceoffer::api::{
    AgentRegistrationSpec, LedgerState, Operation, Phase, QuarantineReason, SignerLedgerSpec,
};

/// Why the API server refuses a write of a ledger; `None` if it accepts it.
#[must_use]
pub fn ledger_refusal(
    old: Option<&SignerLedgerSpec>,
    new: &SignerLedgerSpec,
) -> Option<&'static str> {
    let entry_of = |key| {
        let nonce = new.registering.get(key)?;
        let entry = new.entries.get(nonce)?;
        Some(entry.operation == Operation::Register && entry.key == Some(*key))
    };
    let is_listed = |(nonce, entry): (_, &serviceoffer::api::Entry)| {
        entry.operation != Operation::Register
            || entry.key.and_then(|key| new.registering.get(&key)) == Some(nonce)
    };
    let stays = [
        (
            new.entries.keys().all(|nonce| *nonce < new.next),
            "every entry must be below next",
        ),
        (
            new.registering
                .keys()
                .all(|key| entry_of(key) == Some(true)),
            "registering must point at a Register entry of its key",
        ),
        (
            new.entries.iter().all(is_listed),
            "every Register entry must be listed in registering",
        ),
        (
            (new.state == LedgerState::Quarantine) == new.quarantine.is_some(),
            "quarantine must be set if and only if state is Quarantine",
        ),
        (
            new.from_block.is_some() == new.from_balance.is_some(),
            "fromBlock and fromBalance must be set together",
        ),
    ];
    let broken = stays.iter().find(|(holds, _)| !holds);
    broken
        .map(|(_, rule)| *rule)
        .or_else(|| old.and_then(|old| ledger_transition(old, new)))
}

fn ledger_transition(old: &SignerLedgerSpec, new: &SignerLedgerSpec) -> Option<&'static str> {
    let was_new = old
        .quarantine
        .as_ref()
        .is_some_and(|quarantine| quarantine.reason == QuarantineReason::New);
    let from_block = match (old.from_block, new.from_block) {
        (_, None) => true,
        (Some(before), Some(after)) => after <= before,
        (None, Some(_)) => was_new,
    };
    let identity = |spec: &SignerLedgerSpec| (spec.chain_id, spec.genesis_hash, spec.signer);
    let rules = [
        (identity(old) == identity(new), "identity is immutable"),
        (new.next >= old.next, "next never decreases"),
        (
            new.finalized_nonce >= old.finalized_nonce
                && new.finalized_block >= old.finalized_block,
            "finalizedNonce and finalizedBlock never decrease",
        ),
        (
            new.entries.iter().all(|(nonce, entry)| {
                old.entries
                    .get(nonce)
                    .map_or(*nonce >= old.next, |before| before == entry)
            }),
            "a new entry needs a nonce at or above the previous next, and an entry is immutable",
        ),
        (
            old.registering
                .iter()
                .all(|(key, nonce)| new.registering.get(key).is_none_or(|after| after == nonce)),
            "a key cannot leave the ledger and return to it in one write",
        ),
        (
            old.entries
                .keys()
                .all(|nonce| new.entries.contains_key(nonce) || *nonce < new.finalized_nonce),
            "an entry can be pruned only below finalizedNonce",
        ),
        (!old.draining || new.draining, "draining is permanent"),
        (
            old.cluster_uid == new.cluster_uid || old.state == LedgerState::Quarantine,
            "clusterUid can change only in Quarantine",
        ),
        (from_block, "fromBlock is set while the ledger is new"),
    ];
    rules
        .iter()
        .find(|(holds, _)| !holds)
        .map(|(_, rule)| *rule)
}

/// Why the API server refuses to replace a record; `None` if it accepts that.
#[must_use]
pub fn record_refusal(
    old: &AgentRegistrationSpec,
    new: &AgentRegistrationSpec,
) -> Option<&'static str> {
    let identity = |spec: &AgentRegistrationSpec| {
        (
            spec.key,
            spec.identity.clone(),
            spec.chain_id,
            spec.registry.clone(),
            spec.edition,
        )
    };
    let begun = !old.attempts.is_empty();
    let reverted_stays =
        new.reverted.is_none() || old.reverted.is_none() || new.reverted == old.reverted;
    let displaced_rises = match (&old.displaced, &new.displaced) {
        (Some(before), Some(after)) => after.nonce >= before.nonce,
        _ => true,
    };
    let rules = [
        (identity(old) == identity(new), "identity is immutable"),
        (
            old.result.is_none() || new.signer == old.signer,
            "signer is immutable once there is a result",
        ),
        (
            !begun || (&new.agent_uri, new.calldata_hash) == (&old.agent_uri, old.calldata_hash),
            "agentUri and calldataHash are frozen by the first attempt",
        ),
        (
            new.attempts.is_empty() || (new.agent_uri.is_some() && new.calldata_hash.is_some()),
            "an attempt needs agentUri and calldataHash",
        ),
        (
            !begun || !new.attempts.is_empty(),
            "attempts cannot be emptied",
        ),
        (
            old.result.is_none() || new.result == old.result,
            "result is written once",
        ),
        (reverted_stays, "reverted can be removed, not changed"),
        (
            displaced_rises,
            "displaced can be removed or name a higher nonce",
        ),
        (
            new.reverted.is_none() || new.phase == Phase::Reverted || new.result.is_some(),
            "reverted needs phase Reverted or a result",
        ),
        (
            old.phase != Phase::Reverted || new.phase == Phase::Reverted || new.result.is_some(),
            "phase Reverted is final unless a result is found",
        ),
    ];
    rules
        .iter()
        .find(|(holds, _)| !holds)
        .map(|(_, rule)| *rule)
}
