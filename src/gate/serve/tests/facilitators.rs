//! What a facilitator says is believed only if it can be, and no answer makes a buyer pay twice.

use futures::future::{BoxFuture, join_all, ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::gate::check::PaymentId;
use crate::gate::claims::{ClaimStore, Taken, Unavailable};
use crate::gate::payment::{Claim, Event, HolderToken, NotAllowed};

/// Answers that are no verdict: x402-rs/x402-rs#65, and R3 to R9 of x402-conformance.
pub(super) fn no_verdicts(success: &Value) -> Vec<Reply> {
    let whole = success.to_string();
    let half = whole[..whole.len() / 2].to_owned();
    vec![
        Reply::Whole(502, "text/html", "<h1>Bad Gateway</h1>".into()),
        Reply::Whole(200, "text/html", whole.clone()),
        Reply::Whole(200, "application/json", half.clone()),
        Reply::Cut(200, half),
        Reply::json(503, success.clone()),
        Reply::json(200, json!([success])),
        Reply::json(200, json!("ok")),
        Reply::json(200, json!({})),
        Reply::json(302, success.clone()),
        Reply::json(429, json!({ "error": "too many requests" })),
    ]
}

#[tokio::test]
async fn payment_that_no_one_verified_reaches_no_upstream() {
    for reply in no_verdicts(&json!({ "isValid": true })) {
        let shop = Shop::open().await;
        shop.facilitator.will("/verify", [reply]);
        let seen = shop.pay(&payment(1)).await;
        assert_eq!(
            (seen.status, seen.code().as_str()),
            (503, "facilitator_unavailable")
        );
        assert!(seen.field("retry-after").is_some());
        let (_, settled, worked) = shop.calls();
        assert_eq!((settled, worked), (0, 0));
    }
}

#[tokio::test]
async fn answer_that_no_one_settled_is_not_delivered_and_no_new_payment_is_asked_for() {
    let success = json!({ "success": true, "transaction": TRANSACTION, "network": "eip155:84532" });
    for reply in no_verdicts(&success) {
        let shop = Shop::open().await;
        shop.facilitator.will("/settle", [reply]);
        let seen = shop.pay(&payment(1)).await;
        assert_eq!(
            (seen.status, seen.code().as_str()),
            (503, "settlement_pending"),
            "{seen:?}"
        );
        assert!(!seen.body.contains("the answer"));
        assert_eq!(
            seen.receipt().unwrap()["success"],
            false,
            "middyjs/middy#1678"
        );
        assert_eq!(shop.calls().2, 1);
        assert_eq!(
            shop.metric("serviceoffer_gate_delivered_unsettled_total"),
            0.0
        );
    }
}

#[tokio::test]
async fn refused_settlement_is_answered_402_with_its_reason() {
    // x402-foundation/x402#451, x402-foundation/x402#3223
    let shop = Shop::open().await;
    shop.facilitator
        .will("/settle", [Reply::refused("insufficient_funds")]);
    let seen = shop.pay(&payment(1)).await;
    assert_eq!(seen.status, 402);
    let receipt = seen.receipt().unwrap();
    assert_eq!(
        (&receipt["success"], &receipt["errorReason"]),
        (&json!(false), &json!("insufficient_funds"))
    );
    assert!(!seen.body.contains("the answer"));
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn settlement_that_is_slow_is_asked_for_again_and_its_answer_kept() {
    // x402-foundation/x402#1062, x402-foundation/x402#2294: the transaction was sent, and the answer was not.
    let shop = Shop::open().await;
    let slow = Reply::settled().late(Duration::from_secs(3));
    shop.facilitator.will("/settle", [slow, Reply::settled()]);
    let first = payment(1);
    let seen = shop.pay(&first).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (503, "settlement_pending")
    );
    let again = shop.pay(&first).await;
    assert_eq!((again.status, again.body.as_str()), (200, "the answer"));
    assert_eq!(again.receipt().unwrap()["transaction"], TRANSACTION);
    assert_eq!(shop.calls().2, 1, "the work is done once");
}

#[tokio::test]
async fn transaction_of_a_failed_answer_is_named() {
    // the transaction was mined
    let shop = Shop::open().await;
    let failed =
        json!({ "success": false, "errorReason": "unexpected_error", "transaction": TRANSACTION });
    shop.facilitator.will("/settle", [Reply::json(500, failed)]);
    let seen = shop.pay(&payment(1)).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (503, "settlement_pending")
    );
    assert_eq!(seen.json()["transaction"], TRANSACTION);
}

