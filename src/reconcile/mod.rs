//! START HERE. Three loops, which run while this replica leads. Each observes one object, plans, and
//! applies the plan.
//!
//! - [`registry`] works for each IdentityRegistry: it writes records and ledgers, allocates nonces,
//!   signs, and sends.
//! - [`offer`] keeps the status of each ServiceOffer true. It spends nothing.
//! - [`facilitator`] keeps the status of each PaymentFacilitator true. It pays nothing: the gate does,
//!   in a process of its own.
//!
//! In each, `observe` gathers, `plan` decides (pure), and `apply` carries out. [`run`] starts the
//! loops, [`driver`] schedules them, and [`triggers`] says which objects to reconcile when something
//! changes. [`gate`] watches what the gate serves, and [`legacy`] recognizes what the legacy
//! controller registered (pure).
//!
//! # Channels
//! The loops never call each other. Those of registries and offers exchange five things, four in one
//! direction and one back:
//! ```text
//! registry loop                                                 offer loop
//!   1  AgentRegistration: key, phase, attempts, result     -->    status.registration, agentId
//!   2  OfferIssues, in memory: why one offer must wait     -->    condition Registered
//!   3  IdentityRegistry.status, condition Ready            -->    reason RegistryNotReady
//!   4  AdoptedOwners, in memory: owner of an adopted agent -->    status.registration.owner
//!   5  claim.key_in_status: may get a nonce                <--    status.registration.key
//! ```
//! Both look at an offer through one [`crate::registration::view::OfferView`].
//!
//! Channel 5 makes the status of an offer an input to money. The API server freezes the identity of
//! an offer once its status names a key (a CEL rule). Before that, a default registry that moves
//! while caches lag could make one offer ask two registries for an agent. So a first registration
//! takes a round trip before it gets a nonce:
//! ```text
//! registry loop             API server                           offer loop
//!   create r-<key>    -->   AgentRegistration         --watch-->   reconcile the offer
//!                           status.registration.key   <--apply--   write the key
//!   allocate a nonce  <--watch--
//!   sign, store, send
//! ```

mod driver;
pub(crate) mod facilitator;
pub(crate) mod gate;
pub(crate) mod issues;
pub(crate) mod legacy;
pub(crate) mod offer;
pub(crate) mod registry;
mod triggers;

use std::sync::Arc;

use futures::FutureExt;
use tokio::task::JoinSet;
use tracing::error;

use self::driver::{LoopSettings, drive};
use self::issues::{AdoptedOwners, OfferIssues};
use crate::cluster::{self, Cache, Reader, Writer};
use crate::gate::FacilitatorClient;
use crate::health::Health;
use crate::leader::{Drain, Fence};
use crate::ledger;
use crate::metrics::{FailureReason, Loop, Metrics};
use crate::telemetry::causes;

/// Settings of the loops.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many offers are reconciled concurrently.
    pub concurrency: u16,
    /// How many unmined transactions of one signer may be in flight.
    pub max_in_flight: usize,
}

/// Everything that the loops work with.
pub(crate) struct Context {
    /// Copies of objects, kept current by watches. They may lag.
    pub cache: Cache,
    /// Reads from the API server, for decisions that a lagging copy must not make.
    pub reader: Reader,
    pub writer: Writer,
    /// Ledgers and records.
    pub store: ledger::Store,
    /// Gates every side effect on a live term.
    pub fence: Fence,
    pub metrics: Metrics,
    pub health: Arc<Health>,
    /// What the registry loop reports to the offer loop.
    pub issues: OfferIssues,
    /// Whose agents the registry loop adopted.
    pub adopted_owners: AdoptedOwners,
    /// What is known of the gate, if the release has one.
    pub gate: Option<gate::GateWatch>,
    /// What the registry loop keeps between passes.
    pub registry_states: registry::RegistryStates,
    /// What the offer loop keeps between reconciles.
    pub offer_states: offer::OfferStates,
    /// Asks facilitators what they support.
    pub facilitators: FacilitatorClient,
    /// What the facilitator loop keeps between passes.
    pub facilitator_states: facilitator::FacilitatorStates,
    /// Uid of the namespace kube-system: distinguishes this cluster from a copy of it.
    pub cluster_uid: String,
    pub settings: Settings,
}

/// A reconcile failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Error(#[from] cluster::Error);

impl Error {
    fn reason(&self) -> FailureReason {
        self.0.reason()
    }
}

/// Runs the loops until the drain begins and running reconciles have finished. Dropping the future
/// stops them at once.
pub(crate) async fn run(context: Arc<Context>, drain: &Drain) {
    let mut loops = JoinSet::new();
    let registries = context.cache.registry_store();
    let offers = context.cache.offer_store();
    let facilitators = context.cache.facilitator_store();
    loops.spawn(drive(
        LoopSettings {
            which: Loop::Offer,
            concurrency: context.settings.concurrency,
            drain: drain.clone(),
        },
        Arc::clone(&context),
        triggers::offers(&context, offers.clone()),
        offers,
        |context, leading, offer| offer::reconcile(context, leading, offer).boxed(),
    ));
    loops.spawn(drive(
        // Registries do not wait for each other: a chain that does not answer must not delay
        // another.
        LoopSettings {
            which: Loop::Registry,
            concurrency: u16::MAX,
            drain: drain.clone(),
        },
        Arc::clone(&context),
        triggers::registries(&context, registries.clone()),
        registries,
        |context, leading, registry| registry::reconcile(context, leading, registry).boxed(),
    ));
    loops.spawn(drive(
        // One that does not answer must not delay another.
        LoopSettings {
            which: Loop::Facilitator,
            concurrency: u16::MAX,
            drain: drain.clone(),
        },
        Arc::clone(&context),
        triggers::facilitators(&context, facilitators.clone()),
        facilitators,
        |context, leading, object| facilitator::reconcile(context, leading, object).boxed(),
    ));
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            // After a panic, no loop must run without the others.
            error!(error = %causes(&error), "a reconcile loop panicked");
            return;
        }
    }
}
