//! Uses up a nonce for which nothing can be signed, so that higher ones need not wait for it.
//!
//! When that is done, and why it is safe, is stated in [`crate::ledger::filler`]. That the filler
//! displaced the registration is found out as for any transaction: see [`super::foreign`].

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use tracing::{info, warn};

use super::apply::{Signed, Signing, sign, unanswered, waiting_keys};
use super::prices::{NoQuote, quote_filler};
use super::{Done, LedgerInput};
use crate::api::{AgentRegistration, Attempt, Key, Nonce};
use crate::chain::rpc::SendOutcome;
use crate::ledger::filler::{REFILL_AFTER, is_due};
use crate::ledger::money::Shortage;
use crate::ledger::protocol::Reservation;
use crate::ledger::{BoundNonce, ReadLedger, sender};
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::state::RegistryState;

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

impl Fillers {
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
    fn unsigned_for(&mut self, bound: &BoundNonce) -> Duration {
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

/// Signs, stores and sends for an entry, or fills its nonce if only its own agent keeps that from being
/// done. Says whether a transaction with the nonce is on its way.
pub(super) async fn sign_or_fill(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    record: &AgentRegistration,
    signing: &mut Signing<'_>,
    state: &mut RegistryState,
) -> (Done, bool) {
    let key = bound.key();
    let sent = state.fillers.sent.get(&(bound.signer(), bound.nonce()));
    let filled = sent.and_then(|(_, at)| Some((state.fillers.filled.get(&key)?, *at)));
    let (done, why) = match filled {
        Some((filled, at)) if at.elapsed() < SEND_EVERY => {
            let done = Done {
                issues: input.issues_of(key, &filled.issue()),
                ..Done::default()
            };
            return (done, true);
        }
        Some((filled, _)) => (Done::default(), filled.why.clone()),
        None => {
            let (done, signed) = sign(input, bound, record, None, signing, state).await;
            let Signed::Refused(why) = signed else {
                return (done, signed == Signed::Stored);
            };
            let others_wait = waiting_keys(input).iter().any(|other| *other != key);
            if !is_due(state.fillers.unsigned_for(bound), others_wait) {
                return (done, false);
            }
            (done, why)
        }
    };
    let (filled, is_sent) = fill(input, bound, why, signing, state).await;
    (done.and(filled), is_sent)
}

/// Sends the filler for a nonce.
async fn fill(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    why: OfferIssue,
    signing: &mut Signing<'_>,
    state: &mut RegistryState,
) -> (Done, bool) {
    let (account, key, nonce) = (bound.signer(), bound.key(), bound.nonce());
    let filler = match chosen(input, bound, signing, &state.fillers).await {
        Ok(filler) => filler,
        Err(done) => return (done, false),
    };
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
            state.fillers.filled.insert(key, filled);
            state.fillers.sent.insert((account, nonce), (filler, at));
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

/// The filler to send: the one that was sent before, or one that is signed at today's price.
async fn chosen(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    signing: &mut Signing<'_>,
    fillers: &Fillers,
) -> Result<Attempt, Done> {
    let (account, key, nonce) = (bound.signer(), bound.key(), bound.nonce());
    let before = fillers.sent.get(&(account, nonce)).map(|(sent, _)| sent);
    let quote = match quote_filler(input, (account, key), before).await {
        Ok(Some(quote)) => quote,
        Ok(None) | Err(NoQuote::Issue(_)) => return before.cloned().ok_or_else(Done::default),
        Err(NoQuote::Rpc(error)) => return Err(unanswered(input, key, &error)),
    };
    let (Some(signer), Some(commitments)) =
        (&input.target.signer, signing.commitments(input, &quote))
    else {
        return Err(Done::default());
    };
    // No namespace pays for it beforehand: its limit may be why no registration can be signed.
    let reservation = Reservation {
        nonce,
        amount: quote.takes.worst_cost(quote.fees),
        namespace: None,
    };
    let mut budget = commitments.budget_of(nonce);
    let (limits, amount) = (&input.target.limits, reservation.amount);
    if budget.reserve(limits, None, amount).is_err() {
        return Err(Done::default());
    }
    commitments.reserved.insert(nonce, reservation);
    sender::sign_filler(signer, bound, quote.takes.gas, quote.fees).map_err(|error| {
        warn!(%key, %nonce, %error, "the filler could not be signed");
        Done::default()
    })
}
