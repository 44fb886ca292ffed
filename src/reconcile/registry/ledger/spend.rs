//! Signs and sends what entries need, within the limits, and uses up a nonce that nothing can be signed
//! for.
//!
//! Stored bytes come before sent ones. What one entry may cost is decided in [`super::plan`] and
//! [`crate::ledger::money`]; a failed send decides nothing, since the chain's evidence does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::{info, warn};

use super::apply::{count, refused_write, rpc_obstacle, unanswered};
use super::filler;
use super::plan::{self, Commitments, SpendStep};
use super::prices::{NoQuote, Prices, Quote, quote_filler};
use super::read::{self, ReadyLedger};
use super::{Done, LedgerInput};
use crate::api::{AgentRegistration, AgentRegistrationSpec, Attempt, Key, Nonce};
use crate::chain::refusal::Refusal;
use crate::chain::rpc::SendOutcome;
use crate::ledger::filler::is_due;
use crate::ledger::protocol::{EntryCosts, Reservation, check_attempts, payer, with_attempt};
use crate::ledger::{BoundNonce, ReadLedger, sender};
use crate::metrics::RegistrationOutcome;
use crate::reconcile::issues::OfferIssue;
use crate::reconcile::registry::index::IndexState;
use crate::reconcile::registry::outcome::Obstacle;
use crate::reconcile::registry::state::{RegistryState, SendAnswer};
use crate::registration::document::agent_uri;

/// Blocks after which a transaction that was sent and is in no block is reported.
const INCLUSION_BLOCKS: u64 = 20;

/// What counts against the limits of a day besides the ledger's own entries, and for which namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct SpentToday {
    /// Spent in the last 24 hours.
    spent: Vec<(Option<String>, u128)>,
    /// In flight from other signers of the registry.
    reserved: Vec<(Option<String>, u128)>,
}

impl SpentToday {
    pub(super) fn total(&self) -> u128 {
        let amounts = self.spent.iter().map(|(_, amount)| *amount);
        amounts.fold(0, u128::saturating_add)
    }

    pub(super) fn all(&self) -> Vec<(Option<String>, u128)> {
        [self.spent.clone(), self.reserved.clone()].concat()
    }
}

/// Reads what was spent in the last 24 hours.
pub(super) async fn spent_today(
    input: &LedgerInput<'_>,
    ready: &ReadyLedger,
    state: &mut RegistryState,
) -> Result<SpentToday, Done> {
    let snapshot = ready.snapshot();
    let cached = input.context.cache.records();
    let records: Vec<&AgentRegistrationSpec> = match &ready.records.census {
        Some(_) => {
            let records = ready.records.by_key.values();
            records.map(|record| &record.spec).collect()
        }
        None => cached.iter().map(AsRef::as_ref).collect(),
    };
    let day = read::day_start(
        &input.chain.endpoint,
        (snapshot, &ready.accounts),
        input.chain.latest.timestamp,
        records.iter().copied(),
        &mut state.block_times,
    )
    .await
    .map_err(|error| rpc_obstacle(input, error))?;
    state.counted(records.iter().copied());
    let reserved = plan::reserved_by_others(snapshot, &ready.accounts, records.iter().copied());
    let mut spent = plan::spent(snapshot, &ready.accounts, records, day);
    // A record that cannot be read may be of this account, and of today.
    let unreadable = ready
        .records
        .census
        .as_ref()
        .map_or(0, |census| census.unreadable.len());
    let per_registration = input.target.limits.per_registration;
    spent.extend((0..unreadable).map(|_| (None, per_registration)));
    Ok(SpentToday { spent, reserved })
}

