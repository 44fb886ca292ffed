//! How many blocks one request for logs covers. Pure.
//!
//! Endpoints limit the blocks or logs of one request, each with its own limit and error message. So
//! the step adapts: a refused request halves it, an answered one doubles it.

/// Blocks of the first request.
const INITIAL: u64 = 10_000;
/// Maximum blocks of one request.
const MAX: u64 = 1_000_000;

/// Number of blocks that the next request of a scan covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanStep {
    blocks: u64,
}

impl Default for ScanStep {
    fn default() -> Self {
        Self { blocks: INITIAL }
    }
}

impl ScanStep {
    /// The next range of blocks, both ends included; `None` after `last`.
    #[must_use]
    pub fn range(self, next: u64, last: u64) -> Option<(u64, u64)> {
        (next <= last).then(|| (next, last.min(next.saturating_add(self.blocks - 1))))
    }

    /// The step after an answered request.
    #[must_use]
    pub fn grown(self) -> Self {
        Self {
            blocks: (self.blocks * 2).min(MAX),
        }
    }

    /// The step after a refused request; `None` if it is already one block.
    #[must_use]
    pub fn halved(self) -> Option<Self> {
        (self.blocks > 1).then_some(Self {
            blocks: self.blocks / 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_reach_the_last_block_without_gaps() {
        let step = ScanStep { blocks: 10 };
        assert_eq!(step.range(0, 25), Some((0, 9)));
        assert_eq!(step.range(10, 25), Some((10, 19)));
        assert_eq!(step.range(20, 25), Some((20, 25)));
        assert_eq!(step.range(25, 25), Some((25, 25)));
        assert_eq!(step.range(26, 25), None);
    }

    #[test]
    fn step_halves_down_to_one_block_and_doubles_up_to_the_maximum() {
        let mut step = ScanStep::default();
        let mut halvings = 0;
        while let Some(smaller) = step.halved() {
            step = smaller;
            halvings += 1;
        }
        assert_eq!((step.blocks, halvings), (1, 13));
        for _ in 0..30 {
            step = step.grown();
        }
        assert_eq!(step.blocks, MAX);
    }
}
