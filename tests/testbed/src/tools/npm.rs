//! anvil, from the npm package that contains its binary. The lock file in this crate pins its
//! digest.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use super::{Tool, prerequisite};
use crate::cache::Scratch;
use crate::subprocess;

const ADVICE: &str = "install Node.js 20 or later with npm: the Debian packages nodejs and npm, or https://nodejs.org";
const PACKAGE: &str = include_str!("../../node/anvil/package.json");
const LOCK: &str = include_str!("../../node/anvil/package-lock.json");

/// The Foundry project's EVM node.
pub(super) struct Anvil;

pub(super) const ANVIL: Anvil = Anvil;

impl Tool for Anvil {
    fn label(&self) -> String {
        "anvil-1.7.1".to_owned()
    }

    fn inputs(&self) -> Result<String> {
        Ok(LOCK.to_owned())
    }

    fn make(&self, scratch: &Scratch) -> Result<()> {
        let npm = prerequisite("npm", ADVICE)?;
        fs::write(scratch.work.join("package.json"), PACKAGE)?;
        fs::write(scratch.work.join("package-lock.json"), LOCK)?;
        let mut install = subprocess::bound(npm);
        install
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&scratch.work);
        subprocess::logged(&mut install, &scratch.log)?;
        let program = scratch.output.join("anvil");
        fs::rename(
            scratch
                .work
                .join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"),
            &program,
        )?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}
