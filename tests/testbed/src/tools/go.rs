//! Programs built from Go modules: the Kubernetes components, etcd, CoreDNS, Traefik, and the peers
//! of the elector.
//!
//! The module files are part of this repository. `go.sum` pins every source, and Go's build cache
//! makes a rebuild fast.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use super::{Tool, prerequisite};
use crate::cache::Scratch;
use crate::subprocess;

const ADVICE: &str =
    "install Go 1.21 or later from https://go.dev/dl and put its bin directory into PATH";

/// A Go module and the programs that are built from it.
pub(super) struct Module {
    label: &'static str,
    files: &'static [(&'static str, &'static str)],
    linker_flags: &'static str,
    /// Each builds a program with the name of the last path element.
    packages: &'static [&'static str],
    /// Directories of YAML files that become one file beside the programs: module, directory in it,
    /// and name of the file.
    manifests: &'static [(&'static str, &'static str, &'static str)],
}

pub(super) const KUBERNETES: Module = Module {
    label: "kubernetes-1.34.4",
    files: &[
        ("go.mod", include_str!("../../node/kubernetes/go.mod")),
        ("go.sum", include_str!("../../node/kubernetes/go.sum")),
    ],
    // Without these flags the API server reports v0.0.0, which a chart's `kubeVersion` rejects.
    linker_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 \
                   -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kube-proxy",
    ],
    manifests: &[],
};

pub(super) const ETCD: Module = Module {
    label: "etcd-3.6.15",
    files: &[
        ("go.mod", include_str!("../../node/etcd/go.mod")),
        ("go.sum", include_str!("../../node/etcd/go.sum")),
        ("main.go", include_str!("../../node/etcd/main.go")),
    ],
    linker_flags: "-s -w",
    packages: &["serviceoffer.test/etcd"],
    manifests: &[],
};

pub(super) const COREDNS: Module = Module {
    label: "coredns-1.15.0",
    files: &[
        ("go.mod", include_str!("../../node/coredns/go.mod")),
        ("go.sum", include_str!("../../node/coredns/go.sum")),
        ("main.go", include_str!("../../node/coredns/main.go")),
    ],
    linker_flags: "-s -w",
    packages: &["serviceoffer.test/coredns"],
    manifests: &[],
};

/// File of the CRDs of the Gateway API, beside Traefik.
pub(super) const GATEWAY_API: &str = "gateway-api.yaml";

/// A proxy that reads Ingresses and HTTPRoutes. Only some flows need it, and its build takes minutes.
pub(super) const TRAEFIK: Module = Module {
    label: "traefik-3.6.12",
    files: &[
        ("go.mod", include_str!("../../node/traefik/go.mod")),
        ("go.sum", include_str!("../../node/traefik/go.sum")),
    ],
    linker_flags: "-s -w -X github.com/traefik/traefik/v3/pkg/version.Version=3.6.12",
    packages: &["github.com/traefik/traefik/v3/cmd/traefik"],
    // The CRDs of the version that Traefik reads.
    manifests: &[(
        "sigs.k8s.io/gateway-api",
        "config/crd/standard",
        GATEWAY_API,
    )],
};

/// The programs that the operator is compared with: leader election libraries, and a reconciler.
pub(super) const PEERS: Module = Module {
    label: "peers-0.34.4",
    files: &[
        ("go.mod", include_str!("../../../peers/go.mod")),
        ("go.sum", include_str!("../../../peers/go.sum")),
        ("main.go", include_str!("../../../peers/main.go")),
        ("elect.go", include_str!("../../../peers/elect.go")),
        ("manage.go", include_str!("../../../peers/manage.go")),
        ("offers.go", include_str!("../../../peers/offers.go")),
        ("reconcile.go", include_str!("../../../peers/reconcile.go")),
    ],
    linker_flags: "-s -w",
    packages: &["serviceoffer.test/peers"],
    manifests: &[],
};

impl Tool for Module {
    fn label(&self) -> String {
        self.label.to_owned()
    }

    fn inputs(&self) -> Result<String> {
        let files: String = self
            .files
            .iter()
            .map(|(name, content)| format!("{name}\n{content}"))
            .collect();
        let kept = self.manifests.iter();
        let kept: String = kept
            .map(|(module, directory, name)| format!("{module}/{directory} as {name}\n"))
            .collect();
        Ok(format!(
            "{}\n{}\n{}\n{files}{kept}",
            go_version()?,
            self.linker_flags,
            self.packages.join(" ")
        ))
    }

    fn make(&self, scratch: &Scratch) -> Result<()> {
        let go = prerequisite("go", ADVICE)?;
        for (name, content) in self.files {
            fs::write(scratch.work.join(name), content)?;
        }
        let mut build = subprocess::bound(&go);
        build.args([
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-ldflags",
            self.linker_flags,
        ]);
        build
            .arg("-o")
            .arg(scratch.output.join(""))
            .args(self.packages);
        build
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .current_dir(&scratch.work);
        subprocess::logged(&mut build, &scratch.log)?;
        for (module, directory, name) in self.manifests {
            let mut find = Command::new(&go);
            find.args(["list", "-m", "-f", "{{.Dir}}", module])
                .env("GOFLAGS", "-mod=readonly")
                .current_dir(&scratch.work);
            let module = subprocess::output(&mut find)?;
            let manifests = documents_in(&Path::new(module.trim()).join(directory))?;
            fs::write(scratch.output.join(name), manifests)?;
        }
        Ok(())
    }
}

/// The YAML files of a directory as the documents of one file.
fn documents_in(directory: &Path) -> Result<String> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let files = entries.map(|entry| Ok(entry?.path()));
    let mut files: Vec<PathBuf> = files.collect::<Result<_>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    let mut documents = String::new();
    for file in files {
        documents.push_str("---\n");
        documents.push_str(&fs::read_to_string(file)?);
    }
    Ok(documents)
}

/// The version of the toolchain. Cached, because the command is slow and the version does not
/// change while this process runs.
fn go_version() -> Result<String> {
    static VERSION: OnceLock<Result<String, String>> = OnceLock::new();
    let ask = || {
        let go = prerequisite("go", ADVICE)?;
        subprocess::output(Command::new(go).args(["env", "GOVERSION"]).current_dir("/"))
    };
    VERSION
        .get_or_init(|| ask().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}
