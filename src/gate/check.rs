//! What can be checked of a payment without asking anyone: that it pays for this route, in time, and
//! who signed it. Pure.
//!
//! No check relies on what the buyer says about price, recipient or resource: the terms of the
//! route are compared with what was signed (EIP-3009, EIP-712).

use std::fmt;

use alloy::primitives::{B256, Signature, U256, keccak256};
use alloy::sol;
use alloy::sol_types::{Eip712Domain, SolStruct, SolValue};

use super::path::{CanonicalPath, path_of};
use super::terms::Terms;
use super::wire::{Authorization, SignedPayment};

/// Seconds for which a payment must still be valid once it is settled: facilitators refuse one that
/// ends within 6 s.
pub(crate) const MARGIN: u64 = 7;
/// Seconds that are kept for the settlement.
pub(crate) const SETTLING: u64 = 30;
/// Seconds by which the buyer's clock may be ahead, and by which an authorization may last longer than
/// its terms say.
pub(crate) const LENIENCE: u64 = 600;
/// Seconds for which another gate may go on after this one has begun: a rollout lets open requests
/// finish.
pub(crate) const OVERLAP: u64 = 600;
/// Bytes of an ECDSA signature.
const ECDSA_BYTES: usize = 65;

sol! {
    /// The message of EIP-3009.
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

/// Identity of a payment: the hash of chain, token, payer and nonce. The token moves money once for
/// it, however the payment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PaymentId(pub B256);

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a payment that is made on these terms.
pub(crate) fn payment_id(terms: &Terms, authorization: &Authorization) -> PaymentId {
    let fields = (
        U256::from(terms.chain_id),
        terms.token.address,
        authorization.from,
        authorization.nonce,
    );
    PaymentId(keccak256(fields.abi_encode()))
}

/// Why a payment does not pay for a route: the request is answered 402. The text is the reason that
/// buyers see; where x402 has a word for it, it is that word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("invalid_exact_evm_payload_authorization_value_mismatch")]
    Value,
    #[error("invalid_exact_evm_payload_recipient_mismatch")]
    Recipient,
    #[error("resource_mismatch")]
    Resource,
    #[error("invalid_exact_evm_payload_authorization_valid_after")]
    NotYetValid,
    #[error("payment_expires_too_soon")]
    ExpiresTooSoon,
    #[error("payment_expires_too_late")]
    ExpiresTooLate,
    #[error("invalid_exact_evm_payload_signature")]
    Signature,
}

/// Checks what does not depend on the time: amount, recipient and resource. The resource has the path of
/// the request, or that of the URL which buyers see: a proxy may have replaced one by the other.
///
/// # Errors
/// The first thing that does not fit the terms or the request.
pub(crate) fn check_form(
    payment: &SignedPayment,
    terms: &Terms,
    path: &str,
    url: &str,
) -> Result<(), Invalid> {
    let authorization = &payment.authorization;
    if authorization.value != terms.amount {
        return Err(Invalid::Value);
    }
    if authorization.to != terms.pay_to {
        return Err(Invalid::Recipient);
    }
    let is_asked = |resource: &str| {
        let paid_for = canonical_path(resource);
        paid_for.as_deref() == Some(path) || (paid_for.is_some() && paid_for == canonical_path(url))
    };
    match payment.resource.as_deref() {
        Some(resource) if !is_asked(resource) => Err(Invalid::Resource),
        _ => Ok(()),
    }
}

/// The canonical path of a URL. One without a path means the root.
fn canonical_path(url: &str) -> Option<String> {
    let path = match path_of(url)? {
        "" => "/",
        path => path,
    };
    Some(CanonicalPath::new(path).ok()?.as_str().to_owned())
}

