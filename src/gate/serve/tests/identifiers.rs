//! A request that its buyer identified (extension `payment-identifier` of x402) is charged once.

use futures::future::join_all;
use reqwest::Method;

use super::*;

const IDENTIFIER: &str = "pay_0123456789abcdef";

/// A payment for a request with this identifier.
fn identified(nonce: u8, identifier: &str) -> String {
    identified_with(nonce, identifier, json!({}))
}

/// The same with other fields.
fn identified_with(nonce: u8, identifier: &str, over: Value) -> String {
    let mut payment = payment_json(nonce, |_| {});
    payment["extensions"] =
        json!({ "payment-identifier": { "info": { "required": false, "id": identifier } } });
    crate::registration::fixtures::merge(&mut payment, over);
    encoded(&payment)
}

#[tokio::test]
async fn another_payment_for_an_identified_request_is_not_charged() {
    // R20a of x402-conformance
    let shop = Shop::open().await;
    let [own, second, third] = [1, 2, 3].map(|nonce| identified(nonce, IDENTIFIER));
    let first = shop.pay(&own).await;
    assert_eq!((first.status, first.body.as_str()), (200, "the answer"));
    for payment in [own, second, third] {
        let again = shop.pay(&payment).await;
        assert_eq!((again.status, again.body.as_str()), (200, "the answer"));
        assert_eq!(again.receipt(), first.receipt());
    }
    assert_eq!(shop.calls(), (3, 1, 1), "others are only verified");
}

#[tokio::test]
async fn parallel_payments_for_an_identified_request_are_charged_once() {
    // R12 of x402-conformance
    let shop = Shop::open().await;
    let late = Reply::text(200, "the answer").late(Duration::from_millis(300));
    shop.upstream.will("*", [late]);
    let payments = (1..=16).map(|nonce| identified(nonce, IDENTIFIER));
    let seen = join_all(payments.map(async |payment| shop.pay(&payment).await)).await;
    let with = |status| seen.iter().filter(|seen| seen.status == status).count();
    assert_eq!((with(200), with(409)), (1, 15));
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn identifier_of_another_request_is_refused() {
    let shop = Shop::open().await;
    assert_eq!(shop.pay(&identified(1, IDENTIFIER)).await.status, 200);
    let other = identified(2, IDENTIFIER);
    let fields = [("payment-signature", other.as_str())];
    for (method, path) in [(Method::POST, "/v2"), (Method::GET, "/v1")] {
        let seen = shop.ask(method, path, &fields).await;
        assert_eq!((seen.status, seen.code().as_str()), (409, "payment_used"));
    }
    assert_eq!(shop.calls(), (1, 1, 1));
    let own = identified(2, "pay_fedcba9876543210");
    assert_eq!(shop.pay(&own).await.status, 200);
    assert_eq!(shop.calls(), (2, 2, 2));
}

#[tokio::test]
async fn answer_of_an_identified_request_is_for_its_payer() {
    let shop = Shop::open().await;
    assert_eq!(shop.pay(&identified(1, IDENTIFIER)).await.status, 200);
    let forged = json!({ "payload": { "signature": format!("0x{}", "01".repeat(66)) } });
    shop.facilitator.will(
        "/verify",
        [Reply::invalid("invalid_exact_evm_payload_signature")],
    );
    let seen = shop.pay(&identified_with(2, IDENTIFIER, forged)).await;
    assert_eq!(seen.status, 402, "{seen:?}");
    // The nonce of the first payment is public, and its signature as well.
    assert_eq!(shop.pay(&payment(1)).await.status, 409);
    let guessed = identified(1, "pay_0000000000000000");
    assert_eq!(shop.pay(&guessed).await.status, 409);
    assert_eq!(shop.calls(), (2, 1, 1));
}

#[tokio::test]
async fn identifier_is_free_again_if_nothing_was_charged() {
    let shop = Shop::open().await;
    shop.upstream.will("*", [Reply::text(503, "later")]);
    assert_eq!(shop.pay(&identified(1, IDENTIFIER)).await.status, 503);
    shop.upstream.will("*", [Reply::text(200, "the answer")]);
    shop.facilitator
        .will("/settle", [Reply::refused("insufficient_funds")]);
    assert_eq!(shop.pay(&identified(2, IDENTIFIER)).await.status, 402);
    shop.facilitator.will("/settle", [Reply::settled()]);
    assert_eq!(shop.pay(&identified(3, IDENTIFIER)).await.status, 200);
    assert_eq!(shop.calls(), (3, 2, 3));
}

#[tokio::test]
async fn identified_request_waits_for_the_outcome_of_its_first_payment() {
    let shop = Shop::open().await;
    let own = identified(1, IDENTIFIER);
    let slow = Reply::settled().late(Duration::from_secs(3));
    shop.facilitator
        .will("/settle", [slow.clone(), slow, Reply::settled()]);
    assert_eq!(shop.pay(&own).await.code(), "settlement_pending");
    let another = shop.pay(&identified(2, IDENTIFIER)).await;
    assert!(
        ["payment_state_unknown", "payment_in_progress"].contains(&another.code().as_str()),
        "{another:?}"
    );
    let first = shop.pay(&own).await;
    assert_eq!((first.status, first.body.as_str()), (200, "the answer"));
    assert_eq!(shop.upstream.count(""), 1);
}

#[tokio::test]
async fn answer_that_is_not_kept_is_for_the_first_payment() {
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |_| {}).await;
    let flow = json!({ "accepted": { "extra": { "paymentFlow": "upfront" } } });
    let [first, second] = [1, 2].map(|nonce| identified_with(nonce, IDENTIFIER, flow.clone()));
    let replies = [Reply::text(503, "later"), Reply::text(200, "the answer")];
    shop.upstream.will("*", replies);
    assert_eq!(shop.pay(&first).await.status, 503);
    let seen = shop.pay(&second).await;
    assert_eq!((seen.status, seen.code().as_str()), (409, "payment_used"));
    assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    for payment in [&first, &second] {
        assert_eq!(shop.pay(payment).await.body, "the answer");
    }
    assert_eq!(shop.facilitator.count("/settle"), 1);
    assert_eq!(shop.upstream.count(""), 2);
}

