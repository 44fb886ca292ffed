//! Other signers of the registry: a pass finishes what they have in flight, and gives what they have
//! not begun to the first signer. Nothing is allocated from their ledgers.
//!
//! Each works as the first one does ([`super::use_account`]), with its own key, account and ledger.
//! Why a record may change its signer is stated at [`protocol::move_step`].

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::Address;

use super::read::ReadyLedger;
use super::{Done, LedgerInput, LedgerWork, apply, use_account};
use crate::api::AgentRegistration;
use crate::cluster::Lenient;
use crate::ledger::ReadLedger;
use crate::ledger::protocol::{self, MoveStep, advance_history, move_step};
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::chain::{self, ChainSnapshot};
use crate::reconcile::registry::schedule::Activity;
use crate::reconcile::registry::state::RegistryState;
use crate::reconcile::registry::target::RegistryTarget;

/// Finishes what the other signers have in flight, each on its own.
pub(super) async fn finish(input: &LedgerInput<'_>, state: &mut RegistryState) -> Vec<LedgerWork> {
    let mut works = Vec::new();
    for former in &input.target.former_signers {
        let signer = match &former.signer {
            Ok(signer) => signer,
            Err(why) => {
                works.push(unusable(input, former.address, why));
                continue;
            }
        };
        let endpoint = &input.chain.endpoint;
        let account = chain::account(
            endpoint,
            signer,
            &input.chain.latest,
            &input.chain.finalized,
        );
        let account = match account.await {
            Ok(account) => account,
            Err(failure) => {
                works.push(unusable(input, former.address, &failure.to_string()));
                continue;
            }
        };
        let chain = ChainSnapshot {
            account: Some(account),
            ..input.chain.clone()
        };
        let target = RegistryTarget {
            signer: Some(signer.clone()),
            ..input.target.clone()
        };
        let input = LedgerInput {
            chain: &chain,
            target: &target,
            allocatable: &BTreeSet::new(),
            needs_census: false,
            ..*input
        };
        works.push(use_account(&input, state).await);
    }
    works
}

/// Reports to the offers whose registrations another signer has in flight why it cannot finish
/// them.
fn unusable(input: &LedgerInput<'_>, signer: Address, why: &str) -> LedgerWork {
    let issue = OfferIssue::SignerUnusable {
        signer,
        why: why.to_owned(),
    };
    let records = input.context.cache.records();
    let waiting = records.iter().filter(|record| {
        input.target.has(record) && record.is_open() && record.signer == Some(signer)
    });
    LedgerWork {
        issues: waiting
            .flat_map(|record| input.issues_of(record.key, &issue))
            .collect(),
        activity: Activity::Short,
        ..LedgerWork::default()
    }
}

/// Gives the records that another signer has not begun to the first one.
pub(super) async fn take_over(input: &LedgerInput<'_>, ready: &ReadyLedger) -> Done {
    let own = ready.held.spec().signer;
    // A move that was begun is finished, even if no offer asks for the agent any more.
    let moving = ready.records.by_key.values().filter(|record| {
        let spec = &record.spec;
        let is_asked = input.allocatable.contains(&spec.key) || spec.moved_from.is_some();
        input.target.has(spec) && is_asked
    });
    let mut by_former: BTreeMap<Address, Vec<&AgentRegistration>> = BTreeMap::new();
    for record in moving {
        if let Some(former) = protocol::former_signer(&record.spec, own) {
            by_former.entry(former).or_default().push(record);
        }
    }
    let mut done = Done::default();
    for (former, records) in by_former {
        if done.end.is_some() {
            return done;
        }
        done = done.and(take_over_from(input, own, former, &records).await);
    }
    done
}

/// One step of the move for each record of a former signer.
async fn take_over_from(
    input: &LedgerInput<'_>,
    own: Address,
    former: Address,
    records: &[&AgentRegistration],
) -> Done {
    let store = &input.context.store;
    let chain_id = input.target.contract.chain_id;
    // Read after the records: whether an entry was written before they were moved shows here.
    let held = match store.read_ledger(chain_id, former).await {
        Ok(Some(Lenient::Decoded(held))) => Some(held),
        // What it has in flight is not known: a premise of every allocation says so.
        Ok(Some(Lenient::Undecodable(_))) => return Done::default(),
        Ok(None) => None,
        Err(error) => return Done::ended(error),
    };
    let mut done = Done::default();
    let mut moved = Vec::new();
    for record in records {
        if done.end.is_some() {
            return done;
        }
        let step = move_step(held.as_ref().map(ReadLedger::spec), &record.spec, own);
        match step {
            MoveStep::Keep => {}
            MoveStep::Write(spec) => {
                done = done.and(apply::replace_record(input, record, *spec).await.1);
            }
            MoveStep::Complete(spec) => moved.push((*record, *spec)),
        }
    }
    if moved.is_empty() || done.end.is_some() {
        return done;
    }
    // An allocation from the former signer's ledger that read a record before its move fails now.
    if let Some(held) = held {
        let touched = advance_history(held.spec().clone());
        if let Err(error) = store.replace_ledger(input.leading, held, touched).await {
            return done.and(Done::ended(error));
        }
    }
    for (record, spec) in moved {
        if done.end.is_some() {
            return done;
        }
        done = done.and(apply::replace_record(input, record, spec).await.1);
    }
    done
}
