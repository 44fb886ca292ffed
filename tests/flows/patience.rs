//! Waiting for what should come true.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until `look` answers with what was waited for, and says what it saw last if it never does.
///
/// # Panics
/// If it takes longer than `limit`.
#[track_caller]
pub fn eventually<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let location = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            match look().await {
                Ok(found) => return found,
                Err(_) if begun.elapsed() < limit => tokio::time::sleep(PAUSE).await,
                Err(seen) => {
                    panic!("{location}: after {limit:?} still not: {what}. Last seen: {seen:?}")
                }
            }
        }
    }
}

/// Makes sure that something stays true for a while.
///
/// # Panics
/// At the first look that finds it broken.
#[track_caller]
pub fn throughout<E: Debug>(
    what: &str,
    duration: Duration,
    mut look: impl AsyncFnMut() -> Result<(), E>,
) -> impl Future<Output = ()> {
    let location = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            if let Err(seen) = look().await {
                panic!(
                    "{location}: after {:?} no longer: {what}. Seen: {seen:?}",
                    begun.elapsed()
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
