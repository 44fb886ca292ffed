//! Compares the ABI with values read from the deployed registry, and the bindings with the ABI.

use std::collections::BTreeSet;

use alloy::{
    hex,
    primitives::{B256, FixedBytes, b256, keccak256},
    sol_types::{SolEvent, SolInterface},
};
use contracts::{
    abi::IdentityRegistry::{
        IdentityRegistryCalls, IdentityRegistryErrors, IdentityRegistryEvents, Registered,
    },
    artifact::Contract,
};
use serde_json::Value;

/// Selector, signature, return types and state mutability.
const FUNCTIONS: &[(&str, &str, &str, &str)] = &[
    ("1aa3a008", "register()", "uint256", "nonpayable"),
    ("f2c298be", "register(string)", "uint256", "nonpayable"),
    (
        "8ea42286",
        "register(string,(string,bytes)[])",
        "uint256",
        "nonpayable",
    ),
    ("0af28bd3", "setAgentURI(uint256,string)", "", "nonpayable"),
    (
        "466648da",
        "setMetadata(uint256,string,bytes)",
        "",
        "nonpayable",
    ),
    ("cb4799f2", "getMetadata(uint256,string)", "bytes", "view"),
    ("00339509", "getAgentWallet(uint256)", "address", "view"),
    (
        "2d1ef5ae",
        "setAgentWallet(uint256,address,uint256,bytes)",
        "",
        "nonpayable",
    ),
    ("3fddcf19", "unsetAgentWallet(uint256)", "", "nonpayable"),
    (
        "d95e72be",
        "isAuthorizedOrOwner(address,uint256)",
        "bool",
        "view",
    ),
    ("c87b56dd", "tokenURI(uint256)", "string", "view"),
    ("6352211e", "ownerOf(uint256)", "address", "view"),
    ("70a08231", "balanceOf(address)", "uint256", "view"),
    ("0d8e6e2c", "getVersion()", "string", "pure"),
    (
        "84b0196e",
        "eip712Domain()",
        "bytes1,string,string,uint256,address,bytes32,uint256[]",
        "view",
    ),
    ("8da5cb5b", "owner()", "address", "view"),
    ("8129fc1c", "initialize()", "", "nonpayable"),
    ("4f1ef286", "upgradeToAndCall(address,bytes)", "", "payable"),
    ("52d1902d", "proxiableUUID()", "bytes32", "view"),
    ("095ea7b3", "approve(address,uint256)", "", "nonpayable"),
    (
        "a22cb465",
        "setApprovalForAll(address,bool)",
        "",
        "nonpayable",
    ),
    ("081812fc", "getApproved(uint256)", "address", "view"),
    (
        "e985e9c5",
        "isApprovedForAll(address,address)",
        "bool",
        "view",
    ),
    (
        "23b872dd",
        "transferFrom(address,address,uint256)",
        "",
        "nonpayable",
    ),
    (
        "42842e0e",
        "safeTransferFrom(address,address,uint256)",
        "",
        "nonpayable",
    ),
    (
        "b88d4fde",
        "safeTransferFrom(address,address,uint256,bytes)",
        "",
        "nonpayable",
    ),
    // Functions of the standards behind the rows above.
    ("06fdde03", "name()", "string", "view"),
    ("95d89b41", "symbol()", "string", "view"),
    ("01ffc9a7", "supportsInterface(bytes4)", "bool", "view"),
    ("f2fde38b", "transferOwnership(address)", "", "nonpayable"),
    ("715018a6", "renounceOwnership()", "", "nonpayable"),
    ("ad3cb1cc", "UPGRADE_INTERFACE_VERSION()", "string", "view"),
];

/// Topic, and signature with `*` after indexed parameters.
const EVENTS: &[(B256, &str)] = &[
    (
        b256!("ca52e62c367d81bb2e328eb795f7c7ba24afb478408a26c0e201d155c449bc4a"),
        "Registered(uint256*,string,address*)",
    ),
    (
        b256!("2c149ed548c6d2993cd73efe187df6eccabe4538091b33adbd25fafdb8a1468b"),
        "MetadataSet(uint256*,string*,string,bytes)",
    ),
    (
        b256!("3a2c7fffc2cba7582c690e3b82c453ea02a308326a98a3ad7576c606336409fb"),
        "URIUpdated(uint256*,string,address*)",
    ),
    (
        b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"),
        "Transfer(address*,address*,uint256*)",
    ),
    (
        b256!("f8e1a15aba9398e019f0b49df1a4fde98ee17ae345cb5f6b5e2c27f5033e8ce7"),
        "MetadataUpdate(uint256)",
    ),
];