/// Signs and sends what entries need, in the order of their nonces. Without `spent`, nothing is
/// signed: the limits cannot be checked. Nothing is signed above a nonce that nothing could be signed
/// for, and no filler: it would not be included, and its price would be out of date once it could be.
pub(super) async fn spend(
    input: &LedgerInput<'_>,
    held: &ReadLedger,
    spends: &BTreeMap<Nonce, SpendStep>,
    records: &BTreeMap<Key, AgentRegistration>,
    (spent, prices): (Option<&SpentToday>, &mut Prices),
    state: &mut RegistryState,
) -> Done {
    let mut signing = Signing {
        held,
        records,
        spent,
        prices,
        commitments: None,
    };
    state.fillers.retain(held);
    let mut done = Done::default();
    // The lowest nonce that nothing could be signed for: nothing above it is included.
    let mut unsigned: Option<(Nonce, Key)> = None;
    for (nonce, spend) in spends {
        let Some(bound) = held.bound_nonce(*nonce) else {
            continue;
        };
        let Some(record) = records.get(&bound.key()) else {
            continue;
        };
        // The switch may have been turned on since the pass began.
        if input.is_suspended() || done.end.is_some() {
            return done;
        }
        // An endpoint that has become unhealthy ends the sending; the next pass chooses another.
        if !input.chain.endpoint.health().is_healthy() && done.unfinished {
            return done;
        }
        done = done.and(match spend {
            SpendStep::Send(attempt) => send(input, &bound, &record.spec, attempt, state).await,
            SpendStep::Sign => match unsigned {
                Some((nonce, key)) => Done {
                    issues: input.issues_of(bound.key(), &OfferIssue::NonceUnsigned { nonce, key }),
                    ..Done::default()
                },
                None => {
                    let (done, is_sent) =
                        sign_or_fill(input, &bound, record, &mut signing, state).await;
                    if is_sent || done.end.is_some() {
                        done
                    } else {
                        let (nonce, key) = (*nonce, bound.key());
                        unsigned = Some((nonce, key));
                        done.and(Done::obstacle(Obstacle::NonceUnsigned { nonce, key }))
                    }
                }
            },
            SpendStep::Replace {
                attempt,
                sent_recently,
            } => {
                let (replaced, signed) =
                    sign(input, &bound, record, Some(attempt), &mut signing, state).await;
                if signed == Signed::Stored || *sent_recently || replaced.end.is_some() {
                    replaced
                } else {
                    replaced.and(send(input, &bound, &record.spec, attempt, state).await)
                }
            }
        });
    }
    done
}

/// What signing needs to know, and keeps while one transaction after the other is signed.
struct Signing<'a> {
    held: &'a ReadLedger,
    records: &'a BTreeMap<Key, AgentRegistration>,
    spent: Option<&'a SpentToday>,
    prices: &'a mut Prices,
    /// What the account has to pay, once a price is known.
    commitments: Option<Commitments>,
}

impl Signing<'_> {
    /// What the account has to pay; `None` if that is not known.
    fn commitments(&mut self, input: &LedgerInput<'_>, quote: &Quote) -> Option<&mut Commitments> {
        if self.commitments.is_none() {
            let (account, spent) = (input.chain.account.as_ref()?, self.spent?);
            let latest = (account.account_state.counts.latest, account.balance);
            // What is not signed costs nothing yet: the lower nonce comes first.
            let costs = EntryCosts {
                rollup_fee: quote.takes.rollup_fee,
                unsigned: None,
            };
            let ledger = self.held.spec();
            let commitments = Commitments::new(ledger, latest, spent.all(), self.records, costs);
            self.commitments = Some(commitments);
        }
        self.commitments.as_mut()
    }
}

/// What became of signing for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Signed {
    Stored,
    Nothing,
    /// Nothing, because of this agent alone.
    Refused(OfferIssue),
}

impl From<OfferIssue> for Signed {
    fn from(issue: OfferIssue) -> Self {
        if issue.concerns_one_agent() {
            Self::Refused(issue)
        } else {
            Self::Nothing
        }
    }
}

