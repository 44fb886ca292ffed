//! Decides who may adopt an agent. Pure.
//!
//! An agent that this operator registered belongs to its key for good ([`taken_by`]). Any other
//! agent may be adopted by the offers of one identity. If others claim it, that is a conflict
//! ([`Adoptions::conflict`]):
//! - within one namespace, the first one keeps it, and the others may share its identity
//! - across namespaces, an offer reserves the agent that its status names; where that does not
//!   decide, an admin does, with `spec.adoptions`
//!
//! A conflict is looked for before a record is created, because a record freezes the offer's
//! identity, and again before the agent is adopted. [`crate::ledger::protocol`] adopts.

use alloy::primitives::U256;
use kube::ResourceExt;

use crate::api::{AgentRegistration, AgentRegistrationSpec, IdentityRegistry, Key};
use crate::chain::abi;
use crate::ledger::protocol::same_agent;
use crate::reconcile::issues::{AdoptionConflict, OfferName};
use crate::registration::adoption::{decided_namespace, namespace_of};
use crate::registration::contract::Contract;
use crate::registration::view::OfferView;

/// An agent that an offer's status names: it reserves the agent against other namespaces while the
/// offer lives and resolves to the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentReservation {
    pub offer: OfferName,
    /// Key that the offer resolves to.
    pub key: Key,
    pub agent_id: U256,
}

impl AgentReservation {
    /// What an offer reserves on a contract.
    #[must_use]
    pub(crate) fn of(view: &OfferView, contract: Contract) -> Option<Self> {
        let agent = view.agent()?;
        if agent.contract != contract || view.offer.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(Self {
            offer: view.name.clone(),
            key: agent.key,
            agent_id: abi::agent_id(view.agent_id_in_status()?)?,
        })
    }
}

/// What is known about who may adopt which agent of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Adoptions<'a> {
    pub registry: &'a IdentityRegistry,
    pub reservations: Vec<AgentReservation>,
}

/// Who wants to adopt an agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub key: Key,
    pub identity: &'a str,
    /// An offer of this identity.
    pub offer: &'a OfferName,
}

/// Another record that has the agent or asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rival<'a> {
    pub record: &'a AgentRegistrationSpec,
    /// Whether it was created first. A record comes before an offer that has none.
    pub is_first: bool,
}

impl<'a> Rival<'a> {
    /// The rival of a record that another record is.
    #[must_use]
    pub(crate) fn of(record: &AgentRegistration, other: &'a AgentRegistration) -> Self {
        Self {
            record: &other.spec,
            is_first: age(other) < age(record),
        }
    }
}

fn age(record: &AgentRegistration) -> (Option<jiff::Timestamp>, Key) {
    let created = record.metadata.creation_timestamp.as_ref();
    (created.map(|time| time.0), record.spec.key)
}

impl Adoptions<'_> {
    /// Who else claims the agent that a claimant asks for; `None` if no one does, and for an agent
    /// that this operator registered: no one may adopt that ([`taken_by`]). `records` are those of
    /// the contract.
    #[must_use]
    pub(crate) fn conflict<'r>(
        &self,
        claimant: Claimant<'_>,
        agent_id: U256,
        records: impl IntoIterator<Item = Rival<'r>>,
    ) -> Option<AdoptionConflict> {
        let rivals: Vec<Rival<'r>> = records.into_iter().collect();
        if rivals
            .iter()
            .any(|rival| has_registered(rival.record, agent_id))
        {
            return None;
        }
        let own = namespace_of(claimant.identity);
        let conflict = |other: String, identity: Option<&str>| AdoptionConflict {
            agent_id: agent_id.to_string(),
            own: offer_name(claimant.offer),
            other,
            identity: identity.map(str::to_owned),
            registry: self.registry.name_any(),
        };
        let decided = decided_namespace(self.registry, agent_id);
        if let Some(namespace) = decided.filter(|namespace| own != Some(namespace)) {
            return Some(conflict(format!("namespace {namespace}"), None));
        }
        let reserves = |key: Key| {
            let mut reservations = self.reservations.iter();
            reservations.any(|own| own.key == key && own.agent_id == agent_id)
        };
        let is_reserved = reserves(claimant.key);
        for Rival { record, is_first } in rivals {
            let (has, asks) = claims(record, agent_id);
            if record.key == claimant.key || !(has || asks) {
                continue;
            }
            if namespace_of(&record.identity) == own {
                if has || is_first {
                    let name = record.identity.rsplit('/').next();
                    return Some(conflict(holder_name(record), name));
                }
            } else if decided.is_none() && (has || !is_reserved || reserves(record.key)) {
                return Some(conflict(holder_name(record), None));
            }
        }
        let mut others = self.reservations.iter().filter(|other| {
            other.agent_id == agent_id
                && other.key != claimant.key
                && Some(other.offer.0.as_str()) != own
        });
        let other = others.next().filter(|_| decided.is_none())?;
        Some(conflict(offer_name(&other.offer), None))
    }
}

