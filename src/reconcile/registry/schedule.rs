//! How much of the chain a pass reads, and when the next pass is due. Pure.
//!
//! Nothing is asked unless a decision needs the answer: most passes are caused by changes that
//! concern no transaction. What must be current without a cause (that the endpoint answers, that
//! no one else uses the key) is read at fixed intervals.

use std::time::Duration;

/// How old the answer may be that makes RpcHealthy True.
const HEAD_EVERY: Duration = Duration::from_secs(25);
/// How old the reading of account and ledger may be while nothing asks for it.
const FULL_EVERY: Duration = Duration::from_secs(60);
/// The same while transactions wait for finality: the head shows when that is reached.
const SETTLING_EVERY: Duration = Duration::from_secs(120);
/// The same while a person has to act.
const HELD_EVERY: Duration = Duration::from_secs(90);
/// The same while money or fees are short, a transaction is refused or a stored object cannot be
/// read: each can change at any time.
const SHORT_EVERY: Duration = Duration::from_secs(15);
/// Bounds of the delay while questions are not answered; it doubles with each such pass.
const FAILING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Delay while a Secret is missing or wrong: it is read again without asking the chain.
const UNRESOLVED: Duration = Duration::from_secs(5);
/// Delay after a write.
const AFTER_WRITE: Duration = Duration::from_millis(50);
/// Bounds of the delay while transactions wait to be included.
const INCLUSION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));
/// Bounds of the delay while transactions wait for finality.
const FINALITY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(12));

/// How soon a block must be final for its inclusion not to be reported: one write of a record and one
/// of its offers' status are saved, and the result is there within a minute.
const FINAL_SOON: Duration = Duration::from_secs(60);

/// What a registry waits for after a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Something is to be done or was not finished.
    #[default]
    Active,
    /// What the spec refers to is not there.
    Unresolved,
    /// Something was not answered, in this many passes in a row.
    Failing { passes: u32 },
    /// Everything in flight is in a block; nothing happens before this block is final.
    Settling { block: u64 },
    /// Balance, fees, limits or an unreadable object do not allow the next registration.
    Short,
    /// A person has to act.
    Held,
    /// Nothing is in flight and no offer waits.
    Idle,
}

impl Activity {
    /// What is waited for if both are: that of which more is to be asked.
    #[must_use]
    pub(crate) fn busier(self, other: Self) -> Self {
        const fn rank(activity: Activity) -> (u8, u64) {
            match activity {
                Activity::Active => (0, 0),
                Activity::Failing { .. } => (1, 0),
                Activity::Settling { block } => (2, block),
                Activity::Unresolved => (3, 0),
                Activity::Short => (4, 0),
                Activity::Held => (5, 0),
                Activity::Idle => (6, 0),
            }
        }
        if rank(other) < rank(self) {
            other
        } else {
            self
        }
    }
}

/// Time since the chain was read; `None` if never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadingAges {
    /// Of its head.
    pub head: Option<Duration>,
    /// Of everything that a pass can read.
    pub full: Option<Duration>,
}

/// How much of the chain a pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    Nothing,
    /// The latest and the finalized block.
    Head,
    /// Also the account, the ledger and the evidence of its entries.
    Full,
}

/// Decides how much a pass reads.
#[must_use]
pub(crate) fn depth(activity: Activity, ages: ReadingAges) -> Depth {
    let (full_every, head_every) = match activity {
        Activity::Active | Activity::Unresolved | Activity::Failing { .. } => return Depth::Full,
        Activity::Settling { .. } => (SETTLING_EVERY, FINALITY.0 - AFTER_WRITE),
        Activity::Short => (SHORT_EVERY - AFTER_WRITE, HEAD_EVERY),
        Activity::Held => (HELD_EVERY, HEAD_EVERY),
        Activity::Idle => (FULL_EVERY, HEAD_EVERY),
    };
    let is_due = |age: Option<Duration>, every| age.is_none_or(|age| age >= every);
    if is_due(ages.full, full_every) {
        Depth::Full
    } else if is_due(ages.head, head_every) {
        Depth::Head
    } else {
        Depth::Nothing
    }
}

/// Whether a head that was read asks for more: what was waited for is final.
#[must_use]
pub(crate) fn is_settled(activity: Activity, finalized: u64) -> bool {
    matches!(activity, Activity::Settling { block } if finalized >= block)
}

/// Whether blocks are final soon, by the times of the latest and the finalized block in Unix seconds.
#[must_use]
pub(crate) fn is_final_soon(latest: u64, finalized: u64) -> bool {
    latest.saturating_sub(finalized) <= FINAL_SOON.as_secs()
}

