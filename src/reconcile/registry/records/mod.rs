//! Which records the offers ask for. Pure.
//!
//! A record is made for an identity, not for an object: offers that share an identity share a
//! record, and an offer that is made anew finds the one it had. An offer that names an agent by its
//! id never leads to another one: it joins a record that stands for that agent, or none.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256};

use crate::api::{
    AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key, OfferRef, Phase,
    RegistryContract, ServiceOffer,
};
use crate::chain::abi;
use crate::cluster::MaybeDecoded;
use crate::ledger::protocol::{revived, same_agent};
use crate::reconcile::issues::{OfferIssue, OfferName};
use crate::registration::identity::key_of;

/// Most offers that a record lists; the schema's limit.
const MOST_OFFERS: usize = 1024;

/// What all records of a registry have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordDefaults {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// Address of the registry contract.
    pub registry: Address,
    /// Keccak-256 of its code.
    pub code_hash: B256,
    /// Account that registers; none where the registry only watches.
    pub signer: Option<Address>,
}

/// An offer that leads to this registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferClaim {
    /// Its namespace and name.
    pub name: OfferName,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// Identity of its agent.
    pub identity: String,
    /// Key of its agent.
    pub key: Key,
    /// Edition of its agent.
    pub edition: u32,
    /// The agent that it wants to adopt.
    pub adopt: Option<String>,
    /// Agent id that the legacy controller left in its status.
    pub legacy_agent_id: Option<String>,
    /// Whether it may be listed.
    pub eligible: bool,
    /// Whether its status names this agent. Only then is its choice of a registry made for good: a
    /// default that moves while copies lag behind can have the offer ask two registries.
    pub key_in_status: bool,
}

impl OfferClaim {
    fn reference(&self) -> OfferRef {
        OfferRef {
            namespace: self.name.0.clone(),
            name: self.name.1.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// What the records need.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RecordPlan {
    /// Records to create, each with the offers that ask for it.
    pub create: Vec<(AgentRegistrationSpec, Vec<OfferClaim>)>,
    /// Records to replace.
    pub update: Vec<(AgentRegistration, AgentRegistrationSpec)>,
    /// Offers that cannot have a record.
    pub issues: BTreeMap<OfferName, OfferIssue>,
}

/// Decides what the records need. `record_of` answers from a copy: a write that was decided on an
/// old copy is refused.
pub(crate) fn plan<R: AsRef<AgentRegistration>>(
    defaults: &RecordDefaults,
    claims: &[OfferClaim],
    record_of: impl Fn(Key) -> Option<R>,
) -> RecordPlan {
    let mut by_key: BTreeMap<Key, Vec<&OfferClaim>> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.eligible) {
        by_key.entry(claim.key).or_default().push(claim);
    }
    let mut plan = RecordPlan::default();
    for (key, group) in by_key {
        match record_of(key) {
            None => plan.plan_new(defaults, &group),
            Some(record) => plan.plan_update(defaults, record.as_ref(), &group),
        }
    }
    plan
}

impl RecordPlan {
    /// Offers whose agent has no record.
    fn plan_new(&mut self, defaults: &RecordDefaults, group: &[&OfferClaim]) {
        let adopt = group.iter().find_map(|claim| claim.adopt.as_deref());
        let compatible = self.compatible(group, adopt);
        let Some(first) = compatible.first() else {
            return;
        };
        let claims = compatible.iter().map(|claim| (*claim).clone()).collect();
        self.create
            .push((new_record(defaults, first, adopt, &compatible), claims));
    }

    /// Offers whose agent's key has a record.
    fn plan_update(
        &mut self,
        defaults: &RecordDefaults,
        record: &AgentRegistration,
        group: &[&OfferClaim],
    ) {
        let spec = &record.spec;
        if group
            .iter()
            .any(|claim| !is_record_of(spec, defaults, claim))
        {
            let issue = OfferIssue::KeyTaken {
                name: spec.key.record_name(),
                other: spec.identity.clone(),
            };
            self.issues.extend(
                group
                    .iter()
                    .map(|claim| (claim.name.clone(), issue.clone())),
            );
            return;
        }
        let agent = spec
            .result
            .as_ref()
            .map(|result| result.agent_id.as_str())
            .or(spec.adopt.as_deref());
        let compatible = self.compatible(group, agent);
        if compatible.is_empty() {
            return;
        }
        let wanted = updated_record(defaults, spec, &compatible);
        if wanted != *spec {
            self.update.push((record.clone(), wanted));
        }
    }

