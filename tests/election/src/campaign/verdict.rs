//! The verdict: whether a candidate acted without leading. Values in, values out.
//!
//! Terms follow from the writes that changed the Lease. Every effect is compared with them by the
//! time at which it *arrived*, on the receiver's clock. What a process believed does not count.
//! [`super::history`] provides the values.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

/// A candidate's write that changed the Lease. Writes of other users begin and end no term:
/// candidates cannot wait for a person's edit, and only another candidate can act in place of the
/// old leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// When the request arrived.
    pub at: Timestamp,
    /// The candidate that sent it: one process, independent of the identity that it writes.
    pub writer: String,
    /// Whether the written record names a holder. Without one it is a release.
    pub holds: bool,
}

/// What makes a late effect harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The write is refused unless the object has the version that was read.
    Version,
    /// The create is refused unless the name is free.
    Name,
    /// A transaction whose bytes were stored in a record before: sending it again is idempotent.
    StoredBytes,
    /// Nothing.
    None,
}

/// A side effect of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateEffect {
    /// When it arrived.
    pub at: Timestamp,
    /// The candidate that sent it.
    pub writer: String,
    /// Request and object, for messages.
    pub object: String,
    /// What makes it harmless if it is late.
    pub precondition: Precondition,
    /// Whether it was carried out rather than refused.
    pub done: bool,
}

/// From a candidate's first write that holds the Lease to the first that ends the term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The candidate.
    pub leader: String,
    /// When the write that began it arrived.
    pub began: Timestamp,
    /// When the write that ended it arrived; none while it lasts.
    pub ended: Option<Timestamp>,
}

/// How many requests of a leader may arrive after its term. None of them may overwrite newer state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// One to the API server, and one transaction with stored bytes to the chain: what was leaving
    /// the process when it was paused. All earlier ones had arrived.
    OneEach,
    /// Any number: requests were delayed in the network or in the server and cannot be recalled.
    Delayed,
}

/// Why an effect counts as an overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// The sender had never led.
    NeverLed,
    /// It arrived after the term, as the second one of its kind.
    SecondLate,
    /// It arrived after the term without a precondition, and could have overwritten newer state.
    Unconditional,
}

/// A forbidden effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The effect.
    pub effect: CandidateEffect,
    /// Why.
    pub breach: Breach,
    /// Time since the end of the sender's last term, in microseconds.
    pub late_by: i128,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CandidateEffect {
            at,
            writer,
            object,
            precondition,
            done,
        } = &self.effect;
        let outcome = if *done { "carried out" } else { "refused" };
        let late = self.late_by as f64 / 1e6;
        write!(
            f,
            "{:?}: {at} {writer} {object} ({precondition:?}, {outcome}, {late:.6} s after its term)",
            self.breach
        )
    }
}

/// The result for a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Every term, ordered by start.
    pub terms: Vec<Term>,
    /// Number of effects within the sender's term.
    pub within: usize,
    /// Allowed effects after the sender's term.
    pub late: Vec<CandidateEffect>,
    /// Forbidden effects.
    pub overlaps: Vec<Overlap>,
}

impl Verdict {
    /// How often leadership changed to another candidate.
    #[must_use]
    pub fn takeovers(&self) -> usize {
        self.terms
            .windows(2)
            .filter(|pair| pair[0].leader != pair[1].leader)
            .count()
    }
}

