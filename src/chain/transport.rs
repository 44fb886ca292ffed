//! Carries calls to one endpoint over HTTP: the only file that uses an HTTP client for a chain.
//!
//! Calls go in batches. An endpoint that refuses a batch as a whole is asked one call at a time,
//! that time and from then on. Every call is counted, has a time limit, and its answer has a maximum
//! size. What the bytes mean is read in [`super::envelope`].

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use rustls::{CertificateError, Error as TlsError};
use serde_json::{Value, json};

use super::envelope::{
    self, CallFailure, CallResults, HttpResponse, Response, RpcCall, read_response, request_body,
};
use super::error::{
    ANSWER_TOO_LARGE, CONNECTION_LOST, NOT_CONNECTED, NOT_TRUSTED, Redaction, SERVER_ERROR,
    STOPPED_ANSWERING, TIMED_OUT, TLS_FAILED,
};
use super::refusal::{Refusal, classify};
use crate::metrics::{ChainMetrics, RpcMethod, RpcResult};

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Time limit of a request for logs.
const LOGS_TIMEOUT: Duration = Duration::from_secs(12);
/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum calls of one batch.
const BATCH: usize = 32;
/// Calls that are in flight at once where batches are refused.
const SINGLE_CALLS: usize = 4;
/// Maximum bytes of an answer.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Weight of refused batches after which none is sent to the endpoint.
const BATCHES_REFUSED: u32 = 2;

/// The text is not a URL. The error does not repeat it, since it may contain a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL is not an absolute http or https URL")]
pub struct UrlError;

/// Connections to one endpoint.
pub(super) struct Transport {
    client: reqwest::Client,
    url: reqwest::Url,
    /// Weight of the refused batches since the last one that was answered.
    batches_refused: AtomicU32,
    metrics: ChainMetrics,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Transport {
    /// Creates a client for a URL. It sends no request yet.
    ///
    /// # Errors
    /// If the text is not an absolute http or https URL.
    pub(super) fn new(url: &str, metrics: ChainMetrics) -> Result<Self, UrlError> {
        let url: reqwest::Url = url.trim().parse().map_err(|_| UrlError)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(UrlError);
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LOGS_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| UrlError)?;
        Ok(Self {
            client,
            url,
            batches_refused: AtomicU32::new(0),
            metrics,
        })
    }

