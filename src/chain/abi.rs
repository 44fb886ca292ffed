//! The contract interfaces that the operator uses: the ERC-8004 Identity Registry (contract version
//! 2.0.0), the fee oracles of rollups, and how a token describes itself.

use alloy::primitives::{Address, Bytes, U256, address};
use alloy::sol;
use alloy::sol_types::SolCall;

sol! {
    /// Emitted by every registration.
    event Registered(uint256 indexed agentId, string agentURI, address indexed owner);
    /// Emitted by every transfer of an agent; a mint is a transfer from the zero address (ERC-721).
    event Transfer(address indexed from, address indexed to, uint256 indexed tokenId);

    /// Registers a new agent for the sender. Registration is not idempotent: the same URI may be
    /// registered twice.
    function register(string agentURI) external returns (uint256 agentId);
    /// Changes the URI of an agent.
    function setAgentURI(uint256 agentId, string newURI) external;
    /// Owner of an agent. Reverts for an unknown agent; `getAgentWallet` and `getMetadata` do not.
    function ownerOf(uint256 tokenId) external view returns (address);
    /// URI of an agent. Reverts for an unknown agent.
    function tokenURI(uint256 tokenId) external view returns (string);
    /// Number of agents that an owner holds.
    function balanceOf(address owner) external view returns (uint256);
    /// Version of the contract.
    function getVersion() external pure returns (string);

    /// Most that publishing a transaction on L1 costs, by the size of its unsigned encoding in bytes
    /// (OP Stack since Fjord).
    function getL1FeeUpperBound(uint256 unsignedTxSize) external view returns (uint256);
    /// What publishing a transaction on L1 costs, by its unsigned encoding (OP Stack, Scroll).
    function getL1Fee(bytes data) external view returns (uint256);
    /// What the operator charges for gas (OP Stack since Isthmus).
    function getOperatorFee(uint256 gasUsed) external view returns (uint256);

    /// Name of a token (ERC-20).
    function name() external view returns (string);
    /// Version in the EIP-712 domain of a token, where it has one (as USDC does).
    function version() external view returns (string);
    /// Number of decimals of a token (ERC-20).
    function decimals() external view returns (uint8);
    /// Hash of the EIP-712 domain of a token (EIP-2612).
    function DOMAIN_SEPARATOR() external view returns (bytes32);
    /// Whether an authorization was used or cancelled (EIP-3009).
    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
    /// An authorization was used (EIP-3009).
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
}

/// Where rollups have their fee oracle: the OP Stack's and Scroll's `L1GasPriceOracle`. No one else
/// can deploy to these addresses.
pub(super) const FEE_ORACLES: [Address; 2] = [
    address!("420000000000000000000000000000000000000F"),
    address!("5300000000000000000000000000000000000002"),
];

/// Calldata of a registration with this URI.
#[must_use]
pub fn register(agent_uri: &str) -> Bytes {
    registerCall {
        agentURI: agent_uri.to_owned(),
    }
    .abi_encode()
    .into()
}

/// A call that changes the registry for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryCall {
    Register { agent_uri: String },
    SetAgentUri,
}

/// The call in some calldata, if it is one to a registry.
#[must_use]
pub fn registry_call(input: &[u8]) -> Option<RegistryCall> {
    match *input.first_chunk()? {
        setAgentURICall::SELECTOR => Some(RegistryCall::SetAgentUri),
        registerCall::SELECTOR => {
            let call = registerCall::abi_decode(input).ok()?;
            let agent_uri = call.agentURI;
            Some(RegistryCall::Register { agent_uri })
        }
        _ => None,
    }
}

/// Parses an agent id: a decimal number, as the contract counts agents.
#[must_use]
pub fn agent_id(text: &str) -> Option<U256> {
    U256::from_str_radix(text, 10).ok()
}

#[cfg(test)]
mod tests {
    use alloy::hex;
    use alloy::sol_types::SolEvent;

    use super::*;

    #[test]
    fn selectors_and_topics_match_the_deployed_contracts() {
        assert_eq!(hex::encode(registerCall::SELECTOR), "f2c298be");
        assert_eq!(hex::encode(setAgentURICall::SELECTOR), "0af28bd3");
        assert_eq!(hex::encode(ownerOfCall::SELECTOR), "6352211e");
        assert_eq!(hex::encode(tokenURICall::SELECTOR), "c87b56dd");
        assert_eq!(hex::encode(balanceOfCall::SELECTOR), "70a08231");
        assert_eq!(hex::encode(getVersionCall::SELECTOR), "0d8e6e2c");
        assert_eq!(hex::encode(getL1FeeUpperBoundCall::SELECTOR), "f1c7a58b");
        assert_eq!(hex::encode(getL1FeeCall::SELECTOR), "49948e0e");
        assert_eq!(hex::encode(nameCall::SELECTOR), "06fdde03");
        assert_eq!(hex::encode(versionCall::SELECTOR), "54fd4d50");
        assert_eq!(hex::encode(decimalsCall::SELECTOR), "313ce567");
        assert_eq!(hex::encode(DOMAIN_SEPARATORCall::SELECTOR), "3644e515");
        assert_eq!(hex::encode(authorizationStateCall::SELECTOR), "e94a0102");
        let registered = "ca52e62c367d81bb2e328eb795f7c7ba24afb478408a26c0e201d155c449bc4a";
        assert_eq!(hex::encode(Registered::SIGNATURE_HASH), registered);
        let used = "98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5";
        assert_eq!(hex::encode(AuthorizationUsed::SIGNATURE_HASH), used);
        let transfer = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
        assert_eq!(hex::encode(Transfer::SIGNATURE_HASH), transfer);
    }

    #[test]
    fn registration_calldata_contains_the_uri() {
        let decoded = registerCall::abi_decode(&register("https://x/agents/a.json")).unwrap();
        assert_eq!(decoded.agentURI, "https://x/agents/a.json");
    }

    #[test]
    fn agent_id_is_a_decimal_number_and_may_be_zero() {
        assert_eq!(agent_id("0"), Some(U256::ZERO));
        assert_eq!(agent_id("0x1"), None);
    }
}
