//! A client, a gate and an upstream on the loopback interface. The client is the proxy itself.

use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::super::headers::{Forwarded, UpstreamHeaders, from_upstream, to_upstream};
use super::*;
use crate::http::{BodyEnd, watch};

const MIB: usize = 1024 * 1024;
/// Longer than anything takes here, on a busy machine too.
const LONG: Duration = Duration::from_secs(20);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn address_of(listener: &TcpListener) -> UpstreamAddress {
    UpstreamAddress {
        authority: listener.local_addr().unwrap().to_string(),
        host: "model.team".to_owned(),
    }
}

/// An upstream.
async fn serve(router: Router) -> UpstreamAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address_of(&listener);
    tokio::spawn(crate::http::serve(listener, router, pending()));
    address
}

/// An upstream that acts on each connection.
async fn serve_raw<F>(act: impl Fn(TcpStream) -> F + Send + 'static) -> UpstreamAddress
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address_of(&listener);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(act(connection));
        }
    });
    address
}

/// Reads a message up to the end of its head. `None` if the connection was closed before.
async fn read_head(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// An upstream that answers each connection once, with these bytes, and closes it.
async fn serve_bytes(response: impl Into<Vec<u8>>) -> UpstreamAddress {
    let response: Arc<[u8]> = response.into().into();
    serve_raw(move |mut connection| {
        let response = Arc::clone(&response);
        async move {
            read_head(&mut connection).await;
            connection.write_all(&response).await.unwrap();
        }
    })
    .await
}

/// A gate without prices in front of an upstream.
#[derive(Clone)]
struct Gate {
    proxy: Proxy,
    upstream: UpstreamAddress,
    hold: Option<HoldLimits>,
    ends: mpsc::UnboundedSender<BodyEnd>,
}

async fn gate(
    upstream: UpstreamAddress,
    hold: Option<HoldLimits>,
) -> (UpstreamAddress, mpsc::UnboundedReceiver<BodyEnd>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let gate = Gate {
        proxy: Proxy::new(),
        upstream,
        hold,
        ends,
    };
    let router = Router::new().fallback(any(pass)).with_state(gate);
    (serve(router).await, ended)
}

async fn pass(State(gate): State<Gate>, mut request: Request<Body>) -> Response<Body> {
    let facts = UpstreamHeaders {
        host: gate.upstream.host.clone(),
        prefix: "/services/model".to_owned(),
        forwarded: Forwarded {
            client: "192.0.2.1".parse().unwrap(),
            proxies: Vec::new(),
            scheme: Scheme::HTTP,
            host: "shop.example".to_owned(),
        },
        payment: None,
    };
    *request.headers_mut() = to_upstream(request.headers(), &facts, true);
    let sent = gate.proxy.send(request, &gate.upstream, Some(LONG)).await;
    let held = match (sent, gate.hold) {
        (Ok(response), Some(limits)) => gate.proxy.hold(response, limits).await,
        (sent, _) => sent.map(|response| Held {
            response,
            whole: None,
        }),
    };
    match held {
        Ok(Held { mut response, .. }) => {
            from_upstream(response.headers_mut(), true);
            watch(response, move |end| {
                let _ = gate.ends.send(end);
            })
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/").body(body.into()).unwrap()
}

async fn send(
    request: Request<Body>,
    to: &UpstreamAddress,
) -> Result<Response<Body>, UpstreamError> {
    Proxy::new().send(request, to, Some(LONG)).await
}

async fn text(response: Response<Body>) -> String {
    let body = to_bytes(response.into_body(), MIB).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

const LIMITS: HoldLimits = HoldLimits {
    bytes: 1024,
    time: Duration::from_secs(5),
};

#[tokio::test]
async fn response_passes_with_its_status_fields_and_body() {
    let router = Router::new().fallback(async |request: Request<Body>| {
        let status = request.uri().path().trim_start_matches('/');
        let status: StatusCode = status.parse().unwrap();
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = if status == 204 || status == 304 {
            String::new()
        } else {
            format!("{host} {query}")
        };
        (status, [("x-a", "1")], body)
    });
    let (gate, _ended) = gate(serve(router).await, Some(LIMITS)).await;
    for status in [200, 201, 204, 206, 301, 304, 400, 404, 429, 500, 503] {
        let path = format!("/{status}?a=%2f//..");
        let response = send(request(&path), &gate).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-a"], "1");
        let expected = match status {
            204 | 304 => "",
            _ => "model.team a=%2f//..",
        };
        assert_eq!(text(response).await, expected, "{status}");
    }
}

#[tokio::test]
async fn head_request_gets_the_length_and_no_body() {
    let upstream = serve(Router::new().route("/", get("hello"))).await;
    let (gate, mut ended) = gate(upstream, Some(LIMITS)).await;
    let head = Request::head("/").body(Body::empty()).unwrap();
    let response = send(head, &gate).await.unwrap();
    assert_eq!(response.headers()[CONTENT_LENGTH], "5");
    assert_eq!(text(response).await, "");
    assert_eq!(ended.recv().await, Some(BodyEnd::Complete));
}

#[tokio::test]
async fn informational_responses_are_not_the_response() {
    let upstream = serve_bytes(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let response = send(request("/"), &upstream).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn upstream_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address_of(&listener);
    drop(listener);
    let failed = send(request("/"), &address).await;
    assert_eq!(failed.unwrap_err(), UpstreamError::Unreachable);
}

#[tokio::test]
async fn upstream_may_not_be_the_node_or_the_gate_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [
        "localhost",
        "127.1",
        "0x7f.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[fe80::1]",
        "[ff02::1]",
        "[::ffff:169.254.169.254]",
        "not a host",
    ] {
        let address = UpstreamAddress {
            authority: format!("{host}:{port}"),
            host: String::new(),
        };
        let failed = Proxy::new()
            .send(request("/"), &address, Some(millis(1500)))
            .await;
        assert_eq!(failed.unwrap_err(), UpstreamError::Unreachable, "{host}");
    }
}

#[tokio::test]
async fn response_that_breaks_off_is_an_error_before_it_is_paid() {
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n0123456789";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let head = response.len() - 10;
    for cut in [0, 1, 20, head - 1] {
        let upstream = serve_bytes(&response[..cut]).await;
        let failed = send(request("/"), &upstream).await;
        assert_eq!(failed.unwrap_err(), UpstreamError::Broken, "byte {cut}");
    }
    for bytes in [&response[..head], &response[..head + 1], response, chunked] {
        let upstream = serve_bytes(bytes).await;
        let proxy = Proxy::new();
        let response = proxy.send(request("/"), &upstream, None).await.unwrap();
        let held = proxy.hold(response, LIMITS).await;
        assert_eq!(held.unwrap_err(), UpstreamError::Broken, "{bytes}");
        assert_eq!(proxy.held_bytes(), 0);
    }
}

#[tokio::test]
async fn response_that_breaks_off_later_reaches_no_clean_end() {
    let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("800\r\n{}\r\n", "a".repeat(2048));
    let upstream = serve_bytes(format!("{start}{chunk}{chunk}")).await;
    let (gate, mut ended) = gate(upstream, Some(LIMITS)).await;
    let response = send(request("/"), &gate).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(ended.recv().await, Some(BodyEnd::Cut));
}

#[tokio::test]
async fn what_is_not_http_is_malformed() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ] {
        let upstream = serve_bytes(bytes).await;
        let failed = send(request("/"), &upstream).await;
        assert_eq!(failed.unwrap_err(), UpstreamError::Malformed, "{bytes}");
    }
    let huge = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "a".repeat(MIB));
    let upstream = serve_bytes(huge).await;
    let failed = send(request("/"), &upstream).await;
    assert_eq!(failed.unwrap_err(), UpstreamError::Malformed);
}

/// An upstream that reports when a connection to it was closed, and never answers.
async fn serve_nothing() -> (UpstreamAddress, mpsc::UnboundedReceiver<()>) {
    let (closed, is_closed) = mpsc::unbounded_channel();
    let upstream = serve_raw(move |mut connection| {
        let closed = closed.clone();
        async move {
            read_head(&mut connection).await;
            let _ = connection.read_u8().await;
            let _ = closed.send(());
        }
    });
    (upstream.await, is_closed)
}

#[tokio::test]
async fn head_that_comes_too_late_ends_the_request() {
    let (upstream, mut is_closed) = serve_nothing().await;
    let started = Instant::now();
    let proxy = Proxy::new();
    let failed = proxy.send(request("/"), &upstream, Some(millis(100))).await;
    assert_eq!(failed.unwrap_err(), UpstreamError::TooSlow);
    assert!(started.elapsed() < millis(2000));
    is_closed.recv().await.unwrap();
}

#[tokio::test]
async fn deadline_is_that_of_the_head_only() {
    let upstream = serve_raw(async |mut connection| {
        read_head(&mut connection).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no";
        connection.write_all(head).await.unwrap();
        sleep(millis(600)).await;
        connection.write_all(b"k").await.unwrap();
    });
    let (upstream, proxy) = (upstream.await, Proxy::new());
    let response = proxy.send(request("/"), &upstream, Some(millis(300))).await;
    assert_eq!(text(response.unwrap()).await, "ok");
}

#[tokio::test]
async fn client_that_leaves_cancels_the_request() {
    let (upstream, mut is_closed) = serve_nothing().await;
    let (gate, _ended) = gate(upstream, None).await;
    let mut client = TcpStream::connect(&gate.authority).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    sleep(millis(100)).await;
    assert!(is_closed.try_recv().is_err());
    drop(client);
    is_closed.recv().await.unwrap();
}

#[tokio::test]
async fn client_that_leaves_cancels_the_response() {
    let produced = Arc::new(AtomicUsize::new(0));
    let upstream = serve_endless(Arc::clone(&produced)).await;
    let (gate, mut ended) = gate(upstream, None).await;
    let response = send(request("/"), &gate).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(ended.recv().await, Some(BodyEnd::Cut));
}

/// Pieces of 64 KiB, counted when they are taken.
fn pieces(bytes: usize, produced: Arc<AtomicUsize>) -> Body {
    const PIECE: usize = 64 * 1024;
    let piece = Bytes::from(vec![b'a'; PIECE]);
    let pieces = stream::repeat(piece).take(bytes / PIECE);
    Body::from_stream(pieces.map(move |piece| {
        produced.fetch_add(PIECE, Ordering::Relaxed);
        Ok::<_, Infallible>(piece)
    }))
}

async fn serve_endless(produced: Arc<AtomicUsize>) -> UpstreamAddress {
    let router = Router::new().route("/", get(async move || pieces(usize::MAX, produced)));
    serve(router).await
}

/// Bytes that a stalled transfer has taken in, once it takes no more.
async fn stalled_at(produced: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    loop {
        let now = produced.load(Ordering::Relaxed);
        if now == last {
            return now;
        }
        last = now;
        sleep(millis(300)).await;
    }
}

/// Most bytes that are between a writer and a reader that does not read: the buffers of two
/// connections, which the system makes as large as 10 MiB each.
const MOST_IN_FLIGHT: usize = 32 * MIB;
const TRANSFER: usize = 256 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn download_waits_for_its_reader() {
    let produced = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&produced);
    let router = Router::new().route("/", get(async move || pieces(TRANSFER, counter)));
    let (gate, mut ended) = gate(serve(router).await, Some(LIMITS)).await;
    let response = send(request("/"), &gate).await.unwrap();
    let stalled = stalled_at(&produced).await;
    assert!(stalled < MOST_IN_FLIGHT, "{stalled} bytes are in flight");
    let (mut body, mut read, mut most) = (response.into_body(), 0, 0);
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        most = most.max(produced.load(Ordering::Relaxed) - read);
    }
    assert_eq!(read, TRANSFER);
    assert!(most < MOST_IN_FLIGHT, "{most} bytes were in flight");
    assert_eq!(ended.recv().await, Some(BodyEnd::Complete));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_waits_for_its_reader() {
    let produced = Arc::new(AtomicUsize::new(0));
    let (counter, start) = (Arc::clone(&produced), Arc::new(Notify::new()));
    let is_started = Arc::clone(&start);
    let most = Arc::new(AtomicUsize::new(0));
    let reached = Arc::clone(&most);
    let read_all = async move |request: Request<Body>| {
        is_started.notified().await;
        let (mut body, mut read) = (request.into_body(), 0);
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
            let in_flight = counter.load(Ordering::Relaxed) - read;
            reached.fetch_max(in_flight, Ordering::Relaxed);
        }
        read.to_string()
    };
    let router = Router::new().fallback(read_all);
    let (gate, _ended) = gate(serve(router).await, None).await;
    let upload = post(pieces(TRANSFER, Arc::clone(&produced)));
    let sent = tokio::spawn(async move { send(upload, &gate).await });
    let stalled = stalled_at(&produced).await;
    assert!(stalled > 0 && stalled < MOST_IN_FLIGHT, "{stalled}");
    start.notify_one();
    let response = sent.await.unwrap().unwrap();
    assert_eq!(text(response).await, TRANSFER.to_string());
    let most = most.load(Ordering::Relaxed);
    assert!(most < MOST_IN_FLIGHT, "{most} bytes were in flight");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (events, received) = mpsc::channel::<Instant>(1);
    let received = Arc::new(Mutex::new(Some(received)));
    let router = Router::new().route(
        "/",
        get(async move || {
            let received = received.lock().unwrap().take().unwrap();
            let events = stream::unfold(received, async |mut received| {
                received.recv().await?;
                Some((Ok::<_, Infallible>("data: a\n\n"), received))
            });
            (
                [(CONTENT_TYPE, "text/event-stream")],
                Body::from_stream(events),
            )
        }),
    );
    // A hold would wait for the end of the stream.
    let (gate, mut ended) = gate(serve(router).await, Some(LIMITS)).await;
    let mut body = send(request("/"), &gate).await.unwrap().into_body();
    let mut delays = Vec::new();
    for _ in 0..50 {
        let written = Instant::now();
        events.send(written).await.unwrap();
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, "data: a\n\n");
        delays.push(written.elapsed());
    }
    delays.sort();
    assert!(delays[25] < millis(20), "{delays:?}");
    drop(events);
    assert!(body.frame().await.is_none());
    assert_eq!(ended.recv().await, Some(BodyEnd::Complete));
}

