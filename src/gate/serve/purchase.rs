//! The paid road: one payment buys one answer.
//!
//! ```text
//! authorization: read, check, claim, verify, call upstream, hold, settle, deliver
//! upfront:       read, check, claim, settle, call upstream, deliver
//! ```
//! What is checked without asking anyone comes first. From the claim on, [`Hold`] says what may
//! happen. A settlement runs in a task of its own, since a buyer who leaves must not stop it, and
//! its outcome is asked again until it is known.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::answer::{Charged, ErrorResponse, add_receipt, payment_required};
use super::body::hashed;
use super::settlement::ASK_FOR;
use super::{
    Answer, GateServer, Routed, limited_answer, upstream_failed, upstream_request, while_in_flight,
};
use crate::api::PaymentFlow;
use crate::gate::answer::Verification;
use crate::gate::check::{
    Invalid, OVERLAP, PaymentId, check_form, check_signature, check_window, may_be_older,
    payment_id,
};
use crate::gate::claims::{Hold, Taken};
use crate::gate::facilitator::{FacilitatorEndpoint, Question};
use crate::gate::headers::{self, PaymentHeaders};
use crate::gate::limit::AddressCost;
use crate::gate::payment::{
    Event, Fingerprint, IdentifiedRequest, OnChain, Outcome, Presented, is_used, may_follow_charge,
    may_mean_used,
};
use crate::gate::proxy::{HoldLimits, UpstreamError};
use crate::gate::table::Paid;
use crate::gate::terms::Terms;
use crate::gate::unix_seconds;
use crate::gate::wire::{PaymentReceipt, SignedPayment, chosen, in_same_token, read_payment};
use crate::http::{BodyEnd, watch};
use crate::metrics::{FacilitatorCall, GateOutcome};

/// Says whether an answer of the upstream was charged.
const CHARGED: HeaderName = HeaderName::from_static("x-payment-charged");
/// How long a buyer waits for a settlement. The settlement continues.
const SETTLEMENT_WAIT: Duration = Duration::from_secs(30);
/// How often a buyer who waits for the outcome of a settlement looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How an answer is held before it is charged.
const HOLD: HoldLimits = HoldLimits {
    bytes: 256 * 1024,
    time: Duration::from_secs(2),
};

/// A payment that may buy the answer to a request.
pub(super) struct Purchase {
    pub(super) payment: SignedPayment,
    pub(super) terms: Terms,
    pub(super) id: PaymentId,
    /// Namespace and name of the offer.
    pub(super) offer: (String, String),
    /// Facilitators of its chain, in the order of use.
    facilitators: Vec<Arc<FacilitatorEndpoint>>,
    /// What facilitators are asked.
    pub(super) question: Question,
}

/// Why a payment cannot buy anything on the terms of its route.
enum Unread {
    Refused(Box<Answer>),
    /// It is not made on these terms. It may have bought something on those of before: then it is
    /// answered as what became of it says.
    OnOtherTerms(Box<Purchase>, Box<Answer>),
}

/// A payment is not settled.
enum Unsettled {
    /// Another request holds the claim.
    InProgress,
    Refused {
        reason: String,
        transaction: Option<String>,
    },
    /// The outcome is not known, or not yet.
    Unknown {
        transaction: Option<String>,
    },
    NotSent,
}

/// What a facilitator says before the work begins.
enum Verified {
    By(Arc<FacilitatorEndpoint>),
    Invalid {
        by: Arc<FacilitatorEndpoint>,
        reason: String,
    },
    Unavailable {
        retry_after: Option<Duration>,
    },
}

