//! Decides which fields a request and a response keep on their way through the gate. Pure.
//!
//! An upstream may believe what it is sent: who paid, who the client is, and through which host it
//! came. So every field that says such a thing is removed and written from what the gate knows.
//! What a client gets carries no payment fields but the gate's own, and paid content is never
//! cached for others.
//!
//! This file must not read a payment: that is the matter of the wire format. [`super::path`] does
//! the same work for paths, and [`super::proxy`] carries the result.

use core::net::{IpAddr, SocketAddr};
use std::fmt::Write as _;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONNECTION, COOKIE, FORWARDED, HOST, ORIGIN, TE,
    UPGRADE, VARY,
};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::path::is_authority;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_OFFER: HeaderName = HeaderName::from_static("x-offer");
const X_PAYMENT_AMOUNT: HeaderName = HeaderName::from_static("x-payment-amount");
const X_PAYMENT_ASSET: HeaderName = HeaderName::from_static("x-payment-asset");
const X_PAYMENT_ID: HeaderName = HeaderName::from_static("x-payment-id");
const X_PAYMENT_NETWORK: HeaderName = HeaderName::from_static("x-payment-network");
const X_PAYMENT_PAYER: HeaderName = HeaderName::from_static("x-payment-payer");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Value of the fields that switch a connection to the one protocol that may pass.
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Fields of one connection (RFC 9110, 7.6.1), besides those that `Connection` names. `Trailer` is
/// none of them: trailers pass.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields by which a client could be taken for another one, or a request for another one. The
/// method and the path that a route was found by are those that the upstream must act on: a free
/// route must not lead to a paid one behind it. `Proxy` becomes a setting of CGI programs.
const ASSUMED: [&str; 12] = [
    "forwarded",
    "proxy",
    "settlement-overrides",
    "sign-in-with-x",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-verified-wallet",
];
const ASSUMED_PREFIXES: [&str; 4] = ["payment-", "x-forwarded-", "x-offer", "x-payment"];

/// Fields that caches obey before `Cache-Control`, besides those that end in its name.
const CACHE_FIELDS: [&str; 4] = ["expires", "pragma", "surrogate-control", "x-accel-expires"];

/// Fields of a response that a script of another origin may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, Retry-After, Location",
);
/// Fields that carry a payment.
const PAYMENT_FIELDS: [&str; 2] = ["payment-signature", "x-payment"];
/// Maximum names of fields that a preflight allows.
const MOST_ALLOWED: usize = 64;
/// How long a browser keeps the answer to a preflight, in seconds.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// How a request came to the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) client: IpAddr,
    /// Trusted proxies between the client and the gate, the nearest to the client first.
    pub(crate) proxies: Vec<IpAddr>,
    /// Scheme that the client used.
    pub(crate) scheme: Scheme,
    /// Host that the client named, with its port; empty only before HTTP/1.1.
    pub(crate) host: String,
}

/// Networks whose proxies may say for whom they ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(crate) const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Reads how a request came, from the address of the connection, the host that the request
    /// names, and its `X-Forwarded-*` fields as far as trusted proxies wrote them. `Forwarded` is
    /// not read: common proxies pass a client's own one on.
    pub(crate) fn forwarded(&self, peer: IpAddr, host: &str, headers: &HeaderMap) -> Forwarded {
        let mut client = peer.to_canonical();
        let mut proxies = Vec::new();
        let (mut scheme, mut host) = (Scheme::HTTP, host.to_owned());
        if self.trusts(client) {
            scheme = forwarded_scheme(headers);
            let named = elements(headers, &X_FORWARDED_HOST).next();
            if let Some(named) = named.filter(|named| is_authority(named)) {
                host = named.to_ascii_lowercase();
            }
            let chain: Vec<&str> = elements(headers, &X_FORWARDED_FOR).collect();
            // What an untrusted address claims is not read, nor what is before it.
            for claimed in chain.into_iter().rev() {
                let Some(next) = read_address(claimed).filter(|_| self.trusts(client)) else {
                    break;
                };
                proxies.push(client);
                client = next;
            }
            proxies.reverse();
        }
        Forwarded {
            client,
            proxies,
            scheme,
            host,
        }
    }
}

