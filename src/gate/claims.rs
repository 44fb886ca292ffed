//! Claims on payments: the first request with a payment works for it, and every other one learns
//! what became of it. [`super::payment`] decides; this file keeps the claims.
//!
//! [`ClaimStore`] is what a store promises. Each change of a claim is one atomic step that only its
//! holder can make, so a store that several processes share can keep the promise as well. Claims in
//! memory are forgotten when the process ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, ready};

use alloy::primitives::B256;

use super::check::PaymentId;
use super::payment::{
    Claim, Event, Fingerprint, HolderToken, IdentifiedRequest, Moved, NotAllowed, Presented, State,
    present, present_another,
};
use crate::metrics::ClaimState;

/// Most claims in memory. Beyond, payments are refused rather than forgotten.
const MOST_CLAIMS: usize = 1_000_000;

/// What taking a claim comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The payment was not known: the caller holds it.
    New,
    /// It was presented before.
    Known(Presented),
    /// The buyer has presented another payment, of this id, with the same identifier. What the caller
    /// holds, if anything, is that one's claim.
    Another {
        first: PaymentId,
        presented: Presented,
    },
}

/// The store cannot take another claim, or does not answer: the payment must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims are not available")]
pub(crate) struct Unavailable;

/// Keeps claims. All times are Unix seconds.
pub(crate) trait ClaimStore: Send + Sync {
    /// Claims a payment, or says what became of it, or of the first one for the request that it
    /// identifies. Claims that have expired by `now` are not known any more.
    fn take(
        &self,
        id: PaymentId,
        claim: Claim,
        now: u64,
    ) -> BoxFuture<'_, Result<Taken, Unavailable>>;

    /// Moves a claim. Fails, and changes nothing, unless the caller holds it.
    fn advance(
        &self,
        id: PaymentId,
        holder: HolderToken,
        event: Event,
    ) -> BoxFuture<'_, Result<(), NotAllowed>>;

    /// Forgets claims that have expired, and answers with the states of those that are left.
    fn sweep(&self, now: u64) -> BoxFuture<'_, Vec<ClaimState>>;
}

/// Claims of one process.
#[derive(Debug, Default)]
pub(crate) struct MemoryClaims(Mutex<KnownClaims>);

#[derive(Debug, Default)]
struct KnownClaims {
    claims: HashMap<PaymentId, Claim>,
    /// The first payment for an identified request, by the key of the request.
    first: HashMap<B256, PaymentId>,
}

impl MemoryClaims {
    fn with<T>(&self, change: impl FnOnce(&mut KnownClaims) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KnownClaims {
    fn take(&mut self, id: PaymentId, claim: Claim, now: u64) -> Result<Taken, Unavailable> {
        if let Some(known) = self.current(id, now) {
            let presented = present(known, claim.fingerprint);
            self.hold(id, &presented, &claim);
            return Ok(Taken::Known(presented));
        }
        if let Some(identified) = claim.identified
            && let Some(first) = self.first.get(&identified.key).copied()
            && let Some(known) = self.current(first, now)
            && let Some(presented) = present_another(known, identified)
        {
            self.hold(first, &presented, &claim);
            return Ok(Taken::Another { first, presented });
        }
        if self.claims.len() >= MOST_CLAIMS {
            return Err(Unavailable);
        }
        if let Some(identified) = claim.identified {
            self.first.insert(identified.key, id);
        }
        self.claims.insert(id, claim);
        Ok(Taken::New)
    }

    fn current(&self, id: PaymentId, now: u64) -> Option<&Claim> {
        self.claims.get(&id).filter(|known| known.expiry() > now)
    }

    /// Gives a known claim to the holder of a new one, if the caller is to take it over.
    fn hold(&mut self, id: PaymentId, presented: &Presented, new: &Claim) {
        if presented.is_held()
            && let Some(known) = self.claims.get_mut(&id)
        {
            known.holder = new.holder;
        }
    }

    fn advance(
        &mut self,
        id: PaymentId,
        holder: HolderToken,
        event: Event,
    ) -> Result<(), NotAllowed> {
        let claim = self.claims.get(&id).cloned().ok_or(NotAllowed)?;
        let identified = claim.identified;
        match claim.advance(holder, event)? {
            Moved::To(claim) => {
                self.claims.insert(id, claim);
            }
            Moved::Released => {
                self.claims.remove(&id);
                if let Some(identified) = identified
                    && self.first.get(&identified.key) == Some(&id)
                {
                    self.first.remove(&identified.key);
                }
            }
        }
        Ok(())
    }

    fn sweep(&mut self, now: u64) -> Vec<ClaimState> {
        self.claims.retain(|_, claim| claim.expiry() > now);
        self.first.retain(|_, id| self.claims.contains_key(id));
        let claims = self.claims.values();
        claims.map(|claim| state_of(&claim.state)).collect()
    }
}

fn state_of(state: &State) -> ClaimState {
    match state {
        State::Claimed => ClaimState::Claimed,
        State::Executing => ClaimState::Executing,
        State::Settling { .. } => ClaimState::Settling,
        State::Settled { .. } => ClaimState::Settled,
        State::Delivering { .. } => ClaimState::Delivering,
        State::Delivered { .. } => ClaimState::Delivered,
        State::Refused { .. } => ClaimState::Refused,
    }
}

impl ClaimStore for MemoryClaims {
    fn take(
        &self,
        id: PaymentId,
        claim: Claim,
        now: u64,
    ) -> BoxFuture<'_, Result<Taken, Unavailable>> {
        let taken = self.with(|known| known.take(id, claim, now));
        Box::pin(ready(taken))
    }

    fn advance(
        &self,
        id: PaymentId,
        holder: HolderToken,
        event: Event,
    ) -> BoxFuture<'_, Result<(), NotAllowed>> {
        let moved = self.with(|known| known.advance(id, holder, event));
        Box::pin(ready(moved))
    }

