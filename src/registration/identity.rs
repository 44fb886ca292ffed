//! Which registry an offer uses, and whose agent it is.

use alloy::primitives::Address;
use kube::ResourceExt;
use strum::IntoStaticStr;

use crate::api::{
    AgentRegistration, DEFAULT_REGISTRY_ANNOTATION, IdentityRegistry, IdentityScope, Key,
    Registration, ServiceOffer, network,
};

/// Why it is not known whose agent an offer is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub enum Unresolved {
    /// No registry is named, none is in use, and none is the default.
    #[error(
        "no IdentityRegistry is the default: set registration.registryRef.name, or annotate one with obol.org/is-default-registry=true"
    )]
    NoRegistry,
    /// Two registries are the default.
    #[error(
        "{first} and {second} are both annotated as the default registry: set registration.registryRef.name, or keep one annotation"
    )]
    TwoDefaultRegistries {
        /// One of them.
        first: String,
        /// Another one.
        second: String,
    },
    /// The registry does not exist.
    #[error(
        "IdentityRegistry {name} does not exist: create it, or correct registration.registryRef.name"
    )]
    RegistryNotFound {
        /// Its name.
        name: String,
    },
    /// The registry's address cannot be read.
    #[error("IdentityRegistry {name} has no readable address for its chain: correct spec.address")]
    RegistryAddressUnknown {
        /// Its name.
        name: String,
    },
    /// The offer has an agent already, under another key.
    #[error(
        "this offer's agent is {recorded} (record r-{recorded}); its identity or registry now leads to {derived}: restore them, or raise registration.edition to ask for a new agent"
    )]
    IdentityChanged {
        /// Key of the agent that it has.
        recorded: Key,
        /// Key that its spec leads to.
        derived: Key,
    },
}

impl Unresolved {
    /// One word for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.into()
    }
}

/// Whose agent an offer is.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution<'a> {
    /// The registry.
    pub registry: &'a IdentityRegistry,
    /// The agent's identity.
    pub identity: String,
    /// The agent's key.
    pub key: Key,
}

/// Finds out whose agent an offer is. `records` are those that list the offer, by namespace and name.
///
/// Without `registryRef` an offer stays with the registry that its record uses, so that moving the default moves no agent.
///
/// # Errors
/// If there is no registry, or the offer has an agent already and its spec leads to another one.
pub fn resolve<'a>(
    offer: &ServiceOffer,
    registries: &'a [impl AsRef<IdentityRegistry>],
    records: &[impl AsRef<AgentRegistration>],
) -> Result<Resolution<'a>, Unresolved> {
    let edition = registration(offer).map_or(1, |registration| registration.edition);
    let own = || {
        records
            .iter()
            .map(AsRef::as_ref)
            .filter(|record| record.spec.edition == edition)
    };
    let registry = choose(offer, registries, own())?;
    let identity = identity_of(offer, registry.spec.identity_scope);
    let Some(key) = key_of(offer, registry) else {
        return Err(Unresolved::RegistryAddressUnknown {
            name: registry.name_any(),
        });
    };
    match own()
        .map(|record| record.spec.key)
        .find(|recorded| *recorded != key)
    {
        Some(recorded) if own().all(|record| record.spec.key != key) => {
            Err(Unresolved::IdentityChanged {
                recorded,
                derived: key,
            })
        }
        _ => Ok(Resolution {
            registry,
            identity,
            key,
        }),
    }
}

fn choose<'a, 'b>(
    offer: &ServiceOffer,
    registries: &'a [impl AsRef<IdentityRegistry>],
    mut own: impl Iterator<Item = &'b AgentRegistration>,
) -> Result<&'a IdentityRegistry, Unresolved> {
    let named = |name: &str| {
        registries
            .iter()
            .map(AsRef::as_ref)
            .find(|registry| registry.name_any() == name)
    };
    let or_missing = |name: &str| {
        named(name).ok_or_else(|| Unresolved::RegistryNotFound {
            name: name.to_owned(),
        })
    };
    if let Some(reference) =
        registration(offer).and_then(|registration| registration.registry_ref.as_ref())
    {
        return or_missing(&reference.name);
    }
    let in_use = offer
        .status
        .as_ref()
        .and_then(|status| status.registration.as_ref()?.registry.as_deref());
    if let Some(name) = in_use {
        return or_missing(name);
    }
    if let Some(record) = own.next() {
        let holds = |registry: &&IdentityRegistry| {
            registry.spec.chain_id == record.spec.chain_id
                && address_of(registry) == Some(record.spec.registry.address)
        };
        let mut holding: Vec<_> = registries.iter().map(AsRef::as_ref).filter(holds).collect();
        // Of several objects for one contract the default comes first, then the first by name.
        holding.sort_by_key(|registry| (!is_default(registry), registry.name_any()));
        let address = record.spec.registry.address;
        let name = || format!("of contract {address} on chain {}", record.spec.chain_id);
        return holding
            .first()
            .copied()
            .ok_or_else(|| Unresolved::RegistryNotFound { name: name() });
    }
    let mut defaults = registries
        .iter()
        .map(AsRef::as_ref)
        .filter(|registry| is_default(registry));
    match (defaults.next(), defaults.next()) {
        (Some(registry), None) => Ok(registry),
        (Some(first), Some(second)) => Err(Unresolved::TwoDefaultRegistries {
            first: first.name_any(),
            second: second.name_any(),
        }),
        (None, _) => Err(Unresolved::NoRegistry),
    }
}

