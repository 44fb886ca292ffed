//! What a transaction may cost: spending limits, fees, and the budget that they are checked
//! against. Pure.
//!
//! Every amount here is the worst case: gas limit times maximum fee, and what a rollup charges
//! besides gas. The cost that was paid is read from the receipt. The worst case is checked before a
//! nonce is allocated, and again before each transaction is signed: prices and limits may have
//! changed. Messages show gas prices in gwei and amounts in the native token, exact to the last wei.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use alloy::primitives::utils::{ParseUnits, Unit, parse_units};

use crate::api::SpendingLimits;
use crate::chain::{FeeMarket, Fees};

/// A limit that is not a positive amount. Admission rejects it, so it was stored under another
/// schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits.{field} is {value:?}, which is not a positive amount; set a decimal number such as \
     \"0.005\""
)]
pub struct UnreadableLimit {
    field: &'static str,
    value: String,
}

/// Spending limits of a registry, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum fee per gas.
    pub max_fee_per_gas: Option<u128>,
    /// Maximum cost of one registration.
    pub per_registration: u128,
    /// Maximum spending in 24 hours.
    pub per_day: u128,
    /// Maximum spending of one namespace in 24 hours.
    pub per_namespace_per_day: Option<u128>,
}

impl Limits {
    /// Parses the limits of an IdentityRegistry.
    ///
    /// # Errors
    /// If a limit is not a positive amount.
    pub fn read(limits: &SpendingLimits) -> Result<Self, UnreadableLimit> {
        let optional = |field, value: &Option<String>, unit| match value {
            Some(value) => amount(field, value, unit).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            max_fee_per_gas: optional(
                "maxFeePerGasGwei",
                &limits.max_fee_per_gas_gwei,
                Unit::GWEI,
            )?,
            per_registration: amount("perRegistration", &limits.per_registration, Unit::ETHER)?,
            per_day: amount("perDay", &limits.per_day, Unit::ETHER)?,
            per_namespace_per_day: optional(
                "perNamespacePerDay",
                &limits.per_namespace_per_day,
                Unit::ETHER,
            )?,
        })
    }
}

fn amount(field: &'static str, value: &str, unit: Unit) -> Result<u128, UnreadableLimit> {
    let units = parse_units(value, unit.get())
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

/// An amount in units of the chain's native token, exact and without trailing zeros.
#[must_use]
pub fn format_native(wei: u128) -> String {
    format_wei(wei, Unit::ETHER)
}

/// A gas price in gwei, exact and without trailing zeros.
#[must_use]
pub fn format_gwei(wei: u128) -> String {
    format_wei(wei, Unit::GWEI)
}

/// Formats without rounding: a rounded number could hide the difference between a price and its
/// limit.
fn format_wei(wei: u128, unit: Unit) -> String {
    let text = ParseUnits::from(U256::from(wei)).format_units(unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a limit for gas does not say of itself.
fn after_rollup_fee(rollup_fee: u128) -> String {
    match rollup_fee {
        0 => String::new(),
        fee => format!(" that is left after a rollup fee of {}", format_native(fee)),
    }
}

/// Why a registration cannot be paid for now. The name of a variant is the reason of the condition
/// that reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, thiserror::Error)]
#[strum(const_into_str)]
pub enum Shortage {
    /// The gas price is above the limits.
    #[error(
        "gas price {} gwei exceeds the limit of {} gwei{}; \
         registration resumes when fees fall or limits.maxFeePerGasGwei / limits.perRegistration \
         is raised",
        format_gwei(*market),
        format_gwei(*cap),
        after_rollup_fee(*rollup_fee)
    )]
    FeeAboveLimit {
        /// Fee per gas that a transaction needs to be included soon, in wei.
        market: u128,
        /// Maximum fee per gas within the limits, in wei.
        cap: u128,
        /// What a rollup charges besides gas, in wei.
        rollup_fee: u128,
    },
    /// A transaction that was sent is too cheap, and the limits do not allow to replace it.
    #[error(
        "the transaction that was sent has to be replaced by one of {} gwei per gas and the limits \
         allow {} gwei: it is sent again as it is until fees fall, or limits.maxFeePerGasGwei / \
         limits.perRegistration is raised",
        format_gwei(*needed),
        format_gwei(*cap)
    )]
    FeeCapReached {
        /// Fee per gas that a replacement needs, in wei.
        needed: u128,
        /// Maximum fee per gas within the limits, in wei.
        cap: u128,
    },
    /// A transaction that was sent has to be replaced, and its record has no room for another one.
    #[error(
        "the registration needs another transaction and its record holds no more than {attempts}: \
         what was sent is sent again as it is until fees fall; if this lasts, use another endpoint"
    )]
    AttemptLimitReached {
        /// Attempts in the record.
        attempts: usize,
    },
    /// The signer's balance is too low.
    #[error(
        "available signer balance {} is below the {} (native token) that the registration may cost: \
         fund the signer",
        format_native(*balance),
        format_native(*needed)
    )]
    InsufficientFunds {
        /// Balance that is left for this registration.
        balance: u128,
        /// Worst-case cost of the registration.
        needed: u128,
    },
    /// The daily limit is reached.
    #[error(
        "{} of limits.perDay = {} is spent or reserved and the next registration may cost {} \
         (native token); registration resumes when enough of that is older than 24 hours, or \
         limits.perDay is raised",
        format_native(*used),
        format_native(*limit),
        format_native(*needed)
    )]
    DailyLimitReached {
        /// Spent in the last 24 hours or reserved for registrations in flight.
        used: u128,
        /// The limit.
        limit: u128,
        /// Worst-case cost of the next registration.
        needed: u128,
    },
    /// The daily limit of the namespace is reached.
    #[error(
        "this namespace has spent or reserved {} of limits.perNamespacePerDay = {} and its next \
         registration may cost {} (native token); registration resumes when enough of that \
         is older than 24 hours, or limits.perNamespacePerDay is raised",
        format_native(*used),
        format_native(*limit),
        format_native(*needed)
    )]
    NamespaceLimitReached {
        /// Spent in the last 24 hours or reserved for registrations in flight.
        used: u128,
        /// The limit.
        limit: u128,
        /// Worst-case cost of the next registration.
        needed: u128,
    },
}

