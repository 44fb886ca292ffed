//! The executor of a writing client's connections: no connection advances once the fence is closed.
//!
//! [`super::layer`] refuses new requests. From there to the socket a request passes through queues and tasks, and a process
//! can be stopped at any of them; this executor stops what was begun before. What may pass is decided by [`Fence`] alone.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use hyper::rt::Executor;

use super::Fence;

/// What a client gives to its executor: the life of one connection.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the connections of a client that writes, each step of each through the fence. A connection that is to go on while the
/// fence is closed ends, and what was on its cause with it.
#[derive(Clone, Debug)]
pub struct FencedExecutor {
    fence: Fence,
}

impl FencedExecutor {
    /// FencedExecutor through this fence.
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

    /// A connection that is never done, and counts its steps and whether others were in the middle of one.
    fn restless(
        steps: &Arc<AtomicUsize>,
        under_way: &Arc<AtomicUsize>,
        together: &Arc<AtomicUsize>,
    ) -> Connection {
        let (steps, under_way, together) = (
            Arc::clone(steps),
            Arc::clone(under_way),
            Arc::clone(together),
        );
        Box::pin(poll_fn(move |context| {
            let others = under_way.fetch_add(1, Ordering::SeqCst);
            together.fetch_max(others, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200));
            steps.fetch_add(1, Ordering::SeqCst);
            under_way.fetch_sub(1, Ordering::SeqCst);
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn connections_take_their_steps_one_at_a_time_and_none_once_the_fence_is_closed() {
        let [steps, under_way, together] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let fence = Fence::always_open();
        for _ in 0..8 {
            FencedExecutor::new(fence.clone()).execute(restless(&steps, &under_way, &together));
        }
        while steps.load(Ordering::SeqCst) < 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fence.close();
        let taken = steps.load(Ordering::SeqCst);
        assert_eq!(
            under_way.load(Ordering::SeqCst),
            0,
            "whoever was passing has passed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(steps.load(Ordering::SeqCst), taken);
        assert_eq!(together.load(Ordering::SeqCst), 0);
    }

    /// The API server's end of a client's one connection, read and answered in the test's own time.
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

        /// What has arrived since this was last asked.
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

    /// One step of one other task.
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

    /// Between the decision to write and the socket lie queues and tasks, and a process can be stopped at any of them.
    #[test]
    fn a_write_that_has_not_reached_the_socket_when_the_fence_closes_never_does() {
        let one_at_a_time = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(1)
            .build()
            .unwrap();
        let sent_before_turn = one_at_a_time.block_on(async {
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
        let turns = sent_before_turn.iter().take_while(|sent| !*sent).count();
        assert!(
            (3..20).contains(&turns),
            "a write takes several turns: {turns}"
        );
    }

    #[tokio::test]
    async fn a_connection_that_must_not_go_on_is_dropped() {
        let held = Arc::new(());
        let guest = Arc::clone(&held);
        FencedExecutor::new(Fence::closed(Clock::start())).execute(Box::pin(async move {
            std::future::pending::<()>().await;
            drop(guest);
        }));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
