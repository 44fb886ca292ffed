//! Which namespace may use an agent, if an admin decided it. Pure.
//!
//! Without a decision, [`crate::reconcile::registry::adoption`] finds out who claims an agent.

use alloy::primitives::U256;

use crate::api::{AgentRegistrationSpec, IdentityRegistry};
use crate::chain::abi::agent_id;

/// The namespace that `spec.adoptions` gives an agent to.
#[must_use]
pub(crate) fn decided_namespace(registry: &IdentityRegistry, agent: U256) -> Option<&str> {
    let mut decisions = registry.spec.adoptions.iter();
    let decision = decisions.find(|decision| agent_id(&decision.agent_id) == Some(agent))?;
    Some(&decision.namespace)
}

/// Whether an admin gave the agent that a record adopted to another namespace: the record keeps
/// it, and no document lists it.
#[must_use]
pub(crate) fn is_given_away(record: &AgentRegistrationSpec, registry: &IdentityRegistry) -> bool {
    let adopted = record.adopt.as_deref().and_then(agent_id);
    let decided = adopted.and_then(|agent| decided_namespace(registry, agent));
    decided.is_some_and(|namespace| namespace_of(&record.identity) != Some(namespace))
}

/// Namespace of an identity; `None` for the one that all offers of a registry share.
#[must_use]
pub(crate) fn namespace_of(identity: &str) -> Option<&str> {
    let namespace = identity.split('/').next();
    namespace.filter(|namespace| !namespace.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registration::fixtures::{record, registry};

    #[test]
    fn decision_names_the_namespace_by_number() {
        let adoptions = json!([{ "agentId": "07", "namespace": "bank" }]);
        let registry = registry(json!({ "spec": { "adoptions": adoptions } }));
        let decided = |agent: u8| decided_namespace(&registry, U256::from(agent));
        assert_eq!((decided(7), decided(8)), (Some("bank"), None));
        let given_away = |identity: &str, spec| {
            is_given_away(
                &record(identity, 1, json!({ "spec": spec })).spec,
                &registry,
            )
        };
        let adopting = |id: &str| json!({ "adopt": id });
        assert!(given_away("shop/chat", adopting("7")));
        assert!(given_away("", adopting("7")));
        assert!(!given_away("bank/x", adopting("7")));
        assert!(!given_away("shop/chat", adopting("8")));
        assert!(!given_away("shop/chat", json!({})));
    }

    #[test]
    fn identity_begins_with_its_namespace() {
        assert_eq!(namespace_of("shop/chat"), Some("shop"));
        assert_eq!(
            (namespace_of("shop"), namespace_of("")),
            (Some("shop"), None)
        );
    }
}