    /// Scheme, host and port: the only parts of the URL that are shown.
    pub(super) fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}"));
        format!("{}://{host}{}", self.url.scheme(), port.unwrap_or_default())
    }

    /// Hides every part of the URL that may be a credential: user, password, path and query, as a
    /// whole and each segment or value.
    pub(super) fn redaction(&self) -> Redaction {
        let url = &self.url;
        let whole = [
            url.as_str(),
            url.path(),
            url.query().unwrap_or_default(),
            url.username(),
            url.password().unwrap_or_default(),
        ];
        let segments = url.path_segments().into_iter().flatten();
        let values = url.query_pairs().map(|(_, value)| value.into_owned());
        Redaction::new(
            whole
                .into_iter()
                .chain(segments)
                .map(str::to_owned)
                .chain(values),
        )
    }

    /// Sends calls, and returns their answers in the same order.
    pub(super) async fn request(&self, calls: &[RpcCall]) -> CallResults {
        let mut results = CallResults::with_capacity(calls.len());
        for batch in calls.chunks(BATCH) {
            let answers = if batch.len() == 1 || self.refuses_batches() {
                self.request_singly(batch).await
            } else {
                self.request_batch(batch).await
            };
            if add_answers(&mut results, answers, calls.len()).is_break() {
                break;
            }
        }
        results
    }

    fn refuses_batches(&self) -> bool {
        self.batches_refused.load(Ordering::Relaxed) >= BATCHES_REFUSED
    }

    async fn request_batch(&self, calls: &[RpcCall]) -> CallResults {
        let failure = match self.exchange(calls).await {
            Response::Answered(answers) if !are_about_batches(&answers) => {
                self.batches_refused.store(0, Ordering::Relaxed);
                return answers;
            }
            Response::Failed(failure) => return vec![Err(failure); calls.len()],
            Response::Unreadable(failure) if is_rate_limit(calls, &failure) => {
                return vec![Err(failure); calls.len()];
            }
            Response::Answered(_) => None,
            Response::Unreadable(failure) => Some(failure),
        };
        let answers = self.request_singly(calls).await;
        // Only an endpoint that answers single calls has something against batches.
        if answers.iter().any(|answer| !is_hopeless(answer)) {
            let weight = match failure {
                // The answers were too large together.
                Some(CallFailure::Unreachable(ANSWER_TOO_LARGE)) => 0,
                // It may have been a coincidence.
                Some(CallFailure::Unreachable(SERVER_ERROR)) => 1,
                _ => BATCHES_REFUSED,
            };
            self.batches_refused.fetch_add(weight, Ordering::Relaxed);
        }
        answers
    }

    async fn request_singly(&self, calls: &[RpcCall]) -> CallResults {
        let mut results = CallResults::with_capacity(calls.len());
        for some in calls.chunks(SINGLE_CALLS) {
            let answers = join_all(some.iter().map(|call| self.request_one(call))).await;
            if add_answers(&mut results, answers, calls.len()).is_break() {
                break;
            }
        }
        results
    }

    async fn request_one(&self, call: &RpcCall) -> Result<Value, CallFailure> {
        match self.exchange(std::slice::from_ref(call)).await {
            Response::Answered(answers) => answers
                .into_iter()
                .next()
                .unwrap_or(Err(CallFailure::Incomplete("result"))),
            Response::Unreadable(failure) | Response::Failed(failure) => Err(failure),
        }
    }

    /// Sends one HTTP request with a time limit, and counts its calls. Logs may take long, and are
    /// waited for as long as the endpoint answers short requests.
    async fn exchange(&self, calls: &[RpcCall]) -> Response {
        let begun = Instant::now();
        let is_logs = calls.iter().any(|call| call.method == RpcMethod::Logs);
        let response = if is_logs {
            tokio::select! {
                response = within(LOGS_TIMEOUT, self.post(calls)) => response,
                response = self.stop_answering() => response,
            }
        } else {
            within(REQUEST_TIMEOUT, self.post(calls)).await
        };
        self.count(calls, &response, begun.elapsed());
        response
    }

    /// Ends only if the endpoint leaves a short request unanswered.
    async fn stop_answering(&self) -> Response {
        tokio::time::sleep(REQUEST_TIMEOUT).await;
        let calls = [RpcCall::new(RpcMethod::Block, json!(["latest", false]))];
        let begun = Instant::now();
        let response = within(REQUEST_TIMEOUT, self.post(&calls)).await;
        self.count(&calls, &response, begun.elapsed());
        match response {
            Response::Failed(_) => Response::Failed(CallFailure::Unreachable(STOPPED_ANSWERING)),
            Response::Answered(_) | Response::Unreadable(_) => std::future::pending().await,
        }
    }

    fn count(&self, calls: &[RpcCall], response: &Response, duration: Duration) {
        for (index, call) in calls.iter().enumerate() {
            let result = match response {
                Response::Answered(answers) => {
                    answers
                        .get(index)
                        .map_or(RpcResult::Unreachable, |answer| match answer {
                            Ok(_) => RpcResult::Ok,
                            Err(failure) => kind(failure),
                        })
                }
                Response::Unreadable(failure) | Response::Failed(failure) => kind(failure),
            };
            self.metrics.requested(call.method, result, duration);
        }
    }

    async fn post(&self, calls: &[RpcCall]) -> Response {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(request_body(calls).to_string());
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Response::Failed(unreachable(&error)),
        };
        let header = response.headers().get(RETRY_AFTER);
        let retry_after = header
            .and_then(|header| header.to_str().ok())
            .and_then(|header| envelope::retry_after(header, unix_time()));
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > ANSWER_BYTES => {
                    return Response::Unreadable(CallFailure::Unreachable(ANSWER_TOO_LARGE));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Response::Failed(unreachable(&error)),
            }
        }
        read_response(
            calls.len(),
            HttpResponse {
                status,
                retry_after,
                body: &body,
            },
        )
    }
}

