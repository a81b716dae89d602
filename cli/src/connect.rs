//! From the command line to a store. Nothing is sent here.

use std::sync::Arc;

use zsha_runtime::store::ConsulStore;
use zsha_runtime::store::consul::{ConnectError, ConsulSettings, Endpoint, Identity, Tls, Token};

use crate::args::{Cli, Command};
use crate::session::Reach;
use crate::{Exit, Failure};

/// None for a command that asks the store nothing.
pub(crate) fn reach(cli: &Cli, command: &Command) -> Result<Option<Reach>, Failure> {
    if !command.needs_store() {
        return Ok(None);
    }
    let global = &cli.global;
    let endpoints = global.consul.iter().filter(|url| !url.trim().is_empty());
    let endpoints: Result<Vec<Endpoint>, _> = endpoints.map(|url| url.parse::<Endpoint>()).collect();
    let endpoints = endpoints.map_err(|error| Failure::usage(error.to_string()))?;
    let mut settings = ConsulSettings::new(endpoints);
    settings.token = global.token_file.as_deref().map(Token::from_file).transpose().map_err(unconnected)?;
    let identity = match (&global.client_cert, &global.client_key) {
        (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Failure::usage("--client-cert and --client-key must be given together"));
        }
    };
    settings.tls = Tls { ca: global.ca_cert.clone(), identity };
    let store = ConsulStore::connect(settings).map_err(unconnected)?;
    Ok(Some(Reach { store: Arc::new(store), named: global.cluster.clone() }))
}

fn unconnected(error: ConnectError) -> Failure {
    let failure = Failure::new(Exit::Usage, "CannotConnect", error.to_string());
    match std::error::Error::source(&error) {
        Some(source) => failure.cause(source.to_string()),
        None => failure,
    }
}
