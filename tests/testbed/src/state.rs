//! The directory that holds everything a testbed writes, and its lock.
//!
//! The path is short because the path of a unix socket is limited to 107 characters. The directory
//! exists exactly while a testbed is up: `down` removes it last. Downloads and builds are not
//! state, see [`crate::cache`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::name::Name;

const PARENT: &str = "/var/lib/serviceoffer-testbed";
/// The parent of [`PARENT`]. It exists on every machine, [`PARENT`] only after the first start.
pub(crate) const EXISTING_PARENT: &str = "/var/lib";

/// The paths of one testbed.
#[derive(Clone, Debug)]
pub(crate) struct State {
    name: Name,
    root: PathBuf,
}

impl State {
    pub(crate) fn of(name: Name) -> Self {
        let root = Path::new(PARENT).join(name.as_str());
        Self { name, root }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.path("audit/audit.log")
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.path("containerd/c.sock")
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.path("log").join(format!("{process}.log"))
    }

    /// Where the node's mount namespace shows the cache. The cache's own path may be hidden there.
    pub(crate) fn cache_mount(&self) -> PathBuf {
        self.path("cache")
    }

    /// Creates the state directory, accessible to root only: it will contain keys.
    pub(crate) fn create(&self) -> Result<()> {
        DirBuilder::new().recursive(true).create(PARENT)?;
        let created = DirBuilder::new().mode(0o700).create(&self.root);
        created.with_context(|| format!("creating {}", self.root.display()))
    }

    /// Creates a directory below the state directory, with its parents.
    pub(crate) fn directory(&self, relative: &str) -> Result<PathBuf> {
        let path = self.path(relative);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file atomically.
    pub(crate) fn write(
        &self,
        relative: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
    ) -> Result<PathBuf> {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        let partial = path.with_extension("partial");
        fs::write(&partial, content).with_context(|| format!("writing {}", partial.display()))?;
        fs::rename(&partial, &path).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn write_json(
        &self,
        relative: impl AsRef<Path>,
        value: &impl Serialize,
    ) -> Result<PathBuf> {
        self.write(relative, serde_json::to_vec_pretty(value)?)
    }

    /// Reads a record that [`Self::write_json`] wrote. None if it does not exist, or another
    /// version wrote it.
    pub(crate) fn read_json<T: DeserializeOwned>(&self, relative: impl AsRef<Path>) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(relative)).ok()?).ok()
    }

    /// Waits until no other process is starting or stopping this testbed.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = Path::new(PARENT).join(format!("{}.lock", self.name));
        loop {
            fs::create_dir_all(PARENT).with_context(|| format!("creating {PARENT}"))?;
            let file = match OpenOptions::new().create(true).append(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.with_context(|| format!("opening {}", path.display()))?,
            };
            file.lock()
                .with_context(|| format!("locking {}", path.display()))?;
            // The previous holder may have removed the testbed and this file; then this lock
            // protects nothing.
            let held = file.metadata()?.ino();
            if fs::metadata(&path).is_ok_and(|current| current.ino() == held) {
                return Ok(Lock { _file: file, path });
            }
        }
    }

    /// Removes the directory, the lock file, and the common parent if this was the last testbed.
    pub(crate) fn remove(&self, lock: Lock) -> Result<()> {
        self.clear()?;
        fs::remove_file(&lock.path).with_context(|| format!("removing {}", lock.path.display()))?;
        // Fails if another testbed exists.
        let _ = fs::remove_dir(PARENT);
        Ok(())
    }

    /// Removes the directory.
    pub(crate) fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The lock that a process holds while it starts or stops a testbed.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
}
