use serde_json::json;

use super::*;

const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        content_type: Some("application/json; charset=utf-8".into()),
        retry_after: None,
        body: body.as_bytes().to_vec(),
        is_whole: true,
    }
}

fn asked() -> AskedPayment {
    AskedPayment {
        payer: PAYER.parse().unwrap(),
        chain_id: 84532,
        amount: U256::from(2000),
    }
}

fn verdict(status: u16, body: Value) -> Verification {
    verification(&answer(status, &body.to_string()), &asked())
}

fn settled(status: u16, body: Value) -> Settlement {
    settlement(&answer(status, &body.to_string()), &asked())
}

fn invalid(reason: &str) -> Verification {
    Verification::Invalid {
        reason: reason.into(),
    }
}

#[test]
fn payment_is_valid_only_if_status_and_body_say_so() {
    let valid = json!({ "isValid": true, "payer": PAYER });
    assert_eq!(verdict(200, valid.clone()), Verification::Valid);
    let null = json!({ "isValid": true, "invalidReason": null });
    assert_eq!(verdict(200, null), Verification::Valid);
    let contradiction = json!({ "isValid": true, "invalidReason": "expired" });
    for (status, body) in [(503, valid.clone()), (202, valid), (200, contradiction)] {
        let found = verdict(status, body.clone());
        let is_unavailable = matches!(found, Verification::Unavailable { .. });
        assert!(is_unavailable, "{status} {body}: {found:?}");
    }
}

#[test]
fn verdict_is_read_with_the_statuses_that_facilitators_use() {
    let body = json!({ "isValid": false, "invalidReason": "insufficient_funds" });
    for status in [200, 400, 402, 412, 500] {
        assert_eq!(verdict(status, body.clone()), invalid("insufficient_funds"));
    }
    assert_eq!(
        verdict(200, json!({ "isValid": false })),
        invalid("no_reason_given")
    );
    for (status, body) in [(503, body), (500, json!({ "isValid": false }))] {
        let found = verdict(status, body);
        let is_unavailable = matches!(found, Verification::Unavailable { .. });
        assert!(is_unavailable, "{status}: {found:?}");
    }
}

#[test]
fn payment_that_a_facilitator_could_not_look_at_is_not_invalid() {
    // x402-rs/x402-rs#42
    for (reason, is_outage) in [
        ("rpc_unavailable", true),
        ("unexpected_verify_error", true),
        ("Request timed out", true),
        ("network_error", true),
        ("connect ECONNREFUSED 10.0.0.9:8545", true),
        ("insufficient_funds", false),
        ("invalid_network", false),
        ("invalid_exact_evm_payload_signature", false),
        ("authorization_used", false),
        ("blocked_payer", false),
    ] {
        let found = verdict(200, json!({ "isValid": false, "invalidReason": reason }));
        let is_unavailable = matches!(found, Verification::Unavailable { .. });
        assert_eq!(is_unavailable, is_outage, "{reason}: {found:?}");
    }
}

#[test]
fn answer_of_another_form_is_no_verdict() {
    let with = |status: u16, over: Answer| {
        let found = verification(&Answer { status, ..over }, &asked());
        let Verification::Unavailable { why, retry_after } = found else {
            panic!("{found:?}");
        };
        (why, retry_after)
    };
    let valid = r#"{"isValid":true}"#;
    let html = Answer {
        content_type: Some("text/html".into()),
        retry_after: Some(Duration::from_secs(7)),
        ..answer(200, valid)
    };
    let (why, retry_after) = with(200, html);
    assert_eq!(why, "the answer with status 200 is not JSON");
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
    let untyped = Answer {
        content_type: None,
        ..answer(200, valid)
    };
    assert!(with(200, untyped).0.ends_with("is not JSON"));
    let cut = Answer {
        is_whole: false,
        ..answer(200, valid)
    };
    assert!(with(200, cut).0.contains("cut off"));
    for body in [
        "",
        "{",
        "[]",
        r#"{"isValid":"true"}"#,
        r#"{"isValid":true,"isValid":true}"#,
    ] {
        let (why, _) = with(200, answer(200, body));
        assert!(why.ends_with("is not of the form of x402"), "{body}: {why}");
    }
}

#[test]
fn settlement_needs_status_form_and_transaction() {
    let success = json!({ "success": true, "transaction": HASH, "payer": PAYER });
    let expected = |payer: Option<&str>| Settlement::Settled {
        transaction: HASH.into(),
        payer: payer.map(str::to_owned),
    };
    assert_eq!(settled(200, success.clone()), expected(Some(PAYER)));
    let other = json!({ "success": true, "transaction": HASH, "payer": "someone" });
    assert_eq!(settled(200, other), expected(None));
    let mut contradiction = success.clone();
    contradiction["errorReason"] = json!("expired");
    for (status, body, has_transaction) in [
        (503, success.clone(), true),
        (201, success, true),
        (200, contradiction, true),
        (200, json!({ "success": true }), false),
        (200, json!({ "success": true, "transaction": "" }), false),
        (
            200,
            json!({ "success": true, "last": { "transaction": HASH } }),
            true,
        ),
        (
            200,
            json!({ "success": true, "transaction": "0x11" }),
            false,
        ),
    ] {
        let found = settled(status, body.clone());
        let Settlement::Unknown { transaction, .. } = found else {
            panic!("{status} {body}: {found:?}");
        };
        assert_eq!(transaction.is_some(), has_transaction, "{status} {body}");
    }
}

