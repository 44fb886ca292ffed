//! Asks whether the legacy controller registered an offer, before a record is created and again
//! right before its first nonce (rule R12). [`crate::reconcile::legacy`] judges the answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::OfferClaim;
use crate::api::{AgentRegistrationSpec, network};
use crate::cluster::{Error, LegacyRead, Reader};
use crate::reconcile::issues::{OfferIssue, OfferName};
use crate::reconcile::legacy::{MINIMUM_AGE, find, too_young};

/// How long it is kept that nothing stops the record of an offer.
const KEPT: Duration = Duration::from_secs(15);
/// How long an answer about objects that all offers share is kept.
const SHARED: Duration = Duration::from_secs(1);

/// Answers that are kept between passes.
#[derive(Debug, Default)]
pub(in crate::reconcile::registry) struct LegacyChecks {
    /// Offers, in a generation, that nothing stopped or a trace did, and since when that is known.
    offers: HashMap<(OfferName, Option<i64>), (Instant, Option<OfferIssue>)>,
    /// The AgentIdentity.
    identity: Option<(Instant, LegacyRead)>,
    /// When the API server was last found not to serve requests.
    no_requests: Option<Instant>,
}

/// What stops a record from being created: a trace of the legacy controller, or an offer that is
/// too young. The answer may be [`KEPT`] old.
pub(super) async fn record_obstacle(
    reader: &Reader,
    chain_id: u64,
    record: &AgentRegistrationSpec,
    claims: &[OfferClaim],
    checks: &mut LegacyChecks,
) -> Result<Option<OfferIssue>, Error> {
    if is_decided(record) {
        return Ok(None);
    }
    checks.offers.retain(|_, (when, _)| when.elapsed() < KEPT);
    for claim in claims {
        let asked = (claim.name.clone(), claim.generation);
        let found = match checks.offers.get(&asked) {
            Some((_, found)) => found.clone(),
            None => obstacle(reader, chain_id, claim, checks).await?,
        };
        // An offer does not stay too young.
        if !matches!(found, Some(OfferIssue::AwaitingLegacy { .. })) {
            checks.offers.insert(asked, (Instant::now(), found.clone()));
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What stops the first nonce of a record, by answers of this moment. Of `claims`, those of its key
/// count.
pub(in crate::reconcile::registry) async fn first_nonce_obstacle(
    reader: &Reader,
    chain_id: u64,
    record: &AgentRegistrationSpec,
    claims: &[OfferClaim],
    checks: &mut LegacyChecks,
) -> Result<Option<OfferIssue>, Error> {
    if is_decided(record) || !record.attempts.is_empty() {
        return Ok(None);
    }
    for claim in claims.iter().filter(|claim| claim.key == record.key) {
        if let Some(found) = obstacle(reader, chain_id, claim, checks).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether the offers said which agent they want: one to adopt, or explicitly another one.
fn is_decided(record: &AgentRegistrationSpec) -> bool {
    record.adopt.is_some() || record.edition > 1
}

async fn obstacle(
    reader: &Reader,
    chain_id: u64,
    claim: &OfferClaim,
    checks: &mut LegacyChecks,
) -> Result<Option<OfferIssue>, Error> {
    if let Some(id) = &claim.legacy_agent_id {
        let legacy = format!("status.agentId is {id} and this operator has no record of it");
        return Ok(Some(OfferIssue::AdoptionRequired { legacy }));
    }
    let request = request(reader, &claim.name, checks).await?;
    let identity = identity(reader, checks).await?;
    let is_this_chain = |chain: &str| network::chain_id(chain) == Some(chain_id);
    if let Some(legacy) = find(request.object(), identity.object(), is_this_chain) {
        return Ok(Some(OfferIssue::AdoptionRequired { legacy }));
    }
    let is_served = request.is_served() || identity.is_served();
    let waits = is_served && too_young(claim.created, Timestamp::now());
    let seconds = MINIMUM_AGE.as_secs().unsigned_abs();
    Ok(waits.then_some(OfferIssue::AwaitingLegacy { seconds }))
}

async fn request(
    reader: &Reader,
    (namespace, name): &OfferName,
    checks: &mut LegacyChecks,
) -> Result<LegacyRead, Error> {
    if checks
        .no_requests
        .is_some_and(|when| when.elapsed() < SHARED)
    {
        return Ok(LegacyRead::NotServed);
    }
    let request = reader.registration_request(namespace, name).await?;
    checks.no_requests = if request.is_served() {
        None
    } else {
        Some(Instant::now())
    };
    Ok(request)
}

async fn identity(reader: &Reader, checks: &mut LegacyChecks) -> Result<LegacyRead, Error> {
    if let Some((when, identity)) = &checks.identity
        && when.elapsed() < SHARED
    {
        return Ok(identity.clone());
    }
    let identity = reader.agent_identity().await?;
    checks.identity = Some((Instant::now(), identity.clone()));
    Ok(identity)
}