#[tokio::test]
async fn invalid_payment_is_answered_402_before_the_work() {
    let shop = Shop::open().await;
    shop.facilitator
        .will("/verify", [Reply::invalid("insufficient_funds")]);
    let seen = shop.pay(&payment(1)).await;
    assert_eq!(seen.status, 402);
    assert!(seen.body.contains("insufficient_funds"), "{}", seen.body);
    assert_eq!(shop.calls(), (1, 0, 0));
}

#[tokio::test]
async fn upfront_payment_is_settled_before_the_work_and_charged_if_it_fails() {
    // a buyer who takes the work and never pays
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |_| {}).await;
    shop.facilitator
        .will("/settle", [Reply::refused("insufficient_funds")]);
    let upfront = |nonce| {
        let mut json = payment_json(nonce, |_| {});
        json["accepted"]["extra"]["paymentFlow"] = "upfront".into();
        encoded(&json)
    };
    assert_eq!(shop.pay(&upfront(1)).await.status, 402);
    assert_eq!(shop.upstream.count(""), 0);
    shop.facilitator.will("/settle", [Reply::settled()]);
    shop.upstream.will(
        "*",
        [
            Reply::Cut(200, "the".into()),
            Reply::text(200, "the answer"),
        ],
    );
    let second = upfront(2);
    let cut = shop.pay(&second).await;
    assert_ne!(cut.body, "the answer");
    let again = shop.pay(&second).await;
    assert_eq!(
        (again.status, again.body.as_str()),
        (200, "the answer"),
        "{again:?}"
    );
    assert_eq!(shop.facilitator.count("/settle"), 2, "one for each payment");
}

#[tokio::test]
async fn upfront_payment_is_kept_for_the_same_request_while_the_upstream_fails() {
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |_| {}).await;
    let mut json = payment_json(1, |_| {});
    json["accepted"]["extra"]["paymentFlow"] = "upfront".into();
    let payment = encoded(&json);
    let failed = Reply::text(503, "later");
    shop.upstream
        .will("*", [failed, Reply::text(200, "the answer")]);
    let seen = shop.pay(&payment).await;
    assert_eq!((seen.status, seen.body.as_str()), (503, "later"));
    assert_eq!(seen.field("x-payment-charged"), Some("true"));
    assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    let again = shop.pay(&payment).await;
    assert_eq!((again.status, again.body.as_str()), (200, "the answer"));
    assert_eq!(shop.facilitator.count("/settle"), 1);
    assert_eq!(shop.pay(&payment).await.code(), "payment_used");
}

#[tokio::test]
async fn refused_settlement_names_its_transaction_however_old_the_payment_may_be() {
    let shop = Shop::with(json!({}), |gate| gate.begun_at = unix_seconds()).await;
    let refused = json!({
        "success": false, "errorReason": "insufficient_funds", "transaction": TRANSACTION,
    });
    shop.facilitator
        .will("/settle", [Reply::json(200, refused)]);
    let old = payment_with(1, |own| own.valid_after = U256::ZERO);
    let seen = shop.pay(&old).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (409, "payment_state_unknown")
    );
    assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
}

#[tokio::test]
async fn pending_settlement_ends_in_one_answer_or_in_none() {
    // R7 and R8 of x402-conformance
    let pending = json!({
        "success": false, "errorReason": "settlement_pending", "transaction": TRANSACTION,
    });
    let pending = Reply::json(200, pending);
    let own = payment(1);
    let shop = Shop::open().await;
    let replies = [pending.clone(), Reply::settled()];
    shop.facilitator.will("/settle", replies);
    assert_eq!(shop.pay(&own).await.code(), "settlement_pending");
    let settled = shop.pay(&own).await;
    assert_eq!((settled.status, settled.body.as_str()), (200, "the answer"));
    assert_eq!(shop.pay(&own).await.code(), "payment_used");
    assert_eq!(shop.upstream.count(""), 1);

    let shop = Shop::open().await;
    let failed = Reply::refused("invalid_transaction_state");
    shop.facilitator.will("/settle", [pending, failed]);
    for _ in 0..2 {
        let seen = shop.pay(&own).await;
        assert_eq!(
            (seen.status, seen.code().as_str()),
            (503, "settlement_pending")
        );
        assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    }
    assert_eq!(shop.upstream.count(""), 1);
}

