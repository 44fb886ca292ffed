// SPDX-License-Identifier: Apache-2.0
//! The facilitator of x402-rs on one chain: `facilitator HOST PORT RPC CHAIN_ID KEY`. Prints "ready"
//! when it serves.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use x402_chain_eip155::chain::config::{Eip155ChainConfig, Eip155ChainConfigInner};
use x402_chain_eip155::chain::{Eip155ChainProvider, Eip155ChainReference};
use x402_chain_eip155::{V1Eip155Exact, V2Eip155Exact};
use x402_facilitator_local::{FacilitatorLocal, handlers};
use x402_types::chain::{ChainProviderOps, ChainRegistry, FromConfig};
use x402_types::scheme::{
    SchemeBlueprints, SchemeRegistry, X402SchemeFacilitator, X402SchemeFacilitatorBuilder,
    X402SchemeId,
};

type Provider = Arc<Eip155ChainProvider>;

/// The schemes build from a provider, the registry from a reference to one.
struct Shared<S>(S);

impl<S: X402SchemeId> X402SchemeId for Shared<S> {
    fn x402_version(&self) -> u8 {
        self.0.x402_version()
    }

    fn namespace(&self) -> &str {
        self.0.namespace()
    }

    fn scheme(&self) -> &str {
        self.0.scheme()
    }
}

impl<'a, S: X402SchemeFacilitatorBuilder<Provider>> X402SchemeFacilitatorBuilder<&'a Provider>
    for Shared<S>
{
    fn build(
        &self,
        provider: &'a Provider,
        config: Option<Value>,
    ) -> Result<Box<dyn X402SchemeFacilitator>, Box<dyn Error>> {
        self.0.build(Arc::clone(provider), config)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, rpc, chain_id, key] = arguments.as_slice() else {
        anyhow::bail!("facilitator HOST PORT RPC CHAIN_ID KEY");
    };
    let inner: Eip155ChainConfigInner =
        serde_json::from_value(json!({ "signers": [key], "rpc": [{ "http": rpc }] }))?;
    let config = Eip155ChainConfig {
        chain_reference: Eip155ChainReference::new(chain_id.parse()?),
        inner,
    };
    let provider = Eip155ChainProvider::from_config(&config).await;
    let provider: Provider = Arc::new(provider.map_err(|error| anyhow::anyhow!("{error}"))?);
    let chains = ChainRegistry::new(HashMap::from([(provider.chain_id(), provider)]));
    let blueprints = SchemeBlueprints::new()
        .and_register(Shared(V1Eip155Exact))
        .and_register(Shared(V2Eip155Exact));
    let chain = format!("eip155:{chain_id}");
    let schemes = ["v1-eip155-exact", "v2-eip155-exact"]
        .map(|id| serde_json::from_value(json!({ "id": id, "chains": chain })));
    let schemes = schemes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let registry = SchemeRegistry::build(chains, blueprints, &schemes);
    let listener = TcpListener::bind(format!("{host}:{port}")).await;
    let listener = listener.context("cannot listen")?;
    println!("ready");
    let state = Arc::new(FacilitatorLocal::new(registry));
    Ok(axum::serve(listener, handlers::routes().with_state(state)).await?)
}
