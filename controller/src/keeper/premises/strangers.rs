//! Tests what a local user without any right can do to a keeper's directory and its names. Only root can play such a
//! user.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::*;
use crate::keeper::names::stranger::Stranger;

#[test]
fn a_keeper_starts_where_a_stranger_holds_its_name_and_its_file_still_keeps_a_second_one_out() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("c");
    let Some(stranger) = Stranger::who_holds(&names::keeper(&directory), "\n") else { return };
    let first = Premises::claim(&directory).unwrap();
    assert!(first._name.is_none());
    let refused = Premises::claim(&directory).unwrap_err();
    assert!(format!("{refused:#}").contains("another keeper holds"), "{refused:#}");
    drop((first, stranger));
    assert!(Premises::claim(&directory).unwrap()._name.is_some());
}

#[test]
fn a_stranger_reads_writes_and_connects_to_nothing_of_a_keepers() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // So that only what the keeper makes stands in the way.
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    let directory = root.path().join("c");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut premises = Premises::claim(&directory).unwrap();
    let _listener = premises.bind().unwrap();
    fs::write(directory.join("state.json"), "{}").unwrap();
    let tries = |script: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "it"]).arg(&directory).uid(65_534).gid(65_534).output().unwrap()
    };
    assert!(tries("ls -d \"$1\"").status.success(), "it sees that there is something");
    for script in [
        "ls \"$1\"",
        "cat \"$1/state.json\"",
        "echo '{}' > \"$1/state.json\"",
        "touch \"$1/new\"",
        "mv \"$1\" \"$1.old\"",
        "ln -s /etc/passwd \"$1.next\"",
        "rm -f \"$1/keeper.sock\"; rm -r \"$1\"",
        "test -S \"$1/keeper.sock\"",
        "flock -n \"$1/keeper.lock\" true",
    ] {
        let tried = tries(script);
        assert!(!tried.status.success(), "{script}: {tried:?}");
    }
    assert!(socket_path(&directory).exists() && directory.join("state.json").exists());
}
