//! An endpoint over real HTTP, against a server that misbehaves as real nodes do.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, Bytes, U256, address};
use alloy::sol_types::{SolEvent, SolValue};
use rpc_proxy::{Untrusted, UntrustedServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::refusal::Refusal;
use super::rpc::{SendOutcome, UrlError};
use super::{AuthorizedTransfer, Block, FeeMarket, RpcEndpoint, RpcError, TokenReading, abi};
use crate::api::Nonce;
use crate::leader::Fence;
use crate::metrics::Metrics;

const REGISTRY: Address = address!("8004A818BFB912233c491871b3d84c89A494BD9e");
const OWNER: Address = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
const OTHER: Address = address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
const LATEST: BlockNumberOrTag = BlockNumberOrTag::Latest;

/// What the server does with a request.
enum Reply {
    /// Answers each call, or the whole batch with a JSON-RPC body of its own.
    Body(Value),
    Http(u16, &'static [(&'static str, &'static str)], String),
    /// Answers with this many bytes.
    Bytes(usize),
    Hang,
    Close,
}

type Handler = dyn Fn(&Value) -> Reply + Send + Sync;

struct Server {
    endpoint: RpcEndpoint,
    metrics: Metrics,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    async fn start(handler: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("", handler).await
    }

    async fn start_at(
        path: &str,
        handler: impl Fn(&Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let handler: Arc<Handler> = Arc::new(handler);
        let received = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&received)));
            }
        });
        let metrics = Metrics::new("lease").unwrap();
        Self {
            endpoint: RpcEndpoint::new(&url, metrics.chain.clone()).unwrap(),
            metrics,
            requests,
        }
    }

    /// A server that answers each call with its result, or with its error.
    async fn answering(
        answer: impl Fn(&str, &Value) -> Result<Value, Value> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| Reply::Body(each(request, &answer))).await
    }

    /// Number of calls in each request.
    fn sizes(&self) -> Vec<usize> {
        let requests = self.requests.lock().unwrap();
        let size = |request: &Value| request.as_array().map_or(1, Vec::len);
        requests.iter().map(size).collect()
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, received: Arc<Mutex<Vec<Value>>>) {
    while let Some(request) = read_request(&mut stream).await {
        received.lock().unwrap().push(request.clone());
        let (status, headers, body) = match handler(&request) {
            Reply::Body(body) => (200, &[][..], body.to_string()),
            Reply::Http(status, headers, body) => (status, headers, body),
            Reply::Bytes(bytes) => (200, &[][..], "x".repeat(bytes)),
            Reply::Hang => std::future::pending().await,
            Reply::Close => return,
        };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        // The client may have stopped reading.
        if stream.write_all(head.as_bytes()).await.is_err()
            || stream.write_all(body.as_bytes()).await.is_err()
        {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let (_, length) = head.split_once("content-length: ")?;
        let length: usize = length.lines().next()?.trim().parse().ok()?;
        if body.len() >= length {
            return serde_json::from_str(body).ok();
        }
    }
}

/// Answers each call of a request; a batch backwards and with ids as strings.
fn each(request: &Value, answer: &dyn Fn(&str, &Value) -> Result<Value, Value>) -> Value {
    let one = |call: &Value, id: Value| {
        let method = call["method"].as_str().unwrap();
        match answer(method, &call["params"]) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result, "error": null }),
            Err(error) => json!({ "id": id, "error": error }),
        }
    };
    match request {
        Value::Array(calls) => calls
            .iter()
            .rev()
            .map(|call| one(call, json!(call["id"].to_string())))
            .collect(),
        call => one(call, call["id"].clone()),
    }
}

fn error(code: i64, message: &str) -> Result<Value, Value> {
    Err(json!({ "code": code, "message": message }))
}

fn block(number: u64) -> Value {
    json!({
        "number": format!("{number:#x}"),
        "hash": B256::with_last_byte(number as u8),
        "timestamp": format!("{:#x}", 1000 + number),
        "baseFeePerGas": "0x7",
    })
}

/// A chain whose latest block is 9 and whose last finalized one is 7.
fn node(method: &str, params: &Value) -> Result<Value, Value> {
    Ok(match method {
        "eth_chainId" => json!("0x7a69"),
        "eth_getBlockByNumber" => match params[0].as_str().unwrap() {
            "latest" => block(9),
            "finalized" => block(7),
            number => block(u64::from_str_radix(&number[2..], 16).unwrap()),
        },
        "eth_getCode" if params[0] == json!(REGISTRY) => json!("0x60"),
        "eth_getCode" => json!("0x"),
        "eth_getStorageAt" => json!(B256::left_padding_from(OTHER.as_slice())),
        "eth_call" => json!(Bytes::from("2.0.0".to_owned().abi_encode())),
        "eth_getTransactionCount" => match params[1].as_str().unwrap() {
            "latest" => json!("0x5"),
            "pending" => json!("0x6"),
            _ => json!("0x4"),
        },
        "eth_getBalance" => json!("0xde0b6b3a7640000"),
        "eth_estimateGas" if params[1] == "latest" => json!("0x5208"),
        _ => return error(-32601, "method not found"),
    })
}

