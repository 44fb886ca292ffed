//! Writes the CRDs that the Rust types derive into the chart, or checks that the chart holds them.
//!
//! Output depends on the types alone: keys are sorted and whole numbers are printed as such, so that a byte comparison
//! tells drift from noise. It is the one place that speaks YAML.

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
    /// Compare with the files that are there, and fail if one differs
    #[arg(long)]
    check: bool,
    /// Directory of the files
    #[arg(default_value = "charts/serviceoffer-controller/files/crds")]
    directory: PathBuf,
}

/// How to mend a file that differs.
const MEND: &str = "run `make crds` and commit the result";

fn main() -> Result<()> {
    let args = Args::parse();
    let files = render()?;
    match args.check {
        true => check(&args.directory, &files),
        false => write(&args.directory, &files),
    }
}

/// Name and content of every file.
fn render() -> Result<Vec<(String, String)>> {
    api::definitions()
        .into_iter()
        .map(|definition| {
            let name = definition
                .metadata
                .name
                .clone()
                .context("a definition has no name")?;
            let mut value = serde_json::to_value(definition)?;
            normalise(&mut value);
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

/// Whole numbers as integers (the API server stores them so, and a diff tool would see drift), keys in order.
fn normalise(value: &mut Value) {
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
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            fields.values_mut().for_each(normalise);
            fields.sort_keys();
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn write(directory: &Path, files: &[(String, String)]) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for stale in strangers(directory, files)? {
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
            bail!(
                "{} is not what the Rust types derive: {MEND}",
                path.display()
            );
        }
    }
    match strangers(directory, files)?.first() {
        Some(path) => bail!("{} belongs to no kind: {MEND}", path.display()),
        None => Ok(()),
    }
}

/// Files of the directory that no kind has.
fn strangers(directory: &Path, files: &[(String, String)]) -> Result<Vec<PathBuf>> {
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
    fn every_kind_is_defined_soundly() {
        let names: Vec<String> = render()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let kinds = [
            "agentregistrations",
            "identityregistries",
            "serviceoffers",
            "signerledgers",
        ];
        assert_eq!(names, kinds.map(|kind| format!("{kind}.obol.org.yaml")));
    }
}
