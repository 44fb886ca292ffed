//! Container images for tests: built from a Dockerfile, or packed from files of the host.
//!
//! The result is a `docker-archive` file in the cache, which [`crate::Cluster::load`] loads into
//! the node. The image storage of the host stays untouched.

pub(crate) mod archive;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::name::Name;
use crate::subprocess;

/// A script that runs a program with the host's image storage hidden. Arguments: the work
/// directory, then the program. buildah caches blob locations in `/var/lib/containers`, and no
/// option changes that path. The work directory stays visible, even below `/var/lib`.
const HIDDEN_STORAGE: &str = r#"
    cd "$1"
    mkdir -p hidden
    mount -t tmpfs tmpfs hidden
    mkdir hidden/upper hidden/work
    mount -t overlay -o lowerdir=/var/lib,upperdir=hidden/upper,workdir=hidden/work overlay /var/lib
    mount --bind . "$1"
    cd /
    shift
    exec "$@"
"#;

/// Builds the Dockerfile in `context`. Each of `build_contexts` replaces the stage or image with
/// this name by a directory.
///
/// # Errors
/// If the build fails. The error contains the end of its output.
pub fn build(context: &Path, build_contexts: &[(&str, &Path)], tag: &str) -> Result<PathBuf> {
    let build = ImageBuild::of(tag)?;
    let real = |path: &Path| {
        path.canonicalize()
            .with_context(|| format!("there is no {}", path.display()))
    };
    let storage = [
        ("--root", "storage"),
        ("--runroot", "run"),
        ("--storage-driver", "vfs"),
    ]
    .map(|(option, value)| {
        let value = if option == "--storage-driver" {
            value.into()
        } else {
            build.work.join(value).into_os_string()
        };
        [OsString::from(option), value]
    });
    // In Debian, this file is part of a package that is not needed otherwise.
    let policy = build.work.join("policy.json");
    fs::write(
        &policy,
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )?;

    let mut bud = hidden_buildah(&build);
    bud.args(storage.iter().flatten())
        .args(["build", "--isolation", "chroot", "--tag", tag]);
    bud.arg("--signature-policy").arg(&policy);
    for (name, directory) in build_contexts {
        bud.arg("--build-context")
            .arg(format!("{name}={}", real(directory)?.display()));
    }
    subprocess::logged(bud.arg(real(context)?), &build.log())
        .with_context(|| format!("building {tag}"))?;

    let mut push = hidden_buildah(&build);
    push.args(storage.iter().flatten())
        .arg("push")
        .arg("--signature-policy")
        .arg(&policy)
        .arg(tag);
    push.arg(format!(
        "docker-archive:{}:{tag}",
        build.partial().display()
    ));
    subprocess::logged(&mut push, &build.log())
        .with_context(|| format!("writing {tag} to an archive"))?;
    build.finish()
}

/// Packs files into an image without a base image. Each file is (path on the host, absolute path in
/// the image).
///
/// # Errors
/// If a file cannot be read.
pub fn from_files(files: &[(&Path, &str)], entrypoint: &[&str], tag: &str) -> Result<PathBuf> {
    let build = ImageBuild::of(tag)?;
    archive::write(&build.partial(), files, entrypoint, tag)?;
    build.finish()
}

/// Packs programs of the host into an image, each as `/bin/<name>`, with their shared libraries.
///
/// # Errors
/// If a program or one of its libraries is missing.
pub fn from_programs(programs: &[&Path], entrypoint: &[&str], tag: &str) -> Result<PathBuf> {
    let mut files = BTreeSet::new();
    for program in programs {
        let name = program
            .file_name()
            .with_context(|| format!("{} has no file name", program.display()))?;
        files.insert((program.to_path_buf(), format!("/bin/{}", name.display())));
        files.extend(shared_libraries(program)?.into_iter().map(|library| {
            let inside = library.display().to_string();
            (library, inside)
        }));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(outside, inside)| (outside.as_path(), inside.as_str()))
        .collect();
    from_files(&files, entrypoint, tag)
}

/// The paths of the shared libraries of a program, including the loader.
///
/// # Errors
/// If a library is missing.
pub fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = subprocess::output(Command::new("ldd").arg(program))?;
    parse_libraries(&listed).with_context(|| format!("libraries of {}", program.display()))
}

fn parse_libraries(listed: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listed.lines() {
        ensure!(!line.contains("not found"), "{}", line.trim());
        let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        // A line without a path is the vDSO, or reports a static program.
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

fn hidden_buildah(build: &ImageBuild) -> Command {
    let mut command = subprocess::bound("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-ec",
        HIDDEN_STORAGE,
        "sh",
    ]);
    command
        .arg(&build.work)
        .arg("buildah")
        .env("TMPDIR", &build.work);
    command
}

/// An image that is being built, in a directory beside its final file.
struct ImageBuild {
    file: PathBuf,
    work: PathBuf,
}

impl ImageBuild {
    fn of(tag: &str) -> Result<Self> {
        let images = Cache::open()?
            .path("images")
            .join(Name::current()?.as_str());
        let plain = tag.replace(['/', ':', '@'], "_");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let work = images.join(format!(
            "{plain}.{}.{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
        Ok(Self {
            file: images.join(format!("{plain}.tar")),
            work,
        })
    }

    fn partial(&self) -> PathBuf {
        self.work.join("image.tar")
    }

    fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    fn finish(self) -> Result<PathBuf> {
        fs::rename(self.partial(), &self.file)
            .with_context(|| format!("writing {}", self.file.display()))?;
        Ok(self.file.clone())
    }
}

impl Drop for ImageBuild {
    fn drop(&mut self) {
        // A directory that stays behind does not conflict with other builds: its name is unique.
        let _ = fs::remove_dir_all(&self.work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_parsed_from_ldd_output() -> Result<()> {
        let listed = "\tlinux-vdso.so.1 (0x7f)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(
            parse_libraries(listed)?,
            [Path::new("/lib/x/libm.so.6"), Path::new("/lib64/ld.so.2")]
        );
        assert_eq!(
            parse_libraries("\tstatically linked\n")?,
            Vec::<PathBuf>::new()
        );
        assert!(parse_libraries("\tlibx.so => not found\n").is_err());
        Ok(())
    }
}
