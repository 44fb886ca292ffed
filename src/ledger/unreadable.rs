//! Reads what stored ledgers still show that cannot be decoded, because a newer version or another
//! schema wrote them. Pure.
//!
//! A key that another ledger registers gets no nonce here, and that must hold for a ledger that
//! this version cannot decode as well. What it shows is only ever a reason to allocate less.
//! [`super::store`] reads the objects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::evidence::UnknownPremise;
use crate::api::{Key, SignerLedger};
use crate::cluster::Lenient;

/// What the ledgers of a chain register, besides one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherLedgers {
    /// Keys that they register.
    pub registering: BTreeSet<Key>,
    /// Ledgers that do not show their keys.
    pub unknown: Vec<UnknownPremise>,
}

impl OtherLedgers {
    /// Collects the keys of all ledgers of a chain, except the one with this name.
    #[must_use]
    pub fn of<'a>(
        chain_id: u64,
        own_name: &str,
        ledgers: impl IntoIterator<Item = &'a Lenient<SignerLedger>>,
    ) -> Self {
        let mut others = Self::default();
        for ledger in ledgers {
            match ledger {
                Lenient::Decoded(ledger) => {
                    let name = ledger.metadata.name.as_deref().unwrap_or_default();
                    if ledger.spec.chain_id == chain_id && name != own_name {
                        others.registering.extend(ledger.spec.registering.keys());
                    }
                }
                Lenient::Undecodable(undecodable) => {
                    let name = undecodable.name();
                    if name == own_name || chain_of(name).is_some_and(|chain| chain != chain_id) {
                        continue;
                    }
                    match lenient_registering(&undecodable.stored) {
                        Some(keys) => others.registering.extend(keys),
                        None => others.unknown.push(UnknownPremise::LedgerUnreadable {
                            name: name.to_owned(),
                        }),
                    }
                }
            }
        }
        others
    }
}

/// Chain of a ledger, by its name.
fn chain_of(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}

/// Keys in `spec.registering` and in the entries of a stored ledger; `None` if any of them is
/// unreadable.
#[must_use]
pub fn lenient_registering(stored: &Value) -> Option<BTreeSet<Key>> {
    let spec = stored.get("spec")?;
    let registering = spec.get("registering")?.as_object()?.keys().map(Some);
    let entries = spec.get("entries")?.as_object()?.values();
    let entries = entries.map(|entry| match entry.get("key") {
        None | Some(Value::Null) => Some(None),
        Some(key) => key.as_str().map(Some),
    });
    let entries: Vec<Option<&str>> = entries.collect::<Option<_>>()?;
    registering
        .map(|key| key.map(String::as_str))
        .chain(entries)
        .flatten()
        .map(|key| key.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::fixtures;

    fn lenient(stored: Value) -> Lenient<SignerLedger> {
        serde_json::from_value(stored).unwrap()
    }

    /// A stored ledger of the fixtures under a name, after a change of its spec.
    fn stored(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let ledger = SignerLedger::new(name, fixtures::ledger());
        let mut stored = serde_json::to_value(ledger).unwrap();
        change(&mut stored["spec"]);
        stored
    }

    fn unknown_reason(spec: &mut Value) {
        spec["state"] = json!("Recovering");
    }

    fn others(ledgers: &[Value]) -> OtherLedgers {
        let ledgers: Vec<_> = ledgers.iter().cloned().map(lenient).collect();
        OtherLedgers::of(31337, "31337-own", &ledgers)
    }

    fn keys() -> BTreeSet<Key> {
        BTreeSet::from([fixtures::key('a'), fixtures::key('b')])
    }

    #[test]
    fn keys_of_other_ledgers_of_the_chain_are_collected() {
        let own = stored("31337-own", |_| {});
        assert_eq!(others(&[own]), OtherLedgers::default());
        let other = stored("31337-other", |_| {});
        assert_eq!(others(&[other]).registering, keys());
        let elsewhere = stored("1-other", |spec| spec["chainId"] = json!(1));
        assert_eq!(others(&[elsewhere]), OtherLedgers::default());
    }

    #[test]
    fn undecodable_ledger_still_shows_its_keys() {
        let other = stored("31337-other", unknown_reason);
        let expected = OtherLedgers {
            registering: keys(),
            unknown: vec![],
        };
        assert_eq!(others(std::slice::from_ref(&other)), expected);
        let own = stored("31337-own", unknown_reason);
        let elsewhere = stored("1-other", unknown_reason);
        assert_eq!(others(&[own, elsewhere]), OtherLedgers::default());
        let unnamed = stored("other", unknown_reason);
        assert_eq!(others(&[unnamed]), expected, "it may be of this chain");
    }

    #[test]
    fn ledger_without_readable_keys_is_an_unknown_premise() {
        let name = "31337-other";
        let no_registering =
            |spec: &mut Value| drop(spec.as_object_mut().unwrap().remove("registering"));
        let no_entries = |spec: &mut Value| drop(spec.as_object_mut().unwrap().remove("entries"));
        let unreadable = [
            stored(name, no_registering),
            stored(name, no_entries),
            stored(name, |spec| spec["entries"] = json!(5)),
            stored(name, |spec| spec["registering"] = json!(["a"])),
            stored(name, |spec| spec["registering"] = json!({ "A": "5" })),
            stored(name, |spec| spec["entries"]["5"]["key"] = json!(5)),
            json!({ "metadata": { "name": name } }),
        ];
        for ledger in unreadable {
            let unknown = vec![UnknownPremise::LedgerUnreadable { name: name.into() }];
            assert_eq!(others(&[ledger]).unknown, unknown);
        }
    }

    #[test]
    fn filler_of_an_undecodable_ledger_has_no_key() {
        let filler = stored("31337-other", |spec| {
            unknown_reason(spec);
            spec["entries"]["9"] = json!({ "operation": "Filler" });
            spec["entries"]["8"] = json!({ "operation": "Burn", "key": null });
        });
        assert_eq!(others(&[filler]).registering, keys());
    }
}
