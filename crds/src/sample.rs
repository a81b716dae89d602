//! The documents that `config-sample` prints, for a person to start from. They are right as they stand, and have a word
//! on every field.
//!
//! Never here: writing them anywhere.

use sha2::{Digest, Sha256};

use crate::document::{ImageType, MacAddress};

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// YAML in the envelope.
    Yaml,
    /// The flat config.json of zsha 2.5.1, with comments.
    ConfigJson,
}

/// A sample. `seed` decides the NICs' MAC addresses. Two clusters on one network must not have the same, so a caller
/// gives another seed each time.
pub fn sample(image_type: ImageType, form: Form, seed: u64) -> String {
    let template = match form {
        Form::Yaml => include_str!("sample/template.yaml"),
        Form::ConfigJson => include_str!("sample/template.config.json"),
    };
    let [first, second] = macs(seed);
    let image = match (image_type, form) {
        (ImageType::FileConf, Form::Yaml) => include_str!("sample/file.yaml"),
        (ImageType::CephConf, Form::Yaml) => include_str!("sample/ceph.yaml"),
        (ImageType::FileConf, Form::ConfigJson) => include_str!("sample/file.config.json"),
        (ImageType::CephConf, Form::ConfigJson) => include_str!("sample/ceph.config.json"),
    };
    template
        .replace("@IMAGE@\n", image)
        .replace("@MAC0@", &first.to_string())
        .replace("@MAC1@", &second.to_string())
}

fn macs(seed: u64) -> [MacAddress; 2] {
    let digest = Sha256::digest(seed.to_be_bytes());
    [0, 6].map(|from| {
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&digest[from..from + 6]);
        MacAddress(bytes).as_local_unicast()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Format, decode};

    #[test]
    fn every_sample_is_a_document_without_a_fault_or_a_warning() {
        for image_type in [ImageType::FileConf, ImageType::CephConf] {
            for (form, name, format) in [
                (Form::Yaml, "sample.yaml", Format::Yaml),
                (Form::ConfigJson, "sample.json", Format::ConfigJson),
            ] {
                let text = sample(image_type, form, 7);
                let decoded = decode(&text, name).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
                assert!(decoded.warnings.is_empty(), "{}", decoded.warnings);
                assert_eq!((decoded.cluster.image_type(), decoded.format), (image_type, format));
            }
        }
    }

    #[test]
    fn a_yaml_sample_tells_editors_its_schema_in_the_first_line() {
        let text = sample(ImageType::FileConf, Form::Yaml, 7);
        assert_eq!(text.lines().next(), Some("# yaml-language-server: $schema=zsha.schema.json"));
    }

    #[test]
    fn another_seed_gives_other_mac_addresses_and_nothing_else() {
        let (a, b) = (sample(ImageType::FileConf, Form::Yaml, 1), sample(ImageType::FileConf, Form::Yaml, 2));
        let differing: Vec<_> = a.lines().zip(b.lines()).filter(|(a, b)| a != b).collect();
        assert!(differing.iter().all(|(line, _)| line.contains("MacAddress")) && differing.len() == 2);
    }
}
