//! What a transaction may cost: limits, fees, and the purse they are checked against. Pure.
//!
//! Every amount here is the worst that can happen (gas limit times highest fee); what was really paid is read from the
//! receipt. Checking the worst case before a nonce is allocated is what makes the limits hold whatever the market does.

use std::collections::BTreeMap;

use alloy::primitives::utils::{format_ether, parse_units};

use crate::api::SpendingLimits;
use crate::chain::{FeeMarket, Fees};

/// Digits of wei below one coin.
const COIN_DECIMALS: u8 = 18;
/// Digits of wei below one gwei.
const GWEI_DECIMALS: u8 = 9;

/// A limit that is not an amount. Admission refuses it, so it was stored under another schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits.{field} is {value:?}, which is not a positive amount: write a decimal number like \"0.005\""
)]
pub struct UnreadableLimit {
    field: &'static str,
    value: String,
}

/// The limits of a registry, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Highest fee per gas.
    pub max_fee_per_gas: Option<u128>,
    /// Most that one registration may cost.
    pub per_registration: u128,
    /// Most that may be spent in 24 hours.
    pub per_day: u128,
    /// Most that one namespace may spend in 24 hours.
    pub per_namespace_per_day: Option<u128>,
}

impl Limits {
    /// The limits as an IdentityRegistry states them.
    ///
    /// # Errors
    /// If one of them is not an amount.
    pub fn read(limits: &SpendingLimits) -> Result<Self, UnreadableLimit> {
        let optional = |field, value: &Option<String>, decimals| match value {
            Some(value) => amount(field, value, decimals).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            max_fee_per_gas: optional(
                "maxFeePerGasGwei",
                &limits.max_fee_per_gas_gwei,
                GWEI_DECIMALS,
            )?,
            per_registration: amount("perRegistration", &limits.per_registration, COIN_DECIMALS)?,
            per_day: amount("perDay", &limits.per_day, COIN_DECIMALS)?,
            per_namespace_per_day: optional(
                "perNamespacePerDay",
                &limits.per_namespace_per_day,
                COIN_DECIMALS,
            )?,
        })
    }
}

fn amount(field: &'static str, value: &str, decimals: u8) -> Result<u128, UnreadableLimit> {
    let units = parse_units(value, decimals)
        .ok()
        .filter(|units| !units.is_negative());
    let wei = units
        .and_then(|units| u128::try_from(units.get_absolute()).ok())
        .filter(|wei| *wei > 0);
    wei.ok_or_else(|| UnreadableLimit {
        field,
        value: value.to_owned(),
    })
}

/// An amount as people read it: whole units of the coin, without trailing zeros.
#[must_use]
pub fn format_native(wei: u128) -> String {
    let text = format_ether(wei);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Why nothing is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum Shortage {
    /// The market is above what one registration may cost.
    #[error(
        "gas costs {market} wei and may cost {cap}: it is bought when the market falls, or when limits.maxFeePerGasGwei or limits.perRegistration are raised"
    )]
    FeeAboveLimit {
        /// Fee per gas that would be included soon.
        market: u128,
        /// Highest fee per gas that the limits allow.
        cap: u128,
    },
    /// The signer's balance is too small.
    #[error("the signer has {} and needs up to {}: send it some coin", format_native(*balance), format_native(*needed))]
    InsufficientFunds {
        /// What is left for this registration.
        balance: u128,
        /// What it may cost.
        needed: u128,
    },
    /// The day's limit is used up.
    #[error("up to {} of limits.perDay = {} are spent or reserved, and the next registration may cost {}", format_native(*used), format_native(*limit), format_native(*needed))]
    DailyLimitReached {
        /// Spent in the last 24 hours, or reserved for what is under way.
        used: u128,
        /// The limit.
        limit: u128,
        /// What the next registration may cost.
        needed: u128,
    },
    /// The namespace's limit is used up.
    #[error("this namespace has spent or reserved up to {} of limits.perNamespacePerDay = {}, and its next registration may cost {}", format_native(*used), format_native(*limit), format_native(*needed))]
    NamespaceLimitReached {
        /// Spent in the last 24 hours, or reserved for what is under way.
        used: u128,
        /// The limit.
        limit: u128,
        /// What the next registration may cost.
        needed: u128,
    },
}

impl Shortage {
    /// One word for conditions.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.into_str()
    }

    /// Whether what is short is short for every namespace.
    #[must_use]
    pub const fn affects_every_namespace(self) -> bool {
        !matches!(self, Self::NamespaceLimitReached { .. })
    }
}

