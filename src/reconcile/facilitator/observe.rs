//! Gathers what the status of a facilitator depends on: what it supports, and how the tokens that
//! offers name describe themselves.
//!
//! It decides nothing; [`super::plan`] decides. A facilitator is asked when its spec changed and
//! when the last answer is old, not at every trigger. A token is asked once: its facts are then part
//! of the status.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::Resource;
use tracing::debug;

use super::plan::{self, FacilitatorSnapshot, TokenAddress};
use crate::api::{Endpoint, PaymentFacilitator, RemoteFacilitator, TokenFacts};
use crate::chain::RpcEndpoint;
use crate::cluster::SecretRead;
use crate::gate::{FacilitatorEndpoint, FacilitatorError, Supported};
use crate::metrics::SupportedResult;
use crate::reconcile::Context;
use crate::telemetry::causes;

/// How long a token that did not describe itself is not asked again.
const TOKEN_PAUSE: Duration = Duration::from_secs(60);
/// How many tokens are asked at once.
const TOKENS_AT_ONCE: usize = 4;

/// State of all facilitators, by name. Clones share it. All of it can be rebuilt by asking.
#[derive(Clone, Debug, Default)]
pub(crate) struct FacilitatorStates(
    Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<FacilitatorState>>>>>,
);

/// What is kept of one facilitator between passes.
#[derive(Debug, Default)]
pub(super) struct FacilitatorState {
    answer: Option<KnownAnswer>,
    /// Answers in a row that were none.
    failures: u32,
    /// When tokens were asked that did not describe themselves.
    unknown_tokens: HashMap<TokenAddress, Instant>,
}

/// The last answer, and to which spec.
#[derive(Debug)]
struct KnownAnswer {
    remote: RemoteFacilitator,
    answer: Result<Supported, FacilitatorError>,
    /// When the facilitator is asked again.
    due: Instant,
}

impl FacilitatorStates {
    #[must_use]
    pub(super) fn of(&self, facilitator: &str) -> Arc<tokio::sync::Mutex<FacilitatorState>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(facilitator.to_owned()).or_default())
    }

    /// Drops facilitators that no longer exist.
    pub(super) fn retain(&self, exists: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|facilitator, _| exists(facilitator));
    }
}

impl FacilitatorState {
    /// Time until anything is asked again.
    pub(super) fn next_question(&self) -> Duration {
        let now = Instant::now();
        let known = self.answer.as_ref();
        let answer = known.map(|known| known.due.saturating_duration_since(now));
        let tokens = self.unknown_tokens.values();
        let tokens = tokens.map(|asked| TOKEN_PAUSE.saturating_sub(asked.elapsed()));
        let least = tokens.chain(answer).min().unwrap_or_default();
        // A pass that is early would ask nothing.
        least.saturating_add(Duration::from_millis(100))
    }
}

pub(super) async fn snapshot(
    context: &Context,
    facilitator: &Arc<PaymentFacilitator>,
    state: &mut FacilitatorState,
) -> FacilitatorSnapshot {
    let endpoint = FacilitatorEndpoint::of(facilitator);
    let answer = supported(context, facilitator, &endpoint, state).await;
    let offers = context.cache.offers();
    let networks = &facilitator.spec.networks;
    let tokens = plan::tokens(offers.iter().map(AsRef::as_ref), networks);
    let learned = learn(context, facilitator, &tokens, state).await;
    FacilitatorSnapshot {
        facilitator: Arc::clone(facilitator),
        object: facilitator.object_ref(&()),
        now: Timestamp::now(),
        host: endpoint.host(),
        answer: answer.map(|supported| supported.kinds_on(networks)),
        tokens,
        learned,
    }
}

/// What the facilitator supports, by an answer that is recent enough.
async fn supported(
    context: &Context,
    facilitator: &PaymentFacilitator,
    endpoint: &FacilitatorEndpoint,
    state: &mut FacilitatorState,
) -> Result<Supported, FacilitatorError> {
    let remote = &facilitator.spec.remote;
    let known = state
        .answer
        .as_ref()
        .filter(|known| known.remote == *remote);
    if let Some(known) = known.filter(|known| known.due > Instant::now()) {
        return known.answer.clone();
    }
    let answer = context.facilitators.supported(endpoint).await;
    let result = match &answer {
        Ok(_) => SupportedResult::Answered,
        Err(error) if error.is_down() => SupportedResult::Down,
        Err(_) => SupportedResult::NotAsked,
    };
    state.failures = match &answer {
        Ok(_) => 0,
        Err(error) => {
            debug!(error = %causes(error), "the facilitator does not say what it supports");
            state.failures.saturating_add(1)
        }
    };
    context.metrics.facilitators.asked(&endpoint.name, result);
    state.answer = Some(KnownAnswer {
        remote: remote.clone(),
        answer: answer.clone(),
        due: Instant::now() + plan::delay(state.failures, rand::random_range(0.0..1.0)),
    });
    answer
}

