//! Asking the API server whether it would take an object, and what it says if not.

use std::time::Duration;

use harness::wait::{eventually, is_transient};
use kube::{Client, Resource};
use serde_json::Value;
use serviceoffer::api::{AgentRegistration, IdentityRegistry, ServiceOffer, SignerLedger};

/// How long the API server may take to serve a kind.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the objects of a test live, as far as they are namespaced.
pub const NAMESPACE: &str = "default";

/// The way an object reaches the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Creation,
    Update,
    StatusUpdate,
}

/// What the API server answered.
#[derive(Debug)]
pub enum Answer {
    /// The object as it is stored, defaults included.
    Admitted(Value),
    Refused(Vec<Cause>),
}

/// One reason of a refusal.
#[derive(Debug)]
pub struct Cause {
    pub field: String,
    pub message: String,
}

impl Cause {
    /// The field, with `[]` for any item.
    pub fn place(&self) -> String {
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

    /// Whether it only says that an object this broken was not looked at any further.
    fn is_postponement(&self) -> bool {
        self.message
            .contains("some validation rules were not checked because the object was invalid")
    }
}

/// `3].path` as `[].path`.
fn general(piece: &str) -> String {
    format!(
        "[]{}",
        piece.split_once(']').map_or(piece, |(_, rest)| rest)
    )
}

/// The door of the API server.
#[derive(Clone)]
pub struct Door {
    client: Client,
}

impl Door {
    pub fn of(client: Client) -> Self {
        Self { client }
    }

    /// Asks without storing anything.
    pub async fn ask(&self, occasion: Occasion, object: &Value) -> Answer {
        self.submit(occasion, object, "?fieldValidation=Strict&dryRun=All")
            .await
    }

    /// Stores an object, its status too, and answers with it as it stands then.
    pub async fn store(&self, object: &Value) -> Value {
        let stored = self.stored(Occasion::Creation, object.clone()).await;
        match object.get("status") {
            Some(status) if Self::has_status_subresource(object) => {
                let mut whole = stored;
                whole["status"] = status.clone();
                self.stored(Occasion::StatusUpdate, whole).await
            }
            _ => stored,
        }
    }

    /// Reads any object of the API server.
    pub async fn read(&self, path: &str) -> Value {
        eventually(&format!("{path} is read"), LIMIT, async || {
            let request = http::Request::get(path)
                .body(Vec::new())
                .expect("a request");
            self.client.request(request).await
        })
        .await
    }

    async fn stored(&self, occasion: Occasion, object: Value) -> Value {
        match self
            .submit(occasion, &object, "?fieldValidation=Strict")
            .await
        {
            Answer::Admitted(stored) => stored,
            Answer::Refused(causes) => panic!("{object} is not stored: {causes:#?}"),
        }
    }

    async fn submit(&self, occasion: Occasion, object: &Value, options: &str) -> Answer {
        let collection = Self::collection(object);
        let name = object["metadata"]["name"]
            .as_str()
            .expect("an object has a name");
        let (method, path) = match occasion {
            Occasion::Creation => ("POST", collection),
            Occasion::Update => ("PUT", format!("{collection}/{name}")),
            Occasion::StatusUpdate => ("PUT", format!("{collection}/{name}/status")),
        };
        // A kind is served a moment after it is established.
        eventually("the API server answers", LIMIT, async || {
            let request = http::Request::builder()
                .method(method)
                .uri(format!("{path}{options}"))
                .header("Content-Type", "application/json")
                .body(serde_json::to_vec(object).expect("an object is JSON"))
                .expect("a request");
            match self.client.request(request).await {
                Ok(stored) => Ok(Answer::Admitted(stored)),
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    Ok(Answer::Refused(causes(*status)))
                }
                Err(error) if is_transient(&error) => Err(error),
                Err(error) => panic!("{method} {path} {object}: {error}"),
            }
        })
        .await
    }

    /// Whether the status of an object is written apart from its spec.
    pub fn has_status_subresource(object: &Value) -> bool {
        matches!(
            object["kind"].as_str(),
            Some("ServiceOffer" | "IdentityRegistry")
        )
    }

    fn collection(object: &Value) -> String {
        match object["kind"].as_str() {
            Some("ServiceOffer") => ServiceOffer::url_path(&(), Some(NAMESPACE)),
            Some("IdentityRegistry") => IdentityRegistry::url_path(&(), None),
            Some("AgentRegistration") => AgentRegistration::url_path(&(), None),
            Some("SignerLedger") => SignerLedger::url_path(&(), None),
            kind => panic!("{kind:?} is none of the four kinds"),
        }
    }
}

fn causes(status: kube::core::Status) -> Vec<Cause> {
    let details = status.details.expect("a refusal has details");
    let causes = details.causes.into_iter().map(|cause| Cause {
        field: cause.field,
        message: cause.message,
    });
    causes.filter(|cause| !cause.is_postponement()).collect()
}