/// Key of the agent that an offer leads to on a registry; `None` if the registry's address is not known.
#[must_use]
pub fn key_of(offer: &ServiceOffer, registry: &IdentityRegistry) -> Option<Key> {
    let edition = registration(offer).map_or(1, |registration| registration.edition);
    let identity = identity_of(offer, registry.spec.identity_scope);
    Some(Key::derive(
        &identity,
        registry.spec.chain_id,
        address_of(registry)?,
        edition,
    ))
}

/// Identity of an offer's agent. It begins with the offer's own namespace wherever it has one, so nobody can claim an agent
/// of another namespace.
#[must_use]
pub fn identity_of(offer: &ServiceOffer, scope: IdentityScope) -> String {
    let namespace = offer.namespace().unwrap_or_default();
    match scope {
        IdentityScope::Registry => String::new(),
        IdentityScope::Namespace => namespace,
        IdentityScope::Offer => {
            let own = registration(offer).and_then(|registration| registration.identity.clone());
            format!("{namespace}/{}", own.unwrap_or_else(|| offer.name_any()))
        }
    }
}

/// Address of a registry's contract: the one that is given, or the one of its chain's class.
#[must_use]
pub fn address_of(registry: &IdentityRegistry) -> Option<Address> {
    match &registry.spec.address {
        Some(address) => address.parse().ok(),
        None => network::default_registry(registry.spec.chain_id),
    }
}

fn is_default(registry: &IdentityRegistry) -> bool {
    registry
        .annotations()
        .get(DEFAULT_REGISTRY_ANNOTATION)
        .is_some_and(|value| value == "true")
}