/// Checks that there is time for work and settlement. Returns the seconds that the work may take.
/// `most` is how long the terms let a payment last: what is known of it is kept as long.
///
/// # Errors
/// If the payment is not valid yet, ends too soon, or does not end in time.
pub(crate) fn check_window(
    authorization: &Authorization,
    most: u32,
    now: u64,
) -> Result<u64, Invalid> {
    if authorization.valid_after >= U256::from(now) {
        return Err(Invalid::NotYetValid);
    }
    let left = authorization.valid_before.saturating_sub(U256::from(now));
    let left = left.saturating_to::<u64>();
    if left > u64::from(most) + LENIENCE {
        return Err(Invalid::ExpiresTooLate);
    }
    match left.checked_sub(SETTLING + MARGIN) {
        Some(work @ 1..) => Ok(work),
        _ => Err(Invalid::ExpiresTooSoon),
    }
}

/// Whether a payment may have been presented to a gate that served before `begun`, in Unix seconds, or
/// to one that went on for a while. A token moves nothing before `validAfter` (EIP-3009), so that a
/// later payment cannot have bought anything there.
pub(crate) fn may_be_older(authorization: &Authorization, begun: u64) -> bool {
    authorization.valid_after < U256::from(begun.saturating_add(OVERLAP))
}

/// What a signature proves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The payer's key signed.
    ByPayer,
    /// It may be the signature of a contract: only the chain can tell (EIP-1271).
    Unproven,
}

/// Checks who signed an authorization.
///
/// # Errors
/// If an ECDSA signature is malleable: tokens refuse a high `s`.
pub(crate) fn check_signature(payment: &SignedPayment, terms: &Terms) -> Result<Signed, Invalid> {
    if payment.signature.len() != ECDSA_BYTES {
        return Ok(Signed::Unproven);
    }
    let signature = Signature::from_raw(&payment.signature).map_err(|_| Invalid::Signature)?;
    if signature.normalize_s().is_some() {
        return Err(Invalid::Signature);
    }
    let hash = signing_hash(&payment.authorization, terms);
    let signer = signature.recover_address_from_prehash(&hash);
    Ok(match signer {
        Ok(signer) if signer == payment.authorization.from => Signed::ByPayer,
        _ => Signed::Unproven,
    })
}

/// The hash that the payer signs (EIP-712).
pub(crate) fn signing_hash(authorization: &Authorization, terms: &Terms) -> B256 {
    let domain = Eip712Domain::new(
        Some(terms.token.name.clone().into()),
        Some(terms.token.version.clone().into()),
        Some(U256::from(terms.chain_id)),
        Some(terms.token.address),
        None,
    );
    let message = TransferWithAuthorization {
        from: authorization.from,
        to: authorization.to,
        value: authorization.value,
        validAfter: authorization.valid_after,
        validBefore: authorization.valid_before,
        nonce: authorization.nonce,
    };
    message.eip712_signing_hash(&domain)
}

#[cfg(test)]
mod tests {
    use alloy::signers::SignerSync;

    use super::*;
    use crate::gate::wire::Version;
    use crate::gate::wire::tests::{payment, signer, terms};

    const PATH: &str = "/services/chat/v1";

    #[test]
    fn payment_for_the_route_passes() {
        for version in [Version::V1, Version::V2] {
            assert_eq!(check_form(&payment(version), &terms(), PATH, ""), Ok(()));
        }
    }

    #[test]
    fn payment_for_something_else_is_refused() {
        let expensive = Terms {
            amount: U256::from(2001),
            ..terms()
        };
        let paid = payment(Version::V2);
        assert_eq!(check_form(&paid, &expensive, PATH, ""), Err(Invalid::Value));
        let other = Terms {
            pay_to: signer().address(),
            ..terms()
        };
        assert_eq!(check_form(&paid, &other, PATH, ""), Err(Invalid::Recipient));
        for path in ["/services/chat", "/services/chat/v2"] {
            assert_eq!(
                check_form(&paid, &terms(), path, ""),
                Err(Invalid::Resource)
            );
        }
        for url in [
            "shop.example",
            "https://shop.example/a//b",
            "https://shop.example/%zz",
        ] {
            let mut paid = payment(Version::V2);
            paid.resource = Some(url.to_owned());
            assert_eq!(
                check_form(&paid, &terms(), PATH, ""),
                Err(Invalid::Resource),
                "{url}"
            );
        }
        let mut paid = payment(Version::V2);
        paid.resource = Some("https://shop.example?a=b".to_owned());
        assert_eq!(check_form(&paid, &terms(), "/", ""), Ok(()));
    }