/// Judges a history. The lists need not be sorted.
#[must_use]
pub fn judge(
    mut changes: Vec<LeaseChange>,
    mut effects: Vec<CandidateEffect>,
    allowance: Allowance,
) -> Verdict {
    changes.sort_by_key(|change| change.at);
    effects.sort_by_key(|effect| effect.at);
    let mut verdict = Verdict {
        terms: terms(&changes),
        ..Verdict::default()
    };
    let mut came_late = BTreeSet::new();
    for effect in effects {
        let last = verdict
            .terms
            .iter()
            .rposition(|term| term.leader == effect.writer && term.began <= effect.at);
        let Some(last) = last else {
            verdict.overlaps.push(Overlap {
                effect,
                breach: Breach::NeverLed,
                late_by: 0,
            });
            continue;
        };
        let Some(ended) = verdict.terms[last]
            .ended
            .filter(|ended| *ended <= effect.at)
        else {
            verdict.within += 1;
            continue;
        };
        let first = came_late.insert((last, effect.precondition == Precondition::StoredBytes));
        let breach = match (effect.precondition, allowance) {
            (Precondition::None, _) => Some(Breach::Unconditional),
            (_, Allowance::OneEach) if !first => Some(Breach::SecondLate),
            (_, Allowance::OneEach | Allowance::Delayed) => None,
        };
        match breach {
            Some(breach) => {
                let late_by = effect.at.as_microsecond() - ended.as_microsecond();
                verdict.overlaps.push(Overlap {
                    effect,
                    breach,
                    late_by: late_by.into(),
                });
            }
            None => verdict.late.push(effect),
        }
    }
    verdict
}