/// Fees at which a transaction of so much gas is included soon and stays within the limits.
///
/// The highest fee leaves room for a base fee that doubles, where the limits have it. A market within one block's rise of the
/// cap (12.5 %, EIP-1559) counts as too dear, since it might be above the cap when the transaction arrives.
///
/// # Errors
/// [`Shortage::FeeAboveLimit`].
pub fn choose_fees(market: FeeMarket, limits: &Limits, gas: u64) -> Result<Fees, Shortage> {
    let affordable = limits.per_registration / u128::from(gas.max(1));
    let cap = limits
        .max_fee_per_gas
        .map_or(affordable, |limit| limit.min(affordable));
    let soon = market
        .base_fee
        .saturating_add(market.base_fee / 8)
        .saturating_add(market.tip);
    if soon > cap {
        return Err(Shortage::FeeAboveLimit { market: soon, cap });
    }
    let comfortable = market.base_fee.saturating_mul(2).saturating_add(market.tip);
    Ok(Fees {
        max_fee: comfortable.min(cap),
        tip: market.tip,
    })
}

/// What is there to spend. Whatever is granted is set aside, so that a batch cannot spend the same coin twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// What the signer holds and nothing unmined may take.
    pub balance: u128,
    /// Spent in the last 24 hours, or reserved for what is under way.
    pub used: u128,
    /// The same by namespace.
    pub used_by_namespace: BTreeMap<String, u128>,
}

impl Budget {
    /// Sets aside what a registration may cost.
    ///
    /// # Errors
    /// What it is short of; nothing is set aside then.
    pub fn reserve(
        &mut self,
        limits: &Limits,
        namespace: Option<&str>,
        needed: u128,
    ) -> Result<(), Shortage> {
        if needed > self.balance {
            return Err(Shortage::InsufficientFunds {
                balance: self.balance,
                needed,
            });
        }
        if self.used.saturating_add(needed) > limits.per_day {
            return Err(Shortage::DailyLimitReached {
                used: self.used,
                limit: limits.per_day,
                needed,
            });
        }
        if let (Some(namespace), Some(limit)) = (namespace, limits.per_namespace_per_day) {
            let used = self
                .used_by_namespace
                .get(namespace)
                .copied()
                .unwrap_or_default();
            if used.saturating_add(needed) > limit {
                return Err(Shortage::NamespaceLimitReached {
                    used,
                    limit,
                    needed,
                });
            }
        }
        self.balance -= needed;
        self.add_used(namespace, needed);
        Ok(())
    }

    /// Counts what was spent, or is reserved, before anything new is granted.
    pub fn add_used(&mut self, namespace: Option<&str>, amount: u128) {
        self.used = self.used.saturating_add(amount);
        if let Some(namespace) = namespace {
            let used = self
                .used_by_namespace
                .entry(namespace.to_owned())
                .or_default();
            *used = used.saturating_add(amount);
        }
    }

