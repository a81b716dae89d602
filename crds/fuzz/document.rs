//! Whatever bytes a person hands over as a document: no panic, every fault can be shown, and what is taken is taken
//! again from its stored form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zsha_crds::decode::{Options, decode_bytes, decode_value};
use zsha_crds::diagnostic::Look;

fuzz_target!(|data: &[u8]| {
    match decode_bytes(data, "fuzz.yaml", &Options::default()) {
        Ok(decoded) => {
            let stored = serde_json::to_value(&decoded.cluster).expect("a document serialises");
            if let Err(faults) = decode_value(&stored) {
                panic!("taken from a file and refused from the store: {faults}");
            }
        }
        Err(faults) => assert!(!faults.render(Look::Plain).is_empty()),
    }
});
