//! The judgement: whether anybody acted who did not lead. Values in, values out.
//!
//! It owns the rule and nothing else: terms are read off the writes that changed the Lease, and every effect is held against
//! them by the moment at which it *arrived*, on the clock of whoever took it in. What a process believed does not count.
//! Where the values come from is in [`super::history`].

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

/// A write of a candidate that changed the Lease. Writes of anybody else begin and end no term: a person who edits the Lease
/// cannot be waited for, and only another candidate can act in the old leader's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// When the request arrived.
    pub at: Timestamp,
    /// The candidate that sent it. One process each, whatever name it writes into the Lease.
    pub writer: String,
    /// Whether the record that it wrote names a holder. One that does not is a release.
    pub holds: bool,
}

/// What keeps an effect from harm if it comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// It is refused unless the object still has the version that was read.
    Version,
    /// It is refused unless the name is free.
    Name,
    /// It is a transaction whose bytes stood in a record before: whoever sends it, and how often, it is the same one.
    StoredBytes,
    /// Nothing.
    None,
}

/// Something that a candidate did to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateEffect {
    /// When it arrived.
    pub at: Timestamp,
    /// The candidate that sent it.
    pub writer: String,
    /// What it was done to, for people.
    pub object: String,
    /// What keeps it from harm.
    pub precondition: Precondition,
    /// Whether it was carried out, and not refused.
    pub done: bool,
}

/// The time from a candidate's first write that holds the Lease to the first that ends this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The candidate.
    pub leader: String,
    /// When the write that began it arrived.
    pub began: Timestamp,
    /// When the write that ended it arrived, unless it lasts.
    pub ended: Option<Timestamp>,
}

/// How many requests of a leader may arrive after its term. All of them must be such that they cannot overwrite what is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// One to the API server, and one sending of stored bytes to the chain: what was leaving the process when it was stopped.
    /// All others that left had arrived.
    OneEach,
    /// Any number: what had left was held up on its way, or where it should have been answered, and nobody can call it back.
    Delayed,
}

/// Why an effect is an overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// Its sender had never led.
    NeverLed,
    /// It came after the term, and another effect of its kind had come after that term before it.
    SecondLate,
    /// It came after the term, and nothing would have kept it from overwriting what is newer.
    Unconditional,
}

/// An effect that should not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The effect.
    pub effect: CandidateEffect,
    /// Why.
    pub breach: Breach,
    /// How long after the end of its sender's last term it came, in microseconds.
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

/// What came of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Every term, in the order of their beginnings.
    pub terms: Vec<Term>,
    /// How many effects came within their sender's term.
    pub within: usize,
    /// Effects that came after their sender's term, and were allowed to.
    pub late: Vec<CandidateEffect>,
    /// Effects that should not have been.
    pub overlaps: Vec<Overlap>,
}

impl Verdict {
    /// How often another candidate than the last leader began a term.
    #[must_use]
    pub fn takeovers(&self) -> usize {
        self.terms
            .windows(2)
            .filter(|pair| pair[0].leader != pair[1].leader)
            .count()
    }
}

/// Judges a history. Neither list need be sorted.
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

/// The terms in a history of the Lease that is in order.
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
            "none is left out"
        );
        verdict
            .overlaps
            .iter()
            .map(|overlap| overlap.breach)
            .collect()
    }

    #[test]
    fn a_leader_may_write_from_the_write_that_made_it_one_until_the_write_of_another() {
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
    fn one_conditional_request_may_come_after_each_term_whether_it_is_refused_or_not() {
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
    fn a_second_request_after_the_same_term_is_an_overlap() {
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
    fn requests_that_were_held_up_may_all_come_late_but_none_without_a_precondition() {
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
    fn a_request_without_a_precondition_after_the_term_is_an_overlap() {
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
    fn two_leaders_that_write_in_turns_are_found() {
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
    fn a_write_before_the_writers_term_or_without_any_is_an_overlap() {
        let changes = [holds("a", 0), holds("b", 5000)];
        assert_eq!(
            breaches(&changes, &[writes("b", 4999), writes("c", 6000)]),
            [Breach::NeverLed; 2]
        );
    }

    #[test]
    fn a_release_ends_the_term_also_while_nobody_else_leads() {
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
    fn a_leader_that_takes_the_lease_back_begins_a_term_of_its_own() {
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
    fn the_order_in_which_a_history_is_told_does_not_matter() {
        let changes = [holds("b", 5000), holds("a", 0)];
        assert_eq!(
            breaches(&changes, &[blindly("a", 5300), writes("a", 5100)]),
            [Breach::Unconditional]
        );
    }
}
