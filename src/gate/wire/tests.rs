use alloy::primitives::{Signature, U256};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::sol;
use alloy::sol_types::{Eip712Domain, SolStruct};
use http::HeaderValue;

use super::*;
use crate::api::PaymentFlow;
use crate::gate::check::{check_form, check_signature, check_window};
use crate::gate::terms::Token;

pub(crate) const RESOURCE: Resource<'_> = Resource {
    url: "https://shop.example/services/chat/v1",
    description: "chat",
    mime_type: "application/json",
};

sol! {
    /// The message of EIP-3009.
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

/// The hash that the payer signs (EIP-712).
pub(crate) fn signing_hash(authorization: &Authorization, terms: &Terms) -> B256 {
    let domain = Eip712Domain::new(
        Some(terms.token.name.clone().into()),
        Some(terms.token.version.clone().into()),
        Some(U256::from(terms.chain_id)),
        Some(terms.token.address),
        None,
    );
    let message = TransferWithAuthorization {
        from: authorization.from,
        to: authorization.to,
        value: authorization.value,
        validAfter: authorization.valid_after,
        validBefore: authorization.valid_before,
        nonce: authorization.nonce,
    };
    message.eip712_signing_hash(&domain)
}

/// Terms of 0.002 USDC on Base Sepolia.
pub(crate) fn terms() -> Terms {
    Terms {
        chain_id: 84532,
        token: Token {
            address: "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
                .parse()
                .unwrap(),
            name: "USDC".into(),
            version: "2".into(),
            decimals: 6,
            is_verified: true,
        },
        amount: U256::from(2000),
        pay_to: "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
            .parse()
            .unwrap(),
        max_timeout_seconds: 300,
        flow: PaymentFlow::Authorization,
    }
}

pub(crate) fn signer() -> PrivateKeySigner {
    let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    key.parse().unwrap()
}

/// What a client of version 2 signs for these terms.
pub(crate) fn signed(terms: &Terms, version: Version) -> Value {
    let authorization = Authorization {
        from: signer().address(),
        to: terms.pay_to,
        value: terms.amount,
        valid_after: U256::ZERO,
        valid_before: U256::from(1_000_300),
        nonce: B256::repeat_byte(7),
    };
    let signature = signer().sign_hash_sync(&signing_hash(&authorization, terms));
    let payload = json!({
        "signature": signature.unwrap().to_string(),
        "authorization": {
            "from": authorization.from.to_string(),
            "to": authorization.to.to_string(),
            "value": authorization.value.to_string(),
            "validAfter": "0",
            "validBefore": authorization.valid_before.to_string(),
            "nonce": authorization.nonce.to_string(),
        },
    });
    match version {
        Version::V1 => json!({
            "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload,
        }),
        Version::V2 => json!({
            "x402Version": 2, "accepted": requirement(terms), "payload": payload,
            "resource": { "url": RESOURCE.url },
        }),
    }
}

fn fields(values: &[(HeaderName, String)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in values {
        fields.append(name, HeaderValue::from_str(value).unwrap());
    }
    fields
}

fn read(value: &Value) -> Result<SignedPayment, Malformed> {
    let found = read_payment(&fields(&[(PAYMENT_SIGNATURE, encoded(value))]));
    found.map(Option::unwrap)
}

fn read_text(text: &str) -> Result<SignedPayment, Malformed> {
    let value = BASE64.encode(text.as_bytes());
    read_payment(&fields(&[(PAYMENT_SIGNATURE, value)])).map(Option::unwrap)
}

/// The payment of version 2 with another value at a path of keys.
pub(crate) fn with(mut payment: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    payment.pointer_mut(parent).unwrap()[key] = value;
    payment
}

pub(crate) fn payment(version: Version) -> SignedPayment {
    read(&signed(&terms(), version)).unwrap()
}

#[test]
fn request_without_a_payment_has_none() {
    assert_eq!(read_payment(&HeaderMap::new()), Ok(None));
}

#[test]
fn payments_of_both_versions_are_read_from_both_fields() {
    for version in [Version::V1, Version::V2] {
        let value = signed(&terms(), version);
        for name in [PAYMENT_SIGNATURE, X_PAYMENT] {
            let found = read_payment(&fields(&[(name, encoded(&value))]));
            let payment = found.unwrap().unwrap();
            assert_eq!(
                (payment.version, payment.scheme.as_str()),
                (version, "exact")
            );
            assert_eq!(payment.authorization.from, signer().address());
            assert_eq!(payment.text, value.to_string());
        }
    }
    let unpadded = encoded(&signed(&terms(), Version::V2));
    let unpadded = unpadded.trim_end_matches('=').to_owned();
    assert!(read_payment(&fields(&[(X_PAYMENT, unpadded)])).is_ok());
}

#[test]
fn several_different_payments_are_refused() {
    let one = encoded(&signed(&terms(), Version::V1));
    let other = encoded(&signed(&terms(), Version::V2));
    let both = |first: &str, second: &str, names: [HeaderName; 2]| {
        let [a, b] = names;
        read_payment(&fields(&[(a, first.to_owned()), (b, second.to_owned())]))
    };
    assert!(both(&one, &one, [PAYMENT_SIGNATURE, X_PAYMENT]).is_ok());
    for names in [
        [PAYMENT_SIGNATURE, X_PAYMENT],
        [PAYMENT_SIGNATURE, PAYMENT_SIGNATURE],
        [X_PAYMENT, X_PAYMENT],
    ] {
        assert_eq!(both(&one, &other, names), Err(Malformed::SeveralPayments));
    }
}

#[test]
fn payment_that_is_not_what_it_claims_is_refused() {
    let raw = |value: &str| read_payment(&fields(&[(X_PAYMENT, value.to_owned())]));
    assert_eq!(raw("not base64!"), Err(Malformed::NotBase64));
    assert_eq!(raw(&"A".repeat(30_000)), Err(Malformed::TooLong));
    assert_eq!(
        raw(&BASE64.encode(&[b'a'; 16 * 1024 + 1])),
        Err(Malformed::TooLong)
    );
    assert_eq!(raw(&BASE64.encode(&[0xff, 0xfe])), Err(Malformed::NotJson));
    for text in [
        "",
        "{",
        "{} {}",
        r#"{"x402Version":2,"x402Version":2}"#,
        r#"{"a":{"b":1,"b":2}}"#,
        r#"{"a":{"nonce":1,"Nonce":2}}"#,
        "{\"\u{212a}\":1,\"k\":2}",
        &format!("{}1{}", "[".repeat(20), "]".repeat(20)),
    ] {
        assert_eq!(read_text(text), Err(Malformed::NotJson), "{text}");
    }
    for text in [
        "null",
        "true",
        "-1",
        "1.5",
        "\"a\"",
        "[1]",
        r#"{"x402Version":3}"#,
    ] {
        assert_eq!(read_text(text), Err(Malformed::UnknownVersion), "{text}");
    }
}

#[test]
fn missing_or_wrong_field_is_named() {
    let whole = signed(&terms(), Version::V2);
    assert_eq!(
        read(&with(whole.clone(), "/accepted", json!(1))),
        Err(Malformed::Field("accepted"))
    );
    for (pointer, wrong, name) in [
        ("/accepted/scheme", json!(null), "scheme"),
        ("/accepted/network", json!(5), "network"),
        ("/payload/signature", json!(null), "payload.signature"),
        ("/payload/signature", json!("abcd"), "payload.signature"),
        ("/payload/signature", json!("0xzz"), "payload.signature"),
        (
            "/payload/authorization/from",
            json!("0x12"),
            "payload.authorization.from",
        ),
        (
            "/payload/authorization/from",
            json!(null),
            "payload.authorization.from",
        ),
        (
            "/payload/authorization/nonce",
            json!(null),
            "payload.authorization.nonce",
        ),
        (
            "/payload/authorization/to",
            json!("a".repeat(40)),
            "payload.authorization.to",
        ),
        (
            "/payload/authorization/value",
            json!(2000),
            "payload.authorization.value",
        ),
        (
            "/payload/authorization/value",
            json!("+1"),
            "payload.authorization.value",
        ),
        (
            "/payload/authorization/value",
            json!(""),
            "payload.authorization.value",
        ),
        (
            "/payload/authorization/validAfter",
            json!("0x1"),
            "payload.authorization.validAfter",
        ),
        (
            "/payload/authorization/validBefore",
            json!("9".repeat(80)),
            "payload.authorization.validBefore",
        ),
        (
            "/payload/authorization/nonce",
            json!("0x01"),
            "payload.authorization.nonce",
        ),
        (
            "/payload/authorization/nonce",
            json!("1"),
            "payload.authorization.nonce",
        ),
    ] {
        let refused = read(&with(whole.clone(), pointer, wrong)).unwrap_err();
        assert_eq!(refused, Malformed::Field(name));
        assert!(refused.to_string().contains(name));
    }
}

#[test]
fn value_that_is_not_json_is_named() {
    let error = <serde_json::Error as de::Error>::invalid_type(de::Unexpected::Option, &Level(0));
    assert!(error.to_string().ends_with("expected JSON"), "{error}");
}

#[test]
fn random_fields_never_cause_a_panic() {
    let whole = signed(&terms(), Version::V2).to_string().into_bytes();
    let mut seed = 3_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        bytes.truncate(random(bytes.len() + 1).max(bytes.len() / 2));
        let value = BASE64.encode(&bytes);
        let _ = read_payment(&fields(&[(PAYMENT_SIGNATURE, value)]));
    }
}

#[test]
fn recovery_id_is_written_as_tokens_expect_it() {
    let whole = signed(&terms(), Version::V2);
    let signature = whole["payload"]["signature"].as_str().unwrap().to_owned();
    let recovery_id = u8::from_str_radix(&signature[130..], 16).unwrap();
    let low = format!("{}{:02x}", &signature[..130], recovery_id - 27);
    let payment = read(&with(whole.clone(), "/payload/signature", json!(low))).unwrap();
    assert_eq!(payment, read(&whole).unwrap());
    let contract = format!("0x{}", "00".repeat(66));
    let payment = read(&with(whole, "/payload/signature", json!(contract))).unwrap();
    assert_eq!(payment.signature, [0; 66]);
    assert!(payment.text.contains(&contract));
}

fn required(terms: &[Terms]) -> Value {
    let text = RenderedTerms::of(terms).required(RESOURCE, "payment_required");
    serde_json::from_str(&text).unwrap()
}

fn required_body(terms: &[Terms]) -> Value {
    let text = RenderedTerms::of(terms).required_body(RESOURCE, "a \"reason\"");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn requirement_has_the_form_of_the_specification() {
    assert_eq!(
        requirement(&terms()),
        json!({
            "scheme": "exact", "network": "eip155:84532", "amount": "2000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
            "maxTimeoutSeconds": 300, "extra": { "name": "USDC", "version": "2" },
        })
    );
    let required = required(&[terms()]);
    assert_eq!(
        (&required["x402Version"], &required["error"]),
        (&json!(2), &json!("payment_required"))
    );
    assert_eq!(required["resource"]["url"], RESOURCE.url);
}

#[test]
fn identifier_of_a_request_is_read_from_its_extension() {
    let identifier = |id: Value| {
        let mut payment = signed(&terms(), Version::V2);
        payment["extensions"] = json!({ "payment-identifier": { "info": { "id": id } } });
        read(&payment).map(|payment| payment.identifier)
    };
    let (short, long) = ("pay_-Az012345678".to_owned(), "a".repeat(128));
    for id in [short, long] {
        assert_eq!(identifier(json!(id)), Ok(Some(id)));
    }
    let (short, long) = ("a".repeat(15), "a".repeat(129));
    for id in [
        json!(short),
        json!(long),
        json!("pay 012345678901"),
        json!(1),
        Value::Null,
    ] {
        let field = "extensions.payment-identifier.info.id";
        assert_eq!(identifier(id), Err(Malformed::Field(field)));
    }
    let mut payment = signed(&terms(), Version::V2);
    payment["extensions"] = json!({ "payment-identifier": { "info": { "required": false } } });
    assert_eq!(read(&payment).unwrap().identifier, None);
}

#[test]
fn body_offers_version_1_what_it_can_pay() {
    let upfront = Terms {
        flow: PaymentFlow::Upfront,
        ..terms()
    };
    let elsewhere = Terms {
        chain_id: 31337,
        ..terms()
    };
    let mut alike = terms();
    alike.token.address = Address::repeat_byte(9);
    let all = [upfront.clone(), elsewhere, terms(), alike];
    let body = required_body(&all);
    assert_eq!(body["x402Version"], 1);
    assert_eq!(body["error"], "a \"reason\"");
    let accepts = body["accepts"].as_array().unwrap();
    assert_eq!(accepts[0], requirement_v1(&terms(), RESOURCE).unwrap());
    assert_eq!(accepts.len(), 1, "a payment does not name its token");
    assert_eq!(accepts[0]["asset"], terms().token.address.to_string());
    for key in [
        "scheme",
        "network",
        "maxAmountRequired",
        "resource",
        "description",
        "mimeType",
        "payTo",
        "maxTimeoutSeconds",
        "asset",
        "extra",
    ] {
        assert!(!accepts[0][key].is_null(), "{key}");
    }
    assert_eq!(requirement_v1(&upfront, RESOURCE), None);
    let none = required_body(std::slice::from_ref(&upfront));
    assert_eq!(none["x402Version"], 2);
    assert_eq!(none["accepts"][0]["extra"]["paymentFlow"], "upfront");
}

#[test]
fn buyer_chooses_among_the_offered_terms() {
    let expensive = Terms {
        amount: U256::from(9000),
        ..terms()
    };
    let offered = [expensive, terms()];
    for version in [Version::V1, Version::V2] {
        assert_eq!(chosen(&offered, &payment(version)), Some(&offered[1]));
    }
}

#[test]
fn terms_that_are_not_offered_cannot_be_chosen() {
    let whole = signed(&terms(), Version::V2);
    let is_chosen = |value: &Value| chosen(&[terms()], &read(value).unwrap()).is_some();
    for (pointer, other) in [
        ("/accepted/scheme", json!("upto")),
        ("/accepted/network", json!("eip155:8453")),
        ("/accepted/amount", json!("1999")),
        ("/accepted/amount", json!("02000")),
        (
            "/accepted/asset",
            json!("0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0"),
        ),
        (
            "/accepted/payTo",
            json!("0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0"),
        ),
        ("/accepted/maxTimeoutSeconds", json!(600)),
        ("/accepted/extra/name", json!("USD Coin")),
        ("/accepted/extra/version", json!("1")),
        ("/accepted/extra/paymentFlow", json!("upfront")),
        ("/accepted/extra/paymentFlow", json!("escrow")),
        ("/accepted/extra/assetTransferMethod", json!("permit2")),
    ] {
        assert!(
            !is_chosen(&with(whole.clone(), pointer, other)),
            "{pointer}"
        );
    }
    for (pointer, same) in [
        (
            "/accepted/asset",
            json!("0x036cbd53842c5426634e7929541ec2318f3dcf7e"),
        ),
        ("/accepted/extra/paymentFlow", json!("authorization")),
        ("/accepted/extra/assetTransferMethod", json!("eip3009")),
        ("/accepted/extra/more", json!({})),
    ] {
        assert!(is_chosen(&with(whole.clone(), pointer, same)), "{pointer}");
    }
    let v1 = signed(&terms(), Version::V1);
    for (pointer, other) in [
        ("/network", json!("base")),
        ("/scheme", json!("upto")),
        ("/payload/authorization/value", json!("1999")),
        (
            "/payload/authorization/to",
            json!(signer().address().to_string()),
        ),
    ] {
        assert!(!is_chosen(&with(v1.clone(), pointer, other)), "{pointer}");
    }
    let upfront = Terms {
        flow: PaymentFlow::Upfront,
        ..terms()
    };
    assert_eq!(
        chosen(std::slice::from_ref(&upfront), &payment(Version::V1)),
        None
    );
    let paid = read(&signed(&upfront, Version::V2)).unwrap();
    assert!(chosen(std::slice::from_ref(&upfront), &paid).is_some());
}

#[test]
fn facilitator_is_asked_with_the_buyers_text_and_the_offered_requirement() {
    for (version, number) in [(Version::V1, 1), (Version::V2, 2)] {
        let payment = payment(version);
        let text = facilitator_request(&payment, &terms(), RESOURCE);
        assert!(text.contains(&payment.text));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["x402Version"], number);
        let requirement = match version {
            Version::V1 => requirement_v1(&terms(), RESOURCE).unwrap(),
            Version::V2 => requirement(&terms()),
        };
        assert_eq!(value["paymentRequirements"], requirement);
    }
}

#[test]
fn receipt_is_json_in_base64() {
    let receipt = PaymentReceipt {
        success: true,
        error_reason: None,
        payer: "0x1".into(),
        transaction: "0x2".into(),
        network: "eip155:84532".into(),
    };
    let decoded = BASE64.decode(receipt.encoded().as_bytes()).unwrap();
    let value: Value = serde_json::from_slice(&decoded).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["network", "payer", "success", "transaction"]);
}

