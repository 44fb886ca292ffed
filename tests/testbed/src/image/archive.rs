//! Writes an image of plain files as a `docker-archive`, without an image tool.
//!
//! The bytes depend only on the files, not on times, owners or the order of a directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::digest;

/// Writes an image with one layer that contains `files`. Each file is (path on the host, path in
/// the image).
pub(crate) fn write(
    target: &Path,
    files: &[(&Path, &str)],
    entrypoint: &[&str],
    tag: &str,
) -> Result<()> {
    let layer = layer(files)?;
    let diff_id = format!("sha256:{}", digest::of_bytes(&layer));
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": entrypoint },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "testbed" }],
    }))?;
    let config_name = format!("{}.json", digest::of_bytes(&config));
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"] }]);
    let file = File::create(target).with_context(|| format!("creating {}", target.display()))?;
    let mut archive = Builder::new(file);
    append(&mut archive, &config_name, 0o644, &config)?;
    append(&mut archive, "layer.tar", 0o644, &layer)?;
    append(
        &mut archive,
        "manifest.json",
        0o644,
        &serde_json::to_vec(&manifest)?,
    )?;
    archive.into_inner()?.sync_all()?;
    Ok(())
}

fn layer(files: &[(&Path, &str)]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let inner = files.iter().flat_map(|(_, inside)| {
        Path::new(inside.trim_start_matches('/'))
            .ancestors()
            .skip(1)
    });
    let parents: BTreeSet<_> = inner
        .filter(|parent| !parent.as_os_str().is_empty())
        .collect();
    for parent in parents {
        let mut header = header(0o755, 0);
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, parent, std::io::empty())?;
    }
    for (outside, inside) in files {
        let mut content = Vec::new();
        let opened = File::open(outside).and_then(|mut file| file.read_to_end(&mut content));
        opened.with_context(|| format!("reading {}", outside.display()))?;
        let executable = fs::metadata(outside)?.permissions();
        let mode = if std::os::unix::fs::PermissionsExt::mode(&executable) & 0o111 == 0 {
            0o644
        } else {
            0o755
        };
        append(&mut archive, inside.trim_start_matches('/'), mode, &content)?;
    }
    Ok(archive.into_inner()?)
}

fn append(archive: &mut Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(mode, u64::try_from(content.len())?);
    archive
        .append_data(&mut header, path, content)
        .with_context(|| format!("packing {path}"))
}

fn header(mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
