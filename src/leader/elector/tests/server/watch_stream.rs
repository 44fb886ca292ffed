//! The event stream of one watch.

use axum::body::Body;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use super::{Call, Link, State};

/// The remaining events of one watch.
pub(super) struct WatchStream {
    link: Link,
    state: watch::Receiver<State>,
    call: Call,
    from: u64,
    ends: Instant,
    number: usize,
    over: bool,
}

impl WatchStream {
    pub(super) fn new(link: Link, call: Call, from: u64, ends: Instant) -> Self {
        let number = {
            let mut link_state = link.link_state();
            link_state.watches += 1;
            link_state.watches
        };
        Self {
            state: link.server.0.subscribe(),
            link,
            call,
            from,
            ends,
            number,
            over: false,
        }
    }

    pub(super) fn body(self) -> Body {
        Body::from_stream(stream::unfold(self, Self::next))
    }

    async fn next(mut self) -> Option<(Result<String, BoxError>, Self)> {
        loop {
            let (silent, ended, lag) = {
                let link_state = self.link.link_state();
                (
                    self.number <= link_state.silent,
                    self.number <= link_state.ended,
                    link_state.lag,
                )
            };
            if silent {
                std::future::pending::<()>().await;
            }
            if ended || self.over {
                return None;
            }
            let due = {
                let state = self.state.borrow_and_update();
                let news = state.changes.iter().find(|change| {
                    change.version > self.from && self.call.selects(change.resource, &change.object)
                });
                news.map(|change| (change.at + lag, change.clone()))
            };
            let wait = match due {
                Some((at, change)) if at <= Instant::now() => {
                    self.from = change.version;
                    return Some((Ok(line(change.kind, change.object)), self));
                }
                Some((at, _)) => at.min(self.ends),
                None => self.ends,
            };
            tokio::select! {
                _ = self.state.changed() => {}
                () = sleep_until(wait) => if wait == self.ends {
                    self.over = true;
                    let mark = json!({ "apiVersion": "v1", "kind": "Any", "metadata": { "resourceVersion": self.from.to_string() } });
                    return Some((Ok(line("BOOKMARK", mark)), self));
                }
            }
        }
    }
}

fn line(kind: &str, object: Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}
