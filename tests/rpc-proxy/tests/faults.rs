//! The proxy over HTTP. The chain behind it is another proxy, whose rules answer everything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports by panicking"
)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rpc_proxy::{Methods, RpcProxy, Rule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A chain whose head is block 100, and a proxy before it.
async fn start() -> (RpcProxy, RpcProxy) {
    let chain = RpcProxy::start("http://127.0.0.1:1").await.unwrap();
    chain.add(Rule::result("eth_blockNumber", json!("0x64")));
    chain.add(Rule::error("eth_call", 3, "execution reverted").data(json!("0xaa")));
    chain.add(Rule::result(Methods::all(), json!("0x7a69")));
    let url = chain.url_at(Ipv4Addr::LOCALHOST.into());
    let proxy = RpcProxy::start(&url).await.unwrap();
    (chain, proxy)
}

/// Head and body of the answer; `None` if the connection is dropped without one.
async fn post(proxy: &RpcProxy, body: &Value) -> Option<(String, String)> {
    post_text(proxy, &body.to_string()).await
}

async fn post_text(proxy: &RpcProxy, body: &str) -> Option<(String, String)> {
    let url = proxy.url_at(Ipv4Addr::LOCALHOST.into());
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

async fn ask(proxy: &RpcProxy, body: Value) -> Value {
    let (_, body) = post(proxy, &body).await.unwrap();
    serde_json::from_str(&body).unwrap()
}

fn call(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

#[tokio::test]
async fn single_call_and_batch_pass_in_order() {
    let (_chain, proxy) = start().await;
    let single = ask(&proxy, call(7, "eth_chainId", json!([]))).await;
    assert_eq!(
        (single["id"].as_u64(), &single["result"]),
        (Some(7), &json!("0x7a69"))
    );
    let batch = json!([
        call(1, "eth_blockNumber", json!([])),
        call(2, "eth_call", json!([]))
    ]);
    let answers = ask(&proxy, batch).await;
    assert_eq!(answers[0]["result"], "0x64");
    assert_eq!(answers[1]["error"]["data"], "0xaa");
    let one = ask(&proxy, json!([call(1, "eth_chainId", json!([]))])).await;
    assert_eq!(
        one.as_array().map(Vec::len),
        Some(1),
        "a batch of one is a batch"
    );
}

#[tokio::test]
async fn rule_fails_one_element_of_a_batch() {
    let (_chain, proxy) = start().await;
    let rule = proxy.add(Rule::error("eth_getLogs", -32005, "limit").when(|call| call.span() > 10));
    let logs = |id, to: &str| {
        call(
            id,
            "eth_getLogs",
            json!([{ "fromBlock": "0x0", "toBlock": to }]),
        )
    };
    let answers = ask(
        &proxy,
        json!([
            logs(1, "0x9"),
            logs(2, "0xa"),
            call(3, "eth_chainId", json!([]))
        ]),
    )
    .await;
    assert_eq!(answers[0]["result"], "0x7a69");
    assert_eq!(answers[1]["error"]["code"], -32005);
    assert_eq!(answers[2]["result"], "0x7a69");
    assert_eq!(proxy.remove(rule), 1);
    let healed = ask(&proxy, logs(4, "0xa")).await;
    assert_eq!(healed["result"], "0x7a69");
}

#[tokio::test]
async fn http_status_and_headers_replace_the_answer() {
    let (chain, proxy) = start().await;
    proxy.add(
        Rule::http(Methods::except(["eth_chainId"]), 429, "slow down")
            .header("Retry-After", "3")
            .times(1),
    );
    let start = Instant::now();
    let (head, body) = post(
        &proxy,
        &json!([
            call(1, "eth_chainId", json!([])),
            call(2, "eth_gasPrice", json!([]))
        ]),
    )
    .await
    .unwrap();
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    assert!(
        head.to_lowercase().contains("retry-after: 3") && body == "slow down",
        "{head}{body}"
    );
    assert_eq!(
        chain.calls_since(start).of("eth_gasPrice"),
        0,
        "nothing is forwarded"
    );
    let next = ask(&proxy, call(3, "eth_gasPrice", json!([]))).await;
    assert_eq!(next["result"], "0x7a69");
}

#[tokio::test]
async fn connection_is_closed_without_an_answer() {
    let (_chain, proxy) = start().await;
    proxy.add(Rule::close("eth_chainId").every(2));
    let ask = || async { post(&proxy, &call(1, "eth_chainId", json!([]))).await };
    assert!(ask().await.is_some());
    assert!(ask().await.is_none());
    assert!(ask().await.is_some());
}

#[tokio::test]
async fn answers_are_edited_held_back_and_invented() {
    let (chain, proxy) = start().await;
    proxy.add(Rule::edit("eth_gasPrice", |price| *price = json!("0x1")));
    proxy.add(Rule::hang("eth_gasPrice", Duration::from_millis(200)));
    proxy.add(Rule::edit_answer("eth_call", |answer| {
        if let Some(error) = answer["error"].as_object_mut() {
            error.remove("data");
        }
    }));
    proxy.add(Rule::null("eth_getTransactionReceipt"));
    proxy.add(Rule::swallow());
    let start = Instant::now();
    let price = ask(&proxy, call(1, "eth_gasPrice", json!([]))).await;
    assert_eq!(price["result"], "0x1");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let reverted = ask(&proxy, call(1, "eth_call", json!([]))).await;
    assert_eq!(
        reverted["error"],
        json!({ "code": 3, "message": "execution reverted" })
    );
    let receipt = ask(
        &proxy,
        call(1, "eth_getTransactionReceipt", json!(["0x00"])),
    )
    .await;
    assert_eq!(receipt.get("result"), Some(&Value::Null));
    let sent = ask(&proxy, call(1, "eth_sendRawTransaction", json!(["0x00"]))).await;
    assert_eq!(sent["result"].as_str().map(str::len), Some(66));
    assert_eq!(chain.calls().of("eth_sendRawTransaction"), 0);
}

#[tokio::test]
async fn lagging_node_answers_from_an_older_head() {
    let (chain, proxy) = start().await;
    proxy.add(Rule::lag(5));
    let head = ask(&proxy, call(1, "eth_blockNumber", json!([]))).await;
    assert_eq!(head["result"], "0x5f");
    ask(&proxy, call(1, "eth_getBalance", json!(["0x00", "latest"]))).await;
    let calls = chain.calls();
    let balance = calls.all("eth_getBalance").next().unwrap();
    assert_eq!(balance.params, json!(["0x00", "0x5f"]));
}

#[tokio::test]
async fn one_node_answers_all_of_a_batch() {
    let (chain, proxy) = start().await;
    proxy.add(Rule::lag(5).every(2));
    for _ in 0..2 {
        let calls = [1, 2].map(|id| call(id, "eth_getBalance", json!(["0x00", "latest"])));
        ask(&proxy, json!(calls)).await;
    }
    let calls = chain.calls();
    let blocks = calls.all("eth_getBalance").map(|call| &call.params[1]);
    let blocks: Vec<_> = blocks.collect();
    assert_eq!(blocks, ["latest", "latest", "0x5f", "0x5f"]);
}

#[tokio::test]
async fn batch_is_refused_as_a_whole_and_counted_singly() {
    let (_chain, proxy) = start().await;
    proxy.add(Rule::refuse_batch(-32600, "batches are not supported"));
    let start = Instant::now();
    let calls = [1, 2, 3].map(|id| call(id, "eth_chainId", json!([])));
    let refused = ask(&proxy, json!(calls)).await;
    assert_eq!(refused["error"]["code"], -32600);
    let single = ask(&proxy, call(4, "eth_gasPrice", json!([]))).await;
    assert_eq!(single["result"], "0x7a69");
    let seen = proxy.calls_since(start);
    assert_eq!((seen.total(), seen.largest_batch()), (4, 3));
    assert_eq!(seen.by_method()["eth_chainId"], 3);
    assert!(seen.all("eth_chainId").all(|call| call.is_faulty));
}

#[tokio::test]
async fn text_that_is_not_json_is_refused() {
    let (_chain, proxy) = start().await;
    let (_, body) = post_text(&proxy, "eth_chainId?").await.unwrap();
    assert!(body.contains("-32700"), "{body}");
}
