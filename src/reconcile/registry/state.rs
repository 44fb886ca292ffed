//! State kept between the passes of one registry. All of it can be rebuilt: it saves requests and
//! improves a few reports.
//!
//! A new leader starts without it, so safety never depends on it. What must survive is in records
//! and ledgers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use alloy::primitives::{Address, B256};
use zeroize::Zeroizing;

use super::endpoints::Endpoints;
use super::index::IndexStates;
use super::ledger::filler::Fillers;
use super::ledger::logs::SweepState;
use super::ledger::prices::Quote;
use super::ledger::questions::SendAge;
use super::outcome::Issues;
use super::records::LegacyChecks;
use super::schedule::{Activity, ReadingAges};
use super::status::NUMBERS_EVERY;
use crate::api::{AgentRegistrationSpec, Key, Nonce};
use crate::chain::key::KeyError;
use crate::chain::{Head, Receipt, TransactionSigner};
use crate::ledger::foreign::NonceUse;

/// Blocks after which a transaction that is in none of them may be replaced.
const OVERDUE_BLOCKS: u64 = 10;
/// How long the latest block may stay the same before that is reported.
const STILL: Duration = Duration::from_secs(60);
/// How often RpcHealthy may change in one direction.
const FLIP_EVERY: Duration = Duration::from_secs(60);

/// State of all registries, by name. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryStates(
    Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<RegistryState>>>>>,
);

impl RegistryStates {
    #[must_use]
    pub(crate) fn of(&self, registry: &str) -> Arc<tokio::sync::Mutex<RegistryState>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(registry.to_owned()).or_default())
    }

    /// Drops registries that no longer exist.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|registry, _| exists(registry));
    }
}

/// What was read under a key of a Secret.
#[derive(Clone)]
pub(super) struct SecretBytes {
    /// Resource version of the Secret.
    pub(super) version: Option<String>,
    pub(super) bytes: Arc<Zeroizing<Vec<u8>>>,
}

/// A Secret that was read, and when it was last known to be current.
pub(super) struct KnownSecret {
    pub(super) version: Option<String>,
    /// `None` if the Secret or its key does not exist.
    pub(super) bytes: Option<Arc<Zeroizing<Vec<u8>>>>,
    pub(super) checked: Instant,
}

impl KnownSecret {
    pub(super) fn found(&self) -> Option<SecretBytes> {
        let bytes = self.bytes.clone()?;
        Some(SecretBytes {
            version: self.version.clone(),
            bytes,
        })
    }
}

/// A signer, and the versions of the Secrets of its key and its password.
#[derive(Debug)]
pub(super) struct KnownSigner {
    pub(super) versions: [Option<String>; 2],
    pub(super) signer: Result<TransactionSigner, KeyError>,
}

impl std::fmt::Debug for KnownSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownSecret")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What the endpoint answered to the last send of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendAnswer {
    Accepted,
    /// With the words of the endpoint.
    Refused(String),
    /// Refused because the balance does not cover the transaction, with the words of the endpoint.
    Underfunded(String),
    Unanswered(String),
}

/// The sends of one transaction by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SendHistory {
    /// Latest block at the first send.
    pub(super) first_block: u64,
    /// Latest block at the last send.
    pub(super) last_block: u64,
    pub(super) answer: SendAnswer,
}

#[derive(Debug, Default)]
pub(crate) struct RegistryState {
    pub(super) endpoints: Endpoints,
    /// Secrets that the spec names, by name and key.
    pub(super) secrets: HashMap<(String, String), KnownSecret>,
    /// Signers whose keys were read: opening a keystore takes a second.
    pub(super) signers: HashMap<Address, KnownSigner>,
    /// Generation of the spec that was last looked at in full.
    pub(super) generation: Option<i64>,
    /// What the registry waits for since the last pass.
    pub(super) activity: Activity,
    /// Keys that waited for a nonce or an adoption in the last full pass.
    pub(super) waiting: BTreeSet<Key>,
    /// Whether the ledger was in quarantine in the last full pass, by the cache.
    pub(super) is_stopped: bool,
    /// Issues that the ledger's part of the last pass found.
    pub(super) ledger_issues: Issues,
    /// How long an endpoint asked to wait.
    pub(super) retry_after: Option<Duration>,
    /// When RpcHealthy last became false, and true.
    flips: [Option<Instant>; 2],
    head_read: Option<Instant>,
    pub(super) full_read: Option<Instant>,
    /// The latest block, its time in Unix seconds, and since when it is the latest.
    head: Option<(u64, u64, Instant)>,
    block_time: Option<Duration>,
    /// The logs of each account that may have registered.
    pub(super) indexes: IndexStates,
    /// What was read of the logs of all accounts; `None` before a record asked for a nonce.
    pub(super) sweep: Option<SweepState>,
    pub(super) sends: HashMap<B256, SendHistory>,
    /// Transactions that decisions of this pass needed.
    pub(super) open_transactions: BTreeSet<B256>,
    /// When the first transaction of each key was sent.
    pub(super) first_sent: HashMap<Key, SystemTime>,
    /// Receipts of transactions in final blocks.
    pub(super) final_receipts: HashMap<B256, Receipt>,
    /// Other receipts, as of the latest block with this hash.
    shown_receipts: (B256, HashMap<B256, Receipt>),
    /// Sender and nonce of transactions in final blocks.
    pub(super) final_transactions: HashMap<B256, (Address, Nonce)>,
    /// What the last registration would have taken.
    pub(super) quoted: Option<Quote>,
    /// The last final block at which each ledger agreed with the chain, as seen by this process since
    /// it leads.
    pub(super) agreed: BTreeMap<Address, u64>,
    /// What used nonces of the accounts that their ledgers do not explain.
    pub(super) nonce_uses: BTreeMap<(Address, Nonce), NonceUse>,
    pub(super) fillers: Fillers,
    /// Times of blocks in which something was spent, in Unix seconds.
    pub(super) block_times: BTreeMap<u64, u64>,
    /// Since when each agent has been unused.
    pub(super) unused: HashMap<Key, Instant>,
    /// What is known of the legacy controller's objects.
    pub(super) legacy: LegacyChecks,
    /// Reason of the freeze that was last counted.
    pub(super) frozen: Option<&'static str>,
    /// Agents that were registered, and whose cost the status may not count yet.
    pub(super) uncounted: BTreeSet<Key>,
    /// When the status was last written.
    pub(super) status_written: Option<Instant>,
    /// Generation of the registry that it describes.
    pub(super) status_generation: Option<i64>,
}