impl Shortage {
    /// Reason for conditions: the name of the variant.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.into_str()
    }

    /// Whether it affects all namespaces, and not just one.
    #[must_use]
    pub const fn affects_every_namespace(self) -> bool {
        !matches!(self, Self::NamespaceLimitReached { .. })
    }
}

/// What a transaction takes besides its fee per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumption {
    /// Gas limit.
    pub gas: u64,
    /// What a rollup charges besides gas, in wei; 0 on other chains.
    pub rollup_fee: u128,
}

impl Consumption {
    /// Most that the transaction costs at these fees, in wei.
    #[must_use]
    pub fn worst_cost(self, fees: Fees) -> u128 {
        fees.worst_cost(self.gas).saturating_add(self.rollup_fee)
    }

    /// The same for a transaction that replaces one with this gas limit. A limit is never lowered: the
    /// replaced one may have been estimated before a transaction with a lower nonce was included,
    /// after which the contract writes fewer slots for the first time.
    #[must_use]
    pub fn for_replacement_of(self, replaced: Option<u64>) -> Self {
        Self {
            gas: self.gas.max(replaced.unwrap_or_default()),
            ..self
        }
    }

    /// Maximum fee per gas within the limits.
    fn fee_cap(self, limits: &Limits) -> u128 {
        let for_gas = limits.per_registration.saturating_sub(self.rollup_fee);
        let affordable = for_gas / u128::from(self.gas.max(1));
        limits
            .max_fee_per_gas
            .map_or(affordable, |limit| limit.min(affordable))
    }
}

/// What a rollup charges besides gas, in the worst case. It follows the base fee of L1, which can
/// rise by an eighth per block, and is taken when the transaction is included.
#[must_use]
pub const fn worst_rollup_fee(current: u128) -> u128 {
    current.saturating_add(current / 4)
}

/// Chooses the fees of a transaction, or of one that replaces another one at its nonce; `None` if
/// that one is good enough.
///
/// # Errors
/// [`Shortage::FeeAboveLimit`], or [`Shortage::FeeCapReached`] for a replacement.
pub fn fees_for(
    replaced: Option<Fees>,
    market: FeeMarket,
    limits: &Limits,
    takes: Consumption,
) -> Result<Option<Fees>, Shortage> {
    match replaced {
        None => choose_fees(market, limits, takes).map(Some),
        Some(before) if !is_below(before, market) => Ok(None),
        Some(before) => replacement_fees(before, market, limits, takes).map(Some),
    }
}