#[tokio::test]
async fn only_scheme_host_and_port_of_a_url_are_shown() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = Metrics::new("lease").unwrap().chain;
    let url = "https://user:hunter22@rpc.example:8443/v3/0123456789abcdef?key=sesame";
    let endpoint = RpcEndpoint::new(url, metrics).unwrap();
    assert_eq!(endpoint.to_string(), "https://rpc.example:8443");
    assert_eq!(
        format!("{endpoint:?}"),
        "RpcEndpoint(\"https://rpc.example:8443\")"
    );
}

#[tokio::test]
async fn only_absolute_http_urls_are_accepted() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = Metrics::new("lease").unwrap().chain;
    for url in [
        "",
        "rpc.example",
        "ftp://rpc.example",
        "file:///etc/passwd",
        "http://",
    ] {
        let refused = RpcEndpoint::new(url, metrics.clone()).unwrap_err();
        assert_eq!(refused, UrlError, "{url}");
    }
    assert!(
        RpcEndpoint::new(" http://rpc.example\n", metrics).is_ok(),
        "a Secret often ends with a newline"
    );
}

#[tokio::test]
async fn words_of_the_endpoint_are_repeated_without_credentials() {
    let message = "no project 0123456789abcdef\n(key=sesame) at /v3/0123456789abcdef?key=sesame";
    let server = Server::start_at("/v3/0123456789abcdef?key=sesame", move |request| {
        Reply::Body(each(request, &|_, _| error(-32000, message)))
    })
    .await;
    let error = server
        .endpoint
        .transaction_count_at(OWNER, BlockNumberOrTag::Latest)
        .await
        .unwrap_err();
    assert_eq!(
        error,
        RpcError::RpcRefused {
            call: "eth_getTransactionCount",
            refusal: Refusal::Other,
            message: "no project ***(***) at ***?***".to_owned(),
        }
    );
    let health = format!("{:?}", server.endpoint.health());
    for secret in ["0123456789abcdef", "sesame"] {
        assert!(!format!("{error:?} {error} {health}").contains(secret));
    }
}

#[tokio::test]
async fn error_names_the_cause_but_not_the_url() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = Metrics::new("lease").unwrap().chain;
    let url = "http://127.0.0.1:1/v3/0123456789abcdef";
    let endpoint = RpcEndpoint::new(url, metrics).unwrap();
    let error = endpoint
        .transaction_count_at(OWNER, BlockNumberOrTag::Latest)
        .await
        .unwrap_err();
    assert_eq!(
        error,
        RpcError::RpcUnreachable {
            call: "eth_getTransactionCount",
            cause: "could not connect"
        }
    );
    assert!(!error.to_string().contains("0123456789abcdef"));
    assert!(!error.narrows_range());
}

#[tokio::test]
async fn endpoint_without_tls_is_named() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = connection.write_all(answer).await;
        }
    });
    let metrics = Metrics::new("lease").unwrap().chain;
    let endpoint = RpcEndpoint::new(&url, metrics).unwrap();
    let error = endpoint.head().await.unwrap_err();
    assert!(
        error.to_string().contains("the TLS handshake failed"),
        "{error}"
    );
}

#[tokio::test]
async fn untrusted_certificate_is_named() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for untrusted in [Untrusted::SelfSigned, Untrusted::UnknownAuthority] {
        let host = Ipv4Addr::LOCALHOST.into();
        let server = UntrustedServer::start(host, untrusted).await.unwrap();
        let metrics = Metrics::new("lease").unwrap().chain;
        let endpoint = RpcEndpoint::new(&server.url(), metrics).unwrap();
        let error = endpoint.head().await.unwrap_err().to_string();
        let says = |words: &str| error.contains(words);
        assert!(
            says("certificate is not trusted (self-signed") && says("from a public authority"),
            "{untrusted:?}: {error}"
        );
    }
}