fn registration(offer: &ServiceOffer) -> Option<&Registration> {
    offer.spec.registration.as_ref()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::registration::fixtures::{REGISTRY, offer, record, registry};

    fn resolved(
        offer: &ServiceOffer,
        registries: &[Arc<IdentityRegistry>],
        records: &[Arc<AgentRegistration>],
    ) -> Result<(String, String), Unresolved> {
        let resolution = resolve(offer, registries, records)?;
        assert_eq!(resolution.key, key_of(offer, resolution.registry).unwrap());
        Ok((resolution.registry.name_any(), resolution.identity))
    }

    fn named(name: &str, default: bool) -> Arc<IdentityRegistry> {
        let annotations = json!({ "obol.org/is-default-registry": default.to_string() });
        Arc::new(registry(
            json!({ "metadata": { "name": name, "annotations": annotations } }),
        ))
    }

    #[test]
    fn an_identity_begins_with_the_offers_own_namespace_wherever_it_has_one() {
        let offer = offer(json!({}));
        for (scope, identity) in [
            (IdentityScope::Offer, "shop/chat"),
            (IdentityScope::Namespace, "shop"),
            (IdentityScope::Registry, ""),
        ] {
            assert_eq!(identity_of(&offer, scope), identity);
        }
        let renamed =
            self::offer(json!({ "spec": { "registration": { "identity": "assistant" } } }));
        assert_eq!(
            identity_of(&renamed, IdentityScope::Offer),
            "shop/assistant"
        );
    }

    #[test]
    fn the_registry_that_is_named_wins() {
        let offer =
            offer(json!({ "spec": { "registration": { "registryRef": { "name": "b" } } } }));
        let registries = [named("a", true), named("b", false)];
        assert_eq!(
            resolved(&offer, &registries, &[]),
            Ok(("b".into(), "shop/chat".into()))
        );
        let missing = Err(Unresolved::RegistryNotFound { name: "b".into() });
        assert_eq!(resolved(&offer, &registries[..1], &[]), missing);
    }

    #[test]
    fn without_a_name_the_one_default_is_used() {
        let offer = offer(json!({}));
        assert_eq!(
            resolved(&offer, &[named("a", false), named("b", true)], &[])
                .unwrap()
                .0,
            "b"
        );
        assert_eq!(
            resolved(&offer, &[named("a", false)], &[]),
            Err(Unresolved::NoRegistry)
        );
        let two = Err(Unresolved::TwoDefaultRegistries {
            first: "a".into(),
            second: "b".into(),
        });
        assert_eq!(
            resolved(&offer, &[named("a", true), named("b", true)], &[]),
            two
        );
    }

    #[test]
    fn an_offer_stays_with_the_registry_in_use_when_the_default_moves() {
        let other = json!({ "metadata": { "name": "other" }, "spec": { "address": format!("0x{}", "ab".repeat(20)) } });
        let registries = [Arc::new(registry(other)), named("sepolia", false)];
        let known = Arc::new(record("shop/chat", 1, json!({})));
        assert_eq!(
            resolved(&offer(json!({})), &registries, &[known])
                .unwrap()
                .0,
            "sepolia",
            "by its record"
        );
        let told = offer(json!({ "status": { "registration": { "registry": "sepolia" } } }));
        assert_eq!(
            resolved(&told, &registries, &[]).unwrap().0,
            "sepolia",
            "by its status"
        );
        let gone = offer(json!({ "status": { "registration": { "registry": "gone" } } }));
        let missing = Err(Unresolved::RegistryNotFound {
            name: "gone".into(),
        });
        assert_eq!(
            resolved(&gone, &registries, &[]),
            missing,
            "it moves to no other by itself"
        );
    }

    #[test]
    fn of_several_objects_for_one_contract_the_default_comes_first_then_the_first_by_name() {
        let known = [Arc::new(record("shop/chat", 1, json!({})))];
        let offer = offer(json!({}));
        assert_eq!(
            resolved(&offer, &[named("c", false), named("b", false)], &known)
                .unwrap()
                .0,
            "b"
        );
        assert_eq!(
            resolved(&offer, &[named("b", false), named("c", true)], &known)
                .unwrap()
                .0,
            "c"
        );
        let elsewhere = json!({ "spec": { "chainId": 8453 }, "metadata": { "name": "base" } });
        let error = resolved(&offer, &[Arc::new(registry(elsewhere))], &known).unwrap_err();
        assert_eq!(error.reason(), "RegistryNotFound");
    }

    #[test]
    fn an_offer_whose_spec_leads_to_another_key_than_its_record_is_refused() {
        let known = record("shop/chat", 1, json!({}));
        let recorded = known.spec.key;
        let moved = offer(json!({ "spec": { "registration": { "identity": "other" } } }));
        let registries = [named("sepolia", true)];
        let derived = key_of(&moved, &registries[0]).unwrap();
        let changed = Err(Unresolved::IdentityChanged { recorded, derived });
        let records = [Arc::new(known)];
        assert_eq!(resolved(&moved, &registries, &records), changed);
        let anew =
            offer(json!({ "spec": { "registration": { "identity": "other", "edition": 2 } } }));
        assert!(
            resolved(&anew, &registries, &records).is_ok(),
            "another edition is another agent"
        );
        let both = [
            Arc::clone(&records[0]),
            Arc::new(record("shop/other", 1, json!({}))),
        ];
        assert!(
            resolved(&moved, &registries, &both).is_ok(),
            "it has that record as well"
        );
    }

    #[test]
    fn an_address_is_the_one_that_is_given_or_that_of_the_class_of_the_chain() {
        let given = registry(json!({ "spec": { "address": format!("0x{}", "AB".repeat(20)) } }));
        assert_eq!(address_of(&given), Some(Address::repeat_byte(0xab)));
        assert_eq!(
            address_of(&registry(json!({}))),
            Some(REGISTRY.parse().unwrap())
        );
        let unknown = registry(json!({ "spec": { "chainId": 31337 } }));
        assert_eq!(address_of(&unknown), None);
        let error = resolve(
            &offer(json!({})),
            &[Arc::new(unknown)],
            &[] as &[Arc<AgentRegistration>],
        )
        .unwrap_err();
        assert_eq!(error.reason(), "RegistryAddressUnknown");
    }

    #[test]
    fn every_reason_is_one_word_and_says_what_to_do() {
        let key = Key::derive("", 1, Address::ZERO, 1);
        for unresolved in [
            Unresolved::NoRegistry,
            Unresolved::TwoDefaultRegistries {
                first: "a".into(),
                second: "b".into(),
            },
            Unresolved::RegistryNotFound { name: "a".into() },
            Unresolved::RegistryAddressUnknown { name: "a".into() },
            Unresolved::IdentityChanged {
                recorded: key,
                derived: key,
            },
        ] {
            assert!(
                unresolved.reason().chars().all(char::is_alphabetic)
                    && unresolved.to_string().contains(':')
            );
        }
    }
}