#[tokio::test]
async fn trailers_pass_and_say_nothing_that_fields_may_not_say() {
    let with_trailers = |text: &'static str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("payment-response", HeaderValue::from_static("forged"));
        trailers.insert("x-payment-payer", HeaderValue::from_static("forged"));
        let frames = [Frame::data(Bytes::from(text)), Frame::trailers(trailers)];
        Body::new(StreamBody::new(stream::iter(
            frames.map(Ok::<_, Infallible>),
        )))
    };
    const NAMES: &str = "x-sum, payment-response, x-payment-payer";
    let router = Router::new().fallback(async move |request: Request<Body>| {
        let received = request.into_body().collect().await.unwrap();
        let trailers = received.trailers().unwrap();
        assert_eq!(trailers["x-sum"], "1");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        ([("trailer", NAMES)], with_trailers("answer"))
    });
    let upstream = serve(router).await;
    for hold in [None, Some(LIMITS)] {
        let (gate, mut ended) = gate(upstream.clone(), hold).await;
        let mut question = post(with_trailers("question"));
        let headers = question.headers_mut();
        headers.insert("trailer", HeaderValue::from_static(NAMES));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let response = send(question, &gate).await.unwrap();
        let received = response.into_body().collect().await.unwrap();
        let trailers = received.trailers().cloned().unwrap();
        assert_eq!(trailers["x-sum"], "1");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert_eq!(received.to_bytes(), "answer");
        assert_eq!(ended.recv().await, Some(BodyEnd::Complete));
    }
}

