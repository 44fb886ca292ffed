//! SIGINT, SIGTERM and SIGHUP as a flag that slow operations check, so that a partial start is
//! cleaned up in order.
//!
//! A second signal terminates the process at once. Cleaning up never checks the flag.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From now on the first signal sets the flag instead of terminating the process.
pub(crate) fn listen() -> Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the first signal runs this check before it sets the flag.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&again))
            .context("failed to install a signal handler")?;
        signal_hook::flag::register(signal, Arc::clone(&again))
            .context("failed to install a signal handler")?;
        let number = usize::try_from(signal)?;
        signal_hook::flag::register_usize(signal, Arc::clone(&RECEIVED), number)
            .context("failed to install a signal handler")?;
    }
    Ok(())
}

/// The number of the signal that was received, if any.
pub(crate) fn received() -> Option<i32> {
    i32::try_from(RECEIVED.load(Ordering::SeqCst))
        .ok()
        .filter(|signal| *signal != 0)
}

/// Fails once a signal was received.
pub(crate) fn check() -> Result<()> {
    match received() {
        Some(_) => bail!("interrupted"),
        None => Ok(()),
    }
}
