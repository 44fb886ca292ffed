//! The client over real HTTP, against a facilitator that misbehaves as real ones do.

use std::path::Path;
use std::sync::{Arc, Mutex};

use alloy::primitives::{Address, U256};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::LOCATION;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::gate::wire::Version;
use crate::gate::wire::tests::{RESOURCE, payment, signer, terms};

const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

type Requests = Arc<Mutex<Vec<http::request::Parts>>>;

/// A facilitator that answers each request with the next response, and the last one indefinitely.
struct Double {
    endpoint: FacilitatorEndpoint,
    requests: Requests,
}

impl Double {
    async fn answering(responses: Vec<Response>) -> Self {
        let requests = Requests::default();
        let (received, responses) = (Arc::clone(&requests), Mutex::new(responses));
        let responses = Arc::new(responses);
        let handler = move |request: Request| {
            received.lock().unwrap().push(request.into_parts().0);
            let mut responses = responses.lock().unwrap();
            let response = (!responses.is_empty()).then(|| responses.remove(0));
            async move {
                match response {
                    Some(response) => response,
                    None => std::future::pending().await,
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x402/", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint: endpoint(&url),
            requests,
        }
    }

    fn paths(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let paths = requests.iter();
        paths
            .map(|request| format!("{} {}", request.method, request.uri))
            .collect()
    }
}

fn endpoint(url: &str) -> FacilitatorEndpoint {
    FacilitatorEndpoint {
        name: "base".into(),
        url: url.into(),
        auth: FacilitatorAuth::default(),
        verify_timeout: Duration::from_millis(600),
        settle_timeout: Duration::from_millis(300),
    }
}

fn question() -> Question {
    let payment = AskedPayment {
        payer: Address::ZERO,
        chain_id: 8453,
        amount: U256::from(2000),
    };
    let body = Bytes::from("{}");
    Question { payment, body }
}

fn client() -> FacilitatorClient {
    client_with(Path::new("/nonexistent"))
}

fn client_with(credentials: &Path) -> FacilitatorClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    FacilitatorClient::new(credentials.to_owned()).unwrap()
}

fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

fn json(status: u16, body: Value) -> Response {
    let headers = [("content-type", "application/json")];
    response(status, &headers, body.to_string())
}

fn valid() -> Response {
    json(200, json!({ "isValid": true }))
}

fn html(status: u16) -> Response {
    response(
        status,
        &[("content-type", "text/html")],
        "<h1>Bad Gateway</h1>",
    )
}

async fn verify(double: &Double) -> Verification {
    client().verify(&double.endpoint, &question()).await
}

async fn settle(double: &Double) -> Settlement {
    client().settle(&double.endpoint, &question()).await
}

fn success() -> Value {
    json!({ "success": true, "transaction": HASH, "network": "eip155:8453" })
}

#[tokio::test]
async fn calls_are_below_the_base_url() {
    let kinds = json!({ "kinds": [
        { "x402Version": 2, "scheme": "exact", "network": "eip155:8453" },
    ] });
    let double = Double::answering(vec![json(200, kinds), valid(), json(200, success())]).await;
    let supported = client().supported(&double.endpoint).await.unwrap();
    assert_eq!(supported.kinds_on(&["eip155:8453".into()]).len(), 1);
    assert_eq!(verify(&double).await, Verification::Valid);
    assert!(matches!(settle(&double).await, Settlement::Settled { .. }));
    assert_eq!(
        double.paths(),
        [
            "GET /x402/supported",
            "POST /x402/verify",
            "POST /x402/settle"
        ]
    );
    let requests = double.requests.lock().unwrap();
    assert_eq!(requests[1].headers[CONTENT_TYPE], "application/json");
    assert!(!requests[1].headers.contains_key(AUTHORIZATION));
}

#[tokio::test]
async fn verification_is_repeated_once_where_that_may_help() {
    let refused = || json(200, json!({ "isValid": false, "invalidReason": "expired" }));
    let is_valid = |found: &Verification| *found == Verification::Valid;
    for (first, requests, ends_valid) in [
        (html(502), 2, true),
        (response(429, &[], ""), 2, true),
        (response(429, &[("retry-after", "30")], ""), 1, false),
        (html(404), 1, false),
        (html(200), 1, false),
        (refused(), 1, false),
    ] {
        let status = first.status();
        let double = Double::answering(vec![first, valid()]).await;
        let found = verify(&double).await;
        assert_eq!(is_valid(&found), ends_valid, "{status}: {found:?}");
        assert_eq!(double.paths().len(), requests, "{status}");
    }
    let double = Double::answering(vec![html(502), html(502), valid()]).await;
    assert!(!is_valid(&verify(&double).await), "only once");
    let limited = response(429, &[("retry-after", "30")], "");
    let found = verify(&Double::answering(vec![limited]).await).await;
    let Verification::Unavailable { retry_after, .. } = found else {
        panic!("{found:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn facilitator_that_is_down_is_left_alone_until_it_may_be_back() {
    let mut responses: Vec<_> = (0..10).map(|_| html(503)).collect();
    responses.push(valid());
    responses.push(valid());
    let double = Double::answering(responses).await;
    let client = client();
    let verify = async || client.verify(&double.endpoint, &question()).await;
    for _ in 0..5 {
        assert_ne!(verify().await, Verification::Valid);
    }
    let asked = double.paths().len();
    assert_eq!(asked, 10, "each question twice");
    assert!(!client.are_up());
    let Verification::Unavailable { retry_after, .. } = verify().await else {
        panic!("it is not asked");
    };
    assert_eq!(double.paths().len(), asked);
    sleep(retry_after.unwrap()).await;
    assert!(!client.are_up(), "it has not answered yet");
    assert_eq!(verify().await, Verification::Valid);
    assert!(client.are_up());
    assert_eq!(verify().await, Verification::Valid);
}

#[tokio::test]
async fn facilitator_that_is_no_longer_used_is_not_down() {
    let double = Double::answering((0..10).map(|_| html(503)).collect()).await;
    let client = client();
    for _ in 0..4 {
        client.verify(&double.endpoint, &question()).await;
    }
    assert!(client.are_up(), "it may be the payments'");
    client.verify(&double.endpoint, &question()).await;
    client.retain(|url| url == double.endpoint.url);
    assert!(!client.are_up());
    client.retain(|_| false);
    assert!(client.are_up());
}

#[tokio::test]
async fn payment_at_which_a_facilitator_fails_keeps_no_other_from_being_asked_about() {
    let mut responses: Vec<_> = (0..20).map(|_| html(500)).collect();
    responses.push(valid());
    let double = Double::answering(responses).await;
    let client = client();
    for _ in 0..10 {
        let found = client.verify(&double.endpoint, &question()).await;
        assert_ne!(found, Verification::Valid);
    }
    let found = client.verify(&double.endpoint, &question()).await;
    assert_eq!(found, Verification::Valid);
}

#[tokio::test]
async fn facilitator_that_never_answers_takes_no_longer_than_its_time_limit() {
    let double = Double::answering(Vec::new()).await;
    let begun = Instant::now();
    let found = verify(&double).await;
    assert!(
        matches!(found, Verification::Unavailable { .. }),
        "{found:?}"
    );
    let found = settle(&double).await;
    assert!(matches!(found, Settlement::Unknown { .. }), "{found:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(double.paths().len(), 2, "neither is repeated");
}

#[tokio::test]
async fn hostile_answer_of_a_settlement_is_not_believed() {
    let mut huge = success();
    huge["zeroes"] = json!("0".repeat(ANSWER_BYTES));
    let text = success().to_string();
    let elsewhere = Double::answering(vec![json(200, success())]).await;
    let location = format!("{}settle", elsewhere.endpoint.url);
    let redirect = [(LOCATION.as_str(), &*location)];
    for (answer, has_hash) in [
        (html(502), false),
        (json(503, success()), true),
        (response(200, &[("content-type", "text/plain")], text), true),
        (response(200, &[], ""), false),
        (response(307, &redirect, ""), false),
        (json(200, huge), true),
        (
            json(
                500,
                json!({ "success": false, "errorReason": "unexpected_error" }),
            ),
            false,
        ),
    ] {
        let (status, length) = (answer.status(), answer.headers().len());
        let double = Double::answering(vec![answer, json(200, success())]).await;
        let found = settle(&double).await;
        let Settlement::Unknown { transaction, .. } = &found else {
            panic!("{status} with {length} headers: {found:?}");
        };
        assert_eq!(transaction.is_some(), has_hash, "{status}: {found:?}");
        assert_eq!(
            double.paths().len(),
            1,
            "{status}: a settlement is sent once"
        );
    }
    assert!(elsewhere.paths().is_empty(), "the redirect was followed");
}

#[tokio::test]
async fn failure_and_pending_settlement_are_read() {
    let body = |reason: &str, transaction: &str| json!({ "success": false, "errorReason": reason, "transaction": transaction });
    let responses = vec![
        json(200, body("settlement_pending", HASH)),
        json(200, success()),
        json(200, body("duplicate_settlement", "")),
        json(402, body("invalid_exact_evm_signature", "")),
    ];
    let double = Double::answering(responses).await;
    let transaction = || HASH.to_owned();
    let refused = |reason: &str| Settlement::Refused {
        reason: reason.to_owned(),
        transaction: None,
    };
    let pending = Settlement::Pending {
        transaction: Some(transaction()),
    };
    assert_eq!(settle(&double).await, pending);
    let settled = Settlement::Settled {
        transaction: transaction(),
        payer: None,
    };
    assert_eq!(settle(&double).await, settled);
    assert_eq!(settle(&double).await, refused("duplicate_settlement"));
    assert_eq!(
        settle(&double).await,
        refused("invalid_exact_evm_signature")
    );
}

#[tokio::test]
async fn answer_that_breaks_off_keeps_its_transaction() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // What is not read is lost with the connection, and the answer with it.
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n";
        let text = success().to_string();
        let answer = format!("{head}{}", &text[..text.len() - 1]);
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let found = client().settle(&endpoint(&url), &question()).await;
    let Settlement::Unknown { why, transaction } = found else {
        panic!("{found:?}");
    };
    assert_eq!(transaction.as_deref(), Some(HASH));
    assert!(why.contains("was cut off"), "{why}");
}

#[tokio::test]
async fn request_that_cannot_be_sent_is_not_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut without_key = endpoint("http://127.0.0.1:9");
    without_key.auth.type_ = FacilitatorAuthType::Header;
    for endpoint in [
        endpoint(&closed),
        endpoint("ftp://x402.example"),
        endpoint("https://user@x402.example"),
        endpoint("https://x402.example?a=b"),
        endpoint("x402"),
        without_key,
    ] {
        let found = client().settle(&endpoint, &question()).await;
        assert!(matches!(found, Settlement::NotSent { .. }), "{found:?}");
        let found = client().verify(&endpoint, &question()).await;
        assert!(
            matches!(found, Verification::Unavailable { .. }),
            "{found:?}"
        );
    }
    let lost = client().supported(&endpoint(&closed)).await.unwrap_err();
    assert_eq!(lost.reason(), "FacilitatorUnreachable");
    assert_eq!(lost.to_string(), "no connection can be opened");
}

/// A directory with one file for each key, as a Secret is mounted.
fn secret(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("facilitators-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    for (key, value) in files {
        std::fs::write(path.join(key), value).unwrap();
    }
    path
}

fn with_auth(endpoint: &FacilitatorEndpoint, auth: Value) -> FacilitatorEndpoint {
    FacilitatorEndpoint {
        auth: serde_json::from_value(auth).unwrap(),
        ..endpoint.clone()
    }
}

#[tokio::test]
async fn header_carries_the_credential_as_it_is_now() {
    let double = Double::answering(vec![valid(), valid(), valid()]).await;
    let directory = secret("header", &[("base", "Bearer one\n")]);
    let client = client_with(&directory);
    let auth = json!({ "type": "Header", "secretRef": { "key": "base" } });
    let named = json!({ "type": "Header", "header": "X-Api-Key", "secretRef": { "key": "base" } });
    let by_default = with_auth(&double.endpoint, auth);
    client.verify(&by_default, &question()).await;
    std::fs::write(directory.join("base"), "Bearer two\r\n").unwrap();
    client.verify(&by_default, &question()).await;
    client
        .verify(&with_auth(&double.endpoint, named), &question())
        .await;
    std::fs::remove_dir_all(&directory).unwrap();
    let requests = double.requests.lock().unwrap();
    assert_eq!(requests[0].headers[AUTHORIZATION], "Bearer one");
    assert_eq!(requests[1].headers[AUTHORIZATION], "Bearer two");
    assert_eq!(requests[2].headers["x-api-key"], "Bearer two");
}

#[tokio::test]
async fn credential_that_cannot_be_used_is_named_without_its_value() {
    let files = [
        ("base", "not JSON"),
        ("binary", "a\u{0}b"),
        ("..data", "hidden"),
    ];
    let directory = secret("unusable", &files);
    let client = client_with(&directory);
    let endpoint = endpoint("http://127.0.0.1:9");
    let mut errors = Vec::new();
    for (kind, key) in [
        ("Header", "other"),
        ("Header", "..data"),
        ("Header", "../base"),
        ("CdpJwt", "base"),
        ("Header", "binary"),
    ] {
        let auth = json!({ "type": kind, "secretRef": { "key": key } });
        let endpoint = with_auth(&endpoint, auth);
        errors.push(client.supported(&endpoint).await.unwrap_err());
    }
    std::fs::remove_dir_all(&directory).unwrap();
    for (error, key) in errors.iter().zip(["other", "..data", "../base"]) {
        assert_eq!(*error, FacilitatorError::CredentialMissing(key.into()));
    }
    let texts: Vec<String> = errors.iter().skip(3).map(ToString::to_string).collect();
    assert!(texts[0].contains("key base") && texts[0].contains("is not JSON with id and secret"));
    assert!(texts[1].contains("key binary") && texts[1].contains("is not the value of a header"));
}

#[tokio::test]
async fn token_names_the_request_that_carries_it() {
    let double = Double::answering(vec![valid()]).await;
    let key = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
    let key = key.unwrap();
    let key = key.as_ref();
    // Seed and public key, as they are in PKCS #8.
    let secret_key = [&key[16..48], &key[key.len() - 32..]].concat();
    let stored = json!({ "id": "k", "secret": data_encoding::BASE64.encode(&secret_key) });
    let directory = secret("token", &[("cdp", &stored.to_string())]);
    let auth = json!({ "type": "CdpJwt", "secretRef": { "key": "cdp" } });
    let endpoint = with_auth(&double.endpoint, auth);
    let found = client_with(&directory).verify(&endpoint, &question()).await;
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(found, Verification::Valid);
    let requests = double.requests.lock().unwrap();
    let token = requests[0].headers[AUTHORIZATION].to_str().unwrap();
    let claims = token
        .strip_prefix("Bearer ")
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap();
    let claims = data_encoding::BASE64URL_NOPAD
        .decode(claims.as_bytes())
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let host = endpoint.host().unwrap();
    assert_eq!(claims["uri"], format!("POST {host}/x402/verify"));
}

#[test]
fn question_is_about_the_payment_on_its_terms() {
    for version in [Version::V1, Version::V2] {
        let (payment, terms) = (payment(version), terms());
        let question = Question::of(&payment, &terms, RESOURCE);
        let expected = AskedPayment {
            payer: signer().address(),
            chain_id: terms.chain_id,
            amount: terms.amount,
        };
        assert_eq!(question.payment, expected);
        let body = facilitator_request(&payment, &terms, RESOURCE);
        assert_eq!(question.body, body);
    }
}

#[test]
fn endpoint_is_what_the_object_configures() {
    let facilitator = json!({
        "apiVersion": "obol.org/v1alpha1", "kind": "PaymentFacilitator",
        "metadata": { "name": "base" },
        "spec": {
            "networks": ["eip155:8453"], "allowedNamespaces": { "from": "All" },
            "remote": { "url": "https://x402.example/v2", "settleTimeoutSeconds": 90 },
        },
    });
    let facilitator = serde_json::from_value(facilitator).unwrap();
    let endpoint = FacilitatorEndpoint::of(&facilitator);
    assert_eq!(endpoint.name, "base");
    assert_eq!(endpoint.verify_timeout, Duration::from_secs(5));
    assert_eq!(endpoint.settle_timeout, Duration::from_secs(90));
    assert_eq!(endpoint.host().as_deref(), Some("x402.example"));
    let unusable = FacilitatorEndpoint {
        url: "x402".into(),
        ..endpoint
    };
    assert_eq!(unusable.host(), None);
}
