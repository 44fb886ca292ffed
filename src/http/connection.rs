//! One accepted connection, with the limits that hyper does not set: how long a client may take for
//! the head of a request, how long it may say nothing between two requests, and what becomes of an
//! upload that was answered before it was read.
//!
//! It knows nothing of the requests on it, except that one is being served.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::watch;

/// How long the head of a request may take, from its first byte; the first one of a connection, from
/// when it was accepted.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests. Longer than proxies keep theirs (nginx
/// 60 s, Traefik 90 s): what they send on a connection that is being closed has no response.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long what the client still sends is read after the last response. A socket that is closed with
/// unread bytes is reset, and the client may lose the response (RFC 9112, 9.6).
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// The requests of one connection, counted by who serves them.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Of the reader, which waits without a deadline while a request is open.
    reader: AtomicWaker,
}

impl Requests {
    /// Begins a request. It lasts until the guard is dropped.
    pub(super) fn begin(&self) -> OpenRequest {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        OpenRequest {
            requests: self.clone(),
            ends: true,
        }
    }

    fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Acquire)
    }

    fn is_any_open(&self) -> bool {
        self.begun() > self.0.ended.load(Ordering::Acquire)
    }
}

/// A request that is being served, until its response has been sent.
pub(super) struct OpenRequest {
    requests: Requests,
    ends: bool,
}

impl OpenRequest {
    /// The response, which keeps the request open until its body has been sent or dropped. One that
    /// switches protocols keeps it open for good: what follows are no requests.
    pub(super) fn until_sent(mut self, response: Response) -> Response {
        self.ends = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        watch(response, move |_| drop(self))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.ends {
            self.requests.0.ended.fetch_add(1, Ordering::AcqRel);
            self.requests.0.reader.wake();
        }
    }
}

/// What the client is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The first byte of a request.
    Request,
    /// The rest of the head of a request.
    Head,
    /// The end of its side of the connection.
    Close,
}

/// A stream that ends with an error when its client takes too long.
pub(super) struct Connection<S> {
    stream: S,
    requests: Requests,
    /// How many requests had begun when the deadline was set.
    begun: u64,
    awaited: Option<Awaited>,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, requests: Requests) -> Self {
        Self {
            stream,
            requests,
            begun: 0,
            awaited: Some(Awaited::Head),
            deadline: Box::pin(sleep(HEAD_TIMEOUT)),
        }
    }

    fn wait(&mut self, awaited: Awaited, limit: Duration) {
        if self.awaited != Some(awaited) {
            self.awaited = Some(awaited);
            self.deadline.as_mut().reset(Instant::now() + limit);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.requests.0.reader.register(context.waker());
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let begun = this.requests.begun();
        if begun != this.begun {
            this.begun = begun;
            this.awaited = None;
        }
        if this.requests.is_any_open() {
            return read;
        }
        if read.is_ready() {
            this.wait(Awaited::Head, HEAD_TIMEOUT);
            return read;
        }
        if this.awaited.is_none() {
            this.wait(Awaited::Request, IDLE_TIMEOUT);
        }
        ready!(this.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    /// Ends the responses, then reads until the client closes its end, unless another protocol follows.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.requests.is_any_open() {
            return Pin::new(&mut this.stream).poll_shutdown(context);
        }
        if this.awaited != Some(Awaited::Close) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.wait(Awaited::Close, LINGER_TIMEOUT);
        }
        let mut unread = [0; 8192];
        while this.deadline.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    /// A client of a server, and that server's end.
    fn connect(router: Router) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = duplex(64 * 1024);
        let served = super::super::serve_connection(server, ([192, 0, 2, 1], 1).into(), router);
        let ended = tokio::spawn(async move {
            let _ = served.await;
        });
        (client, ended)
    }

    fn slow(seconds: u64) -> Router {
        let answer = async move || {
            sleep(Duration::from_secs(seconds)).await;
            "answer"
        };
        Router::new().route("/", get(answer).post(async || "early"))
    }

    async fn read_response(client: &mut DuplexStream) -> String {
        let mut response = Vec::new();
        while !response.ends_with(b"answer") {
            response.push(client.read_u8().await.unwrap());
        }
        String::from_utf8(response).unwrap()
    }

    /// How long the server leaves its end open.
    async fn until_closed(client: &mut DuplexStream) -> Duration {
        let begun = Instant::now();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_says_nothing_is_closed_after_10_seconds() {
        let (mut client, _ended) = connect(slow(0));
        let open = until_closed(&mut client).await;
        assert_eq!(open.as_secs(), HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn head_that_comes_byte_by_byte_is_given_10_seconds() {
        let (mut client, ended) = connect(slow(0));
        let begun = Instant::now();
        for byte in HEAD.iter().cycle() {
            if client.write_all(&[*byte]).await.is_err() || ended.is_finished() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert!(begun.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_is_kept_for_two_minutes_after_each_request() {
        let (mut client, _ended) = connect(slow(0));
        for _ in 0..3 {
            client.write_all(HEAD).await.unwrap();
            read_response(&mut client).await;
            sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        }
        let open = until_closed(&mut client).await;
        assert_eq!(open.as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn request_after_an_idle_time_is_given_10_seconds_too() {
        let (mut client, _ended) = connect(slow(0));
        client.write_all(HEAD).await.unwrap();
        read_response(&mut client).await;
        sleep(Duration::from_secs(60)).await;
        client.write_all(b"GET /").await.unwrap();
        let open = until_closed(&mut client).await;
        assert_eq!(open.as_secs(), HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn response_may_take_any_time() {
        let (mut client, _ended) = connect(slow(3600));
        for _ in 0..2 {
            client.write_all(HEAD).await.unwrap();
            let response = read_response(&mut client).await;
            assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_switched_protocols_may_be_silent() {
        let switch = async |request: axum::extract::Request| {
            tokio::spawn(async {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let mut stream = hyper_util::rt::TokioIo::new(upgraded);
                while let Ok(byte @ 1..) = stream.read_u8().await {
                    sleep(Duration::from_secs(3600)).await;
                    stream.write_u8(byte).await.unwrap();
                }
                stream.shutdown().await.unwrap();
            });
            let fields = [("connection", "upgrade"), ("upgrade", "echo")];
            (StatusCode::SWITCHING_PROTOCOLS, fields)
        };
        let (mut client, _ended) = connect(Router::new().route("/", get(switch)));
        let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(client.read_u8().await.unwrap());
        }
        for byte in 1..3 {
            client.write_u8(byte).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), byte);
        }
        client.write_u8(0).await.unwrap();
        assert_eq!(until_closed(&mut client).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn upload_that_was_answered_early_is_read_for_two_seconds() {
        let (mut client, ended) = connect(slow(0));
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
        client.write_all(head).await.unwrap();
        let begun = Instant::now();
        let mut sent = 0;
        while !ended.is_finished() && client.write_all(&[0; 32 * 1024]).await.is_ok() {
            sent += 32;
            sleep(Duration::from_millis(10)).await;
        }
        assert!(sent > 1024, "only {sent} KiB were read");
        assert!(begun.elapsed() >= LINGER_TIMEOUT);
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }

    #[tokio::test(start_paused = true)]
    async fn head_above_32_kib_is_refused_with_431() {
        let (mut client, _ended) = connect(slow(0));
        let field = format!(
            "GET / HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n",
            "a".repeat(40_000)
        );
        client.write_all(field.as_bytes()).await.unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    }
}