/// Signs for an entry, stores what was signed, and sends it. `replaced` is the attempt that the
/// transaction replaces.
async fn sign(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    record: &AgentRegistration,
    replaced: Option<&Attempt>,
    signing: &mut Signing<'_>,
    state: &mut RegistryState,
) -> (Done, Signed) {
    let (Some(signer), Some(_)) = (&input.target.signer, signing.spent) else {
        return (Done::default(), Signed::Nothing);
    };
    let frozen = record
        .spec
        .agent_uri
        .clone()
        .filter(|_| record.spec.calldata_hash.is_some());
    let uri = frozen.unwrap_or_else(|| agent_uri(input.registry, bound.key()));
    let quote = match signing.prices.quote(input, &uri, replaced).await {
        Ok(Some(quote)) => quote,
        Ok(None) => return (Done::default(), Signed::Nothing),
        Err(NoQuote::Issue(issue)) => {
            let done = short(input, bound, issue.clone(), replaced.is_some());
            return (done, issue.into());
        }
        Err(NoQuote::Rpc(error)) => {
            return (unanswered(input, bound.key(), &error), Signed::Nothing);
        }
    };
    if let Err(shortage) = check_attempts(&record.spec) {
        let issue = OfferIssue::from(shortage);
        let done = short(input, bound, issue.clone(), replaced.is_some());
        return (done, issue.into());
    }
    let Some(commitments) = signing.commitments(input, &quote) else {
        return (Done::default(), Signed::Nothing);
    };
    // Limits and prices may have changed since the nonce was allocated.
    let reservation = Reservation {
        nonce: bound.nonce(),
        amount: quote.takes.worst_cost(quote.fees),
        namespace: payer(&record.spec).map(str::to_owned),
    };
    let mut budget = commitments.budget_of(bound.nonce());
    let (limits, namespace) = (&input.target.limits, reservation.namespace.as_deref());
    if let Err(shortage) = budget.reserve(limits, namespace, reservation.amount) {
        let issue = OfferIssue::from(shortage);
        let done = short(input, bound, issue.clone(), replaced.is_some());
        return (done, issue.into());
    }
    let signed = match sender::sign(
        signer,
        bound,
        &record.spec,
        &uri,
        quote.takes.gas,
        quote.fees,
    ) {
        Ok(signed) => signed,
        Err(error) => return (mismatch(input, bound, &error), Signed::Nothing),
    };
    commitments.reserved.insert(bound.nonce(), reservation);
    let attempt = Attempt {
        signed_at: Some(Timestamp::now().to_string()),
        ..signed.attempt
    };
    let spec = with_attempt(
        &record.spec,
        attempt.clone(),
        signed.calldata_hash,
        &uri,
        state
            .indexes
            .by_account
            .get(&bound.signer())
            .and_then(IndexState::proven_to),
    );
    let store = &input.context.store;
    let stored = match store.replace_record(input.leading, record, spec).await {
        Ok(stored) => stored,
        Err(error) => {
            let why = error.message();
            let signed = if error.is_rejection() {
                OfferIssue::RecordRefused { why }.into()
            } else {
                Signed::Nothing
            };
            return (refused_write(input, bound.key(), error), signed);
        }
    };
    let done = Done {
        wrote: true,
        ..Done::default()
    };
    if let Some(replaced) = replaced {
        let (key, nonce) = (bound.key(), bound.nonce());
        info!(%key, %nonce, replaced = %replaced.hash, transaction = %attempt.hash, "replacing the transaction with higher fees");
    }
    count(input, RegistrationOutcome::Signed);
    let sent = send(input, bound, &stored.spec, &attempt, state).await;
    (done.and(sent), Signed::Stored)
}

/// A registration cannot be paid for, or would revert. If it was signed before, it keeps its nonce from
/// being used.
fn short(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    issue: OfferIssue,
    is_replacement: bool,
) -> Done {
    let (key, nonce) = (bound.key(), bound.nonce());
    // Nothing above the nonce is included before it.
    let (concerned, obstacle) = match issue {
        OfferIssue::Shortage(shortage) if shortage.affects_every_namespace() => {
            let concerned = if is_replacement {
                waiting_keys(input)
            } else {
                vec![key]
            };
            (concerned, Some(Obstacle::Shortage(shortage)))
        }
        OfferIssue::Shortage(_) if is_replacement => {
            (vec![key], Some(Obstacle::NonceUnsigned { nonce, key }))
        }
        _ => (vec![key], None),
    };
    let issues = concerned
        .into_iter()
        .flat_map(|key| input.issues_of(key, &issue));
    Done {
        issues: issues.collect(),
        obstacles: obstacle.into_iter().collect(),
        ..Done::default()
    }
}

/// Keys of this registry that wait for their registration by the signer, as far as the cache knows.
fn waiting_keys(input: &LedgerInput<'_>) -> Vec<Key> {
    let own = input.target.signer.as_ref().map(|signer| signer.address());
    let records = input.context.cache.records();
    let open = records.iter().filter(|record| {
        let is_own = record.signer.is_some() && record.signer == own;
        is_own && input.target.has(record) && record.is_open() && record.adopt.is_none()
    });
    open.map(|record| record.key).collect()
}

/// Sends stored bytes, and reports what the endpoint said.
async fn send(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
    attempt: &Attempt,
    state: &mut RegistryState,
) -> Done {
    let chain = input.chain;
    let sent = match sender::send(&chain.endpoint, input.leading, bound, record, attempt).await {
        Ok(sent) => sent,
        Err(sender::Error::NotLeading(error)) => return Done::ended(error.into()),
        Err(error) => return mismatch(input, bound, &error),
    };
    let (key, nonce) = (bound.key(), bound.nonce());
    let answer = match sent {
        SendOutcome::Accepted => {
            info!(%key, %nonce, transaction = %attempt.hash, "transaction sent");
            count(input, RegistrationOutcome::Sent);
            SendAnswer::Accepted
        }
        // The chain's evidence says what used the nonce.
        SendOutcome::NonceUsed => SendAnswer::Accepted,
        SendOutcome::Refused { refusal, message } => {
            warn!(%key, %nonce, message, "the endpoint refuses the transaction");
            match refusal {
                Refusal::InsufficientFunds => SendAnswer::Underfunded(message),
                _ => SendAnswer::Refused(message),
            }
        }
        SendOutcome::Unanswered(error) => {
            warn!(%key, %nonce, %error, "the endpoint did not answer whether it accepts the transaction");
            SendAnswer::Unanswered(error.to_string())
        }
    };
    let unfinished = matches!(answer, SendAnswer::Unanswered(_));
    state.record_send(key, attempt.hash, chain.latest.number, answer);
    Done {
        unfinished,
        ..Done::default()
    }
}