/// An upstream that switches to a protocol and then returns every byte.
async fn serve_echo(protocol: &'static str) -> UpstreamAddress {
    serve_raw(move |mut connection| async move {
        let head = read_head(&mut connection).await.unwrap();
        if head.to_lowercase().contains("upgrade: websocket") {
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                 upgrade: {protocol}\r\nsec-websocket-accept: a\r\n\r\nhello"
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            let (mut read, mut write) = connection.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        } else {
            let head = "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n";
            connection.write_all(head.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// The head of the response to a request to switch, and the connection.
async fn ask_to_switch(gate: &UpstreamAddress, protocol: &str) -> (String, TcpStream) {
    let mut client = TcpStream::connect(&gate.authority).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\
         sec-websocket-key: a\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.unwrap();
    (head.to_lowercase(), client)
}

#[tokio::test]
async fn websocket_passes_in_both_directions() {
    let (gate, _ended) = gate(serve_echo("websocket").await, Some(LIMITS)).await;
    let (head, mut client) = ask_to_switch(&gate, "websocket").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["connection: upgrade", "upgrade: websocket", "accept: a"] {
        assert!(head.contains(line), "{head}");
    }
    let mut received = vec![0; 5];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(received, b"hello");
    let sent = vec![7; MIB];
    let (mut read, mut write) = client.split();
    let mut received = vec![0; MIB];
    let (written, _) = tokio::join!(write.write_all(&sent), read.read_exact(&mut received));
    written.unwrap();
    assert!(received == sent);
    write.shutdown().await.unwrap();
    assert_eq!(read.read(&mut received).await.unwrap(), 0, "closed");
}

#[tokio::test]
async fn only_websockets_are_tunnelled() {
    let (websocket, _ended) = gate(serve_echo("websocket").await, None).await;
    let (head, _) = ask_to_switch(&websocket, "h2c").await;
    assert!(head.starts_with("http/1.1 426 "), "{head}");
    let (other, _ended) = gate(serve_echo("other").await, None).await;
    let (head, _) = ask_to_switch(&other, "websocket").await;
    assert!(head.starts_with("http/1.1 502 "), "{head}");
    let unasked = serve_bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
    let failed = send(request("/"), &unasked).await;
    assert_eq!(failed.unwrap_err(), UpstreamError::Malformed);
}

#[tokio::test]
async fn tunnel_that_is_not_granted_closes_its_upstream() {
    let (upstream, mut is_closed) = {
        let (closed, is_closed) = mpsc::unbounded_channel();
        let upstream = serve_raw(move |mut connection| {
            let closed = closed.clone();
            async move {
                read_head(&mut connection).await;
                let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                            upgrade: websocket\r\n\r\n";
                connection.write_all(head.as_bytes()).await.unwrap();
                let _ = connection.read_u8().await;
                let _ = closed.send(());
            }
        });
        (upstream.await, is_closed)
    };
    let proxy = Proxy::new();
    let guard = Arc::new(());
    let held = Arc::downgrade(&guard);
    let guard = Arc::new(Mutex::new(Some(WhileTunnelled(guard))));
    let router = Router::new().fallback(async move |mut request: Request<Body>| {
        let guard = guard.lock().unwrap().take().unwrap();
        request.extensions_mut().insert(guard);
        let response = proxy.send(request, &upstream, None).await.unwrap();
        assert_eq!(response.status(), 101);
        StatusCode::PAYMENT_REQUIRED
    });
    let gate = serve(router).await;
    let (head, _client) = ask_to_switch(&gate, "websocket").await;
    assert!(head.starts_with("http/1.1 402 "), "{head}");
    is_closed.recv().await.unwrap();
    while held.strong_count() > 0 {
        sleep(millis(5)).await;
    }
}

#[tokio::test]
async fn connection_is_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let upstream = serve_raw(move |mut connection| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            while read_head(&mut connection).await.is_some() {
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                connection.write_all(response).await.unwrap();
            }
        }
    });
    let (upstream, proxy) = (upstream.await, Proxy::new());
    for _ in 0..20 {
        let response = proxy.send(request("/"), &upstream, None).await.unwrap();
        assert_eq!(text(response).await, "ok");
        sleep(millis(1)).await;
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn connection_that_was_closed_while_idle_is_not_used() {
    let upstream = serve_bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let proxy = Proxy::new();
    for _ in 0..20 {
        let response = proxy.send(post("a"), &upstream, None).await.unwrap();
        assert_eq!(text(response).await, "ok");
        sleep(millis(5)).await;
    }
}

/// The race between a request and the close of an idle connection: each response is followed by a
/// close, at once, and the next request is sent at once too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_may_have_been_written_is_never_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let upstream = serve_raw(move |mut connection| {
        let counter = Arc::clone(&counter);
        async move {
            if read_head(&mut connection).await.is_some() {
                counter.fetch_add(1, Ordering::Relaxed);
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                connection.write_all(response).await.unwrap();
            }
        }
    });
    let (upstream, proxy) = (upstream.await, Proxy::new());
    let (mut answered, mut broken) = (0, 0);
    for _ in 0..500 {
        match proxy.send(request("/"), &upstream, None).await {
            Ok(response) => {
                assert_eq!(text(response).await, "ok");
                answered += 1;
            }
            Err(error) => {
                assert_eq!(error, UpstreamError::Broken);
                broken += 1;
            }
        }
    }
    assert_eq!(seen.load(Ordering::Relaxed), answered, "{broken} broken");
    assert!(answered >= 250, "{broken} broken");
}

#[tokio::test]
async fn request_that_was_read_and_not_answered_is_sent_once() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let upstream = serve_raw(move |mut connection| {
        let counter = Arc::clone(&counter);
        async move {
            read_head(&mut connection).await;
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            connection.write_all(response).await.unwrap();
            read_head(&mut connection).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (upstream, proxy) = (upstream.await, Proxy::new());
    let response = proxy.send(request("/"), &upstream, None).await.unwrap();
    assert_eq!(text(response).await, "ok");
    sleep(millis(20)).await;
    let failed = proxy.send(request("/"), &upstream, None).await;
    assert_eq!(failed.unwrap_err(), UpstreamError::Broken);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn response_that_comes_before_the_body_was_read_passes() {
    let upstream = serve_raw(async |mut connection| {
        read_head(&mut connection).await;
        let response = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\
                         connection: close\r\n\r\nbig";
        connection.write_all(response).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut rest = [0; 4096];
        // A server that closes with unread bytes resets the connection; well-kept ones read on.
        while connection.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    });
    let (gate, _ended) = gate(upstream.await, Some(LIMITS)).await;
    let produced = Arc::new(AtomicUsize::new(0));
    let upload = post(pieces(usize::MAX, produced));
    let response = send(upload, &gate).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(text(response).await, "big");
}

#[tokio::test]
async fn request_body_that_breaks_off_is_not_the_upstreams_failure() {
    let (upstream, mut is_closed) = serve_nothing().await;
    let pieces = [Ok(Bytes::from("a")), Err(io::Error::other("gone"))];
    let failed = send(post(Body::from_stream(stream::iter(pieces))), &upstream).await;
    assert_eq!(failed.unwrap_err(), UpstreamError::RequestBody);
    is_closed.recv().await.unwrap();
}

#[tokio::test]
async fn client_that_waits_for_permission_gets_it_when_its_body_is_read() {
    let router = Router::new().fallback(async |request: Request<Body>| {
        assert!(!request.headers().contains_key("expect"));
        to_bytes(request.into_body(), MIB).await.unwrap()
    });
    let (gate, _ended) = gate(serve(router).await, Some(LIMITS)).await;
    let refusing = serve(Router::new().fallback(async || StatusCode::PAYMENT_REQUIRED)).await;
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    for (server, status) in [(&gate, "100 Continue"), (&refusing, "402 Payment Required")] {
        let mut client = TcpStream::connect(&server.authority).await.unwrap();
        client.write_all(head).await.unwrap();
        let response = read_head(&mut client).await.unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status}")));
        if server == &gate {
            client.write_all(b"hello").await.unwrap();
            let response = read_head(&mut client).await.unwrap();
            assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
            let mut body = [0; 5];
            client.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
        }
    }
}

/// A response of these pieces, which ends or never does.
fn response_of(pieces: &[&'static str], is_endless: bool) -> Response<Body> {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(*piece))
        .collect();
    let pieces = stream::iter(pieces);
    Response::new(if is_endless {
        Body::from_stream(pieces.chain(stream::pending()))
    } else {
        Body::from_stream(pieces)
    })
}

#[tokio::test]
async fn short_response_is_held_as_a_whole() {
    let proxy = Proxy::new();
    for pieces in [&[][..], &["a"], &["a", "", "bc"]] {
        let held = proxy
            .hold(response_of(pieces, false), LIMITS)
            .await
            .unwrap();
        assert_eq!(held.whole.unwrap(), pieces.concat());
        assert_eq!(proxy.held_bytes(), 1024);
        let exact = held.response.body().size_hint().exact();
        assert_eq!(exact, Some(pieces.concat().len() as u64));
        assert_eq!(text(held.response).await, pieces.concat());
        assert_eq!(proxy.held_bytes(), 0);
    }
    let long = vec!["0123456789"; 90];
    let held = proxy.hold(response_of(&long, false), LIMITS).await.unwrap();
    assert_eq!(held.whole.unwrap(), long.concat());
    let fitting = HoldLimits { bytes: 2, ..LIMITS };
    let known = Response::new(Body::from("ab"));
    assert_eq!(
        proxy.hold(known, fitting).await.unwrap().whole.unwrap(),
        "ab"
    );
}

#[tokio::test]
async fn long_response_is_held_up_to_the_limit() {
    let proxy = Proxy::new();
    let limits = HoldLimits { bytes: 4, ..LIMITS };
    for pieces in [&["abcd", "e"][..], &["ab", "cde"], &["abcde"]] {
        let held = proxy.hold(response_of(pieces, true), limits).await.unwrap();
        assert_eq!(held.whole, None);
        let mut body = held.response.into_body();
        assert_eq!(body.size_hint().exact(), None);
        let mut read = String::new();
        while read != "abcde" {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            read.push_str(std::str::from_utf8(&data).unwrap());
        }
        assert!(!body.is_end_stream());
        assert!(timeout(millis(20), body.frame()).await.is_err());
        assert_eq!(proxy.held_bytes(), 0, "given back while the rest streams");
    }
    let known = Response::new(Body::from("abcdef"));
    let held = proxy.hold(known, limits).await.unwrap();
    assert_eq!(held.response.body().size_hint().exact(), Some(6));
    assert_eq!(text(held.response).await, "abcdef");
}

#[tokio::test(start_paused = true)]
async fn slow_response_is_held_up_to_the_time_limit() {
    let started = tokio::time::Instant::now();
    let proxy = Proxy::new();
    let held = proxy.hold(response_of(&["a"], true), LIMITS).await.unwrap();
    assert_eq!(started.elapsed(), LIMITS.time);
    assert_eq!(held.whole, None);
    let mut body = held.response.into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "a"
    );
}

#[tokio::test]
async fn live_responses_are_not_held() {
    let proxy = Proxy::new();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("content-type", "Text/Event-Stream; charset=utf-8"),
        ("x-accel-buffering", "No"),
    ] {
        let mut response = response_of(&["a"], true);
        response.headers_mut().insert(name, value.parse().unwrap());
        let held = proxy.hold(response, LIMITS).await.unwrap();
        assert_eq!((held.whole, proxy.held_bytes()), (None, 0), "{value}");
    }
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "text/event-streams"),
        ("x-accel-buffering", "nope"),
    ] {
        let mut response = response_of(&["a"], false);
        response.headers_mut().insert(name, value.parse().unwrap());
        let held = proxy.hold(response, LIMITS).await.unwrap();
        assert!(held.whole.is_some(), "{value}");
    }
}

