//! Decides whether another record already owns an agent that an offer asks to adopt. Pure.
//!
//! [`super::observe`] gathers the agent's URI; [`crate::ledger::protocol`] refuses an adoption of a
//! taken agent.

use alloy::primitives::U256;

use crate::api::{AgentRegistration, Key};
use crate::ledger::protocol::same_agent;

/// Key that already owns the agent: of a record that has it or asked for it earlier, or the key in
/// the agent's URI.
#[must_use]
pub(crate) fn taken_by<'a>(
    record: &AgentRegistration,
    agent_id: U256,
    agent_uri: &str,
    records: impl Iterator<Item = &'a AgentRegistration>,
) -> Option<Key> {
    let age = |record: &AgentRegistration| {
        (
            record
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            record.spec.key,
        )
    };
    let has = |other: &AgentRegistration| match (&other.spec.result, &other.spec.adopt) {
        (Some(result), _) => same_agent(&result.agent_id, agent_id),
        (None, Some(wanted)) => same_agent(wanted, agent_id) && age(other) < age(record),
        (None, None) => false,
    };
    let holder = records
        .filter(|other| other.spec.key != record.spec.key)
        .find(|other| has(other));
    let named = || {
        agent_uri
            .rsplit('/')
            .next()?
            .strip_suffix(".json")?
            .parse::<Key>()
            .ok()
    };
    let by_uri = || {
        named().filter(|key| {
            *key != record.spec.key && agent_uri.contains(&format!("/agents/{key}.json"))
        })
    };
    holder.map(|other| other.spec.key).or_else(by_uri)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::record;

    const ELSEWHERE: &str = "https://old.example/agent.json";

    fn named(identity: &str, created: &str, spec: Value) -> AgentRegistration {
        record(
            identity,
            1,
            json!({ "metadata": { "creationTimestamp": created }, "spec": spec }),
        )
    }

    fn asking(identity: &str, created: &str) -> AgentRegistration {
        named(identity, created, json!({ "adopt": "7" }))
    }

    fn taken(own: &AgentRegistration, uri: &str, others: &[&AgentRegistration]) -> Option<Key> {
        taken_by(own, U256::from(7), uri, others.iter().copied().chain([own]))
    }

    #[test]
    fn agent_without_another_claim_is_free() {
        let own = asking("shop/chat", "2026-01-02T00:00:00Z");
        let other = named(
            "shop/other",
            "2026-01-01T00:00:00Z",
            json!({ "adopt": "8" }),
        );
        let idle = named("shop/idle", "2026-01-01T00:00:00Z", json!({}));
        assert_eq!(taken(&own, ELSEWHERE, &[&other, &idle]), None);
    }

    #[test]
    fn agent_belongs_to_its_holder_or_the_earliest_request() {
        let own = asking("shop/chat", "2026-01-02T00:00:00Z");
        let result =
            json!({ "agentId": "7", "block": 1, "blockHash": format!("0x{}", "0".repeat(64)) });
        let holder = named(
            "shop/holder",
            "2026-01-03T00:00:00Z",
            json!({ "result": result }),
        );
        let earlier = asking("shop/earlier", "2026-01-01T00:00:00Z");
        let later = asking("shop/later", "2026-01-03T00:00:00Z");
        assert_eq!(taken(&own, ELSEWHERE, &[&holder]), Some(holder.spec.key));
        assert_eq!(taken(&own, ELSEWHERE, &[&earlier]), Some(earlier.spec.key));
        assert_eq!(taken(&own, ELSEWHERE, &[&later]), None);
    }

    #[test]
    fn agent_belongs_to_the_key_in_its_uri() {
        let own = asking("shop/chat", "2026-01-02T00:00:00Z");
        let other = asking("shop/other", "2026-01-03T00:00:00Z").spec.key;
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
