//! Request smuggling: the gate and its upstream never cut the same bytes into different requests.
//!
//! Each case is sent on a connection of its own to a free route, to a paid one with a payment, and
//! to a paid one without, and is followed by a second request. What the upstream received is read
//! by [`requests_in`], which accepts one reading only.

use futures::future::join_all;

use super::*;

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is answered 4xx, or not at all, and its upstream never hears of it.
    Refused,
    /// Its head is right, and its body is not: no upstream receives it as a whole.
    Cut,
    /// It has this body.
    Whole(&'static str),
}

use Fate::{Cut, Refused, Whole};

/// A body in one chunk.
const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";
const CHUNKED_FIELD: &str = "transfer-encoding: chunked\r\n";

/// Fields after the host, the body, and what may become of them.
fn cases() -> Vec<(String, String, Fate)> {
    let hello = |fields: &str, fate| (format!("{fields}\r\n"), "hello".to_owned(), fate);
    let chunked = |fields: &str, fate| (format!("{fields}\r\n"), CHUNKED.to_owned(), fate);
    let chunks = |body: &str, fate| (CHUNKED_FIELD.to_owned(), body.to_owned(), fate);
    let mut cases = vec![
        hello("content-length: 5", Whole("hello")),
        hello("Content-Length:5", Whole("hello")),
        hello("content-length: \t 5 ", Whole("hello")),
        hello("content-length: 5\r\ncontent-length: 5", Whole("hello")),
        hello(
            "content-length: 5\r\ntransfer_encoding: chunked",
            Whole("hello"),
        ),
        hello(
            "content-length: 5\r\nconnection: content-length",
            Whole("hello"),
        ),
        hello(
            "content-length: 5\r\nx-http-method-override: GET",
            Whole("hello"),
        ),
        // A bare LF ends a line, and is passed on to no one.
        hello("x: a\ncontent-length: 5", Whole("hello")),
        chunked("transfer-encoding: chunked", Whole("hello")),
        chunked("transfer-encoding: \tchunked\t", Whole("hello")),
        chunked("Transfer-ENCODING: Chunked", Whole("hello")),
        chunked(
            "transfer-encoding: chunked\r\nconnection: transfer-encoding",
            Whole("hello"),
        ),
        chunked(
            "transfer-encoding: identity\r\ntransfer-encoding: chunked",
            Whole("hello"),
        ),
        // RFC 9112, 6.3: the length in chunks counts, and the connection is closed.
        chunked(
            "content-length: 4\r\ntransfer-encoding: chunked",
            Whole("hello"),
        ),
        chunked(
            "transfer-encoding: chunked\r\ncontent-length: 4",
            Whole("hello"),
        ),
        chunked(
            "content-length: 0\r\ntransfer-encoding: chunked",
            Whole("hello"),
        ),
        chunked(
            "transfer-encoding: chunked\r\ncontent-length: x",
            Whole("hello"),
        ),
        chunked("x: a\ntransfer-encoding: chunked", Whole("hello")),
        chunks("00005\r\nhello\r\n0\r\n\r\n", Whole("hello")),
        chunks("3\r\nhel\r\n2\r\nlo\r\n000\r\n\r\n", Whole("hello")),
        chunks("5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n", Whole("hello")),
        chunks("5\r\nhello\r\n0;a\r\n\r\n", Whole("hello")),
        chunks(
            "5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n",
            Whole("hello"),
        ),
        chunks(
            "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
            Whole("hello"),
        ),
    ];
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 6\r\ncontent-length: 5",
        "content-length: 5\r\nContent-Length: 05x",
        "content-length: 5, 5",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5;a",
        "content-length: 5 5",
        "content-length: \"5\"",
        "content-length:",
        "content-length: 18446744073709551616",
        "content-length: 18446744073709551615",
        "content-length : 5",
        " content-length: 5",
        "content-length\t: 5",
        "content-length: 5\0",
        "content-length: 5\x0b",
        "content-length: 5\r\nx: a\0b",
        "content-length: 5\r\nx: a\rb",
        "content-length: 5\r\nx: a\r\rb: c",
        "content-length: 5\r\nx",
        "content-length: 5\r\n: a",
        "content-length: 5\r\nx\0: a",
        "content-length: 5\r\nx y: a",
        "content-length: 5\r\nx(: a",
    ] {
        cases.push(hello(fields, Refused));
    }
    for fields in [
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity",
        "transfer-encoding: chunked,",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunkedx",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: chun ked",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding:",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        " transfer-encoding: chunked",
        "x: a\r\n transfer-encoding: chunked",
        "x: a\r\n\ttransfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "content-length: 15\r\ntransfer-encoding: identity",
    ] {
        cases.push(chunked(fields, Refused));
    }
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5,\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhellox\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx y: a\r\n\r\n",
    ] {
        cases.push(chunks(body, Cut));
    }
    let endless = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000));
    cases.push(chunks(&endless, Cut));
    cases
}

/// A request as an upstream received it.
#[derive(Debug)]
struct Arrived {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    /// `None` if it breaks off.
    body: Option<Vec<u8>>,
}

