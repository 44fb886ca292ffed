//! Finds the transactions that used nonces of an account, in the blocks since its ledger last agreed
//! with the chain. It writes nothing.
//!
//! What a transaction is, and what follows from it, is decided in [`crate::ledger::foreign`] and
//! [`crate::ledger::protocol`].

use std::collections::BTreeMap;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::Address;

use super::LedgerInput;
use super::plan::EvidenceByNonce;
use crate::api::{AgentRegistration, Key, Nonce};
use crate::chain::RpcError;
use crate::ledger::Freeze;
use crate::ledger::evidence::LedgerSnapshot;
use crate::ledger::foreign::{BlockSearch, Content, NonceUse, SearchStep};
use crate::ledger::protocol::{entry_step, nonce_ahead};
use crate::reconcile::registry::state::RegistryState;

/// Most nonces that one pass looks for: each takes some ten requests. What an earlier pass found
/// does not count, so that any number of them is explained in the end.
const MOST: usize = 8;

/// Adds to the evidence what used the nonces of entries that nothing else explains.
pub(super) async fn explain_entries(
    input: &LedgerInput<'_>,
    snapshot: LedgerSnapshot<'_>,
    records: &BTreeMap<Key, AgentRegistration>,
    evidence: &mut EvidenceByNonce,
    state: &mut RegistryState,
) {
    let guess = agreed(snapshot, state).unwrap_or(snapshot.ledger.finalized_block);
    let mut searches = 0;
    for (nonce, shown) in evidence.iter_mut() {
        let Ok(shown) = shown else { continue };
        let entry = snapshot.ledger.entries.get(nonce);
        let record = entry.and_then(|entry| records.get(&entry.key?));
        let record = record.map(|record| &record.spec);
        if !matches!(
            entry_step(snapshot, *nonce, record, shown),
            Err(Freeze::KeyUsedElsewhere { .. })
        ) {
            continue;
        }
        shown.used_by = find(input, snapshot, *nonce, guess, (state, &mut searches)).await;
    }
}

/// What used the final nonces that the ledger has not allocated. Nothing is looked for unless this
/// process, since it leads, has seen the account without them.
pub(super) async fn beyond_next(
    input: &LedgerInput<'_>,
    snapshot: LedgerSnapshot<'_>,
    state: &mut RegistryState,
) -> BTreeMap<Nonce, NonceUse> {
    let (next, finalized) = (snapshot.ledger.next, snapshot.account.counts.finalized);
    let mut uses = BTreeMap::new();
    let Some(guess) = agreed(snapshot, state) else {
        return uses;
    };
    let mut searches = 0;
    for nonce in (next.0..finalized.0).map(Nonce) {
        let Some(used) = find(input, snapshot, nonce, guess, (state, &mut searches)).await else {
            return uses;
        };
        uses.insert(nonce, used);
    }
    uses
}

/// Notes that ledger and chain agree, if they do.
pub(super) fn note_agreement(snapshot: LedgerSnapshot<'_>, state: &mut RegistryState) {
    if nonce_ahead(snapshot).is_none() {
        let block = snapshot.account.finalized_block;
        state.agreed.insert(snapshot.ledger.signer, block);
    }
}

/// The last final block at which this process saw ledger and chain agree.
fn agreed(snapshot: LedgerSnapshot<'_>, state: &RegistryState) -> Option<u64> {
    state.agreed.get(&snapshot.ledger.signer).copied()
}

/// What used a nonce, probably after this block, or `None` if the endpoint does not show it, or the
/// pass has made its searches.
async fn find(
    input: &LedgerInput<'_>,
    snapshot: LedgerSnapshot<'_>,
    nonce: Nonce,
    guess: u64,
    (state, searches): (&mut RegistryState, &mut usize),
) -> Option<NonceUse> {
    let account = snapshot.ledger.signer;
    if let Some(used) = state.nonce_uses.get(&(account, nonce)) {
        return Some(*used);
    }
    if *searches == MOST {
        return None;
    }
    *searches += 1;
    // Before it, the account had sent nothing.
    let first = snapshot.ledger.from_block.unwrap_or_default();
    let blocks = (first, snapshot.account.finalized_block);
    let search = BlockSearch::among(nonce, blocks, Some(guess));
    match search_blocks(input, account, nonce, search).await {
        Ok(Some(used)) => {
            let transaction = used.transaction;
            tracing::warn!(%account, %nonce, %transaction, content = ?used.content, "a transaction that no record stores has used a nonce");
            state.nonce_uses.insert((account, nonce), used);
            Some(used)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::debug!(%account, %nonce, %error, "what used the nonce could not be found");
            None
        }
    }
}

async fn search_blocks(
    input: &LedgerInput<'_>,
    account: Address,
    nonce: Nonce,
    mut search: BlockSearch,
) -> Result<Option<NonceUse>, RpcError> {
    let endpoint = &input.chain.endpoint;
    let block = loop {
        match search.step() {
            SearchStep::Found(block) => break block,
            SearchStep::AskCount(block) => {
                let at = BlockNumberOrTag::Number(block);
                let count = endpoint.transaction_count_at(account, at).await?;
                search = search.narrowed(block, count);
            }
        }
    };
    let transactions = endpoint.transactions_in(block, account).await?;
    let found = transactions.iter().find(|found| found.nonce == nonce);
    let Some(used) = found.map(|found| NonceUse::of(account, block, found)) else {
        return Ok(None);
    };
    if !matches!(used.content, Content::Filler(_)) {
        return Ok(Some(used));
    }
    let receipts = endpoint.receipts(&[used.transaction]).await;
    let receipt = receipts.into_iter().next().transpose()?.flatten();
    Ok(receipt.map(|receipt| NonceUse {
        cost: receipt.cost,
        ..used
    }))
}
