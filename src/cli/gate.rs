//! Flags of the gate, and those that operator and gate have in common.

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use super::ProcessArgs;

/// What the table of offers depends on besides objects. Operator and gate are given the same.
#[derive(Clone, Debug, Args)]
pub struct TableArgs {
    /// Public URL of the gate, for offers that have neither a hostname nor a registry. The gate answers
    /// below its path
    #[arg(
        long, env = "SERVICEOFFER_PUBLIC_URL", value_name = "URL", value_parser = public_url,
        help_heading = "Offers"
    )]
    pub public_url: Option<String>,
    /// Services without a selector, or of type ExternalName, that may be sold: namespace/name
    #[arg(
        long, env = "SERVICEOFFER_ALLOWED_EXTERNAL_UPSTREAMS", value_name = "SERVICE",
        value_delimiter = ',', value_parser = service_name, help_heading = "Offers"
    )]
    pub allowed_external_upstreams: Vec<(String, String)>,
    /// Namespaces whose Services are never sold
    #[arg(
        long,
        env = "SERVICEOFFER_DENIED_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = "kube-system",
        help_heading = "Offers"
    )]
    pub denied_namespaces: Vec<String>,
    /// Directory of the credentials for facilitators, a file each
    #[arg(
        long,
        env = "SERVICEOFFER_CREDENTIALS",
        value_name = "DIRECTORY",
        default_value = "/etc/serviceoffer/facilitators",
        help_heading = "Offers"
    )]
    pub credentials: PathBuf,
}

/// Flags of the gate. Each can also be set by an environment variable.
#[derive(Clone, Debug, Args)]
pub struct GateArgs {
    /// What operator and gate have in common.
    #[command(flatten)]
    pub table: TableArgs,
    /// Addresses and logs.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Networks of proxies whose X-Forwarded-* fields are believed, like 10.0.0.0/8
    #[arg(
        long, env = "SERVICEOFFER_TRUSTED_PROXIES", value_name = "CIDR",
        value_delimiter = ',', value_parser = network, help_heading = "Serving"
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Requests without a payment that one client address may send per second; 0 for any number.
    /// Behind a proxy that is not trusted, all clients have its address
    #[arg(
        long,
        env = "SERVICEOFFER_UNPAID_PER_SECOND",
        value_name = "NUMBER",
        default_value_t = 0,
        help_heading = "Serving"
    )]
    pub unpaid_per_second: u32,
    /// Service of the gate: its Pods share the limits of offers
    #[arg(
        long,
        env = "SERVICEOFFER_GATE_SERVICE",
        value_name = "NAME",
        help_heading = "Pod"
    )]
    pub service: Option<String>,
    /// Namespace of this Pod, whose Services are never sold
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", help_heading = "Pod")]
    pub pod_namespace: Option<String>,
}

fn public_url(text: &str) -> Result<String, String> {
    let help = || {
        format!(
            "{text:?} is not a base URL: use one like https://shop.example, without query or trailing slash"
        )
    };
    let uri: http::Uri = text.parse().map_err(|_| help())?;
    let is_base = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.query().is_none()
        && !text.ends_with('/');
    Some(text.to_owned()).filter(|_| is_base).ok_or_else(help)
}

fn service_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!(
            "{text:?} is not a Service: write namespace/name, like llm/ollama"
        )),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not a network: write it like 10.0.0.0/8, or an address like 10.1.2.3/32"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn gate(arguments: &[&str]) -> Result<GateArgs, String> {
        let cli = Cli::try_parse_from([&["serviceoffer-controller", "gate"], arguments].concat());
        match cli.map_err(|error| error.to_string())?.command {
            Some(Command::Gate(args)) => Ok(*args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn gate_needs_no_flags() {
        let args = gate(&[]).unwrap();
        assert_eq!(args.table.public_url, None);
        assert_eq!(args.process.http_bind.port(), 8080);
        assert_eq!(args.table.denied_namespaces, ["kube-system"]);
        assert!(args.trusted_proxies.is_empty());
        assert!(args.table.allowed_external_upstreams.is_empty());
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let args = gate(&[
            "--trusted-proxies=10.0.0.0/8,fd00::/8",
            "--allowed-external-upstreams=llm/ollama,llm/vllm",
        ])
        .unwrap();
        assert_eq!(args.trusted_proxies.len(), 2);
        let listed = args.table.allowed_external_upstreams;
        assert_eq!(listed[1], ("llm".to_owned(), "vllm".to_owned()));
    }

    #[test]
    fn wrong_values_are_refused_with_an_example() {
        for (flag, example) in [
            ("--public-url=shop.example", "https://shop.example"),
            ("--public-url=https://shop.example/", "trailing slash"),
            ("--public-url=https://shop.example?a", "query"),
            ("--allowed-external-upstreams=ollama", "llm/ollama"),
            ("--allowed-external-upstreams=/ollama", "llm/ollama"),
            ("--trusted-proxies=gateway", "10.0.0.0/8"),
        ] {
            let refused = gate(&[flag]).unwrap_err();
            assert!(refused.contains(example), "{refused}");
        }
    }
}
