//! Files that commands write for people, under names that others know.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::exit::Exit;
use crate::failure::Failure;

/// The forms that `-o` names in other commands, where this command takes a file.
const FORMS: [&str; 5] = ["json", "yaml", "table", "wide", "name"];

/// Refuses a form in the place of a file: it would come to be a file of that name.
pub fn is_meant(command: &str, path: &Path) -> Result<(), Failure> {
    let Some(form) = FORMS.iter().find(|form| path == Path::new(form)) else { return Ok(()) };
    let ending = if *form == "yaml" { "yaml" } else { "json" };
    Err(Failure::usage(format!("-o must name a file for `{command}`, and '{form}' is a form of output"))
        .hint(format!("-o cluster.{ending}; for a file of that very name: -o ./{form}")))
}

/// Writes it whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    replace(path, text).map_err(|error| {
        Failure::new(Exit::General, "Unwritable", format!("{} cannot be written", path.display()))
            .cause(error.to_string())
            .hint("name another file: -o FILE, or print it: -o -")
    })
}

/// Anybody may put a link under a known name into /tmp, and root runs this: a new file takes the name's place, and
/// nothing is written through it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", uuid::Uuid::new_v4()));
    let new = path.with_file_name(hidden);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let done = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, path));
    if done.is_err() {
        // The error that is told is the first one.
        let _ = fs::remove_file(&new);
    }
    done
}
