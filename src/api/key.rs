//! The key of an agent: the name under which its record is a cluster-wide test-and-set.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, U256, keccak256};
use alloy::sol_types::SolValue;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of base32 characters of a [`Key`]: 80 bits at 5 bits each.
const LENGTH: usize = 16;

/// First 80 bits of `keccak256(abi.encode(identity, chainId, registry, edition))` in lower-case RFC 4648 base32.
///
/// It depends on what an agent *is* and on nothing that changes when an offer is deleted and recreated (no uid), so
/// the same offer always finds the same record. It is short because it is part of the agentURI, which costs gas by
/// length; 80 bits make an accidental collision (2^40 agents) irrelevant, and a record's own fields are compared too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; LENGTH]);

impl Key {
    /// The key of one agent on one registry.
    #[must_use]
    pub fn derive(identity: &str, chain_id: u64, registry: Address, edition: u32) -> Self {
        let preimage =
            (identity.to_owned(), U256::from(chain_id), registry, edition).abi_encode_params();
        let digest = keccak256(preimage);
        let mut text = [0; LENGTH];
        BASE32_NOPAD.encode_mut(&digest[..10], &mut text);
        text.make_ascii_lowercase();
        Self(text)
    }

    /// The key as it stands in names, URIs and documents.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Every constructor checks the alphabet, so these bytes are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Name of the AgentRegistration that records this agent.
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
        match bytes
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
        {
            true => Ok(Self(bytes)),
            false => Err(format!("key {text:?} is not lower-case base32")),
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
    fn the_key_of_a_known_agent_never_changes() {
        let key = Key::derive("llm/chat", 84532, REGISTRY, 1);
        assert_eq!(key.as_str(), "ruketrjggivda2pe");
        assert_eq!(key.record_name(), "r-ruketrjggivda2pe");
    }

    #[test]
    fn every_part_of_an_identity_changes_the_key() {
        let key = Key::derive("llm/chat", 84532, REGISTRY, 1);
        assert_ne!(key, Key::derive("llm/chat2", 84532, REGISTRY, 1));
        assert_ne!(key, Key::derive("llm/chat", 8453, REGISTRY, 1));
        assert_ne!(key, Key::derive("llm/chat", 84532, Address::ZERO, 1));
        assert_ne!(key, Key::derive("llm/chat", 84532, REGISTRY, 2));
    }

    #[test]
    fn only_lower_case_base32_of_full_length_is_a_key() {
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
