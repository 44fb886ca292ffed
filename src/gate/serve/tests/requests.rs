//! What buyers send: no request is read in two ways, and nothing is sold that was not paid for.

use reqwest::Method;
use tokio::time::sleep;

use super::*;
use crate::gate::proxy::MemoryBudget;

/// Two requests at once, and one every ten seconds.
const TWO: Allowance = Allowance {
    every: Duration::from_secs(10),
    burst: 2,
};

#[tokio::test]
async fn request_without_a_payment_is_told_the_terms_in_every_form() {
    // x402-foundation/x402#965, x402-foundation/x402#2955, xpaysh/awesome-x402#414
    let shop = Shop::open().await;
    for accept in ["application/json", "text/html", "*/*"] {
        let fields = [("accept", accept), ("user-agent", "Mozilla/5.0")];
        let seen = shop.ask(Method::GET, "/v1", &fields).await;
        assert_eq!(seen.status, 402);
        let terms = seen.decoded("payment-required").unwrap();
        assert_eq!(
            (&terms["x402Version"], &terms["accepts"][0]["amount"]),
            (&json!(2), &json!("2000"))
        );
        assert!(seen.field("cache-control").unwrap().contains("no-store"));
        assert_eq!(seen.field("access-control-allow-origin"), Some("*"));
        let exposed = seen.field("access-control-expose-headers").unwrap();
        assert!(
            exposed.to_ascii_lowercase().contains("payment-required"),
            "{exposed}"
        );
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn path_that_makes_a_402_longer_than_clients_read_is_refused() {
    let described = json!({ "spec": { "registration": { "description": "\"".repeat(256) } } });
    let shop = Shop::with(described, |_| {}).await;
    let path = |bytes: usize| format!("/{}", "a".repeat(bytes));
    let fits = shop.ask(Method::GET, &path(4_000), &[]).await;
    assert_eq!(fits.status, 402);
    assert!(fits.field("payment-required").unwrap().len() < 12 * 1024);
    let seen = shop.ask(Method::GET, &path(8_150), &[]).await;
    assert_eq!((seen.status, seen.code().as_str()), (414, "uri_too_long"));
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn metrics_count_refused_paths_and_requests_in_flight() {
    let shop = Shop::open().await;
    shop.metrics.gate.track_paths::<PathRefusal>();
    let rule = r#"serviceoffer_gate_path_refused_total{rule="encoded_slash"}"#;
    assert_eq!(shop.ask(Method::GET, "/a%2Fb", &[]).await.status, 400);
    assert_eq!(shop.metric(rule), 1.0);
    let in_flight = "serviceoffer_gate_in_flight ";
    let late = Reply::text(200, "late").late(Duration::from_millis(300));
    shop.upstream.will("*", [late]);
    let own = payment(1);
    let (seen, during) = tokio::join!(shop.pay(&own), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        shop.metric(in_flight)
    });
    assert_eq!(
        (seen.status, during, shop.metric(in_flight)),
        (200, 1.0, 0.0)
    );
    assert_eq!(shop.metric("serviceoffer_gate_upstream_seconds_count"), 1.0);
}

#[tokio::test]
async fn overhead_is_without_the_time_of_others() {
    let wait = Duration::from_millis(300);
    let slow = |reply: Reply| [reply.late(wait)];
    let shop = Shop::open().await;
    shop.facilitator.will("/verify", slow(Reply::valid()));
    shop.facilitator.will("/settle", slow(Reply::settled()));
    shop.upstream
        .will("*", slow(Reply::text(200, "the answer")));
    let of = |kind: &str, of: &str| {
        let name = "serviceoffer_gate_request_overhead_seconds";
        shop.metric(&format!(r#"{name}_{of}{{kind="{kind}"}}"#))
    };
    assert_eq!(shop.pay(&payment(1)).await.status, 200);
    assert_eq!(shop.ask(Method::POST, "/v1", &[]).await.status, 402);
    assert_eq!(shop.ask(Method::GET, "/a%2Fb", &[]).await.status, 400);
    let counts = ["paid", "unpaid", "free", "other"].map(|kind| of(kind, "count"));
    assert_eq!(counts, [1.0, 1.0, 0.0, 1.0]);
    let own = of("paid", "sum");
    assert!(own > 0.0 && own < wait.as_secs_f64(), "{own}");
    let free = json!({ "spec": { "routes": [{ "path": "/v1", "gate": "free" }] } });
    shop.change(free);
    assert_eq!(shop.ask(Method::POST, "/v1", &[]).await.status, 200);
    let own = of("free", "sum");
    assert!(own > 0.0 && own < wait.as_secs_f64(), "{own}");
}

#[tokio::test]
async fn held_memory_is_shown_until_the_answer_leaves() {
    let shop = Shop::open().await;
    let held = "serviceoffer_gate_hold_bytes ";
    let stalled = Reply::Stalled(200, "the answer".to_owned());
    shop.upstream.will("*", [stalled]);
    let own = payment(1);
    assert_eq!(shop.metric(held), 0.0);
    let during = tokio::select! {
        seen = shop.pay(&own) => panic!("{seen:?}"),
        held = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            shop.metric(held)
        } => held,
    };
    assert_eq!(during, 262_144.0);
    let given_back = async {
        while shop.metric(held) > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let given_back = tokio::time::timeout(Duration::from_secs(5), given_back);
    assert!(given_back.await.is_ok());
}

#[tokio::test]
async fn facilitator_that_failed_several_times_in_a_row_is_shown() {
    let shop = Shop::open().await;
    let up = "serviceoffer_gate_facilitator_up ";
    assert_eq!(shop.metric(up), 1.0);
    shop.facilitator.will("/verify", [Reply::text(503, "down")]);
    for nonce in 1..=5 {
        assert_eq!(shop.pay(&payment(nonce)).await.status, 503);
    }
    assert_eq!(shop.metric(up), 0.0);
}

#[tokio::test]
async fn payment_for_terms_that_have_just_changed_buys_once() {
    let shop = Shop::open().await;
    let before = shop.table.borrow().table.clone();
    let dearer = json!({ "spec": { "payment": { "price": { "perRequest": "0.5" } } } });
    shop.change(dearer);
    let own = payment(1);
    assert_eq!(shop.pay(&own).await.status, 402);
    shop.table.send_modify(|kept| {
        let mut table = OfferTable::clone(&kept.table);
        table.honor(&before, unix_seconds());
        kept.table = Arc::new(table);
    });
    assert_eq!(shop.pay(&own).await.status, 200);
    assert_eq!(shop.pay(&own).await.code(), "payment_used");
    let asked = shop.ask(Method::POST, "/v1", &[]).await;
    let terms = asked.decoded("payment-required").unwrap();
    assert_eq!(terms["accepts"].as_array().unwrap().len(), 1);
    assert_eq!(shop.calls(), (1, 1, 1));
}

#[tokio::test]
async fn head_is_the_402_of_get_and_never_charged() {
    // ngx-l402/ngx-l402#187, R16 of x402-conformance
    let shop = Shop::open().await;
    for fields in [vec![], vec![("payment-signature", payment(1))]] {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let seen = shop.ask(Method::HEAD, "/v1", &fields).await;
        assert_eq!((seen.status, seen.body.as_str()), (402, ""));
        assert!(seen.field("payment-required").is_some());
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn head_without_a_payment_has_the_fields_of_get() {
    // ngx-l402/ngx-l402#187
    let shop = Shop::open().await;
    for accept in ["*/*", "text/html"] {
        let own = [("accept", accept)];
        let mut get = shop.ask(Method::GET, "/v1", &own).await;
        let mut head = shop.ask(Method::HEAD, "/v1", &own).await;
        assert_eq!((get.status, head.status), (402, 402));
        for seen in [&mut get, &mut head] {
            seen.fields.remove("date").unwrap();
        }
        assert_eq!(head.fields, get.fields, "{accept}");
        let line = format!("HEAD /services/chat/v1 HTTP/1.1\r\nhost: a\r\naccept: {accept}");
        let head = format!("{line}\r\nconnection: close\r\n\r\n");
        let answered = shop.send_raw(head.as_bytes()).await;
        assert!(answered.starts_with("HTTP/1.1 402 "), "{answered}");
        assert!(answered.ends_with("\r\n\r\n"), "a body: {answered}");
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn websocket_is_opened_only_once_it_is_paid() {
    let shop = Shop::open().await;
    let switches = [("connection", "upgrade"), ("upgrade", "websocket")];
    shop.upstream
        .will("*", [Reply::text(101, "").with(switches)]);
    let ask = async |payment: &str| {
        let head = format!(
            "GET /services/chat/v1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: a\r\n\
             {payment}\r\n\u{1}\u{1}a"
        );
        let answered = shop.send_raw(head.as_bytes()).await;
        answered.get(9..12).unwrap_or_default().to_owned()
    };
    assert_eq!(ask("").await, "402");
    assert_eq!(ask("payment-signature: a\r\n").await, "400");
    assert_eq!(ask("x-payment-payer: 0x1\r\n").await, "402");
    assert_eq!(shop.calls(), (0, 0, 0));
    let refused = Reply::refused("insufficient_funds");
    shop.facilitator.will("/settle", [refused]);
    let field = |nonce| format!("payment-signature: {}\r\n", payment(nonce));
    assert_eq!(ask(&field(1)).await, "402");
    assert_eq!(shop.calls(), (1, 1, 1));
    shop.facilitator.will("/settle", [Reply::settled()]);
    assert_eq!(ask(&field(2)).await, "101");
    assert_eq!(
        shop.metric("serviceoffer_gate_delivered_unsettled_total"),
        0.0
    );
}

#[tokio::test]
async fn preflight_is_answered_without_a_payment() {
    // xpaysh/awesome-x402#414
    let shop = Shop::open().await;
    let fields = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "payment-signature, content-type",
        ),
    ];
    let seen = shop.ask(Method::OPTIONS, "/v1", &fields).await;
    assert_eq!(seen.status, 204);
    let allowed = seen.field("access-control-allow-headers").unwrap();
    assert!(
        allowed.to_ascii_lowercase().contains("payment-signature"),
        "{allowed}"
    );
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn malformed_payment_is_answered_400_and_asks_no_one() {
    // x402-foundation/x402#800, R24 of x402-conformance
    let shop = Shop::open().await;
    let without = |field: &str| {
        let mut json = payment_json(1, |_| {});
        json["payload"]["authorization"]
            .as_object_mut()
            .unwrap()
            .remove(field);
        encoded(&json)
    };
    for field in [
        "not base64!".to_owned(),
        encoded(&json!("x402")),
        encoded(&json!({})),
        encoded(&json!({ "x402Version": 3 })),
        without("nonce"),
        without("value"),
        "A".repeat(60_000),
    ] {
        let seen = shop.pay(&field).await;
        assert!([400, 431].contains(&seen.status), "{seen:?}");
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn two_different_payments_in_one_request_are_refused() {
    // header ambiguity of arXiv 2605.11781
    let shop = Shop::open().await;
    let (first, second) = (payment(1), payment(2));
    for fields in [
        [
            ("payment-signature", first.as_str()),
            ("payment-signature", second.as_str()),
        ],
        [
            ("payment-signature", first.as_str()),
            ("x-payment", second.as_str()),
        ],
    ] {
        let seen = shop.ask(Method::POST, "/v1", &fields).await;
        assert_eq!(
            (seen.status, seen.code().as_str()),
            (400, "malformed_payment")
        );
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn path_that_upstreams_read_otherwise_is_refused() {
    // x402-foundation/x402#2372
    let routes = json!([{ "path": "/free/*", "gate": "free" }, { "path": "/*" }]);
    let shop = Shop::with(json!({ "spec": { "routes": routes } }), |_| {}).await;
    for path in [
        "/free/..%2fpaid",
        "/free/%2e%2e/paid",
        "/free%2fx",
        "/free/%252e%252e/paid",
        "/free/x%5c..%5cpaid",
        "//paid",
    ] {
        let seen = shop.ask(Method::GET, path, &[]).await;
        assert!([400, 402].contains(&seen.status), "{path}: {seen:?}");
    }
    assert_eq!(shop.upstream.count(""), 0);
    assert_eq!(shop.ask(Method::GET, "/free/x", &[]).await.status, 200);
}

#[tokio::test]
async fn route_is_paid_at_its_own_price_for_its_method() {
    // R11 and R11c of x402-conformance
    let routes = json!([
        { "path": "/v1", "methods": ["GET"] },
        { "path": "/v1", "methods": ["POST"], "price": { "perRequest": "0.003" } },
    ]);
    let shop = Shop::with(json!({ "spec": { "routes": routes } }), |_| {}).await;
    let expensive = |nonce| {
        let mut own = payment_json(nonce, |own| own.value = U256::from(3000));
        own["accepted"]["amount"] = "3000".into();
        encoded(&own)
    };
    for (method, own, status) in [
        (Method::POST, payment(1), 402),
        (Method::GET, expensive(2), 402),
        (Method::GET, payment(3), 200),
        (Method::POST, expensive(4), 200),
    ] {
        let seen = shop
            .ask(method, "/v1", &[("payment-signature", &own)])
            .await;
        assert_eq!(seen.status, status, "{seen:?}");
    }
    assert_eq!(shop.calls(), (2, 2, 2));
}

#[tokio::test]
async fn payment_that_ends_too_soon_is_refused_before_the_work() {
    // x402-foundation/x402#831
    let shop = Shop::open().await;
    for end in [-1_i64, 1, 5] {
        let end = unix_seconds().saturating_add_signed(end);
        let own = payment_with(1, |own| own.valid_before = U256::from(end));
        assert_eq!(shop.pay(&own).await.status, 402);
    }
    assert_eq!(shop.calls(), (0, 0, 0));
}

#[tokio::test]
async fn unpaid_requests_are_limited_and_paid_ones_are_not() {
    // Kong/kong-js-pdk#408
    let shop = Shop::with(json!({}), |gate| {
        gate.budget = AddressBudget::new(1000, TWO, TWO);
        gate.limits_unpaid = true;
    })
    .await;
    let mut unpaid = Vec::new();
    for _ in 0..4 {
        unpaid.push(shop.ask(Method::GET, "/v1", &[]).await.status);
    }
    assert_eq!(unpaid, [402, 402, 429, 429]);
    for nonce in 1..=5 {
        assert_eq!(shop.pay(&payment(nonce)).await.status, 200);
    }
}

#[tokio::test]
async fn invalid_payments_reach_the_facilitator_only_within_their_budget() {
    // Denial of settlement of arXiv 2605.30998; signed by an empty wallet, which costs its owner nothing
    let worthless = |nonce: u8| {
        let mut json = payment_json(nonce, |_| {});
        json["payload"]["signature"] = format!("0x{}", "22".repeat(200)).into();
        encoded(&json)
    };
    let empty = payment as fn(u8) -> String;
    for (sign, reason) in [
        (
            worthless as fn(u8) -> String,
            "invalid_exact_evm_payload_signature",
        ),
        (empty, "insufficient_funds"),
    ] {
        let shop = Shop::with(json!({}), |gate| {
            gate.budget = AddressBudget::new(1000, TWO, TWO)
        })
        .await;
        shop.facilitator.will("/verify", [Reply::invalid(reason)]);
        let mut seen = Vec::new();
        for nonce in 1..=6 {
            seen.push(shop.pay(&sign(nonce)).await.status);
        }
        assert_eq!(seen, [402, 402, 429, 429, 429, 429], "{reason}");
        assert_eq!(shop.facilitator.count("/verify"), 2);
    }
}

#[tokio::test]
async fn payments_that_fail_at_their_settlement_are_within_the_budget_too() {
    // verify-then-work lets a buyer take work and never pay, GetBindu/Bindu
    let shop = Shop::with(json!({}), |gate| {
        gate.budget = AddressBudget::new(1000, TWO, TWO)
    })
    .await;
    let refused = Reply::refused("insufficient_funds");
    shop.facilitator.will("/settle", [refused]);
    let mut seen = Vec::new();
    for nonce in 1..=4 {
        seen.push(shop.pay(&payment(nonce)).await.status);
    }
    assert_eq!(seen, [402, 402, 429, 429]);
    assert_eq!(shop.calls(), (2, 2, 2));
}

#[tokio::test]
async fn answer_that_was_bought_is_delivered_although_the_budget_is_used_up() {
    let upfront = json!({ "spec": { "payment": { "flow": "upfront" } } });
    let shop = Shop::with(upfront, |gate| {
        gate.budget = AddressBudget::new(1000, TWO, TWO)
    })
    .await;
    let upfront = |nonce| {
        let mut json = payment_json(nonce, |_| {});
        json["accepted"]["extra"]["paymentFlow"] = "upfront".into();
        encoded(&json)
    };
    let answers = [
        Reply::Cut(200, "the".into()),
        Reply::text(200, "the answer"),
    ];
    shop.upstream.will("*", answers);
    let bought = upfront(1);
    shop.pay(&bought).await;
    let refused = Reply::refused("insufficient_funds");
    shop.facilitator.will("/settle", [refused]);
    let mut seen = Vec::new();
    for nonce in 2..=4 {
        seen.push(shop.pay(&upfront(nonce)).await.status);
    }
    assert_eq!(seen, [402, 402, 429]);
    assert_eq!(shop.pay(&bought).await.status, 200);
}

#[tokio::test]
async fn requests_that_are_asked_to_pay_take_no_place_of_those_that_paid() {
    let limits = json!({ "spec": { "limits": { "rps": 1, "maxInFlight": 1 } } });
    let shop = Shop::with(limits, |_| {}).await;
    for _ in 0..10 {
        assert_eq!(shop.ask(Method::GET, "/v1", &[]).await.status, 402);
    }
    let mut paid = Vec::new();
    for nonce in 1..=3 {
        paid.push(shop.pay(&payment(nonce)).await.status);
    }
    assert_eq!(paid, [200, 200, 429], "two at once, then one each second");
    assert_eq!(shop.calls(), (2, 2, 2));
}

#[tokio::test]
async fn bodies_that_are_read_ahead_share_a_limit_of_memory() {
    let shop = Shop::with(json!({}), |gate| {
        gate.bodies = MemoryBudget::new(300 * 1024);
    })
    .await;
    let upload = async |nonce, bytes| {
        let request = shop.client.post(shop.url("/v1")).body(vec![0; bytes]);
        let request = request.header("payment-signature", payment(nonce));
        request.send().await.unwrap().status().as_u16()
    };
    let mut nonces = 1..=u8::MAX;
    let mut until = async |status| {
        while upload(nonces.next().unwrap(), 100 * 1024).await != status {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut slow = TcpStream::connect(shop.address).await.unwrap();
    let head = format!(
        "POST /services/chat/v1 HTTP/1.1\r\nhost: a\r\npayment-signature: {}\r\n\
         content-length: 250001\r\n\r\n",
        payment(0)
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&[0; 250_000]).await.unwrap();
    until(429).await;
    assert_eq!(upload(u8::MAX, 1024).await, 200);
    drop(slow);
    until(200).await;
}

#[tokio::test]
async fn gate_that_knows_no_offers_yet_does_not_say_that_there_are_none() {
    let shop = Shop::open().await;
    shop.table.send_replace(KeptTable::default());
    let seen = shop.ask(Method::GET, "/v1", &[]).await;
    assert_eq!((seen.status, seen.code().as_str()), (503, "starting"));
    assert!(seen.field("retry-after").is_some());
}

#[tokio::test]
async fn host_of_an_offer_has_all_paths_but_those_of_documents() {
    let own = json!({ "spec": {
        "hostname": "chat.example",
        "routes": [{ "path": "/*", "gate": "free" }],
    } });
    let shop = Shop::with(own, |_| {}).await;
    let ask = async |host: &str, path: &str| {
        let url = format!("http://{}{path}", shop.address);
        let request = shop.client.get(url).header("host", host);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for path in ["/", "/agents/2.json", "/market/v1", "/services/chat"] {
        let (status, body) = ask("chat.example", path).await;
        assert_eq!((status, body.as_str()), (200, "the answer"), "{path}");
        let asked = shop.upstream.asked.lock().unwrap();
        assert_eq!(asked.last().unwrap().uri, path);
    }
    for host in ["chat.example", "shop.example"] {
        assert_eq!(ask(host, "/agents/1.json").await.1, "a document");
    }
    assert_eq!(ask("shop.example", "/agents/2.json").await.1, "a document");
    assert_eq!(
        ask("shop.example", "/market/agents/2.json").await.1,
        "a document"
    );
}

#[tokio::test]
async fn payment_for_the_url_that_buyers_see_is_taken_below_another_path() {
    let shop = Shop::with(json!({}), |gate| {
        gate.public_url = Some("https://shop.example/market".into())
    })
    .await;
    let unpaid = shop.ask(Method::GET, "/v1", &[]).await;
    let required = unpaid.decoded("payment-required").unwrap();
    assert_eq!(
        required["resource"]["url"],
        "https://shop.example/market/services/chat/v1"
    );
    for (nonce, url, status) in [
        (1, required["resource"]["url"].as_str().unwrap(), 200),
        (2, "https://shop.example/services/chat/v1", 200),
        (3, "https://shop.example/market/services/other/v1", 402),
        (4, "market", 402),
    ] {
        let mut own = payment_json(nonce, |_| {});
        own["resource"] = json!({ "url": url });
        assert_eq!(shop.pay(&encoded(&own)).await.status, status, "{url}");
    }
}

#[test]
fn limits_of_an_offer_are_shared_among_replicas() {
    let limits = json!({ "spec": { "limits": { "maxInFlight": 3 } } });
    let table = crate::gate::table::tests::table(vec![sold("shop", "chat", limits)]);
    let offer = table.offer(&("shop".into(), "chat".into())).unwrap();
    for (replicas, share) in [(0, 3), (1, 3), (2, 2), (3, 1), (9, 1)] {
        let limiter = Limiters::default().of(offer, replicas).unwrap();
        let taken: Vec<_> = std::iter::repeat_with(|| limiter.take(Duration::ZERO))
            .take_while(Result::is_ok)
            .collect();
        assert_eq!(taken.len(), share, "{replicas} replicas");
    }
}
