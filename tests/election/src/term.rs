//! Terms of leadership as intervals of time, and whether two of them overlap.

use jiff::{SignedDuration, Timestamp};

/// One candidate's term: from the first moment at which it may have believed that it leads to the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BelievedTerm {
    /// Who.
    pub leader: String,
    /// From.
    pub begun: Timestamp,
    /// To.
    pub ended: Timestamp,
}

/// Two leaders at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrentTerms {
    /// Whose term had begun before.
    pub earlier: String,
    /// Whose term began while the other one lasted.
    pub later: String,
    /// For how long both believed that they lead.
    pub duration: SignedDuration,
}

/// Every pair of terms of different leaders that overlap, in the order in which the later one begins.
#[must_use]
pub fn overlaps(terms: &[BelievedTerm]) -> Vec<ConcurrentTerms> {
    let mut sorted: Vec<&BelievedTerm> = terms.iter().collect();
    sorted.sort_by_key(|term| (term.begun, term.ended));
    let mut found = Vec::new();
    for (at, later) in sorted.iter().enumerate() {
        for earlier in sorted[..at]
            .iter()
            .filter(|earlier| earlier.leader != later.leader)
        {
            let both = earlier.ended.min(later.ended).duration_since(later.begun);
            if both.is_positive() {
                let (earlier, later) = (earlier.leader.clone(), later.leader.clone());
                found.push(ConcurrentTerms {
                    earlier,
                    later,
                    duration: both,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(leader: &str, begun: i64, ended: i64) -> BelievedTerm {
        let [begun, ended] = [begun, ended].map(|second| Timestamp::constant(second, 0));
        BelievedTerm {
            leader: leader.to_owned(),
            begun,
            ended,
        }
    }

    fn found(terms: &[BelievedTerm]) -> Vec<(String, String, i64)> {
        overlaps(terms)
            .into_iter()
            .map(|one| (one.earlier, one.later, one.duration.as_secs()))
            .collect()
    }

    #[test]
    fn terms_that_touch_do_not_overlap() {
        assert_eq!(
            found(&[term("a", 0, 5), term("b", 5, 9), term("a", 9, 12)]),
            []
        );
    }

    #[test]
    fn an_overlap_is_found_in_any_order_and_lasts_until_the_first_end() {
        let expected = [("a".to_owned(), "b".to_owned(), 2)];
        assert_eq!(found(&[term("b", 3, 9), term("a", 0, 5)]), expected);
        assert_eq!(found(&[term("a", 0, 50), term("b", 3, 5)]), expected);
    }

    #[test]
    fn a_term_that_reaches_over_its_successor_overlaps_with_the_one_after_as_well() {
        assert_eq!(
            found(&[term("a", 0, 9), term("b", 3, 5), term("c", 5, 8)]).len(),
            2
        );
    }

    #[test]
    fn a_leader_does_not_overlap_with_itself() {
        assert_eq!(found(&[term("a", 0, 9), term("a", 3, 5)]), []);
    }
}
