//! How work is asked to finish, and reports that it has.

use tokio_util::sync::CancellationToken;

/// The drain of one process: it begins once and finishes once. All clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    finished: CancellationToken,
}

impl Drain {
    /// Asks the work to start nothing new and to finish what is in flight.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Waits until the drain begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Reports that nothing is in flight any more.
    pub fn finish(&self) {
        self.finished.cancel();
    }

    /// Waits until nothing is in flight any more.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_begins_and_finishes_for_all_clones() {
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
