//! Bounds: which facilitator a search has, which flow, and what the adversary may do.
//!
//! Values only. [`super::world`] knows what they mean.

use super::properties::Property;

/// When the payment is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// After the upstream has answered.
    Authorization,
    /// Before the upstream is called.
    Upfront,
}

/// How a facilitator treats a payment that was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facilitator {
    /// `/settle` reports the success of its own transaction again.
    pub is_idempotent: bool,
    /// `/verify` notices that the nonce is used.
    pub notices: bool,
    /// It looks at time and balance before it looks at the nonce: a used payment that has ended, or
    /// whose payer has no money left, is refused for that.
    pub looks_at_balance_first: bool,
}

/// What the endpoints of the token's chain answer when they are asked whether a payment was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// There is none that the gate may ask.
    None,
    /// What is true.
    Answers,
    /// "Used" only if it is true. "Not used" also for a while after the charge: until the process has
    /// run for as long as an earlier one may go on, and always for what the process has sent itself.
    Lags,
}

/// The bounds of one search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Short name.
    pub name: &'static str,
    /// What it explores, in words.
    pub about: &'static str,
    /// When the payment is settled.
    pub flow: Flow,
    /// Who settles.
    pub facilitator: Facilitator,
    /// Who shows what the token knows.
    pub endpoint: Endpoint,
    /// Whether the process may be killed and started again at any step.
    pub restarts: bool,
    /// Whether the buyer may leave or stop waiting, and answers of the facilitator and
    /// of endpoints may be lost or be indefinite.
    pub is_lossy: bool,
    /// Whether the second request may be another one.
    pub other_request: bool,
    /// Whether the clock passes the end of the payment.
    pub ends: bool,
    /// What is known to be violated.
    pub known: &'static [Known],
}

/// A property that is known to be violated.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The property.
    pub property: Property,
    /// Why it is.
    pub why: &'static str,
}

impl Bounds {
    /// Whether a property is known to be violated.
    #[must_use]
    pub fn knows(&self, property: Property) -> bool {
        self.known.iter().any(|known| known.property == property)
    }

    /// Names of what is known to be violated.
    #[must_use]
    pub fn known_names(&self) -> Vec<&'static str> {
        let known = self.known.iter();
        known.map(|known| known.property.name()).collect()
    }
}

const IDEMPOTENT: Facilitator = Facilitator {
    is_idempotent: true,
    notices: true,
    looks_at_balance_first: false,
};
const ONCE: Facilitator = Facilitator {
    is_idempotent: false,
    ..IDEMPOTENT
};
const BLIND: Facilitator = Facilitator {
    notices: false,
    ..IDEMPOTENT
};
const BLIND_ONCE: Facilitator = Facilitator {
    notices: false,
    ..ONCE
};
const BALANCE_FIRST: Facilitator = Facilitator {
    looks_at_balance_first: true,
    ..IDEMPOTENT
};

const BLIND_BALANCE_FIRST: Facilitator = Facilitator {
    notices: false,
    ..BALANCE_FIRST
};

const BASE: Bounds = Bounds {
    name: "authorization",
    about: "one process",
    flow: Flow::Authorization,
    facilitator: IDEMPOTENT,
    endpoint: Endpoint::None,
    restarts: false,
    is_lossy: true,
    other_request: false,
    ends: true,
    known: &[],
};
const UPFRONT: Bounds = Bounds {
    name: "upfront",
    about: "settled first",
    flow: Flow::Upfront,
    ..BASE
};

