//! Spellings of paths, sent byte by byte: the path that the upstream sees is the one that was
//! matched, or the request is refused. No spelling of a paid path is free, and none of a free one
//! leads out of it.

use super::*;

/// What a request target is, in a shop where `/free/*` and `/docs` are free and all else is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Road {
    /// Free, with this target for the upstream.
    Free(&'static str),
    /// Paid, with this one.
    Paid(&'static str),
    /// 400: two servers may read it differently.
    Refused,
    /// No offer, or not unambiguously one of its routes.
    NotFound,
    /// The gate's own matter.
    Gate(u16),
}

use Road::{Free, Gate, NotFound, Paid, Refused};

/// Targets below the offer.
const BELOW: [(&str, Road); 88] = [
    ("/free/x", Free("/free/x")),
    ("/free/", Paid("/free/")),
    ("/free/x/", Free("/free/x/")),
    ("/docs", Free("/docs")),
    ("", Paid("/")),
    ("/", Paid("/")),
    ("/free", Paid("/free")),
    ("/freebie", Paid("/freebie")),
    ("/v1/free/x", Paid("/v1/free/x")),
    ("/docs/x", Paid("/docs/x")),
    ("/docsx", Paid("/docsx")),
    // Dot segments, and what servers take for them.
    ("/free/..", Refused),
    ("/free/.", Refused),
    ("/free/../v1", Refused),
    ("/free/./x", Refused),
    ("/free/x/../../v1", Refused),
    ("/free/%2e%2e/v1", Refused),
    ("/free/%2E%2e/v1", Refused),
    ("/free/.%2e/v1", Refused),
    ("/free/%2e./v1", Refused),
    ("/free/%2e/x", Refused),
    ("/free/..;/v1", Refused),
    ("/free/..;a=b/v1", Refused),
    ("/free/.;/x", Refused),
    ("/free/%2e%2e;/v1", Refused),
    ("/free/..%3b/v1", Refused),
    ("/free/%2e%2e%3Ba=b/v1", Refused),
    ("/free/...", Free("/free/...")),
    ("/free/.../v1", Free("/free/.../v1")),
    ("/free/x.", Free("/free/x.")),
    ("/free/x..", Free("/free/x..")),
    ("/free/..x", Free("/free/..x")),
    // Slashes.
    ("//free/x", Refused),
    ("/free//x", Refused),
    ("/free//v1", Refused),
    ("/free/x//", Refused),
    ("//v1", Refused),
    ("/free%2fx", Refused),
    ("/free%2Fx", Refused),
    ("/free/a%2f..%2f..%2fv1", Refused),
    ("/free/..%2fv1", Refused),
    ("/free\\..\\v1", Refused),
    ("/free/..\\v1", Refused),
    ("/free/%5c..%5cv1", Refused),
    ("/free%5Cx", Refused),
    // Escapes.
    ("/free/%78", Free("/free/x")),
    ("/%66ree/x", Free("/free/x")),
    ("/fre%65/%7e", Free("/free/~")),
    ("/d%6Fcs", Free("/docs")),
    ("/%76%31", Paid("/v1")),
    ("/free/a%20b", Free("/free/a%20b")),
    ("/free/%3a%3A", Free("/free/%3A%3A")),
    ("/free/%c3%a9", Free("/free/%C3%A9")),
    ("/free/%", Refused),
    ("/free/%2", Refused),
    ("/free/%zz", Refused),
    ("/free/%u002e%u002e/v1", Refused),
    ("/free/%%32%65", Refused),
    ("/free/%252e%252e/v1", Refused),
    ("/free/%252f", Refused),
    ("/free/%25%32%65", Refused),
    ("/%2566ree/x", Refused),
    ("/free/100%25", Free("/free/100%25")),
    ("/free/%00", Refused),
    ("/free/x%00.html", Refused),
    ("/free/%0d%0aX-Payment-Payer:%200x1", Refused),
    ("/free/%09", Refused),
    ("/free/%7f", Free("/free/%7F")),
    // Overlong UTF-8: a slash and a dot to lax decoders.
    ("/free/%c0%ae%c0%ae/v1", Refused),
    ("/free%c0%afx", Refused),
    ("/free/%c1%9cv1", Refused),
    ("/free/%e0%80%ae%e0%80%ae/v1", Refused),
    ("/free/%f0%80%80%af", Refused),
    // Parameters, and letters in another case.
    ("/free/x;a=b", Free("/free/x;a=b")),
    ("/free;a/v1", NotFound),
    ("/v1;a=/free/x", Paid("/v1;a=/free/x")),
    ("/docs;a", NotFound),
    ("/docs/", NotFound),
    ("/FREE/x", NotFound),
    ("/Docs", NotFound),
    ("/free/X", Free("/free/X")),
    ("/V1", Paid("/V1")),
    // What is no part of the path.
    ("/free/x?/../../v1", Free("/free/x?/../../v1")),
    (
        "/free/x?a=%2e%2e%2f&b=%00",
        Free("/free/x?a=%2e%2e%2f&b=%00"),
    ),
    ("/v1?/free/x", Paid("/v1?/free/x")),
    ("/v1#/free/x", Paid("/v1")),
    ("/free/x#/../v1", Free("/free/x")),
    ("/free/{x}\"|^`", Refused),
];

/// Other targets, with their methods.
const OTHERS: [(&str, Road); 42] = [
    // A prefix that is spelled otherwise is another one.
    ("GET /services/chat;a/free/x", NotFound),
    ("GET /services/CHAT/free/x", NotFound),
    ("GET /Services/chat/free/x", NotFound),
    ("GET /services/ch%61t/v1", Paid("/v1")),
    ("GET /services/chatfree/x", NotFound),
    ("GET /services/chat%2ffree/x", Refused),
    ("GET /services%2fchat/free/x", Refused),
    ("GET /services//chat/free/x", Refused),
    ("GET //services/chat/free/x", Refused),
    ("GET /services/./chat/free/x", Refused),
    ("GET /services/../services/chat/free/x", Refused),
    ("GET /services/chat/../chat/free/x", Refused),
    ("GET /agents/../services/chat/v1", Refused),
    ("GET /.well-known/../services/chat/v1", Refused),
    ("GET /services", NotFound),
    ("GET /services/", NotFound),
    ("GET /v1", NotFound),
    // The path of a shared host.
    ("GET /market/services/chat/free/x", Free("/free/x")),
    ("GET /market/services/chat/v1", Paid("/v1")),
    ("GET /market/../services/chat/free/x", Refused),
    ("GET /market//services/chat/free/x", Refused),
    ("GET /market%2fservices/chat/free/x", Refused),
    ("GET /markets/services/chat/free/x", NotFound),
    ("GET /market/market/services/chat/free/x", NotFound),
    // Absolute form.
    ("GET http://a/services/chat/free/x", Free("/free/x")),
    ("GET http://A/services/chat/v1", Paid("/v1")),
    ("GET http://a/services/chat/free/../v1", Refused),
    ("GET http://b/services/chat/free/x", Refused),
    ("GET http://a:80/services/chat/free/x", Refused),
    ("GET http://u@a/services/chat/free/x", Refused),
    ("GET http://a\\@b/services/chat/free/x", Refused),
    ("GET http:///services/chat/free/x", Refused),
    ("GET http://a", Gate(200)),
    // Authority form, asterisk form, and none of the forms.
    ("CONNECT a:80", Refused),
    ("CONNECT /services/chat/v1", Refused),
    ("GET a:80", Refused),
    ("GET *", Refused),
    ("OPTIONS *", Gate(204)),
    ("GET services/chat/free/x", Refused),
    ("GET ./services/chat/free/x", Refused),
    ("GET ?/services/chat/free/x", Refused),
    ("GET #/services/chat/free/x", Refused),
];

#[tokio::test]
async fn upstream_sees_the_path_that_was_matched_or_nothing() {
    let routes = json!([
        { "path": "/free/*", "gate": "free" },
        { "path": "/docs", "gate": "free" },
        { "path": "/*" },
    ]);
    let shop = Shop::with(json!({ "spec": { "routes": routes } }), |_| {}).await;
    let long = |length: usize| format!("GET /services/chat/free/{}", "a".repeat(length));
    let below = BELOW.map(|(path, road)| (format!("GET /services/chat{path}"), road));
    let others = OTHERS.map(|(line, road)| (line.to_owned(), road));
    let odd = [
        ("GET /services/chat/free/\u{e9}".to_owned(), Refused),
        ("GET /services/chat/free/\u{2215}v1".to_owned(), Refused),
        ("GET /services/chat/free/a b".to_owned(), Refused),
        ("GET /services/chat/free/a\tb".to_owned(), Refused),
        ("GET /services/chat/free/a\x0bb".to_owned(), Refused),
        ("GET /services/chat/free/a\0b".to_owned(), Refused),
        (long(8192), Refused),
    ];
    let mut nonces = 1..=u8::MAX;
    let mut wrong = Vec::new();
    for (line, road) in below.into_iter().chain(others).chain(odd) {
        let ask = async |payment: &str| {
            let asked = shop.upstream.count("");
            let bytes = format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{payment}\r\n");
            let answered = shop.send_raw(bytes.as_bytes()).await;
            let status = answered
                .get(9..12)
                .and_then(|status| status.parse::<u16>().ok());
            let seen = shop.upstream.asked.lock().unwrap();
            let seen = seen[asked..].iter().map(|parts| parts.uri.to_string());
            (status, seen.collect::<Vec<_>>())
        };
        let unpaid = match road {
            Free(target) => (Some(200), vec![target.to_owned()]),
            Paid(_) => (Some(402), vec![]),
            Refused => (Some(400), vec![]),
            NotFound => (Some(404), vec![]),
            Gate(status) => (Some(status), vec![]),
        };
        let seen = ask("").await;
        if seen != unpaid {
            wrong.push((line.clone(), seen));
        }
        let Paid(target) = road else {
            continue;
        };
        let payment = payment(nonces.next().unwrap());
        let paid = ask(&format!("payment-signature: {payment}\r\n")).await;
        if paid != (Some(200), vec![target.to_owned()]) {
            wrong.push((line, paid));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let (_, settled, _) = shop.calls();
    let paid = nonces.next().map_or(255, |next| next - 1);
    assert_eq!(settled, usize::from(paid));
}

#[tokio::test]
async fn path_that_is_longer_than_a_head_may_be_is_refused() {
    let shop = Shop::open().await;
    for length in [33_000, 70_000] {
        let path = "a".repeat(length);
        let bytes = format!("GET /services/chat/{path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let answered = shop.send_raw(bytes.as_bytes()).await;
        let is_refused = ["HTTP/1.1 414", "HTTP/1.1 431"]
            .iter()
            .any(|it| answered.starts_with(it));
        assert!(is_refused, "{answered:?}");
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}
