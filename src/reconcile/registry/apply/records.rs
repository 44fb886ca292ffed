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
use crate::reconcile::findings::{Finding, OfferName};
use crate::reconcile::registry::enrol::{Applicant, Roll, keys_of, may_use};
use crate::reconcile::registry::memory::Memory;
use crate::reconcile::registry::observe::Site;
use crate::reconcile::{Context, Error, relic};

/// How long no offer may use an agent before it is retired: an offer that is made anew within it changes nothing.
const GRACE: Duration = Duration::from_secs(60);
/// How long it is remembered whether another controller left traces of an offer.
const TRACES_EVERY: Duration = Duration::from_secs(15);

/// Writes the records that the offers ask for. Says whether it wrote any.
pub(in crate::reconcile::registry) async fn enrol(
    context: &Context,
    leading: &Leading,
    site: &Site,
    roll: Roll,
    memory: &mut Memory,
    findings: &mut BTreeMap<OfferName, Finding>,
) -> Result<bool, Error> {
    findings.extend(roll.findings);
    let mut wrote = false;
    for (spec, applicants) in roll.create {
        if let Some(trace) = traces(context, site, &spec, &applicants, memory).await? {
            let required = Finding::AdoptionRequired { trace };
            findings.extend(
                applicants
                    .into_iter()
                    .map(|applicant| (applicant.name, required.clone())),
            );
            continue;
        }
        info!(key = %spec.key, identity = spec.identity, "recording a new agent");
        match context.store.create_record(leading, spec).await {
            // A name that is taken is the test-and-set at work: the next turn sees whose it is.
            Ok(_) | Err(ClusterError::Exists) => wrote = true,
            Err(error) => return Err(error.into()),
        }
    }
    for (record, spec) in roll.amend {
        info!(key = %spec.key, offers = spec.offers.len(), "amending the record of an agent");
        context.store.replace_record(leading, &record, spec).await?;
        wrote = true;
    }
    Ok(wrote)
}

/// What another controller left of the registration of any offer of an agent (rule R12); nothing if the offers say what to do
/// about it.
async fn traces(
    context: &Context,
    site: &Site,
    spec: &AgentRegistrationSpec,
    applicants: &[Applicant],
    memory: &mut Memory,
) -> Result<Option<String>, Error> {
    if spec.adopt.is_some() || spec.edition > 1 {
        return Ok(None);
    }
    for applicant in applicants {
        if let Some(trace) = traces_of(context, site, applicant, memory).await? {
            return Ok(Some(trace));
        }
    }
    Ok(None)
}

/// What another controller left of one offer's registration.
async fn traces_of(
    context: &Context,
    site: &Site,
    applicant: &Applicant,
    memory: &mut Memory,
) -> Result<Option<String>, Error> {
    if let Some(id) = &applicant.relic {
        return Ok(Some(format!(
            "status.agentId is {id} and this operator has no record of it"
        )));
    }
    let asked = (applicant.name.clone(), applicant.generation);
    if let Some((_, found)) = memory
        .traces
        .get(&asked)
        .filter(|(when, _)| when.elapsed() < TRACES_EVERY)
    {
        return Ok(found.clone());
    }
    let (namespace, name) = &applicant.name;
    let request = context.reader.registration_request(namespace, name).await?;
    let identity = context.reader.agent_identity().await?;
    let here = |chain: &str| network::chain_id(chain) == Some(site.chain_id);
    let found = relic::trace(request.as_ref(), identity.as_ref(), here);
    memory
        .traces
        .retain(|_, (when, _)| when.elapsed() < TRACES_EVERY);
    memory.traces.insert(asked, (Instant::now(), found.clone()));
    Ok(found)
}

/// Retires agents that no offer has used for a while. Says whether it wrote anything.
pub(in crate::reconcile::registry) async fn retire(
    context: &Context,
    leading: &Leading,
    site: &Site,
    memory: &mut Memory,
) -> Result<bool, Error> {
    // Other objects for the same contract give agents other identities. None of them retires the agents of another.
    let mut registries = context.cache.registries();
    registries.retain(|registry| site.is_of(registry));
    let offers = context.cache.offers();
    let alive = offers
        .iter()
        .filter(|offer| offer.metadata.deletion_timestamp.is_none());
    let used: HashSet<Key> = alive
        .flat_map(|offer| keys_of(offer, &registries))
        .collect();
    memory.unused.retain(|key, _| !used.contains(key));
    let mut wrote = false;
    for record in context
        .cache
        .records()
        .iter()
        .filter(|record| site.has(&record.spec))
    {
        let key = record.spec.key;
        if record.spec.tombstone.is_some() || used.contains(&key) {
            continue;
        }
        let since = *memory.unused.entry(key).or_insert_with(Instant::now);
        if since.elapsed() < GRACE || is_used(context, record, &registries).await? {
            continue;
        }
        wrote |= retire_one(context, leading, site, key).await?;
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
    site: &Site,
    key: Key,
) -> Result<bool, Error> {
    let held = match &site.signer {
        Some(signer) => {
            context
                .store
                .read_ledger(site.chain_id, signer.address())
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
        // Whoever is about to give the key a nonce has read the record before: this makes that write fail.
        let after = advance_history(held.spec().clone());
        context.store.replace_ledger(leading, held, after).await?;
    }
    Ok(true)
}
