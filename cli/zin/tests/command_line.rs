//! What the program itself answers: its exit codes, and that it says what is missing.

use std::process::{Command, Output};

fn zin(arguments: &[&str]) -> Output {
    let root = tempfile::tempdir().expect("an empty guest");
    Command::new(env!("CARGO_BIN_EXE_zin"))
        .args(arguments)
        .arg("--root")
        .arg(root.path())
        .output()
        .expect("zin runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_guest_that_was_told_nothing_is_said_to_be_so_with_a_code_of_its_own() {
    let said = zin(&[]);
    assert_eq!(said.status.code(), Some(3));
    assert!(said.stdout.is_empty(), "{}", text(&said.stdout));
    let error = text(&said.stderr);
    assert!(error.starts_with("error: the guest was told nothing"), "{error}");
    assert!(error.contains("cloud-init status --long"), "{error}");
}

#[test]
fn an_unknown_flag_is_a_usage_error_and_the_version_needs_no_guest() {
    assert_eq!(zin(&["--instal"]).status.code(), Some(2));
    assert_eq!(zin(&["--version", "--json"]).status.code(), Some(2));
    let version = zin(&["-v"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).starts_with("App Version: "), "{}", text(&version.stdout));
}
