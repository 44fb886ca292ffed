// SPDX-License-Identifier: Apache-2.0
//! A buyer with the client for reqwest: `buyer KEY`. Requests and answers are those of
//! `tests/x402/buyer.mjs`, one line of JSON each.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use x402_chain_eip155::{V1Eip155ExactClient, V2Eip155ExactClient};
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};

#[derive(Deserialize)]
struct Request {
    url: String,
    #[serde(default = "get")]
    method: String,
    body: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Serialize)]
struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Value>,
}

async fn read(response: reqwest::Response) -> Result<Answer> {
    let text = |value: &reqwest::header::HeaderValue| value.to_str().map(str::to_owned);
    let fields = response.headers().iter();
    let fields: BTreeMap<String, String> = fields
        .filter_map(|(name, value)| Some((name.to_string(), text(value).ok()?)))
        .collect();
    let receipt = ["payment-response", "x-payment-response"];
    let receipt = receipt.iter().find_map(|name| fields.get(*name));
    let receipt = match receipt {
        Some(encoded) => Some(serde_json::from_slice(&STANDARD.decode(encoded)?)?),
        None => None,
    };
    Ok(Answer {
        status: response.status().as_u16(),
        fields,
        body: response.text().await?,
        receipt,
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    let key = std::env::args().nth(1).context("no key")?;
    let key: Arc<PrivateKeySigner> = Arc::new(key.parse()?);
    let client = X402Client::new()
        .register(V2Eip155ExactClient::new(key.clone()))
        .register(V1Eip155ExactClient::new(key));
    let http = reqwest::Client::new().with_payments(client).build();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line)?;
        let mut asked = http.request(request.method.parse()?, &request.url);
        if let Some(body) = request.body {
            asked = asked.body(body);
        }
        let answer = match asked.send().await {
            Ok(response) => json!(read(response).await?),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        println!("{answer}");
    }
    Ok(())
}
