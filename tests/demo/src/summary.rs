//! What the demo counted, and whether it is what was promised. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One offer, as its status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Namespace and name.
    pub name: String,
    /// Key of its agent.
    pub key: Option<String>,
    /// Id of its agent.
    pub agent: Option<String>,
}

/// One registration, as the chain tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// Key in the agent's URI.
    pub key: String,
    /// Id of the agent.
    pub agent: String,
}

/// What the chain holds of the demo's signer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Every registration, in the order of the chain.
    pub minted: Vec<Minted>,
    /// Agents that the signer owns.
    pub owned: u64,
    /// Transactions that the signer has sent.
    pub sent: u64,
}

impl Census {
    /// Registrations beyond the first of each key, or agents beyond one for each key, whichever are more.
    pub fn duplicates(&self) -> u64 {
        let keys = count(
            self.minted
                .iter()
                .map(|minted| &minted.key)
                .collect::<BTreeSet<_>>()
                .len(),
        );
        (count(self.minted.len()) - keys).max(self.owned.saturating_sub(keys))
    }

    /// Offers whose status names the agent that the chain holds under their key.
    pub fn confirmed(&self, offers: &[Told]) -> u64 {
        let agents: BTreeMap<&str, &str> = self
            .minted
            .iter()
            .map(|minted| (minted.key.as_str(), minted.agent.as_str()))
            .collect();
        let is_confirmed = |offer: &&Told| {
            let agent = offer
                .key
                .as_deref()
                .and_then(|key| agents.get(key).copied());
            agent.is_some() && agent == offer.agent.as_deref()
        };
        count(offers.iter().filter(is_confirmed).count())
    }
}

/// What one registration took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Least gas that a registration used.
    pub least_gas: u64,
    /// Most gas that a registration used.
    pub most_gas: u64,
    /// What all of them cost, in wei.
    pub total_wei: u128,
    /// Mean price of gas, in wei.
    pub wei_per_gas: u128,
}

impl Cost {
    /// The cost of transactions, from the gas that each used and its price in wei.
    pub fn of(transactions: &[(u64, u128)]) -> Self {
        let gas = transactions.iter().map(|(gas, _)| *gas);
        let total_gas: u128 = gas.clone().map(u128::from).sum();
        let total_wei = transactions
            .iter()
            .map(|(gas, price)| u128::from(*gas) * price)
            .sum();
        Self {
            least_gas: gas.clone().min().unwrap_or_default(),
            most_gas: gas.max().unwrap_or_default(),
            total_wei,
            wei_per_gas: total_wei / total_gas.max(1),
        }
    }
}

/// One step of the demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// What the demo counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Offers that were made.
    pub offers: u64,
    /// Offers whose status names the agent that the chain holds for them.
    pub registered: u64,
    /// Registrations that the chain holds of the signer.
    pub registrations: u64,
    /// Registrations too many.
    pub duplicates: u64,
    /// Transactions that the signer has sent.
    pub transactions: u64,
    /// Nonces that were in use when the leader died.
    pub in_flight_at_death: u64,
    /// From the death of the leader until another one led.
    pub takeover_seconds: f64,
    /// The longest that this may take.
    pub takeover_limit_seconds: f64,
    /// Documents that the Service and every replica served, the same everywhere.
    pub documents_served: u64,
    /// What the registrations cost.
    pub cost: Cost,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

impl Summary {
    /// What is not as promised; nothing if all is well.
    pub fn broken(&self) -> Vec<String> {
        let offers = self.offers;
        let equal = [
            ("offers registered", self.registered, offers),
            ("registrations on chain", self.registrations, offers),
            ("duplicates", self.duplicates, 0),
            ("transactions of the signer", self.transactions, offers),
            ("documents served", self.documents_served, offers),
        ];
        let mut broken: Vec<String> = equal
            .into_iter()
            .filter(|(_, seen, promised)| seen != promised)
            .map(|(what, seen, promised)| format!("{what}: {seen} instead of {promised}"))
            .collect();
        if offers == 0 {
            broken.push("there were no offers".to_owned());
        }
        if self.in_flight_at_death == 0 {
            broken.push(
                "nothing was in flight when the leader died: the run proves nothing about it"
                    .to_owned(),
            );
        }
        if self.takeover_seconds > self.takeover_limit_seconds {
            let (took, limit) = (self.takeover_seconds, self.takeover_limit_seconds);
            broken.push(format!("takeover took {took:.1} s, more than {limit:.0} s"));
        }
        broken
    }
}