/// What the last sends of unmined entries say: a transaction that the endpoint refuses, or that no
/// block includes.
pub(super) fn send_obstacles(
    input: &LedgerInput<'_>,
    ready: &ReadyLedger,
    state: &RegistryState,
) -> Done {
    let mut done = Done::default();
    let chain = input.chain;
    let endpoint = chain.endpoint.to_string();
    let latest = ready.account_state.counts.latest;
    for (nonce, entry) in ready.held.spec().entries.range(latest..) {
        let Some(record) = entry.key.and_then(|key| ready.records.by_key.get(&key)) else {
            continue;
        };
        let attempt = record
            .spec
            .attempts
            .iter()
            .rfind(|attempt| attempt.nonce == *nonce);
        let Some(send) = attempt.and_then(|attempt| state.sends.get(&attempt.hash)) else {
            continue;
        };
        let (key, nonce, endpoint) = (record.spec.key, *nonce, endpoint.clone());
        let blocks = chain.latest.number.saturating_sub(send.first_block);
        let (issue, obstacle) = match &send.answer {
            SendAnswer::Refused(message) => (
                OfferIssue::SendRefused {
                    words: message.clone(),
                },
                Obstacle::SendRefused {
                    endpoint,
                    key,
                    nonce,
                    message: message.clone(),
                },
            ),
            SendAnswer::Underfunded(message) => (
                OfferIssue::InsufficientFunds {
                    words: message.clone(),
                },
                Obstacle::InsufficientFunds {
                    endpoint,
                    key,
                    nonce,
                    message: message.clone(),
                },
            ),
            SendAnswer::Unanswered(message) => (
                OfferIssue::SendUnanswered {
                    words: message.clone(),
                },
                Obstacle::SendUnanswered {
                    endpoint,
                    key,
                    nonce,
                    message: message.clone(),
                },
            ),
            SendAnswer::Accepted if blocks >= INCLUSION_BLOCKS => (
                OfferIssue::NotIncluded {
                    blocks: INCLUSION_BLOCKS,
                },
                Obstacle::NotIncluded {
                    key,
                    nonce,
                    blocks: INCLUSION_BLOCKS,
                },
            ),
            SendAnswer::Accepted => continue,
        };
        done.issues.extend(input.issues_of(key, &issue));
        done.obstacles.push(obstacle);
    }
    done
}

/// What is stored contradicts itself: a person has to look.
fn mismatch(input: &LedgerInput<'_>, bound: &BoundNonce, error: &sender::Error) -> Done {
    let (key, nonce, why) = (bound.key(), bound.nonce(), error.to_string());
    let issue = OfferIssue::StoredTransactionMismatch {
        nonce,
        why: why.clone(),
    };
    Done {
        issues: input.issues_of(key, &issue),
        ..Done::obstacle(Obstacle::StoredTransactionMismatch { key, nonce, why })
    }
}

/// Signs, stores and sends for an entry, or fills its nonce if only its own agent keeps that from being
/// done. Says whether a transaction with the nonce is on its way.
async fn sign_or_fill(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    record: &AgentRegistration,
    signing: &mut Signing<'_>,
    state: &mut RegistryState,
) -> (Done, bool) {
    let key = bound.key();
    let before = state.fillers.sent(bound);
    let (done, why) = match &before {
        Some(sent) if sent.is_recent => {
            let done = Done {
                issues: input.issues_of(key, &sent.issue),
                ..Done::default()
            };
            return (done, true);
        }
        Some(sent) => (Done::default(), sent.why.clone()),
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
    let before = before.map(|sent| sent.filler);
    match sign_filler(input, bound, before, signing).await {
        Ok(filler) => {
            let fillers = &mut state.fillers;
            let (sent, is_sent) = filler::send(input, bound, filler, why, fillers).await;
            (done.and(sent), is_sent)
        }
        Err(failed) => (done.and(failed), false),
    }
}

/// The filler to send: the one that was sent before, or one that is signed at today's price.
async fn sign_filler(
    input: &LedgerInput<'_>,
    bound: &BoundNonce,
    before: Option<Attempt>,
    signing: &mut Signing<'_>,
) -> Result<Attempt, Done> {
    let (account, key, nonce) = (bound.signer(), bound.key(), bound.nonce());
    let quote = match quote_filler(input, (account, key), before.as_ref()).await {
        Ok(Some(quote)) => quote,
        Ok(None) | Err(NoQuote::Issue(_)) => return before.ok_or_else(Done::default),
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
