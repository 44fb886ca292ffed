//! The R checks of x402-conformance 1.6.0, each against servers with the fault that its catalogue
//! names for it, and against the gate. A check that passes on such a server would show nothing.
//!
//! Its own checks and servers are a program that runs beside a server, so both are written here
//! after the catalogue. R13 and R14 are about several replicas and about restarts, R11d about prices
//! by query, which offers do not have, and R11f about a way to sign in that the gate does not
//! support.

use std::collections::HashMap;

use axum::body::Bytes;
use futures::future::{BoxFuture, join_all};
use reqwest::Method;

use super::facilitators::no_verdicts;
use super::*;
use crate::gate::terms::Terms;
use crate::gate::wire::{PAYMENT_REQUIRED, PAYMENT_RESPONSE};

const IDENTIFIER: &str = "pay_0123456789abcdef";
/// How long the answer to a payment may take whose settlement is late.
const PATIENCE: Duration = Duration::from_secs(20);
/// The price of GET; that of POST is the one of [`terms`].
const EXPENSIVE: u64 = 3000;

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    ServesWithoutPayment,
    AsksNoFacilitator,
    IgnoresSettlement,
    ServesWhateverSettleAnswers,
    SendsNoReceipt,
    NeverServes,
    BelievesAccepted,
    PricesAsClientSays,
    MatchesPathAsWritten,
    ChecksThenSets,
    SettlesFirst,
    SettlesBelow400,
    SettlesHead,
    ServesHeadForFree,
    PublicAnswer,
    SilentAboutCaches,
    ServesWhilePending,
    PendingUnnamed,
    RunsBeforeAnyCheck,
    TakesAnyFlow,
    RecordsNothing,
    KeysByPayment,
    RewritesStatus,
    RecordsOnDelivery,
    ThrowsOnMalformed,
    DropsOnMalformed,
}

/// An answer that was worked for.
#[derive(Clone)]
struct Worked {
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
}

impl Worked {
    fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.clone();
        response
    }
}

/// What a server remembers of a payment or of an identified request.
#[derive(Clone)]
enum Record {
    Busy,
    /// Worked for, and not settled for certain.
    Open(Worked),
    Paid(Worked),
}

/// A small server that sells as the gate should, but for its fault.
struct Seller {
    fault: Fault,
    facilitator: u16,
    upstream: u16,
    client: reqwest::Client,
    records: Mutex<HashMap<String, Record>>,
}

