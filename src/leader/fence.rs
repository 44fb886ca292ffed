//! The fence: what stands between every write and the world.
//!
//! The elector opens it for a term and moves its end with every renewal; it closes by itself when that end passes,
//! whether or not anything of the elector still runs. It is asked three times: by the type system (a write takes a
//! `&Leading`), around every effect ([`Leading::guard`]), and under the Kubernetes client ([`Layer`]).
//!
//! It narrows the time in which a former leader may still act to one request that had already left. What makes even that
//! one harmless is the precondition that each write carries (a resource version, a nonce): the fence alone is not enough.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower::{BoxError, Service};

use super::record::Epoch;

/// Why a write was refused or cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeading {
    /// The fence is closed.
    #[error("this replica does not lead")]
    Closed,
    /// The term in which the work began is over, even if another one of this replica has begun.
    #[error("the term in which this work began is over")]
    TermOver,
    /// Renewals are failing: too little of the term is left to begin an effect that cannot be taken back.
    #[error("too little of this term is left to begin an effect that cannot be taken back")]
    TermEnding,
    /// The effect took longer than it may, or than the term lasted. Whether it happened is unknown.
    #[error("no answer in time: whether the effect happened is unknown")]
    Unanswered,
}

impl NotLeading {
    /// One word for labels and reasons.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Closed => "NotLeading",
            Self::TermOver => "TermOver",
            Self::TermEnding => "TermEnding",
            Self::Unanswered => "Unanswered",
        }
    }
}

/// What an effect may cost if it happens late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write to the API server: conditional on a version, or repeated until it fits.
    Kubernetes,
    /// Bytes sent to a chain: they cannot be called back.
    Chain,
}

impl Effect {
    /// How long it may take.
    const fn budget(self) -> Duration {
        match self {
            Self::Kubernetes => Duration::from_secs(10),
            Self::Chain => Duration::from_secs(15),
        }
    }

