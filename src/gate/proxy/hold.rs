//! Reads the start of a response before it is paid for.
//!
//! A response that ends within the limits is known to be complete before anyone is charged. Of a
//! longer one, the part that was read is passed on first, and the rest streams after it. All holds
//! share one budget of memory. When it is used up a response is not held: it is charged at its
//! head, as a stream is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;

/// Bytes that one permit of the budget stands for.
const UNIT: usize = 1024;

/// How much of a response is read before it is paid for, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldLimits {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

/// A response after its hold.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) response: Response<Body>,
    /// The whole body, if it ended within the limits and has no trailers.
    pub(crate) whole: Option<Bytes>,
}

impl Held {
    const fn not(response: Response<Body>) -> Self {
        let whole = None;
        Self { response, whole }
    }
}

/// Memory for all bodies that are read ahead. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget {
    permits: Arc<Semaphore>,
    units: usize,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes / UNIT;
        let permits = Arc::new(Semaphore::new(units));
        Self { permits, units }
    }

    /// Memory for as long as the permit lives; none if others use it.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        Arc::clone(&self.permits).try_acquire_many_owned(units).ok()
    }

    /// Makes a permit stand for this many bytes in all. Whether there was memory left.
    pub(crate) fn extend(&self, permit: &mut OwnedSemaphorePermit, bytes: usize) -> bool {
        let more = bytes.div_ceil(UNIT).saturating_sub(permit.num_permits());
        match self.reserve(more * UNIT) {
            Some(more) => {
                permit.merge(more);
                true
            }
            None => false,
        }
    }

    /// Bytes that are reserved.
    pub(super) fn used(&self) -> usize {
        (self.units - self.permits.available_permits()) * UNIT
    }
}

/// Whether what an upstream sends is of use before it ends.
fn is_live(headers: &HeaderMap) -> bool {
    let value = |name: &str| headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
    let media_type = value(CONTENT_TYPE.as_str())
        .split(|byte| *byte == b';')
        .next();
    media_type.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
        || value("x-accel-buffering").eq_ignore_ascii_case(b"no")
}

pub(super) async fn hold(
    response: Response<Body>,
    limits: HoldLimits,
    budget: &MemoryBudget,
) -> Result<Held, UpstreamError> {
    let is_tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_tunnel || is_live(response.headers()) {
        return Ok(Held::not(response));
    }
    let announced = response.body().size_hint().upper();
    let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
    let most = announced.map_or(limits.bytes, |bytes| bytes.min(limits.bytes));
    let Some(permit) = budget.reserve(most) else {
        return Ok(Held::not(response));
    };
    let (parts, mut body) = response.into_parts();
    let deadline = Instant::now() + limits.time;
    let mut start = Start::new(permit, limits.bytes);
    let is_whole = loop {
        if body.is_end_stream() {
            break true;
        }
        if start.is_full() {
            break false;
        }
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => start.push(frame),
            Ok(Some(Err(_))) => return Err(UpstreamError::Broken),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let rest = (!is_whole).then_some(body);
    let held = start.into_body(rest);
    Ok(Held {
        whole: held.whole(),
        response: Response::from_parts(parts, Body::new(held)),
    })
}

/// The part of a body that was read.
struct Start {
    /// Copied, because a small piece of a received buffer would keep all of it in memory.
    data: Vec<u8>,
    /// The piece that did not fit: the last one.
    over: Option<Bytes>,
    trailers: Option<HeaderMap>,
    limit: usize,
    permit: OwnedSemaphorePermit,
}

impl Start {
    const fn new(permit: OwnedSemaphorePermit, limit: usize) -> Self {
        Self {
            data: Vec::new(),
            over: None,
            trailers: None,
            limit,
            permit,
        }
    }

    fn is_full(&self) -> bool {
        self.data.len() >= self.limit || self.over.is_some()
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if self.data.len() + data.len() <= self.limit => {
                self.grow(self.data.len() + data.len());
                self.data.extend_from_slice(&data);
            }
            Ok(data) => self.over = Some(data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    /// Makes room for this number of bytes in few steps, and never for more than the limit, which
    /// is what the budget was asked for.
    fn grow(&mut self, needed: usize) {
        if needed > self.data.capacity() {
            let room = needed.max(2 * self.data.capacity()).min(self.limit);
            self.data.reserve_exact(room - self.data.len());
        }
    }

    fn into_body(self, rest: Option<Body>) -> HeldBody {
        let mut data = self.data;
        data.shrink_to_fit();
        let data = Some(Bytes::from(data)).filter(|data| !data.is_empty());
        HeldBody {
            front: data.into_iter().chain(self.over).collect(),
            trailers: self.trailers,
            rest,
            permit: Some(self.permit),
        }
    }
}

/// What was read of a body, followed by its rest.
struct HeldBody {
    front: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// `None` if the body was read to its end.
    rest: Option<Body>,
    /// Given back with the last byte that was held.
    permit: Option<OwnedSemaphorePermit>,
}

impl HeldBody {
    fn whole(&self) -> Option<Bytes> {
        let is_whole = self.rest.is_none() && self.trailers.is_none() && self.front.len() <= 1;
        is_whole.then(|| self.front.front().cloned().unwrap_or_default())
    }
}

impl hyper::body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(data) = self.front.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        self.permit = None;
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        Poll::Ready(ready!(Pin::new(rest).poll_frame(context)))
    }

    fn is_end_stream(&self) -> bool {
        let is_rest_over = self.rest.as_ref().is_none_or(Body::is_end_stream);
        self.front.is_empty() && self.trailers.is_none() && is_rest_over
    }

    fn size_hint(&self) -> SizeHint {
        let front: usize = self.front.iter().map(Bytes::len).sum();
        let front = front as u64;
        let rest = self.rest.as_ref().map(Body::size_hint);
        let rest = rest.unwrap_or_else(|| SizeHint::with_exact(0));
        let mut hint = SizeHint::new();
        hint.set_lower(front + rest.lower());
        // A body of known size would be sent without its trailers.
        if let Some(upper) = rest.upper().filter(|_| self.trailers.is_none()) {
            hint.set_upper(front + upper);
        }
        hint
    }
}
