//! Resolves an offer: which registry it uses, and the identity and key of its agent.
//!
//! A record keeps the registry that it was created for, so moving the default registry moves no
//! agent. [`super::contract`] says which object speaks for a record's contract, and
//! [`super::view`] resolves the offers of the cache.

use std::sync::Arc;

use kube::ResourceExt;
use strum::IntoStaticStr;

use super::contract::{Contract, is_default, registry_of};
use crate::api::{
    AgentRegistrationSpec, IdentityRegistry, IdentityScope, Key, Registration, ServiceOffer,
};

/// Why an offer does not resolve to an agent. A variant's name is the condition's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
pub(crate) enum Unresolved {
    /// The offer names no registry and has no record, and no registry is the default.
    #[error(
        "no IdentityRegistry is the default: set registration.registryRef.name, or annotate one with obol.org/is-default-registry=true"
    )]
    NoRegistry,
    /// More than one registry is the default.
    #[error(
        "{first} and {second} are both annotated as the default registry: set registration.registryRef.name, or keep one annotation"
    )]
    TwoDefaultRegistries { first: String, second: String },
    #[error(
        "IdentityRegistry {name} does not exist: create it, or correct registration.registryRef.name"
    )]
    RegistryNotFound { name: String },
    #[error(
        "IdentityRegistry {name}: spec.address is invalid, or missing on a chain without a known registry; set spec.address"
    )]
    RegistryAddressUnknown { name: String },
    /// The offer already has an agent, under another key.
    #[error(
        "the key of this offer's agent is {recorded} (record r-{recorded}), but its identity and registry now resolve to {derived}: restore them, or raise registration.edition to ask for a new agent"
    )]
    IdentityChanged {
        /// Key of its agent.
        recorded: Key,
        /// Key that its spec resolves to.
        derived: Key,
    },
}

impl Unresolved {
    /// Reason of the condition.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        self.into()
    }
}

/// The registry of an offer, and its agent there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resolution<'a> {
    pub registry: &'a Arc<IdentityRegistry>,
    /// The contract that the registry configures.
    pub contract: Contract,
    pub identity: String,
    pub key: Key,
}

/// Resolves an offer. `records` are those that list it, by namespace and name.
///
/// Without `registryRef`, an offer keeps the registry of its record, so moving the default moves no
/// agent. If the registry that it uses is gone, another object for the contract of its record takes
/// over: a registry that is created again under another name loses no agent. An offer that has an
/// agent and now resolves to another key is an error.
pub(crate) fn resolve<'a>(
    offer: &ServiceOffer,
    registries: &'a [Arc<IdentityRegistry>],
    records: &[impl AsRef<AgentRegistrationSpec>],
) -> Result<Resolution<'a>, Unresolved> {
    let edition = registration(offer).map_or(1, |registration| registration.edition);
    let own = || {
        records
            .iter()
            .map(AsRef::as_ref)
            .filter(|record| record.edition == edition)
    };
    let registry = choose(offer, registries, own().next())?;
    let identity = identity_of(offer, registry.spec.identity_scope);
    let Some(contract) = Contract::of(registry) else {
        return Err(Unresolved::RegistryAddressUnknown {
            name: registry.name_any(),
        });
    };
    let key = Key::derive(&identity, contract.chain_id, contract.address, edition);
    match own()
        .map(|record| record.key)
        .find(|recorded| *recorded != key)
    {
        Some(recorded) if own().all(|record| record.key != key) => {
            Err(Unresolved::IdentityChanged {
                recorded,
                derived: key,
            })
        }
        _ => Ok(Resolution {
            registry,
            contract,
            identity,
            key,
        }),
    }
}

fn choose<'a>(
    offer: &ServiceOffer,
    registries: &'a [Arc<IdentityRegistry>],
    own: Option<&AgentRegistrationSpec>,
) -> Result<&'a Arc<IdentityRegistry>, Unresolved> {
    let of_record = || registry_of(Contract::of_record(own?), registries);
    let named = registration(offer)
        .and_then(|registration| Some(&registration.registry_ref.as_ref()?.name))
        .or_else(|| {
            let status = offer.status.as_ref()?;
            status.registration.as_ref()?.registry.as_ref()
        });
    if let Some(name) = named {
        return registries
            .iter()
            .find(|registry| registry.name_any() == *name)
            .or_else(of_record)
            .ok_or_else(|| Unresolved::RegistryNotFound { name: name.clone() });
    }
    if let Some(record) = own {
        return of_record().ok_or_else(|| {
            let Contract { chain_id, address } = Contract::of_record(record);
            let name = format!("of contract {address} on chain {chain_id}");
            Unresolved::RegistryNotFound { name }
        });
    }
    let mut defaults = registries.iter().filter(|registry| is_default(registry));
    match (defaults.next(), defaults.next()) {
        (Some(registry), None) => Ok(registry),
        (Some(first), Some(second)) => Err(Unresolved::TwoDefaultRegistries {
            first: first.name_any(),
            second: second.name_any(),
        }),
        (None, _) => Err(Unresolved::NoRegistry),
    }
}

