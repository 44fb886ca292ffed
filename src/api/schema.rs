//! Patterns and CEL rules that several fields share, or that are too long to write beside the
//! field.
//!
//! Rules on whole objects compare what a field *means*, so that writing out a default later is
//! allowed. Testing `hasValue()` and then comparing plain paths keeps the schema's length bounds in
//! the API server's cost estimate. Comparing optionals loses them, and the API server rejects the
//! CRD as too expensive.

use super::network::{self, Class};

/// A Go duration, as the legacy controller reads it.
pub(super) const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$";
/// A positive decimal number without exponent, sign or leading zeros.
pub(super) const POSITIVE_DECIMAL: &str = r"^([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)$";
/// CEL in addition to [`POSITIVE_DECIMAL`]: an amount of a native token, whose smallest unit is
/// 10^-18.
pub(super) const NATIVE_AMOUNT: &str = "self.matches('^[0-9]{1,17}([.][0-9]{1,18})?$')";
pub(super) const NATIVE_AMOUNT_MESSAGE: &str =
    "an amount has at most 17 digits before and 18 after the decimal point";
/// CEL in addition to [`POSITIVE_DECIMAL`]: a gas price in gwei (10^-9 of a native token).
pub(super) const GWEI: &str = "self.matches('^[0-9]{1,17}([.][0-9]{1,9})?$')";
pub(super) const GWEI_MESSAGE: &str =
    "an amount of gwei has at most 17 digits before and 9 after the decimal point";
/// A hex address in upper, lower or mixed case.
pub(super) const ADDRESS: &str = "^0x[0-9a-fA-F]{40}$";
/// A hex address in lower case, the form that names and comparisons use.
pub(super) const LOWER_ADDRESS: &str = "^0x[0-9a-f]{40}$";
/// A CAIP-2 id in the `eip155` namespace.
pub(super) const EIP155_NETWORK: &str = "^eip155:[1-9][0-9]{0,15}$";
/// CEL: credentials and payments leave the cluster encrypted only.
pub(super) const HTTPS_OUTSIDE_CLUSTER: &str = "self.startsWith('https://') || self.matches('^http://[a-z]([-a-z0-9]*[a-z0-9])?[.][a-z0-9]([-a-z0-9]*[a-z0-9])?[.]svc(:[0-9]{1,5})?(/.*)?$')";
/// CEL: not a header that the HTTP client sets itself.
pub(super) const NOT_A_TRANSPORT_HEADER: &str = "!(self.lowerAscii() in ['accept', 'connection', 'content-length', 'content-type', 'expect', 'host', 'te', 'trailer', 'transfer-encoding', 'upgrade'])";
/// A 32-byte hash.
pub(super) const HASH: &str = "^0x[0-9a-f]{64}$";
/// An unsigned integer without leading zeros.
pub(super) const UNSIGNED: &str = "^(0|[1-9][0-9]*)$";
/// A key, see [`super::Key`].
pub(super) const KEY: &str = "^[a-z2-7]{16}$";

/// Why identity, registry and adopted agent can no longer change.
pub(super) const FROZEN: &str = "frozen once the agent has a record (status.registration.key): raise registration.edition to ask for a new agent";

const KEYED: &str = "oldSelf.?status.?registration.?key.hasValue()";

pub(super) fn identity_frozen() -> String {
    let name = |side: &str| {
        format!(
            "({side}.spec.?registration.?identity.hasValue() ? {side}.spec.registration.identity : self.metadata.name)"
        )
    };
    format!("!{KEYED} || {} == {}", name("self"), name("oldSelf"))
}

pub(super) fn registry_frozen() -> String {
    let named = |side: &str| format!("{side}.spec.?registration.?registryRef.hasValue()");
    let used = "oldSelf.status.registration.registry";
    // Unset means the registry in use, so only a reference to that registry may be added or
    // removed.
    let names_used = |side: &str| {
        format!(
            "(!{} || (has({used}) && {side}.spec.registration.registryRef.name == {used}))",
            named(side)
        )
    };
    format!(
        "!{KEYED} || ({} && {} ? self.spec.registration.registryRef.name == oldSelf.spec.registration.registryRef.name : ({} && {}))",
        named("self"),
        named("oldSelf"),
        names_used("self"),
        names_used("oldSelf"),
    )
}

pub(super) fn agent_id_frozen() -> String {
    let named = |side: &str| format!("{side}.spec.?registration.?agentId.hasValue()");
    format!(
        "!{KEYED} || ({new} == {old} && (!{new} || self.spec.registration.agentId == oldSelf.spec.registration.agentId))",
        new = named("self"),
        old = named("oldSelf"),
    )
}

/// CEL: an optional field of the current object can be neither set, changed nor removed later.
pub(super) fn constant(field: &str) -> String {
    format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    )
}

/// CEL: the same for an address, whose letters may still be written in another case.
pub(super) fn constant_address(field: &str) -> String {
    format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field}.lowerAscii() == oldSelf.{field}.lowerAscii())"
    )
}

pub(super) fn registry_address_known() -> String {
    let known = network::cel_ids(&[Class::Mainnet, Class::Testnet]);
    format!("has(self.address) || self.chainId in {known}")
}

pub(super) fn https_on_mainnets() -> String {
    let mainnets = network::cel_ids(&[Class::Mainnet, Class::UnlistedMainnet]);
    format!("!(self.chainId in {mainnets}) || self.baseUrl.startsWith('https://')")
}
