//! The name of a testbed, unique on the machine.
//!
//! The default is derived from the checkout's path, so that two clones never share a cluster. A
//! name is part of cgroup paths and unix socket paths, hence the restricted alphabet and length.
//! [`crate::state`] holds the files of a name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Error, Result, ensure};

use crate::digest;

/// The environment variable that overrides the default name.
pub(crate) const VARIABLE: &str = "TESTBED_NAME";

const MAX_LENGTH: usize = 24;

/// A testbed's name: lower-case letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name in `TESTBED_NAME`, or else the name of this checkout.
    ///
    /// # Errors
    /// If the variable is not a valid name.
    pub fn current() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(name) => name.parse(),
            Err(_) => Ok(Self::of_checkout(&checkout())),
        }
    }

    fn of_checkout(path: &Path) -> Self {
        let digest = digest::of_bytes(path.as_os_str().as_encoded_bytes());
        Self(format!("soc-{}", &digest[..8]))
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !text.is_empty()
                && text.len() <= MAX_LENGTH
                && text.chars().all(plain)
                && !text.starts_with('-'),
            "`{text}` is not a valid testbed name: use 1 to {MAX_LENGTH} lower-case letters, digits and dashes"
        );
        Ok(Self(text.to_owned()))
    }
}

/// The root of the checkout that this library was built from.
fn checkout() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkouts_have_different_names() {
        let names = ["/src/one", "/src/two"].map(|path| Name::of_checkout(Path::new(path)));
        assert_ne!(names[0], names[1]);
        assert!(names[0].as_str().starts_with("soc-") && names[0].as_str().len() == 12);
    }

    #[test]
    fn name_that_would_break_a_path_is_rejected() {
        for bad in [
            "",
            "a/b",
            "..",
            "UPPER",
            "-flag",
            "a-name-that-is-far-too-long",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
