//! Bindings of the registry, its proxy and the first implementation behind it.
//!
//! Written by hand from the deployed registry, not generated from the test double: a test compares
//! them with the compiler's ABI. `solidity/IdentityRegistry.sol` documents each function.

use alloy::sol;

sol! {
    /// The registry, as seen through its proxy.
    #[sol(rpc)]
    #[derive(Debug, PartialEq, Eq)]
    contract IdentityRegistry {
        struct MetadataEntry {
            string metadataKey;
            bytes metadataValue;
        }

        function register() external returns (uint256 agentId);
        function register(string agentURI) external returns (uint256 agentId);
        function register(string agentURI, MetadataEntry[] metadata) external returns (uint256 agentId);
        function setAgentURI(uint256 agentId, string newURI) external;
        function setMetadata(uint256 agentId, string metadataKey, bytes metadataValue) external;
        function getMetadata(uint256 agentId, string metadataKey) external view returns (bytes);
        function getAgentWallet(uint256 agentId) external view returns (address);
        function setAgentWallet(uint256 agentId, address newWallet, uint256 deadline, bytes signature) external;
        function unsetAgentWallet(uint256 agentId) external;
        function isAuthorizedOrOwner(address spender, uint256 agentId) external view returns (bool);
        function getVersion() external pure returns (string);

        event Registered(uint256 indexed agentId, string agentURI, address indexed owner);
        event MetadataSet(
            uint256 indexed agentId, string indexed indexedMetadataKey, string metadataKey, bytes metadataValue
        );
        event URIUpdated(uint256 indexed agentId, string newURI, address indexed updatedBy);

        // ERC-721, with its metadata extension
        function name() external view returns (string);
        function symbol() external view returns (string);
        function tokenURI(uint256 tokenId) external view returns (string);
        function balanceOf(address owner) external view returns (uint256);
        function ownerOf(uint256 tokenId) external view returns (address);
        function approve(address to, uint256 tokenId) external;
        function getApproved(uint256 tokenId) external view returns (address);
        function setApprovalForAll(address operator, bool approved) external;
        function isApprovedForAll(address owner, address operator) external view returns (bool);
        function transferFrom(address from, address to, uint256 tokenId) external;
        function safeTransferFrom(address from, address to, uint256 tokenId) external;
        function safeTransferFrom(address from, address to, uint256 tokenId, bytes data) external;
        function supportsInterface(bytes4 interfaceId) external view returns (bool);

        event Transfer(address indexed from, address indexed to, uint256 indexed tokenId);
        event Approval(address indexed owner, address indexed approved, uint256 indexed tokenId);
        event ApprovalForAll(address indexed owner, address indexed operator, bool approved);

        error ERC721InvalidOwner(address owner);
        error ERC721NonexistentToken(uint256 tokenId);
        error ERC721IncorrectOwner(address sender, uint256 tokenId, address owner);
        error ERC721InvalidSender(address sender);
        error ERC721InvalidReceiver(address receiver);
        error ERC721InsufficientApproval(address operator, uint256 tokenId);
        error ERC721InvalidApprover(address approver);
        error ERC721InvalidOperator(address operator);

        // ERC-4906
        event MetadataUpdate(uint256 _tokenId);
        event BatchMetadataUpdate(uint256 _fromTokenId, uint256 _toTokenId);

        // EIP-712 and ERC-5267
        function eip712Domain()
            external
            view
            returns (
                bytes1 fields,
                string name,
                string version,
                uint256 chainId,
                address verifyingContract,
                bytes32 salt,
                uint256[] extensions
            );
        event EIP712DomainChanged();

        // The owner of the registry
        function initialize() external;
        function owner() external view returns (address);
        function transferOwnership(address newOwner) external;
        function renounceOwnership() external;
        event Initialized(uint64 version);
        event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);
        error InvalidInitialization();
        error NotInitializing();
        error OwnableInvalidOwner(address owner);
        error OwnableUnauthorizedAccount(address account);

        // ERC-1822 behind ERC-1967
        function upgradeToAndCall(address newImplementation, bytes data) external payable;
        function proxiableUUID() external view returns (bytes32);
        function UPGRADE_INTERFACE_VERSION() external view returns (string);
        event Upgraded(address indexed implementation);
        error AddressEmptyCode(address target);
        error ERC1967InvalidImplementation(address implementation);
        error ERC1967NonPayable();
        error FailedCall();
        error UUPSUnauthorizedCallContext();
        error UUPSUnsupportedProxiableUUID(bytes32 slot);
    }

    /// The registry's proxy.
    contract Proxy {
        constructor(address implementation, bytes _data) payable;
    }

    /// First implementation of the proxy, until it is upgraded to the registry.
    contract Genesis {
        function initialize(address firstOwner) external;
    }

    /// Message that a new wallet of an agent signs, under the registry's EIP-712 domain.
    #[derive(Debug)]
    struct AgentWalletSet {
        uint256 agentId;
        address newWallet;
        address owner;
        uint256 deadline;
    }
}