#[tokio::test]
async fn questions_are_one_batch_each() {
    let server = Server::answering(node).await;
    let endpoint = &server.endpoint;
    let head = endpoint.head().await.unwrap();
    let expected = |number: u64| Block {
        number,
        hash: B256::with_last_byte(number as u8),
        timestamp: 1000 + number,
        base_fee: Some(7),
    };
    assert_eq!(
        (head.latest, head.finalized),
        (expected(9), Some(expected(7)))
    );
    let identity = endpoint.identity(REGISTRY).await.unwrap();
    assert_eq!(
        (identity.chain_id, identity.genesis),
        (31337, Some(B256::ZERO))
    );
    assert!(identity.code_hash.is_some());
    assert_eq!(
        (identity.implementation, identity.version.as_deref()),
        (Some(OTHER), Some("2.0.0"))
    );
    let account = endpoint.account(OWNER, 7).await.unwrap();
    let counts = account.counts;
    assert_eq!(
        (counts.finalized, counts.latest, counts.pending),
        (Nonce(4), Nonce(5), Nonce(6))
    );
    assert_eq!(
        (account.balance, account.has_code),
        (1_000_000_000_000_000_000, false)
    );
    assert_eq!(server.sizes(), [2, 7, 5]);
    let block = endpoint.block(BlockNumberOrTag::Number(3)).await.unwrap();
    assert_eq!(block, Some(expected(3)));
    let gas = endpoint.estimate_gas(OWNER, REGISTRY, Bytes::new()).await;
    assert_eq!(gas, Ok(21_000));
}

#[tokio::test]
async fn finality_that_is_refused_is_unknown() {
    for message in [
        "invalid block number: finalized",
        "Unknown block",
        "method not found",
    ] {
        let server = Server::answering(move |method, params| {
            if params[0] == "finalized" {
                return error(-32602, message);
            }
            node(method, params)
        })
        .await;
        let head = server.endpoint.head().await.unwrap();
        assert_eq!((head.latest.number, head.finalized), (9, None), "{message}");
    }
    let limited = Server::answering(|method, params| {
        if params[0] == "finalized" {
            return error(-32005, "rate limit exceeded");
        }
        node(method, params)
    })
    .await;
    let refused = limited.endpoint.head().await.unwrap_err();
    assert_eq!(refused.reason(), "RpcRateLimited");
}

#[tokio::test]
async fn finalized_block_above_the_latest_is_the_latest() {
    let server = Server::answering(|method, params| {
        if params[0] == "finalized" {
            return Ok(block(12));
        }
        node(method, params)
    })
    .await;
    let head = server.endpoint.head().await.unwrap();
    assert_eq!(Some(head.latest), head.finalized);
}

#[tokio::test]
async fn identity_tolerates_what_not_every_node_has() {
    let server = Server::answering(|method, params| match method {
        "eth_getStorageAt" => error(-32601, "method not found"),
        "eth_getBlockByNumber" => error(4444, "pruned history unavailable"),
        "eth_getCode" => Ok(json!("0x")),
        "eth_call" => error(-32000, "execution reverted"),
        method => node(method, params),
    })
    .await;
    let identity = server.endpoint.identity(REGISTRY).await.unwrap();
    assert_eq!(
        (identity.chain_id, identity.genesis, identity.code_hash),
        (31337, None, None)
    );
    assert_eq!((identity.implementation, identity.version), (None, None));
    assert!(server.endpoint.health().is_healthy());
}

#[tokio::test]
async fn token_describes_itself_as_far_as_it_can() {
    let selector = |params: &Value| params[0]["data"].as_str().unwrap().to_owned();
    let server = Server::answering(move |method, params| match method {
        "eth_call" if selector(params) == "0x06fdde03" => {
            Ok(json!(Bytes::from("USDC".abi_encode())))
        }
        "eth_call" if selector(params) == "0x313ce567" => {
            Ok(json!(Bytes::from(U256::from(6).abi_encode())))
        }
        "eth_call" if selector(params) == "0x3644e515" => Ok(json!("0x")),
        "eth_call" => error(-32000, "execution reverted"),
        method => node(method, params),
    })
    .await;
    let expected = TokenReading {
        chain_id: 31337,
        name: Some("USDC".into()),
        version: None,
        decimals: Some(6),
        domain_separator: None,
    };
    assert_eq!(server.endpoint.token(REGISTRY).await, Ok(expected));

    let down = Server::start(|_| Reply::Close).await;
    assert!(down.endpoint.token(REGISTRY).await.is_err());
}

#[tokio::test]
async fn authorization_is_used_only_if_the_token_of_the_chain_says_so() {
    let used = |answer: Value| async move {
        let server = Server::answering(move |method, params| match method {
            "eth_call" => Ok(answer.clone()),
            method => node(method, params),
        })
        .await;
        let used = |chain_id| {
            let endpoint = server.endpoint.clone();
            async move {
                let used =
                    endpoint.authorization_used(chain_id, REGISTRY, OWNER, B256::ZERO, LATEST);
                used.await.unwrap()
            }
        };
        (used(31337).await, used(1).await)
    };
    let word = |word: bool| json!(Bytes::from(word.abi_encode()));
    assert_eq!(used(word(true)).await, (Some(true), None));
    assert_eq!(used(word(false)).await, (Some(false), None));
    assert_eq!(used(json!("0x")).await, (None, None));

    let down = Server::start(|_| Reply::Close).await;
    let used = down
        .endpoint
        .authorization_used(31337, REGISTRY, OWNER, B256::ZERO, LATEST);
    assert!(used.await.is_err());
}

