//! Names that must not be swapped for one another, each checked once, where it enters.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// [`is_name`] as a regular expression, for the JSON Schema.
const PATTERN: &str = "^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$";
const MUST: &str =
    "must be 1 to 63 characters of a-z, A-Z, 0-9, '-' and '.', beginning and ending with a letter or digit";
const HOST_MUST: &str = "must be a host name: 1 to 63 characters of a-z, A-Z, 0-9, '-' and '.', each part between dots beginning and ending with a letter or digit, and not only digits and dots";

/// The error for a string that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not a {what}: it {must}")]
pub struct InvalidName {
    what: &'static str,
    given: String,
    must: &'static str,
}

impl InvalidName {
    /// The rule for such a name, "must be ...", for callers that say themselves what was given and where.
    pub fn must(&self) -> &'static str {
        self.must
    }
}

fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

/// Labels of RFC 1123. Digits and dots alone would be read as an IPv4 address.
fn is_host_name(text: &str) -> bool {
    text.split('.').all(is_name) && is_name(text) && text.chars().any(|c| c != '.' && !c.is_ascii_digit())
}

/// The schema of a host's name: the characters and how many, then the labels.
fn host_name_schema() -> serde_json::Value {
    let labels = format!("^{}$", crate::document::LABELS);
    serde_json::json!([{ "pattern": labels, "patternErrorMessage": HOST_MUST }])
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $is:ident, $must:ident $(, $also:literal = $value:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("pattern" = PATTERN, "patternErrorMessage" = $must $(, $also = $value)?))]
        pub struct $name(String);

        impl $name {
            /// Checks and takes the name.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                if $is(&text) { Ok(Self(text)) } else { Err(InvalidName { what: $what, given: text, must: $must }) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name!(
    /// `metadata.name` of the document: the first part of every key.
    ClusterName,
    "cluster name",
    is_name,
    MUST
);
name!(
    /// A host of the cluster, by the host name the document gives it.
    NodeName,
    "node name",
    is_host_name,
    HOST_MUST,
    "allOf" = host_name_schema()
);
name!(
    /// A virtual machine. A cluster keeps one, see [`VmName::kept_by`].
    VmName,
    "VM name",
    is_name,
    MUST
);

impl VmName {
    /// The management-node VM, the one that the original's `config.json` describes, which gives it no name.
    pub fn management() -> Self {
        Self("mnvm".to_owned())
    }

    /// The name of the VM that this cluster keeps. A document describes one VM and does not name it, and the keeper has to
    /// know it without a document; so both ask here, and nowhere else is it said which one it is.
    pub fn kept_by(_: &ClusterName) -> Self {
        Self::management()
    }

    /// The libvirt domain's UUID: a function of cluster and VM name, so that every process on every node knows it
    /// without asking another, and a keeper can find the VM's QEMU with nothing registered.
    pub fn domain_uuid(&self, cluster: &ClusterName) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_DNS, format!("{self}.{cluster}.zsha.io").as_bytes())
    }
}

/// A VM of a cluster by the two names it has: its own, and the UUID of its libvirt domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmId {
    pub name: VmName,
    pub uuid: Uuid,
}

impl VmId {
    /// The VM that this cluster keeps.
    pub fn of(cluster: &ClusterName) -> Self {
        let name = VmName::kept_by(cluster);
        Self { uuid: name.domain_uuid(cluster), name }
    }
}
