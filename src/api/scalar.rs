//! Numbers that are encoded as strings, because JSON numbers lose digits above 2^53 and map keys
//! are strings anyway.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An account nonce (EIP-2681 bounds it to 2^64 - 2; the schema to 16 digits, exact in every JSON
/// reader).
///
/// As a map key it is a decimal string. `"30"` and `"030"` would be two owners of one nonce, so
/// only the canonical form decodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

impl Nonce {
    /// The nonce after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Nonce {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let nonce = Self(
            text.parse()
                .map_err(|_| format!("nonce {text:?} is not a decimal number"))?,
        );
        if nonce.to_string() == text {
            Ok(nonce)
        } else {
            Err(format!("nonce {text:?} is not written as {nonce}"))
        }
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Encodes a nonce as a number in fields; only map keys need a string.
pub(super) mod nonce_as_number {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Nonce;

    pub(crate) fn serialize<S: Serializer>(
        nonce: &Nonce,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(nonce.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Nonce, D::Error> {
        u64::deserialize(deserializer).map(Nonce)
    }
}

/// An amount of the chain's native token in its smallest unit, 10^-18 of the token. Encoded as a
/// decimal string; the schema allows 38 digits, which fit into 128 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wei(pub u128);

impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Wei {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wei {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// How many agents an account holds in a registry (ERC-721 `balanceOf`). Encoded as a decimal
/// string; the schema allows 77 digits, which fit into 256 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentCount(pub U256);

impl fmt::Display for AgentCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for AgentCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AgentCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        U256::from_str_radix(&text, 10)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn nonce_as_a_map_key_is_a_decimal_string() {
        let map = BTreeMap::from([(Nonce(9), 'a'), (Nonce(10), 'b')]);
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(json, r#"{"9":"a","10":"b"}"#);
        assert_eq!(
            serde_json::from_str::<BTreeMap<Nonce, char>>(&json).unwrap(),
            map
        );
    }

    #[test]
    fn nonce_in_a_non_canonical_form_does_not_decode() {
        for text in ["030", "+3", "", "-1", "3.0", "18446744073709551616"] {
            assert!(text.parse::<Nonce>().is_err(), "{text}");
        }
    }

    #[test]
    fn wei_holds_every_amount_that_the_schema_allows() {
        let text = format!("\"{}\"", "9".repeat(38));
        let wei: Wei = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&wei).unwrap(), text);
        assert!(serde_json::from_str::<Wei>("\"0x10\"").is_err());
    }

    #[test]
    fn agent_count_holds_every_number_that_the_schema_allows() {
        let text = format!("\"{}\"", "9".repeat(77));
        let count: AgentCount = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&count).unwrap(), text);
        assert!(serde_json::from_str::<AgentCount>("\"0x10\"").is_err());
    }
}