#[tokio::test]
async fn transfer_is_looked_for_in_the_latest_blocks_of_its_chain() {
    let transfer = AuthorizedTransfer {
        from: OWNER,
        to: OTHER,
        value: U256::from(2000),
        nonce: B256::repeat_byte(7),
    };
    let event = |signature, last| log(&[signature, word(OWNER), last], Bytes::new(), 3);
    let mut moved = event(abi::Transfer::SIGNATURE_HASH, word(OTHER));
    moved["data"] = json!(B256::from(transfer.value));
    let used = event(abi::AuthorizationUsed::SIGNATURE_HASH, transfer.nonce);
    let logs = json!([moved, used]);
    let server = Server::answering(move |method, params| match method {
        "eth_getLogs" => {
            assert_eq!(params[0]["topics"][1], json!(word(OWNER)));
            Ok(logs.clone())
        }
        method => node(method, params),
    })
    .await;
    let endpoint = &server.endpoint;
    let found = endpoint.transfer_transaction(31337, REGISTRY, &transfer);
    assert_eq!(json!(found.await.unwrap()), moved["transactionHash"]);
    let elsewhere = endpoint.transfer_transaction(1, REGISTRY, &transfer);
    assert_eq!(elsewhere.await, Ok(None));
}

#[tokio::test]
async fn rollup_is_known_by_its_fee_oracle() {
    let [op_stack, scroll] = abi::FEE_ORACLES;
    for (deployed, oracle) in [
        (vec![op_stack], Some(op_stack)),
        (vec![scroll], Some(scroll)),
        (vec![op_stack, scroll], Some(op_stack)),
        (vec![], None),
    ] {
        let server = Server::answering(move |method, params| match method {
            "eth_getCode" if deployed.iter().any(|at| params[0] == json!(at)) => Ok(json!("0x60")),
            _ => node(method, params),
        })
        .await;
        let identity = server.endpoint.identity(REGISTRY).await.unwrap();
        assert_eq!(identity.fee_oracle, oracle);
    }
}

#[tokio::test]
async fn batches_that_are_refused_are_sent_singly_from_then_on() {
    for refusal in [
        json!({ "id": null, "error": { "code": -32600, "message": "batch requests are disabled" } }),
        json!([{ "id": null, "error": "unsupported" }]),
        json!([
            { "id": 1, "error": { "code": 31, "message": "Batch of more than 1 request" } },
            { "id": 2, "error": { "code": 31, "message": "Batch of more than 1 request" } },
        ]),
        json!("nonsense"),
    ] {
        let server = Server::start(move |request| {
            Reply::Body(match request {
                Value::Array(_) => refusal.clone(),
                call => each(call, &node),
            })
        })
        .await;
        for _ in 0..2 {
            assert_eq!(server.endpoint.head().await.unwrap().latest.number, 9);
        }
        assert_eq!(server.sizes(), [2, 1, 1, 1, 1]);
    }
}

#[tokio::test]
async fn one_server_error_does_not_end_batches() {
    let first = Mutex::new(true);
    let server = Server::start(move |request| {
        if std::mem::take(&mut *first.lock().unwrap()) {
            return Reply::Http(500, &[], "<html>".into());
        }
        Reply::Body(each(request, &node))
    })
    .await;
    for _ in 0..2 {
        assert!(server.endpoint.head().await.is_ok());
    }
    assert_eq!(server.sizes(), [2, 1, 1, 2]);
}

#[tokio::test]
async fn rate_limit_is_waited_out_and_not_asked_around() {
    let server =
        Server::start(|_| Reply::Http(429, &[("retry-after", "30")], "Too Many Requests".into()))
            .await;
    let limited = server.endpoint.head().await.unwrap_err();
    assert_eq!(limited.reason(), "RpcRateLimited");
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(30)));
    let receipts = server.endpoint.receipts(&[B256::ZERO; 100]).await;
    assert_eq!(receipts.len(), 100);
    assert!(receipts.iter().all(Result::is_err));
    assert_eq!(server.sizes(), [2, 32]);
    let server = Server::answering(|_, _| error(-32005, "project rate limit exceeded")).await;
    let limited = server.endpoint.estimate_gas(OWNER, REGISTRY, Bytes::new());
    assert_eq!(limited.await.unwrap_err().reason(), "RpcRateLimited");
}