    /// How many registrations of that cost could still be granted.
    #[must_use]
    pub fn registrations_left(&self, limits: &Limits, cost: u128) -> u32 {
        let left = self.balance.min(limits.per_day.saturating_sub(self.used)) / cost.max(1);
        u32::try_from(left).unwrap_or(u32::MAX).min(i32::MAX as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GWEI: u128 = 1_000_000_000;
    const COIN: u128 = 1_000_000_000_000_000_000;

    fn limits() -> Limits {
        Limits::read(&SpendingLimits::default()).unwrap()
    }

    #[test]
    fn limits_are_read_to_the_last_wei() {
        let stated = SpendingLimits {
            max_fee_per_gas_gwei: Some("0.000000001".into()),
            per_registration: "0.000000000000000001".into(),
            per_day: "12345678901234567.123456789012345678".into(),
            per_namespace_per_day: Some("2".into()),
        };
        let expected = Limits {
            max_fee_per_gas: Some(1),
            per_registration: 1,
            per_day: 12_345_678_901_234_567_123_456_789_012_345_678,
            per_namespace_per_day: Some(2 * COIN),
        };
        assert_eq!(Limits::read(&stated), Ok(expected));
        assert_eq!(limits().per_day, 10 * limits().per_registration);
    }

    #[test]
    fn a_limit_that_is_no_amount_is_named() {
        for value in ["a lot", "", "0", "-5", "1e3", "99999999999999999999999"] {
            let stated = SpendingLimits {
                per_day: value.into(),
                ..SpendingLimits::default()
            };
            let error = Limits::read(&stated).unwrap_err().to_string();
            assert!(
                error.contains("limits.perDay") && error.contains(&format!("{value:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn amounts_are_shown_without_trailing_zeros() {
        for (wei, text) in [
            (0, "0"),
            (1, "0.000000000000000001"),
            (COIN, "1"),
            (10 * COIN, "10"),
            (COIN / 2, "0.5"),
        ] {
            assert_eq!(format_native(wei), text);
        }
    }

    #[test]
    fn fees_leave_room_for_a_rising_market_and_never_leave_the_limits() {
        let gas = 200_000;
        let market = |base_fee, tip| FeeMarket {
            base_fee: base_fee * GWEI,
            tip: tip * GWEI,
        };
        // 0.005 coins buy 200,000 gas at 25 gwei.
        assert_eq!(
            choose_fees(market(8, 1), &limits(), gas),
            Ok(Fees {
                max_fee: 17 * GWEI,
                tip: GWEI
            })
        );
        assert_eq!(
            choose_fees(market(16, 1), &limits(), gas),
            Ok(Fees {
                max_fee: 25 * GWEI,
                tip: GWEI
            })
        );
        let soon = 24 * GWEI + 24 * GWEI / 8 + GWEI;
        assert_eq!(
            choose_fees(market(24, 1), &limits(), gas),
            Err(Shortage::FeeAboveLimit {
                market: soon,
                cap: 25 * GWEI
            })
        );

        let capped = Limits {
            max_fee_per_gas: Some(10 * GWEI),
            ..limits()
        };
        assert_eq!(
            choose_fees(market(8, 1), &capped, gas),
            Ok(Fees {
                max_fee: 10 * GWEI,
                tip: GWEI
            }),
            "exactly at the cap"
        );
        assert!(choose_fees(market(9, 0), &capped, gas).is_err());
        assert!(choose_fees(market(1, 0), &limits(), 0).is_ok());
        let fees = Fees { max_fee: 3, tip: 1 };
        assert_eq!((fees.worst_cost(7), fees.worst_cost(0)), (21, 0));
    }

    #[test]
    fn a_purse_grants_until_balance_day_or_namespace_is_used_up() {
        let limits = Limits {
            per_namespace_per_day: Some(50),
            per_day: 100,
            ..limits()
        };
        let mut budget = Budget {
            balance: 120,
            ..Budget::default()
        };
        budget.add_used(Some("a"), 10);
        assert_eq!(
            budget.reserve(&limits, Some("a"), 40),
            Ok(()),
            "exactly at the limit of the namespace"
        );
        let short = Shortage::NamespaceLimitReached {
            used: 50,
            limit: 50,
            needed: 1,
        };
        assert_eq!(budget.reserve(&limits, Some("a"), 1), Err(short));
        assert_eq!(
            budget.reserve(&limits, Some("b"), 50),
            Ok(()),
            "exactly at the limit of the day"
        );
        assert_eq!(
            budget.reserve(&limits, None, 1),
            Err(Shortage::DailyLimitReached {
                used: 100,
                limit: 100,
                needed: 1
            })
        );
        assert_eq!(
            budget.reserve(&limits, None, 31),
            Err(Shortage::InsufficientFunds {
                balance: 30,
                needed: 31
            })
        );
        assert_eq!(
            (budget.balance, budget.used),
            (30, 100),
            "what was refused is not set aside"
        );
        assert!(
            !short.affects_every_namespace()
                && Shortage::InsufficientFunds {
                    balance: 0,
                    needed: 1
                }
                .affects_every_namespace()
        );
    }

    #[test]
    fn an_agent_of_no_single_namespace_counts_against_the_day_alone() {
        let limits = Limits {
            per_namespace_per_day: Some(1),
            per_day: 100,
            ..limits()
        };
        let mut budget = Budget {
            balance: 100,
            ..Budget::default()
        };
        assert_eq!(budget.reserve(&limits, None, 100), Ok(()));
        assert!(budget.used_by_namespace.is_empty());
    }

    #[test]
    fn what_is_left_is_the_smaller_of_balance_and_day() {
        let limits = Limits {
            per_day: 100,
            ..limits()
        };
        let mut budget = Budget {
            balance: 75,
            ..Budget::default()
        };
        assert_eq!(budget.registrations_left(&limits, 10), 7);
        budget.add_used(None, 60);
        assert_eq!(budget.registrations_left(&limits, 10), 4);
        budget.add_used(None, 60);
        assert_eq!(budget.registrations_left(&limits, 10), 0);
        let endless = Limits {
            per_day: u128::MAX,
            ..limits
        };
        assert_eq!(
            Budget {
                balance: u128::MAX,
                ..Budget::default()
            }
            .registrations_left(&endless, 0),
            i32::MAX as u32
        );
    }

    #[test]
    fn every_shortage_has_a_word_and_says_what_to_do() {
        for shortage in [
            Shortage::FeeAboveLimit { market: 2, cap: 1 },
            Shortage::InsufficientFunds {
                balance: 0,
                needed: 1,
            },
            Shortage::DailyLimitReached {
                used: 1,
                limit: 1,
                needed: 1,
            },
            Shortage::NamespaceLimitReached {
                used: 1,
                limit: 1,
                needed: 1,
            },
        ] {
            assert!(
                shortage.reason().chars().all(char::is_alphabetic)
                    && !shortage.to_string().is_empty()
            );
        }
    }
}