impl Seller {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let (parts, _) = request.into_parts();
        let is_as_written = parts.uri.path() == "/services/chat/v1";
        let is_free = match self.fault {
            Fault::MatchesPathAsWritten => !is_as_written,
            Fault::ServesHeadForFree => parts.method == Method::HEAD,
            Fault::ServesWithoutPayment => !parts.headers.contains_key(PAYMENT_SIGNATURE),
            _ => false,
        };
        if is_free {
            return self.work().await.response();
        }
        if !is_as_written {
            return StatusCode::NOT_FOUND.into_response();
        }
        let offered = match parts.method {
            Method::POST => terms(),
            _ => expensive(),
        };
        let Some(field) = parts.headers.get(PAYMENT_SIGNATURE) else {
            return required(&offered);
        };
        let payment = data_encoding::BASE64.decode(field.as_bytes()).ok();
        let payment = payment.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let payment = payment.filter(|payment| payment["payload"]["authorization"].is_object());
        let Some(payment) = payment else {
            return match self.fault {
                Fault::ThrowsOnMalformed => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                // Its connection is closed, and nothing is printed.
                Fault::DropsOnMalformed => std::panic::resume_unwind(Box::new("dropped")),
                _ => StatusCode::BAD_REQUEST.into_response(),
            };
        };
        let is_head = parts.method == Method::HEAD && self.fault != Fault::SettlesHead;
        if is_head || self.fault == Fault::NeverServes || !self.is_made_for(&payment, &offered) {
            return required(&offered);
        }
        match self.fault {
            Fault::RecordsOnDelivery => self.sell(payment).await,
            // A buyer who leaves does not end it.
            _ => tokio::spawn(self.sell(payment)).await.unwrap(),
        }
    }

    /// Whether a payment is made on the terms of its route.
    fn is_made_for(&self, payment: &Value, offered: &Terms) -> bool {
        let mut accepted = payment["accepted"].clone();
        let authorization = &payment["payload"]["authorization"];
        if self.fault == Fault::TakesAnyFlow {
            accepted["extra"]
                .as_object_mut()
                .unwrap()
                .remove("paymentFlow");
        }
        let is_of = |terms: &Terms| {
            let own = requirement(terms);
            accepted == own
                && authorization["value"] == own["amount"]
                && authorization["to"] == own["payTo"]
        };
        match self.fault {
            Fault::BelievesAccepted => true,
            Fault::PricesAsClientSays => is_of(&terms()) || is_of(&expensive()),
            _ => is_of(offered),
        }
    }

    async fn sell(self: Arc<Self>, payment: Value) -> Response {
        let authorization = &payment["payload"]["authorization"];
        let id = &payment["extensions"]["payment-identifier"]["info"]["id"];
        let key = match (id.as_str(), self.fault) {
            (Some(id), fault) if fault != Fault::KeysByPayment => id.to_owned(),
            _ => authorization.to_string(),
        };
        let mut before = self.records.lock().unwrap().get(&key).cloned();
        match self.fault {
            Fault::RecordsNothing => before = None,
            Fault::RecordsOnDelivery => {}
            Fault::ChecksThenSets => tokio::time::sleep(Duration::from_millis(500)).await,
            _ => before = self.reserve(&key),
        }
        let worked = match before {
            Some(Record::Busy) => return StatusCode::CONFLICT.into_response(),
            Some(Record::Paid(worked)) => return worked.response(),
            Some(Record::Open(worked)) => worked,
            None => {
                if self.fault == Fault::RunsBeforeAnyCheck {
                    self.work().await;
                }
                if !self.is_verified().await {
                    self.records.lock().unwrap().remove(&key);
                    return required(&terms());
                }
                if self.fault == Fault::SettlesFirst {
                    self.ask("settle").await;
                }
                let worked = self.work().await;
                let most = match self.fault {
                    Fault::SettlesBelow400 => 400,
                    _ => 300,
                };
                if worked.status.as_u16() >= most {
                    self.records.lock().unwrap().remove(&key);
                    return worked.response();
                }
                worked
            }
        };
        let response = self.settle(&key, worked).await;
        response.unwrap_or_else(|transaction| {
            let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
            add_receipt(&mut response, false, &transaction);
            response
        })
    }

    /// What is remembered; if that is nothing, another request finds this one at work.
    fn reserve(&self, key: &str) -> Option<Record> {
        let mut records = self.records.lock().unwrap();
        let before = records.get(key).cloned();
        let now = before.clone().unwrap_or(Record::Busy);
        records.insert(key.to_owned(), now);
        before
    }

    /// Settles, and gives the answer out; or the transaction of what is not known, if there is one.
    async fn settle(&self, key: &str, mut worked: Worked) -> Result<Response, String> {
        let (is_settled, reason, transaction) = self.settled().await;
        let is_pending = reason == "settlement_pending";
        let is_served = match self.fault {
            Fault::AsksNoFacilitator
            | Fault::IgnoresSettlement
            | Fault::ServesWhateverSettleAnswers => true,
            Fault::ServesWhilePending => is_settled || is_pending,
            _ => is_settled,
        };
        if !is_served {
            let mut records = self.records.lock().unwrap();
            records.insert(key.to_owned(), Record::Open(worked));
            return Err(match self.fault {
                Fault::PendingUnnamed => String::new(),
                _ => transaction,
            });
        }
        let caches = match self.fault {
            Fault::PublicAnswer => Some("public, max-age=60"),
            Fault::SilentAboutCaches => None,
            _ => Some("private, no-store"),
        };
        worked.fields.remove(CACHE_CONTROL);
        if let Some(caches) = caches {
            let caches = HeaderValue::from_static(caches);
            worked.fields.insert(CACHE_CONTROL, caches);
        }
        if self.fault == Fault::RewritesStatus {
            worked.status = StatusCode::OK;
        }
        let mut response = worked.response();
        if self.fault != Fault::SendsNoReceipt {
            add_receipt(&mut response, true, &transaction);
        }
        worked.fields = response.headers().clone();
        let mut records = self.records.lock().unwrap();
        records.insert(key.to_owned(), Record::Paid(worked));
        Ok(response)
    }

    /// Whether a settlement succeeded, else why not, and its transaction.
    async fn settled(&self) -> (bool, String, String) {
        let nothing = (false, String::new(), String::new());
        if matches!(self.fault, Fault::AsksNoFacilitator | Fault::SettlesFirst) {
            return (true, String::new(), TRANSACTION.to_owned());
        }
        let Some((is_plain, answer)) = self.ask("settle").await else {
            return nothing;
        };
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let is_settled = is_plain && answer["success"] == true && !text("transaction").is_empty();
        (is_settled, text("errorReason"), text("transaction"))
    }

    async fn is_verified(&self) -> bool {
        if self.fault == Fault::AsksNoFacilitator {
            return true;
        }
        let answered = self.ask("verify").await;
        answered.is_some_and(|(is_plain, answer)| is_plain && answer["isValid"] == true)
    }

    /// The JSON of a facilitator, and whether its status and content type are those of JSON.
    async fn ask(&self, call: &str) -> Option<(bool, Value)> {
        let url = format!("http://127.0.0.1:{}/{call}", self.facilitator);
        let answer = self.client.post(url).send().await.ok()?;
        let is_json = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|own| own == "application/json");
        let is_plain = answer.status() == 200 && is_json;
        let text = answer.text().await.ok()?;
        Some((is_plain, serde_json::from_str(&text).ok()?))
    }

    async fn work(&self) -> Worked {
        let url = format!("http://127.0.0.1:{}/v1", self.upstream);
        let answer = self.client.post(url).send().await.unwrap();
        let (status, mut fields) = (answer.status(), answer.headers().clone());
        fields.remove("content-length");
        fields.remove("transfer-encoding");
        let body = answer.bytes().await.unwrap();
        Worked {
            status,
            fields,
            body,
        }
    }
}