/// The requests on a connection. Anything that a server may read otherwise is a failure.
fn requests_in(mut bytes: &[u8]) -> Vec<Arrived> {
    let mut taken = Vec::new();
    while !bytes.is_empty() {
        let end = position(bytes, b"\r\n\r\n").expect("a whole head");
        let head = str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let line: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let [method, target, "HTTP/1.1"] = line[..] else {
            panic!("{line:?}");
        };
        let fields: Vec<_> = lines.map(field_in).collect();
        bytes = &bytes[end + 4..];
        let of = |name: &str| {
            let mut values = fields.iter().filter(|field| field.0 == name);
            let value = values.next().map(|field| field.1.clone());
            assert!(values.next().is_none(), "{name} twice: {head}");
            value
        };
        let body = match (of("content-length"), of("transfer-encoding")) {
            (None, None) => Some(Vec::new()),
            (Some(length), None) => {
                assert!(length.bytes().all(|digit| digit.is_ascii_digit()), "{head}");
                let length: usize = length.parse().unwrap();
                take(&mut bytes, length)
            }
            (None, Some(coding)) => {
                assert_eq!(coding, "chunked", "{head}");
                chunks_in(&mut bytes)
            }
            both => panic!("two lengths: {both:?}"),
        };
        let is_cut = body.is_none();
        taken.push(Arrived {
            method: method.to_owned(),
            target: target.to_owned(),
            fields,
            body,
        });
        if is_cut {
            break;
        }
    }
    taken
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn field_in(line: &str) -> (String, String) {
    let (name, value) = line.split_once(": ").expect("a field");
    let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!(!name.is_empty() && name.bytes().all(is_token), "{line:?}");
    assert!(
        value.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "{line:?}"
    );
    (name.to_owned(), value.to_owned())
}

fn take(bytes: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken.to_vec())
}

/// A body in chunks, without extensions and trailers.
fn chunks_in(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = position(bytes, b"\r\n")?;
        let size = String::from_utf8(take(bytes, end)?).unwrap();
        assert!(
            size.bytes().all(|digit| digit.is_ascii_hexdigit()),
            "{size:?}"
        );
        assert_eq!(take(bytes, 2)?, b"\r\n");
        let size = usize::from_str_radix(&size, 16).unwrap();
        body.extend(take(bytes, size)?);
        assert_eq!(take(bytes, 2)?, b"\r\n", "after {size} bytes");
        if size == 0 {
            return Some(body);
        }
    }
}

/// The statuses of the responses in what was answered.
fn statuses(answered: &str) -> Vec<u16> {
    let heads = answered.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head[..3].parse().unwrap()).collect()
}

impl Shop {
    /// Sells everything but what is below `/free`.
    async fn with_free_part() -> Self {
        let routes = json!([{ "path": "/free/*", "gate": "free" }, { "path": "/*" }]);
        Self::with(json!({ "spec": { "routes": routes } }), |_| {}).await
    }

    /// What the upstream received.
    fn taken(&self) -> Vec<Arrived> {
        let received = self.upstream.received.lock().unwrap();
        received
            .iter()
            .flat_map(|bytes| requests_in(bytes))
            .collect()
    }
}

