//! Asks a facilitator: whether a payment would be settled, to settle it, and what it supports.
//!
//! It carries out and keeps connections, and whether facilitators answer: [`super::breaker`] decides
//! whether one is asked for a verdict. What an answer means is read in [`super::answer`]. A settlement
//! is sent once: who asks decides whether to send the same bytes again, since only it knows what
//! became of the payment before. Credentials are files, read at each request, so that a changed
//! Secret needs no restart.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use kube::ResourceExt;
use reqwest::header::RETRY_AFTER;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroizing;

use super::answer::{
    self, ANSWER_BYTES, Answer, AskedPayment, Settlement, Supported, Verification,
};
use super::breaker::Breaker;
use super::terms::Terms;
use super::token::{CdpKey, CdpKeyError};
use super::wire::{Resource, SignedPayment, facilitator_request};
use crate::api::{FacilitatorAuth, FacilitatorAuthType, PaymentFacilitator};

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of /supported.
const SUPPORTED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept. Many servers close theirs after 5 s, and a settlement that
/// meets a connection being closed may or may not have been received.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Least and most pause before a verification is repeated, in milliseconds.
const PAUSE: std::ops::Range<u64> = 50..250;

/// A facilitator, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FacilitatorEndpoint {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) auth: FacilitatorAuth,
    pub(crate) verify_timeout: Duration,
    pub(crate) settle_timeout: Duration,
}

/// What facilitators are asked about a payment, whether to verify or to settle it.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    payment: AskedPayment,
    body: Bytes,
}

/// A facilitator has not answered, or cannot be asked. No text shows a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(const_into_str)]
pub(crate) enum FacilitatorError {
    #[error(
        "its URL is not an absolute http or https URL without user, query and fragment: correct spec.remote.url"
    )]
    InvalidUrl,
    #[error("the Secret of facilitators' credentials has no key {0}: add it")]
    CredentialMissing(String),
    #[error("key {key} of the Secret of facilitators' credentials {why}")]
    CredentialInvalid { key: String, why: String },
    #[error("{why}")]
    FacilitatorUnreachable {
        why: &'static str,
        /// Whether it may have received the request.
        may_have_it: bool,
    },
    #[error("{0}")]
    AnswerNotUsable(String),
}

impl FacilitatorError {
    /// Reason for a condition.
    pub(crate) fn reason(&self) -> &'static str {
        self.into_str()
    }

    /// Whether the facilitator is down, or something else answers for it: it may be back without a
    /// change of the spec or a credential.
    pub(crate) fn is_down(&self) -> bool {
        matches!(
            self,
            Self::FacilitatorUnreachable { .. } | Self::AnswerNotUsable(_)
        )
    }

    /// Whether the same request may have an answer a moment later.
    fn is_transient(&self) -> bool {
        matches!(self, Self::FacilitatorUnreachable { .. })
    }

    /// Whether the facilitator cannot have received the request.
    fn is_unsent(&self) -> bool {
        match self {
            Self::InvalidUrl | Self::CredentialMissing(_) | Self::CredentialInvalid { .. } => true,
            Self::FacilitatorUnreachable { may_have_it, .. } => !may_have_it,
            Self::AnswerNotUsable(_) => false,
        }
    }
}

