//! What benchmarks share: statistics, the resources of processes, progress, targets, and on which
//! machine a report was made.

pub mod distribution;
pub mod environment;
pub mod process;
pub mod progress;
pub mod target;

pub use distribution::Distribution;
pub use environment::Environment;
pub use progress::{Progress, ProgressTrack};
pub use target::Target;

/// Aligned columns: the first two hold words and are left-aligned, the others are right-aligned.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 | 1 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_are_aligned() {
        let rows = [["a", "bb", "1"], ["aaa", "b", "22"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a    bb   1\naaa  b   22\n");
    }
}
