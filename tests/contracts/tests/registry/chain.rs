//! A chain with a deployed registry, and the accounts that use it.
//!
//! It calls, sends and reads; the tests assert the results.

use alloy::{
    network::TransactionBuilder,
    primitives::{Address, Bytes, U256, keccak256},
    providers::Provider,
    rpc::types::{BlockOverrides, TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    sol,
    sol_types::{Revert, SolCall, SolError, SolEventInterface},
};
use contracts::{
    abi::IdentityRegistry::{self as registry, IdentityRegistryEvents as Event},
    artifact::Contract,
    deploy, included,
};
use testbed::anvil::{Anvil, AnvilConfig};

sol! {
    contract Caller {
        function forward(address target, bytes data) external returns (bytes);
    }
}

/// A chain that mines a block per transaction, with the registry deployed.
pub struct Chain {
    pub anvil: Anvil,
    pub registry: Address,
}

/// Funded accounts, named by their relation to the agent that a test registers.
pub struct Accounts {
    /// Owns the registry and no agent.
    pub deployer: Address,
    pub owner: Address,
    pub operator: Address,
    pub approved: Address,
    pub stranger: Address,
}

impl Chain {
    pub async fn start() -> Self {
        let anvil = Anvil::start(AnvilConfig::default()).await.unwrap();
        let registry = deploy(anvil.provider(), &anvil.keys()[0]).await.unwrap();
        Self { anvil, registry }
    }

    pub fn accounts(&self) -> Accounts {
        let [deployer, owner, operator, approved, stranger] =
            [0, 1, 2, 3, 4].map(|nth| self.key(nth).address());
        Accounts {
            deployer,
            owner,
            operator,
            approved,
            stranger,
        }
    }

    pub fn key(&self, nth: usize) -> &PrivateKeySigner {
        &self.anvil.keys()[nth]
    }

    /// Calls the registry without a transaction. The error is the revert data.
    pub async fn call<C: SolCall>(&self, from: Address, call: C) -> Result<C::Return, Bytes> {
        let answer = self
            .call_raw(
                from,
                self.registry,
                call.abi_encode(),
                BlockOverrides::default(),
            )
            .await?;
        Ok(C::abi_decode_returns(&answer).unwrap())
    }

    /// Calls the registry in a block with this timestamp.
    pub async fn call_at<C: SolCall>(
        &self,
        time: u64,
        from: Address,
        call: C,
    ) -> Result<C::Return, Bytes> {
        let block = BlockOverrides::default().with_time(time);
        let answer = self
            .call_raw(from, self.registry, call.abi_encode(), block)
            .await?;
        Ok(C::abi_decode_returns(&answer).unwrap())
    }

    pub async fn call_raw(
        &self,
        from: Address,
        to: Address,
        input: Vec<u8>,
        block: BlockOverrides,
    ) -> Result<Bytes, Bytes> {
        let request = TransactionRequest::default()
            .with_from(from)
            .with_to(to)
            .with_input(input);
        let call = self
            .anvil
            .provider()
            .call(request)
            .with_block_overrides(block);
        call.await.map_err(|error| {
            error
                .as_error_resp()
                .and_then(|error| error.as_revert_data())
                .expect("a revert")
        })
    }

    /// Sends a transaction to the registry, which must succeed, and returns the registry's events.
    pub async fn send<C: SolCall>(&self, from: Address, call: C) -> Vec<Event> {
        self.events(&self.send_to(from, self.registry, call).await)
    }

    pub async fn send_to<C: SolCall>(
        &self,
        from: Address,
        to: Address,
        call: C,
    ) -> TransactionReceipt {
        self.transact(
            TransactionRequest::default()
                .with_from(from)
                .with_to(to)
                .with_input(call.abi_encode()),
        )
        .await
    }

    /// Registers an agent with this URI and returns its id.
    pub async fn register(&self, from: Address, uri: &str) -> U256 {
        let call = registry::register_1Call {
            agentURI: uri.to_owned(),
        };
        let id = self.call(from, call.clone()).await.unwrap();
        self.send(from, call).await;
        id
    }

    /// Registers an agent of `accounts.owner` that `operator` and `approved` may change.
    pub async fn agent(&self, accounts: &Accounts) -> U256 {
        let id = self
            .register(accounts.owner, "https://example.org/agent.json")
            .await;
        self.send(
            accounts.owner,
            registry::setApprovalForAllCall {
                operator: accounts.operator,
                approved: true,
            },
        )
        .await;
        self.send(
            accounts.owner,
            registry::approveCall {
                to: accounts.approved,
                tokenId: id,
            },
        )
        .await;
        id
    }

    /// Deploys a contract and returns its address.
    pub async fn create(&self, contract: Contract, constructor_arguments: &[u8]) -> Address {
        let code = [
            &contract.artifact().unwrap().bytecode,
            constructor_arguments,
        ]
        .concat();
        let request = TransactionRequest::default()
            .with_from(self.accounts().deployer)
            .with_deploy_code(code);
        self.transact(request).await.contract_address.unwrap()
    }

    /// Events of the registry in a transaction, in order.
    pub fn events(&self, receipt: &TransactionReceipt) -> Vec<Event> {
        let logs = receipt
            .logs()
            .iter()
            .filter(|log| log.address() == self.registry);
        logs.map(|log| Event::decode_log(&log.inner).expect("a known event").data)
            .collect()
    }

    /// Timestamp of the latest block.
    pub async fn now(&self) -> u64 {
        let block = self
            .anvil
            .provider()
            .get_block_by_number(Default::default())
            .await
            .unwrap();
        block.unwrap().header.timestamp
    }

    /// Sends a transaction. anvil signs it and fills in the missing fields.
    async fn transact(&self, request: TransactionRequest) -> TransactionReceipt {
        let hash = *self
            .anvil
            .provider()
            .send_transaction(request)
            .await
            .unwrap()
            .tx_hash();
        included(self.anvil.provider(), hash).await.unwrap()
    }
}

/// Revert data of `revert(message)`.
pub fn message(message: &str) -> Bytes {
    Revert::from(message).abi_encode().into()
}

/// Revert data of a custom error.
pub fn error(error: impl SolError) -> Bytes {
    error.abi_encode().into()
}

pub fn transferred(from: Address, to: Address, id: U256) -> Event {
    Event::Transfer(registry::Transfer {
        from,
        to,
        tokenId: id,
    })
}

pub fn uri_written(id: U256) -> Event {
    Event::MetadataUpdate(registry::MetadataUpdate { _tokenId: id })
}

pub fn registered(id: U256, uri: &str, owner: Address) -> Event {
    Event::Registered(registry::Registered {
        agentId: id,
        agentURI: uri.to_owned(),
        owner,
    })
}

pub fn metadata_set(id: U256, key: &str, value: impl AsRef<[u8]>) -> Event {
    Event::MetadataSet(registry::MetadataSet {
        agentId: id,
        indexedMetadataKey: keccak256(key),
        metadataKey: key.to_owned(),
        metadataValue: Bytes::copy_from_slice(value.as_ref()),
    })
}

/// A wallet is emitted as metadata: its 20 bytes, or empty.
pub fn wallet_set(id: U256, wallet: Option<Address>) -> Event {
    metadata_set(
        id,
        "agentWallet",
        wallet.as_ref().map_or(&[][..], |wallet| wallet.as_slice()),
    )
}
