//! Which IdentityRegistry holds a signer. Pure.
//!
//! An account has one ledger per chain, so one object works with it at a time: the oldest that
//! lists it. The others report who holds it. Safety does not rest on this: [`crate::ledger`] stays
//! correct if two objects use one account.

use std::sync::Arc;

use alloy::primitives::Address;
use kube::ResourceExt;

use crate::api::IdentityRegistry;

/// The IdentityRegistry that holds an account on a chain: of those that list it and are not being
/// deleted, the oldest, and by name within one second.
#[must_use]
pub(crate) fn holder_of(
    chain_id: u64,
    signer: Address,
    registries: &[Arc<IdentityRegistry>],
) -> Option<&Arc<IdentityRegistry>> {
    registries
        .iter()
        .filter(|registry| {
            registry.spec.chain_id == chain_id && registry.metadata.deletion_timestamp.is_none()
        })
        .filter(|registry| lists(registry, signer))
        .min_by_key(|registry| {
            let created = registry.metadata.creation_timestamp.as_ref();
            (created.map(|time| time.0), registry.name_any())
        })
}

/// Whether an IdentityRegistry lists an account. The case of the letters does not matter.
fn lists(registry: &IdentityRegistry, signer: Address) -> bool {
    let mut addresses = registry.spec.signers.iter();
    addresses.any(|listed| listed.address.parse() == Ok(signer))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registration::fixtures::registry;

    const SIGNER: Address = Address::repeat_byte(0xab);

    fn listing(name: &str, created: &str, signers: &[&str]) -> IdentityRegistry {
        let secret = json!({ "name": "signer", "key": "key" });
        let signers: Vec<_> = signers
            .iter()
            .map(|address| json!({ "address": address, "secretRef": secret }))
            .collect();
        registry(json!({
            "metadata": { "name": name, "creationTimestamp": created },
            "spec": { "signers": signers },
        }))
    }

    fn holder(registries: Vec<IdentityRegistry>) -> Option<String> {
        let registries: Vec<_> = registries.into_iter().map(Arc::new).collect();
        holder_of(84532, SIGNER, &registries).map(|found| found.name_any())
    }

    const OLD: &str = "2026-01-01T00:00:00Z";
    const YOUNG: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn oldest_object_that_lists_a_signer_holds_it() {
        let (lower, upper) = (format!("{SIGNER:#x}"), format!("0x{}", "AB".repeat(20)));
        let old = || listing("z", OLD, &["0x01", &upper]);
        let young = || listing("a", YOUNG, &[&lower]);
        assert_eq!(holder(vec![young(), old()]).as_deref(), Some("z"));
        assert_eq!(holder(vec![young()]).as_deref(), Some("a"));
        let same = || listing("b", OLD, &[&lower]);
        assert_eq!(holder(vec![old(), same()]).as_deref(), Some("b"));
        assert_eq!(holder(vec![listing("c", OLD, &["0x02"])]), None);
    }

    #[test]
    fn deleted_or_foreign_object_holds_no_signer() {
        let signer = format!("{SIGNER:#x}");
        let mut deleted = listing("z", OLD, &[&signer]);
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        let young = listing("a", YOUNG, &[&signer]);
        assert_eq!(holder(vec![deleted, young]).as_deref(), Some("a"));
        let mut elsewhere = listing("z", OLD, &[&signer]);
        elsewhere.spec.chain_id = 8453;
        assert_eq!(holder(vec![elsewhere]), None);
    }
}
