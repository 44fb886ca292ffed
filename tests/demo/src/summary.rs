//! What the demo counted, and whether that is what was promised. Pure.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::B256;
use serde::Serialize;

/// An offer according to its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferStatus {
    /// Namespace and name.
    pub name: String,
    /// Key of its agent.
    pub key: Option<String>,
    /// Id of its agent.
    pub agent: Option<String>,
}

/// A registration according to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// Key in the agent's URI.
    pub key: String,
    /// Id of the agent.
    pub agent: String,
}

/// What the chain holds of the demo's signer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainCounts {
    /// Every registration, in the order of the chain.
    pub minted: Vec<Minted>,
    /// How many agents the signer owns.
    pub owned: u64,
    /// How many transactions of the signer are in blocks.
    pub sent: u64,
}

impl ChainCounts {
    /// How many different keys were registered.
    pub fn distinct_keys(&self) -> u64 {
        let keys: BTreeSet<_> = self.minted.iter().map(|minted| &minted.key).collect();
        count(keys.len())
    }

    /// Registrations beyond the first of each key, or agents beyond one per key, whichever is more.
    pub fn duplicates(&self) -> u64 {
        let keys = self.distinct_keys();
        (count(self.minted.len()) - keys).max(self.owned.saturating_sub(keys))
    }

    /// How many offers name in their status the agent that the chain holds under their key.
    pub fn confirmed(&self, offers: &[OfferStatus]) -> u64 {
        let agents: BTreeMap<&str, &str> = self
            .minted
            .iter()
            .map(|minted| (minted.key.as_str(), minted.agent.as_str()))
            .collect();
        let is_confirmed = |offer: &&OfferStatus| {
            let agent = offer
                .key
                .as_deref()
                .and_then(|key| agents.get(key).copied());
            agent.is_some() && agent == offer.agent.as_deref()
        };
        count(offers.iter().filter(is_confirmed).count())
    }
}

/// What registrations cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub least_gas: u64,
    pub most_gas: u64,
    /// All registrations together, in wei.
    pub total_wei: u128,
    /// Mean gas price, in wei per gas.
    pub wei_per_gas: u128,
}

impl Cost {
    /// The cost of transactions, from the gas used by each and its price in wei per gas.
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

/// An answer that a buyer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bought {
    /// Number of the answer.
    pub answer: u64,
    /// The transaction in its receipt.
    pub transaction: B256,
}

/// What was sold, according to buyer, upstream and chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaleCounts {
    /// What the buyer got.
    pub bought: Vec<Bought>,
    /// How often the upstream was called.
    pub executed: usize,
    /// Transfers of the price from the buyer to the seller.
    pub transfers: Vec<B256>,
    /// Any other transfers to the seller.
    pub other_transfers: usize,
}

impl SaleCounts {
    /// Different answers that the buyer got.
    pub fn delivered(&self) -> u64 {
        let answers: BTreeSet<u64> = self.bought.iter().map(|bought| bought.answer).collect();
        count(answers.len())
    }

    /// Calls of the upstream whose answer the buyer did not get.
    pub fn executed_again(&self) -> u64 {
        count(self.executed).saturating_sub(self.delivered())
    }

    /// Answers that no transfer of their own pays for.
    pub fn unpaid(&self) -> u64 {
        let transfers: BTreeSet<&B256> = self.transfers.iter().collect();
        let receipts: BTreeSet<&B256> = self.bought.iter().map(|one| &one.transaction).collect();
        let paid = receipts.intersection(&transfers).count();
        count(self.bought.len().saturating_sub(paid))
    }
}

/// One step of the demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    pub name: String,
    pub seconds: f64,
}

/// What the demo counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Offers that were created.
    pub offers: u64,
    /// Offers whose status names the agent that the chain holds for them.
    pub registered: u64,
    /// Registrations on the chain.
    pub registrations: u64,
    /// Registrations that should not exist.
    pub duplicates: u64,
    /// Transactions of the signer.
    pub transactions: u64,
    /// Nonces in flight when the leader died.
    pub in_flight_at_death: u64,
    /// From the leader's death to the next leader.
    pub takeover_seconds: f64,
    /// The longest that a takeover may take.
    pub takeover_limit_seconds: f64,
    /// Documents that the Service and every replica served in the same bytes.
    pub documents_served: u64,
    /// Purchases that were made.
    pub purchases: u64,
    /// Answers that the buyer got, each counted once.
    pub delivered: u64,
    /// Transfers to the seller.
    pub transfers: u64,
    /// Calls of the upstream whose answer the buyer did not get.
    pub executed_again: u64,
    /// Answers that no transfer of their own pays for.
    pub unpaid: u64,
    pub cost: Cost,
    /// In their order.
    pub steps: Vec<Step>,
}

