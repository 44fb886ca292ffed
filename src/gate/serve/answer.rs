//! Responses of the gate itself: 402 with its requirements, and every refusal, with what a buyer
//! needs to know about the money.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::gate::check::PaymentId;
use crate::gate::headers;
use crate::gate::page;
use crate::gate::table::Paid;
use crate::gate::wire::{
    self, LONGEST_REQUIRED, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PaymentReceipt, Resource,
    X_PAYMENT_RESPONSE,
};

/// Whether the buyer's money was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charged {
    No,
    Yes,
    Unknown,
}

/// A response that is not the upstream's.
#[derive(Clone, Debug)]
pub(super) struct ErrorResponse {
    status: StatusCode,
    code: String,
    charged: Option<Charged>,
    payment: Option<PaymentId>,
    transaction: Option<String>,
    hint: Option<String>,
    retry_after: Option<u64>,
    receipt: Option<PaymentReceipt>,
    fields: HeaderMap,
}

impl ErrorResponse {
    pub(super) fn new(status: StatusCode, code: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            charged: None,
            payment: None,
            transaction: None,
            hint: None,
            retry_after: None,
            receipt: None,
            fields: HeaderMap::new(),
        }
    }

    pub(super) fn about(mut self, payment: PaymentId, charged: Charged) -> Self {
        (self.payment, self.charged) = (Some(payment), Some(charged));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Seconds after which the buyer may try again.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn receipt(mut self, receipt: PaymentReceipt) -> Self {
        if !receipt.transaction.is_empty() {
            self.transaction = Some(receipt.transaction.clone());
        }
        self.receipt = Some(receipt);
        self
    }

    pub(super) fn field(mut self, name: http::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.fields.insert(name, value);
        }
        self
    }

    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("code".into(), self.code.clone().into());
        let charged = self.charged.map(|charged| match charged {
            Charged::No => json!(false),
            Charged::Yes => json!(true),
            Charged::Unknown => json!("unknown"),
        });
        let fields = [
            ("charged", charged),
            ("paymentId", self.payment.map(|id| id.to_string().into())),
            ("transaction", self.transaction.clone().map(Value::from)),
            ("hint", self.hint.clone().map(Value::from)),
        ];
        for (name, value) in fields {
            body.extend(value.map(|value| (name.to_owned(), value)));
        }
        body.into()
    }

    pub(super) fn response(self) -> Response {
        let body = format!("{}\n", self.body());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.extend(self.fields);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            fields.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(receipt) = &self.receipt {
            add_receipt(fields, receipt);
        }
        headers::cors(fields);
        response
    }
}

/// Adds a receipt for buyers of both versions.
pub(super) fn add_receipt(fields: &mut HeaderMap, receipt: &PaymentReceipt) {
    if let Ok(value) = HeaderValue::from_str(&receipt.encoded()) {
        fields.insert(PAYMENT_RESPONSE, value.clone());
        fields.insert(X_PAYMENT_RESPONSE, value);
    }
}

/// Asks for a payment: the requirements of version 2 in a field, those of version 1 in the body, or
/// a page for a browser. `error` says why. A URL that makes the field longer than clients read is
/// refused.
pub(super) fn payment_required(
    paid: &Paid,
    resource: Resource<'_>,
    error: &str,
    request: &HeaderMap,
    receipt: Option<&PaymentReceipt>,
) -> Response {
    let required = wire::encoded_text(&paid.rendered.required(resource, error));
    if required.len() > LONGEST_REQUIRED {
        let refusal = ErrorResponse::new(StatusCode::URI_TOO_LONG, "uri_too_long");
        let refusal = refusal.hint("The path is too long for a 402 response.");
        return match receipt {
            Some(receipt) => refusal.receipt(receipt.clone()).response(),
            None => refusal.response(),
        };
    }
    let is_page = is_browser(request);
    let body = match is_page {
        true => page::payment_required(&paid.terms, resource),
        false => format!("{}\n", paid.rendered.required_body(resource, error)),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
    let fields = response.headers_mut();
    let media_type = match is_page {
        true => "text/html; charset=utf-8",
        false => "application/json",
    };
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(
        VARY,
        HeaderValue::from_static("PAYMENT-SIGNATURE, X-PAYMENT, Accept, Origin"),
    );
    if let Ok(value) = HeaderValue::from_str(&required) {
        fields.insert(PAYMENT_REQUIRED, value);
    }
    if let Some(receipt) = receipt {
        add_receipt(fields, receipt);
    }
    headers::cors(fields);
    response
}

/// Whether a person reads the response: agents do not ask for HTML.
pub(super) fn is_browser(request: &HeaderMap) -> bool {
    let accepts = request.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| {
        let html = accepts.find("text/html");
        let json = accepts.find("application/json");
        html.is_some_and(|html| json.is_none_or(|json| html < json))
    })
}
