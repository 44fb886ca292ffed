//! Registrations as the chain shows them: what tests count, independently of the operator.

use alloy::{
    primitives::{Address, B256, U256},
    providers::Provider,
    rpc::types::Filter,
    sol_types::SolEvent,
};
use anyhow::{Context, Result};

use crate::abi::IdentityRegistry;

/// One `Registered` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Id of the agent. The first id of a registry is 0.
    pub agent_id: U256,
    /// URI at registration; `setAgentURI` may have changed it since.
    pub uri: String,
    /// Owner at registration; a transfer may have changed it since.
    pub owner: Address,
    /// Transaction that emitted the event.
    pub transaction: B256,
    /// Number of its block.
    pub block: u64,
}

/// All registrations on the chain, final or not, in chain order; of one owner or of all owners.
pub async fn registered_events(
    provider: &impl Provider,
    registry: Address,
    owner: Option<Address>,
) -> Result<Vec<Registered>> {
    let mut filter = Filter::new()
        .address(registry)
        .event_signature(IdentityRegistry::Registered::SIGNATURE_HASH)
        .from_block(0);
    if let Some(owner) = owner {
        filter = filter.topic2(owner);
    }
    let mut events = Vec::new();
    for log in provider.get_logs(&filter).await? {
        let event = log.log_decode::<IdentityRegistry::Registered>()?.inner.data;
        events.push(Registered {
            agent_id: event.agentId,
            uri: event.agentURI,
            owner: event.owner,
            transaction: log.transaction_hash.context("the log has no transaction")?,
            block: log.block_number.context("the log has no block")?,
        });
    }
    Ok(events)
}