/// Elements of a field that is a list.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.map(|value| value.to_str().unwrap_or_default());
    texts.flat_map(|text| text.split(',').map(str::trim))
}

/// The scheme of the client: the first one, if several proxies named one. Some name the scheme of a
/// websocket.
fn forwarded_scheme(headers: &HeaderMap) -> Scheme {
    let named = elements(headers, &X_FORWARDED_PROTO).next();
    let is_secure = named.is_some_and(|named| {
        ["https", "wss"]
            .iter()
            .any(|secure| named.eq_ignore_ascii_case(secure))
    });
    if is_secure {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    }
}

/// An address with or without a port and brackets.
fn read_address(text: &str) -> Option<IpAddr> {
    let plain = text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

/// What the gate tells an upstream about a request.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamHeaders {
    /// Value of `Host`.
    pub(crate) host: String,
    /// Path of the offer, which the upstream does not see in the target.
    pub(crate) prefix: String,
    pub(crate) forwarded: Forwarded,
    /// The payment, on a paid route.
    pub(crate) payment: Option<PaymentHeaders>,
}

/// What the gate tells an upstream about a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PaymentHeaders {
    pub(crate) payer: String,
    pub(crate) network: String,
    pub(crate) amount: String,
    pub(crate) asset: String,
    pub(crate) id: String,
    /// Namespace and name of the offer.
    pub(crate) offer: String,
}

/// The fields of a request as the upstream gets them.
pub(crate) fn to_upstream(
    client: &HeaderMap,
    facts: &UpstreamHeaders,
    is_gated: bool,
) -> HeaderMap {
    let of_connection = named_by_connection(client);
    let is_kept = |name: &HeaderName| {
        let text = name.as_str();
        !is_hop_by_hop(name, &of_connection)
            && !is_assumed(text)
            // The client of the gate has its own: it waits for no permission to send a body.
            && text != "expect"
            // Some servers read `_` and `-` alike.
            && !text.contains('_')
            // Upstreams may refuse foreign origins; that is decided by the gate.
            && !(is_gated && (name == ORIGIN || text.starts_with("sec-fetch-")))
    };
    let mut headers = HeaderMap::with_capacity(client.len() + 16);
    for (name, value) in client.iter().filter(|(name, _)| is_kept(name)) {
        headers.append(name, value.clone());
    }
    join_cookies(&mut headers);
    keep_connection_options(client, &mut headers);
    set(&mut headers, HOST, &facts.host);
    set_forwarded(&mut headers, &facts.forwarded);
    if !facts.prefix.trim_matches('/').is_empty() {
        set(&mut headers, X_FORWARDED_PREFIX, &facts.prefix);
    }
    if let Some(payment) = &facts.payment {
        set(&mut headers, X_PAYMENT_PAYER, &payment.payer);
        set(&mut headers, X_PAYMENT_NETWORK, &payment.network);
        set(&mut headers, X_PAYMENT_AMOUNT, &payment.amount);
        set(&mut headers, X_PAYMENT_ASSET, &payment.asset);
        set(&mut headers, X_PAYMENT_ID, &payment.id);
        set(&mut headers, X_OFFER, &payment.offer);
        if !headers.contains_key(IDEMPOTENCY_KEY) {
            set(&mut headers, IDEMPOTENCY_KEY, &payment.id);
        }
    }
    headers
}

/// Sets a field, unless its value cannot be one.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn set_forwarded(headers: &mut HeaderMap, forwarded: &Forwarded) {
    let Forwarded {
        client,
        proxies,
        scheme,
        host,
    } = forwarded;
    let mut addresses = client.to_string();
    let mut standard = format!("for={};proto={scheme}", node(*client));
    if !host.is_empty() {
        set(headers, X_FORWARDED_HOST, host);
        let _ = write!(standard, ";host=\"{host}\"");
    }
    for proxy in proxies {
        let _ = write!(addresses, ", {proxy}");
        let _ = write!(standard, ", for={}", node(*proxy));
    }
    set(headers, X_FORWARDED_FOR, &addresses);
    set(headers, FORWARDED, &standard);
    set(headers, X_FORWARDED_PROTO, scheme.as_str());
    set(headers, X_REAL_IP, &client.to_string());
}