/// What the reference implementation and x402-types wrote and read; `tests/x402/golden.mjs` and
/// `tests/clients/rust/src/bin/golden.rs` print it.
fn goldens() -> [Value; 2] {
    let golden = |text| serde_json::from_str(text).unwrap();
    [
        include_str!("golden.json"),
        include_str!("golden-rust.json"),
    ]
    .map(golden)
}

/// JSON of a field.
fn decoded(field: &str) -> Value {
    serde_json::from_slice(&BASE64.decode(field.as_bytes()).unwrap()).unwrap()
}

#[test]
fn other_implementations_write_the_same_terms() {
    for golden in goldens() {
        let mut own = required(&[terms()]);
        // Not every implementation knows extensions.
        if golden["required"]["json"].get("extensions").is_none() {
            own.as_object_mut().unwrap().remove("extensions");
        }
        assert_eq!(own, golden["required"]["json"]);
        let field = golden["required"]["header"].as_str().unwrap();
        assert_eq!(decoded(&encoded(&own)), decoded(field));
    }
}

#[test]
fn payments_of_other_clients_are_read_and_pay_for_the_terms() {
    let goldens = goldens();
    let payments = goldens.iter().flat_map(|golden| {
        let payments = golden["payments"].as_array().unwrap();
        assert_eq!(payments.len(), 2, "one of each version");
        payments.iter().map(|payment| (&golden["payer"], payment))
    });
    for (payer, golden_payment) in payments {
        let written = golden_payment["fields"].as_object().unwrap();
        let written = written.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, value.as_str().unwrap().to_owned())
        });
        let payment = read_payment(&fields(&written.collect::<Vec<_>>()));
        let payment = payment.unwrap().unwrap();
        let authorization = &golden_payment["payload"]["payload"]["authorization"];
        let read = &payment.authorization;
        assert_eq!(read.from.to_string(), *payer);
        assert_eq!(read.nonce.to_string(), authorization["nonce"]);
        assert_eq!(read.valid_before.to_string(), authorization["validBefore"]);
        let terms = [terms()];
        let chosen = chosen(&terms, &payment).unwrap();
        assert_eq!(
            check_form(&payment, chosen, "/services/chat/v1", ""),
            Ok(())
        );
        assert_eq!(check_signature(&payment), Ok(()));
        let signature = Signature::from_raw(&payment.signature).unwrap();
        let signer = signature.recover_address_from_prehash(&signing_hash(read, chosen));
        assert_eq!(signer.unwrap(), read.from);
        let now = read.valid_before.to::<u64>() - 300;
        assert!(check_window(read, chosen.max_timeout_seconds, now).is_ok());
    }
}

#[test]
fn other_implementations_read_the_same_receipt() {
    for golden in goldens() {
        let golden = &golden["receipt"];
        let of = |key: &str| golden["json"][key].as_str().unwrap().to_owned();
        let receipt = PaymentReceipt {
            success: true,
            error_reason: None,
            payer: of("payer"),
            transaction: of("transaction"),
            network: of("network"),
        };
        let field = golden["header"].as_str().unwrap();
        assert_eq!(decoded(&receipt.encoded()), decoded(field));
    }
}

#[test]
fn payment_on_other_terms_is_known_by_its_token() {
    let offered = |change: fn(&mut Terms)| {
        let mut terms = terms();
        change(&mut terms);
        [terms]
    };
    for version in [Version::V1, Version::V2] {
        let payment = payment(version);
        let found = |terms: &[Terms]| in_same_token(terms, &payment).is_some();
        let dearer = offered(|terms| terms.amount += U256::ONE);
        assert!(found(&dearer) && chosen(&dearer, &payment).is_none());
        assert!(!found(&offered(|terms| terms.chain_id = 1)));
        let other = offered(|terms| terms.token.address = Address::ZERO);
        assert_eq!(
            found(&other),
            version == Version::V1,
            "version 1 names none"
        );
    }
}
