//! What the controller that this one replaces left of its registrations. Pure.
//!
//! A registration that it made is not in our records. Registering such an offer could be a second time, so a trace stops it
//! until a person says which agent is meant (rule R12).

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

/// What shows that the old controller may have registered an offer on this chain, in words; `None` if nothing does.
///
/// `here` says whether the name of a chain means the chain at hand. A request that names no chain may be for any.
#[must_use]
pub fn find(
    request: Option<&DynamicObject>,
    identity: Option<&DynamicObject>,
    here: impl Fn(&str) -> bool,
) -> Option<String> {
    let elsewhere = |request: &&DynamicObject| {
        request
            .data
            .pointer("/spec/chain")
            .and_then(Value::as_str)
            .is_some_and(|chain| !here(chain))
    };
    if let Some(request) = request.filter(|request| !elsewhere(request)) {
        return Some(format!(
            "RegistrationRequest {} of the former controller exists",
            request.name_any()
        ));
    }
    let registrations = identity?
        .data
        .pointer("/status/registrations")?
        .as_array()?;
    let on_this_chain = |registration: &&Value| {
        registration
            .get("chain")
            .and_then(Value::as_str)
            .is_some_and(&here)
    };
    let found = registrations.iter().find(on_this_chain)?;
    let id = found
        .get("agentId")
        .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
        .unwrap_or_default();
    Some(format!(
        "AgentIdentity of the former controller names agent {id} on this chain"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn here(chain: &str) -> bool {
        chain == "base"
    }

    #[test]
    fn a_request_is_a_trace_unless_it_names_another_chain() {
        let request = |spec: Value| {
            object(json!({ "metadata": { "name": "so-a-registration" }, "spec": spec }))
        };
        for spec in [json!({}), json!({ "chain": "base" })] {
            assert!(
                find(Some(&request(spec)), None, here)
                    .unwrap()
                    .contains("so-a-registration")
            );
        }
        assert_eq!(
            find(Some(&request(json!({ "chain": "sepolia" }))), None, here),
            None
        );
        assert_eq!(find(None, None, here), None);
    }

    #[test]
    fn an_identity_is_a_trace_if_it_lists_this_chain() {
        let identity = |registrations: Value| {
            object(
                json!({ "metadata": { "name": "default" }, "status": { "registrations": registrations } }),
            )
        };
        let listed = identity(
            json!([{ "chain": "sepolia", "agentId": "1" }, { "chain": "base", "agentId": "7" }]),
        );
        assert!(find(None, Some(&listed), here).unwrap().contains("agent 7"));
        let number = identity(json!([{ "chain": "base", "agentId": 7 }]));
        assert!(find(None, Some(&number), here).unwrap().contains("agent 7"));
        assert_eq!(
            find(
                None,
                Some(&identity(json!([{ "chain": "sepolia", "agentId": "1" }]))),
                here
            ),
            None
        );
        assert_eq!(find(None, Some(&identity(json!([]))), here), None);
        assert_eq!(
            find(
                None,
                Some(&object(json!({ "metadata": { "name": "default" } }))),
                here
            ),
            None
        );
    }
}