/// The response to a request that has a time limit.
async fn within(limit: Duration, response: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(limit, response)
        .await
        .unwrap_or(Response::Failed(CallFailure::Unreachable(TIMED_OUT)))
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

fn unreachable(error: &reqwest::Error) -> CallFailure {
    CallFailure::Unreachable(if error.is_connect() {
        let first: Option<&(dyn Error + 'static)> = Some(error);
        let mut causes = std::iter::successors(first, |cause| (*cause).source());
        causes
            .find_map(|cause| cause.downcast_ref().and_then(tls_failure))
            .unwrap_or(NOT_CONNECTED)
    } else if error.is_timeout() {
        TIMED_OUT
    } else {
        CONNECTION_LOST
    })
}

/// Why TLS failed, if a connection was opened and ended while it began: a refused or unanswered one
/// has other kinds.
fn tls_failure(error: &io::Error) -> Option<&'static str> {
    let wrapped = error.get_ref();
    if let Some(TlsError::InvalidCertificate(invalid)) = wrapped.and_then(|e| e.downcast_ref()) {
        // What rustls has no name for includes a certificate that is its own authority.
        let is_untrusted = matches!(
            invalid,
            CertificateError::UnknownIssuer | CertificateError::Other(_)
        );
        return Some(if is_untrusted {
            NOT_TRUSTED
        } else {
            TLS_FAILED
        });
    }
    // The source of an error that wraps another one is the source of that one.
    if let Some(failure) = wrapped.and_then(|e| e.downcast_ref().and_then(tls_failure)) {
        return Some(failure);
    }
    let ended = matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    );
    ended.then_some(TLS_FAILED)
}

fn kind(failure: &CallFailure) -> RpcResult {
    match failure {
        CallFailure::Refused(refused) if refused.is_json_rpc => RpcResult::Refused,
        _ => RpcResult::Unreachable,
    }
}

/// Adds answers to the results of a request of so many calls. An endpoint that is down or wants a
/// pause is not asked for the rest: what it said last answers them, and breaks the loop.
fn add_answers(results: &mut CallResults, answers: CallResults, calls: usize) -> ControlFlow<()> {
    let is_hopeless = answers.iter().all(is_hopeless);
    let last = answers.last().cloned();
    results.extend(answers);
    match last {
        Some(last) if is_hopeless => {
            results.resize(calls, last);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Whether the next call would have the same answer.
fn is_hopeless(answer: &Result<Value, CallFailure>) -> bool {
    match answer {
        Ok(_) | Err(CallFailure::Incomplete(_)) => false,
        Err(CallFailure::Unreachable(cause)) => *cause != ANSWER_TOO_LARGE,
        Err(CallFailure::Refused(refused)) => refused.http_status == Some(429),
    }
}

fn is_rate_limit(calls: &[RpcCall], failure: &CallFailure) -> bool {
    let (Some(call), CallFailure::Refused(refused)) = (calls.first(), failure) else {
        return false;
    };
    let refusal = classify(
        call.method,
        refused.http_status,
        refused.code,
        &refused.message,
        refused.data.as_ref(),
    );
    refusal == Refusal::RateLimited && !is_about_batches(&refused.message)
}

fn is_about_batches(message: &str) -> bool {
    message.to_lowercase().contains("batch")
}

/// Whether every element of a batch says that batches, or batches of this size, are not allowed.
fn are_about_batches(answers: &CallResults) -> bool {
    answers.iter().all(|answer| {
        matches!(answer, Err(CallFailure::Refused(refused)) if is_about_batches(&refused.message))
    })
}
