//! Leadership terms as time intervals, and which of them overlap.

use jiff::{SignedDuration, Timestamp};

/// One candidate's term: from the first to the last moment at which it may have believed that it
/// leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BelievedTerm {
    /// The candidate.
    pub leader: String,
    /// Start.
    pub begun: Timestamp,
    /// End.
    pub ended: Timestamp,
}

/// Two candidates that believed at the same time that they lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrentTerms {
    /// The one whose term began first.
    pub earlier: String,
    /// The one whose term began during the other's.
    pub later: String,
    /// Duration of the overlap.
    pub duration: SignedDuration,
}

/// Every pair of overlapping terms of different candidates, ordered by the start of the later one.
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
    fn overlap_is_found_in_any_order_and_lasts_until_the_first_end() {
        let expected = [("a".to_owned(), "b".to_owned(), 2)];
        assert_eq!(found(&[term("b", 3, 9), term("a", 0, 5)]), expected);
        assert_eq!(found(&[term("a", 0, 50), term("b", 3, 5)]), expected);
    }

    #[test]
    fn long_term_overlaps_with_both_later_terms() {
        assert_eq!(
            found(&[term("a", 0, 9), term("b", 3, 5), term("c", 5, 8)]).len(),
            2
        );
    }

    #[test]
    fn terms_of_one_leader_do_not_overlap() {
        assert_eq!(found(&[term("a", 0, 9), term("a", 3, 5)]), []);
    }
}