impl RegistryState {
    /// What the registry waits for after a pass, with the number of failing passes in a row.
    pub(super) fn after(&self, activity: Activity) -> Activity {
        match (self.activity, activity) {
            (Activity::Failing { passes }, Activity::Failing { .. }) => Activity::Failing {
                passes: passes.saturating_add(1),
            },
            (_, activity) => activity,
        }
    }

    /// Keeps what the ledger's part of a pass over a spec of this generation found.
    pub(super) fn ledger_worked(
        &mut self,
        generation: Option<i64>,
        waiting: BTreeSet<Key>,
        issues: Issues,
    ) {
        self.generation = generation;
        self.waiting = waiting;
        self.ledger_issues = issues;
    }

    /// Takes note of a head that was read.
    pub(super) fn head_read(&mut self, head: &Head) {
        let at = Instant::now();
        self.head_read = Some(at);
        let latest = head.latest;
        match self.head {
            Some((number, time, _)) if latest.number > number => {
                let seconds = latest.timestamp.saturating_sub(time);
                self.block_time = Some(Duration::from_secs(seconds / (latest.number - number)));
                self.head = Some((latest.number, latest.timestamp, at));
            }
            Some((number, ..)) if latest.number == number => {}
            _ => self.head = Some((latest.number, latest.timestamp, at)),
        }
    }

    /// The latest block, if it has been the latest for long.
    pub(super) fn still_head(&self) -> Option<u64> {
        self.head
            .filter(|(.., since)| since.elapsed() >= STILL)
            .map(|(number, ..)| number)
    }

    pub(super) fn block_time(&self) -> Option<Duration> {
        self.block_time
    }

    pub(super) fn reading_ages(&self) -> ReadingAges {
        ReadingAges {
            head: self.head_read.map(|read| read.elapsed()),
            full: self.full_read.map(|read| read.elapsed()),
        }
    }

    /// Whether the numbers of the status are needed. Those of an earlier generation may follow from other
    /// limits.
    pub(super) fn numbers_are_due(&self, generation: Option<i64>) -> bool {
        let is_old = |written: Instant| written.elapsed() >= NUMBERS_EVERY;
        !self.uncounted.is_empty()
            || self.status_generation != generation
            || self.status_written.is_none_or(is_old)
    }