impl GateServer {
    /// Answers a request that carries a payment.
    pub(super) async fn sell(
        self: &Arc<Self>,
        mut routed: Routed,
        paid: &Paid,
        request: Request,
    ) -> Answer {
        let (mut purchase, refusal) = match Purchase::read(&routed, paid, &request) {
            Ok(purchase) => (purchase, None),
            Err(Unread::Refused(answer)) => return *answer,
            Err(Unread::OnOtherTerms(purchase, answer)) => (*purchase, Some(answer)),
        };
        let (request, hash) = match hashed(&routed, request, &self.bodies).await {
            Ok(hashed) => hashed,
            Err(answer) => return *answer,
        };
        let (fingerprint, identified) = purchase.presented_for(&routed, hash);
        let (taken, hold) = self.claim(&purchase, fingerprint, identified).await;
        let is_fresh = matches!(taken, Ok(Taken::New | Taken::Another { .. }));
        if let (true, Some(answer)) = (is_fresh, refusal) {
            return *answer;
        }
        let within = || {
            let (client, now) = (routed.origin.client, self.begun.elapsed());
            self.budget.check(AddressCost::InvalidPayment, client, now)
        };
        let admitted = match &taken {
            Ok(Taken::New) => within().and_then(|()| self.admit(&mut routed)),
            Ok(Taken::Known(Presented::Execute { .. })) => self.admit(&mut routed),
            Ok(
                Taken::Another { .. }
                | Taken::Known(Presented::Used { .. } | Presented::OtherRequest { .. }),
            ) => within(),
            _ => Ok(()),
        };
        if let Err(limited) = admitted {
            return limited_answer(limited);
        }
        if let Ok(Taken::Another { first, .. }) = &taken {
            purchase.id = *first;
        }
        let sale = Sale {
            gate: Arc::clone(self),
            routed,
            purchase: Arc::new(purchase),
            paid,
        };
        let (outcome, response) = match taken {
            Ok(Taken::New) => match sale.purchase.terms.flow {
                PaymentFlow::Authorization => sale.by_authorization(request, hold).await,
                PaymentFlow::Upfront => sale.upfront(request, hold).await,
            },
            Ok(Taken::Known(presented)) => sale.again(presented, request, hold).await,
            Ok(Taken::Another { presented, .. }) => sale.instead(presented, hold).await,
            Err(unavailable) => {
                let refusal = sale.refusal(StatusCode::SERVICE_UNAVAILABLE, "claims_unavailable");
                let refusal = refusal.hint(unavailable.to_string()).retry_after(5);
                (GateOutcome::Closed, refusal.response())
            }
        };
        (outcome, while_in_flight(response, sale.routed.in_flight))
    }
}

impl Purchase {
    /// Everything that can be checked without asking anyone.
    fn read(routed: &Routed, paid: &Paid, request: &Request) -> Result<Self, Unread> {
        let answer = |reason: &str| {
            let resource = routed.resource();
            let fields = request.headers();
            let response = payment_required(paid, resource, reason, fields, None);
            Box::new((GateOutcome::Refused, response))
        };
        let refused = |reason: &str| Unread::Refused(answer(reason));
        let payment = match read_payment(request.headers()) {
            Ok(Some(payment)) => payment,
            Ok(None) => return Err(refused("payment_required")),
            Err(malformed) => {
                let refusal = ErrorResponse::new(StatusCode::BAD_REQUEST, "malformed_payment");
                let response = refusal.hint(malformed.to_string()).response();
                return Err(Unread::Refused(Box::new((
                    GateOutcome::Malformed,
                    response,
                ))));
            }
        };
        let purchase = |payment: SignedPayment, terms: &Terms| {
            let facilitators = paid.facilitators.get(&terms.chain_id);
            Self {
                id: payment_id(terms, &payment.authorization),
                offer: routed.offer.name.clone(),
                facilitators: facilitators.cloned().unwrap_or_default(),
                question: Question::of(&payment, terms, routed.resource()),
                payment,
                terms: terms.clone(),
            }
        };
        let offered = paid.terms.iter().chain(paid.honored(unix_seconds()));
        let Some(terms) = chosen(offered, &payment) else {
            let no_match = answer("no_matching_requirements");
            return Err(match in_same_token(&paid.terms, &payment) {
                None => Unread::Refused(no_match),
                Some(terms) => {
                    let purchase = purchase(payment, terms);
                    Unread::OnOtherTerms(Box::new(purchase), no_match)
                }
            });
        };
        check_form(&payment, terms, routed.path.as_str(), &routed.url)
            .and_then(|()| check_signature(&payment))
            .map_err(|invalid| refused(&invalid.to_string()))?;
        Ok(purchase(payment, terms))
    }