#[tokio::test]
async fn repeated_answers_are_within_the_budget_of_their_address() {
    let few = Allowance {
        every: Duration::from_secs(60),
        burst: 2,
    };
    let shop = Shop::with(json!({}), |gate| {
        gate.budget = AddressBudget::new(10, few, few)
    })
    .await;
    let [own, other] = [1, 2].map(|nonce| identified(nonce, IDENTIFIER));
    let mut seen = Vec::new();
    for payment in [&own, &own, &other, &own, &other] {
        seen.push(shop.pay(payment).await.status);
    }
    assert_eq!(seen, [200, 200, 200, 429, 429]);
    assert_eq!(shop.calls(), (2, 1, 1));
}

#[tokio::test]
async fn identified_request_that_is_paid_upfront_gets_its_answer_again() {
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |_| {}).await;
    let flow = json!({ "accepted": { "extra": { "paymentFlow": "upfront" } } });
    let payment = |nonce| identified_with(nonce, IDENTIFIER, flow.clone());
    let (first, second) = (payment(1), payment(2));
    for payment in [&first, &first, &second] {
        let seen = shop.pay(payment).await;
        assert_eq!((seen.status, seen.body.as_str()), (200, "the answer"));
    }
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn identifier_is_offered_and_refused_in_another_form() {
    let shop = Shop::open().await;
    let unpaid = shop.ask(Method::GET, "/v1", &[]).await;
    let required = unpaid.decoded("payment-required").unwrap();
    let declared = &required["extensions"]["payment-identifier"];
    assert_eq!(declared["info"]["required"], false);
    let malformed = shop.pay(&identified(1, "too-short")).await;
    assert_eq!(
        (malformed.status, malformed.code().as_str()),
        (400, "malformed_payment")
    );
    assert_eq!(shop.calls(), (0, 0, 0));
}
