//! Values that are written as text in the document: one pattern each, used by the JSON Schema and by the decoder,
//! so that the two cannot come to differ. The spelling a person chose is kept and given back.
//!
//! Never here: rules that need a second value to be judged; those are in `validate`.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::json;

/// A value with a textual form that one regular expression describes completely.
pub trait TextForm: FromStr + fmt::Display {
    /// The name of the form in the schema.
    const NAME: &'static str;
    /// The sentence for people: "must be ...".
    const MUST: &'static str;
    /// Texts that are of the form, for editors.
    const EXAMPLES: &'static [&'static str];
    /// The regular expression, anchored at both ends.
    fn pattern() -> Cow<'static, str>;
    /// A second expression that must match too, where one alone cannot say it all. It counts no characters; the first
    /// does.
    fn second_pattern() -> Option<Cow<'static, str>> {
        None
    }
}

/// The schema of a text: the pattern, and the words an editor shows where it does not match.
pub(super) fn text_schema<T: TextForm>() -> Schema {
    let mut schema = json_schema!({
        "type": "string",
        "pattern": T::pattern(),
        "patternErrorMessage": T::MUST,
        "examples": T::EXAMPLES,
    });
    if let Some(second) = T::second_pattern() {
        schema.insert("allOf".to_owned(), json!([{ "pattern": second, "patternErrorMessage": T::MUST }]));
    }
    schema
}

/// A `T` with the spelling it was written in. Equal when the values are; serialised as it was written.
#[derive(Clone)]
pub struct Written<T> {
    value: T,
    text: String,
}

impl<T: TextForm> Written<T> {
    /// The same value in its canonical spelling.
    pub fn canonical(&self) -> Self
    where
        T: Clone,
    {
        Self::from(self.value.clone())
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<T: TextForm> From<T> for Written<T> {
    fn from(value: T) -> Self {
        Self { text: value.to_string(), value }
    }
}

impl<T: TextForm> FromStr for Written<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        Ok(Self { value: text.parse()?, text: text.to_owned() })
    }
}

impl<T> Deref for Written<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Written<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Written<T> {}

impl<T> fmt::Debug for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl<T: TextForm> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T: TextForm> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format_args!("'{text}' {}", T::MUST)))
    }
}

impl<T: TextForm> JsonSchema for Written<T> {
    fn schema_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_schema::<T>()
    }
}

/// A text that is not of its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {must}")]
pub struct NotOfTheForm {
    pub text: String,
    pub must: &'static str,
}

impl NotOfTheForm {
    pub fn new<T: TextForm>(text: &str) -> Self {
        Self { text: text.to_owned(), must: T::MUST }
    }
}

/// `0` to `255` without leading zeros, as the standard library reads an octet.
macro_rules! octet {
    () => {
        "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}

/// Four octets.
macro_rules! ipv4 {
    () => {
        concat!("(?:", octet!(), "[.]){3}", octet!())
    };
}

/// The characters of a host name, or of an IPv4 address, and how many.
macro_rules! host_name {
    () => {
        "[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?"
    };
}

/// Labels of RFC 1123 joined by dots, one of them at least no number: numbers and dots alone are read as an address.
macro_rules! labels {
    () => {
        concat!(
            "(?:[0-9]+[.])*",
            "(?:[0-9]*[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?|[0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])",
            "(?:[.][A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
        )
    };
}

/// One IPv4 address, unanchored.
pub(crate) const IPV4: &str = ipv4!();
/// One host name as [`crate::NodeName`] takes it, unanchored: its characters, and how many.
pub(crate) const HOST_NAME: &str = host_name!();
/// The labels of such a host name, unanchored.
pub(crate) const LABELS: &str = labels!();

impl TextForm for Ipv4Addr {
    const NAME: &'static str = "Ipv4";
    const MUST: &'static str =
        "must be an IPv4 address of four numbers from 0 to 255, such as '192.168.10.2'";
    const EXAMPLES: &'static [&'static str] = &["192.168.10.2"];
    fn pattern() -> Cow<'static, str> {
        concat!("^", ipv4!(), "$").into()
    }
}

fn patterns<T: TextForm>() -> Vec<Regex> {
    let compiled = |pattern: Cow<'_, str>| Regex::new(&pattern).expect("a constant that every test compiles");
    std::iter::once(T::pattern()).chain(T::second_pattern()).map(compiled).collect()
}

