//! Fillers that were sent to use up nonces for which nothing can be signed.
//!
//! When that is done, and why it is safe, is stated in [`crate::ledger::filler`]; [`super::spend`] does
//! it. That a filler displaced the registration is found out as for any transaction: see
//! [`super::foreign`].

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use tracing::{info, warn};

use super::apply::unanswered;
use super::{Done, LedgerInput};
use crate::api::{Attempt, Key, Nonce};
use crate::chain::rpc::SendOutcome;
use crate::ledger::filler::REFILL_AFTER;
use crate::ledger::money::Shortage;
use crate::ledger::{BoundNonce, ReadLedger, sender};
use crate::reconcile::issues::OfferIssue;

/// How often a filler is sent again, or replaced.
const SEND_EVERY: Duration = Duration::from_secs(15);

/// The fillers of one registry, as far as this process knows.
#[derive(Debug, Default)]
pub(in crate::reconcile::registry) struct Fillers {
    /// The nonce for which nothing could be signed, and since when.
    unsigned: Option<(Address, Nonce, Instant)>,
    /// Fillers that were sent, and when.
    sent: BTreeMap<(Address, Nonce), (Attempt, Instant)>,
    filled: HashMap<Key, FilledNonce>,
}

/// An agent whose nonce was filled.
#[derive(Clone, Debug)]
struct FilledNonce {
    nonce: Nonce,
    /// Why no registration could be signed.
    why: OfferIssue,
    at: Instant,
}

impl FilledNonce {
    fn issue(&self) -> OfferIssue {
        OfferIssue::NonceFilled {
            nonce: self.nonce,
            why: self.why.to_string(),
        }
    }
}

/// The filler for a nonce, as it was sent last.
#[derive(Clone, Debug)]
pub(super) struct SentFiller {
    pub(super) filler: Attempt,
    /// Why no registration could be signed.
    pub(super) why: OfferIssue,
    /// What its agent's offers report.
    pub(super) issue: OfferIssue,
    /// Whether it need not be sent again.
    pub(super) is_recent: bool,
}

impl Fillers {
    /// The filler that was sent for a nonce.
    pub(super) fn sent(&self, bound: &BoundNonce) -> Option<SentFiller> {
        let (filler, at) = self.sent.get(&(bound.signer(), bound.nonce()))?;
        let filled = self.filled.get(&bound.key())?;
        Some(SentFiller {
            filler: filler.clone(),
            why: filled.why.clone(),
            issue: filled.issue(),
            is_recent: at.elapsed() < SEND_EVERY,
        })
    }

    /// The issue of an agent whose nonce was filled so recently that it gets no other one. A limit is
    /// checked before it gets one, so it need not wait.
    pub(super) fn held_back(&self, key: Key) -> Option<OfferIssue> {
        let filled = self.filled.get(&key)?;
        let is_limit = matches!(
            filled.why,
            OfferIssue::Shortage(Shortage::NamespaceLimitReached { .. })
        );
        (!is_limit && filled.at.elapsed() < REFILL_AFTER).then(|| filled.issue())
    }

    /// Drops what concerns nonces that no entry of the ledger has.
    pub(super) fn retain(&mut self, held: &ReadLedger) {
        let ledger = held.spec();
        self.sent.retain(|(account, nonce), _| {
            *account != ledger.signer || ledger.entries.contains_key(nonce)
        });
        self.filled
            .retain(|_, filled| filled.at.elapsed() < REFILL_AFTER);
    }

    /// Takes note that nothing can be signed for a nonce, and says for how long that has been so.
    pub(super) fn unsigned_for(&mut self, bound: &BoundNonce) -> Duration {
        let (account, nonce) = (bound.signer(), bound.nonce());
        let known = self
            .unsigned
            .filter(|known| (known.0, known.1) == (account, nonce));
        let (.., since) = *self
            .unsigned
            .insert(known.unwrap_or((account, nonce, Instant::now())));
        since.elapsed()
    }
}

/// Sends the filler for a nonce, and says whether it is on its way.
pub(super) async fn send(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    filler: Attempt,
    why: OfferIssue,
    fillers: &mut Fillers,
) -> (Done, bool) {
    let (account, key, nonce) = (bound.signer(), bound.key(), bound.nonce());
    let endpoint = &input.chain.endpoint;
    let sent = match sender::send_filler(endpoint, input.leading, bound, &filler).await {
        Ok(sent) => sent,
        Err(sender::Error::NotLeading(error)) => return (Done::ended(error.into()), false),
        Err(error) => {
            warn!(%key, %nonce, %error, "the filler must not be sent");
            return (Done::default(), false);
        }
    };
    match sent {
        SendOutcome::Accepted | SendOutcome::NonceUsed => {
            info!(%key, %nonce, transaction = %filler.hash, %why, "filler sent");
            let at = Instant::now();
            let filled = FilledNonce { nonce, why, at };
            let done = Done {
                issues: input.issues_of(key, &filled.issue()),
                ..Done::default()
            };
            fillers.filled.insert(key, filled);
            fillers.sent.insert((account, nonce), (filler, at));
            (done, true)
        }
        SendOutcome::Refused { message, .. } => {
            warn!(%key, %nonce, message, "the endpoint refuses the filler");
            (Done::default(), false)
        }
        SendOutcome::Unanswered(error) => {
            warn!(%key, %nonce, %error, "the endpoint did not answer whether it accepts the filler");
            (unanswered(input, key, &error), false)
        }
    }
}
