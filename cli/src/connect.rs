//! Finds the store that the command line and the environment mean. Nothing is sent here: the first request is the
//! command's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zsha_runtime::store::ConsulStore;
use zsha_runtime::store::consul::{self, ConnectError, ConsulSettings, Endpoint, Identity, Tls, Token};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::install::layout::OPERATOR_TOKEN;
use crate::session::Reach;

/// The store that the flags and the environment name.
pub(crate) fn reach(global: &Global) -> Result<Reach, Failure> {
    if global.token_file.is_none() && variable("CONSUL_HTTP_TOKEN").is_some() {
        return Err(token_in_the_environment());
    }
    if let Some(one) = consul::not_obeyed(variable).first() {
        let message = format!("{} is set, {}", one.variable, one.why);
        return Err(Failure::new(Exit::Usage, "CannotConnect", message).hint(one.hint));
    }
    let mut settings = ConsulSettings::new(endpoints(&global.consul)?);
    let token_file = global.token_file.clone().or_else(|| installed_token(Path::new(OPERATOR_TOKEN)));
    settings.token = token_file.as_deref().map(Token::from_file).transpose().map_err(unconnected)?;
    let identity = match (&global.client_cert, &global.client_key) {
        (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Failure::usage("--client-cert and --client-key must be given together"));
        }
    };
    settings.tls = Tls { ca: global.ca_cert.clone(), identity, server_name: global.tls_server_name.clone() };
    let consul = Arc::new(ConsulStore::connect(settings).map_err(unconnected)?);
    Ok(Reach { store: Arc::clone(&consul) as _, consul: Some(consul), named: global.cluster.clone() })
}

/// The token file that `zsha install` has put on this node for operators; none for a user who may not read it.
fn installed_token(file: &Path) -> Option<PathBuf> {
    std::fs::File::open(file).is_ok().then(|| file.to_owned())
}

/// Reads the addresses as Consul's own commands do: a scheme may be left out, and CONSUL_HTTP_SSL then says which is
/// meant.
fn endpoints(given: &[String]) -> Result<Vec<Endpoint>, Failure> {
    let encrypted = variable("CONSUL_HTTP_SSL").is_some_and(|value| value == "true" || value == "1");
    let endpoint = |url: &str| {
        let whole = if encrypted && !url.contains("://") { format!("https://{url}") } else { url.to_owned() };
        whole.parse::<Endpoint>().map_err(|error| Failure::usage(error.to_string()))
    };
    given.iter().map(|url| url.trim()).filter(|url| !url.is_empty()).map(endpoint).collect()
}

/// A variable of the environment; an empty one is an unset one.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The refusal of a token in the environment. The controller refuses it, too: a token that is silently ignored looks
/// like a token without rights.
fn token_in_the_environment() -> Failure {
    let message = "CONSUL_HTTP_TOKEN is set, and a token is not taken from the environment, where every process of the \
                   user can read it";
    Failure::new(Exit::Usage, "CannotConnect", message).hint(
        "write it to a file that only you may read and name it: --token-file FILE, or CONSUL_HTTP_TOKEN_FILE",
    )
}

fn unconnected(error: ConnectError) -> Failure {
    let failure = Failure::new(Exit::Usage, "CannotConnect", error.to_string());
    match std::error::Error::source(&error) {
        Some(source) => failure.cause(source.to_string()),
        None => failure,
    }
}