/// A length as a number that is written down.
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted(key: &str, agent: &str) -> Minted {
        Minted {
            key: key.into(),
            agent: agent.into(),
        }
    }

    fn told(key: &str, agent: &str) -> Told {
        Told {
            name: format!("shop/{key}"),
            key: Some(key.into()),
            agent: Some(agent.into()),
        }
    }

    fn good() -> Summary {
        Summary {
            offers: 24,
            registered: 24,
            registrations: 24,
            duplicates: 0,
            transactions: 24,
            in_flight_at_death: 5,
            takeover_seconds: 28.0,
            takeover_limit_seconds: 35.0,
            documents_served: 24,
            cost: Cost::default(),
            steps: Vec::new(),
        }
    }

    #[test]
    fn a_key_that_was_registered_twice_is_a_duplicate() {
        let census = Census {
            minted: vec![minted("a", "0"), minted("b", "1"), minted("a", "2")],
            owned: 2,
            sent: 3,
        };
        assert_eq!(census.duplicates(), 1);
        assert_eq!(
            Census {
                minted: census.minted[..2].to_vec(),
                owned: 2,
                sent: 2
            }
            .duplicates(),
            0
        );
    }

    #[test]
    fn an_agent_that_no_event_accounts_for_is_a_duplicate() {
        assert_eq!(
            Census {
                minted: vec![minted("a", "0")],
                owned: 2,
                sent: 2
            }
            .duplicates(),
            1
        );
    }

    #[test]
    fn an_offer_is_confirmed_only_by_the_agent_under_its_own_key() {
        let census = Census {
            minted: vec![minted("a", "0"), minted("b", "1")],
            owned: 2,
            sent: 2,
        };
        let silent = Told {
            name: "shop/c".into(),
            key: None,
            agent: None,
        };
        assert_eq!(
            census.confirmed(&[told("a", "0"), told("b", "0"), told("c", "1"), silent]),
            1
        );
    }

    #[test]
    fn cost_is_told_by_gas_and_by_wei() {
        let cost = Cost::of(&[(100, 2), (300, 4)]);
        assert_eq!(
            cost,
            Cost {
                least_gas: 100,
                most_gas: 300,
                total_wei: 1400,
                wei_per_gas: 3
            }
        );
        assert_eq!(Cost::of(&[]), Cost::default());
    }

    #[test]
    fn numbers_that_hold_break_nothing() {
        assert_eq!(good().broken(), Vec::<String>::new());
    }

    #[test]
    fn each_number_that_does_not_hold_is_named() {
        let cases = [
            (
                Summary {
                    registered: 23,
                    ..good()
                },
                "offers registered: 23 instead of 24",
            ),
            (
                Summary {
                    registrations: 25,
                    ..good()
                },
                "registrations on chain: 25 instead of 24",
            ),
            (
                Summary {
                    duplicates: 1,
                    ..good()
                },
                "duplicates: 1 instead of 0",
            ),
            (
                Summary {
                    transactions: 25,
                    ..good()
                },
                "transactions of the signer: 25 instead of 24",
            ),
            (
                Summary {
                    documents_served: 0,
                    ..good()
                },
                "documents served: 0 instead of 24",
            ),
            (
                Summary {
                    in_flight_at_death: 0,
                    ..good()
                },
                "nothing was in flight",
            ),
            (
                Summary {
                    takeover_seconds: 40.0,
                    ..good()
                },
                "takeover took 40.0 s, more than 35 s",
            ),
        ];
        for (summary, expected) in cases {
            let broken = summary.broken();
            assert!(
                broken.len() == 1 && broken[0].contains(expected),
                "{broken:?} is not {expected:?}"
            );
        }
    }

    #[test]
    fn a_demo_without_offers_proves_nothing() {
        let nothing = Summary {
            offers: 0,
            registered: 0,
            registrations: 0,
            transactions: 0,
            documents_served: 0,
            ..good()
        };
        assert_eq!(nothing.broken(), ["there were no offers"]);
    }
}