#[tokio::test]
async fn gateway_errors_for_logs_ask_for_a_narrower_range() {
    for (status, reason) in [
        (413, "RpcRangeLimited"),
        (504, "RpcUnreachable"),
        (502, "RpcUnreachable"),
    ] {
        let server =
            Server::start(move |_| Reply::Http(status, &[], "<html>no</html>".into())).await;
        for _ in 0..3 {
            let page = server.endpoint.log_page(REGISTRY, OWNER, 1, 100).await;
            let error = page.unwrap_err();
            assert_eq!(
                (error.reason(), error.narrows_range()),
                (reason, true),
                "{status}"
            );
        }
        let health = server.endpoint.health();
        assert!(health.is_healthy(), "{status}: the range is to blame");
    }
    let server = Server::start(|_| Reply::Http(504, &[], String::new())).await;
    for _ in 0..2 {
        let page = server.endpoint.log_page(REGISTRY, OWNER, 5, 5).await;
        assert!(page.is_err());
    }
    assert!(!server.endpoint.health().is_healthy());
}

#[tokio::test]
async fn endpoint_that_hangs_up_or_hangs_is_unreachable() {
    let closing = Server::start(|_| Reply::Close).await;
    let error = closing
        .endpoint
        .transaction_count_at(OWNER, BlockNumberOrTag::Latest)
        .await
        .unwrap_err();
    let expected = |cause| RpcError::RpcUnreachable {
        call: "eth_getTransactionCount",
        cause,
    };
    assert_eq!(error, expected("the connection was lost"));
    let hanging = Server::start(|_| Reply::Hang).await;
    let error = hanging
        .endpoint
        .transaction_count_at(OWNER, BlockNumberOrTag::Latest)
        .await
        .unwrap_err();
    assert_eq!(error, expected("timed out"));
    assert!(error.narrows_range());
}

#[tokio::test]
async fn answer_without_end_is_cut_off() {
    let server = Server::start(|_| Reply::Bytes(17 * 1024 * 1024)).await;
    let error = server.endpoint.log_page(REGISTRY, OWNER, 1, 9).await;
    assert_eq!(error.unwrap_err().reason(), "RpcRangeLimited");
    let error = server
        .endpoint
        .transaction_count_at(OWNER, BlockNumberOrTag::Latest)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("16 MiB"), "{error}");
    assert!(!error.is_endpoint_fault());
}

#[tokio::test]
async fn failed_call_belongs_to_its_item() {
    let hash = |number: u8| B256::with_last_byte(number);
    let server = Server::answering(move |_, params| match params[0].as_str().unwrap() {
        hash if hash.ends_with("07") => error(-32000, "internal error"),
        hash if hash.ends_with("08") => Ok(Value::Null),
        hash if hash.ends_with("09") => Ok(json!({ "blockNumber": "0x1" })),
        _ => Ok(json!({
            "status": "0x1", "blockNumber": "0x5", "gasUsed": "0x64",
            "effectiveGasPrice": "0x2", "l1Fee": "0x3",
        })),
    })
    .await;
    let hashes: Vec<B256> = (0..70).map(hash).collect();
    let receipts = server.endpoint.receipts(&hashes).await;
    assert_eq!(receipts.len(), 70);
    for (number, receipt) in receipts.iter().enumerate() {
        match number {
            7 => assert_eq!(receipt.as_ref().unwrap_err().reason(), "RpcRefused"),
            8 => assert_eq!(receipt, &Ok(None)),
            9 => assert_eq!(receipt.as_ref().unwrap_err().reason(), "RpcIncomplete"),
            _ => assert_eq!(receipt.as_ref().unwrap().unwrap().cost, 203),
        }
    }
    assert_eq!(server.sizes(), [32, 32, 6]);
    assert!(server.endpoint.health().is_healthy());
    assert!(server.endpoint.receipts(&[]).await.is_empty());
    let text = server.metrics.render().unwrap();
    let counted = |result: &str, count: u64| {
        let series = format!(
            "serviceoffer_chain_requests_total{{method=\"eth_getTransactionReceipt\",result=\"{result}\"}} {count}"
        );
        assert!(text.contains(&series), "{series} is not in:\n{text}");
    };
    counted("ok", 69);
    counted("refused", 1);
}