/// Chooses fees at which a transaction is included soon and stays within the limits.
///
/// The maximum fee leaves room for the base fee to double, as far as the limits allow. A gas price
/// within one block's rise of the cap (12.5 %, EIP-1559) counts as above it, since it may be above
/// it when the transaction arrives.
fn choose_fees(market: FeeMarket, limits: &Limits, takes: Consumption) -> Result<Fees, Shortage> {
    let (cap, soon) = (takes.fee_cap(limits), market.for_soon());
    if soon > cap {
        let rollup_fee = takes.rollup_fee;
        return Err(Shortage::FeeAboveLimit {
            market: soon,
            cap,
            rollup_fee,
        });
    }
    let max_fee = market.comfortable().min(cap);
    Ok(market.fees(max_fee, 0))
}

impl FeeMarket {
    /// Fee per gas with which a transaction is included soon.
    fn for_soon(self) -> u128 {
        match self {
            Self::Dynamic { base_fee, tip } => {
                let next = base_fee.saturating_add(base_fee / 8);
                next.saturating_add(tip)
            }
            Self::Legacy { gas_price } => gas_price,
        }
    }

    /// Maximum fee per gas with which a transaction can wait. A legacy transaction pays its price in
    /// full, however low the market is.
    fn comfortable(self) -> u128 {
        match self {
            Self::Dynamic { base_fee, tip } => base_fee.saturating_mul(2).saturating_add(tip),
            Self::Legacy { gas_price } => gas_price,
        }
    }

    /// Fees of a transaction of the market's type, with at least this priority fee.
    fn fees(self, max_fee: u128, least_tip: u128) -> Fees {
        match self {
            Self::Dynamic { tip, .. } => Fees::Dynamic {
                max_fee,
                tip: tip.max(least_tip).min(max_fee),
            },
            Self::Legacy { .. } => Fees::Legacy { gas_price: max_fee },
        }
    }
}

/// Whether a transaction with these fees is not included soon.
fn is_below(fees: Fees, market: FeeMarket) -> bool {
    let least_tip = match market {
        FeeMarket::Dynamic { tip, .. } => tip,
        FeeMarket::Legacy { .. } => 0,
    };
    fees.max_fee() < market.for_soon() || fees.tip() < least_tip
}

/// Rule R4: chooses the fees of a transaction that replaces another one at its nonce. Nodes demand
/// that both fees rise by a tenth; an eighth is enough for all of them.
fn replacement_fees(
    before: Fees,
    market: FeeMarket,
    limits: &Limits,
    takes: Consumption,
) -> Result<Fees, Shortage> {
    let raised = |fee: u128| fee.saturating_add(fee.div_ceil(8)).max(1);
    let (cap, needed) = (
        takes.fee_cap(limits),
        market.for_soon().max(raised(before.max_fee())),
    );
    if needed > cap {
        return Err(Shortage::FeeCapReached { needed, cap });
    }
    let max_fee = market.comfortable().min(cap).max(needed);
    Ok(market.fees(max_fee, raised(before.tip())))
}

/// What may be spent. Each reservation reduces it, so that one batch cannot spend the same balance
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Balance of the signer without what its unmined transactions may cost.
    pub balance: u128,
    /// Spent in the last 24 hours or reserved for registrations in flight.
    pub used: u128,
    /// Part of `used` by namespace.
    pub used_by_namespace: BTreeMap<String, u128>,
}

impl Budget {
    /// Reserves the worst-case cost of a registration.
    ///
    /// # Errors
    /// The limit that it would exceed; then nothing is reserved.
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

    /// Adds earlier spending and existing reservations, before anything new is reserved.
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

    /// Number of registrations at this cost that the budget still allows.
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
    const TOKEN: u128 = 1_000_000_000_000_000_000;
    const GAS: Consumption = Consumption {
        gas: 200_000,
        rollup_fee: 0,
    };
    const NO_GAS: Consumption = Consumption { gas: 0, ..GAS };

