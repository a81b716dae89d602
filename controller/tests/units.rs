//! The units for systemd, as systemd reads them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 3] = ["zsha-keeper.service", "zsha-controller.service", "zsha-host.service"];
/// Whatever could start a copy of the VM after a boot.
const STARTERS: [&str; 3] = ["libvirtd.service", "virtqemud.service", "libvirt-guests.service"];

fn text(unit: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/systemd").join(unit);
    std::fs::read_to_string(file).unwrap()
}

/// Every value that a unit gives a key, in however many lines.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = text(unit);
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_keeper_comes_before_whatever_could_start_a_copy_and_waits_for_nothing() {
    let before = values("zsha-keeper.service", "Before");
    for starter in STARTERS {
        assert!(before.iter().any(|unit| unit == starter), "{starter}: {before:?}");
    }
    for key in ["After", "Wants", "Requires", "BindsTo", "Requisite"] {
        assert_eq!(values("zsha-keeper.service", key), Vec::<String>::new(), "{key}");
    }
}

#[test]
fn no_unit_takes_another_down_with_it() {
    for unit in UNITS {
        for key in ["Requires", "BindsTo", "PartOf", "Requisite", "Conflicts", "Upholds", "PropagatesStopTo"]
        {
            assert_eq!(values(unit, key), Vec::<String>::new(), "{unit}: {key}");
        }
    }
}

/// Beside libvirt's own units, where this machine has them. Ours stand in for programs that are not installed.
#[test]
fn systemd_finds_no_fault_and_no_cycle_in_them() {
    let analyze = PathBuf::from("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut asked = Vec::new();
    for unit in UNITS {
        let file = directory.path().join(unit);
        std::fs::write(&file, text(unit).replace("/usr/bin/zsha-controller", "/bin/true")).unwrap();
        asked.push(file);
    }
    let theirs = STARTERS.map(|unit| Path::new("/lib/systemd/system").join(unit));
    asked.extend(theirs.into_iter().filter(|file| file.exists()));
    let path = format!("{}:/lib/systemd/system", directory.path().display());
    let verified = Command::new(analyze)
        .args(["verify", "--man=no", "--recursive-errors=yes"])
        .args(&asked)
        .env("SYSTEMD_UNIT_PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("zsha") || line.contains("cycle")).collect();
    assert!(ours.is_empty(), "{said}");
}