    #[test]
    fn payment_must_leave_time_for_work_and_settlement() {
        let window = |after: u64, before: u64, now: u64| {
            let authorization = Authorization {
                valid_after: U256::from(after),
                valid_before: U256::from(before),
                ..payment(Version::V2).authorization
            };
            check_window(&authorization, 300, now)
        };
        assert_eq!(window(0, 1900, 1000), Ok(863));
        for before in [1901, u64::MAX] {
            assert_eq!(window(0, before, 1000), Err(Invalid::ExpiresTooLate));
        }
        assert_eq!(window(0, 1038, 1000), Ok(1));
        assert_eq!(window(0, 1300, 1000), Ok(263));
        assert_eq!(window(0, 1037, 1000), Err(Invalid::ExpiresTooSoon));
        assert_eq!(window(0, 900, 1000), Err(Invalid::ExpiresTooSoon));
        assert_eq!(window(1000, 2000, 1000), Err(Invalid::NotYetValid));
        assert_eq!(window(999, 1500, 1000), Ok(463));
    }

    #[test]
    fn payment_is_known_to_be_later_only_by_its_beginning() {
        let mut authorization = payment(Version::V2).authorization;
        assert!(may_be_older(&authorization, 0), "valid since ever");
        authorization.valid_after = U256::from(1000 + OVERLAP - 1);
        assert!(may_be_older(&authorization, 1000));
        authorization.valid_after = U256::from(1000 + OVERLAP);
        assert!(!may_be_older(&authorization, 1000));
        assert!(may_be_older(&authorization, u64::MAX));
    }

    #[test]
    fn signature_of_the_payer_is_proven() {
        let paid = payment(Version::V2);
        assert_eq!(check_signature(&paid, &terms()), Ok(Signed::ByPayer));
        let mut other = paid.clone();
        other.authorization.nonce = B256::ZERO;
        assert_eq!(check_signature(&other, &terms()), Ok(Signed::Unproven));
        other.signature = vec![1; 66];
        assert_eq!(check_signature(&other, &terms()), Ok(Signed::Unproven));
    }

    #[test]
    fn malleable_signature_is_refused() {
        let hash = signing_hash(&payment(Version::V2).authorization, &terms());
        let signature = signer().sign_hash_sync(&hash).unwrap();
        let order = U256::from_str_radix(
            "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
            16,
        );
        let high = Signature::new(
            signature.r(),
            order.unwrap() - signature.s(),
            !signature.v(),
        );
        let mut paid = payment(Version::V2);
        paid.signature = high.as_bytes().to_vec();
        assert_eq!(check_signature(&paid, &terms()), Err(Invalid::Signature));
        paid.signature[64] = 9;
        assert_eq!(check_signature(&paid, &terms()), Err(Invalid::Signature));
    }

    #[test]
    fn identity_is_that_of_the_authorization() {
        let paid = payment(Version::V2);
        let id = payment_id(&terms(), &paid.authorization);
        assert_eq!(
            id,
            payment_id(&terms(), &payment(Version::V1).authorization)
        );
        assert_eq!(id.to_string().len(), 66);
        let elsewhere = Terms {
            chain_id: 1,
            ..terms()
        };
        let mut other = paid.authorization.clone();
        other.nonce = B256::ZERO;
        for different in [
            payment_id(&elsewhere, &paid.authorization),
            payment_id(&terms(), &other),
        ] {
            assert_ne!(id, different);
        }
    }

    #[test]
    fn hash_is_that_of_the_reference_client() {
        // Domain separator of USDC on Base Sepolia: 0x71f17a3b...9818.
        let separator = Eip712Domain::new(
            Some("USDC".into()),
            Some("2".into()),
            Some(U256::from(84532)),
            Some(terms().token.address),
            None,
        )
        .separator();
        let text = separator.to_string();
        assert!(
            text.starts_with("0x71f17a3b") && text.ends_with("9818"),
            "{text}"
        );
    }
}
