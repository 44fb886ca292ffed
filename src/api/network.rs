//! Known chains: their class, their identity registry, and their aliases.
//!
//! Admission (its CEL rules are generated from this table), the operator and the documents all use
//! this one table. Sources: the deployment list of the ERC-8004 reference contracts; aliases as the
//! x402 verifier normalizes them.

use alloy::primitives::{Address, address};

/// Whether tokens on a chain have value. The registry's address follows from it: CREATE2 gives one
/// address on all mainnets and one on all testnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Tokens have value, and the registry is deployed at [`MAINNET_REGISTRY`].
    Mainnet,
    /// Tokens have value, but the reference list has no deployment: an IdentityRegistry must set
    /// the address.
    UnlistedMainnet,
    /// Tokens have no value, and the registry is deployed at [`TESTNET_REGISTRY`].
    Testnet,
}

/// Identity registry on every listed mainnet.
pub(crate) const MAINNET_REGISTRY: Address = address!("8004A169FB4a3325136EB29fA0ceB6D2e539a432");
/// Identity registry on every listed testnet.
pub(crate) const TESTNET_REGISTRY: Address = address!("8004A818BFB912233c491871b3d84c89A494BD9e");

/// EIP-155 ids of the chains in the reference deployment list.
const CHAINS: &[(Class, &[u64])] = &[
    (
        Class::Mainnet,
        &[
            1,
            10,
            56,
            100,
            137,
            143,
            196,
            1088,
            1868,
            2345,
            2741,
            4326,
            5000,
            8453,
            42161,
            42220,
            43114,
            59144,
            167_000,
            534_352,
            1_187_947_933,
        ],
    ),
    (Class::UnlistedMainnet, &[295, 360]),
    (
        Class::Testnet,
        &[
            97,
            296,
            1946,
            1952,
            5003,
            6343,
            10143,
            11124,
            43113,
            59141,
            59902,
            80002,
            84532,
            167_013,
            421_614,
            534_351,
            5_042_002,
            11_142_220,
            11_155_111,
            11_155_420,
            324_705_682,
        ],
    ),
];

/// Names that `payment.network` may use instead of a CAIP-2 id.
const ALIASES: &[(&str, u64)] = &[
    ("base", 8453),
    ("base-mainnet", 8453),
    ("base-sepolia", 84532),
    ("ethereum", 1),
    ("ethereum-mainnet", 1),
    ("mainnet", 1),
    ("sepolia", 11_155_111),
    ("polygon", 137),
    ("polygon-mainnet", 137),
    ("polygon-amoy", 80002),
    ("avalanche", 43114),
    ("avalanche-mainnet", 43114),
    ("avalanche-fuji", 43113),
    ("arbitrum", 42161),
    ("arbitrum-one", 42161),
    ("arbitrum-sepolia", 421_614),
];

/// The class of a chain, if it is in the table.
pub(crate) fn class(chain_id: u64) -> Option<Class> {
    CHAINS
        .iter()
        .find(|(_, ids)| ids.contains(&chain_id))
        .map(|(class, _)| *class)
}

/// Address of a chain's identity registry if an IdentityRegistry does not set one.
pub(crate) fn default_registry(chain_id: u64) -> Option<Address> {
    match class(chain_id)? {
        Class::Mainnet => Some(MAINNET_REGISTRY),
        Class::Testnet => Some(TESTNET_REGISTRY),
        Class::UnlistedMainnet => None,
    }
}

/// The EIP-155 id of an alias, or of a CAIP-2 id in the `eip155` namespace. Case is ignored, as the
/// x402 verifier does.
pub(crate) fn chain_id(network: &str) -> Option<u64> {
    let network = network.to_ascii_lowercase();
    match network.strip_prefix("eip155:") {
        Some(id) => id.parse().ok(),
        None => ALIASES
            .iter()
            .find(|(alias, _)| *alias == network)
            .map(|(_, id)| *id),
    }
}

/// CEL list of the chain ids of the given classes.
pub(super) fn cel_ids(classes: &[Class]) -> String {
    let ids = CHAINS
        .iter()
        .filter(|(class, _)| classes.contains(class))
        .flat_map(|(_, ids)| ids.iter());
    format!(
        "[{}]",
        ids.map(u64::to_string).collect::<Vec<_>>().join(", ")
    )
}

/// CEL rule for `payment.network`.
pub(super) fn cel_known_network() -> String {
    let aliases = ALIASES
        .iter()
        .map(|(alias, _)| format!("'{alias}'"))
        .collect::<Vec<_>>()
        .join(", ");
    format!("self in [{aliases}] || self.matches('^eip155:[1-9][0-9]{{0,15}}$')")
}

/// Message for a network that [`cel_known_network`] rejects.
pub(super) fn known_network_message() -> String {
    let aliases = ALIASES
        .iter()
        .map(|(alias, _)| *alias)
        .collect::<Vec<_>>()
        .join(", ");
    format!("network must be a CAIP-2 id like eip155:8453, or one of {aliases}")
}

#[cfg(test)]
mod tests {
    use alloy_chains::{Chain, NamedChain};

    use super::*;

    #[test]
    fn chain_table_lists_each_id_once() {
        let mut ids: Vec<u64> = CHAINS
            .iter()
            .flat_map(|(_, ids)| ids.iter().copied())
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn alias_names_a_chain_of_the_table() {
        for (alias, id) in ALIASES {
            assert_eq!(chain_id(alias), Some(*id));
            assert!(class(*id).is_some(), "{alias}");
        }
    }

    #[test]
    fn classes_and_aliases_agree_with_the_public_chain_list() {
        let mut compared = 0;
        for (class, ids) in CHAINS {
            for chain in ids.iter().filter_map(|id| Chain::from_id(*id).named()) {
                let is_testnet = *class == Class::Testnet;
                assert_eq!(chain.is_testnet(), is_testnet, "{chain}");
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared}");
        let listed = |alias: &str| alias.parse::<NamedChain>().ok().map(u64::from);
        for (alias, id) in ALIASES {
            assert!(listed(alias).is_none_or(|listed| listed == *id), "{alias}");
        }
    }

    #[test]
    fn network_spellings_resolve_to_one_chain_id() {
        for (network, id) in [
            ("base", 8453),
            ("Base-Mainnet", 8453),
            ("eip155:8453", 8453),
            ("eip155:31337", 31337),
        ] {
            assert_eq!(chain_id(network), Some(id), "{network}");
        }
        for network in ["", "solana", "eip155:", "eip155:x", "8453"] {
            assert_eq!(chain_id(network), None, "{network}");
        }
    }

    #[test]
    fn default_registry_depends_on_the_class_of_the_chain() {
        assert_eq!(default_registry(8453), Some(MAINNET_REGISTRY));
        assert_eq!(default_registry(84532), Some(TESTNET_REGISTRY));
        assert_eq!(default_registry(295), None);
        assert_eq!(default_registry(31337), None);
    }
}
