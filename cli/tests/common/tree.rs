//! The files of the repository, for the tests that read them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of a file of the repository.
pub fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every Rust file below `place`, by its path from the root.
pub fn rust_files(place: &str) -> Vec<String> {
    let (mut found, mut places) = (Vec::new(), vec![root().join(place)]);
    while let Some(place) = places.pop() {
        if place.is_file() {
            found.push(place.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            continue;
        }
        for entry in fs::read_dir(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display())) {
            let path = entry.unwrap().path();
            let is_code = path.extension().is_some_and(|ending| ending == "rs");
            if is_code || (path.is_dir() && !path.ends_with("target")) {
                places.push(path);
            }
        }
    }
    found.sort();
    found
}