/// Key of an offer's agent on a registry; `None` if the registry's address is not known.
#[must_use]
pub(crate) fn key_of(offer: &ServiceOffer, registry: &IdentityRegistry) -> Option<Key> {
    let edition = registration(offer).map_or(1, |registration| registration.edition);
    let identity = identity_of(offer, registry.spec.identity_scope);
    let Contract { chain_id, address } = Contract::of(registry)?;
    Some(Key::derive(&identity, chain_id, address, edition))
}

/// Identity of an offer's agent. Unless it is empty, it begins with the offer's own namespace: an
/// offer cannot claim an agent of another namespace.
#[must_use]
pub(crate) fn identity_of(offer: &ServiceOffer, scope: IdentityScope) -> String {
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

fn registration(offer: &ServiceOffer) -> Option<&Registration> {
    offer.spec.registration.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use alloy::primitives::Address;

    use super::*;
    use crate::registration::fixtures::{offer, record, registry};

    fn resolved(
        offer: &ServiceOffer,
        registries: &[Arc<IdentityRegistry>],
        records: &[Arc<AgentRegistrationSpec>],
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
    fn identity_begins_with_the_offers_namespace() {
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
    fn key_needs_the_address_of_the_contract() {
        let unknown = registry(json!({ "spec": { "chainId": 31337 } }));
        assert_eq!(key_of(&offer(json!({})), &unknown), None);
    }

    #[test]
    fn named_registry_wins() {
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
    fn default_registry_is_used_if_none_is_named() {
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
    fn offer_keeps_its_registry_when_the_default_moves() {
        let other = json!({ "metadata": { "name": "other" }, "spec": { "address": format!("0x{}", "ab".repeat(20)) } });
        let registries = [Arc::new(registry(other)), named("sepolia", false)];
        let known = [Arc::new(record("shop/chat", 1, json!({})).spec)];
        assert_eq!(
            resolved(&offer(json!({})), &registries, &known).unwrap().0,
            "sepolia",
            "by its record"
        );
        let in_status = offer(json!({ "status": { "registration": { "registry": "sepolia" } } }));
        assert_eq!(
            resolved(&in_status, &registries, &[]).unwrap().0,
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
    fn object_for_the_same_contract_takes_over_from_a_deleted_one() {
        let known = [Arc::new(record("shop/chat", 1, json!({})).spec)];
        let in_use = json!({ "status": { "registration": { "registry": "gone" } } });
        let named_in_spec =
            json!({ "spec": { "registration": { "registryRef": { "name": "gone" } } } });
        for over in [in_use, named_in_spec] {
            let offer = offer(over);
            let renamed = [named("renamed", false)];
            let found = resolve(&offer, &renamed, &known).unwrap();
            assert_eq!(found.registry.name_any(), "renamed");
            assert_eq!(found.key, known[0].key, "the agent is the same");
            let scope = json!({ "spec": { "identityScope": "Namespace" } });
            let error = resolve(&offer, &[Arc::new(registry(scope))], &known).unwrap_err();
            assert_eq!(error.reason(), "IdentityChanged");
            let elsewhere = json!({ "spec": { "chainId": 8453 } });
            let error = resolve(&offer, &[Arc::new(registry(elsewhere))], &known).unwrap_err();
            assert_eq!(error.reason(), "RegistryNotFound");
        }
    }

    #[test]
    fn default_then_name_decides_between_objects_for_one_contract() {
        let known = [Arc::new(record("shop/chat", 1, json!({})).spec)];
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
    fn offer_that_resolves_to_another_key_is_rejected() {
        let known = record("shop/chat", 1, json!({})).spec;
        let recorded = known.key;
        let moved = offer(json!({ "spec": { "registration": { "identity": "other" } } }));
        let registries = [named("sepolia", true)];
        let derived = key_of(&moved, &registries[0]).unwrap();
        let changed = Err(Unresolved::IdentityChanged { recorded, derived });
        let records = [Arc::new(known)];
        assert_eq!(resolved(&moved, &registries, &records), changed);
        let raised =
            offer(json!({ "spec": { "registration": { "identity": "other", "edition": 2 } } }));
        assert!(
            resolved(&raised, &registries, &records).is_ok(),
            "another edition is another agent"
        );
        let both = [
            Arc::clone(&records[0]),
            Arc::new(record("shop/other", 1, json!({})).spec),
        ];
        assert!(
            resolved(&moved, &registries, &both).is_ok(),
            "it has that record as well"
        );
    }

    #[test]
    fn registry_without_a_known_address_is_reported() {
        let unknown = registry(json!({ "spec": { "chainId": 31337 } }));
        let none: &[Arc<AgentRegistrationSpec>] = &[];
        let error = resolve(&offer(json!({})), &[Arc::new(unknown)], none).unwrap_err();
        assert_eq!(error.reason(), "RegistryAddressUnknown");
    }

    #[test]
    fn every_unresolved_reason_is_one_word_with_a_remedy() {
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
