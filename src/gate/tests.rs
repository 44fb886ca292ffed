//! Fuzz loops over what strangers send: payments, paths, and the answers of facilitators. Each damages
//! input that is right, and checks what must hold whatever arrives.
//!
//! `FUZZ_SECONDS` says how long each loop runs, `FUZZ_SEED` repeats one. `make fuzz` runs them for longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, AskedPayment, settlement, verification};
use super::check::{check_form, check_signature, check_window};
use super::path::CanonicalPath;
use super::wire::tests::{RESOURCE, signed, terms};
use super::wire::{PAYMENT_SIGNATURE, Version, chosen, facilitator_request, read_payment};
use super::{Settlement, answer::Verification};

/// Pieces that mean something to some reader of these inputs.
const TOKENS: [&str; 24] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\u0000",
    "null",
    "true",
    "-1",
    "1e999",
    "0x",
    "==",
    "=",
    "/",
    "//",
    "/../",
    "%2f",
    "%00",
    ";",
    "\\",
    "2000",
    "\"success\":true,",
];

/// An input with one to four faults.
fn damaged(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 24));
        match random.random_range(0..5) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 => drop(input.drain(at..end)),
            2 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            3 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                input.splice(at..at, token.bytes());
            }
            _ => {
                let other = &inputs[random.random_range(0..inputs.len())];
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

/// Checks damaged inputs until the time is over.
fn fuzz(inputs: &[Vec<u8>], check: impl Fn(&[u8], &mut StdRng)) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("FUZZ_SEED").unwrap_or_else(|| rand::rng().next_u64());
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    let mut random = StdRng::seed_from_u64(seed);
    let mut count = 0_u64;
    while Instant::now() < end {
        let input = damaged(inputs, &mut random);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input, &mut random)));
        let shown = String::from_utf8_lossy(&input);
        assert!(checked.is_ok(), "FUZZ_SEED={seed}, input {count}: {shown}");
        count += 1;
    }
    println!("{count} inputs");
}

/// What must hold for every field that is taken for a payment.
fn check_payment(field: &[u8]) {
    let Ok(field) = HeaderValue::from_bytes(field) else {
        return;
    };
    let fields = HeaderMap::from_iter([(PAYMENT_SIGNATURE, field)]);
    let Ok(Some(payment)) = read_payment(&fields) else {
        return;
    };
    let sent: Value = serde_json::from_str(&payment.text).unwrap();
    let value = sent["payload"]["authorization"]["value"].as_str().unwrap();
    let value = U256::from_str_radix(value, 10).unwrap();
    assert_eq!(
        payment.authorization.value, value,
        "what is checked is what is passed on"
    );
    let offered = [terms()];
    let _ = check_window(&payment.authorization, 300, 1_000_000);
    let _ = check_signature(&payment);
    if let Some(terms) = chosen(&offered, &payment) {
        let _ = check_form(&payment, terms, "/services/chat/v1", "");
        let asked: Value =
            serde_json::from_str(&facilitator_request(&payment, terms, RESOURCE)).unwrap();
        assert_eq!(asked["paymentPayload"], sent);
    }
}

/// Payments of both versions as JSON.
fn payments() -> Vec<Vec<u8>> {
    let versions = [Version::V1, Version::V2];
    versions
        .map(|version| signed(&terms(), version).to_string().into_bytes())
        .to_vec()
}

#[test]
fn payment_field_is_read_as_one_payment_or_refused() {
    let fields: Vec<_> = payments()
        .iter()
        .map(|json| BASE64.encode(json).into_bytes())
        .collect();
    fuzz(&fields, |field, _| check_payment(field));
}

#[test]
fn payment_json_is_read_as_one_payment_or_refused() {
    fuzz(&payments(), |json, _| {
        check_payment(BASE64.encode(json).as_bytes())
    });
}

#[test]
fn path_has_one_canonical_form_or_is_refused() {
    let paths = [
        "/services/chat/v1/models",
        "/a%2db/;c=d/~e/",
        "/%41/b@c:d!$&'()*,=",
    ];
    let paths: Vec<_> = paths.map(|path| path.as_bytes().to_vec()).to_vec();
    fuzz(&paths, |path, _| {
        let Ok(canonical) = CanonicalPath::new(&String::from_utf8_lossy(path)) else {
            return;
        };
        let again = CanonicalPath::new(canonical.as_str()).unwrap();
        assert_eq!(again.as_str(), canonical.as_str());
        for segment in canonical.segments() {
            let name = segment.split(';').next().unwrap();
            assert!(![".", ".."].contains(&name));
        }
    });
}

/// What the body of /settle says.
#[derive(Deserialize)]
struct Settled {
    success: bool,
}

/// What the body of /verify says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    is_valid: bool,
}

#[test]
fn facilitator_is_believed_only_if_it_says_yes() {
    let hash = format!("0x{}", "11".repeat(32));
    let answers = [
        json!({ "success": true, "transaction": hash, "network": "eip155:84532", "payer": hash }),
        json!({ "success": false, "errorReason": "invalid_payload", "transaction": "" }),
        json!({ "isValid": true, "payer": hash }),
        json!({ "isValid": false, "invalidReason": "insufficient_funds" }),
    ];
    let answers: Vec<_> = answers
        .map(|answer| answer.to_string().into_bytes())
        .to_vec();
    let asked = AskedPayment {
        payer: Address::ZERO,
        chain_id: 84532,
        amount: U256::from(2000),
    };
    fuzz(&answers, |body, random| {
        let status = [200, 201, 400, 402, 429, 500][random.random_range(0..6)];
        let answer = Answer {
            status,
            content_type: Some("application/json".into()),
            retry_after: None,
            body: body.to_vec(),
            is_whole: random.random(),
        };
        let is_believable = answer.is_whole && status == 200;
        if let Settlement::Settled { transaction, .. } = settlement(&answer, &asked) {
            let said: Settled = serde_json::from_slice(body).unwrap();
            assert!(is_believable && said.success && transaction.len() == 66);
        }
        if verification(&answer, &asked) == Verification::Valid {
            let said: Verified = serde_json::from_slice(body).unwrap();
            assert!(is_believable && said.is_valid);
        }
    });
}
