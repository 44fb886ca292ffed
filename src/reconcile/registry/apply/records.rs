//! Writes the records that the offers ask for, and retires those that none does any more.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::api::{AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, network};
use crate::cluster::Error as ClusterError;
use crate::leader::Leading;
use crate::ledger::ReadLedger;
use crate::ledger::protocol::{advance_history, retired};
use crate::reconcile::issues::{OfferIssue, OfferName};
use crate::reconcile::registry::observe::RegistryTarget;
use crate::reconcile::registry::records::{OfferClaim, RecordPlan, keys_of, may_use};
use crate::reconcile::registry::state::RegistryState;
use crate::reconcile::{Context, Error, legacy};

/// How long no offer may use an agent before it is retired: an offer that is made anew within it
/// changes nothing.
const GRACE: Duration = Duration::from_secs(60);
/// How long it is remembered whether the legacy controller left anything of an offer.
const LEGACY_CHECK_EVERY: Duration = Duration::from_secs(15);

/// Writes the records that the offers ask for. Says whether it wrote any.
pub(in crate::reconcile::registry) async fn write_records(
    context: &Context,
    leading: &Leading,
    target: &RegistryTarget,
    plan: RecordPlan,
    state: &mut RegistryState,
    issues: &mut BTreeMap<OfferName, OfferIssue>,
) -> Result<bool, Error> {
    issues.extend(plan.issues);
    let mut wrote = false;
    for (spec, claims) in plan.create {
        if let Some(legacy) = find_legacy(context, target, &spec, &claims, state).await? {
            let required = OfferIssue::AdoptionRequired { legacy };
            issues.extend(
                claims
                    .into_iter()
                    .map(|claim| (claim.name, required.clone())),
            );
            continue;
        }
        info!(key = %spec.key, identity = spec.identity, "recording a new agent");
        match context.store.create_record(leading, spec).await {
            // A name that is taken is the test-and-set at work: the next pass sees whose it is.
            Ok(_) | Err(ClusterError::Exists) => wrote = true,
            Err(error) => return Err(error.into()),
        }
    }
    for (record, spec) in plan.update {
        info!(key = %spec.key, offers = spec.offers.len(), "updating the record of an agent");
        context.store.replace_record(leading, &record, spec).await?;
        wrote = true;
    }
    Ok(wrote)
}

/// What the legacy controller left of the registration of any offer of an agent (rule R12); nothing
/// if the offers say what to do about it.
async fn find_legacy(
    context: &Context,
    target: &RegistryTarget,
    spec: &AgentRegistrationSpec,
    claims: &[OfferClaim],
    state: &mut RegistryState,
) -> Result<Option<String>, Error> {
    if spec.adopt.is_some() || spec.edition > 1 {
        return Ok(None);
    }
    for claim in claims {
        if let Some(legacy) = legacy_of(context, target, claim, state).await? {
            return Ok(Some(legacy));
        }
    }
    Ok(None)
}

/// What the legacy controller left of one offer's registration.
async fn legacy_of(
    context: &Context,
    target: &RegistryTarget,
    claim: &OfferClaim,
    state: &mut RegistryState,
) -> Result<Option<String>, Error> {
    if let Some(id) = &claim.legacy_agent_id {
        return Ok(Some(format!(
            "status.agentId is {id} and this operator has no record of it"
        )));
    }
    let asked = (claim.name.clone(), claim.generation);
    if let Some((_, found)) = state
        .legacy
        .get(&asked)
        .filter(|(when, _)| when.elapsed() < LEGACY_CHECK_EVERY)
    {
        return Ok(found.clone());
    }
    let (namespace, name) = &claim.name;
    let request = context.reader.registration_request(namespace, name).await?;
    let identity = context.reader.agent_identity().await?;
    let here = |chain: &str| network::chain_id(chain) == Some(target.chain_id);
    let found = legacy::find(request.as_ref(), identity.as_ref(), here);
    state
        .legacy
        .retain(|_, (when, _)| when.elapsed() < LEGACY_CHECK_EVERY);
    state.legacy.insert(asked, (Instant::now(), found.clone()));
    Ok(found)
}

/// Retires agents that no offer has used for a while. Says whether it wrote anything.
pub(in crate::reconcile::registry) async fn retire(
    context: &Context,
    leading: &Leading,
    target: &RegistryTarget,
    state: &mut RegistryState,
) -> Result<bool, Error> {
    // Other objects for the same contract give agents other identities. None of them retires the
    // agents of another.
    let mut registries = context.cache.registries();
    registries.retain(|registry| target.is_of(registry));
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
        .filter(|record| target.has(&record.spec))
    {
        let key = record.spec.key;
        if record.spec.tombstone.is_some() || used.contains(&key) {
            continue;
        }
        let since = *state.unused.entry(key).or_insert_with(Instant::now);
        if since.elapsed() < GRACE || is_used(context, record, &registries).await? {
            continue;
        }
        wrote |= retire_one(context, leading, target, key).await?;
    }
    Ok(wrote)
}

/// Whether an offer uses the agent, by the state of this moment.
async fn is_used(
    context: &Context,
    record: &AgentRegistration,
    registries: &[Arc<IdentityRegistry>],
) -> Result<bool, Error> {
    for listed in &record.spec.offers {
        let offer = context
            .reader
            .offer(&listed.namespace, &listed.name)
            .await?;
        if offer.is_some_and(|offer| may_use(&offer, registries, record.spec.key)) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn retire_one(
    context: &Context,
    leading: &Leading,
    target: &RegistryTarget,
    key: Key,
) -> Result<bool, Error> {
    let held = match &target.signer {
        Some(signer) => {
            context
                .store
                .read_ledger(target.chain_id, signer.address())
                .await?
        }
        None => None,
    };
    let Some(record) = context.reader.record(&key.record_name()).await? else {
        return Ok(false);
    };
    let Some(spec) = retired(held.as_ref().map(ReadLedger::spec), &record.spec) else {
        return Ok(false);
    };
    info!(%key, "no offer uses this agent any more: its document is inactive");
    let unregistered = spec.result.is_none();
    context.store.replace_record(leading, &record, spec).await?;
    if let Some(held) = held.filter(|_| unregistered) {
        // Whoever is about to give the key a nonce has read the record before: this makes that
        // write fail.
        let after = advance_history(held.spec().clone());
        context.store.replace_ledger(leading, held, after).await?;
    }
    Ok(true)
}
