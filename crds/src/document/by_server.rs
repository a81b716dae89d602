//! Fields of the metadata that the server writes. They are read, so that what `zsha get` prints can be applied, and
//! dropped.
//!
//! Never here: a value. Nothing may come to depend on what somebody sends in their place.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::IgnoredAny};

/// The place of a value that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ByServer;

impl ByServer {
    /// Always true: the field is never written.
    pub(super) fn is_dropped(&self) -> bool {
        true
    }
}

impl Serialize for ByServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for ByServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for ByServer {
    fn schema_name() -> Cow<'static, str> {
        "ByServer".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "readOnly": true })
    }
}
