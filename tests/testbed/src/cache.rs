//! The cache of downloads and builds, outside the checkout, so that a fresh clone starts in
//! seconds.
//!
//! Each tool has a directory, named by a key that is derived from all its inputs. The directory is
//! created atomically and contains a manifest of digests. The cache holds no state of a testbed:
//! deleting it only costs time. [`crate::tools`] lists the tools.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::digest;
use crate::progress::Progress;

const MANIFEST: &str = "manifest.sha256";

/// The cache of this user.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn open() -> Result<Self> {
        let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => {
                Path::new(&env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                    .join(".cache")
            }
        };
        Self::at(base.join("serviceoffer-testbed"))
    }

    fn at(root: PathBuf) -> Result<Self> {
        ensure!(
            root.is_absolute(),
            "the cache path {} is not absolute",
            root.display()
        );
        fs::create_dir_all(root.join("locks"))
            .with_context(|| format!("creating {}", root.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory for `key`, whether or not it exists.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Creates empty directories in which to make `key`. The caller holds its lock.
    fn scratch(&self, key: &str) -> Result<Scratch> {
        let root = self.root.join("partial").join(key);
        remove(&root)?;
        let scratch = Scratch {
            output: root.join("output"),
            work: root.join("work"),
            log: root.join("log"),
            root,
        };
        for directory in [&scratch.output, &scratch.work] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        Ok(scratch)
    }

    /// Waits until no other process makes `key`.
    fn lock(&self, key: &str) -> Result<File> {
        let path = self.root.join("locks").join(key);
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// Returns the directory of `key`. Verifies every digest, and calls `make` if the directory is
    /// missing or damaged.
    pub(crate) fn ensure(
        &self,
        key: &str,
        progress: &Progress,
        make: impl FnOnce(&Scratch) -> Result<()>,
    ) -> Result<PathBuf> {
        let _lock = self.lock(key)?;
        let directory = self.path(key);
        let mut step = progress.step(key);
        match verify(&directory) {
            Ok(()) => {
                step.skipped("cached");
                return Ok(directory);
            }
            Err(_) if !directory.exists() => step.update("not cached: downloading or building"),
            Err(damage) => step.update(&format!(
                "damaged in the cache ({damage:#}): downloading or building again"
            )),
        }
        let scratch = self.scratch(key)?;
        make(&scratch).with_context(|| format!("making {key}"))?;
        write_manifest(&scratch.output)?;
        remove(&directory)?;
        fs::rename(&scratch.output, &directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        remove(&scratch.root)?;
        step.done("cached now");
        Ok(directory)
    }
}

/// Where a tool is made. The next attempt removes the files of a failed one, so the log of a
/// failure stays readable until then.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    /// Becomes the tool's directory.
    pub(crate) output: PathBuf,
    /// For sources and downloads.
    pub(crate) work: PathBuf,
    /// The output of the slow step.
    pub(crate) log: PathBuf,
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes the digests in the format of `sha256sum --check`.
fn write_manifest(directory: &Path) -> Result<()> {
    let mut lines = String::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .ok()
            .context("a file name that is not UTF-8")?;
        ensure!(entry.file_type()?.is_file(), "{name} is not a file");
        writeln!(lines, "{}  {name}", digest::of_file(&entry.path())?)?;
    }
    ensure!(!lines.is_empty(), "no file was made");
    fs::write(directory.join(MANIFEST), lines)?;
    Ok(())
}

/// Verifies every file against the manifest, concurrently, because hashing takes most of the first
/// second of a warm start.
fn verify(directory: &Path) -> Result<()> {
    let manifest = fs::read_to_string(directory.join(MANIFEST)).context(MANIFEST)?;
    ensure!(!manifest.is_empty(), "{MANIFEST} is empty");
    let check = |line: &str| {
        let Some((expected, name)) = line.split_once("  ") else {
            bail!("{MANIFEST} is malformed")
        };
        let actual = digest::of_file(&directory.join(name)).with_context(|| name.to_owned())?;
        ensure!(actual == expected, "{name} has a different digest");
        Ok(())
    };
    thread::scope(|scope| {
        let checks: Vec<_> = manifest
            .lines()
            .map(|line| scope.spawn(move || check(line)))
            .collect();
        checks.into_iter().try_for_each(|check| {
            check
                .join()
                .unwrap_or_else(|_| bail!("a verification thread panicked"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Detail;

    fn cache(test: &str) -> Result<Cache> {
        let root = env::temp_dir().join(format!("testbed-cache-{test}-{}", std::process::id()));
        remove(&root)?;
        Cache::at(root)
    }

    fn make(content: &'static str) -> impl FnOnce(&Scratch) -> Result<()> {
        move |scratch| Ok(fs::write(scratch.output.join("tool"), content)?)
    }

    #[test]
    fn complete_tool_is_not_made_again() -> Result<()> {
        let cache = cache("whole")?;
        cache.ensure("tool-1", &Progress::new(Detail::Changes), make("first"))?;
        let again = cache.ensure("tool-1", &Progress::new(Detail::Changes), |_| {
            bail!("made again")
        })?;
        assert_eq!(fs::read_to_string(again.join("tool"))?, "first");
        remove(cache.root())
    }

    #[test]
    fn tool_with_a_damaged_or_missing_file_is_made_again() -> Result<()> {
        let cache = cache("damaged")?;
        let directory = cache.ensure("tool-1", &Progress::new(Detail::Changes), make("first"))?;
        fs::write(directory.join("tool"), "f1rst")?;
        cache.ensure("tool-1", &Progress::new(Detail::Changes), make("second"))?;
        assert_eq!(fs::read_to_string(directory.join("tool"))?, "second");
        fs::remove_file(directory.join("tool"))?;
        cache.ensure("tool-1", &Progress::new(Detail::Changes), make("third"))?;
        assert_eq!(fs::read_to_string(directory.join("tool"))?, "third");
        remove(cache.root())
    }

    #[test]
    fn failed_attempt_is_not_used_as_the_tool() -> Result<()> {
        let cache = cache("half")?;
        let failed = cache.ensure("tool-1", &Progress::new(Detail::Changes), |scratch| {
            fs::write(scratch.output.join("tool"), "half")?;
            bail!("no more")
        });
        assert!(failed.is_err() && !cache.path("tool-1").exists());
        let directory = cache.ensure("tool-1", &Progress::new(Detail::Changes), make("whole"))?;
        assert_eq!(fs::read_dir(&directory)?.count(), 2);
        remove(cache.root())
    }
}
