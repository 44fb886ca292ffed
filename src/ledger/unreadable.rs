//! Reads what stored ledgers, records and IdentityRegistries still show that cannot be decoded,
//! because a newer version or another schema wrote them. Pure.
//!
//! A key that another ledger registers gets no nonce here, and neither does one that an account
//! registered which another object names. That must hold for an object that this version cannot
//! decode as well. What it shows is only ever a reason to allocate less. [`super::store`] reads the
//! objects.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::Address;
use serde_json::Value;

use super::evidence::UnknownPremise;
use crate::api::{
    IdentityRegistry, Key, LedgerMarker, QuarantineReason, SignerLedger, SignerLedgerSpec,
};
use crate::cluster::{Lenient, Undecodable};

/// What the ledgers of a chain show, besides one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherLedgers {
    /// Keys that they register.
    pub registering: BTreeSet<Key>,
    /// To each account the ledger that it has.
    pub by_account: BTreeMap<Address, OtherLedger>,
    /// Ledgers that do not show their keys or their account.
    pub unknown: Vec<UnknownPremise>,
}

/// What a ledger shows about its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherLedger {
    pub uid: String,
    /// Last final block that it knows of.
    pub finalized_block: u64,
    /// Whether it is in quarantine for another reason than that it is new.
    pub is_quarantined: bool,
    /// `None` if it cannot be decoded.
    pub spec: Option<Box<SignerLedgerSpec>>,
}

impl OtherLedgers {
    /// Collects what all ledgers of a chain show, except the one with this name.
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
                        others
                            .by_account
                            .insert(ledger.spec.signer, decoded(ledger));
                    }
                }
                Lenient::Undecodable(undecodable) => {
                    let name = undecodable.name();
                    if name == own_name || chain_of(name).is_some_and(|chain| chain != chain_id) {
                        continue;
                    }
                    let stored = &undecodable.stored;
                    match (lenient_registering(stored), lenient_ledger(name, stored)) {
                        (Some(keys), Some((account, ledger))) => {
                            others.registering.extend(keys);
                            others.by_account.insert(account, ledger);
                        }
                        _ => others.unknown.push(UnknownPremise::LedgerUnreadable {
                            name: name.to_owned(),
                        }),
                    }
                }
            }
        }
        others
    }
}

fn decoded(ledger: &SignerLedger) -> OtherLedger {
    let quarantine = ledger.spec.quarantine.as_ref();
    OtherLedger {
        uid: ledger.metadata.uid.clone().unwrap_or_default(),
        finalized_block: ledger.spec.finalized_block,
        is_quarantined: quarantine.is_some_and(|found| found.reason != QuarantineReason::New),
        spec: Some(Box::new(ledger.spec.clone())),
    }
}

/// The account of a stored ledger and what it shows; `None` if any of that is unreadable. A state
/// that this version does not know counts as a quarantine.
fn lenient_ledger(name: &str, stored: &Value) -> Option<(Address, OtherLedger)> {
    let spec = stored.get("spec")?;
    let named = name.split_once('-').map(|(_, account)| account);
    let account = named
        .and_then(|account| account.parse().ok())
        .or_else(|| spec.get("signer")?.as_str()?.parse().ok())?;
    let is_new = spec.pointer("/quarantine/reason").and_then(Value::as_str) == Some("New");
    let uid = stored.pointer("/metadata/uid").and_then(Value::as_str)?;
    let ledger = OtherLedger {
        uid: uid.to_owned(),
        finalized_block: spec.get("finalizedBlock")?.as_u64()?,
        is_quarantined: spec.get("state")?.as_str()? != "Active" && !is_new,
        spec: None,
    };
    Some((account, ledger))
}

/// A record that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRecord {
    pub name: String,
    /// Chain that it is of; `None` if it does not show one.
    pub chain_id: Option<u64>,
    /// Account that owns its agent, or will.
    pub signer: Option<Address>,
}

impl From<&Undecodable> for UnreadableRecord {
    fn from(record: &Undecodable) -> Self {
        let signer = record.stored.pointer("/spec/signer");
        Self {
            name: record.name().to_owned(),
            chain_id: chain_id_of(&record.stored),
            signer: signer
                .and_then(Value::as_str)
                .and_then(|signer| signer.parse().ok()),
        }
    }
}