    /// What it is presented for, given the hash of the request.
    fn presented_for(
        &self,
        routed: &Routed,
        request: B256,
    ) -> (Fingerprint, Option<IdentifiedRequest>) {
        let identifier = self.payment.identifier.as_deref();
        let fingerprint = Fingerprint::of(request, &self.payment.signature, identifier);
        let payer = self.payment.authorization.from;
        let identified = identifier.map(|identifier| {
            let token = (self.terms.chain_id, self.terms.token.address);
            IdentifiedRequest::new(&routed.offer.uid, payer, identifier, request, token)
        });
        (fingerprint, identified)
    }

    /// When the authorization ends, in Unix seconds.
    pub(super) fn valid_before(&self) -> u64 {
        self.payment.authorization.valid_before.saturating_to()
    }

    fn receipt(&self, error_reason: Option<String>, transaction: Option<String>) -> PaymentReceipt {
        PaymentReceipt {
            success: error_reason.is_none(),
            error_reason,
            payer: self.payment.authorization.from.to_string(),
            transaction: transaction.unwrap_or_default(),
            network: self.payment.network.clone(),
        }
    }
}

/// One payment on its way to one answer.
struct Sale<'a> {
    gate: Arc<GateServer>,
    routed: Routed,
    purchase: Arc<Purchase>,
    paid: &'a Paid,
}

