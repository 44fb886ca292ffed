//! Dry runs against the API server: does it accept an object, and with which message does it reject
//! it?

use std::time::Duration;

use harness::objects::{is_not_served, is_transient};
use harness::wait::eventually;
use kube::{Client, Resource};
use serde_json::Value;
use serviceoffer::api::{
    AgentRegistration, IdentityRegistry, PaymentFacilitator, ServiceOffer, SignerLedger,
};

/// How long the API server may take to serve a new kind.
const LIMIT: Duration = Duration::from_secs(30);

/// The namespace of a test's namespaced objects.
pub const NAMESPACE: &str = "default";

/// The request that submits an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    StatusUpdate,
}

/// How the API server responded.
#[derive(Debug)]
pub enum Outcome {
    /// The object as it is stored, defaults included.
    Accepted(Value),
    Rejected(Vec<Cause>),
}

/// One cause of a rejection.
#[derive(Debug)]
pub struct Cause {
    pub field: String,
    pub message: String,
}

impl Cause {
    /// The field, with `[]` in place of each index.
    pub fn schema_path(&self) -> String {
        let pieces = self.field.split('[').enumerate();
        pieces
            .map(|(index, piece)| {
                if index == 0 {
                    piece.to_owned()
                } else {
                    general(piece)
                }
            })
            .collect()
    }

    /// Whether it only reports that rules were skipped because the object is invalid.
    fn is_skipped_rules(&self) -> bool {
        self.message
            .contains("some validation rules were not checked because the object was invalid")
    }
}

/// `3].path` to `[].path`.
fn general(piece: &str) -> String {
    format!(
        "[]{}",
        piece.split_once(']').map_or(piece, |(_, rest)| rest)
    )
}

/// A client that submits objects as JSON, valid or not.
#[derive(Clone)]
pub struct AdmissionClient {
    client: Client,
}

impl AdmissionClient {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Submits an object without storing it.
    pub async fn dry_run(&self, operation: Operation, object: &Value) -> Outcome {
        self.submit(operation, object, "?fieldValidation=Strict&dryRun=All")
            .await
    }

    /// Stores an object with its status, and returns the stored object.
    pub async fn store(&self, object: &Value) -> Value {
        let stored = self.stored(Operation::Create, object.clone()).await;
        match object.get("status") {
            Some(status) if Self::has_status_subresource(object) => {
                let mut whole = stored;
                whole["status"] = status.clone();
                self.stored(Operation::StatusUpdate, whole).await
            }
            _ => stored,
        }
    }

    /// Reads any object.
    pub async fn read(&self, path: &str) -> Value {
        eventually(&format!("{path} can be read"), LIMIT, async || {
            let request = http::Request::get(path)
                .body(Vec::new())
                .expect("a request");
            self.client.request(request).await
        })
        .await
    }

    async fn stored(&self, operation: Operation, object: Value) -> Value {
        match self
            .submit(operation, &object, "?fieldValidation=Strict")
            .await
        {
            Outcome::Accepted(stored) => stored,
            Outcome::Rejected(causes) => panic!("{object} was rejected: {causes:#?}"),
        }
    }

    async fn submit(&self, operation: Operation, object: &Value, options: &str) -> Outcome {
        let collection = Self::collection(object);
        let name = object["metadata"]["name"]
            .as_str()
            .expect("an object has a name");
        let (method, path) = match operation {
            Operation::Create => ("POST", collection),
            Operation::Update => ("PUT", format!("{collection}/{name}")),
            Operation::StatusUpdate => ("PUT", format!("{collection}/{name}/status")),
        };
        // The API server serves a kind a moment after the CRD is established.
        eventually("the API server answers", LIMIT, async || {
            let request = http::Request::builder()
                .method(method)
                .uri(format!("{path}{options}"))
                .header("Content-Type", "application/json")
                .body(serde_json::to_vec(object).expect("an object is JSON"))
                .expect("a request");
            match self.client.request(request).await {
                Ok(stored) => Ok(Outcome::Accepted(stored)),
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    Ok(Outcome::Rejected(causes(*status)))
                }
                Err(error) if is_transient(&error) || is_not_served(&error) => Err(error),
                Err(error) => panic!("{method} {path} {object}: {error}"),
            }
        })
        .await
    }

    /// Whether the kind has a status subresource.
    pub fn has_status_subresource(object: &Value) -> bool {
        matches!(
            object["kind"].as_str(),
            Some("ServiceOffer" | "IdentityRegistry" | "PaymentFacilitator")
        )
    }

    fn collection(object: &Value) -> String {
        match object["kind"].as_str() {
            Some("ServiceOffer") => ServiceOffer::url_path(&(), Some(NAMESPACE)),
            Some("IdentityRegistry") => IdentityRegistry::url_path(&(), None),
            Some("PaymentFacilitator") => PaymentFacilitator::url_path(&(), None),
            Some("AgentRegistration") => AgentRegistration::url_path(&(), None),
            Some("SignerLedger") => SignerLedger::url_path(&(), None),
            kind => panic!("{kind:?} is not one of the five kinds"),
        }
    }
}

fn causes(status: kube::core::Status) -> Vec<Cause> {
    let details = status.details.expect("a rejection has details");
    let causes = details.causes.into_iter().map(|cause| Cause {
        field: cause.field,
        message: cause.message,
    });
    causes.filter(|cause| !cause.is_skipped_rules()).collect()
}