    fn limits() -> Limits {
        Limits::read(&SpendingLimits::default()).unwrap()
    }

    #[test]
    fn gas_limit_of_a_replacement_is_not_lower_than_before() {
        let gas = |replaced| GAS.for_replacement_of(replaced).gas;
        assert_eq!(
            [None, Some(190_000), Some(240_000)].map(gas),
            [200_000, 200_000, 240_000]
        );
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
            per_namespace_per_day: Some(2 * TOKEN),
        };
        assert_eq!(Limits::read(&stated), Ok(expected));
        assert_eq!(limits().per_day, 10 * limits().per_registration);
    }

    #[test]
    fn unreadable_limit_is_named() {
        let huge = "9".repeat(32);
        for value in ["a lot", "", "0", "-5", "1e3", &huge] {
            let stated = |change: fn(&mut SpendingLimits, String)| {
                let mut limits = SpendingLimits::default();
                change(&mut limits, value.into());
                limits
            };
            for (field, stated) in [
                (
                    "maxFeePerGasGwei",
                    stated(|limits, value| limits.max_fee_per_gas_gwei = Some(value)),
                ),
                (
                    "perRegistration",
                    stated(|limits, value| limits.per_registration = value),
                ),
                ("perDay", stated(|limits, value| limits.per_day = value)),
                (
                    "perNamespacePerDay",
                    stated(|limits, value| limits.per_namespace_per_day = Some(value)),
                ),
            ] {
                let error = Limits::read(&stated).unwrap_err();
                let value = value.to_owned();
                assert_eq!(error, UnreadableLimit { field, value });
                let said = error.to_string();
                assert!(said.contains(&format!("limits.{field}")), "{said}");
                assert!(said.contains(&format!("{:?}", error.value)), "{said}");
            }
        }
    }

    #[test]
    fn amounts_are_formatted_exactly() {
        for (wei, text) in [
            (0, "0"),
            (1, "0.000000000000000001"),
            (TOKEN, "1"),
            (10 * TOKEN, "10"),
            (TOKEN / 2, "0.5"),
        ] {
            assert_eq!(format_native(wei), text);
        }
        for (wei, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (GWEI, "1"),
            (10 * GWEI, "10"),
            (12 * GWEI + GWEI / 2, "12.5"),
            (u128::MAX, "340282366920938463463374607431.768211455"),
        ] {
            assert_eq!(format_gwei(wei), text);
        }
    }

    #[test]
    fn fees_leave_room_for_the_base_fee_within_the_limits() {
        let market = |base_fee, tip| FeeMarket::Dynamic {
            base_fee: base_fee * GWEI,
            tip: tip * GWEI,
        };
        // 0.005 of the native token buy 200,000 gas at 25 gwei.
        assert_eq!(
            choose_fees(market(8, 1), &limits(), GAS),
            Ok(Fees::Dynamic {
                max_fee: 17 * GWEI,
                tip: GWEI
            })
        );
        assert_eq!(
            choose_fees(market(16, 1), &limits(), GAS),
            Ok(Fees::Dynamic {
                max_fee: 25 * GWEI,
                tip: GWEI
            })
        );
        let soon = 24 * GWEI + 24 * GWEI / 8 + GWEI;
        assert_eq!(
            choose_fees(market(24, 1), &limits(), GAS),
            Err(Shortage::FeeAboveLimit {
                market: soon,
                cap: 25 * GWEI,
                rollup_fee: 0,
            })
        );

        let capped = Limits {
            max_fee_per_gas: Some(10 * GWEI),
            ..limits()
        };
        assert_eq!(
            choose_fees(market(8, 1), &capped, GAS),
            Ok(Fees::Dynamic {
                max_fee: 10 * GWEI,
                tip: GWEI
            }),
            "exactly at the cap"
        );
        assert!(choose_fees(market(9, 0), &capped, GAS).is_err());
        assert!(choose_fees(market(1, 0), &limits(), NO_GAS).is_ok());
        let fees = Fees::Dynamic { max_fee: 3, tip: 1 };
        assert_eq!((fees.worst_cost(7), fees.worst_cost(0)), (21, 0));
    }

    #[test]
    fn replacement_raises_both_fees_by_an_eighth_and_to_the_market() {
        let market = |base_fee, tip| FeeMarket::Dynamic { base_fee, tip };
        let before = Fees::Dynamic {
            max_fee: 10,
            tip: 3,
        };
        let replaced = |market| replacement_fees(before, market, &limits(), GAS);
        let fees = |max_fee, tip| Ok(Fees::Dynamic { max_fee, tip });
        assert_eq!(
            replaced(market(1, 1)),
            fees(12, 4),
            "10 x 1.125, rounded up"
        );
        assert_eq!(replaced(market(20, 5)), fees(45, 5));
        let none = Fees::Dynamic { max_fee: 0, tip: 0 };
        let free = replacement_fees(none, market(0, 0), &limits(), GAS);
        assert_eq!(free, fees(1, 1), "more than nothing");
        let dominated = Fees::Dynamic {
            max_fee: 10,
            tip: 10,
        };
        assert_eq!(
            replacement_fees(dominated, market(1, 1), &limits(), GAS),
            fees(12, 12)
        );
    }

    #[test]
    fn fee_or_tip_can_be_below_the_market() {
        let market = FeeMarket::Dynamic {
            base_fee: 16,
            tip: 2,
        };
        for (max_fee, tip, is_too_low) in [(20, 2, false), (19, 2, true), (20, 1, true)] {
            let fees = Fees::Dynamic { max_fee, tip };
            assert_eq!(is_below(fees, market), is_too_low, "{fees:?}");
        }
    }

    #[test]
    fn replacement_stays_within_the_limits() {
        let before = |gwei| Fees::Dynamic {
            max_fee: gwei * GWEI,
            tip: GWEI,
        };
        let market = |gwei| FeeMarket::Dynamic {
            base_fee: gwei * GWEI,
            tip: GWEI,
        };
        let cap = 25 * GWEI;
        let capped = |fees, market| replacement_fees(fees, market, &limits(), GAS);
        let allowed = capped(before(20), market(16)).unwrap();
        assert_eq!(allowed.max_fee(), cap, "as far as the limits allow");
        let raised_to_the_cap = Fees::Dynamic {
            max_fee: 22_222_222_222,
            tip: GWEI,
        };
        let allowed = capped(raised_to_the_cap, market(1)).unwrap();
        assert_eq!(allowed.max_fee(), cap);
        assert_eq!(
            capped(before(23), market(1)),
            Err(Shortage::FeeCapReached {
                needed: 25 * GWEI + GWEI * 7 / 8,
                cap
            })
        );
        assert_eq!(
            capped(before(1), market(24)),
            Err(Shortage::FeeCapReached {
                needed: 28 * GWEI,
                cap
            })
        );
    }

    #[test]
    fn legacy_market_has_one_price() {
        let market = |gwei| FeeMarket::Legacy {
            gas_price: gwei * GWEI,
        };
        let fees = |gwei| Fees::Legacy {
            gas_price: gwei * GWEI,
        };
        let chosen = |replaced, gwei| fees_for(replaced, market(gwei), &limits(), GAS);
        assert_eq!(chosen(None, 20), Ok(Some(fees(20))), "paid in full");
        assert_eq!(chosen(Some(fees(20)), 20), Ok(None));
        assert_eq!(chosen(Some(fees(8)), 20), Ok(Some(fees(20))));
        assert_eq!(chosen(Some(fees(16)), 17), Ok(Some(fees(18))));
        assert_eq!((fees(3).max_fee(), fees(3).tip()), (3 * GWEI, 3 * GWEI));
        let cap = 25 * GWEI;
        assert_eq!(
            chosen(None, 26),
            Err(Shortage::FeeAboveLimit {
                market: 26 * GWEI,
                cap,
                rollup_fee: 0
            })
        );
        let needed = 27 * GWEI;
        assert_eq!(
            chosen(Some(fees(24)), 25),
            Err(Shortage::FeeCapReached { needed, cap })
        );
    }

    #[test]
    fn rollup_fee_counts_before_gas() {
        let takes = |rollup_fee| Consumption { rollup_fee, ..GAS };
        let market = FeeMarket::Dynamic {
            base_fee: 8 * GWEI,
            tip: GWEI,
        };
        // 0.005 less 0.003 of the native token buy 200,000 gas at 10 gwei.
        let fees = fees_for(None, market, &limits(), takes(3 * TOKEN / 1000)).unwrap();
        let fees = fees.unwrap();
        assert_eq!(fees.max_fee(), 10 * GWEI);
        let cost = takes(3 * TOKEN / 1000).worst_cost(fees);
        assert_eq!(cost, limits().per_registration);
        for (rollup_fee, cap) in [(4 * TOKEN / 1000, 5 * GWEI), (TOKEN, 0)] {
            let refused = fees_for(None, market, &limits(), takes(rollup_fee)).unwrap_err();
            let market = 10 * GWEI;
            assert_eq!(
                refused,
                Shortage::FeeAboveLimit {
                    market,
                    cap,
                    rollup_fee
                }
            );
            let left = format!("after a rollup fee of {}", format_native(rollup_fee));
            assert!(refused.to_string().contains(&left), "{refused}");
        }
        assert_eq!((worst_rollup_fee(0), worst_rollup_fee(8)), (0, 10));
    }

    #[test]
    fn transaction_is_replaced_only_if_its_fees_are_too_low() {
        let market = FeeMarket::Dynamic {
            base_fee: 16,
            tip: 2,
        };
        let fees = |max_fee| Fees::Dynamic { max_fee, tip: 2 };
        let chosen = |replaced| fees_for(replaced, market, &limits(), GAS);
        assert_eq!(chosen(None), Ok(Some(fees(34))));
        assert_eq!(chosen(Some(fees(20))), Ok(None));
        let raised = Fees::Dynamic {
            max_fee: 34,
            tip: 3,
        };
        assert_eq!(chosen(Some(fees(19))), Ok(Some(raised)));
    }

    #[test]
    fn budget_ends_with_balance_day_or_namespace() {
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
            "a refused reservation changes nothing"
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
    fn shared_agent_counts_against_the_day_only() {
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
    fn registrations_left_is_limited_by_balance_and_day() {
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
    fn every_shortage_has_a_reason_and_a_remedy() {
        let (used, limit, needed) = (TOKEN / 2, TOKEN, TOKEN / 2 + 1);
        for (shortage, message) in [
            (
                Shortage::FeeAboveLimit {
                    market: 12 * GWEI + GWEI / 2,
                    cap: 10 * GWEI,
                    rollup_fee: 0,
                },
                "gas price 12.5 gwei exceeds the limit of 10 gwei; registration resumes when fees \
                 fall or limits.maxFeePerGasGwei / limits.perRegistration is raised",
            ),
            (
                Shortage::FeeCapReached {
                    needed: 28 * GWEI,
                    cap: 25 * GWEI,
                },
                "the transaction that was sent has to be replaced by one of 28 gwei per gas and \
                 the limits allow 25 gwei: it is sent again as it is until fees fall, or \
                 limits.maxFeePerGasGwei / limits.perRegistration is raised",
            ),
            (
                Shortage::AttemptLimitReached { attempts: 256 },
                "the registration needs another transaction and its record holds no more than \
                 256: what was sent is sent again as it is until fees fall; if this lasts, use \
                 another endpoint",
            ),
            (
                Shortage::InsufficientFunds {
                    balance: TOKEN / 250,
                    needed: TOKEN / 200,
                },
                "available signer balance 0.004 is below the 0.005 (native token) that the \
                 registration may cost: fund the signer",
            ),
            (
                Shortage::DailyLimitReached {
                    used,
                    limit,
                    needed,
                },
                "0.5 of limits.perDay = 1 is spent or reserved and the next registration may cost \
                 0.500000000000000001 (native token); registration resumes when enough of that \
                 is older than 24 hours, or limits.perDay is raised",
            ),
            (
                Shortage::NamespaceLimitReached {
                    used,
                    limit,
                    needed,
                },
                "this namespace has spent or reserved 0.5 of limits.perNamespacePerDay = 1 and \
                 its next registration may cost 0.500000000000000001 (native token); registration \
                 resumes when enough of that is older than 24 hours, or \
                 limits.perNamespacePerDay is raised",
            ),
        ] {
            assert!(shortage.reason().chars().all(char::is_alphabetic));
            assert_eq!(shortage.to_string(), message);
        }
    }
}
