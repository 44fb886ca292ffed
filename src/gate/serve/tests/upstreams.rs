//! An answer is charged if it is a success, and no byte of it leaves before it is charged.

use super::*;
use crate::gate::check::{MARGIN, SETTLING};

#[tokio::test]
async fn answer_that_is_no_success_is_passed_on_and_not_charged() {
    // x402-foundation/x402#644, x402-foundation/x402#144
    for status in [302, 400, 401, 404, 409, 429, 500, 503] {
        let shop = Shop::open().await;
        shop.upstream.will("*", [Reply::text(status, "no")]);
        let seen = shop.pay(&payment(1)).await;
        assert_eq!((seen.status, seen.body.as_str()), (status, "no"));
        assert_eq!(seen.field("x-payment-charged"), Some("false"));
        assert_eq!(seen.field("cache-control"), Some("private, no-store"));
        assert_eq!(seen.receipt(), None);
        assert_eq!(shop.facilitator.count("/settle"), 0, "{status}");
        shop.upstream.will("*", [Reply::text(200, "the answer")]);
        assert_eq!(
            shop.pay(&payment(1)).await.status,
            200,
            "cardotrejos/x402#73: the payment can be used"
        );
    }
}

#[tokio::test]
async fn success_keeps_its_status_and_fields() {
    // R22 of x402-conformance
    for (status, body) in [
        (200, "the answer"),
        (201, "made"),
        (202, "later"),
        (204, ""),
    ] {
        let shop = Shop::open().await;
        let fields = [("location", "/v1/jobs/7"), ("etag", "\"7\"")];
        shop.upstream
            .will("*", [Reply::text(status, body).with(fields)]);
        let seen = shop.pay(&payment(1)).await;
        assert_eq!((seen.status, seen.body.as_str()), (status, body));
        for (name, value) in fields {
            assert_eq!(seen.field(name), Some(value), "{status}");
        }
        assert_eq!(seen.receipt().unwrap()["success"], true);
        assert_eq!(shop.calls(), (1, 1, 1));
    }
}

#[tokio::test]
async fn answer_that_breaks_while_it_is_held_is_not_charged() {
    let shop = Shop::open().await;
    shop.upstream.will("*", [Reply::Cut(200, "the ans".into())]);
    let seen = shop.pay(&payment(1)).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (502, "upstream_failed")
    );
    assert_eq!(seen.json()["charged"], false);
    assert_eq!(shop.facilitator.count("/settle"), 0);
}

#[tokio::test]
async fn upstream_that_takes_longer_than_the_payment_lasts_is_not_charged() {
    // x402-foundation/x402#831
    let shop = Shop::open().await;
    let late = Reply::text(200, "late").late(Duration::from_secs(60));
    shop.upstream.will("*", [late]);
    let end = unix_seconds() + SETTLING + MARGIN + 2;
    let own = payment_with(1, |own| own.valid_before = U256::from(end));
    let seen = shop.pay(&own).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (504, "upstream_failed")
    );
    assert_eq!(shop.facilitator.count("/settle"), 0);
}

#[tokio::test]
async fn paid_answer_is_private_and_has_its_receipt() {
    // x402-foundation/x402#2955
    let shop = Shop::open().await;
    let seen = shop.pay(&payment(1)).await;
    assert_eq!((seen.status, seen.body.as_str()), (200, "the answer"));
    let cache = seen.field("cache-control").unwrap();
    assert!(
        cache.contains("no-store") && cache.contains("private"),
        "{cache}"
    );
    assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    assert_eq!(seen.field("x-payment-charged"), Some("true"));
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn upstream_learns_who_paid_and_not_how() {
    let shop = Shop::open().await;
    let given = [
        ("payment-signature", &*payment(1)),
        ("x-payment-payer", "0x1"),
        ("x-forwarded-for", "10.0.0.1"),
    ];
    let seen = shop.ask(reqwest::Method::POST, "/v1?a=b", &given).await;
    assert_eq!(seen.status, 200);
    let asked = shop.upstream.asked.lock().unwrap();
    let fields = &asked[0].headers;
    assert_eq!(asked[0].uri, "/v1?a=b");
    assert_eq!(fields["x-payment-payer"], signer().address().to_string());
    assert_eq!(
        fields["x-forwarded-for"], "127.0.0.1",
        "x402-foundation/x402#1935: the client is no trusted proxy"
    );
    assert!(!fields.contains_key("payment-signature"));
}

#[tokio::test]
async fn buyer_who_leaves_during_the_settlement_gets_the_answer_later() {
    // solana-foundation/pay-kit#301
    let shop = Shop::open().await;
    let slow = Reply::settled().late(Duration::from_millis(700));
    shop.facilitator.will("/settle", [slow]);
    let own = payment(1);
    let leaving = tokio::time::timeout(Duration::from_millis(400), shop.pay(&own)).await;
    assert!(leaving.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = shop.pay(&own).await;
    assert_eq!((seen.status, seen.body.as_str()), (200, "the answer"));
    assert_eq!(shop.calls(), (1, 1, 1));
}
