//! The pause image of a pod's sandbox: a small static program, compiled here because the node uses
//! no image registry.

use std::fs;

use anyhow::Result;

use super::{Tool, prerequisite};
use crate::cache::Scratch;
use crate::image::archive;
use crate::settings::PAUSE_IMAGE;
use crate::subprocess;

const SOURCE: &str = include_str!("../../node/pause/pause.c");

/// The name of the archive in the tool's directory.
pub(super) const ARCHIVE: &str = "pause.tar";

pub(super) struct Pause;

pub(super) const PAUSE: Pause = Pause;

impl Tool for Pause {
    fn label(&self) -> String {
        "pause-1".to_owned()
    }

    fn inputs(&self) -> Result<String> {
        Ok(format!("{PAUSE_IMAGE}\n{SOURCE}"))
    }

    fn make(&self, scratch: &Scratch) -> Result<()> {
        let compiler = prerequisite(
            "gcc",
            "run `make deps`, or install the Debian packages gcc and libc6-dev",
        )?;
        let (source, program) = (scratch.work.join("pause.c"), scratch.work.join("pause"));
        fs::write(&source, SOURCE)?;
        let mut compile = subprocess::bound(compiler);
        compile
            .args(["-static", "-Os", "-s", "-o"])
            .arg(&program)
            .arg(&source);
        subprocess::logged(&mut compile, &scratch.log)?;
        archive::write(
            &scratch.output.join(ARCHIVE),
            &[(program.as_path(), "/pause")],
            &["/pause"],
            PAUSE_IMAGE,
        )
    }
}