impl Sale<'_> {
    /// Whether a process that this one knows nothing of may have sold for the payment.
    fn may_be_older(&self) -> bool {
        let purchase = &self.purchase;
        let most = purchase.terms.max_timeout_seconds;
        may_be_older(&purchase.payment.authorization, most, self.gate.begun_at)
    }

    /// Seconds that the work may take.
    fn time_for_work(&self) -> Result<u64, Invalid> {
        let purchase = &self.purchase;
        let most = purchase.terms.max_timeout_seconds;
        check_window(&purchase.payment.authorization, most, unix_seconds())
    }

    /// Verify, call, settle, deliver.
    async fn by_authorization(&self, request: Request, hold: Hold) -> Answer {
        let work = match self.time_for_work() {
            Ok(work) => work,
            Err(invalid) => return self.out_of_time(invalid).await,
        };
        let deadline = Instant::now() + Duration::from_secs(work);
        let (facilitator, hold) = match self.verified(hold).await {
            Ok(verified) => verified,
            Err(answer) => return answer,
        };
        if hold.report(Event::Execute).await.is_err() {
            return self.in_progress();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let response = match self.call(request, left).await {
            Ok(response) => response,
            Err(error) => return self.failed(&error, None),
        };
        if !is_charged(response.status()) {
            return not_charged(response);
        }
        let response = match self.held(response).await {
            Ok(response) => response,
            Err(error) => return self.failed(&error, None),
        };
        let facilitators = self.beginning_with(&facilitator);
        match self.settled(hold, facilitators, Event::Settle).await {
            Ok((hold, transaction)) => self.deliver(hold, transaction, response).await,
            Err(unsettled) => self.unsettled(unsettled).await,
        }
    }

    /// An answer whose beginning has arrived. A short one is kept.
    async fn held(&self, response: Response) -> Result<Response, UpstreamError> {
        let hold = self.gate.proxy.hold(response, HOLD);
        let held = self.routed.waited.count(hold).await?;
        let id = self.purchase.id;
        match &held.whole {
            Some(whole) => {
                let expiry = self.purchase.valid_before().saturating_add(ASK_FOR);
                self.gate.kept.keep(id, &held.response, whole, expiry);
            }
            // An earlier answer is that of an attempt that was not settled.
            None => self.gate.kept.forget(id),
        }
        Ok(held.response)
    }

    /// Settle, call, deliver. What fails after the settlement is charged: the payment may be
    /// presented again for the same request.
    async fn upfront(&self, request: Request, hold: Hold) -> Answer {
        let work = match self.time_for_work() {
            Ok(work) => work,
            Err(invalid) => return self.out_of_time(invalid).await,
        };
        let (facilitators, hold) = match self.may_be_older() {
            false => (self.purchase.facilitators.clone(), hold),
            true => match self.verified(hold).await {
                Ok((facilitator, hold)) => (self.beginning_with(&facilitator), hold),
                Err(answer) => return answer,
            },
        };
        match self.settled(hold, facilitators, Event::Settle).await {
            Ok((hold, transaction)) => {
                let work = Duration::from_secs(work);
                self.execute(request, hold, transaction, work).await
            }
            Err(unsettled) => self.unsettled(unsettled).await,
        }
    }

    /// A payment with an identifier for which another one was presented. It is not settled, and gets
    /// the answer that the other one has bought, if that is kept; but only the payer may have it.
    async fn instead(&self, presented: Presented, hold: Hold) -> Answer {
        self.spend_invalid();
        let is_delivered = matches!(presented, Presented::Used { .. });
        let transaction = match presented {
            Presented::Execute { transaction } | Presented::Used { transaction } => transaction,
            Presented::OtherRequest { transaction } => {
                let hint = "The identifier was given to another request, or to a payment in another token. This payment was not used.";
                return self.not_used("payment_used", transaction, hint);
            }
            Presented::Open { transaction } => {
                let hint = "The first payment with this identifier may have been charged. Present that one again. This one was not used.";
                return self.not_used("payment_state_unknown", transaction, hint);
            }
            _ => return self.in_progress(),
        };
        let Some(mut kept) = self.gate.kept.get(self.purchase.id) else {
            let hint = "The first payment with this identifier was charged. Present that one again for its answer. This one was not used.";
            return self.not_used("payment_used", Some(transaction), hint);
        };
        match self.verify().await {
            Verified::By(_) if is_delivered => {
                self.gate.metrics.delivered_again();
                self.add_charge(&mut kept, transaction);
                (GateOutcome::Repeated, kept)
            }
            Verified::By(_) => self.deliver(hold, transaction, kept).await,
            Verified::Invalid { reason, .. } => self.unusable(reason, None).await,
            Verified::Unavailable { retry_after } => self.unavailable(retry_after),
        }
    }

    /// 409 to a payment that is not used, because of another one with its identifier.
    fn not_used(&self, code: &str, transaction: Option<String>, hint: &str) -> Answer {
        let refusal = ErrorResponse::new(StatusCode::CONFLICT, code)
            .about(self.purchase.id, Charged::Unknown)
            .hint(hint);
        let refusal = match transaction {
            Some(transaction) => refusal.receipt(self.purchase.receipt(None, Some(transaction))),
            None => refusal,
        };
        (GateOutcome::Conflict, refusal.response())
    }

    /// A payment that was presented before.
    async fn again(&self, presented: Presented, request: Request, hold: Hold) -> Answer {
        match presented {
            Presented::InProgress => self.in_progress(),
            Presented::OtherRequest { transaction } => {
                self.spend_invalid();
                let receipt = self.purchase.receipt(None, transaction);
                let refusal = ErrorResponse::new(StatusCode::CONFLICT, "payment_used")
                    .about(self.purchase.id, Charged::Unknown)
                    .hint("The payment or its identifier was presented for another request.");
                let refusal = match receipt.transaction.is_empty() {
                    true => refusal,
                    false => refusal.receipt(receipt),
                };
                (GateOutcome::Conflict, refusal.response())
            }
            Presented::Used { transaction } => match self.kept_for_identifier() {
                Some(mut kept) => {
                    self.gate.metrics.delivered_again();
                    self.spend_invalid();
                    self.add_charge(&mut kept, transaction);
                    (GateOutcome::Repeated, kept)
                }
                None => self.used(Some(transaction)),
            },
            // Of another payment alone.
            Presented::Open { transaction } => self.pending(transaction),
            Presented::Refused {
                reason,
                transaction,
            } => self.definitely_refused(reason, transaction).await,
            Presented::Execute { transaction } => {
                if let Some(kept) = self.gate.kept.get(self.purchase.id) {
                    self.gate.metrics.delivered_again();
                    return self.deliver(hold, transaction, kept).await;
                }
                self.gate.metrics.executed_again();
                let work = Duration::from_secs(self.purchase.terms.max_timeout_seconds.into());
                self.execute(request, hold, transaction, work).await
            }
            Presented::Join { transaction } => self.join(transaction, request, hold).await,
        }
    }

    /// The answer that was delivered, for a buyer who identified the request: only those are kept.
    fn kept_for_identifier(&self) -> Option<Response> {
        self.purchase.payment.identifier.as_ref()?;
        self.gate.kept.get(self.purchase.id)
    }

    /// Waits for the outcome of a settlement that another task asks for.
    async fn join(
        &self,
        mut transaction: Option<String>,
        request: Request,
        mut hold: Hold,
    ) -> Answer {
        let end = Instant::now() + SETTLEMENT_WAIT;
        while Instant::now() < end {
            let event = Event::LoseTrack { transaction: None };
            if hold.report(event).await.is_err() {
                break;
            }
            let presented = loop {
                self.routed.waited.count(sleep(LOOK_AGAIN)).await;
                let fingerprint = hold.fingerprint;
                let (taken, taker) = self.gate.claim(&self.purchase, fingerprint, None).await;
                hold = taker;
                match taken {
                    Ok(Taken::Known(Presented::InProgress)) if Instant::now() < end => {}
                    Ok(Taken::Known(presented)) => break presented,
                    Ok(Taken::New | Taken::Another { .. }) | Err(_) => {
                        return self.pending(transaction);
                    }
                }
            };
            match presented {
                Presented::Join { transaction: known } => transaction = known.or(transaction),
                other => return Box::pin(self.again(other, request, hold)).await,
            }
        }
        let event = Event::LoseTrack { transaction: None };
        let _ = hold.report(event).await;
        self.pending(transaction)
    }

    /// A payment that a facilitator calls valid, and that did not buy anything before.
    async fn verified(&self, hold: Hold) -> Result<(Arc<FacilitatorEndpoint>, Hold), Answer> {
        match self.verify().await {
            // Not every facilitator looks whether it was used before.
            Verified::By(facilitator) if self.may_be_older() => match self.used_on_chain().await {
                Ok(used) => Err(used),
                Err(_) => Ok((facilitator, hold)),
            },
            Verified::By(facilitator) => Ok((facilitator, hold)),
            Verified::Invalid { by, reason } => Err(self.refused(by, reason, hold).await),
            Verified::Unavailable { retry_after } => Err(self.unavailable(retry_after)),
        }
    }

    /// Asks facilitators in their order until one answers.
    async fn verify(&self) -> Verified {
        let mut wait = None;
        for facilitator in &self.purchase.facilitators {
            let begun = Instant::now();
            let question = &self.purchase.question;
            let verification = self.gate.facilitators.verify(facilitator, question);
            let verification = self.routed.waited.count(verification).await;
            let metrics = &self.gate.metrics;
            metrics.called(FacilitatorCall::Verify, begun.elapsed());
            match verification {
                Verification::Valid => return Verified::By(Arc::clone(facilitator)),
                Verification::Invalid { reason } => {
                    let by = Arc::clone(facilitator);
                    return Verified::Invalid { by, reason };
                }
                Verification::Unavailable { why, retry_after } => {
                    warn!(
                        facilitator = facilitator.name,
                        why, "failed to verify a payment"
                    );
                    wait = wait.or(retry_after);
                }
            }
        }
        Verified::Unavailable { retry_after: wait }
    }

    /// This facilitator of the payment's chain, and those after it.
    fn beginning_with(&self, first: &Arc<FacilitatorEndpoint>) -> Vec<Arc<FacilitatorEndpoint>> {
        let facilitators = self.purchase.facilitators.iter();
        let from = facilitators.skip_while(|facilitator| !Arc::ptr_eq(facilitator, first));
        from.cloned().collect()
    }

    /// Settles in a task of its own, and waits for it as long as a buyer should.
    async fn settled(
        &self,
        hold: Hold,
        facilitators: Vec<Arc<FacilitatorEndpoint>>,
        event: Event,
    ) -> Result<(Hold, String), Unsettled> {
        let (waiting, settled) = oneshot::channel();
        let (gate, purchase) = (Arc::clone(&self.gate), Arc::clone(&self.purchase));
        tokio::spawn(gate.begin_settlement(hold, purchase, facilitators, event, waiting));
        let settled = timeout(SETTLEMENT_WAIT, settled);
        let Ok(Ok(ended)) = self.routed.waited.count(settled).await else {
            return Err(Unsettled::Unknown { transaction: None });
        };
        let (hold, outcome) = ended.map_err(|_| Unsettled::InProgress)?;
        match outcome {
            Outcome::Settled { transaction } => Ok((hold, transaction)),
            Outcome::Refused {
                reason,
                transaction,
            } => Err(Unsettled::Refused {
                reason,
                transaction,
            }),
            Outcome::Unknown { transaction } => Err(Unsettled::Unknown { transaction }),
            Outcome::NotSent => Err(Unsettled::NotSent),
        }
    }

    /// Answers a payment that was to be sold for and is not settled.
    async fn unsettled(&self, unsettled: Unsettled) -> Answer {
        match unsettled {
            Unsettled::InProgress => self.in_progress(),
            Unsettled::Refused {
                reason,
                transaction,
            } => {
                self.spend_invalid();
                self.definitely_refused(reason, transaction).await
            }
            Unsettled::NotSent => {
                self.gate.kept.forget(self.purchase.id);
                self.unavailable(None)
            }
            Unsettled::Unknown { transaction } => self.pending(transaction),
        }
    }

    /// Calls the upstream for a payment that is settled, and delivers what it answers.
    async fn execute(
        &self,
        request: Request,
        hold: Hold,
        transaction: String,
        work: Duration,
    ) -> Answer {
        if hold.report(Event::Execute).await.is_err() {
            return self.in_progress();
        }
        match self.call(request, work).await {
            Ok(response) if is_charged(response.status()) => {
                let response = match &self.purchase.payment.identifier {
                    Some(_) => self.held(response).await,
                    None => Ok(response),
                };
                match response {
                    Ok(response) => self.deliver(hold, transaction, response).await,
                    Err(error) => self.failed(&error, Some(transaction)),
                }
            }
            // It bought nothing: the payment may be presented again for the same request.
            Ok(mut response) => {
                self.add_charge(&mut response, transaction);
                (GateOutcome::UpstreamFailed, response)
            }
            Err(error) => self.failed(&error, Some(transaction)),
        }
    }

    /// Says in an answer of the upstream that the payment was charged.
    fn add_charge(&self, response: &mut Response, transaction: String) {
        let fields = response.headers_mut();
        headers::from_upstream(fields, true);
        add_receipt(fields, &self.purchase.receipt(None, Some(transaction)));
        fields.insert(CHARGED, HeaderValue::from_static("true"));
        headers::cors(fields);
    }

    async fn call(&self, request: Request, work: Duration) -> Result<Response, UpstreamError> {
        let upstream = self.routed.offer.upstream.as_ref();
        let upstream = upstream.map_err(|_| UpstreamError::Unreachable)?;
        let (purchase, offer) = (&self.purchase, &self.routed.offer.name);
        let payment = PaymentHeaders {
            payer: purchase.payment.authorization.from.to_string(),
            network: purchase.terms.network(),
            amount: purchase.payment.authorization.value.to_string(),
            asset: purchase.terms.token.address.to_string(),
            id: purchase.id.to_string(),
            offer: format!("{}/{}", offer.0, offer.1),
        };
        let request = upstream_request(&self.routed, request, Some(payment));
        let answer = self.gate.send(request, upstream, work);
        self.routed.waited.count(answer).await
    }

    /// Sends an answer whose payment is settled. The claim proves it: no other state allows it.
    async fn deliver(&self, hold: Hold, transaction: String, response: Response) -> Answer {
        let is_settled = hold.report(Event::Deliver).await.is_ok();
        self.gate.metrics.delivering(is_settled);
        if !is_settled {
            return self.in_progress();
        }
        let mut response = response;
        self.add_charge(&mut response, transaction);
        let (gate, id) = (Arc::clone(&self.gate), self.purchase.id);
        let is_identified = self.purchase.payment.identifier.is_some();
        let response = watch(response, move |end| match end {
            BodyEnd::Complete => {
                match is_identified {
                    true => gate.kept.mark_delivered(id),
                    false => gate.kept.forget(id),
                }
                hold.complete();
            }
            BodyEnd::Cut => {
                gate.metrics.undelivered();
                drop(hold);
            }
        });
        (GateOutcome::Paid, response)
    }

    /// A facilitator says that the payment is invalid.
    async fn refused(&self, by: Arc<FacilitatorEndpoint>, reason: String, hold: Hold) -> Answer {
        self.spend_invalid();
        // Another reason may pass, and then `/settle` would charge for nothing.
        if !self.may_be_older() || !is_used(&reason) {
            return self.unusable(reason, None).await;
        }
        match self.settled(hold, vec![by], Event::Learn).await {
            Ok((_, transaction)) => self.used(Some(transaction)),
            Err(Unsettled::Unknown { transaction }) => self.pending(transaction),
            Err(Unsettled::InProgress) => self.in_progress(),
            Err(_) => self.unusable(reason, None).await,
        }
    }

    /// Counts a payment that cost a facilitator something, or even the upstream, and the buyer nothing.
    fn spend_invalid(&self) {
        let (client, now) = (self.routed.origin.client, self.gate.begun.elapsed());
        // Whether the budget is used up shows at the next payment.
        let budget = &self.gate.budget;
        let _ = budget.spend(AddressCost::InvalidPayment, client, now);
    }

    /// A payment that cannot buy anything. Another one is asked for only if this one cannot have been
    /// charged, by this process or an earlier one. `receipt` is that of a refused settlement.
    async fn unusable(&self, reason: String, receipt: Option<PaymentReceipt>) -> Answer {
        if !self.may_be_older() || !may_follow_charge(&reason) {
            return match is_used(&reason) {
                true => self.used(None),
                false => self.ask_again(&reason, receipt),
            };
        }
        let is_unused = match self.used_on_chain().await {
            Ok(used) => return used,
            Err(is_unused) => is_unused,
        };
        // What another process has sent is in a block by then.
        if is_unused && self.gate.begun.elapsed().as_secs() >= OVERLAP {
            return self.ask_again(&reason, receipt);
        }
        let receipt = receipt.unwrap_or_else(|| self.purchase.receipt(Some(reason.clone()), None));
        self.state_unknown(&reason, receipt)
    }

    /// The answer to a payment that the chain shows to be used. Otherwise, whether the chain shows that
    /// it is not.
    async fn used_on_chain(&self) -> Result<Answer, bool> {
        let on_chain = self.gate.on_chain(&self.purchase);
        match self.routed.waited.count(on_chain).await {
            Some(OnChain::Charged { transaction }) => Ok(self.used(Some(transaction))),
            Some(OnChain::Used) => Ok(self.used(None)),
            Some(OnChain::Unused | OnChain::Expired) => Err(true),
            None => Err(false),
        }
    }

    fn refusal(&self, status: StatusCode, code: &str) -> ErrorResponse {
        ErrorResponse::new(status, code).about(self.purchase.id, Charged::No)
    }

    /// 402: asks for another payment.
    fn ask_again(&self, reason: &str, receipt: Option<PaymentReceipt>) -> Answer {
        let fields = http::HeaderMap::new();
        let resource = self.routed.resource();
        let response = payment_required(self.paid, resource, reason, &fields, receipt.as_ref());
        (GateOutcome::Refused, response)
    }

    async fn out_of_time(&self, invalid: Invalid) -> Answer {
        match invalid {
            Invalid::ExpiresTooSoon => self.unusable(invalid.to_string(), None).await,
            _ => self.ask_again(&invalid.to_string(), None),
        }
    }

    /// The facilitator refused to settle. Only if the money cannot have moved, another payment is
    /// asked for.
    async fn definitely_refused(&self, reason: String, transaction: Option<String>) -> Answer {
        self.gate.kept.forget(self.purchase.id);
        let receipt = self.purchase.receipt(Some(reason.clone()), transaction);
        if !may_mean_used(&reason) {
            return match self.may_be_older() && may_follow_charge(&reason) {
                true => self.unusable(reason, Some(receipt)).await,
                false => self.ask_again(&reason, Some(receipt)),
            };
        }
        match self.used_on_chain().await {
            Ok(used) => used,
            Err(_) => self.state_unknown(&reason, receipt),
        }
    }

    fn state_unknown(&self, reason: &str, receipt: PaymentReceipt) -> Answer {
        let refusal = ErrorResponse::new(StatusCode::CONFLICT, "payment_state_unknown")
            .about(self.purchase.id, Charged::Unknown)
            .receipt(receipt)
            .hint(format!(
                "This payment may have been charged ({reason}). Present it again, or look for it on chain before you sign another one."
            ));
        (GateOutcome::Conflict, refusal.response())
    }

    fn used(&self, transaction: Option<String>) -> Answer {
        let refusal = ErrorResponse::new(StatusCode::CONFLICT, "payment_used");
        let id = self.purchase.id;
        let refusal = match transaction {
            Some(transaction) => refusal
                .about(id, Charged::Yes)
                .receipt(self.purchase.receipt(None, Some(transaction))),
            None => refusal.about(id, Charged::Unknown),
        };
        let refusal = refusal.hint("This payment was used. Sign another one for another answer.");
        (GateOutcome::Conflict, refusal.response())
    }

    fn in_progress(&self) -> Answer {
        let refusal = ErrorResponse::new(StatusCode::CONFLICT, "payment_in_progress")
            .about(self.purchase.id, Charged::Unknown)
            .hint("Another request with this payment is being answered.");
        (GateOutcome::Conflict, refusal.retry_after(2).response())
    }

    fn unavailable(&self, retry_after: Option<Duration>) -> Answer {
        let seconds = retry_after.map_or(5, |wait| wait.as_secs().max(1));
        let refusal = self
            .refusal(StatusCode::SERVICE_UNAVAILABLE, "facilitator_unavailable")
            .hint("The payment was not used. Present it again.");
        let response = refusal.retry_after(seconds).response();
        (GateOutcome::FacilitatorUnavailable, response)
    }

    fn pending(&self, transaction: Option<String>) -> Answer {
        let reason = Some("settlement_pending".to_owned());
        let refusal = ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "settlement_pending")
            .about(self.purchase.id, Charged::Unknown)
            .receipt(self.purchase.receipt(reason, transaction))
            .hint("Send the same request with the same payment again. Do not sign a new payment.");
        (GateOutcome::Pending, refusal.retry_after(2).response())
    }

    /// The upstream did not answer. `transaction` is that of the payment, if it was charged.
    fn failed(&self, error: &UpstreamError, transaction: Option<String>) -> Answer {
        warn!(payment = %self.purchase.id, offer = ?self.routed.offer.name, %error, "upstream failed");
        let refusal = upstream_failed(error);
        let refusal = match transaction {
            None => refusal
                .about(self.purchase.id, Charged::No)
                .field(CHARGED, "false")
                .hint("The payment was not used. Present it again."),
            Some(transaction) => {
                let end = self.purchase.valid_before().saturating_add(ASK_FOR);
                refusal
                    .about(self.purchase.id, Charged::Yes)
                    .field(CHARGED, "true")
                    .receipt(self.purchase.receipt(None, Some(transaction)))
                    .hint(format!(
                        "The payment was charged. Present it again with the same request, until Unix time {end}."
                    ))
            }
        };
        (GateOutcome::UpstreamFailed, refusal.response())
    }
}

/// Whether an answer is paid for: what was asked for was done, or a connection was opened.
fn is_charged(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// The upstream answered, with something that is not charged.
fn not_charged(mut response: Response) -> Answer {
    let fields = response.headers_mut();
    headers::from_upstream(fields, true);
    fields.insert(CHARGED, HeaderValue::from_static("false"));
    headers::cors(fields);
    (GateOutcome::NotCharged, response)
}
