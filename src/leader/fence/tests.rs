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

/// A end from this moment, by clocks that agree.
fn term_end(fence: &Fence, soft: Duration, hard: Duration) -> TermEnd {
    let moment = fence.clock.moment();
    TermEnd {
        soft_end: moment + soft,
        hard_end: moment + hard,
        wall_end: clock::wall() + 1000 * SECOND,
    }
}

/// A fence that is open for ten seconds, the last three of which are for finishing.
fn open() -> Fence {
    let fence = Fence::closed(Clock::start());
    fence.open(epoch("1"), term_end(&fence, 7 * SECOND, 10 * SECOND));
    fence
}

/// The same, up to what the test itself takes by the clock that no test can stop.
fn is_about(left: Result<Duration, NotLeading>, seconds: u32) -> bool {
    left.is_ok_and(|left| left <= seconds * SECOND && left + SECOND / 2 > seconds * SECOND)
}

#[test]
fn the_first_clock_that_says_so_ends_the_term() {
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
async fn an_effect_on_a_chain_is_not_begun_in_the_last_half_second() {
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
async fn proof_of_one_term_is_no_proof_of_the_next() {
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
async fn waiting_for_the_fence_ends_with_its_opening_and_waiting_for_the_end_with_the_term() {
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
