//! The house keeps its own rules: what ARCHITECTURE.md says that a room never does is not in its code, and every file
//! says at its head what it is for.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;

#[path = "common/tree.rs"]
mod tree;

use tree::{root, rust_files, text};

/// The code of a file: without comments and without the tests at its end.
fn code(file: &str) -> String {
    let text = text(file);
    let until_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    until_tests.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("tests.rs") || file.ends_with("testing.rs")
}

const WAITS: [&str; 3] = ["async fn", "async move", ".await"];
const TOUCHES: [&str; 5] = ["std::fs", "fs::read", "fs::write", "std::process::Command", "TcpStream"];
const READS_A_CLOCK: [&str; 5] =
    ["Instant::now", "SystemTime::now", "Timestamp::now", "clock.now()", "wall_now("];

/// A room, what is never in it, and why.
const NEVER: [(&str, &[&[&str]], &str); 9] = [
    ("crds/src", &[&WAITS, &TOUCHES, &READS_A_CLOCK], "it is types and rules, for everybody"),
    ("controller/runtime/src", &[&["virt::", "clap::", "Hypervisor"]], "it knows nothing of VMs"),
    ("controller/src/plan", &[&WAITS, &TOUCHES, &READS_A_CLOCK, &["Edges"]], "it decides, and does nothing"),
    (
        "controller/src/plan.rs",
        &[&WAITS, &TOUCHES, &READS_A_CLOCK, &["Edges"]],
        "it decides, and does nothing",
    ),
    ("controller/src/world.rs", &[&WAITS, &TOUCHES, &READS_A_CLOCK], "it is what was seen"),
    ("controller/src/hypervisor/simulated/state.rs", &[&WAITS, &READS_A_CLOCK], "it is a world of values"),
    ("controller/runtime/src/lease.rs", &[&WAITS, &TOUCHES, &READS_A_CLOCK], "it is the pure machine"),
    ("cli/src", &[&["virt::", "libvirt::", "zsha_controller"]], "it works where no controller does"),
    ("cli/zin/src", &[&["TcpStream", "UnixStream", "send_to"]], "it asks nobody but the guest"),
];

#[test]
fn what_a_room_never_does_is_not_in_it() {
    let mut found = Vec::new();
    for (room, kinds, why) in NEVER {
        let inside = rust_files(room);
        assert!(!inside.is_empty(), "{room} is gone: mend this table and ARCHITECTURE.md");
        for file in inside.iter().filter(|file| !is_test(file)) {
            let code = code(file);
            let words = kinds.iter().flat_map(|kind| kind.iter());
            found.extend(
                words
                    .filter(|word| code.contains(**word))
                    .map(|word| format!("{file}: `{word}` is not for {room}: {why}")),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Or the test above could not fail.
#[test]
fn a_clock_and_a_wait_are_seen_where_they_are_allowed() {
    let edge = code("controller/src/observe.rs");
    assert!(edge.contains(".await") && edge.contains("clock.now()"));
    assert!(!edge.contains("//!"), "comments are no code");
}

#[test]
fn every_file_says_at_its_head_what_it_is_for() {
    let rooms = ["crds", "controller", "cli", "e2e"];
    let silent: Vec<_> = rooms
        .iter()
        .flat_map(|room| rust_files(room))
        .filter(|file| !text(file).starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no `//!` at the head of: {}", silent.join(", "));
}

#[test]
fn architecture_names_every_file_of_the_controller() {
    let page = text("ARCHITECTURE.md");
    let mut missing = Vec::new();
    for place in ["controller/src", "controller/src/plan"] {
        for entry in fs::read_dir(root().join(place)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".rs").filter(|name| !["lib", "main", "tests"].contains(name))
            else {
                continue;
            };
            let named = ["`", "/", ""].iter().any(|before| {
                ["`", ".rs`", "/`"].iter().any(|after| page.contains(&format!("{before}{name}{after}")))
            });
            if !named {
                missing.push(format!("{place}/{name}.rs"));
            }
        }
    }
    missing.sort();
    assert!(missing.is_empty(), "ARCHITECTURE.md says nothing of: {}", missing.join(", "));
}

/// A filter that matches nothing is no error to nextest.
#[test]
fn the_smoke_of_the_lab_has_its_three_tests() {
    let filter = text(".config/nextest.toml");
    let named = filter.split("or test(/^(").nth(1).unwrap().split(')').next().unwrap();
    let scenarios = text("e2e/tests/failover.rs");
    let known = |name: &&str| scenarios.contains(&format!("\nfn {name}"));
    assert_eq!(named.split('|').filter(known).count(), 3, "{named}");
}