#[test]
fn verification_that_names_another_payer_is_not_believed() {
    let bare = &PAYER[2..];
    let shouted = format!("0x{}", bare.to_uppercase());
    let other = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
    for (payer, is_believed) in [
        (json!(PAYER), true),
        (json!(PAYER.to_lowercase()), true),
        (json!(shouted), true),
        (json!(null), true),
        (json!(""), true),
        (json!("someone"), true),
        (json!({ "address": other }), true),
        (json!(other), false),
        (json!(other.to_lowercase()), false),
        (json!("0x0000000000000000000000000000000000000000"), false),
    ] {
        let body = |is_valid: bool| json!({ "isValid": is_valid, "payer": payer }).to_string();
        let found = verification(&answer(200, &body(true)), &asked());
        match found {
            Verification::Valid => assert!(is_believed, "{payer}"),
            Verification::Unavailable { why, .. } => {
                let expected = "it calls the payment of another payer valid";
                assert_eq!((is_believed, &*why), (false, expected), "{payer}");
            }
            other => panic!("{payer}: {other:?}"),
        }
        let refused = verification(&answer(200, &body(false)), &asked());
        assert_eq!(refused, invalid("no_reason_given"), "{payer}");
    }
}

#[test]
fn success_of_another_payment_is_not_that_of_the_request() {
    for (field, value, is_believed) in [
        ("payer", json!(PAYER.to_lowercase()), true),
        (
            "payer",
            json!("0x90F79bf6EB2c4f870365E785982E1f101E93b906"),
            false,
        ),
        ("payer", json!(null), true),
        ("network", json!("eip155:84532"), true),
        ("network", json!("base-sepolia"), true),
        ("network", json!("eip155:8453"), false),
        ("network", json!("base"), false),
        (
            "network",
            json!("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
            false,
        ),
        ("network", json!("the testnet"), true),
        ("network", json!(84532), true),
        ("amount", json!("2000"), true),
        ("amount", json!("1999"), false),
        ("amount", json!("0.002"), true),
    ] {
        let mut body = json!({ "success": true, "transaction": HASH });
        body[field] = value;
        let found = settlement(&answer(200, &body.to_string()), &asked());
        match found {
            Settlement::Settled { .. } => assert!(is_believed, "{body}"),
            Settlement::Unknown { transaction, .. } => {
                assert_eq!((is_believed, transaction), (false, None), "{body}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn settlement_that_says_something_twice_is_not_believed() {
    for twice in [
        r#""success":false,"success":true"#,
        r#""success":true,"errorReason":"expired","errorReason":null"#,
        r#""success":true,"network":"eip155:1","network":"eip155:84532""#,
        r#""success":true,"amount":"1","amount":"2000""#,
        r#""success":true,"payer":"0x1","payer":"0x2""#,
        r#""success":true,"transaction":"0x12""#,
    ] {
        let body = format!(r#"{{{twice},"transaction":"{HASH}"}}"#);
        let found = settlement(&answer(200, &body), &asked());
        assert!(
            matches!(found, Settlement::Unknown { .. }),
            "{body}: {found:?}"
        );
    }
}

#[test]
fn settlement_is_refused_only_for_a_definite_reason() {
    for (status, reason, transaction, is_refused) in [
        (200, "invalid_exact_evm_nonce_already_used", "", true),
        (400, "insufficient_funds", "", true),
        (402, "duplicate_settlement", "", true),
        (412, "permit2_allowance_required", "", true),
        (500, "invalid_transaction_state", "", true),
        (200, "invalid_exact_evm_transaction_failed", HASH, true),
        (200, "invalid_exact_evm_transaction_failed", "", false),
        (500, "unexpected_error", "", false),
        (500, "unexpected_error", HASH, false),
        (200, "Timed out while waiting for transaction", "", false),
        (200, "transaction_timeout", "", false),
        (200, "RPC_ERROR", "", false),
        (200, "settle_exact_node_failure", HASH, false),
        (200, "invalid_exact_evm_verification_failed", "", false),
        (500, "settle_error", HASH, false),
        (200, "network_error", "", false),
        (503, "insufficient_funds", "", false),
        (200, "", "", false),
    ] {
        let body = json!({
            "success": false, "errorReason": reason, "transaction": transaction,
        });
        let hash = (transaction == HASH).then(|| HASH.to_owned());
        match settled(status, body) {
            Settlement::Refused {
                reason: found,
                transaction,
            } => assert_eq!((is_refused, &*found, transaction), (true, reason, hash)),
            Settlement::Unknown { transaction, .. } => {
                assert_eq!((is_refused, transaction), (false, hash), "{reason}");
            }
            other => panic!("{status} {reason}: {other:?}"),
        }
    }
    let long = json!({ "success": false, "errorReason": "x".repeat(129) });
    assert!(matches!(settled(200, long), Settlement::Unknown { .. }));
}

#[test]
fn pending_settlement_keeps_its_transaction() {
    let body = |transaction: Value| json!({ "success": false, "errorReason": PENDING, "transaction": transaction });
    let pending = |transaction| Settlement::Pending { transaction };
    assert_eq!(settled(200, body(json!(HASH))), pending(Some(HASH.into())));
    assert_eq!(settled(503, body(json!(null))), pending(None));
}

#[test]
fn transaction_is_kept_from_an_answer_that_is_not_believed() {
    let html = |body: &str| Answer {
        content_type: Some("text/html".into()),
        ..answer(502, body)
    };
    let cut = format!(r#"{{"success":true, "transaction" : "{HASH}", "net"#);
    let nested = format!(r#"{{"nonce":"{HASH}","error":{{"txHash":"{HASH}"}}}}"#);
    let other = format!(
        r#"{{"nonce":"{HASH}","transaction":7,"transaction":"0x12","of":["transaction"]}}"#
    );
    for (body, expected) in [(cut, Some(HASH)), (nested, Some(HASH)), (other, None)] {
        let Settlement::Unknown { transaction, .. } = settlement(&html(&body), &asked()) else {
            panic!("{body}");
        };
        assert_eq!(transaction.as_deref(), expected, "{body}");
    }
}

#[test]
fn reason_is_shown_in_one_short_line() {
    assert_eq!(printable(Some("a\nb\u{7}".into())), Some("a b".into()));
    assert_eq!(printable(Some("é".repeat(300))), Some("é".repeat(256)));
    assert_eq!(printable(Some(" \n".into())), None);
    assert_eq!(printable(None), None);
}

#[test]
fn supported_kinds_are_those_on_the_networks_of_the_spec() {
    let kind = |version: u8, scheme: &str, network: &str| json!({ "x402Version": version, "scheme": scheme, "network": network, "extra": {} });
    let body = json!({
        "kinds": [
            kind(2, "exact", "eip155:84532"),
            kind(1, "exact", "base-sepolia"),
            kind(1, "exact", "base"),
            kind(2, "upto", "eip155:*"),
            kind(2, "exact", "solana:mainnet"),
            kind(2, "", "eip155:*"),
            kind(2, "exact", "eip155:84532"),
            "unreadable",
        ],
        "signers": {},
    });
    let supported = supported(&answer(200, &body.to_string())).unwrap();
    let networks = ["eip155:84532", "eip155:1"].map(str::to_owned);
    let found = supported.kinds_on(&networks);
    let found: Vec<_> = found
        .iter()
        .map(|kind| (kind.x402_version, &*kind.scheme, &*kind.network))
        .collect();
    let expected = [
        (1, "exact", "eip155:84532"),
        (2, "exact", "eip155:84532"),
        (2, "upto", "eip155:1"),
        (2, "upto", "eip155:84532"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn supported_is_believed_with_status_200_only() {
    let kinds = r#"{"kinds":[]}"#;
    assert_eq!(supported(&answer(200, kinds)), Ok(Supported::default()));
    let unauthorized = supported(&answer(401, kinds)).unwrap_err();
    assert_eq!(unauthorized, "it answers with status 401");
    assert!(supported(&answer(200, "{}")).is_err());
}

#[test]
fn content_type_of_json_has_several_forms() {
    for json in [
        "application/json",
        "Application/JSON ; a=b",
        "application/problem+json",
    ] {
        assert!(is_json(json), "{json}");
    }
    for other in ["", "text/json", "application/jsonx", "text/x+json"] {
        assert!(!is_json(other), "{other}");
    }
}

#[test]
fn retry_after_is_a_bounded_number_of_seconds() {
    for (header, seconds) in [
        (" 7 ", Some(7)),
        ("0", Some(0)),
        ("86400", Some(3600)),
        ("-1", None),
        ("soon", None),
    ] {
        let expected = seconds.map(Duration::from_secs);
        assert_eq!(retry_after(header), expected, "{header}");
    }
}

#[test]
fn only_overload_and_server_errors_pass() {
    for (status, is_transient) in [(200, false), (404, false), (429, true), (502, true)] {
        assert_eq!(answer(status, "").is_transient(), is_transient, "{status}");
    }
}

#[test]
fn answer_that_is_not_unicode_is_no_verdict() {
    let mut answer = answer(200, r#"{"isValid":true,"payer":"?"}"#);
    assert_eq!(verification(&answer, &asked()), Verification::Valid);
    let odd = answer.body.iter().position(|byte| *byte == b'?').unwrap();
    answer.body[odd] = 0xe4;
    assert!(matches!(
        verification(&answer, &asked()),
        Verification::Unavailable { .. }
    ));
}
