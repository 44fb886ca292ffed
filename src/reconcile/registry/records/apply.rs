//! Writes the records that offers ask for, and retires those that no offer uses any more.
//!
//! A record that the API server rejects is the problem of the offers that want it; the others are
//! written.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::legacy::record_obstacle;
use super::{OfferClaim, RecordDefaults, RecordPlan, keys_of, may_use, updated};
use crate::api::{AgentRegistrationSpec, IdentityRegistry, Key};
use crate::cluster::{self, Lenient};
use crate::leader::Leading;
use crate::ledger::ReadLedger;
use crate::ledger::protocol::{advance_history, retired};
use crate::reconcile::Context;
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::outcome::Issues;
use crate::reconcile::registry::state::RegistryState;
use crate::reconcile::registry::target::RegistryTarget;
use crate::registration::contract::Contract;

/// How long no offer may use an agent before it is retired: an offer that is deleted and created
/// again within it changes nothing.
const GRACE: Duration = Duration::from_secs(60);

/// What writing records did and found.
#[derive(Debug, Default)]
pub(in crate::reconcile::registry) struct RecordWork {
    pub(in crate::reconcile::registry) issues: Issues,
    pub(in crate::reconcile::registry) wrote: bool,
    /// Why it ended early.
    pub(in crate::reconcile::registry) failure: Option<cluster::Error>,
}

impl RecordWork {
    /// Notes how a write ended that these offers wait for. A rejection is their issue; a conflict
    /// is resolved by the next pass.
    fn note(&mut self, claims: &[OfferClaim], written: Result<bool, cluster::Error>) {
        match written {
            Ok(wrote) => self.wrote |= wrote,
            // A name that is taken is the test-and-set at work: the next pass sees whose it is.
            Err(cluster::Error::Exists | cluster::Error::Conflict) => self.wrote = true,
            Err(error) if error.is_rejection() => {
                let why = error.message();
                warn!(why, "the API server rejected a record");
                let issue = OfferIssue::RecordRefused { why };
                let offers = claims.iter().map(|claim| claim.name.clone());
                self.issues
                    .extend(offers.map(|offer| (offer, issue.clone())));
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

/// Writes the records that offers claim, and retires unused ones.
pub(in crate::reconcile::registry) async fn write(
    context: &Context,
    leading: &Leading,
    target: &RegistryTarget,
    defaults: &RecordDefaults,
    plan: RecordPlan,
    state: &mut RegistryState,
) -> RecordWork {
    let mut work = RecordWork {
        issues: plan.issues,
        ..RecordWork::default()
    };
    for (spec, claims) in plan.create {
        let (reader, chain_id) = (&context.reader, target.contract.chain_id);
        let found = record_obstacle(reader, chain_id, &spec, &claims, &mut state.legacy).await;
        match found {
            Ok(None) => {}
            Ok(Some(issue)) => {
                let names = claims.into_iter().map(|claim| claim.name);
                work.issues.extend(names.map(|name| (name, issue.clone())));
                continue;
            }
            Err(error) => {
                work.note(&claims, Err(error));
                continue;
            }
        }
        info!(key = %spec.key, identity = spec.identity, "recording an agent");
        let created = context.store.create_record(leading, spec).await;
        work.note(&claims, created.map(|_| true));
    }
    for (key, claims) in plan.update {
        let updated = update(context, leading, defaults, key, &claims).await;
        work.note(&claims, updated);
    }
    if work.failure.is_none() {
        let retired = retire(context, leading, target, state).await;
        work.note(&[], retired);
    }
    work
}

/// Replaces the record of a key, if it still needs it. Says whether it did.
async fn update(
    context: &Context,
    leading: &Leading,
    defaults: &RecordDefaults,
    key: Key,
    claims: &[OfferClaim],
) -> Result<bool, cluster::Error> {
    let Some(Lenient::Decoded(stored)) = context.reader.record(&key.record_name()).await? else {
        return Ok(false);
    };
    let Some(spec) = updated(defaults, &stored.spec, claims) else {
        return Ok(false);
    };
    info!(%key, offers = spec.offers.len(), "updating the record of an agent");
    context.store.replace_record(leading, &stored, spec).await?;
    Ok(true)
}

/// Retires agents that no offer has used for a while. Says whether it wrote anything.
async fn retire(
    context: &Context,
    leading: &Leading,
    target: &RegistryTarget,
    state: &mut RegistryState,
) -> Result<bool, cluster::Error> {
    // Other objects for the same contract give agents other identities. None of them retires the
    // agents of another.
    let mut registries = context.cache.registries();
    registries.retain(|registry| Contract::of(registry) == Some(target.contract));
    let offers = context.cache.offers();
    let alive = offers
        .iter()
        .filter(|offer| offer.metadata.deletion_timestamp.is_none());
    let used: HashSet<Key> = alive
        .flat_map(|offer| keys_of(offer, &registries))
        .collect();
    state.unused.retain(|key, _| !used.contains(key));
    let mut wrote = false;
    for record in context
        .cache
        .records()
        .iter()
        .filter(|record| target.has(record))
    {
        let key = record.key;
        if record.tombstone.is_some() || used.contains(&key) {
            continue;
        }
        let since = *state.unused.entry(key).or_insert_with(Instant::now);
        if since.elapsed() < GRACE || is_used(context, record, &registries).await? {
            continue;
        }
        wrote |= retire_one(context, leading, record).await?;
    }
    Ok(wrote)
}

/// Whether an offer uses the agent, by the state of this moment.
async fn is_used(
    context: &Context,
    record: &AgentRegistrationSpec,
    registries: &[Arc<IdentityRegistry>],
) -> Result<bool, cluster::Error> {
    for listed in &record.offers {
        let offer = context
            .reader
            .offer(&listed.namespace, &listed.name)
            .await?;
        if offer.is_some_and(|offer| may_use(&offer, registries, record.key)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Retires one agent. Its registration may be in flight at the signer that the record names, which
/// need not be one of this registry.
async fn retire_one(
    context: &Context,
    leading: &Leading,
    cached: &AgentRegistrationSpec,
) -> Result<bool, cluster::Error> {
    let (key, signer) = (cached.key, cached.signer);
    let held = match signer {
        Some(signer) => context.store.read_ledger(cached.chain_id, signer).await?,
        None => None,
    };
    let held = match held {
        None => None,
        Some(Lenient::Decoded(held)) => Some(held),
        Some(Lenient::Undecodable(_)) => return Ok(false),
    };
    let Some(Lenient::Decoded(record)) = context.reader.record(&key.record_name()).await? else {
        return Ok(false);
    };
    if record.spec.signer != signer {
        return Ok(false);
    }
    let Some(spec) = retired(held.as_ref().map(ReadLedger::spec), &record.spec) else {
        return Ok(false);
    };
    info!(%key, "no offer uses this agent any more: its document is inactive");
    let unregistered = spec.result.is_none();
    context.store.replace_record(leading, &record, spec).await?;
    if let Some(held) = held.filter(|_| unregistered) {
        // An allocation to this key has read the record before: this write makes it fail.
        let after = advance_history(held.spec().clone());
        context.store.replace_ledger(leading, held, after).await?;
    }
    Ok(true)
}
