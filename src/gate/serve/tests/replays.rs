//! One payment buys one answer, however often and wherever it is presented.

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn payment_that_was_delivered_buys_nothing_again() {
    // x402-foundation/x402#803, gosuda/portal-tunnel#318
    let shop = Shop::open().await;
    let own = payment(1);
    assert_eq!(shop.pay(&own).await.status, 200);
    for _ in 0..3 {
        let seen = shop.pay(&own).await;
        assert_eq!((seen.status, seen.code().as_str()), (409, "payment_used"));
        assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    }
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn parallel_copies_of_a_payment_run_the_handler_once() {
    // x402-foundation/x402#1805, the duplicate-settlement race of arXiv 2605.30998
    let shop = Shop::open().await;
    shop.upstream.will(
        "*",
        [Reply::text(200, "the answer").late(Duration::from_millis(300))],
    );
    let own = payment(1);
    let seen = join_all((0..64).map(|_| shop.pay(&own))).await;
    let with = |status| seen.iter().filter(|seen| seen.status == status).count();
    assert_eq!((with(200), with(409)), (1, 63));
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn payment_buys_only_the_request_that_it_was_presented_for() {
    // Cross-resource substitution of arXiv 2605.30998, x402-foundation/x402#2842, CVE-2026-113603
    let shop = Shop::open().await;
    let slow = Reply::settled().late(Duration::from_secs(3));
    shop.facilitator.will("/settle", [slow, Reply::settled()]);
    let own = payment(1);
    assert_eq!(shop.pay(&own).await.status, 503);
    let fields = [("payment-signature", own.as_str())];
    let other = shop.ask(reqwest::Method::POST, "/other", &fields).await;
    assert_eq!((other.status, other.code().as_str()), (409, "payment_used"));
    let method = shop.ask(reqwest::Method::GET, "/v1", &fields).await;
    assert_eq!(method.status, 409);
    assert_eq!(shop.pay(&own).await.status, 200);
    assert_eq!(shop.upstream.count(""), 1);
}

#[tokio::test]
async fn payment_for_another_resource_amount_or_wallet_is_refused_here() {
    // x402-foundation/x402#2842, CVE-2026-113603
    let shop = Shop::open().await;
    let mut elsewhere = payment_json(1, |_| {});
    elsewhere["resource"] = json!({ "url": "https://shop.example/services/cheap/v1" });
    let less = payment_json(2, |own| own.value = U256::from(1999));
    let more = payment_json(3, |own| own.value = U256::from(2001));
    let wallet = payment_json(4, |own| own.to = signer().address());
    let mut priced = payment_json(5, |own| own.value = U256::from(1));
    priced["accepted"]["amount"] = "1".into();
    for payment in [elsewhere, less, more, wallet, priced] {
        let seen = shop.pay(&encoded(&payment)).await;
        assert_eq!(seen.status, 402, "{payment}");
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn payment_that_may_have_been_used_before_a_restart_is_not_delivered() {
    let shop = Shop::with(json!({}), |gate| gate.begun_at = unix_seconds()).await;
    shop.facilitator
        .will("/verify", [Reply::invalid("invalid_transaction_state")]);
    let seen = shop.pay(&payment(1)).await;
    assert!([409, 503].contains(&seen.status), "{seen:?}");
    assert_ne!(seen.body, "the answer");
    assert_eq!(shop.upstream.count(""), 0);
}

#[tokio::test]
async fn spelling_of_an_address_makes_no_second_payment() {
    let shop = Shop::open().await;
    let own = payment_json(1, |_| {});
    assert_eq!(shop.pay(&encoded(&own)).await.status, 200);
    let mut lower = own;
    let from = &mut lower["payload"]["authorization"]["from"];
    *from = from.as_str().unwrap().to_lowercase().into();
    let seen = shop.pay(&encoded(&lower)).await;
    assert_eq!(seen.status, 409);
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn malleable_signature_is_no_second_payment() {
    let shop = Shop::open().await;
    let own = payment_json(1, |_| {});
    let mut zero_based = own.clone();
    let signature = &mut zero_based["payload"]["signature"];
    let text = signature.as_str().unwrap().to_owned();
    let last = u8::from_str_radix(&text[130..], 16).unwrap();
    *signature = format!("{}{:02x}", &text[..130], last - 27).into();
    // Wallets write the recovery id as 0 and 1 or as 27 and 28.
    assert_eq!(shop.pay(&encoded(&zero_based)).await.status, 200);
    assert_eq!(shop.pay(&encoded(&own)).await.status, 409);
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn payment_on_former_terms_is_answered_as_what_became_of_it() {
    let shop = Shop::open().await;
    let slow = Reply::settled().late(Duration::from_secs(3));
    shop.facilitator.will("/settle", [slow, Reply::settled()]);
    let first = payment(1);
    assert_eq!(shop.pay(&first).await.code(), "settlement_pending");
    shop.change(json!({ "spec": { "payment": { "price": { "perRequest": "0.5" } } } }));
    let again = shop.pay(&first).await;
    assert_eq!((again.status, again.body.as_str()), (200, "the answer"));
    assert_eq!(shop.pay(&first).await.code(), "payment_used");
    let unknown = shop.pay(&payment(2)).await;
    assert_eq!(unknown.status, 402, "it bought nothing before");
    assert_eq!(shop.calls().2, 1);
}

#[tokio::test]
async fn answer_is_not_given_to_someone_who_signs_for_the_payer() {
    let shop = Shop::open().await;
    let slow = Reply::settled().late(Duration::from_secs(3));
    shop.facilitator.will("/settle", [slow, Reply::settled()]);
    let own = payment_json(1, |_| {});
    assert_eq!(shop.pay(&encoded(&own)).await.code(), "settlement_pending");
    let mut forged = own.clone();
    forged["payload"]["signature"] = format!("0x{}", "01".repeat(66)).into();
    let seen = shop.pay(&encoded(&forged)).await;
    assert_eq!((seen.status, seen.code().as_str()), (409, "payment_used"));
    let again = shop.pay(&encoded(&own)).await;
    assert_eq!((again.status, again.body.as_str()), (200, "the answer"));
}

#[tokio::test]
async fn payment_that_never_ends_is_refused_before_anyone_is_asked() {
    let shop = Shop::open().await;
    for end in [
        U256::MAX,
        U256::from(u64::MAX),
        U256::from(unix_seconds() + 86_400),
    ] {
        let seen = shop
            .pay(&payment_with(1, |own| own.valid_before = end))
            .await;
        assert_eq!(seen.status, 402);
        assert!(
            seen.body.contains("payment_expires_too_late"),
            "{}",
            seen.body
        );
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}
