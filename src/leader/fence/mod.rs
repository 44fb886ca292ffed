//! The fence: what stands between every write and the world.
//!
//! The elector opens it for a term and moves its end with every renewal; it closes by itself when that end passes,
//! whether or not anything of the elector still runs. It is asked three times: by the type system (a write takes a
//! `&Leading`), around every effect ([`Leading::guard`]), and under the Kubernetes client ([`layer`], [`executor`]).
//!
//! It is closed as soon as any clock says that the term is over: the one that counts the machine's sleep, or the wall clock,
//! which is put right after a virtual machine was frozen. A wall clock that jumps costs time, never safety.
//!
//! It narrows what a former leader may still do to what was leaving the process when it was stopped: one request to the API
//! server, and one to each chain. What makes even those harmless is the precondition that each write carries (a resource version, a nonce): the fence alone is not
//! enough.

mod executor;
mod layer;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::{self, Clock};
use super::lease::Epoch;
use super::time::Moment;

pub use executor::FencedExecutor;
pub use layer::{FenceLayer, FencedService};

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

/// How far the last renewal of a term reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TermEnd {
    /// From then on nothing is started.
    pub(super) soft_end: Moment,
    /// From then on nothing is under cause.
    pub(super) hard_end: Moment,
    /// The same by the wall clock.
    pub(super) wall_end: Timestamp,
}

impl TermEnd {
    /// What is left until the first clock says that it is over.
    fn left(&self, moment: Moment, wall: Timestamp) -> Duration {
        let by_wall = Duration::try_from(self.wall_end.duration_since(wall)).unwrap_or_default();
        self.hard_end.since(moment).min(by_wall)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum FenceState {
    Closed,
    Open { epoch: Epoch, end: TermEnd },
    AlwaysOpen,
}

/// The fence of one process. All clones are the same fence.
#[derive(Clone, Debug)]
pub struct Fence {
    state: watch::Sender<FenceState>,
    clock: Clock,
    /// Held by whoever passes.
    turnstile: Arc<Mutex<()>>,
}

impl Fence {
    /// A closed fence, for an elector of the same clock to open.
    #[must_use]
    pub fn closed(clock: Clock) -> Self {
        Self::with(FenceState::Closed, clock)
    }

    /// A fence that never closes, for `--leader-elect=false`.
    #[must_use]
    pub fn always_open() -> Self {
        Self::with(FenceState::AlwaysOpen, Clock::start())
    }

    fn with(state: FenceState, clock: Clock) -> Self {
        Self {
            state: watch::Sender::new(state),
            clock,
            turnstile: Arc::default(),
        }
    }

    /// Opens the fence for a term, or moves the end of that term.
    pub(super) fn open(&self, epoch: Epoch, end: TermEnd) {
        self.state.send_replace(FenceState::Open { epoch, end });
    }

    /// The clock by which it closes.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    fn left(&self, end: &TermEnd) -> Duration {
        end.left(self.clock.moment(), clock::wall())
    }

    /// Closes the fence. Whoever was passing has passed.
    pub(super) fn close(&self) {
        let _turn = self
            .turnstile
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.state.send_replace(FenceState::Closed);
    }

    /// Takes one step to the world, if the fence is open. Only one is taken at a time: wherever this process is stopped, no
    /// more than one has been allowed and not yet taken. A step must not wait for anything.
    pub(super) fn pass<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        let _turn = self
            .turnstile
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.is_open().then(step)
    }

    /// Proof that this replica leads at this moment.
    ///
    /// # Errors
    /// [`NotLeading::Closed`], and [`NotLeading::TermEnding`] once nothing should be started any more.
    pub fn leading(&self) -> Result<Leading, NotLeading> {
        let epoch = match &*self.state.borrow() {
            FenceState::Closed => return Err(NotLeading::Closed),
            FenceState::AlwaysOpen => None,
            FenceState::Open { end, .. } if self.left(end).is_zero() => {
                return Err(NotLeading::Closed);
            }
            FenceState::Open { end, .. } if end.soft_end <= self.clock.moment() => {
                return Err(NotLeading::TermEnding);
            }
            FenceState::Open { epoch, .. } => Some(epoch.clone()),
        };
        Ok(Leading {
            fence: self.clone(),
            epoch,
        })
    }

    /// How much of the term is left: nothing while it is closed, without end where leadership is not elected.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match &*self.state.borrow() {
            FenceState::Closed => Duration::ZERO,
            FenceState::AlwaysOpen => Duration::MAX,
            FenceState::Open { end, .. } => self.left(end),
        }
    }

    /// Whether a request may pass.
    pub(super) fn is_open(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Waits until the fence is open.
    pub async fn opened(&self) -> Leading {
        let mut changes = self.state.subscribe();
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
        match (&*self.fence.state.borrow(), &self.epoch) {
            (FenceState::AlwaysOpen, _) => Ok(Duration::MAX),
            (FenceState::Closed, _) => Err(NotLeading::Closed),
            (FenceState::Open { epoch, .. }, own) if Some(epoch) != own.as_ref() => {
                Err(NotLeading::TermOver)
            }
            (FenceState::Open { end, .. }, _) => match self.fence.left(end) {
                Duration::ZERO => Err(NotLeading::Closed),
                _ if effect == Effect::Chain && end.soft_end <= self.fence.clock.moment() => {
                    Err(NotLeading::TermEnding)
                }
                left if left < effect.minimum() => Err(NotLeading::TermEnding),
                left => Ok(left),
            },
        }
    }

    /// Carries out an effect, if the term still stands, and for no longer than the term does.
    ///
    /// # Errors
    /// If it was not begun, or [`NotLeading::Unanswered`] if it may or may not have happened.
    pub async fn guard<T>(
        &self,
        effect: Effect,
        work: impl Future<Output = T>,
    ) -> Result<T, NotLeading> {
        let left = self.remaining(effect)?.min(effect.budget());
        let mut work = pin!(work);
        // A process that was stopped in the middle goes on here: each step asks whether the term still stands.
        let stepwise = poll_fn(|context| match self.remaining(Effect::Kubernetes) {
            Err(_) => Poll::Ready(Err(NotLeading::Unanswered)),
            Ok(_) => work.as_mut().poll(context).map(Ok),
        });
        timeout(left, stepwise)
            .await
            .map_err(|_| NotLeading::Unanswered)?
    }

    /// Waits until the term is over.
    pub async fn over(&self) {
        let mut changes = self.fence.state.subscribe();
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
    pub(crate) fn expired() -> Self {
        let leading = Self {
            fence: Fence::always_open(),
            epoch: None,
        };
        leading.fence.close();
        leading
    }
}

#[cfg(test)]
mod tests;