/// An address as `Forwarded` writes it (RFC 7239, 6).
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

/// HTTP/2 may split what HTTP/1.1 has as one field (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(AsRef::as_ref).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Says again what holds for the connection to the upstream too: that it may become a websocket, or
/// that trailers are understood.
fn keep_connection_options(client: &HeaderMap, headers: &mut HeaderMap) {
    if switches_to_websocket(client) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
    } else if elements(client, &TE).any(|option| option.eq_ignore_ascii_case("trailers")) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a message asks to switch its connection to a websocket, and to nothing else, or does so.
pub(crate) fn switches_to_websocket(headers: &HeaderMap) -> bool {
    let is_named = |name: &str| name.eq_ignore_ascii_case("upgrade");
    let mut protocols = elements(headers, &UPGRADE);
    let is_websocket = |name: &str| name.eq_ignore_ascii_case("websocket");
    elements(headers, &CONNECTION).any(is_named)
        && protocols.next().is_some_and(is_websocket)
        && protocols.next().is_none()
}

/// Names of the fields that belong to one connection because a message says so.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).into_iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.map(|name| HeaderName::from_bytes(name.trim_ascii()));
    names.filter_map(Result::ok).collect()
}

fn is_hop_by_hop(name: &HeaderName, of_connection: &[HeaderName]) -> bool {
    HOP_BY_HOP.contains(&name.as_str()) || of_connection.contains(name)
}

/// Whether a field says what only the gate may say.
fn is_assumed(name: &str) -> bool {
    let mut prefixes = ASSUMED_PREFIXES.iter();
    ASSUMED.contains(&name) || prefixes.any(|prefix| name.starts_with(prefix))
}

/// Changes the fields of an upstream's response to what the client gets. What a payment led to is for
/// one buyer, also where it was not charged.
pub(crate) fn from_upstream(headers: &mut HeaderMap, is_gated: bool) {
    let is_websocket = switches_to_websocket(headers);
    let of_connection = named_by_connection(headers);
    remove_if(headers, |name| {
        let text = name.as_str();
        is_hop_by_hop(name, &of_connection)
            || is_of_payment(text)
            || is_gated && text.starts_with("access-control-")
            || is_gated && (CACHE_FIELDS.contains(&text) || text.ends_with("-cache-control"))
    });
    if is_websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
    }
    if is_gated {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
}

/// Whether a response may have a field only from the gate.
fn is_of_payment(name: &str) -> bool {
    name.starts_with("payment-") || ["settlement-overrides", "x-payment-response"].contains(&name)
}

/// Removes from trailers, in either direction, what must not pass as a header field either.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_if(trailers, |name| {
        let text = name.as_str();
        is_hop_by_hop(name, &[])
            || is_assumed(text)
            || text.contains('_')
            || text.starts_with("access-control-")
    });
}

fn remove_if(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let removed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_removed(name))
        .cloned()
        .collect();
    for name in removed {
        headers.remove(name);
    }
}

