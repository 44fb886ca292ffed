//! What the spec of a registry refers to: contract, endpoints, signer key, limits. Reads Secrets;
//! writes nothing and asks no endpoint.
//!
//! A Secret is read in full only when its resource version changed; otherwise its metadata proves
//! that what was read before is current.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256};
use kube::ResourceExt;

use super::blocked::{Blocked, Unverified, check_addresses};
use super::outcome::{Check, Checks};
use super::records::RecordDefaults;
use super::state::{KnownSecret, KnownSigner, RegistryState, SecretBytes};
use crate::api::{
    AgentRegistrationSpec, Bootstrap, Endpoint as EndpointSpec, IdentityRegistry, SecretKey,
    Signer, SignerLedger, Suspend,
};
use crate::chain::TransactionSigner;
use crate::chain::key::{KeyError, password_of, read_key};
use crate::cluster::{self, Cache, SecretRead};
use crate::ledger::money::Limits;
use crate::ledger::rollback::is_stopped;
use crate::reconcile::Context;
use crate::registration::contract::Contract;
use crate::registration::signers;

/// How long a Secret is assumed unchanged without a look at its metadata.
const SECRET_EVERY: Duration = Duration::from_secs(10);

/// Another signer than the first, which has transactions in flight.
#[derive(Clone, Debug)]
pub(super) struct FormerSigner {
    pub(super) address: Address,
    /// Signs for it, or why nothing can.
    pub(super) signer: Result<TransactionSigner, String>,
}

/// What a registry's spec stands for.
#[derive(Clone, Debug)]
pub(super) struct RegistryTarget {
    pub(super) name: String,
    /// Generation of the spec.
    pub(super) generation: Option<i64>,
    pub(super) contract: Contract,
    pub(super) suspend: Suspend,
    /// Signs for the registry; `None` if it only watches, or must not use its signer.
    pub(super) signer: Option<TransactionSigner>,
    /// Other signers whose ledgers have entries.
    pub(super) former_signers: Vec<FormerSigner>,
    /// Name of the registry that holds the signer, if that is another one.
    pub(super) signer_held_by: Option<String>,
    pub(super) limits: Limits,
    pub(super) bootstrap: Option<Bootstrap>,
}

impl RegistryTarget {
    pub(super) fn record_defaults(&self, code_hash: B256) -> RecordDefaults {
        RecordDefaults {
            chain_id: self.contract.chain_id,
            registry: self.contract.address,
            code_hash,
            signer: self.signer.as_ref().map(TransactionSigner::address),
        }
    }

    /// Name of the signer's ledger; `None` if the registry has no signer.
    pub(super) fn ledger_name(&self) -> Option<String> {
        let signer = self.signer.as_ref()?;
        Some(SignerLedger::name_of(
            self.contract.chain_id,
            signer.address(),
        ))
    }

    /// Whether the cache shows that the signer's ledger is in quarantine.
    pub(super) fn is_stopped(&self, cache: &Cache) -> bool {
        let ledger = self.ledger_name().and_then(|name| cache.ledger(&name));
        ledger.is_some_and(|ledger| is_stopped(&ledger.spec))
    }

    /// Whether a record is one of this registry contract.
    pub(super) fn has(&self, record: &AgentRegistrationSpec) -> bool {
        Contract::of_record(record) == self.contract
    }
}

/// Reads what the spec refers to. Without a target, the checks say what the spec lacks.
pub(super) async fn read(
    context: &Context,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
) -> (Checks, Option<RegistryTarget>) {
    match resolve(context, registry, state).await {
        Ok((signers, target)) => {
            let checks = Checks {
                signers,
                ..Checks::default()
            };
            (checks, Some(target))
        }
        Err(TargetFailure::Blocked(blocked)) => (Checks::default().failed(blocked), None),
        Err(TargetFailure::Kubernetes(error)) => {
            let unmade = Check::Unmade {
                reason: "KubernetesRequestFailed",
                why: format!(
                    "the Secrets that the spec names could not be read: {}",
                    error.message()
                ),
            };
            (
                Checks {
                    signers: unmade,
                    ..Checks::default()
                },
                None,
            )
        }
    }
}