/// Selectors of the errors that an operator may receive.
const ERRORS: &[(&str, &str)] = &[
    ("7e273289", "ERC721NonexistentToken(uint256)"),
    ("64a0ae92", "ERC721InvalidReceiver(address)"),
    ("177e802f", "ERC721InsufficientApproval(address,uint256)"),
    ("118cdaa7", "OwnableUnauthorizedAccount(address)"),
    ("f92ee8a9", "InvalidInitialization()"),
];

#[test]
fn registry_has_exactly_the_pinned_functions() {
    let artifact = Contract::IdentityRegistry.artifact().unwrap();
    let compiled: BTreeSet<_> = entries("function")
        .into_iter()
        .map(|function| {
            let signature = signature(&function, "");
            let selector = hex::encode(artifact.selectors[&signature]);
            let returned = types(&function["outputs"], "").join(",");
            (
                selector,
                signature,
                returned,
                text(&function["stateMutability"]),
            )
        })
        .collect();
    let pinned = FUNCTIONS
        .iter()
        .map(|(a, b, c, d)| (a.to_string(), b.to_string(), c.to_string(), d.to_string()));
    assert_eq!(compiled, pinned.collect());
}

#[test]
fn registry_has_the_pinned_events() {
    let compiled: BTreeSet<_> = entries("event")
        .into_iter()
        .map(|event| (keccak256(signature(&event, "")), signature(&event, "*")))
        .collect();
    for (topic, signature) in EVENTS {
        assert!(
            compiled.contains(&(*topic, signature.to_string())),
            "{signature} {topic}"
        );
    }
}

#[test]
fn registry_has_the_pinned_errors() {
    let compiled: BTreeSet<_> = entries("error")
        .iter()
        .map(|error| signature(error, ""))
        .collect();
    for (selector, signature) in ERRORS {
        assert!(compiled.contains(*signature), "{signature}");
        assert_eq!(
            hex::encode(&keccak256(signature)[..4]),
            *selector,
            "{signature}"
        );
    }
}

#[test]
fn bindings_match_the_abi_exactly() {
    let selectors = |kind| -> BTreeSet<[u8; 4]> {
        let hashes = entries(kind)
            .into_iter()
            .map(|entry| keccak256(signature(&entry, "")));
        hashes
            .map(|hash| *FixedBytes::<4>::from_slice(&hash[..4]))
            .collect()
    };
    assert_eq!(
        IdentityRegistryCalls::selectors().collect::<BTreeSet<_>>(),
        selectors("function")
    );
    assert_eq!(
        IdentityRegistryErrors::selectors().collect::<BTreeSet<_>>(),
        selectors("error")
    );
    let topics: BTreeSet<_> = entries("event")
        .into_iter()
        .map(|event| keccak256(signature(&event, "")))
        .collect();
    assert_eq!(
        IdentityRegistryEvents::SELECTORS
            .iter()
            .copied()
            .map(B256::from)
            .collect::<BTreeSet<_>>(),
        topics
    );
    assert_eq!(Registered::SIGNATURE_HASH, EVENTS[0].0);
}

fn entries(kind: &str) -> Vec<Value> {
    let abi = Contract::IdentityRegistry.artifact().unwrap().abi;
    abi.into_iter()
        .filter(|entry| entry["type"] == kind)
        .collect()
}

fn signature(entry: &Value, mark: &str) -> String {
    format!(
        "{}({})",
        text(&entry["name"]),
        types(&entry["inputs"], mark).join(",")
    )
}

/// Canonical types, with a mark after indexed ones.
fn types(parameters: &Value, mark: &str) -> Vec<String> {
    let parameters = parameters.as_array().unwrap();
    let marked = |parameter: &Value| {
        let kind = text(&parameter["type"]);
        let kind = match kind.strip_prefix("tuple") {
            Some(array) => format!("({}){array}", types(&parameter["components"], "").join(",")),
            None => kind,
        };
        kind + if parameter["indexed"] == true {
            mark
        } else {
            ""
        }
    };
    parameters.iter().map(marked).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
