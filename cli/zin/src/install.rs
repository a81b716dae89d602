//! Putting this very program in its place: a newer build that was brought into the guest is the bundle itself.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

pub(crate) const PLACE: &str = "/usr/bin/zin";

/// Installs this program in a guest. Returns what was done, as a sentence.
pub(crate) fn install(root: &Path, version: &str) -> Result<String, String> {
    let us = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    install_from(&us, root, version)
}

fn install_from(bundle: &Path, root: &Path, version: &str) -> Result<String, String> {
    let place = root.join(PLACE.trim_start_matches('/'));
    let named = |error: io::Error| format!("{}: {error}", place.display());
    let new = fs::read(bundle).map_err(|error| format!("{}: {error}", bundle.display()))?;
    let before = match fs::read(&place) {
        Ok(old) if old == new => {
            return Ok(format!("{PLACE} is this build already (App Version: {version})"));
        }
        Ok(_) => Some(version_of(&place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(named(error)),
    };
    replace(&place, &new).map_err(named)?;
    Ok(match before {
        Some(before) => format!("{PLACE} is upgraded: App Version: {version} (before: {before})"),
        None => format!("{PLACE} is installed: App Version: {version}"),
    })
}

/// Replaces a file at once: whoever starts it meanwhile gets the old one or the new one.
fn replace(place: &Path, content: &[u8]) -> io::Result<()> {
    let directory = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let beside = directory.join(format!(".zin.{}", std::process::id()));
    let written = write(&beside, content).and_then(|()| fs::rename(&beside, place));
    if written.is_err() {
        // What went wrong is told; half a file is left to nobody.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut to = fs::File::create(file)?;
    to.write_all(content)?;
    to.set_permissions(fs::Permissions::from_mode(0o755))?;
    to.sync_all()
}

/// The version as the program there says itself.
fn version_of(program: &Path) -> String {
    let said = Command::new(program).arg("-v").output().ok();
    let said = said.and_then(|said| String::from_utf8(said.stdout).ok()).unwrap_or_default();
    said.lines().find_map(|line| line.strip_prefix("App Version: ")).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_installed_then_upgraded_then_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let bundle = root.path().join("bundle");
        let put = |version: &str| {
            fs::write(&bundle, format!("#!/bin/sh\necho 'App Version: {version}'\n")).unwrap()
        };
        put("1.0");
        let done = |version: &str| install_from(&bundle, root.path(), version).unwrap();
        assert_eq!(done("1.0"), "/usr/bin/zin is installed: App Version: 1.0");
        put("2.0");
        assert_eq!(done("2.0"), "/usr/bin/zin is upgraded: App Version: 2.0 (before: 1.0)");
        assert_eq!(done("2.0"), "/usr/bin/zin is this build already (App Version: 2.0)");
        let place = root.path().join("usr/bin");
        let mode = fs::metadata(place.join("zin")).unwrap().permissions().mode();
        assert_eq!(
            (mode & 0o777, fs::read_dir(&place).unwrap().count()),
            (0o755, 1),
            "nothing is left beside it"
        );
    }

    #[test]
    fn where_it_cannot_be_put_what_is_there_stays() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin/zin")).unwrap();
        let bundle = root.path().join("bundle");
        fs::write(&bundle, "x").unwrap();
        assert!(install_from(&bundle, root.path(), "1").unwrap_err().contains("usr/bin/zin"));
        assert!(root.path().join("usr/bin/zin").is_dir());
    }
}
