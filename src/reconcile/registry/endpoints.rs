//! The endpoints of one registry: which of them a pass uses, and what was verified at each.
//!
//! An endpoint is chosen once per pass, so that everything that enters one decision comes from one
//! endpoint, at block numbers which that endpoint knows. Health is judged in
//! [`crate::chain::health`], from the outcomes of all requests. This file only asks what health and
//! verification need; it decides nothing about ledgers.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256};

use super::blocked::{Blocked, OLDEST_VERSION, Unverified};
use super::outcome::{Check, Checks};
use crate::chain::{ChainIdentity, RpcEndpoint, RpcError, UrlError};
use crate::metrics::ChainMetrics;
use crate::registration::contract::Contract;

/// How old a verification of chain and contract may be.
const VERIFY_EVERY: Duration = Duration::from_secs(600);
/// How often the head of an endpoint that is not used is read: to compare it with the one in use,
/// and to notice that it is healthy again.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// The same for an endpoint that is unhealthy.
const PROBE_UNHEALTHY_EVERY: Duration = Duration::from_secs(5);

/// All endpoints of a registry, in the order of its spec.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    connections: Vec<KnownEndpoint>,
}

/// One endpoint, with one HTTP client for as long as the spec names it.
#[derive(Debug)]
struct KnownEndpoint {
    url: String,
    endpoint: RpcEndpoint,
    verified: Option<(Contract, VerifiedContract, Instant)>,
    probed: Option<Instant>,
    /// Number of the latest block that it showed; 0 if it was never asked.
    head: u64,
}

/// What an endpoint said of the chain and the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VerifiedContract {
    pub(super) genesis_hash: B256,
    /// Keccak-256 of the code at the contract's address.
    pub(super) code_hash: B256,
    /// Implementation of an ERC-1967 proxy.
    pub(super) implementation: Option<Address>,
    pub(super) version: String,
    /// Contract that knows what a rollup charges besides gas.
    pub(super) fee_oracle: Option<Address>,
}

