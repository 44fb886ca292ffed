//! The fence: gates every side effect on a live leadership term.
//!
//! The elector opens it for a term and moves its end with every renewal. It closes on its own once
//! that end has passed, even if the elector no longer runs. It is enforced three times: by the type
//! system (a write takes a `&Leading`), around every effect ([`Leading::guard`]), and under the
//! Kubernetes client ([`layer`], [`executor`]). One write is excepted, which can only stop
//! ([`StopsOnly`]).
//!
//! It is closed as soon as any clock shows that the term has ended: the boot-time clock, which
//! counts a machine's sleep, or the wall clock, which is corrected after a virtual machine was
//! paused. A wall clock that jumps costs time, never safety.
//!
//! What a former leader can still do is limited to what was leaving the process when it was paused:
//! one request to the API server, and one to each chain. The fence alone cannot prevent those. The
//! precondition that each of them carries (a resource version, a nonce) makes them harmless.

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
pub use layer::{FenceLayer, FencedService, StopsOnly};

/// Why an effect was refused or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeading {
    /// The fence is closed.
    #[error("not the leader")]
    Closed,
    /// The term in which the work began has ended, even if this replica leads again.
    #[error("the leadership term in which this work began has ended")]
    TermOver,
    /// Renewals are failing, and too little of the term is left for an irreversible effect.
    #[error("the leadership term is about to end; irreversible effects are no longer started")]
    TermEnding,
    /// The effect outlasted its budget or the term. Whether it happened is unknown.
    #[error("no answer in time; whether the effect happened is unknown")]
    Unanswered,
}

/// Kind of side effect, by the harm that it can do if it happens late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write to the API server: conditional on a version, or repeated until it matches.
    Kubernetes,
    /// Bytes sent to a chain, which cannot be recalled.
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

    /// How much of the term must be left to start it.
    const fn minimum(self) -> Duration {
        match self {
            Self::Kubernetes => Duration::ZERO,
            Self::Chain => Duration::from_millis(500),
        }
    }
}

/// Until when the last renewal of a term holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TermEnd {
    /// Nothing is started from here on.
    pub(super) soft_end: Moment,
    /// Nothing is in flight from here on.
    pub(super) hard_end: Moment,
    /// `hard_end` on the wall clock.
    pub(super) wall_end: Timestamp,
}

impl TermEnd {
    /// Time until the first of the two clocks reaches the end.
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

/// The fence of one process. All clones share one state.
#[derive(Clone, Debug)]
pub struct Fence {
    state: watch::Sender<FenceState>,
    clock: Clock,
    /// Held during each step through the fence, and while the fence is being closed.
    turnstile: Arc<Mutex<()>>,
}

impl Fence {
    /// A closed fence, for an elector that uses the same clock to open.
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

    /// Closes the fence. No step through it is in progress when this returns.
    pub(super) fn close(&self) {
        let _turn = self
            .turnstile
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.state.send_replace(FenceState::Closed);
    }

    /// Runs one step that may send bytes, if the fence is open. Steps run one at a time: wherever
    /// this process is paused, at most one step has been admitted and not finished. A step must not
    /// block.
    pub(super) fn pass<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        let _turn = self
            .turnstile
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_open() { Some(step()) } else { None }
    }

    /// Proof that this replica leads now.
    ///
    /// # Errors
    /// [`NotLeading::Closed`], or [`NotLeading::TermEnding`] once nothing may be started any more.
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

    /// Time left of the term: zero while the fence is closed, [`Duration::MAX`] without leader
    /// election.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match &*self.state.borrow() {
            FenceState::Closed => Duration::ZERO,
            FenceState::AlwaysOpen => Duration::MAX,
            FenceState::Open { end, .. } => self.left(end),
        }
    }

    /// Whether requests are admitted.
    pub(super) fn is_open(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Waits until this replica leads.
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

/// Proof that this replica led when the current work began. Every write takes one by reference.
///
/// It cannot be constructed elsewhere, cloned, or used in another term:
/// ```compile_fail
/// fn twice(leading: serviceoffer::leader::Leading) {
///     let copy = leading.clone();
/// }
/// ```
#[derive(Debug)]
pub struct Leading {
    fence: Fence,
    /// `None` without leader election.
    epoch: Option<Epoch>,
}

impl Leading {
    /// The term; `None` without leader election.
    #[must_use]
    pub fn epoch(&self) -> Option<&Epoch> {
        self.epoch.as_ref()
    }

    /// Time left of the term for an effect that starts now.
    ///
    /// # Errors
    /// If it must not start.
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

    /// Runs an effect if its term still lasts, for at most as long as the term and the effect's
    /// budget last.
    ///
    /// # Errors
    /// If it was not started, or [`NotLeading::Unanswered`] if it may or may not have happened.
    pub async fn guard<T>(
        &self,
        effect: Effect,
        work: impl Future<Output = T>,
    ) -> Result<T, NotLeading> {
        let left = self.remaining(effect)?.min(effect.budget());
        let mut work = pin!(work);
        // A process that was paused in between resumes here, so each poll checks that the term
        // still lasts.
        let stepwise = poll_fn(|context| match self.remaining(Effect::Kubernetes) {
            Err(_) => Poll::Ready(Err(NotLeading::Unanswered)),
            Ok(_) => work.as_mut().poll(context).map(Ok),
        });
        timeout(left, stepwise)
            .await
            .map_err(|_| NotLeading::Unanswered)?
    }

    /// Waits until the term has ended.
    pub async fn over(&self) {
        let mut changes = self.fence.state.subscribe();
        loop {
            match self.remaining(Effect::Kubernetes) {
                Err(_) => return,
                Ok(left) => {
                    // Returns with the next change or when the term ends.
                    let _ = timeout(left, changes.changed()).await;
                }
            }
        }
    }
}

#[cfg(test)]
impl Leading {
    /// Proof of a term that has ended.
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