/// Delay of the next pass. `block_time` is the observed time between blocks.
#[must_use]
pub(crate) fn delay(
    activity: Activity,
    wrote: bool,
    block_time: Option<Duration>,
    retry_after: Option<Duration>,
) -> Duration {
    let by_blocks =
        |(least, most): (Duration, Duration)| block_time.unwrap_or(least).clamp(least, most);
    let delay = match activity {
        _ if wrote => AFTER_WRITE,
        Activity::Active => by_blocks(INCLUSION),
        Activity::Settling { .. } => by_blocks(FINALITY),
        Activity::Unresolved => UNRESOLVED,
        Activity::Failing { passes } => {
            let (least, most) = FAILING;
            let doublings = passes.saturating_sub(1).min(8);
            least.saturating_mul(1 << doublings).min(most)
        }
        Activity::Short => SHORT_EVERY,
        Activity::Held | Activity::Idle => HEAD_EVERY,
    };
    retry_after.map_or(delay, |wait| delay.max(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(head: u64, full: u64) -> ReadingAges {
        ReadingAges {
            head: Some(Duration::from_secs(head)),
            full: Some(Duration::from_secs(full)),
        }
    }

    #[test]
    fn active_registry_reads_everything() {
        assert_eq!(depth(Activity::Active, ages(0, 0)), Depth::Full);
    }

    #[test]
    fn busier_of_two_activities_counts() {
        let ordered = [
            Activity::Active,
            Activity::Failing { passes: 1 },
            Activity::Settling { block: 5 },
            Activity::Settling { block: 6 },
            Activity::Unresolved,
            Activity::Short,
            Activity::Held,
            Activity::Idle,
        ];
        for pair in ordered.windows(2) {
            assert_eq!(pair[0].busier(pair[1]), pair[0]);
            assert_eq!(pair[1].busier(pair[0]), pair[0]);
        }
    }

    #[test]
    fn first_pass_reads_everything() {
        for activity in [Activity::Idle, Activity::Held, Activity::Short] {
            assert_eq!(depth(activity, ReadingAges::default()), Depth::Full);
        }
    }

    #[test]
    fn registry_that_is_idle_or_short_reads_only_what_is_due() {
        for (activity, ages, expected) in [
            (Activity::Idle, ages(0, 0), Depth::Nothing),
            (Activity::Idle, ages(24, 59), Depth::Nothing),
            (Activity::Idle, ages(25, 59), Depth::Head),
            (Activity::Idle, ages(0, 60), Depth::Full),
            (Activity::Short, ages(14, 14), Depth::Nothing),
            (Activity::Short, ages(25, 14), Depth::Head),
            (Activity::Short, ages(0, 15), Depth::Full),
        ] {
            assert_eq!(depth(activity, ages), expected, "{activity:?} {ages:?}");
        }
    }

    #[test]
    fn settling_registry_polls_the_head_until_its_block_is_final() {
        let settling = Activity::Settling { block: 9 };
        assert_eq!(depth(settling, ages(4, 4)), Depth::Nothing);
        assert_eq!(depth(settling, ages(5, 119)), Depth::Head);
        assert_eq!(depth(settling, ages(0, 120)), Depth::Full);
        assert!(!is_settled(settling, 8));
        assert!(is_settled(settling, 9));
        assert!(!is_settled(Activity::Idle, 9));
    }

    #[test]
    fn finality_is_soon_if_the_finalized_block_is_at_most_a_delay_old() {
        let [soon, late] = [60, 61].map(|age| is_final_soon(1_000 + age, 1_000));
        assert!(soon && !late);
        assert!(is_final_soon(1_000, 1_000) && is_final_soon(999, 1_000));
    }

    #[test]
    fn delay_follows_the_block_time_within_bounds() {
        let seconds = Duration::from_secs;
        let settling = Activity::Settling { block: 9 };
        for (activity, block_time, expected) in [
            (Activity::Active, Some(seconds(0)), seconds(1)),
            (Activity::Active, Some(seconds(2)), seconds(2)),
            (Activity::Active, Some(seconds(12)), seconds(4)),
            (settling, None, seconds(5)),
            (settling, Some(seconds(12)), seconds(12)),
            (settling, Some(seconds(600)), seconds(12)),
            (Activity::Idle, Some(seconds(1)), HEAD_EVERY),
        ] {
            assert_eq!(delay(activity, false, block_time, None), expected);
        }
    }

    #[test]
    fn next_pass_follows_at_once_only_after_a_write() {
        assert_eq!(delay(Activity::Idle, true, None, None), AFTER_WRITE);
        assert!(delay(Activity::Active, false, None, None) >= Duration::from_secs(1));
    }

    #[test]
    fn delay_is_short_while_something_outside_can_change() {
        for (activity, expected) in [(Activity::Unresolved, 5), (Activity::Short, 15)] {
            let delay = delay(activity, false, None, None);
            assert_eq!(delay, Duration::from_secs(expected), "{activity:?}");
        }
    }

    #[test]
    fn delay_doubles_while_questions_fail() {
        let delays = [1, 2, 3, 4, 5, 9].map(|passes| {
            let failing = Activity::Failing { passes };
            delay(failing, false, None, None).as_secs()
        });
        assert_eq!(delays, [1, 2, 4, 8, 15, 15]);
    }

    #[test]
    fn retry_after_delays_every_pass() {
        let wait = Duration::from_secs(30);
        assert_eq!(delay(Activity::Active, true, None, Some(wait)), wait);
    }
}
