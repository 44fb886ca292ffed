//! SIGINT, SIGTERM and SIGHUP as a question that long work asks, so that what was begun can be taken down in order.
//!
//! A second signal ends the process at once. Taking down never asks.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From now on the signals are noted instead of ending the process.
pub(crate) fn listen() -> Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the first signal passes this check before it sets the flag.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&again))
            .context("signal handler")?;
        signal_hook::flag::register(signal, Arc::clone(&again)).context("signal handler")?;
        let number = usize::try_from(signal)?;
        signal_hook::flag::register_usize(signal, Arc::clone(&RECEIVED), number)
            .context("signal handler")?;
    }
    Ok(())
}

/// The number of the signal that asked this process to end.
pub(crate) fn received() -> Option<i32> {
    i32::try_from(RECEIVED.load(Ordering::SeqCst))
        .ok()
        .filter(|signal| *signal != 0)
}

/// An error once a signal arrived.
pub(crate) fn check() -> Result<()> {
    match received() {
        Some(_) => bail!("interrupted"),
        None => Ok(()),
    }
}
