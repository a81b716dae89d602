//! Holds how Consul is reached: its endpoints, the token, and why a client could not be made of them. Never here: a
//! request.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Endpoint, Tls};

/// A try is cut short after this: longer than any healthy answer, short enough to ask another endpoint before
/// a lease runs out. Consul itself would let a forwarded request hang for half a minute.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// How to reach Consul.
#[derive(Debug, Clone)]
pub struct ConsulSettings {
    /// The endpoints, the local agent first.
    pub endpoints: Vec<Endpoint>,
    pub token: Option<Token>,
    pub tls: Tls,
    pub request_timeout: Duration,
}

impl ConsulSettings {
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, token: None, tls: Tls::default(), request_timeout: DEFAULT_REQUEST_TIMEOUT }
    }
}

/// An ACL token, and the file it was read from. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    pub(super) file: PathBuf,
}

impl Token {
    /// The token that a file holds, and nothing else.
    pub fn from_file(path: &Path) -> Result<Self, ConnectError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConnectError::TokenFile { path: path.to_owned(), source })?;
        match text.trim() {
            token if !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic()) => {
                Ok(Self { text: token.to_owned(), file: path.to_owned() })
            }
            _ => Err(ConnectError::NoToken { path: path.to_owned() }),
        }
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The reason why no client could be made. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no address of Consul was given")]
    NoEndpoint,
    #[error("cannot read the token file {}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the token file {} does not hold one token", path.display())]
    NoToken { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("cannot read this machine's certificate authorities")]
    NativeRoots(#[source] io::Error),
    #[error("the certificates cannot be used")]
    Tls(#[source] rustls::Error),
}