    /// Takes note of the records that the numbers of this pass are made of; the cache may lag.
    /// Numbers that become complete do not wait for their turn.
    pub(super) fn counted<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a AgentRegistrationSpec>,
    ) {
        if self.uncounted.is_empty() {
            return;
        }
        let open: BTreeSet<Key> = records
            .into_iter()
            .filter(|record| record.result.is_none())
            .map(|record| record.key)
            .collect();
        self.uncounted.retain(|key| open.contains(key));
        if self.uncounted.is_empty() {
            self.status_written = None;
        }
    }

    /// The receipts that were read while this was the latest block: the same chain has the same ones.
    pub(super) fn receipts_at(&mut self, latest: B256) -> &mut HashMap<B256, Receipt> {
        if self.shown_receipts.0 != latest {
            self.shown_receipts = (latest, HashMap::new());
        }
        &mut self.shown_receipts.1
    }

    pub(super) fn record_send(&mut self, key: Key, hash: B256, block: u64, answer: SendAnswer) {
        self.open_transactions.insert(hash);
        self.first_sent.entry(key).or_insert_with(SystemTime::now);
        let history = self.sends.entry(hash).or_insert(SendHistory {
            first_block: block,
            last_block: block,
            answer: SendAnswer::Accepted,
        });
        history.last_block = block;
        history.answer = answer;
    }

    /// Whether RpcHealthy may change in this direction: at most once a minute, or an endpoint that
    /// flaps would cause a write and an Event each time.
    pub(super) fn may_flip(&mut self, to_healthy: bool) -> bool {
        let last = &mut self.flips[usize::from(to_healthy)];
        if last.is_some_and(|flip| flip.elapsed() < FLIP_EVERY) {
            return false;
        }
        *last = Some(Instant::now());
        true
    }

    /// Time of the latest block that was read, in Unix seconds.
    pub(super) fn head_timestamp(&self) -> Option<u64> {
        self.head.map(|(_, time, _)| time)
    }

    /// How long ago a transaction was sent, at this latest block: once a block is often enough. One
    /// that was not answered is sent again at once.
    pub(super) fn send_age(&self, hash: B256, latest: u64) -> SendAge {
        let Some(history) = self.sends.get(&hash) else {
            return SendAge::default();
        };
        let is_answered = !matches!(history.answer, SendAnswer::Unanswered(_));
        let blocks = latest.saturating_sub(history.first_block);
        SendAge {
            recent: history.last_block >= latest && is_answered,
            overdue: history.answer == SendAnswer::Accepted && blocks >= OVERDUE_BLOCKS,
        }
    }

    /// Drops what concerns transactions that no decision of this pass needed.
    pub(super) fn forget_rest(&mut self) {
        let open = std::mem::take(&mut self.open_transactions);
        self.sends.retain(|hash, _| open.contains(hash));
        self.final_receipts.retain(|hash, _| open.contains(hash));
        self.final_transactions
            .retain(|hash, _| open.contains(hash));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registration::fixtures::{record, result};

    #[tokio::test]
    async fn clones_share_one_state_per_registry() {
        let registry_states = RegistryStates::default();
        registry_states.clone().of("a").lock().await.frozen = Some("LedgerLost");
        assert_eq!(
            registry_states.of("a").lock().await.frozen,
            Some("LedgerLost")
        );
        assert_eq!(registry_states.of("b").lock().await.frozen, None);
    }

    #[test]
    fn transaction_is_overdue_after_ten_blocks_unless_it_was_refused() {
        let (key, hash) = (record("shop/chat", 1, json!({})).spec.key, B256::ZERO);
        let mut state = RegistryState::default();
        let age = |recent, overdue| SendAge { recent, overdue };
        assert_eq!(state.send_age(hash, 5), age(false, false));
        state.record_send(key, hash, 5, SendAnswer::Accepted);
        assert_eq!(state.send_age(hash, 5), age(true, false));
        assert_eq!(state.send_age(hash, 14), age(false, false));
        state.record_send(key, hash, 15, SendAnswer::Accepted);
        assert_eq!(state.send_age(hash, 15), age(true, true));
        state.record_send(key, hash, 15, SendAnswer::Unanswered("no".into()));
        assert_eq!(state.send_age(hash, 15), age(false, false));
        state.record_send(key, hash, 15, SendAnswer::Refused("no".into()));
        assert_eq!(state.send_age(hash, 15), age(true, false));
    }

    #[test]
    fn send_is_remembered_by_the_pass_after_it() {
        let (key, hash) = (record("shop/chat", 1, json!({})).spec.key, B256::ZERO);
        let mut state = RegistryState::default();
        // The record that the pass read had no transaction yet.
        state.record_send(key, hash, 5, SendAnswer::Accepted);
        state.forget_rest();
        assert!(state.send_age(hash, 5).recent);
        state.forget_rest();
        assert!(!state.send_age(hash, 5).recent, "it is in flight no more");
    }

    #[test]
    fn receipts_are_remembered_until_there_is_another_block() {
        let (latest, next) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let receipt = Receipt {
            succeeded: true,
            block: 7,
            block_hash: None,
            cost: 1,
        };
        let mut state = RegistryState::default();
        let transaction = B256::repeat_byte(3);
        state.receipts_at(latest).insert(transaction, receipt);
        assert_eq!(state.receipts_at(latest).len(), 1);
        assert!(state.receipts_at(next).is_empty());
        assert!(state.receipts_at(latest).is_empty(), "a reorg back to it");
    }

    #[test]
    fn numbers_are_due_until_the_cache_shows_what_was_registered() {
        let in_cache = |spec: Value| record("shop/chat", 1, json!({ "spec": spec })).spec;
        let stale = in_cache(json!({}));
        let mut state = RegistryState {
            status_written: Some(Instant::now()),
            status_generation: Some(1),
            ..RegistryState::default()
        };
        assert!(!state.numbers_are_due(Some(1)));
        assert!(state.numbers_are_due(Some(2)), "limits may have changed");
        state.uncounted.insert(stale.key);
        state.counted([&stale]);
        assert!(state.numbers_are_due(Some(1)) && state.status_written.is_some());
        state.counted([&in_cache(json!({ "result": result("3") }))]);
        assert!(state.uncounted.is_empty());
        assert_eq!(state.status_written, None, "the sum is written at once");
    }
}
