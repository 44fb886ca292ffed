// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {OwnableUpgradeable} from "@openzeppelin/contracts-upgradeable/access/OwnableUpgradeable.sol";

/// @title What the registry's proxy runs before it runs the registry
/// @notice The registry's initializer takes no argument and answers to the owner alone, so the owner must be there
/// first: the proxy is deployed on this, with an owner, and then upgraded.
contract Genesis is OwnableUpgradeable, UUPSUpgradeable {
    constructor() {
        _disableInitializers();
    }

    /// @notice Makes `firstOwner` the owner of the proxy.
    function initialize(address firstOwner) external initializer {
        __Ownable_init(firstOwner);
    }

    /// @dev ERC-1822: only the owner may put the registry in place.
    function _authorizeUpgrade(address) internal override onlyOwner {}
}
