//! What is signed and sent, and what must never be.

use std::sync::{Arc, Mutex};

use alloy::primitives::{Address, Bytes};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;
use crate::api::{Entry, Key, Nonce, Operation, SignerLedgerSpec};
use crate::chain::key::read_key;
use crate::leader::Fence;
use crate::ledger::ReadLedger;
use crate::metrics::Metrics;
use crate::registration::fixtures;

/// Keys of anvil's second and third account.
const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const OTHER_KEY: &str = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const ADDRESS: Address = alloy::primitives::address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
const OTHER_ADDRESS: Address =
    alloy::primitives::address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
const URI: &str = "https://agents.example/agents/a.json";
const FEES: Fees = Fees::Dynamic {
    max_fee: 30,
    tip: 2,
};

fn signer_of(key: &str, address: Address) -> TransactionSigner {
    let key = read_key(key.as_bytes(), None).unwrap();
    TransactionSigner::new(&key, address).unwrap()
}

fn signer() -> TransactionSigner {
    signer_of(KEY, ADDRESS)
}

/// The record of `shop/chat` before its transaction is signed.
fn record() -> AgentRegistrationSpec {
    AgentRegistrationSpec {
        signer: Some(ADDRESS),
        ..fixtures::record("shop/chat", 1, json!({})).spec
    }
}

/// Proof that nonce 5 of an account is allocated to a key.
fn bound_to(key: Key, signer: Address) -> BoundNonce {
    let ledger = SignerLedgerSpec {
        chain_id: 84532,
        signer,
        entries: [(
            Nonce(5),
            Entry {
                key: Some(key),
                operation: Operation::Register,
            },
        )]
        .into(),
        registering: [(key, Nonce(5))].into(),
        ..crate::ledger::fixtures::ledger()
    };
    ReadLedger::read(ledger).bound_nonce(Nonce(5)).unwrap()
}

fn bound() -> BoundNonce {
    bound_to(record().key, ADDRESS)
}

fn signed(
    signer: &TransactionSigner,
    bound: &BoundNonce,
    record: &AgentRegistrationSpec,
) -> Result<SignedAttempt, String> {
    sign(signer, bound, record, URI, 200_000, FEES).map_err(|error| error.to_string())
}

/// The record with its attempt stored.
fn stored() -> (AgentRegistrationSpec, Attempt) {
    let SignedAttempt {
        attempt,
        calldata_hash,
    } = signed(&signer(), &bound(), &record()).unwrap();
    let record = AgentRegistrationSpec {
        calldata_hash: Some(calldata_hash),
        attempts: vec![attempt.clone()],
        ..record()
    };
    (record, attempt)
}

#[test]
fn signed_transaction_matches_the_bound_nonce() {
    let SignedAttempt {
        attempt,
        calldata_hash,
    } = signed(&signer(), &bound(), &record()).unwrap();
    let expected = ExpectedTransaction {
        chain_id: 84532,
        signer: ADDRESS,
        nonce: Nonce(5),
        to: record().registry.address,
        calldata_hash,
    };
    assert_eq!(
        transaction::check(attempt.raw.as_ref().unwrap(), &expected),
        Ok(())
    );
    assert_eq!(calldata_hash, keccak256(abi::register(URI)));
    assert_eq!(
        (attempt.nonce, attempt.gas, attempt.kind),
        (Nonce(5), 200_000, Operation::Register)
    );
}

#[test]
fn filler_pays_nothing_to_its_own_account_and_names_its_key() {
    let filler = sign_filler(&signer(), &bound(), 30_000, FEES).unwrap();
    let expected = ExpectedTransaction {
        chain_id: 84532,
        signer: ADDRESS,
        nonce: Nonce(5),
        to: ADDRESS,
        calldata_hash: keccak256(filler::calldata(record().key)),
    };
    let raw = filler.raw.as_ref().unwrap();
    assert_eq!(transaction::check(raw, &expected), Ok(()));
    assert_eq!((filler.kind, filler.gas), (Operation::Filler, 30_000));
    let other = signer_of(OTHER_KEY, OTHER_ADDRESS);
    let refused = sign_filler(&other, &bound(), 30_000, FEES);
    assert!(matches!(refused, Err(Error::OtherOwner("signing key"))));
}

#[test]
fn record_or_key_of_another_entry_is_never_signed() {
    let another = fixtures::record("shop/other", 1, json!({})).spec.key;
    let done = fixtures::record(
        "shop/chat",
        1,
        json!({ "spec": { "result": fixtures::result("3") } }),
    )
    .spec
    .result;
    let cases = [
        ("key", bound_to(another, ADDRESS), record()),
        (
            "chain",
            bound(),
            AgentRegistrationSpec {
                chain_id: 1,
                ..record()
            },
        ),
        (
            "account",
            bound(),
            AgentRegistrationSpec {
                signer: Some(OTHER_ADDRESS),
                ..record()
            },
        ),
        (
            "no account",
            bound(),
            AgentRegistrationSpec {
                signer: None,
                ..record()
            },
        ),
        (
            "result",
            bound(),
            AgentRegistrationSpec {
                result: done,
                ..record()
            },
        ),
        (
            "reverted",
            bound(),
            AgentRegistrationSpec {
                phase: crate::api::Phase::Reverted,
                ..record()
            },
        ),
    ];
    for (what, bound, record) in cases {
        let refused = signed(&signer(), &bound, &record).unwrap_err();
        assert_eq!(
            refused, "the record is not the one that the nonce was allocated to",
            "{what}"
        );
    }
    let other = signer_of(OTHER_KEY, OTHER_ADDRESS);
    let refused = signed(&other, &bound(), &record()).unwrap_err();
    assert_eq!(
        refused,
        "the signing key is not the one that the nonce was allocated to"
    );
}