/// Asks the tokens whose facts are not in the status.
async fn learn(
    context: &Context,
    facilitator: &PaymentFacilitator,
    tokens: &[TokenAddress],
    state: &mut FacilitatorState,
) -> Vec<TokenFacts> {
    let status = facilitator.status.as_ref();
    let known = status.map(|status| &*status.assets).unwrap_or_default();
    let is_missing = |token: &&TokenAddress| !known.iter().any(|facts| token.is(facts));
    state.unknown_tokens.retain(|token, asked| {
        tokens.contains(token) && is_missing(&token) && asked.elapsed() < TOKEN_PAUSE
    });
    let asked: Vec<TokenAddress> = tokens
        .iter()
        .filter(is_missing)
        .filter(|token| !state.unknown_tokens.contains_key(*token))
        .cloned()
        .collect();
    let mut endpoints: BTreeMap<u64, Vec<RpcEndpoint>> = BTreeMap::new();
    for token in &asked {
        if let Entry::Vacant(vacant) = endpoints.entry(token.chain_id) {
            vacant.insert(endpoints_of(context, token.chain_id).await);
        }
    }
    let questions = asked.into_iter().map(|token| {
        let endpoints = endpoints.get(&token.chain_id).cloned();
        async move {
            let answer = ask(&endpoints.unwrap_or_default(), &token).await;
            (token, answer)
        }
    });
    let answers: Vec<_> = stream::iter(questions)
        .buffer_unordered(TOKENS_AT_ONCE)
        .collect()
        .await;
    let mut learned = Vec::new();
    for (token, answer) in answers {
        match answer {
            Some(facts) => learned.push(facts),
            None => drop(state.unknown_tokens.insert(token, Instant::now())),
        }
    }
    // The order of answers is no reason to write.
    learned.sort_by(|a, b| (&a.network, &a.address).cmp(&(&b.network, &b.address)));
    learned
}

/// How a token describes itself to the first endpoint that answers and serves its chain.
async fn ask(endpoints: &[RpcEndpoint], token: &TokenAddress) -> Option<TokenFacts> {
    let address: Address = token.address.parse().ok()?;
    for endpoint in endpoints {
        match endpoint.token(address).await {
            Ok(reading) => {
                let facts = plan::facts(token, reading);
                debug!(%endpoint, address = token.address, is_token = facts.is_some(), "asked a token");
                if facts.is_some() {
                    return facts;
                }
            }
            Err(error) => debug!(error = %causes(&error), "failed to ask a token"),
        }
    }
    None
}

/// The endpoints of a chain that IdentityRegistries name. Without one, no token can be asked.
async fn endpoints_of(context: &Context, chain_id: u64) -> Vec<RpcEndpoint> {
    let mut registries = context.cache.registries();
    registries.retain(|registry| registry.spec.chain_id == chain_id);
    let mut endpoints = Vec::new();
    for endpoint in registries.iter().flat_map(|registry| &registry.spec.rpc) {
        let url = url(context, endpoint).await;
        let metrics = || context.metrics.chain.clone();
        let endpoint = url.and_then(|url| RpcEndpoint::new(&url, metrics()).ok());
        endpoints.extend(endpoint.map(|endpoint| endpoint.for_pass()));
    }
    endpoints
}

/// The URL of an endpoint, which may be in a Secret.
async fn url(context: &Context, endpoint: &Endpoint) -> Option<String> {
    let Some(from) = &endpoint.url_from else {
        return endpoint.url.clone();
    };
    match context.reader.secret(&from.secret_key_ref, None).await {
        Ok(SecretRead::Read { bytes, .. }) => String::from_utf8(bytes?.to_vec()).ok(),
        Ok(SecretRead::Unchanged) => None,
        Err(error) => {
            debug!(error = %causes(&error), "failed to read the URL of an endpoint");
            None
        }
    }
}