/// Defines a string type that is nothing but its pattern, or its two patterns.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $pattern:expr $(, and $second:expr)?, $must:literal, [$($example:literal),*]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TextForm for $name {
            const NAME: &'static str = stringify!($name);
            const MUST: &'static str = $must;
            const EXAMPLES: &'static [&'static str] = &[$($example),*];
            fn pattern() -> Cow<'static, str> {
                $pattern.into()
            }
            $(
                fn second_pattern() -> Option<Cow<'static, str>> {
                    Some($second.into())
                }
            )?
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotOfTheForm;
            fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
                static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(patterns::<$name>);
                let is_of_the_form = PATTERNS.iter().all(|pattern| pattern.is_match(text));
                if is_of_the_form { Ok(Self(text.to_owned())) } else { Err(NotOfTheForm::new::<Self>(text)) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                text_schema::<Self>()
            }
        }
    };
}

text!(
    /// A host bridge: what Linux takes for the name of an interface.
    BridgeName,
    "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$",
    "must be the name of a Linux bridge: 1 to 15 characters of a-z, A-Z, 0-9, '_', '-' and '.'",
    ["br_zsn0"]
);
text!(
    /// A time source: a host name or an IPv4 address. Blanks around it are read over, because the 2.5.1 manual's
    /// own example has one.
    TimeServer,
    concat!("^ *", host_name!(), " *$"),
    and concat!("^ *(?:", ipv4!(), "|", labels!(), ") *$"),
    "must be a host name or an IPv4 address",
    ["192.168.10.11", "time1.example.com"]
);
text!(
    /// A Ceph monitor: a host name or an IPv4 address, with or without a port.
    MonAddress,
    concat!("^", host_name!(), "(?::[1-9][0-9]{0,4})?$"),
    and concat!("^(?:", ipv4!(), "|", labels!(), ")(?::[1-9][0-9]{0,4})?$"),
    "must be a host name or an IPv4 address, with or without ':PORT'",
    ["192.168.10.11", "192.168.10.11:6789"]
);
text!(
    /// A Ceph pool; empty where there is none.
    PoolText,
    "^[A-Za-z0-9_.-]*$",
    "must be the name of a Ceph pool (characters of a-z, A-Z, 0-9, '_', '-' and '.'), or empty for FileConf",
    ["", "zsha"]
);
text!(
    /// An absolute folder; empty where there is none.
    FolderText,
    "^(?:/[^\\x00-\\x1f\\x7f]*)?$",
    "must be an absolute path, such as '/opt/smp/mngt/', or empty for CephConf",
    ["/opt/smp/mngt/", ""]
);
text!(
    /// An absolute path.
    AbsolutePath,
    "^/[^\\x00-\\x1f\\x7f]*$",
    "must be an absolute path, such as '/opt/smp/mngt/'",
    ["/opt/smp/mngt/"]
);
text!(
    /// The source of a mount: `HOST:/PATH`, or whatever else the file system's own mount program takes.
    MountSource,
    "^[^\\x00-\\x20\\x7f-][^\\x00-\\x20\\x7f]*$",
    "must be what is to be mounted, such as '10.0.0.9:/share/mngt', without blanks, and must not begin with '-'",
    ["10.0.0.9:/share/mngt"]
);
text!(
    /// A file system as mount(8) names it.
    FsType,
    "^[a-z][a-z0-9._-]{0,31}$",
    "must be the name of a file system as mount(8) takes it, such as 'nfs4'",
    ["nfs4", "nfs"]
);
text!(
    /// Mount options as in fstab(5).
    MountOptions,
    "^(?:[A-Za-z0-9_][^\\x00-\\x20\\x7f]*)?$",
    "must be mount options as in fstab(5), separated by commas without blanks, such as 'hard,timeo=50'",
    ["hard,timeo=50"]
);

impl TimeServer {
    /// The host, without the blanks around it.
    pub fn host(&self) -> &str {
        self.0.trim_matches(' ')
    }

    pub(crate) fn canonical(&self) -> Self {
        Self(self.host().to_owned())
    }
}

impl MonAddress {
    /// The host, without the port.
    pub fn host(&self) -> &str {
        self.0.split_once(':').map_or(self.as_str(), |(host, _)| host)
    }

    /// The port as it was written, where one was.
    pub fn port(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, port)| port)
    }
}

impl PoolText {
    pub(crate) fn none() -> Self {
        Self(String::new())
    }
}

impl MountOptions {
    pub(crate) fn none() -> Self {
        Self(String::new())
    }
}

impl FolderText {
    pub(crate) fn none() -> Self {
        Self(String::new())
    }

    pub(crate) fn canonical(&self) -> Self {
        Self(folder(&self.0))
    }
}

impl AbsolutePath {
    pub(crate) fn canonical(&self) -> Self {
        Self(folder(&self.0))
    }
}

/// A folder with one slash between its parts and one at its end.
fn folder(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let joined = parts.fold(String::new(), |path, part| path + "/" + part);
    if path.is_empty() { joined } else { joined + "/" }
}