    fn sweep(&self, now: u64) -> BoxFuture<'_, Vec<ClaimState>> {
        let left = self.with(|known| known.sweep(now));
        Box::pin(ready(left))
    }
}

/// A claim that this process holds. Dropping it ends the work for it: what was not settled is
/// released, and what was not delivered can be presented again. While it is being settled it belongs
/// to the task that settles.
pub(crate) struct Hold {
    store: Arc<dyn ClaimStore>,
    id: PaymentId,
    token: HolderToken,
    pub(crate) fingerprint: Fingerprint,
    is_over: bool,
}

impl Hold {
    /// Claims a payment under a token of its own, or learns what became of it. Only what the store
    /// gave to that token can be moved with it.
    pub(crate) async fn take(
        store: &Arc<dyn ClaimStore>,
        id: PaymentId,
        presented_for: (Fingerprint, Option<IdentifiedRequest>),
        valid_before: u64,
        now: u64,
    ) -> (Result<Taken, Unavailable>, Self) {
        let token = HolderToken(rand::random());
        let (fingerprint, identified) = presented_for;
        let claim = Claim {
            identified,
            ..Claim::new(fingerprint, token, valid_before)
        };
        let taken = store.take(id, claim, now).await;
        let hold = Self {
            store: Arc::clone(store),
            id: match &taken {
                Ok(Taken::Another { first, .. }) => *first,
                _ => id,
            },
            token,
            fingerprint,
            is_over: false,
        };
        (taken, hold)
    }

    /// Moves the claim.
    ///
    /// # Errors
    /// If it is no longer held, or its state does not allow it.
    pub(crate) async fn report(&self, event: Event) -> Result<(), NotAllowed> {
        self.store.advance(self.id, self.token, event).await
    }

    /// The answer was sent to its last byte.
    pub(crate) fn complete(mut self) {
        self.end(Event::Complete);
    }

    fn end(&mut self, event: Event) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let (store, id, token) = (Arc::clone(&self.store), self.id, self.token);
        // A store in memory answers at once; another one may take its time.
        tokio::spawn(async move { store.advance(id, token, event).await });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end(Event::CutOff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: B256 = B256::ZERO;

    fn id(byte: u8) -> PaymentId {
        PaymentId(B256::repeat_byte(byte))
    }

    /// Claims a payment for the identified request, and says which payment came first.
    fn take(known: &mut KnownClaims, payment: u8, valid_before: u64, now: u64) -> PaymentId {
        let holder = HolderToken(payment.into());
        let identified = IdentifiedRequest {
            key: KEY,
            request: B256::ZERO,
        };
        let claim = Claim {
            identified: Some(identified),
            ..Claim::new(Fingerprint(B256::ZERO), holder, valid_before)
        };
        match known.take(id(payment), claim, now) {
            Ok(Taken::Another { first, .. }) => first,
            taken => {
                assert_eq!(taken, Ok(Taken::New));
                id(payment)
            }
        }
    }

    #[test]
    fn identified_request_belongs_to_its_first_payment_until_that_is_released_or_expires() {
        let mut known = KnownClaims::default();
        assert_eq!(take(&mut known, 1, 100, 0), id(1));
        assert_eq!(take(&mut known, 2, 100, 0), id(1));
        known.advance(id(1), HolderToken(1), Event::CutOff).unwrap();
        assert_eq!(take(&mut known, 2, 100, 0), id(2));
        let later = 1000;
        assert_eq!(take(&mut known, 3, 2000, later), id(3));
        // The holder of an expired claim takes nothing from the next payment.
        known.advance(id(2), HolderToken(2), Event::CutOff).unwrap();
        assert_eq!(take(&mut known, 4, 2000, later), id(3));
        assert_eq!(known.sweep(later), [ClaimState::Claimed]);
        assert_eq!(known.first.len(), 1);
        assert_eq!(known.sweep(5000), []);
        assert!(known.first.is_empty());
    }
}