#[tokio::test]
async fn failure_of_the_facilitators_own_asks_for_no_new_payment() {
    for reason in ["settle_exact_node_failure", "settle_error", "network_error"] {
        let shop = Shop::open().await;
        shop.facilitator.will("/settle", [Reply::refused(reason)]);
        let seen = shop.pay(&payment(1)).await;
        assert_eq!(
            (seen.status, seen.code().as_str()),
            (503, "settlement_pending"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn verification_that_fails_for_another_reason_charges_nothing() {
    let shop = Shop::with(json!({}), |gate| gate.begun_at = unix_seconds()).await;
    let old = payment_with(1, |own| own.valid_after = U256::ZERO);
    for (reason, status) in [
        ("connect ECONNREFUSED 10.0.0.9:8545", 503),
        ("policy_denied", 402),
    ] {
        shop.facilitator.will("/verify", [Reply::invalid(reason)]);
        assert_eq!(shop.pay(&old).await.status, status, "{reason}");
    }
    assert_eq!(shop.calls(), (2, 0, 0));
}

#[tokio::test]
async fn payment_without_a_beginning_is_not_older_than_a_gate_that_began_long_ago() {
    let shop = Shop::open().await;
    let refused = Reply::refused("insufficient_funds");
    shop.facilitator.will("/settle", [refused]);
    let endless = payment_with(1, |own| own.valid_after = U256::ZERO);
    assert_eq!(shop.pay(&endless).await.status, 402);
}

#[tokio::test]
async fn verification_is_repeated_once_after_an_error_of_the_facilitator() {
    let shop = Shop::open().await;
    shop.facilitator
        .will("/verify", [Reply::text(500, "down"), Reply::valid()]);
    assert_eq!(shop.pay(&payment(1)).await.status, 200);
}

/// A port that nothing listens on.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A port where one verification is answered, and nothing listens from then on.
async fn one_verification() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        drop(listener);
        let _ = connection.read(&mut [0; 16 * 1024]).await;
        let response = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\
                        connection: close\r\n\r\n{\"isValid\":true}";
        connection.write_all(response.as_bytes()).await.unwrap();
    });
    port
}

#[tokio::test]
async fn second_facilitator_is_used_while_the_first_is_down() {
    for flow in ["authorization", "upfront"] {
        let shop = Shop::open().await;
        let ports = [closed_port().await, shop.facilitator.port];
        shop.rely_on(&ports, json!({ "spec": { "payment": { "flow": flow } } }));
        let mut json = payment_json(1, |_| {});
        if flow == "upfront" {
            json["accepted"]["extra"]["paymentFlow"] = flow.into();
        }
        let seen = shop.pay(&encoded(&json)).await;
        assert_eq!(seen.status, 200, "{flow}: {seen:?}");
        assert_eq!(shop.facilitator.count("/settle"), 1, "{flow}");
    }
}

#[tokio::test]
async fn second_facilitator_settles_if_the_first_ended_after_its_verification() {
    let shop = Shop::open().await;
    let ports = [one_verification().await, shop.facilitator.port];
    shop.rely_on(&ports, json!({}));
    let seen = shop.pay(&payment(1)).await;
    assert_eq!((seen.status, shop.calls()), (200, (0, 1, 1)), "{seen:?}");
}

#[tokio::test]
async fn settlement_that_the_first_facilitator_may_have_sent_stays_with_it() {
    for reply in [Reply::text(500, "down"), Reply::Cut(200, "{".into())] {
        let shop = Shop::open().await;
        let second = Double::start().await;
        second.will("/settle", [Reply::settled()]);
        shop.rely_on(&[shop.facilitator.port, second.port], json!({}));
        shop.facilitator.will("/settle", [reply]);
        let seen = shop.pay(&payment(1)).await;
        assert_eq!((seen.status, second.count("/settle")), (503, 0), "{seen:?}");
    }
}

/// Successes that are not those of the payment, or say so in a way that leaves doubts.
fn doubtful(success: &Value) -> Vec<(&'static str, Reply)> {
    let with = |field: &str, value: Value| {
        let mut success = success.clone();
        success[field] = value;
        Reply::json(200, success)
    };
    let whole = success.to_string();
    let twice = |first: &str| {
        let body = format!("{{{first},{}", &whole[1..]);
        Reply::Whole(200, "application/json", body)
    };
    let elsewhere = [("location", "http://127.0.0.1:9/"), ("retry-after", "0")];
    vec![
        ("reason", with("errorReason", json!("expired"))),
        ("huge", with("zeroes", json!("0".repeat(70_000)))),
        ("string", with("success", json!("true"))),
        ("number", with("success", json!(1))),
        ("twice", twice(r#""success":false"#)),
        ("array", Reply::json(200, json!([success, success]))),
        (
            "html",
            Reply::Whole(200, "text/html", "<h1>Welcome</h1>".into()),
        ),
        ("cut at its end", Reply::Cut(200, whole.clone())),
        (
            "padded",
            Reply::Whole(200, "application/json", whole.clone() + &" ".repeat(70_000)),
        ),
        (
            "stalled",
            Reply::Stalled(200, whole[..whole.len() - 1].to_owned()),
        ),
        (
            "redirect",
            Reply::json(307, success.clone()).with(elsewhere),
        ),
        ("failure", Reply::json(503, success.clone())),
        ("created", Reply::json(201, success.clone())),
    ]
}

#[tokio::test]
async fn success_that_is_not_that_of_the_payment_delivers_nothing() {
    let success = json!({
        "success": true, "transaction": TRANSACTION, "network": "eip155:84532",
        "payer": signer().address().to_string(), "amount": "2000",
    });
    let with = |field: &str, value: &str| {
        let mut success = success.clone();
        success[field] = value.into();
        Reply::json(200, success)
    };
    let mut replies = doubtful(&success);
    let text = success.to_string();
    let twice = format!(r#"{{"transaction":"0x{}",{}"#, "2".repeat(64), &text[1..]);
    let other = terms().pay_to.to_string();
    replies.extend([
        ("network", with("network", "eip155:8453")),
        ("network of version 1", with("network", "base")),
        ("payer", with("payer", &other)),
        ("amount", with("amount", "1")),
        ("transaction", with("transaction", "0x11")),
        (
            "two transactions",
            Reply::Whole(200, "application/json", twice),
        ),
    ]);
    let checks = replies.into_iter().map(async |(name, reply)| {
        let shop = Shop::open().await;
        shop.facilitator.will("/settle", [reply]);
        let seen = shop.pay(&payment(1)).await;
        let found = (seen.status, seen.code());
        assert_eq!(
            found,
            (503, "settlement_pending".into()),
            "{name}: {seen:?}"
        );
        assert!(!seen.body.contains("the answer"), "{name}");
        assert_eq!(seen.receipt().unwrap()["success"], false, "{name}");
        assert_eq!(shop.calls().2, 1, "{name}");
        let unsettled = shop.metric("serviceoffer_gate_delivered_unsettled_total");
        assert_eq!(unsettled, 0.0, "{name}");
    });
    join_all(checks).await;
    let shop = Shop::open().await;
    shop.facilitator
        .will("/settle", [Reply::json(200, success)]);
    assert_eq!(shop.pay(&payment(1)).await.body, "the answer");
}

#[tokio::test]
async fn doubtful_verification_calls_no_upstream() {
    let valid = json!({ "isValid": true });
    let mut replies = doubtful(&valid);
    let reply = |body: &str| Reply::Whole(200, "application/json", body.to_owned());
    replies.retain(|(name, _)| !["reason", "string", "number", "twice"].contains(name));
    replies.extend([
        (
            "reason",
            reply(r#"{"isValid":true,"invalidReason":"expired"}"#),
        ),
        ("string", reply(r#"{"isValid":"true"}"#)),
        ("twice", reply(r#"{"isValid":false,"isValid":true}"#)),
    ]);
    let checks = replies.into_iter().map(async |(name, reply)| {
        let shop = Shop::open().await;
        shop.facilitator.will("/verify", [reply]);
        let seen = shop.pay(&payment(1)).await;
        let found = (seen.status, seen.code());
        assert_eq!(
            found,
            (503, "facilitator_unavailable".into()),
            "{name}: {seen:?}"
        );
        let (_, settled, worked) = shop.calls();
        assert_eq!((settled, worked), (0, 0), "{name}");
    });
    join_all(checks).await;
}

#[tokio::test]
async fn verification_of_another_payer_is_a_fault_of_the_facilitator() {
    let valid = |payer: &str| Reply::json(200, json!({ "isValid": true, "payer": payer }));
    let other = terms().pay_to.to_string();
    let shop = Shop::open().await;
    shop.facilitator.will("/verify", [valid(&other)]);
    let own = payment(1);
    let seen = shop.pay(&own).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (503, "facilitator_unavailable")
    );
    assert_eq!(shop.calls(), (1, 0, 0), "asked once, and nothing done");

    let honest = Double::start().await;
    honest.will("/settle", [Reply::settled()]);
    honest.will(
        "/verify",
        [valid(&signer().address().to_string().to_lowercase())],
    );
    shop.rely_on(&[shop.facilitator.port, honest.port], json!({}));
    let seen = shop.pay(&own).await;
    assert_eq!((seen.status, seen.body.as_str()), (200, "the answer"));
    assert_eq!(shop.calls(), (2, 0, 1), "the next facilitator is asked");
    assert_eq!(honest.count("/settle"), 1);
}

#[tokio::test]
async fn payer_of_a_contract_wallet_is_the_wallet() {
    // EIP-1271: what its owner's key signs is not what that key's address pays.
    let wallet = terms().token.address;
    let own = payment_with(1, |own| own.from = wallet);
    for (payer, status) in [(wallet, 200), (signer().address(), 503)] {
        let shop = Shop::open().await;
        let valid = json!({ "isValid": true, "payer": payer.to_string() });
        shop.facilitator.will("/verify", [Reply::json(200, valid)]);
        assert_eq!(shop.pay(&own).await.status, status, "{payer}");
    }
}

#[tokio::test]
async fn settlement_that_failed_delivers_nothing() {
    // x402-foundation/x402#451
    let success = json!({ "success": true, "transaction": TRANSACTION, "network": "eip155:84532" });
    let failures = [
        (402, Reply::refused("insufficient_funds")),
        (409, Reply::refused("invalid_transaction_state")),
        (503, Reply::text(500, "down")),
        (503, Reply::Cut(200, success.to_string()[..20].to_owned())),
        (503, Reply::settled().late(Duration::from_secs(5))),
    ];
    let long = "the answer ".repeat(50_000);
    let answers = [
        Reply::text(200, "the answer"),
        Reply::text(200, &long),
        Reply::Stalled(200, "the answer".to_owned()),
        Reply::Whole(200, "text/event-stream", "data: the answer\n\n".to_owned()),
    ];
    let mut pairs = Vec::new();
    for failure in &failures {
        pairs.extend(
            answers
                .iter()
                .map(|answer| (failure.clone(), answer.clone())),
        );
    }
    let checks = pairs.into_iter().map(async |((status, failure), answer)| {
        let shop = Shop::open().await;
        shop.facilitator.will("/settle", [failure]);
        shop.upstream.will("*", [answer]);
        let own = payment(1);
        for _ in 0..2 {
            let bytes = format!(
                "POST /services/chat/v1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                 content-length: 0\r\npayment-signature: {own}\r\n\r\n"
            );
            let answered = shop.send_until_closed(bytes.as_bytes()).await;
            let head = format!("HTTP/1.1 {status} ");
            assert!(answered.starts_with(&head), "{answered}");
            assert!(!answered.contains("the answer"), "{answered}");
            assert_eq!(shop.upstream.count(""), 1, "the work is not done again");
            let unsettled = shop.metric("serviceoffer_gate_delivered_unsettled_total");
            assert_eq!(unsettled, 0.0);
            if status == 503 {
                // Its outcome is asked for again, for longer than this test takes.
                break;
            }
        }
    });
    join_all(checks).await;
}

/// Claims that never learn that a payment was settled.
#[derive(Default)]
struct Unlearning(MemoryClaims);

impl ClaimStore for Unlearning {
    fn take(
        &self,
        id: PaymentId,
        claim: Claim,
        now: u64,
    ) -> BoxFuture<'_, Result<Taken, Unavailable>> {
        self.0.take(id, claim, now)
    }

    fn advance(
        &self,
        id: PaymentId,
        holder: HolderToken,
        event: Event,
    ) -> BoxFuture<'_, Result<(), NotAllowed>> {
        match event {
            Event::Success { .. } => Box::pin(ready(Ok(()))),
            event => self.0.advance(id, holder, event),
        }
    }

    fn sweep(&self, now: u64) -> BoxFuture<'_, Vec<crate::metrics::ClaimState>> {
        self.0.sweep(now)
    }
}

#[tokio::test]
async fn answer_whose_claim_is_not_settled_is_counted_and_not_delivered() {
    let shop = Shop::with(json!({}), |gate| {
        gate.claims = Arc::new(Unlearning::default());
    })
    .await;
    let seen = shop.pay(&payment(1)).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (409, "payment_in_progress")
    );
    assert!(!seen.body.contains("the answer"), "{}", seen.body);
    assert_eq!(shop.calls(), (1, 1, 1));
    let unsettled = shop.metric("serviceoffer_gate_delivered_unsettled_total");
    assert_eq!(unsettled, 1.0);
}

/// A payment of the flow `upfront`.
fn upfront_payment(nonce: u8, over: Value) -> Value {
    let mut json = payment_json(nonce, |_| {});
    json["accepted"]["extra"]["paymentFlow"] = "upfront".into();
    crate::registration::fixtures::merge(&mut json, over);
    json
}

#[tokio::test]
async fn upfront_payment_calls_a_failing_upstream_four_times_and_is_used_then() {
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |_| {}).await;
    shop.upstream.will("*", [Reply::text(502, "down")]);
    let own = encoded(&upfront_payment(1, json!({})));
    for again in 0..4_u8 {
        let seen = shop.pay(&own).await;
        assert_eq!((seen.status, seen.body.as_str()), (502, "down"));
        assert_eq!(seen.field("x-payment-charged"), Some("true"));
        assert_eq!(seen.field("cache-control"), Some("private, no-store"));
        let receipt = seen.receipt().unwrap();
        let found = (&receipt["success"], &receipt["transaction"]);
        assert_eq!(found, (&json!(true), &json!(TRANSACTION)));
        let executed = shop.metric("serviceoffer_gate_executed_again_total");
        assert_eq!(executed, f64::from(again));
    }
    for _ in 0..2 {
        let seen = shop.pay(&own).await;
        assert_eq!((seen.status, seen.code().as_str()), (409, "payment_used"));
        assert_eq!(seen.json()["charged"], true);
        assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    }
    assert_eq!(shop.metric("serviceoffer_gate_executed_again_total"), 3.0);
    assert_eq!(shop.calls(), (0, 1, 4));
}

#[tokio::test]
async fn answer_that_breaks_after_an_upfront_payment_says_until_when_to_ask_again() {
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |_| {}).await;
    let replies = [
        Reply::Cut(200, "the".into()),
        Reply::text(200, "the answer"),
    ];
    shop.upstream.will("*", replies);
    let identifier = json!({ "info": { "required": false, "id": "pay_0123456789abcdef" } });
    let own = upfront_payment(
        1,
        json!({ "extensions": { "payment-identifier": identifier } }),
    );
    let end = own["payload"]["authorization"]["validBefore"].as_str();
    let end = end.unwrap().parse::<u64>().unwrap() + 3600;
    let own = encoded(&own);
    let seen = shop.pay(&own).await;
    assert_eq!(
        (seen.status, seen.code().as_str()),
        (502, "upstream_failed")
    );
    let body = seen.json();
    assert_eq!(body["charged"], true);
    assert_eq!(seen.field("x-payment-charged"), Some("true"));
    assert_eq!(seen.receipt().unwrap()["transaction"], TRANSACTION);
    let hint = format!(
        "The payment was charged. Present it again with the same request, until Unix time {end}."
    );
    assert_eq!(body["hint"], hint);
    assert!(body["paymentId"].is_string(), "{body}");
    let again = shop.pay(&own).await;
    assert_eq!((again.status, again.body.as_str()), (200, "the answer"));
    assert_eq!(shop.metric("serviceoffer_gate_executed_again_total"), 1.0);
    assert_eq!(shop.calls(), (0, 1, 2));
}