/// Why a spec cannot be resolved.
enum TargetFailure {
    Blocked(Blocked),
    Kubernetes(cluster::Error),
}

impl From<Blocked> for TargetFailure {
    fn from(blocked: Blocked) -> Self {
        Self::Blocked(blocked)
    }
}

async fn resolve(
    context: &Context,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
) -> Result<(Check, RegistryTarget), TargetFailure> {
    let spec = &registry.spec;
    check_addresses(spec)?;
    let contract = Contract::of(registry).ok_or(Blocked::Unverified(Unverified::NoContract {
        address: Address::ZERO,
        chain_id: spec.chain_id,
    }))?;
    let limits = Limits::read(&spec.limits).map_err(Blocked::from)?;
    if spec.quorum > 1 {
        return Err(Blocked::QuorumNotSupported {
            quorum: spec.quorum,
        }
        .into());
    }
    let mut urls = Vec::new();
    for endpoint in &spec.rpc {
        urls.push(url(context, endpoint, state).await?);
    }
    if urls.is_empty() {
        let missing = "spec.rpc names no endpoint: add one".to_owned();
        return Err(Blocked::EndpointUnknown(missing).into());
    }
    state
        .endpoints
        .configure(&urls, &context.metrics.chain)
        .map_err(|error| {
            Blocked::EndpointUnknown(format!("an endpoint cannot be used: {error}"))
        })?;
    let is_listed = |signer: &Address| {
        let mut listed = spec.signers.iter();
        listed.any(|listed| listed.address.parse() == Ok(*signer))
    };
    state.signers.retain(|signer, _| is_listed(signer));
    let (check, signer) = signer(context, registry, state).await?;
    let signer_held_by = match &check {
        Check::Failed(Blocked::SignerInUse { holder, .. }) => Some(holder.clone()),
        _ => None,
    };
    let target = RegistryTarget {
        name: registry.name_any(),
        generation: registry.metadata.generation,
        contract,
        suspend: spec.suspend,
        former_signers: former_signers(context, registry, state).await?,
        signer,
        signer_held_by,
        limits,
        bootstrap: spec.bootstrap.clone(),
    };
    Ok((check, target))
}

async fn url(
    context: &Context,
    endpoint: &EndpointSpec,
    state: &mut RegistryState,
) -> Result<String, TargetFailure> {
    match (&endpoint.url, &endpoint.url_from) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(from)) => {
            let key = &from.secret_key_ref;
            let found = secret(context, key, state).await?;
            let text = found.and_then(|found| String::from_utf8(found.bytes.to_vec()).ok());
            text.ok_or_else(|| {
                let missing = format!(
                    "Secret {} has no key {}: create it in the namespace of the operator, with the \
                     URL of the endpoint",
                    key.name, key.key
                );
                Blocked::EndpointUnknown(missing).into()
            })
        }
        (None, None) => {
            let missing = "an endpoint has neither url nor urlFrom: set one".to_owned();
            Err(Blocked::EndpointUnknown(missing).into())
        }
    }
}

/// The signer, and whether it may be used. A registry whose signer another one holds keeps watching
/// and adopting.
async fn signer(
    context: &Context,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
) -> Result<(Check, Option<TransactionSigner>), TargetFailure> {
    let Some(first) = registry.spec.signers.first() else {
        let check = Check::Passed {
            reason: "WatchOnly",
            message: "no signers: agents are adopted by id, and nothing is ever minted".to_owned(),
        };
        return Ok((check, None));
    };
    let address = first.address.parse().unwrap_or_default();
    let registries = context.cache.registries();
    let holder = signers::holder_of(registry.spec.chain_id, address, &registries);
    if let Some(holder) = holder.filter(|holder| holder.name_any() != registry.name_any()) {
        let in_use = Blocked::SignerInUse {
            address,
            holder: holder.name_any(),
        };
        return Ok((Check::Failed(in_use), None));
    }
    let signer = read_signer(context, first, state).await??;
    let check = Check::Passed {
        reason: "KeysMatch",
        message: "the key of the first signer matches its address".to_owned(),
    };
    Ok((check, Some(signer)))
}