/// Chain that the spec of a stored object names.
fn chain_id_of(stored: &Value) -> Option<u64> {
    stored.pointer("/spec/chainId").and_then(Value::as_u64)
}

/// Ledger markers of the IdentityRegistries of a chain. One that cannot be decoded and does not show
/// its chain counts as of this chain.
#[must_use]
pub fn ledger_markers<'a>(
    chain_id: u64,
    registries: impl IntoIterator<Item = &'a Lenient<IdentityRegistry>>,
) -> Vec<LedgerMarker> {
    let of_registry = |registry: &Lenient<IdentityRegistry>| match registry {
        Lenient::Decoded(registry) => {
            let of_chain = registry.spec.chain_id == chain_id;
            let status = registry.status.as_ref().filter(|_| of_chain);
            status.map_or_else(Vec::new, |status| status.ledgers.clone())
        }
        Lenient::Undecodable(registry) => {
            let chain = chain_id_of(&registry.stored);
            let markers = registry.stored.pointer("/status/ledgers");
            let markers = markers.filter(|_| chain.is_none_or(|chain| chain == chain_id));
            let markers = markers.and_then(Value::as_array).into_iter().flatten();
            let text = |marker: &Value, field: &str| Some(marker.get(field)?.as_str()?.to_owned());
            let markers = markers.filter_map(|marker| {
                Some(LedgerMarker {
                    signer: text(marker, "signer")?,
                    uid: text(marker, "uid").unwrap_or_default(),
                })
            });
            markers.collect()
        }
    };
    registries.into_iter().flat_map(of_registry).collect()
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
    use crate::ledger::store::ReadRecords;
    use crate::registration;

    fn lenient(stored: Value) -> Lenient<SignerLedger> {
        serde_json::from_value(stored).unwrap()
    }

    /// A stored ledger of the fixtures under a name, after a change of its spec.
    fn stored(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let ledger = SignerLedger::new(name, fixtures::ledger());
        let mut stored = serde_json::to_value(ledger).unwrap();
        stored["metadata"]["uid"] = json!("uid");
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
        let shown = OtherLedger {
            is_quarantined: true,
            ..fixtures::other_ledger("uid", 50)
        };
        let expected = OtherLedgers {
            registering: keys(),
            by_account: BTreeMap::from([(fixtures::SIGNER, shown)]),
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
    fn undecodable_ledger_that_hides_its_account_or_state_is_an_unknown_premise() {
        let name = "31337-other";
        let without = |field: &'static str| {
            stored(name, move |spec| {
                unknown_reason(spec);
                drop(spec.as_object_mut().unwrap().remove(field));
            })
        };
        let odd = |field: &'static str| {
            stored(name, move |spec| {
                unknown_reason(spec);
                spec[field] = json!([]);
            })
        };
        let mut unnamed = stored(name, unknown_reason);
        unnamed["metadata"]["uid"] = json!(null);
        let mut ledgers = vec![unnamed];
        for field in ["signer", "state", "finalizedBlock"] {
            ledgers.extend([without(field), odd(field)]);
        }
        for ledger in ledgers {
            let unknown = vec![UnknownPremise::LedgerUnreadable { name: name.into() }];
            assert_eq!(
                others(std::slice::from_ref(&ledger)).unknown,
                unknown,
                "{ledger}"
            );
        }
    }

    #[test]
    fn account_and_state_of_every_other_ledger_are_known() {
        let account = fixtures::STRANGER;
        let name = SignerLedger::name_of(31337, account);
        let shown = |change: fn(&mut Value)| {
            let found = others(&[stored(&name, change)]);
            let (account, ledger) = found.by_account.into_iter().next().unwrap();
            (account, ledger.is_quarantined, ledger.spec.is_some())
        };
        let quarantine = |reason: &str| json!({ "reason": reason, "bound": 0 });
        let in_quarantine = |spec: &mut Value, reason: &str| {
            spec["state"] = json!("Quarantine");
            spec["quarantine"] = quarantine(reason);
            spec["signer"] = json!(account);
        };
        assert_eq!(
            shown(|spec| spec["signer"] = json!(fixtures::STRANGER)),
            (account, false, true)
        );
        for (reason, is_quarantined, is_decoded) in [
            ("New", false, true),
            ("Rollback", true, true),
            ("Later", true, false),
        ] {
            let found = others(&[stored(&name, |spec| in_quarantine(spec, reason))]);
            let ledger = &found.by_account[&account];
            assert_eq!(
                (ledger.is_quarantined, ledger.spec.is_some()),
                (is_quarantined, is_decoded),
                "{reason}"
            );
        }
        let unnamed_field = |spec: &mut Value| {
            unknown_reason(spec);
            drop(spec.as_object_mut().unwrap().remove("signer"));
        };
        assert_eq!(shown(unnamed_field), (account, true, false), "by its name");
    }

    fn registry(change: impl FnOnce(&mut Value)) -> Lenient<IdentityRegistry> {
        let marker = json!({ "signer": fixtures::SIGNER, "uid": "uid" });
        let marked = json!({ "spec": { "chainId": 31337 }, "status": { "ledgers": [marker] } });
        let registry = registration::fixtures::registry(marked);
        let mut stored = serde_json::to_value(registry).unwrap();
        change(&mut stored);
        serde_json::from_value(stored).unwrap()
    }

    #[test]
    fn markers_of_every_registry_of_the_chain_are_read() {
        const NONE: [(String, String); 0] = [];
        let own = [(format!("{:#x}", fixtures::SIGNER), "uid".to_owned())];
        let of = |registries: &[Lenient<IdentityRegistry>]| -> Vec<(String, String)> {
            let markers = ledger_markers(31337, registries).into_iter();
            markers.map(|marker| (marker.signer, marker.uid)).collect()
        };
        let marked = |change: fn(&mut Value)| of(&[registry(change)]);
        let unknown = |stored: &mut Value| stored["spec"]["suspend"] = json!("Later");
        let is_decoded = |registry| matches!(registry, Lenient::Decoded(_));
        assert!(is_decoded(registry(|_| {})) && !is_decoded(registry(unknown)));

        assert_eq!(marked(|_| {}), own);
        assert_eq!(marked(|stored| stored["spec"]["chainId"] = json!(1)), NONE);
        assert_eq!(marked(|stored| stored["status"] = json!(null)), NONE);
        for chain in [json!(31337), json!("31337"), json!(null)] {
            let unreadable = registry(|stored| {
                stored["spec"]["suspend"] = json!("Later");
                stored["spec"]["chainId"] = chain.clone();
            });
            assert_eq!(of(&[unreadable]), own, "{chain}");
        }
        let elsewhere = registry(|stored| {
            stored["spec"]["suspend"] = json!("Later");
            stored["spec"]["chainId"] = json!(1);
        });
        assert_eq!(of(&[elsewhere]), NONE);
        let odd = registry(|stored| {
            stored["spec"]["suspend"] = json!("Later");
            let markers = &mut stored["status"]["ledgers"];
            *markers = json!([{ "uid": "uid" }, { "signer": 1 }, { "signer": "0x1" }, markers[0]]);
        });
        assert_eq!(of(&[odd])[1..], own);
        let unmarked = registry(|stored| {
            stored["spec"]["suspend"] = json!("Later");
            stored["status"] = json!(null);
        });
        assert_eq!(of(&[unmarked]), NONE);
    }

    #[test]
    fn undecodable_record_still_shows_its_chain_and_account() {
        let shown = |change: fn(&mut Value)| {
            let mut stored = json!({
                "metadata": { "name": "r-a" },
                "spec": { "chainId": 31337, "signer": fixtures::SIGNER, "phase": "Later" },
            });
            change(&mut stored["spec"]);
            let record = serde_json::from_value(stored).unwrap();
            let mut read = ReadRecords::from_iter([record]);
            let shown = read.unreadable.pop().unwrap();
            assert_eq!(shown.name, "r-a");
            (shown.chain_id, shown.signer)
        };
        assert_eq!(shown(|_| {}), (Some(31337), Some(fixtures::SIGNER)));
        assert_eq!(shown(|spec| *spec = json!({})), (None, None));
        let odd = |spec: &mut Value| *spec = json!({ "chainId": "1", "signer": "0x1" });
        assert_eq!(shown(odd), (None, None));
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
