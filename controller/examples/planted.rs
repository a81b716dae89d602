//! Plants every bug there is, one by one, and sees that each is found by what is said to find it: `make planted`. Ends
//! with 1 if one is not. The arguments are the programs of the controller's and of the lease machine's unit tests.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use zsha_controller::planted::{self, Bug};
use zsha_controller::sim;
use zsha_runtime::Clock;

/// The file that says what finds each bug.
const FINDERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/planted.txt");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finder<'t> {
    /// The simulator violates something within so many seeds.
    Seeds(u64),
    /// This test of this program fails.
    Test { program: &'t str, name: &'t str },
}

/// The finder of each bug, by the bug's name.
type Finders<'t> = BTreeMap<&'t str, Finder<'t>>;

fn finders<'t>(table: &'t str, [controller, lease]: [&'t str; 2]) -> Result<Finders<'t>, String> {
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let finder = |line: &'t str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [bug, "seeds", most] => Some((*bug, Finder::Seeds(most.parse().ok()?))),
        [bug, "test", name] => Some((*bug, Finder::Test { program: controller, name })),
        [bug, "lease", name] => Some((*bug, Finder::Test { program: lease, name })),
        _ => None,
    };
    lines.map(|line| finder(line).ok_or_else(|| format!("{FINDERS}: '{line}' names no finder"))).collect()
}

/// The way and the place in which a bug showed, or why it did not.
type Outcome = Result<(&'static str, String), String>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [controller, lease] = arguments.as_slice() else {
        eprintln!("usage: planted TESTS-OF-THE-CONTROLLER TESTS-OF-THE-LEASE");
        return ExitCode::from(2);
    };
    let started = Clock::Boottime.now();
    let outcomes =
        std::fs::read_to_string(FINDERS).map_err(|error| format!("{FINDERS}: {error}")).and_then(|table| {
            let finders = finders(&table, [controller, lease])?;
            all_pass_without(&finders)?;
            Ok(each_planted(&finders))
        });
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut missed = 0;
    for (bug, outcome) in Bug::ALL.iter().zip(outcomes) {
        let (by, place) = outcome.unwrap_or_else(|why| {
            missed += 1;
            ("NOT FOUND", why)
        });
        println!("{:<26} {by:<10} {place}", bug.name());
    }
    let secs = Clock::Boottime.now().since(started).as_secs_f64();
    println!("{} planted in {secs:.0} s; not found: {missed}", Bug::ALL.len());
    ExitCode::from(u8::from(missed > 0))
}

/// Plants one bug after another, on every core.
fn each_planted(finders: &Finders<'_>) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![Err("it was not tried".to_owned()); Bug::ALL.len()]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = Bug::ALL.get(number) else { return };
                    let outcome = found(*bug, finders.get(bug.name()));
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes[number] = outcome;
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn found(bug: Bug, finder: Option<&Finder<'_>>) -> Outcome {
    match finder {
        None => Err(format!("{FINDERS} does not say what finds it")),
        Some(Finder::Seeds(most)) => {
            planted::plant(Some(bug));
            let found = (0..*most).find_map(|seed| Some((seed, sim::run(seed).violations.first()?.clone())));
            planted::plant(None);
            found
                .map(|(seed, violation)| ("simulator", format!("seed {seed}: {violation}")))
                .ok_or_else(|| format!("{most} seeds violate nothing"))
        }
        Some(Finder::Test { program, name }) => fails(program, name, bug).map(|place| ("test", place)),
    }
}

/// The line at which this test fails with the bug in it; an error if it does not fail.
fn fails(program: &str, name: &str, bug: Bug) -> Result<String, String> {
    let run = Command::new(program)
        .args(["--exact", name])
        .env(zsha_runtime::planted::VARIABLE, bug.name())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&run.stdout);
    if run.status.success() || !said.contains(&format!("test {name} ... FAILED")) {
        return Err(format!("{name} does not fail"));
    }
    let line = said.lines().find_map(|line| line.split_once(" panicked at ")).map(|(_, place)| place);
    Ok(format!("{name} ({})", line.unwrap_or_default().trim_end_matches(':')))
}

/// A test that is not there, or that fails by itself, finds nothing.
fn all_pass_without(finders: &Finders<'_>) -> Result<(), String> {
    let mut tests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for finder in finders.values() {
        if let Finder::Test { program, name } = finder {
            tests.entry(program).or_default().push(name);
        }
    }
    for (program, names) in tests {
        let run = Command::new(program).arg("--exact").args(&names).output();
        let run = run.map_err(|error| format!("{program}: {error}"))?;
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        if let Some(name) = names.iter().find(|name| !said.contains(&format!("test {name} ... ok"))) {
            return Err(format!("{name} does not pass without a bug, or is not there\n{said}"));
        }
    }
    Ok(())
}
