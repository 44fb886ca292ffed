//! Which registry contract an object is about, and which IdentityRegistry speaks for a contract.
//! Pure.
//!
//! Several objects may configure one contract. Every room gets the same answer: that of
//! [`registry_of`]. Which of them holds a signer is another question: [`super::signers`].

use std::sync::Arc;

use alloy::primitives::Address;
use kube::ResourceExt;

use crate::api::{AgentRegistrationSpec, DEFAULT_REGISTRY_ANNOTATION, IdentityRegistry, network};

/// An identity registry contract on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Contract {
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    pub address: Address,
}

impl Contract {
    /// The contract that an IdentityRegistry configures: at `spec.address`, or at the well-known
    /// address of its chain. `None` if neither is known.
    #[must_use]
    pub(crate) fn of(registry: &IdentityRegistry) -> Option<Self> {
        let chain_id = registry.spec.chain_id;
        let address = match &registry.spec.address {
            Some(address) => address.parse().ok(),
            None => network::default_registry(chain_id),
        };
        Some(Self {
            chain_id,
            address: address?,
        })
    }

    /// The contract that a record is registered on.
    #[must_use]
    pub(crate) fn of_record(record: &AgentRegistrationSpec) -> Self {
        Self {
            chain_id: record.chain_id,
            address: record.registry.address,
        }
    }
}

/// The IdentityRegistry that speaks for a contract: the default, or else the first by name.
#[must_use]
pub(crate) fn registry_of(
    contract: Contract,
    registries: &[Arc<IdentityRegistry>],
) -> Option<&Arc<IdentityRegistry>> {
    registries
        .iter()
        .filter(|registry| Contract::of(registry) == Some(contract))
        .min_by_key(|registry| (!is_default(registry), registry.name_any()))
}

/// Whether offers that name no registry use this one.
#[must_use]
pub(crate) fn is_default(registry: &IdentityRegistry) -> bool {
    registry
        .annotations()
        .get(DEFAULT_REGISTRY_ANNOTATION)
        .is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::{REGISTRY, record, registry};

    fn named(name: &str, default: bool, spec: Value) -> Arc<IdentityRegistry> {
        let annotations = json!({ "obol.org/is-default-registry": default.to_string() });
        let metadata = json!({ "name": name, "annotations": annotations });
        Arc::new(registry(json!({ "metadata": metadata, "spec": spec })))
    }

    fn sepolia() -> Contract {
        Contract {
            chain_id: 84532,
            address: REGISTRY.parse().unwrap(),
        }
    }

    #[test]
    fn contract_comes_from_the_spec_or_from_the_chain() {
        let given = registry(json!({ "spec": { "address": format!("0x{}", "AB".repeat(20)) } }));
        let address = Address::repeat_byte(0xab);
        let chain_id = 84532;
        assert_eq!(Contract::of(&given), Some(Contract { chain_id, address }));
        assert_eq!(Contract::of(&registry(json!({}))), Some(sepolia()));
        let unknown = registry(json!({ "spec": { "chainId": 31337 } }));
        assert_eq!(Contract::of(&unknown), None);
        let record = record("shop/chat", 1, json!({}));
        assert_eq!(Contract::of_record(&record.spec), sepolia());
    }

    #[test]
    fn default_then_name_decides_who_speaks_for_a_contract() {
        let plain = || json!({});
        let speaks = |registries: &[Arc<IdentityRegistry>]| {
            registry_of(sepolia(), registries).map(|found| found.name_any())
        };
        let two = [named("c", false, plain()), named("b", false, plain())];
        assert_eq!(speaks(&two).as_deref(), Some("b"));
        let default = [named("b", false, plain()), named("c", true, plain())];
        assert_eq!(speaks(&default).as_deref(), Some("c"));
        let elsewhere = [named("a", true, json!({ "chainId": 8453 }))];
        assert_eq!(speaks(&elsewhere), None);
        let other = json!({ "address": format!("0x{}", "ab".repeat(20)) });
        assert_eq!(speaks(&[named("a", true, other)]), None);
    }
}