/// Lets scripts of every origin read a response of a gated route. No cookie or other credential of
/// a browser is part of a payment, so none is allowed.
pub(crate) fn cors(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// Whether a browser asks if a script may send a request.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The fields that answer a preflight: the request may be sent, with the fields it asks for and a
/// payment. Whether the route has such a method shows when it is sent.
pub(crate) fn preflight(request: &HeaderMap) -> HeaderMap {
    let mut allowed: Vec<HeaderName> = PAYMENT_FIELDS.map(HeaderName::from_static).to_vec();
    for name in elements(request, &ACCESS_CONTROL_REQUEST_HEADERS) {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if allowed.len() < MOST_ALLOWED && !allowed.contains(&name) => {
                allowed.push(name);
            }
            _ => {}
        }
    }
    let allowed: Vec<&str> = allowed.iter().map(HeaderName::as_str).collect();
    let method = request.get(ACCESS_CONTROL_REQUEST_METHOD);
    let method = method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let mut headers = HeaderMap::new();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    set(
        &mut headers,
        ACCESS_CONTROL_ALLOW_METHODS,
        method.unwrap_or_default().as_str(),
    );
    set(
        &mut headers,
        ACCESS_CONTROL_ALLOW_HEADERS,
        &allowed.join(", "),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    headers.insert(
        VARY,
        HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields from lines like `name: value`.
    fn fields(lines: &[&str]) -> HeaderMap {
        let pair = |line: &&str| {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    /// Lines like `name: value`, sorted.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let mut lines: Vec<String> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn facts() -> UpstreamHeaders {
        UpstreamHeaders {
            host: "model.team".to_owned(),
            prefix: "/services/model".to_owned(),
            forwarded: Forwarded {
                client: address("192.0.2.1"),
                proxies: Vec::new(),
                scheme: Scheme::HTTP,
                host: "shop.example".to_owned(),
            },
            payment: None,
        }
    }

    fn payment() -> PaymentHeaders {
        PaymentHeaders {
            payer: "0xpayer".to_owned(),
            network: "eip155:84532".to_owned(),
            amount: "2000".to_owned(),
            asset: "0xasset".to_owned(),
            id: "0xid".to_owned(),
            offer: "team/model".to_owned(),
        }
    }

    /// What the gate writes into each request.
    const WRITTEN: [&str; 7] = [
        "forwarded: for=192.0.2.1;proto=http;host=\"shop.example\"",
        "host: model.team",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-host: shop.example",
        "x-forwarded-prefix: /services/model",
        "x-forwarded-proto: http",
        "x-real-ip: 192.0.2.1",
    ];

    /// The lines that an upstream gets besides what the gate writes.
    fn passed(client: &[&str], is_gated: bool) -> Vec<String> {
        let mut passed = lines(&to_upstream(&fields(client), &facts(), is_gated));
        for written in WRITTEN {
            let at = passed.iter().position(|line| line == written);
            passed.remove(at.unwrap());
        }
        passed
    }

    #[test]
    fn fields_of_a_connection_do_not_pass() {
        let client = [
            "connection: keep-alive, X-Secret,, \u{e9} ,te",
            "connection: x-other",
            "http2-settings: a",
            "keep-alive: timeout=5",
            "proxy-authorization: Basic a",
            "proxy-connection: keep-alive",
            "te: gzip",
            "transfer-encoding: chunked",
            "upgrade: h2c",
            "x-secret: 1",
            "x-other: 2",
            "trailer: x-sum",
            "accept: a",
            "accept: b",
        ];
        for is_gated in [false, true] {
            assert_eq!(
                passed(&client, is_gated),
                ["accept: a", "accept: b", "trailer: x-sum"]
            );
        }
    }

    #[test]
    fn client_cannot_say_what_only_the_gate_may_say() {
        let client = [
            "expect: 100-continue",
            "forwarded: for=a",
            "host: evil",
            "payment-identifier: a",
            "payment-signature: a",
            "proxy: http://evil",
            "settlement-overrides: a",
            "sign-in-with-x: a",
            "x-forwarded-for: 1.1.1.1",
            "x-forwarded-host: evil",
            "x-forwarded-port: 1",
            "x-forwarded-prefix: /evil",
            "x-forwarded-proto: https",
            "x-http-method-override: DELETE",
            "x-http-method: DELETE",
            "x-method-override: DELETE",
            "x-offer: evil/evil",
            "x-offer-name: evil",
            "x-original-url: /paid",
            "x-payment: a",
            "x-payment-payer: 0xevil",
            "x-payment_payer: 0xevil",
            "x_payment_payer: 0xevil",
            "x-real-ip: 1.1.1.1",
            "x-rewrite-url: /paid",
            "x-verified-wallet: 0xevil",
            "authorization: Bearer mine",
            "content-length: 3",
        ];
        for is_gated in [false, true] {
            assert_eq!(
                passed(&client, is_gated),
                ["authorization: Bearer mine", "content-length: 3"]
            );
        }
    }

    #[test]
    fn origin_passes_only_on_free_routes() {
        let client = ["origin: https://a", "sec-fetch-mode: cors"];
        assert_eq!(passed(&client, false), client);
        assert!(passed(&client, true).is_empty());
    }

    #[test]
    fn upstream_learns_who_paid() {
        let mut facts = facts();
        facts.payment = Some(payment());
        let paid = to_upstream(&fields(&["x-payment: a"]), &facts, true);
        let sent = lines(&paid);
        for line in [
            "idempotency-key: 0xid",
            "x-offer: team/model",
            "x-payment-amount: 2000",
            "x-payment-asset: 0xasset",
            "x-payment-id: 0xid",
            "x-payment-network: eip155:84532",
            "x-payment-payer: 0xpayer",
        ] {
            assert!(sent.iter().any(|sent| sent == line), "{line}");
        }
        assert_eq!(sent.len(), 7 + WRITTEN.len());
        let own = fields(&["idempotency-key: mine"]);
        assert_eq!(to_upstream(&own, &facts, true)[IDEMPOTENCY_KEY], "mine");
    }

    #[test]
    fn value_that_cannot_be_a_field_is_left_out() {
        let mut facts = facts();
        let payer = "a\r\nx-payment-amount: 9".to_owned();
        facts.payment = Some(PaymentHeaders { payer, ..payment() });
        let headers = to_upstream(&HeaderMap::new(), &facts, true);
        assert!(!headers.contains_key(X_PAYMENT_PAYER));
        assert_eq!(headers[X_PAYMENT_AMOUNT], "2000");
    }

    #[test]
    fn offer_at_the_root_of_its_host_has_no_prefix() {
        for prefix in ["", "/"] {
            let mut facts = facts();
            facts.prefix = prefix.to_owned();
            let headers = to_upstream(&HeaderMap::new(), &facts, false);
            assert!(!headers.contains_key(X_FORWARDED_PREFIX));
        }
    }

    #[test]
    fn chain_of_proxies_is_written_in_both_forms() {
        let mut facts = facts();
        facts.forwarded = Forwarded {
            client: address("2001:db8::1"),
            proxies: vec![address("10.0.0.1"), address("fd00::2")],
            scheme: Scheme::HTTPS,
            host: String::new(),
        };
        let headers = to_upstream(&HeaderMap::new(), &facts, false);
        assert_eq!(
            lines(&headers),
            [
                "forwarded: for=\"[2001:db8::1]\";proto=https, for=10.0.0.1, for=\"[fd00::2]\"",
                "host: model.team",
                "x-forwarded-for: 2001:db8::1, 10.0.0.1, fd00::2",
                "x-forwarded-prefix: /services/model",
                "x-forwarded-proto: https",
                "x-real-ip: 2001:db8::1",
            ]
        );
    }

    #[test]
    fn cookies_become_one_field() {
        let cookies = |client: &[&str]| passed(client, true);
        assert_eq!(cookies(&["cookie: a=1"]), ["cookie: a=1"]);
        assert_eq!(
            cookies(&["cookie: a=1", "cookie: b=\u{e9}", "cookie: c"]),
            ["cookie: a=1; b=\u{e9}; c"]
        );
    }

    #[test]
    fn only_a_websocket_or_trailers_are_asked_for() {
        let websocket = ["connection: upgrade", "upgrade: websocket"];
        assert_eq!(
            passed(
                &[
                    "connection: keep-alive, Upgrade",
                    "upgrade: WebSocket",
                    "te: trailers"
                ],
                true
            ),
            websocket
        );
        for client in [
            &["upgrade: websocket"][..],
            &["connection: close", "upgrade: websocket"],
            &["connection: upgrade"],
            &["connection: upgrade", "upgrade: h2c"],
            &["connection: upgrade", "upgrade: websocket, h2c"],
            &["connection: upgrade", "upgrade: websocket", "upgrade: h2c"],
        ] {
            assert!(passed(client, true).is_empty(), "{client:?}");
        }
        let trailers = ["connection: te", "te: trailers"];
        assert_eq!(passed(&["te: gzip, Trailers"], true), trailers);
    }

    /// The lines of a response after the gate.
    fn answered(upstream: &[&str], is_gated: bool) -> Vec<String> {
        let mut headers = fields(upstream);
        from_upstream(&mut headers, is_gated);
        lines(&headers)
    }

    #[test]
    fn response_keeps_nothing_that_only_the_gate_may_say() {
        let upstream = [
            "access-control-allow-origin: https://a",
            "cache-control: public, max-age=60",
            "connection: close, x-hop",
            "content-type: text/plain",
            "keep-alive: timeout=5",
            "payment-required: a",
            "payment-response: a",
            "settlement-overrides: a",
            "trailer: x-sum",
            "transfer-encoding: chunked",
            "upgrade: h2c",
            "x-hop: 1",
            "x-payment-response: a",
        ];
        let kept = ["content-type: text/plain", "trailer: x-sum"];
        let gated = [&["cache-control: private, no-store"], &kept[..]].concat();
        let own = [
            "access-control-allow-origin: https://a",
            "cache-control: public, max-age=60",
        ];
        assert_eq!(answered(&upstream, true), gated);
        assert_eq!(answered(&upstream, false), [&own[..], &kept].concat());
    }

    #[test]
    fn response_of_a_gated_route_is_not_cached() {
        let upstream = [
            "cache-control: max-age=60",
            "cache-control: public",
            "cdn-cache-control: max-age=60",
            "etag: \"a\"",
            "expires: a",
            "pragma: a",
            "surrogate-control: a",
            "x-accel-expires: 60",
        ];
        let gated = ["cache-control: private, no-store", "etag: \"a\""];
        assert_eq!(answered(&upstream, true), gated);
        assert_eq!(answered(&upstream, false), upstream);
        assert_eq!(answered(&[], true), gated[..1]);
    }

    #[test]
    fn response_may_switch_to_a_websocket() {
        let upstream = [
            "connection: Upgrade",
            "sec-websocket-accept: a",
            "upgrade: WebSocket",
        ];
        let expected = [
            "connection: upgrade",
            "sec-websocket-accept: a",
            "upgrade: websocket",
        ];
        assert_eq!(answered(&upstream, false), expected);
    }

    #[test]
    fn trailers_say_nothing_that_a_field_may_not_say() {
        let mut trailers = fields(&[
            "access-control-allow-origin: a",
            "connection: close",
            "grpc-status: 0",
            "payment-response: a",
            "x-payment-payer: a",
            "x_payment_payer: a",
            "x-sum: 1",
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(lines(&trailers), ["grpc-status: 0", "x-sum: 1"]);
    }

    #[test]
    fn scripts_may_read_a_gated_response() {
        let mut headers = fields(&["access-control-allow-origin: https://a"]);
        cors(&mut headers);
        assert_eq!(
            lines(&headers),
            [
                "access-control-allow-origin: *",
                "access-control-expose-headers: PAYMENT-REQUIRED, PAYMENT-RESPONSE, \
                 X-PAYMENT-RESPONSE, Retry-After, Location",
            ]
        );
    }

    #[test]
    fn preflight_differs_from_other_options() {
        let both = ["origin: https://a", "access-control-request-method: POST"];
        let is = |method, lines: &[&str]| is_preflight(&method, &fields(lines));
        assert!(is(Method::OPTIONS, &both));
        assert!(!is(Method::GET, &both));
        assert!(!is(Method::OPTIONS, &both[..1]));
        assert!(!is(Method::OPTIONS, &both[1..]));
    }

    #[test]
    fn preflight_allows_what_is_asked_for_and_a_payment() {
        let headers = preflight(&fields(&[
            "access-control-request-method: PUT",
            "access-control-request-headers: Content-Type,x-a, X-Payment, a b",
            "access-control-request-headers: x-a, x-b,",
            "access-control-request-headers: \u{e9}",
        ]));
        assert_eq!(
            lines(&headers),
            [
                "access-control-allow-headers: payment-signature, x-payment, content-type, \
                 x-a, x-b",
                "access-control-allow-methods: PUT",
                "access-control-allow-origin: *",
                "access-control-max-age: 600",
                "vary: Access-Control-Request-Method, Access-Control-Request-Headers",
            ]
        );
    }

    #[test]
    fn preflight_allows_a_bounded_number_of_fields() {
        let many: Vec<String> = (0..100).map(|number| format!("x-{number}")).collect();
        let line = format!("access-control-request-headers: {}", many.join(","));
        let headers = preflight(&fields(&["access-control-request-method: \u{e9}", &line]));
        let allowed = headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        assert_eq!(allowed.split(", ").count(), MOST_ALLOWED);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET");
    }

    fn trusted() -> TrustedProxies {
        let networks = ["10.0.0.0/8", "fd00::/8"];
        TrustedProxies::new(networks.map(|network| network.parse().unwrap()).to_vec())
    }

    /// Client, proxies, scheme and host of a request from an address.
    fn seen(peer: &str, headers: &[&str]) -> (String, Vec<String>, String, String) {
        let forwarded = trusted().forwarded(address(peer), "gate", &fields(headers));
        (
            forwarded.client.to_string(),
            forwarded.proxies.iter().map(ToString::to_string).collect(),
            forwarded.scheme.to_string(),
            forwarded.host,
        )
    }

    #[test]
    fn untrusted_peer_is_the_client() {
        let claims = [
            "x-forwarded-for: 192.0.2.9",
            "x-forwarded-host: evil",
            "x-forwarded-proto: https",
        ];
        let expected = |client: &str| {
            (
                client.to_owned(),
                vec![],
                "http".to_owned(),
                "gate".to_owned(),
            )
        };
        assert_eq!(seen("192.0.2.1", &claims), expected("192.0.2.1"));
        assert_eq!(seen("::ffff:192.0.2.1", &claims), expected("192.0.2.1"));
        let none = TrustedProxies::default();
        let forwarded = none.forwarded(address("10.0.0.1"), "gate", &fields(&claims));
        assert_eq!(forwarded.client, address("10.0.0.1"));
    }

    #[test]
    fn client_is_the_last_address_that_a_trusted_proxy_saw() {
        let client = |peer: &str, chain: &[&str]| {
            let chain: Vec<String> = chain
                .iter()
                .map(|addresses| format!("x-forwarded-for: {addresses}"))
                .collect();
            let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
            let (client, proxies, ..) = seen(peer, &chain);
            [vec![client], proxies].concat().join(" ")
        };
        for (peer, chain, expected) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1 10.0.0.1"),
            ("::ffff:10.0.0.1", &["192.0.2.1"], "192.0.2.1 10.0.0.1"),
            (
                "10.0.0.1",
                &["198.51.100.7, 192.0.2.1"],
                "192.0.2.1 10.0.0.1",
            ),
            ("10.0.0.1", &["10.9.9.9, 192.0.2.1"], "192.0.2.1 10.0.0.1"),
            (
                "10.0.0.1",
                &["198.51.100.7,192.0.2.1", "10.0.0.2"],
                "192.0.2.1 10.0.0.2 10.0.0.1",
            ),
            (
                "10.0.0.1",
                &["10.0.0.3, 10.0.0.2"],
                "10.0.0.3 10.0.0.2 10.0.0.1",
            ),
            ("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1, \u{e9}"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1, "], "10.0.0.1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1 fd00::1"),
            ("fd00::1", &["[2001:db8::1]"], "2001:db8::1 fd00::1"),
            ("fd00::1", &["[2001:db8::1]:443"], "2001:db8::1 fd00::1"),
            ("fd00::1", &["192.0.2.1:443"], "192.0.2.1 fd00::1"),
        ] {
            assert_eq!(client(peer, chain), expected, "{peer} {chain:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_those_that_the_client_used() {
        let seen = |headers: &[&str]| {
            let (_, _, scheme, host) = seen("10.0.0.1", headers);
            (scheme, host)
        };
        for (proto, expected) in [
            ("https", "https"),
            ("HTTPS", "https"),
            ("wss", "https"),
            ("ws", "http"),
            ("http", "http"),
            ("https, http", "https"),
            ("ftp", "http"),
        ] {
            let line = format!("x-forwarded-proto: {proto}");
            assert_eq!(seen(&[&line]).0, expected, "{proto}");
        }
        for (named, expected) in [
            ("Shop.Example:8443", "shop.example:8443"),
            ("shop.example, inner", "shop.example"),
            ("", "gate"),
            ("a\"b", "gate"),
            ("user@a", "gate"),
        ] {
            let line = format!("x-forwarded-host: {named}");
            assert_eq!(seen(&[&line]).1, expected, "{named}");
        }
        assert_eq!(seen(&[]), ("http".to_owned(), "gate".to_owned()));
    }
}
