//! The fence: what stands between every write and the world.
//!
//! The elector opens it for a term and moves its end with every renewal; it closes by itself when that end passes,
//! whether or not anything of the elector still runs. It is asked three times: by the type system (a write takes a
//! `&Leading`), around every effect ([`Leading::guard`]), and under the Kubernetes client ([`super::wire`]).
//!
//! It is closed as soon as any clock says that the term is over: the one that counts the machine's sleep, or the wall clock,
//! which is put right after a virtual machine was frozen. A wall clock that jumps costs time, never safety.
//!
//! It narrows what a former leader may still do to what was leaving the process when it was stopped: one request to the API
//! server, and one to each chain. What makes even those harmless is the precondition that each write carries (a resource version, a nonce): the fence alone is not
//! enough.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::{self, Clock};
use super::record::{Epoch, Moment};

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

/// How far the last renewal of a term reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// From then on nothing is started.
    pub(super) soft_end: Moment,
    /// From then on nothing is under way.
    pub(super) hard_end: Moment,
    /// The same by the wall clock.
    pub(super) wall_end: Timestamp,
}

impl Reach {
    /// What is left until the first clock says that it is over.
    fn left(&self, moment: Moment, wall: Timestamp) -> Duration {
        let by_wall = Duration::try_from(self.wall_end.duration_since(wall)).unwrap_or_default();
        self.hard_end.since(moment).min(by_wall)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Gate {
    Closed,
    Open { epoch: Epoch, reach: Reach },
    OpenForEver,
}

/// The fence of one process. All clones are the same fence.
#[derive(Clone, Debug)]
pub struct Fence {
    gate: watch::Sender<Gate>,
    clock: Clock,
    /// Held by whoever passes.
    turnstile: Arc<Mutex<()>>,
}

impl Fence {
    /// A closed fence, for an elector of the same clock to open.
    #[must_use]
    pub fn closed(clock: Clock) -> Self {
        Self::with(Gate::Closed, clock)
    }

    /// A fence that never closes, for `--leader-elect=false`.
    #[must_use]
    pub fn open_for_ever() -> Self {
        Self::with(Gate::OpenForEver, Clock::start())
    }

    fn with(gate: Gate, clock: Clock) -> Self {
        Self {
            gate: watch::Sender::new(gate),
            clock,
            turnstile: Arc::default(),
        }
    }

    /// Opens the fence for a term, or moves the end of that term.
    pub(super) fn open(&self, epoch: Epoch, reach: Reach) {
        self.gate.send_replace(Gate::Open { epoch, reach });
    }

    /// The clock by which it closes.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    fn left(&self, reach: &Reach) -> Duration {
        reach.left(self.clock.moment(), clock::wall())
    }

    /// Closes the fence. Whoever was passing has passed.
    pub(super) fn close(&self) {
        let _turn = self
            .turnstile
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.gate.send_replace(Gate::Closed);
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
        let epoch = match &*self.gate.borrow() {
            Gate::Closed => return Err(NotLeading::Closed),
            Gate::OpenForEver => None,
            Gate::Open { reach, .. } if self.left(reach).is_zero() => {
                return Err(NotLeading::Closed);
            }
            Gate::Open { reach, .. } if reach.soft_end <= self.clock.moment() => {
                return Err(NotLeading::TermEnding);
            }
            Gate::Open { epoch, .. } => Some(epoch.clone()),
        };
        Ok(Leading {
            fence: self.clone(),
            epoch,
        })
    }

    /// How much of the term is left: nothing while it is closed, without end where leadership is not elected.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match &*self.gate.borrow() {
            Gate::Closed => Duration::ZERO,
            Gate::OpenForEver => Duration::MAX,
            Gate::Open { reach, .. } => self.left(reach),
        }
    }

    /// Whether a request may pass.
    pub(super) fn is_open(&self) -> bool {
        !self.remaining().is_zero()
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
        match (&*self.fence.gate.borrow(), &self.epoch) {
            (Gate::OpenForEver, _) => Ok(Duration::MAX),
            (Gate::Closed, _) => Err(NotLeading::Closed),
            (Gate::Open { epoch, .. }, own) if Some(epoch) != own.as_ref() => {
                Err(NotLeading::TermOver)
            }
            (Gate::Open { reach, .. }, _) => match self.fence.left(reach) {
                Duration::ZERO => Err(NotLeading::Closed),
                _ if effect == Effect::Chain && reach.soft_end <= self.fence.clock.moment() => {
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
        let leading = Self {
            fence: Fence::open_for_ever(),
            epoch: None,
        };
        leading.fence.close();
        leading
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::record::Version;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn epoch(version: &str) -> Epoch {
        Epoch {
            lease_uid: "lease".into(),
            version: Version(version.into()),
            transitions: 0,
        }
    }

    /// A reach from this moment, by clocks that agree.
    fn reach(fence: &Fence, soft: Duration, hard: Duration) -> Reach {
        let moment = fence.clock.moment();
        Reach {
            soft_end: moment + soft,
            hard_end: moment + hard,
            wall_end: clock::wall() + 1000 * SECOND,
        }
    }

    /// A fence that is open for ten seconds, the last three of which are for finishing.
    fn open() -> Fence {
        let fence = Fence::closed(Clock::start());
        fence.open(epoch("1"), reach(&fence, 7 * SECOND, 10 * SECOND));
        fence
    }

    /// The same, up to what the test itself takes by the clock that no test can stop.
    fn is_about(left: Result<Duration, NotLeading>, seconds: u32) -> bool {
        left.is_ok_and(|left| left <= seconds * SECOND && left + SECOND / 2 > seconds * SECOND)
    }

    #[test]
    fn the_first_clock_that_says_so_ends_the_term() {
        let wall = clock::wall();
        let reach = Reach {
            soft_end: Moment::default(),
            hard_end: Moment(10 * SECOND),
            wall_end: wall + 10 * SECOND,
        };
        let left = |moment: u32, elapsed: i64| {
            reach.left(
                Moment(moment * SECOND),
                wall + jiff::SignedDuration::from_secs(elapsed),
            )
        };
        assert_eq!(left(4, 4), 6 * SECOND);
        assert_eq!(left(7, 4), 3 * SECOND);
        assert_eq!(
            left(4, 9),
            SECOND,
            "a machine that was frozen finds out by its wall clock"
        );
        assert_eq!(left(4, 3600), Duration::ZERO);
        assert_eq!(
            left(4, -3600),
            6 * SECOND,
            "a wall clock that is set back prolongs nothing"
        );
        assert_eq!(left(10, 0), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_fence_gives_no_proof_and_an_open_one_stops_by_itself() {
        let closed = Fence::closed(Clock::start());
        assert_eq!(
            (closed.leading().unwrap_err(), closed.remaining()),
            (NotLeading::Closed, Duration::ZERO)
        );
        let fence = open();
        let leading = fence.leading().unwrap();
        assert_eq!(leading.epoch(), Some(&epoch("1")));
        assert!(is_about(leading.remaining(Effect::Chain), 10));

        // The clock that no test can stop has gone on as well.
        let moment = SECOND / 1000;
        tokio::time::advance(7 * SECOND + moment).await;
        assert_eq!(fence.leading().unwrap_err(), NotLeading::TermEnding);
        assert_eq!(
            leading.remaining(Effect::Chain),
            Err(NotLeading::TermEnding)
        );
        assert!(is_about(leading.remaining(Effect::Kubernetes), 3));

        tokio::time::advance(3 * SECOND + moment).await;
        assert_eq!(fence.leading().unwrap_err(), NotLeading::Closed);
        assert_eq!(
            leading.remaining(Effect::Kubernetes),
            Err(NotLeading::Closed)
        );
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_is_cut_at_the_end_of_the_term_or_of_its_budget() {
        let leading = open().leading().unwrap();
        assert_eq!(leading.guard(Effect::Kubernetes, async { 7 }).await, Ok(7));
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(
            leading.guard(Effect::Chain, never).await,
            Err(NotLeading::Unanswered)
        );
        assert!(
            begun.elapsed() <= 10 * SECOND,
            "the term ended before the budget of 15 s"
        );

        let leading = Fence::open_for_ever().leading().unwrap();
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(
            leading.guard(Effect::Kubernetes, never).await,
            Err(NotLeading::Unanswered)
        );
        assert_eq!(begun.elapsed(), Effect::Kubernetes.budget());
    }

    #[tokio::test(start_paused = true)]
    async fn an_effect_on_a_chain_is_not_begun_in_the_last_half_second() {
        let fence = Fence::closed(Clock::start());
        let end = Duration::from_millis(499);
        fence.open(epoch("1"), reach(&fence, end, end));
        let leading = fence.leading().unwrap();
        assert_eq!(
            leading.remaining(Effect::Chain),
            Err(NotLeading::TermEnding)
        );
        assert!(leading.remaining(Effect::Kubernetes).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn proof_of_one_term_is_no_proof_of_the_next() {
        let fence = open();
        let leading = fence.leading().unwrap();
        let longer = reach(&fence, 20 * SECOND, 20 * SECOND);
        fence.open(epoch("1"), longer);
        assert!(
            is_about(leading.remaining(Effect::Kubernetes), 20),
            "a renewal moves the end"
        );
        fence.open(epoch("2"), longer);
        assert_eq!(
            leading.remaining(Effect::Kubernetes),
            Err(NotLeading::TermOver)
        );
        leading.over().await;
        fence.close();
        assert_eq!(
            leading.remaining(Effect::Kubernetes),
            Err(NotLeading::Closed)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_fence_ends_with_its_opening_and_waiting_for_the_end_with_the_term() {
        let fence = Fence::closed(Clock::start());
        let waiting = tokio::spawn({
            let fence = fence.clone();
            async move { fence.opened().await }
        });
        tokio::time::sleep(SECOND).await;
        let begun = Instant::now();
        fence.open(epoch("1"), reach(&fence, 7 * SECOND, 10 * SECOND));
        let leading = waiting.await.unwrap();
        leading.over().await;
        assert!(is_about(Ok(begun.elapsed()), 10), "{:?}", begun.elapsed());
    }
}
