//! The table that the searches of ledger and payments print: rows are searched two at a time, and
//! each is printed when it has ended.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Number of searches at a time. Each uses one thread.
const SEARCHES: usize = 2;

/// Searches the rows whose names are arguments of the process, or all of them without arguments.
/// `run` returns the line of a row, and whether it ends as expected.
pub fn print<R: Sync>(
    mut rows: Vec<R>,
    name: impl Fn(&R) -> &str,
    run: impl Fn(&R) -> (String, bool) + Sync,
) -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    rows.retain(|row| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name(row)));
    let begun = Instant::now();
    let (next, sound, output) = (AtomicUsize::new(0), AtomicBool::new(true), Mutex::new(()));
    std::thread::scope(|scope| {
        for _ in 0..SEARCHES {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (line, is_expected) = run(row);
                    let _output = output.lock();
                    println!("{line}");
                    sound.fetch_and(is_expected, Ordering::Relaxed);
                }
            });
        }
    });
    println!(
        "{} rows, {:.0} s",
        rows.len(),
        begun.elapsed().as_secs_f64()
    );
    if sound.into_inner() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