    /// Those of a group that may share a record which stands for this agent, or for one that is to
    /// be registered.
    fn compatible<'a>(
        &mut self,
        group: &[&'a OfferClaim],
        agent: Option<&str>,
    ) -> Vec<&'a OfferClaim> {
        let mut compatible = Vec::new();
        for claim in group {
            match &claim.adopt {
                Some(wanted) if !agent.is_some_and(|agent| is_same(agent, wanted)) => {
                    let (name, recorded) = (claim.key.record_name(), agent.map(str::to_owned));
                    let issue = OfferIssue::OtherAgent {
                        wanted: wanted.clone(),
                        name,
                        recorded,
                    };
                    self.issues.insert(claim.name.clone(), issue);
                }
                _ => compatible.push(*claim),
            }
        }
        compatible
    }
}

/// Whether two ids name the same agent.
fn is_same(agent_id: &str, other: &str) -> bool {
    abi::agent_id(other).is_some_and(|other| same_agent(agent_id, other))
}

/// Keys that an offer wants registered, and who wants them. Offers that cannot have a record want
/// nothing.
#[must_use]
pub(crate) fn wanted(
    claims: &[OfferClaim],
    refused: &BTreeMap<OfferName, OfferIssue>,
) -> BTreeMap<Key, Vec<OfferName>> {
    let mut wanted: BTreeMap<Key, Vec<OfferName>> = BTreeMap::new();
    for claim in claims
        .iter()
        .filter(|claim| claim.eligible && !refused.contains_key(&claim.name))
    {
        wanted
            .entry(claim.key)
            .or_default()
            .push(claim.name.clone());
    }
    wanted
}

/// Keys of which an offer's status says that they are its agent's: they may get a nonce.
#[must_use]
pub(crate) fn allocatable(
    claims: &[OfferClaim],
    wanted: &BTreeMap<Key, Vec<OfferName>>,
) -> BTreeSet<Key> {
    let named = claims.iter().filter(|claim| claim.key_in_status);
    named
        .map(|claim| claim.key)
        .filter(|key| wanted.contains_key(key))
        .collect()
}

/// Keys of the agents that an offer leads to on these registries.
pub(crate) fn keys_of(
    offer: &ServiceOffer,
    registries: &[impl AsRef<IdentityRegistry>],
) -> impl Iterator<Item = Key> {
    registries
        .iter()
        .filter_map(|registry| key_of(offer, registry.as_ref()))
}

/// Whether an offer that a record lists may still use its agent. What cannot be decoded is not
/// judged: it keeps its agent.
#[must_use]
pub(crate) fn may_use(
    offer: &MaybeDecoded<ServiceOffer>,
    registries: &[impl AsRef<IdentityRegistry>],
    key: Key,
) -> bool {
    offer.0.as_ref().map_or(true, |offer| {
        keys_of(offer, registries).any(|led_to| led_to == key)
    })
}

/// Whether a record is that of the claim's agent, and not of another one whose key happens to be
/// the same.
fn is_record_of(
    record: &AgentRegistrationSpec,
    defaults: &RecordDefaults,
    claim: &OfferClaim,
) -> bool {
    record.identity == claim.identity
        && record.edition == claim.edition
        && record.chain_id == defaults.chain_id
        && record.registry.address == defaults.registry
}

fn new_record(
    defaults: &RecordDefaults,
    first: &OfferClaim,
    adopt: Option<&str>,
    group: &[&OfferClaim],
) -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        key: first.key,
        identity: first.identity.clone(),
        chain_id: defaults.chain_id,
        registry: RegistryContract {
            address: defaults.registry,
            code_hash: defaults.code_hash,
        },
        edition: first.edition,
        signer: defaults.signer,
        agent_uri: None,
        calldata_hash: None,
        adopt: adopt.map(str::to_owned),
        phase: Phase::Pending,
        offers: group
            .iter()
            .take(MOST_OFFERS)
            .map(|claim| claim.reference())
            .collect(),
        attempts: Vec::new(),
        update: None,
        result: None,
        proven_absent: None,
        tombstone: None,
        spent_wei: None,
    }
}

/// The record with every claim on its list, alive. Offers that have gone stay on the list until the
/// agent is retired.
fn updated_record(
    defaults: &RecordDefaults,
    record: &AgentRegistrationSpec,
    group: &[&OfferClaim],
) -> AgentRegistrationSpec {
    let mut wanted = if record.tombstone.is_some() {
        revived(record)
    } else {
        record.clone()
    };
    // Made while the registry only watched. Another account than the first is a matter of rotation.
    if wanted.signer.is_none() && wanted.result.is_none() {
        wanted.signer = defaults.signer;
    }
    for claim in group {
        let reference = claim.reference();
        let same = |listed: &OfferRef| {
            listed.namespace == reference.namespace && listed.name == reference.name
        };
        match wanted.offers.iter().position(same) {
            Some(at) => wanted.offers[at] = reference,
            None if wanted.offers.len() < MOST_OFFERS => wanted.offers.push(reference),
            None => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests;
