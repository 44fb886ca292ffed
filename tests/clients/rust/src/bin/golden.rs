// SPDX-License-Identifier: Apache-2.0
//! Prints what x402-types writes and reads, for `src/gate/wire/golden-rust.json`, in the form of
//! `tests/x402/golden.mjs`. Nonces are random, so every run prints other payments.

use std::sync::Arc;

use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x402_chain_eip155::{V1Eip155ExactClient, V2Eip155ExactClient};
use x402_types::proto::v1::SettleResponse;
use x402_types::proto::{PaymentRequired, v2};
use x402_types::scheme::client::X402SchemeClient;

const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// What a client writes in answer to terms.
async fn payment(
    client: &dyn X402SchemeClient,
    field: &str,
    required: &PaymentRequired,
) -> Result<Value> {
    let candidates = client.accept(required);
    let candidate = candidates.first().context("the client cannot pay")?;
    let signed = candidate.sign().await?;
    let payload: Value = serde_json::from_slice(&STANDARD.decode(&signed)?)?;
    Ok(json!({ "fields": { field: signed }, "payload": payload }))
}

#[tokio::main]
async fn main() -> Result<()> {
    let key: Arc<PrivateKeySigner> = Arc::new(KEY.parse()?);
    let payer = key.address().to_string();
    let resource = "https://shop.example/services/chat/v1";
    let terms = json!({
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "2000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "maxTimeoutSeconds": 300,
        "extra": { "name": "USDC", "version": "2" },
    });
    let required = json!({
        "x402Version": 2,
        "error": "payment_required",
        "resource": { "url": resource, "description": "chat", "mimeType": "application/json" },
        "accepts": [terms],
    });
    let mut terms_v1 = terms.clone();
    let fields = terms_v1.as_object_mut().context("an object")?;
    fields.remove("amount");
    fields.extend([
        ("network".to_owned(), json!("base-sepolia")),
        ("maxAmountRequired".to_owned(), json!("2000")),
        ("resource".to_owned(), json!(resource)),
        ("description".to_owned(), json!("chat")),
        ("mimeType".to_owned(), json!("application/json")),
    ]);
    let required_v1 =
        json!({ "x402Version": 1, "error": "payment_required", "accepts": [terms_v1] });

    let (required, required_v1) = (required.to_string(), required_v1.to_string());
    let read: v2::PaymentRequired = serde_json::from_str(&required)?;
    let (required, required_v1) = (
        serde_json::from_str(&required)?,
        serde_json::from_str(&required_v1)?,
    );
    let header = STANDARD.encode(serde_json::to_vec(&read)?);
    let receipt = SettleResponse::Success {
        payer: payer.clone(),
        transaction: format!("0x{}", "12".repeat(32)),
        network: "eip155:84532".to_owned(),
    };
    let (v1, v2) = (
        V1Eip155ExactClient::new(key.clone()),
        V2Eip155ExactClient::new(key),
    );
    let golden = json!({
        "writer": "x402-types 2.0.2",
        "payer": payer,
        "required": { "header": header, "json": read },
        "payments": [
            payment(&v2, "PAYMENT-SIGNATURE", &PaymentRequired::V2(required)).await?,
            payment(&v1, "X-PAYMENT", &PaymentRequired::V1(required_v1)).await?,
        ],
        "receipt": { "header": STANDARD.encode(serde_json::to_vec(&receipt)?), "json": receipt },
    });
    println!("{}", serde_json::to_string_pretty(&golden)?);
    Ok(())
}
