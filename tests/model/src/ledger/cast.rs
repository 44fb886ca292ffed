//! The one chain, contract, cluster and set of agents of every world, in the real types.
//!
//! Constants and constructors only.

use alloy::primitives::{Address, B256};
use alloy::signers::local::PrivateKeySigner;
use serviceoffer::api::{AgentRegistrationSpec, Key, OfferRef, Phase, RegistryContract};
use serviceoffer::decisions::{TransactionSigner, read_key};

/// Id of the chain.
pub const CHAIN_ID: u64 = 31337;
/// Hash of its first block.
pub const GENESIS: B256 = B256::repeat_byte(0x6e);
/// The registry contract.
pub const CONTRACT: Address = Address::repeat_byte(0x80);
/// Uid of the cluster.
pub const CLUSTER_UID: &str = "cluster";
/// Number of accounts.
pub const ACCOUNTS: usize = 3;
/// Number of keys: two editions of the first offer's agent, and the agent of the second offer.
pub const KEYS: usize = 3;
/// Number of offers.
pub const OFFERS: usize = 2;
/// Number of IdentityRegistries.
pub const REGISTRIES: usize = 2;
/// First part of the URIs of each IdentityRegistry.
pub const BASE_URLS: [&str; REGISTRIES] = ["https://a.example", "https://b.example"];

/// Identity and edition of each key, and the key itself.
const AGENTS: [(&str, u32, &str); KEYS] = [
    ("shop/a", 1, "aaaaaaaaaaaaaaaa"),
    ("shop/a", 2, "bbbbbbbbbbbbbbbb"),
    ("shop/b", 1, "cccccccccccccccc"),
];

/// The accounts, keys and agents of a world.
#[derive(Debug)]
pub struct Cast {
    /// Signers of the accounts.
    pub signers: Vec<TransactionSigner>,
    /// Keys of the agents.
    pub keys: [Key; KEYS],
}

impl Cast {
    /// The cast; `None` if one of its constants is not well-formed.
    #[must_use]
    pub fn new() -> Option<Self> {
        let signer = |account: usize| {
            let secret = format!("{:064x}", account + 1);
            let key = read_key(secret.as_bytes(), None).ok()?;
            let address = PrivateKeySigner::from_slice(&*key).ok()?.address();
            TransactionSigner::new(&key, address).ok()
        };
        Some(Self {
            signers: (0..ACCOUNTS).map(signer).collect::<Option<_>>()?,
            keys: AGENTS
                .iter()
                .map(|(.., key)| key.parse().ok())
                .collect::<Option<Vec<Key>>>()?
                .try_into()
                .ok()?,
        })
    }

    /// Address of an account.
    #[must_use]
    pub fn address(&self, account: usize) -> Address {
        self.signers[account].address()
    }

    /// The account of an address.
    #[must_use]
    pub fn account(&self, address: Address) -> Option<usize> {
        (0..ACCOUNTS).find(|account| self.address(*account) == address)
    }

    /// The number of a key.
    #[must_use]
    pub fn key(&self, key: Key) -> Option<usize> {
        self.keys.iter().position(|known| *known == key)
    }

    /// The record of a key as an offer's claim creates it.
    #[must_use]
    pub fn new_record(&self, key: usize, account: usize) -> AgentRegistrationSpec {
        let (identity, edition, _) = AGENTS[key];
        let name = identity.split('/').next_back().unwrap_or_default();
        AgentRegistrationSpec {
            key: self.keys[key],
            identity: identity.into(),
            chain_id: CHAIN_ID,
            registry: RegistryContract {
                address: CONTRACT,
                code_hash: B256::repeat_byte(1),
            },
            edition,
            signer: Some(self.address(account)),
            agent_uri: None,
            agent_uri_hash: None,
            calldata_hash: None,
            adopt: None,
            phase: Phase::Pending,
            offers: vec![OfferRef {
                namespace: "shop".into(),
                name: name.into(),
                uid: "uid".into(),
            }],
            attempts: vec![],
            update: None,
            result: None,
            reverted: None,
            displaced: None,
            proven_absent: None,
            moved_from: None,
            tombstone: None,
            spent_wei: None,
        }
    }
}
