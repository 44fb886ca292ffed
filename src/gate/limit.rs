//! Decides how much load an offer and a client address may cause. Pure.
//!
//! [`OfferLimiter`] holds the limits that an offer states. [`AddressBudget`] keeps one client from
//! spending the gate's time: what a client may do without paying is counted by its address. Neither
//! knows what a payment is, and a request that pays is never counted as one that does not.
//!
//! Time is a parameter: the time since a start that all callers share. Which address a client has
//! is decided in [`super::headers`].

use core::net::IpAddr;
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a client is asked to wait when no time is known: until other requests end.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
/// Seconds of its rate that an offer lets through at once.
const OFFER_BURST: u32 = 2;

/// A request is refused for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests")]
pub(crate) struct Limited {
    pub(crate) retry_after: Duration,
}

impl Limited {
    /// Value of the field `Retry-After`: whole seconds, at least one.
    pub(crate) fn retry_after_seconds(self) -> u64 {
        let rounded_up = self.retry_after + Duration::from_nanos(999_999_999);
        rounded_up.as_secs().max(1)
    }
}

/// How often something may happen: `burst` times at once, and then once per `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) every: Duration,
    pub(crate) burst: u32,
}

/// A token bucket, kept as the time at which it is full again. The default is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TokenBucket {
    full_at: Duration,
}

impl TokenBucket {
    /// Takes one token.
    fn take(&mut self, allowance: Allowance, now: Duration) -> Result<(), Limited> {
        let full_at = self.full_at.max(now) + allowance.every;
        let latest = now + allowance.every * allowance.burst;
        match full_at.checked_sub(latest) {
            None | Some(Duration::ZERO) => {
                self.full_at = full_at;
                Ok(())
            }
            Some(retry_after) => Err(Limited { retry_after }),
        }
    }
}

/// Holds one offer to its limits. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfferLimiter(Arc<Mutex<OfferLoad>>);

#[derive(Debug, Default)]
struct OfferLoad {
    /// `None` for any number of requests.
    rate: Option<Allowance>,
    /// `None` for any number of requests at once.
    most_in_flight: Option<u32>,
    bucket: TokenBucket,
    in_flight: u32,
}

impl OfferLimiter {
    /// Limits from now on; 0 means no limit. Requests that are in flight stay counted, so an offer
    /// keeps its limiter while its specification changes.
    pub(crate) fn set(&self, requests_per_second: u32, most_in_flight: u32) {
        self.with(|load| {
            load.rate = (requests_per_second > 0).then(|| Allowance {
                every: Duration::from_secs(1) / requests_per_second,
                burst: requests_per_second.saturating_mul(OFFER_BURST),
            });
            load.most_in_flight = (most_in_flight > 0).then_some(most_in_flight);
        });
    }

    /// Admits one request, which is in flight until the guard is dropped. A refused request costs
    /// nothing.
    pub(crate) fn take(&self, now: Duration) -> Result<InFlight, Limited> {
        self.with(|load| {
            if load
                .most_in_flight
                .is_some_and(|most| load.in_flight >= most)
            {
                return Err(Limited {
                    retry_after: UNKNOWN_WAIT,
                });
            }
            if let Some(rate) = load.rate {
                load.bucket.take(rate, now)?;
            }
            load.in_flight += 1;
            Ok(())
        })?;
        Ok(InFlight(self.clone()))
    }

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> u32 {
        self.with(|load| load.in_flight)
    }

    fn with<T>(&self, act: impl FnOnce(&mut OfferLoad) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request of an offer. It lives as long as the response streams or the tunnel is open.
#[derive(Debug)]
#[must_use = "the request counts as in flight while this lives"]
pub(crate) struct InFlight(OfferLimiter);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.with(|load| load.in_flight -= 1);
    }
}

/// What a client address has a budget for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressCost {
    /// A request without a payment.
    UnpaidRequest,
    /// A payment that was wrong.
    InvalidPayment,
}

/// Budgets of client addresses. The number of addresses is bounded: those that were idle longest
/// are forgotten first, which gives them a full budget. Refusing unknown clients instead would let
/// one client with many addresses close the gate to all others.
#[derive(Debug)]
pub(crate) struct AddressBudget {
    unpaid: Allowance,
    invalid: Allowance,
    /// Maximum addresses of one generation.
    generation: usize,
    accounts: Mutex<Accounts>,
}

/// Two generations of accounts. When the recent one is full it becomes the former one, so every
/// address that was seen since then is known, in constant time and without a clock.
#[derive(Debug, Default)]
struct Accounts {
    recent: HashMap<AddressKey, Account>,
    former: HashMap<AddressKey, Account>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    unpaid: TokenBucket,
    invalid: TokenBucket,
}

