//! What can be checked of a payment without asking anyone: that it pays for this route, in time, with a
//! signature that a token may take. Pure.
//!
//! No check relies on what the buyer says about price, recipient or resource: the terms of the
//! route are compared with what was signed (EIP-3009).

use std::fmt;

use alloy::primitives::{B256, Signature, U256, keccak256};
use alloy::sol_types::SolValue;

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
/// Seconds for which authorizations may have lasted on the terms of before.
const FORMER_TIMEOUT: u32 = 3600;
/// Bytes of an ECDSA signature.
const ECDSA_BYTES: usize = 65;

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

/// Whether a payment may have bought something from a gate that served before `begun`, in Unix seconds,
/// or from one that went on for a while. A token moves nothing before `validAfter` (EIP-3009), and no
/// gate takes an authorization that lasts longer than `most` seconds and the lenience.
pub(crate) fn may_be_older(authorization: &Authorization, most: u32, begun: u64) -> bool {
    let end = begun.saturating_add(OVERLAP);
    let longest = LENIENCE + u64::from(most.max(FORMER_TIMEOUT));
    authorization.valid_after < U256::from(end)
        && authorization.valid_before <= U256::from(end.saturating_add(longest))
}

/// Checks the form of a signature. Who signed is for the chain to say, which a facilitator asks: one that
/// no key explains may be that of a contract (EIP-1271).
///
/// # Errors
/// If an ECDSA signature is malleable: tokens refuse a high `s`.
pub(crate) fn check_signature(payment: &SignedPayment) -> Result<(), Invalid> {
    if payment.signature.len() != ECDSA_BYTES {
        return Ok(());
    }
    match Signature::from_raw(&payment.signature) {
        Ok(signature) if signature.normalize_s().is_none() => Ok(()),
        _ => Err(Invalid::Signature),
    }
}

#[cfg(test)]
mod tests {
    use alloy::signers::SignerSync;

    use super::*;
    use crate::gate::wire::Version;
    use crate::gate::wire::tests::{payment, signer, signing_hash, terms};

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
    fn payment_is_known_to_be_later_by_its_beginning() {
        let mut authorization = payment(Version::V2).authorization;
        authorization.valid_before = U256::ZERO;
        authorization.valid_after = U256::from(1000 + OVERLAP - 1);
        assert!(may_be_older(&authorization, 300, 1000));
        authorization.valid_after = U256::from(1000 + OVERLAP);
        assert!(!may_be_older(&authorization, 300, 1000));
        assert!(may_be_older(&authorization, 300, u64::MAX));
    }

    #[test]
    fn payment_without_a_beginning_is_known_to_be_later_by_its_end() {
        let mut authorization = payment(Version::V2).authorization;
        authorization.valid_after = U256::ZERO;
        for (most, longest) in [(300, 3600), (7200, 7200)] {
            let latest = 1000 + OVERLAP + longest + LENIENCE;
            authorization.valid_before = U256::from(latest);
            assert!(may_be_older(&authorization, most, 1000));
            authorization.valid_before = U256::from(latest + 1);
            assert!(!may_be_older(&authorization, most, 1000));
        }
    }

    #[test]
    fn signatures_of_keys_and_contracts_pass() {
        let mut paid = payment(Version::V2);
        assert_eq!(check_signature(&paid), Ok(()));
        paid.signature = vec![1; 66];
        assert_eq!(check_signature(&paid), Ok(()));
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
        assert_eq!(check_signature(&paid), Err(Invalid::Signature));
        paid.signature[64] = 9;
        assert_eq!(check_signature(&paid), Err(Invalid::Signature));
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
}
