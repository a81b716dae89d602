//! Makes serde's derived readers as strict as the schema. They would take a list of values in the place of a mapping,
//! and a mapping in the place of a word. The type derives with `#[serde(remote = "Self")]`, and reads through these.
//!
//! Never here: a rule about any value.

/// Structs that are read from mappings only.
macro_rules! from_mapping_only {
    ($($type:ident),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Mapping;
                impl<'de> serde::de::Visitor<'de> for Mapping {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a mapping")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$type, A::Error> {
                        $type::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_map(Mapping)
            }
        }

        $crate::document::strict::serialize_as_derived!($type);
    )*};
}

/// Enums that are read from words only.
macro_rules! from_word_only {
    ($($type:ident),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Word;
                impl serde::de::Visitor<'_> for Word {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a word")
                    }

                    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<$type, E> {
                        $type::deserialize(serde::de::value::StrDeserializer::new(word))
                    }
                }
                deserializer.deserialize_str(Word)
            }
        }

        $crate::document::strict::serialize_as_derived!($type);
    )*};
}

macro_rules! serialize_as_derived {
    ($type:ident) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $type::serialize(self, serializer)
            }
        }
    };
}

pub(super) use {from_mapping_only, from_word_only, serialize_as_derived};
