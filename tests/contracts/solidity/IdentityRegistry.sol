// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {OwnableUpgradeable} from "@openzeppelin/contracts-upgradeable/access/OwnableUpgradeable.sol";
import {ERC721Upgradeable} from "@openzeppelin/contracts-upgradeable/token/ERC721/ERC721Upgradeable.sol";
import {
    ERC721URIStorageUpgradeable
} from "@openzeppelin/contracts-upgradeable/token/ERC721/extensions/ERC721URIStorageUpgradeable.sol";
import {EIP712Upgradeable} from "@openzeppelin/contracts-upgradeable/utils/cryptography/EIP712Upgradeable.sol";

/// @title A double of the ERC-8004 Identity Registry, version 2.0.0
/// @notice Written from the ABI and observed behavior of the deployed registry, so that an operator cannot distinguish
/// them: each agent is an ERC-721 token whose URI names its registration file, plus metadata by key. For tests only.
contract IdentityRegistry is ERC721URIStorageUpgradeable, OwnableUpgradeable, UUPSUpgradeable, EIP712Upgradeable {
    /// @notice One metadata value to store at registration.
    struct MetadataEntry {
        string metadataKey;
        bytes metadataValue;
    }

    /// @notice An agent was registered. The URI is not indexed, so that it can be read from the log.
    event Registered(uint256 indexed agentId, string agentURI, address indexed owner);

    /// @notice A metadata value was written. The key appears twice: hashed to filter by, and readable.
    event MetadataSet(
        uint256 indexed agentId, string indexed indexedMetadataKey, string metadataKey, bytes metadataValue
    );

    /// @notice An agent's URI was changed after registration.
    event URIUpdated(uint256 indexed agentId, string newURI, address indexed updatedBy);

    /// @dev The key that ERC-8004 reserves: it is a claim about a wallet, so only the registry may write it.
    string private constant WALLET_KEY = "agentWallet";

    /// @dev Maximum validity of a wallet's consent.
    uint256 private constant MAX_DEADLINE_DELAY = 5 minutes;

    /// @dev EIP-712 type that a new wallet signs. It names the owner, so that a transfer invalidates the consent.
    bytes32 private constant WALLET_TYPEHASH =
        keccak256("AgentWalletSet(uint256 agentId,address newWallet,address owner,uint256 deadline)");

    /// @dev Ids start at 0, so that tests reveal a caller that treats 0 as "none".
    uint256 private _nextId;

    mapping(uint256 agentId => mapping(string metadataKey => bytes)) private _metadata;

    /// @dev Same rule as the deployed registry: the owner, an operator of the owner, or the address approved for this agent.
    modifier onlyAuthorized(uint256 agentId) {
        require(isAuthorizedOrOwner(msg.sender, agentId), "Not authorized");
        _;
    }

    /// @dev Only the proxy is initialized (ERC-1967, ERC-1822).
    constructor() {
        _disableInitializers();
    }

    /// @notice Names the token and the EIP-712 domain. The proxy had an owner before this implementation, hence version
    /// 2 and no argument.
    function initialize() external reinitializer(2) onlyOwner {
        __ERC721_init("AgentIdentity", "AGENT");
        __EIP712_init("ERC8004IdentityRegistry", "1");
    }

    /// @notice Registers an agent without a URI.
    function register() external returns (uint256 agentId) {
        agentId = _mintNext();
        _announce(agentId, "");
    }

    /// @notice Registers an agent. Anyone may register the same URI any number of times; each registration gets a new id.
    function register(string calldata agentURI) public returns (uint256 agentId) {
        agentId = _mintNext();
        _setTokenURI(agentId, agentURI);
        _announce(agentId, agentURI);
    }

    /// @notice Registers an agent and stores its metadata, in the given order.
    function register(string calldata agentURI, MetadataEntry[] calldata metadata) external returns (uint256 agentId) {
        agentId = register(agentURI);
        for (uint256 i = 0; i < metadata.length; i++) {
            _writeUnreserved(agentId, metadata[i].metadataKey, metadata[i].metadataValue);
        }
    }

    /// @notice Replaces an agent's URI. Writes and emits an unchanged URI again.
    function setAgentURI(uint256 agentId, string calldata newURI) external onlyAuthorized(agentId) {
        _setTokenURI(agentId, newURI);
        emit URIUpdated(agentId, newURI, msg.sender);
    }

    /// @notice Writes one metadata value. Writes and emits an unchanged value again. Any key is allowed except the
    /// reserved one; the empty key is a key.
    function setMetadata(uint256 agentId, string calldata metadataKey, bytes calldata metadataValue)
        external
        onlyAuthorized(agentId)
    {
        _writeUnreserved(agentId, metadataKey, metadataValue);
    }

    /// @notice Sets the agent's wallet, which must consent: by an ECDSA signature, or by ERC-1271 if it is a contract.
    function setAgentWallet(uint256 agentId, address newWallet, uint256 deadline, bytes calldata signature)
        external
        onlyAuthorized(agentId)
    {
        require(newWallet != address(0), "bad wallet");
        require(block.timestamp <= deadline, "expired");
        require(deadline <= block.timestamp + MAX_DEADLINE_DELAY, "deadline too far");
        bytes32 digest = _hashTypedDataV4(
            keccak256(abi.encode(WALLET_TYPEHASH, agentId, newWallet, ownerOf(agentId), deadline))
        );
        require(_consents(newWallet, digest, signature), "invalid wallet sig");
        _writeMetadata(agentId, WALLET_KEY, abi.encodePacked(newWallet));
    }

    /// @notice Removes the agent's wallet.
    function unsetAgentWallet(uint256 agentId) external onlyAuthorized(agentId) {
        _writeMetadata(agentId, WALLET_KEY, "");
    }

    /// @notice A metadata value; empty if it was never written, and for an id that does not exist.
    function getMetadata(uint256 agentId, string calldata metadataKey) external view returns (bytes memory) {
        return _metadata[agentId][metadataKey];
    }

    /// @notice The agent's wallet; zero if it has none, and for an id that does not exist.
    function getAgentWallet(uint256 agentId) external view returns (address) {
        return address(bytes20(_metadata[agentId][WALLET_KEY]));
    }

    /// @notice Whether `spender` may change the agent. Reverts for an id that does not exist.
    function isAuthorizedOrOwner(address spender, uint256 agentId) public view returns (bool) {
        return _isAuthorized(ownerOf(agentId), spender, agentId);
    }

    /// @notice The registry's version, by which an operator recognizes it.
    function getVersion() external pure returns (string memory) {
        return "2.0.0";
    }

    /// @dev A transfer removes the wallet, and emits that before the transfer itself. All other metadata stays.
    function _update(address to, uint256 agentId, address auth) internal override returns (address from) {
        if (_ownerOf(agentId) != address(0)) {
            _writeMetadata(agentId, WALLET_KEY, "");
        }
        return super._update(to, agentId, auth);
    }

    /// @dev ERC-1822: only the owner of the registry may change its code.
    function _authorizeUpgrade(address) internal override onlyOwner {}

    /// @dev A safe mint: a contract that rejects ERC-721 tokens cannot register.
    function _mintNext() private returns (uint256 agentId) {
        agentId = _nextId++;
        _safeMint(msg.sender, agentId);
    }

    /// @dev The registrant is the agent's first wallet, without a signature.
    function _announce(uint256 agentId, string memory agentURI) private {
        emit Registered(agentId, agentURI, msg.sender);
        _writeMetadata(agentId, WALLET_KEY, abi.encodePacked(msg.sender));
    }

    function _writeUnreserved(uint256 agentId, string calldata metadataKey, bytes calldata metadataValue) private {
        require(keccak256(bytes(metadataKey)) != keccak256(bytes(WALLET_KEY)), "reserved key");
        _writeMetadata(agentId, metadataKey, metadataValue);
    }

    function _writeMetadata(uint256 agentId, string memory metadataKey, bytes memory metadataValue) private {
        _metadata[agentId][metadataKey] = metadataValue;
        emit MetadataSet(agentId, metadataKey, metadataKey, metadataValue);
    }

    /// @dev ECDSA first, even if the wallet has code: an EIP-7702 account still signs with its key.
    function _consents(address wallet, bytes32 digest, bytes calldata signature) private view returns (bool) {
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecover(digest, signature);
        if (failure == ECDSA.RecoverError.NoError && signer == wallet) {
            return true;
        }
        return SignatureChecker.isValidERC1271SignatureNow(wallet, digest, signature);
    }
}