/// Who is counted together: an IPv4 address, or an IPv6 network of 64 bits, which one client may
/// have as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AddressKey {
    V4(u32),
    V6(u64),
}

impl AddressKey {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl AddressBudget {
    /// Budgets for at most this number of addresses.
    pub(crate) fn new(addresses: usize, unpaid: Allowance, invalid: Allowance) -> Self {
        Self {
            unpaid,
            invalid,
            generation: addresses.div_ceil(2).max(1),
            accounts: Mutex::default(),
        }
    }

    /// Spends from the budget of an address.
    pub(crate) fn spend(
        &self,
        cost: AddressCost,
        address: IpAddr,
        now: Duration,
    ) -> Result<(), Limited> {
        let mut accounts = self.lock();
        let account = accounts.account(AddressKey::of(address), self.generation);
        self.take(cost, account, now)
    }

    /// Whether an address has budget left, without spending: a request with a payment is held to
    /// the budget for wrong payments before it is known whether this one is wrong.
    pub(crate) fn check(
        &self,
        cost: AddressCost,
        address: IpAddr,
        now: Duration,
    ) -> Result<(), Limited> {
        let mut account = self.lock().peek(AddressKey::of(address));
        self.take(cost, &mut account, now)
    }

    fn take(&self, cost: AddressCost, account: &mut Account, now: Duration) -> Result<(), Limited> {
        match cost {
            AddressCost::UnpaidRequest => account.unpaid.take(self.unpaid, now),
            AddressCost::InvalidPayment => account.invalid.take(self.invalid, now),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn peek(&self, key: AddressKey) -> Account {
        let known = self.recent.get(&key).or_else(|| self.former.get(&key));
        known.copied().unwrap_or_default()
    }

    /// The account of an address, among the recent ones.
    fn account(&mut self, key: AddressKey, generation: usize) -> &mut Account {
        let is_new = !self.recent.contains_key(&key);
        if is_new && self.recent.len() >= generation {
            self.former = mem::take(&mut self.recent);
        }
        let Self { recent, former } = self;
        let known = || former.remove(&key).unwrap_or_default();
        recent.entry(key).or_insert_with(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Requests that are admitted at one time, of many.
    fn admitted(limiter: &OfferLimiter, now: Duration) -> usize {
        let requests = (0..100).filter(|_| limiter.take(now).is_ok());
        requests.count()
    }

    #[test]
    fn offer_admits_twice_its_rate_at_once_and_its_rate_after_that() {
        let limiter = OfferLimiter::default();
        limiter.set(5, 0);
        assert_eq!(admitted(&limiter, seconds(10)), 10);
        let refused = limiter.take(seconds(10)).unwrap_err();
        assert_eq!(refused.retry_after, millis(200));
        assert_eq!(admitted(&limiter, millis(10_199)), 0);
        assert_eq!(admitted(&limiter, millis(10_200)), 1);
        assert_eq!(admitted(&limiter, millis(11_200)), 5);
        assert_eq!(
            admitted(&limiter, seconds(100)),
            10,
            "never more than twice"
        );
    }

    #[test]
    fn offer_without_limits_admits_everything() {
        let limiter = OfferLimiter::default();
        assert_eq!(admitted(&limiter, Duration::ZERO), 100);
        limiter.set(0, 0);
        assert_eq!(admitted(&limiter, Duration::ZERO), 100);
    }

    #[test]
    fn any_rate_can_be_stated() {
        let limiter = OfferLimiter::default();
        limiter.set(u32::MAX, u32::MAX);
        assert_eq!(admitted(&limiter, Duration::ZERO), 100);
    }

    #[test]
    fn clock_that_went_back_admits_no_more() {
        let limiter = OfferLimiter::default();
        limiter.set(1, 0);
        assert_eq!(admitted(&limiter, seconds(10)), 2);
        let refused = limiter.take(seconds(9)).unwrap_err();
        assert_eq!(refused.retry_after, seconds(2));
    }

    #[test]
    fn request_is_in_flight_until_its_guard_is_dropped() {
        let limiter = OfferLimiter::default();
        limiter.set(0, 2);
        let first = limiter.take(Duration::ZERO).unwrap();
        let second = limiter.take(Duration::ZERO).unwrap();
        let refused = limiter.take(Duration::ZERO).unwrap_err();
        assert_eq!(refused.retry_after, UNKNOWN_WAIT);
        assert_eq!(limiter.in_flight(), 2);
        drop(first);
        let third = limiter.take(Duration::ZERO).unwrap();
        drop((second, third));
        assert_eq!(limiter.in_flight(), 0);
    }

    #[test]
    fn refused_request_costs_nothing() {
        let limiter = OfferLimiter::default();
        limiter.set(1, 1);
        let first = limiter.take(Duration::ZERO).unwrap();
        assert_eq!(admitted(&limiter, Duration::ZERO), 0);
        drop(first);
        let second = limiter.take(Duration::ZERO);
        assert!(second.is_ok(), "the refused ones took no token");
        drop(second);
        assert!(limiter.take(Duration::ZERO).is_err());
        assert_eq!(limiter.in_flight(), 0);
    }

    #[test]
    fn changed_limits_apply_to_requests_in_flight() {
        let limiter = OfferLimiter::default();
        let first = limiter.take(Duration::ZERO).unwrap();
        limiter.set(0, 1);
        assert!(limiter.clone().take(Duration::ZERO).is_err());
        limiter.set(0, 2);
        let second = limiter.take(Duration::ZERO).unwrap();
        limiter.set(0, 1);
        drop(first);
        assert!(limiter.take(Duration::ZERO).is_err());
        drop(second);
        assert!(limiter.take(Duration::ZERO).is_ok());
    }

    fn budget(addresses: usize) -> AddressBudget {
        let once_in = |every| Allowance { every, burst: 2 };
        AddressBudget::new(addresses, once_in(seconds(1)), once_in(seconds(60)))
    }

    #[test]
    fn budgets_are_spent_apart_by_address_and_kind() {
        let budget = budget(10);
        let (first, second) = (address("192.0.2.1"), address("192.0.2.2"));
        let unpaid = |address, now| budget.spend(AddressCost::UnpaidRequest, address, now);
        let invalid = |address, now| budget.spend(AddressCost::InvalidPayment, address, now);
        assert!(unpaid(first, seconds(0)).is_ok());
        assert!(unpaid(first, seconds(0)).is_ok());
        let refused = unpaid(first, seconds(0)).unwrap_err();
        assert_eq!(refused.retry_after, seconds(1));
        assert!(unpaid(first, seconds(1)).is_ok());
        assert!(unpaid(second, seconds(0)).is_ok());
        assert!(invalid(first, seconds(0)).is_ok());
        assert!(invalid(first, seconds(0)).is_ok());
        let refused = invalid(first, seconds(1)).unwrap_err();
        assert_eq!(refused.retry_after, seconds(59));
    }

    #[test]
    fn check_spends_nothing() {
        let budget = budget(10);
        let client = address("192.0.2.1");
        let check = || budget.check(AddressCost::InvalidPayment, client, seconds(0));
        for _ in 0..10 {
            assert!(check().is_ok());
        }
        for _ in 0..2 {
            let spent = budget.spend(AddressCost::InvalidPayment, client, seconds(0));
            assert!(spent.is_ok());
        }
        assert!(check().is_err());
        for _ in 0..10 {
            let _ = budget.spend(AddressCost::UnpaidRequest, client, seconds(0));
        }
        assert!(
            budget
                .check(AddressCost::InvalidPayment, client, seconds(60))
                .is_ok()
        );
        assert!(
            budget
                .check(AddressCost::UnpaidRequest, client, seconds(0))
                .is_err()
        );
    }

    #[test]
    fn addresses_of_one_client_share_a_budget() {
        let of = |text| AddressKey::of(address(text));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("::"), of("0.0.0.0"));
    }

    #[test]
    fn idle_addresses_are_forgotten_when_there_are_many() {
        let budget = budget(4);
        let numbered = |number: u32| IpAddr::V4(number.into());
        let spend =
            |number| budget.spend(AddressCost::InvalidPayment, numbered(number), seconds(0));
        let check =
            |number| budget.check(AddressCost::InvalidPayment, numbered(number), seconds(0));
        for number in [1, 1, 2, 2] {
            assert!(spend(number).is_ok());
        }
        for number in 3..1000 {
            assert!(spend(number).is_ok());
            assert!(spend(1).is_err(), "an active address stays known");
        }
        assert!(check(2).is_ok(), "an idle one does not");
        let accounts = budget.lock();
        assert!(accounts.recent.len() + accounts.former.len() <= 4);
    }

    #[test]
    fn retry_after_is_in_whole_seconds() {
        for (retry_after, expected) in [
            (Duration::ZERO, 1),
            (millis(1), 1),
            (seconds(1), 1),
            (millis(1001), 2),
            (seconds(60), 60),
        ] {
            assert_eq!(Limited { retry_after }.retry_after_seconds(), expected);
        }
        assert_eq!(
            Limited {
                retry_after: seconds(1)
            }
            .to_string(),
            "too many requests"
        );
    }
}
