//! Which records the offers ask for. Pure.
//!
//! A record is made for an identity, not for an object: offers that share an identity share a
//! record, and an offer that is created again finds the one it had. An offer that names an agent by
//! its id never leads to another one: it joins a record of that agent, or none.
//!
//! - [`mod@claims`] collects the offers from the cache
//! - [`legacy`] asks whether the legacy controller registered one of them
//! - [`apply`] writes what is planned here, and retires what no offer uses

mod apply;
mod claims;
mod legacy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, B256, U256};
use jiff::Timestamp;

pub(super) use self::apply::{RecordWork, write};
pub(super) use self::claims::claims;
pub(super) use self::legacy::{LegacyChecks, first_nonce_obstacle};
use super::adoption::{Adoptions, Claimant, Rival};
use crate::api::{
    AgentRegistrationSpec, IdentityRegistry, Key, OfferRef, Phase, RegistryContract, ServiceOffer,
};
use crate::chain::abi;
use crate::cluster::MaybeDecoded;
use crate::ledger::protocol::{AdoptionRefused, revived, same_agent};
use crate::reconcile::issues::{AdoptionConflict, OfferIssue, OfferName};
use crate::registration::adoption::{is_given_away, namespace_of};
use crate::registration::contract::Contract;
use crate::registration::identity::key_of;

/// Most offers that a record lists; the schema's limit.
const MOST_OFFERS: usize = 1024;
/// Most records of one namespace that have neither an attempt nor a result. The operator cannot
/// delete records, and an offer that comes and goes leaves one.
const MOST_UNREGISTERED: usize = 64;

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
    /// When it was created.
    pub created: Option<Timestamp>,
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

impl RecordDefaults {
    fn contract(&self) -> Contract {
        Contract {
            chain_id: self.chain_id,
            address: self.registry,
        }
    }
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

/// The record of a key, as far as the cache knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KnownRecord {
    Missing,
    Undecodable,
    Decoded(Arc<AgentRegistrationSpec>),
}

/// What records are planned by, besides the offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordInputs<'a> {
    pub defaults: RecordDefaults,
    pub adoptions: &'a Adoptions<'a>,
    /// Every record of the cache.
    pub records: &'a [Arc<AgentRegistrationSpec>],
}

/// What the records need.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RecordPlan {
    /// Records to create, each with the offers that ask for it.
    pub create: Vec<(AgentRegistrationSpec, Vec<OfferClaim>)>,
    /// Records to replace, each with the offers that ask for it. What becomes of one is decided on
    /// the stored object by [`updated`]: the cache keeps only parts of a record.
    pub update: Vec<(Key, Vec<OfferClaim>)>,
    /// Offers that cannot have a record.
    pub issues: BTreeMap<OfferName, OfferIssue>,
}

/// Decides what the records need. `record_of` answers from a copy: a write that was decided on an
/// old copy is refused.
#[must_use]
pub(crate) fn plan(
    inputs: RecordInputs<'_>,
    claims: &[OfferClaim],
    record_of: impl Fn(Key) -> KnownRecord,
) -> RecordPlan {
    let mut plan = RecordPlan::default();
    let mut unregistered = Unregistered::count(inputs);
    for group in groups(claims) {
        let key = group[0].key;
        match record_of(key) {
            KnownRecord::Missing => plan.plan_new(inputs, &group, &mut unregistered),
            KnownRecord::Undecodable => {
                let name = key.record_name();
                plan.report(&group, &OfferIssue::RecordUndecodable { name });
            }
            KnownRecord::Decoded(record) => plan.plan_update(inputs, &record, &group),
        }
    }
    plan
}

/// The stored record with every claim on its list, alive; `None` if it needs no change or the
/// claims may not share it.
#[must_use]
pub(crate) fn updated(
    defaults: &RecordDefaults,
    record: &AgentRegistrationSpec,
    claims: &[OfferClaim],
) -> Option<AgentRegistrationSpec> {
    let group: Vec<&OfferClaim> = claims.iter().collect();
    if !group
        .iter()
        .all(|claim| is_record_of(record, defaults, claim))
    {
        return None;
    }
    let adopt = adopted_by(&group).filter(|_| is_untouched(record));
    let adopt = adopt.map(|(id, _)| id);
    let compatible = RecordPlan::default().compatible(&group, agent_of(record).or(adopt));
    let wanted = updated_record(defaults, record, adopt, &compatible);
    (!compatible.is_empty() && wanted != *record).then_some(wanted)
}