#[tokio::test]
async fn agents_are_read_each_by_itself() {
    let long = "é".repeat(40_000);
    let server = Server::answering({
        let long = long.clone();
        move |_, params| {
            let data: Bytes = serde_json::from_value(params[0]["data"].clone()).unwrap();
            let id = data[data.len() - 1];
            let is_owner = data[..4] == [0x63, 0x52, 0x21, 0x1e];
            match id {
                1 => error(-32000, "execution reverted"),
                2 => error(-32015, "VM execution error."),
                3 => Err(json!({ "code": 3, "message": "x", "data": "0x7e273289" })),
                4 => error(-32005, "rate limit exceeded"),
                5 => Ok(json!("0x")),
                _ if is_owner => Ok(json!(B256::left_padding_from(OWNER.as_slice()))),
                6 => error(-32000, "execution reverted"),
                7 => Ok(json!(Bytes::from(long.clone().abi_encode()))),
                8 => Ok(json!(Bytes::from(
                    Bytes::from_static(b"\xff\xfe").abi_encode()
                ))),
                9 => Ok(json!("0x01")),
                _ => Ok(json!(Bytes::from("https://x".to_owned().abi_encode()))),
            }
        }
    })
    .await;
    let ids: Vec<U256> = (0..10).map(U256::from).collect();
    let agents = server.endpoint.agents(REGISTRY, &ids, 7).await;
    let uri = |index: usize| {
        agents[index]
            .as_ref()
            .unwrap()
            .as_ref()
            .unwrap()
            .uri
            .as_str()
    };
    assert_eq!(uri(0), "https://x");
    for unknown in [1, 2, 3] {
        assert_eq!(agents[unknown], Ok(None), "{unknown}");
    }
    let reason = |index: usize| agents[index].as_ref().unwrap_err().reason();
    assert_eq!((reason(4), reason(5)), ("RpcRateLimited", "RpcIncomplete"));
    assert_eq!((uri(6), uri(8), uri(9)), ("", "", ""));
    assert_eq!(uri(7).len(), 64 * 1024);
    assert!(long.starts_with(uri(7)));
    let agent = agents[7].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(agent.uri_hash, alloy::primitives::keccak256(&long));
    assert_eq!(agent.owner, OWNER);
    assert_eq!(server.sizes(), [20]);
}

#[tokio::test]
async fn tip_is_at_least_what_the_node_suggests() {
    type Answer = Result<Value, Value>;
    let latest = Block {
        base_fee: Some(7),
        ..Block::default()
    };
    let rewards = |rewards: [u64; 4]| -> Answer {
        let rewards: Vec<Value> = rewards
            .iter()
            .map(|reward| json!([format!("{reward:#x}")]))
            .collect();
        Ok(json!({ "oldestBlock": "0x1", "reward": rewards }))
    };
    let missing = || error(-32601, "method not found");
    let cases: [(Answer, Answer, Option<u128>); 9] = [
        (rewards([0, 0, 0, 0]), Ok(json!("0xf4240")), Some(1_000_000)),
        (rewards([5, 0, 9, 7]), Ok(json!("0x3")), Some(7)),
        (rewards([4, 0, 0, 8]), missing(), Some(6)),
        (rewards([0, 0, 0, 0]), missing(), Some(53)),
        (missing(), Ok(json!("0x2a")), Some(42)),
        (Ok(json!({})), Ok(json!(9)), Some(9)),
        (Ok(json!({ "reward": null })), Ok(Value::Null), Some(53)),
        (missing(), missing(), Some(53)),
        (rewards([5, 5, 5, 5]), error(-32005, "rate limit"), None),
    ];
    // Where nothing else is known, the price of gas less the base fee: 60 less 7.
    for (history, suggestion, tip) in cases {
        let label = format!("{history:?} {suggestion:?}");
        let server = Server::answering(move |method, _| match method {
            "eth_feeHistory" => history.clone(),
            "eth_gasPrice" => Ok(json!("0x3c")),
            _ => suggestion.clone(),
        })
        .await;
        let market = server.endpoint.fee_market(&latest).await;
        let expected = tip.map(|tip| FeeMarket::Dynamic { base_fee: 7, tip });
        assert_eq!(market.ok(), expected, "{label}");
    }
}

#[tokio::test]
async fn chain_without_base_fee_has_a_gas_price() {
    let server = Server::answering(|method, _| match method {
        "eth_gasPrice" => Ok(json!("0x3b9aca00")),
        _ => error(-32601, "method not found"),
    })
    .await;
    let market = server.endpoint.fee_market(&Block::default()).await;
    let gas_price = 1_000_000_000;
    assert_eq!(market, Ok(FeeMarket::Legacy { gas_price }));
    assert_eq!(server.sizes(), [1]);
    let server = Server::answering(|_, _| Ok(json!({}))).await;
    let market = server.endpoint.fee_market(&Block::default()).await;
    assert_eq!(market.unwrap_err().reason(), "RpcIncomplete");
}

#[tokio::test]
async fn rollup_fee_is_asked_with_the_functions_that_the_oracle_has() {
    type Answer = Result<Value, Value>;
    let word = |amount: u64| -> Answer { Ok(json!(B256::from(U256::from(amount)))) };
    let reverted = || error(3, "execution reverted");
    let fees = async |bound: Answer, data: Answer, operator: Answer| {
        let server = Server::answering(move |_, params| {
            let call = params[0]["data"].as_str().unwrap();
            match &call[..10] {
                "0xf1c7a58b" => {
                    assert!(call.ends_with("05"), "the size: {call}");
                    bound.clone()
                }
                "0x49948e0e" => {
                    assert!(call.contains("0102030405"), "the bytes: {call}");
                    data.clone()
                }
                _ => {
                    assert!(call.ends_with("0200"), "the gas limit: {call}");
                    operator.clone()
                }
            }
        })
        .await;
        let oracle = Address::repeat_byte(0x42);
        server
            .endpoint
            .rollup_fee(oracle, &[1, 2, 3, 4, 5], 0x200)
            .await
    };
    assert_eq!(fees(word(100), word(70), word(9)).await, Ok(109));
    assert_eq!(fees(reverted(), word(70), reverted()).await, Ok(70));
    assert_eq!(fees(reverted(), word(70), Ok(json!("0x"))).await, Ok(70));
    let unknown = fees(reverted(), reverted(), word(9)).await;
    assert_eq!(unknown.unwrap_err().reason(), "RpcIncomplete");
    let limited = fees(word(100), word(70), error(-32005, "rate limit")).await;
    assert_eq!(limited.unwrap_err().reason(), "RpcRateLimited");
}

