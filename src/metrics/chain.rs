//! Metrics of RPC endpoints, transactions and registrations.

use std::time::Duration;

use prometheus::Registry;

use super::family::{ChainCounters, ChainGauges, Counters, Timers};
use super::label::label;
use super::{Error, WORK};

/// Buckets in seconds from the first send of a registration to its finality.
const CONFIRMATION: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

label!(
    /// A JSON-RPC method.
    RpcMethod, "method" {
        ChainId = "eth_chainId",
        Block = "eth_getBlockByNumber",
        Code = "eth_getCode",
        Call = "eth_call",
        TransactionCount = "eth_getTransactionCount",
        Balance = "eth_getBalance",
        FeeHistory = "eth_feeHistory",
        PriorityFee = "eth_maxPriorityFeePerGas",
        GasPrice = "eth_gasPrice",
        Storage = "eth_getStorageAt",
        EstimateGas = "eth_estimateGas",
        Logs = "eth_getLogs",
        Transaction = "eth_getTransactionByHash",
        Receipt = "eth_getTransactionReceipt",
        Send = "eth_sendRawTransaction",
    }
);

label!(
    /// How a request to an RPC endpoint ended.
    RpcResult, "result" {
        Ok = "ok",
        /// With a JSON-RPC error.
        Refused = "refused",
        /// Without a response that can be decoded.
        Unreachable = "unreachable",
    }
);

label!(
    /// What happened to a registration.
    RegistrationOutcome, "outcome" {
        /// Its transaction was signed and stored.
        Signed = "signed",
        /// Its transaction was sent; every resend counts.
        Sent = "sent",
        /// It is final.
        Registered = "registered",
        /// A record adopted an agent that was registered already.
        Adopted = "adopted",
        /// It froze the registry.
        Frozen = "frozen",
    }
);

/// Recorder of everything on chain.
#[derive(Clone, Debug)]
pub struct ChainMetrics {
    requests: Counters<RpcMethod, RpcResult>,
    duration: Timers<RpcMethod>,
    registrations: ChainCounters<RegistrationOutcome>,
    spent: ChainGauges,
    pending: ChainGauges,
    oldest_pending: ChainGauges,
    head: ChainGauges,
    balance: ChainGauges,
    confirmation: Timers<()>,
}

/// One observation of a chain. Amounts are in native tokens: an `f64` is exact to 15 digits, which
/// is enough for alerts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChainReading {
    /// Unix seconds.
    pub head_timestamp: u64,
    /// Balance of the first signer.
    pub balance: f64,
    /// Spent in the last 24 hours; `None` if it was not computed this time.
    pub spent: Option<f64>,
    /// Number of nonces that are used and not final.
    pub pending: usize,
    /// Since when the oldest of them has been waiting, in Unix seconds.
    pub oldest_pending: Option<f64>,
}

impl ChainMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let gauges = |name: &str, help: &str| ChainGauges::new(registry, name, help);
        Ok(Self {
            requests: Counters::new(
                registry,
                "serviceoffer_chain_requests_total",
                "Requests to RPC endpoints, by method and result.",
            )?,
            duration: Timers::new(
                registry,
                "serviceoffer_chain_request_duration_seconds",
                "Duration of requests to RPC endpoints.",
                WORK,
            )?,
            registrations: ChainCounters::new(
                registry,
                "serviceoffer_onchain_registrations_total",
                "On-chain registrations by outcome: signed, sent (resends included), registered, adopted, frozen.",
            )?,
            spent: gauges(
                "serviceoffer_chain_spent_coins",
                "Spent on gas in the last 24 hours, in native tokens.",
            )?,
            pending: gauges(
                "serviceoffer_chain_transactions_pending",
                "Nonces that are used and not final.",
            )?,
            oldest_pending: gauges(
                "serviceoffer_chain_oldest_pending_timestamp_seconds",
                "Unix time since when the oldest pending nonce has been waiting; 0 if there is none.",
            )?,
            head: gauges(
                "serviceoffer_chain_head_timestamp_seconds",
                "Unix time of the latest block; 0 if none was observed.",
            )?,
            balance: gauges(
                "serviceoffer_chain_signer_balance_coins",
                "Balance of the first signer, in native tokens.",
            )?,
            confirmation: Timers::new(
                registry,
                "serviceoffer_chain_confirmation_seconds",
                "Time from the first send of a registration to its finality.",
                CONFIRMATION,
            )?,
        })
    }

    /// Creates the series of a chain; called once a registry names it.
    pub fn track(&self, chain_id: u64) {
        self.registrations.track(chain_id);
        for gauges in [
            &self.spent,
            &self.pending,
            &self.oldest_pending,
            &self.head,
            &self.balance,
        ] {
            gauges.track(chain_id);
        }
    }

    pub fn requested(&self, method: RpcMethod, result: RpcResult, duration: Duration) {
        self.requests.increment(method, result);
        self.duration.observe(method, duration);
    }

    pub fn registration(&self, chain_id: u64, outcome: RegistrationOutcome) {
        self.registrations.increment(chain_id, outcome);
    }

    /// A registration became final. `duration` is the time since its first send.
    pub fn confirmed(&self, duration: Duration) {
        self.confirmation.observe((), duration);
    }

    pub fn observe(&self, chain_id: u64, reading: ChainReading) {
        let ChainReading {
            head_timestamp,
            balance,
            spent,
            pending,
            oldest_pending,
        } = reading;
        self.head.set(chain_id, head_timestamp as f64);
        self.balance.set(chain_id, balance);
        if let Some(spent) = spent {
            self.spent.set(chain_id, spent);
        }
        self.pending.set(chain_id, pending as f64);
        self.oldest_pending
            .set(chain_id, oldest_pending.unwrap_or_default());
    }
}