/// No HTTP client can be created.
#[derive(Debug, thiserror::Error)]
#[error("failed to create an HTTP client")]
pub(crate) struct NoClient(#[source] reqwest::Error);

/// Asks facilitators. Clones share connections and breakers.
#[derive(Clone, Debug)]
pub(crate) struct FacilitatorClient {
    http: reqwest::Client,
    credentials: PathBuf,
    begun: Instant,
    /// Of facilitators that failed last, by URL.
    breakers: Arc<Mutex<HashMap<String, Breaker>>>,
}

impl FacilitatorEndpoint {
    /// The endpoint that an object configures.
    pub(crate) fn of(facilitator: &PaymentFacilitator) -> Self {
        let remote = &facilitator.spec.remote;
        let seconds = |seconds: u8| Duration::from_secs(seconds.into());
        Self {
            name: facilitator.name_any(),
            url: remote.url.clone(),
            auth: remote.auth.clone(),
            verify_timeout: seconds(remote.verify_timeout_seconds),
            settle_timeout: seconds(remote.settle_timeout_seconds),
        }
    }

    /// The URL of a call. The schema refuses most of what is refused here, but an object may be
    /// older than its schema.
    fn url(&self, call: &str) -> Result<Url, FacilitatorError> {
        let base: Url = self.url.parse().map_err(|_| FacilitatorError::InvalidUrl)?;
        let is_plain = matches!(base.scheme(), "http" | "https")
            && base.host_str().is_some()
            && base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !is_plain {
            return Err(FacilitatorError::InvalidUrl);
        }
        let url = format!("{}/{call}", base.as_str().trim_end_matches('/'));
        url.parse().map_err(|_| FacilitatorError::InvalidUrl)
    }

    /// Host, and port if the URL has one.
    pub(crate) fn host(&self) -> Option<String> {
        self.url("").ok().and_then(|url| host_of(&url))
    }
}

impl Question {
    /// The question about a payment that is made on these terms.
    pub(crate) fn of(payment: &SignedPayment, terms: &Terms, resource: Resource<'_>) -> Self {
        Self {
            payment: AskedPayment {
                payer: payment.authorization.from,
                chain_id: terms.chain_id,
                amount: terms.amount,
            },
            body: facilitator_request(payment, terms, resource).into(),
        }
    }
}

impl FacilitatorClient {
    /// A client that reads credentials in this directory: the mounted Secret of facilitators.
    pub(crate) fn new(credentials: PathBuf) -> Result<Self, NoClient> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            // A redirect could lead a payment or a credential anywhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(NoClient)?;
        Ok(Self {
            http,
            credentials,
            begun: Instant::now(),
            breakers: Arc::default(),
        })
    }

    /// Asks what a facilitator supports.
    pub(crate) async fn supported(
        &self,
        endpoint: &FacilitatorEndpoint,
    ) -> Result<Supported, FacilitatorError> {
        let answer = self.ask(endpoint, Method::GET, "supported", Bytes::new());
        let answer = within(SUPPORTED_TIMEOUT, answer).await?;
        answer::supported(&answer).map_err(FacilitatorError::AnswerNotUsable)
    }

    /// Asks whether a payment would be settled. A facilitator that does not answer, or is
    /// overloaded, is asked once more if the time limit allows it. One that is known to be down is
    /// not asked.
    pub(crate) async fn verify(
        &self,
        endpoint: &FacilitatorEndpoint,
        question: &Question,
    ) -> Verification {
        let now = || self.begun.elapsed();
        let admitted = self.breaker(endpoint, |breaker| {
            breaker.admit(now(), endpoint.verify_timeout)
        });
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(wait) => {
                return Verification::Unavailable {
                    why: "it has failed several times in a row and is asked again later".to_owned(),
                    retry_after: Some(wait),
                };
            }
        };
        let verdict = self.verify_twice(endpoint, question).await;
        self.breaker(endpoint, |breaker| match verdict.is_down {
            true => breaker.failed(admitted, now(), verdict.retry_after()),
            false => breaker.answered(),
        });
        verdict.verification
    }

    /// Whether none of them is left alone because it failed several times in a row.
    pub(crate) fn are_up(&self) -> bool {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        !breakers.values().any(Breaker::is_open)
    }

    /// Forgets what is known of facilitators that are no longer used, by URL.
    pub(crate) fn retain(&self, is_used: impl Fn(&str) -> bool) {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.retain(|url, _| is_used(url));
    }

    fn breaker<T>(&self, endpoint: &FacilitatorEndpoint, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut breaker = breakers.remove(&endpoint.url).unwrap_or_default();
        let acted = act(&mut breaker);
        if breaker != Breaker::default() {
            breakers.insert(endpoint.url.clone(), breaker);
        }
        acted
    }

    async fn verify_twice(&self, endpoint: &FacilitatorEndpoint, question: &Question) -> Verdict {
        let deadline = Instant::now() + endpoint.verify_timeout;
        let first = self.verify_once(endpoint, question, deadline).await;
        let jitter = Duration::from_millis(rand::random_range(PAUSE));
        let pause = first.retry_after().unwrap_or_default();
        let pause = pause.saturating_add(jitter);
        if !first.may_retry || pause >= deadline.saturating_duration_since(Instant::now()) {
            return first;
        }
        sleep(pause).await;
        self.verify_once(endpoint, question, deadline).await
    }

    async fn verify_once(
        &self,
        endpoint: &FacilitatorEndpoint,
        question: &Question,
        deadline: Instant,
    ) -> Verdict {
        let answer = self.ask(endpoint, Method::POST, "verify", question.body.clone());
        let answer = timeout_at(deadline, answer).await;
        match answer.unwrap_or(Err(TIMED_OUT)) {
            Ok(answer) => {
                let verification = answer::verification(&answer, &question.payment);
                let has_none = matches!(verification, Verification::Unavailable { .. });
                Verdict {
                    verification,
                    may_retry: has_none && answer.is_transient(),
                    is_down: has_none && answer.is_from_outage(),
                }
            }
            Err(error) => Verdict {
                verification: Verification::Unavailable {
                    why: error.to_string(),
                    retry_after: None,
                },
                may_retry: error.is_transient(),
                is_down: error.is_transient(),
            },
        }
    }

    /// Settles a payment.
    pub(crate) async fn settle(
        &self,
        endpoint: &FacilitatorEndpoint,
        question: &Question,
    ) -> Settlement {
        let answer = self.ask(endpoint, Method::POST, "settle", question.body.clone());
        match within(endpoint.settle_timeout, answer).await {
            Ok(answer) => answer::settlement(&answer, &question.payment),
            Err(error) if error.is_unsent() => Settlement::NotSent {
                why: error.to_string(),
            },
            Err(error) => Settlement::Unknown {
                why: error.to_string(),
                transaction: None,
            },
        }
    }

    async fn ask(
        &self,
        endpoint: &FacilitatorEndpoint,
        method: Method,
        call: &str,
        body: Bytes,
    ) -> Result<Answer, FacilitatorError> {
        let url = endpoint.url(call)?;
        let mut headers = self.credentials(&endpoint.auth, &method, &url).await?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut request = self.http.request(method.clone(), url);
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(body);
        }
        let response = request.headers(headers).send().await;
        Ok(receive(response.map_err(|error| lost(&error))?).await)
    }

    /// The headers that authenticate a request.
    async fn credentials(
        &self,
        auth: &FacilitatorAuth,
        method: &Method,
        url: &Url,
    ) -> Result<HeaderMap, FacilitatorError> {
        if auth.type_ == FacilitatorAuthType::None {
            return Ok(HeaderMap::new());
        }
        let key = auth.secret_ref.as_ref().map(|reference| &*reference.key);
        let key = key.unwrap_or_default();
        let invalid = |why: String| FacilitatorError::CredentialInvalid {
            key: key.to_owned(),
            why,
        };
        let stored = self.read(key).await?;
        let (name, value) = if auth.type_ == FacilitatorAuthType::Header {
            let name = auth.header.as_deref().map(str::parse);
            let name: Option<HeaderName> = name.transpose().ok().flatten();
            (name, stored)
        } else {
            let invalid = |error: CdpKeyError| invalid(error.to_string());
            let host = host_of(url).unwrap_or_default();
            let request = format!("{method} {host}{}", url.path());
            let token =
                CdpKey::read(&stored).and_then(|key| key.token(&request, super::unix_seconds()));
            let token = format!("Bearer {}", token.map_err(invalid)?);
            (None, Zeroizing::new(token.into_bytes()))
        };
        let value = HeaderValue::from_bytes(&value);
        let mut value = value.map_err(|_| invalid("is not the value of a header".to_owned()))?;
        value.set_sensitive(true);
        Ok([(name.unwrap_or(AUTHORIZATION), value)]
            .into_iter()
            .collect())
    }

    /// The value of a key of the Secret, without a newline at its end.
    async fn read(&self, key: &str) -> Result<Zeroizing<Vec<u8>>, FacilitatorError> {
        let missing = || FacilitatorError::CredentialMissing(key.to_owned());
        // Anything else names a file outside of the Secret, or one of its older versions.
        if key.is_empty() || key.starts_with('.') || key.contains('/') {
            return Err(missing());
        }
        let read = tokio::fs::read(self.credentials.join(key)).await;
        let mut value = Zeroizing::new(read.map_err(|_| missing())?);
        if value.ends_with(b"\n") {
            value.pop();
        }
        if value.ends_with(b"\r") {
            value.pop();
        }
        Ok(value)
    }
}