impl Adoptions<'_> {
    /// Why a record may not adopt the agent that it asks for. `records` may be those of any
    /// contract.
    #[must_use]
    pub(crate) fn conflict_of_record<'r>(
        &self,
        record: &AgentRegistration,
        records: impl IntoIterator<Item = &'r AgentRegistration>,
    ) -> Option<AdoptionConflict> {
        let spec = &record.spec;
        let wanted = spec.adopt.as_deref().filter(|_| spec.result.is_none())?;
        let offer = spec.offers.first();
        let offer = offer.map(|offer| (offer.namespace.clone(), offer.name.clone()));
        let claimant = Claimant {
            key: spec.key,
            identity: &spec.identity,
            offer: &offer.unwrap_or_default(),
        };
        let contract = Contract::of_record(spec);
        let records = records.into_iter();
        let rivals = records
            .filter(|other| Contract::of_record(&other.spec) == contract)
            .map(|other| Rival::of(record, other));
        self.conflict(claimant, abi::agent_id(wanted)?, rivals)
    }
}

/// Whether a record has adopted an agent, and whether it asks for it.
fn claims(record: &AgentRegistrationSpec, agent_id: U256) -> (bool, bool) {
    let Some(wanted) = &record.adopt else {
        return (false, false);
    };
    match &record.result {
        Some(result) => (same_agent(&result.agent_id, agent_id), false),
        None => (false, same_agent(wanted, agent_id)),
    }
}

/// Whether the agent of a record is this one, and was registered rather than adopted.
fn has_registered(record: &AgentRegistrationSpec, agent_id: U256) -> bool {
    let result = record.result.as_ref().filter(|_| record.adopt.is_none());
    result.is_some_and(|result| same_agent(&result.agent_id, agent_id))
}

fn offer_name((namespace, name): &OfferName) -> String {
    format!("offer {namespace}/{name}")
}

/// The first offer of a record, or its identity if it lists none.
fn holder_name(record: &AgentRegistrationSpec) -> String {
    record.offers.first().map_or_else(
        || format!("identity {:?}", record.identity),
        |offer| format!("offer {}/{}", offer.namespace, offer.name),
    )
}

