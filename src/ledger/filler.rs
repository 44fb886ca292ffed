//! Fillers: transactions that use up a nonce for which no registration can be signed (rule R8). Pure.
//!
//! Without one, a registration that only its own offer keeps from being signed would keep all those
//! at higher nonces from being included.
//!
//! A filler sends nothing, to the account itself, and its calldata names the key that the nonce is
//! allocated to. So its content says what it does (rule R6): at the nonce of that key it displaces
//! the registration, and anywhere else it shows an allocation that was forgotten. No record keeps
//! it: any replica may sign another one for the nonce, and it makes no difference which of them is
//! included, or whether a registration is that was signed before and lost.

use std::time::Duration;

use alloy::primitives::Bytes;

use crate::api::Key;

/// How long nothing could be signed for a nonce before it is filled.
pub const FILL_AFTER: Duration = Duration::from_secs(60);
/// How long an agent whose nonce was filled gets no other one: a filler costs money.
pub const REFILL_AFTER: Duration = Duration::from_secs(600);
/// Beginning of the calldata of every filler.
const TAG: &[u8] = b"filler for agent ";

/// Whether a nonce is filled for which nothing could be signed for this long. `others_wait` says
/// whether another agent waits for it.
#[must_use]
pub fn is_due(unsigned_for: Duration, others_wait: bool) -> bool {
    others_wait && unsigned_for >= FILL_AFTER
}

/// Calldata of the filler for the nonce of a key.
#[must_use]
pub fn calldata(key: Key) -> Bytes {
    [TAG, key.to_string().as_bytes()].concat().into()
}

/// The key that a filler names; `None` if the calldata is not a filler's.
#[must_use]
pub fn named_key(calldata: &[u8]) -> Option<Key> {
    let key = calldata.strip_prefix(TAG)?;
    std::str::from_utf8(key).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::fixtures::key;

    #[test]
    fn nonce_is_filled_after_a_minute_if_another_agent_waits() {
        let almost = FILL_AFTER - Duration::from_millis(1);
        assert!(is_due(FILL_AFTER, true));
        assert!(!is_due(FILL_AFTER, false) && !is_due(almost, true));
    }

    #[test]
    fn calldata_names_its_key_and_nothing_else_does() {
        assert_eq!(named_key(&calldata(key('a'))), Some(key('a')));
        let longer = [&calldata(key('a'))[..], b"a"].concat();
        for other in [&b""[..], TAG, b"filler for agent \xff", &longer] {
            assert_eq!(named_key(other), None, "{other:?}");
        }
    }
}