/// Eligible claims by key, the key of the oldest offer first.
fn groups(claims: &[OfferClaim]) -> Vec<Vec<&OfferClaim>> {
    let mut groups: Vec<Vec<&OfferClaim>> = Vec::new();
    let mut places = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.eligible) {
        let place = *places.entry(claim.key).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(claim),
            None => groups.push(vec![claim]),
        }
    }
    groups
}

/// Number of records by namespace that have neither an attempt nor a result.
struct Unregistered(BTreeMap<String, usize>);

impl Unregistered {
    fn count(inputs: RecordInputs<'_>) -> Self {
        let contract = inputs.defaults.contract();
        let mut counts = Self(BTreeMap::new());
        let waiting = inputs.records.iter().filter(|record| {
            Contract::of_record(record) == contract
                && record.attempts.is_empty()
                && record.is_open()
        });
        for record in waiting {
            counts.add(&record.identity);
        }
        counts
    }

    /// Counts one more record, or returns the namespace whose limit is reached. An identity that
    /// all namespaces share has one record, and no limit.
    fn admit(&mut self, identity: &str) -> Result<(), String> {
        match namespace_of(identity) {
            Some(namespace) if self.0.get(namespace) >= Some(&MOST_UNREGISTERED) => {
                Err(namespace.to_owned())
            }
            _ => {
                self.add(identity);
                Ok(())
            }
        }
    }

    fn add(&mut self, identity: &str) {
        if let Some(namespace) = namespace_of(identity) {
            *self.0.entry(namespace.to_owned()).or_default() += 1;
        }
    }
}

impl RecordPlan {
    fn report(&mut self, group: &[&OfferClaim], issue: &OfferIssue) {
        let names = group.iter().map(|claim| claim.name.clone());
        self.issues.extend(names.map(|name| (name, issue.clone())));
    }

    /// Offers whose agent has no record.
    fn plan_new(
        &mut self,
        inputs: RecordInputs<'_>,
        group: &[&OfferClaim],
        unregistered: &mut Unregistered,
    ) {
        let adopt = adopted_by(group);
        let compatible = self.compatible(group, adopt.map(|(id, _)| id));
        let Some(first) = compatible.first() else {
            return;
        };
        if let Some((_, agent)) = adopt
            && let Some(conflict) = conflict(inputs, first, agent)
        {
            let issue = OfferIssue::AdoptionConflict(Box::new(conflict));
            self.report(&compatible, &issue);
            return;
        }
        if let Err(namespace) = unregistered.admit(&first.identity) {
            let limit = MOST_UNREGISTERED;
            let issue = OfferIssue::TooManyUnregistered { namespace, limit };
            self.report(&compatible, &issue);
            return;
        }
        let claims = compatible.iter().map(|claim| (*claim).clone()).collect();
        let adopt = adopt.map(|(id, _)| id);
        let record = new_record(&inputs.defaults, first, adopt, &compatible);
        self.create.push((record, claims));
    }

    /// Offers whose agent's key has a record.
    fn plan_update(
        &mut self,
        inputs: RecordInputs<'_>,
        record: &AgentRegistrationSpec,
        group: &[&OfferClaim],
    ) {
        if group
            .iter()
            .any(|claim| !is_record_of(record, &inputs.defaults, claim))
        {
            let issue = OfferIssue::KeyTaken {
                name: record.key.record_name(),
                other: record.identity.clone(),
            };
            self.report(group, &issue);
            return;
        }
        let adopt = adopted_by(group).filter(|_| is_untouched(record));
        let adopt_id = adopt.map(|(id, _)| id);
        let compatible = self.compatible(group, agent_of(record).or(adopt_id));
        let Some(first) = compatible.first() else {
            return;
        };
        if let Some((_, agent)) = adopt
            && let Some(conflict) = conflict(inputs, first, agent)
        {
            let issue = OfferIssue::AdoptionConflict(Box::new(conflict));
            self.report(&compatible, &issue);
            return;
        }
        let registry = inputs.adoptions.registry;
        if is_given_away(record, registry)
            && let Some(agent) = record.adopt.as_deref().and_then(abi::agent_id)
            && let Some(conflict) = conflict(inputs, first, agent)
        {
            let issue = OfferIssue::AdoptionConflict(Box::new(conflict));
            self.report(&compatible, &issue);
        }
        if updated_record(&inputs.defaults, record, adopt_id, &compatible) != *record {
            let claims = compatible.into_iter().cloned().collect();
            self.update.push((record.key, claims));
        }
    }

