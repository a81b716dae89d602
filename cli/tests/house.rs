//! The house keeps its own rules: what ARCHITECTURE.md says that a room never does is not in its code, and every file
//! says at its head what it is for.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
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
const NEVER: [(&str, &[&[&str]], &str); 15] = [
    ("crds/src", &[&WAITS, &TOUCHES, &READS_A_CLOCK], "it is types and rules, for everybody"),
    (
        "controller/runtime/src",
        &[&["virt::", "clap::", "Hypervisor", "println!"]],
        "it runs no VM, and is no command",
    ),
    ("controller/src/plan", &[&WAITS, &TOUCHES, &READS_A_CLOCK, &["Edges"]], "it decides, and does nothing"),
    (
        "controller/src/plan.rs",
        &[&WAITS, &TOUCHES, &READS_A_CLOCK, &["Edges"]],
        "it decides, and does nothing",
    ),
    ("controller/src/world.rs", &[&WAITS, &TOUCHES, &READS_A_CLOCK], "it is what was seen"),
    ("controller/src/hypervisor/simulated/state.rs", &[&WAITS, &READS_A_CLOCK], "it is a world of values"),
    ("controller/src/hypervisor/simulated/host.rs", &[&WAITS, &READS_A_CLOCK], "it is a world of values"),
    ("controller/src/hypervisor/simulated/request.rs", &[&WAITS, &READS_A_CLOCK], "it is a world of values"),
    ("controller/src/hypervisor/simulated/mishaps.rs", &[&WAITS, &READS_A_CLOCK], "it is a world of values"),
    ("controller/src/hypervisor/simulated/moving.rs", &[&WAITS, &READS_A_CLOCK], "it is a world of values"),
    (
        "controller/src/keeper/second_net/decision.rs",
        &[&WAITS, &TOUCHES, &READS_A_CLOCK],
        "it decides by values",
    ),
    ("controller/src/keeper/watchdog/timing.rs", &[&WAITS, &TOUCHES, &READS_A_CLOCK], "it decides by values"),
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

/// A second VM in a cluster then changes one place, and no format.
#[test]
fn which_vm_a_cluster_keeps_is_said_in_crds_alone() {
    let says = |file: &String| !is_test(file) && code(file).contains("VmName::management");
    let rooms = ["controller", "cli", "e2e"].into_iter().flat_map(rust_files);
    let found: Vec<_> = rooms.filter(says).collect();
    assert!(found.is_empty(), "ask `VmId::of` or a document, and pass on what it says: {found:?}");
    assert!(rust_files("crds/src").iter().any(says), "it is called something else by now: mend this test");
}

/// The test above could pass because it sees nothing; this one shows that it sees.
#[test]
fn a_clock_and_a_wait_are_seen_where_they_are_allowed() {
    let edge = code("controller/src/observe.rs");
    assert!(edge.contains(".await") && edge.contains("clock.now()"));
    assert!(!edge.contains("//!"), "comments are no code");
}

/// The paths below `crate` and `super` that the code of a file uses, as modules of the whole crate, `a::b` without
/// `crate`. `super` in `a/b.rs` is `a`.
fn uses(module: &str, code: &str) -> Vec<String> {
    let above = module.rsplit_once("::").map_or("", |(above, _)| above);
    let mut found = Vec::new();
    for (word, base) in [("crate::", ""), ("super::", above)] {
        for (at, _) in code.match_indices(word) {
            let rest = &code[at + word.len()..];
            let rest = rest.split(';').next().unwrap();
            let (path, group) = rest.split_once('{').unwrap_or((rest, ""));
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path: String = path.chars().take_while(|c| is_name(*c)).collect();
            let in_group = group.split(',').map(|name| name.trim().split(|c| !is_name(c)).next().unwrap());
            let joined = |name: &str| format!("{base}::{path}{name}").trim_matches(':').to_owned();
            found.extend(std::iter::once("").chain(in_group).map(joined));
        }
    }
    found
}

/// The module that a file is: `commands/apply.rs` is `commands::apply`.
fn module(room: &str, file: &str) -> String {
    let inside = file.strip_prefix(room).unwrap().trim_start_matches('/');
    inside.strip_suffix(".rs").unwrap().replace('/', "::")
}

/// The way by which `from` comes back to itself over what it uses, if there is one.
fn circle(from: &str, uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![from.to_owned()]];
    while let Some(way) = ways.pop() {
        for next in &uses[way.last().unwrap()] {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == from {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

/// Every circle, a line each.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> String {
    let circles = uses.keys().filter_map(|module| circle(module, uses));
    circles.map(|way| way.join(" -> ")).collect::<Vec<_>>().join("\n")
}

/// A command can then be read with what it stands on, and without what stands on it.
#[test]
fn no_module_of_the_command_rests_on_one_that_rests_on_it() {
    let room = "cli/src";
    let files = rust_files(room).into_iter().filter(|file| !is_test(file));
    let modules: BTreeMap<String, String> = files.map(|file| (module(room, &file), code(&file))).collect();
    let of_a_path = |path: &str| {
        let longest_first = std::iter::successors(Some(path), |path| Some(path.rsplit_once("::")?.0));
        longest_first.into_iter().find(|path| modules.contains_key(*path)).map(ToOwned::to_owned)
    };
    let used = |(module, code): (&String, &String)| {
        let used = uses(module, code).iter().filter_map(|path| of_a_path(path)).collect::<BTreeSet<_>>();
        (module.clone(), used.into_iter().filter(|other| other != module).collect())
    };
    let uses: BTreeMap<_, BTreeSet<_>> = modules.iter().map(used).collect();
    assert!(uses["commands::drain"].contains("order") && uses["order"].contains("failure::client"));
    let circles = circles(&uses);
    assert!(circles.is_empty(), "{circles}");
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

/// True if the code needs the other file, by a path or by a method of the owner that stands there.
fn needs(code: &str, other: &str, code_of_other: &str) -> bool {
    let named = ["::", ";"].iter().any(|end| code.contains(&format!("super::{other}{end}")));
    let mut lists = code.split("super::{").skip(1).map(|rest| rest.split("};").next().unwrap());
    let listed = lists.any(|list| list.split([',', ' ', '\n']).any(|word| word == other));
    let of_the_owner = code_of_other.split("impl Upkeep<'_> {").skip(1);
    let mut methods =
        of_the_owner.flat_map(|rest| rest.split("\n}").next().unwrap().split("fn ").skip(1)).map(|rest| {
            let name = rest.split(['(', '<']).next().unwrap();
            [format!("self.{name}("), format!("owner.{name}("), format!("}}).{name}(")]
        });
    let called = code.contains("Upkeep") && methods.any(|ways| ways.iter().any(|way| code.contains(way)));
    named || listed || called
}

#[test]
fn no_files_of_the_plan_need_each_other_in_a_circle() {
    let plan = rust_files("controller/src/plan").into_iter().filter(|file| !is_test(file));
    let name = |file: &String| file.rsplit('/').next().unwrap().trim_end_matches(".rs").to_owned();
    let plan: BTreeMap<String, String> = plan.map(|file| (name(&file), code(&file))).collect();
    assert!(plan.contains_key("upkeep"), "the plan is not where it was: mend this test");
    let needed = |(name, code): (&String, &String)| {
        let others = plan.iter().filter(|(other, of_other)| *other != name && needs(code, other, of_other));
        (name.clone(), others.map(|(other, _)| other.clone()).collect())
    };
    let circles = circles(&plan.iter().map(needed).collect());
    assert!(circles.is_empty(), "files of controller/src/plan need each other:\n{circles}");
}

/// The test above could pass because it sees nothing; this one shows that it sees.
#[test]
fn a_file_that_needs_another_is_seen_to() {
    let owner = "impl Upkeep<'_> {\n    fn stop(&self) {\n    }\n}";
    assert!(needs("use super::heard::Heard;", "heard", ""));
    assert!(needs("use super::{looked, placement};", "placement", ""));
    assert!(needs("impl Upkeep<'_> { fn keep(&self) { self.stop(1); } }", "orders", owner));
    assert!(!needs("use super::host_down::X; fn of(world: &World) { world.stop(); }", "orders", owner));
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