/// Key that an agent belongs to because this operator registered it: that of the record with this
/// result, or the one in the agent's URI.
#[must_use]
pub(crate) fn taken_by<'a>(
    record: &AgentRegistration,
    agent_id: U256,
    agent_uri: &str,
    records: impl Iterator<Item = &'a AgentRegistration>,
) -> Option<Key> {
    let holder = records
        .map(|other| &other.spec)
        .filter(|other| other.key != record.spec.key)
        .find(|other| has_registered(other, agent_id));
    let named = || {
        let name = agent_uri.rsplit('/').next();
        let key = name.and_then(|name| name.strip_suffix(".json"))?;
        key.parse::<Key>().ok()
    };
    let by_uri = || {
        named().filter(|key| {
            *key != record.spec.key && agent_uri.contains(&format!("/agents/{key}.json"))
        })
    };
    holder.map(|other| other.key).or_else(by_uri)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::{record, registry, result};

    const ELSEWHERE: &str = "https://old.example/agent.json";
    const FIRST: &str = "2026-01-01T00:00:00Z";
    const SECOND: &str = "2026-01-02T00:00:00Z";

    fn named(identity: &str, created: &str, spec: Value) -> AgentRegistration {
        let (namespace, name) = identity.split_once('/').unwrap();
        let offers = json!([{ "namespace": namespace, "name": name, "uid": "u" }]);
        let mut record = record(
            identity,
            1,
            json!({ "metadata": { "creationTimestamp": created }, "spec": { "offers": offers } }),
        );
        let mut own = serde_json::to_value(&record.spec).unwrap();
        crate::registration::fixtures::merge(&mut own, spec);
        record.spec = serde_json::from_value(own).unwrap();
        record
    }

    fn asking(identity: &str, created: &str) -> AgentRegistration {
        named(identity, created, json!({ "adopt": "7" }))
    }

    fn having(identity: &str) -> AgentRegistration {
        named(
            identity,
            FIRST,
            json!({ "adopt": "7", "result": result("7") }),
        )
    }

    fn reservation(record: &AgentRegistration) -> AgentReservation {
        let (namespace, name) = record.spec.identity.split_once('/').unwrap();
        AgentReservation {
            offer: (namespace.into(), name.into()),
            key: record.spec.key,
            agent_id: record.spec.adopt.as_deref().unwrap_or("7").parse().unwrap(),
        }
    }

    /// Why a record may not adopt agent 7.
    fn conflict(
        own: &AgentRegistration,
        others: &[&AgentRegistration],
        reservations: &[&AgentRegistration],
        adoptions: Value,
    ) -> Option<AdoptionConflict> {
        let registry = registry(json!({ "spec": { "adoptions": adoptions } }));
        let adoptions = Adoptions {
            registry: &registry,
            reservations: reservations.iter().map(|own| reservation(own)).collect(),
        };
        adoptions.conflict_of_record(own, others.iter().copied().chain([own]))
    }

    fn to(namespace: &str) -> Value {
        json!([{ "agentId": "7", "namespace": namespace }])
    }

    #[test]
    fn agent_without_another_claim_is_free() {
        let own = asking("shop/chat", SECOND);
        let other = named("shop/other", FIRST, json!({ "adopt": "8" }));
        let idle = named("shop/idle", FIRST, json!({}));
        let elsewhere = named("bank/x", FIRST, json!({ "adopt": "8" }));
        let reservations = [&own, &elsewhere];
        assert_eq!(
            conflict(&own, &[&other, &idle], &reservations, json!([])),
            None
        );
    }

    #[test]
    fn record_that_asks_for_no_agent_has_no_conflict() {
        let other = having("shop/a");
        for spec in [
            json!({}),
            json!({ "adopt": "x" }),
            json!({ "adopt": "7", "result": result("7") }),
        ] {
            let own = named("bank/x", SECOND, spec);
            assert_eq!(conflict(&own, &[&other], &[], json!([])), None);
        }
        let mut elsewhere = having("thief/y");
        elsewhere.spec.chain_id = 1;
        assert_eq!(
            conflict(&asking("bank/x", SECOND), &[&elsewhere], &[], json!([])),
            None
        );
    }

    #[test]
    fn first_identity_of_a_namespace_keeps_the_agent() {
        let own = asking("shop/b", SECOND);
        let (earlier, later) = (
            asking("shop/a", FIRST),
            asking("shop/c", "2026-01-03T00:00:00Z"),
        );
        let none = || json!([]);
        for other in [&earlier, &having("shop/a")] {
            let found = conflict(&own, &[other], &[], none()).unwrap();
            assert_eq!(
                (&*found.own, &*found.other),
                ("offer shop/b", "offer shop/a")
            );
            assert_eq!(found.identity.as_deref(), Some("a"));
            assert_eq!(conflict(&own, &[other], &[], to("shop")), Some(found));
        }
        assert_eq!(conflict(&own, &[&later], &[], none()), None);
    }

    #[test]
    fn claims_of_two_namespaces_are_a_conflict_for_both() {
        let (bank, thief) = (asking("bank/x", SECOND), asking("thief/y", FIRST));
        for (own, other) in [(&bank, &thief), (&thief, &bank)] {
            let found = conflict(own, &[other], &[], json!([])).unwrap();
            assert_eq!(found.other, holder_name(&other.spec));
            assert_eq!(found.identity, None);
        }
        let adopted = having("thief/y");
        let mut unlisted = adopted.clone();
        unlisted.spec.offers.clear();
        for (other, name) in [
            (&adopted, "offer thief/y"),
            (&unlisted, "identity \"thief/y\""),
        ] {
            let found = conflict(&bank, &[other], &[&bank], json!([]));
            assert_eq!(found.unwrap().other, name);
        }
    }

    #[test]
    fn status_reserves_an_agent_against_other_namespaces_only() {
        let (bank, thief) = (asking("bank/x", SECOND), asking("thief/y", FIRST));
        let none = || json!([]);
        assert_eq!(conflict(&bank, &[&thief], &[&bank], none()), None);
        let refused = conflict(&thief, &[], &[&bank], none()).unwrap();
        assert_eq!(refused.other, "offer bank/x");
        assert_eq!(
            conflict(&asking("bank/z", SECOND), &[], &[&bank], none()),
            None
        );
        let both = [&bank, &thief];
        assert!(conflict(&bank, &[&thief], &both, none()).is_some());
        assert!(conflict(&thief, &[&bank], &both, none()).is_some());
    }

    #[test]
    fn registered_agent_is_not_decided_between_namespaces() {
        let thief = asking("thief/y", SECOND);
        let holder = named("bank/x", FIRST, json!({ "result": result("7") }));
        for adoptions in [json!([]), to("bank"), to("thief")] {
            assert_eq!(conflict(&thief, &[&holder], &[&holder], adoptions), None);
        }
        assert_eq!(taken(&thief, ELSEWHERE, &[&holder]), Some(holder.spec.key));
    }

    #[test]
    fn admin_decides_between_namespaces() {
        let (bank, thief) = (asking("bank/x", SECOND), asking("thief/y", FIRST));
        let both = [&bank, &thief];
        for other in [&thief, &having("thief/y")] {
            assert_eq!(conflict(&bank, &[other], &both, to("bank")), None);
        }
        let refused = conflict(&thief, &[], &[], to("bank")).unwrap();
        assert_eq!(refused.other, "namespace bank");
    }

    #[test]
    fn reservation_lasts_while_its_offer_lives_and_resolves_here() {
        use crate::registration::eligibility::Eligibility;
        use crate::registration::fixtures;
        use crate::registration::identity::Unresolved;

        let view = |over: Value| fixtures::view(over, Eligibility::Disabled, None);
        let named = view(json!({ "status": { "agentId": "7" } }));
        let here = named.agent().unwrap().contract;
        let reserved = AgentReservation::of(&named, here).unwrap();
        assert_eq!(
            (reserved.offer, reserved.agent_id),
            (named.name.clone(), U256::from(7))
        );
        let elsewhere = Contract {
            chain_id: 1,
            ..here
        };
        assert_eq!(AgentReservation::of(&named, elsewhere), None);
        for over in [json!({}), json!({ "status": { "agentId": "x" } })] {
            assert_eq!(AgentReservation::of(&view(over), here), None);
        }
        let unresolved = OfferView {
            agent: Err(Unresolved::NoRegistry),
            ..named
        };
        assert_eq!(AgentReservation::of(&unresolved, here), None);
        let deleted = json!({
            "status": { "agentId": "7" }, "metadata": { "deletionTimestamp": FIRST },
        });
        assert_eq!(AgentReservation::of(&view(deleted), here), None);
    }

    fn taken(own: &AgentRegistration, uri: &str, others: &[&AgentRegistration]) -> Option<Key> {
        taken_by(own, U256::from(7), uri, others.iter().copied().chain([own]))
    }

    #[test]
    fn registered_agent_belongs_to_its_key() {
        let own = asking("shop/chat", SECOND);
        let holder = named("shop/holder", SECOND, json!({ "result": result("7") }));
        assert_eq!(taken(&own, ELSEWHERE, &[&holder]), Some(holder.spec.key));
        let (adopted, earlier) = (having("shop/adopted"), asking("shop/earlier", FIRST));
        assert_eq!(taken(&own, ELSEWHERE, &[&adopted, &earlier]), None);
    }

    #[test]
    fn agent_belongs_to_the_key_in_its_uri() {
        let own = asking("shop/chat", SECOND);
        let other = asking("shop/other", SECOND).spec.key;
        let uri = |key: Key| format!("https://agents.example/agents/{key}.json");
        assert_eq!(taken(&own, &uri(other), &[]), Some(other));
        assert_eq!(taken(&own, &uri(own.spec.key), &[]), None);
        assert_eq!(
            taken(
                &own,
                &format!("https://agents.example/else/{other}.json"),
                &[]
            ),
            None
        );
    }
}
