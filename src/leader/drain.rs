//! How work is asked to come to rest, and says that it has.

use tokio_util::sync::CancellationToken;

/// One drain of one process: begun once, finished once. All clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    finished: CancellationToken,
}

impl Drain {
    /// Asks the work to start nothing and to finish what it has started.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Waits until the drain begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Says that nothing is under way any more.
    pub fn finish(&self) {
        self.finished.cancel();
    }

    /// Waits until nothing is under way any more.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_begins_and_finishes_once_for_all_of_its_clones() {
        let drain = Drain::default();
        let work = tokio::spawn({
            let drain = drain.clone();
            async move {
                drain.begun().await;
                drain.finish();
            }
        });
        assert!(!drain.has_begun());
        drain.begin();
        drain.finished().await;
        work.await.unwrap();
        assert!(drain.has_begun());
    }
}
