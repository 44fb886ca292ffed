//! The certificates of one testbed and the kubeconfigs made from them.
//!
//! They are made anew at every start and are gone after `down`, so nothing renews or revokes them.
//! Who may do what follows from the subjects alone: Kubernetes' built-in roles know these users and
//! groups.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::settings::{API_SERVER, API_SERVICE_IP, DOMAIN, NODE_IP, NODE_NAME};
use crate::state::State;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Clients of the API server: file name, user, group.
const CLIENTS: [(&str, &str, Option<&str>); 6] = [
    ("admin", "admin", Some("system:masters")),
    (
        "kube-controller-manager",
        "system:kube-controller-manager",
        None,
    ),
    ("kube-scheduler", "system:kube-scheduler", None),
    ("kubelet", "system:node:node", Some("system:nodes")),
    ("kube-proxy", "system:kube-proxy", None),
    ("coredns", "coredns", Some("system:masters")),
];

/// Writes every key, certificate and kubeconfig.
pub(crate) fn write(state: &State) -> Result<()> {
    let authority = Authority::create(state)?;
    let cluster = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ];
    let qualified = format!("kubernetes.default.svc.{DOMAIN}");
    let names: Vec<_> = cluster.into_iter().chain([qualified.as_str()]).collect();
    let addresses = [LOCALHOST, NODE_IP, IpAddr::V4(API_SERVICE_IP)];
    authority.server(state, "kube-apiserver", &names, &addresses)?;
    authority.server(state, "kubelet-server", &[NODE_NAME], &[NODE_IP])?;
    authority.server(state, "loopback", &["localhost"], &[LOCALHOST])?;
    authority.client(
        state,
        "apiserver-to-kubelet",
        "kube-apiserver",
        Some("system:masters"),
    )?;

    for (file, user, group) in CLIENTS {
        let (certificate, key) = authority.client(state, file, user, group)?;
        state.write(
            format!("pki/{file}.kubeconfig"),
            authority.kubeconfig(user, &certificate, &key),
        )?;
    }
    std::fs::copy(state.path("pki/admin.kubeconfig"), state.kubeconfig())?;

    let tokens = KeyPair::generate()?;
    state.write("pki/service-accounts.key", tokens.serialize_pem())?;
    state.write("pki/service-accounts.pub", tokens.public_key_pem())?;
    Ok(())
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn create(state: &State) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("testbed", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        state.write("pki/ca.crt", &certificate)?;
        // The controller-manager signs CertificateSigningRequests with it.
        state.write("pki/ca.key", key.serialize_pem())?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    fn server(
        &self,
        state: &State,
        file: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<()> {
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = subject(file, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(state, file, params).map(drop)
    }

    fn client(
        &self,
        state: &State,
        file: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<(String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(state, file, params)
    }

    fn sign(
        &self,
        state: &State,
        file: &str,
        mut params: CertificateParams,
    ) -> Result<(String, String)> {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        state.write(format!("pki/{file}.crt"), &certificate)?;
        state.write(format!("pki/{file}.key"), key.serialize_pem())?;
        Ok((certificate, key.serialize_pem()))
    }

    fn kubeconfig(&self, user: &str, certificate: &str, key: &str) -> String {
        let encode = |pem: &str| BASE64.encode(pem.as_bytes());
        // JSON is YAML, and every reader of kubeconfigs takes it.
        format!(
            "{:#}\n",
            json!({
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "testbed",
                "clusters": [{
                    "name": "testbed",
                    "cluster": { "server": API_SERVER, "certificate-authority-data": encode(&self.certificate) },
                }],
                "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": user } }],
                "users": [{
                    "name": user,
                    "user": { "client-certificate-data": encode(certificate), "client-key-data": encode(key) },
                }],
            })
        )
    }
}

fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}
