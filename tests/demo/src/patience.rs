//! Waiting for what should come true.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` answers with what was waited for; the error says what it answered last.
///
/// # Errors
/// If that takes longer than `limit`.
pub async fn until<T, E: Display>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(_) if begun.elapsed() < limit => tokio::time::sleep(PAUSE).await,
            Err(seen) => bail!("waited {} s for {what}: {seen:#}", limit.as_secs()),
        }
    }
}