#[tokio::test]
async fn response_is_not_held_when_the_budget_is_used_up() {
    let budget = MemoryBudget::new(2048);
    let hold = async |response| hold::hold(response, LIMITS, &budget).await.unwrap();
    let first = hold(response_of(&["a"], false)).await;
    let second = hold(response_of(&["b"], false)).await;
    assert_eq!(budget.used(), 2048);
    let third = hold(response_of(&["c"], true)).await;
    assert_eq!(third.whole, None);
    drop(first);
    let fourth = hold(response_of(&["d"], false)).await;
    assert_eq!(fourth.whole.unwrap(), "d");
    assert_eq!(text(second.response).await, "b");
    let small = hold(Response::new(Body::from("e"))).await;
    assert_eq!(small.whole.unwrap(), "e");
    assert_eq!(budget.used(), 2048);
}

#[tokio::test]
async fn delivery_is_seen_for_every_framing() {
    for response in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        for hold in [None, Some(LIMITS)] {
            let (gate, mut ended) = gate(serve_bytes(response).await, hold).await;
            let received = text(send(request("/"), &gate).await.unwrap()).await;
            assert!(["hello", ""].contains(&&*received));
            let end = timeout(LONG, ended.recv()).await.unwrap();
            assert_eq!(end, Some(BodyEnd::Complete), "{response} {hold:?}");
        }
    }
}

#[tokio::test]
async fn request_without_a_path_asks_for_the_root() {
    let upstream = serve(Router::new().route("/", get("root"))).await;
    let request = Request::get("http://a").body(Body::empty()).unwrap();
    let response = send(request, &upstream).await.unwrap();
    assert_eq!(text(response).await, "root");
}