impl Summary {
    /// Promises that were broken; none if all is well.
    pub fn broken(&self) -> Vec<String> {
        let offers = self.offers;
        let equal = [
            ("offers registered", self.registered, offers),
            ("registrations on chain", self.registrations, offers),
            ("duplicates", self.duplicates, 0),
            ("transactions of the signer", self.transactions, offers),
            ("documents served", self.documents_served, offers),
            ("answers delivered", self.delivered, self.purchases),
            ("transfers to the seller", self.transfers, self.purchases),
            ("calls of the upstream for nothing", self.executed_again, 0),
            ("unpaid answers", self.unpaid, 0),
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
                "nothing was in flight when the leader died, so the takeover proves nothing"
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

/// A length as it is written to the summary.
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

    fn status(key: &str, agent: &str) -> OfferStatus {
        OfferStatus {
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
            purchases: 20,
            delivered: 20,
            transfers: 20,
            executed_again: 0,
            unpaid: 0,
            cost: Cost::default(),
            steps: Vec::new(),
        }
    }

    #[test]
    fn key_registered_twice_is_a_duplicate() {
        let counts = ChainCounts {
            minted: vec![minted("a", "0"), minted("b", "1"), minted("a", "2")],
            owned: 2,
            sent: 3,
        };
        assert_eq!(counts.duplicates(), 1);
        assert_eq!(
            ChainCounts {
                minted: counts.minted[..2].to_vec(),
                owned: 2,
                sent: 2
            }
            .duplicates(),
            0
        );
    }

    #[test]
    fn agent_without_a_registered_event_is_a_duplicate() {
        assert_eq!(
            ChainCounts {
                minted: vec![minted("a", "0")],
                owned: 2,
                sent: 2
            }
            .duplicates(),
            1
        );
    }

    #[test]
    fn offer_is_confirmed_only_by_the_agent_under_its_own_key() {
        let counts = ChainCounts {
            minted: vec![minted("a", "0"), minted("b", "1")],
            owned: 2,
            sent: 2,
        };
        let silent = OfferStatus {
            name: "shop/c".into(),
            key: None,
            agent: None,
        };
        assert_eq!(
            counts.confirmed(&[status("a", "0"), status("b", "0"), status("c", "1"), silent]),
            1
        );
    }

    #[test]
    fn cost_sums_gas_and_wei() {
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
    fn sale_counts_different_answers_and_payments() {
        let bought = |answer: u64, transaction: u8| Bought {
            answer,
            transaction: B256::repeat_byte(transaction),
        };
        let transfers = vec![B256::repeat_byte(1), B256::repeat_byte(2)];
        let good = SaleCounts {
            bought: vec![bought(1, 1), bought(2, 2)],
            executed: 2,
            transfers,
            other_transfers: 0,
        };
        let counts =
            |counts: &SaleCounts| (counts.delivered(), counts.executed_again(), counts.unpaid());
        assert_eq!(counts(&good), (2, 0, 0));
        let same_answer = SaleCounts {
            bought: vec![bought(1, 1), bought(1, 2)],
            ..good.clone()
        };
        assert_eq!(counts(&same_answer), (1, 1, 0));
        for receipt in [1, 3] {
            let one_payment = SaleCounts {
                bought: vec![bought(1, 1), bought(2, receipt)],
                ..good.clone()
            };
            assert_eq!(counts(&one_payment), (2, 0, 1), "{receipt}");
        }
    }

    #[test]
    fn kept_promises_are_not_reported() {
        assert_eq!(good().broken(), Vec::<String>::new());
    }

    #[test]
    fn each_broken_promise_is_named() {
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
                    delivered: 19,
                    ..good()
                },
                "answers delivered: 19 instead of 20",
            ),
            (
                Summary {
                    transfers: 21,
                    ..good()
                },
                "transfers to the seller: 21 instead of 20",
            ),
            (
                Summary {
                    executed_again: 1,
                    ..good()
                },
                "calls of the upstream for nothing: 1 instead of 0",
            ),
            (
                Summary {
                    unpaid: 1,
                    ..good()
                },
                "unpaid answers: 1 instead of 0",
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
    fn demo_without_offers_is_broken() {
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
