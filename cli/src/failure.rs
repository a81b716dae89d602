//! How a command fails: what, where, why, and the next command to try; for people and as one JSON object.

pub(crate) mod client;

use std::io;

use serde_json::{Value, json};
use zsha_crds::API_VERSION;
use zsha_crds::diagnostic::{Diagnostics, Look};
use zsha_runtime::store::StoreError;

use crate::exit::Exit;
use crate::output::escape::{json_text, plain};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// One CamelCase word for machines.
    pub reason: &'static str,
    pub message: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
    pub diagnostics: Option<Box<Diagnostics>>,
}

/// Consul's words for a token that it does not have.
fn is_unknown_token(said: &str) -> bool {
    said.contains("ACL not found")
}

impl Failure {
    pub fn new(exit: Exit, reason: &'static str, message: impl Into<String>) -> Self {
        Self { exit, reason, message: message.into(), causes: Vec::new(), hint: None, diagnostics: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "Usage", message)
    }

    pub fn invalid(what: &str, diagnostics: Diagnostics) -> Self {
        let count = diagnostics.errors().count();
        let noun = if count == 1 { "fault" } else { "faults" };
        let mut failure = Self::new(Exit::Invalid, "Invalid", format!("{what} is invalid: {count} {noun}"));
        failure.diagnostics = Some(Box::new(diagnostics));
        failure
    }

    /// The store failed while `doing`.
    pub fn store(doing: &str, error: &StoreError) -> Self {
        let message = match error {
            StoreError::Unavailable { .. } => format!("{doing}: Consul cannot be used"),
            StoreError::Unknown { .. } => format!("{doing}: Consul gave no answer to rely on"),
            StoreError::Denied { .. } => format!("{doing}: the token may not do this"),
            StoreError::Invalid { .. } => format!("{doing}: refused before it was sent"),
            StoreError::Malformed { .. } => format!("{doing}: Consul's answer makes no sense"),
        };
        let (exit, reason, hint) = match error {
            StoreError::Unavailable { reason, .. } if reason.contains("certificate") => (
                Exit::Unavailable,
                "StoreUnavailable",
                "name the authority that signed Consul's certificate: --ca-cert FILE (CONSUL_CACERT); and where the certificate \
                 bears another name than the host's in the address, that name: --tls-server-name NAME (CONSUL_TLS_SERVER_NAME), \
                 such as server.dc1.consul",
            ),
            StoreError::Unavailable { .. } | StoreError::Unknown { .. } => (
                Exit::Unavailable,
                "StoreUnavailable",
                "look at `consul operator raft list-peers`, or name other servers: --consul URL,URL",
            ),
            StoreError::Denied { reason, .. } if is_unknown_token(reason) => (
                Exit::General,
                "Denied",
                "give a token that Consul knows: --token-file FILE. If its servers were started a moment ago, ask again: one that \
                 has not read its log yet knows none",
            ),
            StoreError::Denied { .. } => (
                Exit::General,
                "Denied",
                "give a token that may read and write below 'zsha/': --token-file FILE",
            ),
            StoreError::Invalid { .. } => (Exit::General, "NotSent", "make the document smaller"),
            StoreError::Malformed { .. } => (
                Exit::General,
                "Malformed",
                "check that --consul names Consul's HTTP port (8500) and no other",
            ),
        };
        Self::new(exit, reason, message).cause(error.to_string()).hint(hint)
    }

    /// True if Consul does not know the token: it may never have been there, or not be there yet.
    pub fn is_of_an_unknown_token(&self) -> bool {
        self.reason == "Denied" && self.causes.iter().any(|cause| is_unknown_token(cause))
    }

    /// The text for people; it ends in a newline.
    pub fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        if let Some(diagnostics) = &self.diagnostics {
            let look = if colour { Look::Coloured } else { Look::Plain };
            text.push_str(&diagnostics.render(look));
            text.push('\n');
        }
        let label = if colour { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
        text.push_str(&format!("{label}: {}\n", plain(&self.message)));
        for cause in &self.causes {
            text.push_str(&format!("  caused by: {}\n", plain(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("hint: {}\n", plain(hint)));
        }
        text
    }

    /// One line of JSON, `kind: Status` as kubectl's.
    pub fn json(&self) -> String {
        let mut object = json!({
            "apiVersion": API_VERSION,
            "kind": "Status",
            "reason": self.reason,
            "message": self.message,
            "details": { "causes": self.causes },
            "exitCode": self.exit.code(),
        });
        if let Some(hint) = &self.hint {
            object["hint"] = json!(hint);
        }
        if let Some(diagnostics) = &self.diagnostics {
            object["diagnostics"] = serde_json::to_value(diagnostics.to_list()).unwrap_or(Value::Null);
        }
        format!("{}\n", json_text(&object.to_string()))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::General, "Output", format!("the output cannot be written: {error}"))
    }
}