/// A request, and a second one right after it.
fn two_requests(road: &str, number: usize, fields: &str, body: &str) -> String {
    let path = match road {
        "free" => format!("/free/{number}"),
        _ => format!("/{road}/{number}"),
    };
    let payment = match road {
        "paid" => format!(
            "payment-signature: {}\r\n",
            payment(number.try_into().unwrap())
        ),
        _ => String::new(),
    };
    format!(
        "POST /services/chat{path} HTTP/1.1\r\nhost: a\r\n{payment}{fields}\r\n{body}\
         POST /services/chat/second HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn bytes_of_two_readings_never_become_a_request_that_no_one_paid() {
    let shop = Shop::with_free_part().await;
    let cases = cases();
    let mut sent = Vec::new();
    for road in ["free", "paid", "unpaid"] {
        for (number, (fields, body, _)) in cases.iter().enumerate() {
            sent.push((road, number, two_requests(road, number, fields, body)));
        }
    }
    let answered = join_all(sent.iter().map(async |(road, number, bytes)| {
        (*road, *number, shop.send_raw(bytes.as_bytes()).await)
    }));
    let answered = answered.await;
    let taken = shop.taken();
    let mut paid = 0;
    for (road, number, answered) in answered {
        let (fields, body, fate) = &cases[number];
        let shown = format!("{road} {fields:?} {body:?}: {answered:?}");
        let target = format!("/{road}/{number}");
        let own: Vec<_> = taken
            .iter()
            .filter(|taken| taken.target == target)
            .collect();
        let bodies: Vec<_> = own.iter().map(|taken| taken.body.as_deref()).collect();
        let statuses = statuses(&answered);
        let first = statuses.first().copied();
        match (*fate, road) {
            (Whole(body), "free" | "paid") => {
                assert_eq!(first, Some(200), "{shown}");
                assert_eq!(bodies, [Some(body.as_bytes())], "{shown}");
                assert_eq!(own[0].method, "POST", "{shown}");
                paid += usize::from(road == "paid");
            }
            (Whole(_), _) => {
                assert_eq!((first, bodies.len()), (Some(402), 0), "{shown}");
            }
            (Cut, "free") => {
                assert!(bodies.iter().all(Option::is_none), "{shown}");
                assert!(bodies.len() <= 1 && first != Some(200), "{shown}");
            }
            (Cut | Refused, _) => {
                assert_eq!(bodies.len(), 0, "{shown}");
                let is_refused = |status| (400..500).contains(&status);
                assert!(first.is_none_or(is_refused), "{shown}");
            }
        }
        // The second request is one of its own, or none.
        assert!(statuses.len() <= 2, "{shown}");
        assert!([None, Some(&402)].contains(&statuses.get(1)), "{shown}");
        if *fate != Refused || statuses.len() < 2 {
            continue;
        }
        panic!("a connection was used after bytes that no one understands: {shown}");
    }
    let known = |taken: &&Arrived| {
        let mut parts = taken.target.split('/').skip(1);
        let road = parts.next();
        let number = parts.next().and_then(|number| number.parse::<usize>().ok());
        ["free", "paid"].contains(&road.unwrap()) && number.is_some_and(|it| it < cases.len())
    };
    let unknown: Vec<_> = taken.iter().filter(|taken| !known(taken)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for taken in &taken {
        let has = |name: &str| taken.fields.iter().any(|field| field.0 == name);
        for name in [
            "trailer",
            "te",
            "x-http-method-override",
            "payment-signature",
        ] {
            assert!(!has(name), "{taken:?}");
        }
    }
    assert_eq!(shop.facilitator.count("/settle"), paid);
}

#[tokio::test]
async fn request_in_another_version_is_refused() {
    let shop = Shop::with_free_part().await;
    let target = "/services/chat/free/x";
    for line in [
        format!("POST {target} HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked"),
        format!("GET {target} HTTP/2.0\r\nhost: a"),
        format!("GET {target} HTTP/1.2\r\nhost: a"),
        format!("GET {target} HTTP/0.9\r\nhost: a"),
        format!("GET {target} http/1.1\r\nhost: a"),
        format!("GET {target}"),
        format!("GET {target} HTTP/1.1 HTTP/1.1\r\nhost: a"),
        format!("GET  {target} HTTP/1.1\r\nhost: a"),
        format!("GET\t{target}\tHTTP/1.1\r\nhost: a"),
        format!(" GET {target} HTTP/1.1\r\nhost: a"),
        format!("GET {target} HTTP/1.1\r\nhost: a\r\nhost: a"),
        format!("GET {target} HTTP/1.1\r\nhost: a\r\nhost: b"),
        format!("GET {target} HTTP/1.1\r\nx: a"),
    ] {
        let answered = shop
            .send_raw(format!("{line}\r\n\r\n{CHUNKED}").as_bytes())
            .await;
        let first = statuses(&answered).first().copied();
        assert!(
            first.is_none_or(|it| (400..600).contains(&it)),
            "{line}: {answered}"
        );
    }
    assert!(shop.taken().is_empty());
}

/// A SETTINGS frame, and a HEADERS frame that asks for a path in literals.
fn frames(path: &str) -> Vec<u8> {
    let mut fields = vec![0x82, 0x86];
    for (index, value) in [(4, path), (1, "a")] {
        fields.push(index);
        fields.push(value.len().try_into().unwrap());
        fields.extend_from_slice(value.as_bytes());
    }
    let length = u8::try_from(fields.len()).unwrap();
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    frames.extend([0, 0, length, 1, 5, 0, 0, 0, 1]);
    frames.extend(fields);
    frames
}

#[tokio::test]
async fn request_in_http2_without_tls_reaches_no_upstream() {
    let shop = Shop::with_free_part().await;
    for path in ["/v1", "/free/x"] {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frames(&format!("/services/chat{path}")));
        let answered = shop.send_raw(&bytes).await;
        assert!(!answered.contains("the answer"), "{answered:?}");
    }
    assert!(shop.taken().is_empty());
}

#[tokio::test]
async fn connection_that_asks_for_http2_stays_in_http1() {
    let shop = Shop::with_free_part().await;
    for (path, status) in [("/v1", 402), ("/free/x", 200)] {
        let mut bytes = format!(
            "GET /services/chat{path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\n\
             upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        bytes.extend(frames("/services/chat/v1"));
        let answered = shop.send_raw(&bytes).await;
        let seen = statuses(&answered);
        assert_eq!(seen.first(), Some(&status), "{answered:?}");
        assert!(
            seen[1..].iter().all(|status| *status == 400),
            "{answered:?}"
        );
    }
    let taken = shop.taken();
    assert_eq!(taken.len(), 1);
    let is_upgrade = |field: &(String, String)| field.0 == "upgrade" || field.0 == "connection";
    assert!(!taken[0].fields.iter().any(is_upgrade), "{taken:?}");
}