impl Endpoints {
    /// Takes over the endpoints of a spec. An endpoint that was there before keeps its connection
    /// and its health.
    pub(super) fn configure(
        &mut self,
        urls: &[String],
        metrics: &ChainMetrics,
    ) -> Result<(), UrlError> {
        if self.connections.iter().map(|known| &known.url).eq(urls) {
            return Ok(());
        }
        let mut known = std::mem::take(&mut self.connections);
        for url in urls {
            let connection = match known.iter().position(|known| known.url == *url) {
                Some(at) => known.swap_remove(at),
                None => KnownEndpoint {
                    url: url.clone(),
                    endpoint: RpcEndpoint::new(url, metrics.clone())?,
                    verified: None,
                    probed: None,
                    head: 0,
                },
            };
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Chooses the endpoint for a pass: the first healthy one; if none is, the first. Endpoints that
    /// are not in use are probed when that is due.
    pub(super) async fn choose(&mut self, contract: Contract) -> Option<RpcEndpoint> {
        self.probe(contract).await;
        let first = |usable: fn(&KnownEndpoint) -> bool| {
            self.connections
                .iter()
                .find(|connection| usable(connection))
        };
        let chosen = first(|connection| connection.endpoint.health().is_healthy())
            .or_else(|| self.connections.first());
        chosen.map(|connection| connection.endpoint.for_pass())
    }

    /// Reads the heads of endpoints that are not in use or not healthy, when that is due. A lone
    /// endpoint is judged by the requests of the passes alone.
    async fn probe(&mut self, contract: Contract) {
        if self.connections.len() < 2 {
            return;
        }
        for connection in &mut self.connections {
            let healthy = connection.endpoint.health().is_healthy();
            let every = if healthy {
                PROBE_EVERY
            } else {
                PROBE_UNHEALTHY_EVERY
            };
            let due = connection
                .probed
                .is_none_or(|probed| probed.elapsed() >= every);
            if !due {
                continue;
            }
            connection.probed = Some(Instant::now());
            if !healthy && let Ok(identity) = connection.endpoint.identity(contract.address).await {
                connection
                    .endpoint
                    .check_chain(contract.chain_id, identity.chain_id);
            }
            if let Ok(head) = connection.endpoint.head().await {
                connection.head = head.latest.number;
            }
        }
        self.compare_heads();
    }

    /// Notes the latest block of an endpoint, and compares it with that of the others.
    pub(super) fn head_read(&mut self, endpoint: &RpcEndpoint, latest: u64) {
        let name = endpoint.to_string();
        let own = |known: &&mut KnownEndpoint| known.endpoint.to_string() == name;
        if let Some(connection) = self.connections.iter_mut().find(own) {
            connection.head = latest;
            connection.probed = Some(Instant::now());
        }
        self.compare_heads();
    }

    fn compare_heads(&self) {
        let best = self.connections.iter().map(|known| known.head).max();
        // An endpoint that was never asked has no head to compare.
        for connection in self.connections.iter().filter(|known| known.head > 0) {
            connection
                .endpoint
                .check_head(connection.head, best.unwrap_or_default());
        }
    }

    /// Why endpoints ahead of the chosen one are not used, for the condition.
    pub(super) fn passed_over(&self, chosen: &RpcEndpoint) -> Option<String> {
        let reasons: Vec<String> = self
            .connections
            .iter()
            .map(|connection| &connection.endpoint)
            .take_while(|endpoint| endpoint.to_string() != chosen.to_string())
            .filter_map(|endpoint| {
                let cause = endpoint.health().cause()?;
                Some(format!("{endpoint} is not used: {cause}"))
            })
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// A contract as any endpoint showed it last, however long ago.
    pub(super) fn last_verified(&self, contract: Contract) -> Option<VerifiedContract> {
        let verified = |connection: &KnownEndpoint| {
            let (of, verified, _) = connection.verified.clone()?;
            (of == contract).then_some(verified)
        };
        self.connections.iter().find_map(verified)
    }

    /// Chain and contract as the endpoint shows them, verified at most [`VERIFY_EVERY`] ago, and
    /// the checks that follow.
    pub(super) async fn verify(
        &mut self,
        endpoint: &RpcEndpoint,
        contract: Contract,
        refresh: bool,
        checks: Checks,
    ) -> (Checks, Option<VerifiedContract>) {
        let name = endpoint.to_string();
        let at = self
            .connections
            .iter()
            .position(|known| known.endpoint.to_string() == name);
        let known = at.and_then(|at| self.connections[at].verified.clone());
        if let Some((of, verified, when)) = known.filter(|(of, ..)| *of == contract)
            && of == contract
            && !refresh
            && when.elapsed() < VERIFY_EVERY
        {
            return (checks, Some(verified));
        }
        let judged = match endpoint.identity(contract.address).await {
            Ok(identity) => {
                endpoint.check_chain(contract.chain_id, identity.chain_id);
                judge(contract, identity)
            }
            Err(error) => return (unverified(checks, endpoint, error), None),
        };
        match judged {
            Ok(verified) => {
                if let Some(at) = at {
                    self.connections[at].verified =
                        Some((contract, verified.clone(), Instant::now()));
                }
                let checks = Checks {
                    contract: Check::Passed {
                        reason: "Verified",
                        message: verified.to_string(),
                    },
                    ..checks
                };
                (checks, Some(verified))
            }
            Err(unverified) => (checks.failed(unverified.into()), None),
        }
    }
}

impl std::fmt::Display for VerifiedContract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "contract version {}", self.version)?;
        match self.implementation {
            Some(implementation) => write!(f, ", implementation {implementation}"),
            None => Ok(()),
        }
    }
}