/// A log as a node returns it.
fn log(topics: &[B256], data: Bytes, block: u64) -> Value {
    json!({
        "address": REGISTRY, "topics": topics, "data": data, "removed": false,
        "blockNumber": format!("{block:#x}"), "blockHash": B256::with_last_byte(8),
        "transactionHash": B256::with_last_byte(9), "logIndex": "0x0",
    })
}

fn word(address: Address) -> B256 {
    B256::left_padding_from(address.as_slice())
}

#[tokio::test]
async fn log_page_matches_mints_with_registrations() {
    let transfer = abi::Transfer::SIGNATURE_HASH;
    let registered = abi::Registered::SIGNATURE_HASH;
    let id = B256::with_last_byte;
    let moved = move |from: B256, to: Address, agent: u8, block| {
        log(&[transfer, from, word(to), id(agent)], Bytes::new(), block)
    };
    let uri = Bytes::from("https://x/a.json".to_owned().abi_encode());
    let incoming = json!([
        moved(B256::ZERO, OWNER, 1, 3),
        log(&[registered, id(1), word(OWNER)], uri.clone(), 3),
        moved(word(OTHER), OWNER, 2, 4),
        // A node may return more than was asked for.
        moved(B256::ZERO, OWNER, 3, 99),
        moved(B256::ZERO, OTHER, 4, 4),
        log(&[registered, id(4), word(OTHER)], uri, 4),
        { "address": OTHER, "topics": [] },
    ]);
    let outgoing = json!([
        moved(word(OWNER), OTHER, 1, 5),
        moved(word(OTHER), OWNER, 1, 5)
    ]);
    let server = Server::answering(move |_, params| {
        let topics = &params[0]["topics"];
        assert_eq!(
            (&params[0]["fromBlock"], &params[0]["toBlock"]),
            (&json!("0x1"), &json!("0xa"))
        );
        if topics[0].is_array() {
            assert_eq!(topics, &json!([[registered, transfer], null, word(OWNER)]));
            return Ok(incoming.clone());
        }
        assert_eq!(topics, &json!([transfer, word(OWNER)]));
        Ok(outgoing.clone())
    })
    .await;
    let page = server.endpoint.log_page(REGISTRY, OWNER, 1, 10).await;
    let page = page.unwrap();
    assert_eq!((page.from, page.to), (1, 10));
    assert_eq!(page.mints, [U256::ONE]);
    assert_eq!((page.received, page.given), (1, 1));
    let [registration] = page.registrations.as_slice() else {
        panic!("one registration: {:?}", page.registrations);
    };
    assert_eq!(registration.agent_uri, "https://x/a.json");
    assert_eq!((registration.agent_id, registration.block), (U256::ONE, 3));
}

#[tokio::test]
async fn registrations_of_all_accounts_are_read_at_once() {
    let registered = abi::Registered::SIGNATURE_HASH;
    let uri = Bytes::from("https://x/a.json".to_owned().abi_encode());
    let by = |owner| {
        let topics = [registered, B256::with_last_byte(1), word(owner)];
        log(&topics, uri.clone(), 3)
    };
    let logs = json!([by(OWNER), by(OTHER)]);
    let server = Server::answering(move |_, params| {
        assert_eq!(params[0]["topics"], json!([registered]));
        Ok(logs.clone())
    })
    .await;
    let found = server.endpoint.registrations(REGISTRY, 1, 10).await;
    let found = found.unwrap();
    let owners: Vec<_> = found.iter().map(|(owner, _)| *owner).collect();
    assert_eq!(owners, [OWNER, OTHER]);
    assert_eq!(found[1].1.agent_uri, "https://x/a.json");
}

#[tokio::test]
async fn log_without_its_block_is_never_left_out() {
    let mut pending = log(
        &[
            abi::Transfer::SIGNATURE_HASH,
            B256::ZERO,
            word(OWNER),
            B256::ZERO,
        ],
        Bytes::new(),
        1,
    );
    pending["blockNumber"] = Value::Null;
    for answer in [json!([pending]), Value::Null, json!({}), json!("0x")] {
        let server = Server::answering(move |_, _| Ok(answer.clone())).await;
        let page = server.endpoint.log_page(REGISTRY, OWNER, 1, 10).await;
        assert_eq!(page.unwrap_err().reason(), "RpcIncomplete");
    }
}

