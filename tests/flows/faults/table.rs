//! The results table: one line per fault. `.ci/campaign` collects the lines.

use std::path::Path;

use election::campaign::verdict::Verdict;
use jiff::Timestamp;

/// Prints the line of a fault, and writes it to the directory that `.ci/campaign` reads.
pub fn write(fault: &str, faults: &[Timestamp], verdict: &Verdict) {
    let line = line(fault, faults, verdict);
    println!("{line}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/campaign");
    std::fs::create_dir_all(&directory).expect("failed to create target/campaign");
    std::fs::write(
        directory.join(format!("{}.txt", fault.replace(' ', "-"))),
        line + "\n",
    )
    .expect("failed to write the result");
}

fn line(fault: &str, faults: &[Timestamp], verdict: &Verdict) -> String {
    let mut gaps = gaps(faults, verdict);
    gaps.sort_by(f64::total_cmp);
    let gap = |at: usize| {
        gaps.get(at)
            .map_or("-".to_owned(), |gap| format!("{gap:.2}"))
    };
    let (min, median, max) = (
        gap(0),
        gap(gaps.len() / 2),
        gap(gaps.len().saturating_sub(1)),
    );
    let (times, takeovers) = (faults.len(), verdict.takeovers());
    let (late, overlaps) = (verdict.late.len(), verdict.overlaps.len());
    format!(
        "{fault:<42} {times:>6} {takeovers:>9} {late:>5} {overlaps:>8} {min:>7} {median:>7} {max:>7}"
    )
}

/// For each fault that led to a takeover, the seconds until the next leader's term began.
fn gaps(faults: &[Timestamp], verdict: &Verdict) -> Vec<f64> {
    let ends = faults.iter().skip(1).copied().chain([Timestamp::MAX]);
    let gap = |(begin, end): (&Timestamp, Timestamp)| {
        let leader = verdict
            .terms
            .iter()
            .rev()
            .find(|term| term.began <= *begin)?;
        let next = verdict
            .terms
            .iter()
            .find(|term| term.began > *begin && term.leader != leader.leader)?;
        (next.began < end)
            .then(|| (next.began.as_microsecond() - begin.as_microsecond()) as f64 / 1e6)
    };
    faults.iter().zip(ends).filter_map(gap).collect()
}
