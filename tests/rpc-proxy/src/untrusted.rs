//! A server over TLS whose certificate no client has a reason to trust.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Who vouches for the server.
#[derive(Clone, Copy, Debug)]
pub enum Untrusted {
    /// Itself: the certificate is its own authority, as `openssl req -x509` makes it.
    SelfSigned,
    /// An authority that no client knows.
    UnknownAuthority,
}

/// A server that runs until it is dropped. A client that trusts it is answered 204.
#[derive(Debug)]
pub struct UntrustedServer {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl UntrustedServer {
    /// Listens on a free port of all addresses, with a certificate for one of them.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(host: IpAddr, untrusted: Untrusted) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
            .await
            .context("the server failed to listen")?;
        let address = SocketAddr::new(host, listener.local_addr()?.port());
        let acceptor = TlsAcceptor::from(Arc::new(config(host, untrusted)?));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                });
            }
        });
        Ok(Self { address, server })
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for UntrustedServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn config(host: IpAddr, untrusted: Untrusted) -> Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(host)];
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = match untrusted {
        Untrusted::SelfSigned => {
            params.is_ca = authority.is_ca;
            params.self_signed(&key)?
        }
        Untrusted::UnknownAuthority => {
            params.signed_by(&key, &Issuer::new(authority, KeyPair::generate()?))?
        }
    };
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok(config)
}
