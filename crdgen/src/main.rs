//! Writes the CRDs that are derived from the Rust types into the chart, or checks that the chart
//! contains them.
//!
//! The output depends only on the types: keys are sorted and whole numbers are printed as integers,
//! so that a byte comparison finds real drift only. [`soundness`] checks each definition. Nothing
//! else in this project writes YAML.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;
use serviceoffer::api;

mod soundness;

/// Write the CRDs of group obol.org as YAML, one file per kind
#[derive(Parser)]
struct Args {
    /// Compare with the existing files, and fail if one differs
    #[arg(long)]
    check: bool,
    /// Directory of the CRD files
    #[arg(default_value = "charts/serviceoffer-controller/files/crds")]
    directory: PathBuf,
}

/// How to fix a file that differs.
const FIX: &str = "run `make crds` and commit the result";

fn main() -> Result<()> {
    let args = Args::parse();
    let files = render()?;
    if args.check {
        check(&args.directory, &files)
    } else {
        write(&args.directory, &files)
    }
}

/// Name and content of each CRD file.
fn render() -> Result<Vec<(String, String)>> {
    api::definitions()
        .into_iter()
        .map(|definition| {
            let name = definition
                .metadata
                .name
                .clone()
                .context("a CRD has no name")?;
            let mut value = serde_json::to_value(definition)?;
            normalize(&mut value);
            let faults = soundness::faults(&value);
            ensure!(faults.is_empty(), "{name}: {}", faults.join("; "));
            let yaml = serde_yaml::to_string(&value)?;
            Ok((
                format!("{name}.yaml"),
                format!("# Generated from src/api by `make crds`. Do not edit.\n{yaml}"),
            ))
        })
        .collect()
}

/// Sorts keys, and turns whole numbers into integers: the API server stores them so, and a diff
/// tool would report drift.
fn normalize(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|float| !number.is_i64() && !number.is_u64() && float.fract() == 0.0)
            {
                // Every bound of a schema is below 2^53, where this conversion is exact.
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(fields) => {
            fields.values_mut().for_each(normalize);
            fields.sort_keys();
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn write(directory: &Path, files: &[(String, String)]) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for stale in stale_files(directory, files)? {
        fs::remove_file(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
    }
    for (name, content) in files {
        let path = directory.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn check(directory: &Path, files: &[(String, String)]) -> Result<()> {
    for (name, content) in files {
        let path = directory.join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(content) {
            bail!("{} differs from the Rust types: {FIX}", path.display());
        }
    }
    match stale_files(directory, files)?.first() {
        Some(path) => bail!("{} does not belong to any kind: {FIX}", path.display()),
        None => Ok(()),
    }
}

/// Files in the directory that do not belong to any kind.
fn stale_files(directory: &Path, files: &[(String, String)]) -> Result<Vec<PathBuf>> {
    let present =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = present
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| !files.iter().any(|(name, _)| path.ends_with(name)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn render_writes_one_sound_crd_per_kind() {
        let names: Vec<String> = render()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let kinds = [
            "agentregistrations",
            "identityregistries",
            "paymentfacilitators",
            "serviceoffers",
            "signerledgers",
        ];
        assert_eq!(names, kinds.map(|kind| format!("{kind}.obol.org.yaml")));
    }
}