#[test]
fn calldata_is_fixed_by_the_first_attempt() {
    let frozen = |uri: &str| AgentRegistrationSpec {
        calldata_hash: Some(keccak256(abi::register(uri))),
        ..record()
    };
    assert!(signed(&signer(), &bound(), &frozen(URI)).is_ok());
    let refused = signed(&signer(), &bound(), &frozen("https://elsewhere.example")).unwrap_err();
    assert_eq!(refused, Error::CalldataChanged.to_string());
}

/// An endpoint that accepts every request, and what it received.
struct Node {
    endpoint: RpcEndpoint,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let received = Arc::<Mutex<Vec<Value>>>::default();
        let take = async |State(received): State<Arc<Mutex<Vec<Value>>>>,
                          Json(request): Json<Value>| {
            received.lock().unwrap().push(request["params"].clone());
            Json(json!({ "jsonrpc": "2.0", "id": request["id"], "result": B256::ZERO }))
        };
        let router = Router::new()
            .route("/", post(take))
            .with_state(Arc::clone(&received));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint: RpcEndpoint::new(&url, Metrics::new("lease").unwrap().chain).unwrap(),
            received,
        }
    }

    async fn send(
        &self,
        bound: &BoundNonce,
        record: &AgentRegistrationSpec,
        attempt: &Attempt,
    ) -> Result<SendOutcome, Error> {
        let leading = Fence::always_open().leading().unwrap();
        send(&self.endpoint, &leading, bound, record, attempt).await
    }

    fn received(&self) -> Vec<Value> {
        self.received.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn stored_bytes_are_sent_unchanged_on_every_send() {
    let node = Node::start().await;
    let (record, attempt) = stored();
    for _ in 0..2 {
        assert_eq!(
            node.send(&bound(), &record, &attempt).await.unwrap(),
            SendOutcome::Accepted
        );
    }
    assert_eq!(node.received(), vec![json!([attempt.raw]); 2]);
}

#[tokio::test]
async fn bytes_that_differ_from_record_or_ledger_are_never_sent() {
    let node = Node::start().await;
    let (record, attempt) = stored();
    let without = Attempt {
        raw: None,
        ..attempt.clone()
    };
    let garbled = Attempt {
        raw: Some(Bytes::from_static(b"\x02\xde\xad")),
        ..attempt.clone()
    };
    let moved = AgentRegistrationSpec {
        registry: crate::api::RegistryContract {
            address: Address::ZERO,
            ..record.registry.clone()
        },
        ..record.clone()
    };
    let taken = AgentRegistrationSpec {
        signer: Some(OTHER_ADDRESS),
        ..record.clone()
    };
    let unfrozen = AgentRegistrationSpec {
        calldata_hash: None,
        ..record.clone()
    };
    let refrozen = AgentRegistrationSpec {
        calldata_hash: Some(B256::ZERO),
        ..record.clone()
    };
    let cases = [
        (
            bound(),
            &record,
            &without,
            "the attempt's signed bytes are no longer stored",
        ),
        (
            bound(),
            &record,
            &garbled,
            "the encoding of the stored transaction does not match its record",
        ),
        (
            bound(),
            &moved,
            &attempt,
            "the contract of the stored transaction does not match its record",
        ),
        (
            bound(),
            &unfrozen,
            &attempt,
            "the record is not the one that the nonce was allocated to",
        ),
        (
            bound(),
            &refrozen,
            &attempt,
            "the calldata of the stored transaction does not match its record",
        ),
        (
            bound_to(record.key, OTHER_ADDRESS),
            &record,
            &attempt,
            "the record is not the one that the nonce was allocated to",
        ),
        (
            bound_to(record.key, OTHER_ADDRESS),
            &taken,
            &attempt,
            "the signer of the stored transaction does not match its record",
        ),
    ];
    for (bound, record, attempt, why) in cases {
        assert_eq!(
            node.send(&bound, record, attempt)
                .await
                .unwrap_err()
                .to_string(),
            why
        );
    }
    assert!(node.received().is_empty());
}

#[tokio::test]
async fn replica_that_stopped_leading_sends_nothing() {
    let node = Node::start().await;
    let (record, attempt) = stored();
    let error = send(
        &node.endpoint,
        &Leading::expired(),
        &bound(),
        &record,
        &attempt,
    )
    .await
    .unwrap_err();
    assert!(
        matches!(error, Error::NotLeading(NotLeading::Closed)),
        "{error}"
    );
    assert!(node.received().is_empty());
}
