//! Whether an address that a person wrote fails its own checksum (EIP-55).

use alloy::primitives::Address;

/// An address that is not what its writer meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field} {address} is mistyped: its checksum (EIP-55) does not match. Copy it again, or write it in lower case"
)]
pub(crate) struct MistypedAddress {
    /// Path of the field that has it.
    pub field: String,
    /// As it is written.
    pub address: String,
}

/// An address in mixed case carries a checksum; one in a single case carries none and is accepted.
///
/// # Errors
/// If the address of this field fails its checksum.
pub(crate) fn check(field: impl Into<String>, address: &str) -> Result<(), MistypedAddress> {
    let letters = || {
        address
            .trim_start_matches("0x")
            .chars()
            .filter(char::is_ascii_alphabetic)
    };
    let mixed = letters().any(|letter| letter.is_ascii_lowercase())
        && letters().any(|letter| letter.is_ascii_uppercase());
    if mixed && Address::parse_checksummed(address, None).is_err() {
        return Err(MistypedAddress {
            field: field.into(),
            address: address.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKSUMMED: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    #[test]
    fn address_in_mixed_case_must_match_its_checksum() {
        let accepted = [
            CHECKSUMMED,
            &CHECKSUMMED.to_lowercase(),
            &CHECKSUMMED.to_uppercase().replace("0X", "0x"),
        ];
        for address in accepted {
            assert_eq!(check("spec.address", address), Ok(()));
        }
        let other_case = CHECKSUMMED.replace("c79C8", "c79c8");
        let other_digit = CHECKSUMMED.replace("70C5", "71C5");
        for address in [other_case, other_digit] {
            assert_eq!(
                check("spec.address", &address).unwrap_err().to_string(),
                format!(
                    "spec.address {address} is mistyped: its checksum (EIP-55) does not match. \
                     Copy it again, or write it in lower case"
                )
            );
        }
    }
}
