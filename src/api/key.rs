//! The key of an agent, which names its record.
//!
//! A record is cluster-scoped and its name is derived from the key, so that creating it is a
//! cluster-wide test-and-set.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, U256, keccak256};
use alloy::sol_types::SolValue;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of base32 characters of a [`Key`]: 80 bits at 5 bits each.
const LENGTH: usize = 16;

/// First 80 bits of `keccak256(abi.encode(identity, chainId, registry, edition))` in lower-case RFC
/// 4648 base32.
///
/// It depends only on the agent's identity, and on nothing that changes when an offer is deleted
/// and recreated (no uid), so the same offer always finds the same record. It is short because it
/// is part of the agentURI, whose length costs gas. At 80 bits an accidental collision needs about
/// 2^40 agents, and the fields of a record are compared as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; LENGTH]);

impl Key {
    /// Derives the key of one agent on one registry.
    pub(crate) fn derive(identity: &str, chain_id: u64, registry: Address, edition: u32) -> Self {
        let preimage =
            (identity.to_owned(), U256::from(chain_id), registry, edition).abi_encode_params();
        let digest = keccak256(preimage);
        let mut text = [0; LENGTH];
        BASE32_NOPAD.encode_mut(&digest[..10], &mut text);
        text.make_ascii_lowercase();
        Self(text)
    }

    /// The key as written in names, URIs and documents.
    pub(crate) fn as_str(&self) -> &str {
        // Every constructor checks the alphabet, so these bytes are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Name of this agent's AgentRegistration.
    #[must_use]
    pub fn record_name(&self) -> String {
        format!("r-{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: [u8; LENGTH] = text
            .as_bytes()
            .try_into()
            .map_err(|_| format!("key {text:?} is not {LENGTH} characters long"))?;
        let is_base32 = bytes
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        if is_base32 {
            Ok(Self(bytes))
        } else {
            Err(format!("key {text:?} is not lower-case base32"))
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::address;

    use super::*;

    const REGISTRY: Address = address!("8004A818BFB912233c491871b3d84c89A494BD9e");

    #[test]
    fn key_of_a_known_agent_never_changes() {
        let key = Key::derive("llm/chat", 84532, REGISTRY, 1);
        assert_eq!(key.as_str(), "ruketrjggivda2pe");
        assert_eq!(key.record_name(), "r-ruketrjggivda2pe");
    }

    #[test]
    fn key_changes_with_every_part_of_the_identity() {
        let key = Key::derive("llm/chat", 84532, REGISTRY, 1);
        assert_ne!(key, Key::derive("llm/chat2", 84532, REGISTRY, 1));
        assert_ne!(key, Key::derive("llm/chat", 8453, REGISTRY, 1));
        assert_ne!(key, Key::derive("llm/chat", 84532, Address::ZERO, 1));
        assert_ne!(key, Key::derive("llm/chat", 84532, REGISTRY, 2));
    }

    #[test]
    fn key_parses_only_from_16_lower_case_base32_characters() {
        for text in [
            "",
            "abc",
            "ABCDEFGHABCDEFGH",
            "abcdefghabcdefg1",
            "abcdefghabcdefghi",
            "äbcdefghabcdefg",
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        let key = Key::derive("", 1, REGISTRY, 1);
        assert_eq!(key.to_string().parse(), Ok(key));
    }
}
