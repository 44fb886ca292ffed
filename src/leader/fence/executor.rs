//! Runs the connections of a client that writes: no connection makes progress while the fence is
//! closed.
//!
//! [`super::layer`] rejects new requests. From there to the socket a request passes through queues
//! and tasks, and the process can be paused at any of them; this executor stops requests that were
//! admitted before. [`Fence`] alone decides what is admitted.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use hyper::rt::Executor;

use super::Fence;

/// The future that drives one connection of a client.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A hyper executor that polls every connection through the fence. A connection that is polled
/// while the fence is closed is dropped, with everything in flight on it.
#[derive(Clone, Debug)]
pub struct FencedExecutor {
    fence: Fence,
}

impl FencedExecutor {
    /// An executor for this fence.
    #[must_use]
    pub fn new(fence: Fence) -> Self {
        Self { fence }
    }
}

impl Executor<Connection> for FencedExecutor {
    fn execute(&self, mut connection: Connection) {
        let fence = self.fence.clone();
        tokio::spawn(poll_fn(move |context| {
            fence
                .pass(|| connection.as_mut().poll(context))
                .unwrap_or(Poll::Ready(()))
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use k8s_openapi::api::coordination::v1::Lease;
    use kube::api::PostParams;
    use kube::client::ClientBuilder;
    use kube::{Api, Client, Config};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::leader::clock::Clock;

    /// A connection that never finishes. It counts its steps, and how many others were in the
    /// middle of one.
    fn endless_connection(
        steps: &Arc<AtomicUsize>,
        running: &Arc<AtomicUsize>,
        together: &Arc<AtomicUsize>,
    ) -> Connection {
        let (steps, running, together) =
            (Arc::clone(steps), Arc::clone(running), Arc::clone(together));
        Box::pin(poll_fn(move |context| {
            let others = running.fetch_add(1, Ordering::SeqCst);
            together.fetch_max(others, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200));
            steps.fetch_add(1, Ordering::SeqCst);
            running.fetch_sub(1, Ordering::SeqCst);
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn connections_step_one_at_a_time_until_the_fence_closes() {
        let [steps, running, together] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let fence = Fence::always_open();
        for _ in 0..8 {
            FencedExecutor::new(fence.clone())
                .execute(endless_connection(&steps, &running, &together));
        }
        while steps.load(Ordering::SeqCst) < 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fence.close();
        let taken = steps.load(Ordering::SeqCst);
        assert_eq!(
            running.load(Ordering::SeqCst),
            0,
            "no step is in progress once close returns"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(steps.load(Ordering::SeqCst), taken);
        assert_eq!(together.load(Ordering::SeqCst), 0);
    }

    /// The server side of a client's single connection. The test decides when it is read and
    /// answered.
    struct ServerEnd {
        listener: TcpListener,
        stream: Option<TcpStream>,
    }

    impl ServerEnd {
        fn listen() -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            Self {
                listener,
                stream: None,
            }
        }

        fn client(&self, fence: &Fence) -> Client {
            let url = format!("http://{}", self.listener.local_addr().unwrap());
            let mut config = Config::new(url.parse().unwrap());
            config.default_retry = false;
            ClientBuilder::try_from((config, FencedExecutor::new(fence.clone())))
                .unwrap()
                .build()
        }

        /// Bytes that arrived since the last call.
        fn arrived(&mut self) -> String {
            if self.stream.is_none()
                && let Ok((stream, _)) = self.listener.accept()
            {
                stream.set_nonblocking(true).unwrap();
                self.stream = Some(stream);
            }
            let mut bytes = Vec::new();
            let _ = self
                .stream
                .as_mut()
                .map(|stream| stream.read_to_end(&mut bytes));
            String::from_utf8(bytes).unwrap()
        }

        fn refuse(&mut self) {
            let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            self.stream.as_mut().unwrap().write_all(refusal).unwrap();
        }
    }

    fn write(client: &Client) -> JoinHandle<bool> {
        let leases = Api::<Lease>::namespaced(client.clone(), "operators");
        tokio::spawn(async move {
            leases
                .create(&PostParams::default(), &Lease::default())
                .await
                .is_ok()
        })
    }

    /// Lets one other task run one step.
    async fn turn() {
        let mut waited = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// A write passes through queues and tasks before it reaches the socket; the fence may close at
    /// any of them.
    #[test]
    fn write_not_yet_on_the_socket_never_leaves_a_closed_fence() {
        let one_at_a_time = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(1)
            .build()
            .unwrap();
        let sent_after_turns = one_at_a_time.block_on(async {
            let mut sent = Vec::new();
            for turns in 0..20 {
                let (fence, mut server) = (Fence::always_open(), ServerEnd::listen());
                let client = server.client(&fence);
                let first = write(&client);
                while server.arrived().is_empty() {
                    tokio::task::yield_now().await;
                }
                server.refuse();
                assert!(!first.await.unwrap());

                let second = write(&client);
                for _ in 0..turns {
                    turn().await;
                }
                sent.push(server.arrived().starts_with("POST "));
                fence.close();
                tokio::time::timeout(Duration::from_millis(20), second)
                    .await
                    .ok();
                assert_eq!(server.arrived(), "", "after {turns} turns");
            }
            sent
        });
        let turns = sent_after_turns.iter().take_while(|sent| !*sent).count();
        assert!(
            (3..20).contains(&turns),
            "a write takes several turns: {turns}"
        );
    }

    #[tokio::test]
    async fn connection_polled_through_a_closed_fence_is_dropped() {
        let owner = Arc::new(());
        let held = Arc::clone(&owner);
        FencedExecutor::new(Fence::closed(Clock::start())).execute(Box::pin(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&owner), 1);
    }
}
