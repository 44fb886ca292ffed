//! In which steps a long range of blocks is asked for. Pure.
//!
//! Endpoints limit how many blocks or logs one request may cover, each in its own way and with its own words. So the step
//! follows from experience: it is halved by a refusal and grows by success.

/// Blocks asked for at first.
const FIRST: u64 = 10_000;
/// Most blocks that are ever asked for at once.
const MOST: u64 = 1_000_000;

/// The step of one scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanStep {
    blocks: u64,
}

impl Default for ScanStep {
    fn default() -> Self {
        Self { blocks: FIRST }
    }
}

impl ScanStep {
    /// The next range of blocks, both ends included; `None` once `last` has been reached.
    #[must_use]
    pub fn range(self, next: u64, last: u64) -> Option<(u64, u64)> {
        (next <= last).then(|| (next, last.min(next.saturating_add(self.blocks - 1))))
    }

    /// A range was answered.
    #[must_use]
    pub fn grown(self) -> Self {
        Self {
            blocks: (self.blocks * 2).min(MOST),
        }
    }

    /// A range was refused; `None` if it cannot be made any smaller.
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
    fn ranges_follow_each_other_without_a_gap_up_to_the_last_block() {
        let step = ScanStep { blocks: 10 };
        assert_eq!(step.range(0, 25), Some((0, 9)));
        assert_eq!(step.range(10, 25), Some((10, 19)));
        assert_eq!(step.range(20, 25), Some((20, 25)));
        assert_eq!(step.range(25, 25), Some((25, 25)));
        assert_eq!(step.range(26, 25), None);
    }

    #[test]
    fn refusals_halve_the_step_down_to_one_block_and_answers_double_it_up_to_the_most() {
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
        assert_eq!(step.blocks, MOST);
    }
}
