//! A set of measured times and its statistics. Values only.

/// Seconds, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    /// From samples in any order.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }

    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Quantile by nearest rank; none without samples.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank between 0 and the count"
        )]
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }

    /// The smallest sample.
    pub fn min(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The largest sample.
    pub fn max(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a count of samples")]
        let count = self.0.len() as f64;
        (!self.0.is_empty()).then(|| self.0.iter().sum::<f64>() / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_one_of_the_samples() {
        let hundred = Distribution::of((1..=100).rev().map(f64::from));
        assert_eq!(
            [0.5, 0.9, 0.99, 1.0].map(|share| hundred.quantile(share)),
            [50.0, 90.0, 99.0, 100.0].map(Some)
        );
        assert_eq!(Distribution::of([3.0, 1.0, 2.0]).quantile(0.5), Some(2.0));
        assert_eq!(Distribution::of([7.0]).quantile(0.01), Some(7.0));
    }

    #[test]
    fn min_max_and_mean_cover_all_samples() {
        let some = Distribution::of([4.0, 1.0, 1.0]);
        assert_eq!(
            (some.count(), some.min(), some.mean(), some.max()),
            (3, Some(1.0), Some(2.0), Some(4.0))
        );
    }

    #[test]
    fn empty_distribution_has_no_statistics() {
        let none = Distribution::default();
        assert_eq!(
            (none.quantile(0.5), none.min(), none.mean(), none.max()),
            (None, None, None, None)
        );
    }
}
