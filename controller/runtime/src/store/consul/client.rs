//! The one HTTP client under everything that talks to Consul: pooled, keeping connections alive, with the user's
//! certificates. It reads certificate files once, and sends nothing.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rs_consul::HttpsClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::{ConnectError, ConsulSettings};

/// Certificates for https. Without `ca` the machine's own authorities are trusted.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    /// The client's own certificate and key, where Consul asks for one.
    pub identity: Option<Identity>,
    /// The name that Consul's certificate has to bear, where that is another than the host's in its address: one of
    /// Consul's own making bears `server.dc1.consul`.
    pub server_name: Option<TlsName>,
}

/// A name, or an address, that a certificate bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsName(ServerName<'static>);

impl FromStr for TlsName {
    type Err = InvalidTlsName;

    fn from_str(text: &str) -> Result<Self, InvalidTlsName> {
        ServerName::try_from(text.to_owned()).map(Self).map_err(|_| InvalidTlsName { given: text.to_owned() })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is no name that a certificate could bear; give one such as server.dc1.consul")]
pub struct InvalidTlsName {
    given: String,
}

/// A certificate with its private key, PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

pub(super) fn build(settings: &ConsulSettings) -> Result<HttpsClient, ConnectError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // A refused or silent connect is a request surely not sent: say so while the request may still be retried.
    http.set_connect_timeout(Some(settings.request_timeout / 2));
    // A blocking read is silent for its whole wait; this notices in under ten seconds that nobody is there.
    http.set_keepalive(Some(Duration::from_secs(5)));
    http.set_keepalive_interval(Some(Duration::from_secs(2)));
    http.set_keepalive_retries(Some(2));
    let https = HttpsConnectorBuilder::new().with_tls_config(tls_config(settings)?).https_or_http();
    let https = match &settings.tls.server_name {
        Some(TlsName(name)) => https.with_server_name_resolver(FixedServerNameResolver::new(name.clone())),
        None => https,
    };
    let https = https.enable_http1().wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(8)
        .build(https))
}

fn tls_config(settings: &ConsulSettings) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::Tls)?;
    let any_https = settings.endpoints.iter().any(super::Endpoint::is_https);
    let builder = match &settings.tls.ca {
        Some(ca) => builder.with_root_certificates(authorities(ca)?),
        None if any_https => builder.with_native_roots().map_err(ConnectError::NativeRoots)?,
        // A machine without any authority can still speak http.
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    match &settings.tls.identity {
        Some(identity) => {
            let certs = certificates(&identity.cert)?;
            let key =
                PrivateKeyDer::from_pem_file(&identity.key).map_err(|source| pem(&identity.key, source))?;
            builder.with_client_auth_cert(certs, key).map_err(ConnectError::Tls)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(ConnectError::Tls)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|source| pem(path, source))
}

fn pem(path: &Path, source: rustls::pki_types::pem::Error) -> ConnectError {
    ConnectError::Pem { path: path.to_owned(), source }
}
