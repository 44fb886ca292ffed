//! What a registry says it has registered: the count that a test trusts, read from the chain and not from an operator.

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
    /// The agent's id. The first one of a registry is 0.
    pub agent_id: U256,
    /// The URI that it was registered with; `setAgentURI` may have changed it since.
    pub uri: String,
    /// Who registered it; a transfer may have changed that since.
    pub owner: Address,
    /// The transaction that registered it.
    pub transaction: B256,
    /// The block of that transaction.
    pub block: u64,
}

/// Every registration that the chain holds, final or not, in the order of the chain; of one owner, or of all.
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
            transaction: log
                .transaction_hash
                .context("a log without a transaction")?,
            block: log.block_number.context("a log without a block")?,
        });
    }
    Ok(events)
}
