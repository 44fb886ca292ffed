//! The hash of a request, of whose body the beginning is read first.

use std::time::Duration;

use alloy::primitives::B256;
use axum::body::Body;
use axum::extract::Request;
use futures::{StreamExt, stream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::answer::ErrorResponse;
use super::{Answer, Routed, limited_answer};
use crate::gate::limit::Limited;
use crate::gate::proxy::MemoryBudget;
use crate::metrics::GateOutcome;

/// Bytes of a request's body that tell one request from another.
const FINGERPRINTED: usize = 256 * 1024;
/// How long these bytes may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Hashes what a payment is presented for: offer, method, path, query and the beginning of the body.
/// The rest of the body streams.
pub(super) async fn hashed(
    routed: &Routed,
    request: Request,
    memory: &MemoryBudget,
) -> Result<(Request, B256), Box<Answer>> {
    let (parts, body) = request.into_parts();
    let mut digest = Sha256::new();
    let length = parts.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let method = parts.method.as_str().as_bytes();
    for part in [
        routed.offer.uid.as_bytes(),
        method,
        routed.target.as_bytes(),
        length.unwrap_or_default(),
    ] {
        digest.update(part);
        digest.update([0]);
    }
    let reading = timeout(BODY_TIMEOUT, BodyStart::read(body, memory));
    let (start, rest) = match routed.waited.count(reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(NotRead::Limited(limited))) => return Err(Box::new(limited_answer(limited))),
        Ok(Err(NotRead::Broken)) => {
            let refusal = ErrorResponse::new(StatusCode::BAD_REQUEST, "malformed_request");
            return Err(Box::new((GateOutcome::Malformed, refusal.response())));
        }
        Err(_) => {
            let refusal = ErrorResponse::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow");
            return Err(Box::new((GateOutcome::Malformed, refusal.response())));
        }
    };
    digest.update(start.telling());
    let hash: [u8; 32] = digest.finalize().into();
    let body = start.into_body(rest);
    Ok((Request::from_parts(parts, body), hash.into()))
}

/// The beginning of a body, which was read before the request is sent on.
struct BodyStart {
    /// Copied, because a small piece of a received buffer would keep all of it in memory.
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    memory: Option<OwnedSemaphorePermit>,
}

/// Why the beginning of a body was not read.
enum NotRead {
    Broken,
    Limited(Limited),
}

impl BodyStart {
    /// Reads as much as tells one request from another. The rest of the body comes with it.
    async fn read(mut body: Body, budget: &MemoryBudget) -> Result<(Self, Body), NotRead> {
        let mut start = Self {
            bytes: Vec::new(),
            trailers: None,
            memory: budget.reserve(0),
        };
        while start.bytes.len() < FINGERPRINTED {
            let Some(frame) = body.frame().await else {
                break;
            };
            match frame.map_err(|_| NotRead::Broken)?.into_data() {
                Ok(chunk) => start.bytes.extend_from_slice(&chunk),
                Err(frame) => start.trailers = frame.into_trailers().ok(),
            }
            let memory = start.memory.as_mut();
            if !memory.is_some_and(|memory| budget.extend(memory, start.bytes.len())) {
                return Err(NotRead::Limited(Limited {
                    retry_after: Duration::from_secs(1),
                }));
            }
        }
        Ok((start, body))
    }

    /// What tells one request from another: it does not depend on how the body was cut into pieces.
    fn telling(&self) -> &[u8] {
        &self.bytes[..self.bytes.len().min(FINGERPRINTED)]
    }

    /// The whole body. The beginning, in one piece, takes its memory until it is sent on.
    fn into_body(self, rest: Body) -> Body {
        if self.bytes.is_empty() && self.trailers.is_none() {
            return Body::empty();
        }
        let Self {
            bytes,
            trailers,
            memory,
        } = self;
        let start = stream::once(async move {
            drop(memory);
            Ok(Frame::data(bytes.into()))
        });
        let trailers = trailers.map(|trailers| Ok(Frame::trailers(trailers)));
        let frames = start.chain(BodyStream::new(rest));
        Body::new(StreamBody::new(frames.chain(stream::iter(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Bytes, to_bytes};

    use super::*;

    fn pieces(body: &[u8], size: usize) -> Body {
        let pieces = body.chunks(size).map(Bytes::copy_from_slice);
        let pieces: Vec<_> = pieces.map(Ok::<_, axum::Error>).collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn body_tells_the_same_however_it_is_cut() {
        let sent: Vec<u8> = (0..FINGERPRINTED + 50_000).map(|at| at as u8).collect();
        let budget = MemoryBudget::new(1024 * 1024);
        for size in [1000, 4096, 100_000, 1_000_000] {
            let read = BodyStart::read(pieces(&sent, size), &budget).await;
            let Ok((start, rest)) = read else {
                panic!("{size}");
            };
            assert_eq!(start.telling(), &sent[..FINGERPRINTED], "{size}");
            let passed = start.into_body(rest);
            assert_eq!(to_bytes(passed, usize::MAX).await.unwrap(), sent, "{size}");
        }
    }

    #[tokio::test]
    async fn memory_is_given_back_once_the_beginning_is_sent() {
        let budget = MemoryBudget::new(100 * 1024);
        let read = async || BodyStart::read(pieces(&[0; 60 * 1024], 1000), &budget).await;
        let first = read().await;
        assert!(first.is_ok());
        assert!(matches!(read().await, Err(NotRead::Limited(_))));
        let Ok((start, rest)) = first else {
            panic!();
        };
        let mut body = start.into_body(rest);
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(read().await.is_ok());
    }

    #[tokio::test]
    async fn trailers_are_passed_on() {
        let budget = MemoryBudget::new(1024 * 1024);
        let mut sum = HeaderMap::new();
        sum.insert("x-sum", HeaderValue::from_static("7"));
        for size in [10, FINGERPRINTED + 10] {
            let frames = [
                Ok::<_, axum::Error>(Frame::data(Bytes::from(vec![0; size]))),
                Ok(Frame::trailers(sum.clone())),
            ];
            let body = Body::new(StreamBody::new(stream::iter(frames)));
            let Ok((start, rest)) = BodyStart::read(body, &budget).await else {
                panic!("{size}");
            };
            let passed = start.into_body(rest).collect().await.unwrap();
            assert_eq!(passed.trailers(), Some(&sum), "{size}");
            assert_eq!(passed.to_bytes().len(), size);
        }
    }
}