#[tokio::test]
async fn refused_send_is_an_outcome_in_the_endpoints_words() {
    let leading = Fence::always_open().leading().unwrap();
    let raw = Bytes::from_static(b"\x02");
    let send = async |answer: Result<Value, Value>| {
        let server = Server::answering(move |_, _| answer.clone()).await;
        server.endpoint.send(&leading, &raw).await.unwrap()
    };
    assert_eq!(send(Ok(json!(B256::ZERO))).await, SendOutcome::Accepted);
    assert_eq!(
        send(error(-32000, "ALREADY_EXISTS: already known")).await,
        SendOutcome::Accepted
    );
    assert_eq!(
        send(error(-32003, "nonce has already been used")).await,
        SendOutcome::NonceUsed
    );
    for (code, message, refusal) in [
        (-32000, "transaction type not supported", Refusal::Other),
        (-32000, "unknown transaction type", Refusal::Other),
        (-32000, "transaction underpriced", Refusal::Underpriced),
        (
            -32000,
            "insufficient funds for gas * price + value",
            Refusal::InsufficientFunds,
        ),
        (-32601, "method not found", Refusal::MethodMissing),
    ] {
        let message = message.to_owned();
        assert_eq!(
            send(error(code, &message)).await,
            SendOutcome::Refused { refusal, message }
        );
    }
    let SendOutcome::Unanswered(limited) = send(error(-32005, "rate limit exceeded")).await else {
        panic!("a rate limit says nothing about the transaction");
    };
    assert_eq!(limited.reason(), "RpcRateLimited");
    let server = Server::start(|_| Reply::Http(503, &[], String::new())).await;
    let sent = server.endpoint.send(&leading, &raw).await.unwrap();
    assert!(matches!(
        sent,
        SendOutcome::Unanswered(RpcError::RpcUnreachable { .. })
    ));
}

#[tokio::test]
async fn two_failures_make_an_endpoint_unhealthy() {
    let server = Server::start(|_| Reply::Http(503, &[], String::new())).await;
    assert!(server.endpoint.head().await.is_err());
    assert!(server.endpoint.health().is_healthy());
    assert!(server.endpoint.clone().account(OWNER, 7).await.is_err());
    let health = server.endpoint.health();
    assert!(!health.is_healthy(), "clones share their health");
    assert!(health.cause().unwrap().contains("503"));
}

#[tokio::test(start_paused = true)]
async fn pass_asks_nothing_more_of_an_endpoint_that_stopped_answering() {
    let server = Server::start(|_| Reply::Hang).await;
    let endpoint = server.endpoint.for_pass();
    let begun = tokio::time::Instant::now();
    let first = endpoint.head().await.unwrap_err();
    assert_eq!(endpoint.stopped_answering(), None, "{first}");
    assert!(endpoint.account(OWNER, 7).await.is_err());
    let stopped = endpoint.stopped_answering().unwrap();
    assert_eq!(endpoint.head().await, Err(stopped.clone()));
    assert_eq!(endpoint.receipts(&[B256::ZERO]).await, [Err(stopped)]);
    assert_eq!(server.sizes().len(), 2);
    assert_eq!(begun.elapsed().as_secs(), 8);
    let next = server.endpoint.for_pass();
    assert_eq!(next.stopped_answering(), None, "the next pass asks again");
}

#[tokio::test(start_paused = true)]
async fn logs_are_given_up_if_a_short_request_has_no_answer_either() {
    let is_logs = |request: &Value| request.is_array();
    let hanging = Server::start(|_| Reply::Hang).await;
    let slow = Server::start(move |request| {
        if is_logs(request) {
            return Reply::Hang;
        }
        Reply::Body(each(request, &node))
    })
    .await;
    for (server, seconds, stopped) in [(hanging, 8, true), (slow, 12, false)] {
        let endpoint = server.endpoint.for_pass();
        let begun = tokio::time::Instant::now();
        let error = endpoint
            .log_page(REGISTRY, OWNER, 1, 100)
            .await
            .unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), seconds, "{error}");
        assert_eq!(error.narrows_range(), !stopped, "{error}");
        assert_eq!(endpoint.stopped_answering(), stopped.then_some(error));
        assert_eq!(endpoint.health().is_healthy(), !stopped);
        assert_eq!(server.sizes(), [2, 1]);
    }
}

#[tokio::test]
async fn endpoint_that_knows_only_its_chain_id_is_unhealthy() {
    let server = Server::answering(|method, params| match method {
        "eth_chainId" => node(method, params),
        _ => error(-32601, "method not found"),
    })
    .await;
    for _ in 0..2 {
        assert!(server.endpoint.head().await.is_err());
    }
    assert!(!server.endpoint.health().is_healthy());
}
