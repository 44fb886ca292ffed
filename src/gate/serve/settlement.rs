//! Settles payments in tasks of their own: a buyer who leaves must not stop a settlement, and its
//! outcome is asked for again until it is known.
//!
//! It carries out. [`crate::gate::payment`] decides what an answer of a facilitator means for the
//! claim. Where the facilitator's answer is none, a transfer on the chain counts: it is this payment's,
//! no matter who has sent it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::GateServer;
use super::purchase::Purchase;
use crate::gate::answer::Settlement;
use crate::gate::claims::{Hold, Taken, Unavailable};
use crate::gate::facilitator::FacilitatorEndpoint;
use crate::gate::payment::{
    Event, Fingerprint, IdentifiedRequest, NotAllowed, OnChain, Outcome, Presented, SettleAttempt,
};
use crate::gate::unix_seconds;
use crate::metrics::{FacilitatorCall, SettlementOutcome};

/// Seconds between questions for an unknown outcome; the last one repeats.
const ASK_AGAIN: [u64; 7] = [1, 2, 4, 8, 16, 30, 60];
/// Seconds for which an unknown outcome is asked for after the payment has ended.
pub(super) const ASK_FOR: u64 = 3600;

/// Where the outcome goes, with the claim.
type Waiting = oneshot::Sender<Result<(Hold, Outcome), NotAllowed>>;

impl GateServer {
    /// Claims a payment, or learns what became of it.
    pub(super) async fn claim(
        &self,
        purchase: &Purchase,
        fingerprint: Fingerprint,
        identified: Option<IdentifiedRequest>,
    ) -> (Result<Taken, Unavailable>, Hold) {
        let (id, valid_before) = (purchase.id, purchase.valid_before());
        let presented_for = (fingerprint, identified);
        Hold::take(
            &self.claims,
            id,
            presented_for,
            valid_before,
            unix_seconds(),
        )
        .await
    }

    /// Settles a payment for the first time, by the first of these facilitators that it reaches.
    /// `event` says what for.
    pub(super) async fn begin_settlement(
        self: Arc<Self>,
        hold: Hold,
        purchase: Arc<Purchase>,
        facilitators: Vec<Arc<FacilitatorEndpoint>>,
        event: Event,
        waiting: Waiting,
    ) {
        let attempt = match event {
            Event::Learn => SettleAttempt::Learning,
            _ => SettleAttempt::First,
        };
        // The claim says so before `/settle` is sent.
        if let Err(refused) = hold.report(event).await {
            drop(waiting.send(Err(refused)));
            return;
        }
        let mut outcome = Outcome::NotSent;
        let mut asked = None;
        for facilitator in facilitators {
            outcome = self.settle(&purchase, &facilitator, attempt).await;
            asked = Some(facilitator);
            // Only one that the payment has not reached leaves it to the next one.
            if !matches!(outcome, Outcome::NotSent) {
                break;
            }
        }
        self.conclude(&hold, &purchase, attempt, &outcome).await;
        let is_open = matches!(outcome, Outcome::Unknown { .. });
        let fingerprint = hold.fingerprint;
        // If no request waits any more the hold is dropped here, and what was settled can be presented
        // again.
        drop(waiting.send(Ok((hold, outcome))));
        if let (true, Some(facilitator)) = (is_open, asked) {
            tokio::spawn(self.resolve(purchase, facilitator, fingerprint));
        }
    }

    /// Sends `/settle`, and asks the chain if the facilitator leaves the outcome open.
    async fn settle(
        &self,
        purchase: &Purchase,
        facilitator: &FacilitatorEndpoint,
        attempt: SettleAttempt,
    ) -> Outcome {
        let begun = Instant::now();
        let question = &purchase.question;
        let settlement = self.facilitators.settle(facilitator, question).await;
        self.metrics
            .called(FacilitatorCall::Settle, begun.elapsed());
        if let Settlement::Unknown { why, .. } | Settlement::NotSent { why } = &settlement {
            warn!(payment = %purchase.id, facilitator = facilitator.name, why, "settlement failed");
        }
        match Outcome::of(settlement, attempt) {
            outcome @ Outcome::Unknown { .. } => outcome.or_on_chain(self.on_chain(purchase).await),
            outcome => outcome,
        }
    }

    /// Reports the outcome of a settlement to the claim, and logs it.
    async fn conclude(
        &self,
        hold: &Hold,
        purchase: &Purchase,
        attempt: SettleAttempt,
        outcome: &Outcome,
    ) {
        self.metrics.settled(counted(outcome, attempt));
        let (namespace, name) = &purchase.offer;
        info!(
            payment = %purchase.id,
            offer = %format_args!("{namespace}/{name}"),
            payer = %purchase.payment.authorization.from,
            amount = %purchase.terms.amount,
            token = %purchase.terms.token.address,
            network = purchase.terms.network(),
            ?attempt,
            ?outcome,
            "settlement"
        );
        if hold.report(outcome.event()).await.is_err() {
            warn!(payment = %purchase.id, "lost the claim during a settlement");
        }
    }

    /// What the chain shows of a payment; `None` if it cannot be asked.
    pub(super) async fn on_chain(&self, purchase: &Purchase) -> Option<OnChain> {
        let (terms, authorization) = (&purchase.terms, &purchase.payment.authorization);
        let table = Arc::clone(&self.table.borrow().table);
        let urls = table.rpc_urls(terms.chain_id);
        let readings = self.chains.read(urls, terms, authorization).await;
        OnChain::of(&readings, purchase.valid_before())
    }

    /// Asks facilitator and chain for the outcome of a settlement until it is known.
    fn resolve(
        self: Arc<Self>,
        purchase: Arc<Purchase>,
        facilitator: Arc<FacilitatorEndpoint>,
        fingerprint: Fingerprint,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _unknown = self.metrics.unknown();
            let end = purchase.valid_before().saturating_add(ASK_FOR);
            let mut delays = ASK_AGAIN.iter().copied();
            let mut delay = 0;
            while unix_seconds() < end {
                delay = delays.next().unwrap_or(delay);
                sleep(Duration::from_secs(delay)).await;
                let (taken, hold) = self.claim(&purchase, fingerprint, None).await;
                match taken {
                    Ok(Taken::Known(Presented::Join { .. })) => {
                        let attempt = SettleAttempt::Repeated;
                        let outcome = self.settle(&purchase, &facilitator, attempt).await;
                        self.conclude(&hold, &purchase, attempt, &outcome).await;
                        if !matches!(outcome, Outcome::Unknown { .. }) {
                            return;
                        }
                    }
                    // Another request looks at it, or the store is away.
                    Ok(Taken::Known(Presented::InProgress)) | Err(_) => {}
                    Ok(_) => return,
                }
            }
            warn!(payment = %purchase.id, "gave up asking for the outcome of a settlement");
        })
    }
}

fn counted(outcome: &Outcome, attempt: SettleAttempt) -> SettlementOutcome {
    match outcome {
        Outcome::Settled { .. } if attempt == SettleAttempt::First => SettlementOutcome::Success,
        Outcome::Settled { .. } => SettlementOutcome::Recovered,
        Outcome::Refused { .. } => SettlementOutcome::Refused,
        Outcome::Unknown { .. } => SettlementOutcome::Unknown,
        Outcome::NotSent => SettlementOutcome::NotSent,
    }
}
