//! Allocates nonces to records that may get one.
//!
//! Which records get one is decided in [`crate::ledger::protocol`]; the transactions are signed and
//! sent as those of any entry ([`super::spend`]).

use std::collections::{BTreeMap, BTreeSet};

use tracing::info;

use super::apply::rpc_obstacle;
use super::plan::{Commitments, SpendStep};
use super::prices::{NoQuote, Prices, Quote};
use super::read::ReadyLedger;
use super::spend::{SpentToday, spend};
use super::{Done, LedgerInput, for_everyone};
use crate::api::{AgentRegistration, Key};
use crate::ledger::ReadLedger;
use crate::ledger::evidence::{LedgerSnapshot, Premises, UnknownPremise};
use crate::ledger::protocol::{
    Allocation, AllocationBounds, AllocationRequest, EntryCosts, allocate as allocate_nonces, payer,
};
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::records::first_nonce_obstacle;
use crate::reconcile::registry::state::RegistryState;
use crate::registration::document::agent_uri;

/// What allocation found out about money.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spending {
    pub(super) left: Option<u32>,
    pub(super) spent: Option<u128>,
}

/// Allocates nonces to records that may get one, and signs and sends for them.
pub(super) async fn allocate(
    input: &LedgerInput<'_>,
    ready: ReadyLedger,
    pending: Vec<AgentRegistration>,
    unknown: Vec<UnknownPremise>,
    (spent, prices): (Option<&SpentToday>, &mut Prices),
    state: &mut RegistryState,
) -> (Done, Spending) {
    let (Some(account), Some(spent)) = (&input.chain.account, spent) else {
        return (Done::default(), Spending::default());
    };
    let spending = Spending {
        left: None,
        spent: Some(spent.total()),
    };
    let snapshot = ready.snapshot();
    let limits = &input.target.limits;
    if let Some(premise) = unknown.first().filter(|_| !pending.is_empty()) {
        return (Done::obstacle(premise.clone()), spending);
    }
    let quote = match quote_next(input, &pending, prices, state).await {
        Ok(quote) => quote,
        Err((done, left)) => return (done, Spending { left, ..spending }),
    };
    let latest = (snapshot.account.counts.latest, account.balance);
    let costs = EntryCosts {
        rollup_fee: quote.takes.rollup_fee,
        unsigned: Some(limits.per_registration),
    };
    let records = &ready.records.by_key;
    let budget = Commitments::new(snapshot.ledger, latest, spent.all(), records, costs).budget();
    let cost = quote.takes.worst_cost(quote.fees);
    let left = budget.registrations_left(limits, cost);
    let requests: Vec<AllocationRequest<'_>> = pending
        .iter()
        .map(|record| AllocationRequest {
            record: &record.spec,
            namespace: payer(&record.spec),
            cost,
        })
        .collect();
    let elsewhere = ready
        .records
        .census
        .as_ref()
        .map(|census| census.others.registering.clone())
        .unwrap_or_default();
    let bounds = AllocationBounds {
        window: input.context.settings.max_in_flight,
        spending: limits,
        budget,
        premises: &Premises { unknown },
        registering_elsewhere: &elsewhere,
        indexes: &ready.logs.indexes,
    };
    let (legacy, allocation) = allocate_unclaimed(input, snapshot, requests, &bounds, state).await;
    let allocated = u32::try_from(allocation.allocated.len()).unwrap_or(u32::MAX);
    let spending = Spending {
        left: Some(left.saturating_sub(allocated)),
        ..spending
    };
    if legacy.end.is_some() {
        return (legacy, spending);
    }
    let records = &ready.records.by_key;
    let bound = bind(
        input,
        ready.held,
        records,
        allocation,
        (spent, prices),
        state,
    )
    .await;
    (legacy.and(bound), spending)
}