/// The answer to a verification.
struct Verdict {
    verification: Verification,
    /// Whether the same request may have a better answer a moment later.
    may_retry: bool,
    /// Whether the facilitator answers no one, as far as this answer shows.
    is_down: bool,
}

impl Verdict {
    /// The pause that the facilitator asks for.
    fn retry_after(&self) -> Option<Duration> {
        match self.verification {
            Verification::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        }
    }
}

const TIMED_OUT: FacilitatorError = FacilitatorError::FacilitatorUnreachable {
    why: "it does not answer within the time limit",
    may_have_it: true,
};

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, FacilitatorError>>,
) -> Result<T, FacilitatorError> {
    let answer = timeout(limit, answer).await;
    answer.unwrap_or(Err(TIMED_OUT))
}

/// Receives a response, as much of its body as may be read.
async fn receive(mut response: reqwest::Response) -> Answer {
    let text = |name| response.headers().get(name)?.to_str().ok();
    let mut answer = Answer {
        status: response.status().as_u16(),
        content_type: text(CONTENT_TYPE).map(str::to_owned),
        retry_after: text(RETRY_AFTER).and_then(answer::retry_after),
        ..Answer::default()
    };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = ANSWER_BYTES - answer.body.len();
                answer.body.extend(chunk.iter().take(room));
                if chunk.len() > room {
                    return answer;
                }
            }
            Ok(None) => {
                answer.is_whole = true;
                return answer;
            }
            Err(_) => return answer,
        }
    }
}

fn lost(error: &reqwest::Error) -> FacilitatorError {
    if error.is_timeout() && !error.is_connect() {
        return TIMED_OUT;
    }
    FacilitatorError::FacilitatorUnreachable {
        why: if error.is_connect() {
            "no connection can be opened"
        } else {
            "the connection was lost"
        },
        may_have_it: !error.is_connect(),
    }
}

fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    let port = url.port().map(|port| format!(":{port}"));
    Some(format!("{host}{}", port.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
