//! A bare process that competes for a Lease: its user, its kubeconfig, its command.

use std::ffi::OsStr;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Command;

/// How long a token is valid, in seconds: longer than the longest campaign.
const TOKEN_SECONDS: i64 = 12 * 3600;

/// Makes sure that a service account exists, and returns a token for it.
///
/// # Errors
/// If the API server does not issue one.
pub async fn token(client: Client, namespace: &str, name: &str) -> Result<String> {
    let accounts = Api::<ServiceAccount>::namespaced(client, namespace);
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    match accounts.create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        created => drop(created.with_context(|| format!("creating the account {name}"))?),
    }
    let spec = TokenRequestSpec {
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    let issued = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await?;
    Ok(issued
        .status
        .context("a token request without a token")?
        .token)
}

/// The name by which the API server knows a service account.
pub fn user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The administrator's kubeconfig with another user and a default namespace, and with another
/// address of the API server if one is given. The certificate is the one of `localhost`.
pub fn kubeconfig(
    admin: &Value,
    namespace: &str,
    user: &str,
    token: &str,
    server: Option<&str>,
) -> Value {
    let mut cluster = admin["clusters"][0].clone();
    if let Some(server) = server {
        cluster["cluster"]["server"] = json!(server);
        cluster["cluster"]["tls-server-name"] = json!("localhost");
    }
    let name = &cluster["name"];
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": user,
        "contexts": [{
            "name": user,
            "context": { "cluster": name, "namespace": namespace, "user": user },
        }],
        "users": [{ "name": user, "user": { "token": token } }],
        "clusters": [cluster],
    })
}

/// A command whose process the kernel kills when this one ends, however that happens. It inherits
/// no variables.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .env_clear()
        .kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_reaches_the_same_cluster_as_another_user() {
        let admin = json!({
            "clusters": [{ "name": "testbed", "cluster": { "server": "https://127.0.0.1:6443" } }],
            "users": [{ "name": "admin", "user": { "client-key-data": "secret" } }],
        });
        let own = kubeconfig(&admin, "place", "a-1", "token", None);
        assert_eq!(own["clusters"], admin["clusters"]);
        let context = &own["contexts"][0]["context"];
        assert_eq!(
            *context,
            json!({ "cluster": "testbed", "namespace": "place", "user": "a-1" })
        );
        let users = json!([{ "name": "a-1", "user": { "token": "token" } }]);
        assert_eq!(own["users"], users);
        let far = kubeconfig(
            &admin,
            "place",
            "a-1",
            "token",
            Some("https://127.1.0.1:6443"),
        );
        assert_eq!(
            far["clusters"][0]["cluster"]["server"],
            "https://127.1.0.1:6443"
        );
    }
}
