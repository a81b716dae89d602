//! Plants every bug there is, one by one, and sees that each is found by what is said to find it: `make planted`. Ends
//! with 1 if one is not. The arguments are the programs of the controller's and of the lease machine's unit tests.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use zsha_controller::planted::{self, Bug};
use zsha_controller::sim;
use zsha_controller::sim::proof::{Finder, finder};
use zsha_runtime::Clock;

/// The programs that hold the tests.
struct Programs<'p> {
    controller: &'p str,
    lease: &'p str,
}

/// Where it showed, or why it did not.
type Outcome = Result<String, String>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [controller, lease] = arguments.as_slice() else {
        eprintln!("usage: planted TESTS-OF-THE-CONTROLLER TESTS-OF-THE-LEASE");
        return ExitCode::from(2);
    };
    let programs = Programs { controller, lease };
    let started = Clock::Boottime.now();
    if let Err(error) = all_pass_without(&programs) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let outcomes = each_planted(&programs);
    let mut missed = 0;
    for (bug, outcome) in Bug::ALL.iter().zip(outcomes) {
        let (by, place) = match (finder(*bug), outcome) {
            (_, Err(why)) => {
                missed += 1;
                ("NOT FOUND", why)
            }
            (Finder::Seeds(_), Ok(place)) => ("simulator", place),
            (Finder::Test(_) | Finder::LeaseTest(_), Ok(place)) => ("test", place),
        };
        println!("{:<26} {by:<10} {place}", bug.name());
    }
    let secs = Clock::Boottime.now().since(started).as_secs_f64();
    println!("{} planted in {secs:.0} s; not found: {missed}", Bug::ALL.len());
    ExitCode::from(u8::from(missed > 0))
}

/// On every core, one bug after another.
fn each_planted(programs: &Programs<'_>) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![Err("it was not tried".to_owned()); Bug::ALL.len()]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = Bug::ALL.get(number) else { return };
                    let outcome = found(programs, *bug);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes[number] = outcome;
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn found(programs: &Programs<'_>, bug: Bug) -> Outcome {
    match finder(bug) {
        Finder::Seeds(most) => {
            planted::plant(Some(bug));
            let found = (0..most).find_map(|seed| Some((seed, sim::run(seed).violations.first()?.clone())));
            planted::plant(None);
            found
                .map(|(seed, violation)| format!("seed {seed}: {violation}"))
                .ok_or_else(|| format!("{most} seeds violate nothing"))
        }
        Finder::Test(name) => fails(programs.controller, name, bug),
        Finder::LeaseTest(name) => fails(programs.lease, name, bug),
    }
}

/// Whether this test fails with the bug in it, and at which line.
fn fails(program: &str, name: &str, bug: Bug) -> Outcome {
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
fn all_pass_without(programs: &Programs<'_>) -> Result<(), String> {
    let of = |lease: bool| -> BTreeSet<&str> {
        let names = Bug::ALL.iter().filter_map(|bug| match finder(*bug) {
            Finder::Test(name) if !lease => Some(name),
            Finder::LeaseTest(name) if lease => Some(name),
            Finder::Seeds(_) | Finder::Test(_) | Finder::LeaseTest(_) => None,
        });
        names.collect()
    };
    for (program, names) in [(programs.controller, of(false)), (programs.lease, of(true))] {
        let run = Command::new(program).arg("--exact").args(&names).output();
        let run = run.map_err(|error| format!("{program}: {error}"))?;
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        if let Some(name) = names.iter().find(|name| !said.contains(&format!("test {name} ... ok"))) {
            return Err(format!("{name} does not pass without a bug, or is not there\n{said}"));
        }
    }
    Ok(())
}