/// The other signers that have something to finish, as far as the cache knows. A missing or wrong
/// key of one of them is a problem of what it has in flight.
async fn former_signers(
    context: &Context,
    registry: &IdentityRegistry,
    state: &mut RegistryState,
) -> Result<Vec<FormerSigner>, TargetFailure> {
    let chain_id = registry.spec.chain_id;
    let registries = context.cache.registries();
    let mut former = Vec::new();
    for listed in registry.spec.signers.iter().skip(1) {
        let address = listed.address.parse().unwrap_or_default();
        let holder = signers::holder_of(chain_id, address, &registries);
        if holder.is_none_or(|holder| holder.name_any() != registry.name_any()) {
            continue;
        }
        let name = SignerLedger::name_of(chain_id, address);
        let ledger = context.cache.ledger(&name);
        if ledger.is_none_or(|ledger| ledger.spec.entries.is_empty()) {
            continue;
        }
        let signer = read_signer(context, listed, state).await?;
        former.push(FormerSigner {
            address,
            signer: signer.map_err(|blocked| blocked.to_string()),
        });
    }
    Ok(former)
}

/// A signer that the spec lists, from what was read before if its Secrets did not change.
async fn read_signer(
    context: &Context,
    listed: &Signer,
    state: &mut RegistryState,
) -> Result<Result<TransactionSigner, Blocked>, TargetFailure> {
    let missing = |reference: &SecretKey| Blocked::SecretMissing {
        secret: reference.name.clone(),
        key: reference.key.clone(),
    };
    let Some(key) = secret(context, &listed.secret_ref, state).await? else {
        return Ok(Err(missing(&listed.secret_ref)));
    };
    let password = match &listed.password_secret_ref {
        None => None,
        Some(reference) => match secret(context, reference, state).await? {
            Some(password) => Some(password),
            None => return Ok(Err(missing(reference))),
        },
    };
    let address: Address = listed.address.parse().unwrap_or_default();
    let version = |found: &SecretBytes| found.version.clone();
    let versions = [version(&key), password.as_ref().and_then(version)];
    let known = state.signers.get(&address);
    let signer = match known.filter(|known| known.versions == versions) {
        Some(known) => known.signer.clone(),
        None => {
            let read = move || {
                let password = password.as_ref();
                let password = password.map(|password| password_of(&password.bytes));
                let key = read_key(&key.bytes, password)?;
                TransactionSigner::new(&key, address)
            };
            // Opening a keystore takes a second of computing.
            let signer = tokio::task::spawn_blocking(read).await;
            let signer = signer.unwrap_or(Err(KeyError::Malformed));
            let known = KnownSigner {
                versions,
                signer: signer.clone(),
            };
            state.signers.insert(address, known);
            signer
        }
    };
    let address = listed.address.clone();
    Ok(signer.map_err(|error| match error {
        KeyError::OtherAccount { .. } => Blocked::KeyMismatch { address, error },
        error => Blocked::KeyUnreadable {
            address,
            secret: listed.secret_ref.name.clone(),
            key: listed.secret_ref.key.clone(),
            error,
        },
    }))
}

/// Bytes under a key of a Secret, from what was read before if the Secret did not change.
async fn secret(
    context: &Context,
    key: &SecretKey,
    state: &mut RegistryState,
) -> Result<Option<SecretBytes>, TargetFailure> {
    let id = (key.name.clone(), key.key.clone());
    let known = state.secrets.get(&id);
    if let Some(known) = known.filter(|known| known.checked.elapsed() < SECRET_EVERY) {
        return Ok(known.found());
    }
    let version = known.and_then(|known| known.version.clone());
    let read = context.reader.secret(key, version.as_deref()).await;
    let (version, bytes) = match read.map_err(TargetFailure::Kubernetes)? {
        SecretRead::Unchanged => {
            let bytes = known.and_then(|known| known.bytes.clone());
            (version, bytes)
        }
        SecretRead::Read { version, bytes } => (version, bytes.map(Arc::new)),
    };
    let known = KnownSecret {
        version,
        bytes,
        checked: Instant::now(),
    };
    let found = known.found();
    state.secrets.insert(id, known);
    Ok(found)
}
