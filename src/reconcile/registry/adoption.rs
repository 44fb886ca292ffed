//! Whose an agent is that an offer asks to adopt. Pure.

use alloy::primitives::U256;

use crate::api::{AgentRegistration, Key};
use crate::ledger::protocol::same_agent;

/// Whose an agent is already: another record's that has it or asked for it first, or the one whose key its URI names.
#[must_use]
pub fn taken_by<'a>(
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
    fn an_agent_is_free_if_nobody_else_has_it_or_asks_for_it() {
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
    fn an_agent_is_the_record_s_that_has_it_or_asked_for_it_first() {
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
    fn an_agent_whose_uri_names_a_key_is_that_key_s() {
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