    /// How much of the term must be left to begin it.
    const fn minimum(self) -> Duration {
        match self {
            Self::Kubernetes => Duration::ZERO,
            Self::Chain => Duration::from_millis(500),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Gate {
    Closed,
    Open { epoch: Epoch, soft_end: Instant, hard_end: Instant },
    OpenForEver,
}

/// The fence of one process. All clones are the same fence.
#[derive(Clone, Debug)]
pub struct Fence {
    gate: watch::Sender<Gate>,
}

impl Fence {
    /// A closed fence, for an elector to open.
    #[must_use]
    pub fn closed() -> Self {
        Self { gate: watch::Sender::new(Gate::Closed) }
    }

    /// A fence that never closes, for `--leader-elect=false`.
    #[must_use]
    pub fn open_for_ever() -> Self {
        Self { gate: watch::Sender::new(Gate::OpenForEver) }
    }

    /// Opens the fence for a term, or moves the end of that term.
    pub(super) fn open(&self, epoch: Epoch, soft_end: Instant, hard_end: Instant) {
        self.gate.send_replace(Gate::Open { epoch, soft_end, hard_end });
    }

    /// Closes the fence.
    pub(super) fn close(&self) {
        self.gate.send_replace(Gate::Closed);
    }

    /// Proof that this replica leads at this moment.
    ///
    /// # Errors
    /// [`NotLeading::Closed`], and [`NotLeading::TermEnding`] once nothing should be started any more.
    pub fn leading(&self) -> Result<Leading, NotLeading> {
        let epoch = match &*self.gate.borrow() {
            Gate::Closed => return Err(NotLeading::Closed),
            Gate::OpenForEver => None,
            Gate::Open { hard_end, .. } if *hard_end <= Instant::now() => return Err(NotLeading::Closed),
            Gate::Open { soft_end, .. } if *soft_end <= Instant::now() => return Err(NotLeading::TermEnding),
            Gate::Open { epoch, .. } => Some(epoch.clone()),
        };
        Ok(Leading { fence: self.clone(), epoch })
    }

    /// Whether a request may pass.
    fn is_open(&self) -> bool {
        match &*self.gate.borrow() {
            Gate::Closed => false,
            Gate::OpenForEver => true,
            Gate::Open { hard_end, .. } => Instant::now() < *hard_end,
        }
    }

    /// Waits until the fence is open.
    pub async fn opened(&self) -> Leading {
        let mut changes = self.gate.subscribe();
        loop {
            if let Ok(leading) = self.leading() {
                return leading;
            }
            // The sender lives in `self`, so there is always a next change to wait for.
            let _ = changes.changed().await;
        }
    }
}

/// Proof that this replica led when the work at hand began. Every write takes one by reference.
///
/// It cannot be made up, copied, or carried into another term:
/// ```compile_fail
/// fn twice(leading: serviceoffer::leader::Leading) {
///     let copy = leading.clone();
/// }
/// ```
#[derive(Debug)]
pub struct Leading {
    fence: Fence,
    /// `None` where leadership is not elected.
    epoch: Option<Epoch>,
}

impl Leading {
    /// The term, or `None` where leadership is not elected.
    #[must_use]
    pub fn epoch(&self) -> Option<&Epoch> {
        self.epoch.as_ref()
    }

    /// How much of the term is left for an effect that is begun at this moment.
    ///
    /// # Errors
    /// If it must not be begun.
    pub fn remaining(&self, effect: Effect) -> Result<Duration, NotLeading> {
        let now = Instant::now();
        match (&*self.fence.gate.borrow(), &self.epoch) {
            (Gate::OpenForEver, _) => Ok(Duration::MAX),
            (Gate::Closed, _) => Err(NotLeading::Closed),
            (Gate::Open { epoch, .. }, own) if Some(epoch) != own.as_ref() => Err(NotLeading::TermOver),
            (Gate::Open { soft_end, .. }, _) if effect == Effect::Chain && *soft_end <= now => {
                Err(NotLeading::TermEnding)
            }
            (Gate::Open { hard_end, .. }, _) => match hard_end.saturating_duration_since(now) {
                Duration::ZERO => Err(NotLeading::Closed),
                left if left < effect.minimum() => Err(NotLeading::TermEnding),
                left => Ok(left),
            },
        }
    }

    /// Carries out an effect, if the term still stands, and for no longer than the term does.
    ///
    /// # Errors
    /// If it was not begun, or [`NotLeading::Unanswered`] if it may or may not have happened.
    pub async fn guard<T>(&self, effect: Effect, work: impl Future<Output = T>) -> Result<T, NotLeading> {
        let left = self.remaining(effect)?.min(effect.budget());
        timeout(left, work).await.map_err(|_| NotLeading::Unanswered)
    }

    /// Waits until the term is over.
    pub async fn over(&self) {
        let mut changes = self.fence.gate.subscribe();
        loop {
            match self.remaining(Effect::Kubernetes) {
                Err(_) => return,
                Ok(left) => {
                    // Ends with the next change, or with the term.
                    let _ = timeout(left, changes.changed()).await;
                }
            }
        }
    }
}

#[cfg(test)]
impl Leading {
    /// Proof of a term that is over.
    pub(crate) fn outlived() -> Self {
        let leading = Self { fence: Fence::open_for_ever(), epoch: None };
        leading.fence.close();
        leading
    }
}

/// Puts the fence under a client: while it is closed, no request but a read leaves the process.
#[derive(Clone, Debug)]
pub struct Layer {
    fence: Fence,
}

impl Layer {
    /// A layer that asks this fence.
    #[must_use]
    pub fn new(fence: Fence) -> Self {
        Self { fence }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { fence: self.fence.clone(), inner }
    }
}

/// A client under a fence.
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    fence: Fence,
    inner: S,
}

impl<S, B> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.method() != Method::GET && !self.fence.is_open() {
            return Box::pin(async { Err(NotLeading::Closed.into()) });
        }
        let response = self.inner.call(request);
        Box::pin(async move { response.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use tower::{Layer as _, ServiceExt, service_fn};

    use super::super::record::Version;
    use super::*;

    fn epoch(version: &str) -> Epoch {
        Epoch { lease_uid: "lease".into(), version: Version(version.into()), transitions: 0 }
    }

    /// A fence that is open for ten seconds, the last three of which are for finishing.
    fn open() -> Fence {
        let fence = Fence::closed();
        let now = Instant::now();
        fence.open(epoch("1"), now + Duration::from_secs(7), now + Duration::from_secs(10));
        fence
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_fence_gives_no_proof_and_an_open_one_stops_by_itself() {
        assert_eq!(Fence::closed().leading().unwrap_err(), NotLeading::Closed);
        let fence = open();
        let leading = fence.leading().unwrap();
        assert_eq!(leading.epoch(), Some(&epoch("1")));
        assert_eq!(leading.remaining(Effect::Chain), Ok(Duration::from_secs(10)));

        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(fence.leading().unwrap_err(), NotLeading::TermEnding);
        assert_eq!(leading.remaining(Effect::Chain), Err(NotLeading::TermEnding));
        assert_eq!(leading.remaining(Effect::Kubernetes), Ok(Duration::from_secs(3)));

        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(fence.leading().unwrap_err(), NotLeading::Closed);
        assert_eq!(leading.remaining(Effect::Kubernetes), Err(NotLeading::Closed));
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_is_cut_at_the_end_of_the_term_or_of_its_budget() {
        let leading = open().leading().unwrap();
        assert_eq!(leading.guard(Effect::Kubernetes, async { 7 }).await, Ok(7));
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(leading.guard(Effect::Chain, never).await, Err(NotLeading::Unanswered));
        assert_eq!(begun.elapsed(), Duration::from_secs(10), "the term ended before the budget of 15 s");

        let leading = Fence::open_for_ever().leading().unwrap();
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(leading.guard(Effect::Kubernetes, never).await, Err(NotLeading::Unanswered));
        assert_eq!(begun.elapsed(), Effect::Kubernetes.budget());
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_on_a_chain_is_not_begun_in_the_last_half_second() {
        let fence = Fence::closed();
        let end = Instant::now() + Duration::from_millis(499);
        fence.open(epoch("1"), end, end);
        let leading = fence.leading().unwrap();
        assert_eq!(leading.remaining(Effect::Chain), Err(NotLeading::TermEnding));
        assert!(leading.remaining(Effect::Kubernetes).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn proof_of_one_term_is_no_proof_of_the_next() {
        let fence = open();
        let leading = fence.leading().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        fence.open(epoch("1"), end, end);
        assert_eq!(leading.remaining(Effect::Kubernetes), Ok(Duration::from_secs(20)), "a renewal moves the end");
        fence.open(epoch("2"), end, end);
        assert_eq!(leading.remaining(Effect::Kubernetes), Err(NotLeading::TermOver));
        leading.over().await;
        fence.close();
        assert_eq!(leading.remaining(Effect::Kubernetes), Err(NotLeading::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_fence_ends_with_its_opening_and_waiting_for_the_end_with_the_term() {
        let fence = Fence::closed();
        let waiting = tokio::spawn({
            let fence = fence.clone();
            async move { fence.opened().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = Instant::now();
        fence.open(epoch("1"), now + Duration::from_secs(7), now + Duration::from_secs(10));
        let leading = waiting.await.unwrap();
        leading.over().await;
        assert_eq!(now.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_under_a_closed_fence_reads_and_writes_nothing() {
        let fence = open();
        let client = Layer::new(fence.clone()).layer(service_fn(async |_: Request<()>| Ok::<_, BoxError>(())));
        let send = async |method: Method| {
            let request = Request::builder().method(method).body(()).unwrap();
            client.clone().oneshot(request).await.map_err(|error| error.to_string())
        };
        assert_eq!(send(Method::POST).await, Ok(()));
        fence.close();
        assert_eq!(send(Method::GET).await, Ok(()));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(send(method).await, Err(NotLeading::Closed.to_string()));
        }
    }
}
