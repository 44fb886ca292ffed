//! Observes when an account's transactions reach the node, and its registrations reach blocks.
//!
//! It asks the node, and neither contender: what is measured is the same for both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use alloy::providers::{Provider, RootProvider};
use anyhow::{Context, Result, ensure};
use harness::bench::ProgressTrack;
use harness::chain::Chain;
use harness::wait::until;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Time between two questions to the node: the precision of all times.
const INTERVAL: Duration = Duration::from_millis(20);
/// Time between two reports of progress.
const PROGRESS: Duration = Duration::from_millis(200);
/// How long no transaction may be included.
const STALLED: Duration = Duration::from_secs(120);
/// How long the node may take to show the logs of a block.
const SOON: Duration = Duration::from_secs(10);

/// How the registrations of one contender were included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inclusion {
    /// Blocks from the first to the last that holds one.
    pub blocks: Vec<IncludedIn>,
    /// From the first transaction in the mempool until the last registration was in a block.
    pub from_first_send: f64,
}

/// Registrations of one block.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IncludedIn {
    /// Seconds since the first of the blocks.
    pub seconds: f64,
    /// How many registrations of the contender are in it.
    pub registrations: usize,
}

impl Inclusion {
    /// Registrations after those of the first block, per second from that block to the last: the
    /// time between the first send and the next block depends on neither contender. `None` if all
    /// are in one block.
    pub fn per_second(&self) -> Option<f64> {
        let (_, rest) = self.blocks.split_first()?;
        let count: usize = rest.iter().map(|block| block.registrations).sum();
        Some(count as f64 / rest.last()?.seconds)
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    /// When each block was the latest for the first time.
    blocks: BTreeMap<u64, Instant>,
    first_send: Option<Instant>,
}

/// Watches the chain until it is dropped.
#[derive(Debug)]
pub struct InclusionWatch {
    account: Address,
    /// The latest block at the start, and the transactions of the account until then.
    since: (u64, u64),
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl InclusionWatch {
    /// Watches what an account sends from now on.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn start(chain: &Chain, account: Address) -> Result<Self> {
        let provider = chain.provider().clone();
        let block = provider.get_block_number().await?;
        let sent = provider.get_transaction_count(account).pending().await?;
        let seen = Arc::default();
        let task = tokio::spawn(watch(provider, (account, sent), Arc::clone(&seen)));
        Ok(Self {
            account,
            since: (block, sent),
            seen,
            task,
        })
    }

    /// Waits until that many transactions are in blocks.
    ///
    /// # Errors
    /// If none is included for long, or the node does not answer.
    pub async fn until(&self, chain: &Chain, count: usize, track: &ProgressTrack) -> Result<()> {
        let (mut done, mut progressed) = (0, Instant::now());
        while done < count {
            sleep(PROGRESS).await;
            let used = chain.mined_transactions_of(self.account).await?;
            let included = usize::try_from(used.saturating_sub(self.since.1))?;
            if included > done {
                (done, progressed) = (included, Instant::now());
                track.reach(done, "in blocks");
            }
            ensure!(
                progressed.elapsed() < STALLED,
                "only {done} of {count} are in blocks, and none more for {STALLED:?}"
            );
        }
        Ok(())
    }

    /// How the account's registrations since the start were included.
    ///
    /// # Errors
    /// If there is another number of them, or the node does not answer.
    pub async fn read(&self, chain: &Chain, expected: usize) -> Result<Inclusion> {
        // A node shows the state of a block before its logs.
        let what = format!("the logs show {expected} registrations");
        until(&what, SOON, async || self.try_read(chain, expected).await).await
    }

    async fn try_read(&self, chain: &Chain, expected: usize) -> Result<Inclusion> {
        let mut counts = BTreeMap::<u64, usize>::new();
        for event in chain.registrations_of(self.account).await? {
            if event.block > self.since.0 {
                *counts.entry(event.block).or_default() += 1;
            }
        }
        let count: usize = counts.values().sum();
        ensure!(count == expected, "{count} registrations, not {expected}");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        inclusion(&counts, &seen)
    }
}

impl Drop for InclusionWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn inclusion(counts: &BTreeMap<u64, usize>, seen: &Seen) -> Result<Inclusion> {
    let (first, _) = counts.first_key_value().context("no registration")?;
    let (last, _) = counts.last_key_value().context("no registration")?;
    let at = |block: u64| {
        let at = seen.blocks.get(&block).copied();
        at.with_context(|| format!("block {block} was not seen"))
    };
    let begun = at(*first)?;
    let blocks = (*first..=*last).map(|block| {
        Ok(IncludedIn {
            seconds: (at(block)? - begun).as_secs_f64(),
            registrations: counts.get(&block).copied().unwrap_or_default(),
        })
    });
    let first_send = seen.first_send.context("no transaction was seen")?;
    Ok(Inclusion {
        blocks: blocks.collect::<Result<_>>()?,
        from_first_send: (at(*last)? - first_send).as_secs_f64(),
    })
}

/// Notes what is new. A question that is not answered is asked again.
async fn watch(provider: RootProvider, (account, before): (Address, u64), seen: Arc<Mutex<Seen>>) {
    let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if lock().first_send.is_none()
            && let Ok(sent) = provider.get_transaction_count(account).pending().await
            && sent > before
        {
            lock().first_send = Some(Instant::now());
        }
        if let Ok(latest) = provider.get_block_number().await {
            let now = Instant::now();
            let mut seen = lock();
            let next = seen
                .blocks
                .last_key_value()
                .map_or(latest, |(block, _)| block + 1);
            seen.blocks
                .extend((next..=latest).map(|block| (block, now)));
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_counts_from_the_first_block_to_the_last() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let seen = Seen {
            blocks: [(7, at(0)), (8, at(1_000)), (9, at(2_000)), (10, at(4_000))].into(),
            first_send: Some(at(500)),
        };
        let counts = [(8, 4), (10, 6)].into();
        let found = inclusion(&counts, &seen).unwrap();
        assert_eq!(found.per_second(), Some(2.0));
        assert_eq!(found.from_first_send, 3.5);
        let shown: Vec<_> = found.blocks.iter().map(|one| one.registrations).collect();
        assert_eq!(shown, [4, 0, 6]);
        let one = inclusion(&[(8, 4)].into(), &seen).unwrap();
        assert_eq!(one.per_second(), None);
        assert!(inclusion(&[(8, 4), (11, 1)].into(), &seen).is_err());
    }
}
