//! Waiting for a state of a running cluster.
//!
//! Programs use [`until`], which returns an error; tests use [`eventually`] and [`throughout`],
//! which panic where they were called.

use std::fmt::{Debug, Display};
use std::panic::Location;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two polls.
const INTERVAL: Duration = Duration::from_millis(100);

/// Polls until `poll` succeeds. The error names what was waited for, and what the last poll saw.
///
/// # Errors
/// If it takes longer than `limit`.
pub async fn until<T, E: Display>(
    what: &str,
    limit: Duration,
    poll: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    match poll_until(limit, poll).await {
        Ok(found) => Ok(found),
        Err(seen) => bail!("waited {limit:?} in vain for: {what}. Last seen: {seen:#}"),
    }
}

/// Polls until `poll` succeeds.
///
/// # Panics
/// If it takes longer than `limit`. The message names what was waited for, and what the last poll
/// saw.
#[track_caller]
pub fn eventually<T, E: Debug>(
    what: &str,
    limit: Duration,
    poll: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match poll_until(limit, poll).await {
            Ok(found) => found,
            Err(seen) => fail(
                caller,
                &format!("waited {limit:?} in vain for: {what}. Last seen: {seen:?}"),
            ),
        }
    }
}

/// Polls for `duration`, during which every poll has to succeed.
///
/// # Panics
/// At the first poll that fails.
#[track_caller]
pub fn throughout<E: Debug>(
    what: &str,
    duration: Duration,
    mut poll: impl AsyncFnMut() -> Result<(), E>,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        while start.elapsed() < duration {
            if let Err(seen) = poll().await {
                let elapsed = start.elapsed();
                fail(
                    caller,
                    &format!("no longer true after {elapsed:?}: {what}. Seen: {seen:?}"),
                );
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

async fn poll_until<T, E>(
    limit: Duration,
    mut poll: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match poll().await {
            Err(_) if start.elapsed() < limit => tokio::time::sleep(INTERVAL).await,
            last => return last,
        }
    }
}

#[allow(clippy::panic, reason = "a test reports by panicking")]
fn fail(caller: &Location<'_>, message: &str) -> ! {
    panic!("{caller}: {message}")
}