/// Judges what an endpoint says of the chain and the contract.
fn judge(contract: Contract, identity: ChainIdentity) -> Result<VerifiedContract, Unverified> {
    let Contract { chain_id, address } = contract;
    let ChainIdentity {
        chain_id: actual,
        genesis,
        code_hash,
        implementation,
        version,
        fee_oracle,
    } = identity;
    if actual != chain_id {
        return Err(Unverified::WrongChain {
            expected: chain_id,
            actual,
        });
    }
    let genesis_hash = genesis.ok_or(Unverified::NoGenesis)?;
    let code_hash = code_hash.ok_or(Unverified::NoContract { address, chain_id })?;
    let version = version.ok_or(Unverified::NotARegistry { address })?;
    if !is_supported(&version) {
        return Err(Unverified::VersionNotSupported { address, version });
    }
    Ok(VerifiedContract {
        genesis_hash,
        code_hash,
        implementation,
        version,
        fee_oracle,
    })
}

/// Whether a contract of this version has the interface that is used. A later one is taken to have
/// it: the contract can be upgraded in place, and agents must not wait for a new operator.
fn is_supported(version: &str) -> bool {
    let major = version.split('.').next().map(str::parse::<u64>);
    major.is_some_and(|major| major.is_ok_and(|major| major >= OLDEST_VERSION))
}

/// The checks after a request failed. A single failure of a healthy endpoint proves nothing: the
/// next pass asks again.
pub(super) fn failed(checks: Checks, endpoint: &RpcEndpoint, error: RpcError) -> Checks {
    if endpoint.health().is_healthy() && error.is_endpoint_fault() {
        return checks;
    }
    checks.failed(Blocked::Rpc {
        endpoint: endpoint.to_string(),
        error,
    })
}

/// The checks after all requests of a pass: an endpoint that answered its first ones may have stopped
/// since.
pub(super) fn after(checks: Checks, endpoint: &RpcEndpoint) -> Checks {
    match endpoint.stopped_answering() {
        Some(error) => checks.failed(Blocked::Rpc {
            endpoint: endpoint.to_string(),
            error,
        }),
        None => checks,
    }
}

/// The same, if the request was to verify the contract: that check was due and could not be made.
fn unverified(checks: Checks, endpoint: &RpcEndpoint, error: RpcError) -> Checks {
    let unmade = Check::Unmade {
        reason: error.reason(),
        why: format!("not known while {endpoint} does not answer"),
    };
    let mut checks = failed(checks, endpoint, error);
    if matches!(checks.rpc, Check::Failed(_)) {
        checks.contract = unmade;
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: Contract = Contract {
        chain_id: 7,
        address: Address::ZERO,
    };

    fn identity() -> ChainIdentity {
        ChainIdentity {
            chain_id: 7,
            genesis: Some(B256::ZERO),
            code_hash: Some(B256::ZERO),
            implementation: None,
            version: Some("2.0.0".into()),
            fee_oracle: None,
        }
    }

    #[test]
    fn contract_is_verified_from_version_2_on() {
        for (version, is_verified) in [
            ("2.0.0", true),
            ("2", true),
            ("10.1.0", true),
            ("1.0.0", false),
            ("0.9", false),
            ("", false),
            ("two", false),
        ] {
            let judged = judge(
                CONTRACT,
                ChainIdentity {
                    version: Some(version.into()),
                    ..identity()
                },
            );
            let refused = Unverified::VersionNotSupported {
                address: CONTRACT.address,
                version: version.into(),
            };
            assert_eq!(judged.is_ok(), is_verified, "{version}");
            assert!(is_verified || judged == Err(refused), "{version}");
        }
    }

    #[test]
    fn chain_or_contract_that_is_another_one_is_named() {
        let address = CONTRACT.address;
        let wrong_chain = ChainIdentity {
            chain_id: 8,
            ..identity()
        };
        let no_code = ChainIdentity {
            code_hash: None,
            ..identity()
        };
        let no_version = ChainIdentity {
            version: None,
            ..identity()
        };
        for (identity, problem) in [
            (
                wrong_chain,
                Unverified::WrongChain {
                    expected: 7,
                    actual: 8,
                },
            ),
            (
                no_code,
                Unverified::NoContract {
                    address,
                    chain_id: 7,
                },
            ),
            (no_version, Unverified::NotARegistry { address }),
        ] {
            assert_eq!(judge(CONTRACT, identity), Err(problem));
        }
    }
}
