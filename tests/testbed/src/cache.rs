//! Downloads and builds, kept outside the checkout so that a fresh clone starts in seconds.
//!
//! One directory per tool, named by a key that changes with everything it was made from; it appears whole or not at all,
//! and holds a manifest of digests. Nothing in it belongs to a testbed, and losing it costs time only. Which tools
//! there are is in [`crate::tools`].

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
            "the cache's path {} must be absolute",
            root.display()
        );
        fs::create_dir_all(root.join("locks"))
            .with_context(|| format!("creating {}", root.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that `key` names, whether it is there or not.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Empty directories for the maker of `key`, whose lock the caller holds.
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

    /// Waits until no other process works on `key`.
    fn lock(&self, key: &str) -> Result<File> {
        let path = self.root.join("locks").join(key);
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// Returns the directory of `key` with every digest checked, after `make` filled it if it was missing or damaged.
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
                step.unneeded("cached");
                return Ok(directory);
            }
            Err(_) if !directory.exists() => step.doing("not in the cache: making it"),
            Err(damage) => step.doing(&format!(
                "damaged in the cache ({damage:#}): making it again"
            )),
        }
        let scratch = self.scratch(key)?;
        make(&scratch).with_context(|| format!("making {key}"))?;
        write_manifest(&scratch.output)?;
        remove(&directory)?;
        fs::rename(&scratch.output, &directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        remove(&scratch.root)?;
        step.done("made");
        Ok(directory)
    }
}

/// Where a tool is made. What a failed attempt left is removed by the next one, so its log can be read until then.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    /// Becomes the tool's directory.
    pub(crate) output: PathBuf,
    /// For sources and downloads.
    pub(crate) work: PathBuf,
    /// For what the slow step prints.
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

/// Writes the digests in the format of `sha256sum`, which can check them too.
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
    ensure!(!lines.is_empty(), "nothing was made");
    fs::write(directory.join(MANIFEST), lines)?;
    Ok(())
}

/// Checks every file against the manifest, all at once because digests take most of a warm start's first second.
fn verify(directory: &Path) -> Result<()> {
    let manifest = fs::read_to_string(directory.join(MANIFEST)).context(MANIFEST)?;
    ensure!(!manifest.is_empty(), "{MANIFEST} is empty");
    let check = |line: &str| {
        let Some((expected, name)) = line.split_once("  ") else {
            bail!("{MANIFEST} is not a manifest")
        };
        let actual = digest::of_file(&directory.join(name)).with_context(|| name.to_owned())?;
        ensure!(actual == expected, "{name} has another digest");
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
                .unwrap_or_else(|_| bail!("{MANIFEST} is unusable"))
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
    fn what_is_whole_is_not_made_again() -> Result<()> {
        let cache = cache("whole")?;
        cache.ensure("tool-1", &Progress::new(Detail::Changes), make("first"))?;
        let again = cache.ensure("tool-1", &Progress::new(Detail::Changes), |_| {
            bail!("made again")
        })?;
        assert_eq!(fs::read_to_string(again.join("tool"))?, "first");
        remove(cache.root())
    }

    #[test]
    fn a_damaged_or_missing_file_is_made_again() -> Result<()> {
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
    fn what_failed_half_way_is_not_taken_for_the_tool() -> Result<()> {
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