/// What takes claims that survive a restart.
const DELIVERED_BEFORE: &[Known] = &[Known {
    property: Property::DeliveredOnce,
    why: "claims end with the process, and neither /verify nor the chain shows in time that it was used",
}];
/// Every search.
const ALL: [Bounds; 33] = [
    BASE,
    Bounds {
        name: "authorization-once",
        about: "the facilitator is not idempotent",
        facilitator: ONCE,
        ..BASE
    },
    UPFRONT,
    Bounds {
        name: "upfront-once",
        about: "settled first, not idempotent",
        facilitator: ONCE,
        ..UPFRONT
    },
    Bounds {
        name: "any-request",
        about: "the second request may be another one",
        other_request: true,
        ..BASE
    },
    Bounds {
        name: "any-request-upfront",
        about: "the second request may be another one, settled first",
        other_request: true,
        ..UPFRONT
    },
    Bounds {
        name: "balance-first",
        about: "the facilitator looks at time and balance before the nonce",
        facilitator: BALANCE_FIRST,
        ..BASE
    },
    Bounds {
        name: "balance-first-upfront",
        about: "settled first, time and balance before the nonce",
        facilitator: BALANCE_FIRST,
        ..UPFRONT
    },
    Bounds {
        name: "asked",
        about: "any request, not idempotent, an endpoint that lags",
        facilitator: ONCE,
        endpoint: Endpoint::Lags,
        other_request: true,
        ..BASE
    },
    Bounds {
        name: "asked-upfront",
        about: "any request, settled first, not idempotent, an endpoint that lags",
        facilitator: ONCE,
        endpoint: Endpoint::Lags,
        other_request: true,
        ..UPFRONT
    },
    Bounds {
        name: "restart-once-asked",
        about: "killed at any step, not idempotent, an endpoint that lags",
        facilitator: ONCE,
        endpoint: Endpoint::Lags,
        restarts: true,
        ..BASE
    },
    Bounds {
        name: "restart",
        about: "killed at any step",
        restarts: true,
        ..BASE
    },
    Bounds {
        name: "restart-upfront",
        about: "killed at any step, settled first",
        restarts: true,
        ..UPFRONT
    },
    Bounds {
        name: "restart-once",
        about: "killed at any step, not idempotent",
        facilitator: ONCE,
        restarts: true,
        ..BASE
    },
    Bounds {
        name: "restart-upfront-once",
        about: "killed at any step, settled first, not idempotent",
        facilitator: ONCE,
        restarts: true,
        ..UPFRONT
    },
    Bounds {
        name: "restart-asked",
        about: "killed at any step, any request, an endpoint that lags",
        endpoint: Endpoint::Lags,
        restarts: true,
        other_request: true,
        ..BASE
    },
    Bounds {
        name: "restart-asked-upfront",
        about: "killed at any step, any request, settled first, an endpoint that lags",
        endpoint: Endpoint::Lags,
        restarts: true,
        other_request: true,
        ..UPFRONT
    },
    Bounds {
        name: "restart-steady",
        about: "killed at any step; buyers stay, every call is answered",
        restarts: true,
        is_lossy: false,
        ..BASE
    },
    Bounds {
        name: "restart-steady-upfront",
        about: "killed at any step, settled first; buyers stay, every call is answered",
        restarts: true,
        is_lossy: false,
        ..UPFRONT
    },
    Bounds {
        name: "restart-steady-asked",
        about: "killed at any step, an endpoint that lags; buyers stay, every call is answered",
        endpoint: Endpoint::Lags,
        restarts: true,
        is_lossy: false,
        ..BASE
    },
    Bounds {
        name: "restart-blind",
        about: "killed at any step, blind /verify: used nonces are valid; buyers stay",
        facilitator: BLIND,
        restarts: true,
        is_lossy: false,
        known: DELIVERED_BEFORE,
        ..BASE
    },
    Bounds {
        name: "restart-blind-upfront",
        about: "killed at any step, settled first, blind /verify; buyers stay",
        facilitator: BLIND,
        restarts: true,
        is_lossy: false,
        known: DELIVERED_BEFORE,
        ..UPFRONT
    },
    Bounds {
        name: "restart-blind-lags",
        about: "killed at any step, blind /verify, an endpoint that lags; buyers stay",
        facilitator: BLIND,
        endpoint: Endpoint::Lags,
        restarts: true,
        is_lossy: false,
        known: DELIVERED_BEFORE,
        ..BASE
    },
    Bounds {
        name: "restart-blind-lossy",
        about: "killed at any step, blind /verify, an endpoint that may not answer",
        facilitator: BLIND,
        endpoint: Endpoint::Answers,
        restarts: true,
        known: DELIVERED_BEFORE,
        ..BASE
    },
    Bounds {
        name: "restart-blind-asked",
        about: "killed at any step, blind /verify, an endpoint that answers; buyers stay",
        facilitator: BLIND,
        endpoint: Endpoint::Answers,
        restarts: true,
        is_lossy: false,
        ..BASE
    },
    Bounds {
        name: "restart-blind-asked-up",
        about: "killed at any step, settled first, blind /verify, an endpoint that answers; buyers stay",
        facilitator: BLIND,
        endpoint: Endpoint::Answers,
        restarts: true,
        is_lossy: false,
        ..UPFRONT
    },
    Bounds {
        name: "restart-blind-once",
        about: "killed at any step, blind /verify, not idempotent",
        facilitator: BLIND_ONCE,
        restarts: true,
        ..BASE
    },
    Bounds {
        name: "restart-blind-once-asked",
        about: "killed at any step, blind /verify, not idempotent, an endpoint that lags",
        facilitator: BLIND_ONCE,
        endpoint: Endpoint::Lags,
        restarts: true,
        // The transfer that the chain shows after an unknown outcome may be that of an earlier process.
        known: DELIVERED_BEFORE,
        ..BASE
    },
    Bounds {
        name: "restart-balance",
        about: "killed at any step, time and balance before the nonce",
        facilitator: BALANCE_FIRST,
        restarts: true,
        ..BASE
    },
    Bounds {
        name: "restart-balance-upfront",
        about: "killed at any step, settled first, time and balance before the nonce",
        facilitator: BALANCE_FIRST,
        restarts: true,
        ..UPFRONT
    },
    Bounds {
        name: "restart-balance-asked",
        about: "killed at any step, time and balance first, an endpoint that lags",
        facilitator: BALANCE_FIRST,
        endpoint: Endpoint::Lags,
        restarts: true,
        ..BASE
    },
    Bounds {
        name: "restart-balance-asked-up",
        about: "killed at any step, settled first, time and balance first, an endpoint that lags",
        facilitator: BALANCE_FIRST,
        endpoint: Endpoint::Lags,
        restarts: true,
        ..UPFRONT
    },
    Bounds {
        name: "restart-balance-blind",
        about: "killed at any step, balance first, blind /verify, an endpoint; buyers stay",
        facilitator: BLIND_BALANCE_FIRST,
        endpoint: Endpoint::Answers,
        restarts: true,
        is_lossy: false,
        ..BASE
    },
];

/// One search each.
pub fn all() -> impl Iterator<Item = Bounds> {
    ALL.into_iter()
}

/// The bounds of that name.
#[must_use]
pub fn bounds(name: &str) -> Option<Bounds> {
    all().find(|bounds| bounds.name == name)
}
