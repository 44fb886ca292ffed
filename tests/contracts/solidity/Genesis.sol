// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {OwnableUpgradeable} from "@openzeppelin/contracts-upgradeable/access/OwnableUpgradeable.sol";

/// @title First implementation of the registry's proxy
/// @notice The registry's initializer takes no argument and only the owner may call it, so the proxy needs an owner
/// first: it is deployed with this implementation, then upgraded to the registry.
contract Genesis is OwnableUpgradeable, UUPSUpgradeable {
    constructor() {
        _disableInitializers();
    }

    /// @notice Makes `firstOwner` the owner of the proxy.
    function initialize(address firstOwner) external initializer {
        __Ownable_init(firstOwner);
    }

    /// @dev ERC-1822: only the owner may upgrade to the registry.
    function _authorizeUpgrade(address) internal override onlyOwner {}
}