/// What the next registration takes. If none waits, what the last one would have taken is good enough.
/// An error comes with the number of registrations that are left, if it is known.
async fn quote_next(
    input: &LedgerInput<'_>,
    pending: &[AgentRegistration],
    prices: &mut Prices,
    state: &mut RegistryState,
) -> Result<Quote, (Done, Option<u32>)> {
    if let Some(quote) = state.quoted.filter(|_| pending.is_empty()) {
        return Ok(quote);
    }
    let uri = typical_uri(input);
    match prices.quote(input, &uri, None).await {
        Ok(Some(quote)) => Ok(*state.quoted.insert(quote)),
        Ok(None) => Err((Done::default(), None)),
        Err(NoQuote::Rpc(_)) if pending.is_empty() => Err((Done::default(), None)),
        Err(NoQuote::Rpc(error)) => Err((rpc_obstacle(input, error), None)),
        Err(NoQuote::Issue(_)) if pending.is_empty() => Err((Done::default(), Some(0))),
        Err(NoQuote::Issue(issue)) => {
            let issues = pending
                .iter()
                .flat_map(|record| input.issues_of(record.spec.key, &issue))
                .collect();
            let obstacles = match issue {
                OfferIssue::Shortage(shortage) => for_everyone(shortage).into_iter().collect(),
                _ => Vec::new(),
            };
            let done = Done {
                issues,
                obstacles,
                ..Done::default()
            };
            Err((done, Some(0)))
        }
    }
}

/// The URI of an agent of the registry. Keys are of one length, and gas follows from the length of the
/// URI: one quote serves all.
fn typical_uri(input: &LedgerInput<'_>) -> String {
    let contract = input.target.contract.address;
    agent_uri(input.registry, Key::derive("", 0, contract, 0))
}

/// An allocation to records of which no object of the legacy controller says that they may be
/// registered already. Those objects are read for what would get a nonce, and for nothing else.
async fn allocate_unclaimed(
    input: &LedgerInput<'_>,
    snapshot: LedgerSnapshot<'_>,
    mut requests: Vec<AllocationRequest<'_>>,
    bounds: &AllocationBounds<'_>,
    state: &mut RegistryState,
) -> (Done, Allocation) {
    let (mut done, mut unclaimed) = (Done::default(), BTreeSet::new());
    loop {
        let allocation = allocate_nonces(snapshot, &requests, bounds.clone());
        let mut claimed = BTreeSet::new();
        for (_, key) in &allocation.allocated {
            let request = requests.iter().find(|request| request.record.key == *key);
            let Some(request) = request.filter(|_| !unclaimed.contains(key)) else {
                continue;
            };
            let found = first_nonce_obstacle(
                &input.context.reader,
                input.target.contract.chain_id,
                request.record,
                input.claims,
                &mut state.legacy,
            );
            match found.await {
                Ok(None) => {
                    unclaimed.insert(*key);
                }
                Ok(Some(issue)) => {
                    done.issues.extend(input.issues_of(*key, &issue));
                    claimed.insert(*key);
                }
                Err(error) => return (done.and(Done::ended(error)), Allocation::default()),
            }
        }
        if claimed.is_empty() {
            return (done, allocation);
        }
        requests.retain(|request| !claimed.contains(&request.record.key));
    }
}

/// Writes an allocation, and signs and sends for each key that got a nonce.
async fn bind(
    input: &LedgerInput<'_>,
    held: ReadLedger,
    records: &BTreeMap<Key, AgentRegistration>,
    allocation: Allocation,
    (spent, prices): (&SpentToday, &mut Prices),
    state: &mut RegistryState,
) -> Done {
    let Allocation {
        ledger,
        allocated,
        shortages,
    } = allocation;
    let mut done = Done::default();
    for (key, shortage) in shortages {
        done.issues
            .extend(input.issues_of(key, &OfferIssue::Shortage(shortage)));
        done.obstacles.extend(for_everyone(shortage));
    }
    let Some(ledger) = ledger else { return done };
    let held = match input
        .context
        .store
        .replace_ledger(input.leading, held, ledger)
        .await
    {
        Ok(held) => held,
        Err(error) => return done.and(Done::ended(error)),
    };
    done.wrote = true;
    let first = allocated.first().map(|(nonce, _)| nonce.0);
    info!(count = allocated.len(), first, "allocated nonces");
    let spends = allocated
        .iter()
        .map(|(nonce, _)| (*nonce, SpendStep::Sign))
        .collect();
    let money = (Some(spent), prices);
    done.and(spend(input, &held, &spends, records, money, state).await)
}
