//! Recognizes registrations of the legacy controller. Pure.
//!
//! They are not in the operator's records, so registering such an offer could register it twice.
//! The offer waits until its owner says which agent is meant (rule R12). Where the legacy
//! controller's kinds exist, an import may apply an offer before the request that belongs to it, so
//! an offer has to reach [`MINIMUM_AGE`] first. [`crate::cluster::Reader`] reads the objects that
//! are judged here.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

/// How old an offer has to be before it is registered where legacy kinds exist.
pub(crate) const MINIMUM_AGE: SignedDuration = SignedDuration::from_secs(60);

/// Whether an offer was created so recently that its legacy objects may still be missing. An
/// unknown time of creation counts as recent.
#[must_use]
pub(crate) fn too_young(created: Option<Timestamp>, now: Timestamp) -> bool {
    created.is_none_or(|created| now.duration_since(created) < MINIMUM_AGE)
}

/// Describes why the legacy controller may have registered an offer on this chain; `None` if
/// nothing shows it.
///
/// `is_this_chain` says whether a chain's name means this chain. A request without a chain may be
/// for any.
#[must_use]
pub(crate) fn find(
    request: Option<&DynamicObject>,
    identity: Option<&DynamicObject>,
    is_this_chain: impl Fn(&str) -> bool,
) -> Option<String> {
    let elsewhere = |request: &&DynamicObject| {
        request
            .data
            .pointer("/spec/chain")
            .and_then(Value::as_str)
            .is_some_and(|chain| !is_this_chain(chain))
    };
    if let Some(request) = request.filter(|request| !elsewhere(request)) {
        return Some(format!(
            "RegistrationRequest {} of the legacy controller exists",
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
            .is_some_and(&is_this_chain)
    };
    let found = registrations.iter().find(on_this_chain)?;
    let id = found
        .get("agentId")
        .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
        .unwrap_or_default();
    Some(format!(
        "AgentIdentity of the legacy controller names agent {id} on this chain; delete it once every \
         offer of the legacy controller has its agent"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn offer_is_too_young_for_a_minute() {
        let created = Timestamp::from_second(1000).unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert!(too_young(Some(created), at(1059)));
        assert!(!too_young(Some(created), at(1060)));
        assert!(too_young(Some(created), at(900)), "the clocks differ");
        assert!(too_young(None, at(5000)));
    }

    fn is_base(chain: &str) -> bool {
        chain == "base"
    }

    #[test]
    fn request_counts_unless_it_names_another_chain() {
        let request = |spec: Value| {
            object(json!({ "metadata": { "name": "so-a-registration" }, "spec": spec }))
        };
        for spec in [json!({}), json!({ "chain": "base" })] {
            assert!(
                find(Some(&request(spec)), None, is_base)
                    .unwrap()
                    .contains("so-a-registration")
            );
        }
        assert_eq!(
            find(Some(&request(json!({ "chain": "sepolia" }))), None, is_base),
            None
        );
        assert_eq!(find(None, None, is_base), None);
    }

    #[test]
    fn identity_counts_if_it_lists_this_chain() {
        let identity = |registrations: Value| {
            object(
                json!({ "metadata": { "name": "default" }, "status": { "registrations": registrations } }),
            )
        };
        let listed = identity(
            json!([{ "chain": "sepolia", "agentId": "1" }, { "chain": "base", "agentId": "7" }]),
        );
        assert!(
            find(None, Some(&listed), is_base)
                .unwrap()
                .contains("agent 7")
        );
        let number = identity(json!([{ "chain": "base", "agentId": 7 }]));
        assert!(
            find(None, Some(&number), is_base)
                .unwrap()
                .contains("agent 7")
        );
        assert_eq!(
            find(
                None,
                Some(&identity(json!([{ "chain": "sepolia", "agentId": "1" }]))),
                is_base
            ),
            None
        );
        assert_eq!(find(None, Some(&identity(json!([]))), is_base), None);
        assert_eq!(
            find(
                None,
                Some(&object(json!({ "metadata": { "name": "default" } }))),
                is_base
            ),
            None
        );
    }
}