/// The terms of sorted Lease changes.
fn terms(changes: &[LeaseChange]) -> Vec<Term> {
    let mut terms: Vec<Term> = Vec::new();
    for change in changes {
        let open = terms.last_mut().filter(|term| term.ended.is_none());
        match open {
            Some(term) if term.leader == change.writer && change.holds => continue,
            Some(term) => term.ended = Some(change.at),
            None => {}
        }
        if change.holds {
            terms.push(Term {
                leader: change.writer.clone(),
                began: change.at,
                ended: None,
            });
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
    }

    fn holds(writer: &str, moment: i64) -> LeaseChange {
        LeaseChange {
            at: at(moment),
            writer: writer.into(),
            holds: true,
        }
    }

    fn releases(writer: &str, moment: i64) -> LeaseChange {
        LeaseChange {
            holds: false,
            ..holds(writer, moment)
        }
    }

    fn writes(writer: &str, moment: i64) -> CandidateEffect {
        let (writer, object) = (writer.into(), "records/one".into());
        CandidateEffect {
            at: at(moment),
            writer,
            object,
            precondition: Precondition::Version,
            done: true,
        }
    }

    fn blindly(writer: &str, moment: i64) -> CandidateEffect {
        CandidateEffect {
            precondition: Precondition::None,
            ..writes(writer, moment)
        }
    }

    fn judged(changes: &[LeaseChange], effects: &[CandidateEffect]) -> Verdict {
        judge(changes.to_vec(), effects.to_vec(), Allowance::OneEach)
    }

    fn breaches(changes: &[LeaseChange], effects: &[CandidateEffect]) -> Vec<Breach> {
        let verdict = judged(changes, effects);
        assert_eq!(
            verdict.within + verdict.late.len() + verdict.overlaps.len(),
            effects.len(),
            "every effect is judged"
        );
        verdict
            .overlaps
            .iter()
            .map(|overlap| overlap.breach)
            .collect()
    }

    #[test]
    fn leader_may_write_until_another_candidate_takes_over() {
        let changes = [
            holds("a", 0),
            holds("a", 1000),
            holds("b", 5000),
            holds("b", 6000),
        ];
        let effects = [
            blindly("a", 0),
            blindly("a", 4999),
            blindly("b", 5000),
            blindly("b", 90_000),
        ];
        assert_eq!(breaches(&changes, &effects), []);
        let verdict = judged(&changes, &effects);
        let term = |leader: &str, began, ended: Option<i64>| Term {
            leader: leader.into(),
            began: at(began),
            ended: ended.map(at),
        };
        assert_eq!(
            verdict.terms,
            [term("a", 0, Some(5000)), term("b", 5000, None)]
        );
        assert_eq!((verdict.takeovers(), verdict.within), (1, 4));
    }

    #[test]
    fn one_conditional_request_may_arrive_after_each_term() {
        let changes = [
            holds("a", 0),
            holds("b", 5000),
            holds("a", 9000),
            holds("b", 12_000),
        ];
        let refused = CandidateEffect {
            done: false,
            ..writes("b", 9001)
        };
        let bytes = CandidateEffect {
            precondition: Precondition::StoredBytes,
            ..writes("a", 12_001)
        };
        let effects = [writes("a", 5000), refused, bytes];
        assert_eq!(breaches(&changes, &effects), []);
        assert_eq!(judged(&changes, &effects).late, effects);
    }

    #[test]
    fn second_late_request_of_a_term_is_an_overlap() {
        let changes = [holds("a", 0), holds("b", 5000)];
        let refused = CandidateEffect {
            done: false,
            ..writes("a", 5002)
        };
        assert_eq!(
            breaches(&changes, &[writes("a", 5001), refused]),
            [Breach::SecondLate]
        );
        let bytes = |moment| CandidateEffect {
            precondition: Precondition::StoredBytes,
            ..writes("a", moment)
        };
        assert_eq!(
            breaches(&changes, &[writes("a", 5001), bytes(5002), bytes(5003)]),
            [Breach::SecondLate]
        );
    }

    #[test]
    fn delayed_requests_may_be_late_but_not_unconditional() {
        let changes = [holds("a", 0), holds("b", 5000)];
        let effects = vec![
            writes("a", 5001),
            writes("a", 5002),
            blindly("a", 5003),
            writes("b", 4000),
        ];
        let verdict = judge(changes.to_vec(), effects, Allowance::Delayed);
        let breaches: Vec<_> = verdict
            .overlaps
            .iter()
            .map(|overlap| overlap.breach)
            .collect();
        assert_eq!(breaches, [Breach::NeverLed, Breach::Unconditional]);
        assert_eq!(verdict.late.len(), 2);
    }

    #[test]
    fn late_unconditional_request_is_an_overlap() {
        let changes = [holds("a", 0), holds("b", 5000)];
        let verdict = judged(&changes, &[blindly("a", 5250)]);
        let [overlap] = verdict.overlaps.as_slice() else {
            panic!("{verdict:?}")
        };
        assert_eq!(
            (overlap.breach, overlap.late_by),
            (Breach::Unconditional, 250_000)
        );
    }

    #[test]
    fn alternating_writes_of_two_leaders_are_found() {
        let changes = [holds("a", 0), holds("b", 5000)];
        let effects = [
            writes("a", 5100),
            writes("b", 5200),
            writes("a", 5300),
            writes("b", 5400),
            blindly("a", 5500),
        ];
        assert_eq!(
            breaches(&changes, &effects),
            [Breach::SecondLate, Breach::Unconditional]
        );
    }

    #[test]
    fn write_before_or_without_a_term_is_an_overlap() {
        let changes = [holds("a", 0), holds("b", 5000)];
        assert_eq!(
            breaches(&changes, &[writes("b", 4999), writes("c", 6000)]),
            [Breach::NeverLed; 2]
        );
    }

    #[test]
    fn release_ends_the_term_before_the_next_one_begins() {
        let changes = [holds("a", 0), releases("a", 5000), holds("b", 5040)];
        assert_eq!(breaches(&changes, &[writes("a", 4999)]), []);
        assert_eq!(
            breaches(&changes, &[blindly("a", 5020)]),
            [Breach::Unconditional]
        );
        let verdict = judged(&changes, &[]);
        assert_eq!(verdict.terms[0].ended, Some(at(5000)));
        assert_eq!(verdict.terms.len(), 2);
    }

    #[test]
    fn reacquired_lease_begins_a_new_term() {
        let changes = [
            holds("a", 0),
            holds("b", 5000),
            releases("b", 7000),
            holds("a", 7010),
        ];
        assert_eq!(breaches(&changes, &[blindly("a", 7010)]), []);
        assert_eq!(
            breaches(&changes, &[blindly("a", 6999)]),
            [Breach::Unconditional]
        );
        assert_eq!(judged(&changes, &[]).takeovers(), 2);
    }

    #[test]
    fn order_of_the_history_does_not_matter() {
        let changes = [holds("b", 5000), holds("a", 0)];
        assert_eq!(
            breaches(&changes, &[blindly("a", 5300), writes("a", 5100)]),
            [Breach::Unconditional]
        );
    }
}