    /// Those of a group that may share the record of this agent, or one that is to be registered.
    fn compatible<'a>(
        &mut self,
        group: &[&'a OfferClaim],
        agent: Option<&str>,
    ) -> Vec<&'a OfferClaim> {
        let mut compatible = Vec::new();
        for claim in group {
            let Some(wanted) = &claim.adopt else {
                compatible.push(*claim);
                continue;
            };
            let Some(id) = abi::agent_id(wanted) else {
                // A number beyond 256 bits: no registry can have such an agent.
                let id = wanted.clone();
                let issue = AdoptionRefused::AgentNotFound { id }.into();
                self.issues.insert(claim.name.clone(), issue);
                continue;
            };
            if agent.is_some_and(|agent| same_agent(agent, id)) {
                compatible.push(*claim);
                continue;
            }
            let (name, recorded) = (claim.key.record_name(), agent.map(str::to_owned));
            let issue = OfferIssue::OtherAgent {
                wanted: wanted.clone(),
                name,
                recorded,
            };
            self.issues.insert(claim.name.clone(), issue);
        }
        compatible
    }
}

/// Why the offers of a claim may not adopt an agent, as far as the cache knows.
fn conflict(
    inputs: RecordInputs<'_>,
    claim: &OfferClaim,
    agent_id: U256,
) -> Option<AdoptionConflict> {
    let claimant = Claimant {
        key: claim.key,
        identity: &claim.identity,
        offer: &claim.name,
    };
    let contract = inputs.defaults.contract();
    let records = inputs.records.iter();
    let rivals = records
        .filter(|record| Contract::of_record(record) == contract)
        .map(|record| Rival {
            record,
            is_first: true,
        });
    inputs.adoptions.conflict(claimant, agent_id, rivals)
}

/// The agent of a record, or the one that it asks for.
fn agent_of(record: &AgentRegistrationSpec) -> Option<&str> {
    let result = record.result.as_ref();
    result
        .map(|result| result.agent_id.as_str())
        .or(record.adopt.as_deref())
}

/// The agent that the offers of a group want to adopt, as they name it and as a number.
fn adopted_by<'a>(group: &[&'a OfferClaim]) -> Option<(&'a str, U256)> {
    group.iter().find_map(|claim| {
        let id = claim.adopt.as_deref()?;
        Some((id, abi::agent_id(id)?))
    })
}

/// Whether nothing was signed for a record and nothing became of it: it may adopt an agent instead
/// of registering one.
fn is_untouched(record: &AgentRegistrationSpec) -> bool {
    record.is_open() && record.attempts.is_empty() && record.adopt.is_none()
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

/// Keys of which an offer's status says that they are its agent's: they may get a nonce, unless an
/// offer wants to adopt an agent under the key.
#[must_use]
pub(crate) fn allocatable(
    claims: &[OfferClaim],
    wanted: &BTreeMap<Key, Vec<OfferName>>,
) -> BTreeSet<Key> {
    let is_wanted = |claim: &&OfferClaim| {
        let offers = wanted.get(&claim.key);
        offers.is_some_and(|offers| offers.contains(&claim.name))
    };
    // Its record may not say so yet.
    let adopting = claims.iter().filter(|claim| claim.adopt.is_some());
    let adopting: BTreeSet<Key> = adopting.filter(is_wanted).map(|claim| claim.key).collect();
    let named = claims.iter().filter(|claim| claim.key_in_status);
    named
        .map(|claim| claim.key)
        .filter(|key| wanted.contains_key(key) && !adopting.contains(key))
        .collect()
}

/// Keys of the agents that an offer leads to on these registries.
pub(crate) fn keys_of(
    offer: &ServiceOffer,
    registries: &[Arc<IdentityRegistry>],
) -> impl Iterator<Item = Key> {
    registries
        .iter()
        .filter_map(|registry| key_of(offer, registry))
}

/// Whether an offer that a record lists may still use its agent. What cannot be decoded is not
/// judged: it keeps its agent.
#[must_use]
pub(crate) fn may_use(
    offer: &MaybeDecoded<ServiceOffer>,
    registries: &[Arc<IdentityRegistry>],
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
        && Contract::of_record(record) == defaults.contract()
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
        agent_uri_hash: None,
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
        reverted: None,
        displaced: None,
        proven_absent: None,
        moved_from: None,
        tombstone: None,
        spent_wei: None,
    }
}

/// The record with every claim on its list, alive. Offers that have gone stay on the list until the
/// agent is retired.
fn updated_record(
    defaults: &RecordDefaults,
    record: &AgentRegistrationSpec,
    adopt: Option<&str>,
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
    if is_untouched(record) {
        wanted.adopt = adopt.map(str::to_owned);
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
