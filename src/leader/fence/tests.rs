use tokio::time::Instant;

use super::*;
use crate::leader::lease::ResourceVersion;

const SECOND: Duration = Duration::from_secs(1);

fn epoch(version: &str) -> Epoch {
    Epoch {
        lease_uid: "lease".into(),
        version: ResourceVersion(version.into()),
        transitions: 0,
    }
}

/// An end counted from now, on clocks that agree.
fn term_end(fence: &Fence, soft: Duration, hard: Duration) -> TermEnd {
    let moment = fence.clock.moment();
    TermEnd {
        soft_end: moment + soft,
        hard_end: moment + hard,
        wall_end: clock::wall() + 1000 * SECOND,
    }
}

/// A fence that is open for ten seconds. In the last three nothing new may start.
fn open() -> Fence {
    let fence = Fence::closed(Clock::start());
    fence.open(epoch("1"), term_end(&fence, 7 * SECOND, 10 * SECOND));
    fence
}

/// Equal up to half a second: the boot-time clock runs on while the test's time is paused.
fn is_about(left: Result<Duration, NotLeading>, seconds: u32) -> bool {
    left.is_ok_and(|left| left <= seconds * SECOND && left + SECOND / 2 > seconds * SECOND)
}

#[test]
fn first_clock_to_reach_the_end_closes_the_fence() {
    let wall = clock::wall();
    let end = TermEnd {
        soft_end: Moment::default(),
        hard_end: Moment(10 * SECOND),
        wall_end: wall + 10 * SECOND,
    };
    let left = |moment: u32, elapsed: i64| {
        end.left(
            Moment(moment * SECOND),
            wall + jiff::SignedDuration::from_secs(elapsed),
        )
    };
    assert_eq!(left(4, 4), 6 * SECOND);
    assert_eq!(left(7, 4), 3 * SECOND);
    assert_eq!(
        left(4, 9),
        SECOND,
        "the wall clock shows that the machine was paused"
    );
    assert_eq!(left(4, 3600), Duration::ZERO);
    assert_eq!(
        left(4, -3600),
        6 * SECOND,
        "a wall clock that is set back does not extend the term"
    );
    assert_eq!(left(10, 0), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn closed_fence_gives_no_proof_and_open_fence_closes_on_its_own() {
    let closed = Fence::closed(Clock::start());
    assert_eq!(
        (closed.leading().unwrap_err(), closed.remaining()),
        (NotLeading::Closed, Duration::ZERO)
    );
    let fence = open();
    let leading = fence.leading().unwrap();
    assert_eq!(leading.epoch(), Some(&epoch("1")));
    assert!(is_about(leading.remaining(Effect::Chain), 10));

    // The boot-time clock has advanced a little as well.
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
async fn effect_is_cut_off_when_the_term_or_its_budget_ends() {
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

    let leading = Fence::always_open().leading().unwrap();
    let begun = Instant::now();
    let never = std::future::pending::<()>();
    assert_eq!(
        leading.guard(Effect::Kubernetes, never).await,
        Err(NotLeading::Unanswered)
    );
    assert_eq!(begun.elapsed(), Effect::Kubernetes.budget());
}

#[tokio::test(start_paused = true)]
async fn chain_effect_does_not_start_in_the_last_half_second() {
    let fence = Fence::closed(Clock::start());
    let end = Duration::from_millis(499);
    fence.open(epoch("1"), term_end(&fence, end, end));
    let leading = fence.leading().unwrap();
    assert_eq!(
        leading.remaining(Effect::Chain),
        Err(NotLeading::TermEnding)
    );
    assert!(leading.remaining(Effect::Kubernetes).is_ok());
}

#[tokio::test(start_paused = true)]
async fn proof_of_one_term_is_invalid_in_the_next() {
    let fence = open();
    let leading = fence.leading().unwrap();
    let longer = term_end(&fence, 20 * SECOND, 20 * SECOND);
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
async fn opened_and_over_follow_the_term() {
    let fence = Fence::closed(Clock::start());
    let waiting = tokio::spawn({
        let fence = fence.clone();
        async move { fence.opened().await }
    });
    tokio::time::sleep(SECOND).await;
    let begun = Instant::now();
    fence.open(epoch("1"), term_end(&fence, 7 * SECOND, 10 * SECOND));
    let leading = waiting.await.unwrap();
    leading.over().await;
    assert!(is_about(Ok(begun.elapsed()), 10), "{:?}", begun.elapsed());
}