fn expensive() -> Terms {
    Terms {
        amount: U256::from(EXPENSIVE),
        ..terms()
    }
}

fn required(terms: &Terms) -> Response {
    let required = json!({ "x402Version": 2, "accepts": [requirement(terms)] });
    let mut response = StatusCode::PAYMENT_REQUIRED.into_response();
    let fields = response.headers_mut();
    fields.insert(PAYMENT_REQUIRED, encoded(&required).parse().unwrap());
    response
}

fn add_receipt(response: &mut Response, is_settled: bool, transaction: &str) {
    let receipt = json!({ "success": is_settled, "transaction": transaction });
    let fields = response.headers_mut();
    fields.insert(PAYMENT_RESPONSE, encoded(&receipt).parse().unwrap());
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Gate,
    Seller(Fault),
}

impl Subject {
    /// The subject between new doubles.
    async fn open(self) -> Shop {
        let routes = json!([
            { "path": "/v1", "methods": ["GET"], "price": { "perRequest": "0.003" } },
            { "path": "/v1", "methods": ["POST"] },
        ]);
        let shop = Shop::with(json!({ "spec": { "routes": routes } }), |_| {}).await;
        let Self::Seller(fault) = self else {
            return shop;
        };
        let seller = Arc::new(Seller {
            fault,
            facilitator: shop.facilitator.port,
            upstream: shop.upstream.port,
            client: shop.client.clone(),
            records: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move |request: Request| Arc::clone(&seller).answer(request);
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Shop { address, ..shop }
    }
}

/// Why a subject does not pass.
type Failure = String;

/// Fails a check unless something holds.
macro_rules! hold {
    ($holds:expr, $shown:expr) => {
        if !$holds {
            return Err(format!("{}: {:?}", stringify!($holds), $shown));
        }
    };
}

/// A check.
type Check = fn(Subject) -> BoxFuture<'static, Result<(), Failure>>;

fn is_served(seen: &Seen) -> bool {
    seen.body.contains("the answer")
}

fn success() -> Value {
    json!({ "success": true, "transaction": TRANSACTION, "network": "eip155:84532" })
}

fn identified(nonce: u8) -> String {
    let mut payment = payment_json(nonce, |_| {});
    let info = json!({ "required": false, "id": IDENTIFIER });
    payment["extensions"] = json!({ "payment-identifier": { "info": info } });
    encoded(&payment)
}

async fn unpaid_request_is_answered_402(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let seen = shop.ask(Method::POST, "/v1", &[]).await;
    hold!(seen.status == 402, seen);
    hold!(seen.decoded("payment-required").is_some(), seen);
    Ok(())
}

async fn payment_is_settled_by_the_facilitator(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let seen = shop.pay(&payment(1)).await;
    hold!(seen.status == 200 && is_served(&seen), seen);
    hold!(shop.facilitator.count("/settle") == 1, shop.calls());
    Ok(())
}

async fn answer_that_settled_nothing_serves_nothing(subject: Subject) -> Result<(), Failure> {
    let mut replies = no_verdicts(&success());
    replies.push(Reply::refused("insufficient_funds"));
    replies.push(Reply::json(
        402,
        json!({ "success": false, "errorReason": "expired" }),
    ));
    for reply in replies {
        let shop = subject.open().await;
        shop.facilitator.will("/settle", [reply]);
        let seen = shop.pay(&payment(1)).await;
        hold!(!is_served(&seen) && seen.status >= 400, seen);
    }
    Ok(())
}

async fn answer_has_a_receipt(subject: Subject) -> Result<(), Failure> {
    let seen = subject.open().await.pay(&payment(1)).await;
    let receipt = seen.receipt().unwrap_or_default();
    hold!(receipt["success"] == true, seen);
    hold!(receipt["transaction"] == TRANSACTION, seen);
    Ok(())
}

fn expensive_payment(nonce: u8) -> String {
    let mut own = payment_json(nonce, |own| own.value = U256::from(EXPENSIVE));
    own["accepted"]["amount"] = EXPENSIVE.to_string().into();
    encoded(&own)
}

async fn route_is_served_for_its_own_payment(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let cheap = shop.pay(&payment(1)).await;
    hold!(is_served(&cheap), cheap);
    let own = expensive_payment(2);
    let expensive = shop
        .ask(Method::GET, "/v1", &[("payment-signature", &own)])
        .await;
    hold!(is_served(&expensive), expensive);
    hold!(shop.facilitator.count("/settle") == 2, shop.calls());
    Ok(())
}

async fn terms_that_were_not_offered_are_refused(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let mut cheap = payment_json(1, |own| own.value = U256::ONE);
    cheap["accepted"]["amount"] = "1".into();
    let mut elsewhere = payment_json(2, |own| own.to = signer().address());
    elsewhere["accepted"]["payTo"] = signer().address().to_string().into();
    let mut network = payment_json(3, |_| {});
    network["accepted"]["network"] = "eip155:8453".into();
    let mut token = payment_json(4, |_| {});
    token["accepted"]["asset"] = signer().address().to_string().into();
    for own in [cheap, elsewhere, network, token] {
        let seen = shop.pay(&encoded(&own)).await;
        hold!(!is_served(&seen) && seen.status == 402, seen);
    }
    hold!(shop.facilitator.count("/settle") == 0, shop.calls());
    Ok(())
}

async fn payment_for_another_method_is_refused(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let own = payment(1);
    let seen = shop
        .ask(Method::GET, "/v1", &[("payment-signature", &own)])
        .await;
    hold!(!is_served(&seen), seen);
    hold!(shop.facilitator.count("/settle") == 0, shop.calls());
    Ok(())
}

async fn other_spelling_of_a_path_is_not_free(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let paths = [
        "/services/chat/v1/",
        "/services//chat/v1",
        "/services/chat/V1",
        "/services/chat/%76%31",
    ];
    for path in paths {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let answered = shop.send_until_closed(request.as_bytes()).await;
        hold!(!answered.contains("the answer"), (path, answered));
    }
    Ok(())
}

async fn parallel_payments_with_one_identifier_are_charged_once(
    subject: Subject,
) -> Result<(), Failure> {
    let shop = subject.open().await;
    let late = Reply::text(200, "the answer").late(Duration::from_millis(200));
    shop.upstream.will("*", [late]);
    let payments = (1..=8).map(identified);
    join_all(payments.map(async |payment| shop.pay(&payment).await)).await;
    hold!(shop.facilitator.count("/settle") == 1, shop.calls());
    Ok(())
}

async fn only_a_success_is_settled(subject: Subject) -> Result<(), Failure> {
    for status in [302, 404, 500] {
        let shop = subject.open().await;
        shop.upstream.will("*", [Reply::text(status, "none")]);
        let seen = shop.pay(&payment(1)).await;
        hold!(seen.status == status, seen);
        hold!(
            shop.facilitator.count("/settle") == 0,
            (status, shop.calls())
        );
    }
    Ok(())
}

async fn head_is_never_settled(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let own = expensive_payment(1);
    shop.ask(Method::HEAD, "/v1", &[("payment-signature", &own)])
        .await;
    hold!(shop.facilitator.count("/settle") == 0, shop.calls());
    Ok(())
}

async fn unpaid_head_is_answered_402(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let seen = shop.ask(Method::HEAD, "/v1", &[]).await;
    hold!(seen.status == 402, seen);
    hold!(shop.upstream.count("") == 0, shop.calls());
    Ok(())
}

async fn paid_answer_is_not_for_shared_caches(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let fields = [("cache-control", "public, max-age=60"), ("x-own", "1")];
    let reply = Reply::text(200, "the answer").with(fields);
    shop.upstream.will("*", [reply]);
    let seen = shop.pay(&payment(1)).await;
    let caches = seen.field("cache-control").unwrap_or_default();
    hold!(
        caches.contains("private") || caches.contains("no-store"),
        seen
    );
    hold!(!caches.contains("public"), seen);
    Ok(())
}

async fn pending_settlement_is_named_and_served_once_it_is_final(
    subject: Subject,
) -> Result<(), Failure> {
    let shop = subject.open().await;
    let pending = json!({
        "success": false, "errorReason": "settlement_pending", "transaction": TRANSACTION,
    });
    let replies = [Reply::json(200, pending), Reply::settled()];
    shop.facilitator.will("/settle", replies);
    let own = payment(1);
    let first = shop.pay(&own).await;
    hold!(!is_served(&first), first);
    let receipt = first.receipt().unwrap_or_default();
    hold!(receipt["transaction"] == TRANSACTION, first);
    let second = shop.pay(&own).await;
    hold!(is_served(&second), second);
    hold!(shop.upstream.count("") == 1, shop.calls());
    Ok(())
}

async fn check_comes_before_the_work(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    shop.facilitator
        .will("/verify", [Reply::invalid("insufficient_funds")]);
    let seen = shop.pay(&payment(1)).await;
    hold!(seen.status == 402, seen);
    hold!(shop.upstream.count("") == 0, shop.calls());
    Ok(())
}

async fn flow_that_was_not_offered_is_refused(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    for flow in ["upfront", "escrow"] {
        let mut own = payment_json(1, |_| {});
        own["accepted"]["extra"]["paymentFlow"] = flow.into();
        let seen = shop.pay(&encoded(&own)).await;
        hold!(!is_served(&seen) && seen.status == 402, seen);
    }
    hold!(shop.facilitator.count("/settle") == 0, shop.calls());
    Ok(())
}

async fn retry_with_another_payment_is_not_charged(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    for nonce in [1, 2] {
        let seen = shop.pay(&identified(nonce)).await;
        hold!(is_served(&seen), seen);
    }
    hold!(shop.facilitator.count("/settle") == 1, shop.calls());
    Ok(())
}

async fn retry_with_the_same_payment_gets_its_answer(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let own = identified(1);
    for _ in 0..2 {
        let seen = shop.pay(&own).await;
        hold!(is_served(&seen), seen);
    }
    hold!(shop.facilitator.count("/settle") == 1, shop.calls());
    Ok(())
}

async fn status_and_fields_are_those_of_the_work(subject: Subject) -> Result<(), Failure> {
    for status in [201, 202] {
        let shop = subject.open().await;
        let fields = [("location", "/jobs/7"), ("x-own", "1")];
        let reply = Reply::text(status, "the answer").with(fields);
        shop.upstream.will("*", [reply]);
        let seen = shop.pay(&payment(1)).await;
        hold!(seen.status == status, seen);
        hold!(seen.field("location") == Some("/jobs/7"), seen);
    }
    Ok(())
}

async fn buyer_who_left_gets_what_was_settled(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    // The facilitator may take a second.
    let slow = Reply::settled().late(Duration::from_millis(600));
    shop.facilitator.will("/settle", [slow]);
    let own = payment(1);
    let is_asked = async {
        while shop.facilitator.count("/settle") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        () = is_asked => {}
        seen = shop.pay(&own) => return Err(format!("{seen:?}")),
    }
    let left = Instant::now();
    let mut seen = shop.pay(&own).await;
    while !is_served(&seen) && left.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen = shop.pay(&own).await;
    }
    hold!(is_served(&seen), seen);
    hold!(shop.facilitator.count("/settle") == 1, shop.calls());
    Ok(())
}

async fn malformed_payment_is_answered_400(subject: Subject) -> Result<(), Failure> {
    let shop = subject.open().await;
    let fields = [
        "not base64!".to_owned(),
        encoded(&json!("x402")),
        encoded(&json!({})),
    ];
    for field in fields {
        let request = shop.client.post(shop.url("/v1"));
        let answered = request.header("payment-signature", &field).send().await;
        let status = answered.map(|answer| answer.status().as_u16()).ok();
        hold!(status == Some(400), (field, status));
    }
    hold!(shop.calls() == (0, 0, 0), shop.calls());
    Ok(())
}

/// Every check, with the faults that it must find.
const CHECKS: [(&str, Check, &[Fault]); 21] = [
    (
        "R0",
        |own| Box::pin(unpaid_request_is_answered_402(own)),
        &[Fault::ServesWithoutPayment],
    ),
    (
        "R1",
        |own| Box::pin(payment_is_settled_by_the_facilitator(own)),
        &[Fault::AsksNoFacilitator],
    ),
    (
        "R2 to R9",
        |own| Box::pin(answer_that_settled_nothing_serves_nothing(own)),
        &[Fault::IgnoresSettlement, Fault::ServesWhateverSettleAnswers],
    ),
    (
        "R10",
        |own| Box::pin(answer_has_a_receipt(own)),
        &[Fault::SendsNoReceipt],
    ),
    (
        "R11",
        |own| Box::pin(route_is_served_for_its_own_payment(own)),
        &[Fault::NeverServes],
    ),
    (
        "R11a, R11b",
        |own| Box::pin(terms_that_were_not_offered_are_refused(own)),
        &[Fault::BelievesAccepted],
    ),
    (
        "R11c",
        |own| Box::pin(payment_for_another_method_is_refused(own)),
        &[Fault::PricesAsClientSays],
    ),
    (
        "R11e",
        |own| Box::pin(other_spelling_of_a_path_is_not_free(own)),
        &[Fault::MatchesPathAsWritten],
    ),
    (
        "R12",
        |own| Box::pin(parallel_payments_with_one_identifier_are_charged_once(own)),
        &[Fault::ChecksThenSets],
    ),
    (
        "R15",
        |own| Box::pin(only_a_success_is_settled(own)),
        &[Fault::SettlesFirst, Fault::SettlesBelow400],
    ),
    (
        "R16",
        |own| Box::pin(head_is_never_settled(own)),
        &[Fault::SettlesHead],
    ),
    (
        "R16a",
        |own| Box::pin(unpaid_head_is_answered_402(own)),
        &[Fault::ServesHeadForFree],
    ),
    (
        "R17",
        |own| Box::pin(paid_answer_is_not_for_shared_caches(own)),
        &[Fault::PublicAnswer, Fault::SilentAboutCaches],
    ),
    (
        "R18",
        |own| Box::pin(pending_settlement_is_named_and_served_once_it_is_final(own)),
        &[Fault::ServesWhilePending, Fault::PendingUnnamed],
    ),
    (
        "R19, order",
        |own| Box::pin(check_comes_before_the_work(own)),
        &[Fault::RunsBeforeAnyCheck],
    ),
    (
        "R19, flow",
        |own| Box::pin(flow_that_was_not_offered_is_refused(own)),
        &[Fault::TakesAnyFlow],
    ),
    (
        "R20a",
        |own| Box::pin(retry_with_another_payment_is_not_charged(own)),
        &[Fault::RecordsNothing, Fault::KeysByPayment],
    ),
    (
        "R20b",
        |own| Box::pin(retry_with_the_same_payment_gets_its_answer(own)),
        &[Fault::RecordsNothing],
    ),
    (
        "R22",
        |own| Box::pin(status_and_fields_are_those_of_the_work(own)),
        &[Fault::RewritesStatus],
    ),
    (
        "R23",
        |own| Box::pin(buyer_who_left_gets_what_was_settled(own)),
        &[Fault::RecordsOnDelivery, Fault::RecordsNothing],
    ),
    (
        "R24",
        |own| Box::pin(malformed_payment_is_answered_400(own)),
        &[Fault::ThrowsOnMalformed, Fault::DropsOnMalformed],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_passes_every_check_that_its_faulty_servers_fail() {
    // One after the other: a facilitator has only a second to answer.
    for (name, check, faults) in CHECKS {
        println!("{}", table_of(name, check, faults).await);
    }
}

/// What each subject of a check does. It panics if that is not what the check promises.
async fn table_of(name: &str, check: Check, faults: &[Fault]) -> String {
    let sound = check(Subject::Seller(Fault::Nothing)).await;
    assert_eq!(sound, Ok(()), "{name}: a server without a fault");
    let own = check(Subject::Gate).await;
    assert_eq!(own, Ok(()), "{name}: the gate");
    let mut table = format!("{name}: the gate passes");
    for fault in faults {
        let Err(failure) = check(Subject::Seller(*fault)).await else {
            panic!("{name} does not find {fault:?}");
        };
        let broken = failure.split(": ").next().unwrap_or_default();
        table.push_str(&format!("\n    {fault:?} breaks {broken}"));
    }
    table
}
